package leader_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/testenv"
)

// crew is some candidates of one election, each in a process of its own, that lead until they are asked to return.
type crew struct {
	t     *testing.T
	e     *testenv.Env
	ns    map[string]*quorate.Namespace
	terms chan held
	n     atomic.Int64
}

type held struct {
	id string
	*leader.Term
}

func newCrew(t *testing.T, e *testenv.Env) *crew {
	return &crew{t: t, e: e, ns: map[string]*quorate.Namespace{}, terms: make(chan held, 100)}
}

func (c *crew) start(id string, priority int) {
	c.t.Helper()
	c.ns[id] = open(c.e)
	el := electorWith(c.t, c.ns[id], leader.Config{ID: id, Priority: priority})
	go func() {
		_ = el.Run(c.t.Context(), func(ctx context.Context, term *leader.Term) error {
			c.n.Add(1)
			c.terms <- held{id, term}
			<-ctx.Done()
			return nil
		})
	}()
}

// next is the next term, which must be the id's and begin within the bounds from now.
func (c *crew) next(why, id string, low, high time.Duration) held {
	c.t.Helper()
	start := time.Now()
	select {
	case h := <-c.terms:
		if h.id != id {
			c.t.Errorf("%s: %s leads, want %s", why, h.id, id)
		}
		between(c.t, why, time.Since(start), low, high)
		return h
	case <-time.After(time.Minute):
		c.t.Fatalf("%s: nobody leads", why)
	}
	return held{}
}

// E11: a step-down hands over to the candidate that it names, whatever its place in the queue; the others hold back.
func TestStepDownTo(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		c, operator := newCrew(t, e), open(e)
		c.start("first", 0)
		term := c.next("start", "first", 0, instant)
		for i, id := range []string{"b", "c", "d", "e", "f"} {
			c.start(id, 9-i)
			time.Sleep(short / 4)
		}
		time.Sleep(3 * short)
		ask := func(to string) {
			t.Helper()
			if err := leader.StepDown(t.Context(), operator, "job", term.Token(), to); err != nil {
				t.Fatal(err)
			}
		}
		for _, id := range []string{"e", "first", "f"} { // also the last ones, also at once again
			ask(id)
			term = c.next("named", id, 0, instant)
			time.Sleep(short)
		}
		for _, to := range []string{"nobody", "f"} {
			if err := leader.StepDown(t.Context(), operator, "job", term.Token(), to); !errors.Is(err, leader.ErrSuccessor) {
				t.Errorf("to %s: got %v, want ErrSuccessor", to, err)
			}
		}
		if err := leader.StepDown(t.Context(), operator, "job", term.Token(), "x.y"); err == nil {
			t.Error("bad id")
		}
		if !term.Live() {
			t.Error("a refused step-down ended the term")
		}

		// A notification that is lost costs the one named a reconcile; nobody else is faster.
		link := e.Link(c.ns["e"])
		link.DropHints(true)
		ask("e")
		term = c.next("named, not told", "e", 0, short/4-instant)
		link.DropHints(false)
		time.Sleep(short)

		// One that is gone costs the hold-back, not the lease; the first in the queue goes on.
		e.Kill(c.ns["d"])
		ask("d")
		c.next("named, but gone", "b", short/4-instant, short/4+instant)
	})
}

// Nobody writes another's name into the key: the release carries it, the successor writes itself.
func TestStepDownToWrites(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		c, watcher := newCrew(t, e), open(e)
		c.start("a", 0)
		term := c.next("start", "a", 0, instant)
		c.start("b", 0)
		time.Sleep(2 * short)
		said := make(chan string, 100)
		stop, err := watcher.Inner().Store.Hints(wire.ElectionKey("job"), func(en kv.Entry) {
			said <- fmt.Sprintf("%v %s %s", en.Op == kv.Marker, en.Reason, en.Next)
		})
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		time.Sleep(time.Millisecond)
		term.StepDownTo("b")
		c.next("named", "b", 0, instant)
		time.Sleep(time.Millisecond)
		seen := drain(said)
		if want := []string{"true stepped-down b", "false  "}; !slices.Equal(seen, want) {
			t.Errorf("writes: got %q, want %q", seen, want)
		}
	})
}

// Priorities decide who is next, after a release and after an expiry; a leader is never deposed for one, however often it comes back.
func TestPriorityWithoutFlapping(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		c := newCrew(t, e)
		c.start("low", 1)
		term := c.next("start", "low", 0, instant)
		c.start("mid", 5)
		c.start("high", 9)
		time.Sleep(3 * short)
		next := map[string]string{"low": "high", "mid": "high", "high": "mid"}
		priority := map[string]int{"low": 1, "mid": 5, "high": 9}
		want := c.n.Load()
		for round := range 12 {
			if round%2 == 0 {
				e.Kill(c.ns[term.id])
			} else if err := c.ns[term.id].Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			gone := term.id
			if round%2 == 0 {
				term = c.next("after an expiry", next[gone], 4*short/5-instant, 5*short/4)
			} else {
				term = c.next("after a release", next[gone], 0, instant)
			}
			want++
			c.start(gone, priority[gone]) // it may well have the higher priority
			time.Sleep(10 * short)
			if !term.Live() || c.n.Load() != want {
				t.Fatalf("round %d: %s live %v, %d terms, want %d: deposed for a priority", round, term.id, term.Live(), c.n.Load(), want)
			}
		}
	})
}

// An elector that does not campaign observes: it reads and watches, writes nothing, is in no queue and never leads.
func TestObserver(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		ns := open(e)
		var sent atomic.Int64
		var published atomic.Int64
		remove := e.Link(ns).Filter(func(f *testenv.Frame) testenv.Verdict {
			if isWrite(f) {
				sent.Add(1)
			}
			if f.Dir == testenv.ToServer && f.Subject == wire.ElectionSubject(ns.Name(), "job", wire.SubQueue) {
				published.Add(1)
			}
			return testenv.Pass
		})
		defer remove()
		o := electorWith(t, ns, leader.Config{ID: "o", Priority: 99})
		shown := make(chan leader.State, 100)
		go func() {
			for s, err := range o.Watch(t.Context()) {
				if err == nil {
					shown <- s
				}
			}
		}()
		c := newCrew(t, e)
		c.start("a", 0)
		term := c.next("start", "a", 0, instant)
		time.Sleep(5 * short)
		rec := &wire.Leader{}
		if err := wire.Decode(stands(t, ns).Value, rec); err != nil || len(rec.Next) > 0 {
			t.Errorf("next: %v, %v", rec.Next, err)
		}
		if err := leader.StepDown(t.Context(), ns, "job", term.Token(), "o"); !errors.Is(err, leader.ErrSuccessor) {
			t.Errorf("hand-over to an observer: %v", err)
		}
		if err := c.ns["a"].Close(t.Context()); err != nil {
			t.Error(err)
		}
		time.Sleep(20 * short)
		if holds(t, ns) || sent.Load() > 0 || published.Load() > 0 {
			t.Errorf("held %v, %d writes, %d messages to the queue by an observer", holds(t, ns), sent.Load(), published.Load())
		}
		var saw []string
		for len(shown) > 0 {
			s := <-shown
			saw = append(saw, s.Holder)
		}
		if !slices.Contains(saw, "a") || saw[len(saw)-1] != "" {
			t.Errorf("watched: %q", saw)
		}
	})
}
