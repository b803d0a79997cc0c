//go:build docs

package documents

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// patience is for what is waited for: not a promise, only the end of a test that hangs.
const patience = 45 * time.Second

// A terminal is a shell as a person has it: what is typed is run one after the other, in one directory and environment.
type terminal struct {
	name string
	cmd  *exec.Cmd
	in   io.WriteCloser
	gone chan struct{} // closed when the shell has ended

	mu     sync.Mutex
	out    []byte
	more   chan struct{}  // closed when something has come
	seen   int            // what of out was compared
	typed  int            // blocks that were typed
	marker *regexp.Regexp // what ends the last block's output: its number, how its last command ended, the first command that failed, and the directory
}

func open(name, dir string, env []string) (*terminal, error) {
	t := &terminal{name: name, gone: make(chan struct{}), more: make(chan struct{})}
	t.cmd = exec.Command("bash", "--noprofile", "--norc")
	t.cmd.Dir, t.cmd.Env = dir, env
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	t.cmd.Stdout = (*screen)(t)
	t.cmd.Stderr = t.cmd.Stdout
	var err error
	if t.in, err = t.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	t.cmd.WaitDelay = time.Second
	if err := t.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = t.cmd.Wait()
		close(t.gone)
	}()
	// Job control: what is run has a process group of its own, as at a real terminal.
	_, err = io.WriteString(t.in, "set -m\nexport LC_ALL=C.UTF-8\n")
	return t, err
}

type screen terminal

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = append(s.out, p...)
	close(s.more)
	s.more = make(chan struct{})
	return len(p), nil
}

// typeIn runs commands after those that were typed before.
func (t *terminal) typeIn(dir, commands string) error {
	t.typed++
	path := filepath.Join(dir, fmt.Sprintf("%s-%d.sh", strings.ReplaceAll(t.name, " ", "-"), t.typed))
	script := "failed=\ntrap 'failed=${failed:-$BASH_COMMAND}' ERR\n" + commands
	if err := os.WriteFile(path, []byte(script), 0o600); err != nil {
		return err
	}
	t.mu.Lock()
	t.seen = len(t.out)
	t.mu.Unlock()
	t.marker = regexp.MustCompile(`\x02done ` + strconv.Itoa(t.typed) + ` (\d+) \x03([^\x03]*)\x03 (.*)\n`)
	_, err := fmt.Fprintf(t.in, ". %s </dev/null; printf '\\002done %d %%s \\003%%s\\003 %%s\\n' $? \"$failed\" \"$PWD\"\n", path, t.typed)
	return err
}

// A result is how a block ended.
type result struct {
	out    string
	code   int
	failed string // the first command that failed
	dir    string
}

// wait waits until what was typed last has ended.
func (t *terminal) wait() (result, error) {
	var r result
	err := t.until(patience, "its end", func(out []byte) bool {
		m := t.marker.FindSubmatchIndex(out)
		if m == nil {
			return false
		}
		group := func(i int) string { return string(out[m[2*i]:m[2*i+1]]) }
		code, _ := strconv.Atoi(group(1))
		r = result{string(out[:m[0]]), code, group(2), group(3)}
		return true
	})
	return r, err
}

// shows waits until what comes next looks like text.
func (t *terminal) shows(text string) error {
	p, err := regexp.Compile(`\A` + pattern(text))
	if err != nil {
		return err
	}
	return t.until(patience, "what is shown", func(out []byte) bool {
		m := p.FindIndex(out)
		if m == nil {
			return false
		}
		t.seen += m[1]
		return true
	})
}

// until asks is with all that has come and was not compared yet, under the lock, until it is true.
func (t *terminal) until(long time.Duration, what string, is func(out []byte) bool) error {
	late := time.NewTimer(long)
	defer late.Stop()
	for {
		t.mu.Lock()
		ok, more, out := is(t.out[t.seen:]), t.more, string(t.out[t.seen:])
		t.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-more:
			continue
		case <-t.gone:
			return fmt.Errorf("%s: the shell has ended, and %s has not come:\n%s", t.name, what, out)
		case <-late.C:
			return fmt.Errorf("%s: in %v %s has not come:\n%s", t.name, long, what, out)
		}
	}
}

// running are the processes that the shell waits for.
func (t *terminal) running() []int {
	var l []int
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", t.cmd.Process.Pid))
	for _, f := range bytes.Fields(b) {
		if pid, err := strconv.Atoi(string(f)); err == nil {
			l = append(l, pid)
		}
	}
	return l
}

// signal sends to the process in the foreground, or to its whole group, as the keys do.
func (t *terminal) signal(s syscall.Signal, group bool) error {
	l := t.running()
	if len(l) == 0 {
		return fmt.Errorf("%s: nothing runs there", t.name)
	}
	for _, pid := range l {
		if group {
			pid = -pid
		}
		if err := syscall.Kill(pid, s); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	return nil
}

// close ends the shell, and tells what still ran in it.
func (t *terminal) close() (left []string) {
	if len(t.running()) > 0 { // it may just be ending
		_ = t.until(5*time.Second, "its end", func(out []byte) bool { return t.marker.Match(out) })
	}
	for _, pid := range t.running() {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		left = append(left, strings.TrimSpace(strings.ReplaceAll(string(b), "\x00", " ")))
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
	_ = t.in.Close()
	_ = syscall.Kill(-t.cmd.Process.Pid, syscall.SIGKILL)
	<-t.gone
	return left
}
