package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/quorate/quorate/leader"
)

// holderRole is a process that leads one election until it is killed.
func holderRole(ctx context.Context, a childArgs) (role, error) {
	if a.System == "etcd" {
		client, err := openEtcd(ctx, a.URL)
		if err != nil {
			return role{}, err
		}
		session, err := concurrency.NewSession(client, concurrency.WithTTL(int(a.Lease/time.Second)))
		if err != nil {
			return role{}, err
		}
		return role{}, concurrency.NewElection(session, a.Name).Campaign(ctx, "holder")
	}
	ns, err := openQuorate(ctx, a.URL, a.Lease)
	if err != nil {
		return role{}, err
	}
	e, err := leader.New(ns, a.Name, leader.Config{ID: "holder"})
	if err != nil {
		return role{}, err
	}
	_, err = e.Campaign(ctx)
	return role{}, err
}

// A candidate waits for one election. campaign returns when it leads, end gives up what it has won.
type candidate struct {
	campaign, end func(ctx context.Context) error
}

// failOver kills processes that lead and measures from the kill to the moment at which a candidate leads.
//
// In each round every setting has some elections, each with a holder that is a process of its own; all begin first, and are
// killed when nothing else is going on, at random moments, so that all phases of their renewals are met.
func failOver(ctx context.Context, b *bench) ([]Row, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	natsURL, etcdURL, err := b.servers(ctx)
	if err != nil {
		return nil, err
	}
	type setting struct {
		system, url string
		lease       time.Duration
		took        series
		early       atomic.Int64
		candidate   func(name string) (candidate, error)
	}
	var settings []*setting
	for _, lease := range []time.Duration{200 * time.Millisecond, time.Second, 3 * time.Second} {
		ns, err := openQuorate(ctx, natsURL, lease)
		if err != nil {
			return nil, err
		}
		settings = append(settings, &setting{system: "quorate", url: natsURL, lease: lease, candidate: func(name string) (candidate, error) {
			e, err := leader.New(ns, name, leader.Config{ID: "candidate"})
			if err != nil {
				return candidate{}, err
			}
			return candidate{func(ctx context.Context) error { _, err := e.Campaign(ctx); return err }, e.Close}, nil
		}})
	}
	client, err := openEtcd(ctx, etcdURL)
	if err != nil {
		return nil, err
	}
	session, err := concurrency.NewSession(client) // of the candidates: its own TTL does not matter here
	if err != nil {
		return nil, err
	}
	for _, ttl := range []time.Duration{time.Second, 3 * time.Second} {
		settings = append(settings, &setting{system: "etcd", url: etcdURL, lease: ttl, candidate: func(name string) (candidate, error) {
			e := concurrency.NewElection(session, name)
			return candidate{func(ctx context.Context) error { return e.Campaign(ctx, "candidate") }, e.Resign}, nil
		}})
	}

	lanes := pick(b, 10, 5, 1)
	window := pick(b, 1200*time.Millisecond, 1200*time.Millisecond, 100*time.Millisecond)
	for round := 0; round < pick(b, 10, 2, 1) || slices.ContainsFunc(settings, func(s *setting) bool { return s.took.stat() == nil }); round++ {
		n := lanes * len(settings)
		holders := make([]*process, n)
		err := each(ctx, n, 4, func(ctx context.Context, i int) (err error) {
			s := settings[i%len(settings)] // by turns
			holders[i], err = b.start(ctx, "holder", childArgs{System: s.system, URL: s.url, Name: fmt.Sprintf("e-%d-%d", round, i), Lease: s.lease}, nil)
			return err
		})
		if err != nil {
			return nil, err
		}
		type won struct {
			at  time.Time
			err error
		}
		candidates, wins := make([]candidate, n), make([]chan won, n)
		for i := range n {
			c, err := settings[i%len(settings)].candidate(fmt.Sprintf("e-%d-%d", round, i))
			if err != nil {
				return nil, err
			}
			candidates[i], wins[i] = c, make(chan won, 1)
			go func() {
				err := c.campaign(ctx)
				wins[i] <- won{time.Now(), err}
			}()
		}
		if err := sleep(ctx, pick(b, 500*time.Millisecond, 500*time.Millisecond, 50*time.Millisecond)); err != nil {
			return nil, err
		}
		err = each(ctx, n, n, func(ctx context.Context, i int) error {
			if err := anytime(ctx, window); err != nil {
				return err
			}
			at := time.Now()
			holders[i].kill()
			w, err := recv(ctx, "fail-over", wins[i])
			switch {
			case err != nil:
				return err
			case w.err != nil:
				return w.err
			case w.at.Before(at):
				settings[i%len(settings)].early.Add(1) // the holder was starved for a lease: no measurement
				return nil
			}
			settings[i%len(settings)].took.time(w.at.Sub(at))
			return nil
		})
		if err != nil {
			return nil, err
		}
		if err := each(ctx, n, n, func(ctx context.Context, i int) error { return candidates[i].end(ctx) }); err != nil {
			return nil, err
		}
	}
	row := func(q, e *setting, peer, note string) Row {
		for _, s := range []*setting{q, e} {
			if n := s.early.Load(); n > 0 {
				note += fmt.Sprintf("; %s: %d holders lost their lease before they were killed, and do not count", s.system, n)
			}
		}
		note = strings.TrimPrefix(note, "; ")
		return Row{What: fmt.Sprintf("crash fail-over, lease %v", q.lease), Unit: "ms", Quorate: q.took.stat(), Peer: peer, Theirs: e.took.stat(),
			Targets: []Target{{"p99", float64(q.lease.Milliseconds() + 20)}}, Note: note}
	}
	const least = "etcd, TTL 1 s"
	const why = "etcd counts in whole seconds, and raises what is below two seconds (one and a half election timeouts) to two"
	return []Row{
		row(settings[0], settings[3], least, why),
		row(settings[1], settings[3], least, why),
		row(settings[2], settings[4], "etcd, TTL 3 s", ""),
	}, nil
}
