package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/quorate/quorate/internal/permit"
	"github.com/quorate/quorate/internal/wire"
)

func permissionsCommand() *command {
	return &command{
		name:    "permissions",
		section: sectionServe,
		summary: "print the NATS permissions that a role needs, and no more",
		about: "Prints the permissions of a user, as a NATS server's configuration has them: what a member (takes part, leads, votes), an observer (only looks, and is in no " +
			"roster) or an operator (steps down, evicts, makes and mends the bucket) publishes and subscribes to. `quorate server` gives them to the users of its file by " +
			"itself. It connects to nothing.\n\n" +
			"Without --group and --election, of the whole namespace. The namespace is the boundary: who may read a record of it can read all. On a NATS of your own give each namespace an " +
			"account, as `quorate server` does: within one account whoever may ask JetStream anything can have its answer stored over any record. docs/security.md says what these " +
			"permissions keep apart, and what they cannot.\n\n" +
			"What is answered to one user is heard by every other that may subscribe to the same reply subjects: with --inbox-prefix they are its own, and its clients have to " +
			"connect with that prefix.",
		flags: []flagSpec{
			{name: "role", value: "ROLE", def: string(permit.Member), choices: permit.Roles(), usage: "what it does: member, observer or operator"},
			{name: "group", kind: kindList, value: "NAME", usage: "a group that it may act on"},
			{name: "election", value: "NAME", usage: "a plain election, or several with commas between"},
		},
		needs: needNone,
		examples: []example{
			{"quorate permissions --group workers", "of a service that joins one group"},
			{"quorate permissions --role observer -N prod --inbox-prefix _INBOX_prod", "of a dashboard"},
			{"quorate permissions --role operator --js-domain hub -j", "as JSON, by the names of a JetStream domain"},
		},
		json: []shape{{of: permissionsLine{}}},
		run:  runPermissions,
	}
}

// permissionsLine is what `permissions -o json` shows.
type permissionsLine struct {
	Namespace string           `json:"namespace" doc:"the namespace"`
	Role      string           `json:"role" doc:"the role"`
	Groups    []string         `json:"groups" doc:"that it may act on"`
	Elections []string         `json:"elections" doc:"likewise; with neither all of the namespace"`
	Publish   []string         `json:"publish" doc:"subjects that it may publish to"`
	Subscribe []string         `json:"subscribe" doc:"subjects that it may subscribe to"`
	Responses *responsesOfRole `json:"allow_responses" doc:"what it may publish to the reply subject of what it hears"`
}

type responsesOfRole struct {
	Max       int   `json:"max" doc:"how often; -1: any number"`
	ExpiresMS int64 `json:"expires_ms" doc:"for how long"`
}

func runPermissions(_ context.Context, c *call) error {
	o := permit.Options{Namespace: c.g.namespace, Role: permit.Role(c.str("role")), Groups: c.list("group")}
	for _, g := range o.Groups {
		if err := wire.CheckGroup(g); err != nil {
			return err
		}
	}
	if c.isSet("election") {
		o.Elections = strings.Split(c.str("election"), ",")
	}
	for _, e := range o.Elections {
		if err := wire.CheckElection(e); err != nil {
			return err
		}
	}
	if prefix, from := c.setting("inbox-prefix"); from > fromNowhere {
		if err := permit.CheckInbox(prefix); err != nil {
			return usageError("%s: %w", c.spelled("inbox-prefix", from), err)
		}
		o.Inbox = prefix
	}
	if domain, from := c.setting("js-domain"); from > fromNowhere {
		if strings.ContainsAny(domain, ".*> \t") {
			return usageError("%s %q: a domain has no '.', '*', '>' or blank", c.spelled("js-domain", from), domain)
		}
		o.Domains = []string{domain}
	}
	set := permit.Of(o)
	if !c.g.json {
		return c.print(fmt.Sprintf("# %s of namespace %s%s\n%s", o.Role, o.Namespace, scope(o), set.Config()))
	}
	l := permissionsLine{Namespace: o.Namespace, Role: string(o.Role), Groups: o.Groups, Elections: o.Elections, Publish: set.Publish, Subscribe: set.Subscribe}
	if l.Groups == nil {
		l.Groups = []string{}
	}
	if l.Elections == nil {
		l.Elections = []string{}
	}
	if set.Responses != 0 {
		l.Responses = &responsesOfRole{set.Responses, wire.ToMS(set.Expires)}
	}
	return c.printJSON(l)
}

// scope says what of the namespace is meant.
func scope(o permit.Options) string {
	var l []string
	if len(o.Groups) > 0 {
		l = append(l, plural(len(o.Groups), "group ", "groups ")+strings.Join(o.Groups, ", "))
	}
	if len(o.Elections) > 0 {
		l = append(l, plural(len(o.Elections), "election ", "elections ")+strings.Join(o.Elections, ", "))
	}
	if l == nil {
		return ""
	}
	return ", " + strings.Join(l, ", ")
}
