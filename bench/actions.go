package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/vote"
)

// actions measures how far apart the processes of one machine begin what they have agreed on.
func actions(ctx context.Context, b *bench) ([]Row, error) {
	n := pick(b, 8, 8, 3)
	var rows []Row
	for _, without := range []bool{false, true} {
		r, err := b.starts(ctx, n, pick(b, 200, 60, 2), without)
		if err != nil {
			return nil, err
		}
		rows = append(rows, r...)
	}
	return rows, nil
}

// ahead is how far off the instant of an action is when it is asked for; tolerated, how much too late a member may begin it, by default if it is 0. The tests
// run on machines that stand still for a second, and ask for what works there.
func ahead(b *bench) time.Duration {
	return pick(b, quorate.DefaultLease/3, quorate.DefaultLease/3, quorate.DefaultLease)
}

func tolerated(b *bench) time.Duration { return pick(b, 0, 0, 10*time.Second) }

// agree asks for an action. On a starved machine a group loses its leader, or its members know the leader's clock too badly: then it asks again.
func (e *electorate) agree(ctx context.Context, b *bench) (ballot string, at time.Time, err error) {
	for range 3 {
		at = time.Now().Add(ahead(b))
		var v vote.Verdict
		v, err = vote.Propose(ctx, e.ask, vote.Proposal{Topic: "now", At: at, Tolerance: tolerated(b)})
		if err == nil && v.Won() {
			return v.Ballot, at, nil
		}
		err = fmt.Errorf("an action was not agreed on: %s %s %w", v.Verdict, v.Why, cmp.Or(err, errNotWon))
		if ctx.Err() != nil {
			break
		}
	}
	return "", at, err
}

var errNotWon = errors.New("no yes")

// starts has n processes act together, again and again. With some missing, one more is slow to say yes, and one more was killed and is a member still.
func (b *bench) starts(ctx context.Context, n, times int, missing bool) ([]Row, error) {
	e, members, err := b.electorate(ctx, n, true)
	if err != nil {
		return nil, err
	}
	what, note := fmt.Sprintf("actions of %d processes", n), "200 actions or so, one each 25 ms, each agreed on at least lease/3 ahead; the clock is one for all processes of a machine, so this is the error of the leader's clock as each member knows it, and of waking up"
	if missing {
		what, note = what+", one more slow, one more dead", "the slow one says yes after the verdict, and acts too; the dead one counts as a member until its lease has run out"
		for i, system := range []string{"slow", "quorate"} {
			p, err := b.start(ctx, "voters", childArgs{System: system, URL: e.url, N: 1, Name: fmt.Sprintf("x-%d", i), Lease: quorate.DefaultLease}, nil)
			if err != nil {
				return nil, err
			}
			members = append(members, p)
		}
	}
	defer func() {
		for _, m := range members {
			m.stop()
		}
	}()
	if err := sleep(ctx, pick(b, 2*time.Second, 2*time.Second, 10*time.Millisecond)); err != nil { // a few exchanges of clocks
		return nil, err
	}
	if missing {
		members[len(members)-1].kill()
		members = members[:len(members)-1]
	}
	instants := map[string]time.Time{}
	for range times {
		id, at, err := e.agree(ctx, b)
		if err != nil {
			return nil, err
		}
		instants[id] = at
		if err := sleep(ctx, 25*time.Millisecond); err != nil {
			return nil, err
		}
	}
	if err := sleep(ctx, ahead(b)+500*time.Millisecond); err != nil {
		return nil, err
	}
	began, lacks := map[string][]time.Time{}, true
	for end := time.Now().Add(tolerated(b)); lacks; { // late ones are waited for where they may be late
		lacks = false
		for _, m := range members {
			var l []startOf
			if err := m.ask(ctx, "starts", &l); err != nil {
				return nil, err
			}
			for _, s := range l {
				began[s.Ballot] = append(began[s.Ballot], time.Unix(0, s.At))
			}
		}
		for ballot := range instants {
			lacks = lacks || len(began[ballot]) < len(members)
		}
		if !time.Now().Before(end) {
			break
		}
		if err := sleep(ctx, 25*time.Millisecond); err != nil {
			return nil, err
		}
	}
	var spread, off series
	lacking := 0
	for ballot, at := range instants {
		l := began[ballot]
		lacking += len(members) - len(l)
		if len(l) < 2 {
			continue
		}
		spread.time(slices.MaxFunc(l, time.Time.Compare).Sub(slices.MinFunc(l, time.Time.Compare)))
		for _, s := range l {
			off.time(s.Sub(at).Abs())
		}
	}
	if lacking > 0 {
		note += fmt.Sprintf("; %d starts of %d are lacking: the members were late, and did not begin", lacking, len(members)*len(instants))
	}
	return []Row{
		{What: what + ": from the first start to the last", Unit: "ms", Quorate: spread.stat(), Targets: []Target{{"p99", 2}}, Note: note},
		{What: what + ": off the instant, each", Unit: "ms", Quorate: off.stat()},
	}, nil
}
