package main

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/quorate/quorate/coord"
)

// membersRole is a process with many members that do nothing, each with a connection of its own.
func membersRole(ctx context.Context, a childArgs) (role, error) {
	first := ""
	one := func(i int) error {
		switch a.System {
		case "quorate":
			ns, err := openQuorate(ctx, a.URL, a.Lease)
			if err == nil {
				_, err = coord.Join(ctx, ns, "idle", coord.Config{ID: fmt.Sprintf("m-%d", i)})
			}
			return err
		case "nats":
			return beatPlainly(ctx, a.URL, a.Lease/6, i)
		case "etcd":
			client, err := openEtcd(ctx, a.URL)
			if err == nil {
				_, err = concurrency.NewSession(client, concurrency.WithTTL(int(a.Lease/time.Second)))
			}
			return err
		}
		m, err := openMemberlist(fmt.Sprintf("m-%d", i), nil)
		switch {
		case err != nil:
			return err
		case i == 0:
			first = addr(m)
			return nil
		}
		return joinMemberlist(ctx, m, first)
	}
	if err := one(0); err != nil { // the leader; the one that others join through
		return role{}, err
	}
	return role{}, each(ctx, a.N-1, 16, func(_ context.Context, i int) error { return one(i + 1) })
}

// beatPlainly is the least that NATS takes for heartbeats: a connection each, a request from time to time, and the first
// one answers.
func beatPlainly(ctx context.Context, url string, every time.Duration, i int) error {
	nc, err := nats.Connect(url)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, nc.Close)
	data := make([]byte, 100)
	if i == 0 {
		_, err = nc.Subscribe(plainSubject, func(m *nats.Msg) { _ = m.Respond(data) })
		return err
	}
	inbox := nc.NewInbox()
	if _, err := nc.Subscribe(inbox, func(*nats.Msg) {}); err != nil {
		return err
	}
	go func() {
		for anytime(ctx, every) == nil { // not all at the same moment
			for sleep(ctx, every) == nil {
				_ = nc.PublishRequest(plainSubject, inbox, data) // the next one comes soon
			}
		}
	}()
	return nil
}

// idle measures the processor time of members that do nothing, and of their server, for a while: by what the system says of
// the processes, all at the same time.
func idle(ctx context.Context, b *bench) ([]Row, error) {
	natsServer, natsURL, err := b.server(ctx, "nats")
	if err != nil {
		return nil, err
	}
	etcdServer, etcdURL, err := b.server(ctx, "etcd")
	if err != nil {
		return nil, err
	}
	plainServer, plainURL, err := b.server(ctx, "nats")
	if err != nil {
		return nil, err
	}
	n, few := pick(b, 1000, 300, 10), pick(b, 100, 50, 5)
	quorate, err := b.start(ctx, "members", childArgs{System: "quorate", URL: natsURL, N: n, Lease: 3 * time.Second}, nil)
	if err != nil {
		return nil, err
	}
	etcd, err := b.start(ctx, "members", childArgs{System: "etcd", URL: etcdURL, N: n, Lease: 6 * time.Second}, nil)
	if err != nil {
		return nil, err
	}
	gossip, err := b.start(ctx, "members", childArgs{System: "memberlist", N: few}, nil)
	if err != nil {
		return nil, err
	}
	plain, err := b.start(ctx, "members", childArgs{System: "nats", URL: plainURL, N: n, Lease: 3 * time.Second}, nil)
	if err != nil {
		return nil, err
	}
	if err := sleep(ctx, pick(b, 5*time.Second, 3*time.Second, 100*time.Millisecond)); err != nil { // what joining has left to do
		return nil, err
	}
	all := []*process{quorate, natsServer, etcd, etcdServer, gossip, plain, plainServer}
	var messages [2]uint64 // in and out, of quorate's server
	if err := natsServer.ask(ctx, "messages", &messages[0]); err != nil {
		return nil, err
	}
	before, after := make([]Usage, len(all)), make([]Usage, len(all))
	took := make([]time.Duration, len(all))
	for i, p := range all {
		if before[i], err = p.usage(ctx); err != nil {
			return nil, err
		}
		took[i] = -time.Duration(time.Now().UnixNano())
	}
	if err := sleep(ctx, pick(b, 30*time.Second, 5*time.Second, 500*time.Millisecond)); err != nil {
		return nil, err
	}
	percent := make([]float64, len(all)) // of one core
	for i, p := range all {
		if after[i], err = p.usage(ctx); err != nil {
			return nil, err
		}
		took[i] += time.Duration(time.Now().UnixNano())
		percent[i] = 100 * float64(after[i].CPU-before[i].CPU) / float64(took[i])
	}
	if err := natsServer.ask(ctx, "messages", &messages[1]); err != nil {
		return nil, err
	}
	rate := float64(messages[1]-messages[0]) / took[1].Seconds() / float64(n)
	ours, theirs := percent[0]+percent[1], percent[2]+percent[3]
	each := func(percent float64, n int) *Stat { return single(percent / 100 * 1e6 / float64(n)) } // µs a second
	return []Row{
		{What: fmt.Sprintf("idle, %d members", n), Unit: "% of a core", Quorate: single(ours), Peer: "etcd, leases kept alive", Theirs: single(theirs),
			Targets: []Target{{"max", 10}},
			Note: fmt.Sprintf("members and leader %.1f %%, server %.1f %% (etcd: %.1f %% and %.1f %%); quorate: lease 3 s, a heartbeat of each member each 0.5 s, answered by the leader; etcd: TTL 6 s, a keep-alive each 2 s; a connection each. %.1f messages a second of each member, in and out of the server together",
				percent[0], percent[1], percent[2], percent[3], rate)},
		{What: fmt.Sprintf("idle, %d members, beside plain heartbeats", n), Unit: "% of a core", Quorate: single(ours), Peer: "plain NATS", Theirs: single(percent[5] + percent[6]),
			Note: fmt.Sprintf("plain: %d connections, a request each 0.5 s, answered, nothing else: members %.1f %%, server %.1f %%", n, percent[5], percent[6])},
		{What: "idle, one member", Unit: "µs of processor time a second", Quorate: each(ours, n), Peer: fmt.Sprintf("memberlist, LAN, of %d", few), Theirs: each(percent[4], few),
			Note: fmt.Sprintf("%d memberlists in one process take %.1f %% of a core; a probe of each a second, gossip each 0.2 s; no server", few, percent[4])},
		{What: fmt.Sprintf("memory of the process with %d members", n), Unit: "MB", Quorate: single(after[0].RSS), Peer: "etcd", Theirs: single(after[2].RSS),
			Note: fmt.Sprintf("a connection each; the servers: %.0f MB, etcd %.0f MB", after[1].RSS, after[3].RSS)},
	}, nil
}
