package testenv

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/inner"
)

// Invariants watches every term, assignment, membership and verdict of the namespaces opened through it, and fails the
// test at the first moment that breaks a guarantee:
//
//	L1  two live terms of one election
//	L2  a token that is not higher than every one before it
//	M2  two incarnations of one member that act at once
//	P1  two live assignments with one index, or of different totals, in one generation
//	P2  live assignments of two generations; a bucket that two hold
//	P3  a generation that is lower than one granted before; a token of a bucket that is not higher than those of all owners before
//	V1  two verdicts for one ballot
//	A1  an action that begins without a sealed yes, twice in one incarnation, or earlier than its instant less the voter's bound
//
// A right counts as live while its own Live says so, also in a process that is paused; a process that was killed holds
// nothing. Rights are looked at whenever one begins, and in an [Env] each tenth of a second in between (with leases above three seconds, each
// thirtieth of the shortest); elsewhere [Invariants.Look] is for that.
type Invariants struct {
	t  testing.TB
	mu sync.Mutex

	terms       map[string][]*right // by key: those that have begun and not ended
	assignments map[string][]*right
	buckets     map[string][]*right // by key and number
	owners      map[string]owner    // by key and number: who had it last
	members     map[string][]*right // by key of the member record
	tokens      map[string]uint64   // by key: highest so far
	generations map[string]uint64
	verdicts    map[string]string
	holders     map[string]*holding // by namespace and token: whose clock the instants are on
	forgot      time.Time
	acted       map[string]bool // by ballot and incarnation
	dead        map[*inner.Namespace]bool
	told        []string // the last events, for the report
	failed      bool
	counts      Counts
}

// Counts is what was seen: a run in which nothing happened proves nothing.
type Counts struct {
	Terms       int
	Assignments int
	Generations int
	Buckets     int
	Members     int
	Verdicts    int
	Actions     int
}

type right struct{ inner.Event }

// owner of a bucket.
type owner struct {
	token, incarnation uint64
	member             string
}

// Watch makes the invariant watchers for a test. [Env.Namespace] has them already.
func Watch(t testing.TB) *Invariants {
	return &Invariants{t: t, terms: map[string][]*right{}, assignments: map[string][]*right{}, buckets: map[string][]*right{}, owners: map[string]owner{}, members: map[string][]*right{},
		tokens: map[string]uint64{}, generations: map[string]uint64{}, verdicts: map[string]string{}, holders: map[string]*holding{}, acted: map[string]bool{}, dead: map[*inner.Namespace]bool{}}
}

// Open is [quorate.Open] under the watchers: as one process of its own.
func (v *Invariants) Open(ctx context.Context, nc *nats.Conn, cfg quorate.Config) (*quorate.Namespace, error) {
	return quorate.OpenWith(ctx, nc, cfg, inner.Options{Probe: v.hear})
}

// Counts returns what was seen so far.
func (v *Invariants) Counts() Counts {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.counts
}

// Killed says that the process was killed: it holds nothing from now on.
func (v *Invariants) Killed(ns *quorate.Namespace) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.dead[ns.Inner()] = true
}

// forget forgets a process that is closed: it holds nothing, and tells nothing any more.
func (v *Invariants) forget(ns *quorate.Namespace) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.look() // once more
	for _, all := range []map[string][]*right{v.terms, v.assignments, v.buckets, v.members} {
		for key := range all {
			all[key] = slices.DeleteFunc(all[key], func(r *right) bool { return r.Namespace == ns.Inner() })
		}
	}
	delete(v.dead, ns.Inner())
}

// BucketLost says that the test has removed acknowledged data: tokens and generations may repeat from here on, which is
// the documented exception to L1 and L2.
func (v *Invariants) BucketLost() {
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.tokens)
	clear(v.generations)
	clear(v.verdicts)
	clear(v.acted)
	clear(v.terms)
	clear(v.assignments)
	clear(v.buckets)
	clear(v.owners)
}

// Look checks all rights now.
func (v *Invariants) Look() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.look()
}

func (v *Invariants) hear(e inner.Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.dead[e.Namespace] {
		return
	}
	v.note(e)
	r := &right{e}
	switch e.Kind {
	case inner.TermBegan:
		v.counts.Terms++
		if last, ok := v.tokens[e.Key]; ok && e.Token <= last {
			v.fail("L2: %s: token %d of %s is not higher than %d", e.Key, e.Token, e.Member, last)
		}
		v.tokens[e.Key] = max(v.tokens[e.Key], e.Token)
		v.terms[e.Key] = append(v.terms[e.Key], r)
		v.holds(e)
	case inner.TermEnded:
		v.terms[e.Key] = v.without(v.terms[e.Key], e)
	case inner.AssignmentBegan:
		v.counts.Assignments++
		if last := v.generations[e.Key]; e.Token < last {
			v.fail("P3: %s: generation %d granted to %s after %d", e.Key, e.Token, e.Member, last)
		} else if e.Token > last {
			v.generations[e.Key] = e.Token
			v.counts.Generations++
		}
		v.assignments[e.Key] = append(v.assignments[e.Key], r)
	case inner.AssignmentEnded:
		v.assignments[e.Key] = v.without(v.assignments[e.Key], e)
	case inner.BucketBegan:
		v.counts.Buckets++
		key := bucket(e)
		last, now := v.owners[key], owner{e.Token, e.Incarnation, e.Member}
		if e.Token < last.token || e.Token == last.token && now != last {
			v.fail("P3: %s: %s.%d gets it with token %d, after %s.%d had it with %d", key, e.Member, e.Incarnation, e.Token, last.member, last.incarnation, last.token)
		}
		v.owners[key] = now
		v.buckets[key] = append(v.buckets[key], r)
	case inner.BucketEnded:
		key := bucket(e)
		v.buckets[key] = v.without(v.buckets[key], e)
	case inner.MemberLive:
		v.counts.Members++
		v.members[e.Key] = append(v.members[e.Key], r)
	case inner.VerdictTold:
		v.counts.Verdicts++
		if first, ok := v.verdicts[e.Key]; ok && first != e.Verdict {
			v.fail("V1: %s: %s was told %q, before it was %q", e.Key, e.Member, e.Verdict, first)
		}
		v.verdicts[e.Key] = e.Verdict
	case inner.ActionBegan:
		v.counts.Actions++
		v.action(e)
	}
	v.look()
}

// bucket names a bucket of a group.
func bucket(e inner.Event) string { return fmt.Sprintf("%s bucket %d", e.Key, e.Bucket) }

// A holding is whose clock the instants that a term named are on. After a later term has begun it is kept for as long as an instant can be
// ahead, and longer; not for ever, for it keeps all of its process.
type holding struct {
	*inner.Namespace
	key   string
	until time.Time // zero for the last term of the key
}

func (v *Invariants) holds(e inner.Event) {
	for _, h := range v.holders {
		if h.until.IsZero() && h.key == e.Key {
			h.until = time.Now().Add(time.Hour)
		}
	}
	v.holders[holder(e)] = &holding{Namespace: e.Namespace, key: e.Key}
}

// prune lets go of what nobody can be asked about any more, once a minute.
func (v *Invariants) prune() {
	now := time.Now()
	if now.Sub(v.forgot) < time.Minute {
		return
	}
	v.forgot = now
	maps.DeleteFunc(v.holders, func(_ string, h *holding) bool { return !h.until.IsZero() && now.After(h.until) })
}

// holder names the clock of a term.
func holder(e inner.Event) string { return fmt.Sprintf("%s %d", e.Namespace.Name, e.Token) }

// action judges one that begins right now.
func (v *Invariants) action(e inner.Event) {
	if got := v.verdicts[e.Key]; got != "yes" {
		v.fail("A1: %s: %s acts, but its verdict is %q as far as anybody was told", e.Key, e.Member, got)
	}
	who := fmt.Sprintf("%s %s %s.%d", e.Namespace.Name, e.Key, e.Member, e.Incarnation)
	if v.acted[who] {
		v.fail("A1: %s: %s.%d acts twice", e.Key, e.Member, e.Incarnation)
	}
	v.acted[who] = true
	h := v.holders[holder(e)]
	if h == nil {
		v.fail("A1: %s: %s acts by the clock of token %d, which is nobody's", e.Key, e.Member, e.Token)
		return
	}
	// The clock that the instant is on can be asked, also when its process is paused or was killed.
	switch off := h.Now().Boot - e.At; {
	case off < -e.Bound:
		v.fail("A1: %s: %s acts %v before its instant, its clock's bound is %v", e.Key, e.Member, -off, e.Bound)
	case off > e.Bound+e.Tolerance:
		v.fail("A1: %s: %s acts %v after its instant: bound %v, tolerance %v", e.Key, e.Member, off, e.Bound, e.Tolerance)
	}
}

func (v *Invariants) without(l []*right, e inner.Event) []*right {
	var keep []*right
	for _, r := range l {
		if r.Namespace == e.Namespace && r.Member == e.Member && r.Token == e.Token && r.Incarnation == e.Incarnation {
			if r.Live() {
				v.fail("%s: %s says that token %d has ended, but it is live", r.Key, r.Member, r.Token)
			}
			continue
		}
		keep = append(keep, r)
	}
	return keep
}

// remembered is how many rights that are over are looked at still: one that has ended must not come back. Not all of them, for each holds on
// to what granted it.
const remembered = 32

// live gives the rights that are live, and forgets those of processes that are dead and those that were over long ago.
func (v *Invariants) live(all map[string][]*right, key string) []*right {
	var now, keep []*right
	for _, r := range all[key] {
		if v.dead[r.Namespace] {
			continue
		}
		keep = append(keep, r)
		if r.Live() {
			now = append(now, r)
		}
	}
	if over := len(keep) - len(now) - remembered; over > remembered {
		keep = slices.DeleteFunc(keep, func(r *right) bool {
			if over == 0 || slices.Contains(now, r) {
				return false
			}
			over-- // the oldest come first
			return true
		})
	}
	all[key] = keep
	return now
}

func (v *Invariants) look() {
	v.prune()
	for key := range v.terms {
		if l := v.live(v.terms, key); len(l) > 1 {
			v.fail("L1: %s: live terms %s", key, names(l))
		}
	}
	for key := range v.assignments {
		l := v.live(v.assignments, key)
		for i, a := range l {
			for _, b := range l[:i] {
				switch {
				case a.Token != b.Token:
					v.fail("P2: %s: live assignments of two generations: %s", key, names(l))
				case a.Index == b.Index || a.Total != b.Total || a.Index >= a.Total:
					v.fail("P1: %s: %s has %d of %d, %s has %d of %d", key, a.Member, a.Index, a.Total, b.Member, b.Index, b.Total)
				case a.Member == b.Member:
					v.fail("M2: %s: two processes hold assignments as %s", key, a.Member)
				}
			}
		}
	}
	for key := range v.buckets {
		if l := v.live(v.buckets, key); len(l) > 1 {
			v.fail("P2: %s: held by %s", key, names(l))
		}
	}
	for key := range v.members {
		if l := v.live(v.members, key); len(l) > 1 {
			v.fail("M2: %s: live incarnations %s", key, names(l))
		}
	}
}

func names(l []*right) string {
	var s []string
	for _, r := range l {
		s = append(s, fmt.Sprintf("%s.%d (token %d)", r.Member, r.Incarnation, r.Token))
	}
	return strings.Join(s, ", ")
}

func (v *Invariants) note(e inner.Event) {
	kind := [...]string{"?", "term began", "term ended", "assignment began", "assignment ended", "member live", "verdict", "action", "bucket began", "bucket ended"}[e.Kind]
	v.told = append(v.told, fmt.Sprintf("%s %-16s %s %s.%d token %d index %d/%d bucket %d %s", time.Now().Format("15:04:05.000000"), kind, e.Key,
		e.Member, e.Incarnation, e.Token, e.Index, e.Total, e.Bucket, e.Verdict))
	if len(v.told) > 200 {
		v.told = v.told[100:]
	}
}

func (v *Invariants) fail(format string, args ...any) {
	if v.failed {
		return
	}
	v.failed = true
	v.t.Errorf("guarantee broken: %s\nlast events:\n%s", fmt.Sprintf(format, args...), strings.Join(v.told[max(0, len(v.told)-40):], "\n"))
}
