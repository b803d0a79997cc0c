package cli

import (
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/quorate/quorate/internal/ballot"
	"github.com/quorate/quorate/vote"
)

// FuzzValues: whatever is given as the value of a flag or variable, it is taken or refused in one line that is a matter of usage; and what is taken is within its
// bounds.
func FuzzValues(f *testing.F) {
	for _, s := range []string{"", "3s", "1h1m1.5s", "-3s", "9223372036854775807s", "1e9s", "3", "007", "+5", "0x10", "true", "TRUE", "+10s", "+0s", "+31m", "2026-11-28T18:13:02Z", "2026-11-28T18:13:02.123456789+01:00",
		"9999-12-31T23:59:59Z", "0000-00-00T00:00:00Z", "majority", "10000", "10001", "nats://u:p@h:4222,tls://h", "http://h", ",", "ws://a,nats://b", "a\nb", "\xff"} {
		f.Add(s)
	}
	now := time.Date(2026, 11, 28, 18, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		refused := func(what string, err error) bool {
			if err != nil && (exitCode(err) != ExitUsage || strings.Contains(oneLine(err.Error()), "\n")) {
				t.Errorf("%s %q: code %d, %q", what, s, exitCode(err), err)
			}
			return err != nil
		}
		for _, kind := range []kind{kindBool, kindDuration, kindSeconds, kindInt, kindString} {
			refused("value", checkValue(&flagSpec{name: "x", kind: kind}, s))
		}
		if d, err := parseDuration(s); err == nil && d < 0 {
			t.Errorf("%q is a duration of %v", s, d)
		}
		if at, err := instant(s, now); !refused("--at", err) && (!at.After(now) || at.Sub(now) > ballot.MaxAhead) {
			t.Errorf("--at %q is %v", s, at)
		}
		if k, err := ballot.ParseKind(s); err == nil && k.String() != s {
			t.Errorf("kind %q is %s", s, k)
		}
		refused("servers", checkServers("--server", s))
		// A password does not get into what is shown.
		const secret = "s3cr3t"
		if u := redactURL("nats://user:" + secret + "@" + strings.ReplaceAll(s, "@", "")); strings.Contains(u, secret) && !strings.Contains(s, secret) {
			t.Errorf("%q shows the password", u)
		}
		// What others have said does not move the cursor, and adds no lines.
		lines := strings.Split(strings.TrimSuffix(verdictText(vote.Verdict{Verdict: "no", Silent: []string{s}, Reasons: []vote.Reason{{Member: "a", Text: s}}}), "\n"), "\n")
		if len(lines) > 2 {
			t.Errorf("%q is shown in %d lines", s, len(lines))
		}
		for _, text := range append(lines, oneLine(s), strings.TrimSuffix(outcomeText(vote.Outcome{Reports: []vote.Report{{Member: "a", Status: "failed", Text: s}}}), "\n")) {
			if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) || !utf8.ValidString(text) {
				t.Errorf("%q is shown as %q", s, text)
			}
		}
	})
}
