package bloc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/bloc/session"
	"github.com/quorate/quorate/internal/inner"
	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/leader"
)

// Errors that a poll ends with.
var (
	// ErrIDInUse: a member that is no session has the id.
	ErrIDInUse = quorate.ErrIDInUse
	// ErrFull: the gateway has as many sessions as it may.
	ErrFull = errors.New("too many sessions")
	// ErrDraining: the gateway ends.
	ErrDraining = errors.New("the gateway ends")
	// ErrNoSession: no gateway has the session.
	ErrNoSession = errors.New("no such session")
	// ErrEnded: the session cannot be one now.
	ErrEnded = errors.New("the session has ended: ask again")
	// ErrAway: the gateway that has the session does not answer.
	ErrAway = errors.New("the gateway that has the session does not answer: it ends by itself")
)

// A Gateway serves sessions as members of one group. Make it with [Open].
type Gateway struct {
	ns    *quorate.Namespace
	in    *inner.Namespace
	cfg   Config
	id    string
	group string
	log   *slog.Logger
	g     *coord.Group // its own member: it leads, and has no share
	tasks sync.WaitGroup
	short atomic.Bool // the group's lease is too short for the settle time, and that was said

	mu       sync.Mutex
	sessions map[string]*live
	where    map[string]string // sessions that were found on other gateways
	draining bool
	changed  chan struct{} // closed and made anew when a session ends
}

// Open makes the gateway a member of the group. It refuses settings that break a guarantee, also for the lease that the group has now.
func Open(ctx context.Context, ns *quorate.Namespace, group string, cfg Config) (*Gateway, error) {
	in := ns.Inner()
	fail := func(err error) (*Gateway, error) { return nil, fmt.Errorf("bloc: serve group %q: %w", group, err) }
	if err := wire.CheckGroup(group); err != nil {
		return nil, err
	}
	if err := cfg.Check(in.Lease); err != nil {
		return fail(err)
	}
	cfg, quiet := cfg.with(in.Lease)
	if cfg.ID == "" {
		cfg.ID = leader.GenerateID(in.Host)
	}
	gw := &Gateway{ns: ns, in: in, cfg: cfg, id: cfg.ID, group: group, sessions: map[string]*live{},
		where: map[string]string{}, changed: make(chan struct{})}
	e, err := in.Store.Read(ctx, wire.LeaderKey(group))
	if err != nil {
		return fail(err)
	}
	if l := leader.StateOf(e); l.Holder != "" && cfg.Settle > l.Lease*most/100 {
		return fail(fmt.Errorf("settle time %v > 1.63 leases of %v, which %q leads the group with: a lease of %v is needed there, or a shorter settle time",
			cfg.Settle, l.Lease, l.Holder, cfg.needs()))
	}
	g, err := coord.JoinWith(ctx, ns, group, coord.Config{ID: gw.id, Meta: map[string]string{metaListen: cfg.Listen}}, coord.Extra{Beside: true})
	if err != nil {
		return nil, err
	}
	g.Inner().SetParams(func(p *wire.Params) {
		if quiet > 0 {
			p.SettleMS = wire.ToMS(quiet)
		}
		// Clients need the settle time to let go. A later acknowledgement would cost them their place.
		p.AckTimeoutMS = max(p.AckTimeoutMS, wire.ToMS(min(cfg.Settle+cfg.Settle/20+in.Lease/6, in.Lease*18/10)))
	})
	gw.g, gw.log = g, g.Inner().LogTo(cfg.Logger)
	if _, err := g.Handle(topic, gw.asked); err != nil {
		_ = g.Leave(ctx) // it ends with the namespace
		return fail(err)
	}
	return gw, nil
}

// ID of the gateway's own member.
func (gw *Gateway) ID() string { return gw.id }

// Context ends when the gateway is no member any more; its cause says why.
func (gw *Gateway) Context() context.Context { return gw.g.Context() }

// Sessions is how many this gateway has.
func (gw *Gateway) Sessions() int {
	gw.mu.Lock()
	defer gw.mu.Unlock()
	return len(gw.sessions)
}

// Close ends all sessions as their clients allow, and leaves the group. Questions are answered until then: that the gateway ends.
func (gw *Gateway) Close(ctx context.Context) error {
	gw.mu.Lock()
	gw.draining = true
	for _, s := range gw.sessions {
		s.box.Put(session.Drain{})
	}
	gw.mu.Unlock()
	for {
		gw.mu.Lock()
		n, changed := len(gw.sessions), gw.changed
		gw.mu.Unlock()
		if n == 0 {
			break
		}
		select {
		case <-changed:
			continue
		case <-ctx.Done():
		}
		return fmt.Errorf("bloc: %d sessions have not left: their leases run out: %w", n, context.Cause(ctx))
	}
	err := gw.g.Leave(ctx)
	if err == nil || errors.Is(err, coord.ErrUntold) {
		gw.tasks.Wait()
	}
	return err
}

func (gw *Gateway) forget(s *live) {
	gw.mu.Lock()
	defer gw.mu.Unlock()
	if gw.sessions[s.id] == s {
		delete(gw.sessions, s.id)
		close(gw.changed)
		gw.changed = make(chan struct{})
	}
}

// granted notices a group whose lease is too short: SETTLED is hardly ever said then, which is safe and of no use.
func (gw *Gateway) granted(gr coord.Grant) {
	if gr.Lease-gr.Lease/11 < gw.cfg.Settle && !gw.short.Swap(true) {
		gw.log.Warn("the group's lease is too short for the settle time: clients are told SETTLING", "settle", gw.cfg.Settle, "holds", gr.Lease)
	}
}

func (gw *Gateway) local(id string) *live {
	gw.mu.Lock()
	defer gw.mu.Unlock()
	return gw.sessions[id]
}

// poll is the client's question: the heartbeat.
func (gw *Gateway) poll(ctx context.Context, id string) (reply, error) {
	for range 3 { // a session may end between two steps
		s := gw.local(id)
		if s == nil || !s.member.Load() {
			r, ok, err := gw.elsewhere(ctx, id, verbPoll, s == nil)
			switch {
			case errors.Is(err, ErrIDInUse):
				if s != nil {
					s.giveUp()
				}
				return reply{}, err
			case ok:
				if s != nil {
					s.giveUp()
				}
				return r, nil
			}
			if s, err = gw.session(id); err != nil {
				return reply{}, err
			}
		}
		r, ok, err := s.poll(ctx)
		if ok || err != nil {
			return r, err
		}
	}
	return reply{}, ErrEnded
}

// session is the session of this gateway, made if it is not there.
func (gw *Gateway) session(id string) (*live, error) {
	gw.mu.Lock()
	defer gw.mu.Unlock()
	s := gw.sessions[id]
	switch {
	case s != nil:
		return s, nil
	case gw.draining:
		return nil, ErrDraining
	case len(gw.sessions) >= gw.cfg.Sessions:
		return nil, ErrFull
	}
	s = gw.begin(id)
	gw.sessions[id] = s
	return s, nil
}

// remove ends a session, wherever it is: its client says that it is done.
func (gw *Gateway) remove(ctx context.Context, id string) error {
	if s := gw.local(id); s != nil {
		s.box.Put(session.Delete{})
		return nil
	}
	_, ok, err := gw.elsewhere(ctx, id, verbDelete, true)
	switch {
	case err != nil:
		return err
	case !ok:
		return ErrNoSession
	}
	return nil
}

// ---- sessions of other gateways

// topic is what gateways ask each other with, as a message of the group to the gateway's own member.
const topic = "bloc"

// What can be asked.
const (
	verbPoll   = "poll"
	verbDelete = "delete"
)

// question and answer travel between gateways (docs/protocol.md).
type question struct {
	V       int    `json:"v"`
	Verb    string `json:"verb"`
	Session string `json:"session"`
}

type answer struct {
	V       int  `json:"v"`
	Have    bool `json:"have"` // the session lives there
	Settled bool `json:"settled,omitempty"`
	Index   int  `json:"index,omitempty"` // counts from 1
	Total   int  `json:"total,omitempty"`
}

// patience is how long one step of a question may take: well below a client's interval.
func (gw *Gateway) patience() time.Duration {
	return max(min(gw.cfg.Settle/8, gw.in.Lease/3), 20*time.Millisecond)
}

// elsewhere asks the gateway that has the session, if another has it: its member's record names it. ok is false if none answers that
// it has it; then it may be taken over, and M2 sees to the rest. guess: what was found before will do.
func (gw *Gateway) elsewhere(ctx context.Context, id, verb string, guess bool) (reply, bool, error) {
	gw.mu.Lock()
	owner := gw.where[id]
	gw.mu.Unlock()
	if guess && owner != "" {
		if r, ok := gw.askOwner(ctx, owner, id, verb); ok {
			return r, true, nil
		}
	}
	gw.found(id, "")
	read, cancel := context.WithTimeout(ctx, gw.patience())
	e, err := gw.in.Store.Read(read, wire.MemberKey(gw.group, id))
	cancel()
	var rec wire.Member
	if err != nil || e.Op != kv.Record || wire.Decode(e.Value, &rec) != nil {
		return reply{}, false, nil // whoever has it: the joining finds out
	}
	now := rec.Meta[metaGateway]
	switch {
	case now == "":
		return reply{}, false, ErrIDInUse
	case now == gw.id, wire.CheckID(now) != nil:
		return reply{}, false, nil
	}
	var r reply
	ok := false
	if !guess || now != owner { // else it was asked just now
		r, ok = gw.askOwner(ctx, now, id, verb)
	}
	if ok {
		gw.found(id, now)
	} else if verb == verbDelete {
		return reply{}, false, ErrAway
	}
	return r, ok, nil
}

// found remembers where a session is. The memory is bounded: what is not in it is looked up.
func (gw *Gateway) found(id, owner string) {
	gw.mu.Lock()
	defer gw.mu.Unlock()
	if owner == "" {
		delete(gw.where, id)
		return
	}
	if len(gw.where) >= gw.cfg.Sessions {
		clear(gw.where)
	}
	gw.where[id] = owner
}

func (gw *Gateway) askOwner(ctx context.Context, owner, id, verb string) (reply, bool) {
	ctx, cancel := context.WithTimeout(ctx, gw.patience())
	defer cancel()
	r, err := gw.g.Ask(ctx, coord.ToMember(owner), topic, wire.Encode(&question{V: wire.Version, Verb: verb, Session: id}))
	if err != nil {
		gw.log.Debug("a gateway does not answer", "gateway", owner, "session", id, "error", err)
		return reply{}, false
	}
	var a answer
	if json.Unmarshal(r.Data, &a) != nil || a.V != wire.Version || !a.Have || a.Settled && (a.Index < 1 || a.Index > a.Total) {
		return reply{}, false
	}
	return reply{Answer: session.Answer{Settled: a.Settled, Index: a.Index, Total: a.Total}}, true
}

// asked answers another gateway. It never waits: only for the session's own goroutine.
func (gw *Gateway) asked(ctx context.Context, m coord.Message) ([]byte, error) {
	var q question
	a := answer{V: wire.Version}
	if json.Unmarshal(m.Data, &q) != nil || q.V != wire.Version {
		return nil, errors.New("not a question of a gateway of this version")
	}
	if s := gw.local(q.Session); s != nil && s.member.Load() {
		switch q.Verb {
		case verbPoll:
			ctx, cancel := context.WithTimeout(ctx, gw.patience())
			defer cancel()
			r, ok, err := s.poll(ctx)
			if err == nil && ok && !r.Draining {
				a.Have, a.Settled, a.Index, a.Total = true, r.Settled, r.Index, r.Total
			}
			if r.from != nil {
				r.from.told(r.Seq) // whether the other gateway passes it on or not, it says nothing else
			}
		case verbDelete:
			s.box.Put(session.Delete{})
			a.Have = true
		}
	}
	return wire.Encode(&a), nil
}

// Parting is how long Close takes at most while NATS answers.
func (gw *Gateway) Parting() time.Duration {
	return gw.cfg.Settle + gw.cfg.Settle/10 + 4*gw.in.Lease + time.Second
}
