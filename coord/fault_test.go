package coord_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/testenv"
)

// five makes members a to e, of which a leads, each a process of its own.
func five(t *testing.T, e *testenv.Env) (ns []*quorate.Namespace, gs []*coord.Group) {
	t.Helper()
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		n := e.Namespace()
		ns, gs = append(ns, n), append(gs, join(t, n, id))
	}
	return ns, gs
}

const fiveAlive = "a:alive b:alive c:alive d:alive e:alive "

// M3: NATS going away for everybody, for any time, is not everyone dying.
func TestOutageAccusesNobody(t *testing.T) {
	for _, kill := range []bool{false, true} {
		for _, away := range []time.Duration{lease / 2, lease - lease/10, 2 * lease, 10 * lease} {
			testenv.Run(t, func(t *testing.T, e *testenv.Env) {
				ns, gs := five(t, e)
				look := e.Namespace()
				ctx, cancel := context.WithCancel(t.Context())
				w := watch(ctx, client(t, look))
				time.Sleep(2 * lease)
				w.take()
				inc := incarnations(t, gs[0].Client)
				for _, n := range append(ns, look) {
					if kill {
						e.Link(n).Down(true)
						e.Link(n).Kill()
					} else {
						e.Cut(n)
					}
				}
				time.Sleep(away)
				for i, n := range append(ns, look) {
					time.Sleep(time.Duration(i) * lease / 20) // not all are back at once
					e.Link(n).Down(false)
					e.Heal(n)
				}
				time.Sleep(5 * lease)
				if got := w.take("leader="); got != "" {
					t.Errorf("M3: after %v away (connections lost: %v) watch told %q", away, kill, got)
				}
				if got := roster(t, gs[1].Client); got != fiveAlive {
					t.Errorf("M3: after %v away roster %q", away, got)
				}
				if now := incarnations(t, gs[1].Client); now != inc {
					t.Errorf("M3: incarnations %s, before %s", now, inc)
				}
				for _, g := range gs {
					if !g.Live() || g.Context().Err() != nil {
						t.Errorf("M3: %s is not live", g.ID())
					}
				}
				cancel()
				<-w.done
			})
		}
	}
}

func incarnations(t *testing.T, c *coord.Client) string {
	t.Helper()
	ms, err := c.Members(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := ""
	for _, m := range ms {
		s += fmt.Sprintf("%s.%d ", m.ID, m.Incarnation)
	}
	return s
}

// The leader dies, is paused, or is cut off: another leads, only the one that is not back in time is out, and it is
// told apart (M1); who comes back joins again by itself, as a new incarnation (R24).
func TestLeaderFails(t *testing.T) {
	type fault struct {
		name       string
		begin, end func(e *testenv.Env, n *quorate.Namespace)
		out        bool // longer than its lease
	}
	for _, f := range []fault{
		{"killed", func(e *testenv.Env, n *quorate.Namespace) { e.Kill(n) }, nil, true},
		{"paused", func(e *testenv.Env, n *quorate.Namespace) { e.Pause(n) }, func(e *testenv.Env, n *quorate.Namespace) { e.Resume(n) }, true},
		{"cut", func(e *testenv.Env, n *quorate.Namespace) { e.Cut(n) }, func(e *testenv.Env, n *quorate.Namespace) { e.Heal(n) }, true},
		{"cut briefly", func(e *testenv.Env, n *quorate.Namespace) { e.Cut(n) }, func(e *testenv.Env, n *quorate.Namespace) { e.Heal(n) }, false},
	} {
		testenv.Run(t, func(t *testing.T, e *testenv.Env) {
			ns, gs := five(t, e)
			ctx, cancel := context.WithCancel(t.Context())
			w := watch(ctx, client(t, e.Namespace()))
			time.Sleep(2 * lease)
			w.take()
			before := incarnations(t, gs[1].Client)
			f.begin(e, ns[0])
			down := lease + lease/2
			if f.out {
				down = 6 * lease
			}
			time.Sleep(down)
			want := ""
			if f.out {
				want = "-a:expired"
				if gs[0].Live() {
					t.Errorf("%s: M2: live after its lease", f.name)
				}
			}
			wantLog(t, "M1 "+f.name, w, want, "leader=")
			if h := w.view().Leader.Holder; h == "a" || h == "" {
				t.Errorf("%s: %q leads", f.name, h)
			}
			if f.end != nil {
				f.end(e, ns[0])
				time.Sleep(3 * lease)
				if got := roster(t, gs[1].Client); got != fiveAlive {
					t.Errorf("%s: M1: roster %q", f.name, got)
				}
				after := incarnations(t, gs[1].Client)
				if (after != before) != f.out || after[strings.Index(after, "b."):] != before[strings.Index(before, "b."):] {
					t.Errorf("%s: R24: incarnations %s, before %s", f.name, after, before)
				}
				want = ""
				if f.out {
					want = "+a"
				}
				wantLog(t, "R24 "+f.name, w, want, "leader=")
				if !gs[0].Live() || gs[0].Context().Err() != nil {
					t.Errorf("%s: R24: not a member again", f.name)
				}
			}
			cancel()
			<-w.done
		})
	}
}

// Two processes fight over one id: the newer waits; once the older is out, it is refused for good when it comes back.
func TestTwoProcessesOneID(t *testing.T) {
	for _, fault := range []string{"pause", "cut"} {
		testenv.Run(t, func(t *testing.T, e *testenv.Env) {
			a := join(t, e.Namespace(), "a")
			n1, n2 := e.Namespace(), e.Namespace()
			b1 := join(t, n1, "b")
			joined := make(chan *coord.Group)
			go func() { joined <- join(t, n2, "b") }()
			time.Sleep(5 * lease)
			if !b1.Live() {
				t.Error("M2: the older lost its place to a newer that waits")
			}
			var back func()
			if fault == "pause" {
				e.Pause(n1)
				back = func() { e.Resume(n1) }
			} else {
				e.Cut(n1)
				back = func() { e.Heal(n1) }
			}
			b2 := <-joined
			if b1.Live() || !b2.Live() {
				t.Errorf("M2: live: older %v, newer %v", b1.Live(), b2.Live())
			}
			back()
			time.Sleep(2 * lease)
			if err := context.Cause(b1.Context()); !errors.Is(err, coord.ErrIDInUse) {
				t.Errorf("%s: M2: the older ended with %v, want ErrIDInUse", fault, err)
			}
			if !b2.Live() || recordOf(t, n2, "b") == "" {
				t.Error("M2: the newer was disturbed")
			}
			if got := roster(t, a.Client); got != "a:alive b:alive " {
				t.Errorf("roster %q", got)
			}
			// The newer leaves: the id is free at once, and a process with a slower wall clock gets it too.
			if err := b2.Leave(t.Context()); err != nil {
				t.Fatal(err)
			}
			n3 := e.Namespace()
			e.JumpWall(n3, -time.Hour)
			start := time.Now()
			b3, err := coord.Join(t.Context(), n3, "g", coord.Config{ID: "b", FailIfInUse: true})
			if err != nil || time.Since(start) > lease {
				t.Errorf("a free id, an earlier clock: %v after %v", err, time.Since(start))
			} else if !b3.Live() {
				t.Error("joined and not live")
			}
		})
	}
}

// Two processes wait for one id whose record is ahead of their clocks: only one gets it, the other goes on waiting (M2).
func TestTwoWaitersOneID(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		a := join(t, e.Namespace(), "a")
		ahead := e.Namespace()
		e.JumpWall(ahead, time.Hour)
		join(t, ahead, "b")
		joined := make(chan *coord.Group, 3)
		for range 3 {
			ns := e.Namespace()
			go func() { joined <- join(t, ns, "b") }()
		}
		time.Sleep(lease)
		e.Kill(ahead)
		for range 3 {
			g := <-joined // the watchers see it if another is live
			time.Sleep(3 * lease)
			if len(joined) > 0 {
				t.Fatal("M2: two processes have joined as one member")
			}
			if !g.Live() {
				t.Errorf("M2: who waits has disturbed who acts: %v", context.Cause(g.Context()))
			}
			if err := g.Leave(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if got := roster(t, a.Client); got != "a:alive " {
			t.Errorf("roster %q", got)
		}
	})
}

// Without a single hint everything works by reconciling and heartbeats (R16).
func TestWithoutHints(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		ns := []*quorate.Namespace{e.Namespace(), e.Namespace(), e.Namespace(), e.Namespace()}
		for _, n := range ns {
			e.Link(n).DropHints(true)
		}
		a, b := join(t, ns[0], "a"), join(t, ns[1], "b")
		nc := ns[2]
		join(t, nc, "c")
		ctx, cancel := context.WithCancel(t.Context())
		w := watch(ctx, client(t, ns[3]))
		time.Sleep(2 * lease)
		wantLog(t, "M1", w, "+a +b +c", "leader=")
		if err := a.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		e.Kill(nc)
		time.Sleep(4 * lease)
		if got := roster(t, b.Client); got != "b:alive " {
			t.Errorf("M1: roster %q", got)
		}
		wantLog(t, "M1", w, "-a:left -c:expired", "leader=")
		cancel()
		<-w.done
	})
}

// Acknowledgements of writes are lost: a write that landed is found by its nonce, a join does not wait for itself (L4).
func TestAcksLost(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		a := join(t, e.Namespace(), "a")
		for lost := 1; lost <= 4; lost++ {
			ns := e.Namespace()
			e.Link(ns).DropAcks(lost)
			start := time.Now()
			g, err := coord.Join(t.Context(), ns, "g", coord.Config{ID: "b", NoLead: true})
			if err != nil {
				t.Fatal(err)
			}
			if d := time.Since(start); d > lease {
				t.Errorf("L4: with %d acknowledgements lost the join took %v", lost, d)
			}
			if got := roster(t, a.Client); got != "a:alive b:alive " {
				t.Errorf("roster %q", got)
			}
			e.Link(ns).DropAcks(lost)
			if err := g.Leave(t.Context()); err != nil {
				t.Fatal(err)
			}
			if r := recordOf(t, e.Namespace(), "b"); r != "" {
				t.Errorf("L4: left, and its record stands: %s", r)
			}
			time.Sleep(lease / 10)
			if got := roster(t, a.Client); got != "a:alive " {
				t.Errorf("roster %q", got)
			}
		}
		// All of them, for a leader too: the group forms all the same.
		ns := e.Namespace()
		e.Link(ns).DropAcks(3)
		g, err := coord.Join(t.Context(), ns, "h", coord.Config{ID: "a"})
		if err != nil || !g.Live() {
			t.Errorf("a first member without acknowledgements: %v", err)
		}
	})
}

// The server is restarted and its memory is gone: everything ends, and everybody joins again (R19).
func TestBucketLost(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		_, gs := five(t, e)
		c := client(t, e.Namespace())
		ctx, cancel := context.WithCancel(t.Context())
		w := watch(ctx, c)
		time.Sleep(2 * lease)
		w.take()
		before := incarnations(t, c)
		e.Invariants().BucketLost()
		e.Server().Stop()
		if err := e.Server().Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * lease)
		if got := roster(t, c); got != fiveAlive {
			t.Errorf("R19: roster %q", got)
		}
		if after := incarnations(t, c); after == before {
			t.Error("R19: nobody is a new incarnation")
		}
		for _, g := range gs {
			if !g.Live() || g.Context().Err() != nil {
				t.Errorf("R19: %s is no member: %v", g.ID(), context.Cause(g.Context()))
			}
		}
		if v := w.view(); len(v.Members) != 5 || v.Stale {
			t.Errorf("R19: view %+v", v)
		}
		// Leaving while the bucket is away ends as well.
		e.Invariants().BucketLost()
		e.Server().Stop()
		if err := e.Server().Start(); err != nil {
			t.Fatal(err)
		}
		for _, g := range gs {
			if err := g.Leave(t.Context()); err != nil {
				t.Errorf("leave: %v", err)
			}
		}
		cancel()
		<-w.done
	})
}

// Only a connection that is closed for good ends a membership from outside.
func TestConnClosed(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nb := e.Namespace()
		a := join(t, e.Namespace(), "a")
		b := join(t, nb, "b")
		lead := make(chan error, 1)
		go func() { lead <- b.Lead(t.Context(), nil) }()
		w := watch(t.Context(), b.Client)
		time.Sleep(lease)
		e.Conn(nb).Close()
		<-b.Context().Done()
		if err := context.Cause(b.Context()); !errors.Is(err, quorate.ErrConnClosed) {
			t.Errorf("cause %v, want ErrConnClosed", err)
		}
		if err := <-lead; !errors.Is(err, quorate.ErrConnClosed) {
			t.Errorf("Lead: %v, want ErrConnClosed", err)
		}
		<-w.done
		if !errors.Is(w.err, quorate.ErrConnClosed) {
			t.Errorf("Watch: %v, want ErrConnClosed", w.err)
		}
		if err := b.Leave(t.Context()); err != nil {
			t.Errorf("leave: %v", err)
		}
		if _, err := b.Members(t.Context()); !errors.Is(err, nats.ErrConnectionClosed) {
			t.Errorf("members: %v", err)
		}
		if _, err := coord.Join(t.Context(), nb, "g", coord.Config{ID: "b"}); err == nil {
			t.Error("joined over a closed connection")
		}
		if got := roster(t, a.Client); !strings.HasPrefix(got, "a:alive b:") {
			t.Errorf("roster %q", got)
		}
	})
}

// A record that somebody removed whose removal does not count is written again, and no watch says that its member is gone (M1).
func TestForeignRemoval(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		look := e.Namespace()
		js, err := e.Conn(look).JetStream()
		if err != nil {
			t.Fatal(err)
		}
		kv, err := js.KeyValue(wire.Bucket("default"))
		if err != nil {
			t.Fatal(err)
		}
		join(t, e.Namespace(), "a")
		b := join(t, e.Namespace(), "b")
		ctx, cancel := context.WithCancel(t.Context())
		w := watch(ctx, client(t, look))
		time.Sleep(lease)
		w.take()
		for _, remove := range []func() error{
			func() error { return kv.Delete(wire.MemberKey("g", "b")) },
			func() error { return kv.Purge(wire.MemberKey("g", "b")) },
			func() error {
				return js.PurgeStream(wire.Stream("default"), &nats.StreamPurgeRequest{Subject: wire.KVSubject("default", wire.MemberKey("g", "b"))})
			},
		} {
			if err := remove(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * lease) // that one is gone without a trace is seen by a look that is not taken often
			if recordOf(t, look, "b") == "" {
				t.Error("M1: the member did not write its record again")
			}
			wantLog(t, "M1", w, "", "leader=")
		}
		// A record of nonsense under one's own key is written over.
		if _, err := kv.Put(wire.MemberKey("g", "b"), []byte("nonsense")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * lease)
		if !b.Live() {
			t.Error("a foreign write ended a membership")
		}
		cancel()
		<-w.done
	})
}
