package coord_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/inner"
	"github.com/quorate/quorate/testenv"
)

// Each message says who sent it, as which incarnation, and with which token if its sender led.
func TestMessageSaysItsSender(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		a, b := join(t, e.Namespace(), "a"), join(t, e.Namespace(), "b")
		c := client(t, e.Namespace())
		got := make(chan coord.Message, 8)
		handle(t, b, "work", func(_ context.Context, m coord.Message) ([]byte, error) { got <- m; return nil, nil })
		term, ok := a.Term()
		if !ok {
			t.Fatal("a does not lead")
		}
		for _, tc := range []struct {
			from      *coord.Client
			to        coord.To
			id, where string
			inc       uint64
			token     uint64
		}{
			{a.Client, coord.ToAll, "a", "all", a.Inner().Place().Incarnation, term.Token()},
			{b.Client, coord.ToMember("b"), "b", "b", b.Inner().Place().Incarnation, 0},
			{c, coord.ToAll, "", "all", 0, 0},
		} {
			if err := tc.from.Send(t.Context(), tc.to, "work", []byte("x")); err != nil {
				t.Fatal(err)
			}
			m := <-got
			if m.From != tc.id || m.To != tc.where || m.Incarnation != tc.inc || m.Token != tc.token || m.Try != 0 || m.ID == "" {
				t.Errorf("message %+v, want from %q, to %q, incarnation %d, token %d", m, tc.id, tc.where, tc.inc, tc.token)
			}
		}
	})
}

// Orders of a past leader are dropped, however late they come, also before the new one's first reply has.
func TestOrdersOfAPastLeader(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		na := e.Namespace()
		a, b, c := join(t, na, "a"), join(t, e.Namespace(), "b"), join(t, e.Namespace(), "c")
		var h heard
		stop, err := c.HandleOrders("order", func(_ context.Context, m coord.Message) ([]byte, error) {
			h.add(m.From + ":" + string(m.Data))
			return []byte("done"), nil
		})
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		order := func(g *coord.Group, what string) error {
			_, err := g.Ask(t.Context(), coord.ToMember("c"), "order", []byte(what))
			return err
		}
		if err := order(a, "one"); err != nil {
			t.Fatal(err)
		}
		var remote *coord.RemoteError
		if err := order(b, "by who does not lead"); !errors.As(err, &remote) || !strings.Contains(remote.Text, "newest term") {
			t.Errorf("an order of who does not lead: %v", err)
		}
		// What a sends as the leader stays on its way until b leads.
		late := e.Link(na).Filter(func(f *testenv.Frame) testenv.Verdict {
			if f.Dir == testenv.ToServer && strings.HasSuffix(f.Subject, ".order") {
				return testenv.Delay(3 * lease)
			}
			return testenv.Pass
		})
		answer := make(chan error, 1)
		go func() { answer <- order(a, "late") }()
		time.Sleep(lease / 10)
		late()
		if err := a.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lease)
		leads := b
		if _, ok := c.Term(); ok {
			leads = c
		} else if _, ok := b.Term(); !ok {
			t.Fatal("nobody leads")
		}
		if err := order(leads, "two"); err != nil {
			t.Fatal(err)
		}
		if err := <-answer; !errors.As(err, &remote) {
			t.Errorf("the late order of a: %v", err)
		}
		if got, want := h.take(), "a:one "+leads.ID()+":two"; got != want {
			t.Errorf("orders followed %q, want %q", got, want)
		}
	})
}

// A question whose answer was lost is asked again with the same id; the process that handled it answers again, and does not handle it twice.
func TestRetryIsHandledOnce(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		na := e.Namespace()
		a := join(t, na, "a")
		c := client(t, e.Namespace())
		var n, lost atomic.Int64
		slow := make(chan struct{})
		handle(t, a, "work", func(_ context.Context, m coord.Message) ([]byte, error) {
			if string(m.Data) == "slow" {
				<-slow
			}
			return fmt.Append(nil, n.Add(1), m.Try), nil
		})
		remove := e.Link(na).Filter(func(f *testenv.Frame) testenv.Verdict {
			if f.Dir == testenv.ToServer && strings.HasPrefix(f.Subject, "_INBOX") && strings.HasPrefix(string(f.Payload), "1") && lost.Add(1) < 3 {
				return testenv.Drop
			}
			return testenv.Pass
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10*lease)
		defer cancel()
		r, err := c.Ask(ctx, coord.ToLeader, "work", nil, coord.Retry)
		if err != nil || string(r.Data) != "1 1" || n.Load() != 1 {
			t.Errorf("asked again: %q, %v, handled %d times, want once", r.Data, err, n.Load())
		}
		if lost.Load() != 3 {
			t.Errorf("%d answers were sent, want 3", lost.Load())
		}
		remove()
		// One that takes longer than a try: the answer to the first try counts.
		time.AfterFunc(5*lease/2, func() { close(slow) })
		r, err = c.Ask(ctx, coord.ToMember("a"), "work", []byte("slow"), coord.Retry)
		if err != nil || string(r.Data) != "2 1" || n.Load() != 2 {
			t.Errorf("a slow one: %q, %v, handled %d times in all, want twice", r.Data, err, n.Load())
		}
		// Without Retry an unanswered question is not asked again, and its error says what is known.
		e.Link(na).Filter(func(f *testenv.Frame) testenv.Verdict {
			if f.Dir == testenv.ToServer && strings.HasPrefix(f.Subject, "_INBOX") && strings.HasPrefix(string(f.Payload), "3") {
				return testenv.Drop
			}
			return testenv.Pass
		})
		short, cancel := context.WithTimeout(t.Context(), 3*lease)
		defer cancel()
		if _, err = c.Ask(short, coord.ToLeader, "work", nil); !errors.Is(err, coord.ErrNoAnswer) || !errors.Is(err, context.DeadlineExceeded) || n.Load() != 3 {
			t.Errorf("an answer that is lost: %v, handled %d times in all, want 3", err, n.Load())
		}
	})
}

// A leader that dies over a question: the next one is asked, with the same id and another try.
func TestRetryAcrossLeaderCrash(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		na := e.Namespace()
		a, b := join(t, na, "a"), join(t, e.Namespace(), "b")
		c := client(t, e.Namespace())
		var mu sync.Mutex
		var asked []coord.Message
		note := func(m coord.Message) {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, m)
		}
		handle(t, a, "work", func(ctx context.Context, m coord.Message) ([]byte, error) {
			note(m)
			e.Kill(na) // from within: nothing of it answers any more
			<-ctx.Done()
			return nil, nil
		})
		handle(t, b, "work", func(_ context.Context, m coord.Message) ([]byte, error) { note(m); return []byte("b"), nil })
		ctx, cancel := context.WithTimeout(t.Context(), 10*lease)
		defer cancel()
		r, err := c.Ask(ctx, coord.ToLeader, "work", nil, coord.Retry)
		if err != nil || r.From != "b" {
			t.Fatalf("asked across a crash: %+v, %v", r, err)
		}
		mu.Lock()
		defer mu.Unlock()
		if len(asked) != 2 || asked[0].ID != asked[1].ID || asked[0].Try != 1 || asked[1].Try < 2 {
			t.Errorf("handled as %+v, want twice with one id, tries counted", asked)
		}
	})
}

// Gather asks all, and says who is missing and why an answer has no data.
func TestGather(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		c := client(t, e.Namespace())
		if _, err := c.Gather(t.Context(), "work", nil); !errors.Is(err, coord.ErrNoMember) {
			t.Errorf("gather from nobody: %v", err)
		}
		if _, err := c.Gather(t.Context(), "a.b", nil); err == nil {
			t.Error("topic a.b was taken")
		}
		answer := func(s string, err error) func(context.Context, coord.Message) ([]byte, error) {
			return func(_ context.Context, m coord.Message) ([]byte, error) { return []byte(s + string(m.Data)), err }
		}
		nx := e.Namespace()
		a, b, x := join(t, e.Namespace(), "a"), join(t, e.Namespace(), "b"), join(t, nx, "x")
		join(t, e.Namespace(), "mute")
		handle(t, a, "work", answer("a", nil))
		handle(t, b, "work", answer("", errors.New("disk full")))
		handle(t, x, "work", answer("x", nil))
		show := func(g coord.Gathered) string {
			s := ""
			for _, r := range g.Replies {
				s += fmt.Sprintf("%s=%s/%v ", r.From, r.Data, r.Err)
				if r.RTT < 0 {
					t.Errorf("RTT %v", r.RTT)
				}
			}
			return s + fmt.Sprint(g.Missing)
		}
		start := time.Now()
		g, err := a.Gather(t.Context(), "work", []byte("!"))
		rest := `b=/member "b": disk full mute=/` + coord.ErrNoHandler.Error() + " "
		if want := "a=a!/<nil> " + rest + "x=x!/<nil> []"; err != nil || show(g) != want {
			t.Errorf("gathered %s, %v\nwant %s", show(g), err, want)
		}
		if d := time.Since(start); d > 100*time.Millisecond {
			t.Errorf("all have answered, and it took %v", d)
		}
		// One that is paused answers nothing: until ctx ends. It is missing.
		e.Cut(nx)
		ctx, cancel := context.WithTimeout(t.Context(), lease)
		defer cancel()
		g, err = c.Gather(ctx, "work", nil)
		if want := "a=a/<nil> " + rest + "[x]"; err != nil || show(g) != want {
			t.Errorf("gathered %s, %v\nwant %s", show(g), err, want)
		}
		// One that has died delays it until its lease has run out.
		e.Kill(nx)
		e.Link(nx).Kill()
		start = time.Now()
		g, err = c.Gather(t.Context(), "work", nil)
		if want := "a=a/<nil> " + rest + "[x]"; err != nil || show(g) != want || time.Since(start) > 2*lease+lease/3 {
			t.Errorf("gathered %s, %v in %v\nwant %s in two leases", show(g), err, time.Since(start), want)
		}
		// Restarted under its id while the question is under way, it was not asked.
		nx = e.Namespace()
		x = join(t, nx, "x")
		handle(t, x, "work", func(ctx context.Context, _ coord.Message) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() })
		done := make(chan struct{})
		go func() {
			defer close(done)
			g, err = c.Gather(t.Context(), "work", nil)
		}()
		time.Sleep(lease / 10)
		e.Kill(nx)
		e.Link(nx).Kill()
		x = join(t, e.Namespace(), "x")
		handle(t, x, "work", answer("new", nil))
		<-done
		if want := "a=a/<nil> " + rest + "[x]"; err != nil || show(g) != want {
			t.Errorf("gathered %s, %v\nwant %s", show(g), err, want)
		}
	})
}

type stock struct{ Item, Where string }

func TestJSON(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		a := join(t, e.Namespace(), "a")
		c := client(t, e.Namespace())
		stop, err := coord.HandleJSON(a, "stock", func(_ context.Context, m coord.Message, q stock) (map[string]int, error) {
			if q.Item == "" {
				return nil, errors.New("which item?")
			}
			return map[string]int{q.Item: 41}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		n, err := coord.AskJSON[map[string]int](t.Context(), c, coord.ToLeader, "stock", stock{Item: "bolts"})
		if err != nil || n["bolts"] != 41 {
			t.Errorf("asked: %v, %v", n, err)
		}
		var remote *coord.RemoteError
		if _, err = coord.AskJSON[int](t.Context(), c, coord.ToLeader, "stock", stock{}); !errors.As(err, &remote) || remote.Text != "which item?" {
			t.Errorf("an error of the handler: %v", err)
		}
		one := func(err error, want string) {
			t.Helper()
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want one line with %q", err, want)
			}
		}
		_, err = coord.AskJSON[int](t.Context(), c, coord.ToLeader, "stock", stock{Item: "bolts"})
		one(err, `answer of member "a" (12 bytes) is not JSON of type int`)
		_, err = c.Ask(t.Context(), coord.ToLeader, "stock", []byte("not JSON"))
		one(err, `message of 8 bytes on topic "stock" is not JSON of type coord_test.stock`)
		_, err = coord.AskJSON[int](t.Context(), c, coord.ToLeader, "stock", func() {})
		one(err, "unsupported type")
		one(coord.SendJSON(t.Context(), c, coord.ToAll, "stock", func() {}), "unsupported type")
		if err := coord.SendJSON(t.Context(), c, coord.ToAll, "stock", stock{Item: "nuts"}); err != nil {
			t.Error(err)
		}
		g, err := c.Gather(t.Context(), "stock", []byte(`{"Item":"nuts"}`))
		if err != nil || len(g.Replies) != 1 || g.Replies[0].JSON(&n) != nil || n["nuts"] != 41 {
			t.Errorf("gathered %+v, %v: %v", g, err, n)
		}
	})
}

// A message that the server would not take is refused here, with both numbers; the largest that it takes goes through, and so does such an answer.
func TestMessageFits(t *testing.T) {
	const payload = 16 << 10
	testenv.Bubble(t, func(t *testing.T) {
		s, err := testenv.NewServer(t.TempDir(), func(o *natsserver.Options) { o.MaxPayload = payload })
		if err != nil {
			t.Fatal(err)
		}
		defer s.Stop()
		nc, err := nats.Connect("", nats.InProcessServer(s), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { t.Error(err) }))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		ns, err := quorate.OpenWith(t.Context(), nc, quorate.Config{}, inner.Options{Memory: true})
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close(context.WithoutCancel(t.Context()))
		long := strings.Repeat("x", 63)
		g := join(t, ns, long)
		handle(t, g, long, func(_ context.Context, m coord.Message) ([]byte, error) {
			return append(m.Data, m.Data...)[:payload/2], nil
		})
		if r, err := g.Ask(t.Context(), coord.ToMember(long), long, make([]byte, payload-1024), coord.Retry); err != nil || len(r.Data) != payload/2 {
			t.Errorf("the largest message: %d bytes, %v", len(r.Data), err)
		}
		if err := g.Send(t.Context(), coord.ToAll, long, make([]byte, payload-1023)); err == nil || !strings.Contains(err.Error(), "15361 bytes: at most 15360 fit") ||
			!strings.Contains(err.Error(), "max_payload of 16384") {
			t.Errorf("one byte more: %v", err)
		}
		handle(t, g, long, func(context.Context, coord.Message) ([]byte, error) { return make([]byte, payload), nil })
		var remote *coord.RemoteError
		if _, err := g.Ask(t.Context(), coord.ToMember(long), long, nil); !errors.As(err, &remote) || !strings.Contains(remote.Text, "answer of 16384 bytes: at most 15360 fit") {
			t.Errorf("too long an answer: %v", err)
		}
		handle(t, g, long, func(context.Context, coord.Message) ([]byte, error) {
			return nil, errors.New(strings.Repeat("é", 2000))
		})
		if _, err := g.Ask(t.Context(), coord.ToMember(long), long, nil); !errors.As(err, &remote) || len(remote.Text) != 1024 {
			t.Errorf("a long error: %v", err)
		}
	})
}

// Too many questions for one handler: the rest is told so at once.
func TestBusy(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		a := join(t, e.Namespace(), "a")
		c := client(t, e.Namespace())
		begun, block := make(chan struct{}, 200), make(chan struct{})
		handle(t, a, "work", func(context.Context, coord.Message) ([]byte, error) {
			begun <- struct{}{}
			<-block
			return nil, nil
		})
		data := make([]byte, 512<<10)
		for i := range 140 {
			if err := c.Send(t.Context(), coord.ToMember("a"), "work", data); err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				<-begun // in hand, and not among those that wait
			}
		}
		start := time.Now()
		for range 2 { // the second is no repetition of the first, which was not handled
			if _, err := c.Ask(t.Context(), coord.ToMember("a"), "work", data, coord.Retry); !errors.Is(err, coord.ErrBusy) {
				t.Errorf("asked who is busy: %v", err)
			}
		}
		if d := time.Since(start); d > lease/10 {
			t.Errorf("told so after %v", d)
		}
		close(block)
	})
}
