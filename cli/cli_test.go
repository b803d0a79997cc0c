package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// result is what one call of the command line gave.
type result struct {
	code           int
	stdout, stderr string
}

// runIn runs a command line in this process, with exactly the given environment.
func runIn(t *testing.T, env []string, words ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	code := Main(t.Context(), words, env, strings.NewReader(""), &out, &errs)
	return result{code, out.String(), errs.String()}
}

// probe is a command for tests: it takes all kinds of words and tells what it got.
func probe(run func(ctx context.Context, c *call) error) *command {
	return &command{
		name: "probe", aliases: []string{"pr"}, section: sectionOther, summary: "for tests",
		args: []argSpec{{name: "GROUP", unless: "election"}, {name: "MORE", optional: true, many: true}},
		flags: []flagSpec{
			{name: "id", value: "ID", usage: "an id"},
			{name: "meta", kind: kindList, value: "K=V", usage: "metadata"},
			{name: "observer", kind: kindBool, usage: "observe"},
			{name: "grace", short: "g", kind: kindDuration, value: "D", def: "5s", usage: "grace"},
			{name: "members", kind: kindInt, value: "N", usage: "how many"},
			{name: "vote", value: "V", choices: []string{"yes", "no"}, usage: "a vote"},
			{name: "election", value: "NAME", usage: "an election"},
		},
		needs: needClient,
		run:   run,
	}
}

func probeRest() *command {
	return &command{
		name: "exec", section: sectionOther, summary: "for tests", rest: "CMD...",
		args:  []argSpec{{name: "GROUP"}},
		flags: []flagSpec{{name: "grace", short: "g", kind: kindDuration, value: "D", usage: "grace"}, {name: "leader", kind: kindBool, usage: "x"}},
		run:   func(context.Context, *call) error { return nil },
	}
}

// runWith is runIn with more commands in the table.
func runWith(t *testing.T, env []string, extra []*command, words ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	a := newApp(env, strings.NewReader(""), &out, &errs)
	a.commands = append(a.commands, extra...)
	code := report(&errs, a.run(t.Context(), words))
	return result{code, out.String(), errs.String()}
}

func checkLine(t *testing.T, r result, code int, has ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d (stderr %q)", r.code, code, r.stderr)
	}
	if r.stdout != "" {
		t.Errorf("standard output %q, want nothing", r.stdout)
	}
	if !strings.HasPrefix(r.stderr, "quorate: ") || strings.Count(r.stderr, "\n") != 1 || !strings.HasSuffix(r.stderr, "\n") {
		t.Errorf("standard error %q, want one line that begins with quorate:", r.stderr)
	}
	for _, h := range has {
		if !strings.Contains(r.stderr, h) {
			t.Errorf("standard error %q, want %q in it", r.stderr, h)
		}
	}
}

// Wrong words are answered with one line and exit code 2, whatever they are.
func TestWrongUsage(t *testing.T) {
	extra := []*command{probe(func(context.Context, *call) error { return nil }), probeRest()}
	tests := []struct {
		words string
		says  string
	}{
		{"vershun", `unknown command "vershun": did you mean "version"?`},
		{"xyzzy", `unknown command "xyzzy": 'quorate help' lists them`},
		{"ver", `did you mean "version"?`},
		{"help nosuch", `unknown command "nosuch"`},
		{"version --jsno", "unknown flag --jsno: did you mean --json?"},
		{"--jsno version", "unknown flag --jsno: did you mean --json?"},
		{"probe g --observr", "unknown flag --observr: did you mean --observer?"},
		{"probe g -server x", "unknown flag -server: did you mean --server?"},
		{"probe g -x", "unknown flag -x: 'quorate help probe' lists them"},
		{"version --id x", "unknown flag --id of 'version': it is a flag of join, "},
		{"probe g --id", "--id needs a value: --id ID"},
		{"probe g --id --observer", "--id needs a value; one that begins with '-' is written --id=--observer"},
		{"probe g --members -1", "written --members=-1"},
		{"probe g --members=-1", `--members "-1": less than 0`},
		{"probe g --members=x", `--members "x": not a whole number`},
		{"probe g --id --", "--id needs a value"},
		{"-s", "-s needs a value: -s URL"},
		{"probe g --observer=maybe", "takes no value but true or false"},
		{"probe g --grace 5", `--grace "5": not a duration`},
		{"probe g --vote maybe", `--vote "maybe": write one of yes, no`},
		{"probe g --id a --id b", "--id is given twice"},
		{"probe", "probe: GROUP is missing (or --election): write: quorate probe GROUP [MORE...]"},
		{"version x", `version: "x" is one argument too many: write: quorate version`},
		{"version -- x", `"x" is one argument too many`},
		{"exec g", "exec: CMD... is missing: write: quorate exec GROUP -- CMD..."},
		{"exec g true", `exec: "true" is not after`},
		{"exec g x -- true", `exec: "x" is one argument too many`},
		{"exec -- true", "exec: GROUP is missing"},
		{"-- version", "no command"},
		{"-j", "no command"},
		{"version -o xml", `--output "xml": write one of table, json`},
		{"version -j -o table", "--json and --output table: leave one out"},
		{"version --lease 0s", "must be more than 0"},
		{"version --timeout never", "not a duration"},
		{"version -N a.b", `namespace "a.b": character 2 is '.'`},
	}
	for _, tt := range tests {
		t.Run(tt.words, func(t *testing.T) {
			checkLine(t, runWith(t, nil, extra, strings.Fields(tt.words)...), ExitUsage, tt.says)
		})
	}
}

// Variables are checked like flags, and named in the message.
func TestWrongVariables(t *testing.T) {
	for env, says := range map[string]string{
		"QUORATE_LEASE=3":       `QUORATE_LEASE "3": not a duration`,
		"QUORATE_LEASE=0s":      `QUORATE_LEASE "0s": it must be more than 0`,
		"NATS_TIMEOUT=fast":     `NATS_TIMEOUT "fast"`,
		"NATS_TLSFIRST=maybe":   `NATS_TLSFIRST "maybe"`,
		"QUORATE_NAMESPACE=a b": `namespace "a b"`,
	} {
		t.Run(env, func(t *testing.T) {
			checkLine(t, runIn(t, []string{env}, "version"), ExitUsage, says)
		})
	}
}

func TestHelp(t *testing.T) {
	whole := runIn(t, nil)
	if whole.code != 0 || !strings.Contains(whole.stdout, "Usage: quorate COMMAND") {
		t.Errorf("no words: %+v, want the help", whole)
	}
	for _, words := range [][]string{{"help"}, {"--help"}, {"-h"}} {
		if r := runIn(t, nil, words...); r != whole {
			t.Errorf("%v: differs from the help", words)
		}
	}
	table := commands()
	for _, c := range table {
		r := runIn(t, nil, "help", c.name)
		if r.code != 0 || r.stderr != "" {
			t.Errorf("help %s: code %d, stderr %q", c.name, r.code, r.stderr)
		}
		// --help wins over whatever else is wrong.
		if h := runIn(t, nil, c.name, "--nonsense", "--help"); h != r {
			t.Errorf("%s --help differs from help %s", c.name, c.name)
		}
		for line := range strings.Lines(r.stdout) {
			if len(line) > helpWidth+1 {
				t.Errorf("help %s: %d columns: %s", c.name, len(line)-1, line)
			}
		}
		if len(c.examples) == 0 || c.summary == "" || c.section == "" || c.run == nil {
			t.Errorf("%s: an entry needs section, summary, examples and run", c.name)
		}
		if !slices.Contains(sections(), c.section) {
			t.Errorf("%s: section %q is not shown", c.name, c.section)
		}
		if !strings.Contains(whole.stdout, c.summary) {
			t.Errorf("%s is missing in the help", c.name)
		}
	}
	for line := range strings.Lines(whole.stdout) {
		if len(line) > helpWidth+1 {
			t.Errorf("help: %d columns: %s", len(line)-1, line)
		}
	}
}

// What words.go relies on: flags are known by their name alone.
func TestTable(t *testing.T) {
	names := map[string]string{}
	kinds := map[string]flagSpec{}
	shorts := map[string]string{}
	appNames := map[string]bool{"help": true, "version": true, "h": true}
	check := func(of string, f flagSpec) {
		if k, ok := kinds[f.name]; ok && (k.kind != f.kind || k.short != f.short) {
			t.Errorf("%s --%s: another kind or letter than elsewhere", of, f.name)
		}
		kinds[f.name] = f
		if f.short != "" {
			if n, ok := shorts[f.short]; ok && n != f.name {
				t.Errorf("%s -%s is --%s, elsewhere --%s", of, f.short, f.name, n)
			}
			shorts[f.short] = f.name
		}
		if f.usage == "" || (f.kind != kindBool) != (f.value != "") {
			t.Errorf("%s --%s: usage or value's name is missing or too much", of, f.name)
		}
	}
	for _, f := range appFlags() {
		check("quorate", f)
		appNames[f.name] = true
		appNames[f.short] = f.short != ""
	}
	for _, c := range commands() {
		for _, n := range append([]string{c.name}, c.aliases...) {
			if of, ok := names[n]; ok {
				t.Errorf("%s is the name of %s and %s", n, of, c.name)
			}
			names[n] = c.name
		}
		for _, f := range c.flags {
			check(c.name, f)
			if appNames[f.name] || f.short != "" && appNames[f.short] {
				t.Errorf("%s --%s: the application has a flag of that name", c.name, f.name)
			}
		}
		for i, a := range c.args {
			if a.many && i != len(c.args)-1 {
				t.Errorf("%s: %s... is not the last argument", c.name, a.name)
			}
			if a.unless != "" && c.flag(a.unless) == nil {
				t.Errorf("%s: %s unless --%s, which it has not", c.name, a.name, a.unless)
			}
		}
	}
}

func TestVersion(t *testing.T) {
	for _, words := range [][]string{{"version"}, {"--version"}} {
		if r := runIn(t, nil, words...); r.code != 0 || !strings.HasPrefix(r.stdout, "quorate ") || strings.Count(r.stdout, "\n") != 1 {
			t.Errorf("%v: %+v, want one line", words, r)
		}
	}
	r := runIn(t, nil, "version", "-j")
	var v struct{ Version, Go string }
	if err := json.Unmarshal([]byte(r.stdout), &v); err != nil || v.Version == "" || v.Go == "" {
		t.Errorf("version -j: %q: %v", r.stdout, err)
	}
}

// A value is the flag's, else the variable's, else the default; a command's flags come with their kinds.
func TestCallValues(t *testing.T) {
	var got *call
	extra := []*command{probe(func(_ context.Context, c *call) error { got = c; return nil })}
	r := runWith(t, []string{"QUORATE_LEASE=7s", "QUORATE_NAMESPACE=env"}, extra, strings.Fields(
		"pr g -N flag --meta a=1,2 --observer --members 3 --meta b= --id= more -j -- -x --y")...)
	if r.code != 0 {
		t.Fatalf("exit code %d: %s", r.code, r.stderr)
	}
	if want := []string{"g", "more", "-x", "--y"}; !slices.Equal(got.args, want) {
		t.Errorf("args %q, want %q", got.args, want)
	}
	if l := got.list("meta"); !slices.Equal(l, []string{"a=1,2", "b="}) {
		t.Errorf("meta %q", l)
	}
	if !got.bool("observer") || got.integer("members") != 3 || !got.isSet("id") || got.str("id") != "" {
		t.Errorf("observer %v, members %d, id set %v", got.bool("observer"), got.integer("members"), got.isSet("id"))
	}
	if d := got.duration("grace"); d.String() != "5s" || got.isSet("grace") {
		t.Errorf("grace %s, want the default 5s", d)
	}
	if got.g.namespace != "flag" || got.g.lease.String() != "7s" || got.g.timeout.String() != "5s" || !got.g.json || got.g.timed {
		t.Errorf("globals %+v", got.g)
	}
}

// A command interrupted while it waits says so.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	var out, errs bytes.Buffer
	a := newApp(nil, strings.NewReader(""), &out, &errs)
	a.commands = append(a.commands, probe(func(ctx context.Context, c *call) error {
		cancel(ErrInterrupted)
		<-ctx.Done()
		return ctx.Err()
	}))
	code := report(&errs, a.run(ctx, []string{"probe", "g"}))
	checkLine(t, result{code, out.String(), errs.String()}, ExitFailed, "probe: interrupted")
}
