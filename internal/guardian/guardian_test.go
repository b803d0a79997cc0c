//go:build linux

package guardian

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/clock"
	"github.com/quorate/quorate/internal/guardian/deadline"
)

// late is how long what must happen by itself is waited for. Nothing is asserted about how soon it does.
const late = 25 * time.Second

// Leases. A machine that stands still for a moment must not end what a test has not ended: of a right that runs out there are more than three seconds until a
// command is told to end, and as many from then until it is killed; of one that is held the guardian has as long to say that it does what it was asked to.
const (
	brief = 8 * time.Second  // of a right that runs out
	calm  = 40 * time.Second // of one that does not
	quick = 2 * time.Second  // where the guardian is stopped: quorate waits for it for parts of a lease
)

// holds is how long a brief right holds.
const holds = brief * 8 / 10

const roleEnv = "GUARDIAN_TEST_ROLE"

// The test binary is also the guardian, as quorate is, and the quorate that is killed or stopped.
func TestMain(m *testing.M) {
	switch {
	case Called(os.Args[1:], map[string]string{pipeEnv: os.Getenv(pipeEnv)}):
		os.Exit(Main(os.Stderr))
	case os.Getenv(roleEnv) != "":
		os.Exit(supervise(os.Args[1]))
	}
	os.Exit(m.Run())
}

// What a command does once it has the lock that all of its processes inherit. A stubborn one does not heed TERM, and has a child in its group, one in a session
// of its own, and an orphan.
const (
	plain    = "START; exec sleep 1000"
	stubborn = "trap '' TERM; sleep 1000 & setsid sleep 1000 & (setsid sleep 1000 &) ; START; while :; do sleep 1000; done"
)

func words(lock, work string) []string {
	return []string{"sh", "-c", `exec 9>>"$0"; flock -n 9 || echo OVERLAP; ` + strings.Replace(work, "START", "echo start", 1), lock}
}

// supervise is a process that renews a right for ever, and guards a stubborn command under it.
func supervise(lock string) int {
	const lease = brief
	for {
		g, err := Start(Config{Path: "/bin/sh", Args: words(lock, stubborn), Env: os.Environ(), Stdout: os.Stdout, Stderr: os.Stderr, Name: "test",
			Lease: lease, Term: lease * 4 / 10, Grace: time.Minute, Left: func() time.Duration { return lease * 9 / 10 }})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		<-g.Done()
		if g.Result().Started { // not when the machine was so busy that the guardian had too little left
			return 0
		}
	}
}

// A trial is one guarded command.
type trial struct {
	t     *testing.T
	lock  string
	until clock.Instant // of the right, by this process's clocks
	lost  chan struct{}
	mu    sync.Mutex
	out   bytes.Buffer
	*Guard
}

func (tr *trial) Write(b []byte) (int, error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.out.Write(b)
}

func (tr *trial) said() string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.out.String()
}

func try(t *testing.T, work string, lease, holds, grace time.Duration) *trial {
	t.Helper()
	tr := &trial{t: t, lock: filepath.Join(t.TempDir(), "lock"), until: clock.Now().Add(holds), lost: make(chan struct{})}
	var err error
	tr.Guard, err = Start(Config{Path: "/bin/sh", Args: words(tr.lock, work), Env: os.Environ(), Stdout: tr, Stderr: tr, Name: "test",
		Lease: lease, Term: lease * 4 / 10, Grace: grace, Left: func() time.Duration { return clock.Now().Left(tr.until) }, Lost: tr.lost})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		select {
		case <-tr.Done():
			return
		default:
		}
		_ = tr.cmd.Process.Kill()
		endLeftBehind(tr.cmd.Process.Pid, 0, tr.mark) // what a bug has left
		<-tr.Done()
	})
	tr.await("it has started", func() bool { return strings.Contains(tr.said(), "start") })
	return tr
}

func (tr *trial) await(what string, is func() bool) {
	tr.t.Helper()
	wait(tr.t, what, is)
}

func wait(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(late); !is(); pause(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", late, what)
		}
	}
}

// free tells whether nothing has the lock.
func free(t *testing.T, lock string) bool {
	t.Helper()
	f, err := os.OpenFile(lock, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}

// over waits for the end, and checks that nothing is left of the command at that moment.
func (tr *trial) over() Result {
	tr.t.Helper()
	select {
	case <-tr.Done():
	case <-time.After(late):
		tr.t.Fatalf("not over within %s: %s", late, tr.said())
	}
	if !free(tr.t, tr.lock) {
		tr.t.Error("C2: it is said to be over, and a process of it lives")
	}
	return tr.Result()
}

func (tr *trial) want(r Result, code int, why deadline.Why, err error) {
	tr.t.Helper()
	if r.Code != code || r.Why != why || !errors.Is(r.Err, err) || !r.Started {
		tr.t.Errorf("%+v, want code %d, %v, %v: %s", r, code, why, err, tr.said())
	}
}

const long = 10 * time.Minute

// C2, C3: asked to end, a command gets TERM, and KILL after the grace; all of it is gone then.
func TestAsked(t *testing.T) {
	t.Parallel()
	tr := try(t, plain, calm, long, time.Minute)
	tr.End()
	tr.want(tr.over(), 128+15, deadline.Asked, nil)
	tr = try(t, stubborn, calm, long, 50*time.Millisecond)
	tr.End()
	tr.want(tr.over(), 128+9, deadline.Asked, nil)
}

// C1: a right that nobody renews.
func TestUnrenewed(t *testing.T) {
	t.Parallel()
	tr := try(t, stubborn, brief, holds, time.Minute)
	tr.want(tr.over(), 128+9, deadline.Unrenewed, nil)
	if !strings.Contains(tr.said(), "its lease is not renewed") {
		t.Errorf("said %q", tr.said())
	}
}

// C4: a right that is lost ends the command at once.
func TestLost(t *testing.T) {
	t.Parallel()
	tr := try(t, stubborn, calm, long, time.Minute)
	close(tr.lost)
	tr.want(tr.over(), 128+9, deadline.Lost, nil)
}

// C5: what a command leaves behind ends with it, and its exit code counts.
func TestLeftBehind(t *testing.T) {
	t.Parallel()
	tr := try(t, "trap '' TERM; sleep 1000 & (setsid sleep 1000 &) ; START; exit 7", calm, long, 50*time.Millisecond)
	tr.want(tr.over(), 7, deadline.Itself, nil)
	tr = try(t, "START; kill -INT $$", calm, long, time.Minute)
	tr.want(tr.over(), 128+2, deadline.Itself, nil)
}

// The guardian is killed: all of the command is killed.
func TestGuardianKilled(t *testing.T) {
	t.Parallel()
	tr := try(t, stubborn, calm, long, time.Minute)
	if err := tr.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	tr.want(tr.over(), 128+9, deadline.Itself, ErrGuardian)
}

// The guardian is stopped: quorate does its part, when nothing is renewed and when it is asked to.
func TestGuardianStopped(t *testing.T) {
	t.Parallel()
	tr := try(t, stubborn, brief, holds, time.Minute)
	if err := tr.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	tr.want(tr.over(), 128+9, deadline.Unrenewed, nil)
	tr = try(t, "trap 'echo heard; exit' TERM; START; while :; do sleep 0.05; done", quick, long, time.Minute)
	if err := tr.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	tr.End()
	tr.want(tr.over(), 128+9, deadline.Asked, nil) // nobody has seen its exit code
	if !strings.Contains(tr.said(), "heard") {
		t.Error("no TERM")
	}
	// It is stopped when it has told the command to end: nobody says that it has.
	tr = try(t, `trap 'echo heard; while ! [ -e "$0.go" ]; do sleep 0.05; done; exit' TERM; START; while :; do sleep 0.05; done`, quick, long, long)
	tr.End()
	tr.await("the command is told to end", func() bool { return strings.Contains(tr.said(), "heard") })
	if err := tr.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(tr.lock+".go", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tr.want(tr.over(), 128+9, deadline.Asked, nil)
}

// quorate itself is stopped, or killed: the guardian ends the command by itself.
func TestSupervisorGone(t *testing.T) {
	t.Parallel()
	for sig, says := range map[syscall.Signal]string{syscall.SIGSTOP: "its lease is not renewed", syscall.SIGKILL: "quorate was killed"} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			supervisorGone(t, sig, says)
		})
	}
}

func supervisorGone(t *testing.T, sig syscall.Signal, says string) {
	lock := filepath.Join(t.TempDir(), "lock")
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", lock)
	cmd.Env = append(os.Environ(), roleEnv+"=supervisor")
	in, out, err := os.Pipe() // ours: the guardian has it too
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}()
	out.Close()
	lines := bufio.NewScanner(in)
	for lines.Scan() && lines.Text() != "start" {
	}
	if free(t, lock) {
		t.Fatal("the command has not taken the lock")
	}
	if err := cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	wait(t, fmt.Sprintf("after %v nothing is left", sig), func() bool { return free(t, lock) })
	if !lines.Scan() || !strings.Contains(lines.Text(), says) {
		t.Errorf("after %v: %q, want %q", sig, lines.Text(), says)
	}
}

// What cannot be started, and what is not to be.
func TestCannotStart(t *testing.T) {
	t.Parallel()
	c := Config{Env: os.Environ(), Name: "test", Lease: time.Second, Term: 400 * time.Millisecond, Left: func() time.Duration { return long }}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("text"), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{file + "-is-not-there": ErrNotFound, file: ErrCannotRun, filepath.Dir(file): ErrCannotRun} {
		c.Path, c.Args = path, []string{"x"}
		g, err := Start(c)
		if err != nil {
			t.Fatal(err)
		}
		<-g.Done()
		if r := g.Result(); r.Started || !errors.Is(r.Err, want) || strings.Contains(r.Err.Error(), "\n") {
			t.Errorf("%s: %+v, want %v", path, r, want)
		}
	}
	c.Path, c.Args = "/bin/sh", []string{"sh", "-c", "touch " + file + "-touched"}
	c.Left = func() time.Duration { return c.Term - 1 } // C1
	g, err := Start(c)
	if err != nil {
		t.Fatal(err)
	}
	<-g.Done()
	if r := g.Result(); r.Started || r.Why == deadline.Itself {
		t.Errorf("with too little left: %+v", r)
	}
	if _, err := os.Stat(file + "-touched"); err == nil {
		t.Error("C1: started with too little left")
	}
}
