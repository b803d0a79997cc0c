package main

import (
	"context"
	"fmt"
	"time"

	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/leader"
)

// settled is how long a candidate has waited at least before its turn comes. Both sides need a moment for that, which is
// another row: etcd serves a watch that begins in the past up to 100 ms late, and a holder of quorate's writes down who
// waits when it renews.
const settled = 2 * time.Second

// A seat is one election with two candidates, each with a connection of its own, who hand it to each other for ever.
type seat struct {
	campaign [2]func(ctx context.Context) error
	resign   [2]func(ctx context.Context) error
	holder   int
	won      chan time.Time
	failed   chan error
}

// wait has a candidate wait for its turn.
func (s *seat) wait(ctx context.Context, who int) {
	go func() {
		if err := s.campaign[who](ctx); err != nil {
			s.failed <- err
			return
		}
		s.won <- time.Now()
	}()
}

func (s *seat) open(ctx context.Context) error {
	s.won, s.failed = make(chan time.Time, 1), make(chan error, 2)
	if err := s.campaign[0](ctx); err != nil {
		return err
	}
	s.wait(ctx, 1)
	return nil
}

// pass has the holder resign and returns how long it took until the other leads; the former holder waits again then.
func (s *seat) pass(ctx context.Context) (time.Duration, error) {
	at := time.Now()
	if err := s.resign[s.holder](ctx); err != nil {
		return 0, err
	}
	select {
	case err := <-s.failed:
		return 0, err
	case won := <-s.won:
		s.wait(ctx, s.holder)
		s.holder = 1 - s.holder
		return won.Sub(at), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("hand-over: %w", context.Cause(ctx))
	}
}

func quorateSeat(ns [2]*quorate.Namespace, name string) (*seat, error) {
	s := &seat{}
	for i := range 2 {
		e, err := leader.New(ns[i], name, leader.Config{ID: fmt.Sprintf("c%d", i)})
		if err != nil {
			return nil, err
		}
		var term *leader.Term
		s.campaign[i] = func(ctx context.Context) (err error) { term, err = e.Campaign(ctx); return err }
		s.resign[i] = func(ctx context.Context) error { return term.Resign(ctx) }
	}
	return s, nil
}

func etcdSeat(sessions [2]*concurrency.Session, name string) *seat {
	s := &seat{}
	for i := range 2 {
		e := concurrency.NewElection(sessions[i], name)
		s.campaign[i] = func(ctx context.Context) error { return e.Campaign(ctx, fmt.Sprintf("c%d", i)) }
		s.resign[i] = e.Resign
	}
	return s
}

// handOver measures from the call of Resign to the moment at which the other candidate leads.
func handOver(ctx context.Context, b *bench) ([]Row, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	natsURL, etcdURL, err := b.servers(ctx)
	if err != nil {
		return nil, err
	}
	var ns [2]*quorate.Namespace
	var sessions [2]*concurrency.Session
	for i := range 2 {
		if ns[i], err = openQuorate(ctx, natsURL, 0); err != nil {
			return nil, err
		}
		client, err := openEtcd(ctx, etcdURL)
		if err != nil {
			return nil, err
		}
		if sessions[i], err = concurrency.NewSession(client); err != nil {
			return nil, err
		}
	}

	// Each of many elections is handed over once in a sweep, so that each candidate has waited for a while.
	many, sweeps := pick(b, 80, 30, 2), pick(b, 8, 2, 1)
	var ours, theirs []*seat
	for i := range many {
		q, err := quorateSeat(ns, fmt.Sprintf("many-%d", i))
		if err != nil {
			return nil, err
		}
		e := etcdSeat(sessions, fmt.Sprintf("many-%d", i))
		for _, s := range []*seat{q, e} {
			if err := s.open(ctx); err != nil {
				return nil, err
			}
		}
		ours, theirs = append(ours, q), append(theirs, e)
	}
	one := func(s *seat, to *series) error {
		d, err := s.pass(ctx)
		if err == nil && to != nil {
			to.time(d)
		}
		return err
	}
	var settledQ, settledE series
	for sweep := range sweeps + 1 {
		if err := sleep(ctx, pick(b, settled, settled, 0)); err != nil {
			return nil, err
		}
		q, e := &settledQ, &settledE
		if sweep == 0 {
			q, e = nil, nil // warms up
		}
		err := b.byTurns(ctx, many, func(i int) error { return one(ours[i], q) }, func(i int) error { return one(theirs[i], e) })
		if err != nil {
			return nil, err
		}
	}

	// Back to back: the candidate has begun to wait a moment ago.
	q, err := quorateSeat(ns, "back")
	if err != nil {
		return nil, err
	}
	e := etcdSeat(sessions, "back")
	for _, s := range []*seat{q, e} {
		if err := s.open(ctx); err != nil {
			return nil, err
		}
	}
	var backQ, backE series
	n := pick(b, 150, 50, 3)
	if err := b.byTurns(ctx, n, func(int) error { return one(q, &backQ) }, func(int) error { return one(e, &backE) }); err != nil {
		return nil, err
	}
	return []Row{
		{What: "hand-over, the candidate waits", Unit: "ms", Quorate: settledQ.stat(), Peer: "etcd", Theirs: settledE.stat(),
			Targets: []Target{{"p50", 1}, {"p99", 5}}, Note: "two candidates with a connection each; the next has waited for 2 s and more"},
		{What: "hand-over, back to back", Unit: "ms", Quorate: backQ.stat(), Peer: "etcd", Theirs: backE.stat(),
			Note: "the next has begun to wait a moment before"},
	}, nil
}
