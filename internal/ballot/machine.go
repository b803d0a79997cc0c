package ballot

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/quorate/quorate/internal/clock"
	"github.com/quorate/quorate/internal/wire"
)

// Bounds on what one leader carries.
const (
	MaxLeft      = 10 * time.Minute // the longest a request may wait; more is cut to it
	MaxOpen      = 10000            // ballots at once; further ones are answered busy
	MaxOpenBytes = 64 << 20         // bytes of data of all ballots at once; further ones are answered busy
	MaxAsks      = 1024             // requests waiting for one ballot; further ones are answered busy
	MaxFinished  = 1024             // sealed verdicts remembered
	Retention    = 10 * time.Minute // how long they, and a voter's answers, are remembered
	MaxReason    = 256              // bytes of a no's reason; more is cut
	MaxNamed     = 16               // electors that a broadcast names: a hundred named to a hundred double the time of a vote
	maxReasons   = 64 << 10         // bytes of all reasons in one record; further ones are left out

	MaxAhead     = 30 * time.Minute // how far ahead an action's instant may lie: well within the hour that its verdict is kept
	MaxTolerance = time.Minute      // of an action
)

// Codes in wire.ProposalAnswer.Error. The shell adds not-leader and not-quorate.
const (
	CodeBad      = "bad"       // the request cannot be right; Text says why
	CodeNoVoters = "no-voters" // nobody in the group votes
	CodeBusy     = "busy"      // a bound of this package is reached: ask again later
	CodeNoBallot = "no-ballot" // asked to cancel, or for the outcome of, what was neither proposed to this leader nor sealed
	CodeClock    = "clock"     // the instant is on another leader's clock: ask for this one's, and convert it again
)

// An Input is something that happened.
type Input interface{ input() }

// Propose is a request for a verdict. The same ballot asked for by another request is the same ballot.
type Propose struct {
	Handle   any // given back in Answer, never looked at
	Proposal wire.Proposal
	Round    string // random: the name of the round, if this request opens it
	Nonce    string // random: the nonce of the seal, if this request leads to it
}

// VoteIn is a vote that arrived at the reply inbox.
type VoteIn struct{ wire.Vote }

// Found is what a read of a verdict key showed.
type Found int

// What a read can show.
const (
	ReadFailed   Found = iota // no answer, or one that proves nothing
	FoundNone                 // nothing, not even a marker
	FoundVerdict              // a sealed verdict
	FoundMarker               // any marker; also a record of another version or one that does not decode
)

// ReadDone answers Read.
type ReadDone struct {
	Ballot     string
	Found      Found
	Verdict    *wire.Verdict // with FoundVerdict
	Electorate []wire.Place  // with FoundNone: members that vote, as this moment's roster has them; frozen if this opens the round
}

// Outcome is what is known about a seal (L4).
type Outcome int

// The outcomes of a seal.
const (
	SealUnknown Outcome = iota // it may have landed, or may still land
	SealYes                    // landed
	SealNo                     // refused: something is, or was, under the key
)

// SealDone answers Seal.
type SealDone struct {
	Ballot  string
	Outcome Outcome
}

// Cancel is a request to stop a ballot. It is answered like a proposal.
type Cancel struct {
	Handle any
	Ballot string
	LeftMS int64 // time left to the request's deadline; 0: one lease
}

// ReportIn is a voter's report about an action. It is acknowledged, so that the voter stops repeating it.
type ReportIn struct {
	Handle any
	Report wire.Report
}

// Tick says only that time has passed; every Step does what is due.
type Tick struct{}

func (Propose) input()  {}
func (VoteIn) input()   {}
func (ReadDone) input() {}
func (SealDone) input() {}
func (Cancel) input()   {}
func (ReportIn) input() {}
func (Tick) input()     {}

// An Effect is something for the shell to do, in the order given.
type Effect interface{ effect() }

// Read asks for an authoritative read of the ballot's verdict key; exactly one ReadDone answers it.
type Read struct{ Ballot string }

// Broadcast sends the ballot to all members, with the leader's reply inbox.
type Broadcast struct{ wire.Ballot }

// Seal writes the verdict, expecting sequence 0: not even a marker may be there. Exactly one SealDone answers it.
type Seal struct {
	Ballot  string
	Verdict wire.Verdict
}

// Announce tells all members the sealed verdict.
type Announce struct{ wire.Verdict }

// Stop tells all members that an action is not to begin where it has not.
type Stop struct{ wire.Cancel }

// Ack acknowledges a report.
type Ack struct{ Handle any }

// Answer answers one request. Each request is answered once.
type Answer struct {
	Handle any
	Answer wire.ProposalAnswer
}

func (Read) effect()      {}
func (Broadcast) effect() {}
func (Seal) effect()      {}
func (Announce) effect()  {}
func (Stop) effect()      {}
func (Ack) effect()       {}
func (Answer) effect()    {}

// Stats counts what a machine has done. What is refused is not lost without a trace.
type Stats struct {
	Open     int    // ballots right now
	Rounds   uint64 // rounds opened
	Sealed   uint64 // seals of our own confirmed
	Adopted  uint64 // verdicts of others found in place of our seal
	Unknown  uint64 // requests answered unknown
	Resealed uint64 // seals repeated

	Votes      uint64 // counted
	Repeated   uint64 // the same vote again, as a voter does at each broadcast it hears
	Changed    uint64 // refused: another answer from one who had voted
	Late       uint64 // refused: after the decision
	Foreign    uint64 // refused: from nobody in the electorate (another incarnation, too)
	OtherRound uint64 // refused: of another leader's round
	Malformed  uint64 // refused: neither yes, no nor abstain
	Stray      uint64 // refused: of a ballot this leader does not know
}

// Machine runs the ballots of one term. When the term ends the shell drops it: nothing more is told, and the next leader
// runs what was not sealed in a new round when it is asked.
type Machine struct {
	token    uint64
	lease    time.Duration
	ballots  map[string]*ballot
	queue    queue // of ballots by their next deadline
	seq      uint64
	bytes    int // of data in ballots
	finished map[string]*done
	order    []finished // of finished, oldest first
	stats    Stats
	out      []Effect
}

// done is a sealed verdict, and what came of it.
type done struct {
	verdict wire.Verdict
	reports []wire.Report // of an action; one of each place
	told    clock.Instant // when it was announced here; zero: never
}

type finished struct {
	ballot string
	at     clock.Instant
}

// phase of a ballot.
type phase int

const (
	opening phase = iota // the key is being read: nothing asked, nothing decided
	open                 // voters are asked
	sealing              // decided; the record stays as it is from here on
)

// op is one exchange with the bucket. A ballot has at most one in flight.
type op int

const (
	none op = iota
	reading
	writing
)

// ask is one request that waits for a ballot.
type ask struct {
	handle any
	kind   askKind
	closes clock.Instant // when voting has to end for this request's sake
	by     clock.Instant // when it is answered unknown if nothing is confirmed
}

// askKind is what a request wants.
type askKind int

const (
	askVerdict askKind = iota
	askCancel
	askOutcome
)

// ballot is one ballot on its way.
type ballot struct {
	id       string
	seq      uint64 // order of arrival: ballots due together are served in it
	proposed bool   // false: only a Cancel has named it so far
	proposal wire.Proposal
	kind     Kind
	round    string
	nonce    string
	electors []wire.Place
	asks     []ask

	phase     phase
	cancelled bool
	slot      map[wire.Place]int // index of an elector
	votes     []wire.Vote        // by elector; Answer "" is silence
	count     struct{ yes, no, abstain int }
	closes    clock.Instant // voting ends
	again     clock.Instant // next broadcast
	every     time.Duration // wait after it

	record  wire.Verdict // what is sealed
	decided clock.Instant
	sent    clock.Instant
	refused bool // a seal was refused: somebody's verdict, or a marker, was there

	inflight op
	alone    time.Duration // the last wait for a repeat while nobody waited
	retry    op            // what to do at retryAt; none: nothing
	retryAt  clock.Instant

	wake clock.Instant // earliest of all the above; zero: none
	pos  int           // in the queue; -1: not in it
}

// New makes the machine of the term with the given token. The lease paces repeats.
func New(token uint64, lease time.Duration) *Machine {
	return &Machine{
		token:    token,
		lease:    max(lease, 12*time.Millisecond),
		ballots:  make(map[string]*ballot),
		finished: make(map[string]*done),
	}
}

// Stats tells what was done and refused so far.
func (m *Machine) Stats() Stats {
	s := m.stats
	s.Open = len(m.ballots)
	return s
}

// Next is when to Step with a Tick at the latest, by the monotonic reading; the zero Instant when nothing is waited for.
func (m *Machine) Next() clock.Instant {
	if len(m.queue) == 0 {
		return clock.Instant{}
	}
	return m.queue[0].wake
}

// Step takes one input at its moment. What is due comes first, so a vote that arrives at the deadline is late, whether or
// not a Tick came before it. An answer to what was not asked panics.
func (m *Machine) Step(now clock.Instant, in Input) []Effect {
	m.out = nil
	for len(m.queue) > 0 && reached(now, m.queue[0].wake) {
		m.due(now, m.queue[0])
	}
	switch in := in.(type) {
	case Propose:
		m.propose(now, in)
	case Cancel:
		m.cancel(now, in)
	case VoteIn:
		m.vote(now, in.Vote)
	case ReportIn:
		m.report(now, in)
	case ReadDone:
		m.readDone(now, m.answered(in.Ballot, reading, in), in)
	case SealDone:
		m.sealDone(now, m.answered(in.Ballot, writing, in), in)
	case Tick:
	default:
		panic(fmt.Sprintf("ballot: input %T", in))
	}
	return m.out
}

// reached compares the monotonic readings: the deadlines here are waits, not rights.
func reached(now, t clock.Instant) bool { return now.Waited(t, 0) }

func (m *Machine) emit(e Effect) { m.out = append(m.out, e) }

// propose is a request for a verdict.
func (m *Machine) propose(now clock.Instant, in Propose) {
	p := in.Proposal
	switch p.Ask {
	case "":
	case wire.AskClock:
		m.emit(Answer{in.Handle, wire.ProposalAnswer{V: wire.Version, Token: m.token, ClockUS: now.Boot.Microseconds()}})
		return
	case wire.AskOutcome:
		m.look(now, p.Ballot, ask{handle: in.Handle, kind: askOutcome}, p.LeftMS)
		return
	default:
		m.fail(in.Handle, CodeBad, fmt.Sprintf("a proposal that asks for %.32q, which is not known here", p.Ask))
		return
	}
	kind, problem := check(p)
	if problem != "" {
		m.fail(in.Handle, CodeBad, problem)
		return
	}
	// A sealed verdict never changes (V1), so memory is as good as the bucket.
	if d, ok := m.remembered(now, p.Ballot); ok {
		m.tell(ask{handle: in.Handle}, p, d.verdict)
		return
	}
	b := m.ballots[p.Ballot]
	switch {
	case b == nil:
		if b = m.begin(p.Ballot, in.Handle, len(p.Data)); b == nil {
			return
		}
	case len(b.asks) >= MaxAsks:
		m.fail(in.Handle, CodeBusy, fmt.Sprintf("ballot %s: %d requests wait for it already", p.Ballot, MaxAsks))
		return
	case b.proposed && !same(b.proposal, p):
		// The answer to one question must not be taken for the answer to another.
		m.fail(in.Handle, CodeBad, fmt.Sprintf("ballot %s is another proposal's, on %q; take a new id", p.Ballot, b.proposal.Topic))
		return
	case !b.proposed && m.bytes+len(p.Data) > MaxOpenBytes: // a cancellation has named it before, and took no room
		m.full(in.Handle)
		return
	}
	if !b.proposed {
		b.proposed, b.proposal, b.kind = true, p, kind
		b.round, b.nonce = in.Round, in.Nonce
		m.bytes += len(p.Data)
	}
	m.wait(now, b, m.deadlines(now, ask{handle: in.Handle}, p.LeftMS))
}

// cancel is a request to stop, not a verdict: it ends the voting, and the seal says how. After a yes it stops what has not begun.
func (m *Machine) cancel(now clock.Instant, in Cancel) {
	b := m.look(now, in.Ballot, ask{handle: in.Handle, kind: askCancel}, in.LeftMS)
	if b == nil {
		return
	}
	b.cancelled = true
	if b.phase == open {
		m.seal(now, b, wire.TimedOut)
	}
	m.schedule(b)
}

// look takes a request about a ballot that it does not put itself. What is sealed is told at once; else the request waits for it.
func (m *Machine) look(now clock.Instant, id string, a ask, left int64) *ballot {
	if err := wire.CheckBallot(id); err != nil {
		m.fail(a.handle, CodeBad, err.Error())
		return nil
	}
	if d, ok := m.remembered(now, id); ok {
		m.tell(a, wire.Proposal{}, d.verdict)
		m.follow(now, d, a.kind == askCancel, a.kind == askOutcome)
		return nil
	}
	b := m.ballots[id]
	if b == nil {
		if b = m.begin(id, a.handle, 0); b == nil {
			return nil
		}
	} else if len(b.asks) >= MaxAsks {
		m.fail(a.handle, CodeBusy, fmt.Sprintf("ballot %s: %d requests wait for it already", id, MaxAsks))
		return nil
	}
	if left <= 0 {
		left = wire.ToMS(m.lease)
	}
	m.wait(now, b, m.deadlines(now, a, left))
	return b
}

// follow tells all members what is due about a sealed action: that it was cancelled, or, when somebody asks what came of it and not all
// have reported, the verdict again, which makes voters repeat their reports: a former leader may have got them.
func (m *Machine) follow(now clock.Instant, d *done, cancelled, outcome bool) {
	if d.verdict.When == nil || d.verdict.Verdict != wire.Yes {
		return
	}
	if cancelled {
		m.emit(Stop{wire.Cancel{V: wire.Version, Ballot: d.verdict.Ballot}})
	}
	if outcome && len(d.reports) < len(d.verdict.Agreed)+len(d.verdict.Silent) && (d.told.IsZero() || now.Waited(d.told, m.lease/12)) {
		d.told = now
		m.emit(Announce{d.verdict})
	}
}

// reportable is what a voter can say about its part in an action.
var reportable = []string{wire.ReportDone, wire.ReportFailed, wire.ReportLate, wire.ReportCancelled, wire.ReportNone}

// report keeps what a voter says about its part in an action. It is acknowledged in any case: who asks for it hears it too.
func (m *Machine) report(now clock.Instant, in ReportIn) {
	r := in.Report
	m.emit(Ack{in.Handle})
	d, ok := m.remembered(now, r.Ballot)
	if !ok || d.verdict.When == nil || d.verdict.Verdict != wire.Yes || !slices.Contains(reportable, r.Status) ||
		!slices.Contains(d.verdict.Electors, wire.Place{ID: r.ID, Incarnation: r.Incarnation}) {
		return
	}
	r.Text = cut(r.Text, MaxReason) // a thousand of them are to fit in one answer
	if !slices.ContainsFunc(d.reports, func(o wire.Report) bool { return o.ID == r.ID && o.Incarnation == r.Incarnation }) {
		d.reports = append(d.reports, r)
	}
}

// begin takes in a ballot: the first thing is to read its key, since another leader may have sealed it.
func (m *Machine) begin(id string, handle any, size int) *ballot {
	if len(m.ballots) >= MaxOpen || m.bytes+size > MaxOpenBytes {
		m.full(handle)
		return nil
	}
	m.seq++
	b := &ballot{id: id, seq: m.seq, pos: -1}
	m.ballots[id] = b
	m.read(b)
	return b
}

func (m *Machine) full(handle any) {
	m.fail(handle, CodeBusy, fmt.Sprintf("%d ballots with %d bytes are open already; ask again later", len(m.ballots), m.bytes))
}

// wait has one more request wait for a ballot. Nobody may have waited for a while, and what is to be tried again then is not hurried.
func (m *Machine) wait(now clock.Instant, b *ballot, a ask) {
	b.asks = append(b.asks, a)
	if soon := now.Add(m.lease / 12); b.retry != none && b.retryAt.Mono > soon.Mono {
		b.retryAt = soon
	}
	b.alone = 0
	m.schedule(b)
}

// deadlines fixes when a request has to be served, of the time it has left at its receipt (V3; see the package's Timing).
func (m *Machine) deadlines(now clock.Instant, a ask, leftMS int64) ask {
	left := wire.MS(min(leftMS, MaxLeft.Milliseconds())) // cut first: a huge number of milliseconds overflows
	margin := min(m.lease/6, left/4)
	a.closes = now.Add(left - margin)
	a.by = now.Add(left - margin/4)
	return a
}

// answered finds the ballot whose exchange with the bucket has ended.
func (m *Machine) answered(id string, want op, in Input) *ballot {
	b := m.ballots[id]
	if b == nil || b.inflight != want {
		panic(fmt.Sprintf("ballot: %T for %q, which was not asked for", in, id))
	}
	b.inflight = none
	return b
}

func (m *Machine) readDone(now clock.Instant, b *ballot, in ReadDone) {
	if in.Found == FoundVerdict && !sound(in.Verdict, b.id) {
		in.Found = FoundMarker // a foreign hand's: occupied for ever, and nothing to be told
	}
	switch {
	case in.Found == FoundVerdict && b.phase != sealing:
		m.finish(now, b, *in.Verdict, false)
		return
	case in.Found == FoundVerdict:
		// Ours if it carries our nonce, else another leader's came first. Either way it is the one that is sealed.
		if in.Verdict.Nonce == b.record.Nonce {
			m.stats.Sealed++
		} else {
			m.stats.Adopted++
		}
		m.finish(now, b, *in.Verdict, true)
		return
	case in.Found == FoundMarker:
		// Something was decided here, and it is gone: never run, never sealed over.
		m.unknown(b)
		return
	case in.Found == ReadFailed:
		m.later(b, reading, now.Add(m.pause(b)))
	case b.phase == opening:
		b.electors = electorate(in.Electorate)
		m.open(now, b)
		return
	case b.refused:
		// Somebody's verdict was there, so a read that shows nothing is old, or the record was taken away. To seal now
		// could be a second verdict; read again while somebody waits for it.
		m.later(b, reading, now.Add(m.pause(b)))
	default:
		if at := b.sent.Add(m.pause(b)); reached(now, at) {
			m.write(now, b)
		} else {
			m.later(b, writing, at)
		}
	}
	m.schedule(b)
}

func (m *Machine) sealDone(now clock.Instant, b *ballot, in SealDone) {
	switch in.Outcome {
	case SealYes:
		m.stats.Sealed++
		m.finish(now, b, b.record, true)
	case SealNo:
		b.refused = true
		m.read(b)
	case SealUnknown:
		m.read(b) // L4: who holds the key, by nonce, is read and never guessed
	default:
		panic(fmt.Sprintf("ballot: outcome %d of a seal", in.Outcome))
	}
}

// open opens the round: from here on the electorate is frozen (V2).
func (m *Machine) open(now clock.Instant, b *ballot) {
	var until clock.Instant
	for _, a := range b.asks {
		if a.kind == askVerdict && a.closes.Mono > until.Mono {
			until = a.closes
		}
	}
	switch {
	case !b.proposed:
		m.failAll(b, CodeNoBallot, fmt.Sprintf("ballot %s is not open here and was not decided; it runs only if its proposer asks again", b.id))
		return
	case b.proposal.When != nil && b.proposal.When.Token != m.token:
		m.failAll(b, CodeClock, fmt.Sprintf("ballot %s: its instant is on the clock of another leader", b.id))
		return
	case b.proposal.When != nil && b.proposal.When.At()-now.Boot > MaxAhead:
		m.failAll(b, CodeBad, fmt.Sprintf("ballot %s: its instant is more than %s ahead: propose it nearer to it", b.id, MaxAhead))
		return
	case len(b.electors) == 0:
		m.failAll(b, CodeNoVoters, ErrNoVoters.Error())
		return
	case !b.cancelled && reached(now, until):
		// Reading took all the time there was. Nobody was asked, so nothing is to be decided: it can be asked for again.
		m.unknown(b)
		return
	}
	soon := false // too near to its instant: it cannot be won any more
	if w := b.proposal.When; w != nil {
		// The last moment at which a yes may be sealed, or voting ends, whichever is first.
		last := now.Add(w.At() - now.Boot - m.lease/6)
		soon = now.Mono >= last.Mono
		if last.Mono < until.Mono {
			until = last
		}
	}
	m.stats.Rounds++
	b.slot = make(map[wire.Place]int, len(b.electors))
	for i, p := range b.electors {
		b.slot[p] = i
	}
	b.votes = make([]wire.Vote, len(b.electors))
	b.phase, b.closes = open, until
	if b.cancelled || soon {
		m.seal(now, b, wire.TimedOut)
	} else if !m.decide(now, b) { // 'at least 5' of 4 is lost before anybody is asked
		b.every = m.lease / 6
		m.broadcast(now, b)
	}
	m.schedule(b)
}

// broadcast asks the voters (again: a broadcast can be lost). Voters repeat what they said.
func (m *Machine) broadcast(now clock.Instant, b *ballot) {
	// A list of a thousand, sent to a thousand, costs more than all the votes. Without it also those answer who are not in the
	// electorate, and are not counted.
	named := b.electors
	if len(named) > MaxNamed {
		named = nil
	}
	m.emit(Broadcast{wire.Ballot{
		V: wire.Version, Ballot: b.id, Round: b.round, Topic: b.proposal.Topic, Kind: b.kind.String(), Data: b.proposal.Data,
		From: b.proposal.From, LeftMS: wire.ToMS(b.closes.Sub(now)), Token: m.token, Of: len(b.electors), Electors: named, When: b.proposal.When, Trace: b.proposal.Trace,
	}})
	b.again = now.Add(b.every)
	b.every = min(2*b.every, m.lease)
}

// vote counts one vote, or refuses it.
func (m *Machine) vote(now clock.Instant, v wire.Vote) {
	b := m.ballots[v.Ballot]
	if b == nil {
		if _, ok := m.remembered(now, v.Ballot); ok {
			m.stats.Late++
		} else {
			m.stats.Stray++
		}
		return
	}
	if b.phase == opening {
		m.stats.Stray++
		return
	}
	if v.Round != b.round {
		m.stats.OtherRound++
		return
	}
	i, ok := b.slot[wire.Place{ID: v.ID, Incarnation: v.Incarnation}]
	if !ok {
		m.stats.Foreign++
		return
	}
	if v.Answer != wire.Yes && v.Answer != wire.No && v.Answer != wire.Abstain {
		m.stats.Malformed++
		return
	}
	// V2: each member counts once; its first vote stands.
	if first := b.votes[i].Answer; first != "" {
		if first == v.Answer {
			m.stats.Repeated++
		} else {
			m.stats.Changed++
		}
		return
	}
	if b.phase != open {
		m.stats.Late++
		return
	}
	m.stats.Votes++
	v.Reason = cut(v.Reason, MaxReason)
	b.votes[i] = v
	switch v.Answer {
	case wire.Yes:
		b.count.yes++
	case wire.No:
		b.count.no++
	case wire.Abstain:
		b.count.abstain++
	}
	if m.decide(now, b) {
		m.schedule(b)
	}
}

// decide seals as soon as no further vote can change the result (V2).
func (m *Machine) decide(now clock.Instant, b *ballot) bool {
	r, err := Tally(b.kind, len(b.electors), b.count.yes, b.count.no, b.count.abstain)
	if err != nil || r == Pending {
		return false // an empty electorate was refused when the round opened
	}
	verdict := r.String()
	if w := b.proposal.When; w != nil && r == Yes && now.Boot > w.At()-m.lease/6 {
		verdict = wire.TimedOut // a suspend that the monotonic clock did not show: too near for all to learn of it
	}
	m.seal(now, b, verdict)
	return true
}

// seal fixes the record and writes it. Nothing is told before that is confirmed (V1).
func (m *Machine) seal(now clock.Instant, b *ballot, verdict string) {
	b.phase, b.decided = sealing, now
	b.record = wire.Verdict{
		V: wire.Version, Ballot: b.id, Topic: b.proposal.Topic, Kind: b.kind.String(), Verdict: verdict,
		Yes: b.count.yes, No: b.count.no, Abstain: b.count.abstain, Of: len(b.electors), Silent: []string{}, Electors: b.electors,
		DecidedAt: wire.Time(now.WallTime()), Token: m.token, Round: b.round, Nonce: b.nonce, When: b.proposal.When,
	}
	room := maxReasons
	for i, v := range b.votes {
		if v.Answer == "" {
			b.record.Silent = append(b.record.Silent, b.electors[i].ID)
		}
		if v.Answer == wire.Yes && b.record.When != nil {
			b.record.Agreed = append(b.record.Agreed, b.electors[i].ID)
		}
		if v.Answer == wire.No && v.Reason != "" && len(v.Reason) <= room {
			room -= len(v.Reason)
			b.record.Reasons = append(b.record.Reasons, wire.Reason{Member: v.ID, Text: v.Reason})
		}
	}
	m.write(now, b)
}

// write sends the seal. The record is the same each time: a repeat that meets the first try's late landing is refused,
// and a read then finds our own nonce over the very words we told.
func (m *Machine) write(now clock.Instant, b *ballot) {
	if !b.sent.IsZero() {
		m.stats.Resealed++
	}
	b.sent, b.inflight, b.retry = now, writing, none
	m.emit(Seal{Ballot: b.id, Verdict: b.record})
}

func (m *Machine) read(b *ballot) {
	b.inflight, b.retry = reading, none
	m.emit(Read{b.id})
}

func (m *Machine) later(b *ballot, what op, at clock.Instant) { b.retry, b.retryAt = what, at }

// pause is how long after a failed exchange with the bucket it is tried again: ever longer while nobody waits for it. A bucket that takes no writes
// for a while gets no thousands of them each moment.
func (m *Machine) pause(b *ballot) time.Duration {
	if len(b.asks) > 0 {
		return m.lease / 12
	}
	b.alone = min(max(2*b.alone, m.lease/12), m.lease)
	return b.alone
}

// due does what the clock has brought about for one ballot, and schedules or drops it.
func (m *Machine) due(now clock.Instant, b *ballot) {
	if b.phase == open && reached(now, b.closes) {
		m.seal(now, b, wire.TimedOut)
	}
	if b.phase == open && reached(now, b.again) {
		m.broadcast(now, b)
	}
	// V3: an answer by the deadline, whatever the bucket does. The ballot goes on; who asks again joins it.
	b.asks = slices.DeleteFunc(b.asks, func(a ask) bool {
		if !reached(now, a.by) {
			return false
		}
		m.tellUnknown(a)
		return true
	})
	if len(b.asks) == 0 && b.inflight == none && (b.phase == opening || b.refused || b.phase == sealing && now.Waited(b.decided, Retention)) {
		m.drop(b) // nothing of it can be sealed by us any more, or it could not for so long, and nobody waits
		return
	}
	if b.retry != none && reached(now, b.retryAt) {
		if b.retry == writing {
			m.write(now, b)
		} else {
			m.read(b)
		}
	}
	m.schedule(b)
}

// finish tells the verdict that is sealed: everybody who waits, and then, if that is news, all members: to a thousand of them it takes a while.
func (m *Machine) finish(now clock.Instant, b *ballot, v wire.Verdict, announce bool) {
	d := m.remember(now, v)
	outcome := false
	for _, a := range b.asks {
		m.tell(a, b.proposal, v)
		outcome = outcome || a.kind == askOutcome
	}
	if announce {
		d.told = now
		m.emit(Announce{v})
	}
	m.follow(now, d, b.cancelled, outcome)
	m.drop(b)
	m.forget(now)
}

// tell answers one request with a sealed verdict.
func (m *Machine) tell(a ask, p wire.Proposal, v wire.Verdict) {
	if a.kind == askVerdict && (v.Topic != p.Topic || v.Kind != p.Kind || !sameWhen(v.When, p.When)) {
		m.fail(a.handle, CodeBad, fmt.Sprintf("ballot %s was another proposal's, on %q (%s); take a new id", v.Ballot, v.Topic, v.Kind))
		return
	}
	answer := wire.ProposalAnswer{V: wire.Version, Verdict: &v, Token: m.token}
	if d := m.finished[v.Ballot]; a.kind == askOutcome && d != nil {
		answer.Reports = slices.Clone(d.reports)
	}
	m.emit(Answer{a.handle, answer})
}

func (m *Machine) tellUnknown(a ask) {
	m.stats.Unknown++
	m.emit(Answer{a.handle, wire.ProposalAnswer{V: wire.Version, Unknown: true, Token: m.token}})
}

// unknown ends a ballot whose verdict cannot be known here.
func (m *Machine) unknown(b *ballot) {
	for _, a := range b.asks {
		m.tellUnknown(a)
	}
	m.drop(b)
}

func (m *Machine) fail(handle any, code, text string) {
	m.emit(Answer{handle, wire.ProposalAnswer{V: wire.Version, Error: code, Text: text, Token: m.token}})
}

func (m *Machine) failAll(b *ballot, code, text string) {
	for _, a := range b.asks {
		m.fail(a.handle, code, text)
	}
	m.drop(b)
}

func (m *Machine) drop(b *ballot) {
	delete(m.ballots, b.id)
	m.bytes -= len(b.proposal.Data)
	if b.pos >= 0 {
		heap.Remove(&m.queue, b.pos)
	}
}

// remember keeps a sealed verdict for those who ask again.
func (m *Machine) remember(now clock.Instant, v wire.Verdict) *done {
	d := &done{verdict: v}
	m.finished[v.Ballot] = d
	m.order = append(m.order, finished{v.Ballot, now})
	return d
}

func (m *Machine) remembered(now clock.Instant, id string) (*done, bool) {
	m.forget(now)
	d, ok := m.finished[id]
	return d, ok
}

func (m *Machine) forget(now clock.Instant) {
	for len(m.order) > 0 && (len(m.order) > MaxFinished || now.Waited(m.order[0].at, Retention)) {
		delete(m.finished, m.order[0].ballot)
		m.order = m.order[1:]
	}
}

// schedule puts the ballot where its next deadline belongs.
func (m *Machine) schedule(b *ballot) {
	b.wake = clock.Instant{}
	at := func(t clock.Instant) {
		if b.wake.IsZero() || t.Mono < b.wake.Mono {
			b.wake = t
		}
	}
	for _, a := range b.asks {
		at(a.by)
	}
	if b.phase == open {
		at(b.closes)
		at(b.again)
	}
	if b.retry != none {
		at(b.retryAt)
	}
	switch {
	case b.wake.IsZero() && b.pos >= 0:
		heap.Remove(&m.queue, b.pos)
	case b.wake.IsZero():
	case b.pos >= 0:
		heap.Fix(&m.queue, b.pos)
	default:
		heap.Push(&m.queue, b)
	}
}

// queue orders ballots by their next deadline, then by arrival, so that the same inputs give the same effects.
type queue []*ballot

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	if q[i].wake.Mono != q[j].wake.Mono {
		return q[i].wake.Mono < q[j].wake.Mono
	}
	return q[i].seq < q[j].seq
}
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].pos, q[j].pos = i, j
}
func (q *queue) Push(x any) {
	b := x.(*ballot)
	b.pos = len(*q)
	*q = append(*q, b)
}
func (q *queue) Pop() any {
	old := *q
	b := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	b.pos = -1
	return b
}

// check says what is wrong with a proposal ("" when nothing is).
func check(p wire.Proposal) (Kind, string) {
	if err := wire.CheckBallot(p.Ballot); err != nil {
		return 0, err.Error()
	}
	kind, err := ParseKind(p.Kind)
	switch {
	case err != nil:
		return 0, fmt.Sprintf("ballot %s: %v", p.Ballot, err)
	case p.Topic == "":
		return 0, fmt.Sprintf("ballot %s: its topic is empty", p.Ballot)
	case len(p.Topic) > wire.MaxTopic:
		return 0, fmt.Sprintf("ballot %s: its topic is %d bytes long, at most %d are allowed", p.Ballot, len(p.Topic), wire.MaxTopic)
	case !utf8.ValidString(p.Topic):
		return 0, fmt.Sprintf("ballot %s: its topic is not UTF-8", p.Ballot)
	case len(p.Data) > wire.MaxData:
		return 0, fmt.Sprintf("ballot %s: its data is %d bytes long, at most %d are allowed", p.Ballot, len(p.Data), wire.MaxData)
	case p.When != nil && (p.When.ToleranceMS <= 0 || p.When.ToleranceMS > MaxTolerance.Milliseconds()):
		return 0, fmt.Sprintf("ballot %s: a tolerance of %d ms: want from 1 ms to %s", p.Ballot, p.When.ToleranceMS, MaxTolerance)
	case p.When != nil && (p.When.AtUS <= 0 || p.When.AtUS > maxClock || p.When.Token == 0 || len(p.When.Wall) > 64):
		return 0, fmt.Sprintf("ballot %s: its instant (at_us %d, token %d) can be on no leader's clock", p.Ballot, p.When.AtUS, p.When.Token)
	case p.LeftMS <= 0:
		return 0, fmt.Sprintf("ballot %s: no time is left (left_ms %d); give it a later deadline", p.Ballot, p.LeftMS)
	}
	return kind, ""
}

// maxClock bounds an instant: what is above overflows in nanoseconds.
const maxClock = int64(1) << 53

// sound reports whether a record found under the ballot's key can be its verdict.
func sound(v *wire.Verdict, id string) bool {
	return v.Ballot == id && (v.Verdict == wire.Yes || v.Verdict == wire.No || v.Verdict == wire.TimedOut)
}

// same reports whether two proposals ask the same.
func same(p, q wire.Proposal) bool {
	return p.Topic == q.Topic && p.Kind == q.Kind && string(p.Data) == string(q.Data) && sameWhen(p.When, q.When)
}

// sameWhen compares what the proposer asked for; each leader's clock shows it differently.
func sameWhen(v, w *wire.When) bool {
	if v == nil || w == nil {
		return v == w
	}
	return v.Wall == w.Wall && v.ToleranceMS == w.ToleranceMS
}

// electorate copies the snapshot, in order of ids. An id counts once, as its newest incarnation (V2).
func electorate(places []wire.Place) []wire.Place {
	places = slices.Clone(places)
	slices.SortFunc(places, func(p, q wire.Place) int {
		if c := strings.Compare(p.ID, q.ID); c != 0 {
			return c
		}
		return cmp.Compare(q.Incarnation, p.Incarnation)
	})
	return slices.CompactFunc(places, func(p, q wire.Place) bool { return p.ID == q.ID })
}

// cut shortens a text to at most n bytes of valid UTF-8.
func cut(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "")
}
