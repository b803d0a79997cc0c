package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/quorate/quorate/internal/seat"
	"github.com/quorate/quorate/internal/wire"
)

// watch is what the watchers remember.
type watch struct {
	found    *Violation
	maxToken uint64
	maxGen   uint64
	gens     map[uint64]*generation
	buckets  map[int]*bucket
	settled  *wire.Settled // the last that was stored

	token, gen uint64 // at rest
}

// bucket is who was granted a bucket last, and its token.
type bucket struct {
	token uint64
	place wire.Place
}

type generation struct {
	total  int
	places map[int]wire.Place
}

func newWatch() watch { return watch{gens: map[uint64]*generation{}, buckets: map[int]*bucket{}} }

func (w *World) violate(rule, format string, args ...any) {
	if w.w.found == nil {
		w.w.found = &Violation{Rule: rule, Text: fmt.Sprintf(format, args...)}
		w.logf(nil, "VIOLATION of %s: %s", rule, w.w.found.Text)
	}
}

// began looks at a term that has just begun.
func (w *World) began(p *proc) {
	if p.term.token <= w.w.maxToken {
		w.violate("L2", "%v begins with token %d, after token %d", p, p.term.token, w.w.maxToken)
	}
	w.w.maxToken = max(w.w.maxToken, p.term.token)
	w.checkL1(p)
}

func (w *World) checkL1(p *proc) {
	if !p.leads() {
		return
	}
	for _, o := range w.procs {
		if o != p && o.leads() {
			w.violate("L1", "%v (token %d) and %v (token %d) both lead", p, p.term.token, o, o.term.token)
		}
	}
}

// released looks at what is about to be sent in place of p's own record: a removal, or a turn.
func (w *World) released(p *proc, what string) {
	if p.leads() || p.work != 0 {
		w.violate("L5", "%v sends a %s while its term is live (%v) or its work has not returned (%v)", p, what, p.leads(), p.work != 0)
	}
}

// sized looks at what only the leader of a group with enough members does. A term that was turned to leading is judged half a lease later.
func (w *World) sized(p *proc, what string) {
	if w.plan.MinSize <= 1 {
		return
	}
	switch n := p.counted; {
	case !p.term.quorate:
		w.violate("Q1", "%v %s in a term that is not quorate", p, what)
	case n < w.plan.MinSize && p.clock().Mono-p.readyAt > p.lease*3/4:
		w.violate("Q1", "%v %s with %d members, and %d are the minimum", p, what, n, w.plan.MinSize)
	}
}

// members is how many members p counts, as a leader.
func (p *proc) members() (n int) {
	for _, r := range p.sm.Roster() {
		if len(r.Roles) > 0 {
			n++
		}
	}
	return n
}

// fallen looks whether a term has outlived its minimum: its work has as long as its grace.
func (w *World) fallen(p *proc) {
	if !p.leads() || !p.term.quorate || p.sm == nil || p.readyAt == 0 || p.pausedUntil > w.now || p.members() >= w.plan.MinSize {
		p.below = 0
		return
	}
	now := p.clock().Mono
	if p.below == 0 {
		p.below = now
	}
	if now-p.below > 3*p.lease { // half a lease to be judged, a lease of grace, and one to run out
		w.violate("Q1", "%v leads %d members for %v, and %d are the minimum", p, p.members(), now-p.below, w.plan.MinSize)
	}
}

// granted looks at an assignment that has just been granted.
func (w *World) granted(p *proc) {
	st := p.st
	if st.gen < w.w.maxGen {
		w.violate("P3", "%v is granted generation %d after %d was granted", p, st.gen, w.w.maxGen)
	}
	w.w.maxGen = max(w.w.maxGen, st.gen)
	g := w.w.gens[st.gen]
	if g == nil {
		g = &generation{total: st.total, places: map[int]wire.Place{}}
		w.w.gens[st.gen] = g
	}
	if st.total != g.total || st.index < 0 || st.index >= st.total {
		w.violate("P1", "%v holds index %d of %d in generation %d of %d", p, st.index, st.total, st.gen, g.total)
	}
	if other, ok := g.places[st.index]; ok && other != st.place {
		w.violate("P1", "index %d of generation %d was given to %v and %v", st.index, st.gen, other, st.place)
	}
	g.places[st.index] = st.place
	w.checkP(p)
	w.checkM2(p)
}

// checkP looks at an assignment that was granted or extended.
func (w *World) checkP(p *proc) {
	w.checkBuckets(p)
	if !p.holds() {
		return
	}
	for _, o := range w.procs {
		if o == p || !o.holds() {
			continue
		}
		switch {
		case o.st.gen != p.st.gen:
			w.violate("P2", "%v holds generation %d while %v holds %d for another %v", p, p.st.gen, o, o.st.gen, o.clock().Left(o.st.deadline))
		case o.id == p.id:
			w.violate("M2", "%v and %v both hold generation %d", p, o, p.st.gen)
		case o.st.index == p.st.index:
			w.violate("P1", "%v and %v both hold index %d of generation %d", p, o, p.st.index, p.st.gen)
		}
	}
}

// gained looks at buckets that have just been granted: nobody else has them, and their tokens are higher than all before, unless it is the same
// place that had them last.
func (w *World) gained(p *proc, buckets []seat.Bucket) {
	w.Gained += len(buckets)
	for _, b := range buckets {
		last := w.w.buckets[b.N]
		if last == nil {
			last = &bucket{}
			w.w.buckets[b.N] = last
		}
		switch {
		case b.Token > last.token:
		case b.Token < last.token:
			w.violate("P3", "%v is granted bucket %d with token %d after %d was granted to %v", p, b.N, b.Token, last.token, last.place)
		case last.place != p.st.place:
			w.violate("P3", "%v is granted bucket %d with token %d, with which %v had it", p, b.N, b.Token, last.place)
		}
		last.token, last.place = b.Token, p.st.place
	}
	w.checkBuckets(p)
	w.checkM2(p)
}

// kept looks at a new assignment: what is kept has the token that it had.
func (w *World) kept(p *proc, buckets []seat.Bucket) {
	for _, b := range buckets {
		if t, ok := p.st.buckets[b.N]; !ok || t != b.Token {
			w.violate("P3", "%v is assigned bucket %d with token %d, and has it with %d", p, b.N, b.Token, t)
		}
		if b.Token < p.st.gen {
			w.Kept++
		}
	}
	if len(buckets) != len(p.st.buckets) {
		w.violate("P2", "%v is assigned buckets %v, and has %v", p, buckets, p.st.buckets)
	}
}

// spread looks at a generation that has settled: what has kept its owner has kept its token, everything else has this generation's.
func (w *World) spread(rec *wire.Settled) {
	last := w.w.settled
	w.w.settled = rec
	switch {
	case last != nil && last.Generation == rec.Generation:
		return // stored again
	case last == nil || last.Buckets != rec.Buckets || last.Map != rec.Map:
		last = &wire.Settled{Owners: slices.Repeat([]int{-1}, rec.Buckets)}
	}
	for b, o := range rec.Owners {
		kept := o >= 0 && last.Owners[b] >= 0 && last.Places[last.Owners[b]] == rec.Places[o]
		switch {
		case kept && rec.Tokens[b] != last.Tokens[b]:
			w.violate("P3", "bucket %d stays with %v, and its token %d becomes %d", b, rec.Places[o], last.Tokens[b], rec.Tokens[b])
		case o >= 0 && !kept && rec.Tokens[b] != rec.Generation:
			w.violate("P3", "bucket %d goes to %v in generation %d with token %d", b, rec.Places[o], rec.Generation, rec.Tokens[b])
		}
	}
}

// checkBuckets looks at buckets that were granted or extended.
func (w *World) checkBuckets(p *proc) {
	mine := p.has()
	for _, o := range w.procs {
		if o == p || len(mine) == 0 {
			continue
		}
		for b := range o.has() {
			if _, both := mine[b]; both {
				w.violate("P2", "%v holds bucket %d while %v holds it for another %v", p, b, o, o.clock().Left(o.st.deadline))
			}
		}
	}
}

// checkM2 looks at a member that was granted something.
func (w *World) checkM2(p *proc) {
	if !p.joined() {
		return
	}
	for _, o := range w.procs {
		if o != p && o.id == p.id && (o.joined() || o.holds() || len(o.has()) > 0) {
			w.violate("M2", "%v is a live member while %v still is", p, o)
		}
	}
}

func (w *World) leader() (l *proc, n int) {
	for _, p := range w.procs {
		if p.leads() {
			l = p
			n++
		}
	}
	return l, n
}

// headless says that nobody leads and serves.
func (w *World) headless() bool {
	l, n := w.leader()
	return n == 0 || l.sm == nil || !l.sm.Ready()
}

func (w *World) sample() {
	if _, n := w.leader(); n > 0 {
		w.Led++
	}
	w.Samples++
	if w.plan.MinSize > 1 {
		for _, p := range w.procs {
			if p.alive {
				w.fallen(p)
			}
		}
	}
	w.after(Lease/10, nil, w.sample)
}

// rest looks whether the group has come to rest.
func (w *World) rest() {
	l, n := w.leader()
	if n != 1 {
		w.violate("stuck", "%d leaders after the calm", n)
		return
	}
	if !l.term.quorate {
		w.violate("stuck", "%v is not quorate after the calm", l)
		return
	}
	w.w.token = l.term.token
	w.w.gen = 0
	ids := map[string]bool{}
	for _, p := range w.procs {
		if p.alive {
			ids[p.id] = true
		}
	}
	held := map[string]bool{}
	for _, p := range w.procs {
		if !p.holds() {
			continue
		}
		held[p.id] = true
		w.w.gen = p.st.gen
		if p.st.total != len(ids) {
			w.violate("stuck", "%v holds index %d of %d, but %d ids work", p, p.st.index, p.st.total, len(ids))
		}
	}
	for _, p := range w.procs {
		if p.alive && !held[p.id] {
			w.violate("stuck", "%v holds nothing after the calm", p)
		}
	}
	w.restBuckets(l)
}

// restBuckets looks whether every bucket has an owner, and everybody its share.
func (w *World) restBuckets(l *proc) {
	if l.sm == nil {
		return
	}
	rec, _ := l.sm.Record()
	if !w.plan.Cuts && rec.Buckets != w.plan.Buckets {
		w.violate("stuck", "%d buckets after the calm, want %d", rec.Buckets, w.plan.Buckets)
	}
	weights, owned := 0, 0
	for _, p := range w.procs {
		if p.holds() {
			weights += p.weight
			owned += len(p.has())
		}
	}
	if owned != rec.Buckets {
		w.violate("stuck", "%d of %d buckets are owned after the calm", owned, rec.Buckets)
	}
	for _, p := range w.procs {
		if d := len(p.has())*weights - rec.Buckets*p.weight; p.holds() && (d <= -weights || d >= weights) {
			w.violate("stuck", "%v has %d of %d buckets after the calm, by weight %d of %d", p, len(p.has()), rec.Buckets, p.weight, weights)
		}
	}
}

// rested looks whether it has stayed at rest.
func (w *World) rested() {
	token, gen := w.w.token, w.w.gen
	w.rest()
	if w.w.found == nil && (w.w.token != token || w.w.gen != gen) {
		w.violate("stuck", "no rest: token %d became %d, generation %d became %d without any fault", token, w.w.token, gen, w.w.gen)
	}
}

// calmDown ends all faults and brings back whoever is missing.
func (w *World) calmDown() {
	w.logf(nil, "CALM")
	w.calm = true
	w.outage = min(w.outage, w.now)
	for _, p := range w.procs {
		p.pausedUntil = min(p.pausedUntil, w.now)
		p.suspTo = min(p.suspTo, w.now)
		p.cutUntil = min(p.cutUntil, w.now)
	}
	for i := range w.plan.Procs {
		w.respawn(name(i), 5*Lease+time.Duration(i)*Lease/10)
	}
}
