package coord

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/settle"
	"github.com/quorate/quorate/internal/wire"
)

// What an operator asks of a group's leader. A request names exactly whom it means, the leader by its token and a member by its
// incarnation: one that a buffer delivers minutes later finds them gone, and harms nobody else (design 3).

// StepDown asks the group's leader to hand over: to the next candidate, or to the member with the id in to, if it is given; that must be
// a candidate whom the leader hears. The leader's work is asked to return with [quorate.ErrStepDown] as the cause, then the leadership is
// released, and the successor takes it by a write of its own. Nil says that the leader has heard it, not that it has let go.
//
// [ErrNoLeader]: there is none, or it does not listen. [quorate.ErrNotQuorate]: there is none for want of members. [ErrGone]: another leads by now. [ErrSuccessor]: the one named cannot take over,
// and nothing has happened. [quorate.ErrPermission]: the server does not let this connection ask. Any other error, such as the end of ctx: it may have been
// heard or not. Without a deadline ctx is bounded to one lease.
func (c *Client) StepDown(ctx context.Context, to ...string) error {
	fail := func(err error) error { return fmt.Errorf("coord: step-down in group %q: %w", c.group, err) }
	var next string
	switch {
	case len(to) > 1:
		return fail(errors.New("one successor at most"))
	case len(to) == 1 && to[0] != "":
		if err := wire.CheckID(to[0]); err != nil {
			return fmt.Errorf("coord: %w", err)
		}
		next = to[0]
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	l, err := c.Leader(ctx)
	switch {
	case err != nil:
		return err
	case l.Holder == "" && l.Keeper != "":
		return fail(quorate.ErrNotQuorate)
	case l.Holder == "":
		return fail(ErrNoLeader)
	}
	return c.StepDownTerm(ctx, l.Token, next)
}

// StepDownTerm is [Client.StepDown] for the term with that token and no other, as somebody was shown it: [ErrGone] if another leads by now. An empty
// to names no successor.
func (c *Client) StepDownTerm(ctx context.Context, token uint64, to string) error {
	if to != "" {
		if err := wire.CheckID(to); err != nil {
			return fmt.Errorf("coord: %w", err)
		}
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	if err := c.operate(ctx, wire.SubStepDown, wire.Encode(&wire.StepDown{V: wire.Version, Token: token, To: to})); err != nil {
		return fmt.Errorf("coord: step-down in group %q: %w", c.group, err)
	}
	return nil
}

// Evict ends a member's membership: it is out of the roster, everybody's [Client.Watch] says so with the reason evicted, its own context ends
// with [ErrEvicted], and it does not come back by itself (its id can be joined with again). What it was granted goes on counting: its share
// goes to nobody else before it has let go, or its lease has run out. Nil says that its record is removed. If the leader dies before the
// member has heard of it, the next leader knows only that somebody removed the record, and lets the member back in: look again.
//
// [ErrNoMember]: no such member. [ErrGone]: that incarnation was one, and is gone by now. [ErrNoLeader]: nobody is there to do it.
// [quorate.ErrPermission]: the server does not let this connection ask. Any other error, such as the end of ctx: it may have been carried out or not.
// Without a deadline ctx is bounded to one lease.
func (c *Client) Evict(ctx context.Context, id string) error {
	fail := func(err error) error { return fmt.Errorf("coord: evict %q from group %q: %w", id, c.group, err) }
	if err := wire.CheckID(id); err != nil {
		return fmt.Errorf("coord: %w", err)
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	r, err := c.Roster(ctx)
	if err != nil {
		return err
	}
	for _, m := range r.Members {
		if m.ID == id {
			return c.EvictIncarnation(ctx, id, m.Incarnation)
		}
	}
	return fail(ErrNoMember)
}

// EvictIncarnation is [Client.Evict] for that incarnation of the member and no other, as somebody was shown it: [ErrGone] if it is a member no more.
func (c *Client) EvictIncarnation(ctx context.Context, id string, incarnation uint64) error {
	if err := wire.CheckID(id); err != nil {
		return fmt.Errorf("coord: %w", err)
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	if err := c.operate(ctx, wire.SubEvict, wire.Encode(&wire.Evict{V: wire.Version, ID: id, Incarnation: incarnation})); err != nil {
		return fmt.Errorf("coord: evict %q from group %q: %w", id, c.group, err)
	}
	return nil
}

// bounded gives a request without a deadline one lease.
func (c *Client) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, c.in.Lease)
}

// operate sends a request to the leader. While nobody listens it is surely not heard, and is sent again for up to a lease: a leader that has
// just begun listens once it has taken over the group.
func (c *Client) operate(ctx context.Context, subject string, data []byte) error {
	end := time.Now().Add(c.in.Lease)
	for {
		m, err := c.in.Store.Ask(ctx, &nats.Msg{Subject: wire.GroupSubject(c.in.Name, c.group, subject), Data: data})
		switch {
		case errors.Is(err, nats.ErrNoResponders):
			if !time.Now().Before(end) {
				return ErrNoLeader
			}
			if sleep(ctx, c.in.Lease/24); ctx.Err() != nil {
				return fmt.Errorf("%w: %w", ErrNoLeader, context.Cause(ctx))
			}
			continue
		case errors.Is(err, quorate.ErrPermission):
			return err
		case err != nil:
			return fmt.Errorf("no answer: it may have been heard or not: %w", err)
		}
		var a wire.Done
		if err := wire.Decode(m.Data, &a); err != nil {
			return err
		}
		switch a.Error {
		case "":
			return nil
		case wire.DoneGone:
			return ErrGone
		case wire.DoneSuccessor:
			return fmt.Errorf("%w: %s", ErrSuccessor, a.Text)
		}
		return errors.New(a.Error + ": " + a.Text)
	}
}

// ---- the leader's side

type (
	stepDownInput struct {
		m   *nats.Msg
		req wire.StepDown
	}
	evictInput struct {
		m   *nats.Msg
		req wire.Evict
	}
)

// listenToOperators takes the requests of operators. What does not decode is answered, so that its author need not wait.
func (c *chair) listenToOperators(add func(subject string, fn nats.MsgHandler)) {
	take := func(m *nats.Msg, req any, in func() any) {
		if !wire.Answerable(m.Reply) || len(m.Data) > maxOperate {
			return
		}
		if err := wire.Decode(m.Data, req); err != nil {
			if c.t.Live() {
				c.respond(m, wire.Done{V: wire.Version, Error: wire.DoneBad, Text: err.Error()})
			}
			return
		}
		c.box.Request(in())
	}
	add(c.subject(wire.SubStepDown), func(m *nats.Msg) {
		var req wire.StepDown
		take(m, &req, func() any { return stepDownInput{m, req} })
	})
	add(c.subject(wire.SubEvict), func(m *nats.Msg) {
		var req wire.Evict
		take(m, &req, func() any { return evictInput{m, req} })
	})
}

// maxOperate is how long an operator's request may be, in bytes.
const maxOperate = 512

func (c *chair) stepDown(in stepDownInput) {
	done := wire.Done{V: wire.Version}
	switch why := c.successor(in.req.To); {
	case in.req.Token != c.t.Token():
		done.Error = wire.DoneGone
	case why != "":
		done.Error, done.Text = wire.DoneSuccessor, why
	default:
		c.g.log.Info("asked to step down", "term", c.t.Token(), "to", in.req.To)
		defer c.t.StepDownTo(in.req.To) // after the answer is on its way: nothing leaves a term that has ended
	}
	c.respond(in.m, done)
}

// successor says what is wrong with handing over to a member, "" if nothing is.
func (c *chair) successor(id string) string {
	if id == "" {
		return ""
	}
	if id == c.g.cfg.ID {
		return fmt.Sprintf("%q leads already", id)
	}
	for _, r := range c.m.Roster() {
		switch {
		case r.Place.ID != id:
		case !hasRole(r.Roles, wire.RoleLead):
			return fmt.Sprintf("%q is a member that never leads", id)
		case r.Late, r.New:
			return fmt.Sprintf("%q is late: the leader does not hear it in time", id)
		default:
			return ""
		}
	}
	return fmt.Sprintf("%q is no member", id)
}

func (c *chair) evict(in evictInput) {
	p := wire.Place{ID: in.req.ID, Incarnation: in.req.Incarnation}
	if p.Incarnation == 0 || !c.m.Member(p) {
		c.respond(in.m, wire.Done{V: wire.Version, Error: wire.DoneGone})
		return
	}
	c.g.log.Info("asked to evict", "id", p.ID, "incarnation", p.Incarnation)
	// Told once its record is gone: by then the next leader knows it too.
	if c.evicting == nil {
		c.evicting = map[wire.Place]*nats.Msg{}
	}
	c.evicting[p] = in.m
	c.settle(settle.Evict{Place: p})
	if _, unrecorded := c.evicting[p]; unrecorded {
		delete(c.evicting, p)
		c.respond(in.m, wire.Done{V: wire.Version})
	}
}
