package cli

import (
	"bytes"
	"context"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// completed is what complete answers, in this process.
func completed(t *testing.T, env []string, words ...string) (shell string, found []string) {
	t.Helper()
	r := runIn(t, env, append([]string{completeWord}, words...)...)
	lines := strings.Split(strings.TrimSuffix(r.stdout, "\n"), "\n")
	if r.code != 0 || r.stderr != "" || r.stdout == "" {
		t.Errorf("%q: %+v", words, r)
	}
	return lines[0], lines[1:]
}

const breaks = " \t\n\"'><=;|&(:"

func TestComplete(t *testing.T) {
	env := home(t, "", map[string]map[string]any{"prod": {}, "prod-2": {}, "$(touch x)": {}, "two words": {}})
	for _, tt := range []struct {
		line  string
		shell string
		want  []string // "...": and more
	}{
		{"quorate me", "none", []string{"members"}},
		{"quorate ", "none", []string{"join", "run", "groups", "ls", "..."}},
		{"quorate nosuch ", "none", nil},
		{"quorate nosuch --js", "none", []string{"--js-domain", "--json"}},
		{"quorate members --o", "none", []string{"--output"}},
		{"quorate -N x mem", "none", []string{"members"}},
		{"quorate join --ob", "none", []string{"--observer"}},
		{"quorate join g --observer --ob", "none", nil},
		{"quorate join g --meta a=b --me", "none", []string{"--meta"}},
		{"quorate check --format ", "none", []string{"text", "nagios", "prometheus", "json"}},
		{"quorate check --format=p", "none", []string{"prometheus"}},
		{"quorate check --ready=", "none", []string{"true", "false"}},
		{"quorate --format=p", "none", nil}, // of which command is not known yet
		{"quorate -o ", "none", []string{"table", "json"}},
		{"quorate run --restart a", "none", []string{"always"}},
		{"quorate run g -- rm ", "command", nil},
		{"quorate run g -- rm --fo", "command", nil},
		{"quorate join --items ", "files", nil},
		{"quorate --creds=/et", "files", nil},
		{"quorate --state-dir ", "dirs", nil},
		{"quorate --context pr", "none", []string{"prod", "prod-2"}},
		{"quorate --context ", "none", []string{"prod", "prod-2"}}, // and none that a shell would read
		{"quorate completion ", "none", []string{"bash", "fish", "zsh"}},
		{"quorate completion zsh ", "none", nil},
		{"quorate help ver", "none", []string{"version"}},
		{"quorate version ", "none", nil},
		{"quorate join g --id ", "none", nil},
		{"quorate vote g --kind ", "none", []string{"..."}},
		{"quorate 'unfinished", "none", nil},
		{`quorate mem"be`, "none", []string{"members"}},
		{`quorate \me`, "none", []string{"members"}},
		{"quorate $(touch /tmp/x) ", "none", nil},
	} {
		shell, found := completed(t, env, "bash", tt.line, breaks)
		more := len(tt.want) > 0 && tt.want[len(tt.want)-1] == "..."
		want := tt.want
		if more {
			want = want[:len(want)-1]
			found = found[:min(len(found), len(want))]
		}
		if shell != tt.shell || !slices.Equal(found, want) {
			t.Errorf("%q: %s %q, want %s %q", tt.line, shell, found, tt.shell, tt.want)
		}
	}
	// Other shells hand over words, and take what they are.
	if shell, found := completed(t, env, "fish", "check", "--format=n"); shell != "none" || !slices.Equal(found, []string{"--format=nagios"}) {
		t.Errorf("fish: %s %q", shell, found)
	}
	if _, found := completed(t, env, "zsh", "memb"); !slices.Equal(found, []string{"members\tlist the members of a group"}) {
		t.Errorf("zsh: %q", found)
	}
	for _, words := range [][]string{{}, {"bash"}, {"bash", "quorate", breaks}, {"zsh"}} {
		if r := runIn(t, env, append([]string{completeWord}, words...)...); r.code != ExitUsage || r.stdout+r.stderr != "" {
			t.Errorf("%q: %+v", words, r)
		}
	}
	for shell := range shellScripts() {
		if r := runIn(t, nil, "completion", shell); r.code != 0 || !strings.Contains(r.stdout, completeWord) || strings.Contains(r.stdout, "COMPLETE_WORD") {
			t.Errorf("%s: %+v", shell, r)
		}
	}
	checkLine(t, runIn(t, nil, "completion", "tcsh"), ExitUsage, "write one of bash, fish, zsh")
}

// Names are asked of the NATS that the line names, and those of the line itself are left out.
func TestCompleteNames(t *testing.T) {
	t.Parallel()
	env := natsEnv(t)
	a := start(t, env, nil, "join", "workers", "--id", "web-1")
	a.await(a.out, "leader-elected")
	n := start(t, env, nil, "join", "x/y", "--id", "n")
	n.await(n.out, "leader-elected")
	for line, want := range map[string][]string{
		"quorate members ":                   {"workers", "x/y"},
		"quorate check workers ":             {"x/y"},
		"quorate evict workers ":             {"web-1"},
		"quorate send workers hello --to ":   {"all", "leader", "web-1"},
		"quorate step-down workers --to=web": {"web-1"},
		"quorate members -N nosuch ":         nil,
		"quorate members -s 127.0.0.1:1 ":    nil,
		"quorate leader --election x ":       nil,
		"quorate members 'a b ":              nil,
		"quorate evict 'not a group' ":       nil,
		"quorate members --timeout=1h work":  {"workers"},
		"quorate members -o json -- x":       {"x/y"},
		"quorate members --lease bad work":   {"workers"},
	} {
		shell, found := completed(t, env, "bash", line, breaks)
		// Who types waits a moment for names, not longer, and a busy machine may take that long: then the key is pressed again.
		for end := time.Now().Add(30 * time.Second); len(found) < len(want) && time.Now().Before(end); {
			shell, found = completed(t, env, "bash", line, breaks)
		}
		if shell != "none" || !slices.Equal(found, want) {
			t.Errorf("%q: %s %q, want %q", line, shell, found, want)
		}
	}
}

// A NATS that says nothing is not waited for, nor is it said so.
func TestCompleteSilentServer(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	env := []string{"NATS_URL=nats://" + l.Addr().String(), "NATS_TIMEOUT=1h"}
	if shell, found := completed(t, env, "zsh", "members", ""); shell != "none" || len(found) > 0 {
		t.Errorf("%s %q", shell, found)
	}
}

// Nothing is ever run, whatever stands on the line: not one command, and no server of this host is started.
func TestCompleteRunsNothing(t *testing.T) {
	dir := t.TempDir()
	env := []string{"HOME=" + dir, "PATH=" + dir}
	table := commands()
	var words []string
	for _, c := range table {
		words = append(words, c.name)
	}
	for i, c := range table {
		table[i].run = func(context.Context, *call) error {
			t.Errorf("%s was run", c.name)
			return nil
		}
	}
	for _, w := range words {
		for _, rest := range [][]string{{""}, {"g", ""}, {"g", "a", ""}, {"--"}, {"--", "x", ""}, {"--help", ""}, {"--version", ""}, {"g", "--to", ""}, {"--election", ""}, {"--election", "e", ""},
			{"$(touch " + dir + "/x)", ""}, {"`touch " + dir + "/x`", ""}, {"g", "--", "touch", dir + "/x", ""}, {"--embedded", "g", ""}} {
			var out, errs bytes.Buffer
			a := newApp(env, strings.NewReader(""), &out, &errs)
			a.commands = table
			if code := a.complete(t.Context(), append([]string{"zsh", w}, rest...)); code != 0 || errs.Len() > 0 {
				t.Errorf("%s %q: exit code %d: %s", w, rest, code, errs.String())
			}
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}
