package coord

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/clock"
	"github.com/quorate/quorate/internal/inner"
	"github.com/quorate/quorate/internal/settle"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/leader"
)

// Config of a member. The zero value works.
type Config struct {
	// ID names the member. Default: the host's name and a random part. A fixed id keeps its place through a restart within
	// the member timeout, two leases; see [HostID], and ReturnWindow.
	ID string
	// Meta is what others can read about the member: keys and values, up to 4 KiB together, in UTF-8. [Group.SetMeta] changes it later.
	Meta map[string]string
	// Observer: in the roster, sees all, counts nowhere: never leads, gets no work, has no vote.
	Observer bool
	// NoLead: a member that never leads.
	NoLead bool
	// Priority as a candidate: higher first. Default 0.
	Priority int
	// ReturnWindow is for how long a fixed ID's share of the work is kept for it after it has crashed and its membership has run out. Meanwhile it is no member,
	// and its share is nobody's: the others' shares stay as they are. Restarted in time it takes its share again, and nobody else's moves. A
	// change of leader ends the window early. Default 0: the share goes to the others a quiet time after the membership has run out. At most a day.
	ReturnWindow time.Duration
	// MinSize is how many members the group needs to have a leader, those that have a role counted: an observer counts nowhere. Below it the elected
	// process keeps the group's members and the lease, but is announced as no leader: no leader's work, no shares, no ballots
	// ([quorate.ErrNotQuorate]). It counts while this process leads, so all members should give the same. Default 0: no minimum. Set
	// it to a majority of the members you expect, and the smaller part of a group that was cut in two has no leader.
	MinSize int
	// MessagingOnly is for a group without a leader: its members know each other by their records, which each renews like a lease, and send messages to all
	// and to one another. There is nobody to settle shares, count votes or hear heartbeats: partition and vote refuse such a member, messages to the leader have
	// [ErrNoLeader], and the status of members is unknown. A group that has a leader is refused. It costs each member six writes in a lease, where
	// heartbeats cost none: for some dozens of members. Default false.
	MessagingOnly bool
	// FailIfInUse makes Join return [ErrIDInUse] at once where it would wait for another process of the same id to go.
	FailIfInUse bool

	extra Extra
}

// shared is the name under which the namespace keeps the Group of this process.
func (c Config) shared(group string) string {
	if c.extra.Beside {
		return "group:" + group + " " + c.ID
	}
	return "group:" + group
}

// same says that joining with c what was joined with d asks for the same membership.
func (c Config) same(d Config) bool {
	return (c.ID == "" || c.ID == d.ID) && maps.Equal(c.Meta, d.Meta) && c.Observer == d.Observer && c.NoLead == d.NoLead && c.Priority == d.Priority &&
		c.MinSize == d.MinSize && c.MessagingOnly == d.MessagingOnly && c.ReturnWindow == d.ReturnWindow
}

// check says what is wrong with a Config.
func (c Config) check() error {
	if err := checkMeta(c.Meta); err != nil {
		return err
	}
	switch {
	case c.ReturnWindow < 0 || c.ReturnWindow > 24*time.Hour:
		return fmt.Errorf("return window %v: it is between 0 and a day", c.ReturnWindow)
	case c.ReturnWindow%time.Millisecond != 0:
		return fmt.Errorf("return window %v: whole milliseconds are needed, as it travels between processes", c.ReturnWindow)
	case c.ReturnWindow > 0 && c.ID == "":
		return errors.New("a return window needs a fixed ID: a random one never returns")
	case c.MinSize < 0:
		return fmt.Errorf("minimum size %d: it cannot be negative; 0 is none", c.MinSize)
	case c.MinSize > settle.MaxIDs:
		return fmt.Errorf("minimum size %d: a group has at most %d members", c.MinSize, settle.MaxIDs)
	case c.Observer && c.Priority != 0:
		return errors.New("an observer never leads: Priority means nothing, leave it out")
	case c.NoLead && c.Priority != 0:
		return errors.New("NoLead and Priority: leave one out")
	}
	return nil
}

// HostID is the host's name as a valid member id.
func HostID() string {
	h, err := os.Hostname()
	if err != nil {
		return ""
	}
	return wire.CleanID(h)
}

// A Group is one process's membership of a group. Make it with [Join].
type Group struct {
	*Client
	cfg    Config
	m      *memberLoop
	ctx    context.Context
	end    context.CancelCauseFunc
	joined chan struct{} // closed when the membership was granted for the first time

	messenger *messenger                  // in a group without a leader
	term0     atomic.Pointer[leader.Term] // there: the lease on the own id

	elector *leader.Elector
	leading context.CancelFunc // ends the candidacy
	led     chan struct{}      // closed when the candidacy has ended

	mu      sync.Mutex
	joiners int
	leaving bool
	leads   map[int]*leadCall
	nextKey int
	term    *leader.Term
	chair   *chair

	before      *settle.Machine // of the last chair, for the next one; campaign's goroutine owns it
	beforeToken uint64

	topics map[string]*topic
	asks   asks
	worked bool // a partition is attached

	place  atomic.Pointer[wire.Place]
	live   atomic.Pointer[clock.Instant] // until when the membership is granted
	acting atomic.Bool
	untold atomic.Bool // it has left, but neither its record is known to be gone nor has the leader said so
	params atomic.Pointer[wire.Params]
	newest atomic.Uint64 // token of the newest term this member was told of
	known  inner.Known   // what its log lines say
	gone   chan struct{} // closed when everything has ended
}

// Join makes this process a member of the group. It returns once the membership is granted: by the leader, which may be this
// process itself. It waits until ctx ends for a leader, and for another process that still acts as the same id (or
// returns [ErrIDInUse] with Config.FailIfInUse). Joining again through the same namespace gives the same Group, which is left when
// the last joiner leaves: each leaves once; a differing Config is an error. A Group that is being left is waited for.
func Join(ctx context.Context, ns *quorate.Namespace, group string, cfg Config) (*Group, error) {
	fail := func(err error) (*Group, error) { return nil, fmt.Errorf("coord: join group %q: %w", group, err) }
	if err := wire.CheckGroup(group); err != nil {
		return nil, fmt.Errorf("coord: %w", err)
	}
	given := cfg
	if cfg.ID != "" {
		if err := wire.CheckID(cfg.ID); err != nil {
			return fail(err)
		}
	}
	if ctx.Err() != nil {
		return fail(context.Cause(ctx))
	}
	if err := cfg.check(); err != nil {
		return fail(err)
	}
	in := ns.Inner()
	if in.Store.Conn().Opts.NoEcho {
		return fail(errors.New("the connection has the option NoEcho: a leader must hear its own heartbeats; connect without it"))
	}
	if cfg.ID == "" {
		cfg.ID = leader.GenerateID(in.Host)
	}
	cfg.Meta = maps.Clone(cfg.Meta)
	if cfg.MessagingOnly {
		if err := checkMessaging(ctx, in, group, cfg); err != nil {
			return fail(err)
		}
	}
	before := in.Store.Conn().LastError() // of the connection: what it says already is not about this
	var g, ending *Group
	for g == nil {
		var err error
		ending = nil
		in.Share(cfg.shared(group), func(old any) any {
			o, ok := old.(*Group)
			switch {
			case !ok:
				if g, err = newGroup(ns, group, cfg); err != nil {
					return nil
				}
				return g
			case !given.same(o.cfg):
				err = fmt.Errorf("this process is a member already, as %q with another Config", o.cfg.ID)
			case o.enter():
				g = o
			default:
				ending = o
			}
			return old
		})
		if err != nil {
			return fail(err)
		}
		if ending == nil {
			continue
		}
		select { // nobody acts twice under one id, and nobody hears an end that is not its own
		case <-ending.gone:
		case <-ctx.Done():
			return fail(fmt.Errorf("not a member: this process is still leaving it: %w", context.Cause(ctx)))
		}
	}
	err := g.admitted(ctx, before)
	switch {
	case err == nil:
		return g, nil
	case g.ctx.Err() != nil:
		return fail(err)
	default:
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.in.Lease)
		defer cancel()
		_ = g.Leave(bounded) // undoes the half of it that is done; what cannot be reached runs out by itself
		return fail(fmt.Errorf("not a member: %s: %w", g.why(), err))
	}
}

// enter counts one more joiner, unless the group is being left.
func (g *Group) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.leaving || g.ctx.Err() != nil {
		return false
	}
	g.joiners++
	return true
}

func newGroup(ns *quorate.Namespace, group string, cfg Config) (*Group, error) {
	in := ns.Inner()
	g := &Group{cfg: cfg, joiners: 1, joined: make(chan struct{}), led: make(chan struct{}), gone: make(chan struct{}),
		leads: map[int]*leadCall{}, topics: map[string]*topic{}}
	g.Client = newClient(in, group)
	g.Client.self = g
	g.log = inner.InGroup(in.Log, group, cfg.ID, &g.known)
	p := paramsOf(in.Timings, cfg)
	g.params.Store(&p)
	g.ctx, g.end = context.WithCancelCause(context.Background())
	var ok bool
	if g.forget, ok = in.Track(g.shut); !ok {
		return nil, quorate.ErrClosed
	}
	var roles []string
	if !cfg.Observer && !cfg.NoLead {
		roles = append(roles, wire.RoleLead)
	}
	leads := len(roles) > 0
	if cfg.extra.Works {
		roles = append(roles, wire.RoleWork)
	}
	g.m = newMemberLoop(g, roles)
	if cfg.MessagingOnly {
		close(g.led)
		g.leading = func() {}
		if err := g.startMessaging(); err != nil {
			g.forget()
			return nil, err
		}
		return g, nil
	}
	if err := g.m.listen(); err != nil {
		g.forget()
		return nil, err
	}
	if !leads {
		close(g.led)
		g.leading = func() {}
	} else if err := g.campaign(); err != nil {
		g.m.unlisten()
		g.forget()
		return nil, err
	}
	go g.m.loop()
	return g, nil
}

// campaign makes the member a candidate for as long as it is a member.
func (g *Group) campaign() error {
	e, err := leader.NewAt(g.in, leader.Place{Key: wire.LeaderKey(g.group), Label: "group", Name: g.group, Params: func() wire.Params { return *g.params.Load() },
		Quorum: g.cfg.MinSize > 1, Successors: g.successors, Log: g.log, Known: &g.known}, leader.Config{ID: g.cfg.ID, Priority: g.cfg.Priority})
	if err != nil {
		return err
	}
	e.Untrack() // the member closes it, once it has let go of what else it holds
	g.elector = e
	ctx, cancel := context.WithCancel(context.Background())
	g.leading = cancel
	go func() {
		defer close(g.led)
		for ctx.Err() == nil {
			if err := e.Run(ctx, g.preside); err != nil && ctx.Err() == nil {
				if errors.Is(err, quorate.ErrConnClosed) || errors.Is(err, quorate.ErrClosed) {
					return // the member's own loop notices as well
				}
				g.log.Error("leading failed", "error", err)
				sleep(ctx, g.in.Lease/6)
			}
		}
	}()
	return nil
}

// note tells hooks about this member.
func (g *Group) note(n inner.Note) {
	if !g.in.Noting() {
		return
	}
	n.Group, n.Member = g.group, g.cfg.ID
	if p := g.place.Load(); p != nil {
		n.Incarnation = p.Incarnation
	}
	g.in.Note(n)
}

// isMember and noMember: the membership is granted, or is not any more, for that reason.
func (g *Group) isMember() {
	g.acting.Store(true)
	g.note(inner.Note{Kind: inner.NoteMemberBegan, Holds: g.holds()})
}

// holds is for how long the membership is granted from now; 0 if it is not, or has no end that is known here.
func (g *Group) holds() time.Duration {
	d := g.live.Load()
	if d == nil || !g.acting.Load() {
		return 0
	}
	return max(d.Sub(g.in.Now()), 0)
}

func (g *Group) noMember(why string) {
	if g.acting.Swap(false) {
		g.note(inner.Note{Kind: inner.NoteMemberEnded, Reason: why})
	}
}

// ID is the member's id.
func (g *Group) ID() string { return g.cfg.ID }

// Context ends when this process is no member any more. Its cause is [ErrLeft], [ErrEvicted], [ErrIDInUse] or
// [quorate.ErrConnClosed]. A membership that ran out is no end: the member joins again by itself, as a new incarnation.
func (g *Group) Context() context.Context { return g.ctx }

// Live reports whether the membership is granted right now, by all clocks, without asking the network.
func (g *Group) Live() bool {
	if g.cfg.MessagingOnly {
		return g.messengerLive()
	}
	d := g.live.Load()
	return g.acting.Load() && d != nil && !g.in.Now().Reached(*d)
}

// Term is the leadership this process holds, if it does. While the group has fewer members than its minimum size nobody leads it.
func (g *Group) Term() (*leader.Term, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.term, g.term != nil && g.term.Live()
}

// leadCall is one call of Lead.
type leadCall struct {
	start chan leadStart
	over  chan struct{} // Lead has returned
	end   func(error)   // ends its callback's context; guarded by the group's mutex
}

// set notes how the callback's context is ended, and ends it if the membership has ended already.
func (c *leadCall) set(g *Group, end func(error)) {
	g.mu.Lock()
	c.end = end
	g.mu.Unlock()
	if end != nil && g.ctx.Err() != nil {
		end(context.Cause(g.ctx))
	}
}

type leadStart struct {
	t   *leader.Term
	end func() // the callback has returned
}

// insideOf marks the contexts of a group's callbacks: who leaves from within does not wait for itself.
type insideOf struct{}

func (g *Group) inside(ctx context.Context) context.Context {
	return context.WithValue(ctx, insideOf{}, g)
}

// Lead calls fn, in this goroutine, with each term this member wins, until ctx or the membership ends: work that only the
// leader does. fn's context ends with [leader.Term.Work] and tells its cause, or [ErrEvicted]; the leadership is released only after fn has returned. It returns fn's
// error when fn returned of its own accord, and nil when ctx ended.
func (g *Group) Lead(ctx context.Context, fn func(ctx context.Context, t *leader.Term) error) error {
	if g.cfg.MessagingOnly {
		return fmt.Errorf("coord: lead group %q: %w", g.group, errMessagingOnly)
	}
	c := &leadCall{start: make(chan leadStart), over: make(chan struct{})}
	g.mu.Lock()
	key := g.nextKey
	g.nextKey++
	g.leads[key] = c
	if g.chair != nil {
		g.chair.offer(c)
	}
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		delete(g.leads, key)
		g.mu.Unlock()
		close(c.over)
	}()
	for {
		select {
		case s := <-c.start:
			t := s.t
			err := func() error {
				defer s.end()
				work, cancel := context.WithCancelCause(g.inside(t.Work()))
				c.set(g, cancel)
				defer c.set(g, nil)
				defer context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })()
				defer cancel(nil)
				return fn(work, t)
			}()
			if t.Work().Err() == nil && g.ctx.Err() == nil {
				if ctx.Err() != nil {
					return nil
				}
				return err
			}
		case <-ctx.Done():
			return nil
		case <-g.ctx.Done():
			return fmt.Errorf("coord: lead group %q: %w", g.group, context.Cause(g.ctx))
		}
	}
}

// Leave ends the membership: the work of the leadership and of the assignment is asked to return, the record is removed,
// the leader is told, all goroutines end. It waits for all of it until ctx ends, and goes on without it; work that does not return in time
// keeps what it holds until that runs out, and [ErrUntold] says that the group finds out no sooner. With several joiners the last one leaves. Called from a callback of the group with
// that callback's context it does not wait, for it would wait for itself.
func (g *Group) Leave(ctx context.Context) error {
	g.mu.Lock()
	g.joiners--
	last := g.joiners <= 0
	g.leaving = g.leaving || last // under the same lock: nobody joins what is about to be left
	g.mu.Unlock()
	if !last {
		return nil
	}
	return g.shut(ctx)
}

// shut leaves, however many have joined.
func (g *Group) shut(ctx context.Context) error {
	g.mu.Lock()
	g.leaving = true
	g.mu.Unlock()
	if g.messenger != nil {
		g.messenger.end()
	} else {
		g.m.leave()
	}
	if ctx.Value(insideOf{}) == any(g) {
		return nil
	}
	select {
	case <-g.gone:
		if g.untold.Load() {
			return fmt.Errorf("coord: leave group %q: %w", g.group, ErrUntold)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("coord: leave group %q: %w", g.group, context.Cause(ctx))
	}
}

// finish ends the group once its member loop is over.
func (g *Group) finish(cause error) {
	g.noMember(reason(cause))
	g.end(cause)
	g.mu.Lock()
	for _, c := range g.leads {
		if c.end != nil {
			c.end(cause) // an evicted leader's work is told so, and not that it has resigned, which is what follows
		}
	}
	g.mu.Unlock()
	g.leading()
	// Callbacks that do not return are waited for no longer than that: what they hold runs out.
	ctx, cancel := context.WithTimeout(context.Background(), g.in.Timings.Grace)
	defer cancel()
	select {
	case <-g.led:
	case <-ctx.Done():
		g.log.Warn("work of the leader has not returned: its term is not released, but runs out")
	}
	if g.elector != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 3*g.in.Lease)
		_ = g.elector.Close(ctx) // what it holds has been released or runs out
		cancel()
	}
	g.closeTopics(ctx)
	g.in.Share(g.cfg.shared(g.group), func(old any) any {
		if old == any(g) {
			return nil
		}
		return old
	})
	g.forget()
	close(g.gone)
}

// successors lists the candidates in the order of the queue, for the leader's record.
func (g *Group) successors() []string {
	g.mu.Lock()
	c := g.chair
	g.mu.Unlock()
	if c == nil {
		return nil
	}
	p := c.queue.Load()
	if p == nil {
		return nil
	}
	return *p
}

// Inner is for quorate's own packages: what partition and vote need of a membership.
func (g *Group) Inner() *Handle { return &Handle{g} }

// A Handle is the inside of a membership, for quorate's own packages.
type Handle struct{ g *Group }

// Namespace of the group.
func (h *Handle) Namespace() *inner.Namespace { return h.g.in }

// Name of the group.
func (h *Handle) Name() string { return h.g.group }

// Log of the member.
func (h *Handle) Log() *slog.Logger { return h.g.log }

// LogTo is Log, but to another logger.
func (h *Handle) LogTo(log *slog.Logger) *slog.Logger {
	return inner.InGroup(log.With("namespace", h.g.in.Name), h.g.group, h.g.cfg.ID, &h.g.known)
}

// Place is the member's id and present incarnation.
func (h *Handle) Place() wire.Place { return *h.g.place.Load() }

// SetRole adds a role to the member or takes it away.
func (h *Handle) SetRole(role string, on bool) { h.g.m.setRole(role, on) }

// Attach sets who does the work of the member's assignment, and reports false when somebody does already. Nil: nobody, and
// every revoke is acknowledged at once.
func (h *Handle) Attach(w *Worker) bool {
	h.g.mu.Lock()
	defer h.g.mu.Unlock()
	if w != nil && h.g.worked {
		return false
	}
	h.g.worked = w != nil
	h.g.m.work(w) // under the lock, which it never waits for: who attaches last is the worker
	return true
}

// LetGo says that all work has returned of what the worker was told with the stamp, if it has been told nothing since.
func (h *Handle) LetGo(stamp uint64) { h.g.m.box.Put(letGoInput{stamp: stamp}) }

// LetGoFor is LetGo but for the work of the buckets that the revoke for the generation keeps.
func (h *Handle) LetGoFor(stamp, generation uint64) { h.g.m.box.Put(letGoInput{stamp, generation}) }

// SetTakes changes what the member takes of buckets.
func (h *Handle) SetTakes(weight int, zone string) { h.g.m.box.Put(takesInput{weight, zone}) }

// A Worker hears of what the member holds, on the member's loop: its functions must not block. Who leaves out those from Gained on knows nothing of
// buckets, and has shares by index all the same. Each stamp is another.
type Worker struct {
	Granted func(Grant)
	Revoke  func(Revoke)                                      // the work is to return: LetGo
	Ended   func(cause error, until clock.Instant, kept bool) // the assignment is over, and all buckets, unless they are kept: let go, or run out

	Gained func(stamp uint64, buckets []BucketGrant)                     // of an assignment that comes right after, or once it is settled
	Lost   func(buckets []BucketGrant, cause error, until clock.Instant) // these are over, and let go of
	Kept   func(stamp uint64)                                            // the buckets that are left are held on
	Mapped func(name string)                                             // how keys go to shares, before the first and when it changes
}

// A Revoke asks for work to return: that of the assignment, and of all buckets but Keep.
type Revoke struct {
	Cause error // ErrRevoked, ErrLeft or ErrNotQuorate
	For   uint64
	Keep  []int
}

// A Grant is an assignment as the leader granted it.
type Grant struct {
	Stamp        uint64
	Generation   uint64
	Index, Total int
	Map          string
	Of           int           // fixed buckets in all; 0: shares are by index
	Buckets      []int         // those of the assignment
	Lease        time.Duration // it holds for without a further reply
	Right        *Right
}

// A BucketGrant is a bucket as the leader granted it.
type BucketGrant struct {
	N, Of int
	Map   string
	Token uint64
	Lease time.Duration
	Right *Right
}

// A Right is the live part of a grant. An assignment and its buckets end at one deadline, if none is let go of before.
type Right struct {
	hold  *hold
	ended atomic.Bool
}

// A hold is the deadline that an assignment and its buckets have in common.
type hold struct {
	now      clock.Source
	deadline atomic.Pointer[clock.Instant]
	over     atomic.Pointer[clock.Instant] // the deadline that somebody who asked saw passed
}

// Live reports whether the right is held now, by all clocks. Once it has said no it never says yes again: whoever asked has stopped,
// so the loop ends it, also when the clock that jumped jumps back.
func (r *Right) Live() bool {
	h := r.hold
	if r.ended.Load() || h.over.Load() != nil {
		return false
	}
	d := h.deadline.Load()
	if !h.now().Reached(*d) {
		return true
	}
	h.over.CompareAndSwap(nil, d)
	return false
}

// Deadline is when it ends without another extension.
func (r *Right) Deadline() clock.Instant { return *r.hold.deadline.Load() }

func hasRole(roles []string, role string) bool { return slices.Contains(roles, role) }

// subscribe keeps subscriptions that end together.
type subscriptions []*nats.Subscription

func (s *subscriptions) add(nc *nats.Conn, subject string, fn nats.MsgHandler) error {
	sub, err := nc.Subscribe(subject, fn)
	if err != nil {
		return fmt.Errorf("subscribe %s: %w", subject, err)
	}
	_ = sub.SetPendingLimits(1<<20, 256<<20)
	*s = append(*s, sub)
	return nil
}

func (s *subscriptions) end() {
	for _, sub := range *s {
		_ = sub.Unsubscribe() // a closed connection has ended it already
	}
	*s = nil
}
