package cli

import (
	"context"
	_ "embed"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/wire"
)

// completeWord is the first of the words by which the scripts ask what could come next. Whatever follows it is data: nothing of it is run.
const completeWord = "complete-words"

// lookupMost is how long names may be looked up: who presses TAB waits for it.
const lookupMost = 300 * time.Millisecond

// The scripts, as the shells read them.
var (
	//go:embed scripts/completion.bash
	bashScript string
	//go:embed scripts/completion.zsh
	zshScript string
	//go:embed scripts/completion.fish
	fishScript string
)

func shellScripts() map[string]string {
	return map[string]string{"bash": bashScript, "zsh": zshScript, "fish": fishScript}
}

func completionCommand() *command {
	return &command{
		name:    "completion",
		section: sectionOther,
		summary: "print a script that completes words in your shell",
		about: "Prints a script for bash, zsh or fish: with it TAB completes commands, flags and their values, and the names of groups, members, elections, contexts and files. Names are asked of NATS, with " +
			"the flags that stand on the line already and the environment, for at most 0.3 s; without an answer there are none. Nothing of the line is ever run.",
		args: []argSpec{{name: "SHELL"}},
		examples: []example{
			{"source <(quorate completion bash)", "in ~/.bashrc"},
			{`quorate completion zsh > "${fpath[1]}/_quorate"`, "once; or: source <(quorate completion zsh) after compinit"},
			{"quorate completion fish > ~/.config/fish/completions/quorate.fish", "once"},
		},
		run: func(_ context.Context, c *call) error {
			script, ok := shellScripts()[c.arg(0)]
			if !ok {
				return usageError("completion: %q: write one of %s", c.arg(0), strings.Join(sortedKeys(shellScripts()), ", "))
			}
			return c.print(strings.ReplaceAll(script, "COMPLETE_WORD", completeWord))
		},
	}
}

// What a shell itself is to complete.
const (
	completeNothing = "none"
	completeFiles   = "files"
	completeDirs    = "dirs"
	completeCommand = "command" // what follows `--`: a command line of its own
)

// completions are what could stand in place of the last word.
type completions struct {
	shell string // what the shell completes by itself
	words [][2]string
}

// complete answers a script: the shell, then the words up to the cursor, the last of them unfinished. bash gives the line instead, and the characters at which it
// ends words. The first line of the answer says what the shell is to complete by itself, then a word comes on each, and what it is behind a tab.
func (a *app) complete(ctx context.Context, words []string) int {
	a.stderr = io.Discard // who presses TAB wants no lines between
	if len(words) == 0 {
		return ExitUsage
	}
	shell, words := words[0], words[1:]
	trim := 0
	if shell == "bash" {
		if len(words) != 2 {
			return ExitUsage
		}
		breaks := words[1]
		words = splitLine(words[0])
		if len(words) < 2 {
			return ExitUsage // the command itself
		}
		words = words[1:]
		// bash replaces what stands behind the last of these characters.
		trim = strings.LastIndexAny(words[len(words)-1], breaks) + 1
	}
	if len(words) == 0 {
		return ExitUsage
	}
	last := len(words) - 1
	found := a.suggest(ctx, words[:last], words[last])
	var b strings.Builder
	b.WriteString(found.shell + "\n")
	for _, w := range found.words {
		word, about := w[0], oneLine(w[1])
		if !plainWord.MatchString(word) || !strings.HasPrefix(word, words[last]) {
			continue
		}
		word = word[min(trim, len(word)):]
		switch {
		case about == "" || shell == "bash":
			b.WriteString(word + "\n")
		default:
			b.WriteString(word + "\t" + about + "\n")
		}
	}
	if a.print(b.String()) != nil {
		return ExitFailed
	}
	return ExitDone
}

// plainWord is what may be put on a command line as it is. Names come from files and from NATS: a context may have any name that a file can have.
var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:@%+=,-]+$`)

// splitLine takes the words of a line apart as a shell does, but expands nothing. The last one is the one that the cursor is at, also if it is empty.
func splitLine(line string) []string {
	words := []string{""}
	var quote rune
	escaped, started := false, false
	add := func(r rune) { words[len(words)-1] += string(r); started = true }
	for _, r := range line {
		switch {
		case escaped:
			if quote == '"' && !strings.ContainsRune("\"\\$`", r) {
				add('\\')
			}
			add(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped = true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			add(r)
		case r == '\'' || r == '"':
			quote, started = r, true
		case r == ' ' || r == '\t' || r == '\n':
			if started {
				words = append(words, "")
				started = false
			}
		default:
			add(r)
		}
	}
	return words
}

// A partial is a line that is not finished.
type partial struct {
	cmd     *command
	global  []given
	flags   map[string]bool // of the command or the application, by name
	args    []string
	after   []string
	dashes  bool      // `--` was among the words
	pending *flagSpec // the flag whose value is to come
}

// partial takes the words before the cursor apart, as order does; what is wrong with them is left out.
func (a *app) partial(words []string) partial {
	p := partial{flags: map[string]bool{}}
	for i := 0; i < len(words); i++ {
		w := words[i]
		switch {
		case p.dashes:
			p.after = append(p.after, w)
		case w == "--":
			p.dashes = true
		case len(w) > 1 && w[0] == '-':
			typed, value, joined := strings.Cut(w, "=")
			f, global := p.cmd.local(typed), false
			if f == nil {
				f, global = lookup(typed, a.flags, a.commands)
			}
			if f == nil {
				continue
			}
			if own := p.cmd.own(f); own != nil && !global {
				f = own // with its choices
			}
			p.flags[f.name] = true
			switch {
			case f.kind == kindBool && !joined:
				value = "true"
			case !joined && f.kind != kindBool:
				if i++; i == len(words) {
					p.pending = f
					return p
				}
				value = words[i]
			}
			if global && checkValue(f, value) == nil {
				p.global = append(p.global, given{f, value})
			}
		case p.cmd == nil:
			if p.cmd = find(a.commands, w); p.cmd == nil {
				p.cmd = &command{} // one that is not there takes nothing
			}
		default:
			p.args = append(p.args, w)
		}
	}
	return p
}

// own is the command's flag of the same name.
func (c *command) own(f *flagSpec) *flagSpec {
	if c == nil {
		return nil
	}
	return c.flag(f.name)
}

// suggest says what could stand in place of cur.
func (a *app) suggest(ctx context.Context, before []string, cur string) completions {
	p := a.partial(before)
	none := completions{shell: completeNothing}
	switch {
	case p.pending != nil:
		return a.values(ctx, p, p.pending, "")
	case p.dashes && p.cmd != nil && p.cmd.rest != "":
		return completions{shell: completeCommand}
	case !p.dashes && strings.HasPrefix(cur, "-"):
		if typed, _, joined := strings.Cut(cur, "="); joined {
			f, _ := lookup(typed, a.flags, a.commands)
			if f == nil {
				return none
			}
			if own := p.cmd.own(f); own != nil {
				f = own
			}
			return a.values(ctx, p, f, typed+"=")
		}
		return completions{completeNothing, a.flagWords(p)}
	case p.cmd == nil:
		out := none
		for _, c := range a.commands {
			out.words = append(out.words, [2]string{c.name, c.summary})
			for _, alias := range c.aliases {
				out.words = append(out.words, [2]string{alias, "the same as " + c.name})
			}
		}
		return out
	}
	if len(p.cmd.args) == 0 {
		return none
	}
	n := len(p.args) + len(p.after)
	for _, arg := range p.cmd.args {
		if arg.unless != "" && p.flags[arg.unless] {
			continue
		}
		if n == 0 || arg.many {
			return a.argument(ctx, p, arg)
		}
		n--
	}
	return none
}

// flagWords are the flags that can be given yet.
func (a *app) flagWords(p partial) (words [][2]string) {
	add := func(flags []flagSpec) {
		for _, f := range flags {
			if p.flags[f.name] && f.kind != kindList {
				continue
			}
			words = append(words, [2]string{"--" + f.name, f.usage})
			if letter := f.short + f.local; letter != "" {
				words = append(words, [2]string{"-" + letter, f.usage})
			}
		}
	}
	if p.cmd != nil {
		add(p.cmd.flags)
	}
	add(a.flags)
	return append(words, [2]string{"--help", "show the help of the command"})
}

// values are those of a flag; the prefix is what stands before the value in the same word.
func (a *app) values(ctx context.Context, p partial, f *flagSpec, prefix string) completions {
	out := completions{shell: completeNothing}
	add := func(words ...string) {
		for _, w := range words {
			out.words = append(out.words, [2]string{prefix + w, ""})
		}
	}
	group := ""
	if len(p.args) > 0 {
		group = p.args[0]
	}
	switch {
	case len(f.choices) > 0:
		add(f.choices...)
	case f.kind == kindBool:
		add("true", "false")
	case f.value == "FILE":
		out.shell = completeFiles
	case f.value == "DIR":
		out.shell = completeDirs
	case f.name == "context":
		add(a.contexts()...)
	case f.name == "election":
		add(a.names(ctx, p, wire.ElectionKey("*"))...)
	case f.name == "to":
		if p.cmd != nil && p.cmd.name == "send" {
			add("all", "leader")
		}
		add(a.members(ctx, p, group)...)
	case f.name == "cancel" && group != "" && wire.CheckGroup(group) == nil:
		add(a.names(ctx, p, wire.VerdictPrefix(group)+"*")...)
	}
	return out
}

// argument is what could be a positional argument.
func (a *app) argument(ctx context.Context, p partial, arg argSpec) completions {
	out := completions{shell: completeNothing}
	add := func(words []string) {
		for _, w := range words {
			if !slices.Contains(p.args, w) {
				out.words = append(out.words, [2]string{w, ""})
			}
		}
	}
	switch arg.name {
	case "GROUP":
		add(a.groups(ctx, p))
	case "ID":
		if len(p.args) > 0 {
			add(a.members(ctx, p, p.args[0]))
		}
	case "SHELL":
		add(sortedKeys(shellScripts()))
	case "COMMAND":
		for _, c := range a.commands {
			out.words = append(out.words, [2]string{c.name, c.summary})
		}
	case "FILE":
		out.shell = completeFiles
	}
	return out
}

// contexts are the names of the NATS contexts of this user.
func (a *app) contexts() (names []string) {
	dir, err := (&call{app: a}).contextDir()
	if err != nil {
		return nil
	}
	files, err := os.ReadDir(filepath.Join(dir, "context"))
	if err != nil {
		return nil
	}
	for _, f := range files {
		if name, ok := strings.CutSuffix(f.Name(), ".json"); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (a *app) groups(ctx context.Context, p partial) []string {
	groups := map[string]bool{}
	for _, key := range a.keys(ctx, p, wire.LeaderKeys, wire.MemberKeys) {
		if g, ok := wire.GroupOfLeaderKey(key); ok {
			groups[g] = true
		} else if g, _, ok := wire.GroupOfMemberKey(key); ok {
			groups[g] = true
		}
	}
	return slices.Sorted(maps.Keys(groups))
}

func (a *app) members(ctx context.Context, p partial, group string) []string {
	if group == "" || wire.CheckGroup(group) != nil {
		return nil
	}
	return a.names(ctx, p, wire.MemberPrefix(group)+"*")
}

// names are the last parts of the keys that match a pattern.
func (a *app) names(ctx context.Context, p partial, pattern string) (names []string) {
	for _, key := range a.keys(ctx, p, pattern) {
		names = append(names, key[strings.LastIndexByte(key, '.')+1:])
	}
	return names
}

// keys asks NATS for keys, with the flags that stand on the line. Without an answer in time there are none. Nothing is written.
func (a *app) keys(ctx context.Context, p partial, patterns ...string) (keys []string) {
	ctx, cancel := context.WithTimeout(ctx, lookupMost)
	defer cancel()
	look := &command{name: completeWord, needs: needClient, run: func(ctx context.Context, c *call) (err error) {
		c.g.timeout, c.g.verbose = lookupMost, false
		nc, err := c.connect(ctx)
		if err != nil {
			return err
		}
		defer nc.Close()
		keys, err = kv.Names(ctx, nc.Conn, kv.Options{Namespace: c.g.namespace, Domain: nc.jsDomain, Timeout: lookupMost, Logger: c.logger()}, patterns...)
		return err
	}}
	o := &ordered{cmd: look}
	for _, g := range p.global {
		if name := g.flag.name; name != "output" && name != "json" && name != "timeout" && name != "verbose" {
			o.global = append(o.global, g)
		}
	}
	b := *a
	b.commands = []*command{look}
	b.env = maps.Clone(a.env)
	delete(b.env, "NATS_TIMEOUT")
	if err := b.urfave(o).RunContext(ctx, o.words()); err != nil {
		return nil
	}
	return keys
}
