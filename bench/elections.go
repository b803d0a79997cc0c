package main

import (
	"context"
	"fmt"
	"math"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/quorate/quorate/leader"
)

// A holding is what a process with many elections says of them.
type holding struct {
	Took    float64 // ms, until all were held
	Live    int
	LeastMS int64 // time left to the first deadline
}

// electionsRole is a process that holds many elections over one connection.
func electionsRole(ctx context.Context, a childArgs) (role, error) {
	began := time.Now()
	const atATime = 64
	if a.System == "etcd" {
		client, err := openEtcd(ctx, a.URL)
		if err != nil {
			return role{}, err
		}
		session, err := concurrency.NewSession(client, concurrency.WithTTL(int(a.Lease/time.Second)))
		if err != nil {
			return role{}, err
		}
		err = each(ctx, a.N, atATime, func(_ context.Context, i int) error {
			return concurrency.NewElection(session, fmt.Sprintf("e-%d", i)).Campaign(ctx, "holder")
		})
		if err != nil {
			return role{}, err
		}
		took := float64(time.Since(began)) / float64(time.Millisecond)
		return role{answer: func(context.Context, string) (any, error) {
			h := holding{Took: took}
			if r, err := client.TimeToLive(ctx, session.Lease(), clientv3.WithAttachedKeys()); err == nil {
				h.Live, h.LeastMS = len(r.Keys), r.TTL*1000
			}
			return h, nil
		}}, nil
	}
	ns, err := openQuorate(ctx, a.URL, a.Lease)
	if err != nil {
		return role{}, err
	}
	terms := make([]*leader.Term, a.N)
	err = each(ctx, a.N, atATime, func(_ context.Context, i int) error {
		e, err := leader.New(ns, fmt.Sprintf("e-%d", i), leader.Config{ID: "holder"})
		if err != nil {
			return err
		}
		terms[i], err = e.Campaign(ctx)
		return err
	})
	if err != nil {
		return role{}, err
	}
	took := float64(time.Since(began)) / float64(time.Millisecond)
	return role{answer: func(context.Context, string) (any, error) {
		h := holding{Took: took, LeastMS: math.MaxInt64}
		for _, t := range terms {
			if t.Live() {
				h.Live++
				h.LeastMS = min(h.LeastMS, t.Left().Milliseconds())
			}
		}
		return h, nil
	}}, nil
}

// elections has one process hold many of them for longer than a lease: does it renew all in time, and what does it take?
func elections(ctx context.Context, b *bench) ([]Row, error) {
	natsServer, natsURL, err := b.server(ctx, "nats")
	if err != nil {
		return nil, err
	}
	_, etcdURL, err := b.server(ctx, "etcd")
	if err != nil {
		return nil, err
	}
	n := pick(b, 10000, 1000, 20)
	lease := pick(b, 30*time.Second, 5*time.Second, 2*time.Second)
	ours, err := b.start(ctx, "elections", childArgs{System: "quorate", URL: natsURL, N: n, Lease: lease}, nil)
	if err != nil {
		return nil, err
	}
	theirs, err := b.start(ctx, "elections", childArgs{System: "etcd", URL: etcdURL, N: n, Lease: lease}, nil)
	if err != nil {
		return nil, err
	}
	before, err := ours.usage(ctx)
	if err != nil {
		return nil, err
	}
	serverBefore, err := natsServer.usage(ctx)
	if err != nil {
		return nil, err
	}
	theirsBefore, err := theirs.usage(ctx)
	if err != nil {
		return nil, err
	}
	at := time.Now()
	// Looked at again and again: the least time left that was ever seen tells how close the renewals came.
	least := int64(math.MaxInt64)
	var q, e holding
	for end := time.Now().Add(lease + lease/6); ; {
		if err := ours.ask(ctx, "look", &q); err != nil {
			return nil, err
		}
		least = min(least, q.LeastMS)
		if time.Now().After(end) || q.Live < n {
			break
		}
		if err := sleep(ctx, lease/30); err != nil {
			return nil, err
		}
	}
	if err := theirs.ask(ctx, "look", &e); err != nil {
		return nil, err
	}
	took := time.Since(at)
	after, err := ours.usage(ctx)
	if err != nil {
		return nil, err
	}
	theirsAfter, err := theirs.usage(ctx)
	if err != nil {
		return nil, err
	}
	serverAfter, err := natsServer.usage(ctx)
	if err != nil {
		return nil, err
	}
	percent := func(a, b Usage) float64 { return 100 * float64(b.CPU-a.CPU) / float64(took) }
	what := fmt.Sprintf("%d elections, lease %v", n, lease)
	return []Row{
		{What: what + ": memory at most", Unit: "MB", Quorate: single(after.MaxRSS), Peer: "etcd, one session", Theirs: single(theirsAfter.MaxRSS),
			Targets: []Target{{"max", 300}}, Note: fmt.Sprintf("%.0f MB at the end (the server %.0f MB). In quorate each election has a lease of its own; in etcd all hang on the session's one, which is all that is renewed", after.RSS, serverAfter.RSS)},
		{What: what + ": not held any more", Unit: "elections", Quorate: single(float64(n - q.Live)), Peer: "etcd, one session", Theirs: single(float64(n - e.Live)),
			Targets: []Target{{"max", 0}}, Note: fmt.Sprintf("after %v; the first deadline was never nearer than %v (a renewal each %v)", took.Round(time.Second), time.Duration(least)*time.Millisecond, (lease / 6).Round(time.Millisecond))},
		{What: what + ": until all are held", Unit: "ms", Quorate: single(q.Took), Peer: "etcd, one session", Theirs: single(e.Took), Note: "64 at a time"},
		{What: what + ": renewing them", Unit: "% of a core", Quorate: single(percent(before, after) + percent(serverBefore, serverAfter)),
			Note: fmt.Sprintf("the process %.0f %%, the server %.0f %%, for %.0f synced writes a second; etcd's process, which renews one lease: %.1f %%",
				percent(before, after), percent(serverBefore, serverAfter), float64(n)/(lease/6).Seconds(), percent(theirsBefore, theirsAfter))},
	}, nil
}
