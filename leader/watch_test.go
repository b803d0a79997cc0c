package leader_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/testenv"
)

// The value that others read can be changed by a leader: it comes with the next renewal.
func TestSetValue(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		a, reader := electorWith(t, open(e), leader.Config{ID: "a", Value: "one"}), elector(t, open(e), "r")
		term := campaign(t, a)
		shows := func(want string) {
			t.Helper()
			if s, err := reader.Leader(t.Context()); err != nil || s.Value != want || s.Token != term.Token() {
				t.Errorf("got %+v, %v, want value %q of token %d", s, err, want, term.Token())
			}
		}
		shows("one")
		if err := a.SetValue(strings.Repeat("x", wire.MaxValue+1)); err == nil {
			t.Error("too long a value was taken")
		}
		if err := a.SetValue("two"); err != nil {
			t.Error(err)
		}
		time.Sleep(short / 6)
		time.Sleep(instant)
		shows("two")
		if err := term.Resign(t.Context()); err != nil {
			t.Error(err)
		}
		term = campaign(t, a)
		shows("two")
	})
}

// collect gathers what a watch yields until its context ends; done tells how it ended.
func collect(ctx context.Context, e *leader.Elector) (states <-chan leader.State, done <-chan error) {
	ch, end := make(chan leader.State, 1000), make(chan error, 1)
	go func() {
		for s, err := range e.Watch(ctx) {
			if err != nil {
				end <- err
				return
			}
			ch <- s
		}
		end <- nil
	}()
	return ch, end
}

func next(t *testing.T, states <-chan leader.State) leader.State {
	t.Helper()
	select {
	case s := <-states:
		return s
	case <-time.After(time.Minute):
		t.Fatal("no state within a minute")
	}
	return leader.State{}
}

func TestWatch(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		na, nb := open(e), open(e)
		a := electorWith(t, na, leader.Config{ID: "a", Value: "http://a:1"})
		b := elector(t, nb, "b")
		ctx, cancel := context.WithCancel(t.Context())
		states, done := collect(ctx, b)
		if s := next(t, states); s != (leader.State{}) {
			t.Errorf("first state of an empty election: %+v", s)
		}
		ta := campaign(t, a)
		want := leader.State{Holder: "a", Keeper: "a", Value: "http://a:1", Token: ta.Token(), Lease: short}
		check := func(s leader.State, stale bool) {
			t.Helper()
			if s.Since.IsZero() || s.Since.After(time.Now()) {
				t.Errorf("since %v", s.Since)
			}
			s.Since, s.Host = time.Time{}, ""
			want.Stale = stale
			if s != want {
				t.Errorf("state: got %+v, want %+v", s, want)
			}
		}
		check(next(t, states), false)
		if s, err := b.Leader(t.Context()); err != nil {
			t.Error(err)
		} else {
			check(s, false)
		}
		time.Sleep(10 * short)
		if len(states) != 0 {
			t.Errorf("renewals are told: %+v", next(t, states))
		}
		e.Cut(nb)
		start := time.Now()
		check(next(t, states), true)
		between(t, "staleness", time.Since(start), 0, short)
		e.Heal(nb)
		check(next(t, states), false)
		if err := ta.Resign(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s := next(t, states); s != (leader.State{}) {
			t.Errorf("after the release: %+v", s)
		}
		put(t, nb, kv.Write{Value: []byte("garbage")})
		synctest.Wait()
		if len(states) != 0 {
			t.Errorf("a record that does not decode is told: %+v", next(t, states))
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ended with its context: %v, want nothing", err)
		}
		states, done = collect(t.Context(), b)
		next(t, states)
		if err := b.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, quorate.ErrClosed) {
			t.Errorf("closed: got %v, want ErrClosed", err)
		}
	})
}

// A slow reader misses changes, never the latest.
func TestWatchSlowReader(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		na := open(e)
		a := elector(t, na, "a")
		seen := 0
		var last uint64
		for s, err := range elector(t, open(e), "b").Watch(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if seen++; seen == 1 {
				for range 20 {
					term := campaign(t, a)
					if err := term.Resign(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				last = campaign(t, a).Token()
				time.Sleep(short)
			}
			if s.Token == last {
				break
			}
		}
		if seen > 5 {
			t.Errorf("a slow reader was told %d states", seen)
		}
	})
}

// Candidates come in order: higher priority first, then who has waited longest; a leader is never deposed.
func TestQueue(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		term := campaign(t, elector(t, open(e), "first"))
		type candidate struct {
			id  string
			won <-chan *leader.Term
		}
		var all []candidate
		for _, c := range []struct {
			id       string
			priority int
		}{{"b0", 0}, {"c5", 5}, {"d0", 0}, {"e9", 9}, {"f5", 5}} {
			el := electorWith(t, open(e), leader.Config{ID: c.id, Priority: c.priority})
			all = append(all, candidate{c.id, win(t, el)})
			time.Sleep(short / 4)
		}
		time.Sleep(5 * short)
		for _, c := range all {
			notYet(t, c.won, "a higher priority deposes nobody")
		}
		want := []string{"e9", "c5", "f5", "b0", "d0"}
		for round, id := range want {
			start := time.Now()
			if err := term.Resign(t.Context()); err != nil {
				t.Fatal(err)
			}
			var got string
			for _, c := range all {
				if c.id == id {
					term, _ = within(t, c.won)
					got = c.id
				}
			}
			between(t, fmt.Sprintf("L5: hand-over %d to %s", round, got), time.Since(start), 0, instant)
			time.Sleep(time.Duration(round%2) * 3 * short) // at once again, and after a while
		}
	})
}
