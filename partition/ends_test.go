package partition_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/partition"
	"github.com/quorate/quorate/testenv"
)

// joined makes a working member that leads or not, without anybody who does the work.
func joined(t *testing.T, e *testenv.Env, id string) *worker {
	t.Helper()
	ns := e.Namespace()
	g, err := coord.Join(t.Context(), ns, "g", coord.Config{ID: id})
	if err != nil {
		t.Fatal(err)
	}
	p, err := partition.Join(t.Context(), g, partition.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return &worker{ns: ns, g: g, p: p, done: make(chan error, 1)}
}

// poll works on each share until its own clocks say that it is over, as a user does who asks Live before each step.
func (w *worker) poll(t *testing.T) (begun *atomic.Int64) {
	t.Helper()
	begun = new(atomic.Int64)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	w.cancel = cancel
	go func() {
		w.done <- w.p.Run(ctx, func(ctx context.Context, a *partition.Assignment) error {
			begun.Add(1)
			w.mu.Lock()
			w.cur = a
			w.mu.Unlock()
			for ctx.Err() == nil && a.Live() {
				time.Sleep(lease / 30)
			}
			return nil
		})
	}()
	return begun
}

// Work that sees the end of its share before its context ends, in a process whose loops were paused, has not ended by itself:
// Run goes on with the next share (design 2.1).
func TestWorkSeesTheEndFirst(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		start(t, e.Namespace(), "other", 0)
		w := joined(t, e, "w")
		begun := w.poll(t)
		time.Sleep(2 * lease)
		if begun.Load() != 1 {
			t.Fatalf("the work began %d times, want 1", begun.Load())
		}
		e.Pause(w.ns)
		time.Sleep(4 * lease)
		e.Resume(w.ns)
		time.Sleep(4 * lease)
		select {
		case err := <-w.done:
			t.Fatalf("Run returned %v though its share had run out, not its work", err)
		default:
		}
		if begun.Load() != 2 || w.assignment() == nil {
			t.Errorf("after the pause the work began %d times in all, want 2", begun.Load())
		}
	})
}

// A share that was said not to be live never is again, also when the clock that showed its end goes back (P3), and the
// member gets a share again.
func TestClockJumpsForAMoment(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		start(t, e.Namespace(), "other", 0)
		w := joined(t, e, "w")
		begun := w.poll(t)
		time.Sleep(2 * lease)
		a := w.assignment()
		if a == nil {
			t.Fatal("no share")
		}
		e.JumpWall(w.ns, time.Hour)
		if a.Live() {
			t.Error("P3: live though the wall clock shows that it ran out")
		}
		e.JumpWall(w.ns, -time.Hour)
		if a.Live() {
			t.Error("P3: live again")
		}
		time.Sleep(4 * lease)
		if a.Context().Err() == nil {
			t.Error("the context of a share that is over goes on")
		}
		if begun.Load() < 2 || w.assignment() == nil {
			t.Errorf("no share any more after a clock jumped for a moment; the work began %d times", begun.Load())
		}
	})
}

// Leave whose context ends before the work has returned gives nothing away: the share is held, and acknowledged to nobody,
// until the work has returned (R12, H5).
func TestLeaveWithSlowWork(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		other := start(t, e.Namespace(), "other", 0)
		w := joined(t, e, "w")
		var returned atomic.Bool
		taken, ended := make(chan *partition.Assignment, 1), make(chan error, 1)
		go func() {
			ended <- w.p.Run(context.Background(), func(ctx context.Context, a *partition.Assignment) error {
				taken <- a
				<-ctx.Done()
				time.Sleep(lease)
				if n := other.assignment(); n != nil && n.Generation != a.Generation {
					t.Error("the share went to another while the work went on")
				}
				returned.Store(true)
				return nil
			})
		}()
		a := <-taken
		time.Sleep(lease)
		ctx, cancel := context.WithTimeout(context.Background(), lease/10)
		defer cancel()
		if err := w.p.Leave(ctx); err == nil || returned.Load() {
			t.Errorf("Leave returned %v before the work had", err)
		}
		if !a.Live() || a.Context().Err() != nil {
			t.Error("R12: the share was given up while its work goes on")
		}
		time.Sleep(lease / 2)
		if _, err := partition.Join(t.Context(), w.g, partition.Config{}); err == nil {
			t.Error("joined again while the work of the one before goes on")
		}
		time.Sleep(4 * lease)
		if !returned.Load() || a.Live() {
			t.Error("the share is still held")
		}
		if o := other.assignment(); o == nil || o.Total != 1 {
			t.Error("the other has not got all the work")
		}
		bounded, stop := context.WithTimeout(t.Context(), lease)
		defer stop()
		if err := w.p.Leave(bounded); err != nil {
			t.Errorf("leaving again: %v", err)
		}
		select {
		case err := <-ended:
			if !errors.Is(err, quorate.ErrLeft) {
				t.Errorf("Run after Leave: got %v, want ErrLeft", err)
			}
		default:
			t.Error("Run goes on after Leave")
		}
		p, err := partition.Join(t.Context(), w.g, partition.Config{})
		if err != nil {
			t.Fatalf("joining again: %v", err)
		}
		w.p = p
		begun := w.poll(t)
		time.Sleep(2 * lease)
		if begun.Load() != 1 {
			t.Error("no share after joining again")
		}
	})
}

// A Watch ends with one error when its Partition has left.
func TestWatchEndsWithLeave(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		g, err := coord.Join(t.Context(), e.Namespace(), "g", coord.Config{ID: "a"})
		if err != nil {
			t.Fatal(err)
		}
		p, err := partition.Join(t.Context(), g, partition.Config{})
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		held := make(chan *partition.Assignment, 1)
		go func() {
			var last error
			for s, err := range p.Watch(t.Context()) {
				last = err
				if s.Assignment != nil {
					held <- s.Assignment
				}
			}
			ended <- last
		}()
		a := <-held
		if err := p.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		if a.Live() {
			t.Error("the share is held after Leave")
		}
		if err := <-ended; !errors.Is(err, quorate.ErrLeft) {
			t.Errorf("Watch ended with %v, want ErrLeft", err)
		}
	})
}
