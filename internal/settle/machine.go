package settle

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/quorate/quorate/internal/clock"
	"github.com/quorate/quorate/internal/wire"
)

// TTL is what the settled record is stored with; it is stored again, unchanged, every third of it.
const (
	TTL     = 24 * time.Hour
	refresh = TTL / 3
)

// maxReturn is the longest return window.
const maxReturn = 24 * time.Hour

// paramsTold is how many replies to each incarnation carry the leader's parameters: one may be lost.
const paramsTold = 3

// MaxIDs bounds how many member ids a leader keeps in mind. NATS' payload limit of 1 MiB ends a group of workers near
// 10,000 before.
const MaxIDs = 1 << 15

// Config of a machine.
type Config struct {
	Token      uint64        // of the term
	Self       wire.Place    // the leader's own member
	Prefix     string        // of the nonces: random, never used before
	Lease      time.Duration // heartbeats come every sixth of it
	Timeout    time.Duration // member timeout: what a heartbeat is granted for
	Settle     time.Duration // quiet time after a change of the roster
	Ceiling    time.Duration // longest delay under constant change
	AckTimeout time.Duration // how long a holder may go on after the next generation has begun
	Fresh      bool          // the leader's key had never been written: the group is new
	MinSize    int           // members with a role without which nobody leads; 0 or 1: no minimum
	Keeps      bool          // the term keeps the members and leads nobody (S13)
	Fell       bool          // Keeps: because the term before, of this process, fell below the minimum
	Params     wire.Params   // told to the members
	// Buckets is how many fixed buckets the members share, by Map; -1: none, shares are by index; 0: as the settled record has it.
	Buckets int
	Map     string
	// Before is the machine of the term that this one was turned from, if it has served: nobody else had the key in between, so what it knows
	// of its members and of what it granted them holds (S14). It is not used any more.
	Before *Machine
}

// Inputs.
type (
	// Input is one of the types below.
	Input interface{ input() }
	// Tick says that time has passed.
	Tick struct{}
	// Adopt answers ReadSettled. Rec is nil when there is no record; Lost says that there was one (an expiry or a
	// foreign removal), Foreign that what is there does not decode.
	Adopt struct {
		OK            bool
		Rev           uint64
		Rec           *wire.Settled
		Lost, Foreign bool
	}
	// Members answers ReadMembers: the member records as they are stored.
	Members struct {
		OK   bool
		Keys []Key
	}
	// Key is a member record, or its removal, as a hint or an answer shows it.
	Key struct {
		Place   wire.Place // of a removal: only the ID
		Rev     uint64
		Record  *wire.Member // nil: removed
		Reason  string       // of a removal
		Nonce   string       // of a removal: of the record it replaced
		ByToken uint64       // of a removal by a leader
	}
	// Wrote answers WriteSettled.
	Wrote struct {
		Nonce   string
		Outcome Outcome
		Rev     uint64
	}
	// Beat is a heartbeat; Handle comes back with the reply.
	Beat struct {
		Handle any
		HB     wire.Heartbeat
	}
	// Evict removes a member; Incarnation 0 means whichever there is.
	Evict struct{ Place wire.Place }
	// Tune changes the times that nothing is promised about, and how the work is cut, for the rest of the term.
	Tune struct {
		Settle, Ceiling, AckTimeout time.Duration
		Buckets                     int
		Map                         string
	}
	// Reconnected says that the connection to NATS was away.
	Reconnected struct{}
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
func (Adopt) input()       {}
func (Members) input()     {}
func (Key) input()         {}
func (Wrote) input()       {}
func (Beat) input()        {}
func (Evict) input()       {}
func (Tune) input()        {}
func (Reconnected) input() {}

// Effects.
type (
	// Effect is one of the types below.
	Effect interface{ effect() }
	// ReadSettled asks for an authoritative read of the settled record.
	ReadSettled struct{}
	// ReadMembers asks for an authoritative snapshot of the member records.
	ReadMembers struct{}
	// WriteSettled is one compare-and-set of the settled record.
	WriteSettled struct {
		Expected uint64
		Rec      wire.Settled
	}
	// Reply answers a heartbeat; Late, not at once, and perhaps not for the first time (S18, S19).
	Reply struct {
		Handle any
		Reply  wire.Reply
		Late   bool
	}
	// Poke asks every member for a heartbeat now.
	Poke struct{}
	// Remove purges a member's record by revision, unless it says `left` by then.
	Remove struct {
		Place  wire.Place
		Rev    uint64
		Reason string
	}
	// Changed says that Roster or Phase has changed.
	Changed struct{}
	// Settled says that a generation has settled.
	Settled struct {
		Rec  wire.Settled
		Wall time.Duration
	}
	// Turn asks for a term of the other kind in place of this one: leading, or not (S13).
	Turn struct{ Quorate bool }
	// Superseded says that another leader has written the settled record: the term is lost.
	Superseded struct{}
	// Rests says that a member gets no place for so long: that many in a row have not lasted (S17).
	Rests struct {
		Place wire.Place
		For   time.Duration
		Times int
	}
)

func (ReadSettled) effect()  {}
func (ReadMembers) effect()  {}
func (WriteSettled) effect() {}
func (Reply) effect()        {}
func (Poke) effect()         {}
func (Remove) effect()       {}
func (Changed) effect()      {}
func (Settled) effect()      {}
func (Turn) effect()         {}
func (Superseded) effect()   {}
func (Rests) effect()        {}

// member is one incarnation.
type member struct {
	place    wire.Place
	rec      *wire.Member  // as stored; nil if never seen
	roles    []string      // from its heartbeats
	joined   string        //
	taker    Taker         // what it takes of buckets
	heard    time.Duration // monotonic; when its last heartbeat came
	contact  bool          // it was heard in this term
	until    time.Duration // monotonic: its membership as counted here (S3)
	assigned time.Duration // monotonic: its assignment as counted here
	ack      uint64        // highest generation it acknowledged by number
	seq      uint64        // highest heartbeat heard (S8)
	asked    any           // S18: handle of the last heartbeat that was answered with a grant; nil: none in this term
	last     wire.Heartbeat
	held     bool          // S19: it has not been answered yet
	owes     uint64        // generation it has to acknowledge before it gets a place again (S12)
	keyRev   uint64        // revision of its record; 0: none stands
	keyAsk   time.Duration // monotonic: when a missing record is asked for
	late     bool
	placed   time.Duration // monotonic: since when it has a place; 0: not known
	beats    int           // heartbeats heard in this term
	known    bool          // from the term before (S14)
}

// ident is one id.
type ident struct {
	now   *member // the incarnation that is a member
	ended uint64  // incarnations up to here are no members any more
	why   string
	at    time.Duration // monotonic: when that was
	busy  time.Duration // monotonic: until when an incarnation that is no member any more may still act (S7)
	left  uint64        // incarnations up to here had left by themselves
	// removed says that its record was removed before this term, by somebody else: it may not have been told so, or may have been granted more since.
	removed bool
	known   bool          // from the term before (S14)
	kept    *member       // S15: who expired from a place that is kept
	keep    time.Duration // monotonic: until then
	flaps   int           // S17: how often in a row its place did not last
	rests   time.Duration // S17, monotonic: it gets no place before
	newer   uint64        // incarnation that waits for its place
	newerT  time.Duration // monotonic: when it was last heard
}

// A Machine is the group's leader in one term.
type Machine struct {
	cfg   Config
	out   []Effect
	now   clock.Instant
	start time.Duration // monotonic: the answer to the acquiring write
	wait  time.Duration // S2
	count uint64

	haveRec, haveKeys bool // answers of the adoption so far
	asked, askedKeys  bool
	retry             time.Duration
	adopt             Adopt
	ready             bool
	superseded        bool

	ids     map[string]*ident
	holders map[string]*member // S4: of the recorded places by id, also when they are members no longer

	rev     uint64
	rec     wire.Settled
	index   map[wire.Place]int
	pending *wire.Settled // the write in flight or unanswered; repeated unchanged
	busy    bool          // an answer is awaited
	again   time.Duration // monotonic: when an unanswered write is repeated

	written time.Duration // monotonic: when the record was last stored

	shares map[wire.Place][]int // which buckets each place has
	keeps  map[wire.Place][]int // S16, while settling: which of those it keeps
	goesOn map[wire.Place]bool  // S16: whose kept buckets the write in flight leaves to it

	waiting  map[wire.Place]bool // holders that have not let go yet
	holds    bool                // S19: there are heartbeats that are not answered yet
	holdTo   time.Duration       // monotonic: they are by then
	settleAt time.Duration
	silent   time.Duration // S10: nothing is granted before
	carried  bool          // S14: from the term before
	deciding bool          // S6

	dirty       bool // the roster may differ from the places
	firstChange time.Duration
	lastChange  time.Duration
	changing    bool
	desired     desire
	cause       string
	changed     bool

	readyAt time.Duration
	below   bool // S13: this term has fallen below the minimum
	turning bool // another is asked for
	counted bool
	size    int // members that count

	sweepAt  time.Duration
	lastStep time.Duration
	selfAt   time.Duration // when the leader's own heartbeat last came back through NATS
}

// New makes the machine of a term whose acquiring write was answered at start. Its first effects come from a Tick.
func New(cfg Config, start clock.Instant) *Machine {
	m := &Machine{cfg: cfg, start: start.Mono, wait: cfg.Timeout, lastStep: start.Mono, selfAt: start.Mono,
		ids: map[string]*ident{}, holders: map[string]*member{}, index: map[wire.Place]int{}, waiting: map[wire.Place]bool{}}
	if b := cfg.Before; b != nil && b.ready && !b.superseded {
		m.carry(b, start)
	}
	m.cfg.Before = nil
	return m
}

// carry takes over what the term before knew (S14). Timeouts of members start again, as in every new term: heartbeats may have been missed in
// between. What was granted, and to whom, is known exactly.
func (m *Machine) carry(b *Machine, start clock.Instant) {
	m.ids, m.holders = b.ids, b.holders
	m.silent, m.carried = b.silent, true
	m.now = start
	for _, id := range m.ids {
		id.known, id.removed = true, false
		if id.now != nil {
			id.now.known, id.now.beats, id.now.asked, id.now.held = true, 0, nil, false
		}
	}
	for _, h := range m.holders {
		h.known, h.asked, h.held = true, nil, false
	}
	m.restart()
}

// Step takes one input at the given moment and says what is to be done, in order.
func (m *Machine) Step(now clock.Instant, in Input) []Effect {
	m.now, m.out, m.changed = now, nil, false
	if m.superseded {
		m.lastStep = now.Mono
		return nil
	}
	if now.Mono-m.lastStep > m.beat()+m.beat()/2 {
		m.restart() // S9: this process ran late
	}
	m.lastStep = now.Mono
	if m.ready {
		m.quorum() // Q1: what has become due while this process stood still comes before any answer
	}
	switch in := in.(type) {
	case Tick:
	case Adopt:
		m.asked = false
		if !in.OK || in.Foreign {
			m.retry = now.Mono + m.cfg.Lease/30
			break
		}
		m.read(in)
	case Members:
		m.askedKeys = false
		if !in.OK {
			m.retry = now.Mono + m.cfg.Lease/30
			break
		}
		m.haveKeys = true
		if !m.ready {
			m.absent()
		}
		for _, k := range in.Keys {
			m.key(k)
		}
	case Key:
		m.key(in)
	case Wrote:
		m.wrote(in)
	case Beat:
		m.heartbeat(in)
	case Evict:
		m.evict(in.Place)
	case Tune:
		m.tune(in)
	case Reconnected:
		m.restart()
	}
	m.act()
	if m.changed {
		m.do(Changed{})
	}
	return m.out
}

// Next is when Step wants a Tick, on the monotonic clock. A leader always wants one: to see that it ran late.
func (m *Machine) Next() time.Duration {
	at := m.lastStep + m.beat()/2
	if m.superseded {
		return m.lastStep + m.cfg.Timeout // nothing is left to do
	}
	want := func(t time.Duration) {
		if t < at {
			at = t
		}
	}
	if !m.ready {
		want(max(m.retry, m.lastStep+m.cfg.Lease/60))
		return at
	}
	want(m.sweepAt)
	if m.holds {
		want(m.holdTo)
	}
	if m.changing && m.pending == nil && m.rec.Phase == wire.SettledDone && m.Leads() && !m.lacking() {
		want(max(m.settleDue(), m.silent))
	}
	if m.pending != nil && !m.busy && !m.asked {
		want(m.again)
	}
	return max(at, m.lastStep)
}

func (m *Machine) do(e Effect)         { m.out = append(m.out, e) }
func (m *Machine) beat() time.Duration { return m.cfg.Lease / 6 }
func (m *Machine) nonce() string {
	m.count++
	return m.cfg.Prefix + ".s" + strconv.FormatUint(m.count, 10)
}

// Ready says whether the machine serves its group (S1).
func (m *Machine) Ready() bool { return m.ready }

// ---- adoption

func (m *Machine) adoption() {
	if m.pending != nil || m.now.Mono < m.retry {
		return
	}
	if !m.haveKeys && !m.askedKeys {
		m.askedKeys = true
		m.do(ReadMembers{})
	}
	if !m.haveRec {
		if !m.asked {
			m.asked = true
			m.do(ReadSettled{})
		}
		return
	}
	if !m.haveKeys {
		return
	}
	n := wire.Settled{V: wire.Version, Phase: wire.SettledDone, Map: wire.MapJump, Lost: m.adopt.Lost || !m.cfg.Fresh}
	if r := m.adopt.Rec; r != nil {
		n = *r
	}
	m.wait = max(m.cfg.Timeout, min(wire.MS(n.MemberTimeoutMS), wire.MaxMemberTimeout)) // S2
	n.MemberTimeoutMS = wire.ToMS(m.wait)
	if n.Phase == wire.Settling {
		n.Generation = 0 // a rewritten settling record is a new generation
	}
	n.Token, n.Nonce = m.cfg.Token, m.nonce()
	m.send(m.adopt.Rev, n)
}

// read takes an answer to ReadSettled: the adoption's, or the one that settles an unanswered write (L4).
func (m *Machine) read(in Adopt) {
	p := m.pending
	switch {
	case p != nil && in.Rec != nil && in.Rec.Nonce == p.Nonce:
		m.stored(in.Rev)
	case p != nil && in.Rev == m.rev, p != nil && in.Rec != nil && in.Rev < m.rev:
		// It has not landed, or the answer is old: the same write is sent again.
	case !m.ready:
		m.pending = nil // one of mine that lands late is harmless: the next compare-and-set fails, and is read again
		m.adopt, m.haveRec = in, true
	case p != nil:
		m.superseded = true // another leader's write, or the record is gone: this term cannot go on
		m.do(Superseded{})
	}
}

// absent forgets that the records of members from the term before stand: the answer shows which do (R17).
func (m *Machine) absent() {
	for _, id := range m.ids {
		if mb := id.now; mb != nil && mb.known {
			mb.keyRev, mb.keyAsk = 0, m.now.Mono
		}
	}
}

func (m *Machine) adopted(rev uint64, rec wire.Settled) {
	m.ready, m.readyAt = true, m.now.Mono
	if rec.Lost && (!m.carried || m.adopt.Rec == nil) {
		m.silent = m.start + m.wait // S10: also if a leader before found it lost, and nothing has settled since
	}
	m.install(rev, rec)
	m.settleAt = m.now.Mono
	for _, id := range m.ids {
		if mb := id.now; mb != nil && !mb.contact && !mb.known {
			mb.until = max(mb.until, m.start+m.wait)
		}
		if id.removed {
			id.busy = m.start + m.wait // S2, S7
		}
	}
	m.dirty, m.changed = true, true
	m.do(Poke{})
}

// install makes a stored record the current one.
func (m *Machine) install(rev uint64, rec wire.Settled) {
	if rec.Phase == wire.Settling && rec.Generation == 0 {
		rec.Generation = rev // the revision of the settling write is the generation
	}
	m.rev, m.rec = rev, rec
	clear(m.index)
	clear(m.waiting)
	m.holdings()
	holders := make(map[string]*member, len(rec.Places))
	for i, p := range rec.Places {
		m.index[p] = i
		mb := m.member(p) // what was granted to a holder that is no member any more goes on counting (S4)
		if !mb.contact && !mb.known && p.Incarnation > m.ident(p.ID).left {
			// S2: from the answer to the acquiring write on, also for those who are no members any more.
			mb.until = max(mb.until, m.start+m.wait)
			mb.assigned = max(mb.assigned, m.start+m.wait)
		}
		holders[p.ID] = mb
		switch {
		case rec.Phase == wire.Settling:
			m.waiting[p] = true
		case m.ready && mb.placed == 0:
			mb.placed = m.now.Mono
		}
	}
	m.holders = holders
	m.sweepAt = m.now.Mono
}

// member finds an incarnation, or makes one that was not heard of yet.
func (m *Machine) member(p wire.Place) *member {
	if h := m.holder(p); h != nil {
		return h
	}
	id := m.ident(p.ID)
	if id.now != nil && id.now.place == p {
		return id.now
	}
	mb := &member{place: p}
	if p.Incarnation > id.ended && (id.now == nil || id.now.place.Incarnation < p.Incarnation) {
		id.now = mb
		m.dirty, m.changed = true, true
	}
	return mb
}

// holder finds the holder of a recorded place.
func (m *Machine) holder(p wire.Place) *member {
	if h := m.holders[p.ID]; h != nil && h.place == p {
		return h
	}
	return nil
}

func (m *Machine) ident(name string) *ident {
	id, ok := m.ids[name]
	if !ok {
		id = &ident{}
		m.ids[name] = id
	}
	return id
}

// ---- member records

func (m *Machine) key(k Key) {
	id := m.ident(k.Place.ID)
	if k.Record == nil {
		if !m.ready {
			m.removed(id, k)
		}
		mb := id.now
		if mb == nil || k.Rev < mb.keyRev {
			return
		}
		own := mb.rec != nil && k.Nonce == mb.rec.Nonce
		mb.keyRev = 0
		mb.keyAsk = m.now.Mono
		switch {
		case k.Reason == wire.ReasonLeft && own:
			m.left(id)
		case k.ByToken == m.cfg.Token:
		default: // a former leader's, MaxAge or a foreign hand: the member is asked to write it again
		}
		return
	}
	id.left = max(id.left, min(k.Record.Left, k.Place.Incarnation-1)) // S5
	mb := id.now
	switch {
	case mb != nil && mb.place == k.Place:
	case k.Place.Incarnation <= id.ended:
		// A write of one that is no member any more has landed late: nobody else would ever remove it.
		reason := wire.ReasonExpired
		if k.Place.Incarnation == id.ended && (id.why == wire.GoneLeft || id.why == wire.GoneEvicted) {
			reason = id.why
		}
		m.do(Remove{k.Place, k.Rev, reason})
		return
	case mb == nil:
		mb = &member{place: k.Place, until: m.now.Mono + m.cfg.Timeout}
		if !m.ready {
			mb.until = m.start + m.wait
		}
		id.now = mb
		if h := m.holder(k.Place); h != nil {
			id.now, mb = h, h
		}
		m.sweepAt = min(m.sweepAt, mb.until)
		m.dirty, m.changed = true, true
	default: // another incarnation's: heartbeats decide who is the member (S7), and it is asked to write its own again
		if k.Rev > mb.keyRev {
			mb.keyRev = 0
		}
		return
	}
	if k.Rev < mb.keyRev {
		return
	}
	mb.keyRev, mb.rec = k.Rev, k.Record
	if mb.joined == "" {
		mb.joined = k.Record.Joined
	}
	if !mb.contact {
		mb.roles, mb.taker = k.Record.Roles, Taker{k.Record.Weight, k.Record.Zone}
	}
	m.changed = true
}

// removed takes what a removal before this term says: who left by itself, as the removal names the incarnation, had let go
// of everything (S5). A removal by another does not count, but what was granted is waited for: who was evicted may not have been told, and who
// had expired may have been heard again since by a leader that died before the record stood once more.
func (m *Machine) removed(id *ident, k Key) {
	switch inc := k.Place.Incarnation; {
	case k.Reason != wire.ReasonLeft && k.Reason != wire.ReasonUndone && id.now == nil && !id.known:
		id.removed = true
	case k.Reason == wire.ReasonLeft && inc > id.ended && (id.now == nil || id.now.place.Incarnation <= inc):
		id.left, id.ended, id.why, id.at, id.now = inc, inc, wire.GoneLeft, m.now.Mono, nil
	}
}

// ---- heartbeats

func (m *Machine) heartbeat(b Beat) {
	hb := b.HB
	p := wire.Place{ID: hb.ID, Incarnation: hb.Incarnation}
	if !m.ready {
		return // S1
	}
	now := m.now.Mono
	if hb.ID == m.cfg.Self.ID { // whichever incarnation: this process may have joined again since the term began
		if now-m.selfAt > 2*m.beat() {
			m.restart() // S9: NATS was away
		}
		m.selfAt = now
	}
	if m.ids[hb.ID] == nil && len(m.ids) >= MaxIDs {
		return // bounded, whoever asks
	}
	id := m.ident(hb.ID)
	rep := m.blank(hb)
	send := func() { m.do(Reply{Handle: b.Handle, Reply: rep}) }
	if p.Incarnation <= id.ended {
		rep.Gone, rep.Newest = id.why, id.ended
		if p.Incarnation < id.ended || id.now != nil {
			rep.Gone = wire.GoneSuperseded
		}
		if id.now != nil {
			rep.Newest = id.now.place.Incarnation
		}
		send()
		return
	}
	if o := id.now; o != nil && o.place != p {
		if o.place.Incarnation > p.Incarnation {
			rep.Gone, rep.Newest = wire.GoneSuperseded, o.place.Incarnation
			send()
			return
		}
		if !m.over(o) { // S7
			id.newer, id.newerT = p.Incarnation, now
			rep.Wait = true
			send()
			return
		}
		m.retire(id, wire.GoneSuperseded)
	}
	if m.taken(id, p) {
		id.newer, id.newerT = p.Incarnation, now
		if id.now != nil { // known by its record: it is granted nothing, but it is alive
			id.now.heard, id.now.until = now, max(id.now.until, now+m.cfg.Timeout)
		}
		rep.Wait = true
		send()
		return
	}
	mb := id.now
	if mb == nil {
		mb = m.admit(id, p)
	}
	if hb.Seq < mb.seq {
		return // S8
	}
	newer := hb.Seq > mb.seq
	mb.seq = hb.Seq
	if t := (Taker{hb.Weight, hb.Zone}); !mb.contact || mb.taker != t || !slices.Equal(mb.roles, hb.Roles) {
		mb.contact, id.kept = true, nil
		mb.roles, mb.taker = slices.Clone(hb.Roles), t
		m.dirty, m.changed = true, true
	}
	if hb.Joined != "" {
		mb.joined = hb.Joined
	}
	mb.heard, mb.late = now, hb.Late
	mb.until = max(mb.until, now+m.cfg.Timeout)
	acked := hb.Ack > mb.ack
	if acked {
		mb.ack = hb.Ack
		if mb.owes != 0 && mb.ack >= mb.owes {
			mb.owes = 0
			m.dirty = true
		}
	}
	if m.rec.Phase == wire.Settling && mb.ack >= m.rec.Generation {
		delete(m.waiting, p) // S5: by number; 'I hold nothing' is no acknowledgement
	}
	if hb.Leave {
		m.left(id)
		rep.Gone = wire.GoneLeft
		send()
		return
	}
	if (hb.Hold > 0 || hb.Ack > 0) && m.rec.Generation == 0 {
		m.silent = max(m.silent, m.start+m.wait) // S10
	}
	if newer {
		mb.asked, mb.last, mb.held = b.Handle, wire.Heartbeat{Seq: hb.Seq, Ack: hb.Ack, Hold: hb.Hold, Part: hb.Part}, false
	}
	if mb.beats++; mb.beats <= paramsTold {
		p := m.cfg.Params
		if p.Buckets, p.Map = m.want(); p.Buckets == 0 {
			p.Map = ""
		}
		rep.Params = &p
	}
	if mb.keyRev == 0 && now >= mb.keyAsk {
		rep.Rewrite = true
		mb.keyAsk = now + m.beat()
	}
	m.grant(mb, &rep, hb)
	if newer && acked && m.rec.Phase == wire.Settling && mb.ack == m.rec.Generation && rep.Gen == 0 && rep.Params == nil && !rep.Rewrite {
		mb.held = true // S19
		if !m.holds {
			m.holds, m.holdTo = true, now+m.cfg.Lease/48
		}
		return
	}
	send()
}

// blank is a reply that grants nothing.
func (m *Machine) blank(hb wire.Heartbeat) wire.Reply {
	rep := wire.Reply{V: wire.Version, Seq: hb.Seq, Token: m.cfg.Token, LeaseMS: wire.ToMS(m.cfg.Lease), AckMS: wire.ToMS(m.cfg.AckTimeout), Map: m.rec.Map}
	if len(m.rec.Places) == 0 {
		_, rep.Map = m.want() // who does not know it takes no share, and a first one would be by this
	}
	return rep
}

// taken says that another incarnation of the id, which is no member any more, may not know it yet, or may still hold.
func (m *Machine) taken(id *ident, p wire.Place) bool {
	h := m.holders[p.ID]
	return m.now.Mono < id.busy || h != nil && h.place != p && !m.over(h)
}

// tell lets all know what has just been recorded, by answering their last heartbeats once more (S18): they act on that at once, where a poke would have each of
// them ask first. Who was not heard lately hears it with its next heartbeat.
func (m *Machine) tell() {
	m.holds = false
	m.answers(func(*member) bool { return true })
}

// answers answers the last heartbeats of those members, once more or for the first time.
func (m *Machine) answers(which func(*member) bool) {
	for _, name := range slices.Sorted(maps.Keys(m.ids)) { // same inputs, same effects
		id := m.ids[name]
		mb := id.now
		if mb == nil || mb.asked == nil || !which(mb) {
			continue
		}
		mb.held = false
		if m.now.Mono-mb.heard >= 3*m.beat() || m.taken(id, mb.place) {
			continue
		}
		rep := m.blank(mb.last)
		m.grant(mb, &rep, mb.last)
		m.do(Reply{mb.asked, rep, true})
	}
}

// answerHeld answers who has let go, if the others take long (S19).
func (m *Machine) answerHeld() {
	if !m.holds || m.now.Mono < m.holdTo {
		return
	}
	m.holds = false
	m.answers(func(mb *member) bool { return mb.held })
}

// grant puts into the reply to the member's last heartbeat what is granted to it, counted from when that was heard (S3).
func (m *Machine) grant(mb *member, rep *wire.Reply, hb wire.Heartbeat) {
	rep.GrantMS = wire.ToMS(m.cfg.Timeout)
	if m.short() {
		rep.Quorate = new(bool)
	}
	m.assign(mb, rep, hb)
}

// assign puts into the reply what is granted of a generation.
func (m *Machine) assign(mb *member, rep *wire.Reply, hb wire.Heartbeat) {
	now := m.now.Mono
	if !m.Leads() {
		return // S13
	}
	i, ok := m.index[mb.place]
	switch m.rec.Phase {
	case wire.SettledDone:
		rep.Idle = len(m.rec.Places) == 0
		if mb.owes > hb.Ack {
			rep.Settling = mb.owes // S12: it may never have been told what it has to acknowledge
		}
		if !ok || hb.Ack > m.rec.Generation || mb.owes != 0 || now < m.silent {
			return
		}
		rep.Gen, rep.Index, rep.Total = m.rec.Generation, i, len(m.rec.Places)
		m.tellBuckets(rep, m.shares[mb.place], hb.Hold == rep.Gen)
	case wire.Settling:
		rep.Settling = m.rec.Generation
		if !ok || m.rec.Previous == 0 || now < m.silent {
			return
		}
		kept := m.keeps[mb.place]
		if hb.Ack < m.rec.Generation {
			rep.Keep = kept
		} else if len(kept) > 0 && (!m.deciding || m.goesOn[mb.place]) {
			rep.Gen, rep.Part = m.rec.Generation, true // S16
			m.tellBuckets(rep, kept, hb.Part == rep.Gen)
			break
		}
		if m.deciding {
			return // S6
		}
		if !m.waiting[mb.place] || now >= mb.assigned || now-m.settleAt >= m.cfg.AckTimeout {
			return // S5: who was counted out is not granted it again
		}
		rep.Gen, rep.Index, rep.Total = m.rec.Previous, i, len(m.rec.Places)
		m.tellBuckets(rep, m.shares[mb.place], hb.Hold == rep.Gen)
	}
	mb.assigned = max(mb.assigned, mb.heard+m.cfg.Timeout) // S3
}

func (m *Machine) admit(id *ident, p wire.Place) *member {
	mb := &member{place: p, keyAsk: m.now.Mono + m.beat()/2}
	if h := m.holder(p); h != nil {
		mb = h
	}
	if id.newer == p.Incarnation {
		mb.keyAsk = m.now.Mono // it waited for another to go, and has not written its record yet
	}
	id.now, id.newer, id.kept = mb, 0, nil
	m.rest(id)
	m.dirty, m.changed = true, true
	m.sweepAt = min(m.sweepAt, m.now.Mono+m.cfg.Timeout)
	if m.cause == "" {
		m.cause = "joined " + p.ID
	}
	return mb
}

// over says that an incarnation can act no more, as this leader counts it (S7).
func (m *Machine) over(mb *member) bool {
	return m.now.Mono >= mb.until && m.now.Mono >= mb.assigned
}

// retire takes the present incarnation of an id out of the roster.
func (m *Machine) retire(id *ident, why string) {
	mb := id.now
	id.ended, id.why, id.at, id.now = max(id.ended, mb.place.Incarnation), why, m.now.Mono, nil
	id.busy = max(mb.until, mb.assigned)
	m.dirty, m.changed = true, true
	if m.cause == "" {
		m.cause = why + " " + mb.place.ID
	}
	mb.asked, mb.held = nil, false
	m.flapped(id, mb)
	if _, placed := m.index[mb.place]; placed && why == wire.GoneExpired && mb.rec != nil && mb.rec.ReturnMS > 0 {
		id.kept, id.keep = mb, m.now.Mono+wire.MS(min(mb.rec.ReturnMS, maxReturn.Milliseconds())) // S15
	}
}

// left ends an incarnation that said so itself: it has let go of everything before (S5).
func (m *Machine) left(id *ident) {
	mb := id.now
	mb.until, mb.assigned = m.now.Mono, m.now.Mono
	delete(m.waiting, mb.place)
	if mb.keyRev != 0 {
		m.do(Remove{mb.place, mb.keyRev, wire.ReasonLeft})
	}
	m.retire(id, wire.GoneLeft)
}

func (m *Machine) tune(in Tune) {
	c := &m.cfg
	c.Settle, c.Ceiling, c.AckTimeout = in.Settle, in.Ceiling, in.AckTimeout
	if c.Buckets != in.Buckets || c.Map != in.Map {
		c.Buckets, c.Map, m.dirty = in.Buckets, in.Map, true
		m.retell()
	}
	p := c.Params
	p.SettleMS, p.CeilingMS, p.AckTimeoutMS = wire.ToMS(in.Settle), wire.ToMS(in.Ceiling), wire.ToMS(in.AckTimeout)
	if p != c.Params {
		c.Params = p
		m.retell()
	}
}

// retell has the members told the parameters once more.
func (m *Machine) retell() {
	for _, id := range m.ids {
		if id.now != nil {
			id.now.beats = 0
		}
	}
}

func (m *Machine) evict(p wire.Place) {
	id := m.ids[p.ID]
	if id == nil || id.now == nil || p.Incarnation != 0 && id.now.place != p {
		return
	}
	mb := id.now
	if mb.keyRev != 0 {
		m.do(Remove{mb.place, mb.keyRev, wire.ReasonEvicted})
	}
	m.retire(id, wire.GoneEvicted) // what it was granted is waited for (S4, S7)
}

// restart starts every timeout again (S9, M3).
func (m *Machine) restart() {
	for _, id := range m.ids {
		if id.now != nil {
			id.now.until = max(id.now.until, m.now.Mono+m.cfg.Timeout)
		}
	}
}

// ---- time

// sweep retires who was not heard in time.
func (m *Machine) sweep() {
	now := m.now.Mono
	if now < m.sweepAt {
		return
	}
	deaf := now-m.selfAt > 2*m.beat() // S9: our own heartbeat does not come back
	next := now + m.cfg.Timeout
	for _, name := range slices.Sorted(maps.Keys(m.ids)) { // same inputs, same effects
		id := m.ids[name]
		mb := id.now
		switch {
		case mb == nil && id.kept != nil && now < id.keep:
			next = min(next, id.keep)
		case mb == nil:
			if id.kept != nil {
				id.kept = nil
				m.dirty, m.changed = true, true
			}
			if now >= id.busy && now-id.at > 20*m.wait && now-id.newerT > 20*m.wait {
				delete(m.ids, name)
			}
		case now < mb.until:
			next = min(next, mb.until)
			if id.rests > now {
				next = min(next, id.rests)
			} else if id.rests > 0 {
				id.rests, m.dirty = 0, true // S17
			}
		case deaf:
			next = min(next, now+m.beat()/2)
		default:
			if mb.keyRev != 0 && now-id.newerT > 2*m.beat() {
				m.do(Remove{mb.place, mb.keyRev, wire.ReasonExpired})
			}
			m.retire(id, wire.GoneExpired)
		}
	}
	for p := range m.waiting {
		if mb := m.holders[p.ID]; now >= mb.assigned {
			delete(m.waiting, p) // S5: its lease ran out
			mb.owes = m.rec.Generation
			m.dirty = true
		} else {
			next = min(next, mb.assigned)
		}
	}
	m.sweepAt = next
}

func (m *Machine) act() {
	if !m.ready {
		m.adoption()
		if !m.ready {
			m.repeat()
			return
		}
	}
	m.sweep()
	m.quorum()
	m.answerHeld()
	if m.pending != nil {
		m.repeat()
		return
	}
	if !m.Leads() || m.lacking() {
		m.refresh()
		return
	}
	if m.now.Mono < m.silent {
		return
	}
	switch m.rec.Phase {
	case wire.SettledDone:
		m.watchRoster()
	case wire.Settling:
		if len(m.waiting) == 0 {
			m.decide()
		}
	}
}

// watchRoster begins a generation when the roster differs from the places and has been quiet.
func (m *Machine) watchRoster() {
	if m.dirty {
		m.dirty = false
		w := m.workers()
		d := m.desires(w)
		if m.content(d) {
			m.changing, m.desired, m.cause = false, desire{}, ""
			return
		}
		if !m.changing {
			m.changing, m.firstChange, m.lastChange = true, m.now.Mono, m.now.Mono
		}
		if !d.equal(m.desired) {
			m.desired, m.lastChange = d, m.now.Mono
		}
	}
	if !m.changing {
		m.refresh()
		return
	}
	if m.now.Mono < m.settleDue() {
		return
	}
	n := m.rec
	n.Phase, n.Generation, n.Previous, n.Lost = wire.Settling, 0, m.rec.Generation, false
	n.MemberTimeoutMS = wire.ToMS(max(m.cfg.Timeout, wire.MS(m.rec.MemberTimeoutMS)))
	n.Token, n.Nonce = m.cfg.Token, m.nonce()
	n.Moving = m.moving(m.desired) // S16
	n.Cause, n.Began = m.cause, wire.Time(m.now.WallTime())
	if n.Cause == "" {
		n.Cause = m.change(m.desired)
	}
	if n.Previous == 0 {
		n.Cause = "first"
	}
	m.deciding = false
	m.send(m.rev, n)
}

// refresh stores a settled record again, before its TTL ends.
func (m *Machine) refresh() {
	if m.rec.Phase == wire.SettledDone && m.now.Mono-m.written > refresh {
		n := m.rec
		n.Token, n.Nonce = m.cfg.Token, m.nonce()
		m.send(m.rev, n)
	}
}

// ---- the minimum size

// Leads says whether the term settles and grants, or has too few members (S13).
func (m *Machine) Leads() bool { return !m.cfg.Keeps && !m.below }

// lacking says that fewer members are there than the minimum.
func (m *Machine) lacking() bool { return m.cfg.MinSize > 1 && m.live() < m.cfg.MinSize }

// short says that members are to be told: they let go of their shares. A term that has just begun, of another process than the one before, hears
// the members first: a change of leader as such revokes nothing (P4).
func (m *Machine) short() bool {
	return !m.Leads() && (m.below || m.cfg.Fell || m.now.Mono-m.readyAt >= 3*m.beat())
}

// live counts the members with a role: who has none counts nowhere. A term that keeps the key counts who was heard in it and whose record
// stands, so that the next one finds them.
func (m *Machine) live() int {
	if m.counted && !m.changed {
		return m.size
	}
	m.counted, m.size = true, 0
	for _, id := range m.ids {
		if mb := id.now; mb != nil && len(mb.roles) > 0 && (!m.cfg.Keeps || mb.contact && mb.keyRev != 0) {
			m.size++
		}
	}
	return m.size
}

// quorum asks for a term of the other kind when the group has become too small, or large enough.
func (m *Machine) quorum() {
	if m.cfg.MinSize <= 1 || m.turning {
		return
	}
	switch {
	case m.cfg.Keeps && !m.lacking():
		m.turning = true
		m.do(Turn{true})
	case !m.cfg.Keeps && m.lacking() && m.now.Mono-m.readyAt >= 3*m.beat():
		m.turning, m.below, m.changed = true, true, true
		m.do(Turn{false})
		m.do(Poke{}) // who holds a share is to hear it soon
	}
}

func (m *Machine) settleDue() time.Duration {
	return min(m.lastChange+m.cfg.Settle, m.firstChange+m.cfg.Ceiling)
}

// decide gives the places of the new generation: everyone has let go.
func (m *Machine) decide() {
	n := m.rec
	n.Phase = wire.SettledDone
	m.divide(&n)
	n.Previous = 0
	if m.now.Mono >= m.start+m.wait {
		// S2: from now on nobody holds by an older, longer one. Before, somebody may: that all have let go of their shares says nothing of memberships.
		n.MemberTimeoutMS = wire.ToMS(m.cfg.Timeout)
	}
	n.Token, n.Nonce = m.cfg.Token, m.nonce()
	m.deciding = true // S6
	m.send(m.rev, n)
}

// worker is a member that gets a place.
type worker struct {
	wire.Place
	Taker
}

// workers are the members that get a place, in the order in which they joined.
func (m *Machine) workers() []worker {
	var l, resting []*member
	for _, id := range m.ids {
		mb := id.now
		if (mb == nil || !mb.contact) && id.kept != nil { // its next incarnation may have no more than a record yet
			if _, placed := m.index[id.kept.place]; placed {
				l = append(l, id.kept) // S15
			}
			continue
		}
		if mb == nil || mb.owes != 0 {
			continue
		}
		if _, placed := m.index[mb.place]; !mb.contact && placed {
			l = append(l, mb) // not heard in this term, but not counted out either
			continue
		}
		if mb.contact && slices.Contains(mb.roles, wire.RoleWork) {
			if _, placed := m.index[mb.place]; !placed && m.now.Mono < id.rests {
				resting = append(resting, mb)
				continue
			}
			l = append(l, mb)
		}
	}
	if len(l) == 0 {
		l = resting // there is nobody to be spared
	}
	slices.SortFunc(l, func(a, b *member) int {
		return cmp.Or(cmp.Compare(a.joined, b.joined), cmp.Compare(a.place.ID, b.place.ID))
	})
	w := make([]worker, len(l))
	for i, mb := range l {
		w[i] = worker{mb.place, mb.takes()}
	}
	return w
}

// ---- writing

func (m *Machine) send(expected uint64, n wire.Settled) {
	m.rev = expected
	m.pending, m.busy = &n, true
	m.do(WriteSettled{expected, n})
}

// repeat sends an unanswered write again, unchanged, on the same expected revision (L4).
func (m *Machine) repeat() {
	if m.pending != nil && !m.busy && !m.asked && m.now.Mono >= m.again {
		m.busy = true
		m.do(WriteSettled{m.rev, *m.pending})
	}
}

func (m *Machine) wrote(in Wrote) {
	if m.pending == nil || in.Nonce != m.pending.Nonce {
		return
	}
	m.busy = false
	if in.Outcome == Yes {
		m.stored(in.Rev)
		return
	}
	m.again = m.now.Mono + m.cfg.Lease/30
	m.asked = true
	m.do(ReadSettled{})
}

// stored goes on once the pending write is known to stand.
func (m *Machine) stored(rev uint64) {
	n := *m.pending
	m.pending = nil
	m.written = m.now.Mono
	if !m.ready {
		m.adopted(rev, n)
		return
	}
	if n.Phase == wire.SettledDone && m.rec.Phase == wire.SettledDone {
		m.rev, m.rec.Nonce = rev, n.Nonce // the refresh of the TTL
		return
	}
	m.install(rev, n)
	m.changed, m.dirty = true, true
	if n.Phase == wire.Settling {
		m.settleAt = m.now.Mono
	} else {
		m.changing, m.desired, m.cause, m.deciding = false, desire{}, "", false
		m.do(Settled{m.rec, m.now.Wall})
	}
	m.tell() // S11
}

// ---- what others may know

// A Row is a member as the leader sees it.
type Row struct {
	Place  wire.Place
	Record *wire.Member // nil if none was seen
	Roles  []string
	Joined string
	Index  int           // -1: none
	Heard  time.Duration // monotonic; 0 if not in this term
	Late   bool          // it has missed heartbeats, or says that it runs late
	New    bool          // it was not heard in this term, and has had no time for it yet
}

// Roster lists the members in the order of their ids.
func (m *Machine) Roster() []Row {
	rows := make([]Row, 0, len(m.ids))
	for _, id := range m.ids {
		mb := id.now
		if mb == nil {
			continue
		}
		// Who was not heard yet is known since its timeout began (until).
		last := mb.heard
		if !mb.contact {
			last = max(last, mb.until-m.cfg.Timeout)
		}
		r := Row{Place: mb.place, Record: mb.rec, Roles: mb.roles, Joined: mb.joined, Index: -1, Heard: mb.heard,
			Late: mb.late || m.now.Mono-last > 2*m.beat()+m.beat()/2}
		r.New = !mb.contact && !r.Late
		if i, ok := m.index[mb.place]; ok && m.rec.Phase == wire.SettledDone && m.Leads() {
			r.Index = i
		}
		rows = append(rows, r)
	}
	slices.SortFunc(rows, func(a, b Row) int { return cmp.Compare(a.Place.ID, b.Place.ID) })
	return rows
}

// Member says whether that incarnation is a member.
func (m *Machine) Member(p wire.Place) bool {
	id := m.ids[p.ID]
	return id != nil && id.now != nil && id.now.place == p
}

// Electorate lists the members of the roster that vote (V2). One that this leader has not heard yet counts as its record says: a
// new leader's first ballot would else be decided by the few that happened to be heard first.
func (m *Machine) Electorate() []wire.Place {
	var l []wire.Place
	for _, r := range m.Roster() {
		if slices.Contains(r.Roles, wire.RoleVote) {
			l = append(l, r.Place)
		}
	}
	return l
}

// Record is the current settled record and its revision.
func (m *Machine) Record() (wire.Settled, uint64) { return m.rec, m.rev }
