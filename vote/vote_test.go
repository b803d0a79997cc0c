package vote_test

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

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/testenv"
	"github.com/quorate/quorate/vote"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const lease = 3 * time.Second

// voter is a voting member in a process of its own.
type voter struct {
	ns    *quorate.Namespace
	g     *coord.Group
	v     *vote.Voting
	asked atomic.Int64
}

type decide = func(context.Context, vote.Ballot) vote.Answer

func says(a vote.Answer) decide {
	return func(context.Context, vote.Ballot) vote.Answer { return a }
}

func join(t *testing.T, e *testenv.Env, id string, fn decide) *voter {
	t.Helper()
	return joinWith(t, e, id, fn)
}

func joinWith(t *testing.T, e *testenv.Env, id string, fn decide, cfg ...quorate.Config) *voter {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r := &voter{ns: e.Namespace(cfg...)}
	var err error
	if r.g, err = coord.Join(ctx, r.ns, "g", coord.Config{ID: id}); err != nil {
		t.Fatal(err)
	}
	if r.v, err = vote.Join(ctx, r.g, vote.Config{Decide: func(ctx context.Context, b vote.Ballot) vote.Answer {
		r.asked.Add(1)
		return fn(ctx, b)
	}}); err != nil {
		t.Fatal(err)
	}
	return r
}

// voters joins a to z, so that a leads.
func voters(t *testing.T, e *testenv.Env, fns ...decide) []*voter {
	t.Helper()
	var all []*voter
	for i, fn := range fns {
		all = append(all, join(t, e, string(rune('a'+i)), fn))
	}
	return all
}

func client(t *testing.T, e *testenv.Env) *coord.Client {
	t.Helper()
	c, err := coord.Open(context.Background(), e.Namespace(), "g")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func propose(t *testing.T, c *coord.Client, d time.Duration, p vote.Proposal) vote.Verdict {
	t.Helper()
	if p.Topic == "" {
		p.Topic = "go"
	}
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	v, err := vote.Propose(ctx, c, p)
	if err != nil {
		t.Errorf("ballot %s: %v", v.Ballot, err)
	}
	if ctx.Err() != nil {
		t.Errorf("V3: ballot %s was answered after its deadline", v.Ballot)
	}
	return v
}

func counts(v vote.Verdict) string {
	return fmt.Sprintf("%s %d-%d-%d of %d", v.Verdict, v.Yes, v.No, v.Abstain, v.Of)
}

func want(t *testing.T, what string, v vote.Verdict, w string) {
	t.Helper()
	if got := counts(v); got != w {
		t.Errorf("%s: got %s, want %s (%s)", what, got, w, v.Why)
	}
}

func silent(ctx context.Context, _ vote.Ballot) vote.Answer {
	<-ctx.Done()
	return vote.Abstain()
}

func TestKinds(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		topic := func(m string) decide { // the topic says who answers what
			return func(_ context.Context, b vote.Ballot) vote.Answer {
				switch i := strings.Index(b.Topic, m+":"); b.Topic[i+2] {
				case 'y':
					return vote.Yes()
				case 'n':
					return vote.No("no, says " + m)
				}
				return vote.Abstain()
			}
		}
		voters(t, e, topic("a"), topic("b"), topic("c"))
		c := client(t, e)
		for _, k := range []struct {
			kind      vote.Kind
			answers   string
			verdict   string
			undecided bool // only once all have answered
		}{
			{vote.Majority, "yyn", vote.Passed, false},
			{vote.Majority, "ynn", vote.Failed, false},
			{vote.Majority, "y--", vote.Failed, false}, // abstentions stay in n
			{vote.TwoThirds, "yyn", vote.Passed, false},
			{vote.TwoThirds, "yn-", vote.Failed, false},
			{vote.Consensus, "yyy", vote.Passed, true},
			{vote.Consensus, "yyn", vote.Failed, false},
			{vote.Consensus, "yy-", vote.Failed, false},
			{vote.AtLeast(1), "nny", vote.Passed, false},
			{vote.AtLeast(3), "yyy", vote.Passed, true},
			{vote.AtLeast(4), "yyy", vote.Failed, false}, // more than there are
		} {
			v := propose(t, c, lease, vote.Proposal{Kind: k.kind, Topic: fmt.Sprintf("a:%c b:%c c:%c", k.answers[0], k.answers[1], k.answers[2])})
			if v.Verdict != k.verdict || v.Of != 3 || v.Kind != k.kind || k.undecided && len(v.Silent) > 0 {
				t.Errorf("V2: %s of %s: got %s, want %s", k.kind, k.answers, counts(v), k.verdict)
			}
			if v.Yes+v.No+v.Abstain+len(v.Silent) != v.Of || v.No != len(v.Reasons) {
				t.Errorf("%s of %s: does not add up: %+v", k.kind, k.answers, v)
			}
			for _, r := range v.Reasons {
				if r.Text != "no, says "+r.Member {
					t.Errorf("reason %+v", r)
				}
			}
		}
	})
}

func TestEarly(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		all := voters(t, e, says(vote.Yes()), says(vote.Yes()), says(vote.Yes()))
		c := client(t, e)
		e.Cut(all[2].ns)
		start := time.Now()
		v := propose(t, c, 2*lease, vote.Proposal{})
		want(t, "V2: a majority with one cut off", v, "yes 2-0-0 of 3")
		if d := time.Since(start); d > lease/6 { // RIAPS: a won majority waits for the dead until it times out
			t.Errorf("V2: it took %v of virtual time", d)
		}
		if !slices.Equal(v.Silent, []string{"c"}) {
			t.Errorf("silent: %v, want c", v.Silent)
		}
		v = propose(t, c, lease, vote.Proposal{Kind: vote.Consensus})
		want(t, "V3: a consensus with one cut off", v, "timed-out 2-0-0 of 3")
		if !slices.Equal(v.Silent, []string{"c"}) {
			t.Errorf("silent: %v, want c", v.Silent)
		}
		e.Heal(all[2].ns)
		time.Sleep(lease)
		want(t, "healed", propose(t, c, lease, vote.Proposal{Kind: vote.Consensus}), "yes 3-0-0 of 3")
	})
}

func TestNoVoters(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		g, err := coord.Join(t.Context(), e.Namespace(), "g", coord.Config{ID: "a"})
		if err != nil {
			t.Fatal(err)
		}
		if v, err := vote.Propose(within(t, lease), g.Client, vote.Proposal{Topic: "go"}); !errors.Is(err, vote.ErrNoVoters) || v.Verdict != vote.Unknown {
			t.Fatalf("got %v, %v, want ErrNoVoters", v, err)
		}
		v, err := vote.Join(t.Context(), g, vote.Config{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := vote.Join(t.Context(), g, vote.Config{}); !errors.Is(err, vote.ErrVotes) {
			t.Errorf("joined twice: got %v, want ErrVotes", err)
		}
		want(t, "the default is an abstention", propose(t, g.Client, lease, vote.Proposal{}), "no 0-0-1 of 1")
		if err := v.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := v.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lease)
		if _, err := vote.Propose(within(t, lease), g.Client, vote.Proposal{Topic: "go"}); !errors.Is(err, vote.ErrNoVoters) {
			t.Fatalf("closed: got %v, want ErrNoVoters", err)
		}
	})
}

func TestBadProposals(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		voters(t, e, says(vote.Yes()))
		c := client(t, e)
		for _, p := range []vote.Proposal{
			{},
			{Topic: "go", Kind: "most"},
			{Topic: "go", Kind: vote.AtLeast(0)},
			{Topic: "go", ID: "a.b"},
			{Topic: strings.Repeat("x", 1025)},
			{Topic: "\xff"},
			{Topic: "go", Data: make([]byte, 1<<20)},
		} {
			if _, err := vote.Propose(within(t, lease), c, p); !errors.Is(err, vote.ErrBadProposal) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%.20q %q: got %v, want ErrBadProposal in one line", p.Topic, p.Kind, err)
			}
		}
		want(t, "first", propose(t, c, lease, vote.Proposal{ID: "b1"}), "yes 1-0-0 of 1")
		if _, err := vote.Propose(within(t, lease), c, vote.Proposal{ID: "b1", Topic: "another"}); !errors.Is(err, vote.ErrBadProposal) {
			t.Errorf("the id of another question: got %v, want ErrBadProposal", err)
		}
	})
}

// A member that joins, or comes back as a new incarnation, while a ballot is open does not count in it.
func TestFrozenElectorate(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		opened := make(chan struct{}, 10)
		release := make(chan struct{})
		slow := func(ctx context.Context, b vote.Ballot) vote.Answer {
			opened <- struct{}{}
			<-release
			return vote.Yes()
		}
		all := voters(t, e, slow, slow, says(vote.Yes()))
		c := client(t, e)
		e.Kill(all[2].ns) // its place is still in the electorate, for its membership has not run out
		got := make(chan vote.Verdict)
		go func() { got <- propose(t, c, 10*lease, vote.Proposal{Kind: vote.Consensus}) }()
		<-opened
		<-opened
		d := join(t, e, "d", says(vote.Yes()))  // new
		c2 := join(t, e, "c", says(vote.Yes())) // again: waits for the old one's lease
		time.Sleep(lease)
		close(release)
		v := <-got
		want(t, "V2", v, "timed-out 2-0-0 of 3")
		if !slices.Equal(v.Silent, []string{"c"}) {
			t.Errorf("V2: silent %v, want c", v.Silent)
		}
		if n := d.asked.Load() + c2.asked.Load(); n != 0 {
			t.Errorf("V2: members that are not in the electorate were asked %d times", n)
		}
		want(t, "the next ballot", propose(t, c, lease, vote.Proposal{Kind: vote.Consensus}), "yes 4-0-0 of 4")
	})
}

// unread has a leader's reads of verdicts fail until it is called: ballots that were proposed are not open yet.
func unread(e *testenv.Env, ns *quorate.Namespace) (release func()) {
	return e.Link(ns).Filter(func(f *testenv.Frame) testenv.Verdict {
		if f.Dir == testenv.ToServer && strings.Contains(f.Subject, "MSG.GET") && strings.Contains(string(f.Payload), "verdict.g.") {
			return testenv.Drop
		}
		return testenv.Pass
	})
}

// The electorate is that of the moment at which the round opens: who joined between the proposal and that is in it, who left is not.
func TestElectorateWhenOpened(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		all := voters(t, e, says(vote.Yes()), says(vote.Yes()), says(vote.Yes()))
		release := unread(e, all[0].ns)
		ns := e.Namespace()
		c, err := coord.Open(t.Context(), ns, "g")
		if err != nil {
			t.Fatal(err)
		}
		var asked atomic.Int64
		e.Link(ns).Filter(func(f *testenv.Frame) testenv.Verdict {
			if sends(f, "ctl.propose") && asked.Add(1) > 1 {
				return testenv.Drop // asked once
			}
			return testenv.Pass
		})
		got := make(chan vote.Verdict)
		go func() { got <- propose(t, c, 4*lease, vote.Proposal{Kind: vote.Consensus}) }()
		time.Sleep(lease / 2)
		join(t, e, "d", says(vote.Yes()))
		join(t, e, "e", says(vote.Yes()))
		if err := all[1].g.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lease / 2)
		release()
		want(t, "V2", <-got, "yes 4-0-0 of 4")
	})
}

// Members that have crashed count until their membership has run out: three of five make a majority impossible, and the next ballot is that of who is left (R30).
func TestStaleMembers(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		yes := says(vote.Yes())
		all := voters(t, e, yes, yes, yes, yes, yes)
		c := client(t, e)
		for _, m := range all[2:] {
			e.Kill(m.ns)
		}
		v := propose(t, c, lease, vote.Proposal{})
		want(t, "V2: they count", v, "timed-out 2-0-0 of 5")
		if !slices.Equal(v.Silent, []string{"c", "d", "e"}) {
			t.Errorf("silent: %v", v.Silent)
		}
		time.Sleep(2 * lease)
		want(t, "V2: they do not count any more", propose(t, c, lease, vote.Proposal{}), "yes 2-0-0 of 2")
		want(t, "V1: a seal stays", propose(t, c, lease, vote.Proposal{ID: v.Ballot}), "timed-out 2-0-0 of 5")
	})
}

// A new leader's first ballot counts all members of the roster, also those it has not heard yet.
func TestElectorateOfNewLeader(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		all := voters(t, e, says(vote.Yes()), says(vote.Yes()), says(vote.Yes()), says(vote.Yes()), says(vote.Yes()))
		c := client(t, e)
		time.Sleep(lease)
		for _, m := range all[2:] { // the members' heartbeats come late
			defer e.Link(m.ns).Filter(func(f *testenv.Frame) testenv.Verdict {
				if f.Dir == testenv.ToServer && strings.HasSuffix(f.Subject, ".heartbeat") {
					return testenv.Delay(lease)
				}
				return testenv.Pass
			})()
		}
		got := make(chan vote.Verdict, 20)
		if err := all[0].g.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			go func() { got <- propose(t, c, 2*lease, vote.Proposal{}) }()
		}
		for range 20 {
			if v := <-got; v.Verdict != vote.Passed || v.Of != 4 {
				t.Errorf("V2: got %s, want of 4", counts(v))
			}
		}
	})
}

// Who has joined is in the electorate of the next leader too: Join does not return before the record says that the member votes. Here that is late,
// the leader dies as soon as Join has returned, and the next one does not hear the member.
func TestJoinedIsOnRecord(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		all := voters(t, e, says(vote.Yes()), says(vote.Yes()))
		c := client(t, e)
		ns := e.Namespace()
		g, err := coord.Join(t.Context(), ns, "g", coord.Config{ID: "c"})
		if err != nil {
			t.Fatal(err)
		}
		var late atomic.Int64
		e.Link(ns).Filter(func(f *testenv.Frame) testenv.Verdict {
			if sends(f, "member.g.c") && strings.Contains(string(f.Payload), `"`+coord.RoleVote+`"`) && late.Add(1) == 1 {
				return testenv.Drop
			}
			return testenv.Pass
		})
		if _, err := vote.Join(within(t, 2*lease), g, vote.Config{Decide: says(vote.Yes())}); err != nil {
			t.Fatal(err)
		}
		e.Cut(ns)
		e.Kill(all[0].ns)
		want(t, "V2", propose(t, c, 4*lease, vote.Proposal{Kind: vote.AtLeast(1)}), "yes 1-0-0 of 3")
		if n := late.Load(); n < 2 {
			t.Errorf("the record was written %d times, want one that was lost and another", n)
		}
	})
}

// The same for who has voted before: what the record said then counts for nothing.
func TestJoinedAgainIsOnRecord(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		voters(t, e, says(vote.Yes()))
		b := join(t, e, "b", says(vote.Yes()))
		time.Sleep(lease)
		var blocked, lost atomic.Int64
		blocked.Store(1)
		e.Link(b.ns).Filter(func(f *testenv.Frame) testenv.Verdict {
			if blocked.Load() == 1 && sends(f, "member.g.b") {
				lost.Add(1)
				return testenv.Drop
			}
			return testenv.Pass
		})
		if err := b.v.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lease / 2)
		joined := make(chan error, 1)
		go func() {
			_, err := vote.Join(within(t, 5*lease), b.g, vote.Config{Decide: says(vote.Yes())})
			joined <- err
		}()
		time.Sleep(lease)
		if len(joined) > 0 || lost.Load() < 2 {
			t.Errorf("V2: joined while the record says that it does not vote, or nothing: %v; %d writes lost", len(joined) > 0, lost.Load())
		}
		blocked.Store(0)
		if err := <-joined; err != nil {
			t.Error(err)
		}
	})
}

func TestAnyClient(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		var from sync.Map
		fn := func(_ context.Context, b vote.Ballot) vote.Answer {
			from.Store(b.ID, b)
			return vote.Yes()
		}
		all := voters(t, e, fn, fn)
		outside, follower, lead := client(t, e), all[1].g.Client, all[0].g.Client
		for _, c := range []*coord.Client{outside, follower, lead} {
			v := propose(t, c, lease, vote.Proposal{Kind: vote.Consensus, Data: []byte("x")})
			want(t, "any client", v, "yes 2-0-0 of 2")
			b, ok := from.Load(v.Ballot)
			if !ok {
				t.Fatalf("ballot %s was not asked", v.Ballot)
			}
			if b := b.(vote.Ballot); b.From != c.Self() || b.Of != 2 || string(b.Data) != "x" || b.Kind != vote.Consensus || b.Topic != "go" {
				t.Errorf("ballot %+v", b)
			}
		}
	})
}

// Leaders and broadcasts repeat: a member is asked once.
// What a ballot is about can be a value: it travels as JSON, and what is not JSON is told to who wants it decoded.
func TestJSON(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		type release struct {
			Version string
			Nodes   []int
		}
		voters(t, e, func(_ context.Context, b vote.Ballot) vote.Answer {
			var r release
			if err := b.JSON(&r); err != nil {
				return vote.No(err.Error())
			}
			if r.Version != "v2" || !slices.Equal(r.Nodes, []int{3, 4}) {
				return vote.No(fmt.Sprintf("%+v", r))
			}
			return vote.Yes()
		})
		c := client(t, e)
		v, err := vote.ProposeJSON(within(t, lease), c, vote.Proposal{Topic: "go"}, release{"v2", []int{3, 4}})
		if err != nil {
			t.Fatal(err)
		}
		want(t, "a value", v, "yes 1-0-0 of 1")
		v = propose(t, c, lease, vote.Proposal{ID: "b1", Data: []byte("v2")})
		if text := "data of ballot b1 (2 bytes) is not JSON of type vote_test.release: "; len(v.Reasons) != 1 || !strings.HasPrefix(v.Reasons[0].Text, text) {
			t.Errorf("no JSON: %+v, want %q", v.Reasons, text)
		}
		if v, err := vote.ProposeJSON(within(t, lease), c, vote.Proposal{Topic: "go"}, func() {}); !errors.Is(err, vote.ErrBadProposal) || v.Verdict != vote.Unknown {
			t.Errorf("no value: %s, %v, want ErrBadProposal", v.Verdict, err)
		}
		if v, err := vote.ProposeJSON(within(t, lease), c, vote.Proposal{Topic: "go"}, make([]byte, 512<<10)); !errors.Is(err, vote.ErrBadProposal) || v.Verdict != vote.Unknown {
			t.Errorf("too long: %s, %v, want ErrBadProposal", v.Verdict, err)
		}
	})
}

func TestAskedOnce(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		all := voters(t, e, silent, says(vote.Yes()), says(vote.No("not I")))
		c := client(t, e)
		v := propose(t, c, lease, vote.Proposal{ID: "b1", Kind: vote.AtLeast(2)})
		want(t, "first", v, "timed-out 1-1-0 of 3")
		got := make(chan vote.Verdict)
		go func() { got <- propose(t, c, 6*lease, vote.Proposal{ID: "b2", Kind: vote.Consensus}) }()
		go func() { got <- propose(t, c, 6*lease, vote.Proposal{ID: "b3", Kind: vote.AtLeast(2)}) }()
		if v := <-got; v.Verdict != vote.Failed || v.Ballot != "b2" {
			t.Errorf("decided at once: got %+v", v)
		}
		time.Sleep(lease) // b3 has been broadcast several times
		e.Kill(all[0].ns)
		want(t, "the next leader's round", <-got, "timed-out 1-1-0 of 3")
		for i, n := range []int64{3, 3, 3} {
			if got := all[i].asked.Load(); got != n {
				t.Errorf("%s was asked %d times about 3 ballots", all[i].g.ID(), got)
			}
		}
	})
}

// A member whose membership is in doubt does not vote (M2), though it hears the ballot.
func TestDeafMemberDoesNotVote(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		all := voters(t, e, says(vote.Yes()), says(vote.Yes()))
		c := client(t, e)
		undo := e.Link(all[1].ns).Filter(func(f *testenv.Frame) testenv.Verdict {
			if f.Dir == testenv.ToServer && strings.HasSuffix(f.Subject, ".heartbeat") {
				return testenv.Drop
			}
			return testenv.Pass
		})
		got := make(chan vote.Verdict)
		time.Sleep(2*lease - lease/10) // by its own count it is none any more, by the leader's it still is
		for all[1].g.Live() {
			time.Sleep(lease / 100)
		}
		go func() { got <- propose(t, c, lease/12, vote.Proposal{Kind: vote.Consensus}) }()
		want(t, "M2", <-got, "timed-out 1-0-0 of 2")
		if n := all[1].asked.Load(); n != 0 {
			t.Errorf("M2: asked %d times", n)
		}
		undo()
		time.Sleep(3 * lease)
		want(t, "back as a new incarnation", propose(t, c, lease, vote.Proposal{Kind: vote.Consensus}), "yes 2-0-0 of 2")
	})
}

func TestDecideEnds(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		ended := make(chan error, 10)
		wait := func(ctx context.Context, b vote.Ballot) vote.Answer {
			if _, ok := ctx.Deadline(); !ok || !b.Deadline.After(time.Now()) {
				t.Errorf("Decide without a deadline")
			}
			<-ctx.Done()
			ended <- ctx.Err()
			return vote.Yes()
		}
		all := voters(t, e, says(vote.Yes()), says(vote.Yes()), wait)
		c := client(t, e)
		want(t, "decided without c", propose(t, c, time.Hour, vote.Proposal{}), "yes 2-0-0 of 3")
		if err := <-ended; !errors.Is(err, context.Canceled) { // the verdict was announced
			t.Errorf("got %v", err)
		}
		want(t, "at the deadline", propose(t, c, lease, vote.Proposal{Kind: vote.Consensus}), "timed-out 2-0-0 of 3")
		<-ended
		got := make(chan vote.Verdict)
		go func() { got <- propose(t, c, lease, vote.Proposal{Kind: vote.Consensus}) }()
		time.Sleep(lease / 10)
		if err := all[2].v.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		want(t, "who closed is silent", <-got, "timed-out 2-0-0 of 3")
		want(t, "and in no later one", propose(t, c, lease, vote.Proposal{Kind: vote.Consensus}), "yes 2-0-0 of 2")
	})
}

func TestWatchRecentLookup(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		voters(t, e, says(vote.Yes()))
		c, ns := client(t, e), e.Namespace()
		other, err := coord.Open(t.Context(), ns, "g")
		if err != nil {
			t.Fatal(err)
		}
		propose(t, c, lease, vote.Proposal{ID: "old"})
		type told struct {
			v   vote.Verdict
			err error
		}
		seen := make(chan told, 10)
		watch := func(ctx context.Context) (stop func()) {
			ctx, cancel := context.WithCancel(ctx)
			var done sync.WaitGroup
			done.Go(func() {
				for v, err := range vote.Watch(ctx, other) {
					seen <- told{v, err}
				}
			})
			time.Sleep(time.Second)
			return func() { cancel(); done.Wait() }
		}
		stop := watch(t.Context())
		is := func(id string) {
			t.Helper()
			if w := <-seen; w.err != nil || w.v.Ballot != id || w.v.Verdict != vote.Passed || w.v.DecidedAt.IsZero() {
				t.Errorf("watch: got %+v, want %s", w, id)
			}
		}
		propose(t, c, lease, vote.Proposal{ID: "new"})
		is("new") // and not the old one
		e.Link(ns).DropHints(true)
		propose(t, c, lease, vote.Proposal{ID: "unheard"})
		is("unheard")
		e.Link(ns).DropHints(false)
		e.Cut(ns)
		for i := range 3 {
			propose(t, c, lease, vote.Proposal{ID: fmt.Sprintf("away%d", i)})
		}
		time.Sleep(5 * lease)
		e.Heal(ns)
		for i := range 3 {
			is(fmt.Sprintf("away%d", i))
		}
		stop() // silently
		l, err := vote.Recent(t.Context(), other)
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, v := range l {
			ids = append(ids, v.Ballot)
		}
		if got := strings.Join(ids, " "); got != "old new unheard away0 away1 away2" {
			t.Errorf("recent: %s", got)
		}
		if v, err := vote.Lookup(t.Context(), other, "old"); err != nil || !v.Won() {
			t.Errorf("look up: %+v, %v", v, err)
		}
		if v, err := vote.Lookup(t.Context(), other, "none"); err != nil || v.Verdict != vote.Unknown {
			t.Errorf("look up what is not there: %+v, %v", v, err)
		}
		stop = watch(t.Context())
		other.Close()
		if w := <-seen; !errors.Is(w.err, quorate.ErrClosed) {
			t.Errorf("closed: got %+v, want ErrClosed", w)
		}
		stop()
		if len(seen) > 0 {
			t.Errorf("and then %+v", <-seen)
		}
		if _, err := vote.Propose(within(t, lease), other, vote.Proposal{Topic: "go"}); !errors.Is(err, quorate.ErrClosed) {
			t.Errorf("closed: got %v, want ErrClosed", err)
		}
	})
}

func TestCancel(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		voters(t, e, silent, says(vote.Yes()))
		c, other := client(t, e), client(t, e)
		got := make(chan vote.Verdict)
		go func() { got <- propose(t, c, time.Minute, vote.Proposal{ID: "b1", Kind: vote.Consensus}) }()
		time.Sleep(lease / 2)
		start := time.Now()
		v, err := vote.Cancel(within(t, lease), other, "b1")
		if err != nil {
			t.Fatal(err)
		}
		want(t, "cancelled", v, "timed-out 1-0-0 of 2")
		want(t, "and told so", <-got, "timed-out 1-0-0 of 2")
		if d := time.Since(start); d > lease/6 {
			t.Errorf("it took %v of virtual time", d)
		}
		want(t, "sealed", propose(t, c, lease, vote.Proposal{ID: "b2", Kind: vote.AtLeast(1)}), "yes 1-0-0 of 2")
		v, err = vote.Cancel(within(t, lease), other, "b2")
		if err != nil {
			t.Fatal(err)
		}
		want(t, "V1: a seal stays", v, "yes 1-0-0 of 2")
		if v, err := vote.Cancel(within(t, lease), other, "b3"); !errors.Is(err, vote.ErrNoBallot) || v.Verdict != vote.Unknown {
			t.Errorf("no such ballot: %+v, %v", v, err)
		}
		if _, err := vote.Cancel(within(t, lease), other, "b.3"); err == nil {
			t.Error("a ballot id with a dot was taken")
		}
	})
}

// In a large group a broadcast names nobody: who is not in the electorate answers too, and is not counted.
func TestLargeElectorate(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		const n = 40
		slow := func(ctx context.Context, _ vote.Ballot) vote.Answer {
			select {
			case <-ctx.Done():
			case <-time.After(lease):
			}
			return vote.Yes()
		}
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() { join(t, e, fmt.Sprintf("m%d", i), slow) })
		}
		wg.Wait()
		c := client(t, e)
		got := make(chan vote.Verdict)
		go func() { got <- propose(t, c, 3*lease, vote.Proposal{Kind: vote.Consensus}) }()
		time.Sleep(lease / 4)
		late := join(t, e, "late", says(vote.No("too late")))
		want(t, "V2", <-got, fmt.Sprintf("yes %d-0-0 of %d", n, n))
		if late.asked.Load() == 0 {
			t.Error("the test shows nothing: the late one was not asked")
		}
	})
}
