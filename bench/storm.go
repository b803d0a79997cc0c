package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/nats-io/nats.go"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/quorate/quorate/coord"
)

// A stormResult is when, after the start, in milliseconds.
type stormResult struct {
	Member float64 // the last member was one
	View   float64 // the last member saw all

	Reconnects uint64 // of all members' connections: on a starved machine their pings go unanswered
}

// A storming is what happens in one storm: each member says once that it is one, and once that it sees all.
type storming struct {
	began        time.Time
	n            int
	member, view atomic.Int64
	mu           sync.Mutex
	result       stormResult
	conns        []*nats.Conn
	done         chan struct{}
}

func (s *storming) isMember() { s.count(&s.member, &s.result.Member) }
func (s *storming) seesAll()  { s.count(&s.view, &s.result.View) }

// look has the first member look until it sees all; the others count as if they did.
func (s *storming) look(ctx context.Context, i int, fn func() (int, error)) error {
	for i == 0 {
		if n, err := fn(); err == nil && n >= s.n { // an answer that is late is asked for again
			break
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	s.seesAll()
	return nil
}

func (s *storming) count(c *atomic.Int64, at *float64) {
	if c.Add(1) != int64(s.n) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	*at = float64(time.Since(s.began)) / float64(time.Millisecond)
	if s.result.Member > 0 && s.result.View > 0 {
		close(s.done)
	}
}

// stormRole is a process with many members that all join on command: from nothing, connection included, until each sees all
// of them. The process is thrown away afterwards.
func stormRole(_ context.Context, a childArgs) (role, error) {
	return role{answer: func(ctx context.Context, _ string) (any, error) {
		s := &storming{n: a.N, done: make(chan struct{}), began: time.Now()}
		join := map[string]func(context.Context, childArgs, int, *storming) error{
			"quorate": stormQuorate, "etcd": stormEtcd, "memberlist": stormMemberlist()}[a.System]
		if err := each(ctx, a.N, a.N, func(_ context.Context, i int) error { return join(ctx, a, i, s) }); err != nil {
			return nil, err
		}
		if _, err := recv(ctx, "join storm", s.done); err != nil {
			return nil, err
		}
		for _, nc := range s.conns {
			s.result.Reconnects += nc.Stats().Reconnects
		}
		return s.result, nil
	}}, nil
}

// stormBound is how long a storm may take. One that has not ended by then counts with it, is told, and is not tried again.
const stormBound = 30 * time.Second

func stormQuorate(ctx context.Context, a childArgs, i int, s *storming) error {
	ns, err := openQuorate(ctx, a.URL, a.Lease)
	for err != nil && ctx.Err() == nil { // a service would be started again
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
		ns, err = openQuorate(ctx, a.URL, a.Lease)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.conns = append(s.conns, ns.Inner().Store.Conn())
	s.mu.Unlock()
	g, err := coord.Join(ctx, ns, "storm", coord.Config{ID: fmt.Sprintf("m-%d", i)})
	if err != nil {
		return err
	}
	s.isMember()
	if !a.All {
		return s.look(ctx, i, func() (int, error) { l, err := g.Members(ctx); return len(l), err })
	}
	go func() {
		saw := false
		for v, err := range g.Watch(ctx) {
			if err != nil {
				return
			}
			if !saw && len(v.Members) == s.n {
				saw = true
				s.seesAll()
			}
		}
	}()
	return nil
}

// stormEtcd does by hand what etcd has no package for: a key of one's own under a session's lease, and a watch of the rest.
func stormEtcd(ctx context.Context, a childArgs, i int, s *storming) error {
	client, err := openEtcd(ctx, a.URL)
	if err != nil {
		return err
	}
	session, err := concurrency.NewSession(client, concurrency.WithTTL(int(2*a.Lease/time.Second)))
	if err != nil {
		return err
	}
	if _, err := client.Put(ctx, fmt.Sprintf("storm/%d", i), "m", clientv3.WithLease(session.Lease())); err != nil {
		return err
	}
	s.isMember()
	if !a.All {
		return s.look(ctx, i, func() (int, error) {
			r, err := client.Get(ctx, "storm/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
			if err != nil {
				return 0, err
			}
			return len(r.Kvs), nil
		})
	}
	r, err := client.Get(ctx, "storm/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, kv := range r.Kvs {
		known[string(kv.Key)] = true
	}
	go func() {
		w := client.Watch(ctx, "storm/", clientv3.WithPrefix(), clientv3.WithRev(r.Header.Revision+1))
		for len(known) < s.n {
			resp, ok := <-w
			if !ok {
				return
			}
			for _, e := range resp.Events {
				if e.IsCreate() {
					known[string(e.Kv.Key)] = true
				}
			}
		}
		s.seesAll()
	}()
	return nil
}

// counted tells when a memberlist has seen all, itself included.
type counted struct {
	s *storming
	n *atomic.Int64
}

func (c counted) NotifyJoin(*memberlist.Node) {
	if c.n.Add(1) == int64(c.s.n) {
		c.s.seesAll()
	}
}
func (c counted) NotifyLeave(*memberlist.Node)  { c.n.Add(-1) }
func (c counted) NotifyUpdate(*memberlist.Node) {}

// stormMemberlist has everybody join through the first one, as a service would through a name.
func stormMemberlist() func(context.Context, childArgs, int, *storming) error {
	first := make(chan string)
	return func(ctx context.Context, a childArgs, i int, s *storming) error {
		m, err := openMemberlist(fmt.Sprintf("m-%d", i), counted{s, &atomic.Int64{}})
		if err != nil {
			return err
		}
		if i == 0 {
			go func() {
				for {
					select {
					case first <- addr(m):
					case <-ctx.Done():
						return
					}
				}
			}()
		} else {
			peer, err := recv(ctx, "first member", first)
			if err != nil {
				return err
			}
			if err := joinMemberlist(ctx, m, peer); err != nil {
				return err
			}
		}
		s.isMember()
		return nil
	}
}

// storm lets members join all at once, each time on a new server: until the last is a member, and until the last sees all.
//
// A thousand watches of a thousand members are left out: nobody runs that, and it measures only how fast one process takes
// a million events. There the view is one observer's.
func storm(ctx context.Context, b *bench) ([]Row, error) {
	var rows []Row
	for _, size := range []struct {
		n, times int
		all      bool // each member wants to see all
	}{{pick(b, 100, 100, 5), pick(b, 5, 2, 1), true}, {pick(b, 1000, 200, 10), pick(b, 3, 1, 1), false}} {
		systems := []string{"quorate", "etcd", "memberlist"}
		if !size.all {
			systems = systems[:2]
		}
		var member, view [3]series
		var reconnects uint64
		endless := map[string]bool{}
		for range size.times {
			for i, system := range systems {
				if endless[system] {
					continue
				}
				r, err := b.stormOnce(ctx, system, size.n, size.all)
				switch {
				case errors.Is(err, errEndless):
					endless[system] = true
				case err != nil:
					return nil, err
				}
				member[i].add(r.Member)
				view[i].add(r.View)
				reconnects += r.Reconnects
			}
		}
		what, seen := fmt.Sprintf("join storm of %d", size.n), ", all see all"
		note := "from nothing: connect, join, and hear of all others by a watch; all members in one process, a connection each; etcd: a session with a key and a watch each"
		if !size.all {
			seen, note = ", one sees all", "from nothing: connect and join; the first member, once it is one, asks for the roster (etcd: reads the keys) until all are in it"
		}
		if reconnects > 0 {
			note += fmt.Sprintf("; %d reconnects of quorate's members, whose pings were not answered in time", reconnects)
		}
		for _, system := range systems {
			if endless[system] {
				note += fmt.Sprintf("; one storm of %s did not end within %v, which counts as that", system, stormBound)
			}
		}
		for i, peer := range systems[1:] {
			rows = append(rows,
				Row{What: what + ", all are members", Unit: "ms", Quorate: member[0].stat(), Peer: peer, Theirs: member[i+1].stat()},
				Row{What: what + seen, Unit: "ms", Quorate: view[0].stat(), Peer: peer, Theirs: view[i+1].stat(), Note: note})
			note = ""
		}
	}
	return rows, nil
}

func (b *bench) stormOnce(ctx context.Context, system string, n int, all bool) (r stormResult, err error) {
	a := childArgs{System: system, N: n, Lease: 3 * time.Second, All: all}
	if system != "memberlist" {
		var server *process
		if server, a.URL, err = b.server(ctx, map[string]string{"quorate": "nats", "etcd": "etcd"}[system]); err != nil {
			return r, err
		}
		defer server.stop()
	}
	p, err := b.start(ctx, "storm", a, nil)
	if err != nil {
		return r, err
	}
	defer p.stop()
	defer p.kill()
	bounded, cancel := context.WithTimeoutCause(ctx, stormBound, errEndless)
	defer cancel()
	if err = p.ask(bounded, "go", &r); errors.Is(err, errEndless) {
		r.Member = float64(stormBound.Milliseconds())
		r.View = r.Member
	}
	return r, err
}

var errEndless = errors.New("the storm does not end")
