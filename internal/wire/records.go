package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"
)

// What may be set (design 4.5): no honest process puts anything else into a record or a message.
const (
	MinLease         = 200 * time.Millisecond
	MaxLease         = time.Hour
	MaxMemberTimeout = 8 * time.Hour // records are written again as often
)

// Version is the version of every record and message written by this code.
const Version = 1

// ErrVersion is returned for a record of another version; it is reported by name and never acted on.
var ErrVersion = errors.New("record of another version")

// Params are the group parameters that travel in the leader's record (design 4.5): whoever waits for somebody waits by
// the larger of its own and these. All in milliseconds.
type Params struct {
	LeaseMS         int64 `json:"lease_ms"`
	MemberTimeoutMS int64 `json:"member_timeout_ms,omitempty"`
	SettleMS        int64 `json:"settle_ms,omitempty"`
	CeilingMS       int64 `json:"ceiling_ms,omitempty"`
	AckTimeoutMS    int64 `json:"ack_timeout_ms,omitempty"`
	MinSize         int   `json:"min_size,omitempty"`
	Buckets         int   `json:"buckets,omitempty"` // fixed partitions; -1 asks for none, 0 says nothing
	// Map names how keys go to buckets; only with Buckets.
	Map string `json:"map,omitempty"`
}

// Leader is the value of leader.<group> and election.<name>.
type Leader struct {
	V       int      `json:"v"`
	ID      string   `json:"id"`
	Nonce   string   `json:"nonce"`
	Token   uint64   `json:"token"` // 0 in the acquiring write: its revision is the token
	Value   string   `json:"value,omitempty"`
	Params  Params   `json:"params"`
	Host    string   `json:"host,omitempty"`
	Since   string   `json:"since"`             // RFC 3339, when the term was acquired by its holder's wall clock
	Quorate *bool    `json:"quorate,omitempty"` // false: holds the key but is below its minimum size (no leader)
	Next    []string `json:"next,omitempty"`    // ids of the first candidates in the queue: whose turn it is after a release
}

// Lease is the lease the record's holder counts with.
func (r *Leader) Lease() time.Duration { return MS(r.Params.LeaseMS) }

// Member is the value of member.<group>.<id>.
type Member struct {
	V           int               `json:"v"`
	ID          string            `json:"id"`
	Incarnation uint64            `json:"incarnation"`
	Joined      string            `json:"joined"` // RFC 3339
	Roles       []string          `json:"roles"`
	Meta        map[string]string `json:"meta,omitempty"`
	Weight      int               `json:"weight,omitempty"`
	Zone        string            `json:"zone,omitempty"`
	Host        string            `json:"host,omitempty"`
	PID         int               `json:"pid,omitempty"`
	Version     string            `json:"version,omitempty"`
	Left        uint64            `json:"left,omitempty"`      // incarnation before this one, if it left by itself: it holds nothing
	ReturnMS    int64             `json:"return_ms,omitempty"` // how long its place is kept for it once it has expired
	Nonce       string            `json:"nonce"`
	Params      *Params           `json:"params,omitempty"` // of a member of a group without a leader: its record is a lease on its id
}

// Roles of a member (design 4.2). An observer has none.
const (
	RoleLead = "lead"
	RoleWork = "work"
	RoleVote = "vote"
)

// Phases of a Settled record.
const (
	Settling    = "settling"
	SettledDone = "settled"
)

// Place is one index of a generation: who holds it, as which incarnation.
type Place struct {
	ID          string `json:"id"`
	Incarnation uint64 `json:"inc"`
}

// Settled is the value of settled.<group>.
//
// While settling, Places are those of the generation before (Previous), Generation is 0 (its revision is the
// generation). Once settled, Places are those of Generation, in index order.
type Settled struct {
	V          int     `json:"v"`
	Phase      string  `json:"phase"`
	Generation uint64  `json:"generation"`
	Previous   uint64  `json:"previous,omitempty"`
	Places     []Place `json:"places"`
	Map        string  `json:"map"`
	Buckets    int     `json:"buckets,omitempty"` // fixed partitions that the places share; 0: shares are by index
	// Owners names, for each bucket, the place that has it (an index into Places; -1: nobody), Tokens the generation since which it has. While
	// settling they are those of Previous, and Moving are the buckets that are to be let go of: who has another keeps it.
	Owners          []int    `json:"owners,omitempty"`
	Tokens          []uint64 `json:"tokens,omitempty"`
	Moving          []int    `json:"moving,omitempty"`
	Lost            bool     `json:"lost,omitempty"` // no generation has begun since the record was found missing
	MemberTimeoutMS int64    `json:"member_timeout_ms"`
	Token           uint64   `json:"token"` // of the leader that wrote it
	Nonce           string   `json:"nonce"`
	Cause           string   `json:"cause,omitempty"` // why this generation began: first, joined ID, left ID, ...
	Began           string   `json:"began,omitempty"` // RFC 3339
}

// The maps of keys. MapJump is the only one without buckets: jump(xxh64(key, seed 0), total) is an index. The others give a
// bucket: the hash of the key mod the number of buckets.
const (
	MapJump  = "jump-xxh64"
	MapXXH64 = "mod-xxh64"
	MapFNV1a = "mod-fnv1a32"
)

// MaxBuckets is how many buckets a group can have: with a thousand members the settled record stays at half of NATS' payload limit.
const MaxBuckets = 1 << 14

// Check says what in a settled record contradicts itself: nobody could say whose a bucket is.
func (s *Settled) Check() error {
	switch {
	case s.Phase != Settling && s.Phase != SettledDone:
		return fmt.Errorf("phase %q is neither %s nor %s", s.Phase, Settling, SettledDone)
	case s.Buckets < 0 || s.Buckets > MaxBuckets:
		return fmt.Errorf("%d buckets: 0 to %d are possible", s.Buckets, MaxBuckets)
	case len(s.Owners) != s.Buckets || len(s.Tokens) != s.Buckets:
		return fmt.Errorf("%d buckets, %d owners, %d tokens", s.Buckets, len(s.Owners), len(s.Tokens))
	}
	for b, o := range s.Owners {
		if o < -1 || o >= len(s.Places) {
			return fmt.Errorf("bucket %d is of place %d, and there are %d", b, o, len(s.Places))
		}
	}
	for _, b := range s.Moving {
		if b < 0 || b >= s.Buckets {
			return fmt.Errorf("bucket %d moves, and there are %d", b, s.Buckets)
		}
	}
	return nil
}

// History is the value of history.<group>.<generation>.
type History struct {
	V          int      `json:"v"`
	Group      string   `json:"group"`
	Generation uint64   `json:"generation"`
	Cause      string   `json:"cause"`
	Began      string   `json:"began"`
	Settled    string   `json:"settled"`
	Members    []string `json:"members"`
	Buckets    int      `json:"buckets,omitempty"` // in all
	Moved      int      `json:"moved,omitempty"`   // how many of them changed hands
	Nonce      string   `json:"nonce"`
}

// Verdict is the value of verdict.<group>.<ballot>, and what is announced and answered once it is sealed.
type Verdict struct {
	V         int      `json:"v"`
	Ballot    string   `json:"ballot"`
	Topic     string   `json:"topic"`
	Kind      string   `json:"kind"`
	Verdict   string   `json:"verdict"` // yes, no, timed-out; unknown is never sealed
	Yes       int      `json:"yes"`
	No        int      `json:"no"`
	Abstain   int      `json:"abstain"`
	Of        int      `json:"of"`
	Silent    []string `json:"silent"`
	Agreed    []string `json:"agreed,omitempty"` // of an action: who had said yes when it was decided
	Electors  []Place  `json:"electors,omitempty"`
	Reasons   []Reason `json:"reasons,omitempty"` // of those who said no
	DecidedAt string   `json:"decided_at"`
	Token     uint64   `json:"token"`
	Round     string   `json:"round"`
	Nonce     string   `json:"nonce"`
	When      *When    `json:"when,omitempty"` // of an action: as the round that was decided had it
}

// When is the agreed instant of an action, on the boot-time clock of the leader with that token.
type When struct {
	Token       uint64 `json:"token"`
	AtUS        int64  `json:"at_us"`        // microseconds on that clock
	ToleranceMS int64  `json:"tolerance_ms"` // a voter whose clock is known less well votes no
	Wall        string `json:"wall"`         // RFC 3339: the moment that the proposer named; for people, and part of the question
}

// At is the instant as a reading of the leader's clock.
func (w *When) At() time.Duration { return time.Duration(w.AtUS) * time.Microsecond }

// Tolerance of the action.
func (w *When) Tolerance() time.Duration { return MS(w.ToleranceMS) }

// Report is what a voter says about its part in an action, on the report subject. Done answers it.
type Report struct {
	V           int    `json:"v"`
	Ballot      string `json:"ballot"`
	ID          string `json:"id"`
	Incarnation uint64 `json:"inc"`
	Status      string `json:"status"`             // done, failed, late, cancelled; none
	LateUS      int64  `json:"late_us,omitempty"`  // how long after the instant, on its own clock, it began, or noticed that it was late
	BoundUS     int64  `json:"bound_us,omitempty"` // how far off its clock may have been then
	Text        string `json:"text,omitempty"`     // of failed and late: why
}

// Statuses of a Report.
const (
	ReportDone      = "done"
	ReportFailed    = "failed"
	ReportLate      = "late"
	ReportCancelled = "cancelled"
	ReportNone      = "none" // its answer was not yes: it has no part in the action
)

// Reason is why a member said no.
type Reason struct {
	Member string `json:"member"`
	Text   string `json:"text"`
}

// Verdicts and answers.
const (
	Yes      = "yes"
	No       = "no"
	Abstain  = "abstain"
	TimedOut = "timed-out"
	Unknown  = "unknown"
)

// Heartbeat is a member's request to the leader (design 4.2, 4.3).
type Heartbeat struct {
	V           int      `json:"v"`
	ID          string   `json:"id"`
	Incarnation uint64   `json:"inc"`
	Seq         uint64   `json:"seq"`
	Ack         uint64   `json:"ack"`            // highest generation acknowledged or held
	Hold        uint64   `json:"hold,omitempty"` // generation held right now
	Part        uint64   `json:"part,omitempty"` // generation whose kept buckets it holds, without a share of it yet
	Roles       []string `json:"roles,omitempty"`
	Joined      string   `json:"joined,omitempty"`
	Weight      int      `json:"weight,omitempty"`
	Zone        string   `json:"zone,omitempty"`
	Late        bool     `json:"late,omitempty"` // the member's loop ran late (R29)
	Leave       bool     `json:"leave,omitempty"`
}

// Reply answers a Heartbeat.
type Reply struct {
	V       int    `json:"v"`
	Seq     uint64 `json:"seq"`             // of the heartbeat it answers
	Token   uint64 `json:"token"`           // the answering leader's
	GrantMS int64  `json:"grant_ms"`        // how long membership (and the assignment, if any) is granted for; 0: not granted
	Gen     uint64 `json:"gen,omitempty"`   // assignment: generation, 0 when none is granted
	Index   int    `json:"index,omitempty"` //
	Total   int    `json:"total,omitempty"` //
	Part    bool   `json:"part,omitempty"`  // assignment: only the buckets that are kept, while its generation is being settled
	// Of is how many buckets there are in all (0: none, shares are by index), Count how many of them are granted, Buckets which, and Tokens since
	// when: left out if the heartbeat said that the member has them.
	Of      int      `json:"of,omitempty"`
	Count   int      `json:"count,omitempty"`
	Buckets []int    `json:"buckets,omitempty"`
	Tokens  []uint64 `json:"tokens,omitempty"`
	// Settling is the generation being settled: let go, but for the buckets of Keep, and acknowledge it.
	Settling uint64 `json:"settling,omitempty"`
	Keep     []int  `json:"keep,omitempty"`
	Gone     string `json:"gone,omitempty"`    // this incarnation is no member any more: evicted, expired, superseded, left
	Newest   uint64 `json:"newest,omitempty"`  // with Gone: the highest incarnation of the id that the leader knows
	Wait     bool   `json:"wait,omitempty"`    // another incarnation of the id may still act: nothing granted yet
	Rewrite  bool   `json:"rewrite,omitempty"` // write the member key (again)
	Idle     bool   `json:"idle,omitempty"`    // no generation has places
	LeaseMS  int64  `json:"lease_ms"`          // the leader's lease: the pace of heartbeats
	AckMS    int64  `json:"ack_ms,omitempty"`  // the time a member has to let go
	Map      string `json:"map,omitempty"`     // map of keys to indexes
	Quorate  *bool  `json:"quorate,omitempty"` // false: fewer members than the minimum: nobody leads, and no share is granted
	// Params are what the leader counts with: in the first replies of its term, for who is set otherwise to say so.
	Params  *Params `json:"params,omitempty"`
	ClockUS int64   `json:"clock_us,omitempty"` // the leader's boot-time clock when it answered
}

// Values of Reply.Gone.
const (
	GoneEvicted    = "evicted"
	GoneExpired    = "expired"
	GoneSuperseded = "superseded"
	GoneLeft       = "left"
)

// RosterMember is one line of the answer to ctl.roster.
type RosterMember struct {
	Member
	Status   string `json:"status"` // alive, late
	Leader   bool   `json:"leader,omitempty"`
	Index    *int   `json:"index"`
	LastSeen string `json:"last_seen"` // RFC 3339, by the leader's wall clock
}

// Roster is the answer to ctl.roster.
type Roster struct {
	V          int            `json:"v"`
	Group      string         `json:"group"`
	Leader     string         `json:"leader"`
	Token      uint64         `json:"token"`
	Phase      string         `json:"phase"` // settled, settling, idle, not-quorate
	Generation uint64         `json:"generation"`
	Map        string         `json:"map,omitempty"`
	Total      int            `json:"total"`
	Members    []RosterMember `json:"members"`
	More       bool           `json:"more,omitempty"` // the answer goes on in another message: it is too long for one
	Error      string         `json:"error,omitempty"`
}

// StepDown is the request on ctl.step-down: the term with that token is to end. Done answers it.
type StepDown struct {
	V     int    `json:"v"`
	Token uint64 `json:"token"`
	To    string `json:"to,omitempty"` // the member that is to lead next
}

// Evict is the request on ctl.evict: that incarnation is to be a member no longer. Done answers it.
type Evict struct {
	V           int    `json:"v"`
	ID          string `json:"id"`
	Incarnation uint64 `json:"inc"`
}

// Done answers an operator's request.
type Done struct {
	V     int    `json:"v"`
	Error string `json:"error,omitempty"`
	Text  string `json:"text,omitempty"`
}

// Errors of Done.
const (
	DoneGone      = "already gone" // another term or incarnation is there
	DoneSuccessor = "successor"    // the one named cannot lead
	DoneBad       = "bad"          // the request does not decode
)

// Proposal is the request on ctl.propose.
type Proposal struct {
	V      int    `json:"v"`
	Ballot string `json:"ballot"`
	Topic  string `json:"topic"`
	Kind   string `json:"kind"`
	Data   []byte `json:"data,omitempty"`
	LeftMS int64  `json:"left_ms"` // time left to the proposer's deadline, counted from receipt; at most 10 minutes
	From   string `json:"from,omitempty"`
	When   *When  `json:"when,omitempty"` // of an action
	Ask    string `json:"ask,omitempty"`  // something else than a verdict: clock, outcome
	Trace  Trace  `json:"trace,omitempty"`
}

// Values of Proposal.Ask.
const (
	AskClock   = "clock"   // what the leader's clock shows
	AskOutcome = "outcome" // the reports about a sealed action
)

// Cancel is the request on ctl.cancel: stop a ballot that is not sealed, or an action that has not begun. A ProposalAnswer answers it. The leader
// sends it on to all when the ballot is sealed with yes.
type Cancel struct {
	V      int    `json:"v"`
	Ballot string `json:"ballot"`
	LeftMS int64  `json:"left_ms,omitempty"` // time left to the request's deadline; default one lease
}

// ProposalAnswer answers a Proposal: a sealed verdict, or an error that says why there is none.
type ProposalAnswer struct {
	V       int      `json:"v"`
	Verdict *Verdict `json:"verdict,omitempty"`
	Unknown bool     `json:"unknown,omitempty"` // the verdict cannot be known any more (marker found, seal unconfirmed)
	Error   string   `json:"error,omitempty"`   // no-voters, not-leader, not-quorate, bad: text
	Text    string   `json:"text,omitempty"`
	Token   uint64   `json:"token"`
	ClockUS int64    `json:"clock_us,omitempty"` // asked for the clock
	Reports []Report `json:"reports,omitempty"`  // asked for the outcome: those that this leader has got
}

// Ballot is broadcast on the ballot subject with a reply inbox.
type Ballot struct {
	V        int     `json:"v"`
	Ballot   string  `json:"ballot"`
	Round    string  `json:"round"` // votes count in their round only
	Topic    string  `json:"topic"`
	Kind     string  `json:"kind"`
	Data     []byte  `json:"data,omitempty"`
	From     string  `json:"from,omitempty"`
	LeftMS   int64   `json:"left_ms"`
	Token    uint64  `json:"token"`
	Of       int     `json:"of,omitempty"`       // size of the electorate
	Electors []Place `json:"electors,omitempty"` // the electorate, unless it is large: then all answer, and the leader counts
	When     *When   `json:"when,omitempty"`     // of an action
	Trace    Trace   `json:"trace,omitempty"`    // as the proposal had it
}

// Trace is what ties traces of the proposer and of those who decide together: names and values, of which this package knows nothing.
type Trace = map[string]string

// MaxTrace is how many bytes of names and values it has, at most; more is nothing.
const MaxTrace = 512

// CutTrace is a trace that is not too large, or nil.
func CutTrace(t Trace) Trace {
	size := 0
	for k, v := range t {
		size += len(k) + len(v)
	}
	if size > MaxTrace {
		return nil
	}
	return t
}

// Vote is a member's answer to a Ballot, sent to its reply inbox.
type Vote struct {
	V           int    `json:"v"`
	Ballot      string `json:"ballot"`
	Round       string `json:"round"`
	ID          string `json:"id"`
	Incarnation uint64 `json:"inc"`
	Answer      string `json:"answer"` // yes, no, abstain
	Reason      string `json:"reason,omitempty"`
}

// MS turns a field in milliseconds into a duration. What is too much for one is the longest there is, not what an overflow makes of it.
func MS(ms int64) time.Duration {
	const most = math.MaxInt64 / int64(time.Millisecond)
	return time.Duration(min(max(ms, -most), most)) * time.Millisecond
}

// ToMS turns a duration into whole milliseconds, rounded up.
func ToMS(d time.Duration) int64 {
	ms := d.Milliseconds()
	if d%time.Millisecond > 0 {
		ms++
	}
	return ms
}

// Time formats a wall time as records and events carry it: RFC 3339, UTC, always nine decimals.
func Time(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000000Z") }

// Encode makes the JSON of a record or message.
func Encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("wire: encode %T: %v", v, err)) // every type here marshals
	}
	return b
}

// Decode reads a record or message of this version into v, and bounds its size.
func Decode(data []byte, v any) error {
	if len(data) > MaxRecord {
		return fmt.Errorf("record of %d bytes, at most %d are read", len(data), MaxRecord)
	}
	if ours(data) && json.Unmarshal(data, v) == nil {
		return nil
	}
	var head struct {
		V *int `json:"v"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return fmt.Errorf("not a record: %w", err)
	}
	if head.V == nil {
		return errors.New("not a record: no version")
	}
	if *head.V != Version {
		return fmt.Errorf("%w: %d", ErrVersion, *head.V)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("record does not decode: %w", err)
	}
	return nil
}

// ours says that data, if it is JSON at all, surely is a record of this version: it begins as ours do, and no second version can
// follow, in whatever spelling, which would count instead. That spares nearly all of them the first of two readings.
func ours(data []byte) bool {
	rest, ok := bytes.CutPrefix(data, []byte(`{"v":1`))
	return ok && len(rest) > 0 && (rest[0] == ',' || rest[0] == '}') &&
		bytes.IndexByte(rest, '\\') < 0 && !bytes.Contains(rest, []byte(`"v"`)) && !bytes.Contains(rest, []byte(`"V"`))
}
