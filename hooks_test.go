package quorate_test

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/partition"
	"github.com/quorate/quorate/testenv"
	"github.com/quorate/quorate/vote"
)

// TestHookStandsStill: an event hook that does not return holds up nothing but the end of Close, and that until its context ends.
func TestHookStandsStill(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		called, release := make(chan struct{}), make(chan struct{})
		let := sync.OnceFunc(func() { close(release) })
		defer let()
		once := sync.OnceFunc(func() { close(called) })
		ns := e.Namespace(quorate.Config{Hooks: quorate.Hooks{Event: func(quorate.Event) { once(); <-release }}})
		other := e.Namespace()
		g, err := coord.Join(ctx, ns, "workers", coord.Config{ID: "a"})
		if err != nil {
			t.Fatal(err)
		}
		<-called
		time.Sleep(10 * ns.Timings().Lease) // each renewal and heartbeat is told of
		term, ok := g.Term()
		if !ok || !g.Live() {
			t.Fatal("the member lost its lease while a hook stood still")
		}
		h, err := coord.Join(ctx, other, "workers", coord.Config{ID: "b"})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		bounded, stop := context.WithTimeout(ctx, time.Second)
		defer stop()
		if err := ns.Close(bounded); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("close while the hook stands still: %v, want a deadline", err)
		}
		if !errors.Is(context.Cause(term.Context()), quorate.ErrResigned) || !errors.Is(context.Cause(g.Context()), quorate.ErrLeft) {
			t.Errorf("closed: the term ended with %v, the membership with %v", context.Cause(term.Context()), context.Cause(g.Context()))
		}
		for ctx.Err() == nil { // it was released, and not left to run out
			if _, ok := h.Term(); ok {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if d := time.Since(began); d > ns.Timings().Lease {
			t.Errorf("the next leader had to wait for %v", d)
		}
		let()
		if err := ns.Close(ctx); err != nil {
			t.Errorf("close once the hook returns: %v", err)
		}
	})
}

// TestHeartbeatTook: what a heartbeat took is its way to the leader and back, which takes no time here; not how long the leader had it wait, or that it was answered again.
func TestHeartbeatTook(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		var mu sync.Mutex
		heartbeats, shares := 0, 0
		hooks := quorate.Hooks{Event: func(n quorate.Event) {
			mu.Lock()
			defer mu.Unlock()
			switch n.Kind {
			case quorate.EventHeartbeat:
				if heartbeats++; n.Took != 0 {
					t.Errorf("a heartbeat took %v", n.Took)
				}
			case quorate.EventShareBegan:
				shares++
			}
		}}
		for _, id := range []string{"a", "b", "c", "d"} {
			ns := e.Namespace(quorate.Config{Hooks: hooks})
			g, err := coord.Join(t.Context(), ns, "workers", coord.Config{ID: id})
			if err != nil {
				t.Fatal(err)
			}
			p, err := partition.Join(t.Context(), g, partition.Config{})
			if err != nil {
				t.Fatal(err)
			}
			slow := id == "b"
			go func() {
				_ = p.Run(t.Context(), func(ctx context.Context, _ *partition.Assignment) error {
					<-ctx.Done()
					if slow {
						time.Sleep(ns.Timings().Lease / 10)
					}
					return nil
				})
			}()
			time.Sleep(3 * ns.Timings().Lease)
		}
		mu.Lock()
		defer mu.Unlock()
		if heartbeats < 20 || shares != 1+2+3+4 {
			t.Errorf("%d heartbeats, %d shares", heartbeats, shares)
		}
	})
}

func TestJoinHooks(t *testing.T) {
	var heard []string
	hooks := func(name string) quorate.Hooks {
		return quorate.Hooks{
			Event: func(e quorate.Event) { heard = append(heard, name+" "+e.Kind) },
			Span: func(ctx context.Context, s quorate.Span) (context.Context, func(quorate.SpanEnd)) {
				heard = append(heard, name+" begins in "+ctx.Value(testKey{}).(string))
				return context.WithValue(ctx, testKey{}, name), func(e quorate.SpanEnd) { heard = append(heard, name+" ends "+e.Answer) }
			},
			Inject: func(context.Context) map[string]string { return map[string]string{name: "1"} },
		}
	}
	none := quorate.JoinHooks(quorate.Hooks{}, quorate.Hooks{})
	if none.Event != nil || none.Span != nil || none.Inject != nil {
		t.Error("of no hooks some are made")
	}
	h := quorate.JoinHooks(quorate.Hooks{}, hooks("first"), quorate.Hooks{}, hooks("second"))
	h.Event(quorate.Event{Kind: "x"})
	ctx, end := h.Span(context.WithValue(context.Background(), testKey{}, "nothing"), quorate.Span{})
	end(quorate.SpanEnd{Answer: "yes"})
	want := []string{"first x", "second x", "first begins in nothing", "second begins in first", "second ends yes", "first ends yes"}
	if !slices.Equal(heard, want) || ctx.Value(testKey{}) != "second" {
		t.Errorf("heard %q in %v, want %q", heard, ctx.Value(testKey{}), want)
	}
	if got := h.Inject(ctx); !reflect.DeepEqual(got, map[string]string{"first": "1", "second": "1"}) {
		t.Errorf("injects %v", got)
	}
}

type testKey struct{}

// lines keeps what is logged.
type lines struct {
	mu  *sync.Mutex
	all *[]line
	own []slog.Attr
}

type line struct {
	text  string
	attrs map[string][]string
}

func (l lines) Enabled(context.Context, slog.Level) bool { return true }
func (l lines) WithGroup(string) slog.Handler            { panic("nobody groups") }

func (l lines) WithAttrs(attrs []slog.Attr) slog.Handler {
	l.own = append(slices.Clone(l.own), attrs...)
	return l
}

func (l lines) Handle(_ context.Context, r slog.Record) error {
	n := line{r.Message, map[string][]string{}}
	add := func(a slog.Attr) bool { n.attrs[a.Key] = append(n.attrs[a.Key], a.Value.String()); return true }
	for _, a := range l.own {
		add(a)
	}
	r.Attrs(add)
	l.mu.Lock()
	defer l.mu.Unlock()
	*l.all = append(*l.all, n)
	return nil
}

// TestLogLines: R40. Each line about a group says group, member, term and generation, each once, and those about an election theirs.
func TestLogLines(t *testing.T) {
	var all []line
	log := slog.New(lines{mu: &sync.Mutex{}, all: &all})
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		ctx := context.Background()
		spaces := map[string]*quorate.Namespace{}
		member := func(id string) *coord.Group {
			spaces[id] = e.Namespace(quorate.Config{Logger: log})
			g, err := coord.Join(ctx, spaces[id], "workers", coord.Config{ID: id, MinSize: 2})
			if err != nil {
				t.Fatal(err)
			}
			p, err := partition.Join(ctx, g, partition.Config{})
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				_ = p.Run(g.Context(), func(ctx context.Context, _ *partition.Assignment) error { <-ctx.Done(); return nil }) // ends with the membership
			}()
			return g
		}
		pass := func() { time.Sleep(3 * quorate.DefaultLease) }
		member("a")
		pass() // alone it keeps the group
		b := member("b")
		pass()
		if _, err := vote.Join(ctx, b, vote.Config{}); err != nil {
			t.Fatal(err)
		}
		c, err := coord.Open(ctx, spaces["b"], "workers")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := vote.Propose(ctx, c, vote.Proposal{Topic: "lunch"}); err != nil {
			t.Fatal(err)
		}
		if err := b.StepDown(ctx); err != nil {
			t.Fatal(err)
		}
		pass()
		e.Cut(spaces["a"])
		pass()
		e.Heal(spaces["a"])
		pass()
		if err := b.Evict(ctx, "a"); err != nil {
			t.Fatal(err)
		}
		el, err := leader.New(spaces["b"], "reports", leader.Config{ID: "b"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := el.Campaign(ctx); err != nil {
			t.Fatal(err)
		}
	})
	texts := map[string]bool{}
	for _, l := range all {
		want := []string{"group", "member", "term", "generation"}
		switch {
		case l.attrs["election"] != nil:
			want = []string{"election", "member", "term"}
		case strings.HasPrefix(l.text, "bucket ") || strings.HasPrefix(l.text, "connection setting"):
			want = nil
		}
		texts[l.text] = true
		for _, key := range append(want, "namespace") {
			if len(l.attrs[key]) != 1 || key != "member" && key != "generation" && (l.attrs[key][0] == "" || key == "term" && l.attrs[key][0] == "0" && l.text == "settled") {
				t.Errorf("%q: %s is %q: want one, of %q", l.text, key, l.attrs[key], append(want, "namespace"))
			}
		}
	}
	for _, text := range []string{"term began", "term ended", "leading", "keeping the group: nobody leads it below its minimum size", "member", "no member any more", "settled",
		"asked to step down", "asked to evict", "ballots of the term"} {
		if !texts[text] {
			t.Errorf("nothing has logged %q; there are %d lines", text, len(all))
		}
	}
}
