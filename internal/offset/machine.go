package offset

import (
	"slices"
	"time"

	"github.com/quorate/quorate/internal/clock"
)

// A Sample is one exchange with a leader.
type Sample struct {
	Token    uint64        // of the leader's term: whose clock it is
	Sent     clock.Instant // read before the request was sent
	Received clock.Instant // read after the answer arrived
	Clock    time.Duration // the leader's boot-time clock, somewhen in between
}

const (
	drift  = 20                   // one part in so many: 5 %
	usual  = 10000                // what clocks really do is far less: one part in ten thousand
	grain  = 2 * time.Microsecond // readings and instants travel in whole microseconds
	kept   = 8                    // leaders whose clocks are remembered
	window = 8                    // exchanges with each that are

	most = time.Duration(1<<53) * time.Microsecond // what a clock can show: readings travel as JSON numbers
	far  = 2 * time.Hour                           // no instant is further away
)

// A Clock is what is known of one leader's boot-time clock. The zero value knows nothing.
type Clock struct {
	Token uint64
	base  clock.Instant // read with the newest exchange: which readings of one's own clocks belong together
	// When one's own boot-time clock shows t, the leader's is ahead by something from lo - t/drift to hi + t/drift.
	lo, hi time.Duration
	last   [window]exchange // the newest last
	n      int
}

// exchange is one that is remembered. All by the own boot-time clock.
type exchange struct{ sent, half, ahead time.Duration }

// Known reports whether there was an exchange.
func (c Clock) Known() bool { return c.Token != 0 }

// Bound is how far off c may be at the given moment, at least.
func (c Clock) Bound(now clock.Instant) time.Duration {
	return (c.hi-c.lo+1)/2 + max(now.Boot, c.last[window-1].sent)/drift + grain
}

// middle is of what is possible.
func (c Clock) middle() time.Duration { return c.lo + (c.hi-c.lo)/2 }

// There is what the leader's clock shows when one's own boot-time clock shows boot, to within Bound.
func (c Clock) There(boot time.Duration) time.Duration { return boot + c.middle() }

// Within takes the leader's clock to be what the quickest of the last exchanges says: of a longer round trip most was spent waiting, on one of its ways or
// in a busy process, and its middle is off by that. So two members that were busy at different moments mean the same moment all the
// same. But what it is taken for is never outside of what is possible, nor, while that can be had, more than most off.
func (c Clock) Within(now clock.Instant, most time.Duration) Conversion {
	best := c.last[window-1]
	for _, x := range c.last[window-c.n:] {
		if x.half+(now.Boot-x.sent)/usual < best.half+(now.Boot-best.sent)/usual {
			best = x
		}
	}
	off := best.ahead - c.middle()
	off = min(max(off, -c.Bound(now)), c.Bound(now))
	slack := max(most-c.Bound(now), 0)
	return Conversion{c, min(max(off, -slack), slack)}
}

// A Conversion is what a leader's clock is taken for.
type Conversion struct {
	Clock
	off time.Duration // from the middle of what is possible
}

// Bound is how far off it may be at the given moment.
func (v Conversion) Bound(now clock.Instant) time.Duration {
	return v.Clock.Bound(now) + max(v.off, -v.off)
}

// Here converts an instant of the leader's clock: which moment that is on one's own clocks. The three readings are those
// that will be shown together if nothing happens to a clock after the newest exchange; one that shows something else then
// has jumped, or the machine was suspended. An instant that is further than two hours away, which none is that a leader lets through, is taken
// to be so far.
func (v Conversion) Here(at time.Duration) clock.Instant {
	return v.base.Add(min(max(at-v.middle()-v.off-v.base.Boot, -far), far))
}

// with is what is known after one more exchange.
func (c Clock) with(s Sample) Clock {
	half := (s.Received.Boot - s.Sent.Boot + 1) / 2
	x := exchange{sent: s.Sent.Boot, half: half, ahead: s.Clock - s.Sent.Boot - half}
	n := Clock{Token: s.Token, base: s.Received, lo: x.ahead - half + x.sent/drift, hi: x.ahead + half - x.sent/drift, n: 1}
	n.last[window-1] = x
	if !c.Known() || s.Received.Boot < c.last[window-1].sent {
		return n // nothing was known, or one's own clock went back: it is another's
	}
	lo, hi := max(c.lo, n.lo), min(c.hi, n.hi)
	if lo-hi > 2*(s.Received.Boot/drift+2*grain) {
		return n // it contradicts what was known: one of the clocks stood still, or jumped
	}
	n.lo, n.hi, n.n = lo, hi, min(c.n+1, window)
	copy(n.last[:], c.last[1:])
	n.last[window-1] = x
	return n
}

// Clocks are those of the last few leaders. The zero value is ready.
type Clocks struct {
	all []Clock // in the order in which they were first heard of
}

// Add takes in one exchange. It reports false, and ignores it, if it cannot have been.
func (c *Clocks) Add(s Sample) bool {
	if s.Token == 0 || s.Received.Boot < s.Sent.Boot || s.Clock <= 0 || s.Clock > most {
		return false
	}
	i := slices.IndexFunc(c.all, func(o Clock) bool { return o.Token == s.Token })
	if i < 0 {
		if len(c.all) == kept {
			c.all = slices.Delete(c.all, 0, 1)
		}
		c.all = append(c.all, Clock{})
		i = len(c.all) - 1
	}
	c.all[i] = c.all[i].with(s)
	return true
}

// Of is what is known of the clock of the leader with that token.
func (c *Clocks) Of(token uint64) (Clock, bool) {
	for _, o := range c.all {
		if o.Token == token {
			return o, true
		}
	}
	return Clock{}, false
}
