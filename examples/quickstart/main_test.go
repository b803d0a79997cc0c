//go:build unix

package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain is the quick start itself in the processes that the test starts.
func TestMain(m *testing.M) {
	if os.Getenv("QUICKSTART") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// process is one of them, with the last share it printed.
type process struct {
	cmd    *exec.Cmd
	shares chan string // "share 0 of 3", in order
}

func begin(ctx context.Context, t *testing.T) *process {
	t.Helper()
	p := &process{cmd: exec.CommandContext(ctx, os.Args[0]), shares: make(chan string, 100)}
	p.cmd.Env = append(os.Environ(), "QUICKSTART=1")
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.shares)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			_, rest, _ := strings.Cut(lines.Text(), " works on ")
			share, _, _ := strings.Cut(rest, ",")
			p.shares <- share
		}
	}()
	return p
}

// until waits until the processes hold one share each of as many as they are.
func until(ctx context.Context, t *testing.T, ps ...*process) {
	t.Helper()
	want := map[string]bool{}
	for i := range ps {
		want[fmt.Sprintf("share %d of %d", i, len(ps))] = true
	}
	for _, p := range ps {
		for held := false; !held; {
			select {
			case s, ok := <-p.shares:
				if !ok {
					t.Fatal("a process ended by itself")
				}
				held = want[s]
				delete(want, s)
			case <-ctx.Done():
				t.Fatalf("nobody took %v", want)
			}
		}
	}
}

// Three processes share the work; one is killed, and the others share it; these leave when they are asked to.
func TestQuickstart(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	ps := []*process{begin(ctx, t), begin(ctx, t), begin(ctx, t)}
	until(ctx, t, ps...)
	if err := ps[0].cmd.Process.Kill(); err != nil { // perhaps the one that serves, perhaps the leader
		t.Fatal(err)
	}
	_ = ps[0].cmd.Wait() // killed: that is no news
	until(ctx, t, ps[1:]...)
	for _, p := range ps[1:] {
		if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range ps[1:] {
		for range p.shares { // Wait closes the pipe
		}
		if err := p.cmd.Wait(); err != nil {
			t.Errorf("an interrupted process ended with %v", err)
		}
	}
}
