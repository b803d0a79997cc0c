package coord

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync/atomic"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/inner"
	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/leader"
)

// errMessagingOnly answers what needs a leader.
var errMessagingOnly = errors.New("the group has no leader: it was joined with MessagingOnly")

// NeedsLeader returns an error for a membership without a leader, for quorate's own packages.
func (h *Handle) NeedsLeader() error {
	if h.g.cfg.MessagingOnly {
		return errMessagingOnly
	}
	return nil
}

// A messenger is the membership of a group without a leader: a lease on the member's own record (rules E1-E9), by which one process at a time acts under
// the id (M2).
type messenger struct {
	g    *Group
	e    *leader.Elector
	stop context.Context
	end  context.CancelFunc
	subs subscriptions
	inc  atomic.Uint64 // of the last acquiring write
	from string        // when that was

}

// checkMessaging refuses what a group without a leader cannot have.
func checkMessaging(ctx context.Context, in *inner.Namespace, group string, cfg Config) error {
	if cfg.Priority != 0 || cfg.MinSize != 0 || cfg.ReturnWindow != 0 || cfg.extra != (Extra{}) {
		return errors.New("MessagingOnly has no leader, and so no priority, minimum size, return window or other parameters of one: leave them out")
	}
	e, err := in.Store.Read(ctx, wire.LeaderKey(group))
	if err == nil && e.Op == kv.Record {
		return errors.New("the group has a leader, or had one a moment ago: join it without MessagingOnly, or take another name")
	}
	mine := false // joined again
	in.Share(cfg.shared(group), func(old any) any { mine = old != nil; return old })
	if err != nil || !cfg.FailIfInUse || mine {
		return err
	}
	if e, err = in.Store.Read(ctx, wire.MemberKey(group, cfg.ID)); err == nil && e.Op == kv.Record {
		return ErrIDInUse
	}
	return err
}

// startMessaging begins the membership.
func (g *Group) startMessaging() error {
	m := &messenger{g: g}
	m.stop, m.end = context.WithCancel(context.Background())
	subject := func(rest string) string { return wire.GroupSubject(g.in.Name, g.group, rest) }
	if err := errors.Join(m.subs.add(g.nc, subject(wire.SubAllDot+">"), g.received), m.subs.add(g.nc, subject(wire.SubMemberDot+g.cfg.ID+".>"), g.received)); err != nil {
		m.subs.end()
		return err
	}
	var err error
	m.e, err = leader.NewAt(g.in, leader.Place{Key: wire.MemberKey(g.group, g.cfg.ID), Label: "group", Name: g.group, Log: g.log, Known: &g.known,
		Params:     func() wire.Params { return wire.Params{LeaseMS: wire.ToMS(g.in.Lease)} },
		Successors: func() []string { return nil },
		Record:     m.record,
		Release: func(w *kv.Write) {
			if w.Inc = m.inc.Load(); w.Reason == wire.ReasonResign {
				w.Reason = wire.ReasonLeft
			}
		}}, leader.Config{ID: g.cfg.ID})
	if err != nil {
		m.subs.end()
		return err
	}
	m.e.Untrack()
	g.messenger = m
	go m.run()
	return nil
}

// record is the member's record that stands for the lease, on the elector's loop.
func (m *messenger) record(l *wire.Leader) []byte {
	g := m.g
	if l.Token == 0 { // an acquiring write: a new incarnation
		now := g.in.Now().WallTime()
		inc := uint64(now.UnixMicro())
		if before := m.inc.Load(); inc <= before {
			inc = before + 1
		}
		m.inc.Store(inc + rand.Uint64N(spread)/1024)
		m.from = wire.Time(now)
	}
	return wire.Encode(&wire.Member{V: wire.Version, ID: g.cfg.ID, Incarnation: m.inc.Load(), Joined: m.from, Roles: []string{}, Meta: g.cfg.Meta,
		Host: g.in.Host, PID: os.Getpid(), Version: inner.Version(), Nonce: l.Nonce, Params: &l.Params})
}

func (m *messenger) run() {
	g := m.g
	err := m.e.Run(m.stop, func(ctx context.Context, t *leader.Term) error {
		p := wire.Place{ID: g.cfg.ID, Incarnation: m.inc.Load()}
		g.place.Store(&p)
		g.term0.Store(t)
		g.isMember()
		g.log.Info("member", "incarnation", p.Incarnation)
		select {
		case <-g.joined:
		default:
			close(g.joined)
		}
		<-ctx.Done()
		why := reason(context.Cause(ctx))
		if m.stop.Err() != nil {
			why = wire.GoneLeft
		}
		g.noMember(why)
		if m.stop.Err() != nil { // leaving: nothing acts under the id any more when its record is removed
			g.end(quorate.ErrLeft)
			bounded, cancel := context.WithTimeout(context.Background(), g.in.Timings.Grace)
			defer cancel()
			g.closeTopics(bounded)
		}
		return nil
	})
	m.subs.end()
	bounded, cancel := context.WithTimeout(context.Background(), 3*g.in.Lease)
	_ = m.e.Close(bounded) // what it holds has been released or runs out
	cancel()
	if !errors.Is(err, quorate.ErrConnClosed) {
		err = quorate.ErrLeft
	}
	g.finish(err)
}

// messengerLive says that the member's own lease holds.
func (g *Group) messengerLive() bool {
	t := g.term0.Load()
	return t != nil && g.acting.Load() && t.Live()
}

// why tells what a join waits for.
func (g *Group) why() string {
	if g.cfg.MessagingOnly {
		return fmt.Sprintf("another process acts as %q, or its lease has not run out", g.cfg.ID)
	}
	return g.m.why()
}
