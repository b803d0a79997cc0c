//go:build linux

package cli

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A stage is several `quorate run` of one election or group, whose CMDs must never be there at the same time. Each CMD takes a lock that all of its processes
// inherit, and says so when another has it.
type stage struct {
	t       *testing.T
	env     []string // NATS_URL and the like
	lock    string
	mu      sync.Mutex
	changed chan struct{}
	all     []*runner
}

// A runner is one `quorate run`.
type runner struct {
	s      *stage
	id     string
	cmd    *exec.Cmd
	exited chan struct{}
	out    string // under the stage's lock
	errs   string
}

// What CMD does once it has taken the lock; START says so.
const (
	workPlain = "START; exec sleep 1000"
	// It ignores TERM, has a child in its group, one in a session of its own, and an orphan.
	workStubborn = "trap '' TERM; sleep 1000 & setsid sleep 1000 & (setsid sleep 1000 &) ; START; while :; do sleep 1000; done"
)

// Leases: what is not about one that runs out must not see that on a machine that is busy, or stands still for three seconds. (CMD is told to end when four tenths
// of the lease are left.)
const (
	shortLease = 5 * time.Second
	longLease  = 8 * time.Second
)

func newStage(t *testing.T, lease time.Duration) *stage {
	return &stage{t: t, env: []string{"NATS_URL=" + serve(t, nil).URL(), "QUORATE_LEASE=" + lease.String(), "PATH=" + os.Getenv("PATH")},
		lock: filepath.Join(t.TempDir(), "lock"), changed: make(chan struct{})}
}

// script is a CMD that takes the lock and works.
func (s *stage) script(lock, work string) []string {
	start := `echo "start $QUORATE_MEMBER $QUORATE_TOKEN $$"`
	return []string{"sh", "-c", `exec 9>>"$1"; flock -n 9 || echo "OVERLAP $QUORATE_MEMBER $QUORATE_TOKEN"; ` + strings.Replace(work, "START", start, 1), "sh", lock}
}

func (s *stage) election(id, work string, more ...string) *runner {
	s.t.Helper()
	words := append([]string{"run", "--election", "e", "--id", id}, more...)
	return s.run(id, nil, append(append(words, "--"), s.script(s.lock, work)...)...)
}

// run starts a `quorate run`, with more or other variables than the stage's.
func (s *stage) run(id string, env []string, words ...string) *runner {
	s.t.Helper()
	r := &runner{s: s, id: id, cmd: commandLine(s.t, append(s.env[:len(s.env):len(s.env)], env...), words...), exited: make(chan struct{})}
	// Pipes of our own: guardian and CMD have them when the process has ended.
	var reading sync.WaitGroup
	capture := func(to *string) *os.File {
		in, out, err := os.Pipe()
		if err != nil {
			s.t.Fatal(err)
		}
		reading.Go(func() {
			defer in.Close()
			b := make([]byte, 4096)
			for {
				n, err := in.Read(b)
				s.mu.Lock()
				*to += string(b[:n])
				s.stir()
				s.mu.Unlock()
				if err != nil {
					return
				}
			}
		})
		return out
	}
	stdout, stderr := capture(&r.out), capture(&r.errs)
	r.cmd.Stdout, r.cmd.Stderr = stdout, stderr
	err := r.cmd.Start()
	stdout.Close()
	stderr.Close()
	if err != nil {
		s.t.Fatal(err)
	}
	go func() {
		_ = r.cmd.Wait() // looked at by those who care
		s.mu.Lock()
		close(r.exited)
		s.stir()
		s.mu.Unlock()
	}()
	s.t.Cleanup(func() {
		_ = r.cmd.Process.Kill() // most have ended; its guardian does the rest
		<-r.exited
		s.free()
		reading.Wait()
		if strings.Contains(r.out, "OVERLAP") {
			s.t.Errorf("two CMDs at a time: %s", r.out)
		}
		if s.t.Failed() {
			s.t.Logf("%s: %s\n%s%s", id, r.cmd.ProcessState, r.out, r.errs)
		}
	})
	s.mu.Lock()
	s.all = append(s.all, r)
	s.mu.Unlock()
	return r
}

func (s *stage) stir() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// await waits until what is true; it is asked with the lock held, at each line and now and then.
func (s *stage) await(what string, is func() bool) {
	s.t.Helper()
	end := time.After(patience)
	for {
		s.mu.Lock()
		ok, changed := is(), s.changed
		for _, r := range s.all {
			if strings.Contains(r.out, "OVERLAP") {
				end = nil
			}
		}
		s.mu.Unlock()
		switch {
		case end == nil:
			s.t.Fatalf("two CMDs at a time, before: %s", what)
		case ok:
			return
		}
		select {
		case <-changed:
		case <-time.After(20 * time.Millisecond):
		case <-end:
			s.t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// starts is how many CMDs it has started. With the lock held.
func (r *runner) starts() int { return strings.Count(r.out, "start "+r.id+" ") }

// awaitStart waits for the n-th CMD of the runner, and returns its token and process.
func (r *runner) awaitStart(n int) (token uint64, pid int) {
	r.s.t.Helper()
	r.s.await(fmt.Sprintf("start %d of %s", n, r.id), func() bool { return r.starts() >= n && strings.HasSuffix(r.out, "\n") })
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	for line := range strings.Lines(r.out) {
		if f := strings.Fields(line); len(f) == 4 && f[0] == "start" {
			token, _ = strconv.ParseUint(f[2], 10, 64)
			pid, _ = strconv.Atoi(f[3])
		}
	}
	return token, pid
}

func (r *runner) signal(sig syscall.Signal) {
	r.s.t.Helper()
	if err := r.cmd.Process.Signal(sig); err != nil {
		r.s.t.Fatal(err)
	}
}

// guardian is the process between quorate and its CMD.
func (r *runner) guardian() int {
	r.s.t.Helper()
	pid := 0
	r.s.await("a guardian of "+r.id, func() bool {
		dirs, _ := filepath.Glob("/proc/[0-9]*/stat")
		for _, d := range dirs {
			stat, err := os.ReadFile(d)
			if err != nil {
				continue
			}
			f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
			if len(f) > 2 && f[1] == strconv.Itoa(r.cmd.Process.Pid) && f[0] != "Z" {
				pid, _ = strconv.Atoi(filepath.Base(filepath.Dir(d)))
				return true
			}
		}
		return false
	})
	return pid
}

// wait waits for the runner's end, and returns its exit code.
func (r *runner) wait() int {
	r.s.t.Helper()
	select {
	case <-r.exited:
	case <-time.After(patience):
		r.s.t.Fatalf("%s does not end", r.id)
	}
	return r.cmd.ProcessState.ExitCode()
}

// free waits until nobody has the lock: nothing of any CMD is left.
func (s *stage) free() {
	s.t.Helper()
	for _, r := range s.all {
		select {
		case <-r.exited:
		default:
			return // it may have it
		}
	}
	f, err := os.OpenFile(s.lock, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		s.t.Error(err)
		return
	}
	defer f.Close()
	s.await("nothing of a CMD is left", func() bool { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil })
}

// higher checks that a later CMD has a higher token.
func (s *stage) higher(before, after uint64) {
	s.t.Helper()
	if after <= before {
		s.t.Errorf("L2: token %d after %d", after, before)
	}
}

// A silence is a proxy before NATS that can stop forwarding: neither side sees anything closed.
type silence struct {
	url  string
	mu   sync.Mutex
	gate chan struct{} // nil: open
}

func newSilence(t *testing.T, to string) *silence {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &silence{url: "nats://" + l.Addr().String()}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				far, err := net.Dial("tcp", strings.TrimPrefix(to, "nats://"))
				if err != nil {
					near.Close()
					return
				}
				carry := func(to, from net.Conn) {
					defer near.Close()
					defer far.Close()
					b := make([]byte, 32<<10)
					for {
						n, err := from.Read(b)
						s.pass(stop)
						if _, werr := to.Write(b[:n]); err != nil || werr != nil {
							return
						}
					}
				}
				wg.Go(func() { carry(far, near) })
				wg.Go(func() { carry(near, far) })
				wg.Go(func() { <-stop; near.Close(); far.Close() })
			})
		}
	})
	t.Cleanup(func() { l.Close(); close(stop); wg.Wait() })
	return s
}

func (s *silence) pass(stop chan struct{}) {
	s.mu.Lock()
	gate := s.gate
	s.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-stop:
		}
	}
}

func (s *silence) set(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if on {
		s.gate = make(chan struct{})
	} else if s.gate != nil {
		close(s.gate)
		s.gate = nil
	}
}

// C1: the network of the one that leads goes silent. Its CMD, which ignores TERM and has children everywhere, is gone when the other's starts.
func TestRunCut(t *testing.T) {
	t.Parallel()
	s := newStage(t, shortLease)
	cut := newSilence(t, strings.TrimPrefix(s.env[0], "NATS_URL="))
	words := []string{"run", "--election", "e", "--id", "a", "--grace", "1m", "--"}
	a := s.run("a", []string{"NATS_URL=" + cut.url}, append(words, s.script(s.lock, workStubborn)...)...)
	before, _ := a.awaitStart(1)
	b := s.election("b", workStubborn, "--grace", "1s")
	cut.set(true)
	after, _ := b.awaitStart(1)
	s.higher(before, after)
	s.await("a says why", func() bool { return strings.Contains(a.errs, "its lease is not renewed: the command is told to end") })
	cut.set(false)
	b.signal(syscall.SIGTERM)
	if code := b.wait(); code != 128+9 {
		t.Errorf("b: exit code %d, want 137: its CMD ignores TERM", code)
	}
	again, _ := a.awaitStart(2) // it waits once more: --restart lost
	s.higher(after, again)
}

// C1: the one that leads is stopped past its lease. Its guardian ends the CMD in time; continued, it waits for its turn.
func TestRunStopped(t *testing.T) {
	t.Parallel()
	s := newStage(t, shortLease)
	a := s.election("a", workStubborn, "--grace", "1m")
	before, _ := a.awaitStart(1)
	b := s.election("b", workPlain)
	a.signal(syscall.SIGSTOP)
	after, _ := b.awaitStart(1)
	s.higher(before, after)
	a.signal(syscall.SIGCONT)
	b.signal(syscall.SIGTERM)
	if code := b.wait(); code != 128+15 {
		t.Errorf("b: exit code %d, want 143", code)
	}
	again, _ := a.awaitStart(2)
	s.higher(after, again)
}

// C1: the one that leads is killed. Its CMD gets TERM at once, and is gone in any case when the other's starts.
func TestRunKilled(t *testing.T) {
	t.Parallel()
	s := newStage(t, shortLease)
	a := s.election("a", workStubborn, "--grace", "1m")
	before, _ := a.awaitStart(1)
	b := s.election("b", workPlain)
	a.signal(syscall.SIGKILL)
	after, _ := b.awaitStart(1)
	s.higher(before, after)
	s.await("a's guardian says so", func() bool { return strings.Contains(a.errs, "quorate was killed: the command is told to end") })
}

// C1: the guardian is killed. The CMD, which it would have ended, is killed by the kernel, what that has started by quorate; then quorate starts it again.
func TestRunGuardianKilled(t *testing.T) {
	t.Parallel()
	s := newStage(t, longLease)
	a := s.election("a", workStubborn, "--grace", "100ms")
	before, _ := a.awaitStart(1)
	if err := syscall.Kill(a.guardian(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	again, _ := a.awaitStart(2) // the lock says whether anything was left of the first
	if again != before {
		t.Errorf("token %d after %d: quorate has led all the time", again, before)
	}
	s.await("a says so", func() bool {
		return strings.Contains(a.errs, "the guardian was killed: sh was killed, and is started again in 1s")
	})
	once := s.election("b", workPlain, "--restart", "no")
	a.signal(syscall.SIGTERM)
	once.awaitStart(1)
	if err := syscall.Kill(once.guardian(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if code := once.wait(); code != ExitRunFailed {
		t.Errorf("--restart no: exit code %d, want %d", code, ExitRunFailed)
	}
}

// C1: the guardian is stopped, so that it can end nothing; quorate is told to hand over, or is cut off.
func TestRunGuardianStopped(t *testing.T) {
	t.Parallel()
	s := newStage(t, shortLease)
	cut := newSilence(t, strings.TrimPrefix(s.env[0], "NATS_URL="))
	words := append([]string{"run", "--election", "e", "--id", "a", "--grace", "100ms", "--"}, s.script(s.lock, workStubborn)...)
	a := s.run("a", []string{"NATS_URL=" + cut.url}, words...)
	token, _ := a.awaitStart(1)
	b := s.election("b", workPlain, "--grace", "1m")
	if err := syscall.Kill(a.guardian(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	cut.set(true)
	next, _ := b.awaitStart(1)
	s.higher(token, next)
	cut.set(false)
	if err := syscall.Kill(b.guardian(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if r := runIn(t, s.env, "step-down", "--election", "e", "--timeout", "1m"); r.code != 0 {
		t.Errorf("step-down: %+v", r)
	}
	again, _ := a.awaitStart(2)
	s.higher(next, again)
}

// C2: a CMD that does not heed TERM is killed after --grace, and not before it is gone does anybody else lead.
func TestRunStubborn(t *testing.T) {
	t.Parallel()
	s := newStage(t, longLease)
	a := s.election("a", workStubborn, "--grace", "700ms")
	before, _ := a.awaitStart(1)
	b := s.election("b", workStubborn, "--grace", "0s")
	s.await("b waits", func() bool { return strings.Contains(b.errs, "waiting as b: a leads election e") })
	r := runIn(t, s.env, "step-down", "--election", "e", "--timeout", "1m")
	if r.code != 0 {
		t.Errorf("step-down: %+v", r)
	}
	after, _ := b.awaitStart(1)
	s.higher(before, after)
	s.await("a says why", func() bool {
		e := a.errs
		return strings.Contains(e, "the grace is over: what has not ended is killed") && strings.Contains(e, "sh has ended (signal 9): it was asked to step down; it waits for its turn again")
	})
}

// C2: what CMD leaves behind ends before the leadership is released, and run has CMD's exit code.
func TestRunLeftBehind(t *testing.T) {
	t.Parallel()
	s := newStage(t, longLease)
	a := s.election("a", "trap '' TERM; sleep 1000 & (setsid sleep 1000 &) ; START; exit 7", "--grace", "200ms")
	a.awaitStart(1)
	b := s.election("b", workPlain)
	if code := a.wait(); code != 7 {
		t.Errorf("exit code %d, want 7", code)
	}
	b.awaitStart(1)
	s.await("a says so", func() bool { return strings.Contains(a.errs, "left processes behind: they are told to end") })
}

// In a group: each member runs CMD with its own share; when one comes all are ended before any is started anew.
func TestRunAssign(t *testing.T) {
	t.Parallel()
	s := newStage(t, longLease)
	script := s.script(s.lock, "START; ")[2]
	script = strings.Replace(script, `"$1"`, `"$1.$QUORATE_INDEX.$QUORATE_TOTAL"`, 1) + `echo "share $QUORATE_GROUP $QUORATE_INDEX/$QUORATE_TOTAL $QUORATE_GENERATION"; exec sleep 1000`
	join := func(id string) *runner {
		return s.run(id, nil, "run", "g", "--assign", "--id", id, "--", "sh", "-c", script, "sh", s.lock)
	}
	share := func(r *runner, want string) func() bool {
		return func() bool {
			i := strings.LastIndex(r.out, "share ")
			return i >= 0 && strings.HasPrefix(r.out[i:], want) && strings.HasSuffix(r.out, "\n")
		}
	}
	a := join("a")
	s.await("a has all", share(a, "share g 0/1 "))
	b := join("b")
	s.await("a has half", share(a, "share g 0/2 "))
	s.await("b has half", share(b, "share g 1/2 "))
	s.await("both have one generation, which is the token", func() bool {
		f := strings.Fields(a.out)
		return strings.HasSuffix(b.out, "1/2 "+f[len(f)-1]+"\n") && strings.Contains(b.out, "start b "+f[len(f)-1])
	})
	b.signal(syscall.SIGTERM)
	if code := b.wait(); code != 143 {
		t.Errorf("b: exit code %d, want 143", code)
	}
	s.await("a has all again", share(a, "share g 0/1 "))
	c := s.run("c", nil, "run", "g", "--id", "c", "--", "sh", "-c", "echo leads")
	s.await("c waits", func() bool { return strings.Contains(c.errs, "waiting as c: a leads group g") })
	if r := runIn(t, s.env, "evict", "g", "c"); r.code != 0 {
		t.Errorf("evict: %+v", r)
	}
	if code := c.wait(); code != ExitRunFailed {
		t.Errorf("evicted: exit code %d", code)
	}
	s.await("c says so", func() bool { return strings.Contains(c.errs, `run: "c" was evicted from group g`) })
}

// In a group with buckets CMD is told which are its own.
func TestRunBuckets(t *testing.T) {
	t.Parallel()
	env := append(natsEnv(t), "QUORATE_LEASE="+memberLease.String(), "PATH="+os.Getenv("PATH"))
	lead := start(t, env, nil, "join", "g", "--id", "lead", "--buckets", "4", "--weight", "3")
	lead.await(lead.out, " assigned ")
	cmd := commandLine(t, env, "run", "g", "--assign", "--id", "m", "--", "sh", "-c", `echo "$QUORATE_INDEX/$QUORATE_TOTAL: $QUORATE_BUCKETS"`)
	out, err := cmd.Output()
	if err != nil || !regexp.MustCompile(`^[01]/2: [0-3]\n$`).Match(out) {
		t.Errorf("%v: %q", err, out)
	}
}

// Exit codes are CMD's own, or say what quorate could not do; CMD gets its words, its input and its variables as they are.
func TestRunExitCodes(t *testing.T) {
	t.Parallel()
	env := append(natsEnv(t), "PATH="+os.Getenv("PATH"), "QUORATE_INDEX=stale", "BYTES=a\xffb")
	noexec := writeFile(t, filepath.Join(t.TempDir(), "noexec"), []byte("x"))
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("no interpreter"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		words  []string
		code   int
		stdout string
		says   string
	}{
		{[]string{"true"}, 0, "", ""},
		{[]string{"sh", "-c", "cat; exit 42"}, 42, "input", ""},
		{[]string{"sh", "-c", `kill -INT $$`}, 130, "", ""},
		{[]string{"sh", "-c", `printf '%s|%s|%s|%s|%s' "$QUORATE_MEMBER" "$QUORATE_ELECTION" "${QUORATE_GROUP-none}" "${QUORATE_INDEX-none}" "$1"`, "sh", "a\xff b"}, 0, "m|e|none|none|a\xff b", ""},
		{[]string{"sh", "-c", `printf %s "$BYTES"`}, 0, "a\xffb", ""},
		{[]string{"no-such-command"}, ExitNotFound, "", "quorate: run: no-such-command: no such command\n"},
		{[]string{"./no/such"}, ExitNotFound, "", "no such command"},
		{[]string{noexec}, ExitCannotRun, "", "cannot be run: permission denied"},
		{[]string{"/"}, ExitCannotRun, "", "cannot be run: it is a directory"},
		{[]string{script}, ExitCannotRun, "", "cannot be run: exec format error"},
	} {
		cmd := commandLine(t, env, append([]string{"run", "--election", "e", "--id", "m", "--"}, tt.words...)...)
		var out, errs bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = io.LimitReader(strings.NewReader("input"), 5), &out, &errs
		_ = cmd.Run() // its exit code is what counts
		if code := cmd.ProcessState.ExitCode(); code != tt.code || out.String() != tt.stdout || !strings.Contains(errs.String(), tt.says) {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q; want %d, %q, %q", tt.words, code, out.String(), errs.String(), tt.code, tt.stdout, tt.says)
		}
	}
	cmd := commandLine(t, []string{"NATS_URL=nats://127.0.0.1:1", "PATH=" + os.Getenv("PATH")}, "run", "g", "--", "true")
	if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != ExitRunFailed || !strings.Contains(string(out), "cannot reach nats://127.0.0.1:1") {
		t.Errorf("no NATS: %s: %q", cmd.ProcessState, out)
	}
	for words, says := range map[string]string{
		"run g -- ":                          "CMD... is missing",
		"run g true":                         `"true" is not after`,
		"run -- true":                        "GROUP is missing (or --election)",
		"run g --leader --assign -- true":    "--leader and --assign: leave one out",
		"run --election e --assign -- true":  "--election and --assign: leave one out",
		"run g --restart sometimes -- true":  "write one of lost, always, no",
		"run g -j -- true":                   "leave out --json",
		"run g --id all -- true":             "all",
		"run --election a/b -- true":         "'/'",
		"run --election e g -- true":         "too much beside --election",
		"run g --grace 5 -- true":            "not a duration",
		"run --election e --meta a=b -- sh ": "--election and --meta",
	} {
		checkLine(t, runIn(t, env, strings.Fields(words)...), ExitUsage, says)
	}
}

// Signals are handed on to CMD; while there is none, those that end a process end the waiting, and nothing is left of it.
func TestRunSignals(t *testing.T) {
	t.Parallel()
	s := newStage(t, longLease)
	a := s.election("a", "trap 'echo usr1' USR1; trap 'echo hup' HUP; trap 'echo term; exit 3' TERM; START; while :; do sleep 0.05; done")
	a.awaitStart(1)
	for sig, word := range map[syscall.Signal]string{syscall.SIGUSR1: "usr1", syscall.SIGHUP: "hup"} {
		a.signal(sig)
		s.await("CMD hears "+word, func() bool { return strings.Contains(a.out, word+"\n") })
	}
	for sig, code := range map[syscall.Signal]int{syscall.SIGHUP: 129, syscall.SIGTERM: 143, syscall.SIGQUIT: 131} {
		w := s.election("w", workPlain)
		s.await("it waits", func() bool { return strings.Contains(w.errs, "waiting as w") })
		w.signal(syscall.SIGUSR1) // there is nobody to hand it on to
		w.signal(sig)
		if c := w.wait(); c != code {
			t.Errorf("%v while waiting: exit code %d, want %d", sig, c, code)
		}
	}
	a.signal(syscall.SIGTERM)
	if code := a.wait(); code != 3 {
		t.Errorf("exit code %d, want CMD's, 3", code)
	}
}

// --restart always starts CMD again whenever it ends, under the same right, until quorate is told to end.
func TestRunAlways(t *testing.T) {
	t.Parallel()
	s := newStage(t, longLease)
	a := s.election("a", "START; exit 5", "--restart", "always")
	first, _ := a.awaitStart(1)
	second, _ := a.awaitStart(2)
	if first != second {
		t.Errorf("tokens %d, then %d", first, second)
	}
	// Long enough for the signal to come while no CMD runs.
	s.await("a says so", func() bool { return strings.Contains(a.errs, "sh has ended (exit code 5), and is started again in 4s") })
	a.signal(syscall.SIGTERM)
	if code := a.wait(); code != 143 {
		t.Errorf("exit code %d, want 143: interrupted while no CMD ran", code)
	}
}
