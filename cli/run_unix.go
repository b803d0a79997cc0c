//go:build unix

package cli

import (
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
)

// forward hands signals on to CMD until the returned function is called. INT and TERM are not among them: they end run (cmd/quorate).
func (r *guarded) forward() (stop func()) {
	ends := []os.Signal{syscall.SIGHUP, syscall.SIGQUIT}
	all := []os.Signal{syscall.SIGUSR1, syscall.SIGUSR2}
	for _, s := range ends {
		if !signal.Ignored(s) { // nohup: it is ignored by CMD too
			all = append(all, s)
		}
	}
	heard := make(chan os.Signal, 16)
	signal.Notify(heard, all...)
	over := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case s := <-heard:
				if s, ok := s.(syscall.Signal); ok {
					r.signalled(s, slices.Contains(ends, os.Signal(s)))
				}
			case <-over:
				return
			}
		}
	})
	return func() { signal.Stop(heard); close(over); wg.Wait() }
}
