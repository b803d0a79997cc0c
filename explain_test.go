package quorate_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/partition"
	"github.com/quorate/quorate/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// Each rule of docs/timings.md refuses what is just beyond it, in one line that names it, and takes what is just within.
func TestTimingsCheck(t *testing.T) {
	const ms = time.Millisecond
	for _, tc := range []struct {
		rule string
		t    quorate.Timings
		want string // "" when it is sound
	}{
		{"all derived", quorate.Timings{}, ""},
		{"T1", quorate.Timings{Lease: 199 * ms}, "lease 199ms: at least 200ms are needed"},
		{"T1", quorate.Timings{Lease: 200 * ms}, ""},
		{"T2", quorate.Timings{Lease: time.Hour + ms}, "lease 1h0m0.001s: at most 1h0m0s are allowed"},
		{"T2", quorate.Timings{Lease: time.Hour}, ""},
		{"T3", quorate.Timings{Lease: time.Second + 1}, "whole milliseconds"},
		{"T3", quorate.Timings{Settle: time.Second + 1}, "settle 1.000000001s: whole milliseconds"},
		{"T3", quorate.Timings{Lease: 201 * ms}, ""},
		{"T3", quorate.Timings{Grace: time.Second + 1}, ""},
		{"T4", quorate.Timings{Renew: 400 * ms}, "renew 400ms != lease/6 = 500ms: all processes of a group count on that pace"},
		{"T5", quorate.Timings{Margin: 100 * ms}, "margin 100ms < lease/10 = 300ms: clocks that differ by 5 % would let two terms overlap"},
		{"T5", quorate.Timings{Margin: 300*ms - 1}, "margin 299.999999ms < lease/10 = 300ms"},
		{"T5", quorate.Timings{Margin: 301 * ms}, ""},
		{"T6", quorate.Timings{Margin: 1501 * ms}, "margin 1.501s > lease/2 = 1.5s: a single unanswered renewal would end a term"},
		{"T6", quorate.Timings{Margin: 1500 * ms}, ""},
		{"T7", quorate.Timings{MemberTimeout: 5999 * ms}, "member timeout 5.999s < 2 leases = 6s: a change of leader would revoke every assignment"},
		{"T7", quorate.Timings{MemberTimeout: time.Minute}, ""},
		{"T8", quorate.Timings{MemberTimeout: 8*time.Hour + ms}, "member timeout 8h0m0.001s > the refresh of records = 8h0m0s"},
		{"T8", quorate.Timings{MemberTimeout: 8 * time.Hour}, ""},
		{"T9", quorate.Timings{Settle: 2 * time.Second, SettleCeiling: time.Second}, "settle ceiling 1s < settle = 2s"},
		{"T9", quorate.Timings{Settle: time.Minute}, ""},
		{"T10", quorate.Timings{AckTimeout: 999 * ms}, "ack timeout 999ms < lease/3 = 1s"},
		{"T10", quorate.Timings{AckTimeout: time.Second}, ""},
		{"negative", quorate.Timings{Grace: -1}, "grace -1ns < 0"},
	} {
		err := tc.t.Check()
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%s: %+v: got %v, want %q", tc.rule, tc.t, err, tc.want)
		}
		if _, eerr := quorate.Explain(tc.t, quorate.Situation{}); fmt.Sprint(eerr) != fmt.Sprint(err) {
			t.Errorf("%s: Explain says %v, Check %v", tc.rule, eerr, err)
		}
	}
	d := quorate.Derive(0) // T11
	if err := d.CheckReconnect(3*time.Second - 1); err != nil {
		t.Errorf("T11: %v", err)
	}
	if err := d.CheckReconnect(3 * time.Second); err == nil || !strings.Contains(err.Error(), "reconnect wait 3s >= member timeout/2 = 3s") {
		t.Errorf("T11: %v", err)
	}
}

// A namespace takes sound timings, refuses others before it asks NATS anything, and its packages count with them.
func TestOpenWithTimings(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nc, _ := e.Connect("x")
		for _, cfg := range []quorate.Config{{Timings: quorate.Timings{Margin: 1}}, {Lease: 5 * time.Second, Timings: quorate.Timings{Lease: 3 * time.Second}}} {
			if ns, err := quorate.Open(t.Context(), nc, cfg); err == nil || !strings.HasPrefix(err.Error(), "quorate: ") {
				t.Errorf("%+v: %v, %v", cfg, ns, err)
			}
		}
		cfg := quorate.Config{Timings: quorate.Timings{MemberTimeout: 20 * time.Second, Settle: 4 * time.Second, AckTimeout: 2 * time.Second, Margin: time.Second}}
		na, nb := e.Namespace(cfg), e.Namespace(cfg)
		if got := na.Timings(); got.MemberTimeout != 20*time.Second || got.SettleCeiling != 6*time.Second || got.Lease != quorate.DefaultLease {
			t.Errorf("timings %+v", got)
		}
		a, b := group(t, na, "a"), group(t, nb, "b")
		pa, _ := share(t, a), share(t, b)
		want, err := quorate.Explain(na.Timings(), quorate.Situation{Members: 2})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		until(t, "the first generation", time.Minute, func() bool { as, ok := pa.Assignment(); return ok && as.Total == 2 })
		if d := time.Since(began); d < 4*time.Second || d > want.JoinSettled {
			t.Errorf("settled after %v, want 4s to %v", d, want.JoinSettled)
		}
		e.Kill(nb)
		died := time.Now()
		until(t, "b is out", time.Minute, func() bool { return members(t, a) == "a" })
		if d := time.Since(died); d < 19*time.Second || d > want.LossNotice {
			t.Errorf("b is out after %v, want 20s to %v", d, want.LossNotice)
		}
		term, _ := a.Term()
		e.Cut(na)
		cut := time.Now()
		until(t, "a stops", time.Minute, func() bool { return !term.Live() })
		if d := time.Since(cut); d > want.TermStops+50*time.Millisecond || want.TermStops != 2*time.Second {
			t.Errorf("a stopped leading after %v, want %v at most", d, want.TermStops)
		}
		e.Heal(na)
	})
}

func group(t *testing.T, ns *quorate.Namespace, id string) *coord.Group {
	t.Helper()
	g, err := coord.Join(t.Context(), ns, "g", coord.Config{ID: id})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func share(t *testing.T, g *coord.Group) *partition.Partition {
	t.Helper()
	p, err := partition.Join(t.Context(), g, partition.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func members(t *testing.T, g *coord.Group) string {
	t.Helper()
	l, err := g.Members(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, m := range l {
		ids = append(ids, m.ID)
	}
	return strings.Join(ids, " ")
}

// until polls a condition in virtual time.
func until(t *testing.T, what string, most time.Duration, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(most); !ok(); time.Sleep(max(most/2000, time.Millisecond)) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", most, what)
		}
	}
}

// renewed waits for the next renewal under a key, as the bucket's hints tell it: the moment from which most time is left to whoever wrote it.
func renewed(t *testing.T, e *testenv.Env, key string) {
	t.Helper()
	nc, _ := e.Connect("observer")
	defer nc.Close()
	sub, err := nc.SubscribeSync("quorate.default.kv." + key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sub.NextMsg(time.Minute); err != nil {
		t.Fatal(err)
	}
}

// What Explain says is what happens: each of its worst cases is brought about in virtual time, and none takes longer.
func TestExplainHolds(t *testing.T) {
	for _, lease := range []time.Duration{quorate.MinLease, quorate.DefaultLease, 15 * time.Second} {
		t.Run(lease.String(), func(t *testing.T) {
			want, err := quorate.Explain(quorate.Timings{Lease: lease}, quorate.Situation{})
			if err != nil {
				t.Fatal(err)
			}
			rtt := 20*time.Millisecond + lease/200 // of virtual time: polling, and answers
			within := func(t *testing.T, what string, d, least, most time.Duration) {
				t.Helper()
				t.Logf("%s: %v of %v", what, d, most)
				if d < least || d > most+rtt {
					t.Errorf("%s took %v, want %v to %v", what, d, least, most)
				}
			}
			cfg := quorate.Config{Lease: lease}
			testenv.Run(t, func(t *testing.T, e *testenv.Env) {
				var ns []*quorate.Namespace
				var gs []*coord.Group
				var ps []*partition.Partition
				for _, id := range []string{"a", "b", "c", "d"} {
					n := e.Namespace(cfg)
					g := group(t, n, id)
					ns, gs, ps = append(ns, n), append(gs, g), append(ps, share(t, g))
				}
				leads := func() int {
					for i, g := range gs {
						if term, ok := g.Term(); ok && term.Live() {
							return i
						}
					}
					return -1
				}
				total := func(i int) int {
					if a, ok := ps[i].Assignment(); ok && a.Live() {
						return a.Total
					}
					return 0
				}
				until(t, "all have their shares", 10*lease, func() bool { return total(3) == 4 })
				// Who joins and leaves again.
				newcomer := e.Namespace(cfg)
				began := time.Now()
				g := group(t, newcomer, "e")
				share(t, g)
				until(t, "the newcomer has its share", 10*lease, func() bool { return total(0) == 5 })
				within(t, "joining", time.Since(began), lease/2, want.JoinSettled)
				began = time.Now()
				if err := g.Leave(t.Context()); err != nil {
					t.Fatal(err)
				}
				until(t, "its share is another's", 10*lease, func() bool { return total(0) == 4 })
				within(t, "leaving", time.Since(began), lease/2, want.LeaveSettled)
				// A member.
				time.Sleep(lease)
				e.Kill(ns[3])
				began = time.Now()
				until(t, "d is out", 10*lease, func() bool { return members(t, gs[1]) == "a b c" })
				within(t, "member loss", time.Since(began), 3*lease/2, want.LossNotice)
				until(t, "its share is another's", 10*lease, func() bool { return total(0) == 3 && total(1) == 3 && total(2) == 3 })
				within(t, "reassignment", time.Since(began), 2*lease, want.Reassignment)
				// The leader, right after a renewal that nobody heard of.
				time.Sleep(lease)
				first := leads()
				for i, n := range ns {
					if i != first {
						e.Link(n).DropHints(true)
					}
				}
				renewed(t, e, "leader.g")
				e.Kill(ns[first])
				began = time.Now()
				until(t, "another leads", 10*lease, func() bool { i := leads(); return i >= 0 && i != first })
				within(t, "crash fail-over", time.Since(began), lease, want.CrashFailover)
				until(t, "its share is another's", 20*lease, func() bool { i := leads(); return i >= 0 && total(i) == 2 })
				within(t, "reassignment after the leader's crash", time.Since(began), 2*lease, want.ReassignmentLeader)
				// Handing over without a notification.
				second := leads()
				began = time.Now()
				if err := gs[second].Leave(t.Context()); err != nil {
					t.Fatal(err)
				}
				until(t, "the next leads", 10*lease, func() bool { i := leads(); return i >= 0 && i != second })
				within(t, "hand-over, notification lost", time.Since(began), 0, want.HandOver)
			})
			// Outages, and stopping by oneself, of a plain election.
			testenv.Run(t, func(t *testing.T, e *testenv.Env) {
				ns := e.Namespace(cfg)
				el, err := leader.New(ns, "e", leader.Config{})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				term, err := el.Campaign(ctx)
				if err != nil {
					t.Fatal(err)
				}
				silence := func(d time.Duration) {
					stop := e.Link(ns).Filter(func(f *testenv.Frame) testenv.Verdict {
						if f.Dir == testenv.ToServer && strings.HasPrefix(f.Subject, "$") {
							return testenv.Drop
						}
						return testenv.Pass
					})
					time.Sleep(d)
					stop()
				}
				for range 5 { // from right before a renewal is sent
					renewed(t, e, "election.e")
					time.Sleep(want.Timings.Renew - 2*time.Millisecond)
					silence(want.TermSilence - rtt)
					time.Sleep(lease / 2)
					if !term.Live() {
						t.Fatalf("the term was lost in a silence of %v", want.TermSilence)
					}
				}
				renewed(t, e, "election.e")
				began := time.Now()
				e.Cut(ns)
				until(t, "it stops", 10*lease, func() bool { return !term.Live() })
				within(t, "stopping to lead", time.Since(began), want.TermStops-lease/6, want.TermStops)
				e.Heal(ns)
			})
		})
	}
}

// What is printed fits a terminal, and says what the design does: a lease of 15 s rides out the election of a stream's leader, one of 3 s does not.
func TestExplainText(t *testing.T) {
	for lease, survives := range map[time.Duration]bool{3 * time.Second: false, 15 * time.Second: true, time.Hour: true, quorate.MinLease: false} {
		e, err := quorate.Explain(quorate.Timings{Lease: lease}, quorate.Situation{Members: 1000, ReconnectWait: 2 * lease})
		if err != nil {
			t.Fatal(err)
		}
		if e.SurvivesElection != survives {
			t.Errorf("lease %v survives an election: %v, want %v", lease, e.SurvivesElection, survives)
		}
		s := e.String()
		for line := range strings.Lines(s) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
				t.Errorf("lease %v: a line of %d columns: %s", lease, n, line)
			}
		}
		if !strings.Contains(s, "Careful: reconnect wait") || !strings.Contains(s, "1000 members at rest") {
			t.Errorf("lease %v:\n%s", lease, s)
		}
	}
}
