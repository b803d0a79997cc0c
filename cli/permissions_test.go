//go:build linux

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/embedded"
	"github.com/quorate/quorate/internal/eventcheck"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/partition"
	"github.com/quorate/quorate/vote"
)

// A guardedServer is a server whose users have exactly the permissions of their roles, for one group and one election.
type guardedServer struct {
	t   *testing.T
	s   *embedded.Server
	log *output
	env []string
}

const guardedUsers = `, "auth": {"users": [
	{"user": "member", "password": "m", "groups": ["workers"], "elections": ["reports"]},
	{"user": "observer", "password": "m", "role": "observer", "groups": ["workers"], "elections": ["reports"]},
	{"user": "operator", "password": "m", "role": "operator", "groups": ["workers"], "elections": ["reports"]},
	{"user": "other", "password": "m", "groups": ["others"]},
	{"user": "anywhere", "password": "m"},
	{"user": "foreign", "password": "m", "namespace": "foreign", "inbox": "_INBOX_foreign"}]}`

func newGuardedServer(t *testing.T) *guardedServer {
	t.Helper()
	_, c := clusterFile(t, 1, guardedUsers)
	g := &guardedServer{t: t, log: newOutput(), env: append(home(t, "", nil), patient...)}
	var err error
	g.s, err = embedded.StartCluster(t.Context(), c, embedded.ClusterOptions{NoSync: true, Logger: slog.New(slog.NewTextHandler(g.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.s.Close(context.Background()) })
	if err := g.s.AwaitReady(t.Context()); err != nil { // it makes the bucket, which no member may
		t.Fatal(err)
	}
	return g
}

// as is the environment of a user.
func (g *guardedServer) as(user string) []string {
	return append(slices.Clone(g.env), "NATS_URL="+g.s.URL(), "NATS_USER="+user, "NATS_PASSWORD=m")
}

// campaign has a user lead an election until the test is over.
func (g *guardedServer) campaign(user, election string) *leader.Term {
	g.t.Helper()
	ns := g.open(user)
	e, err := leader.New(ns, election, leader.Config{ID: user})
	if err != nil {
		g.t.Fatal(err)
	}
	term, err := e.Campaign(g.t.Context())
	if err != nil {
		g.t.Fatal(err)
	}
	return term
}

// open attaches to the namespace as a user.
func (g *guardedServer) open(user string) *quorate.Namespace {
	g.t.Helper()
	nc, err := nats.Connect(g.s.URL(), nats.UserInfo(user, "m"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})) // the server's log has them
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(nc.Close)
	ns, err := quorate.Open(g.t.Context(), nc, quorate.Config{Lease: memberLease, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { ns.Close(context.Background()) })
	return ns
}

// violations are what the server has refused so far.
func (g *guardedServer) violations() []string {
	var l []string
	for line := range strings.Lines(g.log.String()) {
		if strings.Contains(line, "Violation") {
			l = append(l, strings.TrimSpace(line))
		}
	}
	return l
}

// Every feature works under exactly the permissions of its role, and the server has nothing to refuse.
func TestPermissions(t *testing.T) {
	t.Parallel()
	g := newGuardedServer(t)
	items := writeFile(t, t.TempDir()+"/items", []byte("one\ntwo\nthree\n"))
	member, observer, operator := g.as("member"), g.as("observer"), g.as("operator")
	run := func(env []string, code int, words ...string) string {
		t.Helper()
		look := runIn
		if words[0] == "check" {
			look = onTime
		}
		r := look(t, env, words...)
		if r.code != code {
			t.Errorf("%q: exit code %d, want %d: %s%s", words, r.code, code, r.stderr, r.stdout)
		}
		return r.stdout
	}

	a := start(t, member, nil, "join", "workers", "--id", "a", "--vote", "yes", "--buckets", "8", "--items", items, "--on-action", "true", "-o", "json")
	b := start(t, member, nil, "join", "workers", "--id", "b", "--vote", "yes", "--buckets", "8", "--items", items, "--on-action", "true", "-o", "json")
	m := start(t, member, nil, "join", "workers", "--id", "m", "--observer", "--on-message", "echo heard", "-o", "json")
	w := start(t, observer, nil, "watch", "workers", "--shares", "-o", "json")
	web := start(t, observer, nil, "web", "workers", "--listen", "127.0.0.1:0")
	web.await(web.errs, "http://127.0.0.1:")
	m.await(m.out, `"joined"`)
	run(observer, 0, "wait", "workers", "--leader", "--settled", "--members", "3", "--timeout", "1m")
	awaitVoters(t, observer, "workers", 2)

	for _, words := range []string{"members workers", "leader workers", "groups", "votes workers", "history workers", "owner workers x y", "check workers", "check --ready", "init"} {
		run(observer, 0, strings.Fields(words)...)
	}
	if out := run(operator, 0, "vote", "workers", "go?"); !strings.HasPrefix(out, "yes: 2 yes") {
		t.Errorf("vote: %s", out)
	}
	// Nobody is late by less than a minute: this machine may be busy.
	if out := run(member, 0, "vote", "workers", "all?", "--kind", "consensus", "--at", "+8s", "--tolerance", "1m", "--timeout", "1m"); !strings.HasPrefix(out, "yes: 2 yes") || strings.Count(out, "done") != 2 {
		t.Errorf("action: %s", out)
	}
	run(operator, ExitFailed, "vote", "workers", "--cancel", "none")
	run(operator, 0, "send", "workers", "hello")
	run(operator, 0, "send", "workers", "hello", "--to", "a")
	if out := run(member, 0, "send", "workers", "hello", "--ask", "-j"); !strings.Contains(out, `"member":"m","data":"heard`) {
		t.Errorf("send --ask: %s", out)
	}
	run(operator, 0, "step-down", "workers")
	run(operator, 0, "evict", "workers", "m")
	run(operator, 0, "init", "--repair")
	run(member, 0, "leader", "workers", "--js-domain", "quorate")
	if code := exitOf(t, member, "run", "workers", "--id", "r", "--assign", "--restart", "no", "--", "true"); code != 0 {
		t.Errorf("run --assign: exit code %d", code)
	}
	if code := exitOf(t, member, "run", "--election", "reports", "--restart", "no", "--", "true"); code != 0 {
		t.Errorf("run --election: exit code %d", code)
	}
	e := start(t, observer, nil, "watch", "--election", "reports", "-o", "json")
	e.await(e.errs, "connected to")
	bloc := start(t, member, nil, "bloc", "workers", "--listen", "127.0.0.1:0")
	bloc.await(bloc.errs, "bloc: group")
	w.await(w.out, `"settled"`)
	for name, r := range map[string]*running{"a": a, "b": b, "watch": w, "web": web, "watch --election": e, "bloc": bloc} {
		if code := r.stop(); code != 0 {
			t.Errorf("%s: exit code %d: %s", name, code, r.errs)
		}
	}
	anywhere := start(t, g.as("anywhere"), nil, "join", "somewhere/else", "--id", "x", "-o", "json")
	anywhere.await(anywhere.out, `"assigned"`)
	if code := anywhere.stop(); code != 0 {
		t.Errorf("anywhere: exit code %d", code)
	}
	if l := g.violations(); len(l) > 0 {
		t.Errorf("the server refused:\n%s", strings.Join(l, "\n"))
	}
}

// The same with the packages, for what no command does or not in each way: elections that are handed over, orders, gathering, buckets, actions and
// their end, groups without a leader. Members are members, who looks is an observer, and what operators ask for an operator asks.
func TestPermissionsInCode(t *testing.T) {
	t.Parallel()
	g := newGuardedServer(t)
	one, two, looks, operates := g.open("member"), g.open("member"), g.open("observer"), g.open("operator")
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	for _, ns := range []*quorate.Namespace{one, looks, operates} {
		must("check", ns.Check(ctx))
	}

	// An election that is handed over to who waits.
	elector := func(ns *quorate.Namespace, id string) *leader.Elector {
		e, err := leader.New(ns, "reports", leader.Config{ID: id})
		must("elector", err)
		return e
	}
	a, b := elector(one, "a"), elector(two, "b")
	term, err := a.Campaign(ctx)
	must("campaign", err)
	must("value", a.SetValue("here"))
	won := make(chan *leader.Term, 1)
	go func() {
		t2, err := b.Campaign(ctx)
		if err != nil {
			t.Errorf("campaign: %v", err)
		}
		won <- t2
	}()
	for {
		// It is told who waits, but not at once.
		if err = leader.StepDown(ctx, operates, "reports", term.Token(), "b"); !errors.Is(err, leader.ErrSuccessor) {
			break
		}
		<-time.After(10 * time.Millisecond)
	}
	must("step down", err)
	<-term.Work().Done()
	must("resign", term.Resign(ctx))
	next := <-won
	if st, err := elector(looks, "looks").Leader(ctx); err != nil || next == nil || st.Holder != "b" || st.Token != next.Token() {
		t.Fatalf("the election says %+v, %v", st, err)
	}
	must("resign", next.Resign(ctx))

	// A group whose members work, vote, act, hear and answer.
	type part struct {
		*coord.Group
		heard, ordered chan coord.Message
	}
	join := func(ns *quorate.Namespace, id string) part {
		t.Helper()
		m, err := coord.Join(ctx, ns, "workers", coord.Config{ID: id})
		must("join", err)
		_, err = partition.Join(ctx, m, partition.Config{Buckets: 8})
		must("share", err)
		_, err = vote.Join(ctx, m, vote.Config{
			Decide: func(context.Context, vote.Ballot) vote.Answer { return vote.Yes() },
			Act:    func(context.Context, vote.Ballot) error { return nil },
		})
		must("voting", err)
		p := part{m, make(chan coord.Message, 100), make(chan coord.Message, 100)}
		_, err = m.Handle("text", func(_ context.Context, msg coord.Message) ([]byte, error) { p.heard <- msg; return []byte("yes"), nil })
		must("handle", err)
		_, err = m.HandleOrders("orders", func(_ context.Context, msg coord.Message) ([]byte, error) { p.ordered <- msg; return nil, nil })
		must("handle orders", err)
		return p
	}
	ma, mb := join(one, "a"), join(two, "b")
	client := func(ns *quorate.Namespace) *coord.Client {
		c, err := coord.Open(ctx, ns, "workers")
		must("open", err)
		return c
	}
	watches, asks := client(looks), client(operates)
	for table, err := range partition.Tables(ctx, watches) {
		must("tables", err)
		if s, ok := table.Owner("key"); ok && table.Total == 2 && table.Buckets == 8 && s.Member != "" {
			break
		}
	}
	_, err = partition.Owner(ctx, watches, "key")
	must("owner", err)
	for v, err := range watches.Watch(ctx) {
		must("watch", err)
		if len(v.Members) == 2 {
			break
		}
	}
	lead, err := watches.Leader(ctx)
	must("leader", err)
	chief, other := ma, mb
	if lead.Holder == "b" {
		chief, other = mb, ma
	}
	for _, to := range []coord.To{coord.ToAll, coord.ToLeader, coord.ToMember(other.ID())} {
		must("send", asks.Send(ctx, to, "text", []byte("x")))
		must("send as a member", other.Send(ctx, to, "text", []byte("x")))
	}
	for range 4 { // two to all, and two of its own
		<-ma.heard
		<-mb.heard
	}
	must("order", chief.Send(ctx, coord.ToAll, "orders", nil))
	<-other.ordered
	_, err = asks.Ask(ctx, coord.ToLeader, "text", nil, coord.Retry)
	must("ask", err)
	if r, err := asks.Gather(ctx, "text", nil); err != nil || len(r.Replies) != 2 || len(r.Missing) != 0 {
		t.Errorf("gather: %+v, %v", r, err)
	}
	must("meta", ma.SetMeta(ctx, map[string]string{"k": "v"}))

	v, err := vote.Propose(ctx, asks, vote.Proposal{Topic: "go?", Kind: vote.Consensus})
	if err != nil || !v.Won() {
		t.Errorf("vote: %+v, %v", v, err)
	}
	_, err = vote.Lookup(ctx, watches, v.Ballot)
	must("lookup", err)
	_, err = vote.Recent(ctx, watches)
	must("recent", err)
	act := func(c *coord.Client, ahead time.Duration) vote.Verdict {
		t.Helper()
		soon, cancel := context.WithTimeout(ctx, ahead)
		defer cancel()
		v, err := vote.Propose(soon, c, vote.Proposal{Topic: "switch", At: time.Now().Add(ahead), Tolerance: time.Minute})
		if err != nil || !v.Won() {
			t.Fatalf("action: %+v, %v", v, err)
		}
		return v
	}
	o, err := act(other.Client, 8*time.Second).Outcome(ctx)
	if err != nil || o.Count(vote.Done) != 2 {
		t.Errorf("action: %+v, %v", o, err)
	}
	v = act(asks, time.Minute)
	_, err = vote.Cancel(ctx, asks, v.Ballot)
	must("cancel", err)
	if o, err := v.Outcome(ctx); err != nil || o.Count(vote.Cancelled) != 2 {
		t.Errorf("cancelled action: %+v, %v", o, err)
	}

	must("step down", asks.StepDown(ctx, other.ID()))
	for v, err := range watches.Watch(ctx) {
		must("watch", err)
		if v.Leader.Holder == other.ID() {
			break
		}
	}
	must("evict", asks.Evict(ctx, chief.ID()))
	<-chief.Context().Done()
	if err := context.Cause(chief.Context()); !errors.Is(err, quorate.ErrEvicted) {
		t.Errorf("evicted: %v", err)
	}
	must("leave", other.Leave(ctx))

	// Without a leader.
	m, err := coord.Join(ctx, one, "workers", coord.Config{ID: "m", MessagingOnly: true})
	must("join for messages", err)
	must("send", asks.Send(ctx, coord.ToMember("m"), "text", nil))
	must("leave", m.Leave(ctx))
	if l := g.violations(); len(l) > 0 {
		t.Errorf("the server refused:\n%s", strings.Join(l, "\n"))
	}
}

// exitOf runs a command as a process of its own, for those that start processes.
func exitOf(t *testing.T, env []string, words ...string) int {
	t.Helper()
	cmd := commandLine(t, append(env, "PATH=/usr/bin:/bin"), words...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if t.Failed() || err != nil {
		t.Logf("%q: %v: %s", words, err, out)
	}
	return cmd.ProcessState.ExitCode()
}

// What a user may not, the server refuses, and a command says so.
func TestPermissionsRefused(t *testing.T) {
	t.Parallel()
	g := newGuardedServer(t)
	const kv, hint, group = "$KV.QUORATE_default.", "quorate.default.kv.", "quorate.default.g."
	for _, tt := range []struct {
		user      string
		publish   []string
		subscribe []string
	}{
		// Another namespace: neither its records nor what is said in it.
		{"foreign", []string{kv + "leader.workers", kv + "check.x", "$JS.API.STREAM.MSG.GET.KV_QUORATE_default", "$JS.API.STREAM.INFO.KV_QUORATE_default", group + "workers.heartbeat"}, []string{hint + "leader.workers", group + "workers.ballot", "_INBOX.>", "quorate.>", ">"}},
		{"member", []string{"$KV.QUORATE_foreign.leader.workers", "$JS.API.STREAM.MSG.GET.KV_QUORATE_foreign", "quorate.foreign.g.workers.heartbeat"}, []string{"quorate.foreign.kv.>", "_INBOX_foreign.>"}},
		// Another group, another election.
		{"member", []string{kv + "leader.others", kv + "member.others.a", kv + "settled.others", kv + "verdict.others.x", kv + "history.others.1", kv + "election.other",
			group + "others.heartbeat", group + "others.all.text", group + "others.ctl.propose", "quorate.default.e.other.queue"},
			[]string{group + "others.heartbeat", group + "*.heartbeat", hint + "leader.others", hint + "*.*"}},
		{"other", []string{kv + "leader.workers", kv + "election.reports", group + "workers.report", "_INBOX.x"}, []string{group + "workers.ballot"}},
		// What the server alone says.
		{"member", []string{hint + "leader.workers", hint + "settled.workers"}, nil},
		{"anywhere", []string{hint + "leader.workers", hint + "check.x"}, nil},
		{"operator", []string{hint + "leader.workers"}, nil},
		// What operators do, and nobody does.
		{"member", []string{group + "workers.ctl.step-down", group + "workers.ctl.evict", "quorate.default.e.reports.ctl.step-down", "$JS.API.STREAM.UPDATE.KV_QUORATE_default",
			"$JS.API.STREAM.DELETE.KV_QUORATE_default", "$JS.API.STREAM.PURGE.KV_QUORATE_default", "$JS.API.STREAM.MSG.DELETE.KV_QUORATE_default", "$JS.API.STREAM.CREATE.X",
			"$JS.API.CONSUMER.CREATE.KV_QUORATE_default", "$SYS.REQ.SERVER.PING"}, []string{"$KV.>", "$SYS.>"}},
		{"operator", []string{kv + "leader.workers", kv + "member.workers.a", kv + "settled.workers", group + "workers.heartbeat", group + "workers.ballot", group + "workers.verdict", "_INBOX.x",
			"$JS.API.STREAM.DELETE.KV_QUORATE_default"}, []string{group + "workers.heartbeat", group + "workers.ctl.evict"}},
		// An observer looks.
		{"observer", []string{kv + "leader.workers", kv + "member.workers.o", kv + "verdict.workers.x", group + "workers.heartbeat", group + "workers.ctl.propose", group + "workers.ctl.cancel",
			group + "workers.ctl.step-down", group + "workers.all.text", group + "workers.member.a.text", group + "workers.report", "_INBOX.x"}, []string{group + "workers.heartbeat", group + "workers.all.text"}},
	} {
		seen := make(chan string, 100)
		nc, err := nats.Connect(g.s.URL(), nats.UserInfo(tt.user, "m"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { seen <- err.Error() }))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		expect := func(verb, subject string) {
			t.Helper()
			if err := nc.FlushTimeout(patience); err != nil { // the server answers in order, its refusals too
				t.Fatal(err)
			}
			select {
			case text := <-seen:
				if want := fmt.Sprintf("Permissions Violation for %s to %q", verb, subject); !strings.Contains(text, want) {
					t.Errorf("%s: got %s, want %s", tt.user, text, want)
				}
			case <-time.After(patience):
				t.Errorf("%s: %s to %s was not refused", tt.user, verb, subject)
			}
		}
		for _, s := range tt.publish {
			if err := nc.PublishRequest(s, "_INBOX_foreign.x", []byte(`{"v":1}`)); err != nil {
				t.Fatal(err)
			}
			expect("Publish", s)
		}
		for _, s := range tt.subscribe {
			if _, err := nc.SubscribeSync(s); err != nil {
				t.Fatal(err)
			}
			expect("Subscription", s)
		}
	}

	// A command does not wait for an answer that cannot come: each of these ends long before --timeout.
	a := start(t, g.as("member"), nil, "join", "workers", "--id", "a", "--vote", "yes")
	a.await(a.out, "assigned")
	g.campaign("member", "reports")
	looks := g.open("observer")
	var all sync.WaitGroup
	for _, tt := range []struct{ user, words, says string }{
		{"observer", "vote workers go?", `NATS permissions are missing: Permissions Violation for Publish to "quorate.default.g.workers.ctl.propose": 'quorate permissions' shows what is needed`},
		{"member", "step-down workers", `"quorate.default.g.workers.ctl.step-down"`},
		{"member", "evict workers a", `"quorate.default.g.workers.ctl.evict"`},
		{"member", "step-down --election reports", `"quorate.default.e.reports.ctl.step-down"`},
		{"observer", "vote workers --cancel x", `"quorate.default.g.workers.ctl.cancel"`},
		{"observer", "send workers hello", `"quorate.default.g.workers.all.text"`},
		{"observer", "send workers hello --ask", `"quorate.default.g.workers.all.text"`},
		{"observer", "send workers hello --to leader --ask", `"quorate.default.g.workers.leader.text"`},
		{"member", "join others", `"`},
		{"observer", "join workers --id o --observer", `"`},
		{"foreign", "groups", `Permissions Violation for `}, // of its inbox, or of what is asked: whichever the server refuses last
		{"foreign", "groups --inbox-prefix _INBOX_foreign", `"$JS.API.`},
	} {
		env := g.as(tt.user)
		all.Go(func() {
			r := runIn(t, env, append(strings.Fields(tt.words), "--timeout", "10m")...)
			if r.code != ExitFailed || !strings.Contains(r.stderr, tt.says) || !strings.Contains(r.stderr, "ermission") {
				t.Errorf("%s, %s: %+v, want code 1 and %s", tt.user, tt.words, r, tt.says)
			}
		})
	}
	all.Go(func() { // a question that is asked again and again
		c, err := coord.Open(t.Context(), looks, "workers")
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := c.Ask(t.Context(), coord.ToLeader, "text", nil, coord.Retry); !errors.Is(err, quorate.ErrPermission) {
			t.Errorf("ask: got %v, want %v", err, quorate.ErrPermission)
		}
	})
	all.Wait()
	if code := a.stop(); code != 0 {
		t.Errorf("join: exit code %d", code)
	}
}

// Who may answer whatever it hears is not made to write a record, or to say what the server alone says, for somebody who may not: NATS does not ask whether
// the author of a request may publish where the answer is to go.
func TestAnswersGoToInboxes(t *testing.T) {
	t.Parallel()
	g := newGuardedServer(t)
	a := start(t, g.as("member"), nil, "join", "workers", "--id", "a", "--vote", "yes", "--on-message", "echo heard")
	a.await(a.out, "assigned")
	g.campaign("member", "reports")
	all, err := nats.Connect("", g.s.Options()...)
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	traps := []string{"$KV.QUORATE_default.leader.others", "$KV.QUORATE_foreign.leader.workers", "quorate.default.kv.leader.trap", "quorate.default.g.others.ctl.evict"}
	var caught []*nats.Subscription
	for _, s := range traps {
		sub, err := all.SubscribeSync(s)
		if err != nil {
			t.Fatal(err)
		}
		caught = append(caught, sub)
	}
	if err := all.FlushTimeout(patience); err != nil {
		t.Fatal(err)
	}
	says := map[string]*nats.Conn{}
	for _, user := range []string{"member", "observer", "operator"} {
		if says[user], err = nats.Connect(g.s.URL(), nats.UserInfo(user, "m")); err != nil {
			t.Fatal(err)
		}
		defer says[user].Close()
	}
	ask := nats.Header{"Quorate-Ask": {"1"}}
	const workers = "quorate.default.g.workers."
	for _, tt := range []struct {
		user, subject, data string
		header              nats.Header
		silent              bool // it is not answered, whatever the reply subject
	}{
		{user: "observer", subject: workers + wire.SubRoster},
		{user: "member", subject: workers + wire.SubHeartbeat, data: `{"v":1,"id":"zz","inc":1,"seq":1}`, silent: true},
		{user: "member", subject: workers + wire.SubReport, data: `{"v":1,"ballot":"zz","id":"a","status":"done"}`, silent: true},
		{user: "member", subject: workers + wire.SubBallot, data: `{"v":1,"ballot":"zz","topic":"x","kind":"majority","round":"r","token":1,"left_ms":60000}`, silent: true},
		{user: "operator", subject: workers + wire.SubPropose, data: `{"v":1}`},
		{user: "operator", subject: workers + wire.SubCancel, data: `{"v":1,"ballot":"zz","left_ms":1000}`},
		{user: "operator", subject: workers + wire.SubStepDown, data: `{"v":1,"token":1}`},
		{user: "operator", subject: workers + wire.SubEvict, data: `{"v":1,"id":"zz","inc":1}`},
		{user: "operator", subject: workers + "all.text", data: "x", header: ask},
		{user: "operator", subject: workers + "leader.text", data: "x", header: ask},
		{user: "operator", subject: workers + "member.a.text", data: "x", header: ask},
		{user: "operator", subject: "quorate.default.e.reports." + wire.SubStepDown, data: `{"v":1,"token":1}`},
	} {
		m := &nats.Msg{Subject: tt.subject, Data: []byte(tt.data), Header: tt.header}
		for _, m.Reply = range traps {
			if err := says[tt.user].PublishMsg(m); err != nil {
				t.Fatal(err)
			}
		}
		if tt.silent {
			continue
		}
		// The same once more, to be answered where one may: behind those above.
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if _, err := says[tt.user].RequestMsgWithContext(ctx, m); err != nil {
			t.Errorf("%s: %v", tt.subject, err)
		}
		cancel()
	}
	if code := a.stop(); code != 0 {
		t.Errorf("join: exit code %d", code)
	}
	if err := all.FlushTimeout(patience); err != nil {
		t.Fatal(err)
	}
	for _, sub := range caught {
		for n, _, _ := sub.Pending(); n > 0; n-- {
			m, err := sub.NextMsg(patience)
			if err != nil {
				t.Fatal(err)
			}
			t.Errorf("somebody was made to say on %s: %q", m.Subject, m.Data)
		}
	}
}

// An observer can spoil records, with JetStream's answers, which nobody can forbid within an account (docs/security.md). L1, P1, P2: that stops the group for
// a while, and breaks no promise; once it is over the group goes on.
func TestSpoiledRecords(t *testing.T) {
	t.Parallel()
	g := newGuardedServer(t)
	member, observer := g.as("member"), g.as("observer")
	all := map[string]*running{}
	for _, id := range []string{"a", "b"} {
		all[id] = start(t, member, nil, "join", "workers", "--id", id, "--vote", "yes", "--buckets", "8", "--lease", "600ms", "-o", "json")
	}
	nc, err := nats.Connect(g.s.URL(), nats.UserInfo("observer", "m"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	inside, err := nats.Connect("", g.s.Options()...)
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	settled := func() {
		t.Helper()
		if r := runIn(t, observer, "wait", "workers", "--leader", "--settled", "--members", "2", "--timeout", "1m"); r.code != 0 {
			t.Fatalf("%+v", r)
		}
	}
	for _, key := range []string{wire.LeaderKey("workers"), wire.SettledKey("workers"), wire.MemberKey("workers", "a"), wire.MemberKey("workers", "b")} {
		settled()
		subject := wire.KVSubject("default", key)
		seen, err := inside.SubscribeSync(subject)
		if err != nil {
			t.Fatal(err)
		}
		if err := inside.FlushTimeout(patience); err != nil {
			t.Fatal(err)
		}
		if err := nc.PublishRequest("$JS.API.INFO", subject, nil); err != nil {
			t.Fatal(err)
		}
		for { // it has happened
			m, err := seen.NextMsg(patience)
			if err != nil {
				t.Fatalf("%s was not overwritten: %v", key, err)
			}
			if strings.Contains(string(m.Data), "account_info_response") {
				break
			}
		}
		_ = seen.Unsubscribe()
		if key == wire.LeaderKey("workers") { // with both records unreadable nobody could go on: the next leader has to have read the other one
			for _, r := range all {
				r.await(r.out, `"type":"leader-lost"`)
			}
		}
	}
	settled()
	if r := runIn(t, g.as("operator"), "vote", "workers", "well?", "--kind", "consensus", "--timeout", "1m"); r.code != 0 {
		t.Errorf("vote: %+v", r)
	}
	var lines []eventcheck.Witness
	for name, r := range all {
		if code := r.stop(); code != 0 {
			t.Errorf("%s: exit code %d: %s", name, code, r.errs)
		}
		lines = append(lines, witness(t, name, r))
	}
	if wrong := eventcheck.Check(lines); len(wrong) > 0 {
		t.Errorf("%s", strings.Join(wrong, "\n"))
	}
}

// witness is what a member has written.
func witness(t *testing.T, name string, r *running) eventcheck.Witness {
	t.Helper()
	w := eventcheck.Witness{Name: name}
	for line := range strings.Lines(r.out.String()) {
		l, err := eventcheck.Parse([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		w.Lines = append(w.Lines, l)
	}
	return w
}

// What was said once and is said again, word for word, changes nothing: requests name the term and the incarnation that they mean, votes their round,
// heartbeats are numbered.
func TestReplayed(t *testing.T) {
	t.Parallel()
	g := newGuardedServer(t)
	// Who hears all of a group and may say all of it: a member's rights, and an operator's.
	hear, err := nats.Connect(g.s.URL(), nats.UserInfo("member", "m"))
	if err != nil {
		t.Fatal(err)
	}
	defer hear.Close()
	say := map[bool]*nats.Conn{false: hear}
	if say[true], err = nats.Connect(g.s.URL(), nats.UserInfo("operator", "m")); err != nil {
		t.Fatal(err)
	}
	defer say[true].Close()
	var mu sync.Mutex
	var heard []*nats.Msg
	sub, err := hear.Subscribe("quorate.default.g.workers.>", func(m *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, m)
	})
	if err != nil {
		t.Fatal(err)
	}

	member, operator := g.as("member"), g.as("operator")
	join := func(id string) *running {
		r := start(t, member, nil, "join", "workers", "--id", id, "--vote", "yes", "-o", "json")
		r.await(r.out, `"assigned"`)
		return r
	}
	all := map[string]*running{"a": join("a"), "b": join("b"), "c": join("c")}
	awaitVoters(t, operator, "workers", 3)
	for _, words := range []string{"vote workers one?", "send workers hello", "step-down workers", "evict workers c", "vote workers two?"} {
		if r := runIn(t, operator, strings.Fields(words)...); r.code != 0 {
			t.Fatalf("%s: %+v", words, r)
		}
	}
	<-all["c"].done
	all["c2"] = join("c")
	roster := func() string {
		t.Helper()
		r := runIn(t, operator, "wait", "workers", "--leader", "--settled", "--members", "3", "--timeout", "1m", "-j")
		l := runIn(t, operator, "leader", "workers", "-j")
		var lead struct {
			Leader string `json:"leader"`
			Token  uint64 `json:"token"`
		}
		if err := json.Unmarshal([]byte(l.stdout), &lead); err != nil || r.code != 0 {
			t.Fatalf("%+v, %+v: %v", r, l, err)
		}
		var members []struct {
			ID    string `json:"id"`
			Index *int   `json:"index"`
		}
		if err := json.Unmarshal([]byte(r.stdout), &members); err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, m := range members {
			fmt.Fprintf(&b, "%s %d, ", m.ID, *m.Index)
		}
		return fmt.Sprintf("%sled by %s, token %d", b.String(), lead.Leader, lead.Token)
	}
	awaitVoters(t, operator, "workers", 3)
	before := roster()

	_ = sub.Unsubscribe()
	mu.Lock()
	again := slices.Clone(heard)
	mu.Unlock()
	kinds := map[string]int{}
	for range 3 {
		for _, m := range again {
			rest := strings.TrimPrefix(m.Subject, "quorate.default.g.workers.")
			kinds[rest]++
			operates := rest == wire.SubStepDown || rest == wire.SubEvict
			if err := say[operates].PublishMsg(&nats.Msg{Subject: m.Subject, Reply: m.Reply, Header: m.Header, Data: m.Data}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, kind := range []string{wire.SubHeartbeat, wire.SubPoke, wire.SubPropose, wire.SubBallot, wire.SubVerdict, wire.SubStepDown, wire.SubEvict, "all.text"} {
		if kinds[kind] == 0 {
			t.Errorf("nothing was heard on %s, so nothing was said again: %v", kind, kinds)
		}
	}
	for _, nc := range say {
		if err := nc.FlushTimeout(patience); err != nil {
			t.Fatal(err)
		}
	}
	// One more change, by the rules, shows that all of it has been taken in.
	if r := runIn(t, operator, "vote", "workers", "three?", "--kind", "consensus"); r.code != 0 || !strings.HasPrefix(r.stdout, "yes: 3 yes") {
		t.Errorf("vote: %+v", r)
	}
	if after := roster(); after != before {
		t.Errorf("before: %s\n after: %s", before, after)
	}
	if r := runIn(t, operator, "votes", "workers", "-j"); strings.Count(r.stdout, `"ballot"`) != 3 {
		t.Errorf("votes: %s, want three", r.stdout)
	}
	var lines []eventcheck.Witness
	for name, r := range all {
		r.stop()
		lines = append(lines, witness(t, name, r))
	}
	if wrong := eventcheck.Check(lines); len(wrong) > 0 {
		t.Errorf("%s", strings.Join(wrong, "\n"))
	}
}

// The command prints what the server of a file gives by itself.
func TestPermissionsPrinted(t *testing.T) {
	t.Parallel()
	env := home(t, "", nil)
	wantLike(t, "text", runIn(t, env, "permissions", "--group", "g", "--election", "e,f"), 0,
		`# member of namespace default, group g, elections e, f\npermissions: \{\n  publish: \{ allow: \[\n(.|\n)*"\$KV\.QUORATE_default\.election\.f"\n(.|\n)*allow_responses: \{ max: -1, expires: "15m" \}\n\}\n`)
	wantLike(t, "json", runIn(t, env, "permissions", "--role", "observer", "-N", "prod", "--js-domain", "hub", "--inbox-prefix", "_I.x", "-j"), 0,
		`\{"namespace":"prod","role":"observer","groups":\[\],"elections":\[\],"publish":\["\$JS\.hub\.API\.INFO",.*"\$JS\.hub\.API\.\$KV\.QUORATE_prod\.check\.\*",.*"subscribe":\["_I\.x\.>",.*"allow_responses":null\}\n`)
	for words, says := range map[string]string{
		"--role chief":       `--role "chief": write one of member, observer, operator`,
		"--group a.b":        `group "a.b": character 2 is '.'`,
		"--election e,":      `election "": is empty`,
		"--inbox-prefix a.*": `--inbox-prefix: "a.*" is no prefix of subjects`,
		"--js-domain a.b":    `--js-domain "a.b"`,
	} {
		checkLine(t, runIn(t, env, append([]string{"permissions"}, strings.Fields(words)...)...), ExitUsage, says)
	}
}
