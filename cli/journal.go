package cli

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/partition"
)

// A journal writes the event lines of one member so that they prove what it held (design section 7): a share from the
// time of `assigned` to the until of `revoked`, a leadership from `leader-elected` to `leader-lost`.
//
//   - What is announced was held at the line's own time: a grant whose deadline has passed is never announced.
//   - The end of a hold is told before any other line that comes after it. A process that was paused past its deadline so
//     prints it first of all, with the deadline as its until, whichever of its goroutines runs first.
//   - The caller acknowledges or releases only after revoke or lose has returned: then the line is out.
//
// Safe for concurrent use.
type journal struct {
	w    *eventWriter
	hold time.Duration                  // what a term holds for without a further renewal
	inc  func() (inc uint64, live bool) // the member's present incarnation, and whether it is granted

	mu     sync.Mutex
	over   bool // the last line is written
	joined uint64
	share  *partition.Assignment // announced, its end is not
	gen    uint64                // the last announced
	held   []*partition.Bucket   // announced, their end is not
	term   *leader.Term          // the same
	broken chan struct{}         // closed when standard output is gone
	err    error
}

func newJournal(w *eventWriter, t quorate.Timings) *journal {
	return &journal{w: w, hold: t.Lease - t.Margin, broken: make(chan struct{})}
}

// emit writes an event that is no hold.
func (j *journal) emit(e event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.put(e)
}

// last writes the event after which nothing comes.
func (j *journal) last(e event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.put(e)
	j.over = true
}

func (j *journal) put(e event) { j.after(func() bool { return true }, e) }

// after writes a line that comes after the ends of all that is over by then, if live says so once it is stamped. A process that stands still before it is
// stamped finds more that has ended.
func (j *journal) after(live func() bool, e event) bool {
	for {
		j.lapse()
		if j.write(func() bool { return live() && j.holds() && j.leads() }, e) {
			return true
		}
		if j.over || j.err != nil || !live() {
			return false
		}
	}
}

// write writes a line, if live (which may be nil) says so once it is stamped.
func (j *journal) write(live func() bool, e event) bool {
	if j.over || j.err != nil {
		return false
	}
	if live == nil {
		live = func() bool { return true }
	}
	written, err := j.w.emitWhile(live, e)
	if err != nil {
		j.err = err
		close(j.broken)
	}
	return written
}

// member says that the member is one, once for each incarnation.
func (j *journal) member() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.rejoined()
}

func (j *journal) rejoined() {
	if inc, live := j.inc(); live && inc != j.joined {
		j.joined = inc
		j.put(&joinedEvent{Member: j.w.self, Incarnation: inc})
	}
}

// assign announces a share, with the buckets that belong to it; false if it is not held any more.
func (j *journal) assign(a *partition.Assignment, buckets []*partition.Bucket, items []string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.rejoined()
	e := &assignedEvent{Member: j.w.self, Index: a.Index, Total: a.Total, Generation: a.Generation, LeaseMS: wire.ToMS(a.Lease()), Items: items}
	if e.Of = a.Of; a.Of > 0 {
		e.Buckets = numbers(buckets)
		for _, b := range buckets {
			e.Tokens = append(e.Tokens, b.Token())
		}
	}
	if !j.after(a.Live, e) {
		return false
	}
	j.share, j.gen, j.held = a, a.Generation, slices.Clone(buckets)
	return true
}

func numbers(buckets []*partition.Bucket) *[]int {
	l := make([]int, 0, len(buckets))
	for _, b := range buckets {
		l = append(l, b.N)
	}
	return &l
}

// revoke tells the end of a share, and of these of its buckets; the others are held on.
func (j *journal) revoke(lost []*partition.Bucket, cause error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for {
		j.lapse()
		var going, staying []*partition.Bucket
		for _, b := range j.held {
			if slices.Contains(lost, b) {
				going = append(going, b)
			} else {
				staying = append(staying, b)
			}
		}
		if j.share == nil && len(going) == 0 {
			return // told, or never announced
		}
		e := &revokedEvent{Member: j.w.self, Generation: j.gen, Reason: revokedReason(cause)}
		if len(staying) > 0 {
			e.Buckets = numbers(going)
		}
		if j.write(func() bool { return j.holds() && j.leads() }, e) {
			j.share, j.held = nil, staying
			return
		}
		if j.over || j.err != nil {
			return
		}
	}
}

// holds says whether what is announced is held: all of it has one deadline.
func (j *journal) holds() bool {
	for _, b := range j.held {
		if !b.Live() {
			return false
		}
	}
	return j.share == nil || j.share.Live()
}

// leads says whether the term that is announced is held, if one is.
func (j *journal) leads() bool { return j.term == nil || j.term.Live() }

// elect announces a term; false if it is not held any more.
func (j *journal) elect(t *leader.Term) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.rejoined()
	if !j.after(t.Live, &leaderElectedEvent{Leader: j.w.self, Token: t.Token(), LeaseMS: wire.ToMS(j.hold)}) {
		return false
	}
	j.term = t
	return true
}

// lose tells the end of a term.
func (j *journal) lose(t *leader.Term, cause error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for {
		j.lapse()
		if j.term != t {
			return
		}
		if j.write(func() bool { return t.Live() && j.holds() }, &leaderLostEvent{Leader: j.w.self, Token: t.Token(), Reason: lostReason(cause), releasedNow: true}) {
			j.term = nil
			return
		}
		if j.over || j.err != nil {
			return
		}
	}
}

// lapse tells the ends of holds that are over although nobody has said so yet.
func (j *journal) lapse() {
	if (j.share != nil || len(j.held) > 0) && !j.holds() {
		var until time.Time
		var cause error
		if a := j.share; a != nil {
			until, cause = ended(a.Context(), a.Until)
		} else {
			until, cause = ended(j.held[0].Context(), j.held[0].Until)
		}
		j.share, j.held = nil, nil
		j.write(nil, &revokedEvent{Member: j.w.self, Generation: j.gen, Reason: revokedReason(cause), Until: wire.Time(until)})
	}
	if t := j.term; t != nil && !t.Live() {
		j.term = nil
		until, cause := ended(t.Context(), t.Until)
		j.write(nil, &leaderLostEvent{Leader: j.w.self, Token: t.Token(), Reason: lostReason(cause), Until: wire.Time(until)})
	}
}

// ended is when and why a right that is not live any more ended.
func ended(ctx context.Context, until func() time.Time) (time.Time, error) {
	if ctx.Err() == nil && until().After(time.Now()) {
		// Not by its deadline: its owner is about to say why. (It never waits for a line of ours to do so.)
		<-ctx.Done()
	}
	u, now := until(), time.Now()
	if u.IsZero() || u.After(now) {
		u = now
	}
	if ctx.Err() == nil {
		return u, quorate.ErrExpired // a pause: the timers have not noticed yet
	}
	return u, context.Cause(ctx)
}

// revokedReason is the reason of a `revoked` line.
func revokedReason(cause error) string {
	switch {
	case errors.Is(cause, quorate.ErrRevoked):
		return "settling"
	case errors.Is(cause, quorate.ErrLeft), errors.Is(cause, ErrInterrupted), errors.Is(cause, context.Canceled):
		return "left"
	case errors.Is(cause, quorate.ErrEvicted):
		return "evicted"
	case errors.Is(cause, quorate.ErrExpired):
		return "expired"
	case errors.Is(cause, quorate.ErrNotQuorate):
		return "not-quorate"
	case errors.Is(cause, quorate.ErrBucketLost):
		return "bucket-lost"
	}
	return "lost"
}

// lostReason is the reason of one's own `leader-lost` line.
func lostReason(cause error) string {
	switch {
	case errors.Is(cause, quorate.ErrResigned), errors.Is(cause, quorate.ErrLeft), errors.Is(cause, ErrInterrupted), errors.Is(cause, context.Canceled):
		return "resigned"
	case errors.Is(cause, quorate.ErrStepDown):
		return "stepped-down"
	}
	return revokedReason(cause)
}
