package cli

import (
	"context"
	"fmt"
	"strings"
)

const helpWidth = 80

func helpCommand() *command {
	return &command{
		name:    "help",
		section: sectionOther,
		summary: "show all commands, or one of them",
		about: "Shows all commands and the flags they share, or what one command does, with its flags, examples and exit codes.\n\n" +
			"With --format all there is to say about all commands, as a man page or in Markdown.",
		args:  []argSpec{{name: "COMMAND", optional: true}},
		flags: []flagSpec{{name: "format", value: "FORMAT", def: "text", choices: []string{"text", "man", "markdown"}, usage: "text; man or markdown for all of the manual"}},
		examples: []example{
			{"quorate help", "all commands"},
			{"quorate help version", "one command; 'quorate version --help' is the same"},
			{"quorate help --format man | man -l -", "the manual"},
		},
		run: func(_ context.Context, c *call) error {
			if format := c.str("format"); format != "text" {
				if c.arg(0) != "" {
					return usageError("help: --format %s is of all commands: leave %s out", format, c.arg(0))
				}
				if format == "man" {
					return c.print(c.manual(&roff{}))
				}
				return c.print(c.manual(&markdown{}))
			}
			if c.arg(0) == "" {
				return c.help(nil)
			}
			cmd := find(c.commands, c.arg(0))
			if cmd == nil {
				return unknownCommand(c.arg(0), c.commands)
			}
			return c.help(cmd)
		},
	}
}

// help prints the help of one command, or of all for nil.
func (a *app) help(cmd *command) error {
	if cmd == nil {
		return a.print(appHelp(a.flags, a.commands))
	}
	return a.print(commandHelp(cmd))
}

func appHelp(flags []flagSpec, table []*command) string {
	var b strings.Builder
	b.WriteString("quorate: group coordination over NATS\n\n")
	b.WriteString("Usage: quorate COMMAND [ARGUMENTS] [FLAGS]\n")
	b.WriteString("       quorate help COMMAND\n")
	for _, s := range sections() {
		var rows [][2]string
		for _, c := range table {
			if c.section == s {
				rows = append(rows, [2]string{strings.Join(append([]string{c.name}, c.aliases...), ", "), c.summary})
			}
		}
		if len(rows) > 0 {
			b.WriteString("\n" + s + "\n")
			columns(&b, rows)
		}
	}
	b.WriteString("\nFlags of every command\n")
	columns(&b, append(flagRows(flags),
		[2]string{"-h, --help", "show the help of the command"},
		[2]string{"--version", "print the version"}))
	b.WriteString("\n")
	paragraph(&b, "", "Flags may stand anywhere. A flag wins over its variable, a variable over the NATS context. "+
		"With no server, credentials or context, quorate uses this host's own NATS server.")
	b.WriteString("\n")
	paragraph(&b, "", "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a vote's no, 4 timed out or nobody to ask, "+
		"130 interrupted twice.")
	return b.String()
}

func commandHelp(c *command) string {
	var b strings.Builder
	paragraph(&b, "", c.name+": "+c.summary)
	b.WriteString("\n")
	paragraph(&b, "Usage: ", c.usage())
	if len(c.aliases) > 0 {
		paragraph(&b, "Also:  ", "quorate "+strings.Join(c.aliases, ", quorate "))
	}
	for p := range strings.SplitSeq(c.about, "\n\n") {
		if p != "" {
			b.WriteString("\n")
			paragraph(&b, "", p)
		}
	}
	if len(c.flags) > 0 {
		b.WriteString("\nFlags\n")
		columns(&b, flagRows(c.flags))
	}
	if len(c.examples) > 0 {
		b.WriteString("\nExamples\n")
		for _, e := range c.examples {
			b.WriteString("  " + e.line + "\n")
			paragraph(&b, "      ", e.does)
		}
	}
	if len(c.exits) > 0 {
		b.WriteString("\nExit codes\n")
		rows := [][2]string{}
		for _, e := range c.exits {
			rows = append(rows, [2]string{fmt.Sprint(e.code), e.means})
		}
		columns(&b, rows)
	}
	b.WriteString("\n'quorate help' shows the flags of every command and the other exit codes.\n")
	return b.String()
}

func flagRows(flags []flagSpec) [][2]string {
	var rows [][2]string
	for _, f := range flags {
		usage := f.usage
		if len(f.choices) > 0 && !strings.Contains(usage, f.choices[0]) {
			usage += ": " + strings.Join(f.choices, ", ")
		}
		if f.kind == kindList {
			usage += "; may be repeated"
		}
		var more []string
		if f.env != "" {
			more = append(more, f.env)
		}
		if f.def != "" {
			more = append(more, fmt.Sprintf("default %q", f.def))
		}
		if len(more) > 0 {
			usage += " (" + strings.Join(more, ", ") + ")"
		}
		rows = append(rows, [2]string{f.label(), usage})
	}
	return rows
}

// columns writes rows of two columns, the second wrapped to the width of help.
func columns(b *strings.Builder, rows [][2]string) {
	const widest = 24 // of the first column; a longer entry gets a line of its own
	w := 0
	for _, r := range rows {
		if len(r[0]) <= widest {
			w = max(w, len(r[0]))
		}
	}
	for _, r := range rows {
		first := "  " + r[0]
		if len(r[0]) > w {
			b.WriteString(first + "\n")
			first = ""
		}
		indent := strings.Repeat(" ", w+4)
		for i, line := range wrap(r[1], helpWidth-len(indent)) {
			if i > 0 {
				first = ""
			}
			b.WriteString(strings.TrimRight(fmt.Sprintf("%-*s%s", len(indent), first, line), " ") + "\n")
		}
	}
}

// paragraph writes text wrapped to the width of help, behind a lead that later lines are indented by.
func paragraph(b *strings.Builder, lead, text string) {
	for _, line := range wrap(text, helpWidth-len(lead)) {
		b.WriteString(lead + line + "\n")
		lead = strings.Repeat(" ", len(lead))
	}
}

// wrap breaks text into lines of at most width bytes, at spaces; a longer word gets a line of its own.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case len(line)+1+len(word) <= width:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}
