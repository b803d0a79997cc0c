package main

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/wire"
)

const (
	beatGroup    = "beats"
	plainSubject = "bench.plain"
	beatSeq      = 987654321 // stands where the number goes
)

// leaderRole is a process that leads a group, as its only member so far. It also answers plain requests, with an answer
// as long as the leader's, for what NATS takes by itself.
func leaderRole(ctx context.Context, a childArgs) (role, error) {
	ns, err := openQuorate(ctx, a.URL, a.Lease)
	if err != nil {
		return role{}, err
	}
	if _, err := coord.Join(ctx, ns, beatGroup, coord.Config{ID: "first"}); err != nil {
		return role{}, err
	}
	answer := wire.Encode(wire.Reply{V: wire.Version, Seq: beatSeq, Token: 1 << 50, GrantMS: 6000, LeaseMS: 3000, AckMS: 3000, Map: wire.MapJump, Idle: true})
	_, err = ns.Inner().Store.Conn().Subscribe(plainSubject, func(m *nats.Msg) { _ = m.Respond(answer) })
	return role{}, err
}

// A rate is what the driver has counted.
type rate struct {
	Answers uint64
	Took    time.Duration
}

// driverRole sends the heartbeats of many members, each with a record as members write it, as fast as they are answered.
func driverRole(ctx context.Context, a childArgs) (role, error) {
	ns, err := openQuorate(ctx, a.URL, a.Lease)
	if err != nil {
		return role{}, err
	}
	subject := wire.GroupSubject(ns.Name(), beatGroup, wire.SubHeartbeat)
	beats := make([]beat, a.N)
	for i := range beats {
		id, now := fmt.Sprintf("m-%d", i), wire.Time(time.Now())
		roles := []string{wire.RoleLead}
		rec := wire.Member{V: wire.Version, ID: id, Incarnation: uint64(time.Now().UnixMicro()), Joined: now, Roles: roles, Nonce: "bench-" + id}
		_, out, err := ns.Inner().Store.Do(ctx, kv.Write{Key: wire.MemberKey(beatGroup, id), Value: wire.Encode(&rec), TTL: time.Hour})
		if err != nil || out != kv.Yes {
			return role{}, fmt.Errorf("member record: %v, %w", out, err)
		}
		data := wire.Encode(wire.Heartbeat{V: wire.Version, ID: id, Incarnation: rec.Incarnation, Seq: beatSeq, Roles: roles, Joined: now})
		head, rest, _ := bytes.Cut(data, []byte(strconv.Itoa(beatSeq)))
		beats[i] = beat{head: head, rest: rest}
	}
	return role{answer: func(ctx context.Context, command string) (any, error) {
		what, ms, _ := strings.Cut(command, " ")
		n, err := strconv.Atoi(ms)
		if err != nil {
			return nil, err
		}
		to := subject
		if what == "plain" {
			to = plainSubject
		}
		return drive(ctx, a.URL, to, beats, time.Duration(n)*time.Millisecond)
	}}, nil
}

// A beat is one member's heartbeat, but for its number.
type beat struct {
	head, rest []byte
	seq        uint64
}

// drive sends for a while, with a bounded number of requests under way, and counts the answers that say something.
func drive(ctx context.Context, url, subject string, beats []beat, d time.Duration) (rate, error) {
	// Below the number of members: of each of them a leader has one heartbeat wait, the newest.
	window := uint64(min(1024, max(len(beats)/2, 1)))
	nc, err := nats.Connect(url)
	if err != nil {
		return rate{}, err
	}
	defer nc.Close()
	var answered, empty atomic.Uint64
	wake := make(chan struct{}, 1)
	inbox := nc.NewInbox()
	sub, err := nc.Subscribe(inbox, func(m *nats.Msg) {
		if len(m.Data) == 0 {
			empty.Add(1) // nobody leads
		}
		answered.Add(1)
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return rate{}, err
	}
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return rate{}, err
	}
	var buf []byte
	began := time.Now()
	var sent, lost uint64
	for i := 0; time.Since(began) < d && ctx.Err() == nil; {
		for sent-answered.Load()-lost < window {
			b := &beats[i%len(beats)]
			i++
			b.seq++
			buf = append(strconv.AppendUint(append(buf[:0], b.head...), b.seq, 10), b.rest...)
			if err := nc.PublishRequest(subject, inbox, buf); err != nil {
				return rate{}, err
			}
			sent++
		}
		select {
		case <-wake:
		case <-time.After(200 * time.Millisecond): // what is under way was lost: a leader drops what is too much for it
			lost = sent - answered.Load()
		}
	}
	r := rate{Answers: answered.Load(), Took: time.Since(began)}
	if empty.Load() > 0 {
		return r, fmt.Errorf("%d of %d requests found nobody who answers", empty.Load(), r.Answers)
	}
	return r, nil
}

// heartbeats measures how many heartbeats a second one leader answers, and how many plain requests NATS carries between the
// same processes. Server, leader and the one who drives share the machine.
func heartbeats(ctx context.Context, b *bench) ([]Row, error) {
	_, url, err := b.server(ctx, "nats")
	if err != nil {
		return nil, err
	}
	a := childArgs{System: "quorate", URL: url, N: pick(b, 1000, 200, 5), Lease: quorate.DefaultLease}
	lead, err := b.start(ctx, "leader", a, nil)
	if err != nil {
		return nil, err
	}
	driver, err := b.start(ctx, "driver", a, nil)
	if err != nil {
		return nil, err
	}
	var ours, theirs series
	var cpu, answers float64
	ms := pick(b, 1500, 800, 50)
	one := func(what string, to *series) error {
		before, err := lead.usage(ctx)
		if err != nil {
			return err
		}
		var r rate
		if err := driver.ask(ctx, fmt.Sprintf("%s %d", what, ms), &r); err != nil {
			return err
		}
		after, err := lead.usage(ctx)
		if what == "beats" {
			cpu += float64(after.CPU-before.CPU) / float64(time.Microsecond)
			answers += float64(r.Answers)
		}
		to.add(float64(r.Answers) / r.Took.Seconds())
		return err
	}
	err = b.byTurns(ctx, pick(b, 5, 2, 1), func(int) error { return one("beats", &ours) }, func(int) error { return one("plain", &theirs) })
	if err != nil {
		return nil, err
	}
	return []Row{{What: "heartbeats answered by one leader", Unit: "a second", More: true, Quorate: ours.stat(), Peer: "plain NATS request and answer",
		Theirs: theirs.stat(), Targets: []Target{{"p50", 100000}},
		Note: fmt.Sprintf("of %d members with records; %.1f µs of the leader's processor time each; server, leader and driver share the cores", a.N, cpu/answers)}}, nil
}
