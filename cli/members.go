package cli

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quorate/quorate/coord"
)

// memberLine is a member as `members -o json` shows it (design section 7): exactly these fields, in this order.
type memberLine struct {
	ID       string            `json:"id" doc:"the member's id"`
	Status   string            `json:"status" doc:"alive, late (it misses heartbeats), or unknown when no leader can tell, or can tell yet"`
	Leader   bool              `json:"leader" doc:"it leads the group"`
	Roles    []string          `json:"roles" doc:"of lead (may lead), work (has a share), vote (has a vote); none: an observer"`
	Index    *int              `json:"index" doc:"its share of the work; null: none"`
	Joined   *string           `json:"joined" doc:"when it joined, by its own clock"`
	LastSeen *string           `json:"last_seen" doc:"when the leader heard it last, by the leader's clock; null without a leader"`
	Meta     map[string]string `json:"meta" doc:"what it says about itself"`
	Host     string            `json:"host" doc:"where it runs"`
	Version  string            `json:"version" doc:"of quorate there"`
}

func newMemberLine(m coord.Member) memberLine {
	l := memberLine{ID: m.ID, Status: m.Status, Leader: m.Leader, Roles: append([]string{}, m.Roles...), Joined: wireTime(m.Joined),
		LastSeen: wireTime(m.LastSeen), Meta: m.Meta, Host: m.Host, Version: m.Version}
	if m.Index >= 0 {
		l.Index = &m.Index
	}
	if l.Meta == nil {
		l.Meta = map[string]string{}
	}
	return l
}

func membersCommand() *command {
	return &command{
		name:    "members",
		section: sectionShow,
		summary: "list the members of a group",
		about: "Lists the members of a group as its leader sees them, in the order of their ids: whether it hears them (alive, late), " +
			"which share of the work they have (index), and when it heard them last.\n\n" +
			"Without a leader the members' own records are shown, with the status unknown.",
		args:  []argSpec{{name: "GROUP"}},
		needs: needClient,
		json:  []shape{{of: memberLine{}, list: true}},
		examples: []example{
			{"quorate members workers", "a table"},
			{"quorate members workers -j", "the same as JSON, with the fields id, status, leader, roles, index, joined, last_seen, meta, host, version"},
		},
		exits: []exitSpec{{ExitFailed, "failed; also: no such group"}, {ExitUnanswered, "no answer within --timeout"}},
		run: func(ctx context.Context, c *call) error {
			return c.inGroup(ctx, func(_ context.Context, _ *coord.Client, r coord.Roster) error { return c.printMembers(r) })
		},
	}
}

func (c *call) printMembers(r coord.Roster) error {
	if c.g.json {
		lines := make([]memberLine, 0, len(r.Members))
		for _, m := range r.Members {
			lines = append(lines, newMemberLine(m))
		}
		return c.printJSON(lines)
	}
	if len(r.Members) == 0 {
		return c.print("no members\n")
	}
	now := time.Now()
	t := newTable("ID", "STATUS", "INDEX", "ROLES", "JOINED", "SEEN", "HOST", "META")
	t.right, t.shrink = []int{2}, 7
	for _, m := range r.Members {
		index, roles := "", m.Roles
		if m.Index >= 0 {
			index = strconv.Itoa(m.Index)
		}
		if m.Leader {
			roles = slices.Clone(roles)
			if i := slices.Index(roles, "lead"); i >= 0 {
				roles[i] = "LEADER"
			}
		}
		if len(roles) == 0 {
			roles = []string{"observer"}
		}
		t.add(m.ID, m.Status, index, strings.Join(roles, ","), ago(now, m.Joined), ago(now, m.LastSeen), m.Host, metaText(m.Meta))
	}
	return c.printTable(t)
}
