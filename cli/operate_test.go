package cli

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/leader"
)

func TestStepDown(t *testing.T) {
	t.Parallel()
	env := natsEnv(t)
	checkLine(t, runIn(t, env, "step-down"), ExitUsage, "step-down: GROUP is missing (or --election)")
	checkLine(t, runIn(t, env, "step-down", "g", "--to", "x.y"), ExitUsage, `member id "x.y": character 2 is '.'`)
	checkLine(t, runIn(t, env, "step-down", "--election", "e", "--to", "x.y"), ExitUsage, `member id "x.y": character 2 is '.'`)
	checkLine(t, runIn(t, env, "step-down", "g"), ExitFailed, `step-down: no such group "g"`)
	a := start(t, env, nil, "join", "g", "--id", "a")
	a.await(a.out, " leader-elected ")
	wantLike(t, "alone", runIn(t, env, "step-down", "g"), 0, `a stepped down, and leads g again, token `+aToken+`\n`)
	b := start(t, env, nil, "join", "g", "--id", "b", "-o", "json")
	b.await(b.out, `"joined"`)
	o := start(t, env, nil, "join", "g", "--id", "o", "--observer")
	o.await(o.out, " joined ")
	checkLine(t, runIn(t, env, "step-down", "g", "--to", "nobody"), ExitFailed,
		`step-down: group "g": it cannot take over: "nobody" is no member: 'quorate members g' shows who could`)
	checkLine(t, runIn(t, env, "step-down", "g", "--to", "o"), ExitFailed, `"o" is a member that never leads`)
	wantLike(t, "to a member", runIn(t, env, "step-down", "g", "--to", "b", "-j"), 0,
		`\{"group":"g","leader":"b","token":`+aToken+`,"since":`+aTime+`,"lease_ms":6000\}\n`)
	a.await(a.out, "stepped-down")
	checkLine(t, runIn(t, env, "step-down", "g", "--to", "b"), ExitFailed, `"b" leads already`)
	wantLike(t, "to the next", runIn(t, env, "step-down", "g"), 0, `b stepped down; a leads g, token `+aToken+`\n`)
	b.await(b.out, `"reason":"stepped-down"`)
	a.stop()
	b.stop()
	checkLine(t, runIn(t, env, "step-down", "g"), ExitUnanswered, `group "g" has no leader now`)

	// A plain election.
	checkLine(t, runIn(t, env, "step-down", "--election", "e"), ExitFailed, `step-down: no such election "e"`)
	nc, err := nats.Connect(env[len(env)-1][len("NATS_URL="):])
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	ns, err := quorate.Open(t.Context(), nc, quorate.Config{Lease: memberLease})
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close(context.Background())
	e, err := leader.New(ns, "e", leader.Config{ID: "one"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	led, done := make(chan struct{}, 8), make(chan struct{})
	go func() {
		defer close(done)
		_ = e.Run(ctx, func(ctx context.Context, _ *leader.Term) error {
			led <- struct{}{}
			<-ctx.Done()
			return nil
		})
	}()
	<-led
	wantLike(t, "of an election", runIn(t, env, "step-down", "--election", "e"), 0, `one stepped down, and leads e again, token `+aToken+`\n`)
	checkLine(t, runIn(t, env, "step-down", "--election", "e", "--to", "two"), ExitFailed, `step-down: one knows no candidate "two" of election "e"`)
	cancel()
	<-done
}

func TestEvict(t *testing.T) {
	t.Parallel()
	env := natsEnv(t)
	checkLine(t, runIn(t, env, "evict", "g"), ExitUsage, "evict: ID is missing")
	checkLine(t, runIn(t, env, "evict", "g", "x.y"), ExitUsage, `member id "x.y"`)
	checkLine(t, runIn(t, env, "evict", "g", "b"), ExitFailed, `evict: no such group "g"`)
	a := start(t, env, nil, "join", "g", "--id", "a", "-o", "json")
	a.await(a.out, `"leader-elected"`)
	b := start(t, env, nil, "join", "g", "--id", "b", "-o", "json")
	b.await(b.out, `"assigned"`)
	checkLine(t, runIn(t, env, "evict", "g", "c"), ExitFailed, `evict: "c" is no member of group "g": 'quorate members g' lists them`)
	wantLike(t, "evict", runIn(t, env, "evict", "g", "b"), 0, `b is no member of g any more\n`)
	a.await(a.out, `"type":"member-left","group":"g","self":"a","member":"b","reason":"evicted"`)
	<-b.done
	if b.code != ExitFailed {
		t.Errorf("the evicted ended with code %d", b.code)
	}
	b.await(b.out, `"type":"left","group":"g","self":"b","member":"b","reason":"evicted"`)
	b.await(b.errs, `"b" was evicted from group "g"`)
	wantLike(t, "evict -j", runIn(t, env, "evict", "g", "a", "-j"), 0, `\{"group":"g","member":"a"\}\n`)
	<-a.done
	a.await(a.out, `"type":"leader-lost","group":"g","self":"a","leader":"a","token":`)
	a.await(a.out, `"reason":"evicted"`)
	checkLine(t, runIn(t, env, "evict", "g", "a", "--timeout", "10s"), ExitFailed, `no such group "g"`)
}

// A group below its minimum size has no leader, and every command says so.
func TestMinSize(t *testing.T) {
	t.Parallel()
	env := natsEnv(t)
	checkLine(t, runIn(t, env, "join", "g", "--min-size", "x"), ExitUsage, `--min-size "x": not a whole number`)
	checkLine(t, runIn(t, env, "join", "g", "--min-size", "100000"), ExitUsage, "--min-size 100000: a group has at most 32768 members")
	a := start(t, env, nil, "join", "g", "--id", "a", "--min-size", "2", "-o", "json", "--vote", "yes")
	a.await(a.out, `"joined"`)
	a.await(a.errs, `group "g" has fewer members than its minimum size: nobody leads it until more have joined`)
	wantLike(t, "groups -j", runIn(t, env, "groups", "-j"), 0, `\[\{"group":"g","members":1,"leader":"","token":0,"phase":"not-quorate","generation":0\}\]\n`)
	wantLike(t, "members", onTime(t, env, "members", "g"), 0, `ID .*\na +alive +- +lead,work,vote .*\n`)
	checkLine(t, runIn(t, env, "leader", "g"), ExitUnanswered, `leader: group "g" has no leader: it is not quorate, with fewer members than its minimum size, 2: `)
	checkLine(t, runIn(t, env, "step-down", "g"), ExitUnanswered, `step-down: group "g" has no leader: it is not quorate`)
	checkLine(t, runIn(t, env, "vote", "g", "go?", "--timeout", "5s"), ExitUnanswered, `the verdict is unknown: fewer members than the minimum size`)
	b := start(t, env, nil, "join", "g", "--id", "b", "--min-size", "2", "-o", "json")
	a.await(a.out, `"type":"leader-elected","group":"g","self":"a","leader":"a"`)
	a.await(a.out, `"total":2`)
	b.await(b.out, `"type":"leader-elected","group":"g","self":"b","leader":"a"`)
	wantLike(t, "leader", runIn(t, env, "leader", "g"), 0, `a leads g, .*\n`)
	b.stop()
	a.await(a.out, `"type":"leader-lost","group":"g","self":"a","leader":"a","token":`)
	a.await(a.out, `"reason":"not-quorate"`)
	a.await(a.out, `"type":"revoked","group":"g","self":"a","member":"a","generation":`)
	// The line comes before the record says so: it is printed while the term still stands.
	r := runIn(t, env, "groups")
	for end := time.Now().Add(time.Minute); !strings.Contains(r.stdout, "not-quorate") && time.Now().Before(end); {
		r = runIn(t, env, "groups")
	}
	wantLike(t, "groups", r, 0, `GROUP .*\ng +1 +- +- +not-quorate +\d+\n`)
	if code := a.stop(); code != 0 {
		t.Errorf("join: exit code %d", code)
	}
}
