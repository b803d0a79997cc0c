package coord_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/testenv"
)

// coordGoroutines counts the goroutines that stand in this module's own code, but for the tests'.
func coordGoroutines() int {
	buf := make([]byte, 64<<20)
	n := 0
	for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(g, "/coord.(") || strings.Contains(g, "/leader.(") {
			n++
		}
	}
	return n
}

// Two hundred members in one process and one group, each with a connection of its own; after Leave nothing of them runs.
func TestTwoHundredMembers(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		const n = 200
		start := time.Now()
		groups := make(chan *coord.Group, n)
		for i := range n {
			ns := e.Namespace()
			go func() { groups <- join(t, ns, fmt.Sprintf("m%d", i)) }()
		}
		var all []*coord.Group
		for range n {
			all = append(all, <-groups)
		}
		t.Logf("%d members joined in %v of virtual time", n, time.Since(start))
		ms, err := all[0].Members(t.Context())
		if err != nil || len(ms) != n {
			t.Fatalf("M1: %d members, %v", len(ms), err)
		}
		returned := make(chan error, n)
		for _, g := range all {
			if _, err := g.Handle("text", func(context.Context, coord.Message) ([]byte, error) { return nil, nil }); err != nil {
				t.Fatal(err)
			}
			go func() {
				returned <- g.Lead(context.Background(), func(ctx context.Context, _ *leader.Term) error { <-ctx.Done(); return nil })
			}()
		}
		time.Sleep(2 * lease)
		if coordGoroutines() < n {
			t.Fatal("the count of goroutines counts none")
		}
		left := make(chan error, n)
		for _, g := range all {
			go func() { left <- g.Leave(context.Background()) }()
		}
		for range n {
			if err := <-left; err != nil {
				t.Error(err)
			}
			if err := <-returned; !errors.Is(err, coord.ErrLeft) {
				t.Errorf("Lead: %v", err)
			}
		}
		synctest.Wait() // one that has told that it is over may not have ended yet
		if n := coordGoroutines(); n != 0 {
			buf := make([]byte, 1<<20)
			t.Errorf("%d goroutines after Leave:\n%s", n, buf[:runtime.Stack(buf, true)])
		}
	})
}

// A thousand members join one group at once.
func TestThousandMembers(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		const n = 1000
		ns := e.Namespace()
		real := realTime()
		start := time.Now()
		groups := make(chan *coord.Group, n)
		for i := range n {
			ns := e.Namespace()
			go func() { groups <- join(t, ns, fmt.Sprintf("m%d", i)) }()
		}
		for range n {
			<-groups
		}
		t.Logf("%d members, each with a connection of its own, joined in %v of virtual and %v of processor time", n, time.Since(start), realTime()-real)
		c := client(t, ns)
		ms, err := c.Members(t.Context())
		if err != nil || len(ms) != n {
			t.Fatalf("M1: %d members, %v", len(ms), err)
		}
		real, start = realTime(), time.Now()
		time.Sleep(3 * lease)
		t.Logf("%v of idling took %v of processor time, the watchers' and the links' included", time.Since(start), realTime()-real)
		for _, m := range ms {
			if m.Status == coord.Unknown {
				t.Fatalf("M1: %s is %s", m.ID, m.Status)
			}
		}
	})
}
