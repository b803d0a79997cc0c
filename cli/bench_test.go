package cli

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"
)

// All that bench measures is there, in order, and it leaves nothing behind: not even the namespace, if it was not there before.
func TestBench(t *testing.T) {
	t.Parallel()
	env := natsEnv(t)
	bench := func(words ...string) result {
		r := runIn(t, env, append([]string{"bench", "--lease", "1h"}, words...)...)
		for end := time.Now().Add(time.Minute); r.code == ExitUnanswered && time.Now().Before(end); {
			r = runIn(t, env, append([]string{"bench", "--lease", "1h"}, words...)...) // the machine stood still for the second that a write may take
		}
		return r
	}
	r := bench("--for", "20ms", "-j")
	if r.code != 0 {
		t.Fatalf("%+v", r)
	}
	line := `\{"what":"%s","count":\d+,"p50_us":\d+,"p99_us":\d+,"max_us":\d+\}`
	want := `^\{"server":"nats://[^"]+","version":"\d[^"]*","replicas":1,"measured":\[`
	for i, what := range []string{"write", "read", "acquire", "hand-over", "round trip", "vote"} {
		if i > 0 {
			want += ","
		}
		want += strings.Replace(line, "%s", what, 1)
	}
	want += `\],"lease_ms":3600000,"smallest_lease_ms":\d+,"fits":true,"survives_stream_election":true\}\n$`
	if !regexp.MustCompile(want).MatchString(r.stdout) {
		t.Errorf("got %s\nwant %s", r.stdout, want)
	}
	var rep benchReport
	if err := json.Unmarshal([]byte(r.stdout), &rep); err != nil {
		t.Fatal(err)
	}
	for _, l := range rep.Measured {
		if l.Count == 0 || l.P50US <= 0 || l.P50US > l.P99US || l.P99US > l.MaxUS {
			t.Errorf("%+v", l)
		}
	}
	checkLine(t, runIn(t, env, "members", "g"), ExitFailed, "no such group")
	if r := runIn(t, env, "init"); !strings.Contains(r.stdout, "was made") {
		t.Errorf("the namespace was left: %+v", r)
	}
	text := bench("--for", "1ms")
	if text.code != 0 || !regexp.MustCompile(`(?m)^write +\d.*s +\d+$`).MatchString(text.stdout) || !strings.Contains(text.stdout, "A lease of 1h0m0s fits") {
		t.Errorf("%+v", text)
	}
	for l := range strings.Lines(text.stdout) {
		if len([]rune(l)) > 81 {
			t.Errorf("%d columns: %s", len([]rune(l)), l)
		}
	}
	if r := runIn(t, env, "init"); !strings.Contains(r.stdout, "is as it must be") {
		t.Errorf("the namespace is gone: %+v", r)
	}
	if r := runIn(t, env, "groups", "-j"); r.stdout != "[]\n" {
		t.Errorf("a group was left: %+v", r)
	}
	checkLine(t, runIn(t, env, "bench", "--for", "0s"), ExitUsage, "--for 0s")
	checkLine(t, runIn(t, env, "bench", "--lease", "1ms"), ExitUsage, "--lease")
}

// The slowest write or read says what lease fits: it has room in a sixth of it, twice.
func TestBenchJudge(t *testing.T) {
	for _, tt := range []struct {
		write, read, lease, smallest time.Duration
		fits                         bool
	}{
		{time.Millisecond, time.Millisecond, 200 * time.Millisecond, 200 * time.Millisecond, true},
		{50 * time.Millisecond, time.Millisecond, 500 * time.Millisecond, 600 * time.Millisecond, false},
		{50 * time.Millisecond, time.Millisecond, 600 * time.Millisecond, 600 * time.Millisecond, true},
		{time.Millisecond, 101 * time.Millisecond, 3 * time.Second, 1300 * time.Millisecond, true},
	} {
		b := bench{c: &call{app: newApp(nil, nil, nil, nil), g: globals{lease: tt.lease}}, report: benchReport{Measured: []benchLine{
			{What: "write", MaxUS: tt.write.Microseconds()}, {What: "read", MaxUS: tt.read.Microseconds()}}}}
		b.judge()
		if b.report.SmallestMS != tt.smallest.Milliseconds() || b.report.Fits != tt.fits {
			t.Errorf("write %v, read %v, lease %v: smallest %d ms, fits %t; want %v, %t", tt.write, tt.read, tt.lease, b.report.SmallestMS, b.report.Fits, tt.smallest, tt.fits)
		}
	}
}
