package coord_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/partition"
	"github.com/quorate/quorate/testenv"
)

// L5: a leader that is asked to hands over after its work has returned, and the request harms no other term, however often and late it comes.
func TestStepDown(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		c := client(t, e.Namespace())
		if err := c.StepDown(t.Context()); !errors.Is(err, coord.ErrNoLeader) {
			t.Errorf("nobody leads: got %v, want ErrNoLeader", err)
		}
		a, b := join(t, e.Namespace(), "a"), join(t, e.Namespace(), "b")
		o, err := coord.Join(t.Context(), e.Namespace(), "g", coord.Config{ID: "o", Observer: true})
		if err != nil {
			t.Fatal(err)
		}
		nf := e.Namespace()
		join(t, nf, "f")
		time.Sleep(lease)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		w := watch(ctx, c)
		time.Sleep(lease / 10)
		w.take()

		e.Pause(nf)
		time.Sleep(lease) // heartbeats are missing
		for to, want := range map[string]string{"o": "never leads", "a": "leads already", "z": "is no member", "f": "is late", "x.y": "'.'"} {
			err := c.StepDown(t.Context(), to)
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") || errors.Is(err, coord.ErrSuccessor) == (to == "x.y") {
				t.Errorf("step-down to %q: got %v, want one line with %q", to, err, want)
			}
		}
		if err := c.StepDown(t.Context(), "b", "o"); err == nil {
			t.Error("two successors were taken")
		}
		e.Resume(nf)
		wantLog(t, "who was refused harmed nobody", w, "")

		// The work of the leader returns first.
		cause, returned := make(chan error, 1), make(chan time.Time, 1)
		go func() {
			_ = a.Lead(ctx, func(ctx context.Context, term *leader.Term) error {
				<-ctx.Done()
				time.Sleep(lease / 3)
				if !term.Live() {
					t.Error("L5: the term ended before its work returned")
				}
				cause <- context.Cause(ctx)
				returned <- time.Now()
				return nil
			})
		}()
		time.Sleep(lease / 10)
		term, _ := a.Term()
		if err := o.StepDown(t.Context(), "b"); err != nil { // any client may ask
			t.Fatal(err)
		}
		if err := <-cause; !errors.Is(err, quorate.ErrStepDown) {
			t.Errorf("cause %v, want ErrStepDown", err)
		}
		at := <-returned
		for {
			if _, ok := b.Term(); ok {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if d := time.Since(at); d > lease/6 {
			t.Errorf("L5: %v from the work's return to the next term", d)
		}
		time.Sleep(lease)
		if got := w.view().Leader.Holder; got != "b" {
			t.Errorf("%q leads, and b was to", got)
		}
		wantLog(t, "nobody left", w, "", "leader=")

		// The same request again, minutes later: that term is gone.
		time.Sleep(5 * time.Minute)
		m, err := e.Conn(nf).Request(wire.GroupSubject("default", "g", wire.SubStepDown), wire.Encode(&wire.StepDown{V: 1, Token: term.Token()}), lease)
		var d wire.Done
		if err != nil || wire.Decode(m.Data, &d) != nil || d.Error != wire.DoneGone {
			t.Errorf("replayed: %+v, %v", d, err)
		}
		if m, err = e.Conn(nf).Request(wire.GroupSubject("default", "g", wire.SubEvict), []byte("x"), lease); err != nil || wire.Decode(m.Data, &d) != nil || d.Error != wire.DoneBad {
			t.Errorf("nonsense: %+v, %v", d, err)
		}
		time.Sleep(lease)
		if _, ok := b.Term(); !ok {
			t.Error("a replayed request deposed another leader")
		}
		cancel()
		<-w.done
	})
}

// Alone in its group, who steps down leads again, by another term.
func TestStepDownAlone(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		a := join(t, e.Namespace(), "a")
		before, _ := a.Term()
		if err := a.StepDown(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lease / 2)
		if after, ok := a.Term(); !ok || after.Token() <= before.Token() || !errors.Is(context.Cause(before.Context()), quorate.ErrStepDown) {
			t.Errorf("leads again %v, cause %v", ok, context.Cause(before.Context()))
		}
	})
}

// M1: an evicted member is told apart everywhere, and does not come back by itself; what it held goes to nobody before its lease has run out (P2: the
// watchers look at every moment). The request names an incarnation, so one that comes again later harms nobody.
func TestEvict(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		c := client(t, e.Namespace())
		var gs []*coord.Group
		var ps []*partition.Partition
		nb := e.Namespace()
		for i, id := range []string{"a", "b", "c"} {
			ns := nb
			if i != 1 {
				ns = e.Namespace()
			}
			g := join(t, ns, id)
			p, err := partition.Join(t.Context(), g, partition.Config{})
			if err != nil {
				t.Fatal(err)
			}
			gs, ps = append(gs, g), append(ps, p)
		}
		time.Sleep(3 * lease)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		w, wa := watch(ctx, c), watch(ctx, gs[0].Client)
		time.Sleep(lease / 10)
		w.take()
		wa.take()
		if err := c.Evict(t.Context(), "nobody"); !errors.Is(err, coord.ErrNoMember) {
			t.Errorf("nobody: %v", err)
		}
		if err := c.Evict(t.Context(), "x.y"); err == nil || !strings.Contains(err.Error(), "'.'") {
			t.Errorf("bad id: %v", err)
		}
		held, ok := ps[1].Assignment()
		if !ok || held.Total != 3 {
			t.Fatalf("b holds %+v, %v", held, ok)
		}
		inc := gs[1].Inner().Place().Incarnation
		// It cannot hear of it: its share is waited for.
		e.Cut(nb)
		cut := time.Now()
		if err := c.Evict(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lease / 10)
		for _, w := range []*log{w, wa} {
			wantLog(t, "M1 evicted", w, "-b:evicted")
		}
		if got := roster(t, c); got != "a:alive c:alive " {
			t.Errorf("M1: roster %q after the eviction", got)
		}
		var next *partition.Assignment
		for next == nil {
			if as, ok := ps[0].Assignment(); ok && as.Generation != held.Generation {
				next = as
			}
			time.Sleep(10 * time.Millisecond)
		}
		if d := time.Since(cut); d < 2*lease-lease/3 || held.Live() || next.Total != 2 {
			t.Errorf("P2: %v after the eviction there are %d shares, the evicted one live: %v", d, next.Total, held.Live())
		}
		e.Heal(nb)
		<-gs[1].Context().Done()
		if err := context.Cause(gs[1].Context()); !errors.Is(err, coord.ErrEvicted) {
			t.Errorf("M1: cause %v, want ErrEvicted", err)
		}
		time.Sleep(5 * lease)
		wantLog(t, "M1: it does not come back by itself", w, "")

		// Its id can be joined with again, and the request that is delivered again then harms nobody.
		b := join(t, e.Namespace(), "b")
		m, err := e.Conn(nb).Request(wire.GroupSubject("default", "g", wire.SubEvict), wire.Encode(&wire.Evict{V: 1, ID: "b", Incarnation: inc}), lease)
		var d wire.Done
		if err != nil || wire.Decode(m.Data, &d) != nil || d.Error != wire.DoneGone {
			t.Errorf("replayed: %+v, %v", d, err)
		}
		time.Sleep(lease)
		if !b.Live() {
			t.Error("a replayed request evicted another incarnation")
		}
		w.take()

		// The leader is a member too.
		cause := make(chan error, 1)
		go func() {
			_ = gs[0].Lead(t.Context(), func(ctx context.Context, _ *leader.Term) error {
				<-ctx.Done()
				cause <- context.Cause(ctx)
				return nil
			})
		}()
		time.Sleep(lease / 10)
		if err := b.Evict(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		<-gs[0].Context().Done()
		time.Sleep(lease)
		if err := <-cause; !errors.Is(err, coord.ErrEvicted) {
			t.Errorf("the evicted leader's work ended with %v, want ErrEvicted", err)
		}
		wantLog(t, "M1: the leader evicted", w, "-a:evicted", "leader=")
		if got := w.view().Leader.Holder; got == "" || got == "a" {
			t.Errorf("%q leads", got)
		}
		cancel()
		<-w.done
		<-wa.done
	})
}
