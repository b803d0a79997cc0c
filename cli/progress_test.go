//go:build linux

package cli

import (
	"bytes"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// A pty is a terminal of the test's own.
type pty struct {
	tty    *os.File // what a program writes to and reads from
	master *os.File
	shown  *output
	read   sync.WaitGroup
}

func openPTY(t *testing.T) *pty {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &pty{tty: tty, master: master, shown: newOutput()}
	p.read.Go(func() {
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			_, _ = p.shown.Write(b[:n])
			if err != nil {
				return // EIO: the last copy of the terminal is closed
			}
		}
	})
	return p
}

// end closes the terminal, and returns all that it has shown.
func (p *pty) end() string {
	p.tty.Close()
	p.read.Wait()
	p.master.Close()
	return p.shown.String()
}

// What takes longer than a second shows that it goes on, on a terminal only, and leaves nothing of it on the line.
func TestProgress(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and never says a word
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	words := []string{"members", "g", "-s", "nats://" + l.Addr().String(), "--timeout", "5s"} // long after it begins to show
	run := func(env ...string) string {
		p := openPTY(t)
		var out bytes.Buffer
		if code := Main(t.Context(), words, env, strings.NewReader(""), &out, p.tty); code != ExitUnanswered || out.Len() > 0 {
			t.Errorf("exit code %d, %q", code, out.String())
		}
		return p.end()
	}
	var both sync.WaitGroup
	both.Go(func() {
		shown := run("TERM=xterm")
		before, last, ok := strings.Cut(shown, "quorate: ")
		if !ok || !strings.HasPrefix(last, "cannot reach nats://") || strings.Count(last, "\n") != 1 {
			t.Errorf("the error: %q", last)
		}
		if !regexp.MustCompile(`members: waiting [1-5]s`).MatchString(before) || strings.Contains(before, "\n") || !strings.HasSuffix(before, "\x1b[2K\r") {
			t.Errorf("the progress: %q", before)
		}
	})
	both.Go(func() {
		if shown := run("TERM=dumb"); !strings.HasPrefix(shown, "quorate: cannot reach") {
			t.Errorf("on a dumb terminal: %q", shown)
		}
	})
	both.Wait()
	checkLine(t, runIn(t, nil, append(words[:len(words)-1], "1s")...), ExitUnanswered, "cannot reach")
}

// Colours are for terminals, and NO_COLOR takes them away.
func TestNoColour(t *testing.T) {
	t.Parallel()
	for env, coloured := range map[string]bool{"TERM=xterm": true, "NO_COLOR=1": false, "TERM=dumb": false} {
		p := openPTY(t)
		if code := Main(t.Context(), []string{"check", "-s", "nats://127.0.0.1:1"}, []string{env}, strings.NewReader(""), p.tty, p.tty); code != checkCritical {
			t.Errorf("exit code %d", code)
		}
		if out := p.end(); strings.Contains(out, "\x1b[31mcritical\x1b[0m") != coloured || strings.Contains(out, "\x1b[") != coloured {
			t.Errorf("%s: %q", env, out)
		}
	}
	if r := runIn(t, nil, "check", "-s", "nats://127.0.0.1:1"); strings.Contains(r.stdout, "\x1b") {
		t.Errorf("not a terminal: %q", r.stdout)
	}
}
