//go:build darwin || freebsd || openbsd || dragonfly

package clock

import "golang.org/x/sys/unix"

// The wall clock, which goes on in a suspend, has to do for what boot time is there for.
const sharedBoot = unix.CLOCK_MONOTONIC
