package coord_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/testenv"
)

// log is what one Watch has told, one word for each change.
type log struct {
	mu   sync.Mutex
	all  []string
	last coord.View
	err  error
	done chan struct{}
}

// watch follows a group until ctx ends.
func watch(ctx context.Context, c *coord.Client) *log {
	l := &log{done: make(chan struct{})}
	go func() {
		defer close(l.done)
		for v, err := range c.Watch(ctx) {
			l.mu.Lock()
			if err != nil {
				l.err = err
				l.mu.Unlock()
				continue
			}
			for _, d := range v.Left {
				l.all = append(l.all, "-"+d.Member.ID+":"+d.Reason)
			}
			for _, m := range v.Joined {
				l.all = append(l.all, "+"+m.ID)
			}
			if v.Leader.Holder != l.last.Leader.Holder {
				l.all = append(l.all, "leader="+v.Leader.Holder)
			}
			l.last = v
			l.mu.Unlock()
		}
	}()
	return l
}

// take returns what was told since the last take, but for the words that begin with one of skip.
func (l *log) take(skip ...string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := slices.DeleteFunc(l.all, func(w string) bool {
		return slices.ContainsFunc(skip, func(s string) bool { return strings.HasPrefix(w, s) })
	})
	l.all = nil
	return strings.Join(all, " ")
}

func (l *log) view() coord.View {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

func wantLog(t *testing.T, rule string, l *log, want string, skip ...string) {
	t.Helper()
	if got := l.take(skip...); got != want {
		t.Errorf("%s: watch told %q, want %q", rule, got, want)
	}
}

func client(t *testing.T, ns *quorate.Namespace) *coord.Client {
	t.Helper()
	c, err := coord.Open(t.Context(), ns, "g")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// M1: the ways out of a group are told apart, to a client and to a member.
func TestWatchTellsReasons(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		c := client(t, e.Namespace())
		w := watch(ctx, c)
		time.Sleep(lease)
		wantLog(t, "an empty group", w, "")
		a := join(t, e.Namespace(), "a")
		nb, nc := e.Namespace(), e.Namespace()
		b := join(t, nb, "b")
		join(t, nc, "c")
		time.Sleep(lease / 2)
		wantLog(t, "M1", w, "+a +b +c", "leader=")
		if s := w.view().Leader; s.Holder != "a" || s.Token == 0 {
			t.Errorf("leader %+v", s)
		}
		wa := watch(ctx, a.Client)
		time.Sleep(lease / 10)
		wantLog(t, "the first view is all there is", wa, "+a +b +c leader=a")

		if err := b.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lease / 10)
		wantLog(t, "M1 left", w, "-b:left")

		// A restart of an id is another member, after the lease of the one before.
		e.Kill(nc)
		killed := time.Now()
		c2 := join(t, e.Namespace(), "c")
		if d := time.Since(killed); d < 2*lease-lease/3 {
			t.Errorf("M2: a killed member's successor acted after %v", d)
		}
		time.Sleep(lease / 10)
		wantLog(t, "M1 restart", w, "-c:expired +c")

		if err := c2.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		nd := e.Namespace()
		join(t, nd, "d")
		time.Sleep(lease / 10)
		wantLog(t, "M1", w, "-c:left +d")
		e.Kill(nd)
		time.Sleep(2*lease - lease/3)
		wantLog(t, "M1: a member's lease has not run out", w, "")
		time.Sleep(lease)
		wantLog(t, "M1 expired", w, "-d:expired")
		wantLog(t, "a member sees the same", wa, "-b:left -c:expired +c -c:left +d -d:expired")
		cancel()
		<-w.done
		<-wa.done
		if w.err != nil || wa.err != nil {
			t.Errorf("a watch ends silently with its context: %v, %v", w.err, wa.err)
		}
	})
}

// Iterators end with one error when their owner has ended.
func TestWatchEndsWithOwner(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		a := join(t, e.Namespace(), "a")
		nc := e.Namespace()
		c := client(t, nc)
		wa, wc := watch(t.Context(), a.Client), watch(t.Context(), c)
		time.Sleep(lease)
		if err := a.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := nc.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-wa.done
		<-wc.done
		if !errors.Is(wa.err, coord.ErrLeft) || !errors.Is(wc.err, quorate.ErrClosed) {
			t.Errorf("watches ended with %v and %v, want ErrLeft and ErrClosed", wa.err, wc.err)
		}
		c.Close()
		c.Close()
		for _, err := range c.Watch(t.Context()) {
			if err == nil {
				t.Error("a closed client's watch tells views")
			}
		}
	})
}

// A slow reader misses steps, never the latest view, and what it is told adds up.
func TestWatchSlowReader(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		join(t, e.Namespace(), "a")
		c := client(t, e.Namespace())
		slow := make(chan struct{})
		views := make(chan coord.View, 100)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			for v := range c.Watch(ctx) {
				views <- v
				<-slow
			}
		}()
		<-views
		for i := range 20 {
			g := join(t, e.Namespace(), fmt.Sprintf("m%d", i%5))
			if i < 18 {
				if err := g.Leave(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		time.Sleep(lease)
		slow <- struct{}{}
		v := <-views
		if len(v.Joined) != 2 || len(v.Left) != 0 || len(v.Members) != 3 {
			t.Errorf("a view after many changes: joined %v, left %v, members %v", v.Joined, v.Left, v.Members)
		}
		cancel()
		close(slow)
		<-done
	})
}

// View.Stale tells that the connection is away, and the watch goes on when it is back.
func TestWatchAcrossReconnect(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		a := join(t, e.Namespace(), "a")
		nc := e.Namespace()
		ctx, cancel := context.WithCancel(t.Context())
		w := watch(ctx, client(t, nc))
		time.Sleep(lease)
		e.Link(nc).Down(true)
		e.Link(nc).Kill()
		time.Sleep(lease)
		if !w.view().Stale {
			t.Error("a watch whose connection is away is not stale")
		}
		b := join(t, e.Namespace(), "b")
		if err := b.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		join(t, e.Namespace(), "c")
		e.Link(nc).Down(false)
		time.Sleep(lease)
		if v := w.view(); v.Stale || len(v.Members) != 2 {
			t.Errorf("after the reconnect: stale %v, members %v", v.Stale, v.Members)
		}
		wantLog(t, "nobody is told of who came and went meanwhile", w, "+a leader=a +c", "never")
		cancel()
		<-w.done
		_ = a
	})
}
