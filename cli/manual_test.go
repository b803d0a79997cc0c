package cli

import (
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

var writeManual = flag.Bool("manual.write", false, "write docs/cli.md and docs/quorate.1 anew")

// The manual in docs is what the commands say of themselves.
func TestManual(t *testing.T) {
	for file, format := range map[string]string{"cli.md": "markdown", "quorate.1": "man"} {
		r := runIn(t, nil, "help", "--format", format)
		if r.code != 0 || r.stderr != "" {
			t.Fatalf("help --format %s: %+v", format, r)
		}
		path := filepath.Join("..", "docs", file)
		if *writeManual {
			if err := os.WriteFile(path, []byte(r.stdout), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if have, err := os.ReadFile(path); err != nil || string(have) != r.stdout {
			t.Errorf("docs/%s is not what the commands say (%v): run\n\tgo test ./cli -run TestManual -manual.write", file, err)
		}
	}
	checkLine(t, runIn(t, nil, "help", "version", "--format", "man"), ExitUsage, "leave version out")
}

// All that a command has is in the manual, and each of it says what it means.
func TestManualIsWhole(t *testing.T) {
	a := newApp(nil, nil, nil, nil)
	md, man := a.manual(&markdown{}), a.manual(&roff{})
	plain := strings.NewReplacer(`\e`, `\`, `\-`, "-", `\(aq`, "'", `\(ga`, "`", `\(ha`, "^", `\(ti`, "~", `\fB`, "", `\fR`, "", `\&`, "").Replace(man)
	has := func(of, text string) {
		t.Helper()
		if !strings.Contains(md, strings.ReplaceAll(text, "|", `\|`)) || !strings.Contains(plain, text) {
			t.Errorf("%s: %q is not in the manual", of, text)
		}
	}
	// What -o json prints, or why it prints none.
	without := map[string]string{"run": "standard output is CMD's", "server": "logs", "bloc": "serves HTTP", "web": "serves HTTP", "completion": "a script", "help": "text"}
	var fields func(of string, ty reflect.Type)
	fields = func(of string, ty reflect.Type) {
		for i := range ty.NumField() {
			f := ty.Field(i)
			if f.Anonymous {
				fields(of, f.Type)
				continue
			}
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" || name == "-" {
				continue
			}
			if f.Tag.Get("doc") == "" {
				t.Errorf("%s: field %s of %s has no tag `doc`", of, name, ty)
			}
			has(of, name)
			if _, nested := typeText(f.Type); nested != nil {
				fields(of, nested)
			}
		}
	}
	texts := argTexts()
	for _, c := range a.commands {
		has(c.name, c.usage())
		for _, arg := range c.args {
			if texts[arg.name] == "" {
				t.Errorf("%s: nothing says what %s is: argTexts", c.name, arg.name)
			}
		}
		if c.rest != "" && texts[c.rest] == "" {
			t.Errorf("%s: nothing says what %s is: argTexts", c.name, c.rest)
		}
		for _, f := range c.flags {
			has(c.name, f.label())
			if f.env != "" {
				has(c.name, f.env)
			}
		}
		for _, e := range c.examples {
			has(c.name, e.line)
		}
		for _, s := range c.json {
			if s.of != nil {
				fields(c.name, reflect.TypeOf(s.of))
			}
		}
		if _, none := without[c.name]; none == (len(c.json) > 0) {
			t.Errorf("%s: its entry does not say what -o json prints", c.name)
		}
	}
	for line := range strings.Lines(man) {
		if strings.HasPrefix(line, ".") && !regexp.MustCompile(`^\.(\\"|TH|SH|SS|PP|TP|B|BR|I|nf|fi)( |\n)`).MatchString(line) {
			t.Errorf("man page: %q is no macro that is known", line)
		}
	}
}
