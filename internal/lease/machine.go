package lease

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quorate/quorate/internal/clock"
	"github.com/quorate/quorate/internal/wire"
)

// Unseen is how long an absent key is waited for at least when its record was never seen (E3).
const Unseen = 10 * time.Second

// Config of a machine; all must be set but Delay and Jitter.
type Config struct {
	ID     string        // who campaigns
	Prefix string        // of the nonces: random, never used before
	Lease  time.Duration // own lease; renewals every sixth of it
	Margin time.Duration // lease/10
	Grace  time.Duration // how long the guarded work may go on after a soft end
	Delay  time.Duration // hand-over delay after an expiry (R14); default 0
	Quorum bool          // an acquired term is not quorate until it is turned (E10)
	Jitter float64       // in [0,1): this candidate's place in the queue when nothing better is known
}

// Kind is what stands under the key.
type Kind int

// Kinds of an [Entry].
const (
	Vacant  Kind = iota // nothing, by an answer that is not older than anything seen of the bucket
	Held                // a record (Rec is nil when it does not decode)
	Release             // a marker of a release: resigned, stepped-down, undone, with a nonce
	Removed             // any other marker
	Gone                // nothing, in a bucket that was made again: whoever held in the old one may still (E3)
)

// An Entry is what a hint or an answer shows of the key.
type Entry struct {
	Kind     Kind
	Rev      uint64 // 0 for Vacant and Gone
	Rec      *wire.Leader
	Replaced uint64   // Release: the revision it replaced, 0 if not known
	Nonce    string   // Release: the nonce of the record it replaced
	Next     string   // Release: the candidate that it is for; "": whoever is first in the queue
	Queue    []string // Release: the first of the queue when it was written; empty: nobody waits, nil: it does not say
}

// A Cause is why a term ended, or is to end.
type Cause int

// Causes.
const (
	Resigned Cause = iota + 1
	StepDown
	Expired    // its deadline came without a confirmed renewal
	Lost       // another's write or removal stands under the key
	BucketLost // the bucket was lost or made again
	ConnClosed // the connection was closed for good
	NotQuorate // turned: fewer members than the minimum (E10)
	Turned     // turned: there are enough by now
)

// WriteKind is what a [Write] is for.
type WriteKind int

// Kinds of writes.
const (
	Acquire WriteKind = iota
	Renew
	Undo // also the release: a purge by revision
	Turn // acquires a new term over the own record (E10)
)

// Inputs.
type (
	// Input is one of the types below.
	Input interface{ input() }
	// Tick says that time has passed.
	Tick struct{}
	// Campaign asks for a term; with Try only if the key is free now.
	Campaign struct{ Try bool }
	// Withdraw ends the campaign; a term that has begun goes on.
	Withdraw struct{}
	// Seen is a hint.
	Seen struct{ Entry Entry }
	// ReadDone answers Read; OK is false when no answer came or it proves nothing.
	ReadDone struct {
		OK    bool
		Entry Entry
	}
	// WriteDone answers Write.
	WriteDone struct {
		Nonce   string
		Outcome Outcome
		Rev     uint64
		Queue   []string // what the write says of the queue, as in an [Entry] or its record's next
	}
	// Stop asks for a soft end of the term: the work is asked to return. To names the candidate that a StepDown is for.
	Stop struct {
		Cause Cause
		To    string
	}
	// Flip asks for a term of the other kind, quorate or not, in place of the present one: a soft end without a release (E10).
	Flip struct{ Quorate bool }
	// Returned says that the guarded work has returned (or that there is none).
	Returned struct{}
	// Reconnected says that hints may have been missed (R16).
	Reconnected struct{}
	// Kill ends the term at once: bucket or connection lost, or the deadline was seen to have passed by somebody who asked.
	Kill struct{ Cause Cause }
)

// Outcome of a write.
type Outcome int

// Outcomes (L4).
const (
	Unknown Outcome = iota
	Yes
	No
)

func (Tick) input()        {}
func (Campaign) input()    {}
func (Withdraw) input()    {}
func (Seen) input()        {}
func (ReadDone) input()    {}
func (WriteDone) input()   {}
func (Stop) input()        {}
func (Returned) input()    {}
func (Flip) input()        {}
func (Kill) input()        {}
func (Reconnected) input() {}

// Effects.
type (
	// Effect is one of the types below.
	Effect interface{ effect() }
	// Read asks for an authoritative read of the key.
	Read struct{}
	// Write asks for one compare-and-set; Undo is a purge with the reason and the nonce of the record it replaces.
	Write struct {
		Kind     WriteKind
		Expected uint64
		Nonce    string // of this write; names it in WriteDone
		Token    uint64 // Renew: the token of the term
		Keeps    bool   // Acquire, Renew, Turn: of a term that is not quorate: it keeps the key and is no leader
		Reason   string // Undo
		Replaces string // Undo: nonce of the record it removes
		Next     string // Undo: the candidate that a release is for
	}
	// Begin says that a term has begun.
	Begin struct {
		Token    uint64
		Deadline clock.Instant
		Expired  bool // its predecessor's lease ran out (false: the key was free)
		Fresh    bool // nothing was ever seen under the key before: the group is new
		Quorate  bool
		After    uint64 // token of the term of this process that it was turned from; 0: acquired
	}
	// Extend moves the deadline of the term.
	Extend struct {
		Token    uint64
		Deadline clock.Instant
	}
	// Asked says that the work is to return (soft end).
	Asked struct {
		Token uint64
		Cause Cause
	}
	// Ended says that the term has ended. Until is when: now, or the deadline that has passed.
	Ended struct {
		Token uint64
		Cause Cause
		Until clock.Instant
	}
	// Turning follows Ended when the term is to be turned: the next one begins as soon as it is campaigned for (E10).
	Turning struct{}
	// Released says that the key is another's, free, or given up on: nothing of the ended term is left to do.
	Released struct{}
	// Busy answers a Try: the key is held, or has to be waited for.
	Busy struct{ Rec *wire.Leader }
)

func (Read) effect()     {}
func (Write) effect()    {}
func (Begin) effect()    {}
func (Extend) effect()   {}
func (Asked) effect()    {}
func (Ended) effect()    {}
func (Released) effect() {}
func (Turning) effect()  {}
func (Busy) effect()     {}

type try struct {
	nonce   string
	sent    clock.Instant
	kind    WriteKind
	expired bool // Acquire: what it takes over ran out
	fresh   bool // Acquire: nothing was ever seen under the key
	keeps   bool
	after   uint64 // Turn: token of the term before
}

// tries are one or two, seldom more: a map of them would take as much memory as the rest of a machine, of which a process may have ten thousand.
type tries []try

func (l tries) find(nonce string) (try, bool) {
	for _, t := range l {
		if t.nonce == nonce {
			return t, true
		}
	}
	return try{}, false
}

func (l *tries) drop(is func(t *try) bool) {
	*l = slices.DeleteFunc(*l, func(t try) bool { return is(&t) })
}

// begins says that a term begins with the write, once it has landed.
func (w try) begins() bool { return w.kind == Acquire || w.kind == Turn }

type flight struct {
	nonce    string
	kind     WriteKind
	expected uint64
	keeps    bool
	next     string
}

// turn is what an ended term leaves behind that is to be turned (E10).
type turn struct {
	keeps    bool // of the next term
	after    uint64
	deadline clock.Instant // of the ended term: from then on it is a lease that ran out
}

type term struct {
	token    uint64
	rev      uint64 // of the last write known to have landed
	deadline clock.Instant
	renewAt  time.Duration // monotonic
	begun    bool          // announced (false during the hand-over delay)
	beginAt  clock.Instant
	expired  bool
	fresh    bool
	keeps    bool // not quorate
	after    uint64
	stopping Cause
	turning  bool // stopping, to be turned and not released
	to       string
	graceEnd clock.Instant
}

// A Machine is one candidate's, and holder's, side of one election.
type Machine struct {
	cfg Config
	out []Effect
	now clock.Instant

	// What is known of the key.
	known     bool
	cur       Entry
	firstSeen clock.Instant // when what is current was first shown (E2)
	maxRev    uint64        // highest revision ever seen (E5)
	everSeen  bool          // anything at all was seen under the key, or the bucket was lost
	lastLease time.Duration // of the last record seen
	next      []string      // queue of the last record seen, or of the release after it
	first     bool          // cur is the first that was shown
	recNonce  string        // of the last record seen, and its revision: to check releases with
	recRev    uint64

	campaign, once bool
	lastNews       time.Duration // monotonic: last answer or hint
	retryAt        time.Duration // monotonic: no write before
	reading        bool
	flight         *flight       // the write in flight
	yield          time.Duration // monotonic: no acquire before
	readRev        uint64        // maxRev when the read under way was asked for
	ghost          bool          // a write of ours was never answered, and what it expects may still stand (R22)
	ghostRev       uint64        // the highest revision that such a write expects
	ghosts         time.Duration // monotonic: until when it is looked for
	count          uint64
	alive          tries // own writes that may still be taken up: of this campaign or this term (E7)

	term     *term
	turn     *turn
	working  bool   // guarded work of the last term has not returned
	giveUp   bool   // an ended term's record is to be removed once the work has returned
	reason   string // of that removal
	to       string // and whom it is for
	releaseT clock.Instant
}

// New makes a machine that knows nothing and wants nothing.
func New(cfg Config) *Machine {
	return &Machine{cfg: cfg}
}

// Step takes one input at the given moment and says what is to be done, in order.
func (m *Machine) Step(now clock.Instant, in Input) []Effect {
	m.now, m.out = now, nil
	m.expire()
	switch in := in.(type) {
	case Tick:
	case Campaign:
		m.campaign, m.once = true, in.Try
		if in.Try || !m.known {
			m.read()
		}
	case Withdraw:
		m.campaign = false
		if m.term != nil && !m.term.begun { // nobody was told of it yet
			m.end(Resigned, now)
			m.working = false
		}
		if m.turn != nil { // nobody is there to take the next term
			m.turn = nil
			m.giveUp, m.reason, m.to, m.releaseT = true, wire.ReasonResign, "", now
		}
	case Seen:
		m.lastNews = now.Mono
		m.seen(in.Entry, false)
	case ReadDone:
		m.reading = false
		if in.OK {
			m.lastNews = now.Mono
			m.seen(in.Entry, true)
		} else {
			m.retryAt = now.Mono + m.pace()
		}
	case WriteDone:
		m.written(in)
	case Stop:
		m.stop(in)
	case Returned:
		m.returned()
	case Flip:
		if t := m.term; t != nil && t.begun && t.stopping == 0 && t.keeps == in.Quorate {
			m.flip(in.Quorate)
		}
	case Reconnected:
		if m.ghost { // R21: a connection that comes back may send what it kept
			m.ghosts = now.Mono + 2*m.cfg.Lease
		}
		if m.term != nil || m.campaign || m.ghost {
			m.read()
		}
	case Kill:
		m.kill(in.Cause)
	}
	m.act()
	return m.out
}

// Next is when Step wants a Tick, on the monotonic clock; false when there is nothing to wait for.
func (m *Machine) Next() (time.Duration, bool) {
	at, any := time.Duration(0), false
	want := func(t time.Duration) {
		if !any || t < at {
			at, any = t, true
		}
	}
	if t := m.term; t != nil {
		want(t.deadline.Mono)
		if !t.begun {
			want(t.beginAt.Mono)
		}
		if m.flight == nil && !m.reading {
			if m.renewing() {
				want(max(t.renewAt, m.retryAt))
			}
			want(max(m.lastNews+m.reconcile(), m.retryAt))
		}
		return at, any
	}
	if m.flight != nil || m.reading {
		return at, any
	}
	if m.ours() {
		if m.turn != nil {
			want(m.turn.deadline.Mono)
		}
		if !m.working && (m.turn == nil || m.campaign) {
			want(m.retryAt)
		}
		return at, any
	}
	if m.campaign && !m.working && m.known {
		want(max(m.due(), m.retryAt))
	}
	if m.campaign || m.haunted() {
		want(max(m.lastNews+m.reconcile(), m.retryAt))
	}
	return at, any
}

// Holding returns the token and deadline of the present term.
func (m *Machine) Holding() (token uint64, deadline clock.Instant, ok bool) {
	if m.term == nil || !m.term.begun {
		return 0, clock.Instant{}, false
	}
	return m.term.token, m.term.deadline, true
}

// Idle says that no term is held, nothing is in flight, and no record of ours is to be removed before the work returns.
func (m *Machine) Idle() bool {
	return m.term == nil && m.flight == nil && !m.reading && (m.working || !m.ours())
}

// Waiting lists the first candidates in the queue, as the last record or release seen names them.
func (m *Machine) Waiting() []string { return m.next }

// Current is what stands under the key as far as known, and whether anything is known.
func (m *Machine) Current() (Entry, bool) { return m.cur, m.known }

func (m *Machine) do(e Effect)         { m.out = append(m.out, e) }
func (m *Machine) pace() time.Duration { return m.cfg.Lease / 30 }

// reconcile is how long after the last news the key is read (R16): a sixth of the lease for the holder and for the first
// in the queue (L5); a little more for the others, so that renewals that are heard in time spare them the read.
func (m *Machine) reconcile() time.Duration {
	if m.term != nil || len(m.next) > 0 && m.next[0] == m.cfg.ID {
		return m.cfg.Lease / 6
	}
	return m.cfg.Lease/6 + m.cfg.Lease/24
}

// haunted says that a write of ours that was never answered may still land.
func (m *Machine) haunted() bool { return m.ghost && m.now.Mono < m.ghosts }

// ours says that a record of ours stands under the key, as far as known.
func (m *Machine) ours() bool {
	return m.known && m.cur.Kind == Held && m.cur.Rec != nil && m.mine(m.cur.Rec.Nonce)
}

func (m *Machine) read() {
	if !m.reading {
		m.reading, m.readRev = true, m.maxRev
		m.do(Read{})
	}
}

func (m *Machine) mine(nonce string) bool {
	return strings.HasPrefix(nonce, m.cfg.Prefix+".")
}

func (m *Machine) write(w Write) {
	m.count++
	w.Nonce = m.cfg.Prefix + "." + strconv.FormatUint(m.count, 10)
	if w.Kind == Undo {
		// E7: a removal that gets no answer may still land: what it removes is never taken up again, not even by a new campaign.
		m.alive.drop(func(t *try) bool { return t.nonce == w.Replaces })
	} else {
		// E1: the moment before sending. The shell performs effects after the step, so any delay errs towards an early end.
		m.alive.drop(func(t *try) bool { return m.now.Reached(m.deadline(t.sent)) }) // a candidate that is cut off for days tries all the time
		t := try{nonce: w.Nonce, sent: m.now, kind: w.Kind, keeps: w.Keeps}
		switch w.Kind {
		case Acquire:
			_, t.expired = m.wait()
			t.fresh = !m.everSeen
		case Turn:
			t.after = m.turn.after
		}
		m.alive = append(m.alive, t)
	}
	m.flight = &flight{nonce: w.Nonce, kind: w.Kind, expected: w.Expected, keeps: w.Keeps, next: w.Next}
	m.do(w)
}

// expire ends a term whose deadline has come, by any clock, before anything else is looked at.
func (m *Machine) expire() {
	if t := m.term; t != nil && m.now.Reached(t.deadline) {
		cause := Expired
		if t.stopping != 0 && m.now.Reached(t.graceEnd) {
			cause = t.stopping // the work did not return within its grace: not released, let run out (R12)
		}
		m.end(cause, t.deadline)
	}
}

// deadline of a term whose last acknowledged write was sent at the given moment (E1).
func (m *Machine) deadline(sent clock.Instant) clock.Instant {
	return sent.Add(m.cfg.Lease - m.cfg.Margin)
}

// seen takes what a hint or an authoritative answer shows.
func (m *Machine) seen(e Entry, read bool) {
	if e.Kind == Vacant || e.Kind == Gone {
		if !read || m.maxRev != m.readRev {
			return // E5: a revision was seen since that read was asked for
		}
		if m.term != nil {
			if e.Kind == Vacant { // our record was there, and an answer no older than it shows that it is not
				m.note(e)
				m.end(Lost, m.now)
			}
			return
		}
	} else if e.Rev < m.maxRev {
		return // E5
	}
	if t := m.term; t != nil {
		if e.Rev <= t.rev {
			return
		}
		own := e.Kind == Held && e.Rec != nil && m.mine(e.Rec.Nonce)
		switch {
		case !read && (own || m.flight != nil):
			return // most likely the renewal in flight; its answer, or the read after it, tells
		case !read:
			m.read() // E8: a hint is no proof
			return
		case own:
			if w, ok := m.alive.find(e.Rec.Nonce); ok {
				t.rev = e.Rev
				m.note(e)
				m.extend(w.sent) // E4
				return
			}
			return // of a past term, landed late: our own compare-and-set will tell
		}
		m.note(e)
		m.end(Lost, m.now)
		return
	}
	m.note(e)
}

// note records what is current, and when it was first shown to be.
func (m *Machine) note(e Entry) {
	if m.known && e.Rev == m.cur.Rev && e.Kind == m.cur.Kind {
		return
	}
	if e.Kind != Vacant && e.Rev > m.ghostRev {
		m.ghost, m.ghostRev = false, 0 // every write that was never answered meets its compare-and-set now
	}
	m.known, m.cur, m.first = true, e, !m.known
	m.firstSeen = m.now // E2: when the answer arrived, not when it was asked for
	m.maxRev = max(m.maxRev, e.Rev)
	if e.Kind != Vacant {
		m.everSeen = true
	}
	if e.Kind == Held && e.Rec != nil {
		m.lastLease, m.next = e.Rec.Lease(), e.Rec.Next
		m.recNonce, m.recRev = e.Rec.Nonce, e.Rev
		if !m.mine(e.Rec.Nonce) {
			m.yield = 0 // somebody has gone first
		}
	}
	if e.Kind == Release && e.Queue != nil {
		m.next = e.Queue // newer than the last renewal's
		if m.term == nil {
			m.retryAt = 0 // it says whose turn it is; what was refused, or not answered, was about what stood there before
		}
	}
}

// wait is how long after firstSeen the key may be taken, and whether the one before has then run out.
func (m *Machine) wait() (d time.Duration, expired bool) {
	like := max(m.cfg.Lease, m.lastLease) // E2
	if m.lastLease == 0 {
		like = max(like, Unseen) // E3
	}
	switch m.cur.Kind {
	case Held:
		if m.cur.Rec == nil { // another version, or no record at all: waited for like a held one
			return max(m.cfg.Lease, Unseen), true
		}
		return like, true
	case Release:
		if m.cur.Replaced != 0 && m.cur.Replaced == m.recRev && m.cur.Nonce != m.recNonce {
			return like, true // not by the author of what it replaced
		}
		return 0, false
	case Vacant:
		if !m.everSeen {
			return 0, false
		}
	}
	return like, true
}

// due is when this candidate's turn comes, on the monotonic clock: the wait, and its place in the queue (L5).
func (m *Machine) due() time.Duration {
	d, _ := m.wait()
	return max(m.firstSeen.Mono+d+m.stagger(), m.yield)
}

func (m *Machine) stagger() time.Duration {
	if !m.everSeen {
		return 0
	}
	hold := time.Duration(0)
	if m.cur.Kind == Release && m.cur.Next != "" {
		if m.cur.Next == m.cfg.ID {
			return 0
		}
		hold = m.cfg.Lease / 4 // E11: longer than the one named takes to find a release that it did not hear of
	}
	return hold + m.place()
}

// place is how long after the first in the queue this candidate tries.
func (m *Machine) place() time.Duration {
	if m.once {
		return 0
	}
	step := m.cfg.Lease / 40
	for i, id := range m.next {
		if id == m.cfg.ID {
			return time.Duration(i) * step
		}
	}
	late := time.Duration(m.cfg.Jitter * float64(m.cfg.Lease/10))
	if len(m.next) == 0 {
		switch e := m.cur; {
		case e.Kind != Release || e.Queue == nil:
			return late / 2
		case m.first || m.mine(e.Nonce):
			return 0 // nobody waits, says a release of our own, or the one that we have come upon: as if the key had never been held
		}
		// There may be others of whom its author had not heard: a little order spares most of them a write that is refused. They are few,
		// for each tells the holder as soon as it waits.
		return late / 10
	}
	return time.Duration(len(m.next))*step + late
}

// act does what is due.
func (m *Machine) act() {
	if m.term == nil && m.ours() {
		m.own()
	}
	if m.term != nil {
		m.hold()
		return
	}
	if m.flight != nil || m.reading || m.ours() {
		return // E9
	}
	if (m.giveUp || m.turn != nil) && m.known {
		m.giveUp, m.turn = false, nil // what stands under the key is not ours
		m.do(Released{})
	}
	if m.campaign && m.known && !m.working && m.now.Mono >= m.retryAt {
		if d, _ := m.wait(); m.now.Waited(m.firstSeen, d+m.stagger()) && m.now.Mono >= m.yield {
			m.write(Write{Kind: Acquire, Expected: m.cur.Rev, Keeps: m.cfg.Quorum})
			return
		}
		if m.once {
			m.campaign = false
			m.do(Busy{m.cur.Rec})
			return
		}
	}
	if (m.campaign || m.haunted()) && m.now.Mono >= max(m.lastNews+m.reconcile(), m.retryAt) {
		m.read()
	}
}

// own deals with a record of ours under the key while we hold no term: an acquire whose answer was lost, or what an
// ended term left behind.
func (m *Machine) own() {
	rec := m.cur.Rec
	if m.flight != nil || m.reading && !m.giveUp {
		return // E9; a release does not wait for a read
	}
	if w, ok := m.alive.find(rec.Nonce); ok && w.begins() && m.campaign && !m.now.Reached(m.deadline(w.sent)) {
		m.begin(m.cur.Rev, w)
		return
	}
	if m.working {
		return // R12: while the guarded work goes on, nothing is released
	}
	if t := m.turn; t != nil {
		if !m.now.Reached(t.deadline) {
			if m.campaign && m.now.Mono >= m.retryAt {
				m.write(Write{Kind: Turn, Expected: m.cur.Rev, Keeps: t.keeps}) // E10
			}
			return
		}
		m.turn = nil // the lease ran out first
		m.giveUp, m.reason, m.to, m.releaseT = true, wire.ReasonUndone, "", m.now
	}
	if m.now.Mono < m.retryAt {
		return
	}
	if m.giveUp && m.now.Waited(m.releaseT, 2*m.cfg.Lease) {
		m.giveUp = false // it runs out by itself
		m.do(Released{})
	}
	reason, to := wire.ReasonUndone, ""
	if m.giveUp {
		reason, to = m.reason, m.to
	}
	m.retryAt = m.now.Mono + m.pace()
	m.write(Write{Kind: Undo, Expected: m.cur.Rev, Reason: reason, Replaces: rec.Nonce, Next: to}) // E7, R22
}

func (m *Machine) written(in WriteDone) {
	f := m.flight
	if f == nil || in.Nonce != f.nonce {
		return // answered already: as unknown
	}
	m.flight = nil
	w, alive := m.alive.find(in.Nonce)
	if in.Outcome != Yes {
		if in.Outcome == Unknown {
			m.ghost, m.ghostRev = true, max(m.ghostRev, f.expected)
			m.ghosts = m.now.Mono + 2*m.cfg.Lease
		}
		m.retryAt = m.now.Mono + m.pace()
		if m.term != nil {
			m.term.renewAt = m.now.Mono
		}
		m.read() // L4: settled by a read, never guessed
		return
	}
	m.lastNews = m.now.Mono
	if f.kind == Undo {
		m.note(Entry{Kind: Release, Rev: in.Rev, Replaced: m.recRev, Nonce: m.recNonce, Next: f.next, Queue: in.Queue})
		return
	}
	rec := &wire.Leader{ID: m.cfg.ID, Nonce: in.Nonce, Next: in.Queue, Params: wire.Params{LeaseMS: wire.ToMS(m.cfg.Lease)}}
	if f.keeps {
		rec.Quorate = new(bool)
	}
	if t := m.term; t != nil {
		rec.Token = t.token
		if in.Rev > t.rev {
			t.rev = in.Rev
			m.note(Entry{Kind: Held, Rev: in.Rev, Rec: rec})
		}
		m.extend(w.sent)
		return
	}
	if in.Rev >= m.maxRev {
		m.note(Entry{Kind: Held, Rev: in.Rev, Rec: rec})
	}
	// E7: a renewal of a term that has ended meanwhile is not taken up; act undoes it.
	if alive && w.begins() && m.campaign && m.cur.Rev == in.Rev && !m.now.Reached(m.deadline(w.sent)) {
		m.begin(in.Rev, w)
	}
}

// begin starts a term whose acquiring write landed as the given revision: its token (L2).
func (m *Machine) begin(rev uint64, w try) {
	if m.term != nil {
		panic("lease: begin in a term")
	}
	m.term = &term{token: rev, rev: rev, deadline: m.deadline(w.sent), renewAt: w.sent.Mono + m.phase(), beginAt: m.now,
		expired: w.expired, fresh: w.fresh, keeps: w.keeps, after: w.after}
	if w.expired {
		m.term.beginAt = m.now.Add(m.cfg.Delay) // R14
	}
	m.working = true
	m.giveUp, m.turn = false, nil
}

// phase is when a term is first renewed: early by up to a twelfth of the lease, so that terms that began together, thousands of one
// process, are not renewed together for ever.
func (m *Machine) phase() time.Duration {
	return m.cfg.Lease/6 - time.Duration(m.cfg.Jitter*float64(m.cfg.Lease/12))
}

// hold does what a holder has to do.
func (m *Machine) hold() {
	t := m.term
	if !t.begun && m.now.Mono >= t.beginAt.Mono {
		t.begun = true
		m.campaign = m.campaign && !m.once
		m.do(Begin{Token: t.token, Deadline: t.deadline, Expired: t.expired, Fresh: t.fresh, Quorate: !t.keeps, After: t.after})
	}
	if m.flight != nil || m.reading {
		return // E9
	}
	if m.renewing() && m.now.Mono >= max(t.renewAt, m.retryAt) {
		t.renewAt = m.now.Mono + m.cfg.Lease/6
		m.write(Write{Kind: Renew, Expected: t.rev, Token: t.token, Keeps: t.keeps})
		return
	}
	if m.now.Mono >= max(m.lastNews+m.reconcile(), m.retryAt) {
		m.retryAt = m.now.Mono + m.pace()
		m.read()
	}
}

// renewing says whether the term is to go on being renewed: not once the work has overrun its grace.
func (m *Machine) renewing() bool {
	t := m.term
	return t.stopping == 0 || !m.now.Reached(t.graceEnd)
}

func (m *Machine) extend(sent clock.Instant) {
	t := m.term
	t.deadline = t.deadline.Later(m.deadline(sent))
	t.renewAt = max(t.renewAt, sent.Mono+m.cfg.Lease/6)
	// Those before can only have landed before; what they say is in the deadline already.
	m.alive.drop(func(t *try) bool { return t.sent.Mono < sent.Mono })
	if t.begun {
		m.do(Extend{Token: t.token, Deadline: t.deadline})
	}
}

func (m *Machine) stop(in Stop) {
	t, cause := m.term, in.Cause
	if t != nil && t.turning { // asked already; now the key is to be let go of too
		t.turning, t.stopping, t.to = false, cause, in.To
		return
	}
	if t == nil || t.stopping != 0 {
		return
	}
	t.stopping, t.to = cause, in.To
	t.graceEnd = m.now.Add(m.cfg.Grace)
	if !t.begun || !m.working {
		m.working = false
		m.end(cause, m.now)
		return
	}
	m.do(Asked{Token: t.token, Cause: cause})
}

// flip asks the work of the term to return, so that its key can be written over for one of the other kind (E10).
func (m *Machine) flip(quorate bool) {
	cause := NotQuorate
	if quorate {
		cause = Turned
	}
	t := m.term
	t.stopping, t.turning = cause, true
	t.graceEnd = m.now.Add(m.cfg.Grace)
	m.do(Asked{Token: t.token, Cause: cause})
	if !m.working {
		m.returned()
	}
}

// returned ends the term that waited for its work.
func (m *Machine) returned() {
	m.working = false
	t := m.term
	if t == nil || t.stopping == 0 {
		return
	}
	m.end(t.stopping, m.now) // E6: the term ends, then the release is sent
	if t.turning {           // E10: or what turns it
		m.giveUp = false
		m.turn = &turn{keeps: !t.keeps, after: t.token, deadline: t.deadline}
		m.do(Turning{})
	}
}

func (m *Machine) kill(cause Cause) {
	if m.term != nil {
		m.end(cause, m.now)
	}
	if m.turn != nil && (cause == BucketLost || cause == ConnClosed) {
		m.turn, m.giveUp = nil, true
	}
	if m.giveUp && (cause == BucketLost || cause == ConnClosed) {
		m.giveUp = false
		m.do(Released{})
	}
	if cause == BucketLost {
		// E3: whatever is found in the new bucket is waited for, and no revision of the old one counts.
		m.known, m.everSeen, m.maxRev, m.flight, m.reading = false, true, 0, nil, false
		m.ghost, m.ghostRev = false, 0
		m.alive = nil
		if m.campaign {
			m.read()
		}
	}
}

// end ends the term (E6, E7): nothing sent before can be taken up again, and its record is removed when the work is back.
func (m *Machine) end(cause Cause, until clock.Instant) {
	t := m.term
	m.term = nil
	m.alive = nil
	m.giveUp, m.releaseT, m.retryAt = true, m.now, 0
	m.reason, m.to = wire.ReasonResign, ""
	if cause == StepDown {
		m.yield = m.now.Mono + m.cfg.Lease/4 // who was asked to step down lets the others go first
		m.reason = wire.ReasonStep
		if t.to != "" {
			m.to = t.to
			m.yield += m.cfg.Lease / 4 // they hold back themselves
		}
	}
	if cause == Expired || cause == Lost {
		m.reason = wire.ReasonUndone
	}
	if t.begun {
		m.do(Ended{Token: t.token, Cause: cause, Until: until})
	} else {
		m.working = false
	}
}
