package vote_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/testenv"
	"github.com/quorate/quorate/vote"
)

// The faults of RIAPS's votes (design section 8), each as it shows to its user.

// A vote without a timeout of its own is over after 1500 seconds.
func TestRIAPSDefaultTimeout(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		voters(t, e, silent, says(vote.Yes()))
		start := time.Now()
		v, err := vote.Propose(t.Context(), client(t, e), vote.Proposal{Topic: "go", Kind: vote.Consensus})
		if err != nil {
			t.Fatal(err)
		}
		want(t, "V3", v, "timed-out 1-0-0 of 2")
		if d := time.Since(start); d > 2*lease {
			t.Errorf("V3: answered after %v of virtual time", d)
		}
	})
}

// A journal is a log that can be read while it is written.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

// A member that votes twice counts twice; who is no member counts too.
func TestRIAPSDuplicateVotes(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		var log journal
		lead := joinWith(t, e, "a", silent, quorate.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		all := append([]*voter{lead}, join(t, e, "b", silent), join(t, e, "c", silent), join(t, e, "d", silent), join(t, e, "e", silent))
		nc, _ := e.Connect("forger")
		var forged atomic.Int64
		_, err := nc.Subscribe(wire.GroupSubject("default", "g", wire.SubBallot), func(m *nats.Msg) {
			var b wire.Ballot
			if err := wire.Decode(m.Data, &b); err != nil {
				t.Error(err)
			}
			p := all[1].g.Inner().Place()
			for _, v := range []wire.Vote{
				{ID: p.ID, Incarnation: p.Incarnation, Answer: wire.Yes},
				{ID: p.ID, Incarnation: p.Incarnation, Answer: wire.Yes},
				{ID: p.ID, Incarnation: p.Incarnation, Answer: wire.No}, // changes its mind
				{ID: p.ID, Incarnation: p.Incarnation + 1, Answer: wire.Yes},
				{ID: "stranger", Incarnation: 1, Answer: wire.Yes},
				{ID: all[2].g.ID(), Incarnation: all[2].g.Inner().Place().Incarnation, Answer: "YES"},
			} {
				v.V, v.Ballot, v.Round = wire.Version, b.Ballot, b.Round
				if err := m.Respond(wire.Encode(&v)); err != nil {
					t.Error(err)
				}
				forged.Add(1)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		v := propose(t, client(t, e), lease, vote.Proposal{Kind: vote.AtLeast(2)})
		want(t, "V2", v, "timed-out 1-0-0 of 5")
		if n := forged.Load(); n < 6 {
			t.Errorf("%d votes were forged", n)
		}
		// They are refused, and counted as what they are.
		if err := lead.g.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		per := forged.Load() / 6
		// b's own abstention, when its time is over, may come before the seal's confirmation: it is one more that would change its vote.
		for _, want := range []string{"votes=1 ", fmt.Sprintf("repeated=%d ", 2*per-1), fmt.Sprintf("changed=(%d|%d) ", per, per+1), fmt.Sprintf("foreign=%d ", 2*per), fmt.Sprintf("malformed=%d ", per)} {
			if !regexp.MustCompile(want).MatchString(log.String()) {
				t.Errorf("%q is not in the leader's log: %s", want, log.String())
			}
		}
	})
}

// A won majority still times out when one member is dead.
func TestRIAPSDeadMember(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		all := voters(t, e, says(vote.Yes()), says(vote.Yes()), says(vote.Yes()))
		c := client(t, e)
		e.Kill(all[2].ns)
		start := time.Now()
		want(t, "V2", propose(t, c, 4*lease, vote.Proposal{}), "yes 2-0-0 of 3")
		if d := time.Since(start); d > lease/6 {
			t.Errorf("V2: decided after %v of virtual time", d)
		}
	})
}

// Leaders of different terms never yield: two of them each decide a poll.
func TestRIAPSTwoLeaders(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		hold := make(chan struct{})
		slow := func(context.Context, vote.Ballot) vote.Answer { <-hold; return vote.Yes() }
		all := voters(t, e, slow, slow, slow)
		c := client(t, e)
		got := make(chan vote.Verdict, 2)
		p := vote.Proposal{ID: "b1", Kind: vote.AtLeast(2)}
		go func() { got <- propose(t, c, 8*lease, p) }()
		time.Sleep(lease / 2)
		e.Pause(all[0].ns) // the old leader stands still, with the votes before its door
		close(hold)
		time.Sleep(3 * lease) // another leads, and runs the ballot
		e.Resume(all[0].ns)   // it yields: its term is over
		go func() { got <- propose(t, client(t, e), 8*lease, p) }()
		v, w := <-got, <-got
		if v.Verdict != vote.Passed || counts(v) != counts(w) {
			t.Errorf("V1: got %s and %s", counts(v), counts(w))
		}
		if _, leads := all[0].g.Term(); leads {
			t.Error("L1: the old leader still leads")
		}
	})
}

// An action that was voted for never fires.
func TestRIAPSActionFires(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		all := three(t, e)
		at := time.Now().Add(2 * lease)
		v := propose(t, all[1].g.Client, lease, vote.Proposal{At: at})
		expect(t, "outcome", outcome(t, v, time.Minute), "a:done b:done c:done")
		expect(t, "A1", on(at, all...), "a:acted b:acted c:acted")
	})
}

// A leader without its minimum of members stays, and goes on deciding.
func TestRIAPSMinimum(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		var all []*voter
		for _, id := range []string{"a", "b", "c"} {
			r := &voter{ns: e.Namespace()}
			joined := make(chan error, 1)
			go func() { // below the minimum size a join is granted, but nobody leads
				var err error
				if r.g, err = coord.Join(within(t, time.Minute), r.ns, "g", coord.Config{ID: id, MinSize: 2}); err == nil {
					r.v, err = vote.Join(within(t, time.Minute), r.g, vote.Config{Decide: says(vote.Yes())})
				}
				joined <- err
			}()
			if err := <-joined; err != nil {
				t.Fatal(err)
			}
			all = append(all, r)
			time.Sleep(lease)
		}
		c := client(t, e)
		want(t, "enough", propose(t, c, lease, vote.Proposal{}), "yes 2-0-0 of 3")
		e.Kill(all[1].ns)
		e.Kill(all[2].ns)
		time.Sleep(5 * lease)
		for _, p := range []vote.Proposal{{ID: "b1"}, {ID: "b2", At: time.Now().Add(10 * lease)}} { // an action needs the leader's clock first
			v := propose(t, c, lease, p)
			if v.Verdict != vote.Unknown || !strings.Contains(v.Why, "minimum size") {
				t.Errorf("Q1: below the minimum size: got %s (%s), want unknown", counts(v), v.Why)
			}
		}
		join(t, e, "d", says(vote.Yes()))
		time.Sleep(lease)
		if v := propose(t, c, 2*lease, vote.Proposal{ID: "b1"}); v.Verdict != vote.Passed {
			t.Errorf("enough again: got %s (%s)", counts(v), v.Why)
		}
	})
}

// A group falls below its minimum size between a proposal and the opening of its round, while the leader's work has not returned yet.
func TestFallsBeforeOpened(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		var all []*voter
		for _, id := range []string{"a", "b"} {
			r := &voter{ns: e.Namespace()}
			var err error
			if r.g, err = coord.Join(within(t, time.Minute), r.ns, "g", coord.Config{ID: id, MinSize: 2}); err != nil {
				t.Fatal(err)
			}
			if r.v, err = vote.Join(within(t, time.Minute), r.g, vote.Config{Decide: func(context.Context, vote.Ballot) vote.Answer { r.asked.Add(1); return vote.Yes() }}); err != nil {
				t.Fatal(err)
			}
			all = append(all, r)
		}
		ended := make(chan struct{})
		go func() {
			_ = all[0].g.Lead(t.Context(), func(ctx context.Context, _ *leader.Term) error {
				<-ctx.Done()
				close(ended)
				time.Sleep(lease / 2) // the work takes its time, and the term with it
				return nil
			})
		}()
		time.Sleep(lease)
		release := unread(e, all[0].ns)
		e.Kill(all[1].ns)
		got := make(chan vote.Verdict)
		go func() { got <- propose(t, client(t, e), 3*lease, vote.Proposal{Kind: vote.AtLeast(1)}) }()
		<-ended
		release()
		if v := <-got; v.Verdict != vote.Unknown {
			t.Errorf("Q1: got %s, want unknown: there were too few when it was to be opened", counts(v))
		}
		if n := all[0].asked.Load(); n > 0 {
			t.Errorf("Q1: asked %d times below the minimum size", n)
		}
	})
}

// A poll dies with its leader.
func TestRIAPSPollOutlivesLeader(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		slow := func(n time.Duration) decide {
			return func(ctx context.Context, _ vote.Ballot) vote.Answer {
				select {
				case <-ctx.Done():
				case <-time.After(n):
				}
				return vote.Yes()
			}
		}
		all := voters(t, e, slow(0), slow(lease), slow(2*lease))
		c := client(t, e)
		got := make(chan vote.Verdict)
		go func() { got <- propose(t, c, 6*lease, vote.Proposal{}) }()
		time.Sleep(lease / 2)
		e.Kill(all[0].ns)
		want(t, "V3", <-got, "yes 2-0-0 of 3")
	})
}
