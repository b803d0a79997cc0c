package coord

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/ballot"
	"github.com/quorate/quorate/internal/inner"
	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/settle"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/leader"
)

// Inputs of a chair's loop beside those of its machines.
type (
	rosterInput  struct{ m *nats.Msg }
	removedInput struct{}      // a removal of a record is over
	drainInput   chan struct{} // closed when none is under way
	proposeInput struct {
		m *nats.Msg
		p wire.Proposal
	}
)

// A chair is the leader's side of a group for one term: it owns the machine that keeps the members and settles their
// shares, and the one that runs ballots, in one goroutine. Nothing leaves it once its term is not live any more.
type chair struct {
	g       *Group
	t       *leader.Term
	box     *intake
	out     *inner.Outbox
	m       *settle.Machine
	votes   *ballot.Machine
	reads   *inner.Attempts // of verdicts
	seals   *inner.Attempts
	subs    subscriptions
	inbox   string // of votes
	watch   *kv.Watch
	io      sync.WaitGroup
	stop    context.Context
	end     context.CancelFunc
	done    chan struct{}
	leads   sync.WaitGroup
	over    bool // its term was seen to have ended
	shut    bool // no more work of the leader begins; guarded by the group's mutex
	ready   bool
	bad     atomic.Uint64 // revision of the last settled record that could not be read, to say it once
	payload atomic.Int64  // what the server takes in one message; asking the connection may wait for it to dial
	large   atomic.Bool   // a verdict was too large: the same

	epoch    uint64
	asked    []*nats.Msg   // for the roster
	askedAt  time.Duration // the first of them; monotonic
	rosterAt time.Duration // monotonic: when the next of them are answered, at the earliest
	queue    atomic.Pointer[[]string]
	dirty    bool
	queueAt  time.Duration

	notes chairNotes

	evicting map[wire.Place]*nats.Msg // who waits for the removal of a record
	removing int                      // removals under way
	drained  []chan struct{}          // who waits for all of them
}

// preside leads the group for one term: until the term is asked to end and all work that only the leader does has returned.
func (g *Group) preside(ctx context.Context, t *leader.Term) error {
	c, err := newChair(g, t)
	if err != nil {
		return err
	}
	g.mu.Lock()
	g.chair = c
	if t.Quorate() { // else it keeps the group, and leads nobody
		g.term = t
	}
	for _, l := range g.leads {
		c.offer(l)
	}
	c.box.Put(tuning(*g.params.Load())) // what was set since the chair was made
	g.mu.Unlock()
	go c.loop()
	<-ctx.Done()
	c.finishRemovals()
	g.mu.Lock()
	c.shut = true
	g.mu.Unlock()
	c.leads.Wait() // R12: what only the leader does has returned before anything is released
	c.end()
	<-c.done
	g.mu.Lock()
	g.chair, g.term = nil, nil
	g.mu.Unlock()
	g.before, g.beforeToken = c.m, t.Token()
	return nil
}

// finishRemovals waits a moment for removals under way: others know the end of a member by them, and the next leader would wait for it anew.
func (c *chair) finishRemovals() {
	done := make(chan struct{})
	c.box.Put(drainInput(done))
	bound := time.NewTimer(c.g.in.Lease / 6)
	defer bound.Stop()
	select {
	case <-done:
	case <-bound.C:
	case <-c.t.Context().Done():
	}
}

func (c *chair) drain() {
	if c.removing == 0 {
		for _, d := range c.drained {
			close(d)
		}
		c.drained = nil
	}
}

// offer hands the term to work that only the leader does, unless the term is to end already. The group's mutex is held.
func (c *chair) offer(l *leadCall) {
	if c.shut || !c.t.Quorate() {
		return
	}
	c.leads.Go(func() {
		end := make(chan struct{})
		select {
		case l.start <- leadStart{c.t, sync.OnceFunc(func() { close(end) })}:
			<-end
		case <-l.over:
		case <-c.t.Work().Done():
		}
	})
}

func newChair(g *Group, t *leader.Term) (*chair, error) {
	now := g.in.Now() // after the answer to the acquiring write: what is waited for from here is waited for long enough (S2)
	p := t.Params()
	c := &chair{g: g, t: t, box: newIntake(), done: make(chan struct{}), inbox: g.nc.NewInbox(), epoch: g.in.Store.Epoch()}
	c.stop, c.end = context.WithCancel(context.Background())
	var before *settle.Machine
	if t.After() != 0 && t.After() == g.beforeToken {
		before = g.before
	}
	g.before = nil
	place := wire.Place{ID: g.cfg.ID}
	if pl := g.place.Load(); pl != nil {
		place = *pl
	}
	c.m = settle.New(settle.Config{Token: t.Token(), Self: place, Prefix: nuid.Next(), Lease: g.in.Lease, Timeout: wire.MS(p.MemberTimeoutMS),
		Settle: wire.MS(p.SettleMS), Ceiling: wire.MS(p.CeilingMS), AckTimeout: wire.MS(p.AckTimeoutMS), Fresh: t.Fresh(), Params: p,
		Buckets: p.Buckets, Map: p.Map, MinSize: p.MinSize, Keeps: !t.Quorate(), Fell: !t.Quorate() && t.After() != 0, Before: before}, now)
	c.votes = ballot.New(t.Token(), g.in.Lease)
	c.reads, c.seals = inner.NewAttempts(exchanges), inner.NewAttempts(exchanges)
	w, err := g.in.Store.Watch(wire.MemberPrefix(g.group)+"*", kv.WatchOptions{NoSnapshot: true}, func(e kv.Event) {
		if k, ok := c.memberKey(e.Entry); ok {
			c.box.Put(k)
		}
	})
	if err != nil {
		return nil, err
	}
	c.watch, c.out = w, inner.NewOutbox(1<<17)
	return c, nil
}

func (c *chair) subject(rest string) string { return wire.GroupSubject(c.g.in.Name, c.g.group, rest) }

// serve begins to listen, once the settled record carries this term's token (S1).
func (c *chair) serve() {
	nc := c.g.nc
	c.payload.Store(nc.MaxPayload())
	add := func(subject string, fn nats.MsgHandler) {
		if err := c.subs.add(nc, subject, fn); err != nil {
			c.g.log.Error("leader cannot listen", "error", err)
		}
	}
	add(c.subject(wire.SubHeartbeat), c.box.Beat)
	add(c.subject(wire.SubRoster), func(m *nats.Msg) {
		if wire.Answerable(m.Reply) {
			c.box.Request(rosterInput{m})
		}
	})
	add(c.subject(wire.SubPropose), func(m *nats.Msg) {
		var p wire.Proposal
		if !wire.Answerable(m.Reply) {
			return
		}
		err := wire.Decode(m.Data, &p)
		if most := nc.MaxPayload() - ballotRoom; err == nil && p.Ask == "" && int64(len(m.Data)) > most {
			err = fmt.Errorf("it is a message of %d bytes, and to be passed on it may have %d: store its data, and propose where it is", len(m.Data), most)
		}
		if err != nil {
			if !c.t.Live() {
				return // no reply any more: the next leader's is the one that counts
			}
			c.respond(m, wire.ProposalAnswer{V: wire.Version, Error: ballot.CodeBad, Text: err.Error(), Token: c.t.Token()})
			return
		}
		p.Trace = wire.CutTrace(p.Trace)
		m.Data = nil // its request may wait for minutes, with a thousand others
		c.box.Request(proposeInput{m, p})
	})
	add(c.subject(wire.SubCancel), func(m *nats.Msg) {
		var r wire.Cancel
		if wire.Answerable(m.Reply) && wire.Decode(m.Data, &r) == nil {
			c.box.Request(ballot.Cancel{Handle: m, Ballot: r.Ballot, LeftMS: r.LeftMS})
		}
	})
	add(c.subject(wire.SubReport), func(m *nats.Msg) {
		var r wire.Report
		if wire.Answerable(m.Reply) && len(m.Data) <= 4096 && wire.Decode(m.Data, &r) == nil {
			c.box.Vote(ballot.ReportIn{Handle: m, Report: r})
		}
	})
	c.listenToOperators(add)
	add(c.inbox, func(m *nats.Msg) {
		var v wire.Vote
		if wire.Decode(m.Data, &v) == nil {
			c.box.Vote(ballot.VoteIn{Vote: v})
		}
	})
	if !c.t.Quorate() {
		c.g.log.Info("keeping the group: nobody leads it below its minimum size", "minimum", c.g.cfg.MinSize, "term", c.t.Token())
		return // messages for the leader find nobody
	}
	add(c.subject(wire.SubLeaderDot+">"), func(m *nats.Msg) {
		if c.t.Live() {
			c.g.deliver(m)
		}
	})
	c.g.log.Info("leading", "term", c.t.Token())
}

func (c *chair) loop() {
	g := c.g
	defer close(c.done)
	defer c.io.Wait()
	defer c.countVotes()
	defer c.watch.Stop()
	defer c.subs.end()
	defer c.out.Close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	undo := g.in.Store.OnReconnect(func() {
		c.payload.Store(g.nc.MaxPayload())
		c.box.Put(settle.Reconnected{})
	})
	defer undo()
	for {
		g.in.Gate.Pass()
		select {
		case <-c.stop.Done():
			return
		case <-c.t.Context().Done():
			c.out.Do(c.subs.end)
			c.watch.Stop()
			<-c.stop.Done() // what is left belongs to the next leader
			return
		case <-c.box.C():
			for _, in := range c.box.Take() {
				g.in.Gate.Pass()
				c.take(in)
			}
		case <-timer.C:
			c.take(settle.Tick{})
			c.take(ballot.Tick{})
		}
		c.tellRoster()
		c.requeue()
		c.noteRoster()
		c.rearm(timer)
	}
}

// alive says whether the chair may still act. Once it may not it never may again: an effect of its machines that was dropped
// is missing for good, also if the clock that showed the end goes back.
func (c *chair) alive() bool {
	if !c.over && !c.t.Live() {
		c.over = true
		c.t.Lose()
	}
	return !c.over
}

func (c *chair) rearm(timer *time.Timer) {
	now := c.g.in.Now().Mono
	d := c.m.Next() - now
	if at := c.votes.Next(); !at.IsZero() {
		d = min(d, at.Mono-now)
	}
	if len(c.asked) > 0 {
		d = min(d, max(c.askedAt+c.g.in.Lease/24, c.rosterAt)-now)
	}
	timer.Reset(max(d, 0))
}

func (c *chair) take(in any) {
	if !c.alive() {
		return
	}
	switch in := in.(type) {
	case settle.Input:
		c.settle(in)
	case ballot.ReadDone:
		if in.Found == ballot.FoundNone {
			if in.Electorate = c.m.Electorate(); !c.m.Leads() {
				in.Found = ballot.ReadFailed // S13: no round is opened; whoever waits asks the next term
			}
		}
		c.ballots(in)
	case ballot.Input:
		c.ballots(in)
	case *beatInput:
		if !in.raw || in.decode() {
			in.m.Data = nil // it is kept, to be answered again
			c.settle(settle.Beat{Handle: in.m, HB: in.hb})
		}
	case rosterInput:
		if len(c.asked) == 0 {
			c.askedAt = c.g.in.Now().Mono
		}
		if len(c.asked) < askers {
			c.asked = append(c.asked, in.m)
		}
	case removedInput:
		c.removing--
		c.drain()
	case drainInput:
		c.drained = append(c.drained, in)
		c.drain()
	case stepDownInput:
		c.stepDown(in)
	case evictInput:
		c.evict(in)
	case proposeInput:
		if !c.m.Leads() { // S13: no ballot is opened; one that was sealed can be read
			c.respond(in.m, wire.ProposalAnswer{V: wire.Version, Error: codeNotQuorate, Text: quorate.ErrNotQuorate.Error(), Token: c.t.Token()})
			return
		}
		c.ballots(ballot.Propose{Handle: in.m, Proposal: in.p, Round: nuid.Next(), Nonce: nuid.Next()})
	}
}

func (c *chair) settle(in settle.Input) {
	g := c.g
	now := g.in.Now()
	for _, fx := range c.m.Step(now, in) {
		if !c.alive() {
			return // no reply, grant or order any more
		}
		switch fx := fx.(type) {
		case settle.Reply:
			r := fx.Reply
			if !fx.Late { // else it would say little, in the place of another
				r.ClockUS = g.in.Now().Boot.Microseconds() // between the member's sending and its receipt, which is all it counts on
			}
			c.respond(fx.Handle.(*nats.Msg), r)
		case settle.Poke:
			if !c.ready && c.m.Ready() {
				c.ready = true
				c.out.Do(c.serve)
			}
			c.out.Send(func() { _ = g.nc.Publish(c.subject(wire.SubPoke), nil) }) // lost: their next heartbeat is soon
		case settle.ReadSettled:
			c.io.Go(c.readSettled)
		case settle.ReadMembers:
			c.io.Go(c.readMembers)
		case settle.WriteSettled:
			c.noteSettling(fx.Rec)
			c.writeSettled(fx)
		case settle.Remove:
			asked := c.evicting[fx.Place]
			delete(c.evicting, fx.Place)
			c.removing++
			c.io.Go(func() {
				defer c.box.Put(removedInput{})
				if c.remove(fx) && asked != nil {
					c.respond(asked, wire.Done{V: wire.Version})
				}
			})
		case settle.Rests:
			g.log.Warn("a member loses its shares soon after it gets them: unless it is alone, it gets the next one only after a time", "which", fx.Place.ID, "in_a_row", fx.Times, "for", fx.For, "term", c.t.Token())
		case settle.Changed:
			c.dirty = true
		case settle.Settled:
			c.dirty = true
			c.settled(fx)
		case settle.Turn:
			c.dirty = true
			if !fx.Quorate {
				g.log.Warn("fewer members than the minimum size: nobody leads", "minimum", g.cfg.MinSize, "term", c.t.Token())
			}
			c.t.Turn(fx.Quorate)
		case settle.Superseded:
			g.log.Warn("another leader has written the settled record", "term", c.t.Token())
			c.t.Lose()
			return
		}
	}
}

// ---- the settled record

func (c *chair) readSettled() {
	ctx, cancel := c.attempt()
	defer cancel()
	e, err := c.g.in.Store.Read(ctx, wire.SettledKey(c.g.group))
	if err != nil || e.Epoch != c.epoch {
		c.g.log.Debug("settled record not read", "error", err)
		c.box.Put(settle.Adopt{})
		return
	}
	a := settle.Adopt{OK: true, Rev: e.Revision}
	switch e.Op {
	case kv.None:
		a.OK = e.Vacant || c.epoch > 1 // an absence that proves nothing is asked about again
	case kv.Marker:
		a.Lost = true
	case kv.Record:
		rec := &wire.Settled{}
		err := wire.Decode(e.Value, rec)
		if err == nil {
			err = rec.Check()
		}
		if err != nil {
			if c.bad.Swap(e.Revision) != e.Revision {
				c.g.log.Error("settled record cannot be read; nothing is settled until it can", "key", e.Key, "revision", e.Revision, "error", err)
			}
			a.Foreign = true
		}
		a.Rec = rec
	}
	c.box.Put(a)
}

// attempt bounds one try of a read or write (R3).
func (c *chair) attempt() (context.Context, context.CancelFunc) {
	return context.WithTimeout(c.stop, c.g.in.Lease/6)
}

func (c *chair) writeSettled(fx settle.WriteSettled) {
	w := kv.Write{Key: wire.SettledKey(c.g.group), Expected: fx.Expected, Value: wire.Encode(&fx.Rec), TTL: settle.TTL, Epoch: c.epoch}
	c.io.Go(func() {
		ctx, cancel := c.attempt()
		defer cancel()
		rev, out, err := c.g.in.Store.Do(ctx, w)
		o := settle.Unknown
		switch out {
		case kv.Yes:
			o = settle.Yes
		case kv.No:
			o = settle.No
		}
		if out != kv.Yes {
			c.g.log.Debug("settled record not written", "outcome", out, "error", err)
		}
		c.box.Put(settle.Wrote{Nonce: fx.Rec.Nonce, Outcome: o, Rev: rev})
	})
}

// settled records a generation in the history.
func (c *chair) settled(fx settle.Settled) {
	g := c.g
	r := fx.Rec
	c.noteSettled(r)
	g.log.Info("settled", "generation", r.Generation, "total", len(r.Places), "cause", r.Cause)
	h := wire.History{V: wire.Version, Group: g.group, Generation: r.Generation, Cause: r.Cause, Began: r.Began,
		Settled: wire.Time(g.in.Now().WallTime()), Members: make([]string, 0, len(r.Places)), Buckets: r.Buckets, Nonce: r.Nonce}
	for _, t := range r.Tokens {
		if t == r.Generation {
			h.Moved++
		}
	}
	for _, p := range r.Places {
		h.Members = append(h.Members, p.ID)
	}
	c.io.Go(func() {
		ctx, cancel := c.attempt()
		defer cancel()
		_, out, err := g.in.Store.Do(ctx, kv.Write{Key: wire.HistoryKey(g.group, r.Generation), Value: wire.Encode(&h), TTL: time.Hour, Epoch: c.epoch})
		if out != kv.Yes {
			g.log.Debug("history not written", "generation", r.Generation, "outcome", out, "error", err)
		}
	})
}

// ---- member records

func (c *chair) memberKey(e kv.Entry) (settle.Key, bool) {
	_, id, ok := wire.GroupOfMemberKey(e.Key)
	if !ok {
		return settle.Key{}, false
	}
	k := settle.Key{Place: wire.Place{ID: id}, Rev: e.Revision}
	if e.Op != kv.Record {
		k.Place.Incarnation = e.Inc
		k.Reason, k.Nonce, k.ByToken = e.Reason, e.Nonce, e.Token
		if e.Op == kv.None {
			k.Rev = math.MaxUint64 // gone without a trace, as a look has shown: newer than all that was heard
		}
		return k, true
	}
	rec := &wire.Member{}
	if err := wire.Decode(e.Value, rec); err != nil || rec.ID != id || rec.Params != nil || rec.Incarnation == 0 || rec.Incarnation >= wire.MaxToken {
		c.g.log.Warn("member record cannot be read", "key", e.Key, "revision", e.Revision, "error", err)
		return k, false
	}
	k.Place.Incarnation, k.Record = rec.Incarnation, rec
	return k, true
}

func (c *chair) readMembers() {
	ctx, cancel := context.WithTimeout(c.stop, max(c.g.in.Lease/2, 5*time.Second)) // one request for each member
	defer cancel()
	l, err := c.g.in.Store.List(ctx, wire.MemberPrefix(c.g.group)+"*")
	if err != nil {
		c.g.log.Debug("member records not read", "error", err)
		c.box.Put(settle.Members{})
		return
	}
	in := settle.Members{OK: true}
	for _, e := range l {
		if k, ok := c.memberKey(e); ok {
			in.Keys = append(in.Keys, k)
		}
	}
	c.box.Put(in)
}

// remove purges a member's record by revision, until it is gone: others know the end of a member by it. Before it says `expired` it
// reads the key: what the member itself said wins.
func (c *chair) remove(fx settle.Remove) (gone bool) {
	key := wire.MemberKey(c.g.group, fx.Place.ID)
	for c.stop.Err() == nil && c.t.Live() {
		ctx, cancel := c.attempt()
		e, err := c.g.in.Store.Read(ctx, key)
		if err == nil {
			var rec wire.Member
			if e.Op != kv.Record || e.Epoch != c.epoch || wire.Decode(e.Value, &rec) != nil || rec.Incarnation != fx.Place.Incarnation {
				cancel()
				return true
			}
			var out kv.Outcome
			_, out, err = c.g.in.Store.Do(ctx, kv.Write{Key: key, Expected: e.Revision, Purge: true, Reason: fx.Reason, Nonce: rec.Nonce,
				Token: c.t.Token(), Inc: rec.Incarnation, TTL: max(time.Hour, 10*wire.MS(c.t.Params().MemberTimeoutMS)), Epoch: c.epoch})
			if out == kv.Yes {
				cancel()
				return true
			}
		}
		cancel()
		c.g.log.Debug("member record not removed", "id", fx.Place.ID, "error", err)
		sleep(c.stop, c.g.in.Lease/6)
	}
	return false
}

// ---- answers

func (c *chair) respond(m *nats.Msg, v any) {
	data := wire.Encode(v)
	c.out.Send(func() { _ = m.Respond(data) }) // lost: it is asked again
}

// requeue puts the candidates in order, at most twelve times a lease: it is a hint for who tries first.
func (c *chair) requeue() {
	now := c.g.in.Now().Mono
	if !c.dirty || now < c.queueAt {
		return
	}
	c.dirty, c.queueAt = false, now+c.g.in.Lease/12
	var l []settle.Row
	members := map[wire.Place]bool{}
	for _, r := range c.m.Roster() {
		members[r.Place] = true
		if hasRole(r.Roles, wire.RoleLead) && r.Place.ID != c.g.cfg.ID && !r.Late && !r.New {
			l = append(l, r)
		}
	}
	slices.SortFunc(l, func(a, b settle.Row) int {
		return cmp.Or(cmp.Compare(a.Joined, b.Joined), cmp.Compare(a.Place.ID, b.Place.ID))
	})
	ids := make([]string, len(l))
	for i, r := range l {
		ids[i] = r.Place.ID
	}
	c.queue.Store(&ids)
	c.box.Know(members)
}

// split encodes a roster in as many messages as it takes to stay within the limit.
func split(r wire.Roster, limit int) [][]byte {
	one := wire.Encode(&r)
	if len(one) <= limit || len(r.Members) < 2 {
		return [][]byte{one}
	}
	a, b := r, r
	half := len(r.Members) / 2
	a.Members, b.Members, a.More = r.Members[:half], r.Members[half:], true
	return append(split(a, limit), split(b, limit)...)
}

// phaseNotQuorate is the phase of a group below its minimum size, codeNotQuorate what a proposal is answered there.
const (
	phaseNotQuorate = "not-quorate"
	codeNotQuorate  = "not-quorate"
)

// askers is how many may wait for one roster; more are not answered, and ask again. rosterBytes is how much is sent to them in a
// twenty-fourth of a lease: a question is a hundred bytes, the answer of a large group a hundred thousand, and heartbeats are answered on the same connection.
const (
	askers      = 4096
	rosterBytes = 16 << 20
)

// tellRoster answers all who asked for the roster since the last time, with one and the same. Who has just joined is heard before its record
// is: that is waited for, but not for long.
func (c *chair) tellRoster() {
	now := c.g.in.Now().Mono
	if len(c.asked) == 0 || now < c.rosterAt || !c.alive() {
		return
	}
	r, whole := c.roster()
	if !whole && now < c.askedAt+c.g.in.Lease/24 {
		return
	}
	parts, size := split(r, int(c.payload.Load())/2), 0
	for _, p := range parts {
		size += len(p)
	}
	n := min(max(rosterBytes/size, 1), len(c.asked))
	all := c.asked[:n:n]
	c.asked = c.asked[n:]
	c.rosterAt = now + time.Duration(float64(n*size)/rosterBytes*float64(c.g.in.Lease/24))
	c.out.Send(func() {
		for _, part := range parts {
			for _, m := range all {
				_ = m.Respond(part) // lost: it is asked again
			}
		}
	})
}

// roster is the group as this leader sees it; not whole while the record of a member has not been heard.
func (c *chair) roster() (r wire.Roster, whole bool) {
	g := c.g
	now := g.in.Now()
	rec, _ := c.m.Record()
	whole = true
	r = wire.Roster{V: wire.Version, Group: g.group, Leader: g.cfg.ID, Token: c.t.Token(), Phase: rec.Phase, Generation: rec.Generation, Map: rec.Map,
		Members: []wire.RosterMember{}}
	if rec.Phase == wire.SettledDone {
		r.Total = len(rec.Places)
		if r.Total == 0 {
			r.Phase = "idle"
		}
	}
	leads := c.m.Leads()
	if !leads {
		r.Leader, r.Phase = "", phaseNotQuorate
	}
	for _, row := range c.m.Roster() {
		m := wire.RosterMember{Status: "alive", Leader: leads && row.Place.ID == g.cfg.ID}
		if row.Record != nil {
			m.Member = *row.Record
			m.Nonce = ""
		} else {
			whole = false
		}
		m.V, m.ID, m.Incarnation, m.Roles, m.Joined = wire.Version, row.Place.ID, row.Place.Incarnation, append([]string{}, row.Roles...), row.Joined
		switch {
		case row.Late:
			m.Status = "late"
		case row.New:
			m.Status = "unknown"
		}
		if row.Index >= 0 {
			i := row.Index
			m.Index = &i
		}
		if row.Heard != 0 {
			m.LastSeen = wire.Time(now.WallTime().Add(row.Heard - now.Mono))
		}
		r.Members = append(r.Members, m)
	}
	return r, whole
}

// ---- ballots

// ballotRoom is by how much a ballot may be larger than its proposal: the electors that it names, above all.
const ballotRoom = 2 << 10

// exchanges is how many reads, and how many writes, of verdicts are under way at once. A burst of ballots must not be in the way of the
// renewals, in this process or in the bucket.
const exchanges = 64

// exchange has fn called on a goroutine of its own, once there is room for it.
func (c *chair) exchange(a *inner.Attempts, fn func()) {
	c.io.Add(1)
	a.Go(func(time.Duration) {
		defer c.io.Done()
		fn()
	})
}

func (c *chair) ballots(in ballot.Input) {
	g := c.g
	for _, fx := range c.votes.Step(g.in.Now(), in) {
		if !c.t.Live() {
			return
		}
		switch fx := fx.(type) {
		case ballot.Read:
			c.exchange(c.reads, func() { c.readVerdict(fx.Ballot) })
		case ballot.Broadcast:
			c.noteRound(fx.Ballot)
			data := wire.Encode(&fx.Ballot)
			c.out.Send(func() { _ = g.nc.PublishRequest(c.subject(wire.SubBallot), c.inbox, data) }) // lost: it is sent again
		case ballot.Seal:
			c.noteRound(wire.Ballot{Ballot: fx.Ballot, Topic: fx.Verdict.Topic})
			w := kv.Write{Key: wire.VerdictKey(g.group, fx.Ballot), Value: wire.Encode(&fx.Verdict), TTL: time.Hour, Epoch: c.epoch}
			c.exchange(c.seals, func() {
				ctx, cancel := c.attempt()
				defer cancel()
				_, out, err := g.in.Store.Do(ctx, w)
				o := ballot.SealUnknown
				switch out {
				case kv.Yes:
					o = ballot.SealYes
				case kv.No:
					o = ballot.SealNo
				}
				switch {
				case errors.Is(err, nats.ErrMaxPayload) && !c.large.Swap(true):
					g.log.Error("verdict cannot be sealed: the group is too large for the NATS server's max_payload", "ballot", fx.Ballot, "of", fx.Verdict.Of, "bytes", len(w.Value), "error", err)
				case out != kv.Yes:
					g.log.Debug("verdict not sealed", "ballot", fx.Ballot, "outcome", out, "error", err)
				}
				c.box.Put(ballot.SealDone{Ballot: fx.Ballot, Outcome: o})
			})
		case ballot.Announce:
			c.tell(fx.Verdict)
			c.noteVerdict(fx.Verdict)
			v := fx.Verdict
			v.Electors, v.Agreed = nil, nil // to a thousand members a list of a thousand
			data := wire.Encode(&v)
			c.out.Send(func() { _ = g.nc.Publish(c.subject(wire.SubVerdict), data) }) // lost: it can be read
		case ballot.Stop:
			data := wire.Encode(&fx.Cancel)
			c.out.Send(func() { _ = g.nc.Publish(c.subject(wire.SubCancelled), data) }) // lost: who does not hear it begins
		case ballot.Ack:
			c.respond(fx.Handle.(*nats.Msg), wire.Done{V: wire.Version})
		case ballot.Answer:
			if fx.Answer.Verdict != nil {
				c.tell(*fx.Answer.Verdict)
			}
			c.respond(fx.Handle.(*nats.Msg), fx.Answer)
		}
	}
}

// countVotes says what the term has decided, and which votes it has refused and why.
func (c *chair) countVotes() {
	s := c.votes.Stats()
	if s.Rounds == 0 {
		return
	}
	c.g.log.Info("ballots of the term", "term", c.t.Token(), "rounds", s.Rounds, "sealed", s.Sealed, "adopted", s.Adopted, "unknown", s.Unknown, "votes", s.Votes,
		"repeated", s.Repeated, "changed", s.Changed, "late", s.Late, "foreign", s.Foreign, "other_round", s.OtherRound, "malformed", s.Malformed, "stray", s.Stray)
}

func (c *chair) tell(v wire.Verdict) {
	c.g.in.Tell(inner.Event{Kind: inner.VerdictTold, Key: wire.VerdictKey(c.g.group, v.Ballot), Member: c.g.cfg.ID, Token: c.t.Token(),
		Verdict: v.Verdict, Live: c.t.Live})
}

func (c *chair) readVerdict(id string) {
	ctx, cancel := c.attempt()
	defer cancel()
	e, err := c.g.in.Store.Peek(ctx, wire.VerdictKey(c.g.group, id))
	done := ballot.ReadDone{Ballot: id}
	switch {
	case err != nil || e.Epoch != c.epoch:
	case e.Op == kv.None:
		done.Found = ballot.FoundNone // possibly an old answer: the seal expects sequence 0, and meets what is there
	case e.Op == kv.Marker:
		done.Found = ballot.FoundMarker
	default:
		v := &wire.Verdict{}
		done.Found = ballot.FoundMarker
		if wire.Decode(e.Value, v) == nil {
			done.Found, done.Verdict = ballot.FoundVerdict, v
		}
	}
	c.box.Put(done)
}
