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
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/partition"
	"github.com/quorate/quorate/testenv"
	"github.com/quorate/quorate/vote"
)

// sized is one member of a group with a minimum size, with everything that the minimum is about.
type sized struct {
	ns *quorate.Namespace
	g  *coord.Group
	p  *partition.Partition

	mu     sync.Mutex
	led    []string // that it leads, and why it ended
	shared []string // the same of its shares
}

func (s *sized) note(where *[]string, format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*where = append(*where, fmt.Sprintf(format, args...))
}

// take tells what it led first, then what it shared: each is noted by a goroutine of its own, and of two things at one moment either may be first.
func (s *sized) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := fmt.Sprint(slices.Concat(s.led, s.shared))
	s.led, s.shared = nil, nil
	return e
}

func startSized(t *testing.T, e *testenv.Env, id string, min int) *sized {
	t.Helper()
	s := &sized{ns: e.Namespace()}
	var err error
	if s.g, err = coord.Join(t.Context(), s.ns, "g", coord.Config{ID: id, MinSize: min}); err != nil {
		t.Fatal(err)
	}
	if s.p, err = partition.Join(t.Context(), s.g, partition.Config{}); err != nil {
		t.Fatal(err)
	}
	why := func(ctx context.Context) string { return fmt.Sprint(context.Cause(ctx)) }
	go func() {
		_ = s.g.Lead(s.g.Context(), func(ctx context.Context, term *leader.Term) error {
			s.note(&s.led, "leads")
			<-ctx.Done()
			s.note(&s.led, "leads no more: %s", why(ctx))
			return nil
		})
	}()
	go func() {
		_ = s.p.Run(s.g.Context(), func(ctx context.Context, a *partition.Assignment) error {
			s.note(&s.shared, "share of %d", a.Total)
			<-ctx.Done()
			s.note(&s.shared, "share ended: %s", why(ctx))
			return nil
		})
	}()
	if _, err := vote.Join(t.Context(), s.g, vote.Config{Decide: func(context.Context, vote.Ballot) vote.Answer { return vote.Yes() }}); err != nil {
		t.Fatal(err)
	}
	return s
}

// Design 4.1: below its minimum size a group has no leader, no shares and no ballots. Who was elected keeps the members, and leads by another term
// once enough are there.
func TestMinSize(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		look := client(t, e.Namespace())
		ctx, cancel := context.WithCancel(t.Context())
		w := watch(ctx, look)
		short := func(when, members string) {
			t.Helper()
			r, err := look.Roster(t.Context())
			if err != nil || r.Leader != "" || r.Token != 0 || r.Phase != "not-quorate" || ids(r.Members) != members {
				t.Errorf("%s: leader %q token %d phase %q members %q, %v; want none, not-quorate, %q", when, r.Leader, r.Token, r.Phase, ids(r.Members), err, members)
			}
			for _, m := range r.Members {
				if m.Leader || m.Index >= 0 {
					t.Errorf("%s: %s leads %v, index %d", when, m.ID, m.Leader, m.Index)
				}
			}
			if l, err := look.Leader(t.Context()); err != nil || l.Holder != "" || l.Keeper == "" {
				t.Errorf("%s: %+v, %v", when, l, err)
			}
			if h := w.view().Leader.Holder; h != "" {
				t.Errorf("%s: watch says that %q leads", when, h)
			}
			if err := look.StepDown(t.Context()); !errors.Is(err, quorate.ErrNotQuorate) {
				t.Errorf("%s: step-down: %v, want ErrNotQuorate", when, err)
			}
			if err := look.Send(t.Context(), coord.ToLeader, "", nil); !errors.Is(err, coord.ErrNoLeader) {
				t.Errorf("%s: message to the leader: %v, want ErrNoLeader", when, err)
			}
			bounded, end := context.WithTimeout(t.Context(), lease/2)
			defer end()
			if v, err := vote.Propose(bounded, look, vote.Proposal{Topic: "x"}); err != nil || v.Verdict != vote.Unknown || v.Why != quorate.ErrNotQuorate.Error() {
				t.Errorf("%s: ballot: %+v, %v", when, v, err)
			}
		}
		a, b := startSized(t, e, "a", 3), startSized(t, e, "b", 3)
		time.Sleep(3 * lease)
		short("two of three", "a:alive b:alive ")
		if got := a.take() + b.take(); got != "[][]" {
			t.Errorf("two of three: %s", got)
		}
		if _, err := coord.Join(t.Context(), e.Namespace(), "g", coord.Config{ID: "o", Observer: true, MinSize: 3}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lease)
		short("an observer counts nowhere", "a:alive b:alive o:alive ")

		c := startSized(t, e, "c", 3)
		time.Sleep(lease)
		if got := a.take() + b.take() + c.take(); got != "[leads share of 3][share of 3][share of 3]" {
			t.Errorf("three: %s", got)
		}
		first, ok := a.g.Term()
		if !ok {
			t.Fatal("a does not lead")
		}
		share, _ := a.p.Assignment()
		if v, err := vote.Propose(t.Context(), look, vote.Proposal{Topic: "y"}); err != nil || v.Verdict != vote.Passed {
			t.Errorf("three: ballot: %+v, %v", v, err)
		}

		// One crashes: after its timeout the others let go. Then it is back.
		e.Kill(c.ns)
		time.Sleep(2*lease - lease/3)
		if got := a.take() + b.take(); got != "[][]" {
			t.Errorf("M1: before c has timed out: %s", got)
		}
		time.Sleep(lease)
		const led, held = "leads no more: fewer members than the minimum size", "share ended: fewer members than the minimum size"
		if got := a.take(); got != "["+led+" "+held+"]" {
			t.Errorf("a, after c has timed out: %s", got)
		}
		if got := b.take(); got != "[share ended: fewer members than the minimum size]" {
			t.Errorf("b, after c has timed out: %s", got)
		}
		if first.Live() || !errors.Is(context.Cause(first.Context()), quorate.ErrNotQuorate) {
			t.Errorf("the term below the minimum: live %v, %v", first.Live(), context.Cause(first.Context()))
		}
		short("c crashed", "a:alive b:alive o:alive ")
		time.Sleep(20 * lease) // for as long as it takes
		short("a minute later", "a:alive b:alive o:alive ")
		if got := a.take() + b.take(); got != "[][]" {
			t.Errorf("a minute later: %s", got)
		}
		c = startSized(t, e, "c", 3) // the generation is the old one, and c.old's share nobody's, until the next has settled
		time.Sleep(2 * lease)
		if got := a.take() + b.take() + c.take(); got != "[leads share of 3 share ended: revoked: the group settles again share of 3][share of 3 share ended: revoked: the group settles again share of 3][share of 3]" {
			t.Errorf("c is back: %s", got)
		}
		again, ok := a.g.Term()
		if now, held := a.p.Assignment(); !ok || !held || again.Token() <= first.Token() || now.Generation <= share.Generation {
			t.Errorf("L2, P3: token %d, before %d", again.Token(), first.Token())
		}

		// The elected one leaves: two are too few for the next.
		if err := a.g.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * lease)
		short("a left", "b:alive c:alive o:alive ")
		b.take() // it hands over first, so b may have led for a moment, while a was still there
		c.take()
		w.take()
		d := startSized(t, e, "d", 3)
		time.Sleep(lease)
		if got := b.take() + c.take() + d.take(); got != "[leads share of 3 share ended: revoked: the group settles again share of 3]"+
			"[share of 3 share ended: revoked: the group settles again share of 3][share of 3]" {
			t.Errorf("d joined: %s", got)
		}
		wantLog(t, "d joined", w, "+d leader=b")
		cancel()
		<-w.done
	})
}

// P4: a change of leader as such revokes nobody's assignment, also where the new one has to count its members first.
func TestMinSizeFailOver(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		var all []*sized
		for _, id := range []string{"a", "b", "c", "d"} {
			all = append(all, startSized(t, e, id, 3))
		}
		time.Sleep(3 * lease)
		gen := func(s *sized) uint64 {
			if a, ok := s.p.Assignment(); ok {
				return a.Generation
			}
			return 0
		}
		was := gen(all[1])
		for _, s := range all {
			s.take()
		}
		ctx, cancel := context.WithCancel(t.Context())
		w := watch(ctx, client(t, e.Namespace()))
		time.Sleep(lease / 10)
		w.take()
		for _, to := range strings.Fields("b c d a c b a b") { // clean hand-overs: whose heartbeat comes first differs
			if err := all[3].g.StepDown(t.Context(), to); err != nil {
				t.Fatal(err)
			}
			time.Sleep(lease / 2)
			if h := w.view().Leader.Holder; h != to {
				t.Errorf("P4: %q leads, and %q was to", h, to)
			}
			wantLog(t, "P4", w, "", "leader=")
			for _, s := range all {
				if got := s.take(); gen(s) != was || strings.Contains(got, "share") {
					t.Errorf("P4: step-down to %s: %s holds generation %d, before %d: %s", to, s.g.ID(), gen(s), was, got)
				}
			}
		}
		e.Kill(all[1].ns)
		time.Sleep(lease + lease/3) // b's lease has run out, and it is in the roster still
		for _, s := range []*sized{all[0], all[2], all[3]} {
			if gen(s) != was {
				t.Errorf("P4: crash: %s holds generation %d, before %d", s.g.ID(), gen(s), was)
			}
		}
		time.Sleep(4 * lease)
		for _, s := range []*sized{all[0], all[2], all[3]} {
			if a, ok := s.p.Assignment(); !ok || a.Total != 3 || a.Generation <= was {
				t.Errorf("after b has timed out %s holds %+v, %v", s.g.ID(), a, ok)
			}
		}
		cancel()
		<-w.done
	})
}
