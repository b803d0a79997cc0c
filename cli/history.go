package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/wire"
)

// historyLine is a generation as `history -o json` shows it (design section 7).
type historyLine struct {
	Group      string   `json:"group" doc:"the group"`
	Generation uint64   `json:"generation" doc:"its number, which is its fencing token"`
	Cause      string   `json:"cause" doc:"why it began: first, joined ID, left ID, expired ID, ..."`
	Began      string   `json:"began" doc:"when the members were asked to let go"`
	Settled    string   `json:"settled" doc:"when the shares were given"`
	Members    []string `json:"members" doc:"who had a share, by index"`
	Buckets    int      `json:"buckets,omitempty" doc:"how many there are in all; left out without buckets"`
	Moved      *int     `json:"moved,omitempty" doc:"with buckets: how many changed hands; null when it is not known"`
}

func historyCommand() *command {
	return &command{
		name:    "history",
		section: sectionShow,
		summary: "list a group's generations of the last hour",
		about: "Lists how the work was shared in the last hour, oldest first: why it was shared anew, when that began, how long it took until it had settled, among whom, and, with buckets, how many of them " +
			"changed hands.\n\n" +
			"It is kept by the leaders, as far as they can: a generation whose leader died as it settled may be missing.",
		args:  []argSpec{{name: "GROUP"}},
		needs: needClient,
		json:  []shape{{of: historyLine{}, list: true}},
		examples: []example{
			{"quorate history workers", "a line for each generation"},
			{"quorate history workers -j", "a JSON array, with the fields group, generation, cause, began, settled, members; with buckets also buckets, moved"},
		},
		exits: []exitSpec{{ExitFailed, "failed; also: no such group"}, {ExitUnanswered, "no answer within --timeout"}},
		run:   runHistory,
	}
}

func runHistory(ctx context.Context, c *call) error {
	return c.onRecord(ctx, func(ctx context.Context, cl *coord.Client, gone bool) error {
		lines, err := c.historyLines(ctx, cl)
		if err != nil {
			return err
		}
		if gone && len(lines) == 0 {
			return c.noGroup(cl.Name())
		}
		return c.printHistory(lines)
	})
}

// onRecord is inGroup for what stays on record when all have left, as fn is then told.
func (c *call) onRecord(ctx context.Context, fn func(ctx context.Context, cl *coord.Client, gone bool) error) error {
	err := c.inGroup(ctx, func(ctx context.Context, cl *coord.Client, _ coord.Roster) error { return fn(ctx, cl, false) })
	if !errors.Is(err, coord.ErrNoGroup) {
		return err
	}
	bounded, cancel := c.bounded(ctx)
	defer cancel()
	s, serr := c.session(bounded)
	if serr != nil {
		return err
	}
	defer s.Close()
	cl, serr := s.client(bounded)
	if serr != nil {
		return serr
	}
	return fn(bounded, cl, true)
}

func (c *call) historyLines(ctx context.Context, cl *coord.Client) ([]historyLine, error) {
	all, err := cl.Namespace().Store.List(ctx, wire.HistoryPrefix(cl.Name())+"*")
	if err != nil {
		return nil, c.failed(ctx, err)
	}
	return historyOf(cl.Name(), all), nil
}

// historyOf are the records, by generation. One that cannot be read is left out.
func historyOf(group string, all []kv.Entry) []historyLine {
	lines := make([]historyLine, 0, len(all))
	for _, e := range all {
		var h wire.History
		if e.Op != kv.Record || wire.Decode(e.Value, &h) != nil {
			continue
		}
		l := historyLine{Group: group, Generation: h.Generation, Cause: h.Cause, Began: h.Began, Settled: h.Settled, Members: append([]string{}, h.Members...), Buckets: h.Buckets}
		if h.Buckets > 0 {
			l.Moved = &h.Moved
		}
		lines = append(lines, l)
	}
	slices.SortFunc(lines, func(a, b historyLine) int { return cmp.Compare(a.Generation, b.Generation) })
	return lines
}

func (c *call) printHistory(lines []historyLine) error {
	if c.g.json {
		return c.printJSON(lines)
	}
	if len(lines) == 0 {
		return c.print("no generations\n")
	}
	t := newTable("SETTLED", "GENERATION", "TOOK", "TOTAL", "MOVED", "CAUSE", "MEMBERS")
	t.right, t.shrink = []int{1, 2, 3, 4}, 6
	for _, l := range lines {
		began, berr := time.Parse(time.RFC3339Nano, l.Began)
		settled, serr := time.Parse(time.RFC3339Nano, l.Settled)
		took, at, moved := "", "", ""
		if serr == nil {
			at = ago(time.Now(), settled)
		}
		if berr == nil && serr == nil {
			took = settled.Sub(began).Round(time.Millisecond / 10).String()
		}
		if l.Moved != nil {
			moved = fmt.Sprintf("%d of %d", *l.Moved, l.Buckets)
		}
		t.add(at, fmt.Sprint(l.Generation), took, fmt.Sprint(len(l.Members)), moved, l.Cause, strings.Join(l.Members, " "))
	}
	return c.printTable(t)
}
