package leader_test

import (
	"context"
	"testing"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/testenv"
)

// What needs a replicated bucket, and hence real servers and real time. Nothing here is asserted about how soon something happens.

const bucket = "QUORATE_default"

// clustered opens namespaces as processes of their own, under the watchers, which look at all rights every few milliseconds.
func clustered(t *testing.T, c *testenv.Cluster, lease time.Duration, n int) (*testenv.Invariants, []*quorate.Namespace) {
	t.Helper()
	v := testenv.Watch(t)
	var all []*quorate.Namespace
	for range n {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		ns, err := v.Open(ctx, c.Connect("process", quorate.Options(lease)...), quorate.Config{Lease: lease})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, ns)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				v.Look()
			case <-stop:
				return
			}
		}
	}()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		for _, ns := range all {
			if err := ns.Close(ctx); err != nil {
				t.Error(err)
			}
		}
		close(stop)
		<-done
	})
	return v, all
}

// eventually waits until what is true.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	end, tick := time.After(2*time.Minute), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("not within two minutes: %s", what)
		}
	}
}

// R5: the replicated bucket's stream gets another leader, again and again, and a lease that is long enough does not change hands. (R36: an
// election within NATS takes 4 to 9 s when the stream's leader dies, less when it steps down.)
func TestClusterStepDown(t *testing.T) {
	c := testenv.NewCluster(t, 3)
	v, ns := clustered(t, c, 20*time.Second, 2)
	ta := campaign(t, elector(t, ns[0], "a"))
	won := win(t, elector(t, ns[1], "b"))
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	seen := map[int]bool{}
	for range 3 {
		from, to, err := c.StepDownStream(ctx, bucket)
		if err != nil {
			t.Fatal(err)
		}
		seen[from], seen[to] = true, true
		// Renewals go on: one that was sent after the step-down is confirmed.
		before := ta.Deadline()
		eventually(t, "a renewal after the step-down", func() bool { return ta.Deadline().After(before.Add(time.Second)) || !ta.Live() })
		if !ta.Live() {
			t.Fatalf("the term ended: %v", context.Cause(ta.Context()))
		}
	}
	notYet(t, won, "the holder is live")
	if n := v.Counts().Terms; n != 1 || len(seen) < 2 {
		t.Errorf("%d terms, stream leaders %v; want one term, and several leaders", n, seen)
	}
}

// L1, L2: the server that leads the stream dies, with a lease that its election does not fit into. Nobody can renew meanwhile: the term
// ends, and another begins when the stream has a leader again.
func TestClusterStreamLeaderKilled(t *testing.T) {
	c := testenv.NewCluster(t, 3)
	v, ns := clustered(t, c, time.Second, 3)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	terms := make(chan *leader.Term, 1000)
	for i, n := range ns {
		e := elector(t, n, string(rune('a'+i)))
		run, stop := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() {
			done <- e.Run(run, func(ctx context.Context, term *leader.Term) error {
				terms <- term
				<-ctx.Done()
				return nil
			})
		}()
		defer func() {
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
	}
	term := <-terms
	for range 2 {
		victim := -1
		eventually(t, "a stream leader", func() bool { victim = c.StreamLeader(bucket); return victim >= 0 })
		c.Kill(victim)
		// With this lease it cannot have survived, unless the election was uncommonly quick.
		eventually(t, "a live term after the stream has another leader", func() bool {
			for {
				select {
				case term = <-terms:
				default:
					now := c.StreamLeader(bucket)
					return now >= 0 && now != victim && term.Live()
				}
			}
		})
		c.Start(victim)
		if err := c.Ready(ctx); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("terms: %d", v.Counts().Terms)
}
