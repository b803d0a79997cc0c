// Package offset tells a leader's boot-time clock from one's own: how far apart they are, and how far off that may be. It
// is pure: it is told of exchanges, and asked.
//
//	var c offset.Clocks
//	c.Add(offset.Sample{Token: t, Sent: before, Received: after, Clock: theirs})
//	k, ok := c.Of(t)
//	v := k.Within(now, tolerance)
//	here := v.Here(instant)    // the leader's instant on one's own clocks
//	bound := v.Bound(now)      // how far off that may be: the tolerance at most, if k.Bound(now) is not more
//
// # What it promises
//
// As long as of the two clocks the faster gains at most 5 % on the slower, the truth is never further off than Bound says.
// TestBoundHolds. An exchange says that the leader's clock stood at Clock somewhen between Sent and Received, so the middle
// is off by half the round trip at most; from there on it grows by 5 % of the time since Sent. What all exchanges together leave
// possible is never more, and often less.
//
// Within that, the quickest of the last eight exchanges is believed, as in NTP's filter. TestQuickest: processes of one machine whose exchanges are
// slow and lopsided, each at other moments, convert to the same moment.
//
// # What it does not promise
//
// That clocks keep that assumption. An exchange that contradicts what was known shows that one did not (a machine that
// stood still altogether): then the newer one counts.
//
// # Concurrency
//
// None: Clocks belongs to one goroutine. A Clock is a value.
package offset
