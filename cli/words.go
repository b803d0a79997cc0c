package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/quorate/quorate/internal/suggest"
)

// ordered are the words of one call, taken apart.
type ordered struct {
	cmd     *command
	global  []given  // application flags
	own     []given  // the command's flags
	args    []string // positionals before `--`, without the command
	after   []string // what followed the user's own `--`
	help    bool     // --help or -h was among the words
	version bool     // --version
}

// given is one flag as it was given.
type given struct {
	flag  *flagSpec
	value string // "true" or "false" for a bool
}

// words are the words as urfave/cli gets them: application flags, command, its flags, `--`, positionals.
func (o *ordered) words() []string {
	w := []string{"quorate"}
	for _, g := range o.global {
		w = append(w, "--"+g.flag.name+"="+g.value)
	}
	w = append(w, o.cmd.name)
	for _, g := range o.own {
		w = append(w, "--"+g.flag.name+"="+g.value)
	}
	return append(append(w, "--"), o.args...)
}

// has tells whether a flag of that name was given, to the application or the command.
func (o *ordered) has(name string) bool {
	for _, g := range slices.Concat(o.global, o.own) {
		if g.flag.name == name {
			return true
		}
	}
	return false
}

// order takes the words of a call apart, in whatever order flags, command and arguments come. urfave/cli v2 cannot:
// there a flag after an argument silently becomes an argument.
//
// The first word that is neither a flag nor a flag's value is the command. Flags are known by their name alone, since
// their command may come after them. What is wrong is answered here, with a hint at what was probably meant.
func order(words []string, app []flagSpec, table []*command) (*ordered, error) {
	o := &ordered{}
	var own []given // flags of some command, until the command is known
	var name string // the command's, as typed
	var bad error   // the first thing wrong; --help among the words still wins
	fail := func(err error) {
		if bad == nil {
			bad = err
		}
	}
	for i := 0; i < len(words); i++ {
		w := words[i]
		switch {
		case w == "--":
			o.after = slices.Clone(words[i+1:])
			i = len(words)
		case w == "--help" || w == "-h":
			o.help = true
		case w == "--version":
			o.version = true
		case len(w) > 1 && w[0] == '-':
			typed, value, joined := strings.Cut(w, "=")
			f, global := o.cmd.local(typed), false
			if f == nil {
				f, global = lookup(typed, app, table)
			}
			if f == nil {
				fail(unknownFlag(typed, name, app, table))
				continue
			}
			switch {
			case f.kind == kindBool && !joined:
				value = "true"
			case f.kind == kindBool:
				if value != "true" && value != "false" {
					fail(usageError("%s takes no value but true or false, not %q", typed, value))
				}
			case !joined:
				// A following flag is not a value: `--id --observer` has forgotten one.
				if i+1 == len(words) || len(words[i+1]) > 1 && words[i+1][0] == '-' {
					fail(missingValue(typed, f, words[i+1:]))
					continue
				}
				i++
				value = words[i]
			}
			if err := checkValue(f, value); err != nil {
				if _, app := lookup(typed, app, nil); app && !global {
					err = usageError("%w (after %q, %s is --%s)", err, name, typed, f.name)
				}
				fail(err)
			}
			g := given{f, value}
			if global {
				fail(repeated(typed, g, o.global))
				o.global = append(o.global, g)
			} else {
				fail(repeated(typed, g, own))
				own = append(own, g)
			}
		case name == "":
			name = w
			if o.cmd = find(table, w); o.cmd == nil {
				fail(unknownCommand(w, table))
			}
		default:
			o.args = append(o.args, w)
		}
	}
	if o.help || o.version {
		return o, nil // asked for help: whatever else is wrong can wait
	}
	if bad != nil {
		return nil, bad
	}
	if o.cmd == nil {
		if len(words) == 0 {
			o.help = true
			return o, nil
		}
		return nil, usageError("no command: 'quorate help' lists them")
	}
	for _, g := range own {
		f := o.cmd.flag(g.flag.name)
		if f == nil {
			return nil, notOfCommand(g.flag, o.cmd, app, table)
		}
		// Choices may differ between commands; the kind does not.
		if err := checkValue(f, g.value); err != nil {
			return nil, err
		}
		o.own = append(o.own, given{f, g.value})
	}
	if err := o.cmd.checkArgs(o.args, o.after, o.has); err != nil {
		return nil, err
	}
	if o.cmd.rest == "" {
		o.args, o.after = append(o.args, o.after...), nil
	}
	return o, nil
}

// lookup finds a flag by how it was typed (`--id`, `-s`), among the application's and every command's.
func lookup(typed string, app []flagSpec, table []*command) (f *flagSpec, global bool) {
	match := func(f *flagSpec) bool {
		return typed == "--"+f.name || f.short != "" && typed == "-"+f.short
	}
	for i := range app {
		if match(&app[i]) {
			return &app[i], true
		}
	}
	for _, c := range table {
		for i := range c.flags {
			if match(&c.flags[i]) {
				// Without its choices: which command's they are is not known yet.
				f := c.flags[i]
				f.choices = nil
				return &f, false
			}
		}
	}
	return nil, false
}

// local finds a flag that this command alone writes with that letter.
func (c *command) local(typed string) *flagSpec {
	for i := 0; c != nil && i < len(c.flags); i++ {
		if f := &c.flags[i]; f.local != "" && typed == "-"+f.local {
			return f
		}
	}
	return nil
}

func repeated(typed string, g given, before []given) error {
	if g.flag.kind == kindList {
		return nil
	}
	for _, b := range before {
		if b.flag.name == g.flag.name && (g.flag.kind != kindBool || b.value != g.value) {
			return usageError("%s is given twice: leave one out", typed)
		}
	}
	return nil
}

func missingValue(typed string, f *flagSpec, rest []string) error {
	if len(rest) > 0 && rest[0] != "--" {
		if f.secret {
			return usageError("%s needs a value; one that begins with '-' is written %s=%s", typed, f.spelled(), f.value)
		}
		return usageError("%s needs a value; one that begins with '-' is written %s=%s", typed, f.spelled(), rest[0])
	}
	return usageError("%s needs a value: %s %s", typed, typed, f.value)
}

// checkValue says what is wrong with a flag's or variable's value, by its kind and choices.
func checkValue(f *flagSpec, value string) error {
	return checkValueOf(f, "--"+f.name, value)
}

func checkValueOf(f *flagSpec, where, value string) error {
	switch f.kind {
	case kindBool:
		if !slices.Contains([]string{"true", "false", "1", "0"}, value) {
			return usageError("%s %q: true or false", where, value)
		}
	case kindDuration:
		if _, err := parseDuration(value); err != nil {
			return usageError("%s %q: %w", where, value, err)
		}
	case kindSeconds:
		if _, err := parseSeconds(value); err != nil {
			return usageError("%s %q: %w", where, value, err)
		}
	case kindInt:
		if _, err := parseInt(value); err != nil {
			return usageError("%s %q: %w", where, value, err)
		}
	}
	if len(f.choices) > 0 && !slices.Contains(f.choices, value) {
		return usageError("%s %q: write one of %s", where, value, strings.Join(f.choices, ", "))
	}
	return nil
}

func unknownCommand(name string, table []*command) error {
	var known []string
	for _, c := range table {
		known = append(append(known, c.name), c.aliases...)
	}
	if near := suggest.Nearest(name, known); near != "" {
		return usageError("unknown command %q: did you mean %q?", name, near)
	}
	return usageError("unknown command %q: 'quorate help' lists them", name)
}

func unknownFlag(typed, cmd string, app []flagSpec, table []*command) error {
	var known []string
	add := func(flags []flagSpec) {
		for _, f := range flags {
			known = append(known, "--"+f.name)
			if f.short != "" {
				known = append(known, "-"+f.short)
			}
		}
	}
	add(app)
	if c := find(table, cmd); c != nil {
		add(c.flags)
	} else {
		for _, c := range table {
			add(c.flags)
		}
	}
	known = append(known, "--help", "--version")
	// `-server`: one dash too few.
	if slices.Contains(known, "-"+typed) {
		return usageError("unknown flag %s: did you mean -%s?", typed, typed)
	}
	if near := suggest.Nearest(typed, known); near != "" && len(typed) > 2 {
		return usageError("unknown flag %s: did you mean %s?", typed, near)
	}
	if c := find(table, cmd); c != nil {
		return usageError("unknown flag %s: 'quorate help %s' lists them", typed, c.name)
	}
	return usageError("unknown flag %s: 'quorate help' lists them", typed)
}

// notOfCommand answers a flag that another command has.
func notOfCommand(f *flagSpec, cmd *command, app []flagSpec, table []*command) error {
	var known []string
	for _, own := range slices.Concat(cmd.flags, app) {
		known = append(known, "--"+own.name)
	}
	if near := suggest.Nearest("--"+f.name, known); near != "" {
		return usageError("unknown flag --%s of '%s': did you mean %s?", f.name, cmd.name, near)
	}
	var of []string
	for _, c := range table {
		if c.flag(f.name) != nil {
			of = append(of, c.name)
		}
	}
	return usageError("unknown flag --%s of '%s': it is a flag of %s", f.name, cmd.name, strings.Join(of, ", "))
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// count is "1 member", "3 members".
func count(n int, one string) string { return fmt.Sprintf("%d %s", n, plural(n, one, one+"s")) }
