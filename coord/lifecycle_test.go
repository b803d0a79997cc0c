package coord_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/inner"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/testenv"
)

// recordOf reads what stands under a member's key: "" when there is no record.
func recordOf(t *testing.T, ns *quorate.Namespace, id string) string {
	t.Helper()
	l, err := ns.Inner().Store.List(t.Context(), wire.MemberPrefix("g")+"*")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range l {
		if e.Key == wire.MemberKey("g", id) && len(e.Value) > 0 {
			return string(e.Value)
		}
	}
	return ""
}

func TestNamesRefused(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		ns := e.Namespace()
		for _, c := range []struct{ group, id, want string }{
			{"", "a", "is empty"},
			{"a b", "a", `' '`},
			{"a//b", "a", "is empty"},
			{"g", "all", "is reserved"},
			{"g", "leader", "is reserved"},
			{"g", "web.1", `"web-1" would do`},
			{"g", strings.Repeat("x", 64), "64 bytes"},
		} {
			_, err := coord.Join(t.Context(), ns, c.group, coord.Config{ID: c.id})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("group %q id %q: got %v, want one line with %q", c.group, c.id, err, c.want)
			}
		}
		if _, err := coord.Open(t.Context(), ns, "a.b"); err == nil {
			t.Error("a client of group a.b was opened")
		}
		if _, err := coord.Join(t.Context(), ns, "g", coord.Config{Meta: map[string]string{"k": strings.Repeat("x", 4096)}}); err == nil {
			t.Error("4097 bytes of metadata were taken")
		}
		nc, _ := e.Connect("no echo", nats.NoEcho())
		deaf, err := quorate.OpenWith(t.Context(), nc, quorate.Config{}, inner.Options{Memory: true})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = deaf.Close(t.Context()) }()
		if _, err := coord.Join(t.Context(), deaf, "g", coord.Config{}); err == nil || !strings.Contains(err.Error(), "NoEcho") {
			t.Errorf("a connection without echo: got %v", err)
		}
	})
}

// Joining again on one handle gives the same Group, which is left when the last joiner leaves.
func TestJoinTwice(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		ns := e.Namespace()
		a := join(t, ns, "a")
		again, err := coord.Join(t.Context(), ns, "g", coord.Config{})
		if err != nil || again != a {
			t.Fatalf("joined again: %v, the same %v", err, again == a)
		}
		if _, err := coord.Join(t.Context(), ns, "g", coord.Config{ID: "b"}); err == nil {
			t.Error("a differing Config was taken")
		}
		if err := a.Leave(t.Context()); err != nil || a.Context().Err() != nil || !a.Live() {
			t.Fatalf("the first of two joiners left: %v, ended %v", err, a.Context().Err())
		}
		for range 2 { // twice does no harm
			if err := a.Leave(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if !errors.Is(context.Cause(a.Context()), coord.ErrLeft) || a.Live() {
			t.Errorf("left: cause %v, live %v", context.Cause(a.Context()), a.Live())
		}
		if recordOf(t, ns, "a") != "" {
			t.Error("M1: a member that left has a record")
		}
		// Another group in the same process, and a nested name.
		for _, name := range []string{"h", "g/sub/one"} {
			g, err := coord.Join(t.Context(), ns, name, coord.Config{ID: "a"})
			if err != nil || g.Name() != name {
				t.Fatalf("group %q: %v", name, err)
			}
		}
		all, err := coord.Groups(t.Context(), ns)
		if err != nil || fmt.Sprint(all) != "[g/sub/one h]" {
			t.Errorf("groups %v, %v", all, err)
		}
		// Closing the namespace leaves all, however many have joined.
		if _, err := coord.Join(t.Context(), ns, "h", coord.Config{ID: "a"}); err != nil {
			t.Fatal(err)
		}
		if err := ns.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := coord.Join(t.Context(), ns, "g", coord.Config{}); !errors.Is(err, quorate.ErrClosed) {
			t.Errorf("join in a closed namespace: %v", err)
		}
		if all, err := coord.Groups(t.Context(), e.Namespace()); err != nil || len(all) != 0 {
			t.Errorf("groups after the close: %v, %v", all, err)
		}
	})
}

// The same id in one process, again and again: each waits for the one before.
func TestRejoinAtOnce(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		join(t, e.Namespace(), "a")
		ns := e.Namespace()
		start := time.Now()
		for range 20 {
			b := join(t, ns, "b")
			left := make(chan error)
			go func() { left <- b.Leave(t.Context()) }()
			again := join(t, ns, "b")
			if again.Context().Err() != nil {
				t.Error("joined a group that has ended")
			}
			if err := <-left; err != nil {
				t.Fatal(err)
			}
			if again != b { // else it was counted as a second joiner, before the first left
				if err := again.Leave(t.Context()); err != nil {
					t.Fatal(err)
				}
			} else if err := again.Leave(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if d := time.Since(start); d > 20*lease {
			t.Errorf("20 leaves and joins took %v", d)
		}
	})
}

// An id that is alive is waited for; a cancelled Join leaves nothing behind.
func TestJoinCancelled(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		a := join(t, e.Namespace(), "a")
		look := e.Namespace()
		ended, end := context.WithCancel(t.Context())
		end()
		if _, err := coord.Join(ended, look, "g", coord.Config{}); !errors.Is(err, context.Canceled) {
			t.Errorf("join with an ended context: %v", err)
		}
		// At every step of joining: the time between two steps is that of a message over a slow link.
		for d := time.Duration(0); d < 60*time.Millisecond; d += time.Millisecond {
			ns := e.Namespace()
			remove := e.Link(ns).Filter(func(f *testenv.Frame) testenv.Verdict {
				if f.IsMessage() {
					return testenv.Delay(5 * time.Millisecond)
				}
				return testenv.Pass
			})
			ctx, cancel := context.WithTimeout(t.Context(), d)
			g, err := coord.Join(ctx, ns, "g", coord.Config{ID: "b"})
			cancel()
			if err == nil {
				err = g.Leave(t.Context())
				if err != nil {
					t.Fatal(err)
				}
			} else if !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("after %v: %v", d, err)
			}
			remove()
			if r := recordOf(t, look, "b"); r != "" {
				t.Fatalf("L4: cancelled after %v, and its record stands: %s", d, r)
			}
		}
		time.Sleep(3 * lease)
		if got := roster(t, a.Client); got != "a:alive " {
			t.Errorf("M1: roster %q", got)
		}
	})
}

// A process alone, cancelled before it leads.
func TestJoinCancelledAlone(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		ns := e.Namespace()
		ctx, cancel := context.WithTimeout(t.Context(), lease)
		defer cancel()
		_, err := coord.Join(ctx, ns, "g", coord.Config{ID: "o", Observer: true})
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no leader has answered") || strings.Contains(err.Error(), "\n") {
			t.Errorf("an observer joins an empty group: %v", err)
		}
		if recordOf(t, e.Namespace(), "o") != "" {
			t.Error("L4: its record stands")
		}
	})
}

// Observers and members that never lead are in the roster, and the group is led by the others only.
func TestObserversNeverLead(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		na := e.Namespace()
		join(t, na, "a")
		mk := func(id string, c coord.Config) *coord.Group {
			c.ID = id
			g, err := coord.Join(t.Context(), e.Namespace(), "g", c)
			if err != nil {
				t.Fatal(err)
			}
			return g
		}
		o := mk("o", coord.Config{Observer: true, Meta: map[string]string{"k": "v"}})
		n := mk("n", coord.Config{NoLead: true})
		ms, err := o.Members(t.Context())
		if err != nil || ids(ms) != "a:alive n:alive o:alive " {
			t.Fatalf("roster %v, %v", ms, err)
		}
		if !maps.Equal(ms[2].Meta, map[string]string{"k": "v"}) || !ms[0].Leader || ms[2].Leader || ms[2].PID == 0 || ms[2].LastSeen.IsZero() || ms[2].Joined.IsZero() || ms[2].Index != -1 {
			t.Errorf("roster %+v", ms)
		}
		if len(ms[2].Roles) != 0 || fmt.Sprint(ms[0].Roles) != "[lead]" {
			t.Errorf("roles %v %v", ms[0].Roles, ms[2].Roles)
		}
		e.Kill(na) // all candidates are gone
		time.Sleep(4 * lease)
		ms, err = n.Members(t.Context())
		if err != nil || ids(ms) != "a:unknown n:unknown o:unknown " {
			t.Errorf("without a leader: %q, %v", ids(ms), err)
		}
		s, err := n.Leader(t.Context())
		if err != nil || s.Holder != "a" {
			t.Errorf("a leader that has died is named until another takes over: %+v, %v", s, err)
		}
		if n.Live() || o.Live() {
			t.Error("M1: nobody grants it, and it is live")
		}
		join(t, e.Namespace(), "b")
		time.Sleep(3 * lease)
		if got := roster(t, n.Client); got != "b:alive n:alive o:alive " {
			t.Errorf("M1: roster %q", got)
		}
		if n.Context().Err() != nil || !n.Live() {
			t.Error("a member without a leader for a while is none any more")
		}
	})
}

// The leader's work: Lead is called with each term, ends with it, and the term is released only after it has returned (R12).
func TestLead(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		a, b := join(t, e.Namespace(), "a"), join(t, e.Namespace(), "b")
		var tokens []uint64
		type call struct {
			id string
			t  *leader.Term
		}
		calls := make(chan call)
		returned := map[string]chan error{}
		for _, g := range []*coord.Group{a, b} {
			done := make(chan error, 1)
			returned[g.ID()] = done
			go func() {
				done <- g.Lead(t.Context(), func(ctx context.Context, term *leader.Term) error {
					calls <- call{g.ID(), term}
					<-ctx.Done()
					time.Sleep(lease / 2)
					if !term.Live() {
						t.Error("R12: the term ended before the leader's work returned")
					}
					if _, ok := g.Term(); !ok {
						t.Error("Term: it is held still")
					}
					return nil
				})
			}()
		}
		c := <-calls
		tokens = append(tokens, c.t.Token())
		if term, ok := a.Term(); !ok || c.id != "a" || term != c.t {
			t.Errorf("term of %s, want a's", c.id)
		}
		if _, ok := b.Term(); ok {
			t.Error("L1: b has a term too")
		}
		// A second Lead of the same member has the term at once; its own context ends it, not the term.
		ctx, cancel := context.WithCancel(t.Context())
		err := a.Lead(ctx, func(ctx context.Context, term *leader.Term) error {
			cancel()
			<-ctx.Done()
			return errors.New("because it was cancelled")
		})
		if err != nil {
			t.Errorf("Lead whose context ended: %v", err)
		}
		want := errors.New("done")
		if err := a.Lead(t.Context(), func(context.Context, *leader.Term) error { return want }); err != want {
			t.Errorf("Lead whose work ended: %v, want its error", err)
		}
		if err := a.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-returned["a"]; !errors.Is(err, coord.ErrLeft) {
			t.Errorf("Lead of a member that left: %v", err)
		}
		c = <-calls
		if c.id != "b" || c.t.Token() <= tokens[0] {
			t.Errorf("L2: %s leads with %d after %d", c.id, c.t.Token(), tokens[0])
		}
		if err := b.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-returned["b"]
	})
}

// P4, L5: a leader that leaves hands over first; the next one hears it leave, so that nobody waits for it.
func TestLeaderLeaves(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		gs := []*coord.Group{join(t, e.Namespace(), "a"), join(t, e.Namespace(), "b"), join(t, e.Namespace(), "c")}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		w := watch(ctx, client(t, e.Namespace()))
		time.Sleep(lease)
		w.take()
		start := time.Now()
		if err := gs[0].Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d > lease/10 {
			t.Errorf("L5: a leader's leave took %v", d)
		}
		time.Sleep(lease / 100)
		if got := roster(t, gs[2].Client); got != "b:alive c:alive " && got != "b:late c:alive " && got != "b:alive c:late " {
			t.Errorf("M1: roster right after the leader left: %q", got)
		}
		time.Sleep(lease)
		wantLog(t, "M1", w, "-a:left", "leader=")
		if h := w.view().Leader.Holder; h != "b" && h != "c" {
			t.Errorf("%q leads", h)
		}
		if got := roster(t, gs[2].Client); got != "b:alive c:alive " {
			t.Errorf("M1: roster %q", got)
		}
		cancel()
		<-w.done
	})
}

// Leave from a handler and from the leader's work must not wait for itself, with the callback's context or without.
func TestLeaveFromCallbacks(t *testing.T) {
	for _, own := range []bool{true, false} {
		testenv.Run(t, func(t *testing.T, e *testenv.Env) {
			pick := func(ctx context.Context) context.Context {
				if own {
					return ctx
				}
				return context.Background()
			}
			a := join(t, e.Namespace(), "a")
			b := join(t, e.Namespace(), "b")
			_, err := b.Handle("go", func(ctx context.Context, m coord.Message) ([]byte, error) {
				return nil, b.Leave(pick(ctx))
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := a.Send(t.Context(), coord.ToMember("b"), "go", nil); err != nil {
				t.Fatal(err)
			}
			<-b.Context().Done()
			err = a.Lead(t.Context(), func(ctx context.Context, _ *leader.Term) error { return a.Leave(pick(ctx)) })
			if own && err != nil && !errors.Is(err, coord.ErrLeft) {
				t.Errorf("Lead: %v", err)
			}
			<-a.Context().Done()
			for _, g := range []*coord.Group{a, b} {
				if err := g.Leave(t.Context()); err != nil || !errors.Is(context.Cause(g.Context()), coord.ErrLeft) {
					t.Errorf("%s: %v, cause %v", g.ID(), err, context.Cause(g.Context()))
				}
			}
			time.Sleep(lease)
			if recordOf(t, e.Namespace(), "a") != "" || recordOf(t, e.Namespace(), "b") != "" {
				t.Error("M1: a member that left has a record")
			}
		})
	}
}

// Leaving while there is no leader, and while NATS is away.
func TestLeaveAlone(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		na, nb, nd := e.Namespace(), e.Namespace(), e.Namespace()
		join(t, na, "a")
		b := join(t, nb, "b")
		d := join(t, nd, "d")
		e.Kill(na)
		start := time.Now()
		if err := b.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > lease {
			t.Errorf("leaving without a leader took %v", took)
		}
		if recordOf(t, nd, "b") != "" {
			t.Error("M1: its record stands")
		}
		e.Cut(nd)
		start = time.Now()
		if err := d.Leave(t.Context()); !errors.Is(err, coord.ErrUntold) {
			t.Fatalf("left without NATS: got %v, want ErrUntold", err)
		}
		if took := time.Since(start); took > 5*lease {
			t.Errorf("leaving without NATS took %v", took)
		}
		e.Heal(nd)
	})
}
