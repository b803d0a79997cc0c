package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// The environment of a child: its role, its arguments as JSON, and where to put its profile.
const (
	roleEnv    = "QUORATE_BENCH_ROLE"
	argsEnv    = "QUORATE_BENCH_ARGS"
	profileEnv = "QUORATE_BENCH_PROFILE"
)

// A role is what a child process does. It begins, says that it is ready with whatever it returns, answers commands, and
// ends when its standard input does: so no child outlives its parent, however that ends.
type role struct {
	ready  any
	answer func(ctx context.Context, command string) (any, error) // may be nil
	end    func()                                                 // may be nil
}

// Args of all roles; each takes what it needs.
type childArgs struct {
	Dir    string        // of a server's data
	URL    string        // of the server
	System string        // quorate, etcd, memberlist, or nats: without anything on top
	Name   string        // of the group, election or member
	Lease  time.Duration // etcd: the TTL
	N      int           // members, elections
	Peer   string        // address of a memberlist to join
	All    bool          // storm: each member wants to see all
}

var roles map[string]func(ctx context.Context, a childArgs) (role, error)

// A map literal would be an initialisation cycle: the roles use what refers to this table.
func init() {
	roles = map[string]func(context.Context, childArgs) (role, error){
		"nats-server": natsServer,
		"etcd-server": etcdServer,

		"quorate-member": clusterServer,
		"etcd-member":    etcdMember,

		"holder":    holderRole,
		"victim":    victimRole,
		"storm":     stormRole,
		"members":   membersRole,
		"leader":    leaderRole,
		"driver":    driverRole,
		"elections": electionsRole,
		"voters":    votersRole,

		"sharers":      sharersRole,
		"bloc-gateway": gatewayRole,
		"pollers":      pollersRole,
	}
}

// A line is what goes from a child to its parent.
type line struct {
	Error string          `json:"error,omitempty"`
	Value json.RawMessage `json:"value,omitempty"`
}

func inChild() bool { return os.Getenv(roleEnv) != "" }

// child is main of a child process.
func child() int {
	out := json.NewEncoder(os.Stdout)
	say := func(v any, err error) {
		l := line{}
		if err != nil {
			l.Error = err.Error()
		} else {
			l.Value, _ = json.Marshal(v)
		}
		_ = out.Encode(l) // a parent that is gone closes the input as well
	}
	if p := os.Getenv(profileEnv); p != "" {
		if f, err := os.Create(p); err == nil && pprof.StartCPUProfile(f) == nil {
			defer f.Close()
			defer pprof.StopCPUProfile()
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var a childArgs
	begin := roles[os.Getenv(roleEnv)]
	err := json.Unmarshal([]byte(os.Getenv(argsEnv)), &a)
	if begin == nil || err != nil {
		say(nil, cmp.Or(err, errors.New("no such role")))
		return 1
	}
	commands := make(chan string)
	go func() {
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			commands <- in.Text()
		}
		cancel() // also while the role begins
		close(commands)
	}()
	r, err := begin(ctx, a)
	if err != nil {
		say(nil, err)
		return 1
	}
	if r.end != nil {
		defer r.end()
	}
	say(r.ready, nil)
	for c := range commands {
		switch {
		case c == "usage":
			say(usage(), nil)
		case r.answer == nil:
			say(nil, fmt.Errorf("command %q to a role that has none", c))
		default:
			say(r.answer(ctx, c))
		}
	}
	return 0
}

// Usage is what a process has used so far.
type Usage struct {
	CPU    time.Duration // user and system
	RSS    float64       // MB, now
	MaxRSS float64       // MB, at most
}

func usage() Usage {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r) // cannot fail with these arguments
	u := Usage{CPU: time.Duration(r.Utime.Nano() + r.Stime.Nano())}
	// Not ru_maxrss: that begins with what the parent had when it made this process.
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		u.RSS, u.MaxRSS = float64(r.Maxrss)/1024, float64(r.Maxrss)/1024 // no Linux
		return u
	}
	for l := range strings.Lines(string(status)) {
		f := strings.Fields(l)
		if len(f) < 2 {
			continue
		}
		if kb, err := strconv.ParseFloat(f[1], 64); err == nil {
			switch f[0] {
			case "VmRSS:":
				u.RSS = kb / 1024
			case "VmHWM:":
				u.MaxRSS = kb / 1024
			}
		}
	}
	return u
}

// children are the processes of one benchmark.
type children struct {
	mu  sync.Mutex
	all []*process
}

// end ends all of them, and waits for it: the clients before the servers, which were started first.
func (c *children) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := len(c.all) - 1; i >= 0; i-- {
		c.all[i].stop()
	}
}

// A process is a child as its parent sees it. Its methods are called by one goroutine at a time.
type process struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	lines  chan line // closed when the process has ended
	stderr *tail
	what   string
	ended  chan struct{}
	once   sync.Once
}

// start starts this program in another role and waits until it is ready; what it says then goes to ready, if not nil.
func (b *bench) start(ctx context.Context, name string, a childArgs, ready any) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	what := name
	if a.System != "" {
		what += " of " + a.System
	}
	p := &process{cmd: exec.Command(self), lines: make(chan line, 16), stderr: &tail{}, what: what, ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), roleEnv+"="+name, argsEnv+"="+string(args))
	p.cmd.Stderr = p.stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	p.in = in
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	b.children.mu.Lock()
	if b.profiles != "" {
		file := fmt.Sprintf("%s-%d-%s-%s.pprof", b.name, len(b.children.all), name, cmp.Or(a.System, "x"))
		p.cmd.Env = append(p.cmd.Env, profileEnv+"="+filepath.Join(b.profiles, file))
	}
	if err = p.cmd.Start(); err == nil {
		b.children.all = append(b.children.all, p)
	}
	b.children.mu.Unlock()
	if err != nil {
		return nil, err
	}
	go func() {
		defer close(p.ended)
		defer close(p.lines)
		s := bufio.NewScanner(out)
		s.Buffer(nil, 16<<20)
		for s.Scan() {
			var l line
			if json.Unmarshal(s.Bytes(), &l) == nil {
				p.lines <- l
			}
		}
		_ = p.cmd.Wait() // killed, as a rule
	}()
	if err := p.hear(ctx, ready); err != nil {
		p.kill()
		return nil, fmt.Errorf("start %s: %w", what, err)
	}
	return p, nil
}

func (p *process) hear(ctx context.Context, v any) error {
	select {
	case l, ok := <-p.lines:
		switch {
		case !ok:
			return fmt.Errorf("%s has ended: %s", p.what, p.stderr)
		case l.Error != "":
			return fmt.Errorf("%s: %s", p.what, l.Error)
		case v == nil:
			return nil
		}
		return json.Unmarshal(l.Value, v)
	case <-ctx.Done():
		return fmt.Errorf("%s does not answer: %w", p.what, context.Cause(ctx))
	}
}

// ask sends a command and waits for its answer.
func (p *process) ask(ctx context.Context, command string, v any) error {
	if _, err := io.WriteString(p.in, command+"\n"); err != nil {
		return fmt.Errorf("%s: %w: %s", p.what, err, p.stderr)
	}
	return p.hear(ctx, v)
}

func (p *process) usage(ctx context.Context) (u Usage, err error) {
	err = p.ask(ctx, "usage", &u)
	return u, err
}

// kill is the crash: SIGKILL, nothing of the process runs any more. It returns before the process is reaped.
func (p *process) kill() { _ = p.cmd.Process.Kill() }

// stop asks a process to end, and kills it if it does not.
func (p *process) stop() {
	p.once.Do(func() {
		p.in.Close()
		t := time.AfterFunc(5*time.Second, p.kill)
		defer t.Stop()
		<-p.ended
	})
}

// tail keeps the end of what a child has said on its standard error.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.buf.Len() > 1<<16 {
		t.buf.Next(t.buf.Len() - 1<<12)
	}
	return t.buf.Write(b)
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.buf.String()
	return strings.TrimSpace(s[max(0, len(s)-2000):])
}
