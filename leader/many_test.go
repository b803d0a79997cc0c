package leader_test

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/testenv"
)

// memory is what is in use of the heap and of stacks.
func memory() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// Many elections held by one process cost one goroutine, three subscriptions and little memory each, and all are renewed in time, also after they
// were cut off together.
func TestManyElections(t *testing.T) {
	const n, lease = manyElections, 30 * time.Second
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		ns := e.Namespace(quorate.Config{Lease: lease})
		nc := e.Conn(ns)
		before := memory()
		goroutines, subs := runtime.NumGoroutine(), nc.NumSubscriptions()
		terms := make([]*leader.Term, n)
		for i := range terms {
			el, err := leader.New(ns, fmt.Sprintf("e-%d", i), leader.Config{ID: "holder"})
			if err != nil {
				t.Fatal(err)
			}
			terms[i] = campaign(t, el)
		}
		time.Sleep(lease)
		if got := runtime.NumGoroutine() - goroutines; got > n+n/10 {
			t.Errorf("%d goroutines for %d elections, want one each", got, n)
		}
		if got := nc.NumSubscriptions() - subs; got > 3*n {
			t.Errorf("%d subscriptions for %d elections, want three each", got, n)
		}
		if got := (int64(memory()) - int64(before)) / n; got > perElection {
			t.Errorf("%d bytes for each of %d elections, want at most %d", got, n, perElection)
		} else {
			t.Logf("%d bytes for each of %d elections", got, n)
		}
		// look returns the least time that any of them had left in the given time.
		look := func(why string, d time.Duration) (least time.Duration) {
			least = lease
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(lease / 60) {
				for _, term := range terms {
					if !term.Live() {
						t.Fatalf("%s: term %d ended", why, term.Token())
					}
					least = min(least, term.Left())
				}
			}
			return least
		}
		if least := look("in peace", 4*lease); least < lease/2 {
			t.Errorf("only %v of %v left before a renewal", least, lease)
		}
		// Renewals of terms that began at one moment are spread.
		var left []time.Duration
		for _, term := range terms {
			left = append(left, term.Left())
		}
		slices.Sort(left)
		if spread := left[n*9/10] - left[n/10]; spread < lease/30 {
			t.Errorf("the middle 80 %% were renewed within %v", spread)
		}
		for range 3 {
			e.Cut(ns)
			time.Sleep(lease / 2)
			e.Heal(ns)
			look("after a cut", lease/2)
		}
		if least := look("in peace again", 2*lease); least < lease/2 {
			t.Errorf("only %v of %v left before a renewal", least, lease)
		}
	})
}
