package quorate

import (
	"fmt"
	"time"

	"github.com/quorate/quorate/internal/wire"
)

// Bounds and default of the one knob.
const (
	DefaultLease = 3 * time.Second
	MinLease     = wire.MinLease
	MaxLease     = wire.MaxLease
)

// maxMemberTimeout is how long a member timeout may be: records are written again every 8 hours, and must not run out meanwhile.
const maxMemberTimeout = wire.MaxMemberTimeout

// Timings are what follows from the lease (docs/timings.md). In a [Config] single values can be set; those that are zero derive from the lease.
// [Timings.Check] refuses what would break a guarantee.
type Timings struct {
	Lease         time.Duration // how long a leader holds without a confirmed renewal; default 3 s
	Renew         time.Duration // lease/6, always: renewals, heartbeats, reconciles
	Margin        time.Duration // default lease/10: what a holder gives up early, for clocks that differ
	MemberTimeout time.Duration // default 2 leases: how long a member holds without an answered heartbeat, less a tenth
	Settle        time.Duration // default lease/2: quiet time before the work is shared anew
	SettleCeiling time.Duration // default 2 leases, at least Settle: longest delay under constant change
	Grace         time.Duration // default 1 lease: how long guarded work may go on after a soft end
	AckTimeout    time.Duration // default 1 lease: how long a holder may go on after a revoke
}

// Derive gives the timings of a lease; 0 means [DefaultLease].
func Derive(lease time.Duration) Timings { return Timings{Lease: lease}.derived() }

// derived fills in what is zero.
func (t Timings) derived() Timings {
	set := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	set(&t.Lease, DefaultLease)
	set(&t.Renew, t.Lease/6)
	set(&t.Margin, t.Lease/10)
	set(&t.MemberTimeout, 2*t.Lease)
	set(&t.Settle, t.Lease/2)
	set(&t.SettleCeiling, max(2*t.Lease, t.Settle))
	set(&t.Grace, t.Lease)
	set(&t.AckTimeout, t.Lease)
	return t
}

// Check returns an error for timings that quorate cannot keep its promises with, naming the inequality that fails and what would go wrong. Zero
// fields derive from the lease first. Each rule, and why, is in docs/timings.md.
func (t Timings) Check() error {
	for _, f := range t.fields() {
		if f.d < 0 {
			return fmt.Errorf("%s %v < 0: durations are not negative", f.name, f.d)
		}
	}
	if err := CheckLease(t.Lease); err != nil {
		return err
	}
	for _, f := range t.fields() { // T3
		if f.travels && f.d%time.Millisecond != 0 {
			return fmt.Errorf("%s %v: whole milliseconds are needed, as it travels between processes", f.name, f.d)
		}
	}
	t = t.derived()
	for _, r := range []struct { // the numbers are those of docs/timings.md
		holds     bool
		a         string
		x         time.Duration
		fails, b  string
		y         time.Duration
		otherwise string
	}{
		// T4
		{t.Renew == t.Lease/6, "renew", t.Renew, "!=", "lease/6", t.Lease / 6, "all processes of a group count on that pace"},
		// T5: the 5 % need lease/21; the rest is, for what passes between reading a clock and acting.
		{t.Margin >= t.Lease/10, "margin", t.Margin, "<", "lease/10", t.Lease / 10, "clocks that differ by 5 % would let two terms overlap"},
		// T6
		{t.Margin <= t.Lease/2, "margin", t.Margin, ">", "lease/2", t.Lease / 2, "a single unanswered renewal would end a term"},
		// T7
		{t.MemberTimeout >= 2*t.Lease, "member timeout", t.MemberTimeout, "<", "2 leases", 2 * t.Lease, "a change of leader would revoke every assignment"},
		// T8
		{t.MemberTimeout <= maxMemberTimeout, "member timeout", t.MemberTimeout, ">", "the refresh of records", maxMemberTimeout,
			"a record could run out before its membership"},
		// T9
		{t.SettleCeiling >= t.Settle, "settle ceiling", t.SettleCeiling, "<", "settle", t.Settle, "work would be shared anew before the group has been quiet"},
		// T10
		{t.AckTimeout >= t.Lease/3, "ack timeout", t.AckTimeout, "<", "lease/3", t.Lease / 3, "who misses one message would lose its place before it could let go"},
	} {
		if !r.holds {
			return fmt.Errorf("%s %v %s %s = %v: %s", r.a, r.x, r.fails, r.b, r.y, r.otherwise)
		}
	}
	return nil
}

type timing struct {
	name    string
	d       time.Duration
	travels bool // in the leader's record, in milliseconds
}

func (t Timings) fields() []timing {
	return []timing{{"lease", t.Lease, true}, {"renew", t.Renew, false}, {"margin", t.Margin, false}, {"member timeout", t.MemberTimeout, true},
		{"settle", t.Settle, true}, {"settle ceiling", t.SettleCeiling, true}, {"grace", t.Grace, false}, {"ack timeout", t.AckTimeout, true}}
}

// CheckReconnect returns an error if a connection that waits so long between two tries to reconnect can cost members their leases in an outage that is over
// (T11). It breaks no guarantee.
func (t Timings) CheckReconnect(wait time.Duration) error {
	if t = t.derived(); wait < t.MemberTimeout/2 {
		return nil
	}
	return fmt.Errorf("reconnect wait %v >= member timeout/2 = %v: members could lose their leases after NATS is back: connect with "+
		"quorate.Options(%v), or a shorter nats.ReconnectWait", wait, t.MemberTimeout/2, t.Lease)
}

// CheckLease returns an error for a lease that quorate cannot keep its promises with.
func CheckLease(lease time.Duration) error {
	switch {
	case lease == 0:
		return nil
	case lease < MinLease: // T1
		return fmt.Errorf("lease %v: at least %v are needed", lease, MinLease)
	case lease > MaxLease: // T2
		return fmt.Errorf("lease %v: at most %v are allowed", lease, MaxLease)
	case lease%time.Millisecond != 0: // T3
		return fmt.Errorf("lease %v: whole milliseconds are needed, as they travel between processes", lease)
	}
	return nil
}
