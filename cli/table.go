package cli

import (
	"context"
	"fmt"
	"strings"
)

// need is what a command needs of NATS.
type need int

const (
	needNone   need = iota // no connection
	needClient             // a server that is there; one-host embedded: 'no server in DIR' if nobody serves
	needServer             // one-host embedded: this process serves if nobody does
)

// kind is how a flag is written. It is the same for one name in every command: words.go relies on it.
type kind int

const (
	kindString   kind = iota // --id web-1
	kindBool                 // --observer
	kindDuration             // --grace 5s
	kindInt                  // --members 3
	kindList                 // --meta a=1 --meta b=2
	kindSeconds              // --settle 4s, or 4: a duration, or seconds as a plain number
)

// A flagSpec is one flag, of the application or of a command.
type flagSpec struct {
	name    string
	short   string // one letter, or ""
	local   string // one letter that means this flag once its command's name is known, whatever it means elsewhere; or ""
	kind    kind
	value   string   // what the value is called in help: ID, URL; for a bool ""
	env     string   // its variable, or ""
	def     string   // shown in help; the value when neither flag nor variable is given ("" for none)
	choices []string // the only values allowed, if any
	usage   string
	secret  bool // its value is in no message
}

// spelled is how the flag is named in messages.
func (f *flagSpec) spelled() string { return "--" + f.name }

// label is the flag as the left column of help shows it.
func (f *flagSpec) label() string {
	s := "--" + f.name
	if letter := f.short + f.local; letter != "" {
		s = "-" + letter + ", " + s
	}
	if f.kind != kindBool {
		s += " " + f.value
	}
	return s
}

// An argSpec is one positional argument.
type argSpec struct {
	name     string
	optional bool
	many     bool   // the last one: one or more (optional: none or more)
	unless   string // flag that takes its place: with it the argument must be absent, without it present
}

// An example is a line to type and what it does.
type example struct {
	line string
	does string
}

// A shape is what a command prints with -o json.
type shape struct {
	of   any    // a value of its type; each field has a tag `doc` with what it means
	list bool   // an array of these
	when string // the flag that it takes
	note string // in place of the fields, or what they are
}

// An exitSpec is an exit code with what it means for a command.
type exitSpec struct {
	code  int
	means string
}

// A command is one entry of the table.
type command struct {
	name     string
	aliases  []string
	section  string // heading in help
	summary  string // one line, lower case, no full stop
	about    string // paragraphs, separated by empty lines
	args     []argSpec
	rest     string // what follows `--`, if that is not just further arguments: CMD...
	flags    []flagSpec
	examples []example
	exits    []exitSpec // beside 0, 1 and 2
	json     []shape    // what -o json prints
	needs    need
	runsOn   bool // runs until interrupted: --timeout bounds its requests only, and INT or TERM is its normal end
	run      func(ctx context.Context, c *call) error
}

// Headings of help, in their order.
const (
	sectionTake  = "Take part"
	sectionShow  = "Look"
	sectionAct   = "Act"
	sectionServe = "Serve and check"
	sectionOther = "Other"
)

func sections() []string {
	return []string{sectionTake, sectionShow, sectionAct, sectionServe, sectionOther}
}

// commands is the table of all commands, in the order that help shows them within their section.
func commands() []*command {
	return []*command{
		joinCommand(),
		runCommand(),
		groupsCommand(),
		membersCommand(),
		leaderCommand(),
		ownerCommand(),
		historyCommand(),
		watchCommand(),
		waitCommand(),
		votesCommand(),
		voteCommand(),
		stepDownCommand(),
		evictCommand(),
		sendCommand(),
		explainCommand(),
		checkCommand(),
		initCommand(),
		serverCommand(),
		raftCommand(),
		permissionsCommand(),
		blocCommand(),
		webCommand(),
		demoCommand(),
		benchCommand(),
		completionCommand(),
		versionCommand(),
		helpCommand(),
	}
}

// find returns the command of that name or alias.
func find(table []*command, name string) *command {
	for _, c := range table {
		if c.name == name {
			return c
		}
		for _, a := range c.aliases {
			if a == name {
				return c
			}
		}
	}
	return nil
}

// flag returns the command's own flag of that name.
func (c *command) flag(name string) *flagSpec {
	for i := range c.flags {
		if c.flags[i].name == name {
			return &c.flags[i]
		}
	}
	return nil
}

// synopsis is how the command is called, without its flags.
func (c *command) synopsis() string {
	var b strings.Builder
	b.WriteString("quorate " + c.name)
	for _, a := range c.args {
		s := a.name
		if a.many {
			s += "..."
		}
		if a.optional {
			s = "[" + s + "]"
		}
		b.WriteString(" " + s)
	}
	if c.rest != "" {
		b.WriteString(" -- " + c.rest)
	}
	return b.String()
}

// checkArgs says what is missing or too much among the positionals; set tells which flags were given.
func (c *command) checkArgs(args, after []string, set func(flag string) bool) error {
	if c.rest == "" {
		args = append(append([]string(nil), args...), after...)
	} else if len(after) == 0 {
		if n := len(c.args); len(args) > n {
			return usageError("%s: %q is not after `--`: write: %s", c.name, args[n], c.synopsis())
		}
		return usageError("%s: %s is missing: write: %s", c.name, c.rest, c.synopsis())
	}
	n := 0 // arguments accounted for
	for _, a := range c.args {
		if a.unless != "" && set(a.unless) {
			continue
		}
		switch {
		case n < len(args) && a.many:
			n = len(args)
		case n < len(args):
			n++
		case !a.optional:
			hint := ""
			if a.unless != "" {
				hint = fmt.Sprintf(" (or --%s)", a.unless)
			}
			return usageError("%s: %s is missing%s: write: %s", c.name, a.name, hint, c.synopsis())
		}
	}
	if n < len(args) {
		for _, a := range c.args {
			if a.unless != "" && set(a.unless) {
				return usageError("%s: %q is too much beside --%s: leave one out", c.name, args[n], a.unless)
			}
		}
		return usageError("%s: %q is one argument too many: write: %s", c.name, args[n], c.synopsis())
	}
	return nil
}
