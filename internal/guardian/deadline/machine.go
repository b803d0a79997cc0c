package deadline

import (
	"time"

	"github.com/quorate/quorate/internal/clock"
)

// Config of a machine.
type Config struct {
	Grace time.Duration // from TERM until KILL
	Term  time.Duration // TERM so long before the deadline
	Kill  time.Duration // KILL so long before it; less than Term
}

// again is how long after a KILL what is still there is killed once more: it may have forked meanwhile.
const again = 10 * time.Millisecond

// A Why is why a command ended, or is to end.
type Why int

// What ends a command.
const (
	Itself    Why = iota // it ended by itself
	Asked                // whoever renews asked for it
	Unrenewed            // renewals fail
	Alone                // whoever renews is gone
	Lost                 // the right is lost
)

func (w Why) String() string {
	return [...]string{"itself", "asked", "unrenewed", "alone", "lost"}[w]
}

// Inputs.
type (
	// Input is one of the types below.
	Input interface{ input() }
	// Tick says that time has passed.
	Tick struct{}
	// Begin asks for the command to be started.
	Begin struct{}
	// Renewed says how long the right holds by now.
	Renewed struct{ Deadline clock.Instant }
	// End asks for the command to end: Asked, Alone or Lost.
	End struct{ Why Why }
	// Exited says that the command's own process has ended.
	Exited struct{}
	// Gone says that none of its processes is left.
	Gone struct{}
)

func (Tick) input()    {}
func (Begin) input()   {}
func (Renewed) input() {}
func (End) input()     {}
func (Exited) input()  {}
func (Gone) input()    {}

// Effects.
type (
	// Effect is one of the types below.
	Effect interface{ effect() }
	// Start starts the command.
	Start struct{}
	// Term tells all of its processes to end.
	Term struct{ Why Why }
	// Kill kills all of them. Unrenewed says that the deadline is so near, and not that the grace is over.
	Kill struct {
		Why       Why
		Unrenewed bool
	}
	// Over says that nothing is left to do. It is the last effect.
	Over struct{ Why Why }
)

func (Start) effect() {}
func (Term) effect()  {}
func (Kill) effect()  {}
func (Over) effect()  {}

type phase int

const (
	ready   phase = iota // not started
	running              //
	ending               // told to end
	killing              //
	over                 //
)

// A Machine guards one command.
type Machine struct {
	c        Config
	phase    phase
	deadline clock.Instant
	killAt   clock.Instant // ending: when the grace is over; killing: when to kill again
	why      Why
}

// New makes the machine of a command that is to work until the deadline, unless that is renewed.
func New(c Config, until clock.Instant) *Machine { return &Machine{c: c, deadline: until} }

// Step takes an input and returns what is to be done.
func (m *Machine) Step(now clock.Instant, in Input) (fx []Effect) {
	if m.phase == over {
		return nil
	}
	switch in := in.(type) {
	case Tick:
	case Begin:
		if m.phase != ready {
			panic("deadline: a command is begun once")
		}
		if now.Reached(m.termAt()) { // C1
			return m.end(now, Unrenewed)
		}
		m.phase = running
		return []Effect{Start{}}
	case Renewed:
		// What was said of each clock before still stands, so the later reading counts. (C7: of the phase it changes nothing.)
		m.deadline = m.deadline.Later(in.Deadline)
	case End:
		switch {
		case in.Why == Lost && (m.phase == running || m.phase == ending): // C4
			if m.phase == running {
				m.why = Lost
			}
			m.phase, m.killAt = killing, now
		case m.phase <= running:
			fx = m.end(now, in.Why) // C2
		}
	case Exited:
		if m.phase == running { // C5
			fx = m.end(now, Itself)
		}
	case Gone:
		m.phase = over // C6
		return []Effect{Over{m.why}}
	}
	if m.phase == running && now.Reached(m.termAt()) { // C1
		fx = append(fx, m.end(now, Unrenewed)...)
	}
	if m.phase == ending && (now.Reached(m.killAt) || now.Reached(m.lastMoment())) { // C3
		m.phase, m.killAt = killing, now
	}
	if m.phase == killing && now.Reached(m.killAt) {
		m.killAt = now.Add(again)
		fx = append(fx, Kill{m.why, now.Reached(m.lastMoment())})
	}
	return fx
}

// end tells the command to end; one that was not started is over.
func (m *Machine) end(now clock.Instant, why Why) []Effect {
	m.why = why
	if m.phase == ready {
		m.phase = over
		return []Effect{Over{why}}
	}
	m.phase, m.killAt = ending, now.Add(m.c.Grace)
	return []Effect{Term{why}}
}

func (m *Machine) termAt() clock.Instant     { return m.deadline.Add(-m.c.Term) }
func (m *Machine) lastMoment() clock.Instant { return m.deadline.Add(-m.c.Kill) }

// Next is when to step with a Tick at the latest, by whichever clock shows most; false: when there is another input.
func (m *Machine) Next() (clock.Instant, bool) {
	switch m.phase {
	case running:
		return m.termAt(), true
	case ending:
		return m.killAt.Earlier(m.lastMoment()), true
	case killing:
		return m.killAt, true
	}
	return clock.Instant{}, false
}
