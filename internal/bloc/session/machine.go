package session

import (
	"time"

	"github.com/quorate/quorate/internal/clock"
)

// Config of a machine.
type Config struct {
	Timeout time.Duration // a client that was not heard for so long is gone
	Cache   time.Duration // a client believes SETTLED at most that long by its own clock: the settle time
}

// Inputs.
type (
	// Input is one of the types below.
	Input interface{ input() }
	// Tick says that time has passed.
	Tick struct{}
	// Poll is the client's question. Live and Deadline are those of the assignment, as its right says at that moment.
	Poll struct {
		Seq      uint64
		Live     bool
		Deadline clock.Instant
	}
	// Told says that the answer to a poll, other than SETTLED, was written out whole.
	Told struct{ Seq uint64 }
	// Granted says that the member holds an assignment. Index counts from 0, as everywhere but in bloc.
	Granted struct {
		Gen          uint64
		Index, Total int
	}
	// Revoke asks to let go of the assignment.
	Revoke struct{}
	// Ended says that the assignment is over: let go, or run out.
	Ended struct{}
	// Delete says that the client is done.
	Delete struct{}
	// Drain says that the gateway ends.
	Drain struct{}
)

func (Tick) input()    {}
func (Poll) input()    {}
func (Told) input()    {}
func (Granted) input() {}
func (Revoke) input()  {}
func (Ended) input()   {}
func (Delete) input()  {}
func (Drain) input()   {}

// Effects.
type (
	// Effect is one of the types below.
	Effect interface{ effect() }
	// Answer answers a poll. Index counts from 1, as bloc does.
	Answer struct {
		Seq          uint64
		Settled      bool
		Draining     bool // the gateway ends: the client is to ask another
		Gen          uint64
		Index, Total int
	}
	// LetGo acknowledges: the client does not act on the assignment any more.
	LetGo struct{ Gen uint64 }
	// Leave asks for the member to leave. It is the last effect but LetGo and answers of SETTLING.
	Leave struct{ Reason string }
	// Seldom says that the client asks too seldom to be told SETTLED: every Gap, and half the cache time is the most.
	Seldom struct{ Gap time.Duration }
)

func (Answer) effect() {}
func (LetGo) effect()  {}
func (Leave) effect()  {}
func (Seldom) effect() {}

// Reasons to leave.
const (
	Silent  = "silent"  // it was not heard for its timeout
	Deleted = "deleted" // it said so
	Drained = "drained" // its gateway ends
)

// gaps is how many pauses between polls are remembered: one that is late now and then is no client that asks too seldom.
const gaps = 4

// A Machine is one session.
type Machine struct {
	cfg Config
	out []Effect
	now clock.Instant

	polled time.Duration // monotonic: the last poll
	seq    uint64        // of the newest poll
	gap    [gaps]time.Duration
	known  int // how many gaps
	warned bool

	grant    Granted
	held     bool
	revoked  bool
	owes     bool          // there is something to acknowledge
	believes time.Duration // monotonic: the client may believe SETTLED before

	going string // why it is to leave; "" if it is not
	left  bool
	due   time.Duration // monotonic: when the last step wanted the next
}

// New makes the machine of a session whose client was heard now.
func New(cfg Config, now clock.Instant) *Machine {
	m := &Machine{cfg: cfg, now: now, polled: now.Mono}
	m.due = m.Next()
	return m
}

// Step takes one input at the given moment and says what is to be done, in order.
func (m *Machine) Step(now clock.Instant, in Input) []Effect {
	m.now, m.out = now, nil
	if now.Mono-m.due > m.cfg.Timeout/4 {
		m.polled = max(m.polled, now.Mono-m.cfg.Timeout/2) // R29: this process ran late, and what its clients asked meanwhile may be waiting
	}
	switch in := in.(type) {
	case Tick:
	case Poll:
		m.poll(in)
	case Told:
		// B2: only the newest answer. One that was overtaken says nothing about what the client believes.
		if in.Seq == m.seq {
			m.believes = min(m.believes, now.Mono+m.cfg.Cache/8)
		}
	case Granted:
		m.grant, m.held, m.revoked, m.owes = in, true, false, false
	case Revoke:
		if m.held && !m.revoked {
			m.revoked, m.owes = true, true
		}
	case Ended:
		// Run out before it was asked for, or acknowledged already: then nothing is owed.
		if m.held {
			m.owes = m.owes || !m.revoked
			m.held, m.revoked = false, false
		}
	case Delete:
		m.believes = now.Mono // it says so itself
		m.going = Deleted
	case Drain:
		if m.going != Deleted {
			m.going = Drained
		}
	}
	m.act()
	m.due = m.Next()
	return m.out
}

// Next is when Step wants a Tick, on the monotonic clock: always after the last step, for what was due then is done.
func (m *Machine) Next() time.Duration {
	at := m.now.Mono + m.cfg.Timeout
	if m.going == "" {
		at = m.polled + m.cfg.Timeout
	}
	if m.owes || m.going != "" && !m.left {
		at = min(at, m.believes)
	}
	return at
}

func (m *Machine) do(e Effect) { m.out = append(m.out, e) }

func (m *Machine) poll(in Poll) {
	now := m.now
	if m.known > 0 || in.Seq > 1 {
		m.gap[m.known%gaps] = now.Mono - m.polled
		m.known++
	}
	m.polled, m.seq = now.Mono, in.Seq
	if m.going == Silent && !m.left {
		m.going = "" // it was late, and is not gone yet
	}
	a := Answer{Seq: in.Seq, Draining: m.going == Drained}
	if m.held && !m.revoked && m.going == "" && in.Live && now.Left(in.Deadline) >= m.cfg.Cache && m.often() { // B1, B4
		a.Settled, a.Gen, a.Index, a.Total = true, m.grant.Gen, m.grant.Index+1, m.grant.Total
		m.believes = now.Mono + m.cfg.Cache + m.cfg.Cache/20 // B2: from before the answer is sent
	}
	m.do(a)
}

// often says whether the client asks often enough: at least one of its last pauses is half the cache time, or little more.
func (m *Machine) often() bool {
	if m.known == 0 {
		return false // one question shows nothing
	}
	least := m.gap[0]
	for _, g := range m.gap[1:min(m.known, gaps)] {
		least = min(least, g)
	}
	ok := least <= m.cfg.Cache/2+m.cfg.Cache/16
	if !ok && !m.warned && m.known >= gaps {
		m.do(Seldom{least})
	}
	m.warned = m.warned && !ok || !ok && m.known >= gaps
	return ok
}

func (m *Machine) act() {
	now := m.now.Mono
	if m.going == "" && now-m.polled >= m.cfg.Timeout {
		m.going = Silent // B3
	}
	if now < m.believes {
		return
	}
	if m.owes {
		m.owes = false
		m.do(LetGo{m.grant.Gen}) // B2
	}
	if m.going != "" && !m.left {
		m.left = true
		m.do(Leave{m.going})
	}
}
