//go:build scenarios && linux

package scenarios

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/eventcheck"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/partition"
)

// A crowd is a process with many members, each with a connection of its own, that join and leave at random. What a process of a user would print
// with `quorate join -o json` it prints for all of them.
type crowd struct {
	printer
	lease time.Duration
	items []string
}

func crowdMain() int {
	if err := crowded(); err != nil {
		fmt.Fprintln(os.Stderr, "crowd:", err)
		return 1
	}
	return 0
}

func crowded() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	lease, err := time.ParseDuration(os.Getenv("CROWD_LEASE"))
	if err != nil {
		return err
	}
	b, err := os.ReadFile(os.Getenv("CROWD_ITEMS"))
	if err != nil {
		return err
	}
	c := &crowd{lease: lease, items: strings.Split(strings.TrimSpace(string(b)), "\n")}
	first, err := strconv.Atoi(os.Getenv("CROWD_FIRST"))
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(os.Getenv("CROWD_MEMBERS"))
	if err != nil {
		return err
	}
	go watchTheMachine(func(from, _ time.Time) { c.print(line{Type: "stalled", Group: group, Until: stamp(from)}, nil) }) // until the process ends
	var wg sync.WaitGroup
	failed := make([]error, n)
	for i := range n {
		wg.Go(func() { failed[i] = c.member(ctx, fmt.Sprintf("c%03d", first+i)) })
	}
	wg.Wait()
	return errors.Join(failed...)
}

// member is one of them: it comes and goes.
func (c *crowd) member(ctx context.Context, id string) error {
	wait := func(most time.Duration) {
		select {
		case <-time.After(rand.N(most)):
		case <-ctx.Done():
		}
	}
	wait(2 * c.lease)
	nc, err := nats.Connect(os.Getenv("NATS_URL"), append(quorate.Options(c.lease), nats.RetryOnFailedConnect(true))...)
	if err != nil {
		return err
	}
	defer nc.Close()
	ns, err := quorate.Open(ctx, nc, quorate.Config{Lease: c.lease})
	if err != nil {
		return ended(ctx, err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = ns.Close(ctx) // the process ends
	}()
	for ctx.Err() == nil {
		g, err := coord.Join(ctx, ns, group, coord.Config{ID: id})
		if err != nil {
			return ended(ctx, err)
		}
		p, err := partition.Join(ctx, g, partition.Config{})
		if err != nil {
			return ended(ctx, err)
		}
		var work sync.WaitGroup
		work.Go(func() {
			_ = p.Run(g.Context(), func(ctx context.Context, a *partition.Assignment) error { c.share(ctx, id, a); return nil }) // it ends with the membership
		})
		work.Go(func() {
			_ = g.Lead(g.Context(), func(ctx context.Context, t *leader.Term) error { // the same
				c.term(line{Group: group, Self: id, Leader: id, LeaseMS: (c.lease - c.lease/10).Milliseconds()}, t, func() { <-ctx.Done() })
				return nil
			})
		})
		wait(16 * c.lease)
		leaving := line{Type: "leaving", Group: group, Self: id, Member: id}
		if _, ok := g.Term(); ok {
			leaving.Leader = id
		}
		c.print(leaving, nil)
		bounded, cancel := context.WithTimeout(context.Background(), time.Minute)
		err = g.Leave(bounded)
		cancel()
		work.Wait()
		c.print(line{Type: "left", Group: group, Self: id, Member: id, Reason: "left"}, nil)
		if err != nil {
			return err
		}
		wait(8 * c.lease)
	}
	return nil
}

// ended is nil if it is the process that has ended.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// share tells from when to when a member has a share.
func (c *crowd) share(ctx context.Context, id string, a *partition.Assignment) {
	l := line{Group: group, Self: id, Member: id, Generation: a.Generation, Index: a.Index, Total: a.Total, LeaseMS: a.Lease().Milliseconds()}
	for _, item := range c.items {
		if a.Owns(item) {
			l.Items = append(l.Items, item)
		}
	}
	l.Type = "assigned"
	if !c.print(l, a.Live) {
		return
	}
	<-ctx.Done()
	l.Type, l.Items, l.LeaseMS, l.Reason, l.Until = "revoked", nil, 0, "settling", now
	if !c.print(l, a.Live) {
		l.Reason, l.Until = "expired", stamp(a.Until())
		c.print(l, nil)
	}
}

// ---- on the other side

const (
	crowds    = 10
	crowdSize = 20
)

// crowd makes the process of some of the members.
func (w *world) crowd(i int) *process {
	n, err := w.hub.connect()
	w.must(err)
	name := fmt.Sprintf("crowd%d", i)
	p := w.process(name, "crowd", n, func() *exec.Cmd {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), roleEnv+"=crowd", "NATS_URL="+w.url(), "CROWD_LEASE="+w.k.lease.String(), "CROWD_ITEMS="+w.path("items"),
			fmt.Sprintf("CROWD_FIRST=%d", i*crowdSize), fmt.Sprintf("CROWD_MEMBERS=%d", crowdSize))
		return cmd
	})
	p.url = w.url()
	return p
}

// comeAndGo has two hundred members in ten processes join and leave at random. One of the processes, that of the leader if it has one, is killed and started
// again, one stands still for longer than its lease, and the leader steps down.
func comeAndGo(w *world) string {
	var ps []*process
	for i := range crowds {
		p := w.crowd(i)
		w.must(p.start())
		ps = append(ps, p)
	}
	w.await("half of them have a share at one time", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		most := 0
		for _, p := range ps {
			for _, l := range p.lines {
				most = max(most, l.Total)
			}
		}
		return most > crowds*crowdSize/2
	})
	// Each fault is over before the next, so that none is excused by another.
	over := w.bound.ReassignmentLeader + w.bound.Churn + w.answers() + w.k.lease/2
	pass(2 * w.k.lease)
	i := slices.IndexFunc(ps, func(p *process) bool { w.mu.Lock(); defer w.mu.Unlock(); return p.term() != nil })
	i = max(i, 0)
	evidence := kill(ps[i])
	pass(w.k.lease)
	w.must(ps[i].start())
	pass(over - w.k.lease)
	stopped := ps[(i+1)%len(ps)]
	evidence += ", " + stop(stopped)
	pass(5 * w.k.lease / 2)
	cont(stopped)
	pass(over - 5*w.k.lease/2)
	at := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	w.await("the leader has stepped down", func() bool { return w.client.StepDown(ctx, "") == nil })
	w.trouble("the leader stepped down", at, time.Now(), w.bound.HandOver+w.bound.Reassignment)
	pass(2 * w.k.lease)
	end(ps...)
	joined, left, most := 0, 0, 0
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.all {
		if p.role != "crowd" {
			continue
		}
		had := map[string]bool{}
		for _, l := range p.lines {
			switch most = max(most, l.Total); l.Type {
			case "assigned":
				if !had[l.Self] {
					joined++
				}
				had[l.Self] = true
			case "leaving":
				left++
				delete(had, l.Self)
			}
		}
	}
	if left < crowds*crowdSize/2 {
		w.t.Errorf("only %d have left", left)
	}
	return fmt.Sprintf("%d members had a share at one time at most, %d joined, %d left; %s", most, joined, left, evidence)
}

// witnesses are a process's lines, of each of its members by itself.
func (p *process) witnesses() []eventcheck.Witness {
	if p.role != "crowd" {
		return []eventcheck.Witness{{Name: p.name, Lines: p.lines, Ended: p.killed, Stopped: p.stopped}}
	}
	var all []eventcheck.Witness
	at := map[string]int{}
	for _, l := range p.lines {
		i, ok := at[l.Self]
		if !ok {
			i = len(all)
			at[l.Self] = i
			all = append(all, eventcheck.Witness{Name: p.name + " " + l.Self, Ended: p.killed, Stopped: p.stopped})
		}
		all[i].Lines = append(all[i].Lines, l)
	}
	return all
}

// leavings are the troubles that a crowd makes by itself.
func (w *world) leavings(p *process) (l []eventcheck.Trouble) {
	open := map[string]int{}
	for _, e := range p.lines {
		switch e.Type {
		case "leaving":
			open[e.Self] = len(l)
			t := eventcheck.Trouble{What: e.Self + " leaves", Who: e.Self, From: e.Time, Allow: w.bound.LeaveSettled}
			if e.Leader != "" {
				t.What, t.Who, t.Allow = t.What+", and led", "", w.bound.HandOver+w.bound.Reassignment
			}
			l = append(l, t)
		case "left":
			if i, ok := open[e.Self]; ok {
				l[i].To = e.Time
			}
		}
	}
	return l
}
