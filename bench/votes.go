package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/vote"
)

const (
	voteGroup  = "votes"
	plainAsk   = "bench.ask" // a plain question to all
	slowDecide = 500 * time.Millisecond
)

// votersRole is a process with members that say yes, each with a connection of its own. They also answer a plain question, with as many bytes as
// a vote has, for what NATS takes by itself. One that is slow thinks for a while first.
func votersRole(ctx context.Context, a childArgs) (role, error) {
	started := make(chan startOf, 1<<16)
	yes := func(ctx context.Context, _ vote.Ballot) vote.Answer {
		if a.System == "slow" {
			_ = sleep(ctx, slowDecide) // decided without it meanwhile: its answer is of no use any more
		}
		return vote.Yes()
	}
	act := func(_ context.Context, b vote.Ballot) error {
		started <- startOf{b.ID, time.Now().UnixNano()}
		return nil
	}
	answer := wire.Encode(&wire.Vote{V: wire.Version, Ballot: "Nq8fWJ2mPzq0x3b6Kd1wE5", Round: "Nq8fWJ2mPzq0x3b6Kd1wE6", ID: "m-0-000", Incarnation: 1 << 50, Answer: wire.Yes})
	err := each(ctx, a.N, 32, func(_ context.Context, i int) error {
		ns, err := openQuorate(ctx, a.URL, a.Lease)
		if err != nil {
			return err
		}
		if _, err := ns.Inner().Store.Conn().Subscribe(plainAsk, func(m *nats.Msg) { _ = m.Respond(answer) }); err != nil {
			return err
		}
		g, err := coord.Join(ctx, ns, voteGroup, coord.Config{ID: fmt.Sprintf("%s-%d", a.Name, i)})
		if err != nil {
			return err
		}
		_, err = vote.Join(ctx, g, vote.Config{Decide: yes, Act: act})
		return err
	})
	return role{answer: func(context.Context, string) (any, error) {
		l := []startOf{}
		for {
			select {
			case s := <-started:
				l = append(l, s)
			default:
				return l, nil
			}
		}
	}}, err
}

// A startOf is when a process began an action. The wall clock is one for all processes of the machine.
type startOf struct {
	Ballot string
	At     int64
}

// An electorate is a group whose members vote: the first one, which leads, in a process of its own; the others share one; and the one who
// asks, in this process.
type electorate struct {
	n   int
	url string
	ask *coord.Client
	nc  *nats.Conn
}

// electorate makes one of n members; alone has each of them in a process of its own.
func (b *bench) electorate(ctx context.Context, n int, alone bool) (e *electorate, members []*process, err error) {
	e = &electorate{n: n}
	if _, e.url, err = b.server(ctx, "nats"); err != nil {
		return nil, nil, err
	}
	groups := []int{1, n - 1}
	if alone {
		groups = nil
		for range n {
			groups = append(groups, 1)
		}
	}
	for i, n := range groups {
		p, err := b.start(ctx, "voters", childArgs{URL: e.url, N: n, Name: fmt.Sprintf("m-%d", i), Lease: quorate.DefaultLease}, nil)
		if err != nil {
			return nil, nil, err
		}
		members = append(members, p)
	}
	ns, err := openQuorate(ctx, e.url, quorate.DefaultLease)
	if err != nil {
		return nil, nil, err
	}
	e.nc = ns.Inner().Store.Conn()
	e.ask, err = coord.Open(ctx, ns, voteGroup)
	return e, members, err
}

// vote asks all, and gives the time until the verdict. On a starved machine a group loses its leader: then it asks again.
func (e *electorate) vote(ctx context.Context, kind vote.Kind) (took time.Duration, err error) {
	for range 3 {
		if took, err = e.voteOnce(ctx, kind); err == nil || ctx.Err() != nil {
			return took, err
		}
	}
	return 0, err
}

func (e *electorate) voteOnce(ctx context.Context, kind vote.Kind) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	began := time.Now()
	v, err := vote.Propose(ctx, e.ask, vote.Proposal{Topic: "go on?", Kind: kind})
	took := time.Since(began)
	if err == nil && !v.Won() {
		err = fmt.Errorf("verdict of %s: %s, %d yes of %d: %s", kind, v.Verdict, v.Yes, v.Of, v.Why)
	}
	return took, err
}

// askPlainly asks all by one message, and gives the time until all have answered. On a starved machine connections break, and answers are lost with
// them: then it asks again.
func (e *electorate) askPlainly(ctx context.Context) (took time.Duration, err error) {
	for range 3 {
		if took, err = e.askOnce(ctx); err == nil || ctx.Err() != nil {
			return took, err
		}
	}
	return 0, fmt.Errorf("a plain question: %w", err)
}

func (e *electorate) askOnce(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	answers, err := e.nc.SubscribeSync(e.nc.NewInbox()) // its own: what comes late is no answer to the next one
	if err != nil {
		return 0, err
	}
	defer func() { _ = answers.Unsubscribe() }()
	if err := answers.SetPendingLimits(-1, -1); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := e.nc.PublishRequest(plainAsk, answers.Subject, make([]byte, 200)); err != nil {
		return 0, err
	}
	for range e.n {
		if _, err := answers.NextMsgWithContext(ctx); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}

// votes measures how long a vote takes, in groups of different sizes and with members that are slow and dead, and how many can be held in a
// second.
func votes(ctx context.Context, b *bench) ([]Row, error) {
	var rows []Row
	for _, size := range []struct {
		n, times int
		target   []Target
	}{
		{pick(b, 10, 10, 3), pick(b, 1000, 200, 3), nil},
		{pick(b, 100, 100, 5), pick(b, 500, 100, 3), []Target{{"p99", 5}}},
		{pick(b, 1000, 300, 10), pick(b, 150, 20, 3), []Target{{"p99", 40}}},
	} {
		r, err := b.verdicts(ctx, size.n, size.times, size.target)
		if err != nil {
			return nil, fmt.Errorf("%d members: %w", size.n, err)
		}
		rows = append(rows, r...)
	}
	r, err := b.verdictsWithout(ctx, pick(b, 100, 50, 5), pick(b, 300, 50, 2))
	if err != nil {
		return nil, fmt.Errorf("one slow and one dead: %w", err)
	}
	rows = append(rows, r)
	r, err = b.ballots(ctx)
	if err != nil {
		return nil, fmt.Errorf("ballots a second: %w", err)
	}
	return append(rows, r), nil
}

func (b *bench) verdicts(ctx context.Context, n, times int, targets []Target) ([]Row, error) {
	e, members, err := b.electorate(ctx, n, false)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, m := range members {
			m.stop()
		}
	}()
	if err := sleep(ctx, pick(b, 3*time.Second, 2*time.Second, 10*time.Millisecond)); err != nil { // what joining has left to do
		return nil, err
	}
	var all, most, plain series
	one := func(kind vote.Kind, to *series) func(i int) error {
		return func(i int) error {
			d, err := e.vote(ctx, kind)
			if i >= pick(b, 20, 5, 0) {
				to.time(d)
			}
			return err
		}
	}
	err = b.byTurns(ctx, times, func(i int) error {
		return errors.Join(one(vote.Consensus, &all)(i), one(vote.Majority, &most)(i))
	}, func(int) error {
		d, err := e.askPlainly(ctx)
		plain.time(d)
		return err
	})
	peer := "plain NATS: asked, all have answered"
	note := "from Propose to its return, by a client that is no member: the verdict is sealed on disk by then. The first member leads, in a process of its own; the others share one, with a connection each"
	return []Row{
		{What: fmt.Sprintf("verdict of %d members, all say yes", n), Unit: "ms", Quorate: all.stat(), Peer: peer, Theirs: plain.stat(), Targets: targets, Note: note},
		{What: fmt.Sprintf("verdict of %d members, by majority", n), Unit: "ms", Quorate: most.stat(), Peer: peer, Theirs: plain.stat(), Targets: targets},
	}, err
}

// verdictsWithout has one member that takes its time, and one that was killed and is a member still: the majority waits for neither.
func (b *bench) verdictsWithout(ctx context.Context, n, times int) (Row, error) {
	e, members, err := b.electorate(ctx, n-2, false)
	if err != nil {
		return Row{}, err
	}
	for i, system := range []string{"slow", "quorate"} {
		p, err := b.start(ctx, "voters", childArgs{System: system, URL: e.url, N: 1, Name: fmt.Sprintf("x-%d", i), Lease: quorate.DefaultLease}, nil)
		if err != nil {
			return Row{}, err
		}
		members = append(members, p)
	}
	defer func() {
		for _, m := range members {
			m.stop()
		}
	}()
	if err := sleep(ctx, pick(b, 3*time.Second, 2*time.Second, 10*time.Millisecond)); err != nil {
		return Row{}, err
	}
	members[len(members)-1].kill()
	var took series
	counted := 0
	for i, end := 0, time.Now().Add(5*time.Second); i < times && time.Now().Before(end); i++ { // its membership runs out after 6 s
		d, err := e.vote(ctx, vote.Majority)
		if err != nil {
			return Row{}, err
		}
		took.time(d)
		counted++
	}
	return Row{What: fmt.Sprintf("verdict of %d members, by majority, one slow, one dead", n), Unit: "ms", Quorate: took.stat(), Targets: []Target{{"p99", 5}},
		Note: fmt.Sprintf("one thinks for %v over each question, one was killed and counts as a member until its lease has run out", slowDecide)}, nil
}

// ballots counts votes that are held at the same time, beside plain synced writes, of which each vote is one.
func (b *bench) ballots(ctx context.Context) (Row, error) {
	const n, atOnceN = 10, 64
	e, members, err := b.electorate(ctx, pick(b, n, n, 3), false)
	if err != nil {
		return Row{}, err
	}
	defer func() {
		for _, m := range members {
			m.stop()
		}
	}()
	ns, err := openQuorate(ctx, e.url, quorate.DefaultLease)
	if err != nil {
		return Row{}, err
	}
	store := ns.Inner().Store
	var keys atomic.Uint64
	for _, err := range []error{ctx.Err(), sleep(ctx, pick(b, time.Second, time.Second, 0)+1)} {
		if err != nil {
			return Row{}, err
		}
	}
	value := make([]byte, 400)
	rate := func(to *series, one func(ctx context.Context) error) error {
		var done atomic.Uint64
		began := time.Now()
		run, cancel := context.WithTimeout(ctx, pick(b, 2*time.Second, time.Second, 50*time.Millisecond))
		defer cancel()
		var wg sync.WaitGroup
		errs := make(chan error, atOnceN)
		for range atOnceN {
			wg.Go(func() {
				for run.Err() == nil {
					if err := one(ctx); err != nil {
						errs <- err
						return
					}
					done.Add(1)
				}
			})
		}
		wg.Wait()
		to.add(float64(done.Load()) / time.Since(began).Seconds())
		select {
		case err := <-errs:
			return err
		default:
			return nil
		}
	}
	var ours, theirs series
	err = b.byTurns(ctx, pick(b, 5, 2, 1), func(int) error {
		return rate(&ours, func(ctx context.Context) error { _, err := e.vote(ctx, vote.Majority); return err })
	}, func(int) error {
		return rate(&theirs, func(ctx context.Context) error {
			key := fmt.Sprintf("check.bench-%d", keys.Add(1))
			_, out, err := store.Do(ctx, kv.Write{Key: key, Value: value, TTL: time.Minute})
			if out != kv.Yes {
				return fmt.Errorf("a plain write: %v, %w", out, err)
			}
			return nil
		})
	})
	return Row{What: fmt.Sprintf("ballots of %d members, %d at once", e.n, atOnceN), Unit: "a second", More: true, Quorate: ours.stat(), Peer: "a synced write each, as many at once",
		Theirs: theirs.stat(), Note: "each ballot is put, broadcast, answered by all, sealed on disk, announced, and answered; who asks, server, leader and members share the cores"}, err
}
