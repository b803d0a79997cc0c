package vote_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/testenv"
	"github.com/quorate/quorate/vote"
)

// world is five voting members under faults, and proposers that ask all the time.
type world struct {
	t   *testing.T
	e   *testenv.Env
	rng *rand.Rand // of the faults; used by one goroutine

	mu      sync.Mutex
	members []*quorate.Namespace
	clients []*quorate.Namespace
	ballots map[string]*asked
	answers map[string]int // by verdict
	acts    map[string]int // by ballot and member
	came    map[string]int // of actions, by status

	stop chan struct{}
	wg   sync.WaitGroup
}

type asked struct {
	p     vote.Proposal
	first vote.Verdict
}

// member is a process that votes; it is started again when it is killed.
func (w *world) member(i int) *quorate.Namespace {
	ns := w.e.Namespace()
	w.wg.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		defer cancel()
		g, err := coord.Join(ctx, ns, "g", coord.Config{ID: fmt.Sprintf("m%d", i)})
		if err != nil {
			return // killed meanwhile
		}
		_, _ = vote.Join(ctx, g, vote.Config{Act: func(_ context.Context, b vote.Ballot) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			k := b.ID + " " + g.ID()
			if w.acts[k]++; w.acts[k] > 1 {
				w.t.Errorf("A1: %s acted %d times", k, w.acts[k])
			}
			return nil
		}, Decide: func(ctx context.Context, b vote.Ballot) vote.Answer {
			// The same ballot is answered differently by each incarnation: what is counted must not depend on it.
			switch n := rand.IntN(20); {
			case n < 14:
				return vote.Yes()
			case n < 16:
				return vote.No("dice")
			case n < 17:
				return vote.Abstain()
			case n < 18:
				<-ctx.Done()
				return vote.Abstain()
			}
			select {
			case <-ctx.Done():
			case <-time.After(rand.N(2 * lease)):
			}
			return vote.Yes()
		}})
	})
	return ns
}

func (w *world) fault() {
	if w.rng.IntN(6) == 0 {
		ns := w.clients[w.rng.IntN(len(w.clients))]
		w.e.Cut(ns)
		time.Sleep(time.Duration(w.rng.Int64N(int64(3 * lease))))
		w.e.Heal(ns)
		return
	}
	i := w.rng.IntN(len(w.members))
	ns := w.members[i]
	d := time.Duration(w.rng.Int64N(int64(3 * lease)))
	sleep := func() { time.Sleep(d) }
	switch w.rng.IntN(7) {
	case 6:
		w.e.JumpWall(ns, time.Duration(w.rng.Int64N(int64(2*lease)))-lease/2)
	case 0:
		w.e.Kill(ns)
		sleep()
		w.members[i] = w.member(i)
	case 1:
		w.e.Cut(ns)
		sleep()
		w.e.Heal(ns)
	case 2:
		w.e.Link(ns).Cut(testenv.ToClient)
		sleep()
		w.e.Link(ns).HealDropping()
	case 3:
		w.e.Pause(ns)
		sleep()
		w.e.Resume(ns)
	case 4:
		w.e.Link(ns).DropAcks(1 + w.rng.IntN(5))
	case 5:
		w.e.Link(ns).Kill()
	}
}

// proposes asks until the end, sometimes again by the id of an earlier ballot, and checks each answer (V3).
func (w *world) proposes(name string, c *coord.Client, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 7))
	kinds := []vote.Kind{vote.Majority, vote.TwoThirds, vote.Consensus, vote.AtLeast(2), vote.AtLeast(4)}
	var mine []string
	for n := 0; ; n++ {
		select {
		case <-w.stop:
			return
		case <-time.After(time.Duration(rng.Int64N(int64(4 * lease)))):
		}
		p := vote.Proposal{ID: fmt.Sprintf("%s-%d", name, n), Topic: fmt.Sprintf("%s %d", name, n), Kind: kinds[rng.IntN(len(kinds))]}
		if rng.IntN(3) == 0 {
			p.At = time.Now().Add(lease/2 + time.Duration(rng.Int64N(int64(4*lease))))
		}
		if len(mine) > 0 && rng.IntN(4) == 0 {
			w.mu.Lock()
			p = w.ballots[mine[len(mine)-1-rng.IntN(min(len(mine), 20))]].p
			w.mu.Unlock()
		}
		d := time.Duration(rng.Int64N(int64([]time.Duration{lease / 2, 5 * lease}[rng.IntN(2)]))) + 20*time.Millisecond
		start := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), d)
		v, err := vote.Propose(ctx, c, p)
		late := ctx.Err() != nil
		cancel()
		if errors.Is(err, vote.ErrNoVoters) {
			continue // all of them were away
		}
		if err != nil || late {
			w.t.Errorf("V3: ballot %s with %v: answered after %v: %+v, %v", p.ID, d, time.Since(start), v, err)
		}
		if v.Won() && !p.At.IsZero() {
			w.wg.Go(func() { w.outcome(v) })
		}
		w.mu.Lock()
		w.answers[v.Verdict]++
		if a := w.ballots[p.ID]; a == nil {
			w.ballots[p.ID] = &asked{p, v}
			mine = append(mine, p.ID)
		} else if a.first.Verdict == vote.Unknown {
			a.first = v
		} else if v.Verdict != vote.Unknown && counts(v) != counts(a.first) {
			w.t.Errorf("V1: ballot %s: told %s, then %s", p.ID, counts(a.first), counts(v))
		}
		w.mu.Unlock()
	}
}

// outcome checks what is told of an action against what was done (A1).
func (w *world) outcome(v vote.Verdict) {
	ctx, cancel := context.WithTimeout(context.Background(), max(time.Until(v.At), 0)+10*lease)
	defer cancel()
	o, err := v.Outcome(ctx)
	if err != nil {
		w.t.Errorf("outcome of %s: %v", v.Ballot, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range o.Reports {
		w.came[r.Status]++
		acted := w.acts[v.Ballot+" "+r.Member] > 0
		if r.Status == vote.Done != acted && r.Status != vote.Unheard {
			w.t.Errorf("A1: ballot %s: %s is told to be %s, acted: %v", v.Ballot, r.Member, r.Status, acted)
		}
	}
}

func TestLongRun(t *testing.T) {
	for seed := range uint64(longRuns) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			testenv.Run(t, func(t *testing.T, e *testenv.Env) { longRun(t, e, seed, longTime) })
		})
	}
}

// lacks says what has not happened as often as a run of the given time is to show: one in which nothing happened proves nothing.
func (w *world) lacks(d time.Duration) (all []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	lack := func(what string, had, in20 map[string]int) {
		for k, least := range in20 {
			if least = least * int(d/time.Minute) / 20; had[k] < least {
				all = append(all, fmt.Sprintf("only %d %s were %s, want %d", had[k], what, k, least))
			}
		}
	}
	lack("reports", w.came, map[string]int{vote.Done: 50, vote.Late: 1, vote.Unheard: 3})
	lack("answers", w.answers, map[string]int{vote.Passed: 50, vote.Failed: 10, vote.TimedOut: 10, vote.Unknown: 3})
	return all
}

func longRun(t *testing.T, e *testenv.Env, seed uint64, d time.Duration) {
	w := &world{t: t, e: e, rng: rand.New(rand.NewPCG(seed, 1)), ballots: map[string]*asked{}, answers: map[string]int{}, acts: map[string]int{}, came: map[string]int{}, stop: make(chan struct{})}
	for i := range 5 {
		w.members = append(w.members, w.member(i))
	}
	time.Sleep(lease)
	watcher := client(t, e)
	ctx, cancel := context.WithCancel(t.Context())
	seen := map[string]string{}
	var watching sync.WaitGroup
	watching.Go(func() {
		for v, err := range vote.Watch(ctx, watcher) {
			if err != nil {
				t.Error(err)
				return
			}
			if _, twice := seen[v.Ballot]; twice {
				t.Errorf("ballot %s was told twice", v.Ballot)
			}
			seen[v.Ballot] = counts(v)
		}
	})
	for i := range 4 {
		ns := e.Namespace()
		c, err := coord.Open(t.Context(), ns, "g")
		if err != nil {
			t.Fatal(err)
		}
		w.clients = append(w.clients, ns)
		w.wg.Go(func() { w.proposes(fmt.Sprintf("p%d", i), c, seed*100+uint64(i)) })
	}
	// Goes on for longer, up to twice as long, while something has not happened yet that the run has to show.
	faults := 0
	for began := time.Now(); time.Since(began) < d || len(w.lacks(d)) > 0 && time.Since(began) < 2*d; faults++ {
		time.Sleep(time.Duration(w.rng.Int64N(int64(4 * lease))))
		w.fault()
	}
	close(w.stop)
	time.Sleep(20 * lease) // all are well again
	w.wg.Wait()
	c := client(t, e)
	for id, a := range w.ballots {
		v := propose(t, c, 10*lease, a.p)
		if v.Verdict == vote.Unknown {
			t.Errorf("V3: ballot %s asked about again: %s", id, v.Why)
		}
		if a.first.Verdict != vote.Unknown && counts(v) != counts(a.first) {
			t.Errorf("V1: ballot %s: told %s, then %s", id, counts(a.first), counts(v))
		}
		a.first = v
	}
	l, err := vote.Recent(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(lease)
	cancel()
	watching.Wait()
	for _, v := range l {
		if a := w.ballots[v.Ballot]; a == nil || counts(a.first) != counts(v) || seen[v.Ballot] != counts(v) {
			t.Errorf("V1: ballot %s: sealed %s, watched %s", v.Ballot, counts(v), seen[v.Ballot])
		}
	}
	if len(l) < len(w.ballots) || len(seen) != len(l) {
		t.Errorf("%d ballots, %d verdicts, %d watched", len(w.ballots), len(l), len(seen))
	}
	n := e.Invariants().Counts()
	t.Logf("%d faults, %d ballots, answers %v, %d verdicts, %d terms, %d told, %d actions %v", faults, len(w.ballots), w.answers, len(l), n.Terms, n.Verdicts, n.Actions, w.came)
	for _, what := range w.lacks(d) {
		t.Error(what)
	}
	if n.Terms < 5*int(d/time.Minute)/20 || n.Verdicts < 2*len(w.ballots) {
		t.Errorf("only %d terms, %d verdicts told", n.Terms, n.Verdicts)
	}
}
