package vote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/ballot"
	"github.com/quorate/quorate/internal/inner"
	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/offset"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/leader"
)

// A Proposal is a question to the members of a group. Only the topic is needed.
type Proposal struct {
	Topic string // free text, up to 1 KiB
	Data  []byte // what voters need to know beside it, up to 512 KiB
	Kind  Kind   // default Majority
	// ID names the ballot. Default: a new random one. With the id of an earlier Propose and the same question the same
	// ballot is asked about again: its verdict if it is sealed, else it runs (again).
	ID string
	// At makes it the proposal of an action: who says yes does it at that moment of this process's wall clock, see Config.Act. It lies
	// at most 30 minutes ahead, and enough that the members can vote and hear of the verdict: it cannot be won any more lease/6 before.
	// Zero: no action.
	At time.Time
	// Tolerance of an action: who does not know the leader's clock that well votes no, and who would begin later by its own
	// clocks does not begin, and says so. Whole milliseconds, up to a minute. Smaller ones are met only over quick connections, larger ones
	// let members begin that were held up. Default: lease/30, at least 100 ms.
	Tolerance time.Duration
}

// maxLeft is the longest a ballot may take.
const maxLeft = ballot.MaxLeft

func (p Proposal) check(now time.Time) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrBadProposal}, args...)...)
	}
	if err := wire.CheckBallot(p.ID); err != nil {
		return fmt.Errorf("%w: %w", ErrBadProposal, err)
	}
	_, err := ballot.ParseKind(string(p.Kind))
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrBadProposal, err)
	case p.Topic == "":
		return bad("its topic is empty: say what is voted on")
	case len(p.Topic) > wire.MaxTopic:
		return bad("its topic is %d bytes long, at most %d are allowed", len(p.Topic), wire.MaxTopic)
	case !utf8.ValidString(p.Topic):
		return bad("its topic is not UTF-8")
	case len(p.Data) > wire.MaxData:
		return bad("its data is %d bytes long, at most %d are allowed", len(p.Data), wire.MaxData)
	case p.At.IsZero() && p.Tolerance != 0:
		return bad("a tolerance without an instant: set At too")
	case !p.At.IsZero() && (p.Tolerance < time.Millisecond || p.Tolerance > ballot.MaxTolerance):
		return bad("a tolerance of %s: want from 1ms to %s", p.Tolerance, ballot.MaxTolerance)
	case !p.At.IsZero() && p.At.Sub(now) > ballot.MaxAhead:
		return bad("its instant is %s ahead, at most %s are allowed: propose it nearer to it", p.At.Sub(now).Round(time.Second), ballot.MaxAhead)
	}
	return nil
}

// Propose puts a question to the members of a group that vote, and waits for the verdict. ctx's deadline is the ballot's, at most ten
// minutes; without one it is two leases.
//
// It always answers by the deadline (V3). With a nil error the verdict is the sealed one (yes, no or timed-out), or unknown
// with Why: no leader, or no seal confirmed in time. Such a ballot may still be sealed: Propose again with Verdict.Ballot as ID,
// or [Lookup]. [ErrNoVoters], [ErrBadProposal] and [quorate.ErrPermission] (the server does not let this connection propose) are final. When ctx is
// cancelled before, or the client has ended, the error says so and the verdict is unknown.
func Propose(ctx context.Context, c *coord.Client, p Proposal) (Verdict, error) {
	if p.Kind == "" {
		p.Kind = Majority
	}
	if p.ID == "" {
		p.ID = nuid.Next()
	}
	cl, began := of(c), time.Now()
	ctx, end := cl.in.Span(ctx, inner.Span{Op: inner.OpPropose, Group: cl.group, Member: cl.self, Topic: p.Topic, Ballot: p.ID})
	v, err := cl.propose(ctx, p)
	end(inner.SpanEnd{Err: err, Answer: v.Verdict})
	cl.in.Note(inner.Note{Kind: inner.NoteProposal, Group: cl.group, Member: cl.self, Ballot: p.ID, Topic: p.Topic, Answer: v.Verdict, Cause: err, Took: time.Since(began)})
	return v, err
}

func (c client) propose(ctx context.Context, p Proposal) (Verdict, error) {
	trace := wire.CutTrace(c.in.Inject(ctx))
	if !p.At.IsZero() && p.Tolerance == 0 {
		p.Tolerance = max(c.in.Lease/30, 100*time.Millisecond)
	}
	r := &request{client: c, id: p.ID, subject: wire.SubPropose,
		body: func(left int64, when *wire.When) any {
			return &wire.Proposal{V: wire.Version, Ballot: p.ID, Topic: p.Topic, Kind: string(p.Kind), Data: p.Data, LeftMS: left, From: c.self, When: when, Trace: trace}
		},
		mine: func(w wire.Verdict) error { // the answer to one question must not be taken for the answer to another
			if w.Topic != p.Topic || w.Kind != string(p.Kind) || (w.When != nil) != !p.At.IsZero() || w.When != nil && w.When.Wall != wire.Time(p.At) {
				return fmt.Errorf("%w: ballot %s was another proposal's, on %q (%s); take a new id", ErrBadProposal, w.Ballot, w.Topic, w.Kind)
			}
			return nil
		}}
	now := c.in.Now()
	err := p.check(now.WallTime())
	if !p.At.IsZero() { // the moment that is meant stays the same, whatever the wall clock does from here on
		r.when = &wire.When{ToleranceMS: wire.ToMS(p.Tolerance), Wall: wire.Time(p.At)}
		r.at = now.Boot + time.Duration(p.At.UnixNano()) - now.Wall
	}
	var v Verdict
	if err == nil {
		v, err = r.run(ctx)
	}
	if v.Verdict != Passed && v.Verdict != Failed && v.Verdict != TimedOut {
		v = Verdict{Ballot: p.ID, Topic: p.Topic, Kind: p.Kind, Verdict: Unknown, Why: v.Why, At: p.At, Tolerance: p.Tolerance}
	}
	if err != nil {
		v.Why = err.Error()
		return v, fmt.Errorf("vote: propose to group %q: %w", c.group, err)
	}
	return v, nil
}

// Cancel asks the leader to stop a ballot. It is a request, not a verdict: an open ballot is sealed timed-out, and that is
// returned; one that was sealed before keeps its verdict, which is returned. An action that was agreed on is cancelled at each member that
// hears of it before the instant: [Verdict.Outcome] tells who has. [ErrNoBallot] says that the leader has no such ballot:
// its proposer may still ask for it again. Like [Propose] it answers by ctx's deadline.
func Cancel(ctx context.Context, c *coord.Client, id string) (Verdict, error) {
	cl := of(c)
	ctx, end := cl.in.Span(ctx, inner.Span{Op: inner.OpCancel, Group: cl.group, Member: cl.self, Ballot: id})
	v, err := cl.cancel(ctx, id)
	end(inner.SpanEnd{Err: err, Answer: v.Verdict})
	return v, err
}

func (c client) cancel(ctx context.Context, id string) (Verdict, error) {
	r := &request{client: c, id: id, subject: wire.SubCancel,
		body: func(left int64, _ *wire.When) any { return &wire.Cancel{V: wire.Version, Ballot: id, LeftMS: left} },
		mine: func(wire.Verdict) error { return nil }}
	err := wire.CheckBallot(id)
	var v Verdict
	if err == nil {
		v, err = r.run(ctx)
	}
	if err != nil {
		return Verdict{Ballot: id, Verdict: Unknown, Why: err.Error()}, fmt.Errorf("vote: cancel in group %q: %w", c.group, err)
	}
	if v.Verdict == "" {
		v = Verdict{Ballot: id, Verdict: Unknown, Why: v.Why}
	}
	return v, nil
}

// request is one Propose or Cancel: it is put to the leader, whoever that is, again and again, until there is an answer or no time
// is left.
type request struct {
	client
	id      string
	subject string
	body    func(leftMS int64, when *wire.When) any
	mine    func(w wire.Verdict) error // what is wrong with a verdict as the answer to this

	when  *wire.When    // of an action; without the leader's part
	at    time.Duration // its instant on the own boot-time clock
	clock offset.Clock  // of the leader that was asked last; used by out only

	ask time.Time // until then leaders are asked
	end time.Time // by then there is an answer

	// The connection is used on a goroutine of its own, for it may stand still for seconds while it dials (V3).
	out     *inner.Outbox
	inbox   string
	answers chan *nats.Msg
	failed  chan error
	found   chan wire.Verdict // by the last read; closed after it
	over    atomic.Bool
	why     atomic.Pointer[string] // there is no answer yet
	token   atomic.Uint64          // of the leader seen last
	wake    chan struct{}
	undo    []func() // used by out only
}

func (r *request) because(why string) { r.why.Store(&why) }

// run returns the sealed verdict, or one without a Verdict, but with Why.
func (r *request) run(ctx context.Context) (Verdict, error) {
	start := time.Now()
	select {
	case <-r.ended:
		return Verdict{}, r.cause()
	default:
	}
	if ctx.Err() != nil {
		return Verdict{}, context.Cause(ctx)
	}
	total := 2 * r.in.Lease
	if at, ok := ctx.Deadline(); ok {
		total = min(at.Sub(start), maxLeft)
	}
	// What is left after the leaders were asked is for reading the key, and for coming back in time (V3).
	r.end = start.Add(total)
	r.ask = r.end.Add(-min(r.in.Lease/12, total/8))
	r.inbox, r.answers, r.failed = r.in.Store.Conn().NewInbox(), make(chan *nats.Msg, 64), make(chan error, 1)
	r.wake, r.found = make(chan struct{}, 1), make(chan wire.Verdict, 1)
	r.because("no leader answered")
	gone := make(chan struct{})
	forget, ok := r.in.Track(func(ctx context.Context) error { // the goroutine below is waited for
		select {
		case <-gone:
		case <-ctx.Done():
		}
		return nil
	})
	if !ok {
		return Verdict{}, quorate.ErrClosed
	}
	r.out = inner.NewOutbox(16)
	defer func() {
		r.over.Store(true)
		r.out.Do(func() {
			for _, undo := range r.undo {
				undo()
			}
		})
		go func() {
			r.out.Close()
			close(gone)
			forget()
		}()
	}()
	w, err := r.await(ctx, total)
	if err != nil {
		return Verdict{}, err
	}
	if w == nil {
		return Verdict{Why: *r.why.Load()}, nil
	}
	if err := r.mine(*w); err != nil {
		return Verdict{}, err
	}
	r.tell(*w)
	return verdict(r.client, *w), nil
}

func (r *request) await(ctx context.Context, total time.Duration) (*wire.Verdict, error) {
	lease := r.in.Lease
	asked := time.NewTimer(time.Until(r.ask))
	ended := time.NewTimer(time.Until(r.end.Add(-r.end.Sub(r.ask) / 8)))
	defer asked.Stop()
	defer ended.Stop()
	missing := r.in.Store.Permission(wire.GroupSubject(r.in.Name, r.group, r.subject))
	r.out.Do(r.listen)
	r.out.Do(r.send)
	pace, soon := lease/6, lease/24 // until it is asked again: without an answer, and after a word that nobody listens
	longest := max(lease, total/32) // a leader remembers each request of a ballot
	again := time.NewTimer(pace)
	defer again.Stop()
	watching := false
	found := r.found
	for {
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return nil, nil
			}
			return nil, context.Cause(ctx)
		case <-r.ended:
			return nil, r.cause()
		case err := <-r.failed:
			return nil, err
		case <-asked.C:
			r.out.Do(r.last)
			continue
		case w, ok := <-found:
			if ok {
				return &w, nil
			}
			return nil, nil
		case <-ended.C:
			return nil, nil
		case m := <-r.answers:
			if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
				r.because("no leader")
				again.Reset(soon)
				soon = min(2*soon, lease/3)
				break
			}
			w, over, err := r.answer(m)
			if err != nil || w != nil {
				return w, err
			}
			if over && asked.Stop() {
				asked.Reset(0)
			}
			continue
		case <-r.wake:
			soon, pace = lease/24, lease/24
			again.Reset(0)
		case <-again.C:
			if err := missing(); err != nil {
				return nil, err // asking again would not be heard either
			}
			r.out.Send(r.send)
			again.Reset(pace)
			pace = min(2*pace, longest)
		}
		if !watching {
			watching = true
			r.out.Do(r.watch)
		}
	}
}

// answer reads a leader's answer; over says that no leader will know more.
func (r *request) answer(m *nats.Msg) (w *wire.Verdict, over bool, err error) {
	var a wire.ProposalAnswer
	if err := wire.Decode(m.Data, &a); err != nil {
		r.log.Debug("answer to a proposal cannot be read", "ballot", r.id, "error", err)
		return nil, false, nil
	}
	switch {
	case a.Verdict != nil:
		if sound(*a.Verdict, r.id) {
			return a.Verdict, false, nil
		}
	case a.Unknown:
		r.because("the leader could not confirm a seal")
		return nil, true, nil
	case a.Error == ballot.CodeClock: // another leads now: its clock is asked for, and the instant converted again
		r.because(a.Text)
		r.out.Do(func() { r.clock = offset.Clock{} })
		r.out.Do(r.send)
	case a.Error == ballot.CodeBad:
		return nil, false, fmt.Errorf("%w: %s", ErrBadProposal, a.Text)
	case a.Error == ballot.CodeNoVoters:
		return nil, false, ErrNoVoters
	case a.Error == ballot.CodeNoBallot:
		return nil, false, fmt.Errorf("%w: %s", ErrNoBallot, a.Text)
	default: // busy, not leading any more: somebody may take it later
		r.because(cmp.Or(a.Text, a.Error))
	}
	return nil, false, nil
}

// ---- on the outbox's goroutine

func (r *request) fail(err error) {
	select {
	case r.failed <- err:
	default:
	}
}

func (r *request) listen() {
	sub, err := r.in.Store.Conn().ChanSubscribe(r.inbox, r.answers)
	if errors.Is(err, nats.ErrConnectionClosed) {
		err = quorate.ErrConnClosed
	}
	if err != nil {
		r.fail(err)
		return
	}
	r.undo = append(r.undo, func() { _ = sub.Unsubscribe() }) // a closed connection has ended it already
}

// send asks the leader. The same ballot asked for again is the same ballot.
func (r *request) send() {
	nc := r.in.Store.Conn()
	switch {
	case r.over.Load():
		return
	case nc.IsClosed():
		r.fail(quorate.ErrConnClosed)
		return
	case !nc.IsConnected(): // R21: a request that a buffer sends minutes later would be a ballot that nobody waits for
		r.because("not connected")
		return
	}
	left := time.Until(r.ask).Milliseconds() // whole ones, so that the leader answers before we give up
	if left <= 0 {
		return
	}
	if r.when != nil && !r.clock.Known() {
		r.measure()
		return
	}
	var when *wire.When
	if r.when != nil {
		w := *r.when
		w.Token, w.AtUS = r.clock.Token, max(r.clock.There(r.at).Microseconds(), 1)
		when = &w
	}
	data := wire.Encode(r.body(left, when))
	err := nc.PublishRequest(wire.GroupSubject(r.in.Name, r.group, r.subject), r.inbox, data)
	switch {
	case errors.Is(err, nats.ErrMaxPayload):
		r.fail(fmt.Errorf("%w: with its data it is a message of %d bytes, the NATS server takes %d", ErrBadProposal, len(data), nc.MaxPayload()))
	case err != nil:
		r.because(err.Error())
	}
}

// measure asks the leader for its clock; what comes back is sent on as the proposal.
func (r *request) measure() {
	nc := r.in.Store.Conn()
	inbox := nc.NewInbox() // its own, so that an answer is not taken for that to another try
	sent := r.in.Now()
	var sub *nats.Subscription
	sub, err := nc.Subscribe(inbox, func(m *nats.Msg) {
		received := r.in.Now()
		var a wire.ProposalAnswer
		if len(m.Data) == 0 || wire.Decode(m.Data, &a) != nil || a.ClockUS <= 0 {
			if m.Header.Get("Status") == "503" || a.Error != "" {
				select {
				case r.answers <- m: // nobody leads, or too few are there
				default:
				}
			}
			return
		}
		r.out.Do(func() {
			var c offset.Clocks
			if !r.clock.Known() && c.Add(offset.Sample{Token: a.Token, Sent: sent, Received: received, Clock: time.Duration(a.ClockUS) * time.Microsecond}) {
				r.clock, _ = c.Of(a.Token)
				r.send()
			}
		})
	})
	if err != nil {
		r.because(err.Error())
		return
	}
	r.undo = append(r.undo, func() { _ = sub.Unsubscribe() }) // a closed connection has ended it already
	_ = sub.AutoUnsubscribe(1)                                // one answer, and it is gone
	if err := nc.PublishRequest(wire.GroupSubject(r.in.Name, r.group, wire.SubPropose), inbox,
		wire.Encode(&wire.Proposal{V: wire.Version, Ballot: r.id, LeftMS: 1, Ask: wire.AskClock})); err != nil {
		r.because(err.Error())
	}
}

// watch wakes the request when another leader shows up, and after a reconnect: hints, which may be lost.
func (r *request) watch() {
	wake := func() {
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
	r.undo = append(r.undo, r.in.Store.OnReconnect(wake))
	stop, err := r.in.Store.Hints(wire.LeaderKey(r.group), func(e kv.Entry) {
		s := leader.StateOf(e)
		if s.Holder == "" {
			return
		}
		old := r.token.Swap(s.Token)
		if s.Token == e.Revision || old != 0 && old != s.Token { // the acquiring write itself, or one of a term not seen before
			wake()
		}
	})
	if err != nil {
		r.log.Debug("leader is not watched", "error", err)
		return
	}
	r.undo = append(r.undo, stop)
}

// last looks for the verdict itself: no leader has told it in time, but one may have sealed it.
func (r *request) last() {
	defer close(r.found)
	ctx, cancel := context.WithTimeout(context.Background(), time.Until(r.end)*3/4)
	defer cancel()
	w, ok, err := r.readVerdict(ctx, r.id)
	switch {
	case err != nil:
		r.log.Debug("verdict not read", "ballot", r.id, "error", err)
	case ok:
		r.found <- w
	}
}
