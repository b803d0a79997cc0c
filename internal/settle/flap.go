package settle

import "time"

// S17: each time a member comes or goes, everybody whose share changes lets go of it. One that comes back again and again, as a process that crashes soon after
// each start, would have the group settle twice each time. So a place that did not last is given to its id again only after a growing time, in which
// the others have its work and are left in peace. A single restart costs nothing, nor does one in time to keep the place.

// lasting is how many leases a place has to last for what was before to be forgotten.
const lasting = 10

// mostRest is the longest time without a place, in leases.
const mostRest = 8

// flapped takes note that an incarnation which had a place, or rested, is gone.
func (m *Machine) flapped(id *ident, mb *member) {
	switch {
	case mb.placed == 0: // it had none, or it had it before this term
	case m.now.Mono-mb.placed < lasting*m.cfg.Lease:
		id.flaps = min(id.flaps+1, 16)
	default:
		id.flaps = 0
	}
}

// rest has a new incarnation of an id whose places did not last wait for the next.
func (m *Machine) rest(id *ident) {
	id.rests = 0
	if id.flaps < 2 {
		return
	}
	most := mostRest * m.cfg.Lease
	rest := m.cfg.Settle
	for range id.flaps {
		rest = min(2*rest, most)
	}
	id.rests = m.now.Mono + max(rest, time.Duration(1))
	m.sweepAt = min(m.sweepAt, id.rests)
	m.do(Rests{id.now.place, rest, id.flaps})
}
