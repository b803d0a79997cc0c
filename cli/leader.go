package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/leader"
)

// leaderLine is what `leader -o json` shows (design section 7).
type leaderLine struct {
	Group    string  `json:"group,omitempty" doc:"the group; left out of a plain election"`
	Election string  `json:"election,omitempty" doc:"the plain election; left out of a group"`
	Leader   string  `json:"leader" doc:"who leads"`
	Token    uint64  `json:"token" doc:"the fencing token of the term"`
	Since    *string `json:"since" doc:"when the term began, by the leader's own clock"`
	LeaseMS  int64   `json:"lease_ms" doc:"the lease that the leader counts with"`
	Value    string  `json:"value,omitempty" doc:"what the leader says about itself, if anything"`
}

// electionFlag is for the commands that take a plain election in place of a group.
func electionFlag() flagSpec {
	return flagSpec{name: "election", value: "NAME", usage: "a plain election, in place of GROUP"}
}

func leaderCommand() *command {
	return &command{
		name:    "leader",
		section: sectionShow,
		summary: "show who leads a group",
		about: "Shows who leads a group, or a plain election: its id, since when, its fencing token, and the lease it counts with.\n\n" +
			"A leader that does not answer is looked at for as long as its lease lasts: it is shown if it renews its lease, and if it does not " +
			"there is no leader. (Of a plain election the record is shown as it stands.)",
		args:  []argSpec{{name: "GROUP", unless: "election"}},
		flags: []flagSpec{electionFlag()},
		needs: needClient,
		json:  []shape{{of: leaderLine{}}},
		examples: []example{
			{"quorate leader workers", "one line"},
			{"quorate leader workers -j", "the same as JSON, with the fields group, leader, token, since, lease_ms, value"},
			{"quorate leader --election reports", "of a plain election"},
		},
		exits: []exitSpec{{ExitFailed, "failed; also: no such group or election"}, {ExitUnanswered, "no leader, not quorate, or no answer within --timeout"}},
		run:   runLeader,
	}
}

func runLeader(ctx context.Context, c *call) error {
	if name := c.str("election"); c.isSet("election") {
		return c.electionLeader(ctx, name)
	}
	err := c.inGroup(ctx, func(ctx context.Context, cl *coord.Client, r coord.Roster) error {
		group := cl.Name()
		l, err := cl.Leader(ctx)
		if err != nil {
			return c.failed(ctx, err)
		}
		// One whom nobody hears may be dead: whoever leads renews.
		if l.Holder != "" && (r.Leader != l.Holder || r.Token != l.Token) {
			if l, err = renewing(ctx, cl); err != nil {
				return c.failed(ctx, err)
			}
		}
		if l.Holder == "" && r.Phase == phaseNotQuorate {
			return failure(ExitUnanswered, "leader: group %q has no leader: it is not quorate, with fewer members than its minimum size%s: "+
				"'quorate members %s' shows who is there", group, minimum(ctx, cl), group)
		}
		if l.Holder == "" {
			return failure(ExitUnanswered, "leader: group %q has no leader now: 'quorate members %s' shows who is there", group, group)
		}
		return c.printLeader(leaderLine{Group: group}, l)
	})
	if errors.Is(err, coord.ErrNoGroup) {
		return &exitError{code: ExitFailed, err: err, text: err.Error() + "; a plain election is named by --election"}
	}
	return err
}

// minimum is the minimum size in the record of who keeps the group, as text; "" if it does not say.
func minimum(ctx context.Context, cl *coord.Client) string {
	var rec wire.Leader
	e, err := cl.Namespace().Store.Read(ctx, wire.LeaderKey(cl.Name()))
	if err != nil || e.Op != kv.Record || wire.Decode(e.Value, &rec) != nil || rec.Params.MinSize == 0 {
		return ""
	}
	return fmt.Sprintf(", %d", rec.Params.MinSize)
}

// renewing watches the leader's record for as long as its lease lasts, and returns who renews it or takes it over.
func renewing(ctx context.Context, cl *coord.Client) (leader.State, error) {
	store, key := cl.Namespace().Store, wire.LeaderKey(cl.Name())
	e, err := store.Read(ctx, key)
	if err != nil {
		return leader.State{}, fmt.Errorf("leader of group %q: %w", cl.Name(), err)
	}
	wait := max(leader.StateOf(e).Lease, cl.Namespace().Lease)
	until := time.Now().Add(wait)
	for {
		next, err := store.Read(ctx, key)
		switch {
		case err != nil && ctx.Err() != nil:
			return leader.State{}, fmt.Errorf("leader of group %q: %w", cl.Name(), err)
		case err == nil && next.Op == kv.Record && next.Revision != e.Revision:
			return leader.StateOf(next), nil
		case time.Now().After(until):
			return leader.State{}, nil
		}
		select {
		case <-ctx.Done():
			return leader.State{}, fmt.Errorf("leader of group %q: %w", cl.Name(), ctx.Err())
		case <-time.After(wait / 20):
		}
	}
}

func (c *call) electionLeader(ctx context.Context, name string) error {
	return c.inElection(ctx, name, func(_ context.Context, _ *quorate.Namespace, l leader.State) error {
		return c.printLeader(leaderLine{Election: name}, l)
	})
}

// inElection is a one-shot command of a client on a plain election: within --timeout it looks up who leads and calls fn. An election that
// nobody leads is an error.
func (c *call) inElection(ctx context.Context, name string, fn func(ctx context.Context, ns *quorate.Namespace, l leader.State) error) error {
	if err := wire.CheckElection(name); err != nil {
		return err
	}
	bounded, cancel := c.bounded(ctx)
	defer cancel()
	s, err := c.session(bounded)
	if errors.Is(err, quorate.ErrBucketMissing) {
		return failure(ExitFailed, "%s: no such election %q: %w", c.cmd.name, name, err)
	}
	if err != nil {
		return err
	}
	defer s.Close()
	e, err := s.ns.Inner().Store.Read(bounded, wire.ElectionKey(name))
	if err != nil {
		return c.failed(bounded, err)
	}
	l := leader.StateOf(e)
	switch {
	case l.Holder != "":
		return fn(bounded, s.ns, l)
	case e.Op == kv.None:
		return failure(ExitFailed, "%s: no such election %q: nobody has campaigned for it", c.cmd.name, name)
	}
	return failure(ExitUnanswered, "%s: election %q has no leader now", c.cmd.name, name)
}

func (c *call) printLeader(line leaderLine, l leader.State) error {
	line.Leader, line.Token, line.Since, line.LeaseMS, line.Value = l.Holder, l.Token, wireTime(l.Since), wire.ToMS(l.Lease), l.Value
	if c.g.json {
		return c.printJSON(line)
	}
	text := fmt.Sprintf("%s leads %s, token %d, since %s, lease %s", l.Holder, line.Group+line.Election, l.Token, ago(time.Now(), l.Since), l.Lease)
	if l.Value != "" {
		text += ": " + l.Value
	}
	return c.print(oneLine(text) + "\n")
}
