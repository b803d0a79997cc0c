//go:build shells && linux

package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A typist types into a shell in a terminal of its own.
type typist struct {
	t *testing.T
	*pty
	seen int // what was shown before that is of no interest
}

// inShell starts a shell in which quorate is this very program, in a directory of its own.
func inShell(t *testing.T, env []string, words ...string) (ty *typist, dir string) {
	t.Helper()
	dir = t.TempDir()
	bin := filepath.Join(t.TempDir(), "bin")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(bin, "quorate")); err != nil {
		t.Fatal(err)
	}
	ty = &typist{t: t, pty: openPTY(t)}
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = append([]string{mainEnv + "=1", "HOME=" + dir, "PATH=" + bin + ":" + os.Getenv("PATH"), "TERM=dumb", "LANG=C.UTF-8", "PS1=READY ", "PROMPT=READY "}, env...)
	cmd.Dir = dir
	cmd.Stdin, cmd.Stdout, cmd.Stderr = ty.tty, ty.tty, ty.tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it waits for the next line
		_ = cmd.Wait()
		if out := ty.end(); t.Failed() {
			t.Logf("%q: %q", words, out)
		}
	})
	return ty, dir
}

// press types, and waits until the terminal shows the text after what it has shown before.
func (ty *typist) press(keys, until string) {
	ty.t.Helper()
	if keys != "" {
		if _, err := ty.master.WriteString(keys); err != nil {
			ty.t.Fatal(err)
		}
	}
	if !ty.shows(until, patience) {
		ty.t.Fatalf("%q: no %q in %q", keys, until, ty.shown.String()[ty.seen:])
	}
}

// shows waits until the terminal shows the text after what it has shown before; false if it does not for so long.
func (ty *typist) shows(until string, long time.Duration) bool {
	end := time.After(long)
	for {
		ty.shown.mu.Lock()
		text, changed := ty.shown.text.String(), ty.shown.changed
		ty.shown.mu.Unlock()
		if i := strings.Index(text[ty.seen:], until); i >= 0 {
			ty.seen += i + len(until)
			return true
		}
		select {
		case <-changed:
		case <-end:
			return false
		}
	}
}

// lines presses TAB on each line, and wants what it then shows; the line is thrown away (Ctrl-U). Names are looked up for 0.3 s, which a busy machine may not
// do with: then it is typed again.
func (ty *typist) lines(table [][2]string) {
	ty.t.Helper()
	for _, l := range table {
		for end := time.Now().Add(patience); ; {
			ty.press(l[0]+"\t", "")
			if ty.shows(l[1], 5*time.Second) {
				break
			}
			if time.Now().After(end) {
				ty.t.Fatalf("%q and TAB: no %q in %q", l[0], l[1], ty.shown.String()[ty.seen:])
			}
			ty.press("\x15\r", "READY ")
		}
		ty.press("\x15\r", "READY ") // an empty line: the prompt comes once more
	}
}

// untouched checks that the shell's directory has nothing in it but what is allowed: nothing was run.
func untouched(t *testing.T, dir string, allowed ...string) {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if !strings.HasPrefix(f.Name(), ".") && !strings.Contains(strings.Join(allowed, " "), f.Name()) {
			t.Errorf("%s was made", f.Name())
		}
	}
}

// A group in NATS, whose names are completed.
func shellsEnv(t *testing.T) []string {
	env := natsEnv(t)
	a := start(t, env, nil, "join", "workers", "--id", "web-1")
	a.await(a.out, "leader-elected")
	return env[1:] // without HOME
}

// What is typed in every shell, and what TAB makes of it.
var typed = [][2]string{
	{"quorate memb", "quorate members "},
	{"quorate members wor", "quorate members workers"},
	{"quorate evict workers we", "quorate evict workers web-1"},
	{"quorate check --format nag", "--format nagios"},
	{"quorate check --unset", "--unsettled"},
	{"quorate send workers hi --to we", "--to web-1"},
	{"quorate join workers --items item", "--items items.txt"},
	{"quorate run workers -- touc", "-- touch"},
}

// Lines that would do something if anything of them were run; TAB shows nothing that is ours to know.
var harmful = []string{
	"quorate members $(touch made) ",
	"quorate members `touch made` ",
	"quorate run workers -- touch made ",
	"quorate join workers ",
	"quorate evict workers web-1 ",
	"quorate members \"$(touch made)",
	"quorate --context $(touch made) mem",
}

func TestBash(t *testing.T) {
	t.Parallel()
	ty, dir := inShell(t, shellsEnv(t), "bash", "--norc", "--noprofile", "-i")
	ty.press("", "READY ")
	ty.press("bind 'set bell-style none'; touch items.txt; source <(quorate completion bash); echo so'urced'\r", "sourced")
	ty.press("", "READY ")
	ty.lines(typed)
	ty.lines([][2]string{{"quorate check --format=prom", "--format=prometheus"}, {"quorate check --form", "--format "}})
	for _, line := range harmful {
		ty.press(line+"\t\t", "")
		ty.press("\x15echo un'harmed'\r", "unharmed")
		ty.press("", "READY ")
	}
	untouched(t, dir, "items.txt")
}

func TestZsh(t *testing.T) {
	t.Parallel()
	ty, dir := inShell(t, shellsEnv(t), "zsh", "-f", "-i")
	ty.press("", "READY ")
	// TAB of zsh itself expands the word that it stands behind, command substitutions too, whatever the command is; here it only completes.
	ty.press("bindkey '^I' complete-word; touch items.txt; autoload -U compinit; compinit -u -D; source <(quorate completion zsh); echo so'urced'\r", "sourced\r\n")
	ty.press("", "READY ")
	ty.lines(typed)
	ty.lines([][2]string{{"quorate check --format=prom", "--format=prometheus"}})
	for _, line := range harmful {
		ty.press(line+"\t\t", "")
		ty.press("\x15echo un'harmed'\r", "unharmed\r\n")
		ty.press("", "READY ")
	}
	untouched(t, dir, "items.txt")
}

// fish tells itself what TAB would offer.
func TestFish(t *testing.T) {
	t.Parallel()
	env := shellsEnv(t)
	ask := func(dir string, bin []string, line string) string {
		cmd := exec.Command("fish", "--no-config", "-c", "quorate completion fish | source; complete -C $argv[1]", "--", line)
		cmd.Dir = dir
		cmd.Env = append(append([]string{mainEnv + "=1", "HOME=" + dir, "TERM=dumb", "LANG=C.UTF-8"}, bin...), env...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%q: %v: %s", line, err, out)
		}
		return string(out)
	}
	dir, bin := t.TempDir(), t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(bin, "quorate")); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "items.txt"), nil)
	path := []string{"PATH=" + bin + ":" + os.Getenv("PATH")}
	for _, l := range append(typed, [2]string{"quorate check --format=prom", "--format=prometheus"}, [2]string{"quorate join w --items=item", "--items=items.txt"}) {
		word := l[1][strings.LastIndexByte(strings.TrimSpace(l[1]), ' ')+1:]
		got := ask(dir, path, l[0])
		for end := time.Now().Add(patience); !strings.HasPrefix(got, strings.TrimSpace(word)) && time.Now().Before(end); {
			got = ask(dir, path, l[0]) // names are looked up for 0.3 s, which a busy machine may not do with
		}
		if !strings.HasPrefix(got, strings.TrimSpace(word)) {
			t.Errorf("%q: %q, want %q", l[0], got, word)
		}
	}
	if got := ask(dir, path, "quorate memb"); got != "members\tlist the members of a group\n" {
		t.Errorf("%q", got)
	}
	for _, line := range harmful {
		ask(dir, path, strings.ReplaceAll(line, "`", ""))
	}
	untouched(t, dir, "items.txt")
}
