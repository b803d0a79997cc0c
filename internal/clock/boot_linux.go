package clock

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// bubbleEnd is a wall time that real clocks are past and those of synctest bubbles, which begin in 2000, are not.
var bubbleEnd = time.Duration(time.Date(2010, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano())

// bootAhead is what Boot is ahead of the raw CLOCK_BOOTTIME: it makes Boot mono+suspended() whichever way it is read.
var bootAhead = func() time.Duration {
	boot, ok := read(unix.CLOCK_BOOTTIME)
	if !ok {
		return 0
	}
	return time.Since(origin) + before + suspended() - boot
}()

// boot is the boot time at a moment that has just been read as mono and wall. It is asked for with every reading of the clocks, so it takes
// one system call and not two, but in a bubble, where only the difference of two real clocks means anything.
func boot(mono, wall time.Duration) time.Duration {
	if wall > bubbleEnd {
		if boot, ok := read(unix.CLOCK_BOOTTIME); ok {
			return boot + bootAhead
		}
	}
	return mono + suspended()
}

// known is what suspended returned last, in nanoseconds.
var known atomic.Int64

// suspended is how long the machine has been suspended since it booted: boot time minus monotonic time. The two cannot be read at one moment,
// and a process can be held up in between, so the closest pair of a few counts; and what differs by less than any suspend takes is the
// same: else Boot would go back by nanoseconds in a bubble, where round trips take no time at all.
func suspended() time.Duration {
	best, gap := time.Duration(0), time.Duration(-1)
	for range 4 {
		// Monotonic is read first, so a delay between the two readings errs towards a later boot time: rights end early.
		mono, ok := read(unix.CLOCK_MONOTONIC)
		boot, ok2 := read(unix.CLOCK_BOOTTIME)
		after, ok3 := read(unix.CLOCK_MONOTONIC)
		if !ok || !ok2 || !ok3 {
			return 0
		}
		if g := after - mono; gap < 0 || g < gap {
			best, gap = boot-mono, g
		}
		if gap < 20*time.Microsecond {
			break
		}
	}
	if old := time.Duration(known.Load()); old != 0 && (best-old).Abs() < time.Millisecond {
		return old
	}
	known.Store(int64(best))
	return best
}

const sharedBoot = unix.CLOCK_BOOTTIME
