package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/leader"
)

func stepDownCommand() *command {
	return &command{
		name:    "step-down",
		section: sectionAct,
		summary: "ask a group's leader to hand over",
		about: "Asks the leader of a group to hand over, to the next candidate or to the member that --to names, waits until somebody leads anew, " +
			"and shows who. Work that only the leader does is asked to return first.\n\n" +
			"A leader that nobody else can follow leads again, in a term of its own.",
		args: []argSpec{{name: "GROUP", unless: "election"}},
		flags: []flagSpec{
			{name: "to", value: "ID", usage: "the member, or candidate of a plain election, that is to lead next"},
			electionFlag(),
		},
		needs: needClient,
		json:  []shape{{of: leaderLine{}, note: "the new leader, as of 'quorate leader'"}},
		examples: []example{
			{"quorate step-down workers", "whoever is next in the queue leads"},
			{"quorate step-down workers --to web-2 -j", "web-2 leads; the new leader as JSON, with the fields of 'quorate leader'"},
			{"quorate step-down --election reports", "of a plain election"},
		},
		exits: []exitSpec{{ExitFailed, "failed; also: no such group, the one named cannot lead"},
			{ExitUnanswered, "no leader, not quorate, or nobody leads anew within --timeout"}},
		run: runStepDown,
	}
}

func runStepDown(ctx context.Context, c *call) error {
	to := c.str("to")
	if c.isSet("to") {
		if err := wire.CheckID(to); err != nil {
			return err
		}
	}
	if c.isSet("election") {
		return c.electionStepDown(ctx, c.str("election"), to)
	}
	return c.inGroup(ctx, func(ctx context.Context, cl *coord.Client, _ coord.Roster) error {
		group := cl.Name()
		before, err := cl.Leader(ctx)
		if err != nil {
			return c.failed(ctx, err)
		}
		if before.Holder == "" && before.Keeper != "" {
			return failure(ExitUnanswered, "step-down: group %q has no leader: it is not quorate: 'quorate members %s' shows who is there", group, group)
		}
		if before.Holder == "" {
			return failure(ExitUnanswered, "step-down: group %q has no leader now: 'quorate members %s' shows who is there", group, group)
		}
		err = cl.StepDown(ctx, to)
		switch {
		case errors.Is(err, coord.ErrSuccessor):
			return failure(ExitFailed, "%w: 'quorate members %s' shows who could", c.failed(ctx, err), group)
		case errors.Is(err, coord.ErrGone):
			return failure(ExitFailed, "step-down: %s leads group %q no more, another does: 'quorate leader %s' shows who", before.Holder, group, group)
		case err != nil:
			return c.failed(ctx, err)
		}
		after, err := c.nextLeader(ctx, before, cl.Leader)
		if err != nil {
			return err
		}
		return c.printHandOver(leaderLine{Group: group}, before, after)
	})
}

// nextLeader waits for a term after the one before.
func (c *call) nextLeader(ctx context.Context, before leader.State, look func(context.Context) (leader.State, error)) (leader.State, error) {
	for {
		l, err := look(ctx)
		if err == nil && l.Holder != "" && l.Token > before.Token {
			return l, nil
		}
		select {
		case <-ctx.Done():
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return l, ctx.Err()
			}
			return l, failure(ExitUnanswered, "%s: %s was asked to hand over, but nobody leads anew within %s: its work may not have returned yet",
				c.cmd.name, before.Holder, c.g.timeout)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (c *call) printHandOver(line leaderLine, before, after leader.State) error {
	if c.g.json {
		return c.printLeader(line, after)
	}
	if before.Holder == after.Holder {
		return c.print(oneLine(fmt.Sprintf("%s stepped down, and leads %s again, token %d", before.Holder, line.Group+line.Election, after.Token)) + "\n")
	}
	return c.print(oneLine(fmt.Sprintf("%s stepped down; %s leads %s, token %d", before.Holder, after.Holder, line.Group+line.Election, after.Token)) + "\n")
}

func (c *call) electionStepDown(ctx context.Context, name, to string) error {
	return c.inElection(ctx, name, func(ctx context.Context, ns *quorate.Namespace, before leader.State) error {
		err := leader.StepDown(ctx, ns, name, before.Token, to)
		switch {
		case errors.Is(err, leader.ErrSuccessor):
			return failure(ExitFailed, "step-down: %s knows no candidate %q of election %q: only one that campaigns can be named", before.Holder, to, name)
		case errors.Is(err, leader.ErrNotHeld):
			return failure(ExitUnanswered, "step-down: %s leads election %q by the record, but does not answer", before.Holder, name)
		case errors.Is(err, leader.ErrGone):
			return failure(ExitFailed, "step-down: %s leads election %q no more: 'quorate leader --election %s' shows who does", before.Holder, name, name)
		case err != nil:
			return c.failed(ctx, err)
		}
		store := ns.Inner().Store
		after, err := c.nextLeader(ctx, before, func(ctx context.Context) (leader.State, error) {
			e, err := store.Read(ctx, wire.ElectionKey(name))
			return leader.StateOf(e), err
		})
		if err != nil {
			return err
		}
		return c.printHandOver(leaderLine{Election: name}, before, after)
	})
}

func evictCommand() *command {
	return &command{
		name:    "evict",
		section: sectionAct,
		summary: "remove a member from a group",
		about: "Ends a member's membership: it is out of the group at once, its process is told (`quorate join` ends with code 1), and it does not come " +
			"back by itself. Its share of the work goes to the others once it has let go, or its lease has run out.\n\n" +
			"What has crashed need not be evicted: it is out by itself after two leases.",
		args:  []argSpec{{name: "GROUP"}, {name: "ID"}},
		needs: needClient,
		json:  []shape{{of: evictLine{}}},
		examples: []example{
			{"quorate evict workers web-2", "web-2 is no member any more"},
		},
		exits: []exitSpec{{ExitFailed, "failed; also: no such group or member"}, {ExitUnanswered, "no leader, or no answer within --timeout"}},
		run:   runEvict,
	}
}

// evictLine is what `evict -o json` shows.
type evictLine struct {
	Group  string `json:"group" doc:"the group"`
	Member string `json:"member" doc:"who was evicted"`
}

func runEvict(ctx context.Context, c *call) error {
	id := c.arg(1)
	if err := wire.CheckID(id); err != nil {
		return err
	}
	return c.inGroup(ctx, func(ctx context.Context, cl *coord.Client, _ coord.Roster) error {
		group := cl.Name()
		err := cl.Evict(ctx, id)
		switch {
		case errors.Is(err, coord.ErrNoMember), errors.Is(err, coord.ErrGone):
			return failure(ExitFailed, "evict: %q is no member of group %q: 'quorate members %s' lists them", id, group, group)
		case err != nil:
			return c.failed(ctx, err)
		}
		if c.g.json {
			return c.printJSON(evictLine{group, id})
		}
		return c.print(fmt.Sprintf("%s is no member of %s any more\n", id, group))
	})
}
