package coord_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/partition"
	"github.com/quorate/quorate/testenv"
	"github.com/quorate/quorate/vote"
)

// A group without a leader: its members know each other by their records and exchange messages; what needs a leader is refused at once.
func TestMessagingOnly(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		msg := func(ns *quorate.Namespace, id string, cfg coord.Config) (*coord.Group, error) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cfg.ID, cfg.MessagingOnly = id, true
			return coord.Join(ctx, ns, "talk", cfg)
		}
		must := func(ns *quorate.Namespace, id string) *coord.Group {
			t.Helper()
			g, err := msg(ns, id, coord.Config{Meta: map[string]string{"id": id}})
			if err != nil {
				t.Fatal(err)
			}
			handle(t, g, "work", func(_ context.Context, m coord.Message) ([]byte, error) { return []byte(id + "<" + m.From), nil })
			return g
		}
		na, nb := e.Namespace(), e.Namespace()
		start := time.Now()
		a, b := must(na, "a"), must(nb, "b")
		if d := time.Since(start); d > lease/10 || !a.Live() || !b.Live() {
			t.Errorf("joined after %v, live %v %v", d, a.Live(), b.Live())
		}
		c, err := coord.Open(t.Context(), e.Namespace(), "talk")
		if err != nil {
			t.Fatal(err)
		}
		w := watch(t.Context(), c)
		if got := roster(t, c); got != "a:unknown b:unknown " {
			t.Errorf("M1: roster %q", got)
		}
		if r, err := c.Ask(t.Context(), coord.ToMember("b"), "work", nil); err != nil || string(r.Data) != "b<" {
			t.Errorf("ask: %q, %v", r.Data, err)
		}
		if g, err := a.Gather(t.Context(), "work", nil); err != nil || len(g.Replies) != 2 || string(g.Replies[1].Data) != "b<a" || len(g.Missing) != 0 {
			t.Errorf("gather: %+v, %v", g, err)
		}
		// What needs a leader.
		_, aerr := a.Ask(t.Context(), coord.ToLeader, "work", nil)
		if serr := a.Send(t.Context(), coord.ToLeader, "work", nil); !errors.Is(aerr, coord.ErrNoLeader) || !errors.Is(serr, coord.ErrNoLeader) {
			t.Errorf("to the leader: %v, %v", aerr, serr)
		}
		_, perr := partition.Join(t.Context(), a, partition.Config{})
		_, verr := vote.Join(t.Context(), a, vote.Config{})
		lerr := a.Lead(t.Context(), func(context.Context, *leader.Term) error { return nil })
		for _, err := range []error{perr, verr, lerr, a.SetMeta(t.Context(), nil)} {
			if err == nil || !strings.Contains(err.Error(), "MessagingOnly") || strings.Contains(err.Error(), "\n") {
				t.Errorf("what needs a leader: %v", err)
			}
		}
		// M2: one process at a time under an id; a crashed one's lease runs out.
		nd := e.Namespace()
		if _, err := msg(nd, "b", coord.Config{FailIfInUse: true}); !errors.Is(err, coord.ErrIDInUse) {
			t.Errorf("M2: an id in use: %v", err)
		}
		short, cancel := context.WithTimeout(t.Context(), 3*lease)
		if _, err := coord.Join(short, nd, "talk", coord.Config{ID: "b", MessagingOnly: true}); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), `"b"`) {
			t.Errorf("M2: an id in use is waited for: %v", err)
		}
		cancel()
		before := b.Inner().Place().Incarnation
		e.Cut(nb)
		time.Sleep(lease)
		if b.Live() {
			t.Error("M2: live without a renewal for a lease")
		}
		start = time.Now()
		b2 := must(nd, "b")
		if d := time.Since(start); d > lease+lease/2 || b2.Inner().Place().Incarnation <= before {
			t.Errorf("M2: the next process acts after %v, as incarnation %d after %d", d, b2.Inner().Place().Incarnation, before)
		}
		e.Kill(nb)
		e.Heal(nb)
		// M1: leaving is told, and at once; the record is gone.
		if err := a.Leave(t.Context()); err != nil || !errors.Is(context.Cause(a.Context()), coord.ErrLeft) {
			t.Errorf("leave: %v, %v", err, context.Cause(a.Context()))
		}
		if got := roster(t, c); got != "b:unknown " {
			t.Errorf("M1: roster %q", got)
		}
		time.Sleep(lease)
		if told := w.take(); !strings.Contains(told, "-a:left") {
			t.Errorf("M1: the watch saw %s", told)
		}
		a = must(na, "a") // and again, at once
		// The two kinds of groups do not mix.
		join(t, e.Namespace(), "x")
		if _, err := coord.Join(t.Context(), e.Namespace(), "g", coord.Config{ID: "y", MessagingOnly: true}); err == nil || !strings.Contains(err.Error(), "has a leader") {
			t.Errorf("MessagingOnly in a group with a leader: %v", err)
		}
		short, cancel = context.WithTimeout(t.Context(), lease)
		defer cancel()
		if _, err := coord.Join(short, e.Namespace(), "talk", coord.Config{ID: "a"}); err == nil || !strings.Contains(err.Error(), "MessagingOnly") {
			t.Errorf("an ordinary member under the id of another kind: %v", err)
		}
		// The connection ends.
		e.Conn(na).Close()
		<-a.Context().Done()
		if err := context.Cause(a.Context()); !errors.Is(err, quorate.ErrConnClosed) {
			t.Errorf("cause %v", err)
		}
	})
}
