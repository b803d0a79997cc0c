package partition

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/clock"
	"github.com/quorate/quorate/internal/settle"
	"github.com/quorate/quorate/internal/wire"
)

// Config of a partition. The zero value works. What is set here counts while this process leads the group.
type Config struct {
	// Settle is the quiet time after a change of the roster before the work is shared anew. Default lease/2. Raising it makes fewer
	// generations of a rolling restart; lowering it shares the work of a crashed member sooner.
	Settle time.Duration
	// AckTimeout is how long a holder may go on after the next generation has begun. Default one lease, at most 1.8 leases
	// (a member timeout less its margin: later its lease has run out anyway).
	AckTimeout time.Duration
	// Buckets cuts the work into so many fixed buckets, at most 16,384, where it else is cut into as many shares as there are members: a change
	// of the members then moves, and stops, only the buckets that change hands, see [Partition.RunBuckets]. Several times as many as
	// members make even shares; each costs some bytes in a record that is written twice for each change. 0, the default: as the group has it, which
	// is none if nobody has asked for any. -1: none. Another number than before moves all of them at once.
	Buckets int
	// Hash says how keys go to buckets: [HashXXH64], the default, or [HashNATS], by which a stream that the NATS server partitions itself
	// ({{partition(n,...)}}) agrees. Only with Buckets.
	Hash string
	// Weight is this member's part of the buckets beside the others'. Default 1, at most 1,048,576. Without buckets it means nothing.
	Weight int
	// Zone is where this member runs: the buckets are spread as evenly over the zones as over the members, and neighbours among them
	// over different ones where they are dealt out. Up to 64 bytes. Without buckets it means nothing.
	Zone string
}

// Check says what is wrong with a Config, under a lease.
func (c Config) Check(lease time.Duration) error {
	_, err := mapOf(c.Hash)
	switch {
	case c.Settle < 0 || c.AckTimeout < 0:
		return errors.New("settle and acknowledgement timeout cannot be negative")
	case c.AckTimeout > 2*lease-lease/5:
		return fmt.Errorf("acknowledgement timeout %v > member timeout - its margin = %v: by then the lease has run out", c.AckTimeout, 2*lease-lease/5)
	case c.Settle > 2*lease:
		return fmt.Errorf("settle %v > its ceiling of two leases = %v", c.Settle, 2*lease)
	case c.Buckets < -1 || c.Buckets > wire.MaxBuckets:
		return fmt.Errorf("%d buckets: 1 to %d are possible, -1 asks for none", c.Buckets, wire.MaxBuckets)
	case err != nil:
		return err
	case c.Hash != "" && c.Buckets <= 0:
		return fmt.Errorf("hash %q: without buckets keys go to shares by %s; give Buckets too", c.Hash, MapJump)
	case c.Weight < 0 || c.Weight > settle.MaxWeight:
		return fmt.Errorf("weight %d: it is between 1 and %d", c.Weight, settle.MaxWeight)
	case len(c.Zone) > maxZone || !utf8.ValidString(c.Zone):
		return fmt.Errorf("zone %.80q: it is UTF-8 of at most %d bytes", c.Zone, maxZone)
	}
	return nil
}

// maxZone is the length of a zone's name, in bytes.
const maxZone = 64

// A Partition is one member's part in the group's work. Make it with [Join].
type Partition struct {
	g *coord.Group
	h *coord.Handle

	mu      sync.Mutex
	cur     *Assignment
	buckets map[int]*Bucket // held, by number
	holders map[*user]bool  // who has taken an assignment and not let go
	users   map[*user]bool
	leaving bool   // the group is being left
	wants   bool   // there is work to be done
	unknown bool   // keys go to shares in a way this version does not know
	working bool   // role work is set
	stamp   uint64 // of what is held, as told last
	waiting bool   // the loop waits for LetGo
	all     bool   // everything was asked for, since it was told last
	asked   uint64 // not all: the generation for which all but what it keeps was asked for
	freed   bool   // LetGo was said of everything: once only, for the same generation may be granted again
	freedTo uint64 // ... of what that generation moves
	left    bool
	gone    bool
	free    chan struct{} // closed when it has left and all users have let go
}

// user is one Run, Watch, RunBuckets or WatchBuckets.
type user struct {
	wake  chan struct{}
	taken *Assignment
	has   map[*Bucket]bool // buckets that it has taken and not let go of
	seen  map[*Bucket]bool // that it has taken
}

func (u *user) signal() {
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

// An Assignment is a share of the work: an index of a total, in one generation. It never comes back: the next is another.
type Assignment struct {
	Index      int    // 0..Total-1
	Total      int    // members that share the work
	Generation uint64 // the fencing token: strictly increasing
	Of         int    // fixed buckets in all; 0: the work is not cut into any
	Buckets    []int  // those of the share, in ascending order

	grant    coord.Grant
	now      clock.Source
	ctx      context.Context
	end      context.CancelCauseFunc
	work     context.Context
	ask      context.CancelCauseFunc
	revoking bool // under the Partition's lock
	until    atomic.Pointer[clock.Instant]
}

// Owns reports whether a key belongs to this share: pure, by [Index], or, with buckets, by [BucketOf].
func (a *Assignment) Owns(key string) bool {
	if a.Of == 0 {
		return Index(key, a.Total) == a.Index
	}
	_, ok := slices.BinarySearch(a.Buckets, bucketBy(a.grant.Map, key, a.Of))
	return ok
}

// Live reports whether the assignment is held right now, by all clocks, without asking the network (P3).
func (a *Assignment) Live() bool { return a.grant.Right.Live() }

// Token is the fencing token, the generation: with Live it makes an assignment what package fence takes a token from.
func (a *Assignment) Token() uint64 { return a.Generation }

// Context ends when the assignment ends. Its cause is [quorate.ErrRevoked], [quorate.ErrLeft], [quorate.ErrNotQuorate], [quorate.ErrExpired],
// [quorate.ErrEvicted], [quorate.ErrIDInUse], [quorate.ErrBucketLost] or [quorate.ErrConnClosed].
func (a *Assignment) Context() context.Context { return a.ctx }

// Work ends when the work is to return: at a revoke already, while Live is still true. It is what [Partition.Run] hands to
// its callback.
func (a *Assignment) Work() context.Context { return a.work }

// Lease is what the assignment was granted for without a further reply.
func (a *Assignment) Lease() time.Duration { return a.grant.Lease }

// Left is how long the assignment holds without a further reply, by the clock that shows most.
func (a *Assignment) Left() time.Duration { return a.now().Left(a.grant.Right.Deadline()) }

// Until is when the assignment ended on its holder's own clock: the present when it was let go, the past deadline when it ran out,
// also when a paused process asks late. Zero while it is held.
func (a *Assignment) Until() time.Time {
	if d := a.until.Load(); d != nil {
		return d.WallTime()
	}
	if a.Live() {
		return time.Time{}
	}
	return a.grant.Right.Deadline().WallTime()
}

// Join makes the member a working one: from the next generation on it has a share. It returns at once; [Partition.Run] or
// [Partition.Watch] tells of the share. A member has one Partition: joining again before it has left is an error.
func Join(ctx context.Context, g *coord.Group, cfg Config) (*Partition, error) {
	fail := func(err error) (*Partition, error) {
		return nil, fmt.Errorf("partition: join group %q: %w", g.Name(), err)
	}
	h := g.Inner()
	lease := h.Namespace().Lease
	if err := h.NeedsLeader(); err != nil {
		return fail(err)
	}
	if ctx.Err() != nil {
		return fail(context.Cause(ctx))
	}
	if err := cfg.Check(lease); err != nil {
		return fail(err)
	}
	p := &Partition{g: g, h: h, buckets: map[int]*Bucket{}, holders: map[*user]bool{}, users: map[*user]bool{}, free: make(chan struct{})}
	if !h.Attach(&coord.Worker{Granted: p.granted, Revoke: p.revoke, Ended: p.ended, Gained: p.gained, Lost: p.lost, Kept: p.kept, Mapped: p.mapped}) {
		return fail(errors.New("the member has a partition already"))
	}
	h.SetParams(func(w *wire.Params) {
		if cfg.Settle > 0 {
			w.SettleMS = wire.ToMS(cfg.Settle)
		}
		if cfg.AckTimeout > 0 {
			w.AckTimeoutMS = wire.ToMS(cfg.AckTimeout)
		}
		if w.Buckets, w.Map = cfg.Buckets, ""; cfg.Buckets > 0 {
			w.Map, _ = mapOf(cfg.Hash)
		}
	})
	h.SetTakes(cfg.Weight, cfg.Zone)
	p.setWorking(true)
	return p, nil
}

func (p *Partition) log() *slog.Logger { return p.h.Log() }

func (p *Partition) setWorking(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.role(on)
}

// role tells the member's loop under the lock, which that never waits for: what is told last is what counts last.
func (p *Partition) role(on bool) {
	p.wants = on
	if on = on && !p.unknown; p.working != on {
		p.working = on
		p.h.SetRole(wire.RoleWork, on)
	}
}

// Leave gives the share up: the member stays in the group without work. It waits until all users have let go, or ctx ends. Work
// that has not returned by then keeps its share until it has, or until that runs out.
func (p *Partition) Leave(ctx context.Context) error {
	p.mu.Lock()
	p.left = true
	p.mu.Unlock()
	return p.giveUp(ctx)
}

// giveUp takes the role away and lets go of what is held, unless somebody has begun to work meanwhile.
func (p *Partition) giveUp(ctx context.Context) error {
	p.mu.Lock()
	if !p.left && len(p.users) > 0 {
		p.mu.Unlock()
		return nil
	}
	p.role(false)
	over := p.askAll(quorate.ErrRevoked)
	if p.left {
		over = []<-chan struct{}{p.free}
	}
	p.mu.Unlock()
	p.settleUp()
	for _, o := range over {
		select {
		case <-o:
		case <-ctx.Done():
			return fmt.Errorf("partition: give up the share of group %q: %w", p.g.Name(), context.Cause(ctx))
		}
	}
	return nil
}

// askAll asks for everything that is held, and says how its end is heard of. The lock is held.
func (p *Partition) askAll(cause error) (over []<-chan struct{}) {
	if a := p.cur; a != nil {
		a.revoking = true
		a.ask(cause)
		over = append(over, a.ctx.Done())
	}
	for _, b := range p.buckets {
		b.revoking = true
		b.ask(cause)
		over = append(over, b.ctx.Done())
	}
	if len(over) > 0 {
		p.waiting, p.all = !p.freed, true
		p.wake()
	}
	return over
}

func (p *Partition) wake() {
	for u := range p.users {
		u.signal()
	}
}

// ---- the member's loop calls these: they must not block

// mapped hears how keys go to shares. In a way that this version does not know it takes no part: another that does shall have its share.
func (p *Partition) mapped(name string) {
	p.mu.Lock()
	unknown := name != MapJump && name != MapXXH64 && name != MapFNV1a
	if unknown == p.unknown {
		p.mu.Unlock()
		return
	}
	p.unknown = unknown
	p.role(p.wants)
	if unknown {
		p.askAll(quorate.ErrRevoked)
	}
	p.mu.Unlock()
	if unknown {
		p.log().Error("stays unassigned: the group maps keys in a way that this version does not know", "map", name)
		p.settleUp()
		return
	}
	p.log().Info("the group maps keys in a way that is known", "map", name)
}

// told notes that something is held. Who has given everything up asks for it back at once.
func (p *Partition) told(stamp uint64) {
	p.stamp, p.waiting, p.all, p.asked, p.freed, p.freedTo = stamp, false, false, 0, false, 0
	if !p.wants || p.unknown {
		p.askAll(quorate.ErrRevoked)
	}
	p.wake()
}

func (p *Partition) granted(gr coord.Grant) {
	if !known(gr.Map, gr.Of) {
		p.h.LetGo(gr.Stamp)
		return
	}
	a := &Assignment{Index: gr.Index, Total: gr.Total, Generation: gr.Generation, Of: gr.Of, Buckets: gr.Buckets, grant: gr, now: p.h.Namespace().Now}
	a.ctx, a.end = context.WithCancelCause(context.Background())
	a.work, a.ask = context.WithCancelCause(a.ctx)
	p.mu.Lock()
	p.cur = a
	p.told(gr.Stamp)
	p.mu.Unlock()
	p.settleUp()
}

func (p *Partition) revoke(r coord.Revoke) {
	keep := make(map[int]bool, len(r.Keep))
	for _, n := range r.Keep {
		keep[n] = true
	}
	p.mu.Lock()
	p.leaving = p.leaving || errors.Is(r.Cause, quorate.ErrLeft)
	cause := p.cause(r.Cause)
	if a := p.cur; a != nil {
		a.revoking = true
		a.ask(cause)
	}
	for n, b := range p.buckets {
		if !keep[n] {
			b.revoking = true
			b.ask(cause)
		}
	}
	p.all, p.asked = p.all || len(keep) == 0, r.For
	p.waiting = !p.freed && (p.all || p.asked != p.freedTo)
	p.wake()
	p.mu.Unlock()
	p.settleUp()
}

func (p *Partition) cause(err error) error {
	if p.leaving && errors.Is(err, quorate.ErrRevoked) {
		return quorate.ErrLeft
	}
	return err
}

func (p *Partition) ended(cause error, until clock.Instant, kept bool) {
	p.mu.Lock()
	cause = p.cause(cause)
	if a := p.cur; a != nil {
		p.cur = nil
		a.until.Store(&until)
		a.end(cause)
		p.waiting = !p.freed && !kept
	}
	if !kept {
		for n, b := range p.buckets {
			delete(p.buckets, n)
			b.over(cause, until)
			p.waiting = !p.freed
		}
		p.all = true
	}
	p.wake()
	p.mu.Unlock()
	p.settleUp()
}

// settleUp lets go once nobody holds any more what is to be let go of, and after [Partition.Leave] ends the partition: not before, for
// whoever lets go in its stead would acknowledge what is still worked on (R12).
func (p *Partition) settleUp() {
	p.mu.Lock()
	free := p.waiting && len(p.holders) == 0 && !p.holdsBuckets(p.all)
	stamp, all, asked := p.stamp, p.all, p.asked
	if free {
		p.waiting, p.freed, p.freedTo = false, all, asked
	}
	gone := p.left && !p.gone && p.cur == nil && len(p.buckets) == 0 && len(p.holders) == 0 && !p.holdsBuckets(true)
	p.gone = p.gone || gone
	p.mu.Unlock()
	switch {
	case free && all:
		p.h.LetGo(stamp)
	case free:
		p.h.LetGoFor(stamp, asked)
	}
	if gone {
		p.h.Attach(nil)
		close(p.free)
	}
}

// ---- users

func (p *Partition) enter() *user {
	u := &user{wake: make(chan struct{}, 1), has: map[*Bucket]bool{}, seen: map[*Bucket]bool{}}
	p.mu.Lock()
	p.users[u] = true
	p.mu.Unlock()
	return u
}

// take gives the user the current assignment, if it is not to be let go already.
func (p *Partition) take(u *user) *Assignment {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.cur
	if a == nil || a.revoking || u.taken == a || !a.Live() {
		return nil
	}
	u.taken = a
	p.holders[u] = true
	return a
}

// release says that the user has let go of what it took.
func (p *Partition) release(u *user) {
	p.mu.Lock()
	delete(p.holders, u)
	p.mu.Unlock()
	p.settleUp()
}

func (p *Partition) exit(u *user) (last bool) {
	p.mu.Lock()
	delete(p.holders, u)
	delete(p.users, u)
	last = len(p.users) == 0
	p.mu.Unlock()
	p.settleUp()
	return last
}

// Assignment is the present share, for users that poll: each asks Live before each step. A revoke is acknowledged without
// waiting for them.
func (p *Partition) Assignment() (*Assignment, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cur == nil || !p.cur.Live() {
		return nil, false
	}
	return p.cur, true
}

// Run calls fn, in this goroutine, with each share, one after the other. fn's context is [Assignment.Work]; the revoke of
// a share is acknowledged when fn has returned. Run returns nil when ctx has ended, and fn's error when fn returned while its share was
// wanted: both after the share was given up. It returns an error of its own when the membership has ended, or the
// partition was left.
func (p *Partition) Run(ctx context.Context, fn func(ctx context.Context, a *Assignment) error) error {
	u, err := p.begin()
	if err != nil {
		return err
	}
	done := func(err error) error { return p.done(ctx, u, err) }
	for {
		if a := p.take(u); a != nil {
			work, cancel := context.WithCancelCause(a.work)
			stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
			err := fn(work, a)
			stop()
			// A process that was paused may see that the share is over before its context ends.
			wanted := a.work.Err() == nil && a.Live()
			cancel(nil)
			if ctx.Err() != nil {
				return done(nil)
			}
			if wanted {
				return done(err)
			}
			p.release(u)
		}
		select {
		case <-ctx.Done():
			return done(nil)
		case <-p.g.Context().Done():
			p.exit(u)
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("partition: run in group %q: %w", p.g.Name(), context.Cause(p.g.Context()))
		case <-p.free:
			p.exit(u)
			return fmt.Errorf("partition: run in group %q: %w", p.g.Name(), quorate.ErrLeft)
		case <-u.wake:
		}
	}
}

// begin makes a user that works, so that the member wants a share.
func (p *Partition) begin() (*user, error) {
	u := p.enter()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left {
		delete(p.users, u)
		return nil, fmt.Errorf("partition: run in group %q: %w", p.g.Name(), quorate.ErrLeft)
	}
	p.role(true)
	return u, nil
}

// done ends a user that works: with the last one the share is given up.
func (p *Partition) done(ctx context.Context, u *user, err error) error {
	if p.exit(u) {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*p.h.Namespace().Lease)
		defer cancel()
		_ = p.giveUp(bounded) // what is not let go in time runs out by itself
	}
	return err
}

// A State is what [Partition.Watch] tells: a share, or that there is none.
type State struct {
	Assignment *Assignment // nil: none, or the one before is to be let go of
	Cause      error       // why the one before ended, or is to end; nil before the first
}

// Watch yields the present share and each change: a share, then, when it is to be let go or has ended, a State without one. The
// revoke of a share is acknowledged when the loop body asks for the value after that. It ends silently with ctx, and with one error when the membership has
// ended.
func (p *Partition) Watch(ctx context.Context) iter.Seq2[State, error] {
	return func(yield func(State, error) bool) {
		u := p.enter()
		defer p.exit(u)
		var held *Assignment
		first := true
		for {
			if held != nil {
				if held.work.Err() != nil {
					cause := context.Cause(held.work)
					held = nil
					if !yield(State{Cause: cause}, nil) {
						return
					}
					p.release(u)
				}
			} else if a := p.take(u); a != nil {
				held, first = a, false
				if !yield(State{Assignment: a}, nil) {
					return
				}
				continue // it may have been revoked meanwhile
			} else if first {
				first = false
				if !yield(State{}, nil) {
					return
				}
				continue
			}
			var revoked <-chan struct{}
			if held != nil {
				revoked = held.work.Done()
			}
			select {
			case <-ctx.Done():
				return
			case <-p.g.Context().Done():
				if held != nil {
					if !yield(State{Cause: context.Cause(p.g.Context())}, nil) {
						return
					}
				}
				if ctx.Err() == nil {
					yield(State{}, fmt.Errorf("partition: watch group %q: %w", p.g.Name(), context.Cause(p.g.Context())))
				}
				return
			case <-p.free:
				yield(State{}, fmt.Errorf("partition: watch group %q: %w", p.g.Name(), quorate.ErrLeft))
				return
			case <-revoked:
			case <-u.wake:
			}
		}
	}
}
