package inner

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/quorate/quorate/internal/clock"
	"github.com/quorate/quorate/internal/kv"
)

// Options of a namespace that only this module's packages can set.
type Options struct {
	Memory     bool         // memory storage, for virtual time
	AttachOnly bool         // do not make the bucket when it is missing
	Patient    bool         // reads are asked again until their context ends
	Clock      clock.Source // default clock.Now
	Gate       *Gate        // default always open
	Probe      func(Event)  // default none; called by the shells at the very moment, must not block
	Hooks      Hooks        // quorate.Config.Hooks
}

// Timings are quorate.Timings, all set; see there.
type Timings struct {
	Lease, Renew, Margin, MemberTimeout, Settle, SettleCeiling, Grace, AckTimeout time.Duration
}

// Namespace is one opened namespace.
type Namespace struct {
	Store   *kv.Store
	Name    string
	Lease   time.Duration // of Timings
	Timings Timings
	Now     clock.Source
	Gate    *Gate
	Log     *slog.Logger
	Host    string
	// Writes and Reads are of all electors together.
	Writes, Reads *Attempts
	probe         func(Event)
	hooks         Hooks
	notes         *notes // nil: nobody is told

	mu        sync.Mutex
	closed    bool
	allClosed chan struct{} // closed when CloseAll has returned
	closers   map[int]func(context.Context) error
	next      int

	sharing sync.Mutex
	shared  map[string]any
}

// New wraps a store.
func New(store *kv.Store, t Timings, host string, log *slog.Logger, o Options) *Namespace {
	n := &Namespace{Store: store, Name: store.Namespace(), Lease: t.Lease, Timings: t, Now: o.Clock, Gate: o.Gate, Log: log, Host: host,
		probe: o.Probe, closers: map[int]func(context.Context) error{}, allClosed: make(chan struct{}),
		Writes: NewAttempts(128), Reads: NewAttempts(128), hooks: o.Hooks}
	if o.Hooks.Event != nil {
		n.notes = newNotes(n.Name, o.Hooks.Event)
	}
	if n.Now == nil {
		n.Now = clock.Now
	}
	return n
}

// Track remembers how to close what was opened through the namespace; the returned function forgets it again. It reports
// false when the namespace is closed already.
func (n *Namespace) Track(closer func(context.Context) error) (forget func(), ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return func() {}, false
	}
	k := n.next
	n.next++
	n.closers[k] = closer
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.closers, k)
	}, true
}

// ConnClosed reports whether the connection was closed for good, without ever waiting for it.
func (n *Namespace) ConnClosed() bool {
	select {
	case <-n.Store.ConnClosed():
		return true
	default:
		return false
	}
}

// Share calls fn with what is shared under the name (nil at first) and keeps what it returns (nil: nothing any more).
func (n *Namespace) Share(name string, fn func(old any) any) {
	n.sharing.Lock()
	defer n.sharing.Unlock()
	if n.shared == nil {
		n.shared = map[string]any{}
	}
	if v := fn(n.shared[name]); v != nil {
		n.shared[name] = v
	} else {
		delete(n.shared, name)
	}
}

// CloseAll closes all that was opened through the namespace, at once, and returns the first error. A second call waits for
// the first.
func (n *Namespace) CloseAll(ctx context.Context) error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		select {
		case <-n.allClosed:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	defer close(n.allClosed)
	n.closed = true
	all := make([]func(context.Context) error, 0, len(n.closers))
	for _, c := range n.closers {
		all = append(all, c)
	}
	clear(n.closers)
	n.mu.Unlock()
	errs := make(chan error, len(all))
	for _, c := range all {
		go func() { errs <- c(ctx) }()
	}
	var first error
	for range all {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}

// EventKind is what a probe hears of.
type EventKind int

// Kinds of events. Each stands for one moment of a right: its beginning, its extension, its end.
const (
	TermBegan EventKind = iota + 1
	TermEnded
	AssignmentBegan
	AssignmentEnded
	MemberLive
	VerdictTold
	ActionBegan
	BucketBegan
	BucketEnded
)

// An Event is one moment of a right.
type Event struct {
	Kind        EventKind
	Namespace   *Namespace // whose "process"
	Key         string     // of the bucket: leader.G, election.N, settled.G, verdict.G.B, member.G.ID
	Member      string
	Incarnation uint64
	Token       uint64 // token of the term, generation, or of the bucket
	Index       int
	Total       int
	Bucket      int
	Verdict     string
	At          time.Duration // of an action: its instant, on the boot-time clock of the leader with the Token
	Bound       time.Duration // how far off the voter's own clock may be
	Tolerance   time.Duration
	Live        func() bool // asks the right itself, by its own clocks; safe from any goroutine
}

// Tell hands an event to the probe, if there is one.
func (n *Namespace) Tell(e Event) {
	if n.probe != nil {
		e.Namespace = n
		n.probe(e)
	}
}

// A Gate holds the loops of one process while it is shut: a pause while the clocks run.
type Gate struct {
	mu   sync.Mutex
	shut chan struct{} // nil while open; closed when it opens again
}

// Shut makes every Pass wait.
func (g *Gate) Shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut == nil {
		g.shut = make(chan struct{})
	}
}

// Open lets all go on.
func (g *Gate) Open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut != nil {
		close(g.shut)
		g.shut = nil
	}
}

// Pass waits while the gate is shut. A nil gate is always open.
func (g *Gate) Pass() {
	if g == nil {
		return
	}
	for {
		g.mu.Lock()
		shut := g.shut
		g.mu.Unlock()
		if shut == nil {
			return
		}
		<-shut
	}
}
