package leader_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/testenv"
)

// short is the smallest lease there is: most tests run with it.
const short = quorate.MinLease

// instant is what counts as at once: in virtual time only waits take time.
const instant = time.Millisecond

func open(e *testenv.Env) *quorate.Namespace { return e.Namespace(quorate.Config{Lease: short}) }

// win campaigns in the background; the channel yields the term, or is closed when there will be none.
func win(t *testing.T, e *leader.Elector) <-chan *leader.Term {
	won := make(chan *leader.Term, 1)
	go func() {
		defer close(won)
		term, err := e.Campaign(t.Context())
		if err == nil {
			won <- term
		} else if !errors.Is(err, quorate.ErrClosed) && t.Context().Err() == nil {
			t.Errorf("campaign of %s: %v", e.ID(), err)
		}
	}()
	return won
}

// within gives the term and how long it took, or fails after a minute.
func within(t *testing.T, won <-chan *leader.Term) (*leader.Term, time.Duration) {
	t.Helper()
	start := time.Now()
	select {
	case term := <-won:
		if term == nil {
			t.Fatal("campaign failed")
		}
		return term, time.Since(start)
	case <-time.After(time.Minute):
		t.Fatal("no term within a minute")
	}
	return nil, 0
}

// notYet fails if the term has been won.
func notYet(t *testing.T, won <-chan *leader.Term, why string) {
	t.Helper()
	select {
	case term := <-won:
		t.Fatalf("%s: took over (%+v)", why, term)
	default:
	}
}

// between fails unless the duration lies in the bounds.
func between(t *testing.T, what string, d, low, high time.Duration) {
	t.Helper()
	if d < low-time.Microsecond || d > high+time.Microsecond { // parts of a lease are rounded
		t.Errorf("%s took %v, want %v to %v", what, d, low, high)
	}
}

// stands reads what stands under the key, over a connection of its own.
func stands(t *testing.T, ns *quorate.Namespace) kv.Entry {
	t.Helper()
	e, err := ns.Inner().Store.Read(t.Context(), wire.ElectionKey("job"))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// holds reports whether a record, not a marker, stands under the key.
func holds(t *testing.T, ns *quorate.Namespace) bool { return stands(t, ns).Op == kv.Record }

// put writes anything under the key, as a foreign hand would.
func put(t *testing.T, ns *quorate.Namespace, w kv.Write) uint64 {
	t.Helper()
	w.Key, w.TTL = wire.ElectionKey("job"), time.Hour
	w.Expected = stands(t, ns).Revision
	rev, out, err := ns.Inner().Store.Do(t.Context(), w)
	if out != kv.Yes {
		t.Fatalf("foreign write: %v, %v", out, err)
	}
	return rev
}

// cause fails unless the term's context has ended for that reason.
func cause(t *testing.T, term *leader.Term, want error) {
	t.Helper()
	if got := context.Cause(term.Context()); !errors.Is(got, want) {
		t.Errorf("cause: got %v, want %v", got, want)
	}
	if term.Live() {
		t.Error("ended, but live")
	}
}

// isWrite matches a write to a key of the bucket on its way to the server.
func isWrite(f *testenv.Frame) bool {
	return f.Verb == "HPUB" && f.Dir == testenv.ToServer && len(f.Subject) > 4 && f.Subject[:4] == "$KV."
}
