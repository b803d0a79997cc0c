package sim

import (
	"fmt"
	"time"

	"github.com/quorate/quorate/internal/clock"
	"github.com/quorate/quorate/internal/lease"
	"github.com/quorate/quorate/internal/seat"
	"github.com/quorate/quorate/internal/settle"
	"github.com/quorate/quorate/internal/wire"
)

const (
	leaderKey  = "leader.g"
	settledKey = "settled.g"
)

func memberKey(id string) string { return "member.g." + id }

// proc is one process: the machines and what their shells would keep.
type proc struct {
	w      *World
	pid    int
	id     string
	alive  bool
	lease  time.Duration
	leases int // in a member timeout
	cuts   int // how many buckets it asks for when it leads
	weight int

	rate             int64 // of all its clocks, in thousandths of real time
	boot, wall       time.Duration
	suspFrom, suspTo time.Duration // real: its present or last suspend
	lost             time.Duration // monotonic time lost in suspends before that
	pausedUntil      time.Duration // real
	cutUntil         time.Duration // real
	maxSeq           uint64        // highest sequence seen of the bucket

	lm    *lease.Machine
	lmAt  int // stamps of the timers: an older one is void
	term  *term
	work  int // number of the term whose work has not returned; 0: none
	works int

	sm      *settle.Machine
	smAt    int
	readyAt time.Duration // monotonic: when it began to serve; 0: not yet
	begun   string        // nonce of the last generation it began
	counted int           // its members before the present step
	below   time.Duration // monotonic: since when it leads too few; 0: it does not
	before  *settle.Machine
	beforeT uint64 // token of its term

	st     *member
	ending bool // the process is on its way out
}

// term as the elector's shell would know it.
type term struct {
	token    uint64
	deadline clock.Instant
	ended    bool
	asked    bool
	quorate  bool
}

// member is one incarnation, as the shell of a group would know it.
type member struct {
	place  wire.Place
	joined string
	m      *seat.Machine // nil until its record is stored or it knows that another's stands
	at     int
	nonce  int
	gone   bool

	holding      bool // an assignment
	buckets      map[int]uint64
	gen          uint64
	index, total int
	deadline     clock.Instant
	work         int // number of the assignment whose work has not let go; 0: none
	letting      bool
	asked        uint64 // for which generation it is to let go
	writing      bool
}

func (p *proc) String() string {
	if p.st == nil {
		return fmt.Sprintf("p%d(%s)", p.pid, p.id)
	}
	return fmt.Sprintf("p%d(%s.%d)", p.pid, p.id, p.st.place.Incarnation)
}

// ---- clocks

func (p *proc) local() time.Duration {
	return time.Duration(int64(p.w.now) * p.rate / 1000)
}

// clock reads all three clocks. The monotonic one stands still in a suspend.
func (p *proc) clock() clock.Instant {
	l, at := p.local(), p.w.now
	mono := l - p.lost
	if p.suspTo > 0 {
		from := time.Duration(int64(p.suspFrom) * p.rate / 1000)
		to := time.Duration(int64(min(at, p.suspTo)) * p.rate / 1000)
		mono -= to - from
	}
	return clock.Instant{Mono: mono + time.Hour, Boot: l + p.boot, Wall: l + p.wall}
}

func (p *proc) suspend(d time.Duration) {
	if p.suspTo > 0 {
		p.lost += time.Duration(int64(p.suspTo)*p.rate/1000) - time.Duration(int64(p.suspFrom)*p.rate/1000)
	}
	p.suspFrom, p.suspTo = p.w.now, p.w.now+d
	p.pausedUntil = p.suspTo
}

// real is how long d of its clocks takes.
func (p *proc) real(d time.Duration) time.Duration { return d*1000/time.Duration(p.rate) + 1 }

func (p *proc) cut() bool { return p.cutUntil > p.w.now }

// ---- what is live, by the clocks at this moment

func (p *proc) leads() bool {
	return p.alive && p.term != nil && !p.term.ended && !p.clock().Reached(p.term.deadline)
}

func (p *proc) holds() bool {
	return p.alive && p.st != nil && p.st.holding && !p.clock().Reached(p.st.deadline)
}

// has says which buckets it holds.
func (p *proc) has() map[int]uint64 {
	if !p.alive || p.st == nil || len(p.st.buckets) == 0 || p.clock().Reached(p.st.deadline) {
		return nil
	}
	return p.st.buckets
}

func (p *proc) joined() bool {
	return p.alive && p.st != nil && !p.st.gone && p.st.m != nil && p.st.m.Live(p.clock())
}

// ---- start and end

func (w *World) spawn(id string) *proc {
	p := &proc{w: w, pid: len(w.procs), id: id, alive: true, rate: int64(1000 + w.r.IntN(w.plan.Ratio-1000+1)),
		boot: w.upTo(100 * Lease), wall: w.upTo(1000 * Lease), lease: Lease}
	if w.chance(400) {
		p.rate = 1000
	} else if w.chance(400) {
		p.rate = int64(w.plan.Ratio)
	}
	p.leases, p.weight, p.cuts = 2, 1, w.plan.Buckets
	if w.plan.Buckets > 0 && w.chance(300) {
		p.weight = 1 + w.r.IntN(4)
	}
	if w.plan.Cuts {
		p.cuts = []int{w.plan.Buckets, w.plan.Buckets, 0, 0, w.plan.Buckets + 2, -1}[w.r.IntN(6)]
	}
	if w.plan.Timeouts {
		p.leases += w.r.IntN(5)
	}
	if w.plan.MixLease && w.chance(500) {
		p.lease = 3 * Lease
	}
	w.procs = append(w.procs, p)
	cfg := lease.Config{ID: id, Prefix: fmt.Sprintf("%s-%d", id, p.pid), Lease: p.lease, Margin: p.lease / 10, Grace: p.lease, Jitter: w.r.Float64(),
		Quorum: w.plan.Quorum}
	if w.chance(150) {
		cfg.Delay = w.upTo(p.lease / 2)
	}
	p.lm = lease.New(cfg)
	p.join(false)
	w.logf(p, "starts: clocks at %d/1000, lease %v", p.rate, p.lease)
	p.lead(lease.Campaign{})
	return p
}

// respawn starts a process under the id if none runs by then.
func (w *World) respawn(id string, d time.Duration) {
	w.after(d, nil, func() {
		for _, o := range w.procs {
			if o.alive && o.id == id {
				return
			}
		}
		w.spawn(id)
	})
}

func (p *proc) crash() {
	p.alive = false
	p.w.respawn(p.id, p.w.upTo(4*Lease))
}

// exit is how a process ends that is no member any more: it lets go of everything, then it is gone.
func (p *proc) exit() {
	if p.ending {
		return
	}
	p.ending = true
	p.lead(lease.Withdraw{})
	p.lead(lease.Stop{Cause: lease.Resigned})
	p.w.after(p.w.upTo(2*Lease), p, func() {
		p.w.logf(p, "exits")
		p.alive = false
		p.w.respawn(p.id, p.w.upTo(Lease))
	})
}

// ---- the lease machine's shell

func (p *proc) lead(in lease.Input) {
	if !p.alive {
		return
	}
	es := p.lm.Step(p.clock(), in)
	if _, tick := in.(lease.Tick); tick && len(es) == 0 {
		p.w.Idle++
	}
	for _, e := range es {
		p.leadEffect(e)
	}
	p.lmAt++
	if at, ok := p.lm.Next(); ok {
		stamp := p.lmAt
		p.timer(at, func() {
			if p.lmAt == stamp {
				p.lead(lease.Tick{})
			}
		})
	}
}

// turn asks for a term of the other kind in place of the present one.
func (p *proc) turn(quorate bool) {
	p.w.logf(p, "is to be turned: quorate %v", quorate)
	p.lead(lease.Flip{Quorate: quorate})
}

// timer fires at a moment of the monotonic clock or a little later.
func (p *proc) timer(mono time.Duration, fn func()) {
	d := max(0, mono-p.clock().Mono)
	p.w.after(p.real(d)+p.w.upTo(Lease/500), p, fn)
}

func (p *proc) leadEffect(e lease.Effect) {
	w := p.w
	switch e := e.(type) {
	case lease.Read:
		w.read(p, []string{leaderKey}, func(ok, proves bool, es []entry) {
			if !ok || es[0].rev == 0 && !proves {
				p.lead(lease.ReadDone{})
				return
			}
			p.lead(lease.ReadDone{OK: true, Entry: p.leaderEntry(es[0])})
		})
	case lease.Write:
		p.leadWrite(e)
	case lease.Begin:
		w.logf(p, "TERM %d begins, deadline in %v, quorate %v", e.Token, p.clock().Left(e.Deadline), e.Quorate)
		w.Terms++
		if p.term != nil && !p.term.ended {
			w.violate("L1", "%v begins term %d in its term %d", p, e.Token, p.term.token)
		}
		p.term = &term{token: e.Token, deadline: e.Deadline, quorate: e.Quorate}
		p.works++
		p.work = p.works
		w.began(p)
		cfg := settle.Config{Token: e.Token, Self: p.st.place, Prefix: fmt.Sprintf("%s-%d-%d", p.id, p.pid, e.Token),
			Lease: p.lease, Timeout: time.Duration(p.leases) * p.lease, Settle: p.lease / 4, Ceiling: 2 * p.lease, AckTimeout: p.lease, Fresh: e.Fresh,
			MinSize: w.plan.MinSize, Keeps: !e.Quorate, Fell: !e.Quorate && e.After != 0, Buckets: p.cuts, Map: wire.MapXXH64}
		if e.After != 0 && e.After == p.beforeT {
			cfg.Before = p.before
		}
		p.before, p.readyAt, p.below = nil, 0, 0
		p.sm = settle.New(cfg, p.clock())
		p.serve(settle.Tick{})
	case lease.Extend:
		p.term.deadline = p.term.deadline.Later(e.Deadline)
		w.checkL1(p)
	case lease.Asked:
		p.return_(p.term)
	case lease.Ended:
		w.logf(p, "term %d ended (cause %d)", e.Token, e.Cause)
		p.term.ended = true
		p.before, p.beforeT, p.sm = p.sm, e.Token, nil
		p.return_(p.term)
	case lease.Released:
	}
}

// return_ lets the work of a term return after a while, sometimes longer than its grace.
func (p *proc) return_(t *term) {
	if t.asked {
		return
	}
	t.asked = true
	d := p.w.upTo(Lease / 50)
	if !p.w.calm && p.w.chance(300) {
		d = p.w.upTo(2 * p.lease)
	}
	n := p.work
	p.w.after(d, p, func() {
		if p.work == n {
			p.work = 0
			p.lead(lease.Returned{})
		}
	})
}

func (p *proc) leadWrite(e lease.Write) {
	w := p.w
	var queue []string
	answer := func(o outcome, rev uint64) {
		p.lead(lease.WriteDone{Nonce: e.Nonce, Outcome: lease.Outcome(o), Rev: rev, Queue: queue})
	}
	if e.Kind == lease.Undo {
		w.logf(p, "sends removal of %d (%s)", e.Expected, e.Reason)
		w.released(p, "release")
		if !w.chance(4) { // whoever it names, or nobody, or it does not say
			queue = []string{name(w.r.IntN(w.plan.Procs)), name(w.r.IntN(w.plan.Procs))}[:w.r.IntN(3)]
		}
		w.cas(p, leaderKey, e.Expected,
			entry{marker: true, reason: e.Reason, nonce: e.Replaces, replaced: e.Expected, next: e.Next, queue: queue}, answer)
		return
	}
	rec := &wire.Leader{V: wire.Version, ID: p.id, Nonce: e.Nonce, Token: e.Token, Params: wire.Params{LeaseMS: wire.ToMS(p.lease)}}
	if e.Keeps {
		rec.Quorate = new(bool)
	}
	if e.Kind == lease.Turn {
		w.logf(p, "sends turn %s over %d", e.Nonce, e.Expected)
		w.Turns++
		w.released(p, "turn")
	} else if e.Kind == lease.Acquire {
		w.logf(p, "sends acquire %s over %d", e.Nonce, e.Expected)
	} else if p.sm != nil {
		for _, r := range p.sm.Roster() {
			if r.Place.ID != p.id && len(rec.Next) < 3 {
				rec.Next = append(rec.Next, r.Place.ID)
			}
		}
		queue = rec.Next
	}
	w.cas(p, leaderKey, e.Expected, entry{leader: rec}, answer)
}

func (p *proc) leaderEntry(e entry) lease.Entry {
	l := lease.Entry{Rev: e.rev}
	switch {
	case e.rev == 0:
	case !e.marker:
		l.Kind, l.Rec = lease.Held, e.leader
	default:
		l.Kind, l.Nonce, l.Replaced, l.Next, l.Queue = lease.Release, e.nonce, e.replaced, e.next, e.queue
		if p.w.chance(100) {
			l.Replaced = 0 // a read may not know
		}
	}
	return l
}

// hint is what a watcher heard.
func (p *proc) hint(key string, e entry) {
	switch {
	case key == leaderKey:
		if e.leader != nil && e.leader.Token == 0 {
			p.sit(seat.Poke{}) // a new leader
		}
		p.lead(lease.Seen{Entry: p.leaderEntry(e)})
	case key == settledKey:
	case p.sm != nil:
		p.serve(memberEntry(key, e))
	}
}

func memberEntry(key string, e entry) settle.Key {
	k := settle.Key{Place: wire.Place{ID: key[len("member.g."):]}, Rev: e.rev}
	if e.marker {
		k.Reason, k.Nonce, k.ByToken, k.Place.Incarnation = e.reason, e.nonce, e.token, e.inc
	} else {
		k.Record, k.Place.Incarnation = e.member, e.member.Incarnation
	}
	return k
}

// ---- the settle machine's shell

type handle struct {
	p  *proc
	st *member
}

func (p *proc) serve(in settle.Input) {
	sm := p.sm
	if !p.alive || sm == nil {
		return
	}
	if w := p.w; w.plan.MinSize > 1 {
		p.counted = p.members() // what the step begins with: it may answer a heartbeat before it counts somebody out
	}
	for _, e := range sm.Step(p.clock(), in) {
		p.serveEffect(sm, e)
	}
	if p.readyAt == 0 && sm.Ready() {
		p.readyAt = p.clock().Mono
	}
	if p.sm != sm {
		return
	}
	p.smAt++
	stamp := p.smAt
	p.timer(sm.Next(), func() {
		if p.smAt == stamp && p.sm == sm {
			p.serve(settle.Tick{})
		}
	})
}

func (p *proc) serveEffect(sm *settle.Machine, e settle.Effect) {
	w := p.w
	mine := func(fn func()) { // answers go to the machine that asked
		if p.sm == sm {
			fn()
		}
	}
	switch e := e.(type) {
	case settle.ReadSettled:
		w.read(p, []string{settledKey}, func(ok, proves bool, es []entry) {
			mine(func() {
				if !ok || es[0].rev == 0 && !proves {
					p.serve(settle.Adopt{})
					return
				}
				var rec *wire.Settled
				if es[0].settled != nil {
					c := *es[0].settled
					rec = &c
				}
				p.serve(settle.Adopt{OK: true, Rev: es[0].rev, Rec: rec, Lost: es[0].marker})
			})
		})
	case settle.ReadMembers:
		var keys []string
		for i := range w.plan.Procs {
			keys = append(keys, memberKey(name(i)))
		}
		w.read(p, keys, func(ok, proves bool, es []entry) {
			mine(func() {
				if !ok || !proves {
					p.serve(settle.Members{})
					return
				}
				in := settle.Members{OK: true}
				for i, e := range es {
					if e.rev != 0 {
						in.Keys = append(in.Keys, memberEntry(keys[i], e))
					}
				}
				p.serve(in)
			})
		})
	case settle.WriteSettled:
		rec := e.Rec
		w.logf(p, "sends %s over %d: places %v", rec.Phase, e.Expected, rec.Places)
		if w.plan.Newcomer && w.since == 0 && rec.Phase == wire.Settling && len(rec.Places) == w.plan.Procs-1 {
			w.since = w.Steps
		}
		if p.readyAt != 0 && rec.Phase == wire.Settling && rec.Nonce != p.begun { // not its repeat
			p.begun = rec.Nonce
			w.sized(p, "begins a generation")
		}
		w.cas(p, settledKey, e.Expected, entry{settled: &rec}, func(o outcome, rev uint64) {
			mine(func() { p.serve(settle.Wrote{Nonce: rec.Nonce, Outcome: settle.Outcome(o), Rev: rev}) })
		})
	case settle.Reply:
		if !p.leads() {
			return // the shell asks the term before it sends anything (design 4.1)
		}
		h, r := e.Handle.(handle), e.Reply
		if r.Gen > 0 {
			w.sized(p, "grants a share")
		}
		p.send(h.p, func() {
			if h.p.st == h.st {
				h.p.sit(seat.Reply{Reply: r})
			}
		})
	case settle.Poke:
		for _, o := range w.procs {
			if o.alive {
				p.send(o, func() { o.sit(seat.Poke{}) })
			}
		}
	case settle.Remove:
		w.logf(p, "removes the record of %v: %s", e.Place, e.Reason)
		h := w.hist[memberKey(e.Place.ID)]
		nonce := ""
		for _, x := range h {
			if x.rev == e.Rev && x.member != nil {
				nonce = x.member.Nonce
			}
		}
		w.cas(p, memberKey(e.Place.ID), e.Rev, entry{marker: true, reason: e.Reason, nonce: nonce, inc: e.Place.Incarnation, replaced: e.Rev, token: p.term.token}, func(outcome, uint64) {})
	case settle.Settled:
		w.Generations++
	case settle.Turn:
		p.turn(e.Quorate)
	case settle.Superseded:
		w.logf(p, "is superseded")
		p.lead(lease.Kill{Cause: lease.Lost})
	}
}

// send delivers a message from p to o: in any order, late, twice or never.
func (p *proc) send(o *proc, fn func()) {
	if p.cut() {
		return
	}
	for n := p.w.copies(); n > 0; n-- {
		p.w.after(p.w.delay(), o, func() {
			if !o.cut() {
				fn()
			}
		})
	}
}

// ---- the seat machine's shell

// join makes a new incarnation.
func (p *proc) join(engaged bool) {
	w := p.w
	w.incs[p.id]++
	st := &member{place: wire.Place{ID: p.id, Incarnation: w.incs[p.id]}, joined: wire.Time(p.clock().WallTime())}
	if engaged {
		st.work, st.asked = p.st.work, p.st.asked
	}
	p.st = st
	p.record(false)
}

// start makes the incarnation's machine.
func (p *proc) start(st *member, recorded bool) {
	st.m = seat.New(seat.Config{Place: st.place, Roles: []string{wire.RoleLead, wire.RoleWork}, Joined: st.joined, Lease: p.lease,
		AckTimeout: p.lease, Engaged: st.work != 0, Unrecorded: !recorded, Weight: p.weight})
	p.sit(seat.Tick{})
}

func (p *proc) sit(in seat.Input) {
	st := p.st
	if !p.alive || st == nil || st.gone || st.m == nil {
		return
	}
	for _, e := range st.m.Step(p.clock(), in) {
		p.sitEffect(st, e)
	}
	if p.st != st || st.gone {
		return
	}
	st.at++
	stamp := st.at
	p.timer(st.m.Next(), func() {
		if p.st == st && st.at == stamp {
			p.sit(seat.Tick{})
		}
	})
}

func (p *proc) sitEffect(st *member, e seat.Effect) {
	w := p.w
	switch e := e.(type) {
	case seat.Send:
		hb := e.HB
		h := handle{p, st}
		if p.cut() {
			return
		}
		for n := w.copies(); n > 0; n-- {
			w.after(w.delay(), nil, func() {
				for _, o := range w.procs { // everyone who still serves the subject hears it
					if o.alive && o.sm != nil && !o.cut() {
						w.after(0, o, func() { o.serve(settle.Beat{Handle: h, HB: hb}) })
					}
				}
			})
		}
	case seat.Member:
		w.checkM2(p)
	case seat.Granted:
		w.Grants++
		w.logf(p, "GRANTED gen %d index %d/%d buckets %v for %v", e.Gen, e.Index, e.Total, e.Buckets, p.clock().Left(e.Deadline))
		w.kept(p, e.Buckets)
		st.holding, st.gen, st.index, st.total, st.deadline = true, e.Gen, e.Index, e.Total, e.Deadline
		p.works++
		st.work, st.letting = p.works, false
		w.granted(p)
	case seat.Gained:
		w.logf(p, "GAINED buckets %v for %v", e.Buckets, p.clock().Left(e.Deadline))
		if st.buckets == nil {
			st.buckets = map[int]uint64{}
		}
		for _, b := range e.Buckets {
			st.buckets[b.N] = b.Token
		}
		st.deadline = e.Deadline
		p.works++
		st.work, st.letting = p.works, false
		w.gained(p, e.Buckets)
	case seat.Lost:
		w.logf(p, "gave up buckets %v", e.Buckets)
		w.Lost += len(e.Buckets)
		for _, b := range e.Buckets {
			delete(st.buckets, b.N)
		}
	case seat.Extended:
		w.Extends++
		st.deadline = st.deadline.Later(e.Deadline)
		w.checkP(p)
	case seat.Revoke:
		w.logf(p, "is asked to let go of gen %d for %d, keeps %v", e.Gen, e.For, e.Keep)
		if len(e.Keep) > 0 {
			p.letGo(st, e.For)
		} else {
			p.letGo(st, 0)
		}
	case seat.Lapsed:
		w.logf(p, "gen %d lapsed", e.Gen)
		w.Lapses++
		if w.headless() {
			w.P4++
		}
		if st.work == 0 && len(st.buckets) > 0 { // what was to return has, what was to be kept has not
			p.works++
			st.work, st.letting = p.works, false
		}
		st.holding, st.buckets = false, nil
		p.letGo(st, 0)
	case seat.Released:
		w.logf(p, "released gen %d, kept buckets %v", e.Gen, e.Kept)
		st.holding = false
		if !e.Kept {
			st.buckets = nil
		}
	case seat.Kept:
		w.Parts++
		p.works++ // what is kept is worked on
		st.work, st.letting = p.works, false
	case seat.Rewrite:
		p.record(true)
	case seat.Gone:
		w.logf(p, "is told that it is gone: %s", e.Reason)
		st.gone = true
		if e.Reason == wire.GoneExpired && !p.ending {
			w.after(w.upTo(Lease/20), p, func() {
				if p.st == st {
					p.join(st.work != 0)
					p.letGo(p.st, 0)
				}
			})
			return
		}
		p.exit()
	case seat.Depart:
		p.depart(st, 2)
	case seat.Left:
		w.logf(p, "left, clean %v", e.Clean)
		st.gone = true
		p.exit()
	}
}

// letGo lets the work of the present assignment return after a while, sometimes longer than the acknowledgement timeout.
func (p *proc) letGo(st *member, asked uint64) {
	if st.work == 0 || st.letting && st.asked == asked {
		return
	}
	st.letting, st.asked = true, asked
	d := p.w.upTo(Lease / 50)
	if !p.w.calm && p.w.chance(300) {
		d = p.w.upTo(p.lease / 3)
		if p.w.chance(200) {
			d = p.w.upTo(3 * p.lease)
		}
	}
	n := st.work
	p.w.after(d, p, func() {
		if p.st.work == n && p.st.asked == asked { // also of an earlier incarnation in this process
			p.st.work, p.st.letting = 0, false
			p.sit(seat.LetGo{For: asked})
		}
	})
}

// record writes the member's record: at the start if there never was one or its author left, or over whatever stands there
// when the leader asks. No heartbeat is sent before that is known.
func (p *proc) record(asked bool) {
	st, w := p.st, p.w
	if st.writing {
		return
	}
	st.writing = true
	answered := func(ok, stored bool) {
		st.writing = false
		switch {
		case p.st != st || st.gone:
		case st.m != nil:
			if stored {
				p.sit(seat.Recorded{})
			}
		case ok:
			p.start(st, stored)
		default:
			w.after(w.upTo(p.lease/6), p, func() {
				if p.st == st && st.m == nil {
					p.record(asked)
				}
			})
		}
	}
	w.read(p, []string{memberKey(p.id)}, func(ok, proves bool, es []entry) {
		if !ok || p.st != st || st.gone || es[0].rev == 0 && !proves {
			answered(false, false)
			return
		}
		e := es[0]
		if !asked && (e.member != nil && e.member.Incarnation != st.place.Incarnation || e.marker && e.reason != wire.ReasonLeft) {
			answered(true, false)
			return
		}
		st.nonce++
		rec := &wire.Member{V: wire.Version, ID: p.id, Incarnation: st.place.Incarnation, Joined: st.joined,
			Roles: []string{wire.RoleLead, wire.RoleWork}, Nonce: fmt.Sprintf("%s-%d-%d.%d", p.id, p.pid, st.place.Incarnation, st.nonce)}
		if w.plan.Return {
			rec.ReturnMS = wire.ToMS(4 * Lease)
		}
		w.cas(p, memberKey(p.id), e.rev, entry{member: rec}, func(o outcome, _ uint64) { answered(o == yes, o == yes) })
	})
}

// depart removes the member's own record, and says Departed also when that fails.
func (p *proc) depart(st *member, tries int) {
	w := p.w
	done := func() {
		if p.st == st {
			p.sit(seat.Departed{})
		}
	}
	w.read(p, []string{memberKey(p.id)}, func(ok, proves bool, es []entry) {
		if !ok || es[0].member == nil || es[0].member.Incarnation != st.place.Incarnation {
			done()
			return
		}
		e := es[0]
		w.cas(p, memberKey(p.id), e.rev, entry{marker: true, reason: wire.ReasonLeft, nonce: e.member.Nonce, inc: st.place.Incarnation, replaced: e.rev}, func(o outcome, _ uint64) {
			if o != yes && tries > 1 {
				p.depart(st, tries-1)
				return
			}
			done()
		})
	})
}
