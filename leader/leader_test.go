package leader_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const lease = 3 * time.Second

func elector(t *testing.T, ns *quorate.Namespace, id string) *leader.Elector {
	t.Helper()
	e, err := leader.New(ns, "job", leader.Config{ID: id})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func campaign(t *testing.T, e *leader.Elector) *leader.Term {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	term, err := e.Campaign(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return term
}

func TestHandOver(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		a, b := elector(t, e.Namespace(), "a"), elector(t, e.Namespace(), "b")
		ta := campaign(t, a)
		if _, err := b.TryCampaign(t.Context()); !errors.Is(err, leader.ErrHeld) {
			t.Fatalf("L1: try while held: got %v, want ErrHeld", err)
		}
		won := make(chan *leader.Term)
		go func() { won <- campaign(t, b) }()
		time.Sleep(5 * lease)
		if !ta.Live() {
			t.Fatal("L3: a connected holder lost its term")
		}
		start := time.Now()
		if err := ta.Resign(t.Context()); err != nil {
			t.Fatal(err)
		}
		if ta.Live() || !errors.Is(context.Cause(ta.Context()), quorate.ErrResigned) {
			t.Fatalf("resigned: live %v, cause %v", ta.Live(), context.Cause(ta.Context()))
		}
		tb := <-won
		if d := time.Since(start); d > 10*time.Millisecond { // virtual time: no wait may be in it
			t.Errorf("L5: hand-over took %v of virtual time", d)
		}
		if tb.Token() <= ta.Token() {
			t.Errorf("L2: token %d after %d", tb.Token(), ta.Token())
		}
		s, err := a.Leader(t.Context())
		if err != nil || s.Holder != "b" || s.Token != tb.Token() {
			t.Errorf("leader: got %+v, %v", s, err)
		}
	})
}

func TestFailOver(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		na := e.Namespace()
		a, b := elector(t, na, "a"), elector(t, e.Namespace(), "b")
		ta := campaign(t, a)
		won := make(chan *leader.Term)
		go func() { won <- campaign(t, b) }()
		time.Sleep(2 * lease)
		e.Kill(na)
		start := time.Now()
		tb := <-won
		if d := time.Since(start); d > lease+lease/10 {
			t.Errorf("fail-over took %v", d)
		}
		if tb.Token() <= ta.Token() {
			t.Errorf("L2: token %d after %d", tb.Token(), ta.Token())
		}
	})
}

func TestCutHolderEndsItself(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		na := e.Namespace()
		a := elector(t, na, "a")
		ta := campaign(t, a)
		time.Sleep(lease)
		e.Cut(na)
		start := time.Now()
		<-ta.Context().Done()
		if d := time.Since(start); d > lease-lease/10 || d < lease-lease/10-lease/6-time.Millisecond {
			t.Errorf("L3: ended %v after the cut", d)
		}
		if err := context.Cause(ta.Context()); !errors.Is(err, quorate.ErrExpired) {
			t.Errorf("cause: got %v, want ErrExpired", err)
		}
		e.Heal(na)
	})
}

func TestRun(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		a := elector(t, e.Namespace(), "a")
		want := errors.New("done")
		if err := a.Run(t.Context(), func(ctx context.Context, term *leader.Term) error { return want }); err != want {
			t.Fatalf("Run: got %v, want the callback's error", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var released time.Time
		err := a.Run(ctx, func(ctx context.Context, term *leader.Term) error {
			cancel()
			<-ctx.Done()
			time.Sleep(lease / 2)
			if !term.Live() {
				t.Error("soft end: the term ended before its work returned")
			}
			released = time.Now()
			return nil
		})
		if err != nil || released.IsZero() {
			t.Fatalf("Run: got %v", err)
		}
	})
}

func TestManyCandidates(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		ns := e.Namespace()
		won := make(chan *leader.Term)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for i := range manyCandidates {
			el := elector(t, ns, fmt.Sprintf("c%d", i))
			go func() {
				for {
					term, err := el.Campaign(ctx)
					if err != nil {
						return
					}
					select {
					case won <- term:
					case <-ctx.Done():
						return
					}
				}
			}()
		}
		var last uint64
		for range 20 {
			term := <-won
			if term.Token() <= last {
				t.Fatalf("L2: token %d after %d", term.Token(), last)
			}
			last = term.Token()
			time.Sleep(lease)
			if err := term.Resign(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	})
}
