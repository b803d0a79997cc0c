package leader

import (
	"cmp"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/inner"
	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/lease"
	"github.com/quorate/quorate/internal/wire"
)

// What callers put into the mailbox beside the machine's own inputs.
type (
	campaignInput struct {
		try, guarded bool // guarded: by a callback of Run
		won          chan *Term
		lost         chan error
	}
	withdrawInput struct {
		c    *campaignInput
		gone chan struct{}
	}
	stopInput struct {
		t        *Term
		cause    lease.Cause
		returned bool   // the guarded work has returned
		to       string // of a step-down: whom it is for
	}
	loseInput struct{ t *Term }
	flipInput struct {
		t       *Term
		quorate bool
	}
	quitInput  struct{ t *Term } // nobody campaigns any more after this term, if it was turned
	reattached struct{}
	hintInput  struct{ shown }
	readInput  struct {
		shown
		err error
	}
)

// shown is an entry whose record, if it is one, has been decoded where it arrived: what the loop does not do keeps its stack small.
type shown struct {
	e   kv.Entry
	rec *wire.Leader
	bad error
}

func decode(e kv.Entry) shown {
	s := shown{e: e}
	if e.Op == kv.Record {
		s.rec = &wire.Leader{}
		s.bad = wire.Decode(e.Value, s.rec)
		s.e.Value = nil
	}
	return s
}

// runner owns the machine in one goroutine: it feeds it inputs and carries out its effects.
type runner struct {
	*Elector
	m         *lease.Machine
	io        sync.WaitGroup
	epoch     uint64
	lost      <-chan struct{}
	start     string      // of the term, as the record says
	params    wire.Params // of the term
	acquiring bool        // an acquire is under way
	named     []string    // first in the queue, as the record says
	heirs     []string    // the same of the term before
	left      []string    // the same when the term ended, for its release; nil: not known
	led       uint64      // token of the last leader that this candidate has told that it waits
	tell      *time.Timer // tells it later, in a long queue
	term      *Term
	ended     *Term // ended, its release not confirmed
	last      *Term // the last that began: its work may still be going on
	want      *campaignInput
	queue     *queue
	undo      []func()
	bad       uint64 // revision of the last record that did not decode, to say it once
	told      State
}

func (r *runner) listen() error {
	s := r.in.Store
	stop, err := s.Hints(r.key, func(e kv.Entry) { r.box.Offer(hintInput{decode(e)}) })
	if err != nil {
		return err
	}
	r.undo = append(r.undo, stop, s.OnReconnect(func() { r.box.Put(lease.Reconnected{}) }))
	r.attached()
	if r.own.Successors == nil {
		r.queue = newQueue(r)
		r.own.Successors = r.queue.order
	}
	return nil
}

// noEpoch is the epoch between two attachments: nothing is of it, and no write in it is sent.
const noEpoch = math.MaxUint64

// attached takes up the store's present attachment. Should it be lost between the two, lost is closed and tells it.
func (r *runner) attached() {
	r.lost = r.in.Store.Lost()
	r.epoch = r.in.Store.Epoch()
}

func (r *runner) loop() {
	defer close(r.done)
	defer r.io.Wait()
	defer func() {
		for _, u := range r.undo {
			u()
		}
		if r.tell != nil {
			r.tell.Stop()
		}
		if r.queue != nil {
			r.queue.close()
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	stop := r.stop.Done()
	var bound <-chan time.Time
	for {
		select {
		case <-stop:
			r.in.Gate.Pass()
			stop = nil
			bound = time.After(r.cfg.Grace + 2*r.in.Lease) // by then an unreleased term has run out
			r.step(lease.Withdraw{})
			r.step(lease.Stop{Cause: lease.Resigned})
			if r.last == nil || !r.last.guarded {
				r.returned() // no callback to wait for: closing says that the work has returned
			}
			r.step(lease.Reconnected{}) // R22: a write that was never answered is looked for once more
		case <-bound:
			r.in.Gate.Pass()
			r.kill(lease.Resigned)
			return
		case <-r.lost:
			r.in.Gate.Pass()
			r.lost, r.epoch = nil, noEpoch // what was shown of the lost bucket may wait in the box still (E5)
			r.step(lease.Kill{Cause: lease.BucketLost})
			r.io.Go(r.reattach)
		case <-r.box.C():
			r.in.Gate.Pass()
			for _, in := range r.box.Take() {
				r.in.Gate.Pass() // a pause may begin between any two inputs
				r.take(in)
			}
		case <-timer.C:
			r.in.Gate.Pass()
			r.step(lease.Tick{})
		case <-r.in.Store.ConnClosed():
		}
		if r.in.ConnClosed() {
			r.kill(lease.ConnClosed)
			r.fail(quorate.ErrConnClosed)
			return
		}
		if r.term != nil && r.term.over.Load() != nil { // somebody asked, and was told that it is not live
			r.step(lease.Kill{Cause: lease.Expired})
		}
		if stop == nil && r.term == nil && r.m.Idle() {
			r.fail(quorate.ErrClosed)
			return
		}
		r.rearm(timer)
	}
}

// rearm sets the timer to the machine's next deadline; a sixth of the lease at most, so that a deadline that comes by the
// boot-time or wall clock is noticed soon.
func (r *runner) rearm(timer *time.Timer) {
	at, ok := r.m.Next()
	d := r.in.Lease / 6
	if r.term == nil && !ok {
		timer.Stop()
		return
	}
	if ok {
		d = min(d, max(at-r.in.Now().Mono, 0))
	}
	timer.Reset(d)
}

func (r *runner) take(in any) {
	switch in := in.(type) {
	case lease.WriteDone:
		r.acquiring = false
		r.step(in)
	case lease.Input:
		r.step(in)
	case hintInput:
		if e, ok := r.entry(in.shown); ok {
			r.step(lease.Seen{Entry: e})
		}
	case readInput:
		e, ok := lease.Entry{}, in.err == nil
		if ok {
			e, ok = r.entry(in.shown)
		} else {
			r.log.Debug("read failed", "error", in.err)
		}
		r.step(lease.ReadDone{OK: ok, Entry: e})
	case *campaignInput:
		if r.stop.Err() != nil {
			in.lost <- quorate.ErrClosed
			return
		}
		r.want = in
		r.since.Store(int64(r.in.Now().Mono))
		r.returned() // asking again says that the last term's work has returned
		r.step(lease.Campaign{Try: in.try})
	case withdrawInput:
		switch {
		case r.want == in.c:
			r.want = nil
			r.step(lease.Withdraw{})
		case len(in.c.won) > 0: // it was won at the same moment, and nobody was told
			t := <-in.c.won
			r.take(stopInput{t: t, cause: lease.Resigned, returned: true}) // that term: another caller's may have begun since
			in.c.won <- t
		}
		close(in.gone)
	case stopInput:
		if in.t != r.last {
			return // of a term whose work has returned long ago
		}
		if in.t == r.term && in.cause != 0 { // else the machine may be about to begin the next one already
			r.step(lease.Stop{Cause: in.cause, To: in.to})
		}
		if in.returned {
			r.returned()
		}
	case loseInput:
		if in.t == r.term {
			r.step(lease.Kill{Cause: lease.Lost})
		}
	case flipInput:
		if in.t == r.term {
			r.step(lease.Flip{Quorate: in.quorate})
		}
	case quitInput:
		if in.t == r.ended && r.want == nil {
			r.step(lease.Withdraw{})
		}
	case reattached:
		r.attached()
		r.step(lease.Reconnected{})
	}
}

func (r *runner) step(in lease.Input) {
	now, won := r.in.Now(), false
	for _, fx := range r.m.Step(now, in) {
		switch fx := fx.(type) {
		case lease.Read:
			_, known := r.m.Current()
			fresh := !known && r.queue != nil // in a group nearly all who join find a record
			r.attempt(r.in.Reads, func(ctx context.Context) { r.read(ctx, fresh) })
		case lease.Write:
			r.write(fx)
		case lease.Begin:
			t := newTerm(r.Elector, fx.Token, now, fx.Deadline)
			t.fresh, t.quorate, t.after, t.params = fx.Fresh, fx.Quorate, fx.After, r.params
			r.release()
			r.term, r.last, r.left, won = t, t, nil, true
			r.known.Term(fx.Token)
			r.log.Info("term began", "term", fx.Token, "after_expiry", fx.Expired, "quorate", fx.Quorate)
			r.in.Tell(inner.Event{Kind: inner.TermBegan, Key: r.key, Member: r.cfg.ID, Token: fx.Token, Live: t.Live})
			r.note(inner.Note{Kind: inner.NoteTermBegan, Term: fx.Token, Quorate: fx.Quorate, Reason: began(fx)})
			w := r.want
			r.want = nil
			if w == nil {
				panic("leader: term without a campaign")
			}
			t.guarded = w.guarded
			w.won <- t
		case lease.Extend:
			d := fx.Deadline
			r.term.deadline.Store(&d)
		case lease.Asked:
			r.term.ask(cause(fx.Cause))
		case lease.Ended:
			t := r.term
			if r.own.Release == nil {
				r.nominate()
				r.left = append([]string{}, r.named...) // before the queue forgets them
			}
			r.term, r.ended = nil, t
			r.finish(t, fx)
		case lease.Turning:
			close(r.ended.turned)
		case lease.Released:
			r.release()
		case lease.Busy:
			if r.want != nil {
				r.want.lost <- ErrHeld
				r.want = nil
			}
		}
	}
	hears := r.term != nil || r.acquiring
	was, heard, waited := r.current.Swap(r.term), r.hearing.Swap(hears), r.waiting.Swap(r.want != nil)
	if (was != nil) != (r.term != nil) || heard != hears || waited != (r.want != nil) {
		r.queue.wake()
	}
	r.greet(!waited && r.want != nil)
	r.show()
	if won {
		r.step(lease.Withdraw{}) // one term is one campaign: the next is asked for
	}
}

// greet tells a new leader that this candidate waits, so that it can be named soon: not after up to half a lease. The first ones in the queue
// do so at once; who is further back takes its time, for there may be a thousand. Who begins to wait has just told it.
func (r *runner) greet(told bool) {
	e, known := r.m.Current()
	if r.queue == nil || r.want == nil || !known || e.Kind != lease.Held || e.Rec == nil || e.Rec.ID == r.cfg.ID {
		return
	}
	token := e.Rec.Token
	if token == 0 {
		token = e.Rev
	}
	if token == r.led {
		return
	}
	r.led = token
	if told {
		return
	}
	if len(e.Rec.Next) == 0 || slices.Contains(e.Rec.Next, r.cfg.ID) {
		r.queue.wake()
		return
	}
	if r.tell != nil {
		r.tell.Stop()
	}
	r.tell = time.AfterFunc(rand.N(r.in.Lease/10), r.queue.wake)
}

// finish ends a term. The turn is given back first, so that whoever sees the end can campaign again.
func (r *runner) finish(t *Term, fx lease.Ended) {
	if !t.guarded {
		<-r.turn
	}
	t.finish(fx.Cause, fx.Until)
}

// returned says that the work of the last term has returned. From here on nothing is heard of that term any more: what it
// is told late must not meet the next one.
func (r *runner) returned() {
	r.last = nil
	r.step(lease.Returned{})
}

// release tells those who wait for it that nothing of the ended term is left to do.
func (r *runner) release() {
	if r.ended != nil {
		close(r.ended.released)
		r.ended = nil
	}
}

// kill ends a term at once, when there is nobody left to wait for.
func (r *runner) kill(c lease.Cause) {
	if r.term != nil {
		now := r.in.Now()
		for _, fx := range r.m.Step(now, lease.Kill{Cause: c}) {
			if e, ok := fx.(lease.Ended); ok {
				r.finish(r.term, e)
			}
		}
		r.term = nil
	}
}

// fail ends a campaign that is being waited for.
func (r *runner) fail(err error) {
	if r.want != nil {
		r.want.lost <- err
		r.want = nil
	}
}

func (r *runner) reattach() {
	for r.stop.Err() == nil {
		ctx, cancel := context.WithTimeout(r.stop, r.in.Lease)
		err := r.in.Store.Reattach(ctx)
		cancel()
		if err == nil || errors.Is(err, kv.ErrClosed) {
			r.box.Put(reattached{})
			return
		}
		r.log.Warn("bucket is lost", "error", err)
		select {
		case <-r.stop.Done():
		case <-time.After(r.in.Lease / 6):
		}
	}
}

// attempt has fn called with a context of its own (R3, R13), which ends a sixth of the lease from now: the wait for others is part of it, so that
// one that is stuck costs a holder no more than one renewal. What fn writes counts from before the wait (E1).
func (r *runner) attempt(a *inner.Attempts, fn func(ctx context.Context)) {
	r.io.Add(1)
	a.Go(func(late time.Duration) {
		defer r.io.Done()
		ctx, cancel := context.WithTimeout(context.Background(), r.in.Lease/6-late)
		defer cancel()
		fn(ctx)
	})
}

// read asks the stream's leader; a try takes a sixth of the lease at most (R3).
func (r *runner) read(ctx context.Context, fresh bool) {
	read := r.in.Store.Read
	if fresh {
		read = r.in.Store.ReadNew
	}
	e, err := read(ctx, r.key)
	r.box.Put(readInput{decode(e), err})
}

func (r *runner) write(fx lease.Write) {
	var rec *wire.Leader
	w := kv.Write{Key: r.key, Expected: fx.Expected, TTL: ttl(r.in.Lease), Epoch: r.epoch}
	if fx.Kind == lease.Undo {
		w.Purge, w.Reason, w.Nonce, w.Next = true, fx.Reason, fx.Replaces, fx.Next
		w.Queue = r.left
		if r.own.Release != nil {
			r.own.Release(&w)
		}
	} else {
		if fx.Kind == lease.Acquire {
			r.named, r.left = nil, nil
		}
		if fx.Kind != lease.Renew {
			r.start = wire.Time(r.in.Now().WallTime())
			r.params = r.own.Params() // what was set anew counts from the next term on (design 4.5)
		}
		if fx.Kind != lease.Renew {
			r.acquiring, r.heirs = true, r.m.Waiting()
			r.hearing.Store(true)
		}
		r.nominate()
		rec = &wire.Leader{V: wire.Version, ID: r.cfg.ID, Nonce: fx.Nonce, Token: fx.Token, Value: *r.value.Load(),
			Params: r.params, Host: r.in.Host, Since: r.start, Next: r.named}
		if fx.Keeps {
			rec.Quorate = new(bool)
		}
		if r.own.Record != nil {
			w.Value = r.own.Record(rec)
		}
	}
	queue := w.Queue
	if rec != nil {
		queue = rec.Next
	}
	hear := rec != nil && fx.Kind != lease.Renew && r.queue != nil
	r.attempt(r.in.Writes, func(ctx context.Context) {
		if hear {
			r.queue.hear()
		}
		if w.Value == nil && rec != nil {
			w.Value = wire.Encode(rec)
		}
		sent := time.Now()
		rev, out, err := r.in.Store.Do(ctx, w)
		if fx.Kind == lease.Renew {
			r.note(inner.Note{Kind: inner.NoteRenewal, Term: fx.Token, Answer: answers[out], Took: time.Since(sent)})
		}
		if out != kv.Yes {
			r.log.Debug("write", "kind", int(fx.Kind), "outcome", out, "error", err)
		}
		r.box.Put(lease.WriteDone{Nonce: fx.Nonce, Outcome: outcome(out), Rev: rev, Queue: queue})
	})
}

// nominate takes the first ones in the queue for the record and the release. A group's leader knows none between its terms: the last ones stand.
func (r *runner) nominate() {
	if next := first(r.successors(), wire.MaxNext); len(next) > 0 || r.queue != nil {
		r.named = next
	}
}

// successors lists the candidates in the order of the queue, the first ones at least. Who has just taken over has not heard of all of them, and goes on for half a
// lease with the rest of its predecessor's: so a quick second hand-over is not without an order (L5). By then all who wait have told it.
func (r *runner) successors() []string {
	ids := r.own.Successors()
	if r.queue == nil || r.term != nil && r.in.Now().Mono-r.term.began.Mono >= r.in.Lease/2 {
		return ids
	}
	var all []string
	for _, id := range slices.Concat(r.heirs, ids) {
		if id != r.cfg.ID && !slices.Contains(all, id) && len(all) < wire.MaxNext {
			all = append(all, id)
		}
	}
	return all
}

// ttl is hygiene: a dead election disappears. Expiry is observed, long before (R9, R11).
func ttl(lease time.Duration) time.Duration {
	d := max(5*lease, 10*time.Second)
	return (d + time.Second - 1).Truncate(time.Second)
}

func first(ids []string, n int) []string {
	if len(ids) > n {
		return ids[:n]
	}
	return ids
}

func outcome(o kv.Outcome) lease.Outcome {
	switch o {
	case kv.Yes:
		return lease.Yes
	case kv.No:
		return lease.No
	}
	return lease.Unknown
}

// entry translates what the bucket shows; false if it proves nothing.
func (r *runner) entry(s shown) (lease.Entry, bool) {
	e := s.e
	if e.Epoch != r.epoch {
		return lease.Entry{}, false // of a bucket that was lost
	}
	switch e.Op {
	case kv.None:
		if r.epoch > 1 { // the bucket was made again: an absence is waited for
			return lease.Entry{Kind: lease.Gone}, true
		}
		return lease.Entry{Kind: lease.Vacant}, e.Vacant
	case kv.Marker:
		k := lease.Removed
		switch e.Reason {
		case wire.ReasonResign, wire.ReasonStep, wire.ReasonUndone, wire.ReasonLeft:
			if e.Nonce != "" {
				k = lease.Release
			}
		}
		return lease.Entry{Kind: k, Rev: e.Revision, Replaced: e.Replaced, Nonce: e.Nonce, Next: e.Next, Queue: e.Queue}, true
	}
	rec := s.rec
	if s.bad != nil || rec.Params.LeaseMS <= 0 || rec.Lease() > wire.MaxLease {
		if r.bad != e.Revision {
			r.bad = e.Revision
			r.log.Warn("leader record cannot be read; it is waited for like a held one", "key", r.key, "revision", e.Revision, "error", s.bad)
		}
		rec = nil
	}
	return lease.Entry{Kind: lease.Held, Rev: e.Revision, Rec: rec}, true
}

// answers are the outcomes of a write as hooks are told them.
var answers = map[kv.Outcome]string{kv.Yes: "yes", kv.No: "no", kv.Unknown: "unknown"}

// show tells a group's shell, and hooks, about each change of what stands under the key.
func (r *runner) show() {
	e, known := r.m.Current()
	if !known {
		return
	}
	if e.Kind == lease.Held && e.Rec != nil && r.own.Record == nil {
		r.known.Term(cmp.Or(e.Rec.Token, e.Rev))
	}
	if r.own.Seen == nil && !r.in.Noting() {
		return
	}
	s := stateOf(e)
	if s.Holder != r.told.Holder || s.Token != r.told.Token || s.Keeper != r.told.Keeper {
		r.told = s
		if r.own.Seen != nil {
			r.own.Seen(s)
		}
		r.note(inner.Note{Kind: inner.NoteLeader, Leader: s.Holder, Term: s.Token})
	}
}

// publish sends without waiting; what is sent so may be lost.
func publish(nc *nats.Conn, subject string, v any) {
	_ = nc.Publish(subject, wire.Encode(v)) // a hint: the next one repeats it
}
