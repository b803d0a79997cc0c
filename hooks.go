package quorate

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate/internal/inner"
)

// Hooks are functions of the program's own that are told what its namespace does: for metrics, traces, audits. Package metrics has them for
// Prometheus, package tracing for OpenTelemetry; [JoinHooks] puts several together. The zero value tells nobody, and costs nothing.
//
// No hook runs under a lock or on a loop of quorate's, so one that is slow, or stands still, holds up no renewal, heartbeat or hand-over (TestHookStandsStill).
type Hooks struct {
	// Event is called with what has happened, one event after the other, in their order, on a goroutine of the namespace's own. While a call has not
	// returned others wait, 16,384 at most; further ones are dropped, and told as one [EventDropped]. [Namespace.Close] tells what waits and
	// waits for the last call, so Event must not call it.
	Event func(Event)
	// Span is called at the beginning of a vote or message, in the goroutine of the program's own call or of its handler, which waits for it. It returns
	// the context that the operation goes on with, and what is called, once, at its end. Both must be returned.
	Span func(ctx context.Context, s Span) (context.Context, func(SpanEnd))
	// Inject gives what a message or a proposal is to carry of the span in ctx, so that the spans of those who get it can be tied to it ([Span].Remote):
	// names and values, 512 bytes together; more is not carried. It is called like Span, after it. With messages they travel as NATS headers of these names.
	Inject func(ctx context.Context) map[string]string
}

// JoinHooks makes one of several hooks: each is called, in their order. A span begins in the context that the one before has returned.
func JoinHooks(all ...Hooks) Hooks {
	var h Hooks
	for _, next := range all {
		h = join(h, next)
	}
	return h
}

func join(a, b Hooks) Hooks {
	h := a
	switch {
	case a.Event == nil:
		h.Event = b.Event
	case b.Event != nil:
		h.Event = func(e Event) { a.Event(e); b.Event(e) }
	}
	switch {
	case a.Span == nil:
		h.Span = b.Span
	case b.Span != nil:
		h.Span = func(ctx context.Context, s Span) (context.Context, func(SpanEnd)) {
			ctx, endA := a.Span(ctx, s)
			ctx, endB := b.Span(ctx, s)
			return ctx, func(e SpanEnd) { endB(e); endA(e) }
		}
	}
	switch {
	case a.Inject == nil:
		h.Inject = b.Inject
	case b.Inject != nil:
		h.Inject = func(ctx context.Context) map[string]string {
			m := maps.Clone(a.Inject(ctx))
			if m == nil {
				return b.Inject(ctx)
			}
			maps.Copy(m, b.Inject(ctx))
			return m
		}
	}
	return h
}

// An Event is one thing that has happened, as this process knows it. Which fields are set its kind says; the others are zero. Later versions may
// add kinds and fields.
type Event struct {
	Kind        string            // one of the constants below
	Time        time.Time         // when it was told of, with this process's monotonic reading
	Namespace   string            // always
	Group       string            // or
	Election    string            // that it is about
	Member      string            // id of this process's member or candidate
	Incarnation uint64            // of the member
	Term        uint64            // token of the term
	Leader      string            // who leads; "" nobody
	Quorate     bool              // the term leads; else it only keeps the group, below its minimum size
	Generation  uint64            // of shares
	Index       int               // of the share
	Total       int               // number of shares
	Count       int               // see the kind
	Late        int               // members whose heartbeats are overdue
	Peer        string            // another member
	Topic       string            // of a message or a ballot
	Ballot      string            // id
	Answer      string            // of a write, a vote, a ballot, an action: see the kind
	Reason      string            // in a word
	Cause       error             // why a right has ended: ErrResigned and so on
	Took        time.Duration     // see the kind
	Holds       time.Duration     // for how long the membership is granted from here; 0: not, or nobody knows
	Trace       map[string]string // what the ballot's proposal carried, see Hooks.Inject; not to be changed
}

// Kinds of events. Whose they are says which process is told of them: a leader of what it does as the leader, each process of its own rights.
const (
	// EventTermBegan: this process has won a term. Term, Quorate; Reason: `fresh` nothing was ever under the key, `released` it was given up, `expired` the
	// lease of the one before ran out (a fail-over), `turned` it goes on from a term of its own, of the other kind.
	EventTermBegan = inner.NoteTermBegan
	// EventTermEnded: its term is over. Term, Quorate, Cause; Took: how long it was held.
	EventTermEnded = inner.NoteTermEnded
	// EventRenewal: an attempt to renew a lease is over. Term; Answer: `yes`, `no` (refused), `unknown` (no answer in time); Took: from the sending to the answer.
	EventRenewal = inner.NoteRenewal
	// EventLeader: what a candidate, or the holder itself, sees of who leads has changed. Leader, Term.
	EventLeader = inner.NoteLeader
	// EventMemberBegan: the membership is granted. Incarnation, Holds.
	EventMemberBegan = inner.NoteMemberBegan
	// EventMemberEnded: it has ended, for it has left or a leader says so; by its own clock it may have run out before. Incarnation; Reason: `left`, `evicted`, `expired`, `superseded` (by another process of the same id), `bucket-lost`, `conn-closed`.
	EventMemberEnded = inner.NoteMemberEnded
	// EventHeartbeat: the leader has answered a heartbeat of this member. Term, Holds; Took: the round trip.
	EventHeartbeat = inner.NoteHeartbeat
	// EventRoster: as leader, the roster has changed. Count: members; Late: those whose heartbeats are overdue. At most twelve times in a lease.
	EventRoster = inner.NoteRoster
	// EventMemberLate: as leader, heartbeats of the member Peer have become overdue.
	EventMemberLate = inner.NoteMemberLate
	// EventSettled: as leader, a generation of shares has settled. Generation, Total; Reason: what has led to it, as in the history; Took: since the members were asked to let go; 0 of the first, for which nobody is.
	EventSettled = inner.NoteSettled
	// EventShareWanted: this member works on shares from now on (Count 1), or does not any more (0).
	EventShareWanted = inner.NoteShareWanted
	// EventShareBegan: this member has got a share. Generation, Index, Total; Count: buckets in it.
	EventShareBegan = inner.NoteShareBegan
	// EventShareEnded: it holds it no longer. Generation, Index, Total, Cause.
	EventShareEnded = inner.NoteShareEnded
	// EventBuckets: this member holds so many buckets now. Count.
	EventBuckets = inner.NoteBuckets
	// EventRound: as leader, a round of a ballot was opened. Ballot, Topic, Trace.
	EventRound = inner.NoteRound
	// EventVerdict: as leader, a verdict was sealed. Ballot, Topic, Trace; Answer: `yes`, `no`, `timed-out`; Took: since the round was opened.
	EventVerdict = inner.NoteVerdict
	// EventVote: this member has decided about a ballot. Ballot; Answer: `yes`, `no`, `abstain`.
	EventVote = inner.NoteVote
	// EventAction: what this member reports about an action that it said yes to. Ballot, Topic; Answer: `done`, `failed`, `late`, `cancelled`.
	EventAction = inner.NoteAction
	// EventProposal: a call of vote.Propose returns. Ballot, Topic; Answer: `yes`, `no`, `timed-out`, `unknown`; Took: the whole call; Cause: the error it returns.
	EventProposal = inner.NoteProposal
	// EventMessageDropped: a message was dropped, as its handler is slow. Topic.
	EventMessageDropped = inner.NoteMessageDropped
	// EventDisconnected and EventReconnected: of the connection to NATS.
	EventDisconnected = inner.NoteDisconnected
	EventReconnected  = inner.NoteReconnected
	// EventDropped: Count events were not told, as Event did not return in time.
	EventDropped = inner.NoteDropped
)

// A Span says which operation a span is of.
type Span struct {
	Op        string // one of the constants below
	Namespace string
	Group     string
	Member    string            // id of the member that does it; "" for a client that is no member
	To        string            // whom a message is for: "all", "leader" or a member's id
	Topic     string            // of a message or a ballot
	Message   string            // id of a message
	Ballot    string            // id of a ballot
	Remote    map[string]string // what the message or proposal that led to it carried, see Hooks.Inject; said by whoever sent it, and at most 512 bytes
}

// Operations that have spans. What leads to another ties the two together by Span.Remote, across processes: a send or ask to each handle, a propose to each decide and act.
const (
	OpSend    = inner.OpSend    // a call of Send
	OpAsk     = inner.OpAsk     // a call of Ask, all its tries
	OpGather  = inner.OpGather  // a call of Gather
	OpHandle  = inner.OpHandle  // a handler's call
	OpPropose = inner.OpPropose // a call of vote.Propose
	OpCancel  = inner.OpCancel  // a call of vote.Cancel
	OpDecide  = inner.OpDecide  // a call of vote.Config.Decide
	OpAct     = inner.OpAct     // a call of vote.Config.Act
)

// A SpanEnd is what an operation has come to.
type SpanEnd struct {
	Err    error
	Answer string // of propose and cancel: the verdict; of decide: `yes`, `no` or `abstain`
}

// inside are the hooks as quorate's own packages call them.
func (h Hooks) inside() inner.Hooks {
	in := inner.Hooks{Inject: h.Inject}
	if h.Event != nil {
		in.Event = func(n inner.Note) { h.Event(Event(n)) }
	}
	if h.Span != nil {
		in.Span = func(ctx context.Context, s inner.Span) (context.Context, func(inner.SpanEnd)) {
			ctx, end := h.Span(ctx, Span(s))
			return ctx, func(e inner.SpanEnd) { end(SpanEnd(e)) }
		}
	}
	return in
}

// noteConnection tells of the connection until the returned function is called, which waits for its goroutine.
func noteConnection(in *inner.Namespace, nc *nats.Conn) (stop func()) {
	if !in.Noting() {
		return func() {}
	}
	changes := nc.StatusChanged(nats.CONNECTED, nats.RECONNECTING, nats.DISCONNECTED, nats.CLOSED)
	over, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		defer nc.RemoveStatusListener(changes)
		away := false // of a connection that flaps quicker than it is told of, some changes are left out
		for {
			select {
			case <-over:
				return
			case s := <-changes:
				switch back := s == nats.CONNECTED; {
				case back && away:
					in.Note(inner.Note{Kind: inner.NoteReconnected})
				case !back && !away:
					in.Note(inner.Note{Kind: inner.NoteDisconnected})
				}
				away = s != nats.CONNECTED
				if s == nats.CLOSED {
					<-over
					return
				}
			}
		}
	}()
	return sync.OnceFunc(func() { close(over); <-done })
}
