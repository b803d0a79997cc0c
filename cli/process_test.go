//go:build unix

package cli

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quorate/quorate/embedded"
	"github.com/quorate/quorate/internal/eventcheck"
)

// patience is how long a test waits for something that must happen. Nothing is asserted about how soon it does.
const patience = time.Minute

// The test binary is also the quorate command, for tests that need processes of their own, and for the demo's members. The
// name is none that the demo keeps from its members.
const mainEnv = "CLI_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(mainEnv) == "" {
		os.Exit(m.Run())
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		s, _ := (<-asked).(syscall.Signal)
		cancel(Interrupted(s))
	}()
	os.Exit(Main(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}

// A scene is processes of one host that share a state directory.
type scene struct {
	t       *testing.T
	dir     string
	lease   time.Duration
	env     []string // of the processes: NATS_URL, if they are not to serve themselves
	all     []*process
	mu      sync.Mutex
	changed chan struct{}
}

// A process is one `quorate join -o json`.
type process struct {
	s      *scene
	id     string
	cmd    *exec.Cmd
	stderr bytes.Buffer
	exited chan struct{}
	lines  []eventcheck.Line // under the scene's lock
	killed time.Time
}

// Leases of scenes: a short one shows more of what must never be; with the long one nobody loses a share while the machine stands still for three
// seconds, where that is what a test goes by.
const (
	sceneLease = 600 * time.Millisecond
	longScene  = 3 * time.Second
)

func newScene(t *testing.T) *scene {
	return &scene{t: t, dir: filepath.Join(t.TempDir(), "state"), lease: sceneLease, changed: make(chan struct{})}
}

// commandLine is a command line as a process of its own.
func commandLine(t *testing.T, env []string, words ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, words...)
	cmd.Env = append([]string{mainEnv + "=1", "HOME=" + t.TempDir()}, env...)
	return cmd
}

func (s *scene) join(id string, more ...string) *process {
	s.t.Helper()
	words := append([]string{"join", "g", "--id", id, "--state-dir", s.dir, "--lease", s.lease.String(), "-o", "json"}, more...)
	p := &process{s: s, id: id, cmd: commandLine(s.t, s.env, words...), exited: make(chan struct{})}
	p.cmd.Stderr = &p.stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	var bad error
	go func() {
		in := bufio.NewReader(out)
		for {
			line, err := in.ReadBytes('\n')
			if err != nil {
				break
			}
			l, err := eventcheck.Parse(line)
			s.mu.Lock()
			if err != nil {
				bad = fmt.Errorf("%q: %w", line, err)
			}
			p.lines = append(p.lines, l)
			s.poke()
			s.mu.Unlock()
		}
		_ = p.cmd.Wait() // looked at by those who care
		s.mu.Lock()
		close(p.exited)
		s.poke()
		s.mu.Unlock()
	}()
	s.t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // most have ended
		<-p.exited
		if bad != nil {
			s.t.Errorf("%s: %v", id, bad)
		}
		if s.t.Failed() {
			s.t.Logf("%s: %s", id, p.stderr.String())
			for _, l := range p.lines {
				s.t.Logf("%s: %s %s gen %d total %d token %d reason %s until %s", id, l.Time.Format("05.000000"), l.Type, l.Generation, l.Total, l.Token, l.Reason, l.Until.Format("05.000000"))
			}
		}
	})
	s.all = append(s.all, p)
	return p
}

// poke has those who wait look again. With the lock held.
func (s *scene) poke() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// await waits until what is true; it is asked with the lock held.
func (s *scene) await(what string, is func() bool) {
	s.t.Helper()
	end := time.After(patience)
	for {
		s.mu.Lock()
		ok, changed := is(), s.changed
		s.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-end:
			s.t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// share is what the process holds by its lines, nil if nothing. With the lock held.
func (p *process) share() *eventcheck.Line {
	var share *eventcheck.Line
	for i := range p.lines {
		switch l := &p.lines[i]; l.Type {
		case evAssigned:
			share = l
		case evRevoked:
			share = nil
		}
	}
	return share
}

// shared tells whether these processes, and nobody else, have a share each of one generation after the given one.
func shared(after uint64, ps ...*process) map[string]eventcheck.Line {
	out := map[string]eventcheck.Line{}
	for _, p := range ps {
		s := p.share()
		if s == nil || s.Generation <= after || s.Total != len(ps) {
			return nil
		}
		out[p.id] = *s
	}
	for _, s := range out {
		if s.Generation != out[ps[0].id].Generation {
			return nil
		}
	}
	return out
}

// awaitShared waits until these processes share everything, and returns the generation.
func (s *scene) awaitShared(after uint64, items []string, ps ...*process) uint64 {
	s.t.Helper()
	var shares map[string]eventcheck.Line
	s.await(fmt.Sprintf("%d members share the items", len(ps)), func() bool {
		shares = shared(after, ps...)
		return shares != nil
	})
	if wrong := eventcheck.CheckShares(shares, items); len(wrong) > 0 {
		s.t.Errorf("shares: %s", strings.Join(wrong, "; "))
	}
	return shares[ps[0].id].Generation
}

func (p *process) signal(sig syscall.Signal) {
	p.s.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.s.t.Fatal(err)
	}
}

// kill kills the process and waits until it is gone.
func (p *process) kill() {
	at := time.Now()
	p.signal(syscall.SIGKILL)
	<-p.exited
	p.killed = at
}

// leave interrupts the process and checks how it ends.
func (p *process) leave() {
	p.s.t.Helper()
	p.signal(syscall.SIGTERM)
	<-p.exited
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		p.s.t.Errorf("%s: exit code %d, want 0: %s", p.id, code, p.stderr.String())
	}
	if n := len(p.lines); n == 0 || p.lines[n-1].Type != evLeft || p.lines[n-1].Reason != "left" {
		p.s.t.Errorf("%s: last line %+v, want left", p.id, p.lines)
	}
}

// host is the process that serves, and the others.
func (s *scene) host() (host *process, rest []*process) {
	s.t.Helper()
	h, err := embedded.OpenHost(s.t.Context(), embedded.HostOptions{Dir: s.dir, ClientOnly: true})
	if err != nil {
		s.t.Fatal(err)
	}
	defer h.Close(context.Background())
	info, err := h.Server()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, p := range s.all {
		if p.cmd.Process.Pid == info.PID {
			host = p
		} else {
			rest = append(rest, p)
		}
	}
	if host == nil {
		s.t.Fatalf("process %d serves, and is none of ours", info.PID)
	}
	return host, rest
}

// prove checks the lines of all processes against each other.
func (s *scene) prove() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []eventcheck.Witness
	for _, p := range s.all {
		all = append(all, eventcheck.Witness{Name: p.id, Lines: p.lines, Ended: p.killed})
	}
	for _, w := range eventcheck.Check(all) {
		s.t.Error(w)
	}
}

func (s *scene) items(n int) (path string, items []string) {
	var b strings.Builder
	for i := range n {
		items = append(items, fmt.Sprintf("item %d of this file <&>", i))
		b.WriteString(items[i] + "\n")
		if i%100 == 0 {
			b.WriteString("\r\n\n")
		}
	}
	return writeFile(s.t, filepath.Join(s.t.TempDir(), "items"), []byte(b.String())), items
}

// P1, P2, L1: three processes share the lines of a file; when the one that serves NATS is killed, the others share them all.
func TestSharesProcesses(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	path, items := s.items(3000)
	a, b, c := s.join("a", "--items", path), s.join("b", "--items", path), s.join("c", "--items", path)
	gen := s.awaitShared(0, items, a, b, c)
	host, rest := s.host()
	host.kill()
	gen = s.awaitShared(gen, items, rest...)
	d := s.join("d", "--items", path)
	s.awaitShared(gen, items, append(rest, d)...)
	for _, p := range append(rest, d) {
		p.leave()
	}
	s.prove()
}

// P2, P3: with buckets a member that comes takes some from each, the others are held on; one that is killed leaves its own to the rest.
func TestBucketsProcesses(t *testing.T) {
	t.Parallel()
	const n = 24
	s := newScene(t)
	s.lease = longScene // they are to keep their buckets
	path, items := s.items(2000)
	join := func(id string) *process {
		return s.join(id, "--items", path, "--buckets", fmt.Sprint(n), "--zone", "zone "+id[:1])
	}
	ps := []*process{join("a1"), join("a2"), join("b1")}
	gen := s.awaitShared(0, items, ps...)
	d := join("b2")
	all := append(slices.Clone(ps), d)
	gen = s.awaitShared(gen, items, all...)
	s.mu.Lock()
	for _, p := range all {
		if got := p.share(); got.Of != n || len(got.Buckets) != n/4 || len(got.Tokens) != n/4 {
			t.Errorf("%s has %d buckets of %d with %d tokens, want %d of %d", p.id, len(got.Buckets), got.Of, len(got.Tokens), n/4, n)
		}
		kept := 0
		for _, h := range (eventcheck.Witness{Name: p.id, Lines: p.lines}).Buckets() {
			if h.End.IsZero() && h.Token < gen {
				kept++
			}
		}
		if p != d && kept != n/4 {
			t.Errorf("%s kept %d of its buckets when another came, want %d", p.id, kept, n/4)
		}
	}
	s.mu.Unlock()
	_, rest := s.host()
	rest[0].kill()
	left := slices.DeleteFunc(all, func(p *process) bool { return p == rest[0] })
	s.awaitShared(gen, items, left...)
	for _, p := range left {
		p.leave()
	}
	s.prove()
}

// P3, L3: a process that is stopped past its lease and continued says first of all that it holds nothing, since the deadline.
func TestPausedProcesses(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.lease = longScene // the victim has a share when it is stopped
	path, items := s.items(100)
	ps := []*process{s.join("a", "--items", path), s.join("b", "--items", path), s.join("c", "--items", path)}
	gen := s.awaitShared(0, items, ps...)
	_, rest := s.host()
	// The leader if it does not serve: then a leadership runs out too.
	victim := rest[0]
	s.mu.Lock()
	for _, p := range rest {
		if slices.ContainsFunc(p.lines, func(l eventcheck.Line) bool { return l.Type == evLeaderElected && l.Leader == p.id }) {
			victim = p
		}
	}
	s.mu.Unlock()
	victim.signal(syscall.SIGSTOP)
	left := slices.DeleteFunc(slices.Clone(ps), func(p *process) bool { return p == victim })
	gen = s.awaitShared(gen, items, left...)
	// What it had written before the stop has been read by now: the others' generation came seconds later.
	s.mu.Lock()
	before := len(victim.lines)
	s.mu.Unlock()
	victim.signal(syscall.SIGCONT)
	s.awaitShared(gen, items, ps...)
	s.mu.Lock()
	first, again := victim.lines[before], victim.lines[before:]
	if first.Type != evRevoked || first.Reason != "expired" || !first.Until.Before(first.Time) {
		t.Errorf("first line after the pause: %s, reason %q, until %v; want revoked, expired, until before %v", first.Type, first.Reason, first.Until, first.Time)
	}
	if !slices.ContainsFunc(again, func(l eventcheck.Line) bool { return l.Type == evJoined }) {
		t.Error("no new incarnation after the pause")
	}
	s.mu.Unlock()
	for _, p := range ps {
		p.leave()
	}
	s.prove()
}

// The process that serves is stopped, not dead: all stop, safely, and go on when it does.
func TestHostPausedProcesses(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	path, items := s.items(100)
	ps := []*process{s.join("a", "--items", path), s.join("b", "--items", path), s.join("c", "--items", path)}
	s.awaitShared(0, items, ps...)
	host, rest := s.host()
	host.signal(syscall.SIGSTOP)
	s.await("the others hold nothing", func() bool {
		return !slices.ContainsFunc(rest, func(p *process) bool { return p.share() != nil })
	})
	s.mu.Lock()
	before := len(host.lines)
	s.mu.Unlock()
	host.signal(syscall.SIGCONT)
	// The generation still stands: nobody came or went, as far as anybody could tell.
	// Its own rights may not all have run out: that depends on when it was stopped.
	s.await("the host goes on", func() bool { return len(host.lines) > before })
	s.awaitShared(0, items, ps...)
	for _, p := range ps {
		p.leave()
	}
	s.prove()
}

// An observer sees everything and holds nothing; ids are refused while they are in use, and taken over after a kill.
func TestRestartProcesses(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	a, o := s.join("a", "--meta", "zone=z"), s.join("o", "--observer")
	s.await("the observer has seen a's generation", func() bool {
		return a.share() != nil && slices.ContainsFunc(o.lines, func(l eventcheck.Line) bool { return l.Type == evSettled || l.Type == evMemberJoined })
	})
	b := s.join("b")
	gen := s.awaitShared(0, nil, a, b)
	s.await("the observer has seen b", func() bool {
		return slices.ContainsFunc(o.lines, func(l eventcheck.Line) bool { return l.Type == evMemberJoined && l.Member == "b" })
	})
	b.kill()
	again := s.join("b")
	s.awaitShared(gen, nil, a, again)
	s.await("the observer has seen b come, go and come", func() bool {
		n := ""
		for _, l := range o.lines {
			if l.Member == "b" {
				n += l.Type + " "
			}
		}
		return strings.Contains(n, "member-joined member-left member-joined")
	})
	o.leave()
	if slices.ContainsFunc(o.lines, func(l eventcheck.Line) bool { return l.Type == evAssigned || l.Leader == "o" }) {
		t.Error("an observer held something")
	}
	a.leave()
	again.leave()
	s.prove()
}

// The demo works as a new user would start it, and leaves nothing behind.
func TestDemoProcesses(t *testing.T) {
	t.Parallel()
	tmp := t.TempDir()
	cmd := commandLine(t, []string{"TMPDIR=" + tmp, "NATS_URL=nats://127.0.0.1:1", "QUORATE_NAMESPACE=elsewhere"}, "demo", "--members", "3", "-o", "json")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, errs.String())
	}
	for _, has := range []string{`{"members":3,"items":26,"lease_ms":1000,`, `"verdict":"yes","yes":2`, `"ok":true}`} {
		if !strings.Contains(out.String(), has) {
			t.Errorf("%s: %q is not in it", out.String(), has)
		}
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Interrupted, the demo ends all that it started, the page too.
func TestDemoInterruptedProcesses(t *testing.T) {
	t.Parallel()
	tmp := t.TempDir()
	cmd := commandLine(t, []string{"TMPDIR=" + tmp}, "demo", "--web")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	in, page := bufio.NewScanner(out), false
	for in.Scan() {
		if len(in.Text()) > demoWidth+1 {
			t.Errorf("%d columns: %s", len(in.Text()), in.Text())
		}
		if _, at, ok := strings.Cut(in.Text(), "the page: "); ok {
			if resp, err := http.Get(at); err != nil || resp.StatusCode != http.StatusOK {
				t.Errorf("the page: %+v, %v", resp, err)
			} else {
				resp.Body.Close()
				page = true
			}
		}
		if strings.HasPrefix(in.Text(), "Shares") {
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
		}
	}
	err = cmd.Wait()
	if cmd.ProcessState.ExitCode() != ExitFailed || errs.String() != "quorate: demo: interrupted\n" || !page {
		t.Errorf("%v: %q, want exit code 1, interrupted", err, errs.String())
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A leader that was killed is not shown as one: nobody renews its lease.
func TestLeaderKilledProcesses(t *testing.T) {
	t.Parallel()
	env := append(natsEnv(t), "QUORATE_LEASE=9s") // who looks waits no longer than that for a dead leader to renew
	cmd := commandLine(t, env, "join", "g", "--id", "a", "--lease", "3s")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for in := bufio.NewScanner(out); in.Scan(); {
		if strings.Contains(in.Text(), "leader-elected") {
			break
		}
	}
	if r := runIn(t, env, "leader", "g"); r.code != 0 || !strings.HasPrefix(r.stdout, "a leads g,") {
		t.Errorf("%+v", r)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	checkLine(t, runIn(t, env, "leader", "g"), ExitUnanswered, `group "g" has no leader now`)
	wantLike(t, "members", runIn(t, env, "members", "g", "-j"), 0, `\[\{"id":"a","status":"unknown","leader":false,.*\n`)
}
