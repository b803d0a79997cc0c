package leader

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/quorate/quorate/internal/clock"
	"github.com/quorate/quorate/internal/inner"
	"github.com/quorate/quorate/internal/lease"
	"github.com/quorate/quorate/internal/wire"
)

// A Term is one leadership from its acquiring write to its end. It never comes back: the next one is another Term.
type Term struct {
	e        *Elector
	token    uint64
	began    clock.Instant
	ctx      context.Context
	end      context.CancelCauseFunc
	work     context.Context
	ask      context.CancelCauseFunc
	deadline atomic.Pointer[clock.Instant]
	ended    atomic.Bool
	over     atomic.Pointer[clock.Instant] // the deadline that somebody who asked saw passed
	until    atomic.Pointer[clock.Instant] // once ended: when, by its own clock
	guarded  bool                          // a callback of Run is at work
	fresh    bool                          // nothing was ever seen under the key before
	quorate  bool
	after    uint64
	params   wire.Params
	turned   chan struct{} // closed when it has ended to be turned
	released chan struct{} // closed when nothing of the term is left to do
}

func newTerm(e *Elector, token uint64, now, deadline clock.Instant) *Term {
	t := &Term{e: e, token: token, began: now, turned: make(chan struct{}), released: make(chan struct{})}
	t.ctx, t.end = context.WithCancelCause(context.Background())
	t.work, t.ask = context.WithCancelCause(t.ctx)
	t.deadline.Store(&deadline)
	return t
}

// Token is the term's fencing token: the revision of its acquiring write. Tokens of one election strictly increase.
func (t *Term) Token() uint64 { return t.token }

// Context ends when the term ends; its cause says why: [quorate.ErrResigned], [quorate.ErrStepDown], [quorate.ErrExpired], [quorate.ErrNotQuorate],
// [quorate.ErrLost], [quorate.ErrBucketLost] or [quorate.ErrConnClosed]. A process that was paused sees Live become false before this ends.
func (t *Term) Context() context.Context { return t.ctx }

// Work ends when the guarded work is to return: at a soft end already, while Live is still true, and at the latest with
// Context. It is what [Elector.Run] hands to its callback.
func (t *Term) Work() context.Context { return t.work }

// Live reports whether the term is held right now. It asks all clocks itself and no network (L3). Once it has said no it
// never says yes again.
func (t *Term) Live() bool {
	if t.ended.Load() || t.over.Load() != nil {
		return false
	}
	d := t.deadline.Load()
	if !t.e.in.Now().Reached(*d) {
		return true
	}
	// A renewal may be confirmed at this very moment, and a clock that jumped may jump back: the answer stands, and the
	// loop ends the term.
	t.over.CompareAndSwap(nil, d)
	return false
}

// Deadline is when the term ends unless another renewal is confirmed, by the wall clock, for display and for timeouts.
func (t *Term) Deadline() time.Time { return time.Now().Add(t.Left()) }

// Left is how long the term holds without another confirmed renewal, by the clock that shows most.
func (t *Term) Left() time.Duration { return t.e.in.Now().Left(*t.deadline.Load()) }

// Fresh says that nothing was ever seen under the key before this term; for quorate's own packages.
func (t *Term) Fresh() bool { return t.fresh }

// Quorate says that this is a leadership. If not, the term keeps the key and its members, and is announced as no leader
// (design 4.1); only electors of a [Place] with Quorum have such terms.
func (t *Term) Quorate() bool { return t.quorate }

// After is the token of the term that this one was turned from: nobody else had the key in between. 0: it was acquired.
func (t *Term) After() uint64 { return t.after }

// Params are the group parameters that its record carries; for quorate's own packages.
func (t *Term) Params() wire.Params { return t.params }

// Turn asks for a term of the other kind in place of this one; for quorate's own packages. It is a soft end, with
// [quorate.ErrNotQuorate] when it is turned to that, waited for by nobody. When the callback of Run has returned the key is not released:
// the same elector's next campaign begins with a new token, before anybody else can have it, unless Run or the
// elector is asked to end meanwhile. Nothing happens if the term is of that kind or asked to end already.
func (t *Term) Turn(quorate bool) { t.e.box.Put(flipInput{t, quorate}) }

// Since is when the term began, by the wall clock of this process.
func (t *Term) Since() time.Time { return t.began.WallTime() }

// Resign ends the term and releases the leadership: the next candidate takes it at once. It says that the guarded work
// has returned, so stop it before. It waits for the release to be confirmed until ctx ends; the release goes on without it.
//
// Of a term of [Elector.Run] it is a soft end: it asks the callback to return and waits for nothing; the release follows
// the callback.
func (t *Term) Resign(ctx context.Context) error {
	if t.guarded { // L5: only its callback knows when its work has returned; it may be this very goroutine
		t.e.box.Put(stopInput{t: t, cause: lease.Resigned})
		return nil
	}
	t.e.box.Put(stopInput{t: t, cause: lease.Resigned, returned: true})
	select {
	case <-t.released:
		return nil
	case <-t.e.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// StepDown asks the work of the term to return, with [quorate.ErrStepDown]: a soft end, waited for by nobody. The release
// follows the work; for a quarter of a lease this elector lets the other candidates go first.
func (t *Term) StepDown() { t.StepDownTo("") }

// StepDownTo is [Term.StepDown] for one candidate, by its id: the release names it, it takes the leadership by a write of its own, and
// the others hold back for a quarter of a lease. If it is not there, that is what it costs. "" is whoever is first in the queue.
func (t *Term) StepDownTo(id string) { t.e.box.Put(stopInput{t: t, cause: lease.StepDown, to: id}) }

// finish ends the term for good, at its owner's will.
func (t *Term) finish(c lease.Cause, until clock.Instant) {
	if d := t.over.Load(); d != nil {
		until = *d
	}
	t.until.Store(&until)
	t.ended.Store(true)
	t.end(cause(c))
	t.e.in.Tell(inner.Event{Kind: inner.TermEnded, Key: t.e.key, Member: t.e.cfg.ID, Token: t.token, Live: t.Live})
	held := t.e.in.Now().Sub(t.began)
	t.e.note(inner.Note{Kind: inner.NoteTermEnded, Term: t.token, Quorate: t.quorate, Reason: reason(c), Cause: cause(c), Took: held})
	t.e.log.Info("term ended", "term", t.token, "cause", cause(c), "held", held.Round(time.Millisecond))
}

// Until is when the term ended on its holder's own clock: the present for a release, the past deadline for one that ran
// out, also when a paused process asks late. Zero while it is held.
func (t *Term) Until() time.Time {
	switch {
	case t.ended.Load():
		return t.until.Load().WallTime()
	case t.Live():
		return time.Time{}
	}
	return t.deadline.Load().WallTime()
}

// Lose ends the term as lost: for quorate's own packages, when a record that only the leader writes shows another's hand.
func (t *Term) Lose() { t.e.box.Put(loseInput{t}) }
