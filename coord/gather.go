package coord

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/inner"
	"github.com/quorate/quorate/internal/wire"
)

// Gathered is what a [Client.Gather] has brought.
type Gathered struct {
	Replies []Reply  // in the order of the members' ids; at most one of each
	Missing []string // members that were asked and have not answered, in order
}

// Gather asks all members and waits until each one has answered, is no member any more, or ctx has ended: then it is among the missing. So
// a member that has died delays it until its lease has run out, two leases, and ctx should have a deadline. A member without a handler of the topic answers
// with [ErrNoHandler] in its reply, one whose handler failed with a *[RemoteError]. Who joins meanwhile need not answer, but may.
//
// Who is a member the leader says; without one, the records do. An error is returned only when the question was not put: with [ErrNoMember] there
// is nobody to ask, with [quorate.ErrPermission] the server did not take it. Like every message the question can be lost on its way to a member, which is missing then: no question is put twice.
func (c *Client) Gather(ctx context.Context, topic string, data []byte) (Gathered, error) {
	m, err := c.message(ToAll, topic, data)
	ctx, end := c.sends(ctx, inner.OpGather, ToAll, m)
	var g Gathered
	if err == nil {
		g, err = c.gather(ctx, m)
	}
	if err != nil {
		g, err = Gathered{}, fmt.Errorf("coord: gather from group %q: %w", c.group, err)
	}
	end(inner.SpanEnd{Err: err})
	return g, err
}

func (c *Client) gather(ctx context.Context, m *nats.Msg) (Gathered, error) {
	fail := func(err error) (Gathered, error) { return Gathered{}, err }
	m.Header.Set(headerAsk, "1")
	// Before the question: a member listens before it is in the roster, so everyone in it is asked.
	r, err := c.Roster(ctx)
	if err != nil {
		return fail(err)
	}
	if len(r.Members) == 0 {
		return fail(ErrNoMember)
	}
	waiting := map[string]uint64{} // incarnations
	for _, m := range r.Members {
		waiting[m.ID] = m.Incarnation
	}
	box := inner.NewMailbox[*nats.Msg](1 << 20)
	m.Reply = c.nc.NewInbox()
	sub, err := c.nc.Subscribe(m.Reply, func(m *nats.Msg) { box.Offer(m) })
	if err != nil {
		return fail(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	_ = sub.SetPendingLimits(-1, -1) // taken out at once: the callback never waits
	sent := time.Now()
	missing := c.in.Store.Permission(m.Subject)
	if err := c.nc.PublishMsg(m); err != nil {
		return fail(err)
	}

	g := Gathered{Replies: []Reply{}, Missing: []string{}}
	answered := map[string]bool{}
	looks := make(chan []Member, 1) // nil: no answer
	look, stop := context.WithCancel(ctx)
	var looking sync.WaitGroup
	defer looking.Wait()
	defer stop()
	idle := true // nobody is looking
	tick := time.NewTicker(c.in.Lease / 6)
	defer tick.Stop()
	for over := false; !over && len(waiting) > 0; {
		select {
		case <-box.C():
			for _, m := range box.Take() {
				if nobodyThere(m) {
					over = true // nobody listens: nobody was asked
					break
				}
				rep := c.reply(m, sent)
				if wire.CheckID(rep.From) == nil && !answered[rep.From] {
					answered[rep.From] = true
					delete(waiting, rep.From)
					g.Replies = append(g.Replies, rep)
				}
			}
		case <-tick.C: // who is no member any more is not waited for
			if err := missing(); err != nil {
				return fail(err)
			}
			if idle {
				idle = false
				looking.Go(func() {
					r, err := c.Roster(look)
					if err != nil {
						r.Members = nil
					}
					looks <- r.Members
				})
			}
		case l := <-looks:
			idle = true
			if l == nil {
				break
			}
			still := map[string]uint64{}
			for _, m := range l {
				still[m.ID] = m.Incarnation
			}
			for id, inc := range waiting {
				if still[id] != inc { // gone, or another process, which was not asked
					g.Missing = append(g.Missing, id)
					delete(waiting, id)
				}
			}
		case <-ctx.Done():
			over = true
		case <-c.in.Store.ConnClosed():
			return fail(quorate.ErrConnClosed)
		}
	}
	for id := range waiting {
		g.Missing = append(g.Missing, id)
	}
	slices.Sort(g.Missing)
	slices.SortFunc(g.Replies, func(a, b Reply) int { return cmp.Compare(a.From, b.From) })
	return g, nil
}
