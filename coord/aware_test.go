package coord_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/partition"
	"github.com/quorate/quorate/testenv"
	"github.com/quorate/quorate/vote"
)

// R29: a member whose own loop ran late says so itself, with its next heartbeat; a heartbeat later it is well again.
func TestMemberRunsLate(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		a := join(t, e.Namespace(), "a")
		nb := e.Namespace()
		b := join(t, nb, "b")
		time.Sleep(2 * lease)
		inc := b.Inner().Place().Incarnation
		e.Pause(nb)
		time.Sleep(lease)
		e.Resume(nb)
		time.Sleep(10 * time.Millisecond)
		if got := roster(t, a.Client); got != "a:alive b:late " {
			t.Errorf("R29: roster %q right after b ran late", got)
		}
		time.Sleep(lease / 2)
		if got := roster(t, a.Client); got != "a:alive b:alive " || b.Inner().Place().Incarnation != inc {
			t.Errorf("R29: roster %q when b is well again", got)
		}
	})
}

// R29, M3: a leader that ran late itself accuses nobody before it has listened for a member timeout.
func TestLeaderRunsLate(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		na, nc := e.Namespace(), e.Namespace()
		a := join(t, na, "a")
		join(t, e.Namespace(), "b")
		join(t, nc, "c")
		time.Sleep(2 * lease)
		ctx, cancel := context.WithCancel(t.Context())
		w := watch(ctx, a.Client)
		time.Sleep(lease / 10)
		w.take()
		e.Kill(nc)
		killed := time.Now()
		time.Sleep(2*lease - lease/2)
		e.Pause(na) // it runs late over the moment at which c's time would be up
		time.Sleep(lease * 6 / 10)
		e.Resume(na)
		resumed := time.Now()
		time.Sleep(2*lease - lease/6)
		if _, ok := a.Term(); !ok {
			t.Fatal("the pause cost the leadership: nothing was tested")
		}
		wantLog(t, "M3: a leader that ran late", w, "")
		time.Sleep(lease / 3)
		wantLog(t, "M1 expired", w, "-c:expired")
		t.Logf("c killed %v, and the leader resumed %v, before it was accused", time.Since(killed), time.Since(resumed))
		cancel()
		<-w.done
	})
}

// A group whose processes have all died vanishes by itself: its leader's key after five leases, the last of its records after a day.
func TestDeadGroupVanishes(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		long := quorate.Config{Lease: 20 * time.Minute} // a day of the default lease is a minute of processor time
		other := e.Namespace(long)
		if _, err := coord.Join(t.Context(), other, "alive", coord.Config{ID: "z"}); err != nil {
			t.Fatal(err)
		}
		var dead []*quorate.Namespace
		for _, id := range []string{"a", "b", "c"} {
			ns := e.Namespace(long)
			g := join(t, ns, id)
			if _, err := partition.Join(t.Context(), g, partition.Config{}); err != nil {
				t.Fatal(err)
			}
			if _, err := vote.Join(t.Context(), g, vote.Config{Decide: func(context.Context, vote.Ballot) vote.Answer { return vote.Yes() }}); err != nil {
				t.Fatal(err)
			}
			dead = append(dead, ns)
		}
		time.Sleep(3 * long.Lease)
		c := client(t, other)
		if v, err := vote.Propose(t.Context(), c, vote.Proposal{Topic: "x"}); err != nil || v.Verdict != vote.Passed {
			t.Fatalf("%+v, %v", v, err)
		}
		if err := c.Evict(t.Context(), "c"); err != nil {
			t.Fatal(err)
		}
		keys := func() string {
			l, err := other.Inner().Store.List(t.Context(), ">")
			if err != nil {
				t.Fatal(err)
			}
			var s []string
			for _, e := range l {
				if strings.Contains(e.Key, ".g") {
					s = append(s, e.Key)
				}
			}
			return strings.Join(s, " ")
		}
		time.Sleep(10 * time.Second)
		if s := keys(); !strings.Contains(s, "settled.g") || !strings.Contains(s, "verdict.g.") || !strings.Contains(s, "history.g.") {
			t.Fatalf("keys of a living group: %s", s)
		}
		for _, ns := range dead {
			e.Kill(ns)
		}
		groups := func() string {
			l, err := coord.Groups(t.Context(), other)
			if err != nil {
				t.Fatal(err)
			}
			return strings.Join(l, " ")
		}
		time.Sleep(10 * long.Lease)
		if l, err := c.Leader(t.Context()); err != nil || l.Holder != "" {
			t.Errorf("a dead group is led by %q, %v", l.Holder, err)
		}
		if got := roster(t, c); got != "a:unknown b:unknown " {
			t.Errorf("roster of a dead group: %q", got)
		}
		if !wholeDay {
			return
		}
		time.Sleep(24 * time.Hour)
		if got := groups(); got != "alive" {
			t.Errorf("groups after a day: %q", got)
		}
		time.Sleep(time.Hour)
		if s := keys(); s != "" {
			t.Errorf("left of a dead group: %s", s)
		}
	})
}

// Who does not watch the roster is not sent it: what a member hears does not grow with the others' records.
func TestRosterOnlyForThoseWhoAsk(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		join(t, e.Namespace(), "a")
		nb, nw := e.Namespace(), e.Namespace()
		join(t, nb, "b")
		w := join(t, nw, "w")
		ctx, cancel := context.WithCancel(t.Context())
		l := watch(ctx, w.Client)
		time.Sleep(lease)
		in := func(nc *nats.Conn) (msgs, bytes uint64) { s := nc.Stats(); return s.InMsgs, s.InBytes }
		m0, b0 := in(e.Conn(nb))
		_, w0 := in(e.Conn(nw))
		const joins, size = 40, 4000
		for i := range joins {
			if _, err := coord.Join(t.Context(), e.Namespace(), "g", coord.Config{ID: fmt.Sprint("m", i), NoLead: true, Meta: map[string]string{"k": strings.Repeat("x", size)}}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(lease)
		m1, b1 := in(e.Conn(nb))
		_, w1 := in(e.Conn(nw))
		t.Logf("%d joins: a member that does not watch got %d messages of %d bytes, one that does %d bytes", joins, m1-m0, b1-b0, w1-w0)
		if b1-b0 > joins*size/4 {
			t.Errorf("a member that does not watch was sent %d bytes while %d joined", b1-b0, joins)
		}
		if w1-w0 < joins*size*9/10 {
			t.Errorf("a member that watches was sent %d bytes only: nothing was tested", w1-w0)
		}
		if v := l.view(); len(v.Members) != joins+3 {
			t.Errorf("watch shows %d members", len(v.Members))
		}
		cancel()
		<-l.done
	})
}

// R28, M2: a fixed id with a return window finds its share as it left it, if it is back in time, and nobody else's moves. Meanwhile it is no member.
func TestReturnWindow(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		start := func(id string) (*quorate.Namespace, *coord.Group, *partition.Partition) {
			ns := e.Namespace()
			g, err := coord.Join(t.Context(), ns, "g", coord.Config{ID: id, ReturnWindow: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			p, err := partition.Join(t.Context(), g, partition.Config{})
			if err != nil {
				t.Fatal(err)
			}
			return ns, g, p
		}
		_, a, pa := start("a")
		nb, _, pb := start("b")
		_, _, pc := start("c")
		time.Sleep(3 * lease)
		share := func(p *partition.Partition) (gen uint64, index, total int) {
			as, ok := p.Assignment()
			if !ok {
				return 0, -1, 0
			}
			return as.Generation, as.Index, as.Total
		}
		gen, ia, _ := share(pa)
		_, ib, _ := share(pb)
		_, ic, total := share(pc)
		if gen == 0 || total != 3 {
			t.Fatalf("generation %d of %d", gen, total)
		}
		e.Kill(nb)
		time.Sleep(8 * lease) // out after two
		if got := roster(t, a.Client); got != "a:alive c:alive " {
			t.Errorf("M1: roster %q", got)
		}
		ga, na, _ := share(pa)
		gc, nc, _ := share(pc)
		if ga != gen || gc != gen || na != ia || nc != ic {
			t.Errorf("in the window: generations %d and %d, before %d; indexes %d and %d, before %d and %d", ga, gc, gen, na, nc, ia, ic)
		}
		began := time.Now()
		nb, _, pb = start("b")
		if d := time.Since(began); d > lease/2 {
			t.Errorf("M2: joined after %v, though the lease of the one before had run out", d)
		}
		time.Sleep(2 * lease)
		ga, na, _ = share(pa)
		gb, nbi, _ := share(pb)
		_, nc, total = share(pc)
		if ga <= gen || gb != ga || na != ia || nbi != ib || nc != ic || total != 3 {
			t.Errorf("back in time: generation %d and %d, indexes %d %d %d of %d, before %d %d %d", ga, gb, na, nbi, nc, total, ia, ib, ic)
		}
		e.Kill(nb)
		time.Sleep(2*lease + time.Minute + 2*lease)
		if ga2, _, total := share(pa); ga2 <= ga || total != 2 {
			t.Errorf("not back in time: generation %d of %d", ga2, total)
		}
		for _, c := range []coord.Config{{ID: "x", ReturnWindow: -1}, {ID: "x", ReturnWindow: 25 * time.Hour}, {ID: "x", ReturnWindow: time.Microsecond}, {ReturnWindow: time.Minute}, {MinSize: -1},
			{MinSize: 1 << 20}, {Observer: true, Priority: 1}, {NoLead: true, Priority: 1}} {
			if _, err := coord.Join(t.Context(), e.Namespace(), "g", c); err == nil || strings.Contains(err.Error(), "\n") {
				t.Errorf("%+v: got %v, want one line", c, err)
			}
		}
	})
}
