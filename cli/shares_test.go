package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/eventcheck"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/partition"
)

// parsed are the lines of a running command as events.
func parsed(t *testing.T, r *running) (all []eventcheck.Line) {
	t.Helper()
	for line := range strings.Lines(r.out.String()) {
		l, err := eventcheck.Parse([]byte(line))
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, l)
	}
	return all
}

// owner, history, watch and wait of a group with buckets, by who is no member. Their JSON is a contract.
func TestShares(t *testing.T) {
	t.Parallel()
	env := natsEnv(t)
	// Both begin before there is anything to look at.
	w := start(t, env, nil, "watch", "g", "--shares", "-o", "json")
	w.await(w.errs, `namespace "default" does not exist yet`)
	people := start(t, env, nil, "watch", "g")
	wait := start(t, env, nil, "wait", "g", "--members", "2", "--settled", "-j")
	wait.await(wait.errs, `namespace "default" does not exist yet`)

	a := start(t, env, nil, "join", "g", "--id", "a", "--buckets", "8", "--meta", "zone=z")
	b := start(t, env, nil, "join", "g", "--id", "b", "--buckets", "8")
	<-wait.done
	if wait.code != ExitDone {
		t.Errorf("wait: exit code %d, want 0", wait.code)
	}
	var there []memberLine
	if err := json.Unmarshal([]byte(wait.out.String()), &there); err != nil || len(there) != 2 || there[0].Index == nil || there[1].Index == nil {
		t.Errorf("wait -j: %v, %s", err, wait.out)
	}
	wantLike(t, "wait", runIn(t, env, "wait", "g", "--leader"), 0, `ID +STATUS(.|\n)*`)

	// A key's owner is who says so itself.
	const key = "orders/17"
	wantLike(t, "owner -j", runIn(t, env, "owner", "g", key, "-j"), 0,
		`\[\{"key":"orders/17","member":"[ab]","index":[01],"bucket":\d,"generation":`+aToken+`,"token":`+aToken+`\}\]\n`)
	wantLike(t, "owner", runIn(t, env, "owner", "g", key, "x"), 0, `KEY +MEMBER +INDEX +BUCKET +TOKEN\norders/17 +[ab] +[01] +\d +`+aToken+`\nx +.*\n`)
	var owns []ownerLine
	if err := json.Unmarshal([]byte(runIn(t, env, "owner", "g", key, "-j").stdout), &owns); err != nil || *owns[0].Bucket != partition.BucketOf(key, 8, "") {
		t.Errorf("owner -j: %v, %+v", err, owns)
	}
	var buckets []ownerLine
	if err := json.Unmarshal([]byte(runIn(t, env, "owner", "g", "--bucket", "0", "1", "2", "3", "4", "5", "6", "7", "-j").stdout), &buckets); err != nil {
		t.Fatal(err)
	}
	if bucket := buckets[*owns[0].Bucket]; bucket.Member != owns[0].Member || bucket.Token != owns[0].Token {
		t.Errorf("the owner of the key is %+v, of its bucket %+v", owns[0], bucket)
	}
	checkLine(t, runIn(t, env, "owner", "g", "--bucket", "8"), ExitFailed, "has no bucket 8: it has 8, from 0 on")
	checkLine(t, runIn(t, env, "owner", "g", "--bucket", "x"), ExitUsage, `bucket "x": not a whole number`)
	checkLine(t, runIn(t, env, "owner", "g"), ExitUsage, "KEY is missing")

	// What the watcher was told of the shares agrees.
	for _, m := range []string{"a", "b"} {
		w.awaitLike(w.out, fmt.Sprintf(`"assigned","group":"g","self":"","member":"%s","index":[01],"total":2,"generation":%d,.*\n`, m, owns[0].Generation))
	}
	shares := map[string]eventcheck.Line{}
	for _, l := range parsed(t, w) {
		if l.Type == evAssigned {
			shares[l.Member] = l
		}
	}
	if wrong := eventcheck.CheckShares(shares, nil); len(wrong) > 0 {
		t.Errorf("watch --shares: %v", wrong)
	}
	for n, o := range buckets {
		if i := slices.Index(shares[o.Member].Buckets, n); i < 0 || shares[o.Member].Tokens[i] != o.Token {
			t.Errorf("bucket %d: owner says %+v, watch %+v", n, o, shares[o.Member])
		}
	}

	// A leave is seen, and recorded with its cause.
	if code := b.stop(); code != 0 {
		t.Errorf("join: exit code %d", code)
	}
	awaitAnswer(t, env, `"cause":"left b"`, "history", "g", "-j") // a may have been alone before b came
	wantLike(t, "history -j", runIn(t, env, "history", "g", "-j"), 0,
		`\[\{"group":"g","generation":`+aToken+`,"cause":"first","began":`+aTime+`,"settled":`+aTime+`,"members":\[.*,"buckets":8,"moved":8\},.*`+
			`\{"group":"g","generation":`+aToken+`,"cause":"left b","began":`+aTime+`,"settled":`+aTime+`,"members":\["a"\],"buckets":8,"moved":4\}\]\n`)
	wantLike(t, "history", runIn(t, env, "history", "g"), 0, `SETTLED +GENERATION +TOOK +TOTAL +MOVED +CAUSE +MEMBERS\n(.|\n)* +4 of 8 +left b +a\n`)
	for _, text := range []string{" member-joined  a zone=z\n", " leader-elected ", " member-left    b: left\n", " settling       generation ", " settled        1 place"} {
		people.await(people.out, text)
	}
	if r := runIn(t, env, "vote", "g", "go?"); r.code != ExitUnanswered { // nobody votes
		t.Errorf("vote: %+v", r)
	}
	if code := a.stop(); code != 0 {
		t.Errorf("join: exit code %d", code)
	}
	w.await(w.out, `"leader-lost","group":"g","self":"","leader":"a"`)
	wantLike(t, "history of a group that all have left", runIn(t, env, "history", "g"), 0, `SETTLED(.|\n)*`)
	if code := w.stop(); code != ExitDone {
		t.Errorf("watch, interrupted: exit code %d, want 0", code)
	}
	checkLine(t, runIn(t, env, "wait", "g", "--timeout", "5s"), ExitUnanswered, `wait: not within 5s: group "g": `)
	for _, cmd := range []string{"owner nope k", "history nope"} {
		checkLine(t, runIn(t, env, strings.Fields(cmd)...), ExitFailed, `no such group "nope": 'quorate groups' lists them`)
	}
}

// What cannot be meant is said before anything is connected.
func TestSharesUsage(t *testing.T) {
	t.Parallel()
	env := append(home(t, "", nil), "NATS_URL=nats://127.0.0.1:1")
	for _, tt := range []struct {
		words string
		code  int
		says  string
	}{
		{"watch", ExitUsage, "GROUP is missing"},
		{"watch a.b", ExitUsage, `group "a.b"`},
		{"watch g --election e", ExitUsage, "too much beside --election"},
		{"watch --election e --shares", ExitUsage, "--election and --shares"},
		{"watch --election e.f", ExitUsage, `election "e.f"`},
		{"watch g --lease 1ms", ExitUsage, "--lease: lease 1ms"},
		{"watch g", ExitFailed, "cannot reach"},
		{"wait g --members 0", ExitUsage, "--members 0: a group has from 1"},
		{"wait g --lease 1ms", ExitUsage, "--lease: lease 1ms"},
		{"wait a.b", ExitUsage, `group "a.b"`},
		{"wait g", ExitFailed, "cannot reach"},
		{"owner a.b k", ExitUsage, `group "a.b"`},
		{"history", ExitUsage, "GROUP is missing"},
	} {
		checkLine(t, runIn(t, env, strings.Fields(tt.words)...), tt.code, tt.says)
	}
}

// An owner is asked for in a group in which nobody works; a plain election can be watched.
func TestWatchElection(t *testing.T) {
	t.Parallel()
	env := natsEnv(t)
	start(t, env, nil, "join", "g", "--id", "lead", "--observer")
	awaitAnswer(t, env, `"lead"`, "members", "g", "-j")
	checkLine(t, runIn(t, env, "owner", "g", "k"), ExitUnanswered, `nobody works in group "g"`)
	checkLine(t, runIn(t, env, "wait", "g", "--settled", "--timeout", "5s"), ExitUnanswered, "wait: not within 5s")
	w := start(t, env, nil, "watch", "--election", "reports", "-o", "json")
	w.await(w.errs, "connected to")
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
	e, err := leader.New(ns, "reports", leader.Config{ID: "here"})
	if err != nil {
		t.Fatal(err)
	}
	term, err := e.Campaign(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.await(w.out, `"type":"leader-elected","election":"reports","self":"","leader":"here","token":`)
	if err := term.Resign(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.await(w.out, `"type":"leader-lost","election":"reports","self":"","leader":"here","token":`)
	w.await(w.out, `"reason":"resigned"`)
	if code := w.stop(); code != ExitDone {
		t.Errorf("watch, interrupted: exit code %d, want 0", code)
	}
}

// TestLacking: what wait is waiting for, in words.
func TestLacking(t *testing.T) {
	member := func(id string, index int, roles ...string) coord.Member {
		return coord.Member{ID: id, Index: index, Roles: roles}
	}
	a, late, observer := member("a", 0, wire.RoleWork), member("b", -1, wire.RoleWork), member("o", -1)
	for _, tt := range []struct {
		r       coord.Roster
		leads   bool
		settled bool
		members int
		want    string
	}{
		{coord.Roster{}, true, false, 0, "it has no leader"},
		{coord.Roster{Phase: phaseNotQuorate}, true, false, 0, "it is not quorate: fewer members than its minimum size"},
		{coord.Roster{Leader: "a"}, true, false, 0, ""},
		{coord.Roster{Leader: "a", Members: []coord.Member{a}}, false, false, 2, "it has 1 member"},
		{coord.Roster{Leader: "a", Phase: wire.SettledDone, Members: []coord.Member{a, late}}, false, true, 2, "b has no share yet"},
		{coord.Roster{Leader: "a", Phase: wire.SettledDone, Members: []coord.Member{a, observer}}, false, true, 2, ""},
		{coord.Roster{Leader: "a", Phase: wire.Settling}, false, true, 0, "its work is being shared anew"},
		{coord.Roster{Leader: "a", Phase: phaseIdle, Members: []coord.Member{observer}}, false, true, 0, "nobody works"},
	} {
		if got := lacking(tt.r, tt.leads, tt.settled, tt.members); got != tt.want {
			t.Errorf("%+v: got %q, want %q", tt.r, got, tt.want)
		}
	}
}
