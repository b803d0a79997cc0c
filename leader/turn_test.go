package leader_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/testenv"
)

// place is where the electors of a group with a minimum size would campaign.
func place(ns *quorate.Namespace, params func() wire.Params) leader.Place {
	if params == nil {
		params = func() wire.Params { return wire.Params{LeaseMS: wire.ToMS(ns.Inner().Lease)} }
	}
	return leader.Place{Key: wire.ElectionKey("job"), Label: "group", Name: "job", Params: params, Quorum: true}
}

// runner runs an elector whose terms are not quorate at first; its terms come on the channel.
func keeper(t *testing.T, ns *quorate.Namespace, id string, params func() wire.Params) (e *leader.Elector, terms chan *leader.Term, stop func()) {
	t.Helper()
	e, err := leader.NewAt(ns.Inner(), place(ns, params), leader.Config{ID: id, Value: "v-" + id})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	terms = make(chan *leader.Term, 10)
	ended := make(chan error, 1)
	go func() {
		ended <- e.Run(ctx, func(work context.Context, term *leader.Term) error {
			terms <- term
			<-work.Done()
			time.Sleep(short / 10) // the lease goes on meanwhile
			if !term.Live() {
				t.Error("E10: the term ended before its work returned")
			}
			return nil
		})
	}()
	return e, terms, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

// E10, L1, L2: a term is turned by its holder, without a release: a new token, and nobody else gets a turn. Below the minimum
// there is no leader.
func TestTurn(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nsA, nsB := open(e), open(e)
		a, terms, stop := keeper(t, nsA, "a", nil)
		first := <-terms
		if first.Quorate() || first.After() != 0 || !first.Live() {
			t.Errorf("first term: quorate %v, after %d, live %v", first.Quorate(), first.After(), first.Live())
		}
		b, others, stopB := keeper(t, nsB, "b", nil)
		shows := func(want leader.State) {
			t.Helper()
			got, err := b.Leader(t.Context())
			got.Since, got.Host = time.Time{}, ""
			if want.Lease = short; err != nil || got != want {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
		}
		shows(leader.State{Keeper: "a"})
		last := first
		for _, quorate := range []bool{true, false, true} {
			time.Sleep(3 * short) // renewals keep what they renew
			shows(map[bool]leader.State{false: {Keeper: "a"}, true: {Holder: "a", Keeper: "a", Value: "v-a", Token: last.Token()}}[last.Quorate()])
			asked := time.Now()
			last.Turn(quorate)
			term := <-terms
			between(t, "turn", time.Since(asked), short/10, short/10+instant)
			if term.Quorate() != quorate || term.After() != last.Token() || term.Token() <= last.Token() {
				t.Errorf("turned to %v: quorate %v, token %d after %d, was %d", quorate, term.Quorate(), term.Token(), term.After(), last.Token())
			}
			if got := context.Cause(last.Context()); quorate == errors.Is(got, errNotQuorate) || got == nil {
				t.Errorf("turned to %v: cause %v", quorate, got)
			}
			if last.Live() {
				t.Error("L1: two terms are live")
			}
			last = term
		}
		select {
		case got := <-others:
			t.Errorf("another got a turn: token %d", got.Token())
		default:
		}
		stop()
		if err := a.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if got := <-others; got.Quorate() || got.Token() <= last.Token() || got.After() != 0 {
			t.Errorf("successor: quorate %v, token %d, after %d", got.Quorate(), got.Token(), got.After())
		}
		stopB()
	})
}

var errNotQuorate = quorate.ErrNotQuorate

// E10: a turn whose acknowledgement is lost is found by a read; one that nobody takes up is a release.
func TestTurnUnanswered(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		ns := open(e)
		_, terms, stop := keeper(t, ns, "a", nil)
		first := <-terms
		_, others, stopB := keeper(t, open(e), "b", nil)
		time.Sleep(2 * short)
		e.Link(ns).DropAcks(1)
		first.Turn(true)
		term := <-terms
		if !term.Quorate() || term.After() != first.Token() {
			t.Errorf("quorate %v, after %d", term.Quorate(), term.After())
		}
		time.Sleep(2 * short) // so that the queue is known
		term.Turn(false)
		time.Sleep(short / 20)
		asked := time.Now()
		stop() // asked to resign while its work returns: released, not turned
		<-others
		between(t, "release", time.Since(asked), 0, short/10)
		stopB()
	})
}

// L5: a turn that nobody takes up, since Run was asked to end when the work had returned, is released, not left to run out.
func TestTurnNobody(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		ns, other := open(e), open(e)
		el, err := leader.NewAt(ns.Inner(), place(ns, nil), leader.Config{ID: "a"})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		began, ended := make(chan *leader.Term, 1), make(chan error)
		go func() {
			ended <- el.Run(ctx, func(work context.Context, term *leader.Term) error {
				began <- term
				<-work.Done()
				e.Pause(ns) // so that Run waits for the end of the term when it is asked to end itself
				return nil
			})
		}()
		first := <-began
		_, others, stop := keeper(t, other, "b", nil)
		time.Sleep(3 * short)
		first.Turn(true)
		time.Sleep(time.Millisecond)
		cancel()
		time.Sleep(time.Millisecond)
		asked := time.Now()
		e.Resume(ns)
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		<-others
		between(t, "hand-over", time.Since(asked), 0, instant)
		stop()
	})
}

// E10: a holder whose lease runs out while it turns, because NATS is away, is a candidate like any other.
func TestTurnCutOff(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		ns, other := open(e), open(e)
		_, terms, stop := keeper(t, ns, "a", nil)
		first := <-terms
		_, others, stopB := keeper(t, other, "b", nil)
		time.Sleep(3 * short)
		e.Cut(ns)
		first.Turn(true)
		taken := <-others
		if taken.Token() <= first.Token() {
			t.Errorf("token %d after %d", taken.Token(), first.Token())
		}
		e.Link(ns).HealDropping()
		time.Sleep(5 * short)
		if len(terms) > 0 || !taken.Live() {
			t.Errorf("%d terms of the one that was cut off; the other's is live: %v", len(terms), taken.Live())
		}
		stopB()
		if next := <-terms; next.Quorate() || next.After() != 0 {
			t.Errorf("acquired: quorate %v, after %d", next.Quorate(), next.After())
		}
		stop()
	})
}

// Parameters that change count from the next term on, turned or acquired (design 4.5).
func TestParamsOfNextTerm(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		ns := open(e)
		now := wire.Params{LeaseMS: wire.ToMS(short), MinSize: 2}
		change := make(chan wire.Params, 1)
		_, terms, stop := keeper(t, ns, "a", func() wire.Params {
			select {
			case now = <-change:
			default:
			}
			return now
		})
		first := <-terms
		p := now
		p.MinSize = 3
		change <- p
		time.Sleep(2 * short)
		recorded := func() int {
			rec := &wire.Leader{}
			en := stands(t, ns)
			if err := wire.Decode(en.Value, rec); en.Op != kv.Record || err != nil {
				t.Fatal(err)
			}
			return rec.Params.MinSize
		}
		if got := recorded(); got != 2 || first.Params().MinSize != 2 {
			t.Errorf("in the same term: %d in the record, %d in the term, want 2", got, first.Params().MinSize)
		}
		first.Turn(true)
		second := <-terms
		if got := recorded(); got != 3 || second.Params().MinSize != 3 {
			t.Errorf("in the next term: %d in the record, %d in the term, want 3", got, second.Params().MinSize)
		}
		stop()
	})
}

// E2, design 4.5: the lease of five candidates is changed one by one, from 3 s to 15 s and back, while they hand over and
// crash: whoever waits waits for the larger of its own lease and the record's. The watchers look for overlaps, and tokens grow.
func TestRollingLease(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		var slots [5]*quorate.Namespace
		terms := make(chan *leader.Term, 1000)
		start := func(i int, lease time.Duration) {
			ns := e.Namespace(quorate.Config{Lease: lease})
			slots[i] = ns
			el, err := leader.New(ns, "job", leader.Config{ID: fmt.Sprintf("c%d", i)})
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				_ = el.Run(t.Context(), func(ctx context.Context, term *leader.Term) error {
					terms <- term
					<-ctx.Done()
					return nil
				})
			}()
		}
		for i := range slots {
			start(i, 3*time.Second)
		}
		held := uint64(0)
		led := func(bound time.Duration, why string) {
			t.Helper()
			asked := time.Now()
			for {
				select {
				case term := <-terms:
					if term.Token() <= held {
						t.Errorf("L2: token %d after %d", term.Token(), held)
					}
					held = term.Token()
					if term.Live() {
						return
					}
				case <-time.After(time.Minute):
					t.Fatalf("%s: nobody leads", why)
				}
				if time.Since(asked) > bound {
					t.Errorf("%s: %v without a leader, want at most %v", why, time.Since(asked), bound)
				}
			}
		}
		led(10*time.Second, "start")
		for _, lease := range []time.Duration{15 * time.Second, 3 * time.Second} {
			for i := range slots {
				s, err := leading(t, slots[(i+1)%len(slots)])
				if err != nil {
					t.Fatal(err)
				}
				leads := s.Holder == fmt.Sprintf("c%d", i)
				if i%2 == 0 {
					e.Kill(slots[i]) // the next one waits for the larger lease of both
				} else if err := slots[i].Close(t.Context()); err != nil {
					t.Error(err)
				}
				start(i, lease)
				if leads {
					led(20*time.Second, fmt.Sprintf("c%d replaced with %v", i, lease))
				}
				time.Sleep(20 * time.Second)
			}
		}
		if n := e.Invariants().Counts().Terms; n < 3 {
			t.Errorf("%d terms: too few to show anything", n)
		}
		t.Logf("%d terms", e.Invariants().Counts().Terms)
	})
}
