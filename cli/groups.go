package cli

import (
	"context"
	"errors"
	"strconv"
	"sync"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/wire"
)

// groupLine is a group as `groups -o json` shows it (design section 7).
type groupLine struct {
	Group      string `json:"group" doc:"its name"`
	Members    int    `json:"members" doc:"how many there are"`
	Leader     string `json:"leader" doc:"who leads; \"\" when there is none"`
	Token      uint64 `json:"token" doc:"the leader's fencing token; 0 without a leader"`
	Phase      string `json:"phase" doc:"settled, settling (the work is shared anew), idle (nobody works) or not-quorate"`
	Generation uint64 `json:"generation" doc:"of the shares; 0: none yet"`
}

// Phases of a group beside those of its settled record.
const (
	phaseIdle       = "idle"        // nobody has a share
	phaseNotQuorate = "not-quorate" // fewer members than the minimum size
)

func groupsCommand() *command {
	return &command{
		name:    "groups",
		aliases: []string{"ls"},
		section: sectionShow,
		summary: "list the groups of the namespace",
		about: "Lists the groups that have members or a leader: how many members, who leads with which token, and whether the work is shared " +
			"(settled), being shared anew (settling), or not shared because nobody works (idle). A group with fewer members than its minimum size has no leader " +
			"(not-quorate).",
		needs: needClient,
		json:  []shape{{of: groupLine{}, list: true}},
		examples: []example{
			{"quorate groups", "a table"},
			{"quorate ls -j", "the same as JSON; [] when there are none"},
		},
		exits: []exitSpec{{ExitUnanswered, "no answer within --timeout"}},
		run:   runGroups,
	}
}

func runGroups(ctx context.Context, c *call) error {
	bounded, cancel := c.bounded(ctx)
	defer cancel()
	lines, err := c.groupLines(bounded)
	if err != nil {
		return err
	}
	if c.g.json {
		return c.printJSON(lines)
	}
	if len(lines) == 0 {
		return c.print("no groups\n")
	}
	t := newTable("GROUP", "MEMBERS", "LEADER", "TOKEN", "PHASE", "GENERATION")
	t.right, t.shrink = []int{1, 3, 5}, 2
	for _, g := range lines {
		number := func(n uint64) string {
			if n == 0 {
				return ""
			}
			return strconv.FormatUint(n, 10)
		}
		t.add(g.Group, strconv.Itoa(g.Members), g.Leader, number(g.Token), g.Phase, number(g.Generation))
	}
	return c.printTable(t)
}

// groupLines looks at all groups, several at once.
func (c *call) groupLines(ctx context.Context) ([]groupLine, error) {
	s, err := c.session(ctx)
	if errors.Is(err, quorate.ErrBucketMissing) {
		// A list of nothing is no failure; a namespace misspelt should show all the same.
		c.note("%s", err)
		return []groupLine{}, nil
	}
	if err != nil {
		return nil, err
	}
	defer s.Close()
	names, err := coord.Groups(ctx, s.ns)
	if err != nil {
		return nil, c.failed(ctx, err)
	}
	const atOnce = 16
	lines, errs := make([]groupLine, len(names)), make([]error, len(names))
	turn := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i, name := range names {
		turn <- struct{}{}
		wg.Go(func() {
			defer func() { <-turn }()
			lines[i], errs[i] = groupOf(ctx, s.ns, name)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		for _, err := range errs {
			if err != nil {
				return nil, c.failed(ctx, err)
			}
		}
	}
	return lines, nil
}

// groupOf is one group as its leader sees it. Without one the phase and generation are those on record: shares may still be
// held by them.
func groupOf(ctx context.Context, ns *quorate.Namespace, name string) (groupLine, error) {
	g := groupLine{Group: name, Phase: phaseIdle}
	cl, err := coord.Open(ctx, ns, name)
	if err != nil {
		return g, err
	}
	defer cl.Close()
	r, err := cl.Roster(ctx)
	if err != nil {
		return g, err
	}
	g.Members, g.Leader, g.Token, g.Generation = len(r.Members), r.Leader, r.Token, r.Generation
	if r.Phase != "" {
		g.Phase = r.Phase
	}
	none := false
	if r.Leader == "" && r.Phase == "" {
		rec, gen, err := settledRecord(ctx, cl)
		if err != nil {
			return g, err
		}
		if rec != nil {
			g.Phase, g.Generation = rec.Phase, gen
			none = rec.Phase == wire.SettledDone && len(rec.Places) == 0
		}
	}
	if g.Phase == wire.SettledDone && g.Leader != "" && r.Total == 0 || none {
		g.Phase = phaseIdle
	}
	return g, nil
}

// settledRecord is the group's settled record with its generation, nil if there is none.
func settledRecord(ctx context.Context, cl *coord.Client) (*wire.Settled, uint64, error) {
	e, err := cl.Namespace().Store.Read(ctx, wire.SettledKey(cl.Name()))
	if err != nil {
		return nil, 0, err
	}
	rec, gen := settledOf(e)
	return rec, gen, nil
}

// settledOf decodes a settled record; the generation of a settling one is its revision.
func settledOf(e kv.Entry) (*wire.Settled, uint64) {
	rec := &wire.Settled{}
	if e.Op != kv.Record || wire.Decode(e.Value, rec) != nil || rec.Check() != nil {
		return nil, 0
	}
	if rec.Phase == wire.Settling {
		return rec, e.Revision
	}
	return rec, rec.Generation
}
