package ballot

import (
	"container/list"
	"crypto/sha256"
	"slices"
	"strconv"

	"github.com/quorate/quorate/internal/clock"
	"github.com/quorate/quorate/internal/wire"
)

// MaxRemembered is how many ballots a voter remembers. When there are more, the one heard of least recently is forgotten
// before its time.
const MaxRemembered = 1 << 16

// A VoterInput is something that happened to a voter.
type VoterInput interface{ voterInput() }

// BallotIn is a broadcast that was heard, with its reply inbox.
type BallotIn struct {
	Ballot wire.Ballot
	Reply  string
}

// Decided is the answer of the user's function to Decide: yes, no (with a reason); anything else is an abstention.
type Decided struct {
	Ballot string
	Answer string
	Reason string
}

func (BallotIn) voterInput() {}
func (Decided) voterInput()  {}

// A VoterEffect is something for the voter's shell to do.
type VoterEffect interface{ voterEffect() }

// Decide asks the user's function; exactly one Decided answers it.
type Decide struct{ wire.Ballot }

// SendVote sends the vote to the reply inbox of the newest broadcast heard.
type SendVote struct {
	Reply string
	Vote  wire.Vote
	When  *wire.When // of an action: the vote goes through the voter's [Actor], which may turn its yes into a no
}

func (Decide) voterEffect()   {}
func (SendVote) voterEffect() {}

// VoterStats counts what a voter heard.
type VoterStats struct {
	Asked     uint64 // ballots the user's function was asked about
	Repeated  uint64 // broadcasts answered from memory
	NotMine   uint64 // broadcasts whose electorate does not hold this incarnation
	Old       uint64 // broadcasts of a former leader, or with no time left
	Different uint64 // broadcasts that put another question under a known id: not answered
	Forgotten uint64 // ballots forgotten before their time
}

// Voter remembers what one incarnation of a member has answered, so that it is asked once for each ballot id, however
// often, by however many leaders, the ballot is run (design 4.4).
type Voter struct {
	self    wire.Place
	ballots map[string]*list.Element // of *answer
	heard   list.List                // the ballot heard of least recently first: also the order of expiry
	stats   VoterStats
}

// answer is one remembered ballot.
type answer struct {
	ballot   string
	question [sha256.Size]byte
	token    uint64 // of the newest leader that asked
	round    string
	reply    string
	when     *wire.When
	decided  bool
	answer   string
	reason   string
	expires  clock.Instant
}

// NewVoter makes the memory of one incarnation of a member.
func NewVoter(id string, incarnation uint64) *Voter {
	return &Voter{self: wire.Place{ID: id, Incarnation: incarnation}, ballots: make(map[string]*list.Element)}
}

// Stats tells what was heard so far.
func (v *Voter) Stats() VoterStats { return v.stats }

// Remembered is how many ballots are remembered.
func (v *Voter) Remembered() int { return len(v.ballots) }

// Step takes one input. A voter has no deadlines: what has expired is forgotten at the next input.
func (v *Voter) Step(now clock.Instant, in VoterInput) []VoterEffect {
	v.forget(now)
	switch in := in.(type) {
	case BallotIn:
		return v.ballot(now, in)
	case Decided:
		return v.decided(in)
	}
	panic("ballot: unknown voter input")
}

func (v *Voter) ballot(now clock.Instant, in BallotIn) []VoterEffect {
	b := in.Ballot
	switch {
	case wire.CheckBallot(b.Ballot) != nil || len(b.Electors) > 0 && !slices.Contains(b.Electors, v.self):
		v.stats.NotMine++ // another incarnation of this id was meant, or nobody: not ours to answer
		return nil
	case b.LeftMS <= 0:
		v.stats.Old++
		return nil
	}
	q := question(b)
	e, known := v.ballots[b.Ballot]
	if !known {
		a := &answer{ballot: b.Ballot, question: q, token: b.Token, round: b.Round, reply: in.Reply, when: b.When, expires: now.Add(Retention)}
		v.ballots[b.Ballot] = v.heard.PushBack(a)
		v.forget(now)
		v.stats.Asked++
		return []VoterEffect{Decide{b}}
	}
	a := e.Value.(*answer)
	switch {
	case a.question != q:
		v.stats.Different++ // a yes to one question is not a yes to another
		return nil
	case b.Token < a.token:
		v.stats.Old++
		return nil
	}
	a.token, a.round, a.reply, a.when, a.expires = b.Token, b.Round, in.Reply, b.When, now.Add(Retention)
	v.heard.MoveToBack(e)
	if !a.decided {
		return nil // the user's function is at it
	}
	v.stats.Repeated++
	return []VoterEffect{v.send(a)}
}

func (v *Voter) decided(in Decided) []VoterEffect {
	e, ok := v.ballots[in.Ballot]
	if !ok {
		return nil // forgotten meanwhile
	}
	a := e.Value.(*answer)
	if a.decided {
		return nil // the first answer stands
	}
	a.decided, a.answer, a.reason = true, in.Answer, ""
	switch in.Answer {
	case wire.Yes:
	case wire.No:
		a.reason = cut(in.Reason, MaxReason)
	default:
		a.answer = wire.Abstain
	}
	return []VoterEffect{v.send(a)}
}

func (v *Voter) send(a *answer) VoterEffect {
	return SendVote{Reply: a.reply, When: a.when, Vote: wire.Vote{V: wire.Version, Ballot: a.ballot, Round: a.round, ID: v.self.ID,
		Incarnation: v.self.Incarnation, Answer: a.answer, Reason: a.reason}}
}

// forget drops what was not heard of for Retention, the longest a proposal may live. A ballot that the user's function is
// still at is kept, so that no second call is made for it beside the first.
func (v *Voter) forget(now clock.Instant) {
	for range v.heard.Len() {
		e := v.heard.Front()
		a := e.Value.(*answer)
		expired := reached(now, a.expires)
		switch {
		case !expired && len(v.ballots) <= MaxRemembered:
			return
		case expired && !a.decided && len(v.ballots) <= MaxRemembered:
			a.expires = now.Add(Retention)
			v.heard.MoveToBack(e)
			continue
		case !expired:
			v.stats.Forgotten++
		}
		delete(v.ballots, a.ballot)
		v.heard.Remove(e)
	}
}

// question is what a ballot asks, without who asks it and when.
func question(b wire.Ballot) (sum [sha256.Size]byte) {
	h := sha256.New()
	parts := []string{b.Topic, b.Kind, string(b.Data)}
	if b.When != nil { // as the proposer named it: each leader's clock shows it differently
		parts = append(parts, b.When.Wall, strconv.FormatInt(b.When.ToleranceMS, 10))
	}
	for _, s := range parts {
		part := sha256.Sum256([]byte(s)) // parts of fixed size: no two questions run together
		h.Write(part[:])
	}
	h.Sum(sum[:0])
	return sum
}
