//go:build !(linux || darwin || freebsd || openbsd || dragonfly)

package guardian

import (
	"fmt"
	"io"
	"syscall"
)

// A Guard is one guarded command. There is none on this system.
type Guard struct{}

// Start gives ErrUnsupported.
func Start(Config) (*Guard, error) { return nil, fmt.Errorf("guardian: %w", ErrUnsupported) }

// End does nothing.
func (*Guard) End() {}

// Signal does nothing.
func (*Guard) Signal(syscall.Signal) {}

// Done is never closed.
func (*Guard) Done() <-chan struct{} { return nil }

// Result is none.
func (*Guard) Result() Result { return Result{Err: ErrUnsupported} }

// Main is never called.
func Main(io.Writer) int { return 1 }
