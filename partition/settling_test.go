package partition_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/partition"
	"github.com/quorate/quorate/testenv"
)

// A member that goes on with its work, whatever it is asked, and goes on saying that it is alive: the others wait for it no longer than the
// acknowledgement timeout and its lease, then they share the work without it. It stays a member (S12), is told why its share has ended, and has
// one again once it has let go.
func TestNeverAcknowledges(t *testing.T) {
	for _, buckets := range []int{-1, 12} {
		testenv.Run(t, func(t *testing.T, e *testenv.Env) {
			cfg := partition.Config{Buckets: buckets}
			g, err := coord.Join(t.Context(), e.Namespace(), "g", coord.Config{ID: "stuck"})
			if err != nil {
				t.Fatal(err)
			}
			p, err := partition.Join(t.Context(), g, cfg)
			if err != nil {
				t.Fatal(err)
			}
			free, calls, done := make(chan struct{}), make(chan *partition.Assignment, 10), make(chan error, 1)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() {
				done <- p.Run(ctx, func(ctx context.Context, a *partition.Assignment) error {
					calls <- a
					select { // whatever ctx says
					case <-free:
						<-ctx.Done()
					case <-t.Context().Done():
					}
					return nil
				})
			}()
			held := <-calls
			others := []*worker{join(t, e.Namespace(), "a", cfg), join(t, e.Namespace(), "b", cfg)}
			time.Sleep(lease/2 + lease) // asked for, and its time to let go is over
			if !held.Live() || held.Work().Err() == nil {
				t.Errorf("after its acknowledgement timeout: live %v, asked to return %v; want both", held.Live(), held.Work().Err())
			}
			time.Sleep(2*lease + lease/2)
			if held.Live() || !errors.Is(context.Cause(held.Context()), quorate.ErrExpired) {
				t.Errorf("its share goes on: live %v, cause %v", held.Live(), context.Cause(held.Context()))
			}
			shares(t, others...)
			members, err := g.Members(t.Context())
			if err != nil || len(members) != 3 || g.Context().Err() != nil {
				t.Errorf("M1: it has to stay a member: %v, %v", members, err)
			}
			select {
			case a := <-calls:
				t.Fatalf("S12: a share, %+v, before it has let go", a)
			default:
			}
			close(free)
			time.Sleep(2 * lease)
			select {
			case a := <-calls:
				if a.Total != 3 || !a.Live() {
					t.Errorf("after it has let go it has %d of %d", a.Index, a.Total)
				}
			default:
				t.Error("no share after it has let go")
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// join starts a worker with a partition of its own settings.
func join(t *testing.T, ns *quorate.Namespace, id string, cfg partition.Config) *worker {
	t.Helper()
	g, err := coord.Join(t.Context(), ns, "g", coord.Config{ID: id})
	if err != nil {
		t.Fatal(err)
	}
	p, err := partition.Join(t.Context(), g, cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := &worker{ns: ns, g: g, p: p, done: make(chan error, 1)}
	var ctx context.Context
	ctx, w.cancel = context.WithCancel(context.Background())
	go func() {
		w.done <- p.Run(ctx, func(ctx context.Context, a *partition.Assignment) error {
			w.mu.Lock()
			w.cur, w.gens = a, append(w.gens, a.Generation)
			w.mu.Unlock()
			<-ctx.Done()
			return nil
		})
	}()
	return w
}

// TestRollingRestart (R25): ten of twelve members with fixed ids are restarted one after the other, within the quiet time of each other: at most two
// generations, in which everybody has its index again. With buckets the two that are left alone are not interrupted at all.
func TestRollingRestart(t *testing.T) {
	const n, restarted = 12, 10
	t.Run("by index", func(t *testing.T) {
		testenv.Run(t, func(t *testing.T, e *testenv.Env) {
			ws := make([]*worker, n)
			for i := range ws {
				ws[i] = join(t, e.Namespace(), fmt.Sprintf("w%02d", i), partition.Config{})
			}
			time.Sleep(2 * lease)
			shares(t, ws...)
			index := map[string]int{}
			for _, w := range ws {
				index[w.g.ID()] = w.assignment().Index
			}
			before := ws[n-1].generations()
			for i := range restarted {
				if err := ws[i].g.Leave(t.Context()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(lease / 10) // of its start
				ws[i] = join(t, e.Namespace(), fmt.Sprintf("w%02d", i), partition.Config{})
			}
			time.Sleep(2 * lease)
			shares(t, ws...)
			for _, w := range ws {
				if got := w.assignment().Index; got != index[w.g.ID()] {
					t.Errorf("%s had index %d, and has %d", w.g.ID(), index[w.g.ID()], got)
				}
			}
			if got := ws[n-1].generations() - before; got < 1 || got > 2 {
				t.Errorf("%d generations for a rolling restart of %d members, want 1 or 2", got, restarted)
			}
		})
	})
	t.Run("with buckets", func(t *testing.T) {
		testenv.Run(t, func(t *testing.T, e *testenv.Env) {
			const buckets = 36
			cfg := partition.Config{Buckets: buckets}
			ks := make([]*keeper, n)
			for i := range ks {
				ks[i] = keep(t, e.Namespace(), fmt.Sprintf("w%02d", i), cfg, 0)
			}
			time.Sleep(2 * lease)
			dealt(t, buckets, ks...)
			was := map[int]map[int]*partition.Bucket{}
			for i, k := range ks {
				was[i] = k.held()
			}
			gens := e.Invariants().Counts().Generations
			for i := range restarted {
				if err := ks[i].g.Leave(t.Context()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(lease / 10)
				ks[i] = keep(t, e.Namespace(), fmt.Sprintf("w%02d", i), cfg, 0)
			}
			time.Sleep(2 * lease)
			dealt(t, buckets, ks...)
			for i, k := range ks {
				now := k.held()
				for b := range was[i] {
					if now[b] == nil {
						t.Errorf("%s had bucket %d, and has it no more", k.g.ID(), b)
					}
				}
				if i >= restarted && kept(t, k, was[i], k.beginnings()) != len(was[i]) {
					t.Errorf("%s, which was left alone, was interrupted", k.g.ID())
				}
			}
			if got := e.Invariants().Counts().Generations - gens; got < 1 || got > 2 {
				t.Errorf("%d generations for a rolling restart of %d members, want 1 or 2", got, restarted)
			}
		})
	})
}

// TestLeaderEndsWhileSettling: the leader is killed, or leaves, at moments all over a settlement that a slow network stretches; the watchers see
// nothing overlap, and soon everybody has a share. (internal/sim.TestLeaderEndsAtEachStep does it at each step of the machines.)
func TestLeaderEndsWhileSettling(t *testing.T) {
	const delay = 20 * time.Millisecond // one way
	for _, buckets := range []int{-1, 8} {
		for _, kill := range []bool{true, false} {
			const whole = 18 * delay // a settlement takes some sixteen
			for at := rand.N(whole / often); at <= whole; at += whole / often {
				testenv.Run(t, func(t *testing.T, e *testenv.Env) {
					cfg := partition.Config{Buckets: buckets}
					slow := func() *quorate.Namespace {
						ns := e.Namespace()
						e.Link(ns).Filter(func(f *testenv.Frame) testenv.Verdict {
							if f.IsMessage() {
								return testenv.Delay(delay)
							}
							return testenv.Pass
						})
						return ns
					}
					var ws []*worker
					for i := range 3 {
						ws = append(ws, join(t, slow(), fmt.Sprint("w", i), cfg))
					}
					time.Sleep(2 * lease)
					shares(t, ws...)
					ws = append(ws, join(t, slow(), "late", cfg))
					time.Sleep(lease/2 - delay + at)
					t.Logf("the leader ends at %v: buckets %d, killed %v", at, buckets, kill)
					var left []*worker
					var lead *worker
					for _, w := range ws {
						if _, ok := w.g.Term(); ok {
							lead = w
						} else {
							left = append(left, w)
						}
					}
					if lead == nil {
						t.Fatal("nobody leads")
					}
					if kill {
						e.Kill(lead.ns)
					} else if err := lead.g.Leave(t.Context()); err != nil {
						t.Fatal(err)
					}
					time.Sleep(5 * lease)
					shares(t, left...)
				})
			}
		}
	}
}

// TestFlapping (R25): a member that crashes soon after each start has the others settle again, and they have less and less of that.
func TestFlapping(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		a, b := start(t, e.Namespace(), "a", 0), start(t, e.Namespace(), "b", 0)
		time.Sleep(lease)
		shares(t, a, b)
		rounds := func(n int) (generations int) {
			before := a.generations()
			for range n {
				w := start(t, e.Namespace(), "flaps", 0)
				time.Sleep(lease)
				e.Kill(w.ns)
				w.cancel()
				time.Sleep(4 * lease) // its membership has run out, and the others have its share
				if a.assignment() == nil || b.assignment() == nil {
					t.Fatal("the others have no share")
				}
			}
			return a.generations() - before
		}
		if got := rounds(2); got != 4 {
			t.Errorf("two crashes: %d generations, want 4", got)
		}
		if got := rounds(8); got > 4 {
			t.Errorf("eight more: %d generations, want few", got)
		}
		shares(t, a, b)
	})
}

// TestMinimumSize (Q1): below the minimum size every share is let go of, and had again, of the same generation, once enough are there.
func TestMinimumSize(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		var ws []*worker
		for i := range 3 {
			g, err := coord.Join(t.Context(), e.Namespace(), "g", coord.Config{ID: fmt.Sprint("w", i), MinSize: 3})
			if err != nil {
				t.Fatal(err)
			}
			p, err := partition.Join(t.Context(), g, partition.Config{})
			if err != nil {
				t.Fatal(err)
			}
			w := &worker{g: g, p: p}
			ws = append(ws, w)
			go func() {
				_ = p.Run(t.Context(), func(ctx context.Context, a *partition.Assignment) error { // ends with its membership
					w.mu.Lock()
					w.cur, w.gens = a, append(w.gens, a.Generation)
					w.mu.Unlock()
					<-ctx.Done()
					return nil
				})
			}()
		}
		time.Sleep(2 * lease)
		shares(t, ws...)
		held := ws[0].assignment()
		if err := ws[2].g.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * lease)
		if ws[0].assignment() != nil || ws[1].assignment() != nil {
			t.Error("Q1: shares are held below the minimum size")
		}
		if !errors.Is(context.Cause(held.Context()), quorate.ErrNotQuorate) {
			t.Errorf("it was told %v, want ErrNotQuorate", context.Cause(held.Context()))
		}
		g, err := coord.Join(t.Context(), e.Namespace(), "g", coord.Config{ID: "w2", MinSize: 3})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := partition.Join(t.Context(), g, partition.Config{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * lease)
		if a := ws[0].assignment(); a == nil || a.Total != 3 {
			t.Errorf("with enough members it has %+v", a)
		}
	})
}
