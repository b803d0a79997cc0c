package vote_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/testenv"
	"github.com/quorate/quorate/vote"
)

// same asserts that a ballot asked about again, by its id, has one sealed verdict, and that first told no other.
func same(t *testing.T, c *coord.Client, p vote.Proposal, first vote.Verdict) vote.Verdict {
	t.Helper()
	p.ID = first.Ballot
	again := propose(t, c, 10*lease, p)
	if again.Verdict == vote.Unknown {
		t.Errorf("V3: ballot %s asked about again: %s", p.ID, again.Why)
	}
	if first.Verdict != vote.Unknown && counts(first) != counts(again) {
		t.Errorf("V1: ballot %s: told %s, then %s", p.ID, counts(first), counts(again))
	}
	l, err := vote.Recent(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, v := range l {
		if v.Ballot == p.ID {
			n++
			if counts(v) != counts(again) {
				t.Errorf("V1: ballot %s: sealed %s, told %s", p.ID, counts(v), counts(again))
			}
		}
	}
	if n != 1 {
		t.Errorf("V1: ballot %s has %d verdicts", p.ID, n)
	}
	return again
}

// dies makes the process of a link stop at the very frame that at names: that frame goes through or not, and nothing after it.
// The channel is closed then.
func dies(l *testenv.Link, at func(f *testenv.Frame) (now, through bool)) <-chan struct{} {
	var dead atomic.Bool
	stopped := make(chan struct{})
	l.Filter(func(f *testenv.Frame) testenv.Verdict {
		if dead.Load() {
			return testenv.Drop
		}
		if now, through := at(f); now && dead.CompareAndSwap(false, true) {
			close(stopped)
			if through {
				return testenv.Pass
			}
			return testenv.Drop
		}
		return testenv.Pass
	})
	return stopped
}

func sends(f *testenv.Frame, part string) bool {
	return f.Dir == testenv.ToServer && f.IsMessage() && strings.Contains(f.Subject, part)
}

// killPoints are the steps of a ballot at which its leader can die, and what the proposer is told then by a deadline before and after there can be
// another leader.
var killPoints = []struct {
	name  string
	at    func(votes *atomic.Int64) func(f *testenv.Frame) (now, through bool)
	short string // with a deadline before another leader can be there
	long  string
}{
	{"before the broadcast", func(*atomic.Int64) func(*testenv.Frame) (bool, bool) {
		return func(f *testenv.Frame) (bool, bool) { return sends(f, ".g.g.ballot"), false }
	}, "unknown 0-0-0 of 0", "yes 4-0-0 of 5"},
	{"after the broadcast", func(*atomic.Int64) func(*testenv.Frame) (bool, bool) {
		return func(f *testenv.Frame) (bool, bool) { return sends(f, ".g.g.ballot"), true }
	}, "unknown 0-0-0 of 0", "yes 4-0-0 of 5"},
	{"with some votes in", func(votes *atomic.Int64) func(*testenv.Frame) (bool, bool) {
		return func(f *testenv.Frame) (bool, bool) {
			if f.Dir == testenv.ToClient && f.IsMessage() && strings.Contains(string(f.Payload), `"answer":"yes"`) {
				votes.Add(1)
			}
			return votes.Load() == 2, true
		}
	}, "unknown 0-0-0 of 0", "yes 4-0-0 of 5"},
	{"decided, not sealed", func(*atomic.Int64) func(*testenv.Frame) (bool, bool) {
		return func(f *testenv.Frame) (bool, bool) { return sends(f, "verdict.g."), false }
	}, "unknown 0-0-0 of 0", "yes 4-0-0 of 5"},
	{"sealed, unanswered", func(*atomic.Int64) func(*testenv.Frame) (bool, bool) {
		return func(f *testenv.Frame) (bool, bool) { return sends(f, "verdict.g."), true }
	}, "yes 4-0-0 of 5", "yes 4-0-0 of 5"},
	{"sealed, not answered", func(*atomic.Int64) func(*testenv.Frame) (bool, bool) {
		return func(f *testenv.Frame) (bool, bool) {
			return f.Dir == testenv.ToServer && f.IsMessage() && strings.Contains(string(f.Payload), `"verdict":{`), false
		}
	}, "yes 4-0-0 of 5", "yes 4-0-0 of 5"},
	{"answered, not announced", func(*atomic.Int64) func(*testenv.Frame) (bool, bool) {
		return func(f *testenv.Frame) (bool, bool) { return sends(f, ".g.g.verdict"), false }
	}, "yes 4-0-0 of 5", "yes 4-0-0 of 5"},
	{"answered and announced", func(*atomic.Int64) func(*testenv.Frame) (bool, bool) {
		return func(f *testenv.Frame) (bool, bool) { return sends(f, ".g.g.verdict"), true }
	}, "yes 4-0-0 of 5", "yes 4-0-0 of 5"},
}

// The leader is killed at each step of a ballot. There is one verdict, and the proposer gets it, or unknown by its
// deadline. RIAPS: polls die with the leader.
func TestLeaderKilled(t *testing.T) {
	for _, k := range killPoints {
		for _, deadline := range []time.Duration{lease / 2, 6 * lease} {
			t.Run(fmt.Sprintf("%s, deadline %v", k.name, deadline), func(t *testing.T) {
				testenv.Run(t, func(t *testing.T, e *testenv.Env) {
					yes := says(vote.Yes())
					all := voters(t, e, yes, yes, yes, yes, yes)
					c := client(t, e)
					stopped := dies(e.Link(all[0].ns), k.at(&atomic.Int64{}))
					got := make(chan vote.Verdict)
					p := vote.Proposal{Topic: "go", Kind: vote.AtLeast(4)}
					go func() { got <- propose(t, c, deadline, p) }()
					<-stopped
					time.Sleep(time.Millisecond) // what had left the process arrives
					e.Kill(all[0].ns)
					v := <-got
					w := k.long
					if deadline < lease {
						w = k.short
					}
					want(t, "V3: "+k.name, v, w)
					again := same(t, c, p, v)
					want(t, "V1: asked again", again, k.long)
					late := client(t, e)
					if v, err := vote.Lookup(t.Context(), late, again.Ballot); err != nil || counts(v) != counts(again) {
						t.Errorf("V1: a late joiner reads %s, %v", counts(v), err)
					}
					for _, m := range all[1:] {
						if n := m.asked.Load(); n != 1 {
							t.Errorf("%s was asked %d times", m.g.ID(), n)
						}
					}
				})
			})
		}
	}
}

// The answer to the seal is lost; the leader lives, finds its own seal and tells it.
func TestSealUnanswered(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		yes := says(vote.Yes())
		all := voters(t, e, yes, yes, yes)
		c := client(t, e)
		var dropped, seals atomic.Int64
		e.Link(all[0].ns).Filter(func(f *testenv.Frame) testenv.Verdict {
			if sends(f, "verdict.g.") {
				seals.Add(1)
			}
			if f.IsAck() && strings.Contains(f.Answers, "verdict.g.") {
				dropped.Add(1)
				return testenv.Drop
			}
			return testenv.Pass
		})
		v := propose(t, c, 2*lease, vote.Proposal{Kind: vote.Consensus})
		want(t, "L4", v, "yes 3-0-0 of 3")
		if dropped.Load() != 1 || seals.Load() != 1 {
			t.Errorf("%d seals, %d answers lost, want one each", seals.Load(), dropped.Load())
		}
		same(t, c, vote.Proposal{Topic: "go", Kind: vote.Consensus}, v)
	})
}

// The seal itself is lost; it is repeated, unchanged, until it lands.
func TestSealLost(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		yes := says(vote.Yes())
		all := voters(t, e, yes, yes, yes)
		c := client(t, e)
		lost := make(chan string, 100)
		undo := e.Link(all[0].ns).Filter(func(f *testenv.Frame) testenv.Verdict {
			if sends(f, "verdict.g.") {
				lost <- string(f.Payload)
				return testenv.Drop
			}
			return testenv.Pass
		})
		p := vote.Proposal{Topic: "go", Kind: vote.Consensus}
		v := propose(t, c, 2*lease, p)
		want(t, "V3: nothing is told before the seal is confirmed", v, "unknown 0-0-0 of 0")
		first := <-lost
		for len(lost) > 0 {
			if s := <-lost; s != first {
				t.Errorf("L4: the seal has changed:\n%s\n%s", first, s)
			}
		}
		undo()
		want(t, "sealed at last", same(t, c, p, v), "yes 3-0-0 of 3")
	})
}

// Two leaders in a row decide the same ballot differently: the seal of the first arrives late, after the second's.
func TestLateSealOfFormerLeader(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		yes := says(vote.Yes())
		all := voters(t, e, says(vote.No("the old leader")), yes, yes)
		c := client(t, e)
		held := e.Link(all[0].ns).Filter(func(f *testenv.Frame) testenv.Verdict {
			if sends(f, "verdict.g.") {
				return testenv.Delay(8 * lease)
			}
			return testenv.Pass
		})
		p := vote.Proposal{Topic: "go", Kind: vote.Consensus, ID: "b1"}
		v := propose(t, c, lease/2, p)
		want(t, "V3", v, "unknown 0-0-0 of 0")
		held()
		if err := all[0].g.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		v = propose(t, c, lease, p)
		want(t, "V1: without the old leader", v, "yes 2-0-0 of 2")
		time.Sleep(10 * lease) // the old seal lands, and is refused
		want(t, "V1", same(t, c, p, v), "yes 2-0-0 of 2")
	})
}

// A ballot under a marker was decided once; it is never run again.
func TestMarkerIsUnknown(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		all := voters(t, e, says(vote.Yes()))
		c := client(t, e)
		p := vote.Proposal{Topic: "go", ID: "b1"}
		propose(t, c, lease, p)
		// The hour is over (the leader's memory of it too): the server leaves a marker for a minute.
		time.Sleep(time.Hour + 10*time.Second)
		v := propose(t, c, lease, p)
		want(t, "V1: under a marker", v, "unknown 0-0-0 of 0")
		if n := all[0].asked.Load(); n != 1 {
			t.Errorf("V1: asked %d times", n)
		}
	})
}

// RIAPS: the default vote timeout is 1500 seconds. Here it is two leases, and there is always an answer.
func TestNoLeader(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		c := client(t, e)
		start := time.Now()
		v, err := vote.Propose(t.Context(), c, vote.Proposal{Topic: "go"})
		if d := time.Since(start); err != nil || v.Verdict != vote.Unknown || v.Ballot == "" || v.Why != "no leader" || d > 2*lease {
			t.Errorf("V3: nobody there: %+v, %v after %v", v, err, d)
		}
		got := make(chan vote.Verdict)
		go func() { got <- propose(t, c, 10*lease, vote.Proposal{}) }()
		time.Sleep(5 * lease)
		start = time.Now()
		g, err := coord.Join(t.Context(), e.Namespace(), "g", coord.Config{ID: "a"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := vote.Join(t.Context(), g, vote.Config{Decide: says(vote.Yes())}); err != nil {
			t.Fatal(err)
		}
		select {
		case v := <-got:
			want(t, "a leader at last", v, "yes 1-0-0 of 1")
			if d := time.Since(start); d > lease/3 {
				t.Errorf("a new leader was asked after %v", d)
			}
		case <-time.After(10 * lease):
			t.Error("V3: no answer")
		}
	})
}

// A proposer that is cut off answers by its deadline too.
func TestProposerCutOff(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		voters(t, e, says(vote.Yes()))
		ns := e.Namespace()
		c, err := coord.Open(t.Context(), ns, "g")
		if err != nil {
			t.Fatal(err)
		}
		e.Cut(ns)
		want(t, "V3: cut off", propose(t, c, lease, vote.Proposal{}), "unknown 0-0-0 of 0")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if v, err := vote.Propose(ctx, c, vote.Proposal{Topic: "go"}); !errors.Is(err, context.Canceled) || v.Verdict != vote.Unknown {
			t.Errorf("cancelled before: %+v, %v", v, err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(lease/2, cancel)
		if v, err := vote.Propose(ctx, c, vote.Proposal{Topic: "go"}); !errors.Is(err, context.Canceled) || v.Verdict != vote.Unknown {
			t.Errorf("cancelled: %+v, %v", v, err)
		}
		got := make(chan vote.Verdict)
		go func() { got <- propose(t, c, 4*lease, vote.Proposal{}) }()
		time.Sleep(lease)
		start := time.Now()
		e.Heal(ns)
		want(t, "healed", <-got, "yes 1-0-0 of 1")
		if d := time.Since(start); d > lease/2 {
			t.Errorf("asked %v after the reconnect", d)
		}
		e.Conn(ns).Close()
		if v, err := vote.Propose(within(t, lease), c, vote.Proposal{Topic: "go"}); !errors.Is(err, quorate.ErrConnClosed) || v.Verdict != vote.Unknown {
			t.Errorf("closed: %+v, %v", v, err)
		}
	})
}

// A proposer that dies leaves no ballot running for ever: what it has asked is sealed by its deadline; and when the leader dies too, nobody runs it any more.
func TestProposerDies(t *testing.T) {
	for _, leaderToo := range []bool{false, true} {
		t.Run(fmt.Sprint("the leader too: ", leaderToo), func(t *testing.T) {
			testenv.Run(t, func(t *testing.T, e *testenv.Env) {
				ended := make(chan struct{}, 8)
				wait := func(ctx context.Context, _ vote.Ballot) vote.Answer { // as long as there is somebody to answer
					<-ctx.Done()
					ended <- struct{}{}
					return vote.Abstain()
				}
				all := voters(t, e, says(vote.Yes()), wait, wait)
				ns := e.Namespace()
				c, err := coord.Open(t.Context(), ns, "g")
				if err != nil {
					t.Fatal(err)
				}
				over := make(chan struct{})
				go func() {
					_, _ = vote.Propose(within(t, 2*lease), c, vote.Proposal{Topic: "go", ID: "b1"}) // nobody is there to hear of it
					close(over)
				}()
				time.Sleep(lease / 6)
				e.Kill(ns)
				if leaderToo {
					e.Kill(all[0].ns)
				}
				<-over
				asked := time.Now()
				for range 2 { // at the ballot's deadline, whoever asked
					select {
					case <-ended:
					case <-time.After(2 * lease):
						t.Fatal("V3: members are still asked")
					}
				}
				time.Sleep(2 * lease)
				last := client(t, e)
				v, err := vote.Lookup(t.Context(), last, "b1")
				if leaderToo {
					if v.Verdict != vote.Unknown {
						t.Errorf("decided without anybody who asks: %s", counts(v))
					}
					time.Sleep(4 * lease)
					for _, m := range all[1:] {
						if n := m.asked.Load(); n != 1 {
							t.Errorf("%s was asked %d times", m.g.ID(), n)
						}
					}
					want(t, "a new ballot", propose(t, last, lease, vote.Proposal{Kind: vote.Consensus}), "timed-out 0-0-0 of 2")
					return
				}
				if err != nil {
					t.Fatalf("V3: not sealed %v after its deadline: %v", time.Since(asked), err)
				}
				want(t, "V3", v, "timed-out 1-0-0 of 3")
			})
		})
	}
}

// The answer to the proposer is lost: it asks again, and the ballot is not run again.
func TestAnswerLost(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		all := voters(t, e, says(vote.Yes()))
		ns := e.Namespace()
		c, err := coord.Open(t.Context(), ns, "g")
		if err != nil {
			t.Fatal(err)
		}
		var lost atomic.Int64
		undo := e.Link(ns).Filter(func(f *testenv.Frame) testenv.Verdict {
			if f.Dir == testenv.ToClient && strings.HasSuffix(f.Answers, "ctl.propose") && lost.Add(1) == 1 {
				return testenv.Drop
			}
			return testenv.Pass
		})
		want(t, "asked again", propose(t, c, 2*lease, vote.Proposal{}), "yes 1-0-0 of 1")
		undo()
		e.Link(ns).Filter(func(f *testenv.Frame) testenv.Verdict {
			if f.Dir == testenv.ToClient && strings.Contains(string(f.Payload), `"verdict":{`) {
				return testenv.Drop
			}
			return testenv.Pass
		})
		want(t, "read from the bucket", propose(t, c, 2*lease, vote.Proposal{}), "yes 1-0-0 of 1")
		if n := all[0].asked.Load(); n != 2 {
			t.Errorf("asked %d times about two ballots", n)
		}
	})
}

// A paused leader tells nothing it may not tell any more.
func TestPausedLeader(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		hold := make(chan struct{})
		slow := func(context.Context, vote.Ballot) vote.Answer { <-hold; return vote.Yes() }
		all := voters(t, e, slow, slow, slow)
		c := client(t, e)
		got := make(chan vote.Verdict)
		p := vote.Proposal{Topic: "go", Kind: vote.AtLeast(2)}
		go func() { got <- propose(t, c, 8*lease, p) }()
		time.Sleep(lease / 2)
		e.Pause(all[0].ns)
		close(hold) // the votes reach a leader that stands still
		time.Sleep(3 * lease)
		e.Resume(all[0].ns)
		v := <-got
		if v.Verdict != vote.Passed || v.Of != 3 && v.Of != 2 {
			t.Errorf("got %s", counts(v))
		}
		same(t, c, p, v)
	})
}

// Many ballots at once, proposed by members and clients, while a leader is killed.
func TestManyBallots(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		yes := says(vote.Yes())
		all := voters(t, e, yes, yes, yes, yes, yes)
		clients := []*coord.Client{client(t, e), all[1].g.Client, all[2].g.Client}
		for round, kill := range []bool{false, true} {
			got := make(chan vote.Verdict, 200)
			for i := range 200 {
				go func() {
					got <- propose(t, clients[i%len(clients)], 8*lease, vote.Proposal{ID: fmt.Sprintf("r%d-%d", round, i), Data: make([]byte, i)})
				}()
			}
			if kill {
				e.Kill(all[0].ns)
			}
			for range 200 {
				if v := <-got; v.Verdict != vote.Passed || v.Of != 5 {
					t.Errorf("%s: got %s (%s)", v.Ballot, counts(v), v.Why)
				}
			}
		}
		for _, m := range all[1:] {
			if n := m.asked.Load(); n > 400 {
				t.Errorf("%s was asked %d times about 400 ballots", m.g.ID(), n)
			}
		}
		if n := e.Invariants().Counts().Verdicts; n < 800 {
			t.Errorf("watchers saw %d verdicts", n)
		}
	})
}
