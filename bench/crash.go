package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/quorate/quorate/coord"
)

// victimRole is a process that is one member until it is killed.
func victimRole(ctx context.Context, a childArgs) (role, error) {
	if a.System == "memberlist" {
		m, err := openMemberlist(a.Name, nil)
		if err != nil {
			return role{}, err
		}
		return role{}, joinMemberlist(ctx, m, a.Peer)
	}
	ns, err := openQuorate(ctx, a.URL, a.Lease)
	if err != nil {
		return role{}, err
	}
	_, err = coord.Join(ctx, ns, "crash", coord.Config{ID: a.Name})
	return role{}, err
}

// A sight collects, by member, which observers see it, and since when the others do not any more.
type sight struct {
	mu   sync.Mutex
	wake chan struct{} // closed, and made anew, at each change
	sees map[string]map[int]bool
	gone map[string]map[int]time.Time
}

func newSight() *sight {
	return &sight{wake: make(chan struct{}), sees: map[string]map[int]bool{}, gone: map[string]map[int]time.Time{}}
}

func (s *sight) saw(observer int, id string, come bool) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sees[id] == nil {
		s.sees[id], s.gone[id] = map[int]bool{}, map[int]time.Time{}
	}
	if come {
		s.sees[id][observer] = true
		delete(s.gone[id], observer) // it had been given up wrongly
	} else {
		delete(s.sees[id], observer)
		s.gone[id][observer] = now
	}
	close(s.wake)
	s.wake = make(chan struct{})
}

// wait waits until what is asked for holds; it is asked under the lock.
func (s *sight) wait(ctx context.Context, what string, fn func() bool) error {
	for {
		s.mu.Lock()
		ok, wake := fn(), s.wake
		s.mu.Unlock()
		if ok {
			return nil
		}
		if _, err := recv(ctx, what, wake); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %w", what, context.Cause(ctx))
		}
	}
}

// A crowd is a group whose observers are in this process, each a member of its own, and whose victims are processes.
type crowd struct {
	what    string
	args    childArgs // of a victim, but for its name
	spread  time.Duration
	waves   int
	sight   *sight
	watched int // observers
	took    series
	each    series // of each observer
	wrong   int    // victims that were given up before they were killed
}

// kill kills members, wave by wave, and measures how long it takes until the last observer knows.
func (c *crowd) kill(ctx context.Context, b *bench, victims int) error {
	for wave := 0; wave < c.waves || c.took.stat() == nil; wave++ {
		processes, names := make([]*process, victims), make([]string, victims)
		err := each(ctx, victims, 2, func(ctx context.Context, i int) (err error) {
			names[i] = fmt.Sprintf("victim-%d-%d", wave, i)
			a := c.args
			a.Name = names[i]
			processes[i], err = b.start(ctx, "victim", a, nil)
			return err
		})
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := c.sight.wait(ctx, c.what+": "+name+" is not seen by all", func() bool { return len(c.sight.sees[name]) == c.watched }); err != nil {
				return err
			}
		}
		killed := make([]time.Time, victims)
		err = each(ctx, victims, victims, func(ctx context.Context, i int) error {
			if err := anytime(ctx, c.spread); err != nil {
				return err
			}
			killed[i] = time.Now()
			processes[i].kill()
			return c.sight.wait(ctx, c.what+": the end of "+names[i]+" is not seen by all", func() bool { return len(c.sight.gone[names[i]]) == c.watched })
		})
		if err != nil {
			return err
		}
		for i, name := range names {
			var all []time.Duration
			c.sight.mu.Lock()
			for _, at := range c.sight.gone[name] {
				all = append(all, at.Sub(killed[i]))
			}
			c.sight.mu.Unlock()
			if len(all) == 0 || slices.Min(all) < 0 {
				c.wrong++ // given up while it lived: a starved machine, and no measurement
				continue
			}
			for _, d := range all {
				c.each.time(d)
			}
			c.took.time(slices.Max(all))
		}
	}
	return nil
}

// quorateCrowd makes the observers of a group with the given lease, each with a connection of its own.
func quorateCrowd(ctx context.Context, b *bench, n int, lease time.Duration) (*crowd, error) {
	_, url, err := b.server(ctx, "nats")
	if err != nil {
		return nil, err
	}
	c := &crowd{what: fmt.Sprintf("quorate, lease %v", lease), args: childArgs{System: "quorate", URL: url, Lease: lease}, sight: newSight(), watched: n}
	err = each(ctx, n, 8, func(_ context.Context, i int) error {
		ns, err := openQuorate(ctx, url, lease)
		if err != nil {
			return err
		}
		g, err := coord.Join(ctx, ns, "crash", coord.Config{ID: fmt.Sprintf("observer-%d", i)})
		if err != nil {
			return err
		}
		go func() {
			for v, err := range g.Watch(ctx) {
				if err != nil {
					return // what is missed shows as a wait that does not end
				}
				for _, d := range v.Left {
					c.sight.saw(i, d.Member.ID, false)
				}
				for _, m := range v.Joined {
					c.sight.saw(i, m.ID, true)
				}
			}
		}()
		return nil
	})
	return c, err
}

// seen is memberlist's event delegate.
type seen struct {
	s        *sight
	observer int
}

func (e seen) NotifyJoin(n *memberlist.Node)  { e.s.saw(e.observer, n.Name, true) }
func (e seen) NotifyLeave(n *memberlist.Node) { e.s.saw(e.observer, n.Name, false) }
func (e seen) NotifyUpdate(*memberlist.Node)  {}

func memberlistCrowd(ctx context.Context, n int) (*crowd, error) {
	c := &crowd{what: "memberlist", args: childArgs{System: "memberlist"}, sight: newSight(), watched: n}
	for i := range n {
		m, err := openMemberlist(fmt.Sprintf("observer-%d", i), seen{c.sight, i})
		if err != nil {
			return nil, err
		}
		context.AfterFunc(ctx, func() { _ = m.Shutdown() })
		if i == 0 {
			c.args.Peer = addr(m)
		} else if err := joinMemberlist(ctx, m, c.args.Peer); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// crash measures from the kill of one member's process to the moment at which the last of all others knows, in groups of 50.
// All three groups run at the same time: they wait, mostly.
func crash(ctx context.Context, b *bench) ([]Row, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	const lease, slow = 3 * time.Second, 6 * time.Second
	victims := pick(b, 6, 4, 1)
	observers := pick(b, 50, 50, 5) - victims
	fast, err := quorateCrowd(ctx, b, observers, pick(b, lease, lease, 500*time.Millisecond))
	if err != nil {
		return nil, err
	}
	paced, err := quorateCrowd(ctx, b, observers, pick(b, slow, 4*time.Second, time.Second))
	if err != nil {
		return nil, err
	}
	gossip, err := memberlistCrowd(ctx, observers)
	if err != nil {
		return nil, err
	}
	fast.waves, fast.spread = pick(b, 5, 2, 1), 2*time.Second
	paced.waves, paced.spread = pick(b, 3, 1, 1), 3*time.Second
	gossip.waves, gossip.spread = pick(b, 4, 1, 1), 3*time.Second
	var kills []func(context.Context) error
	for _, c := range []*crowd{fast, paced, gossip} {
		kills = append(kills, func(ctx context.Context) error { return c.kill(ctx, b, victims) })
	}
	if err := atOnce(ctx, kills...); err != nil {
		return nil, err
	}
	row := func(c *crowd, note string) Row {
		if c.wrong > 0 {
			note += fmt.Sprintf("; %d were given up before they were killed, and do not count", c.wrong)
		}
		timeout := 2 * c.args.Lease
		return Row{What: fmt.Sprintf("crash known to all of %d, lease %v", observers+victims, c.args.Lease), Unit: "ms", Quorate: c.took.stat(),
			Peer: "memberlist, LAN", Theirs: gossip.took.stat(), Targets: []Target{{"max", float64(timeout.Milliseconds() + 20)}}, Note: note}
	}
	suspected := ""
	if gossip.wrong > 0 {
		suspected = fmt.Sprintf("; memberlist: %d were given up before they were killed, and do not count", gossip.wrong)
	}
	return []Row{
		row(fast, "the default lease: a heartbeat each 0.5 s, member timeout 6 s; the moment at which the last of all others knows"),
		row(paced, "a lease that gives memberlist's pace: one message of each member each second, member timeout 12 s"),
		{What: "crash known to one of them, default lease", Unit: "ms", Quorate: fast.each.stat(), Peer: "memberlist, LAN", Theirs: gossip.each.stat(),
			Note: "the same crashes as seen by each of the others" + suspected},
	}, nil
}
