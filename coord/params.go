package coord

import (
	"fmt"
	"strings"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/inner"
	"github.com/quorate/quorate/internal/settle"
	"github.com/quorate/quorate/internal/wire"
)

// Group parameters (design 4.5): a group counts with those of its leader, which travel in its record and in its first replies to each
// member. A member that is set otherwise follows them, and says so once.

// paramsOf are the parameters that this process leads with, unless more is set.
func paramsOf(t inner.Timings, cfg Config) wire.Params {
	return wire.Params{LeaseMS: wire.ToMS(t.Lease), MemberTimeoutMS: wire.ToMS(t.MemberTimeout), SettleMS: wire.ToMS(t.Settle),
		CeilingMS: wire.ToMS(t.SettleCeiling), AckTimeoutMS: wire.ToMS(t.AckTimeout), MinSize: cfg.MinSize}
}

// tuning is what of the parameters a leader's machine takes up in the middle of a term: what no guarantee rests on, and how the work is cut.
func tuning(p wire.Params) settle.Tune {
	return settle.Tune{Settle: wire.MS(p.SettleMS), Ceiling: wire.MS(p.CeilingMS), AckTimeout: wire.MS(p.AckTimeoutMS), Buckets: p.Buckets, Map: p.Map}
}

// SetParams changes the group parameters that this process leads with: settle, ceiling, acknowledgement timeout and buckets also of a term it is in.
func (h *Handle) SetParams(change func(*wire.Params)) {
	g := h.g
	g.mu.Lock()
	p := *g.params.Load()
	change(&p)
	g.params.Store(&p)
	if g.chair != nil {
		g.chair.box.Put(tuning(p))
	}
	g.mu.Unlock()
	g.m.box.Put(tunedInput{})
}

// tunedInput says that this process's own parameters have changed.
type tunedInput struct{}

// following is what a member knows of the group's parameters. It belongs to the member's loop.
type following struct {
	group    *wire.Params // as the leader told last
	token    uint64       // of that leader
	at       time.Time    // when they are compared with the own ones; zero: they have been
	reported map[string]bool
}

// maxReported is how many differences are reported: each is told once, but a group whose leaders differ without end would never end.
const maxReported = 8

// toldParams takes up what a reply says of the group's parameters. They are compared a lease later: after a start everybody's change for a moment.
func (l *memberLoop) toldParams(r wire.Reply) {
	f := &l.follows
	if r.Params != nil && r.Token >= f.token {
		if p := *r.Params; f.group == nil || *f.group != p {
			f.group, f.at = &p, time.Now().Add(l.g.in.Lease)
		}
		f.token = r.Token
	}
	if f.group != nil && !f.at.IsZero() && time.Now().After(f.at) {
		f.at = time.Time{}
		l.compare()
	}
}

// compare reports, once, how this process is set otherwise than its group. What it did not set it does not compare, but for the minimum
// size if it may lead: leading, it would have none.
func (l *memberLoop) compare() {
	if l.g.cfg.extra.Beside && l.g.elector == nil {
		return // a gateway's own member says it, once for all
	}
	g, f, own := l.g, &l.follows, *l.g.params.Load()
	def := paramsOf(inner.Timings(quorate.Derive(g.in.Lease)), g.cfg)
	var diff []string
	differ := func(name string, own, group any) {
		if own != group {
			diff = append(diff, fmt.Sprintf("%s %v here, %v in the group", name, own, group))
		}
	}
	differ("lease", wire.MS(own.LeaseMS), wire.MS(f.group.LeaseMS))
	if own.MemberTimeoutMS != def.MemberTimeoutMS {
		differ("member timeout", wire.MS(own.MemberTimeoutMS), wire.MS(f.group.MemberTimeoutMS))
	}
	if own.SettleMS != def.SettleMS {
		differ("settle", wire.MS(own.SettleMS), wire.MS(f.group.SettleMS))
	}
	if own.AckTimeoutMS != def.AckTimeoutMS {
		differ("acknowledgement timeout", wire.MS(own.AckTimeoutMS), wire.MS(f.group.AckTimeoutMS))
	}
	if own.Buckets != 0 { // else it follows
		differ("buckets", max(own.Buckets, 0), f.group.Buckets)
		if own.Buckets == f.group.Buckets {
			differ("map of keys", own.Map, f.group.Map)
		}
	}
	if own.MinSize > 0 || g.elector != nil {
		differ("minimum size", own.MinSize, f.group.MinSize)
	}
	text := strings.Join(diff, "; ")
	if text == "" || f.reported[text] || len(f.reported) >= maxReported {
		return
	}
	if f.reported == nil {
		f.reported = map[string]bool{}
	}
	f.reported[text] = true
	g.log.Warn("set otherwise than the group, and follows it: "+text, "term", f.token)
}
