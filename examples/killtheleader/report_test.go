package killtheleader_test

import (
	"testing"

	"github.com/quorate/quorate/examples/killtheleader"
	"github.com/quorate/quorate/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// The real JetStream, in virtual time: the lease of three seconds costs none, and the watchers of quorate's promises are on.
func TestLeaderKilled(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		tokens := make(chan uint64)
		leads, waits := e.Namespace(), e.Namespace() // two processes
		go killtheleader.Report(t.Context(), leads, func(token uint64) { tokens <- token })
		before := <-tokens
		go killtheleader.Report(t.Context(), waits, func(token uint64) { tokens <- token })
		e.Kill(leads) // as kill -9 does: without a goodbye
		if after := <-tokens; after <= before {
			t.Errorf("token %d came after token %d", after, before)
		}
	})
}
