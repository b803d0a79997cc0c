package vote

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/ballot"
	"github.com/quorate/quorate/internal/inner"
	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/offset"
	"github.com/quorate/quorate/internal/wire"
)

// Config of a voting member. The zero value works.
type Config struct {
	// Decide answers a ballot. It is called once for each, on a goroutine of its own, several at once when several ballots are open.
	// Its context ends at the ballot's deadline, when the verdict is announced, and with the membership; what it returns then
	// counts only if another leader runs the ballot again: a member is asked once. Default: every ballot is answered with an abstention.
	// Of an action (Ballot.At is set) only the deadline and the membership end it: a yes counts for its member up to the instant.
	Decide func(ctx context.Context, b Ballot) Answer
	// Act does what was agreed on, at its instant. It is called for each action to which this member said yes, once the yes of the group
	// is sealed, at most once, on a goroutine of its own. Its error is reported as failed. Its context ends with the voting. Default: nothing is
	// done, and that is reported as done.
	Act func(ctx context.Context, b Ballot) error
	// Reported is called with what this member reports about its part in an action, once for each, in their order, also when nothing can be sent. While a
	// call has not returned others wait, a thousand at most; further ones are left out. Default: none.
	Reported func(b Ballot, r Report)
}

// A Voting is one member's part in the group's votes. Make it with [Join].
type Voting struct {
	g      *coord.Group
	h      *coord.Handle
	in     *inner.Namespace
	log    *slog.Logger
	cl     client
	cfg    Config
	memory *memory
	box    *inner.Mailbox[any]
	msgs   chan *nats.Msg
	subs   []*nats.Subscription // to ballots, verdicts, cancellations, acknowledgements
	inbox  string               // of acknowledgements
	out    *inner.Outbox        // an instant does not wait for a connection that dials
	tell   *inner.Outbox        // of calls of Reported: nor for its user
	forget func()

	ctx  context.Context // ends with the Voting
	end  context.CancelFunc
	done chan struct{}

	calls sync.WaitGroup     // of Decide and Act, and reads
	open  map[string]opened  // by ballot: calls of Decide under way for the present incarnation
	acts  map[string]*Ballot // by ballot: actions that were asked about
}

// opened is a call of Decide.
type opened struct {
	cancel context.CancelFunc
	action bool
}

// memory is what one process remembers of the ballots of a group: also from one Voting to the next, so that a member that closes
// one and joins again is not asked twice.
type memory struct {
	g     *coord.Group
	v     *Voting // nil: nobody votes, and nobody owns the rest
	place wire.Place
	voter *ballot.Voter
	actor *ballot.Actor
}

// decidedInput is what a call of decide has returned.
type decidedInput struct {
	place  wire.Place
	ballot string
	answer Answer
}

// Join makes the member one that votes. It returns once the leader knows and the member's record says so: every ballot whose round opens
// afterwards counts the member in, under this leader or the next. It waits for that until ctx ends. A member has one Voting: joining again before it has ended is
// [ErrVotes].
func Join(ctx context.Context, g *coord.Group, cfg Config) (*Voting, error) {
	h := g.Inner()
	fail := func(err error) (*Voting, error) {
		return nil, fmt.Errorf("vote: join group %q: %w", g.Name(), err)
	}
	if ctx.Err() != nil {
		return fail(context.Cause(ctx))
	}
	if err := h.NeedsLeader(); err != nil {
		return fail(err)
	}
	if cfg.Decide == nil {
		cfg.Decide = func(context.Context, Ballot) Answer { return Abstain() }
	}
	if cfg.Act == nil {
		cfg.Act = func(context.Context, Ballot) error { return nil }
	}
	if cfg.Reported == nil {
		cfg.Reported = func(Ballot, Report) {}
	}
	v := &Voting{g: g, h: h, in: h.Namespace(), log: h.Log(), cl: of(g.Client), cfg: cfg, box: inner.NewMailbox[any](1 << 10), msgs: make(chan *nats.Msg, heardLimit),
		done: make(chan struct{}), open: map[string]opened{}, acts: map[string]*Ballot{}}
	v.inbox = v.in.Store.Conn().NewInbox()
	taken := false
	share := "vote:" + g.Name()
	v.in.Share(share, func(old any) any {
		m, ok := old.(*memory)
		switch {
		case !ok || m.g != g:
			m = &memory{g: g, actor: ballot.NewActor(v.in.Lease)}
		case m.v != nil:
			taken = true
			return old
		}
		m.v, v.memory = v, m
		return m
	})
	if taken {
		return fail(ErrVotes)
	}
	release := func() {
		v.in.Share(share, func(old any) any {
			v.memory.v = nil
			if g.Context().Err() != nil && old == any(v.memory) {
				return nil // a later membership is another member's
			}
			return old
		})
	}
	v.ctx, v.end = context.WithCancel(g.Context())
	var ok bool
	if v.forget, ok = v.in.Track(v.Close); !ok {
		v.end()
		release()
		return fail(quorate.ErrClosed)
	}
	if err := v.listen(); err != nil {
		v.end()
		v.unlisten()
		v.forget()
		release()
		return fail(err)
	}
	go func() {
		defer close(v.done)
		defer v.forget()
		defer release()
		v.loop()
	}()
	h.SetRole(wire.RoleVote, true)
	select {
	case <-h.Known(wire.RoleVote):
		return v, nil
	case <-v.ctx.Done():
		err := context.Cause(g.Context())
		if err == nil {
			err = quorate.ErrClosed
		}
		return fail(err)
	case <-ctx.Done():
		err := context.Cause(ctx)
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), v.in.Lease)
		defer cancel()
		_ = v.Close(bounded) // undoes the half of it that is done
		return fail(fmt.Errorf("no leader knows of it yet, or its record does not say so: %w", err))
	}
}

// Close ends the voting: the member is in no electorate from the leader's next heartbeat on, and silent in ballots that are
// open. It waits until ctx ends for calls of Decide, Act and Reported that are under way, so it must not be called from one. It may be called twice;
// leaving the group closes too.
func (v *Voting) Close(ctx context.Context) error {
	v.end()
	select {
	case <-v.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("vote: close in group %q: a call of Decide, Act or Reported has not returned: %w", v.g.Name(), context.Cause(ctx))
	}
}

// heardLimit is how many messages may wait for the loop. Beyond it they are lost: a ballot is broadcast again.
const heardLimit = 1 << 11

// reportedLimit is how many calls of Reported may wait for one that does not return.
const reportedLimit = 1 << 10

// listen subscribes by one channel, so that a ballot is not heard after its verdict.
func (v *Voting) listen() error {
	subjects := []string{v.inbox + ".*"}
	for _, rest := range []string{wire.SubBallot, wire.SubVerdict, wire.SubCancelled} {
		subjects = append(subjects, wire.GroupSubject(v.in.Name, v.h.Name(), rest))
	}
	for _, subject := range subjects {
		sub, err := v.in.Store.Conn().ChanSubscribe(subject, v.msgs)
		if err != nil {
			return fmt.Errorf("subscribe %s: %w", subject, err)
		}
		v.subs = append(v.subs, sub)
	}
	v.h.Samples(func(s offset.Sample) { v.box.Offer(s) }) // lost: the next one is soon
	return nil
}

func (v *Voting) unlisten() {
	for _, sub := range v.subs {
		_ = sub.Unsubscribe() // a closed connection has ended it already
	}
}

// heard takes a message.
func (v *Voting) heard(m *nats.Msg) {
	acts := v.memory.actor.Deeds() > 0
	switch m.Sub {
	case v.subs[0]:
		v.act(ballot.Acked{Ballot: strings.TrimPrefix(m.Subject, v.inbox+".")}, m.Header.Get("Status") == "") // else: no leader was there
	case v.subs[1]:
		var b wire.Ballot
		if err := wire.Decode(m.Data, &b); err != nil {
			v.log.Warn("ballot cannot be read", "error", err)
		} else if wire.Answerable(m.Reply) {
			v.ballot(ballot.BallotIn{Ballot: b, Reply: m.Reply})
		}
	case v.subs[2]:
		if len(v.open) == 0 && !acts {
			return // nobody is at it: most verdicts
		}
		var w wire.Verdict
		if wire.Decode(m.Data, &w) == nil && sound(w, w.Ballot) {
			if o, ok := v.open[w.Ballot]; ok && !(o.action && w.Verdict == wire.Yes) {
				o.cancel() // decided: nobody needs this answer any more
			}
			v.act(ballot.VerdictIn{Verdict: w}, acts)
		}
	case v.subs[3]:
		var c wire.Cancel
		if wire.Decode(m.Data, &c) == nil {
			v.act(ballot.StopIn{Ballot: c.Ballot}, acts)
		}
	}
}

// loop owns the voter and the actor in one goroutine.
func (v *Voting) loop() {
	v.out, v.tell = inner.NewOutbox(heardLimit), inner.NewOutbox(reportedLimit)
	defer v.out.Close()
	defer v.tell.Close()
	defer func() {
		// Calls under way are asked to return, and what they say is remembered: a ballot is decided once.
		v.unlisten()
		v.h.SetRole(wire.RoleVote, false)
		v.h.Samples(nil)
		v.act(ballot.Resign{}, true)
		v.cancelAll()
		v.calls.Wait()
		for _, in := range v.box.Take() {
			v.take(in)
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		v.in.Gate.Pass()
		select {
		case <-v.ctx.Done():
			return
		case m := <-v.msgs:
			v.in.Gate.Pass() // a pause may begin between any two inputs
			v.heard(m)
		case <-v.box.C():
			for _, in := range v.box.Take() {
				v.in.Gate.Pass()
				v.take(in)
			}
		case <-timer.C:
			v.in.Gate.Pass()
			v.act(ballot.ActorTick{}, true)
		}
		if at := v.memory.actor.Next(); !at.IsZero() {
			timer.Reset(max(at.Sub(v.in.Now()), 0))
		} else {
			timer.Stop()
		}
	}
}

func (v *Voting) take(in any) {
	switch in := in.(type) {
	case decidedInput:
		v.decided(in)
	case offset.Sample:
		v.act(ballot.ClockIn{Sample: in}, true)
	case ballot.ActorInput:
		v.act(in, true)
	}
}

// acting tells as whom the member may act right now (M2): not while its membership is in doubt.
func (v *Voting) acting() (wire.Place, bool) {
	p := v.h.Place()
	return p, v.g.Live() && v.h.Place() == p
}

func (v *Voting) ballot(in ballot.BallotIn) {
	m := v.memory
	p, ok := v.acting()
	if !ok {
		return // it is broadcast again while we are silent
	}
	if m.voter == nil || m.place != p {
		// A new incarnation is another voter: what the old one said, or was about to say, was not said by this one.
		v.cancelAll()
		m.place, m.voter = p, ballot.NewVoter(p.ID, p.Incarnation)
	}
	v.perform(m.voter.Step(v.in.Now(), in))
	v.tidy()
}

func (v *Voting) decided(in decidedInput) {
	m := v.memory
	if m.voter == nil || m.place != in.place {
		return
	}
	v.note(inner.Note{Kind: inner.NoteVote, Ballot: in.ballot, Answer: in.answer.String()})
	v.close(in.ballot)
	v.perform(m.voter.Step(v.in.Now(), ballot.Decided{Ballot: in.ballot, Answer: in.answer.String(), Reason: in.answer.Reason()}))
}

func (v *Voting) perform(fxs []ballot.VoterEffect) {
	for _, fx := range fxs {
		switch fx := fx.(type) {
		case ballot.Decide:
			if fx.When != nil {
				v.act(ballot.Asked{Ballot: fx.Ballot, Place: v.memory.place}, true)
			}
			v.call(fx.Ballot)
		case ballot.SendVote:
			if p, ok := v.acting(); !ok || p != v.memory.place || v.ctx.Err() != nil {
				continue // remembered, and sent when the ballot is heard again
			}
			if fx.When != nil {
				v.act(ballot.Say{SendVote: fx}, true)
				continue
			}
			v.publish(fx.Reply, "", &fx.Vote) // lost: the ballot is broadcast again
		}
	}
}

func (v *Voting) publish(subject, reply string, what any) {
	data := wire.Encode(what)
	v.out.Send(func() { _ = v.in.Store.Conn().PublishMsg(&nats.Msg{Subject: subject, Reply: reply, Data: data}) }) // lost: whatever goes through here is repeated
}

// act steps the actor.
func (v *Voting) act(in ballot.ActorInput, relevant bool) {
	if !relevant {
		return
	}
	for _, fx := range v.memory.actor.Step(v.in.Now(), in) {
		switch fx := fx.(type) {
		case ballot.Send:
			if p, ok := v.acting(); ok && p.ID == fx.Vote.ID && p.Incarnation == fx.Vote.Incarnation && v.ctx.Err() == nil {
				v.publish(fx.Reply, "", &fx.Vote)
			}
		case ballot.Exchange:
			v.h.Exchange()
		case ballot.Look:
			v.calls.Go(func() { v.box.Put(v.look(fx.Ballot)) })
		case ballot.Act:
			v.begin(fx)
		case ballot.Tell:
			v.publish(wire.GroupSubject(v.in.Name, v.h.Name(), wire.SubReport), v.inbox+"."+fx.Report.Ballot, &fx.Report)
			if fx.First && fx.Report.Status != wire.ReportNone {
				b, r := v.asked(fx.Report.Ballot), report(fx.Report)
				v.note(inner.Note{Kind: inner.NoteAction, Ballot: b.ID, Topic: b.Topic, Answer: r.Status})
				v.tell.Send(func() { v.cfg.Reported(b, r) })
			}
		}
	}
}

// look reads the verdict key.
func (v *Voting) look(id string) ballot.LookDone {
	ctx, cancel := context.WithTimeout(v.ctx, v.in.Lease/6)
	defer cancel()
	done := ballot.LookDone{Ballot: id}
	e, err := v.in.Store.Read(ctx, v.cl.key(id))
	if err != nil {
		v.log.Debug("verdict not read", "ballot", id, "error", err)
		return done
	}
	switch w, ok := v.cl.record(e); {
	case ok:
		v.cl.tell(w)
		done.Found, done.Verdict = ballot.FoundVerdict, &w
	case e.Op == kv.None:
		done.Found = ballot.FoundNone
	default:
		done.Found = ballot.FoundMarker
	}
	return done
}

// begin calls the user's function, unless it is too late by then.
func (v *Voting) begin(fx ballot.Act) {
	b := v.asked(fx.Ballot.Ballot)
	b.Data = fx.Ballot.Data
	v.calls.Go(func() {
		if fx.Late(v.in.Now()) {
			v.box.Put(ballot.Acted{Ballot: b.ID, Missed: true})
			return
		}
		v.in.Tell(inner.Event{Kind: inner.ActionBegan, Key: v.cl.key(b.ID), Member: fx.Place.ID, Incarnation: fx.Place.Incarnation, Token: fx.When.Token,
			At: fx.When.At(), Bound: fx.Bound, Tolerance: fx.When.Tolerance(), Live: func() bool { return true }})
		failed := ""
		ctx, end := v.span(v.ctx, inner.OpAct, b, fx.Ballot.Trace)
		err := v.cfg.Act(ctx, b)
		if err != nil {
			failed = cmp.Or(err.Error(), "failed")
		}
		end(inner.SpanEnd{Err: err})
		v.box.Put(ballot.Acted{Ballot: b.ID, Failed: failed})
	})
}

// asked is the ballot of an action as it was put to the user, without its data.
func (v *Voting) asked(id string) Ballot {
	if b := v.acts[id]; b != nil {
		return *b
	}
	return Ballot{ID: id}
}

// tidy forgets what the actor has forgotten.
func (v *Voting) tidy() {
	if len(v.acts) > 2*v.memory.actor.Deeds()+16 {
		for id := range v.acts {
			if !v.memory.actor.Knows(id) {
				delete(v.acts, id)
			}
		}
	}
}

// span begins the span of what a proposal has led to.
func (v *Voting) span(ctx context.Context, op string, b Ballot, trace wire.Trace) (context.Context, func(inner.SpanEnd)) {
	return v.in.Span(ctx, inner.Span{Op: op, Group: v.g.Name(), Member: v.g.ID(), Topic: b.Topic, Ballot: b.ID, Remote: wire.CutTrace(trace)})
}

// note tells hooks about this voter.
func (v *Voting) note(n inner.Note) {
	n.Group, n.Member = v.g.Name(), v.g.ID()
	v.in.Note(n)
}

// call asks the user's function.
func (v *Voting) call(w wire.Ballot) {
	left := wire.MS(min(w.LeftMS, maxLeft.Milliseconds())) // cut first: a huge number of milliseconds overflows
	ctx, cancel := context.WithTimeout(v.ctx, left)
	v.open[w.Ballot] = opened{cancel, w.When != nil}
	deadline, _ := ctx.Deadline()
	b := Ballot{ID: w.Ballot, Topic: w.Topic, Kind: Kind(w.Kind), Data: w.Data, From: w.From, Of: max(w.Of, len(w.Electors)), Deadline: deadline}
	if w.When != nil {
		b.At, b.Tolerance = wireTime(w.When.Wall), w.When.Tolerance()
		kept := b
		kept.Data = nil
		v.acts[b.ID] = &kept
	}
	place := v.memory.place
	v.calls.Go(func() {
		work, end := v.span(ctx, inner.OpDecide, b, w.Trace)
		a := v.cfg.Decide(work, b)
		end(inner.SpanEnd{Answer: a.String()})
		cancel()
		v.box.Put(decidedInput{place, w.Ballot, a})
	})
}

func (v *Voting) close(ballot string) {
	if o, ok := v.open[ballot]; ok {
		o.cancel()
		delete(v.open, ballot)
	}
}

func (v *Voting) cancelAll() {
	for id := range v.open {
		v.close(id)
	}
}
