package leader_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/testenv"
)

func electorWith(t *testing.T, ns *quorate.Namespace, cfg leader.Config) *leader.Elector {
	t.Helper()
	e, err := leader.New(ns, "job", cfg)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// Two ends, R12, R13: a soft end cancels the callback's context, the term stays live while the callback works on, and the
// release follows it at once.
func TestSoftEnd(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		a := electorWith(t, open(e), leader.Config{ID: "a", Grace: 3 * short})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		began := make(chan *leader.Term, 1)
		var returned time.Time
		go func() {
			ended <- a.Run(ctx, func(work context.Context, term *leader.Term) error {
				began <- term
				<-work.Done()
				if got := context.Cause(work); !errors.Is(got, quorate.ErrResigned) {
					t.Errorf("soft end: cause %v, want ErrResigned", got)
				}
				for range 20 {
					time.Sleep(short / 8)
					if !term.Live() || term.Context().Err() != nil {
						t.Error("soft end: the term ended before its work returned, within its grace")
					}
				}
				returned = time.Now()
				return errors.New("not told: the context has ended")
			})
		}()
		ta := <-began
		won := win(t, elector(t, open(e), "b"))
		time.Sleep(2 * short)
		cancel()
		tb, _ := within(t, won)
		if err := <-ended; err != nil {
			t.Errorf("Run: got %v, want nil", err)
		}
		between(t, "R13: hand-over after the callback", tb.Since().Sub(returned), 0, instant)
		cause(t, ta, quorate.ErrResigned)
	})
}

// R12: a callback that ignores its context for longer than its grace is not released, but runs out.
func TestGraceOverrun(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		other := open(e)
		a := electorWith(t, open(e), leader.Config{ID: "a", Grace: 2 * short})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		began := make(chan *leader.Term, 1)
		go func() {
			ended <- a.Run(ctx, func(_ context.Context, term *leader.Term) error {
				began <- term
				time.Sleep(20 * short)
				return nil
			})
		}()
		ta := <-began
		won := win(t, elector(t, open(e), "b"))
		time.Sleep(2 * short)
		cancel()
		start := time.Now()
		<-ta.Context().Done()
		between(t, "R12: end after the grace", time.Since(start), 2*short+short/2, 3*short)
		cause(t, ta, quorate.ErrResigned)
		tb, _ := within(t, won)
		between(t, "R12: take-over", time.Since(start), 3*short-short/6, 3*short+short/6)
		rev := stands(t, other).Revision
		if rev != tb.Token() {
			t.Errorf("R12: released before it was taken over: %d, token %d", rev, tb.Token())
		}
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		time.Sleep(short)
		if !tb.Live() {
			t.Errorf("the late return ended the next term: %v", context.Cause(tb.Context()))
		}
	})
}

// Run: a callback that returns because its term ended is followed by the next campaign, one that returns while it is live
// ends Run with its error, after the release.
func TestRunAgain(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		na, nb := open(e), open(e)
		a := elector(t, na, "a")
		want := errors.New("done")
		var terms []*leader.Term
		err := a.Run(t.Context(), func(ctx context.Context, term *leader.Term) error {
			terms = append(terms, term)
			switch len(terms) {
			case 1: // a hard end by the network, seen by polling
				e.Cut(na)
				for term.Live() {
					time.Sleep(time.Millisecond)
				}
				if ctx.Err() != nil {
					t.Log("the context ended first: this shows nothing about Live")
				}
				e.Heal(na)
				return errors.New("ignored")
			case 2: // one by a foreign hand
				put(t, nb, kv.Write{Purge: true})
				<-ctx.Done()
				return errors.New("ignored")
			case 3: // soft ends
				term.StepDown()
				<-ctx.Done()
				if !errors.Is(context.Cause(ctx), quorate.ErrStepDown) || !term.Live() {
					t.Errorf("step-down: cause %v, live %v", context.Cause(ctx), term.Live())
				}
				return errors.New("ignored")
			case 4:
				if err := term.Resign(context.Background()); err != nil { // waits for nothing: it is in the callback
					t.Error(err)
				}
				<-ctx.Done()
				if !term.Live() || term.Context().Err() != nil {
					t.Error("L5: a term that resigned within Run ended before its callback returned")
				}
				return nil
			case 5: // a pause, noticed by Live before any timer
				e.Pause(na)
				time.Sleep(short)
				if term.Live() || ctx.Err() != nil {
					t.Errorf("paused: live %v, context %v", term.Live(), ctx.Err())
				}
				go e.Resume(na)
				return errors.New("ignored")
			}
			return want
		})
		if err != want || len(terms) != 6 {
			t.Errorf("Run: %v after %d terms, want the callback's error after 6", err, len(terms))
		}
		for i, term := range terms[1:] {
			if term.Token() <= terms[i].Token() {
				t.Errorf("L2: token %d after %d", term.Token(), terms[i].Token())
			}
		}
		if holds(t, nb) {
			t.Error("Run returned before the release")
		}
	})
}

// R14: the delay is waited after an expiry, also when the answer to the acquire was lost, and not after a release.
func TestHandoverDelay(t *testing.T) {
	for _, eaten := range []int{0, 1} {
		testenv.Run(t, func(t *testing.T, e *testenv.Env) {
			na, nb := open(e), open(e)
			b := electorWith(t, nb, leader.Config{ID: "b", HandoverDelay: 2 * short})
			ta := campaign(t, elector(t, na, "a"))
			won := win(t, b)
			time.Sleep(short)
			if err := ta.Resign(t.Context()); err != nil {
				t.Fatal(err)
			}
			tb, d := within(t, won)
			between(t, "R14: hand-over of a release", d, 0, instant)
			won = win(t, elector(t, na, "a2"))
			if err := tb.Resign(t.Context()); err != nil {
				t.Fatal(err)
			}
			within(t, won)
			won = win(t, b)
			time.Sleep(2 * short)
			e.Kill(na)
			e.Link(nb).DropAcks(eaten)
			_, d = within(t, won)
			between(t, "R14: hand-over of an expiry", d, 3*short-short/6, 3*short+short/2)
		})
	}
}

// R14: a try whose term ends within its delay is answered.
func TestTryWithDelay(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		na := open(e)
		put(t, open(e), kv.Write{Purge: true})
		a := electorWith(t, na, leader.Config{ID: "a", HandoverDelay: 5 * short})
		if _, err := a.TryCampaign(t.Context()); !errors.Is(err, leader.ErrHeld) {
			t.Fatalf("try over a foreign marker: %v, want ErrHeld", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second+short)
		defer cancel()
		term, err := a.Campaign(ctx) // begins to hold, and is withdrawn within its delay
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("campaign: %v, %v", term, err)
		}
		time.Sleep(short / 2)
		if holds(t, na) {
			t.Error("a term withdrawn before it began is still under the key")
		}
	})
}

// R38: a callback may ask and end everything, and may block as long as it likes: renewals go on.
func TestCallbackFreedom(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		a := elector(t, open(e), "a")
		won := win(t, elector(t, open(e), "b"))
		tb, _ := within(t, won)
		if err := tb.Resign(t.Context()); err != nil {
			t.Fatal(err)
		}
		var closed time.Duration
		err := a.Run(t.Context(), func(ctx context.Context, term *leader.Term) error {
			time.Sleep(10 * short)
			if !term.Live() || ctx.Err() != nil {
				t.Errorf("R38: a callback that blocks lost its term: %v", context.Cause(ctx))
			}
			if _, err := a.TryCampaign(context.Background()); !errors.Is(err, leader.ErrHeld) {
				t.Errorf("R38: try within the callback: %v, want ErrHeld", err)
			}
			if s, err := a.Leader(ctx); err != nil || s.Holder != "a" {
				t.Errorf("R38: leader within the callback: %+v, %v", s, err)
			}
			for s, err := range a.Watch(ctx) {
				if err != nil || s.Holder != "a" {
					t.Errorf("R38: watch within the callback: %+v, %v", s, err)
				}
				break
			}
			short1, cancel := context.WithTimeout(ctx, short)
			defer cancel()
			if _, err := a.Campaign(short1); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("R38: campaign within the callback: %v", err)
			}
			start := time.Now()
			if err := a.Close(context.Background()); err != nil {
				t.Errorf("R38: close within the callback: %v", err)
			}
			closed = time.Since(start)
			if term.Live() {
				t.Error("closed, but live")
			}
			return nil
		})
		if !errors.Is(err, quorate.ErrClosed) {
			t.Errorf("Run of a closed elector: %v, want ErrClosed", err)
		}
		between(t, "R38: close within the callback", closed, short, 3*short)
	})
}

// A callback that panics, or ends its goroutine, has returned: its term is released.
func TestCallbackEndsItsGoroutine(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		a := elector(t, open(e), "a")
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			_ = a.Run(t.Context(), func(context.Context, *leader.Term) error { runtime.Goexit(); return nil })
		}()
		<-gone
		tb, d := within(t, win(t, elector(t, open(e), "b")))
		between(t, "take-over", d, 0, short/10)
		if err := tb.Resign(t.Context()); err != nil {
			t.Fatal(err)
		}
		func() {
			defer func() {
				if got := recover(); got != "boom" {
					t.Errorf("panic: got %v", got)
				}
			}()
			_ = a.Run(t.Context(), func(context.Context, *leader.Term) error { panic("boom") })
		}()
		if holds(t, open(e)) {
			t.Error("not released after a panic")
		}
	})
}

// Close in every order with everything else: it returns, nobody hangs, and what can be released is.
func TestCloseInEveryOrder(t *testing.T) {
	type world struct {
		e    *testenv.Env
		ns   *quorate.Namespace
		a    *leader.Elector
		wg   sync.WaitGroup
		stop context.CancelFunc
		ctx  context.Context
	}
	acts := []struct {
		name string
		do   func(t *testing.T, w *world)
	}{
		{"campaign", func(t *testing.T, w *world) {
			w.wg.Go(func() {
				if _, err := w.a.Campaign(w.ctx); err != nil && !errors.Is(err, quorate.ErrClosed) && !errors.Is(err, context.Canceled) {
					t.Errorf("campaign: %v", err)
				}
			})
		}},
		{"run", func(t *testing.T, w *world) {
			w.wg.Go(func() {
				err := w.a.Run(w.ctx, func(ctx context.Context, _ *leader.Term) error { <-ctx.Done(); return nil })
				if err != nil && !errors.Is(err, quorate.ErrClosed) {
					t.Errorf("run: %v", err)
				}
			})
		}},
		{"try and resign", func(t *testing.T, w *world) {
			w.wg.Go(func() {
				if term, err := w.a.TryCampaign(w.ctx); err == nil {
					_ = term.Resign(w.ctx)
				}
			})
		}},
		{"watch", func(t *testing.T, w *world) {
			w.wg.Go(func() {
				for range w.a.Watch(w.ctx) {
				}
			})
		}},
		{"close", func(t *testing.T, w *world) {
			w.wg.Go(func() {
				if err := w.a.Close(t.Context()); err != nil {
					t.Errorf("close: %v", err)
				}
			})
		}},
		{"close the namespace", func(t *testing.T, w *world) {
			w.wg.Go(func() {
				if err := w.ns.Close(t.Context()); err != nil {
					t.Errorf("close of the namespace: %v", err)
				}
			})
		}},
		{"cancel", func(_ *testing.T, w *world) { w.stop() }},
		{"cut", func(_ *testing.T, w *world) { w.e.Cut(w.ns) }},
	}
	for seed := range 60 {
		testenv.Run(t, func(t *testing.T, e *testenv.Env) {
			w := &world{e: e, ns: open(e)}
			w.a = elector(t, w.ns, "a")
			w.ctx, w.stop = context.WithCancel(t.Context())
			var order []string
			x := uint64(seed)*2862933555777941757 + 3037000493
			next := func(n int) int { x ^= x << 13; x ^= x >> 7; x ^= x << 17; return int(x % uint64(n)) }
			for range 6 {
				act := acts[next(len(acts))]
				pause := time.Duration(next(5)) * short / 8 * time.Duration(next(2))
				order = append(order, fmt.Sprintf("%s, %v", act.name, pause))
				act.do(t, w)
				time.Sleep(pause)
			}
			start := time.Now()
			if err := w.a.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if d := time.Since(start); d > 4*short {
				t.Errorf("seed %d: close took %v after %s", seed, d, strings.Join(order, "; "))
			}
			w.stop()
			w.wg.Wait()
			if _, err := w.a.Campaign(t.Context()); !errors.Is(err, quorate.ErrClosed) {
				t.Errorf("campaign of a closed elector: %v", err)
			}
		})
	}
}

// Closing twice, at once and later, and what comes after.
func TestClosedTwice(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		na, nb := open(e), open(e)
		a := elector(t, na, "a")
		campaign(t, a)
		won := win(t, elector(t, nb, "b"))
		time.Sleep(short)
		both := make(chan error, 2)
		for range 2 {
			go func() { both <- na.Close(t.Context()) }()
		}
		for range 2 {
			if err := <-both; err != nil {
				t.Error(err)
			}
		}
		if _, d := within(t, won); d > instant {
			t.Errorf("closing the namespace handed over after %v", d)
		}
		if err := a.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := leader.New(na, "job", leader.Config{}); !errors.Is(err, quorate.ErrClosed) {
			t.Errorf("New in a closed namespace: %v", err)
		}
		if err := a.Run(t.Context(), nil); !errors.Is(err, quorate.ErrClosed) {
			t.Errorf("Run of a closed elector: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := a.Run(ctx, nil); err != nil {
			t.Errorf("Run with an ended context: %v, want nil", err)
		}
		if _, err := a.TryCampaign(t.Context()); !errors.Is(err, quorate.ErrClosed) {
			t.Errorf("try of a closed elector: %v", err)
		}
	})
}

// A connection that is closed for good ends everything, with an error that says so.
func TestConnectionClosed(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		na := open(e)
		a := elector(t, na, "a")
		err := a.Run(t.Context(), func(ctx context.Context, term *leader.Term) error {
			e.Conn(na).Close()
			start := time.Now()
			<-ctx.Done()
			between(t, "end after the connection was closed", time.Since(start), 0, short/6+instant)
			cause(t, term, quorate.ErrConnClosed)
			return errors.New("ignored")
		})
		if !errors.Is(err, quorate.ErrConnClosed) {
			t.Errorf("Run: got %v, want ErrConnClosed", err)
		}
		if _, err := a.Campaign(t.Context()); !errors.Is(err, quorate.ErrConnClosed) {
			t.Errorf("campaign: got %v, want ErrConnClosed", err)
		}
		for _, err := range a.Watch(t.Context()) {
			if err == nil {
				t.Error("watch over a closed connection")
			}
		}
	})
}

// A NATS that never answers: everything that has a context ends with it, and Close is bounded.
func TestNeverAnswered(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		na := open(e)
		a := elector(t, na, "a")
		e.Cut(na)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		if _, err := a.Campaign(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("campaign: %v", err)
		}
		between(t, "campaign", time.Since(start), time.Minute, time.Minute)
		if _, err := a.Leader(t.Context()); err == nil {
			t.Error("leader without an answer")
		}
		start = time.Now()
		if err := a.Close(t.Context()); err != nil {
			t.Error(err)
		}
		between(t, "close", time.Since(start), 0, 3*short)
	})
}

// Closing while an acquire is under way leaves nothing behind.
func TestCloseUndoes(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		other := open(e)
		for d := time.Duration(0); d < 20*time.Millisecond; d += time.Millisecond {
			ns := open(e)
			e.Link(ns).Filter(func(f *testenv.Frame) testenv.Verdict {
				if f.IsMessage() {
					return testenv.Delay(2 * time.Millisecond)
				}
				return testenv.Pass
			})
			a := elector(t, ns, "a")
			win(t, a)
			time.Sleep(d)
			if err := a.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if s := stands(t, other); s.Op == kv.Record {
				t.Fatalf("closed %v after the campaign began: the key is held: %s", d, s.Value)
			}
		}
	})
}

// Several callers of one elector: one campaigns, the others wait their turn, and none is lost.
func TestCallersTakeTurns(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		a := elector(t, open(e), "a")
		const callers = 8
		var mu sync.Mutex
		live := 0
		var wg sync.WaitGroup
		for i := range callers {
			wg.Go(func() {
				work := func() {
					mu.Lock()
					live++
					if live != 1 {
						t.Errorf("%d callers work at once", live)
					}
					mu.Unlock()
					time.Sleep(short)
					mu.Lock()
					live--
					mu.Unlock()
				}
				if i%2 == 0 {
					err := a.Run(t.Context(), func(_ context.Context, term *leader.Term) error { work(); return nil })
					if err != nil {
						t.Error(err)
					}
					return
				}
				term, err := a.Campaign(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				work()
				if err := term.Resign(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}

// A callback that works on after its term ran out keeps its elector's turn: nothing is released behind its back.
func TestWorkHoldsTheTurn(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		na := open(e)
		a := elector(t, na, "a")
		began, working := make(chan *leader.Term, 2), true
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			ended <- a.Run(ctx, func(_ context.Context, term *leader.Term) error {
				began <- term
				if !working {
					return nil
				}
				time.Sleep(10 * short)
				working = false
				return nil
			})
		}()
		ta := <-began
		e.Cut(na)
		<-ta.Context().Done()
		e.Heal(na)
		won := win(t, a)
		rev := stands(t, na).Revision
		time.Sleep(5 * short)
		if s := stands(t, na); s.Revision != rev {
			t.Errorf("R12: the key changed while the guarded work went on: %+v", s)
		}
		notYet(t, won, "while the callback of the last term works")
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		within(t, won)
	})
}

// Wrong settings are refused before anything is sent, in one line that says what.
func TestRefused(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		ns := open(e)
		for _, c := range []struct {
			name string
			cfg  leader.Config
			want string
		}{
			{"a b", leader.Config{}, `"a b"`},
			{"job", leader.Config{ID: "x.y"}, "x-y"},
			{"job", leader.Config{Value: strings.Repeat("x", wire.MaxValue+1)}, "1025 bytes"},
			{"job", leader.Config{Grace: -1}, "negative"},
			{"job", leader.Config{HandoverDelay: -1}, "negative"},
		} {
			_, err := leader.New(ns, c.name, c.cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q %+v: got %v, want one line with %q", c.name, c.cfg, err, c.want)
			}
		}
	})
}

// A request to step down names the term it means, and asks only that one.
func TestStepDown(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		na, nb, operator := open(e), open(e), open(e)
		ask := func(token uint64) error { return leader.StepDown(t.Context(), operator, "job", token) }
		if err := ask(1); !errors.Is(err, leader.ErrNotHeld) {
			t.Errorf("nobody leads: %v", err)
		}
		a := elector(t, na, "a")
		var first uint64
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		began := make(chan *leader.Term, 2)
		go func() {
			ended <- a.Run(ctx, func(ctx context.Context, term *leader.Term) error {
				began <- term
				<-ctx.Done()
				time.Sleep(short / 2)
				return nil
			})
		}()
		ta := <-began
		first = ta.Token()
		won := win(t, elector(t, nb, "b"))
		time.Sleep(short)
		if err := ask(first - 1); !errors.Is(err, leader.ErrGone) {
			t.Errorf("another token: %v", err)
		}
		start := time.Now()
		if err := ask(first); err != nil {
			t.Fatal(err)
		}
		tb, _ := within(t, won)
		between(t, "hand-over after the step-down", time.Since(start), short/2, short/2+instant)
		cause(t, ta, quorate.ErrStepDown)
		time.Sleep(short)
		if err := ask(first); !errors.Is(err, leader.ErrGone) {
			t.Errorf("late request: %v", err)
		}
		if !tb.Live() {
			t.Error("a late request deposed the next leader")
		}
		if err := leader.StepDown(t.Context(), operator, "no name", 1); err == nil {
			t.Error("bad name")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A holder that has just begun may not listen yet: a request that nobody heard is asked again for a lease, and no longer.
func TestStepDownAsTermBegins(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		ns, operator := open(e), open(e)
		subject := wire.ElectionSubject(ns.Name(), "job", wire.SubStepDown)
		var asked atomic.Int64
		removeOperator := e.Link(operator).Filter(func(f *testenv.Frame) testenv.Verdict {
			if f.Dir == testenv.ToServer && f.Subject == subject {
				asked.Add(1)
			}
			return testenv.Pass
		})
		defer removeOperator()
		start := time.Now()
		if err := leader.StepDown(t.Context(), operator, "job", 1); !errors.Is(err, leader.ErrNotHeld) {
			t.Errorf("nobody leads: %v", err)
		}
		between(t, "nobody leads: to give up", time.Since(start), short, short+short/24+instant)
		if n := asked.Load(); n < 2 || n > 26 {
			t.Errorf("asked %d times", n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), short/2)
		defer cancel()
		if err := leader.StepDown(ctx, operator, "job", 1); !errors.Is(err, leader.ErrNotHeld) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("nobody leads, and the time is over: %v", err)
		}

		removeHolder := e.Link(ns).Filter(func(f *testenv.Frame) testenv.Verdict {
			if f.Verb == "SUB" && f.Subject == subject {
				return testenv.Delay(short / 2)
			}
			return testenv.Pass
		})
		defer removeHolder()
		term := campaign(t, elector(t, ns, "a"))
		start = time.Now()
		if err := leader.StepDown(t.Context(), operator, "job", term.Token()); err != nil {
			t.Fatalf("asked as the term begins: %v", err)
		}
		between(t, "to be heard", time.Since(start), short/3, short/2+short/24+instant)
		<-term.Work().Done()
	})
}

// Alone, who was asked to step down leads again soon.
func TestStepDownAlone(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		a := elector(t, open(e), "a")
		term := campaign(t, a)
		term.StepDown()
		<-term.Work().Done()
		if !term.Live() {
			t.Error("a soft end ended the term")
		}
		if err := term.Resign(t.Context()); err != nil {
			t.Fatal(err)
		}
		cause(t, term, quorate.ErrStepDown)
		_, d := within(t, win(t, a))
		between(t, "the next campaign", d, short/4-instant, short/4+short/6)
	})
}

// R24: a candidate tries for ever. Hours without a server, and without its data afterwards, end no campaign and no Run, and leave nothing behind that grows.
func TestCampaignsForEver(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		ids := []string{"a", "b", "c"}
		terms := make(chan *leader.Term, 100)
		ended := make(chan error, len(ids))
		ctx, cancel := context.WithCancel(t.Context())
		for _, id := range ids {
			el := electorWith(t, e.Namespace(), leader.Config{ID: id})
			go func() {
				ended <- el.Run(ctx, func(ctx context.Context, term *leader.Term) error {
					terms <- term
					<-ctx.Done()
					return nil
				})
			}()
		}
		token := (<-terms).Token()
		for round, away := range []time.Duration{time.Minute, 5 * time.Minute, longestOutage} {
			e.Invariants().BucketLost() // it is in memory here
			e.Server().Stop()
			time.Sleep(away)
			if len(terms) > 0 || len(ended) > 0 {
				t.Fatalf("round %d: %d terms began, %d ended without a server", round, len(terms), len(ended))
			}
			goroutines := runtime.NumGoroutine()
			if err := e.Server().Start(); err != nil {
				t.Fatal(err)
			}
			back := time.Now()
			select {
			case term := <-terms:
				if term.Token() <= token {
					t.Errorf("L2: token %d after %d", term.Token(), token)
				}
				token = term.Token()
			case err := <-ended:
				t.Fatalf("round %d: Run: %v", round, err)
			case <-time.After(time.Minute):
				t.Fatalf("round %d: nobody leads a minute after the server is back", round)
			}
			t.Logf("after %v without a server: a leader after %v, %d goroutines meanwhile", away, time.Since(back), goroutines)
		}
		cancel()
		for range ids {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
}
