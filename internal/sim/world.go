package sim

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/quorate/quorate/internal/wire"
)

// Lease is the shorter of the two leases in use; a mixed run also has three times this.
const Lease = time.Second

// markerTTL is how long a removal stays visible.
const markerTTL = 15 * Lease

// A Plan says what one run is like; it determines the run.
type Plan struct {
	Seed     uint64
	Procs    int  // processes at the start, each with an id of its own
	Ratio    int  // clock rates are drawn from 1000 to this, in thousandths of real time
	MixLease bool // some processes have three times the lease
	Stale    bool // reads may be answered by a former leader of the stream
	Jumps    bool // wall clocks jump
	Timeouts bool // member timeouts differ too: two leases to six
	Evict    bool
	Quorum   bool // terms begin not quorate, and are turned now and then
	Return   bool // members have return windows
	Lose     bool // the settled record goes away now and then, mostly with its leader
	MinSize  int  // with Quorum: members without which nobody leads
	Buckets  int  // fixed buckets; 0: shares are by index
	Cuts     bool // not all leaders ask for as many buckets
	SameID   bool // a second process may start under a live id
	Newcomer bool // the last process starts later than the others
	End      End  // what becomes of the leader, so many events after it has begun to settle for the newcomer
	EndAt    int
	Chaos    int // 1 to 3: how bad the network is
	Faults   int // leases of faults, before the calm
	Calm     int // leases without faults, at whose end the group must have come to rest; 0: not checked
}

// An End is how a leader ends.
type End int

// Ends of a leader.
const (
	Crashes End = iota + 1
	Resigns
	Stalls // it stands still for two leases, and goes on
)

// PlanFor is the plan of one seed.
func PlanFor(seed uint64) Plan {
	p := Plan{Seed: seed, Procs: 2 + int(seed%4), Ratio: 1050, MixLease: seed%2 == 0, Stale: true, Jumps: true, Evict: true,
		Quorum: seed%5 == 2 || seed%5 == 3, SameID: true, Chaos: 1 + int(seed%3), Faults: 45, Calm: 30}
	p.Return = seed%3 == 1
	if seed%7 < 4 {
		p.Buckets, p.Cuts = []int{1, 3, 5, 16}[seed%7], seed%11 == 0
	}
	if p.Quorum {
		p.MinSize = 2 + int(seed/5)%(p.Procs-1)
	}
	if p.MixLease {
		p.Calm *= 2
	}
	return p
}

// A Violation is what a watcher saw.
type Violation struct {
	Rule string // L1, P2, ..., or stuck
	Text string
	Step int
}

// Stats counts what happened in runs.
type Stats struct {
	Runs, Steps                                                    int
	Terms, Generations, Grants, Extends, Lapses, P4                int
	Writes, Unknown, Stale, Idle                                   int
	Pauses, Suspends, Crashes, Twins, Evictions, Outages, WallJump int
	Resigns, Leaves, Cuts, Withdrawals, Quits, Turns, Losses       int
	Gained, Kept, Lost, Parts, Recuts                              int // buckets
	Led, Samples                                                   int
}

func (s *Stats) add(o Stats) {
	s.Runs += o.Runs
	s.Steps += o.Steps
	s.Terms += o.Terms
	s.Generations += o.Generations
	s.Grants += o.Grants
	s.Extends += o.Extends
	s.Lapses += o.Lapses
	s.P4 += o.P4
	s.Writes += o.Writes
	s.Unknown += o.Unknown
	s.Stale += o.Stale
	s.Idle += o.Idle
	s.Pauses += o.Pauses
	s.Suspends += o.Suspends
	s.Crashes += o.Crashes
	s.Twins += o.Twins
	s.Evictions += o.Evictions
	s.Outages += o.Outages
	s.WallJump += o.WallJump
	s.Resigns += o.Resigns
	s.Leaves += o.Leaves
	s.Cuts += o.Cuts
	s.Withdrawals += o.Withdrawals
	s.Quits += o.Quits
	s.Turns += o.Turns
	s.Losses += o.Losses
	s.Gained += o.Gained
	s.Kept += o.Kept
	s.Lost += o.Lost
	s.Parts += o.Parts
	s.Recuts += o.Recuts
	s.Led += o.Led
	s.Samples += o.Samples
}

func (s Stats) String() string {
	led := 0.0
	if s.Samples > 0 {
		led = 100 * float64(s.Led) / float64(s.Samples)
	}
	return fmt.Sprintf("%d runs, %d steps; led %.1f %% of the time, %d terms, %d generations, %d grants, %d lapses (%d at a change of leader), "+
		"%d extensions; %d writes, %d unanswered, %d stale reads, %d idle ticks; faults: %d pauses, %d suspends, %d crashes, %d twins, "+
		"%d evictions, %d outages, %d wall jumps, %d cuts, %d resigns, %d leaves, %d withdrawals, %d quits, %d turns, %d losses; "+
		"buckets: %d gained, %d kept over a generation, %d given up, %d cuts, %d let go of but for what is kept",
		s.Runs, s.Steps, led, s.Terms, s.Generations, s.Grants, s.Lapses, s.P4, s.Extends, s.Writes, s.Unknown, s.Stale, s.Idle,
		s.Pauses, s.Suspends, s.Crashes, s.Twins, s.Evictions, s.Outages, s.WallJump, s.Cuts, s.Resigns, s.Leaves, s.Withdrawals, s.Quits, s.Turns, s.Losses,
		s.Gained, s.Kept, s.Lost, s.Recuts, s.Parts)
}

type event struct {
	at  time.Duration
	seq int
	p   *proc // whose it is: dropped when it is dead, put off while it is paused
	fn  func()
}

type queue []event

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	if q[i].at != q[j].at {
		return q[i].at < q[j].at
	}
	return q[i].seq < q[j].seq
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *queue) Pop() any {
	o := *q
	e := o[len(o)-1]
	o[len(o)-1] = event{}
	*q = o[:len(o)-1]
	return e
}

// entry is one version of a key.
type entry struct {
	rev     uint64
	at      time.Duration // real
	leader  *wire.Leader
	settled *wire.Settled
	member  *wire.Member
	marker  bool
	// Of a marker.
	reason, nonce string
	replaced      uint64
	token         uint64
	inc           uint64
	next          string
	queue         []string
}

// A World is one run.
type World struct {
	Stats
	plan   Plan
	r      *rand.Rand
	now    time.Duration // real time
	q      queue
	eseq   int
	seq    uint64 // of the stream
	hist   map[string][]entry
	seqs   []seqAt
	procs  []*proc
	incs   map[string]uint64
	outage time.Duration
	calm   bool
	since  int // step at which a leader began to settle for the newcomer; 0: none has yet
	w      watch

	trace bool
	log   []string
}

type seqAt struct {
	at  time.Duration
	seq uint64
}

// markerTTL is how long a removal stays visible: for longer than several member timeouts, as in coord.
func (w *World) markerTTL() time.Duration {
	if w.plan.Timeouts {
		return 4 * markerTTL
	}
	return markerTTL
}

// Run carries out a plan. With trace it also returns what happened, one line each.
func Run(plan Plan, trace bool) (*Violation, Stats, []string) {
	w := &World{plan: plan, r: rand.New(rand.NewPCG(plan.Seed, 0x9e3779b97f4a7c15)), hist: map[string][]entry{},
		incs: map[string]uint64{}, trace: trace, w: newWatch()}
	w.Runs = 1
	for i := range plan.Procs {
		id, at := name(i), w.upTo(Lease)
		if plan.Newcomer && i == plan.Procs-1 {
			at += 3 * Lease
		}
		w.after(at, nil, func() { w.spawn(id) })
	}
	w.calm = plan.Faults == 0
	w.after(2*Lease, nil, w.fault)
	w.after(Lease, nil, w.sample)
	if plan.Lose {
		w.after(5*Lease+w.upTo(10*Lease), nil, w.lose)
	}
	faults := time.Duration(plan.Faults) * Lease
	end := faults + time.Duration(plan.Calm)*Lease
	if plan.Calm > 0 {
		if plan.Faults > 0 {
			w.after(faults, nil, w.calmDown)
		}
		w.after(end-5*Lease, nil, w.rest)
		w.after(end, nil, w.rested)
	}
	for len(w.q) > 0 && w.w.found == nil {
		e := heap.Pop(&w.q).(event)
		if e.at > end {
			break
		}
		w.now = e.at
		if e.p != nil {
			if !e.p.alive {
				continue
			}
			if e.p.pausedUntil > w.now {
				w.push(e.p.pausedUntil+w.upTo(200*time.Microsecond), e.p, e.fn) // in any order
				continue
			}
		}
		w.Steps++
		e.fn()
		if w.since > 0 && w.Steps == w.since+plan.EndAt {
			w.endLeader()
		}
	}
	if w.w.found != nil {
		w.w.found.Step = w.Steps
	}
	return w.w.found, w.Stats, w.log
}

func name(i int) string { return "m" + strconv.Itoa(i) }

func (w *World) push(at time.Duration, p *proc, fn func()) {
	w.eseq++
	heap.Push(&w.q, event{max(at, w.now), w.eseq, p, fn})
}

func (w *World) after(d time.Duration, p *proc, fn func()) { w.push(w.now+d, p, fn) }

// chance is true in the given number of 1000 cases.
func (w *World) chance(permille int) bool { return w.r.IntN(1000) < permille }

// harm is a chance that grows with the chaos and is none in the calm.
func (w *World) harm(permille int) bool { return !w.calm && w.chance(permille*w.plan.Chaos) }

func (w *World) upTo(d time.Duration) time.Duration { return time.Duration(w.r.Int64N(int64(d))) }

// delay of a message: mostly short, sometimes up to several leases (buffers, a pause between check and send).
func (w *World) delay() time.Duration {
	x := w.r.IntN(1000)
	switch {
	case w.calm:
	case x < 20*w.plan.Chaos:
		return w.upTo(3 * Lease)
	case x < 60*w.plan.Chaos:
		return w.upTo(Lease / 2)
	}
	return w.upTo(Lease / 100)
}

func (w *World) logf(p *proc, format string, args ...any) {
	if !w.trace {
		return
	}
	who := "env"
	if p != nil {
		who = p.String()
	}
	w.log = append(w.log, fmt.Sprintf("%9.4f %-9s %s", w.now.Seconds(), who, fmt.Sprintf(format, args...)))
}

// ---- the bucket

// at is what stood under a key at a moment, and the last sequence then.
func (w *World) at(key string, t time.Duration) (entry, uint64) {
	var e entry
	h := w.hist[key]
	for i := len(h) - 1; i >= 0; i-- {
		if h[i].at <= t {
			e = h[i]
			break
		}
	}
	if e.marker && t-e.at >= w.markerTTL() {
		e = entry{} // markers disappear too (R17)
	}
	var last uint64
	for i := len(w.seqs) - 1; i >= 0; i-- {
		if w.seqs[i].at <= t {
			last = w.seqs[i].seq
			break
		}
	}
	return e, last
}

// serve runs fn at the server, after an outage if one is on.
func (w *World) serve(fn func()) {
	if w.outage > w.now {
		if w.chance(500) {
			return
		}
		w.push(w.outage+w.upTo(Lease/10), nil, fn)
		return
	}
	fn()
}

// outcome of a write.
type outcome int

const (
	unknown outcome = iota
	yes
	no
)

// cas sends one compare-and-set of p. The answer comes to p, or `unknown` after a sixth of its lease; it may land long
// after that.
func (w *World) cas(p *proc, key string, expected uint64, e entry, answer func(outcome, uint64)) {
	done := false
	w.Writes++
	reply := func(o outcome, rev uint64) {
		if !done {
			done = true
			if o == unknown {
				w.Unknown++
			} else {
				p.maxSeq = max(p.maxSeq, rev)
			}
			answer(o, rev)
		}
	}
	if !w.harm(10) && !p.cut() {
		w.after(w.delay(), nil, func() {
			w.serve(func() {
				cur, _ := w.at(key, w.now)
				o, rev := no, cur.rev
				if cur.rev == expected {
					o, rev = yes, w.store(key, e)
				}
				if !w.harm(15) {
					w.after(w.delay(), p, func() {
						if !p.cut() {
							reply(o, rev)
						}
					})
				}
			})
		})
	}
	w.after(p.real(p.lease/6), p, func() { reply(unknown, 0) })
}

// store writes and tells everyone who listens.
func (w *World) store(key string, e entry) uint64 {
	w.seq++
	e.rev, e.at = w.seq, w.now
	w.hist[key] = append(w.hist[key], e)
	w.seqs = append(w.seqs, seqAt{w.now, w.seq})
	if w.trace {
		switch {
		case w.calm && e.leader != nil && e.leader.Token != 0: // renewals without faults
		case e.marker:
			w.logf(nil, "stored %d %s removed: %s (nonce %s, replaced %d)", e.rev, key, e.reason, e.nonce, e.replaced)
		case e.leader != nil:
			w.logf(nil, "stored %d %s: %s nonce %s term %d", e.rev, key, e.leader.ID, e.leader.Nonce, e.leader.Token)
		case e.settled != nil:
			s := e.settled
			w.logf(nil, "stored %d %s: %s gen %d previous %d places %v timeout %d by term %d", e.rev, key, s.Phase, s.Generation, s.Previous, s.Places, s.MemberTimeoutMS, s.Token)
			if s.Buckets > 0 {
				w.logf(nil, "  buckets of %v since %v, moving %v", s.Owners, s.Tokens, s.Moving)
			}
		case e.member != nil:
			w.logf(nil, "stored %d %s: incarnation %d", e.rev, key, e.member.Incarnation)
		}
	}
	switch {
	case key == settledKey && e.marker:
		w.w.settled = nil
	case e.settled != nil && e.settled.Phase == wire.SettledDone:
		w.spread(e.settled)
	}
	for _, o := range w.procs {
		if !o.alive {
			continue
		}
		for n := w.copies(); n > 0; n-- {
			w.after(w.delay(), o, func() {
				if !o.cut() {
					o.maxSeq = max(o.maxSeq, e.rev)
					o.hint(key, e)
				}
			})
		}
	}
	return e.rev
}

// copies is how often a message arrives: mostly once.
func (w *World) copies() int {
	switch {
	case w.harm(25):
		return 0
	case w.harm(8):
		return 2
	}
	return 1
}

// read asks the stream's leader for keys. The answer comes to p, or ok false after a sixth of its lease. proves says that
// an absence proves something: the answer is not older than anything p has seen (kv.Entry.Vacant).
func (w *World) read(p *proc, keys []string, answer func(ok, proves bool, es []entry)) {
	done := false
	if !w.harm(10) && !p.cut() {
		w.after(w.delay(), nil, func() {
			w.serve(func() {
				t := w.now
				if w.plan.Stale && w.harm(20) {
					t = max(0, t-w.upTo(3*Lease)) // a former leader of the stream answers
					w.Stale++
				}
				var es []entry
				for _, k := range keys {
					e, _ := w.at(k, t)
					es = append(es, e)
				}
				_, last := w.at("", t)
				w.after(w.delay(), p, func() {
					if !done && !p.cut() {
						done = true
						proves := last >= p.maxSeq
						p.maxSeq = max(p.maxSeq, last)
						answer(true, proves, es)
					}
				})
			})
		})
	}
	w.after(p.real(p.lease/6), p, func() {
		if !done {
			done = true
			answer(false, false, nil)
		}
	})
}
