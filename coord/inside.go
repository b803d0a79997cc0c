package coord

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/offset"
	"github.com/quorate/quorate/internal/seat"
	"github.com/quorate/quorate/internal/wire"
)

// What quorate's own packages need of a client or a membership.

// Extra is what quorate's own gateways ask of [JoinWith].
type Extra struct {
	Beside bool // one more member of the group in this process: each id has a Group of its own
	Works  bool // it has the role work from the first, for a worker that is attached once it is a member: one write fewer
}

// JoinWith is [Join] for quorate's own packages.
func JoinWith(ctx context.Context, ns *quorate.Namespace, group string, cfg Config, extra Extra) (*Group, error) {
	cfg.extra = extra
	return Join(ctx, ns, group, cfg)
}

// A Follower keeps what the records of one group say, as [Client.Watch] tells it, for who hears the records of many groups by one watch. Its
// methods may be called from any goroutine.
type Follower struct{ w *watcher }

// NewFollower makes one. A member whose record is gone without a reason is kept for twice the member timeout: see [Client.Watch].
func NewFollower(memberTimeout time.Duration) *Follower {
	return &Follower{newWatcher(2 * memberTimeout)}
}

// Hear takes what stands under one of the group's keys.
func (f *Follower) Hear(e kv.Entry, now time.Time) { f.w.hear(e, now) }

// View is what there is now, and what has changed since the view before; false if nothing has.
func (f *Follower) View(stale bool, now time.Time) (View, bool) { return f.w.view(stale, now) }

// Self is the id of the member this client belongs to; "" for a client that is no member.
func (c *Client) Self() string {
	if c.self == nil {
		return ""
	}
	return c.self.cfg.ID
}

// Log is the client's or the member's, for quorate's own packages: its lines say group, member, term and generation.
func (c *Client) Log() *slog.Logger { return c.log }

// Ended is closed when the client is closed, or its membership has ended; cause tells why then.
func (c *Client) Ended() (ended <-chan struct{}, cause func() error) {
	if c.self != nil {
		return c.self.ctx.Done(), func() error { return context.Cause(c.self.ctx) }
	}
	return c.closed, func() error { return quorate.ErrClosed }
}

// Known gives a channel that is closed once a leader has answered a heartbeat in which the member had the role, and the member's record
// says it too: that leader counts it so from then on, and the next one, which has not heard it yet, by the record.
func (h *Handle) Known(role string) <-chan struct{} {
	w := &roleWait{role: role, known: make(chan struct{})}
	h.g.m.box.Put(w)
	return w.known
}

// roleWait is one who waits for a role to be known. It belongs to the member's loop.
type roleWait struct {
	role     string
	inc, seq uint64 // of the first heartbeat that told it in the present incarnation
	heard    bool   // ... and that was answered
	known    chan struct{}
}

// tells notes a heartbeat that is sent.
func (l *memberLoop) tells(hb wire.Heartbeat) {
	for _, w := range l.waits {
		if w.inc != hb.Incarnation && slices.Contains(hb.Roles, w.role) {
			w.inc, w.seq, w.heard = hb.Incarnation, hb.Seq, false
		}
	}
}

// knows notes a leader's answer.
func (l *memberLoop) knows(r wire.Reply) {
	for _, w := range l.waits {
		w.heard = w.heard || w.inc == l.inc && w.inc != 0 && r.Seq >= w.seq && r.GrantMS != 0
	}
	l.known()
}

// known tells those whose role the leader and the record know. A leader that dies before the record says it would leave a next one that does not
// count the member until it hears it: its first ballot would have a smaller electorate (V2).
func (l *memberLoop) known() {
	l.waits = slices.DeleteFunc(l.waits, func(w *roleWait) bool {
		if w.inc != l.inc || !w.heard || !slices.Contains(l.stored, w.role) {
			return false
		}
		close(w.known)
		return true
	})
}

// Samples has fn called, on the member's loop, with each exchange of clocks with a leader; fn must not block. The newest call wins; nil: nobody.
func (h *Handle) Samples(fn func(offset.Sample)) { h.g.m.box.Put(heedInput{fn}) }

// Exchange asks for an exchange of clocks with the leader now, not only with the next heartbeat.
func (h *Handle) Exchange() { h.g.m.box.Offer(seat.Poke{}) }

// heedInput sets who is told of exchanges.
type heedInput struct{ fn func(offset.Sample) }

// sample notes what a leader's answer says about its clock.
func (l *memberLoop) sample(in replyInput) {
	if l.m == nil || l.heeds == nil || in.r.ClockUS <= 0 {
		return
	}
	if sent, ok := l.m.Sent(in.r.Seq); ok {
		l.heeds(offset.Sample{Token: in.r.Token, Sent: sent, Received: in.at, Clock: time.Duration(in.r.ClockUS) * time.Microsecond})
	}
}
