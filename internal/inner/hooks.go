package inner

import (
	"context"
	"sync/atomic"
	"time"
)

// A Note is quorate.Event, field by field; see there.
type Note struct {
	Kind        string
	Time        time.Time
	Namespace   string
	Group       string
	Election    string
	Member      string
	Incarnation uint64
	Term        uint64
	Leader      string
	Quorate     bool
	Generation  uint64
	Index       int
	Total       int
	Count       int
	Late        int
	Peer        string
	Topic       string
	Ballot      string
	Answer      string
	Reason      string
	Cause       error
	Took        time.Duration
	Holds       time.Duration
	Trace       map[string]string
}

// Kinds of notes; see quorate.Event.
const (
	NoteTermBegan      = "term-began"
	NoteTermEnded      = "term-ended"
	NoteRenewal        = "renewal"
	NoteLeader         = "leader"
	NoteMemberBegan    = "member-began"
	NoteMemberEnded    = "member-ended"
	NoteHeartbeat      = "heartbeat"
	NoteRoster         = "roster"
	NoteMemberLate     = "member-late"
	NoteSettled        = "settled"
	NoteShareWanted    = "share-wanted"
	NoteShareBegan     = "share-began"
	NoteShareEnded     = "share-ended"
	NoteBuckets        = "buckets"
	NoteRound          = "round"
	NoteVerdict        = "verdict"
	NoteVote           = "vote"
	NoteAction         = "action"
	NoteProposal       = "proposal"
	NoteMessageDropped = "message-dropped"
	NoteDisconnected   = "disconnected"
	NoteReconnected    = "reconnected"
	NoteDropped        = "dropped"
)

// A Span is quorate.Span, field by field; see there.
type Span struct {
	Op        string
	Namespace string
	Group     string
	Member    string
	To        string
	Topic     string
	Message   string
	Ballot    string
	Remote    map[string]string
}

// Operations that have spans; see quorate.Span.
const (
	OpSend    = "send"
	OpAsk     = "ask"
	OpGather  = "gather"
	OpHandle  = "handle"
	OpPropose = "propose"
	OpCancel  = "cancel"
	OpDecide  = "decide"
	OpAct     = "act"
)

// A SpanEnd is quorate.SpanEnd, field by field; see there.
type SpanEnd struct {
	Err    error
	Answer string
}

// Hooks are quorate.Hooks.
type Hooks struct {
	Event  func(Note)
	Span   func(ctx context.Context, s Span) (context.Context, func(SpanEnd))
	Inject func(ctx context.Context) map[string]string
}

// maxNotes is how many notes wait for a hook that does not return. Further ones are counted, and told as one.
const maxNotes = 1 << 14

// notes hand what happens to the user's function, on a goroutine of their own: whoever tells never waits, and holds no lock of ours meanwhile.
type notes struct {
	ns      string
	fn      func(Note)
	box     *Mailbox[Note]
	dropped atomic.Int64
	stop    chan struct{}
	done    chan struct{}
	ended   atomic.Bool
}

func newNotes(ns string, fn func(Note)) *notes {
	n := &notes{ns: ns, fn: fn, box: NewMailbox[Note](maxNotes), stop: make(chan struct{}), done: make(chan struct{})}
	go n.run()
	return n
}

func (n *notes) run() {
	defer close(n.done)
	for over := false; !over; {
		select {
		case <-n.box.C():
		case <-n.stop:
			over = true // what waits is told first
		}
		for _, e := range n.box.Take() {
			n.fn(e)
		}
		if lost := n.dropped.Swap(0); lost > 0 {
			n.fn(Note{Kind: NoteDropped, Namespace: n.ns, Time: time.Now(), Count: int(lost)})
		}
	}
}

// Noting says whether somebody is told of notes: what is dear to put together need not be, else.
func (n *Namespace) Noting() bool { return n.notes != nil }

// Note tells the user's hook, if there is one. It may be called anywhere, also on a loop and under a lock: it only puts the note into a queue.
func (n *Namespace) Note(e Note) {
	if n.notes != nil { // no more than this, so that it is inlined: without a hook not even the note is made
		n.notes.put(e)
	}
}

func (n *notes) put(e Note) {
	if n.ended.Load() {
		return
	}
	e.Time, e.Namespace = time.Now(), n.ns
	if !n.box.Offer(e) {
		n.dropped.Add(1)
	}
}

// EndNotes tells what waits, and returns when the hook has returned for the last time, or ctx ends.
func (n *Namespace) EndNotes(ctx context.Context) error {
	if n.notes == nil {
		return nil
	}
	if !n.notes.ended.Swap(true) {
		close(n.notes.stop)
	}
	select {
	case <-n.notes.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func nothing(SpanEnd) {}

// Span begins the span of an operation, if anybody wants spans; end ends it. It calls the user's function: on goroutines of users' calls only.
func (n *Namespace) Span(ctx context.Context, s Span) (_ context.Context, end func(SpanEnd)) {
	if n.hooks.Span == nil {
		return ctx, nothing
	}
	return n.begin(ctx, s)
}

func (n *Namespace) begin(ctx context.Context, s Span) (context.Context, func(SpanEnd)) {
	s.Namespace = n.Name
	return n.hooks.Span(ctx, s)
}

// Spans says whether anybody wants spans.
func (n *Namespace) Spans() bool { return n.hooks.Span != nil }

// Inject is what a message or proposal carries of the span in ctx; nil if nobody wants that.
func (n *Namespace) Inject(ctx context.Context) map[string]string {
	if n.hooks.Inject == nil {
		return nil
	}
	return n.hooks.Inject(ctx)
}
