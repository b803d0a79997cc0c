package coord_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/testenv"
)

// heard keeps what handlers were called with.
type heard struct {
	mu  sync.Mutex
	all []string
}

func (h *heard) add(s string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, s)
}

func (h *heard) take() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := slices.Sorted(slices.Values(h.all))
	h.all = nil
	return strings.Join(s, " ")
}

func handle(t *testing.T, g *coord.Group, topic string, fn func(ctx context.Context, m coord.Message) ([]byte, error)) (stop func()) {
	t.Helper()
	stop, err := g.Handle(topic, fn)
	if err != nil {
		t.Fatal(err)
	}
	return stop
}

func TestMessages(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		var h heard
		var gs []*coord.Group
		for _, id := range []string{"a", "b", "c"} {
			g := join(t, e.Namespace(), id)
			gs = append(gs, g)
			for _, topic := range []string{"text", "work"} {
				handle(t, g, topic, func(_ context.Context, m coord.Message) ([]byte, error) {
					if m.ID == "" || m.Sent.IsZero() || m.Received.Before(m.Sent.Truncate(time.Microsecond)) {
						t.Errorf("message %+v", m)
					}
					h.add(id + "<" + m.From + ":" + m.Topic + ":" + string(m.Data))
					return nil, nil
				})
			}
		}
		c := client(t, e.Namespace())
		send := func(c *coord.Client, to coord.To, topic, want string) {
			t.Helper()
			if err := c.Send(t.Context(), to, topic, []byte("x")); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
			if got := h.take(); got != want {
				t.Errorf("handlers heard %q, want %q", got, want)
			}
		}
		send(gs[1].Client, coord.ToAll, "", "a<b:text:x b<b:text:x c<b:text:x")
		send(gs[1].Client, coord.ToLeader, "work", "a<b:work:x")
		send(gs[0].Client, coord.ToLeader, "work", "a<a:work:x")
		send(gs[0].Client, coord.ToMember("c"), "work", "c<a:work:x")
		send(c, coord.ToAll, "work", "a<:work:x b<:work:x c<:work:x")
		send(c, coord.ToAll, "nobody", "")
		for _, to := range []coord.To{{}, coord.ToMember("x.y"), coord.ToMember("all")} {
			if err := c.Send(t.Context(), to, "text", nil); err == nil {
				t.Errorf("sent to %v", to)
			}
		}
		if err := c.Send(t.Context(), coord.ToAll, "a.b", nil); err == nil {
			t.Error("topic a.b was taken")
		}
		if err := c.Send(t.Context(), coord.ToAll, "text", make([]byte, 1<<20)); err == nil || !strings.Contains(err.Error(), "524288") {
			t.Errorf("a message of 1 MiB: %v", err)
		}
		if _, err := gs[0].Handle("a.b", nil); err == nil {
			t.Error("a handler of topic a.b was taken")
		}
		if err := c.Send(t.Context(), coord.ToMember("nobody"), "text", nil); !errors.Is(err, coord.ErrNoMember) {
			t.Errorf("send to nobody: %v", err)
		}
	})
}

// Handlers run one call at a time per topic, in order of arrival, also when one replaces another; a slow one holds up no other.
func TestHandlersInOrder(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		g := join(t, e.Namespace(), "a")
		s := client(t, e.Namespace())
		const n = 300
		var mu sync.Mutex
		var order []string
		running := 0
		fn := func(_ context.Context, m coord.Message) ([]byte, error) {
			mu.Lock()
			running++
			if running > 1 {
				t.Error("two calls of one topic at a time")
			}
			order = append(order, string(m.Data))
			mu.Unlock()
			time.Sleep(time.Millisecond)
			mu.Lock()
			running--
			mu.Unlock()
			return nil, nil
		}
		handle(t, g, "work", fn)
		block := make(chan struct{})
		handle(t, g, "stuck", func(context.Context, coord.Message) ([]byte, error) { <-block; return nil, nil })
		if err := s.Send(t.Context(), coord.ToMember("a"), "stuck", nil); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if err := s.Send(t.Context(), coord.ToMember("a"), "work", fmt.Append(nil, i)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		mu.Lock()
		for i, m := range order {
			if m != fmt.Sprint(i) {
				t.Fatalf("message %d is %s", i, m)
			}
		}
		if len(order) != n {
			t.Errorf("%d messages, want %d", len(order), n)
		}
		mu.Unlock()
		for range 3 {
			if err := s.Send(t.Context(), coord.ToAll, "work", nil); err != nil {
				t.Fatal(err)
			}
		}
		stop := handle(t, g, "work", fn)
		stop()
		other := make(chan string, 10) // what was sent to all before may come as late as this
		stopAny := handle(t, g, coord.AnyTopic, func(_ context.Context, m coord.Message) ([]byte, error) { other <- m.Topic; return nil, nil })
		if _, err := s.Ask(t.Context(), coord.ToMember("a"), "work", nil); err != nil || <-other != "work" {
			t.Errorf("what nobody else handles: %v", err)
		}
		stopAny()
		if err := s.Send(t.Context(), coord.ToAll, "work", nil); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Ask(t.Context(), coord.ToMember("a"), "work", nil); !errors.Is(err, coord.ErrNoHandler) {
			t.Errorf("ask a stopped handler: %v", err)
		}
		close(block)
	})
}

// A flood that nobody handles costs a bounded amount of memory: the newest messages are dropped.
func TestFloodIsBounded(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		g := join(t, e.Namespace(), "a")
		s := client(t, e.Namespace())
		begun, block := make(chan struct{}, 200), make(chan struct{})
		var n atomic.Int64
		handle(t, g, "work", func(context.Context, coord.Message) ([]byte, error) {
			begun <- struct{}{}
			<-block
			n.Add(1)
			return nil, nil
		})
		data := make([]byte, 512<<10)
		for i := range 200 {
			if err := s.Send(t.Context(), coord.ToMember("a"), "work", data); err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				<-begun // in hand, and not among those that wait
			}
		}
		time.Sleep(time.Second)
		close(block)
		time.Sleep(time.Second)
		if n := n.Load(); n != 129 { // 64 MiB, and what was in hand
			t.Errorf("%d of 200 messages of 512 KiB were kept, want 129", n)
		}
		if !g.Live() {
			t.Error("a flood ended the membership")
		}
	})
}

func TestAsk(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		na := e.Namespace()
		c := client(t, e.Namespace())
		ctx, cancel := context.WithTimeout(t.Context(), lease+lease/100) // not at the very moment of a try
		defer cancel()
		if _, err := c.Ask(ctx, coord.ToLeader, "work", nil); !errors.Is(err, coord.ErrNoLeader) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ask the leader of an empty group: %v", err)
		}
		if err := c.Send(t.Context(), coord.ToLeader, "work", nil); !errors.Is(err, coord.ErrNoLeader) {
			t.Errorf("send to the leader of an empty group: %v", err)
		}
		if _, err := c.Ask(t.Context(), coord.ToMember("a"), "work", nil); !errors.Is(err, coord.ErrNoMember) {
			t.Errorf("ask nobody: %v", err)
		}
		if _, err := c.Ask(t.Context(), coord.ToAll, "work", nil); err == nil {
			t.Error("ask all was taken")
		}
		a := join(t, na, "a")
		if _, err := c.Ask(t.Context(), coord.ToLeader, "work", nil); !errors.Is(err, coord.ErrNoHandler) {
			t.Errorf("ask without a handler: %v", err)
		}
		handle(t, a, "work", func(_ context.Context, m coord.Message) ([]byte, error) {
			switch string(m.Data) {
			case "fail":
				return []byte("not sent"), errors.New("disk\nfull")
			case "big":
				return make([]byte, 1<<20), nil
			}
			return append([]byte("re: "), m.Data...), nil
		})
		r, err := c.Ask(t.Context(), coord.ToMember("a"), "work", []byte("x"))
		if err != nil || r.From != "a" || string(r.Data) != "re: x" || r.RTT < 0 {
			t.Errorf("ask: %+v, %v", r, err)
		}
		var remote *coord.RemoteError
		if _, err := c.Ask(t.Context(), coord.ToLeader, "work", []byte("fail")); !errors.As(err, &remote) || remote.Member != "a" || remote.Text != "disk full" {
			t.Errorf("a remote error: %v", err)
		}
		if _, err := c.Ask(t.Context(), coord.ToLeader, "work", []byte("big")); !errors.As(err, &remote) || !strings.Contains(remote.Text, "1048576 bytes") {
			t.Errorf("too long an answer: %v", err)
		}
	})
}

// Ask to the leader is tried again while there surely is none, and each question is handled at most once.
func TestAskAcrossLeaderChange(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		na := e.Namespace()
		var h heard
		a, b := join(t, na, "a"), join(t, e.Namespace(), "b")
		for _, g := range []*coord.Group{a, b} {
			handle(t, g, "work", func(_ context.Context, m coord.Message) ([]byte, error) {
				h.add(string(m.Data))
				return []byte(g.ID()), nil
			})
		}
		c := client(t, e.Namespace())
		ask := func(i int, want string) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), 3*lease)
			defer cancel()
			r, err := c.Ask(ctx, coord.ToLeader, "work", fmt.Append(nil, i))
			if err != nil || !strings.Contains(want, string(r.Data)) {
				t.Errorf("question %d: %q, %v, want %s", i, r.Data, err, want)
			}
		}
		ask(1, "a")
		left := make(chan error, 1)
		go func() { left <- a.Leave(t.Context()) }()
		if err := <-left; err != nil {
			t.Fatal(err)
		}
		ask(2, "b")
		nd := e.Namespace()
		d := join(t, nd, "d")
		handle(t, d, "work", func(_ context.Context, m coord.Message) ([]byte, error) {
			h.add(string(m.Data))
			return []byte("d"), nil
		})
		e.Link(e.Namespace()).Kill()
		go func() { left <- b.Leave(t.Context()) }()
		for i := 3; ; i++ { // while b leaves; b, as the leader still, or d handles it, or it is lost on its way: at most once
			ctx, cancel := context.WithTimeout(t.Context(), lease)
			r, err := c.Ask(ctx, coord.ToLeader, "work", fmt.Append(nil, i))
			cancel()
			if err == nil && (r.From == "b" || r.From == "d") {
				break
			}
			if i == 5 {
				t.Errorf("asked three times while the leader leaves: %+v, %v", r, err)
				break
			}
		}
		if err := <-left; err != nil {
			t.Fatal(err)
		}
		// A killed leader's connection is gone: nobody is there until another leads.
		e.Kill(nd)
		e.Link(nd).Kill()
		f := join(t, e.Namespace(), "f")
		handle(t, f, "work", func(_ context.Context, m coord.Message) ([]byte, error) {
			h.add(string(m.Data))
			return []byte("f"), nil
		})
		ask(6, "f")
		all := strings.Fields(h.take())
		if got := slices.Compact(slices.Clone(all)); len(got) != len(all) || len(got) < 4 {
			t.Errorf("questions handled: %q, each once", all)
		}
	})
}

// Who is not sure to be a member handles nothing (M2).
func TestNoMessagesWhileNotLive(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		na, nb := e.Namespace(), e.Namespace()
		a := join(t, na, "a")
		b := join(t, nb, "b")
		var n atomic.Int64
		handle(t, b, "work", func(context.Context, coord.Message) ([]byte, error) { n.Add(1); return nil, nil })
		// Heartbeats are lost, messages are not.
		remove := e.Link(nb).Filter(func(f *testenv.Frame) testenv.Verdict {
			if strings.HasSuffix(f.Subject, ".heartbeat") {
				return testenv.Drop
			}
			return testenv.Pass
		})
		time.Sleep(2*lease - 2*lease/10)
		if b.Live() {
			t.Error("M2: live after its member timeout")
		}
		if err := a.Send(t.Context(), coord.ToAll, "work", nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lease / 10)
		if n.Load() != 0 {
			t.Error("M2: a message was handled by who is not sure to be a member")
		}
		remove()
		time.Sleep(lease)
		if err := a.Send(t.Context(), coord.ToMember("b"), "work", nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lease / 10)
		if n.Load() != 1 || !b.Live() {
			t.Errorf("back again: %d messages, live %v", n.Load(), b.Live())
		}
	})
}

// What waits for a handler when it ends is refused: it was surely not handled, and is asked again elsewhere.
func TestRefusedWhenLeaving(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		a, b := join(t, e.Namespace(), "a"), join(t, e.Namespace(), "b")
		handle(t, a, "work", func(ctx context.Context, _ coord.Message) ([]byte, error) { <-ctx.Done(); return []byte("a"), nil })
		handle(t, b, "work", func(context.Context, coord.Message) ([]byte, error) { return []byte("b"), nil })
		c := client(t, e.Namespace())
		answers := make(chan string, 4)
		ask := func(to coord.To) {
			ctx, cancel := context.WithTimeout(t.Context(), 3*lease)
			defer cancel()
			r, err := c.Ask(ctx, to, "work", nil)
			if errors.Is(err, coord.ErrNoMember) {
				r.Data = []byte("nobody")
			} else if err != nil {
				r.Data = []byte(err.Error())
			}
			answers <- string(r.Data)
		}
		go ask(coord.ToLeader)
		time.Sleep(lease / 10)
		go ask(coord.ToLeader)
		go ask(coord.ToLeader)
		go ask(coord.ToMember("a"))
		time.Sleep(lease / 10)
		if err := a.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		var got []string
		for range 4 {
			got = append(got, <-answers)
		}
		slices.Sort(got)
		if s := strings.Join(got, " "); s != "a b b nobody" {
			t.Errorf("answers %q, want the one in hand from a, the others of the next leader, and nobody", s)
		}
	})
}

// Members that flood the group with all that they may send, for three member timeouts, stop nobody's heartbeats: the others stay members, and the
// leader leads on.
func TestFloods(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		all := []*coord.Group{join(t, e.Namespace(), "a"), join(t, e.Namespace(), "b"), join(t, e.Namespace(), "c")}
		nc, _ := e.Connect("flood")
		inbox := nc.NewInbox()
		var answers atomic.Int64
		if _, err := nc.Subscribe(inbox, func(m *nats.Msg) { answers.Add(int64(len(m.Data))) }); err != nil {
			t.Fatal(err)
		}
		subject := func(rest string) string { return wire.GroupSubject("default", "g", rest) }
		send := func(rest string, body any) {
			var data []byte
			if body != nil {
				data = wire.Encode(body)
			}
			if err := nc.PublishRequest(subject(rest), inbox, data); err != nil {
				t.Fatal(err)
			}
		}
		n := uint64(0)
		for end := time.Now().Add(3 * 2 * lease); time.Now().Before(end); time.Sleep(lease / 12) {
			for range 10 {
				n++
				send(wire.SubHeartbeat, &wire.Heartbeat{V: wire.Version, ID: "c", Incarnation: n, Seq: n}) // others of its own id
				send(wire.SubHeartbeat, &wire.Heartbeat{V: wire.Version, ID: fmt.Sprint("x", n%40), Incarnation: n, Seq: n, Ack: n, Roles: []string{"work"}})
				send(wire.SubRoster, nil)
				send(wire.SubPoke, nil)
				send(wire.SubPropose, &wire.Proposal{V: wire.Version, Ballot: fmt.Sprint("p", n), Topic: "x", Kind: "majority", LeftMS: 100})
				send(wire.SubCancel, &wire.Cancel{V: wire.Version, Ballot: fmt.Sprint("q", n)})
				send(wire.SubReport, &wire.Report{V: wire.Version, Ballot: fmt.Sprint("p", n), ID: "a", Incarnation: 1, Status: "done"})
				send(wire.SubVerdict, &wire.Verdict{V: wire.Version, Ballot: fmt.Sprint("p", n), Verdict: "yes"})
				send(wire.SubStepDown, &wire.StepDown{V: wire.Version, Token: n})
				send(wire.SubAllDot+"text", nil)
				send(wire.SubMemberDot+"b.text", nil)
				send(wire.SubLeaderDot+"text", nil)
			}
		}
		for _, g := range all {
			if !g.Live() {
				t.Errorf("M1: a flood has ended the membership of %s", g.ID())
			}
		}
		if _, leads := all[0].Term(); !leads {
			t.Error("L1: a flood has ended the term")
		}
		if answers.Load() == 0 {
			t.Error("nothing was answered: there was no flood")
		}
		if c := e.Invariants().Counts(); c.Members != 3 || c.Terms != 1 {
			t.Errorf("M1: %d memberships, %d terms: somebody had to join again", c.Members, c.Terms)
		}
	})
}

// The roster is long, and asking for it is cheap: who asks without end gets only so much in a while.
func TestRosterFlood(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		meta := map[string]string{"x": strings.Repeat("x", 4000)}
		for _, id := range []string{"a", "b", "c", "d"} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if _, err := coord.Join(ctx, e.Namespace(), "g", coord.Config{ID: id, Meta: meta}); err != nil {
				t.Fatal(err)
			}
			cancel()
		}
		nc, _ := e.Connect("flood")
		inbox := nc.NewInbox()
		var bytes, n atomic.Int64
		if _, err := nc.Subscribe(inbox, func(m *nats.Msg) { bytes.Add(int64(len(m.Data))); n.Add(1) }); err != nil {
			t.Fatal(err)
		}
		const asked = 4000
		for range asked {
			if err := nc.PublishRequest(wire.GroupSubject("default", "g", wire.SubRoster), inbox, nil); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(lease / 48)
		if got := bytes.Load(); got == 0 || got > 32<<20 {
			t.Errorf("%d bytes of rosters within half of the time for 16 MiB", got)
		}
		time.Sleep(lease)
		if n.Load() != asked {
			t.Errorf("%d of %d were answered at last", n.Load(), asked)
		}
	})
}
