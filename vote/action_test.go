package vote_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/testenv"
	"github.com/quorate/quorate/vote"
)

// actor is a voting member that acts.
type actor struct {
	*voter
	mu       sync.Mutex
	acted    []time.Time
	reported []string
	fails    error
	takes    time.Duration
}

func actors(t *testing.T, e *testenv.Env, fns ...decide) []*actor {
	t.Helper()
	var all []*actor
	for i, fn := range fns {
		all = append(all, joinActor(t, e, string(rune('a'+i)), fn))
	}
	return all
}

func joinActor(t *testing.T, e *testenv.Env, id string, fn decide) *actor {
	t.Helper()
	a := &actor{voter: &voter{ns: e.Namespace()}}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var err error
	if a.g, err = coord.Join(ctx, a.ns, "g", coord.Config{ID: id}); err != nil {
		t.Fatal(err)
	}
	if a.v, err = vote.Join(ctx, a.g, a.config(fn)); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *actor) config(fn decide) vote.Config {
	return vote.Config{
		Decide: func(ctx context.Context, b vote.Ballot) vote.Answer { a.asked.Add(1); return fn(ctx, b) },
		Act: func(ctx context.Context, b vote.Ballot) error {
			a.mu.Lock()
			a.acted = append(a.acted, time.Now())
			a.mu.Unlock()
			select {
			case <-time.After(a.takes):
			case <-ctx.Done():
			}
			return a.fails
		},
		Reported: func(b vote.Ballot, r vote.Report) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.reported = append(a.reported, r.Status)
		},
	}
}

// times is how often it has acted.
func (a *actor) times() []time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]time.Time(nil), a.acted...)
}

func (a *actor) told() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return strings.Join(a.reported, " ")
}

func outcome(t *testing.T, v vote.Verdict, d time.Duration) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	o, err := v.Outcome(ctx)
	if err != nil {
		t.Errorf("outcome: %v", err)
	}
	var l []string
	for _, r := range o.Reports {
		l = append(l, r.Member+":"+r.Status)
	}
	return strings.Join(l, " ")
}

func TestAction(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		yes := says(vote.Yes())
		all := actors(t, e, yes, yes, yes, says(vote.No("not I")))
		all[2].fails = errors.New("no space left")
		c := client(t, e)
		for _, p := range []*coord.Client{c, all[1].g.Client} { // a client that is no member, and a member
			at := time.Now().Add(2 * lease)
			v := propose(t, p, lease, vote.Proposal{At: at, Data: []byte("x")})
			if v.Verdict != vote.Passed || !v.At.Equal(at) || v.Tolerance != 100*time.Millisecond {
				t.Fatalf("got %+v", v)
			}
			if !time.Now().Before(at.Add(-lease)) {
				t.Errorf("the verdict came only %v before the instant", time.Until(at))
			}
			start := time.Now()
			if got := outcome(t, v, time.Minute); got != "a:done b:done c:failed" {
				t.Errorf("outcome %s", got)
			}
			if d := time.Since(start); d > 3*lease {
				t.Errorf("the outcome took %v", d)
			}
			for i, a := range all {
				l := a.times()
				if i == 3 {
					if len(l) > 0 {
						t.Errorf("A1: d said no, and acted")
					}
					continue
				}
				if off := l[len(l)-1].Sub(at); off.Abs() > 2*time.Millisecond {
					t.Errorf("A1: %s acted %v off the instant", a.g.ID(), off)
				}
			}
		}
		if n := e.Invariants().Counts().Actions; n != 6 {
			t.Errorf("watchers saw %d actions, want 6", n)
		}
		if fmt.Sprint(all[0].told(), "|", all[2].told()) != "done done|failed failed" {
			t.Errorf("told %s, %s", all[0].told(), all[2].told())
		}
	})
}

// on says what each member has done: done, or how often if that is not once.
func on(at time.Time, all ...*actor) string {
	var l []string
	for _, a := range all {
		s := "-"
		switch times := a.times(); {
		case len(times) > 1:
			s = fmt.Sprintf("%d times", len(times))
		case len(times) == 1 && times[0].Sub(at).Abs() <= 2*time.Millisecond:
			s = "acted"
		case len(times) == 1:
			s = times[0].Sub(at).String()
		}
		l = append(l, a.g.ID()+":"+s)
	}
	return strings.Join(l, " ")
}

// yes proposes an action that everybody is to agree to, and waits for the verdict.
func yes(t *testing.T, c *coord.Client, at time.Time) vote.Verdict {
	t.Helper()
	v := propose(t, c, time.Until(at), vote.Proposal{At: at, Kind: vote.Consensus})
	if !v.Won() {
		t.Fatalf("got %s (%s), %v", counts(v), v.Why, v.Reasons)
	}
	time.Sleep(lease / 100) // the members have heard it too
	return v
}

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %s, want %s", what, got, want)
	}
}

func three(t *testing.T, e *testenv.Env) []*actor {
	t.Helper()
	y := says(vote.Yes())
	return actors(t, e, y, y, y)
}

// The loss of the leader between the verdict and the instant changes nothing.
func TestActionLeaderKilled(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		all := three(t, e)
		c := client(t, e)
		at := time.Now().Add(4 * lease)
		v := yes(t, c, at)
		e.Kill(all[0].ns)
		expect(t, "outcome", outcome(t, v, 8*lease), "a:unheard b:done c:done")
		expect(t, "A1", on(at, all...), "a:- b:acted c:acted")
		// Who asks later asks another leader, which asks the members.
		other := client(t, e)
		again, err := vote.Lookup(t.Context(), other, v.Ballot)
		if err != nil {
			t.Fatal(err)
		}
		if !again.At.Equal(at) || len(again.Agreed) != 3 {
			t.Errorf("looked up: %+v", again)
		}
		expect(t, "outcome, asked by another", outcome(t, again, 2*lease), "a:unheard b:done c:done")
	})
}

// The leader is killed at each step of the ballot of an action: by whichever leader it is sealed, on whichever clock its instant is then, all who are left begin
// it, once.
func TestActionLeaderKilledAtEachStep(t *testing.T) {
	for _, k := range killPoints {
		t.Run(k.name, func(t *testing.T) {
			testenv.Run(t, func(t *testing.T, e *testenv.Env) {
				y := says(vote.Yes())
				all := actors(t, e, y, y, y, y, y)
				for i, a := range all {
					e.Suspend(a.ns, time.Duration(i)*lease/100) // no two clocks show the same
				}
				time.Sleep(lease)
				c := client(t, e)
				stopped := dies(e.Link(all[0].ns), k.at(&atomic.Int64{}))
				at := time.Now().Add(10 * lease)
				got := make(chan vote.Verdict)
				go func() { got <- propose(t, c, 6*lease, vote.Proposal{Kind: vote.AtLeast(4), At: at}) }()
				<-stopped
				time.Sleep(time.Millisecond) // what had left the process arrives
				e.Kill(all[0].ns)
				v := <-got
				want(t, "V3", v, k.long)
				time.Sleep(time.Until(at) + lease)
				expect(t, "A1", on(at, all...), "a:- b:acted c:acted d:acted e:acted")
				came := strings.TrimPrefix(outcome(t, v, 2*lease), "a:unheard ") // whether the dead one had voted or not
				expect(t, "outcome", came, "b:done c:done d:done e:done")
			})
		})
	}
}

// The leader dies with the yes sealed, and nobody told: the members look for it themselves.
func TestActionVerdictUnheard(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		all := three(t, e)
		c := client(t, e)
		at := time.Now().Add(4 * lease)
		e.Link(all[0].ns).Filter(func(f *testenv.Frame) testenv.Verdict {
			if f.Dir == testenv.ToServer && strings.HasSuffix(f.Subject, ".g.g.verdict") {
				return testenv.Drop
			}
			return testenv.Pass
		})
		v := yes(t, c, at)
		e.Kill(all[0].ns)
		time.Sleep(time.Until(at) + lease/100)
		expect(t, "A1", on(at, all...), "a:- b:acted c:acted")
		expect(t, "outcome", outcome(t, v, 2*lease), "a:unheard b:done c:done")
	})
}

// Members that are cut off between their yes and the instant.
func TestActionCutOff(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		all := three(t, e)
		c := client(t, e)
		at := time.Now().Add(6 * lease)
		v := yes(t, c, at)
		e.Cut(all[1].ns) // it knows all that it needs
		time.Sleep(time.Until(at) + lease)
		expect(t, "A1", on(at, all...), "a:acted b:acted c:acted")
		e.Heal(all[1].ns)
		expect(t, "outcome", outcome(t, v, 2*lease), "a:done b:done c:done")

		// Cut off before the verdict: back in time, and too late.
		for _, back := range []time.Duration{-lease, lease} {
			time.Sleep(4 * lease) // a member again
			at = time.Now().Add(8 * lease)
			undo := e.Link(all[1].ns).Filter(func(f *testenv.Frame) testenv.Verdict {
				if f.Dir == testenv.ToClient && strings.HasSuffix(f.Subject, ".g.g.verdict") {
					return testenv.Drop
				}
				return testenv.Pass
			})
			before := len(all[1].times())
			v = yes(t, c, at)
			e.Cut(all[1].ns)
			undo()
			time.Sleep(time.Until(at) + back)
			e.Heal(all[1].ns)
			want, acted := "a:done b:done c:done", 1
			if back > 0 {
				want, acted = "a:done b:late c:done", 0
			}
			expect(t, fmt.Sprintf("back at %v", back), outcome(t, v, 20*lease), want)
			if n := len(all[1].times()) - before; n != acted {
				t.Errorf("A1: back at %v: it acted %d times", back, n)
			}
		}
	})
}

// Members that stand still over the instant do not begin after it.
func TestActionPaused(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		all := three(t, e)
		c := client(t, e)
		for _, i := range []int{1, 0} { // a follower, and the leader
			at := time.Now().Add(4 * lease)
			v := yes(t, c, at)
			time.Sleep(time.Until(at) - lease/3)
			e.Pause(all[i].ns)
			time.Sleep(2 * lease / 3)
			e.Resume(all[i].ns)
			expect(t, "paused", outcome(t, v, 10*lease), map[int]string{1: "a:done b:late c:done", 0: "a:late b:done c:done"}[i])
			time.Sleep(10 * lease)
		}
		at := time.Now().Add(4 * lease)
		v := yes(t, c, at)
		e.Cut(all[1].ns)              // an answer would show that no time has passed for the others
		e.Suspend(all[1].ns, 5*lease) // its boot-time clock is beyond the instant
		time.Sleep(lease)
		e.Heal(all[1].ns)
		expect(t, "suspended over the instant", outcome(t, v, 10*lease), "a:done b:late c:done")
		if got := all[1].told(); got != "late done late" {
			t.Errorf("b reported %s", got)
		}
	})
}

// A wall clock that jumps is not believed before the leader's answers have shown that it is one.
func TestActionWallJumps(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		all := three(t, e)
		c := client(t, e)
		at := time.Now().Add(4 * lease)
		v := yes(t, c, at)
		e.JumpWall(all[1].ns, time.Hour)
		time.Sleep(lease)
		e.JumpWall(all[2].ns, -time.Hour)
		expect(t, "with exchanges since", outcome(t, v, 10*lease), "a:done b:done c:done")
		expect(t, "A1", on(at, all...), "a:acted b:acted c:acted")
		time.Sleep(10 * lease) // the jump has cost b its membership

		at = time.Now().Add(4 * lease)
		v = yes(t, c, at)
		time.Sleep(time.Until(at) - lease/2)
		e.Cut(all[1].ns)
		e.JumpWall(all[1].ns, time.Hour)
		time.Sleep(lease)
		e.Heal(all[1].ns)
		expect(t, "without", outcome(t, v, 10*lease), "a:done b:late c:done")
	})
}

// The clocks of the processes have nothing in common: an instant is the same moment for all, the one that the proposer named.
func TestActionClocksDiffer(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		y := says(vote.Yes())
		var all []*actor
		for i, id := range []string{"a", "b", "c", "d"} {
			a := joinActor(t, e, id, y)
			all = append(all, a)
			e.Suspend(a.ns, time.Duration(i*i)*time.Hour) // boot-time and wall clocks are apart
			e.JumpWall(a.ns, -time.Duration(i)*time.Minute)
		}
		time.Sleep(10 * lease) // memberships are lost by it, and won again
		ns := e.Namespace()
		e.Suspend(ns, 77*time.Hour)
		c, err := coord.Open(t.Context(), ns, "g")
		if err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(2 * lease)
		v := propose(t, c, lease, vote.Proposal{At: at.Add(77 * time.Hour), Kind: vote.Consensus}) // as the proposer's wall clock names it
		want(t, "all", v, "yes 4-0-0 of 4")
		time.Sleep(time.Until(at) + lease/10)
		expect(t, "A1", on(at, all...), "a:acted b:acted c:acted d:acted")
		expect(t, "outcome", outcome(t, v, 2*lease), "a:done b:done c:done d:done")
		v = propose(t, c, lease, vote.Proposal{At: time.Now().Add(2 * lease)})
		expect(t, "what is long over by its clock", v.Verdict, vote.TimedOut)
	})
}

// A member that is killed and started again between its yes and the instant has not said yes: it does not act.
func TestActionRestarted(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		all := three(t, e)
		c := client(t, e)
		at := time.Now().Add(6 * lease)
		v := yes(t, c, at)
		e.Kill(all[1].ns)
		again := joinActor(t, e, "b", says(vote.Yes()))
		if !time.Now().Before(at) {
			t.Fatal("it is not back before the instant")
		}
		expect(t, "outcome", outcome(t, v, 10*lease), "a:done b:unheard c:done")
		expect(t, "A1", on(at, all[0], all[2], again), "a:acted c:acted b:-")
	})
}

// Who knows the leader's clock too badly votes no by itself, and says why.
func TestActionTolerance(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		all := three(t, e)
		c := client(t, e)
		time.Sleep(lease)
		slow := func(by time.Duration) func() {
			return e.Link(all[1].ns).Filter(func(f *testenv.Frame) testenv.Verdict {
				if f.Dir == testenv.ToServer && strings.HasSuffix(f.Subject, ".heartbeat") {
					return testenv.Delay(by)
				}
				return testenv.Pass
			})
		}
		undo := slow(lease / 10)
		time.Sleep(4 * lease) // the good exchanges of before have grown worse than that
		propose1 := func(tol time.Duration) vote.Verdict {
			return propose(t, c, lease, vote.Proposal{At: time.Now().Add(2 * lease), Kind: vote.Consensus, Tolerance: tol})
		}
		v := propose1(100 * time.Millisecond)
		if v.Verdict != vote.Failed || len(v.Reasons) != 1 || v.Reasons[0].Member != "b" || !strings.Contains(v.Reasons[0].Text, "the tolerance is 100ms") {
			t.Errorf("A1: got %s, %v", counts(v), v.Reasons)
		}
		v = propose1(300 * time.Millisecond)
		want(t, "a tolerance that is wide enough", v, "yes 3-0-0 of 3")
		outcome(t, v, time.Minute)
		undo()
		// An exchange at the right time makes small ones possible.
		v = propose1(5 * time.Millisecond)
		want(t, "a small tolerance", v, "yes 3-0-0 of 3")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		o, err := v.Outcome(ctx)
		if err != nil || o.Count(vote.Done) != 3 {
			t.Fatalf("got %+v, %v", o, err)
		}
		for _, r := range o.Reports {
			if r.Bound > 5*time.Millisecond {
				t.Errorf("A1: the clock of %s was known to %v", r.Member, r.Bound)
			}
		}
	})
}

func TestActionCancelled(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		all := three(t, e)
		c, other := client(t, e), client(t, e)
		at := time.Now().Add(4 * lease)
		v := yes(t, c, at)
		e.Cut(all[2].ns) // does not hear of it
		w, err := vote.Cancel(within(t, lease), other, v.Ballot)
		if err != nil || w.Verdict != vote.Passed {
			t.Fatalf("got %v, %v: the seal stays", w, err)
		}
		go func() {
			time.Sleep(time.Until(at) + lease/12)
			e.Heal(all[2].ns)
		}()
		expect(t, "outcome", outcome(t, w, 8*lease), "a:cancelled b:cancelled c:done")
		expect(t, "A1", on(at, all...), "a:- b:- c:acted")
		time.Sleep(4 * lease)

		// By the leader after the one that sealed it.
		at = time.Now().Add(8 * lease)
		v = yes(t, c, at)
		e.Kill(all[0].ns)
		time.Sleep(2 * lease)
		if w, err := vote.Cancel(within(t, 2*lease), other, v.Ballot); err != nil || w.Verdict != vote.Passed {
			t.Fatalf("got %v, %v", w, err)
		}
		expect(t, "outcome", outcome(t, v, 10*lease), "a:unheard b:cancelled c:cancelled")

		// Before the seal: it is sealed timed-out, and nothing is to be done.
		hold := make(chan struct{})
		joinActor(t, e, "d", func(context.Context, vote.Ballot) vote.Answer { <-hold; return vote.Yes() })
		got := make(chan vote.Verdict)
		at = time.Now().Add(8 * lease)
		go func() { got <- propose(t, c, 6*lease, vote.Proposal{ID: "open", At: at, Kind: vote.Consensus}) }()
		time.Sleep(lease)
		if w, err := vote.Cancel(within(t, lease), other, "open"); err != nil || w.Verdict != vote.TimedOut {
			t.Errorf("got %v, %v", w, err)
		}
		close(hold)
		v = <-got
		expect(t, "cancelled", v.Verdict, vote.TimedOut)
		if _, err := v.Outcome(t.Context()); !errors.Is(err, vote.ErrNoAction) {
			t.Errorf("outcome: %v, want ErrNoAction", err)
		}
	})
}

// A slow yes counts up to the instant, a slow no says that it takes no part, and a member that leaves does not begin.
func TestActionSlow(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		slow := func(d time.Duration, a vote.Answer) decide {
			return func(ctx context.Context, _ vote.Ballot) vote.Answer {
				select {
				case <-time.After(d):
				case <-ctx.Done():
				}
				return a
			}
		}
		y := says(vote.Yes())
		all := actors(t, e, y, y, y, slow(lease, vote.Yes()), slow(lease, vote.No("late no")))
		c := client(t, e)
		at := time.Now().Add(4 * lease)
		v := propose(t, c, 3*lease, vote.Proposal{At: at})
		want(t, "decided early", v, "yes 3-0-0 of 5")
		time.Sleep(2 * lease)
		if err := all[2].v.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		expect(t, "outcome", outcome(t, v, time.Minute), "a:done b:done c:late d:done")
		if d := time.Since(start); d > 3*lease {
			t.Errorf("it took %v: e has said that it takes no part", d)
		}
		expect(t, "A1", on(at, all...), "a:acted b:acted c:- d:acted e:-")
	})
}

// One that votes again in the same process has not forgotten what it said.
func TestActionVotesAgain(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		all := three(t, e)
		c := client(t, e)
		at := time.Now().Add(4 * lease)
		v := yes(t, c, at)
		if err := all[1].v.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		var err error
		if all[1].v, err = vote.Join(t.Context(), all[1].g, all[1].config(says(vote.Yes()))); err != nil {
			t.Fatal(err)
		}
		expect(t, "outcome", outcome(t, v, time.Minute), "a:done b:late c:done")
		expect(t, "A1", on(at, all...), "a:acted b:- c:acted")
	})
}

func TestBadActions(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		three(t, e)
		c := client(t, e)
		at := time.Now().Add(2 * lease)
		for _, p := range []vote.Proposal{
			{Tolerance: time.Second},
			{At: at, Tolerance: time.Microsecond},
			{At: at, Tolerance: 2 * time.Minute},
			{At: at.Add(time.Hour)},
		} {
			p.Topic = "go"
			if _, err := vote.Propose(within(t, lease), c, p); !errors.Is(err, vote.ErrBadProposal) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v %v: got %v, want ErrBadProposal in one line", p.At, p.Tolerance, err)
			}
		}
		v := propose(t, c, lease, vote.Proposal{At: time.Now().Add(lease / 10)})
		want(t, "too near", v, "timed-out 0-0-0 of 3")
		v = propose(t, c, lease, vote.Proposal{ID: "b1", At: at})
		want(t, "first", v, "yes 2-0-0 of 3")
		want(t, "asked again", propose(t, c, lease, vote.Proposal{ID: "b1", At: at}), "yes 2-0-0 of 3")
		for _, p := range []vote.Proposal{{ID: "b1"}, {ID: "b1", At: at.Add(time.Second)}} {
			p.Topic = "go"
			if _, err := vote.Propose(within(t, lease), c, p); !errors.Is(err, vote.ErrBadProposal) {
				t.Errorf("the id of another action: got %v, want ErrBadProposal", err)
			}
		}
		if _, err := propose(t, c, lease, vote.Proposal{}).Outcome(t.Context()); !errors.Is(err, vote.ErrNoAction) {
			t.Errorf("outcome of no action: %v", err)
		}
		if _, err := (vote.Verdict{}).Outcome(t.Context()); !errors.Is(err, vote.ErrNoAction) {
			t.Errorf("outcome of nothing: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := v.Outcome(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("outcome, cancelled: %v", err)
		}
	})
}
