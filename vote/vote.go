package vote

import (
	"context"
	"log/slog"
	"strconv"
	"time"

	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/inner"
	"github.com/quorate/quorate/internal/wire"
)

// A Kind is the rule by which a ballot is won; [AtLeast] makes further ones. The text is what the wire and the CLI use.
type Kind string

// The kinds with a name. Abstentions and silence stay in n.
const (
	Majority  Kind = "majority"   // more than half say yes
	TwoThirds Kind = "two-thirds" // at least two thirds say yes
	Consensus Kind = "consensus"  // all say yes
)

// AtLeast is won by k yes, whatever the others say; k is 1 to 10000.
func AtLeast(k int) Kind { return Kind(strconv.Itoa(k)) }

// An Answer is what a member says to a ballot. The zero value is an abstention.
type Answer struct {
	answer string
	reason string
}

// Yes says yes.
func Yes() Answer { return Answer{answer: wire.Yes} }

// No says no, and why: up to 256 bytes of the reason are in the verdict.
func No(reason string) Answer { return Answer{answer: wire.No, reason: reason} }

// Abstain says neither; it stays in the electorate, so it counts against a yes.
func Abstain() Answer { return Answer{answer: wire.Abstain} }

func (a Answer) String() string {
	if a.answer == "" {
		return wire.Abstain
	}
	return a.answer
}

// Reason is why it is a no.
func (a Answer) Reason() string { return a.reason }

// A Ballot is a question to a member.
type Ballot struct {
	ID       string
	Topic    string
	Kind     Kind
	Data     []byte
	From     string    // id of the member that proposed it; "" for a client that is none
	Of       int       // members that are asked
	Deadline time.Time // when voting ends, as this process counts it
	// Of an action: the moment that its proposer named, by the proposer's wall clock, and the tolerance. Zero: it is none.
	At        time.Time
	Tolerance time.Duration
}

// The verdicts, in Verdict.Verdict.
const (
	Passed   = wire.Yes      // enough said yes
	Failed   = wire.No       // enough cannot say yes any more
	TimedOut = wire.TimedOut // neither, by the deadline
	Unknown  = wire.Unknown  // not sealed as far as known here: ask again by the ballot's id
)

// A Verdict is what became of a ballot.
type Verdict struct {
	Ballot    string
	Topic     string
	Kind      Kind
	Verdict   string // yes, no, timed-out; or unknown, and then the counts say nothing
	Yes       int
	No        int
	Abstain   int
	Of        int      // the electorate
	Silent    []string // members that had not answered when it was decided
	Reasons   []Reason // of those who said no
	DecidedAt time.Time
	Why       string // of unknown: what stood in the way
	// Of an action: the moment that its proposer named, the tolerance, and who had said yes when it was decided. [Verdict.Outcome] tells
	// what came of it.
	At        time.Time
	Tolerance time.Duration
	Agreed    []string

	c    *client
	wire wire.Verdict
}

// A Reason is why a member said no.
type Reason struct {
	Member string
	Text   string
}

// Won reports whether the verdict is yes.
func (v Verdict) Won() bool { return v.Verdict == Passed }

func verdict(c client, w wire.Verdict) Verdict {
	v := Verdict{c: &c, wire: w, Agreed: w.Agreed, Ballot: w.Ballot, Topic: w.Topic, Kind: Kind(w.Kind), Verdict: w.Verdict, Yes: w.Yes, No: w.No, Abstain: w.Abstain, Of: w.Of, Silent: w.Silent}
	for _, r := range w.Reasons {
		v.Reasons = append(v.Reasons, Reason(r))
	}
	v.DecidedAt = wireTime(w.DecidedAt)
	if w.When != nil {
		v.At, v.Tolerance = wireTime(w.When.Wall), w.When.Tolerance()
	}
	return v
}

// wireTime reads a moment of a record, for people only.
func wireTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}
	}
	return t
}

// sound reports whether a record can be the sealed verdict of a ballot.
func sound(w wire.Verdict, id string) bool {
	return w.Ballot == id && (w.Verdict == wire.Yes || w.Verdict == wire.No || w.Verdict == wire.TimedOut)
}

// client is what this package needs of one.
type client struct {
	in    *inner.Namespace
	group string
	self  string
	log   *slog.Logger
	ended <-chan struct{}
	cause func() error
}

func of(c *coord.Client) client {
	in := c.Namespace()
	ended, cause := c.Ended()
	return client{in: in, group: c.Name(), self: c.Self(), log: c.Log(), ended: ended, cause: cause}
}

func (c client) key(ballot string) string { return wire.VerdictKey(c.group, ballot) }

// tell lets the invariant watchers hear which verdict this process has told (V1). Unknown is none.
func (c client) tell(w wire.Verdict) {
	c.in.Tell(inner.Event{Kind: inner.VerdictTold, Key: c.key(w.Ballot), Member: c.self, Token: w.Token, Verdict: w.Verdict,
		Live: func() bool { return true }})
}

// readVerdict asks the stream's leader for a ballot's sealed verdict; false: none was found.
func (c client) readVerdict(ctx context.Context, id string) (wire.Verdict, bool, error) {
	e, err := c.in.Store.Read(ctx, c.key(id))
	if err != nil {
		return wire.Verdict{}, false, err
	}
	w, ok := c.record(e)
	return w, ok && w.Ballot == id, nil
}
