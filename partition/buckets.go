package partition

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/clock"
)

// A Bucket is one of the fixed parts that the work is cut into, held by this member. It is held over generations for as long as it keeps its
// owner. It never comes back: when the member gets it again, that is another Bucket.
type Bucket struct {
	N  int // 0..Of-1
	Of int // buckets in all

	grant    coord.BucketGrant
	now      clock.Source
	ctx      context.Context
	end      context.CancelCauseFunc
	work     context.Context
	ask      context.CancelCauseFunc
	revoking bool // under the Partition's lock
	until    atomic.Pointer[clock.Instant]
}

func newBucket(gr coord.BucketGrant, now clock.Source) *Bucket {
	b := &Bucket{N: gr.N, Of: gr.Of, grant: gr, now: now}
	b.ctx, b.end = context.WithCancelCause(context.Background())
	b.work, b.ask = context.WithCancelCause(b.ctx)
	return b
}

// Owns reports whether a key belongs to this bucket: pure, by [BucketOf].
func (b *Bucket) Owns(key string) bool { return bucketBy(b.grant.Map, key, b.Of) == b.N }

// Live reports whether the bucket is held right now, by all clocks, without asking the network (P3).
func (b *Bucket) Live() bool { return b.grant.Right.Live() }

// Token is the fencing token of the bucket: the generation in which this member got it, higher than that of each owner before.
func (b *Bucket) Token() uint64 { return b.grant.Token }

// Context ends when the bucket is no longer held, with a cause as that of [Assignment.Context].
func (b *Bucket) Context() context.Context { return b.ctx }

// Work ends when the work is to return: at a revoke already, while Live is still true. It is what [Partition.RunBuckets] hands to its callback.
func (b *Bucket) Work() context.Context { return b.work }

// Lease is what the bucket was granted for without a further reply.
func (b *Bucket) Lease() time.Duration { return b.grant.Lease }

// Left is how long the bucket is held without a further reply, by the clock that shows most.
func (b *Bucket) Left() time.Duration { return b.now().Left(b.grant.Right.Deadline()) }

// Until is when the bucket ended on its holder's own clock, as [Assignment.Until].
func (b *Bucket) Until() time.Time {
	if d := b.until.Load(); d != nil {
		return d.WallTime()
	}
	if b.Live() {
		return time.Time{}
	}
	return b.grant.Right.Deadline().WallTime()
}

// over ends the bucket. The Partition's lock is held.
func (b *Bucket) over(cause error, until clock.Instant) {
	b.revoking = true
	b.until.Store(&until)
	b.end(cause)
}

// ---- the member's loop calls these: they must not block

func (p *Partition) gained(stamp uint64, buckets []coord.BucketGrant) {
	if !known(buckets[0].Map, buckets[0].Of) {
		p.h.LetGo(stamp)
		return
	}
	p.mu.Lock()
	for _, gr := range buckets {
		p.buckets[gr.N] = newBucket(gr, p.h.Namespace().Now)
	}
	p.told(stamp)
	p.mu.Unlock()
	p.settleUp()
}

func (p *Partition) lost(buckets []coord.BucketGrant, cause error, until clock.Instant) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, gr := range buckets {
		if b := p.buckets[gr.N]; b != nil {
			delete(p.buckets, gr.N)
			b.over(cause, until)
		}
	}
	p.wake()
}

func (p *Partition) kept(stamp uint64) {
	p.mu.Lock()
	p.told(stamp)
	p.mu.Unlock()
	p.settleUp()
}

// ---- users

// holdsBuckets says whether anybody works on a bucket, or only on one that is to be let go of. The lock is held.
func (p *Partition) holdsBuckets(any bool) bool {
	for u := range p.users {
		for b := range u.has {
			if any || b.revoking {
				return true
			}
		}
	}
	return false
}

// takeBuckets gives the user the buckets that it has not had yet, by number.
func (p *Partition) takeBuckets(u *user) (taken []*Bucket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(u.seen, func(b *Bucket, _ bool) bool { return !u.has[b] && p.buckets[b.N] != b })
	for _, b := range p.buckets {
		if !b.revoking && !u.seen[b] && b.Live() {
			u.has[b], u.seen[b] = true, true
			taken = append(taken, b)
		}
	}
	slices.SortFunc(taken, byNumber)
	return taken
}

func byNumber(a, b *Bucket) int { return cmp.Compare(a.N, b.N) }

// releaseBuckets says that the user has let go of them.
func (p *Partition) releaseBuckets(u *user, buckets ...*Bucket) {
	p.mu.Lock()
	for _, b := range buckets {
		delete(u.has, b)
	}
	p.mu.Unlock()
	p.settleUp()
}

// Buckets are those that are held at present, by number, for users that poll: each asks Live before each step. A revoke is acknowledged without
// waiting for them.
func (p *Partition) Buckets() []*Bucket {
	p.mu.Lock()
	defer p.mu.Unlock()
	var l []*Bucket
	for _, b := range p.buckets {
		if b.Live() {
			l = append(l, b)
		}
	}
	slices.SortFunc(l, byNumber)
	return l
}

// Bucket is the one that a key belongs to, if it is held: for users that poll, as [Partition.Buckets].
func (p *Partition) Bucket(key string) (*Bucket, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, any := range p.buckets {
		b := p.buckets[bucketBy(any.grant.Map, key, any.Of)]
		return b, b != nil && b.Live()
	}
	return nil, false
}

// RunBuckets calls fn for each bucket that the member holds, in a goroutine of its own, from when it gets the bucket until it is to let go of
// it: fn's context is [Bucket.Work]. A change of the members ends only the calls whose buckets move. The revoke is acknowledged when those have
// returned. When fn returns nil before, the bucket is held on and nothing runs for it; when it returns an error, RunBuckets ends all calls and returns that
// error. It returns nil when ctx has ended: both after all calls have returned and everything was given up. It returns an error of its own when the
// membership has ended, or the partition was left. In a group without buckets it waits for there to be some.
func (p *Partition) RunBuckets(ctx context.Context, fn func(ctx context.Context, b *Bucket) error) error {
	u, err := p.begin()
	if err != nil {
		return err
	}
	type result struct {
		b   *Bucket
		err error
	}
	all, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	returned := make(chan result)
	running := 0
	call := func(b *Bucket) {
		running++
		go func() {
			work, cancel := context.WithCancelCause(b.work)
			defer context.AfterFunc(all, func() { cancel(context.Cause(all)) })()
			err := fn(work, b)
			if work.Err() != nil || !b.Live() {
				err = nil // it was to return, or had run out
			}
			cancel(nil)
			returned <- result{b, err}
		}()
	}
	var failed error
	take := func(r result) {
		running--
		if r.err != nil && failed == nil {
			failed = r.err
			stop(r.err)
		}
		p.releaseBuckets(u, r.b)
	}
	rest := func() {
		stop(nil)
		for running > 0 {
			take(<-returned)
		}
	}
	for {
		for _, b := range p.takeBuckets(u) {
			call(b)
		}
		select {
		case r := <-returned:
			if take(r); failed != nil {
				rest()
				return p.done(ctx, u, failed)
			}
		case <-ctx.Done():
			rest()
			return p.done(ctx, u, nil)
		case <-p.g.Context().Done():
			rest()
			p.exit(u)
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("partition: run in group %q: %w", p.g.Name(), context.Cause(p.g.Context()))
		case <-p.free:
			rest()
			p.exit(u)
			return fmt.Errorf("partition: run in group %q: %w", p.g.Name(), quorate.ErrLeft)
		case <-u.wake:
		}
	}
}

// A Holding is what [Partition.WatchBuckets] tells: what is held, and how it differs from the value before.
type Holding struct {
	Assignment *Assignment // nil: none, or the one before is to be let go of
	Buckets    []*Bucket   // held, by number
	Gained     []*Bucket   // since the value before
	Lost       []*Bucket   // to be let go of now, or ended: no longer in Buckets
	Cause      error       // why the assignment before, and what is lost, have ended or are to end
}

// WatchBuckets yields what the member holds and each change of it, for one worker that serves all its buckets. The revoke of those in Lost is
// acknowledged when the loop body asks for the next value. It ends silently with ctx, and with one error when the membership has ended.
func (p *Partition) WatchBuckets(ctx context.Context) iter.Seq2[Holding, error] {
	return func(yield func(Holding, error) bool) {
		u := p.enter()
		defer p.exit(u)
		var ended error
		for first := true; ; first = false {
			h, changed := p.holding(u)
			switch {
			case ctx.Err() != nil:
				return
			case first || changed:
				if !yield(h, nil) {
					return
				}
				if h.Assignment == nil {
					p.release(u)
				}
				p.releaseBuckets(u, h.Lost...)
				continue // it may have changed meanwhile
			case ended != nil:
				yield(Holding{}, fmt.Errorf("partition: watch group %q: %w", p.g.Name(), ended))
				return
			}
			select {
			case <-ctx.Done():
			case <-p.g.Context().Done():
				ended = context.Cause(p.g.Context())
			case <-p.free:
				ended = quorate.ErrLeft
			case <-u.wake:
			}
		}
	}
}

// holding takes what the user has not had yet, and says what it has.
func (p *Partition) holding(u *user) (h Holding, changed bool) {
	p.mu.Lock()
	if had := u.taken; had != nil && p.holders[u] && had.work.Err() == nil {
		h.Assignment = had
	} else if p.holders[u] {
		h.Cause, changed = context.Cause(had.work), true
	}
	for b := range u.has {
		if b.work.Err() != nil {
			h.Lost = append(h.Lost, b)
			h.Cause = context.Cause(b.work)
		} else {
			h.Buckets = append(h.Buckets, b)
		}
	}
	p.mu.Unlock()
	if h.Assignment == nil && !changed {
		h.Assignment = p.take(u)
		changed = h.Assignment != nil
	}
	h.Gained = p.takeBuckets(u)
	h.Buckets = append(h.Buckets, h.Gained...)
	slices.SortFunc(h.Buckets, byNumber)
	slices.SortFunc(h.Lost, byNumber)
	return h, changed || len(h.Gained)+len(h.Lost) > 0
}
