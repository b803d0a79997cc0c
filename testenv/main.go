package testenv

import (
	"os"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/nats-io/nats-server/v2/server/ats"
)

// registered makes sure that nats-server's clock goroutine runs outside of every bubble: started inside one, it would tick
// in the bubble of a test long over, or keep virtual time from moving.
var registered = sync.OnceFunc(ats.Register)

// Main runs a package's tests; call it from TestMain. Without it tests in a bubble hang.
func Main(m *testing.M) {
	registered()
	os.Exit(m.Run())
}

// Run gives fn a server of its own in a synctest bubble, and closes everything when fn returns. Bubbles run one after the other,
// also in parallel tests.
func Run(t *testing.T, fn func(t *testing.T, e *Env)) {
	t.Helper()
	Bubble(t, func(t *testing.T) {
		e := newEnv(t, t.TempDir())
		defer e.close()
		fn(t, e)
	})
}

var oneBubble sync.Mutex

// Bubble is synctest.Test for tests with NATS in them, without a server: for those that start their own.
//
// nats.go keeps a pool of timers for the whole process (Flush, Request and NextMsg with a timeout), and a timer of one bubble that
// is taken in another, or outside, ends the process. The pool is one that the collector empties, in two rounds.
func Bubble(t *testing.T, fn func(t *testing.T)) {
	t.Helper()
	registered()
	oneBubble.Lock()
	defer oneBubble.Unlock()
	dropTimers()
	defer dropTimers()
	synctest.Test(t, fn)
}

func dropTimers() {
	runtime.GC()
	runtime.GC()
}
