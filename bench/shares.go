package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/partition"
)

// sharers are members of one process that work on their shares, each with a connection of its own.
type sharers struct {
	url, group string
	lease      time.Duration

	mu      sync.Mutex
	wake    chan struct{} // closed, and made anew, at each change
	total   map[string]shared
	pauses  []float64 // milliseconds
	members map[string]*coord.Group
}

// shared is what a member holds.
type shared struct {
	total      int
	generation uint64
	at         time.Time // when it got it
}

// A whole is when all members of a process have got their shares of one generation.
type whole struct {
	At     int64 // the last of them: Unix time, nanoseconds
	Took   float64
	Joined float64   // go: from the first call of Join
	Pauses []float64 // of each member since this was asked for last: from when its work was stopped until it went on
}

// sharersRole is a process with many members. Commands: "go" joins all and waits until they have their shares, "wait N" until they have shares of N,
// "join ID" and "leave ID" are for one more.
func sharersRole(ctx context.Context, a childArgs) (role, error) {
	s := &sharers{url: a.URL, group: a.Name, lease: a.Lease, wake: make(chan struct{}), total: map[string]shared{}, members: map[string]*coord.Group{}}
	return role{answer: func(ask context.Context, command string) (any, error) {
		verb, arg, _ := strings.Cut(command, " ")
		switch verb {
		case "go":
			began := time.Now()
			var first sync.Once
			var joining time.Time
			err := each(ask, a.N, a.N, func(_ context.Context, i int) error {
				ns, err := openQuorate(ctx, s.url, s.lease)
				if err != nil {
					return err
				}
				first.Do(func() { joining = time.Now() })
				return s.join(ctx, ns, fmt.Sprintf("m-%d", i))
			})
			if err != nil {
				return nil, err
			}
			w, err := s.wait(ask, a.N)
			w.Took = float64(w.At-began.UnixNano()) / 1e6
			w.Joined = float64(w.At-joining.UnixNano()) / 1e6
			return w, err
		case "wait":
			n, err := strconv.Atoi(arg)
			if err != nil {
				return nil, err
			}
			return s.wait(ask, n)
		case "join":
			ns, err := openQuorate(ctx, s.url, s.lease)
			if err != nil {
				return nil, err
			}
			return nil, s.join(ctx, ns, arg)
		case "leave":
			s.mu.Lock()
			g := s.members[arg]
			s.mu.Unlock()
			return nil, g.Leave(ask)
		}
		return nil, fmt.Errorf("command %q", command)
	}}, nil
}

func (s *sharers) join(ctx context.Context, ns *quorate.Namespace, id string) error {
	g, err := coord.Join(ctx, ns, s.group, coord.Config{ID: id})
	if err != nil {
		return err
	}
	p, err := partition.Join(ctx, g, partition.Config{})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.members[id] = g
	s.mu.Unlock()
	var stopped time.Time
	go func() {
		_ = p.Run(ctx, func(ctx context.Context, a *partition.Assignment) error { // what goes wrong shows as a wait that does not end
			now := time.Now()
			s.mu.Lock()
			if !stopped.IsZero() {
				s.pauses = append(s.pauses, float64(now.Sub(stopped))/float64(time.Millisecond))
			}
			s.total[id] = shared{a.Total, a.Generation, now}
			s.stir()
			s.mu.Unlock()
			<-ctx.Done()
			stopped = time.Now()
			return nil
		})
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.total, id)
		delete(s.members, id)
		s.stir()
	}()
	return nil
}

// stir wakes who waits. The lock is held.
func (s *sharers) stir() {
	close(s.wake)
	s.wake = make(chan struct{})
}

// wait waits until all members of the process have a share of n, of one generation.
func (s *sharers) wait(ctx context.Context, n int) (whole, error) {
	for {
		s.mu.Lock()
		var last shared
		all := len(s.total) == len(s.members) && len(s.total) > 0
		for _, h := range s.total {
			if h.total != n || last.generation != 0 && h.generation != last.generation {
				all = false
				break
			}
			if h.at.After(last.at) {
				last = h
			}
		}
		wake := s.wake
		if all {
			w := whole{At: last.at.UnixNano(), Pauses: s.pauses}
			s.pauses = nil
			s.mu.Unlock()
			return w, nil
		}
		s.mu.Unlock()
		if _, err := recv(ctx, fmt.Sprintf("shares of %d", n), wake); err != nil {
			return whole{}, err
		}
		if ctx.Err() != nil {
			return whole{}, context.Cause(ctx)
		}
	}
}

// pause measures how long the work of all others stops when a member of another process joins and leaves as it should.
func pause(ctx context.Context, b *bench) ([]Row, error) {
	_, url, err := b.server(ctx, "nats")
	if err != nil {
		return nil, err
	}
	n := pick(b, 100, 100, 5)
	a := childArgs{System: "quorate", URL: url, Name: "pause", N: n, Lease: pick(b, quorate.DefaultLease, quorate.DefaultLease, 500*time.Millisecond)}
	others, err := b.start(ctx, "sharers", a, nil)
	if err != nil {
		return nil, err
	}
	one, err := b.start(ctx, "sharers", a, nil)
	if err != nil {
		return nil, err
	}
	var w whole
	if err := others.ask(ctx, "go", &w); err != nil {
		return nil, err
	}
	var join, leave series
	for i := range pick(b, 12, 4, 2) {
		// A new one each time: one that comes and goes again and again is made to wait (S17).
		for _, change := range []struct {
			command string
			total   int
			to      *series
		}{{fmt.Sprintf("join x-%d", i), n + 1, &join}, {fmt.Sprintf("leave x-%d", i), n, &leave}} {
			if err := anytime(ctx, a.Lease/6); err != nil { // at any phase of their heartbeats
				return nil, err
			}
			if err := one.ask(ctx, change.command, nil); err != nil {
				return nil, err
			}
			if err := others.ask(ctx, fmt.Sprintf("wait %d", change.total), &w); err != nil {
				return nil, err
			}
			for _, p := range w.Pauses {
				change.to.add(p)
			}
		}
	}
	return []Row{
		{What: fmt.Sprintf("pause of %d others, one joins", n), Unit: "ms", Quorate: join.stat(), Targets: []Target{{"p99", 15}},
			Note: "of each of them, at each change: from when its work was told to stop until it goes on in the next generation; all in one process, a connection each"},
		{What: fmt.Sprintf("pause of %d others, one leaves", n), Unit: "ms", Quorate: leave.stat(), Targets: []Target{{"p99", 15}}},
	}, nil
}

// settleAll measures how long it takes from nothing until a thousand members that all come at once have their shares.
func settleAll(ctx context.Context, b *bench) ([]Row, error) {
	n := pick(b, 1000, 200, 10)
	lease := pick(b, quorate.DefaultLease, quorate.DefaultLease, 500*time.Millisecond)
	var first, nothing series
	endless := ""
	for range pick(b, 3, 1, 1) {
		server, url, err := b.server(ctx, "nats")
		if err != nil {
			return nil, err
		}
		p, err := b.start(ctx, "sharers", childArgs{System: "quorate", URL: url, Name: "settled", N: n, Lease: lease}, nil)
		if err != nil {
			return nil, err
		}
		var w whole
		bounded, cancel := context.WithTimeoutCause(ctx, stormBound, errEndless)
		err = p.ask(bounded, "go", &w)
		cancel()
		if errors.Is(err, errEndless) { // a starved machine: it counts as that, and is not tried again
			w.Joined, w.Took = float64(stormBound.Milliseconds()), float64(stormBound.Milliseconds())
			endless = fmt.Sprintf("; one did not end within %v, which counts as that", stormBound)
		} else if err != nil {
			return nil, err
		}
		first.add(w.Joined)
		nothing.add(w.Took)
		p.kill()
		p.stop()
		server.stop()
		if endless != "" {
			break
		}
	}
	return []Row{
		{What: fmt.Sprintf("%d members, first join to all settled", n), Unit: "ms", Quorate: first.stat(), Targets: []Target{{"max", 3000}},
			Note: fmt.Sprintf("lease %v: half a lease of it is the quiet time; one generation, of all; a connection each, made meanwhile; all members in one process", lease) + endless},
		{What: fmt.Sprintf("%d members, from nothing to all settled", n), Unit: "ms", Quorate: nothing.stat(), Note: "with the first connection"},
	}, nil
}

// reassign measures from the kill of a member's process until all others have the shares of the next generation: its share is theirs.
func reassign(ctx context.Context, b *bench) ([]Row, error) {
	_, url, err := b.server(ctx, "nats")
	if err != nil {
		return nil, err
	}
	others := pick(b, 5, 5, 2)
	var rows []Row
	var times []*series
	var all []func(context.Context) error
	for _, k := range []struct {
		lease         time.Duration
		groups, waves int
	}{{quorate.DefaultLease, pick(b, 8, 4, 1), pick(b, 3, 1, 1)}, {time.Second, pick(b, 8, 4, 1), pick(b, 8, 2, 1)}} {
		if b.scale == tiny {
			k.lease = k.lease / 4
		}
		took := &series{}
		for g := range k.groups {
			all = append(all, func(ctx context.Context) error {
				a := childArgs{System: "quorate", URL: url, Name: fmt.Sprintf("reassign-%d-%d", k.lease.Milliseconds(), g), N: others, Lease: k.lease}
				p, err := b.start(ctx, "sharers", a, nil)
				if err != nil {
					return err
				}
				var w whole
				if err := p.ask(ctx, "go", &w); err != nil {
					return err
				}
				for wave := range k.waves {
					victim, err := b.start(ctx, "sharers", a, nil)
					if err != nil {
						return err
					}
					if err := victim.ask(ctx, fmt.Sprintf("join x-%d", wave), nil); err != nil {
						return err
					}
					if err := p.ask(ctx, fmt.Sprintf("wait %d", others+1), &w); err != nil {
						return err
					}
					if err := anytime(ctx, k.lease); err != nil {
						return err
					}
					at := time.Now()
					victim.kill()
					if err := p.ask(ctx, fmt.Sprintf("wait %d", others), &w); err != nil {
						return err
					}
					took.add(float64(w.At-at.UnixNano()) / float64(time.Millisecond))
				}
				return nil
			})
		}
		t := quorate.Derive(k.lease)
		rows = append(rows, Row{What: fmt.Sprintf("a member is killed, its share is others', lease %v", k.lease), Unit: "ms",
			Targets: []Target{{"max", float64((t.MemberTimeout + t.Settle + 50*time.Millisecond).Milliseconds())}},
			Note:    fmt.Sprintf("member timeout %v and settle %v, less the time since its last heartbeat; groups of %d, until the last of the others works in the next generation", t.MemberTimeout, t.Settle, others+1)})
		times = append(times, took)
	}
	if err := atOnce(ctx, all...); err != nil {
		return nil, err
	}
	for i, took := range times {
		rows[i].Quorate = took.stat()
	}
	return rows, nil
}
