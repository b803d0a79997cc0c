package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/settle"
	"github.com/quorate/quorate/internal/wire"
)

func waitCommand() *command {
	return &command{
		name:    "wait",
		section: sectionShow,
		summary: "block until a group has a leader, is settled, or has N members",
		about: "Blocks until all that is asked for is so at once, and prints the members then, as 'quorate members' does. Without a flag it waits for a leader.\n\n" +
			"It waits without end, unless --timeout is given. The group, and its namespace, need not exist yet.",
		args: []argSpec{{name: "GROUP"}},
		flags: []flagSpec{
			{name: "leader", kind: kindBool, usage: "until somebody leads"},
			{name: "settled", kind: kindBool, usage: "until the work is shared, and every member that works has a share"},
			{name: "members", kind: kindInt, value: "N", usage: "until there are so many members at least, as the leader counts them"},
		},
		needs: needServer,
		json:  []shape{{of: memberLine{}, list: true, note: "as of 'quorate members'"}},
		examples: []example{
			{"quorate wait workers --leader", "in a start script"},
			{"quorate wait workers --members 3 --settled --timeout 30s", "exit code 4 if that takes longer than 30 s"},
			{"quorate wait workers -j", "the members as JSON, with the fields of 'quorate members'"},
		},
		exits: []exitSpec{{ExitFailed, "failed; also: interrupted"}, {ExitUnanswered, "not so within --timeout"}},
		run:   runWait,
	}
}

func runWait(ctx context.Context, c *call) error {
	group, members := c.arg(0), c.integer("members")
	if err := wire.CheckGroup(group); err != nil {
		return err
	}
	if c.isSet("members") && (members < 1 || members > settle.MaxIDs) {
		return usageError("--members %s: a group has from 1 to %d members", c.str("members"), settle.MaxIDs)
	}
	if err := quorate.CheckLease(c.g.lease); err != nil {
		_, from := c.setting("lease")
		return usageError("%s: %w", c.spelled("lease", from), err)
	}
	leads := c.bool("leader") || !c.bool("settled") && members == 0
	lacks := "the namespace does not exist"
	over := func(err error) error {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return failure(ExitUnanswered, "wait: not within %s: group %q: %s", c.g.timeout, group, lacks)
		}
		return err
	}
	if c.g.timed {
		bounded, cancel := c.bounded(ctx)
		defer cancel()
		ctx = bounded
	}
	nc, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer nc.Close()
	ns, err := c.looking(ctx, nc)
	if err != nil {
		return over(err)
	}
	defer ns.Close(context.Background())
	lacks = "no answer"
	cl, err := coord.Open(ctx, ns, group)
	if err != nil {
		return over(c.failed(ctx, err))
	}
	for {
		r, err := cl.Roster(ctx)
		if err != nil {
			if ctx.Err() == nil {
				lacks = strings.TrimPrefix(err.Error(), "coord: ") // the connection may be away: it is tried again
			}
		} else if lacks = lacking(r, leads, c.bool("settled"), members); lacks == "" {
			return c.printMembers(r)
		}
		select {
		case <-ctx.Done():
			return over(ctx.Err())
		case <-time.After(c.g.lease / 24):
		}
	}
}

// lacking says what is not so yet, "" if all is.
func lacking(r coord.Roster, leads, settled bool, members int) string {
	if r.Leader == "" && r.Phase == phaseNotQuorate {
		return "it is not quorate: fewer members than its minimum size"
	}
	if r.Leader == "" && (leads || settled || members > 0) {
		return "it has no leader"
	}
	if len(r.Members) < members {
		return fmt.Sprintf("it has %s", count(len(r.Members), "member"))
	}
	if !settled {
		return ""
	}
	shares := 0
	for _, m := range r.Members {
		switch {
		case m.Index >= 0:
			shares++
		case slices.Contains(m.Roles, wire.RoleWork):
			return m.ID + " has no share yet"
		}
	}
	switch {
	case r.Phase == wire.Settling:
		return "its work is being shared anew"
	case shares == 0:
		return "nobody works"
	}
	return ""
}
