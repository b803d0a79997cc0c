package cli

import (
	"strings"
	"testing"
)

// The JSON of `send --ask` and the event lines of messages are a contract.
func TestSend(t *testing.T) {
	t.Parallel()
	env := natsEnv(t)
	a := start(t, env, nil, "join", "g", "--id", "a", "-o", "json")
	a.await(a.out, `"assigned"`)
	b := start(t, env, nil, "join", "g", "--id", "b", "--on-message", `tr a-z A-Z`)
	b.await(b.out, " assigned ")
	c := start(t, env, nil, "join", "g", "--id", "c", "--on-message",
		`read line; case "$line" in *fail*) exit 3;; *bin*) printf '\377';; *) printf '%s %s' $QUORATE_GROUP $QUORATE_MEMBER;; esac`)
	c.await(c.out, " assigned ")

	if r := runIn(t, env, "send", "g", "hello <all>"); r.code != 0 || r.stdout != "" {
		t.Errorf("send: %+v", r)
	}
	a.await(a.out, `"type":"message","group":"g","self":"a","from":"","to":"all","topic":"text","data":"hello <all>"}`)
	c.await(c.out, " message        a client to all: hello <all>\n")
	wantLike(t, "send --to leader --ask -j", runIn(t, env, "send", "g", "x", "--to", "leader", "--topic", "admin", "--ask", "-j"), 0,
		`\{"replies":\[\{"member":"a","data":"","rtt_ms":\d+\}\],"missing":\[\]\}\n`)
	a.await(a.out, `"to":"leader","topic":"admin","data":"x"}`)
	wantLike(t, "send --to c --ask -j", runIn(t, env, "send", "g", "x", "--to", "c", "--ask", "-j"), 0,
		`\{"replies":\[\{"member":"c","data":"g c","rtt_ms":\d+\}\],"missing":\[\]\}\n`)
	wantLike(t, "send --to c --ask -j, not UTF-8", runIn(t, env, "send", "g", "bin", "--to", "c", "--ask", "-j"), 0,
		`\{"replies":\[\{"member":"c","data_base64":"/w==","rtt_ms":\d+\}\],"missing":\[\]\}\n`)
	r := runIn(t, env, "send", "g", "fail", "--ask", "-j")
	wantLike(t, "send --ask -j, with an error", r, ExitFailed, `\{"replies":\[\{"member":"a","data":"","rtt_ms":\d+\},\{"member":"b",.*\},`+
		`\{"member":"c","data":"","error":"--on-message: .*exit status 3","rtt_ms":\d+\}\],"missing":\[\]\}\n`)
	c.await(c.errs, "--on-message: ")
	wantLike(t, "send --ask", runIn(t, env, "send", "g", "x", "--to", "c", "--ask"), 0, `MEMBER +RTT +ANSWER\nc +[0-9.]+.?s +g c\n`)

	wantLike(t, "send --to c --ask, with an error", runIn(t, env, "send", "g", "fail", "--to", "c", "--ask"), ExitFailed,
		`MEMBER +RTT +ANSWER\nc +- +error: --on-message: .*\n`)

	checkLine(t, runIn(t, env, "send", "nope", "x"), ExitFailed, `no such group "nope"`)
	checkLine(t, runIn(t, env, "send", "g", "x", "--to", "d"), ExitUnanswered, `no member "d" in group "g"`)
	checkLine(t, runIn(t, env, "send", "g", "x", "--to", "d", "--ask"), ExitUnanswered, `no member "d" in group "g"`)
	checkLine(t, runIn(t, env, "send", "g", "x", "--to", "d.e"), ExitUsage, `member id "d.e"`)
	checkLine(t, runIn(t, env, "send", "g", "x", "--topic", "d.e"), ExitUsage, `topic "d.e"`)
	checkLine(t, runIn(t, env, "send", "g", strings.Repeat("x", 512<<10+1)), ExitUsage, "524289 bytes")

	for _, m := range []*running{a, b, c} {
		if code := m.stop(); code != 0 {
			t.Errorf("join: exit code %d, want 0", code)
		}
	}
}
