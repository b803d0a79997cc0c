package leader

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nuid"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/inner"
	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/lease"
	"github.com/quorate/quorate/internal/wire"
)

// Config of an elector. The zero value works.
type Config struct {
	// ID names the candidate to others. Default: the host's name and a random part. Two candidates may share one.
	ID string
	// Value is what others can read about the leader, up to 1 KiB. Default empty. [Elector.SetValue] changes it.
	Value string
	// Priority puts candidates into order: higher first. A leader is never deposed for a higher one. Default 0.
	Priority int
	// Grace is how long guarded work may go on after a soft end before its term is left to run out. Default one lease.
	Grace time.Duration
	// HandoverDelay is waited by a winner after an expiry (not after a release) before its term begins: for guarded
	// resources that cannot check tokens. Default 0. It lengthens every fail-over by itself.
	HandoverDelay time.Duration
}

// An Elector campaigns for one leadership, again and again. Make it with [New].
type Elector struct {
	in    *inner.Namespace
	key   string
	name  string
	cfg   Config
	own   Place
	log   *slog.Logger
	known *inner.Known // what log says is known
	box   *inner.Mailbox[any]
	turn  chan struct{} // one campaign at a time

	stop    context.Context
	cancel  context.CancelFunc
	done    chan struct{}        // the loop has ended
	current atomic.Pointer[Term] // for the queue: the term that is held
	hearing atomic.Bool          // the same, or one that may be held any moment: those who wait tell a new holder at once, and must be heard then
	waiting atomic.Bool          // for the queue: a campaign waits
	since   atomic.Int64         // and since when, by the monotonic clock
	value   atomic.Pointer[string]
	forget  func()
}

// A Place is where and how an elector campaigns, for quorate's own packages: [New] makes one for plain elections.
type Place struct {
	Key        string             // of the bucket
	Label      string             // for logs: "election" or "group"
	Name       string             // of the election or group
	Params     func() wire.Params // that travel in the record; asked at the beginning of each term, on the loop: must not block
	Quorum     bool               // terms begin not quorate, until one is turned ([Term.Turn]): for a group with a minimum size
	Successors func() []string    // ids in the order of the queue; nil: the elector asks the candidates itself
	Seen       func(State)        // told of each change of the record, on the loop: must not block

	Log   *slog.Logger // default: one of its own
	Known *inner.Known // with Log: what its lines say is known

	Record  func(*wire.Leader) []byte // what is written in place of the record, with its v, id, nonce and params; on the loop
	Release func(*kv.Write)           // completes a removal; on the loop
}

// New makes an elector of the plain election with the given name. It returns a *wire.NameError for a bad name or id.
func New(ns *quorate.Namespace, name string, cfg Config) (*Elector, error) {
	if err := wire.CheckElection(name); err != nil {
		return nil, fmt.Errorf("leader: %w", err)
	}
	in := ns.Inner()
	params := func() wire.Params { return wire.Params{LeaseMS: wire.ToMS(in.Lease)} }
	return NewAt(in, Place{Key: wire.ElectionKey(name), Label: "election", Name: name, Params: params}, cfg)
}

// NewAt is [New] for quorate's own packages.
func NewAt(in *inner.Namespace, at Place, cfg Config) (*Elector, error) {
	if cfg.ID == "" {
		cfg.ID = GenerateID(in.Host)
	}
	if err := wire.CheckID(cfg.ID); err != nil {
		return nil, fmt.Errorf("leader: %s %q: %w", at.Label, at.Name, err)
	}
	if err := checkValue(at, cfg.Value); err != nil {
		return nil, err
	}
	if cfg.Grace < 0 || cfg.HandoverDelay < 0 {
		return nil, fmt.Errorf("leader: %s %q: grace and hand-over delay cannot be negative", at.Label, at.Name)
	}
	if cfg.Grace == 0 {
		cfg.Grace = in.Timings.Grace
	}
	e := &Elector{in: in, key: at.Key, name: at.Name, cfg: cfg, own: at, box: inner.NewMailbox[any](1024),
		turn: make(chan struct{}, 1), done: make(chan struct{}), log: at.Log, known: at.Known}
	if e.log == nil {
		e.known = &inner.Known{}
		e.log = inner.InElection(in.Log, at.Name, cfg.ID, e.known)
	}
	e.value.Store(&cfg.Value)
	e.stop, e.cancel = context.WithCancel(context.Background())
	var ok bool
	if e.forget, ok = in.Track(e.Close); !ok {
		e.cancel()
		return nil, fmt.Errorf("leader: %s %q: namespace: %w", at.Label, at.Name, quorate.ErrClosed)
	}
	r := &runner{Elector: e, m: lease.New(lease.Config{ID: cfg.ID, Prefix: nuid.Next(), Lease: in.Lease,
		Margin: in.Timings.Margin, Grace: cfg.Grace, Delay: cfg.HandoverDelay, Quorum: at.Quorum, Jitter: rand.Float64()})}
	if err := r.listen(); err != nil {
		e.cancel()
		e.forget()
		close(e.done) // the namespace may be closing it already
		return nil, fmt.Errorf("leader: %s %q: %w", at.Label, at.Name, err)
	}
	go r.loop()
	return e, nil
}

func checkValue(at Place, v string) error {
	if len(v) > wire.MaxValue {
		return fmt.Errorf("leader: %s %q: value of %d bytes, at most %d are allowed", at.Label, at.Name, len(v), wire.MaxValue)
	}
	return nil
}

// SetValue changes what others can read about the leader, up to 1 KiB, also while it leads: it travels with the next renewal, within
// lease/6, and with every term from then on.
func (e *Elector) SetValue(v string) error {
	if err := checkValue(e.own, v); err != nil {
		return err
	}
	e.value.Store(&v)
	return nil
}

// GenerateID makes an id of the host's name and a random part.
func GenerateID(host string) string {
	id := wire.CleanID(host)
	if len(id) > 40 {
		id = strings.TrimRight(id[:40], "-_")
	}
	if id == "" {
		id = "member"
	}
	n := nuid.Next()
	return id + "-" + strings.ToLower(n[len(n)-6:])
}

// note tells hooks about the leadership. Of a group without a leader, whose members hold leases on their own records, there is nothing to tell.
func (e *Elector) note(n inner.Note) {
	if e.own.Record != nil {
		return
	}
	n.Group = e.name
	if e.own.Label == "election" {
		n.Group, n.Election = "", e.name
	}
	n.Member = e.cfg.ID
	e.in.Note(n)
}

// ID is the candidate's id.
func (e *Elector) ID() string { return e.cfg.ID }

// Campaign waits until this elector leads, and returns the term. When ctx ends first nothing of the attempt is left
// behind: a write whose answer was lost is looked for and undone. Of several callers of one elector one campaigns, the others wait for
// the end of its term, and of its callback if it is one of Run. Calling Campaign again after a term has ended says that the work
// of that term has returned. A callback of Run must not call it for its own elector: it would wait for itself.
func (e *Elector) Campaign(ctx context.Context) (*Term, error) { return e.campaign(ctx, false, false) }

// TryCampaign is [Elector.Campaign] that does not wait for another: [ErrHeld], also when it is this elector that leads or
// campaigns.
func (e *Elector) TryCampaign(ctx context.Context) (*Term, error) {
	return e.campaign(ctx, true, false)
}

func (e *Elector) campaign(ctx context.Context, try, guarded bool) (*Term, error) {
	fail := func(err error) (*Term, error) {
		return nil, fmt.Errorf("leader: campaign for %s %q: %w", e.own.Label, e.name, err)
	}
	if err := e.takeTurn(ctx, try); err != nil {
		return fail(err)
	}
	c := &campaignInput{try: try, guarded: guarded, won: make(chan *Term, 1), lost: make(chan error, 1)}
	e.box.Put(c)
	var err error
	select {
	case t := <-c.won:
		return t, nil
	case err = <-c.lost:
	case <-e.done:
		err = e.closedBy()
	case <-ctx.Done():
		err = context.Cause(ctx)
		gone := make(chan struct{})
		e.box.Put(withdrawInput{c, gone})
		select {
		case <-gone:
		case <-e.done:
		}
	}
	select {
	case <-c.won: // at the same moment; it has been ended
		if !guarded {
			return fail(err) // and gave the turn back
		}
	default:
	}
	<-e.turn
	return fail(err)
}

// takeTurn waits until no other campaign or term of this elector is under way. The turn is given back by whoever finds the
// campaign failed, by the loop when an unguarded term ends, and by Run when its callback has returned.
func (e *Elector) takeTurn(ctx context.Context, try bool) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case <-e.done:
		return e.closedBy()
	default:
	}
	select {
	case e.turn <- struct{}{}:
		return nil
	default:
		if try {
			return ErrHeld // by this elector itself, which may be asked from its own callback
		}
	}
	select {
	case e.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-e.done:
		return e.closedBy()
	}
}

func (e *Elector) closedBy() error {
	if e.in.ConnClosed() {
		return quorate.ErrConnClosed
	}
	return quorate.ErrClosed
}

// Run campaigns and calls fn with each term it wins, again and again, in this goroutine. fn's context is [Term.Work]. Run
// returns nil when ctx has ended, and fn's error when fn returned while its term was live; in both cases after the
// release. A fn that returns because its term ended is followed by the next campaign. Any other error is one that
// cannot heal: [quorate.ErrConnClosed], [quorate.ErrClosed].
func (e *Elector) Run(ctx context.Context, fn func(ctx context.Context, t *Term) error) error {
	var last *Term
	for {
		t, err := e.campaign(ctx, false, true)
		if err == nil {
			last = t
			var done bool
			if done, err = e.guard(ctx, t, fn); done {
				return err
			}
		}
		if ctx.Err() != nil {
			err = nil
		} else if err == nil {
			continue
		}
		if last != nil {
			e.quit(last)
		}
		return err
	}
}

// guard does one term's work. done says that fn returned of its own accord, with its error; otherwise the error is nil.
func (e *Elector) guard(ctx context.Context, t *Term, fn func(context.Context, *Term) error) (done bool, err error) {
	soft := context.AfterFunc(ctx, func() { e.box.Put(stopInput{t: t, cause: lease.Resigned}) })
	cause := lease.Resigned
	defer func() { // also when fn panics or ends its goroutine
		soft()
		e.box.Put(stopInput{t: t, cause: cause, returned: true}) // L5: only now
		e.await(t, t.turned)
		<-e.turn
	}()
	err = fn(t.work, t)
	asked := t.work.Err() != nil
	if asked && ctx.Err() == nil {
		cause = 0 // by the term: that cause stands
	}
	// A process that was paused may see that it is no longer live before its context ends.
	if !asked && t.Live() {
		return true, err
	}
	return false, nil
}

// quit has a key released that was kept for the next term, after which nobody campaigns any more.
func (e *Elector) quit(last *Term) {
	select {
	case <-last.turned:
		e.box.Put(quitInput{last})
		e.await(last, nil)
	default:
	}
}

// await waits for the release of a term that has ended, or until it is turned; at most two leases: by then it has run out in any case.
func (e *Elector) await(t *Term, turned <-chan struct{}) {
	bound := time.NewTimer(2 * e.in.Lease)
	defer bound.Stop()
	select {
	case <-t.released:
	case <-turned:
	case <-e.done:
	case <-bound.C:
	}
}

// Close resigns, stops campaigning and waits until the elector's goroutines are gone or ctx ends. A callback of Run that
// does not return keeps its term: it is not released, but runs out. Without an answer from NATS it takes Grace and two
// leases. It may be called more than once, also by a callback, which then waits for its own term to run out.
func (e *Elector) Close(ctx context.Context) error {
	e.forget()
	e.cancel()
	select {
	case <-e.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("leader: close %s %q: %w", e.own.Label, e.name, context.Cause(ctx))
	}
}
