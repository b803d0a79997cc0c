package sim

import (
	"github.com/quorate/quorate/internal/lease"
	"github.com/quorate/quorate/internal/seat"
	"github.com/quorate/quorate/internal/settle"
	"github.com/quorate/quorate/internal/wire"
)

// fault brings one fault on one process or on NATS, and the next one after a while.
func (w *World) fault() {
	if w.calm {
		return
	}
	defer func() { w.after(w.upTo(5*Lease/2), nil, w.fault) }()
	var live []*proc
	for _, p := range w.procs {
		if p.alive {
			live = append(live, p)
		}
	}
	if len(live) == 0 {
		return
	}
	p := live[w.r.IntN(len(live))]
	if w.chance(400) { // the leader has most to lose
		if l, _ := w.leader(); l != nil {
			p = l
		}
	}
	switch x := w.r.IntN(100); {
	case x < 28:
		d := w.upTo(4 * Lease)
		if w.chance(500) {
			d = w.upTo(Lease)
		}
		w.logf(p, "PAUSED for %v", d)
		p.pausedUntil = max(p.pausedUntil, w.now+d)
		w.Pauses++
	case x < 33:
		if p.suspTo > w.now {
			return
		}
		d := w.upTo(5 * Lease)
		w.logf(p, "SUSPENDED for %v", d)
		p.suspend(d)
		w.Suspends++
	case x < 45:
		w.logf(p, "CRASHES")
		w.Crashes++
		p.crash()
	case x < 53:
		n := 0
		for _, o := range live {
			if o.id == p.id {
				n++
			}
		}
		if n == 1 && w.plan.SameID {
			w.logf(nil, "a second process starts under %s", p.id)
			w.Twins++
			w.spawn(p.id)
		}
	case x < 61:
		if l, _ := w.leader(); l != nil && w.plan.Evict && l.sm != nil && l.sm.Ready() {
			w.own(l, func() {
				w.logf(l, "EVICTS %v", p.st.place)
				w.Evictions++
				l.serve(settle.Evict{Place: p.st.place})
			})
		}
	case x < 70:
		d := w.upTo(3 * Lease)
		w.logf(nil, "OUTAGE of the stream for %v", d)
		w.outage = w.now + d
		w.Outages++
	case x < 79:
		if !w.plan.Jumps {
			return
		}
		d := w.upTo(20*Lease) - 10*Lease
		w.logf(p, "WALL CLOCK jumps by %v", d)
		p.wall += d
		w.WallJump++
	case x < 84:
		if l, _ := w.leader(); l != nil && w.plan.Quorum && w.chance(600) {
			w.own(l, func() { l.turn(false) })
			return
		}
		w.own(p, func() {
			w.logf(p, "is asked to resign")
			w.Resigns++
			if w.plan.Quorum && w.chance(500) {
				p.lead(lease.Stop{Cause: lease.StepDown, To: name(w.r.IntN(w.plan.Procs))})
				return
			}
			p.lead(lease.Stop{Cause: lease.Resigned})
		})
	case x < 88:
		w.own(p, func() {
			w.logf(p, "wants to leave")
			w.Leaves++
			p.sit(seat.Leave{})
			p.lead(lease.Withdraw{})
			p.lead(lease.Stop{Cause: lease.Resigned})
		})
	case x < 94:
		d := w.upTo(3 * Lease)
		w.logf(p, "CUT OFF for %v", d)
		p.cutUntil = w.now + d
		w.Cuts++
		w.after(d, p, func() {
			p.serve(settle.Reconnected{})
			p.lead(lease.Reconnected{})
		})
	case x < 96 && w.plan.Cuts && w.chance(500):
		l, _ := w.leader()
		if l == nil {
			return
		}
		w.own(l, func() {
			l.cuts = []int{w.plan.Buckets, w.plan.Buckets + 2, 0, -1}[w.r.IntN(4)]
			w.logf(l, "asks for %d buckets", l.cuts)
			w.Recuts++
			l.serve(settle.Tune{Settle: l.lease / 4, Ceiling: 2 * l.lease, AckTimeout: l.lease, Buckets: l.cuts, Map: wire.MapXXH64})
		})
	case x < 97:
		w.own(p, func() {
			w.logf(p, "withdraws for a moment")
			w.Withdrawals++
			p.lead(lease.Withdraw{})
			w.after(w.upTo(Lease/2), p, func() {
				if !p.ending {
					p.lead(lease.Campaign{})
				}
			})
		})
	default:
		w.own(p, func() {
			st := p.st
			if st.work == 0 || st.letting || !st.holding && len(st.buckets) == 0 {
				return
			}
			w.logf(p, "its work ends by itself for a while")
			w.Quits++
			st.work = 0
			p.sit(seat.LetGo{})
			p.sit(seat.Roles{Roles: []string{wire.RoleLead}})
			back := func() { p.sit(seat.Roles{Roles: []string{wire.RoleLead, wire.RoleWork}}) }
			w.after(w.upTo(3*Lease), p, func() {
				if p.st == st {
					back()
				}
			})
		})
	}
}

// lose has the settled record run out (S10), and as a rule ends the leader, who would not notice.
func (w *World) lose() {
	if w.calm {
		return
	}
	defer func() { w.after(5*Lease+w.upTo(20*Lease), nil, w.lose) }()
	if e, _ := w.at(settledKey, w.now); e.settled == nil {
		return
	}
	w.logf(nil, "the settled record is LOST")
	w.Losses++
	w.store(settledKey, entry{marker: true, reason: "MaxAge"})
	l, _ := w.leader()
	switch {
	case l == nil:
	case w.chance(400):
		w.Crashes++
		l.crash()
	case w.chance(800):
		w.own(l, func() { l.lead(lease.Stop{Cause: lease.Resigned}) })
	}
}

// own runs fn as p itself: once it is not paused any more.
func (w *World) own(p *proc, fn func()) { w.after(0, p, fn) }

// endLeader brings about what the plan says becomes of the leader.
func (w *World) endLeader() {
	l, _ := w.leader()
	if l == nil || w.plan.End == 0 {
		return
	}
	switch w.plan.End {
	case Crashes:
		w.logf(l, "CRASHES %d events after it began to settle", w.plan.EndAt)
		w.Crashes++
		l.alive = false // for good
	case Resigns:
		w.logf(l, "is asked to resign %d events after it began to settle", w.plan.EndAt)
		w.Resigns++
		w.own(l, func() { l.lead(lease.Stop{Cause: lease.Resigned}) })
	case Stalls:
		w.logf(l, "STANDS STILL %d events after it began to settle", w.plan.EndAt)
		w.Pauses++
		l.pausedUntil = w.now + 2*Lease
	}
}
