//go:build unix

package coord_test

import (
	"syscall"
	"time"
)

// realTime is the processor time used so far: virtual time says nothing of cost.
func realTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
