package quorate

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/nats-io/nats.go"
)

// A setting of a connection that costs something: every guarantee holds with it (but see [ErrConnClosed]), yet users should know.
type setting struct {
	name, cost, remedy string
	ends               bool // it can end things, or makes them impossible
}

// settings lists what the user's own connection options cost with these timings (R21). The order is fixed, worst first.
func settings(o nats.Options, t Timings) []setting {
	var l []setting
	add := func(ends bool, name, remedy, cost string, args ...any) {
		l = append(l, setting{name, fmt.Sprintf(cost, args...), remedy, ends})
	}
	if o.NoEcho {
		add(true, "NoEcho", "connect without it", "groups cannot be joined: a leader must hear its own heartbeats")
	}
	switch {
	case !o.AllowReconnect:
		add(true, "NoReconnect", "nats.MaxReconnects(-1)", "the first disconnect ends every term, assignment and membership")
	case o.MaxReconnect >= 0 && o.CustomReconnectDelayCB != nil:
		add(true, "MaxReconnects", "nats.MaxReconnects(-1)", "%d failed tries to reconnect end every term, assignment and membership", o.MaxReconnect)
	case o.MaxReconnect >= 0:
		add(true, "MaxReconnects", "nats.MaxReconnects(-1)", "an outage of about %v (%d tries) ends every term, assignment and membership",
			time.Duration(min(float64(o.MaxReconnect)*float64(o.ReconnectWait), math.MaxInt64/2)).Round(time.Second), o.MaxReconnect)
	}
	made := madeBy(o)
	switch notice := o.PingInterval * time.Duration(o.MaxPingsOut+1); {
	case made != 0 && made != t.Lease:
		add(false, "quorate.Options", fmt.Sprintf("quorate.Options(%v)", t.Lease), "they are made for a lease of %v, and the namespace's is %v: a dead server is noticed "+
			"after %v", made, t.Lease, notice)
	case o.PingInterval <= 0:
		add(false, "PingInterval", fmt.Sprintf("nats.PingInterval(%v)", t.Lease/5), "a server that vanishes without a word may never be noticed")
	case notice > t.Lease:
		add(false, "PingInterval", fmt.Sprintf("nats.PingInterval(%v), nats.MaxPingsOutstanding(2)", t.Lease/5),
			"a server that vanishes without a word is noticed after up to %v: until then leases run out", notice)
	}
	if o.CustomReconnectDelayCB == nil && o.AllowReconnect {
		if err := t.CheckReconnect(o.ReconnectWait); err != nil {
			add(false, "ReconnectWait", fmt.Sprintf("nats.ReconnectWait(%v)", t.Renew/2), "%v >= member timeout/2 = %v: members can lose their leases in an outage that is over",
				o.ReconnectWait, t.MemberTimeout/2)
		}
	}
	if o.ReconnectBufSize >= 0 {
		add(false, "ReconnectBufSize", "nats.ReconnectBufSize(-1)", "messages sent during an outage arrive after it, however late (writes to the bucket are refused then)")
	}
	if o.RetryOnFailedConnect && o.CustomDialer == nil { // who dials by itself has no address to mistype
		add(false, "RetryOnFailedConnect", "connect without it", "a wrong address is not told: opening waits for a server until its context ends")
	}
	if o.UseOldRequestStyle {
		add(false, "UseOldRequestStyle", "connect without it", "each request takes a subscription of its own")
	}
	return l
}

// madeBy is the lease of the [Options] that a connection seems to have been made with; 0 if it was not.
func madeBy(o nats.Options) time.Duration {
	lease := o.PingInterval * 5
	if o.CustomReconnectDelayCB == nil || o.ReconnectBufSize != -1 || o.MaxReconnect != -1 || o.MaxPingsOut != optionPings || o.RetryOnFailedConnect ||
		lease < MinLease || lease > MaxLease {
		return 0
	}
	return lease
}

// optionPings is what [Options] allow of pings without an answer.
const optionPings = 2

// tell logs each costly setting of a connection, once for each namespace that is opened over it.
func tell(log *slog.Logger, o nats.Options, t Timings) {
	for _, s := range settings(o, t) {
		level := slog.LevelInfo
		if s.ends {
			level = slog.LevelWarn
		}
		log.Log(context.Background(), level, "connection setting: "+s.name+": "+s.cost, "remedy", s.remedy)
	}
}
