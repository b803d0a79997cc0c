package cli

import (
	"fmt"
	"reflect"
	"strings"
)

// The manual is made from the table of commands, as the help is: in Markdown for docs/cli.md, and as a man page. A test compares both with what is in
// the repository.

// argTexts say what the positional arguments are, for the manual.
func argTexts() map[string]string {
	return map[string]string{
		"GROUP":   "a group: letters, digits, `-` and `_`, beginning with a letter or digit, up to 63 of them; nested names with `/`",
		"ID":      "a member's id: letters, digits, `-` and `_`, beginning with a letter or digit, up to 63 of them",
		"KEY":     "any text",
		"TEXT":    "the message, up to 512 KiB",
		"TOPIC":   "what is asked: any text up to 1 KiB",
		"COMMAND": "the command to show",
		"SHELL":   "bash, zsh or fish",
		"CMD...":  "a program and its arguments, after `--`",
	}
}

// A variable is one that is read, beside those of flags.
type variable struct{ name, about string }

func variables() []variable {
	return []variable{
		{"HOME", "for contexts, and for the state directory"},
		{"XDG_CONFIG_HOME", "where NATS contexts are, in nats below it; else ~/.config"},
		{"XDG_STATE_HOME", "where this host's own server keeps its data, in quorate below it; else ~/.local/state"},
		{"NO_COLOR", "if it is set, no colours; there are none either if the output is not a terminal, or TERM is dumb"},
		{"COLUMNS", "how wide tables may be on a terminal; else 80. Into files and pipes they go uncut"},
		{"NOTIFY_SOCKET", "where `quorate server` tells systemd that it is ready"},
		{"QUORATE_GROUP, QUORATE_ELECTION, QUORATE_MEMBER, QUORATE_TOKEN, QUORATE_INDEX, QUORATE_TOTAL, QUORATE_GENERATION, QUORATE_BUCKETS", "what `quorate run` tells its CMD; see there. Commands of `join --on-...` get the first and third, those of --on-ballot and --on-action also QUORATE_BALLOT and QUORATE_TOPIC"},
	}
}

// manualIntro are paragraphs on what all commands have in common.
func (a *app) manualIntro() []string {
	var serve []string
	for _, c := range a.commands {
		if c.needs == needServer {
			serve = append(serve, c.name)
		}
	}
	return []string{
		"Group coordination over NATS: members that know each other, one leader, a settled share of the work for each member, votes, and actions taken together.",
		"Flags may stand anywhere, before and after the command and its arguments. `--flag value` and `--flag=value` are the same; a value that begins with `-` is written the second way. All after the first `--` is taken as it is. " +
			"A flag wins over its variable, a variable over the NATS context (the selected one too), setting by setting.",
		"With no server, credentials or context from anywhere, quorate uses this host's own NATS server. These commands start it if nobody serves: " + strings.Join(serve, ", ") + ". The others say that there is none.",
		"Results go to standard output, as tables for people or, with `-o json`, as JSON for programs. Errors are one line on standard error: what, which group, what to do next. Tables and wording may change; JSON and exit codes only grow.",
	}
}

func appExits() []exitSpec {
	return []exitSpec{
		{ExitDone, "done; a vote: yes; a command that runs on: ended by INT or TERM, after leaving"},
		{ExitFailed, "failed; also: no such group, evicted"},
		{ExitUsage, "wrong usage"},
		{ExitNo, "a vote's no"},
		{ExitUnanswered, "timed out, verdict unknown, no leader, not quorate, nobody to ask"},
		{ExitRunFailed, "run: quorate failed"},
		{ExitCannotRun, "run: CMD cannot be run"},
		{ExitNotFound, "run: CMD was not found"},
		{ExitInterrupted, "a second INT: at once"},
	}
}

// A writer of manuals knows a format.
type manualWriter interface {
	title()
	heading(level int, text string)
	paragraph(text string)
	code(lines ...string)
	list(rows [][2]string) // a term, which is code, and what it means
	end() string
}

// manual walks over everything there is to say.
func (a *app) manual(w manualWriter) string {
	w.title()
	for _, p := range a.manualIntro() {
		w.paragraph(p)
	}
	var of [][2]string
	for _, s := range sections() {
		for _, c := range a.commands {
			if c.section == s {
				of = append(of, [2]string{strings.Join(append([]string{c.name}, c.aliases...), ", "), c.summary})
			}
		}
	}
	w.heading(1, "Commands at a glance")
	w.list(of)
	w.heading(1, "Flags of every command")
	w.list(append(flagRows(a.flags), [2]string{"-h, --help", "show the help of the command"}, [2]string{"--version", "print the version"}))
	w.heading(1, "Environment")
	w.paragraph("Each flag that has a variable takes its value from there when it is not given; an empty variable counts as none. And:")
	var rows [][2]string
	for _, v := range variables() {
		rows = append(rows, [2]string{v.name, v.about})
	}
	w.list(rows)
	w.heading(1, "Exit codes")
	w.list(exitRows(appExits()))
	w.paragraph("`check` has those of monitors: 0 ok, 1 warning, 2 critical, 3 unknown. `run` ends with CMD's own, or 128 and the number of the signal that ended CMD.")
	for _, s := range sections() {
		w.heading(1, s)
		for _, c := range a.commands {
			if c.section == s {
				manualOf(w, c)
			}
		}
	}
	return w.end()
}

func exitRows(exits []exitSpec) (rows [][2]string) {
	for _, e := range exits {
		rows = append(rows, [2]string{fmt.Sprint(e.code), e.means})
	}
	return rows
}

func manualOf(w manualWriter, c *command) {
	w.heading(2, "quorate "+c.name)
	w.paragraph(strings.ToUpper(c.summary[:1]) + c.summary[1:] + ".")
	lines := []string{c.usage()}
	for _, alias := range c.aliases {
		lines = append(lines, strings.Replace(c.usage(), c.name, alias, 1))
	}
	w.code(lines...)
	for p := range strings.SplitSeq(c.about, "\n\n") {
		w.paragraph(p)
	}
	var rows [][2]string
	for _, a := range c.args {
		text := argTexts()[a.name]
		switch {
		case a.many && a.optional:
			text += "; none or more"
		case a.many:
			text += "; one or more"
		case a.optional:
			text += "; may be left out"
		}
		if a.unless != "" {
			text += "; not with --" + a.unless
		}
		rows = append(rows, [2]string{a.name, text})
	}
	if c.rest != "" {
		rows = append(rows, [2]string{c.rest, argTexts()[c.rest]})
	}
	if len(rows) > 0 {
		w.heading(3, "Arguments")
		w.list(rows)
	}
	if len(c.flags) > 0 {
		w.heading(3, "Flags")
		w.list(flagRows(c.flags))
	}
	w.heading(3, "Examples")
	rows = nil
	for _, e := range c.examples {
		rows = append(rows, [2]string{e.line, e.does})
	}
	w.list(rows)
	if len(c.exits) > 0 {
		w.heading(3, "Exit codes")
		w.list(exitRows(c.exits))
	}
	for _, s := range c.json {
		manualShape(w, s)
	}
}

// manualShape tells the fields of what is printed with -o json.
func manualShape(w manualWriter, s shape) {
	w.heading(3, "JSON")
	lead := "One object"
	if s.list {
		lead = "An array of objects"
	}
	if s.when != "" {
		lead += ", with `" + s.when + "`"
	}
	switch {
	case s.of == nil:
		w.paragraph(strings.ToUpper(s.note[:1]) + s.note[1:] + ".")
		return
	case s.note != "":
		lead += ": " + s.note
	}
	w.paragraph(lead + ".")
	w.list(fieldRows(reflect.TypeOf(s.of), ""))
}

// fieldRows are the fields of a struct as JSON has them, those of nested ones behind theirs.
func fieldRows(t reflect.Type, prefix string) (rows [][2]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			rows = append(rows, fieldRows(f.Type, prefix)...)
			continue
		}
		name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		text, nested := typeText(f.Type)
		if opts == "omitempty" {
			text += ", may be absent"
		}
		rows = append(rows, [2]string{prefix + name, text + ": " + f.Tag.Get("doc")})
		if nested != nil {
			if f.Type.Kind() == reflect.Slice {
				name += "[]"
			}
			rows = append(rows, fieldRows(nested, prefix+name+".")...)
		}
	}
	return rows
}

// typeText names a type as JSON has it; nested is that of the objects in it.
func typeText(t reflect.Type) (text string, nested reflect.Type) {
	switch t.Kind() {
	case reflect.Pointer:
		text, nested = typeText(t.Elem())
		return text + " or null", nested
	case reflect.String:
		return "text", nil
	case reflect.Bool:
		return "true or false", nil
	case reflect.Float64:
		return "number", nil
	case reflect.Map:
		return "object of texts", nil
	case reflect.Struct:
		return "object", t
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Struct {
			return "array of objects", t.Elem()
		}
		of, _ := typeText(t.Elem())
		return "array of " + of + "s", nil
	}
	return "integer", nil
}

// usage is the command's synopsis with its flags.
func (c *command) usage() string {
	usage := c.synopsis()
	if len(c.flags) > 0 {
		// Flags may stand anywhere before `--`.
		line, rest, cut := strings.Cut(usage, " -- ")
		usage = line + " [FLAGS]"
		if cut {
			usage += " -- " + rest
		}
	}
	return usage
}

// ---- Markdown

type markdown struct{ b strings.Builder }

func (m *markdown) title() {
	m.b.WriteString("# The quorate command\n\nMade by `quorate help --format markdown`, from the same table as the help; a test compares it. The same as a man page: [quorate.1](quorate.1).\n\n")
}

func (m *markdown) heading(level int, text string) {
	if level == 3 {
		m.b.WriteString("**" + text + "**\n\n")
		return
	}
	m.b.WriteString(strings.Repeat("#", level+1) + " " + text + "\n\n")
}

// prose escapes what Markdown would read something into, outside of `code`.
func (m *markdown) prose(text string) string {
	parts := strings.Split(text, "`")
	if len(parts)%2 == 0 { // an odd one is none
		parts = []string{text}
	}
	for i := range parts {
		if i%2 == 0 {
			parts[i] = strings.NewReplacer("<", "&lt;", "*", "\\*", "[", "\\[").Replace(parts[i])
		} else {
			parts[i] = "`" + parts[i] + "`"
		}
	}
	return strings.Join(parts, "")
}

func (m *markdown) paragraph(text string) { m.b.WriteString(m.prose(text) + "\n\n") }

func (m *markdown) code(lines ...string) {
	m.b.WriteString("```\n" + strings.Join(lines, "\n") + "\n```\n\n")
}

func (m *markdown) list(rows [][2]string) {
	m.b.WriteString("| | |\n|---|---|\n")
	cell := strings.NewReplacer("|", "\\|")
	for _, r := range rows {
		m.b.WriteString("| `" + cell.Replace(r[0]) + "` | " + cell.Replace(m.prose(r[1])) + " |\n")
	}
	m.b.WriteString("\n")
}

func (m *markdown) end() string { return strings.TrimRight(m.b.String(), "\n") + "\n" }

// ---- man page

type roff struct {
	b      strings.Builder
	headed bool // a heading was the last: it begins a paragraph
}

// escape makes text that troff reads nothing into. In `code` quotes are left out: the page shows it in bold.
func (m *roff) escape(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`).Replace(text)
	if strings.HasPrefix(text, ".") {
		text = `\&` + text
	}
	return text
}

func (m *roff) prose(text string) string {
	parts := strings.Split(text, "`")
	if len(parts)%2 == 0 {
		return m.escape(text)
	}
	for i := range parts {
		if parts[i] = m.escape(parts[i]); i%2 == 1 {
			parts[i] = `\fB` + parts[i] + `\fR`
		}
	}
	return strings.Join(parts, "")
}

func (m *roff) title() {
	m.b.WriteString(".\\\" Made by `quorate help --format man`.\n.TH QUORATE 1 \"\" quorate \"User Commands\"\n.SH NAME\nquorate \\- group coordination over NATS\n" +
		".SH SYNOPSIS\n.B quorate\n.I COMMAND\n[\\fIARGUMENTS\\fR] [\\fIFLAGS\\fR]\n.SH DESCRIPTION\n")
	m.headed = true
}

func (m *roff) heading(level int, text string) {
	m.headed = level < 3
	switch level {
	case 1:
		m.b.WriteString(".SH " + strings.ToUpper(m.escape(text)) + "\n")
	case 2:
		m.b.WriteString(".SS " + m.escape(text) + "\n")
	default:
		m.b.WriteString(".PP\n.I " + m.escape(text) + "\n")
	}
}

func (m *roff) paragraph(text string) {
	if !m.headed {
		m.b.WriteString(".PP\n")
	}
	m.headed = false
	m.b.WriteString(m.prose(text) + "\n")
}

func (m *roff) code(lines ...string) {
	m.b.WriteString(".PP\n.nf\n")
	for _, l := range lines {
		m.b.WriteString(`\fB` + m.escape(l) + `\fR` + "\n")
	}
	m.b.WriteString(".fi\n")
}

func (m *roff) list(rows [][2]string) {
	for _, r := range rows {
		m.b.WriteString(".TP\n" + `\fB` + m.escape(r[0]) + `\fR` + "\n" + m.prose(r[1]) + "\n")
	}
}

func (m *roff) end() string {
	m.b.WriteString(".SH SEE ALSO\n.BR nats (1)\n")
	return m.b.String()
}
