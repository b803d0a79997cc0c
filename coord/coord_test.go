package coord_test

import (
	"context"
	"errors"

	"testing"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const lease = 3 * time.Second

func join(t *testing.T, ns *quorate.Namespace, id string) *coord.Group {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	g, err := coord.Join(ctx, ns, "g", coord.Config{ID: id})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func ids(ms []coord.Member) string {
	s := ""
	for _, m := range ms {
		s += m.ID + ":" + m.Status + " "
	}
	return s
}

func roster(t *testing.T, c *coord.Client) string {
	t.Helper()
	r, err := c.Members(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return ids(r)
}

func TestJoinLeave(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		start := time.Now()
		a := join(t, e.Namespace(), "a")
		if d := time.Since(start); d > 100*time.Millisecond {
			t.Errorf("first join took %v of virtual time", d)
		}
		b := join(t, e.Namespace(), "b")
		nc := e.Namespace()
		c := join(t, nc, "c")
		time.Sleep(lease)
		if got := roster(t, b.Client); got != "a:alive b:alive c:alive " {
			t.Fatalf("M1: roster %q", got)
		}
		if err := a.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !errors.Is(context.Cause(a.Context()), coord.ErrLeft) {
			t.Errorf("cause: %v", context.Cause(a.Context()))
		}
		time.Sleep(lease / 2)
		if got := roster(t, b.Client); got != "b:alive c:alive " {
			t.Fatalf("M1: roster after leave %q", got)
		}
		e.Kill(nc)
		time.Sleep(5 * lease)
		if got := roster(t, b.Client); got != "b:alive " {
			t.Fatalf("M1: roster after kill %q", got)
		}
		_ = c
	})
}

func TestRestartSameID(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		a := join(t, e.Namespace(), "a")
		nb := e.Namespace()
		join(t, nb, "b")
		ctx, cancel := context.WithTimeout(t.Context(), 10*lease)
		defer cancel()
		if _, err := coord.Join(ctx, e.Namespace(), "g", coord.Config{ID: "b", FailIfInUse: true}); !errors.Is(err, coord.ErrIDInUse) {
			t.Fatalf("M2: got %v, want ErrIDInUse", err)
		}
		if _, err := coord.Join(ctx, e.Namespace(), "g", coord.Config{ID: "b"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("M2: got %v, want to wait until the context ends", err)
		}
		e.Kill(nb)
		start := time.Now()
		join(t, e.Namespace(), "b")
		if d := time.Since(start); d > 2*lease+lease/6+time.Second/10 {
			t.Errorf("M2: restart took %v", d)
		}
		if got := roster(t, a.Client); got != "a:alive b:alive " {
			t.Errorf("roster %q", got)
		}
	})
}
