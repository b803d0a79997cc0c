package metrics_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/metrics"
	"github.com/quorate/quorate/partition"
	"github.com/quorate/quorate/testenv"
	"github.com/quorate/quorate/vote"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// process is one with metrics of its own.
type process struct {
	t   *testing.T
	ns  *quorate.Namespace
	m   *metrics.Metrics
	reg *prometheus.Registry
}

func newProcess(t *testing.T, e *testenv.Env) *process {
	p := &process{t: t, m: metrics.New(), reg: prometheus.NewPedanticRegistry()}
	p.reg.MustRegister(p.m)
	p.ns = e.Namespace(quorate.Config{Hooks: p.m.Hooks()})
	return p
}

func (p *process) gather() map[string]*dto.MetricFamily {
	p.t.Helper()
	all, err := p.reg.Gather()
	if err != nil {
		p.t.Fatal(err)
	}
	m := map[string]*dto.MetricFamily{}
	for _, f := range all {
		m[f.GetName()] = f
	}
	return m
}

// value is that of the series with these labels (name=value) and others; for a histogram how many were observed. -1: there is none.
func (p *process) value(name string, labels ...string) float64 {
	p.t.Helper()
	total, found := 0.0, false
	for _, m := range p.gather()[name].GetMetric() {
		has := map[string]bool{}
		for _, l := range m.GetLabel() {
			has[l.GetName()+"="+l.GetValue()] = true
		}
		if slices.ContainsFunc(labels, func(l string) bool { return !has[l] }) {
			continue
		}
		found = true
		switch {
		case m.Gauge != nil:
			total += m.Gauge.GetValue()
		case m.Counter != nil:
			total += m.Counter.GetValue()
		default:
			total += float64(m.Histogram.GetSampleCount())
		}
	}
	if !found {
		return -1
	}
	return total
}

// await waits, in virtual time, until the value is as it should be.
func (p *process) await(what string, is func(float64) bool, name string, labels ...string) {
	p.t.Helper()
	for range 3000 {
		if is(p.value(name, labels...)) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	p.t.Errorf("%s%v: got %v, want %s", name, labels, p.value(name, labels...), what)
}

func (p *process) awaitValue(want float64, name string, labels ...string) {
	p.t.Helper()
	p.await("it to be as wanted", func(v float64) bool { return v == want }, name, labels...)
}

func (p *process) awaitSome(name string, labels ...string) {
	p.t.Helper()
	p.await("some", func(v float64) bool { return v > 0 }, name, labels...)
}

// TestEveryMetricAppears: in the life of a group that has some trouble, each metric is shown by some process, and the right one shows what it should.
func TestEveryMetricAppears(t *testing.T) {
	seen := map[string]*dto.MetricFamily{}
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		ctx := context.Background()
		a, b, c := newProcess(t, e), newProcess(t, e), newProcess(t, e)
		groups := map[string]*coord.Group{}
		join := func(p *process, id string) *coord.Group {
			g, err := coord.Join(ctx, p.ns, "workers", coord.Config{ID: id})
			if err != nil {
				t.Fatal(err)
			}
			groups[id] = g
			part, err := partition.Join(ctx, g, partition.Config{Buckets: 8})
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				_ = part.RunBuckets(g.Context(), func(ctx context.Context, _ *partition.Bucket) error { <-ctx.Done(); return nil }) // ends with the membership
			}()
			if _, err := vote.Join(ctx, g, vote.Config{Decide: func(context.Context, vote.Ballot) vote.Answer { return vote.Yes() }}); err != nil {
				t.Fatal(err)
			}
			return g
		}
		join(a, "a")
		a.awaitValue(1, "quorate_leader", "group=workers", "namespace=default", "election=")
		join(b, "b")
		b.awaitValue(0, "quorate_leader", "group=workers")

		// The life of a healthy group.
		a.awaitValue(2, "quorate_roster_size", "group=workers")
		a.awaitValue(0, "quorate_roster_late", "group=workers")
		for _, p := range []*process{a, b} {
			p.awaitValue(1, "quorate_member", "group=workers")
			p.awaitValue(1, "quorate_memberships_total", "group=workers")
			p.awaitValue(1, "quorate_shares", "group=workers")
			p.awaitValue(4, "quorate_buckets", "group=workers")
			p.awaitValue(0, "quorate_unsettled_age_seconds", "group=workers")
			p.awaitSome("quorate_heartbeat_duration_seconds", "namespace=default")
			p.awaitValue(1, "quorate_connected", "namespace=default")
		}
		if got := b.value("quorate_unsettled_seconds_total", "group=workers"); got <= 0 || got > 10 {
			t.Errorf("b was unsettled for %v s until it was settled for the first time", got)
		}
		if b.value("quorate_roster_size") != -1 || b.value("quorate_ballots_total") != -1 {
			t.Error("who does not lead shows the roster, or ballots")
		}
		term, ok := groups["a"].Term()
		if !ok {
			t.Fatal("a does not lead")
		}
		for _, p := range []*process{a, b} {
			p.awaitValue(float64(term.Token()), "quorate_term", "group=workers")
			p.awaitSome("quorate_term_age_seconds", "group=workers")
		}
		a.awaitValue(1, "quorate_terms_total", "group=workers", "reason=fresh")
		a.awaitSome("quorate_renewals_total", "group=workers", "outcome=yes")
		a.awaitSome("quorate_renewal_duration_seconds", "namespace=default")
		a.awaitSome("quorate_generations_total", "reason=first")
		a.awaitSome("quorate_settling_duration_seconds", "group=workers")
		if ga, gb := a.value("quorate_generation", "group=workers"), b.value("quorate_generation", "group=workers"); ga != gb || ga <= 0 {
			t.Errorf("generations: a has %v, b %v", ga, gb)
		}

		// A vote, and an action.
		v, err := vote.Propose(ctx, groups["b"].Client, vote.Proposal{Topic: "open", At: time.Now().Add(5 * time.Second)})
		if err != nil || !v.Won() {
			t.Fatalf("verdict %+v, %v", v, err)
		}
		a.awaitValue(1, "quorate_ballots_total", "group=workers")
		a.awaitValue(1, "quorate_verdicts_total", "group=workers", "verdict=yes")
		a.awaitValue(1, "quorate_verdict_duration_seconds", "group=workers")
		b.awaitValue(1, "quorate_proposals_total", "group=workers", "verdict=yes")
		b.awaitValue(1, "quorate_proposal_duration_seconds", "group=workers")
		b.awaitValue(1, "quorate_votes_total", "group=workers", "answer=yes")
		b.awaitValue(1, "quorate_actions_total", "group=workers", "status=done")

		// A handler that stands still: more messages than wait for it.
		release := make(chan struct{})
		stop, err := groups["b"].Handle("flood", func(context.Context, coord.Message) ([]byte, error) { <-release; return nil, nil })
		if err != nil {
			t.Fatal(err)
		}
		for range 4100 {
			if err := groups["a"].Send(ctx, coord.ToMember("b"), "flood", nil); err != nil {
				t.Fatal(err)
			}
		}
		b.awaitSome("quorate_messages_dropped_total", "group=workers")
		close(release)
		stop()

		// A plain election.
		el, err := leader.New(c.ns, "reports", leader.Config{})
		if err != nil {
			t.Fatal(err)
		}
		held, err := el.Campaign(ctx)
		if err != nil {
			t.Fatal(err)
		}
		c.awaitValue(1, "quorate_leader", "election=reports", "group=")
		c.awaitValue(float64(held.Token()), "quorate_term", "election=reports")
		c.awaitSome("quorate_renewals_total", "election=reports", "outcome=yes")
		if err := held.Resign(ctx); err != nil {
			t.Fatal(err)
		}
		c.awaitValue(0, "quorate_leader", "election=reports")
		c.awaitValue(1, "quorate_terms_ended_total", "election=reports", "reason=resigned")
		if age := c.value("quorate_term_age_seconds", "election=reports"); age != -1 {
			t.Errorf("nobody leads, and the term has an age of %v", age)
		}

		// A member that is late, and is not heard any more.
		e.Pause(b.ns)
		a.awaitValue(1, "quorate_roster_late", "group=workers")
		a.awaitSome("quorate_heartbeats_late_total", "group=workers")
		a.awaitValue(1, "quorate_roster_size", "group=workers")
		a.awaitValue(1, "quorate_generations_total", "reason=expired")
		e.Resume(b.ns)
		b.awaitValue(1, "quorate_memberships_ended_total", "group=workers", "reason=expired")
		b.awaitValue(2, "quorate_memberships_total", "group=workers")
		b.awaitValue(1, "quorate_shares", "group=workers")
		a.awaitValue(1, "quorate_generations_total", "reason=joined")

		// The connection is lost and comes back.
		e.Link(b.ns).Down(true)
		e.Link(b.ns).Kill()
		b.awaitValue(0, "quorate_connected", "namespace=default")
		b.awaitValue(1, "quorate_disconnects_total", "namespace=default")
		b.awaitSome("quorate_unsettled_age_seconds", "group=workers")
		b.awaitValue(0, "quorate_member", "group=workers") // by its own clock
		e.Link(b.ns).Down(false)
		b.awaitValue(1, "quorate_reconnects_total", "namespace=default")
		b.awaitValue(1, "quorate_connected", "namespace=default")
		b.awaitValue(1, "quorate_shares", "group=workers")

		maps.Copy(seen, a.gather())
		maps.Copy(seen, c.gather())
		// The leader dies: a fail-over.
		e.Kill(a.ns)
		b.awaitValue(1, "quorate_leader", "group=workers")
		b.awaitValue(1, "quorate_failovers_total", "group=workers")
		b.awaitValue(1, "quorate_terms_total", "group=workers", "reason=expired")
		b.awaitSome("quorate_roster_size", "group=workers")
		if err := b.ns.Close(ctx); err != nil { // tells what waits
			t.Fatal(err)
		}
		for name, want := range map[string]float64{"quorate_leader": 0, "quorate_member": 0, "quorate_shares": 0, "quorate_buckets": 0, "quorate_roster_size": -1} {
			if got := b.value(name, "group=workers"); got != want {
				t.Errorf("%s when all is closed: got %v, want %v", name, got, want)
			}
		}
		if got := b.value("quorate_terms_ended_total", "group=workers", "reason=resigned"); got != 1 {
			t.Errorf("quorate_terms_ended_total when all is closed: got %v, want 1", got)
		}
		maps.Copy(seen, b.gather())
		b.m.Hooks().Event(quorate.Event{Kind: quorate.EventDropped, Namespace: "default", Count: 3}) // internal/inner shows that it comes
		b.awaitValue(3, "quorate_events_dropped_total", "namespace=default")
		maps.Copy(seen, b.gather())
	})
	for _, row := range table(t) {
		f := seen[row.name]
		if !ours(row.name) {
			continue
		}
		if f == nil {
			t.Errorf("%s is in the table, and no process has shown it", row.name)
			continue
		}
		if got := strings.ToLower(f.GetType().String()); got != row.kind {
			t.Errorf("%s is a %s, and the table says %s", row.name, got, row.kind)
		}
		if got := f.GetHelp(); got != row.help+"." {
			t.Errorf("%s: help %q, and the table says %q", row.name, got, row.help)
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName())
			}
			if want := slices.Sorted(slices.Values(row.labels)); !slices.Equal(labels, want) {
				t.Errorf("%s has the labels %v, and the table says %v", row.name, labels, want)
			}
		}
	}
}

// ours says that a metric is one of Metrics, and not of the `quorate` command, whose test has those.
func ours(name string) bool {
	return !strings.HasPrefix(name, "quorate_server_") && name != "quorate_build_info" && name != "quorate_ready"
}

// row is a line of the table in docs/operations.md.
type row struct {
	name, kind string
	labels     []string
	help       string
}

func table(t *testing.T) []row {
	t.Helper()
	doc, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows []row
	for _, m := range regexp.MustCompile("(?m)^\\| `(quorate_\\w+)` \\| (\\w+) \\| ([^|]*) \\| ([^|]*) \\|$").FindAllStringSubmatch(string(doc), -1) {
		rows = append(rows, row{name: m[1], kind: m[2], labels: regexp.MustCompile(`\w+`).FindAllString(m[3], -1), help: m[4]})
	}
	if len(rows) == 0 {
		t.Fatal("docs/operations.md has no table of metrics")
	}
	return rows
}

// TestTable: the table lists the metrics that there are, and no others.
func TestTable(t *testing.T) {
	ch := make(chan *prometheus.Desc, 100)
	metrics.New().Describe(ch)
	(&metrics.Program{Server: func() (metrics.Server, bool) { return metrics.Server{}, true }}).Describe(ch)
	close(ch)
	there := map[string]bool{}
	name := regexp.MustCompile(`fqName: "(\w+)"`)
	for d := range ch {
		there[name.FindStringSubmatch(d.String())[1]] = true
	}
	for _, r := range table(t) {
		if !there[r.name] {
			t.Errorf("docs/operations.md lists %s, which does not exist", r.name)
		}
		delete(there, r.name)
	}
	for n := range there {
		t.Errorf("docs/operations.md does not list %s", n)
	}
}

// TestNames: names, units and helps are as Prometheus wants them.
func TestNames(t *testing.T) {
	m := metrics.New()
	for _, kind := range []string{quorate.EventTermBegan, quorate.EventTermEnded, quorate.EventRenewal, quorate.EventMemberBegan, quorate.EventMemberEnded, quorate.EventHeartbeat,
		quorate.EventRoster, quorate.EventMemberLate, quorate.EventSettled, quorate.EventShareWanted, quorate.EventRound, quorate.EventVerdict, quorate.EventVote, quorate.EventAction,
		quorate.EventProposal, quorate.EventMessageDropped, quorate.EventDropped} {
		m.Hooks().Event(quorate.Event{Kind: kind, Namespace: "default", Group: "g", Member: "a", Time: time.Now(), Term: 1, Took: time.Millisecond, Count: 1, Cause: errors.New("over")})
	}
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(m, &metrics.Program{Ready: func() bool { return true }, Server: func() (metrics.Server, bool) { return metrics.Server{}, true }})
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(all).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
