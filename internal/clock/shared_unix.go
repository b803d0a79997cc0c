//go:build linux || darwin || freebsd || openbsd || dragonfly

package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

// Shared reads the clocks as all processes of this machine read them, for a deadline that one process tells another; false if they cannot be
// read. Its readings and those of [Now] are not to be mixed: they count from other origins.
func Shared() (t Instant, ok bool) {
	mono, ok := read(unix.CLOCK_MONOTONIC)
	boot, ok2 := read(sharedBoot)
	wall, ok3 := read(unix.CLOCK_REALTIME)
	return Instant{Mono: mono, Boot: boot, Wall: wall}, ok && ok2 && ok3
}

func read(clock int32) (time.Duration, bool) {
	var t unix.Timespec
	err := unix.ClockGettime(clock, &t)
	return time.Duration(t.Nano()), err == nil
}
