package permit

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/quorate/quorate/internal/wire"
)

// A Role is what somebody does.
type Role string

// The roles, from the least to the most.
const (
	Observer Role = "observer" // looks: rosters, leaders, shares, verdicts, history; is no member, not even one with Observer set
	Member   Role = "member"   // takes part: joins, leads, works, votes, proposes, sends; and campaigns in plain elections
	Operator Role = "operator" // looks, proposes, sends, has leaders step down, evicts, makes and mends the bucket; is no member
)

// Roles lists them.
func Roles() []string { return []string{string(Member), string(Observer), string(Operator)} }

// Options of [Of].
type Options struct {
	Namespace string // default "default"
	Role      Role
	// Groups and Elections that it may act on; with neither, all of the namespace.
	Groups, Elections []string
	// Domains are JetStream domains by which its clients name the bucket's; "" is none. Default: none.
	Domains []string
	// Inbox is the prefix of its reply subjects; default "_INBOX".
	Inbox string
}

// A Set is what is allowed; all else is not.
type Set struct {
	Publish   []string
	Subscribe []string
	// Responses may be published to the reply subject of whatever it hears: so many for each (negative: any number), within so long. Zero: none.
	Responses int
	Expires   time.Duration
}

// A leader answers a roster in parts, some hundred for ten thousand members, and a proposal when its time is over, which may be ten minutes. A member's heartbeats all have
// one reply subject, and the server counts what it hears there and what it answers together: with a limit it would have one answer in a while refused.
const (
	responses = -1
	expires   = 15 * time.Minute
)

// Of gives the least permissions for a role.
func Of(o Options) Set {
	if o.Namespace == "" {
		o.Namespace = wire.DefaultName
	}
	if o.Inbox == "" {
		o.Inbox = "_INBOX"
	}
	if len(o.Domains) == 0 {
		o.Domains = []string{""}
	}
	p := permits{o: o, groups: o.Groups, elections: o.Elections}
	if len(o.Groups) == 0 && len(o.Elections) == 0 {
		p.groups, p.elections, p.all = []string{"*"}, []string{"*"}, true
	}
	p.bucket()
	p.hear()
	for _, g := range p.groups {
		p.group(g)
	}
	for _, e := range p.elections {
		p.election(e)
	}
	if o.Role == Member {
		// The leader answers its members, members answer ballots and questions. Whoever only looks must not: it hears ballots.
		p.set.Responses, p.set.Expires = responses, expires
	}
	return p.set
}

type permits struct {
	o                 Options
	groups, elections []string
	all               bool // of the namespace
	set               Set
}

func (p *permits) publish(subjects ...string) { p.set.Publish = append(p.set.Publish, subjects...) }
func (p *permits) subscribe(subjects ...string) {
	p.set.Subscribe = append(p.set.Subscribe, subjects...)
}

// api is a call of JetStream, by each name that it goes by.
func (p *permits) api(call string) {
	for _, d := range p.o.Domains {
		if d == "" {
			p.publish("$JS.API." + call)
		} else {
			p.publish("$JS." + d + ".API." + call)
		}
	}
}

// write is a key's subject: under a domain it goes through the API's prefix (R37).
func (p *permits) write(keys ...string) {
	for _, k := range keys {
		for _, d := range p.o.Domains {
			prefix := ""
			if d != "" {
				prefix = "$JS." + d + ".API."
			}
			p.publish(prefix + wire.KVSubject(p.o.Namespace, k))
		}
	}
}

// bucket is what every process asks of it: that it is there, and what stands under a key.
func (p *permits) bucket() {
	stream := wire.Stream(p.o.Namespace)
	p.api("INFO")
	p.api("STREAM.INFO." + stream)
	p.api("STREAM.MSG.GET." + stream)
	if p.o.Role == Operator {
		p.api("STREAM.CREATE." + stream)
		p.api("STREAM.UPDATE." + stream)
	}
	p.write(wire.CheckKey("*")) // Check makes a record of its own, and removes it
	p.subscribe(p.o.Inbox + ".>")
}

// hear is what the server republishes of keys.
func (p *permits) hear() {
	hint := func(key string) { p.subscribe(wire.KVHint(p.o.Namespace, key)) }
	if p.all {
		hint(">")
		return
	}
	hint(wire.CheckKey("*"))
	for _, g := range p.groups {
		hint(wire.LeaderKey(g))
		hint(wire.MemberKey(g, "*"))
		hint(wire.SettledKey(g))
		hint(wire.VerdictKey(g, "*"))
		hint(wire.HistoryPrefix(g) + "*")
	}
	for _, e := range p.elections {
		hint(wire.ElectionKey(e))
	}
}

func (p *permits) group(g string) {
	subject := func(rest string) string { return wire.GroupSubject(p.o.Namespace, g, rest) }
	messages := []string{subject(wire.SubAllDot + "*"), subject(wire.SubLeaderDot + "*"), subject(wire.SubMemberDot + "*.*")}
	p.publish(subject(wire.SubRoster))
	switch p.o.Role {
	case Member:
		p.write(wire.LeaderKey(g), wire.MemberKey(g, "*"), wire.SettledKey(g), wire.VerdictKey(g, "*"), wire.HistoryPrefix(g)+"*")
		for _, rest := range []string{wire.SubHeartbeat, wire.SubPoke, wire.SubPropose, wire.SubCancel, wire.SubBallot, wire.SubVerdict, wire.SubCancelled, wire.SubReport} {
			p.publish(subject(rest))
		}
		p.publish(messages...)
		p.subscribe(subject(">")) // it may lead, so it hears all that is asked of a leader
	case Operator:
		for _, rest := range []string{wire.SubPropose, wire.SubCancel, wire.SubStepDown, wire.SubEvict} {
			p.publish(subject(rest))
		}
		p.publish(messages...)
	}
	if p.o.Role != Member {
		// What is told to all of a group, and the reports of an action.
		for _, rest := range []string{wire.SubBallot, wire.SubVerdict, wire.SubCancelled, wire.SubReport} {
			p.subscribe(subject(rest))
		}
	}
}

func (p *permits) election(e string) {
	subject := func(rest string) string { return wire.ElectionSubject(p.o.Namespace, e, rest) }
	switch p.o.Role {
	case Member:
		p.write(wire.ElectionKey(e))
		p.publish(subject(wire.SubQueue))
		p.subscribe(subject(">"))
	case Operator:
		p.publish(subject(wire.SubStepDown))
	}
}

// Config is the set as a block of a NATS server's configuration: the permissions of a user.
func (s Set) Config() string {
	var b strings.Builder
	list := func(name string, subjects []string) {
		fmt.Fprintf(&b, "  %s: { allow: [\n", name)
		for _, subject := range subjects {
			fmt.Fprintf(&b, "    %q\n", subject)
		}
		b.WriteString("  ] }\n")
	}
	b.WriteString("permissions: {\n")
	list("publish", s.Publish)
	list("subscribe", s.Subscribe)
	if s.Responses != 0 {
		fmt.Fprintf(&b, "  allow_responses: { max: %d, expires: %q }\n", s.Responses, duration(s.Expires))
	}
	b.WriteString("}\n")
	return b.String()
}

// duration writes whole minutes as such.
func duration(d time.Duration) string {
	if d%time.Minute == 0 {
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return d.String()
}

// CheckRole says whether there is such a role.
func CheckRole(r string) error {
	if slices.Contains(Roles(), r) {
		return nil
	}
	return fmt.Errorf("%q is none of %s", r, strings.Join(Roles(), ", "))
}

// CheckInbox says what is wrong with a prefix of reply subjects.
func CheckInbox(s string) error {
	for token := range strings.SplitSeq(s, ".") {
		if token == "" || strings.ContainsAny(token, "*> \t\r\n") {
			return fmt.Errorf("%q is no prefix of subjects: write one like _INBOX_mine", s)
		}
	}
	for _, taken := range []string{"$", "quorate"} {
		if strings.HasPrefix(s, taken) {
			return fmt.Errorf("%q begins as subjects that are in use: write one like _INBOX_mine", s)
		}
	}
	return nil
}
