package seat

import (
	"slices"
	"time"

	"github.com/quorate/quorate/internal/clock"
	"github.com/quorate/quorate/internal/wire"
)

// Config of a machine.
type Config struct {
	Place      wire.Place
	Roles      []string
	Joined     string        // RFC 3339
	Weight     int           // what it takes of buckets
	Zone       string        //
	Lease      time.Duration // own setting: the pace of heartbeats until a leader tells its own
	AckTimeout time.Duration // how long a leaving member waits for its work
	Engaged    bool          // work of an earlier incarnation in this process has not returned yet
	Unrecorded bool          // its record is not stored yet, because another incarnation's stands; Recorded says when it is
}

// Inputs.
type (
	// Input is one of the types below.
	Input interface{ input() }
	// Tick says that time has passed.
	Tick struct{}
	// Reply is a leader's answer to a heartbeat.
	Reply struct{ Reply wire.Reply }
	// Poke asks for a heartbeat now: a leader's poke, or a new leader was seen.
	Poke struct{}
	// LetGo says that all work has returned, or, with For, all but that of what the revoke for that generation said is kept.
	LetGo struct{ For uint64 }
	// Recorded says that the incarnation's own record is stored.
	Recorded struct{}
	// Roles changes the roles.
	Roles struct{ Roles []string }
	// Takes changes what the member takes of buckets.
	Takes struct {
		Weight int
		Zone   string
	}
	// Leave asks to leave.
	Leave struct{}
	// Departed says that the member's record is gone (or could not be removed in time).
	Departed struct{}
	// Kill ends the assignment at once: bucket or connection lost.
	Kill struct{}
)

func (Tick) input()     {}
func (Reply) input()    {}
func (Poke) input()     {}
func (LetGo) input()    {}
func (Recorded) input() {}
func (Roles) input()    {}
func (Takes) input()    {}
func (Leave) input()    {}
func (Departed) input() {}
func (Kill) input()     {}

// Effects.
type (
	// Effect is one of the types below.
	Effect interface{ effect() }
	// Send asks for a heartbeat to be sent.
	Send struct{ HB wire.Heartbeat }
	// Member says until when the membership is granted.
	Member struct {
		Deadline clock.Instant
		First    bool
	}
	// Waiting says that another incarnation of the id may still act.
	Waiting struct{}
	// Granted says that an assignment is held.
	Granted struct {
		Gen          uint64
		Index, Total int
		Map          string
		Deadline     clock.Instant
		Lease        time.Duration // what it holds for without a further reply
		Of           int           // buckets in all; 0: shares are by index
		Buckets      []Bucket      // of the assignment, those too that were held before
	}
	// Gained says that these buckets are held from now on. The assignment they belong to comes right after it, or, while a generation is being
	// settled, once it has.
	Gained struct {
		Gen      uint64
		Buckets  []Bucket
		Of       int
		Map      string
		Deadline clock.Instant
		Lease    time.Duration
	}
	// Extended moves the deadline of the assignment, and of all buckets.
	Extended struct{ Deadline clock.Instant }
	// Revoke asks the work of the assignment to return, and that of all buckets but Keep; LetGo answers it. For is the generation that
	// begins, 0 when leaving, or when the group has become too small.
	Revoke struct {
		Gen, For   uint64
		NotQuorate bool
		Keep       []int
	}
	// Lost says that these buckets are given up, before that is acknowledged; the others are held on.
	Lost struct{ Buckets []Bucket }
	// Kept says that the buckets that are left are held on, as those of the generation that is being settled (H9).
	Kept struct{ Gen uint64 }
	// Lapsed says that the lease ran out (or was killed) of the assignment and of all buckets.
	Lapsed struct {
		Gen   uint64
		Until clock.Instant
	}
	// Released says that the assignment is given up, before that is acknowledged: its index, and, unless Kept, all buckets.
	Released struct {
		Gen        uint64
		NotQuorate bool // because the group has become too small
		Kept       bool
	}
	// Rewrite asks for the member's record to be written (again).
	Rewrite struct{}
	// Gone says that this incarnation is no member any more: evicted, expired, superseded.
	Gone struct {
		Reason string
		Newest uint64 // highest incarnation of the id that the leader knows
	}
	// Depart asks for the member's record to be removed with the reason left; Departed answers.
	Depart struct{}
	// Left says that the member has left; unclean if its work did not return in time, so that its lease had to run out.
	Left struct{ Clean bool }
	// Settling says that the group is between generations, Idle that no generation has places.
	Settling struct{ Gen uint64 }
)

func (Send) effect()     {}
func (Member) effect()   {}
func (Waiting) effect()  {}
func (Granted) effect()  {}
func (Gained) effect()   {}
func (Lost) effect()     {}
func (Kept) effect()     {}
func (Extended) effect() {}
func (Revoke) effect()   {}
func (Lapsed) effect()   {}
func (Released) effect() {}
func (Rewrite) effect()  {}
func (Gone) effect()     {}
func (Depart) effect()   {}
func (Left) effect()     {}
func (Settling) effect() {}

// A Bucket is one that is held, and its token: the generation since which this incarnation has it.
type Bucket struct {
	N     int
	Token uint64
}

// pokes is how many pokes are followed at once (H10).
const pokes = 8

// remembered is how many heartbeats a reply may lag behind.
const remembered = 64

// A Machine is one incarnation.
type Machine struct {
	cfg Config
	out []Effect
	now clock.Instant

	lease  time.Duration // the leader's, once known
	seq    uint64
	sent   [remembered]clock.Instant // by sequence number
	beatAt time.Duration             // monotonic: next heartbeat

	hurried bool          // it was poked for
	hurry   time.Duration // monotonic: H10

	member  clock.Instant // deadline of the membership
	joined  bool
	token   uint64 // highest leader heard (H3)
	floor   uint64 // highest generation acknowledged or held (H4)
	ackSeq  uint64 // replies to heartbeats before this one are not taken (H3)
	letFor  uint64 // generation to acknowledge once the work has returned
	holding bool   // an assignment, or buckets that are kept
	part    bool   // H9: only buckets that are kept
	buckets []Bucket
	keep    []int // of letFor
	gen     uint64
	dead    clock.Instant // deadline of the assignment
	engaged bool          // its work has not returned (H5, H6)
	done    uint64        // generation given up by the member's own will
	lacking bool          // it is to be given up because the group is too small (H8)

	leaving  bool
	parting  bool // its record is being removed: it acts no more, whatever a late reply grants
	departed bool
	leaveBy  clock.Instant
	goodbye  clock.Instant
	over     bool
}

// New makes the machine of an incarnation whose record is written, or may not be written yet (restart of an id).
func New(cfg Config) *Machine {
	return &Machine{cfg: cfg, lease: cfg.Lease, engaged: cfg.Engaged}
}

// Step takes one input at the given moment and says what is to be done, in order.
func (m *Machine) Step(now clock.Instant, in Input) []Effect {
	m.now, m.out = now, nil
	if m.over {
		return nil
	}
	if m.holding && now.Reached(m.dead) {
		m.lapse(m.dead)
	}
	switch in := in.(type) {
	case Tick:
	case Reply:
		m.reply(in.Reply)
	case Poke:
		m.poked()
	case LetGo:
		m.letGo(in.For)
	case Recorded:
		if m.cfg.Unrecorded {
			m.cfg.Unrecorded = false
			m.beatAt = now.Mono
		}
	case Roles:
		m.cfg.Roles = slices.Clone(in.Roles)
		if slices.Contains(in.Roles, wire.RoleWork) {
			m.done = 0 // the same generation may be taken up again: nobody else was granted another since
		}
		m.beatAt = now.Mono
	case Takes:
		m.cfg.Weight, m.cfg.Zone = in.Weight, in.Zone
		m.beatAt = now.Mono
	case Leave:
		if !m.leaving {
			m.leaving, m.leaveBy = true, now.Add(m.cfg.AckTimeout)
			if m.holding {
				m.do(Revoke{Gen: m.gen})
			} else if !m.engaged {
				m.depart()
			}
		}
	case Departed:
		if m.leaving && !m.departed {
			m.departed, m.goodbye = true, now.Add(m.lease/6)
			m.heartbeat()
		}
	case Kill:
		if m.holding {
			m.lapse(now)
		}
	}
	m.act()
	return m.out
}

// Next is when Step wants a Tick, on the monotonic clock.
func (m *Machine) Next() time.Duration {
	at := m.beatAt
	if m.holding {
		at = min(at, m.dead.Mono)
	}
	if m.leaving {
		at = min(at, m.leaveBy.Mono)
		if m.departed {
			at = min(m.goodbye.Mono, m.beatAt)
		} else if m.now.Reached(m.leaveBy) {
			at = m.now.Mono + m.lease/6
			if m.holding {
				at = min(at, m.dead.Mono)
			}
		}
	}
	return at
}

// Sent is the moment just before the heartbeat with that number was sent, if it is one of the last few.
func (m *Machine) Sent(seq uint64) (clock.Instant, bool) {
	if seq == 0 || seq > m.seq || seq+remembered <= m.seq {
		return clock.Instant{}, false
	}
	return m.sent[seq%remembered], true
}

// Live says whether the incarnation is a member at the given moment (M2).
func (m *Machine) Live(now clock.Instant) bool {
	return m.joined && !m.over && !m.parting && !now.Reached(m.member)
}

func (m *Machine) do(e Effect) { m.out = append(m.out, e) }

func (m *Machine) act() {
	now := m.now
	if m.leaving {
		switch {
		case m.departed && now.Reached(m.goodbye):
			m.over = true
			m.do(Left{Clean: true})
			return
		case m.departed:
			if now.Mono >= m.beatAt {
				m.heartbeat() // a leader has just begun: it is to hear that this member has left
			}
			return
		case now.Reached(m.leaveBy) && m.engaged:
			// The work has not returned in time: nothing is released; the lease runs out by itself (R12).
			if !m.holding {
				m.over = true
				m.do(Left{})
			}
			return
		}
	}
	if now.Mono >= m.beatAt {
		m.heartbeat()
	}
}

// poked has a heartbeat sent at once, or a little later if that was asked for often (H10).
func (m *Machine) poked() {
	at := max(m.now.Mono, m.hurry-(pokes-1)*(m.lease/48))
	if at < m.beatAt {
		m.beatAt, m.hurried = at, true
	}
}

func (m *Machine) heartbeat() {
	if m.hurried {
		m.hurried, m.hurry = false, max(m.hurry, m.now.Mono)+m.lease/48
	}
	m.seq++
	m.sent[m.seq%remembered] = m.now // H1: before sending
	late := m.seq > 1 && m.now.Mono > m.beatAt+m.lease/6
	m.beatAt = m.now.Mono + m.lease/6
	hb := wire.Heartbeat{V: wire.Version, ID: m.cfg.Place.ID, Incarnation: m.cfg.Place.Incarnation, Seq: m.seq, Ack: m.floor,
		Roles: m.cfg.Roles, Joined: m.cfg.Joined, Late: late, Leave: m.departed}
	hb.Weight, hb.Zone = m.cfg.Weight, m.cfg.Zone
	switch {
	case m.holding && m.part:
		hb.Part = m.gen
	case m.holding:
		hb.Hold = m.gen
	}
	m.do(Send{hb})
}

func (m *Machine) reply(r wire.Reply) {
	if r.Seq == 0 || r.Seq > m.seq || r.Seq+remembered <= m.seq {
		return
	}
	if r.Token < m.token || r.Seq < m.ackSeq || r.Token >= wire.MaxToken {
		return // H3
	}
	m.token = r.Token
	if r.Gone != "" {
		m.gone(r.Gone, r.Newest)
		return
	}
	if r.LeaseMS > 0 {
		m.lease = min(max(wire.MS(r.LeaseMS), wire.MinLease), wire.MaxLease) // nobody leads by another, and a heartbeat each moment helps nobody
		m.beatAt = min(m.beatAt, m.now.Mono+m.lease/6)
	}
	if r.Wait {
		m.do(Waiting{})
		return
	}
	if m.parting {
		return
	}
	grant := min(wire.MS(r.GrantMS), wire.MaxMemberTimeout) // H2
	if r.Rewrite || m.cfg.Unrecorded && grant > 0 {
		m.do(Rewrite{})
	}
	if m.cfg.Unrecorded {
		grant = 0 // H7
	}
	deadline := m.sent[r.Seq%remembered].Add(grant - grant/10)
	if grant > 0 && !m.now.Reached(deadline) {
		m.member = m.member.Later(deadline)
		m.do(Member{m.member, !m.joined})
		m.joined = true
		if r.Gen > 0 && (r.Settling == 0 || r.Settling > m.floor || r.Part) && r.Gen >= m.floor && !m.leaving { // H4, H9
			m.granted(r, deadline, grant-grant/10)
		}
	}
	if r.Quorate != nil && !*r.Quorate && m.holding && !m.lacking && m.letFor == 0 && !m.leaving {
		m.lacking = true // H8
		m.do(Revoke{Gen: m.gen, NotQuorate: true})
	}
	if r.Settling > m.floor && r.Settling > m.letFor {
		if m.letFor, m.keep = r.Settling, nil; !m.leaving && !m.lacking { // else everything was asked for, for good
			m.keep = slices.Clone(r.Keep)
		}
		m.do(Settling{r.Settling})
		switch {
		case m.holding:
			m.do(Revoke{Gen: m.gen, For: r.Settling, Keep: m.keep})
		case !m.engaged:
			m.letGo(0)
		}
	}
}

func (m *Machine) granted(r wire.Reply, deadline clock.Instant, lease time.Duration) {
	if m.holding && m.gen == r.Gen && (m.part == r.Part || r.Part) { // a late one for the part only is no less a grant
		m.dead = m.dead.Later(deadline)
		m.do(Extended{m.dead})
		return
	}
	if len(r.Buckets) != r.Count || len(r.Tokens) != r.Count || r.Count > 0 && r.Of == 0 {
		return // which buckets, it does not say: they were held when it was asked, and are not now
	}
	if m.holding && m.gen != r.Gen {
		m.lapse(m.now) // cannot be: nobody is granted a newer generation before it has let go
	}
	if !m.holding && m.engaged || r.Gen <= m.done || m.letFor != 0 || m.lacking {
		return // H6; nor is anything gained by who has been asked to let go
	}
	had := make(map[Bucket]bool, len(m.buckets))
	for _, b := range m.buckets {
		had[b] = true
	}
	all, gained := make([]Bucket, 0, r.Count), []Bucket(nil)
	for i, n := range r.Buckets {
		b := Bucket{n, r.Tokens[i]}
		all = append(all, b)
		if !had[b] {
			gained = append(gained, b)
		}
	}
	if len(all)-len(gained) < len(had) {
		m.lapse(m.now) // cannot be: what is kept is granted again, with the same token
		return
	}
	m.holding, m.engaged, m.part, m.gen, m.buckets = true, true, r.Part, r.Gen, all
	m.dead = m.dead.Later(deadline)
	m.floor = max(m.floor, r.Gen)
	if len(gained) > 0 {
		m.do(Gained{r.Gen, gained, r.Of, r.Map, m.dead, lease})
	}
	if r.Part {
		return
	}
	m.do(Granted{Gen: r.Gen, Index: r.Index, Total: r.Total, Map: r.Map, Deadline: m.dead, Lease: lease, Of: r.Of, Buckets: all})
}

// letGo: the work has returned, so what is to be acknowledged is (H5). What is kept is held on, under the number that is acknowledged (H9).
func (m *Machine) letGo(asked uint64) {
	var kept, lost []Bucket
	if asked != 0 {
		if !m.holding || asked != m.letFor || m.leaving || m.lacking {
			return // more was asked for since, or all has run out: it is waited for
		}
		keep := make(map[int]bool, len(m.keep))
		for _, n := range m.keep {
			keep[n] = true
		}
		for _, b := range m.buckets {
			if keep[b.N] {
				kept = append(kept, b)
			} else {
				lost = append(lost, b)
			}
		}
	}
	m.engaged = len(kept) > 0
	if m.holding && m.letFor == 0 && !m.leaving && !m.lacking {
		m.done = m.gen // the work ended by itself: its place is not taken again until there is work once more
	}
	if m.engaged && len(lost) > 0 {
		m.do(Lost{lost})
	}
	if m.holding && !(m.part && m.engaged) {
		m.do(Released{m.gen, m.lacking, m.engaged})
	}
	m.holding, m.part, m.buckets = m.engaged, m.engaged, kept
	m.lacking = false
	if m.letFor > m.floor {
		m.floor = m.letFor
		m.ackSeq = m.seq + 1 // H3
		m.beatAt = m.now.Mono
	}
	m.letFor = 0
	if m.holding {
		m.gen = m.floor
		m.do(Kept{m.gen})
	}
	if m.leaving && !m.parting {
		m.depart()
	}
}

func (m *Machine) lapse(until clock.Instant) {
	m.holding, m.lacking, m.part, m.buckets = false, false, false, nil
	m.do(Lapsed{m.gen, until})
}

// depart: from here on the incarnation does not act any more, and says so.
func (m *Machine) depart() {
	m.parting = true
	m.do(Depart{})
}

func (m *Machine) gone(reason string, newest uint64) {
	if m.departed || m.leaving && reason == wire.GoneLeft {
		m.over = true
		m.do(Left{Clean: true})
		return
	}
	if m.holding {
		m.lapse(m.now)
	}
	m.over = true
	m.do(Gone{reason, newest})
}
