package main

import (
	"context"
	"fmt"
	"time"

	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/leader"
)

// acquire measures how long it takes to lead when nobody else wants to: from the call to the term. Connections, namespace
// and etcd's session are there before. Two cases: an election that nobody has ever held, and one that was released.
func acquire(ctx context.Context, b *bench) ([]Row, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	natsURL, etcdURL, err := b.servers(ctx)
	if err != nil {
		return nil, err
	}
	ns, err := openQuorate(ctx, natsURL, 0)
	if err != nil {
		return nil, err
	}
	client, err := openEtcd(ctx, etcdURL)
	if err != nil {
		return nil, err
	}
	session, err := concurrency.NewSession(client)
	if err != nil {
		return nil, err
	}
	n := pick(b, 2000, 500, 5)
	warm := min(n, 50) // connections, caches and files are as in a process that runs for a while

	var firstQ, firstE, againQ, againE, floor series
	ours := func(i int) error {
		at := time.Now()
		e, err := leader.New(ns, fmt.Sprintf("first-%d", i), leader.Config{ID: "a"})
		if err != nil {
			return err
		}
		t, err := e.Campaign(ctx)
		took := time.Since(at)
		if err != nil {
			return err
		}
		if i >= warm {
			firstQ.time(took)
		}
		if err := t.Resign(ctx); err != nil {
			return err
		}
		return e.Close(ctx)
	}
	theirs := func(i int) error {
		at := time.Now()
		e := concurrency.NewElection(session, fmt.Sprintf("first-%d", i))
		if err := e.Campaign(ctx, "a"); err != nil {
			return err
		}
		if i >= warm {
			firstE.time(time.Since(at))
		}
		return e.Resign(ctx)
	}
	if err := b.byTurns(ctx, n+warm, ours, theirs); err != nil {
		return nil, err
	}

	e, err := leader.New(ns, "again", leader.Config{ID: "a"})
	if err != nil {
		return nil, err
	}
	el := concurrency.NewElection(session, "again")
	ours = func(i int) error {
		at := time.Now()
		t, err := e.Campaign(ctx)
		took := time.Since(at)
		if err != nil {
			return err
		}
		if i >= warm {
			againQ.time(took)
		}
		return t.Resign(ctx)
	}
	theirs = func(i int) error {
		at := time.Now()
		if err := el.Campaign(ctx, "a"); err != nil {
			return err
		}
		if i >= warm {
			againE.time(time.Since(at))
		}
		return el.Resign(ctx)
	}
	if err := b.byTurns(ctx, n+warm, ours, theirs); err != nil {
		return nil, err
	}

	// What the store takes by itself: one synced compare-and-set and its answer. No acquire can be faster.
	rev := uint64(0)
	for range n/4 + 1 {
		at := time.Now()
		var out kv.Outcome
		rev, out, err = ns.Inner().Store.Do(ctx, kv.Write{Key: "check.bench", Value: make([]byte, 200), Expected: rev, TTL: time.Hour})
		if err != nil || out != kv.Yes {
			return nil, fmt.Errorf("write: %v, %w", out, err)
		}
		floor.time(time.Since(at))
	}
	target := []Target{{"p50", 0.6}}
	return []Row{
		{What: "acquire, never held before", Unit: "ms", Quorate: firstQ.stat(), Peer: "etcd", Theirs: firstE.stat(), Targets: target,
			Note: "quorate makes the elector (two subscriptions), reads and writes; etcd's session (a lease granted before) is not counted"},
		{What: "acquire, released before", Unit: "ms", Quorate: againQ.stat(), Peer: "etcd", Theirs: againE.stat(), Targets: target,
			Note: "by an elector, or a session and election, that is there already; by turns with its release, which is not counted"},
		{What: "one synced compare-and-set, alone", Unit: "ms", Quorate: floor.stat(), Note: "the floor of the two above, for comparison"},
	}, nil
}
