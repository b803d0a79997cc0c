package clock

import "time"

// An Instant is one moment as three clocks show it, each counted from an origin of its own that stays fixed for the
// life of the process (Wall: the Unix epoch).
type Instant struct {
	Mono time.Duration // CLOCK_MONOTONIC: stands still in a suspend, never jumps
	Boot time.Duration // CLOCK_BOOTTIME: goes on in a suspend, never jumps
	Wall time.Duration // wall clock, since the Unix epoch: goes on in a suspend, can jump
}

// A Source tells the present moment. Shells take one so that tests can let clocks jump; everybody else uses [Now].
type Source func() Instant

// The monotonic reading counts from long before the process began, so that every reading is above zero, the value of a moment that was
// never set; also in a synctest bubble, whose clock begins in 2000.
var origin = time.Now()

const before = time.Duration(1) << 61

// Now reads all three clocks.
//
// Inside a testing/synctest bubble the monotonic and wall readings are the bubble's, and Boot is Mono plus a constant.
func Now() Instant {
	t := time.Now()
	mono := t.Sub(origin) + before
	wall := time.Duration(t.UnixNano())
	return Instant{Mono: mono, Boot: boot(mono, wall), Wall: wall}
}

// Add gives the instant at which each clock shows d more.
func (t Instant) Add(d time.Duration) Instant {
	return Instant{Mono: t.Mono + d, Boot: t.Boot + d, Wall: t.Wall + d}
}

// Reached tells a holder whether its deadline has come: by any of the clocks, so that a suspend or a jump ends a right
// early and never late.
func (t Instant) Reached(deadline Instant) bool {
	return t.Mono >= deadline.Mono || t.Boot >= deadline.Boot || t.Wall >= deadline.Wall
}

// Waited tells one who wants to take another's right whether d has passed since the given instant: on the monotonic
// clock alone, which never runs ahead of the time that really passed.
func (t Instant) Waited(since Instant, d time.Duration) bool {
	return t.Mono-since.Mono >= d
}

// Sub is the time from u to t on the monotonic clock.
func (t Instant) Sub(u Instant) time.Duration { return t.Mono - u.Mono }

// Left is how long until the deadline by the clock that shows most; negative when it has passed.
func (t Instant) Left(deadline Instant) time.Duration {
	return min(deadline.Mono-t.Mono, deadline.Boot-t.Boot, deadline.Wall-t.Wall)
}

// Later takes the later reading of each clock: what a deadline becomes when it is extended.
func (t Instant) Later(u Instant) Instant {
	return Instant{Mono: max(t.Mono, u.Mono), Boot: max(t.Boot, u.Boot), Wall: max(t.Wall, u.Wall)}
}

// Earlier takes the earlier reading of each clock: the first of two deadlines.
func (t Instant) Earlier(u Instant) Instant {
	return Instant{Mono: min(t.Mono, u.Mono), Boot: min(t.Boot, u.Boot), Wall: min(t.Wall, u.Wall)}
}

// IsZero reports whether t was never set.
func (t Instant) IsZero() bool { return t == Instant{} }

// WallTime gives the wall reading as a time, for records and event lines.
func (t Instant) WallTime() time.Time { return time.Unix(0, int64(t.Wall)).UTC() }
