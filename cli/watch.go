package cli

import (
	"context"
	"errors"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/vote"
)

func watchCommand() *command {
	return &command{
		name:    "watch",
		section: sectionShow,
		summary: "print what happens in a group, as it happens",
		about: "Prints an event a line until it is interrupted, without being a member: who joins and leaves, who leads, when the work is shared anew, what is decided. Who is there already, who leads, and the " +
			"present generation come first. With -o json each line is an object; its fields are a contract, in docs/events.md.\n\n" +
			"With --shares a line follows each generation for each share of it. With --election it is a plain election that is watched: who leads.\n\n" +
			"The group, and its namespace, need not exist yet.",
		args: []argSpec{{name: "GROUP", unless: "election"}},
		flags: append([]flagSpec{
			{name: "shares", kind: kindBool, usage: "which share each member gets, too"},
			electionFlag(),
		}, monitorFlags()...),
		needs:  needServer,
		runsOn: true,
		json:   []shape{{note: "an event a line: docs/events.md"}},
		examples: []example{
			{"quorate watch workers", "for people"},
			{"quorate watch workers --shares -o json | jq -c 'select(.type == \"assigned\")'", "for programs"},
			{"quorate watch --election reports", "of a plain election"},
		},
		exits: []exitSpec{{ExitDone, "interrupted"}},
		run:   runWatch,
	}
}

// A watcher is one `watch`.
type watcher struct {
	c     *call
	w     *eventWriter
	fail  context.CancelCauseFunc
	tasks sync.WaitGroup
}

// emit prints an event; once standard output is gone it ends the command.
func (w *watcher) emit(e event) {
	if err := w.w.emit(e); err != nil {
		w.fail(err)
	}
}

func runWatch(ctx context.Context, c *call) error {
	group, election := c.arg(0), c.str("election")
	if err := quorate.CheckLease(c.g.lease); err != nil {
		_, from := c.setting("lease")
		return usageError("%s: %w", c.spelled("lease", from), err)
	}
	if c.isSet("election") {
		if err := wire.CheckElection(election); err != nil {
			return err
		}
		if c.bool("shares") {
			return usageError("--election and --shares: an election has none: leave one out")
		}
	} else if err := wire.CheckGroup(group); err != nil {
		return err
	}
	stop, err := c.monitor(ctx, false)
	if err != nil {
		return err
	}
	defer stop()
	running, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	w := &watcher{c: c, w: c.events(group, election, ""), fail: fail}
	nc, err := c.connect(ctx,
		nats.DisconnectErrHandler(func(*nats.Conn, error) {
			if running.Err() == nil {
				w.emit(&disconnectedEvent{})
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { w.emit(&reconnectedEvent{}) }))
	if err != nil {
		return err
	}
	defer nc.Close()
	ns, err := c.looking(running, nc)
	if err == nil {
		c.mon.becomes(nc.connected)
		defer ns.Close(context.Background())
		if c.isSet("election") {
			err = w.records(running, ns, wire.ElectionKey(election), "")
		} else {
			err = w.group(running, ns, group)
		}
		fail(nil)
		w.tasks.Wait()
	}
	switch {
	case ctx.Err() != nil:
		return nil // interrupted
	case err == nil || errors.Is(err, context.Canceled):
		return context.Cause(running)
	}
	return c.failed(ctx, err)
}

// group watches until ctx ends.
func (w *watcher) group(ctx context.Context, ns *quorate.Namespace, group string) error {
	cl, err := coord.Open(ctx, ns, group)
	if err != nil {
		return err
	}
	w.tasks.Go(func() { w.members(ctx, cl) })
	w.tasks.Go(func() { w.verdicts(ctx, cl) })
	return w.records(ctx, ns, wire.LeaderKey(group), wire.SettledKey(group))
}

func (w *watcher) members(ctx context.Context, cl *coord.Client) {
	for v, err := range cl.Watch(ctx) {
		if err != nil {
			w.fail(err)
			return
		}
		for _, d := range v.Left {
			w.emit(&memberLeftEvent{Member: d.Member.ID, Reason: d.Reason})
		}
		for _, m := range v.Joined {
			w.emit(&memberJoinedEvent{Member: m.ID, Meta: m.Meta})
		}
	}
}

func (w *watcher) verdicts(ctx context.Context, cl *coord.Client) {
	for v, err := range vote.Watch(ctx, cl) {
		if err != nil {
			w.fail(err)
			return
		}
		w.emit(newVerdictEvent(v))
	}
}

// records tells of leaders, and of generations, as the records show them, until ctx ends.
func (w *watcher) records(ctx context.Context, ns *quorate.Namespace, lead, settled string) error {
	store := ns.Inner().Store
	leaders := leaderWatch{emit: w.emit}
	l, err := store.Watch(lead, kv.WatchOptions{}, leaders.take)
	if err != nil {
		return err
	}
	defer l.Stop()
	if settled != "" {
		phases := phaseWatch{emit: w.emit, shares: w.c.bool("shares")}
		s, err := store.Watch(settled, kv.WatchOptions{}, phases.take)
		if err != nil {
			return err
		}
		defer s.Stop()
	}
	<-ctx.Done()
	return nil
}
