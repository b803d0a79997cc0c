package leader

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/wire"
)

// Errors of [StepDown].
var (
	ErrNotHeld = errors.New("nobody leads")
	ErrGone    = errors.New("already gone") // another term, or none, is there by now
	// ErrSuccessor: the one named is no candidate that the leader has heard of in the last two leases; nothing has happened.
	ErrSuccessor = errors.New("no such candidate")
)

// stepDownAnswer answers a wire.StepDown; the error is "" or what [ErrGone] or [ErrSuccessor] say.
type stepDownAnswer struct {
	V     int    `json:"v"`
	Error string `json:"error,omitempty"`
}

// StepDown asks the leader of a plain election to step down: its work is asked to return, with [quorate.ErrStepDown], and the
// next candidate takes over after that, or the one with the id in to, if it is given; it must be one that waits now ([ErrSuccessor]), and
// takes the leadership by a write of its own while the others hold back for a quarter of a lease. The term is named by its token ([Elector.Leader] tells it), so that a request which
// is delivered late deposes nobody else: that is [ErrGone]. While no leader listens it is asked again, for up to a lease (who has just
// begun listens a moment later); then it is [ErrNotHeld]. [quorate.ErrPermission]: the server does not let this connection ask. Nil says that the leader has
// heard it, not that it has let go.
func StepDown(ctx context.Context, ns *quorate.Namespace, name string, token uint64, to ...string) error {
	fail := func(err error) error { return fmt.Errorf("leader: step-down of election %q: %w", name, err) }
	if err := wire.CheckElection(name); err != nil {
		return fmt.Errorf("leader: %w", err)
	}
	req := wire.StepDown{V: wire.Version, Token: token}
	switch {
	case len(to) > 1:
		return fail(errors.New("one successor at most"))
	case len(to) == 1 && to[0] != "":
		if err := wire.CheckID(to[0]); err != nil {
			return fmt.Errorf("leader: %w", err)
		}
		req.To = to[0]
	}
	in := ns.Inner()
	var msg *nats.Msg
	for end := time.Now().Add(in.Lease); ; {
		var err error
		msg, err = in.Store.Ask(ctx, &nats.Msg{Subject: wire.ElectionSubject(in.Name, name, wire.SubStepDown), Data: wire.Encode(&req)})
		if err == nil {
			break
		}
		if !errors.Is(err, nats.ErrNoResponders) {
			return fail(err)
		}
		if !time.Now().Before(end) { // surely not heard
			return fail(ErrNotHeld)
		}
		select {
		case <-ctx.Done():
			return fail(fmt.Errorf("%w: %w", ErrNotHeld, context.Cause(ctx)))
		case <-time.After(in.Lease / 24):
		}
	}
	var a stepDownAnswer
	if err := wire.Decode(msg.Data, &a); err != nil {
		return fail(err)
	}
	switch a.Error {
	case "":
		return nil
	case ErrGone.Error():
		return fail(ErrGone)
	case ErrSuccessor.Error():
		return fail(fmt.Errorf("%w: %q", ErrSuccessor, req.To))
	}
	return fail(errors.New(a.Error))
}

// askedToStepDown answers a request while a term is held. It runs on the subscription's goroutine.
func (q *queue) askedToStepDown(m *nats.Msg) {
	var req wire.StepDown
	a := stepDownAnswer{V: wire.Version}
	if !wire.Answerable(m.Reply) || len(m.Data) > 256 {
		return
	}
	if err := wire.Decode(m.Data, &req); err != nil {
		a.Error = err.Error()
	} else if t := q.r.current.Load(); t == nil || t.token != req.Token || !t.Live() {
		a.Error = ErrGone.Error()
	} else if req.To != "" && !q.waits(req.To) {
		a.Error = ErrSuccessor.Error()
	} else {
		q.r.log.Info("asked to step down", "term", req.Token, "to", req.To)
		t.StepDownTo(req.To)
	}
	publish(q.r.in.Store.Conn(), m.Reply, a)
}
