//go:build containers && linux

package containers

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quorate/quorate/internal/eventcheck"
)

const patience = 3 * time.Minute // for what must happen; nothing is asserted about how soon

// A project is what compose.yaml has brought up.
type project struct {
	t     *testing.T
	name  string
	dir   string // with compose.yaml
	web   string // address of the web page
	items []string

	servers []*container
	workers []*container

	mu      sync.Mutex
	changed chan struct{}        // closed and made anew at each line
	ended   []eventcheck.Witness // of processes that are gone
	over    bool
	follows sync.WaitGroup
}

// A container, and the process that runs in it at present.
type container struct {
	p    *project
	id   string
	name string // of the service, with its number if there are several

	// Under the project's lock.
	w        eventcheck.Witness
	raw      []string
	bad      error
	followed bool
}

// run is a command's output; a test cannot go on without it.
func (p *project) run(name string, args ...string) string {
	p.t.Helper()
	out, err := output(p.dir, name, args...)
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

func output(dir, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, errs.String())
	}
	return string(out), nil
}

func (p *project) docker(args ...string) string {
	p.t.Helper()
	return strings.TrimSpace(p.run("docker", args...))
}

func (p *project) compose(args ...string) string {
	p.t.Helper()
	name, all := composeCommand(append([]string{"--project-name", p.name}, args...))
	return p.run(name, all...)
}

func composeCommand(args []string) (string, []string) {
	if c := os.Getenv("QUORATE_COMPOSE"); c != "" {
		return c, args
	}
	return "docker", append([]string{"compose"}, args...)
}

// build makes the image, from a binary that is built here.
func (p *project) build() {
	p.t.Helper()
	p.t.Setenv("QUORATE_BINARY", "prebuilt")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(p.dir, "dist", "quorate"), "./cmd/quorate")
	cmd.Dir, cmd.Env = p.dir, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Fatalf("build quorate: %v: %s", err, out)
	}
	p.compose("build", "--quiet")
}

// up builds the binary and the image, and brings all up.
func up(t *testing.T, lease time.Duration) *project {
	p := &project{t: t, name: fmt.Sprintf("quorate-test-%d", os.Getpid()), changed: make(chan struct{})}
	var err error
	if p.dir, err = filepath.Abs("../.."); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(p.dir, "deploy", "compose", "items.txt"))
	if err != nil {
		t.Fatal(err)
	}
	p.items = strings.Fields(string(b))
	l, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free now: 8080 may not be
	if err != nil {
		t.Fatal(err)
	}
	p.web = l.Addr().String()
	_, port, _ := net.SplitHostPort(p.web)
	l.Close()
	for k, v := range map[string]string{"QUORATE_LEASE": lease.String(), "QUORATE_OUTPUT": "json", "QUORATE_WEB_PORT": port} {
		t.Setenv(k, v)
	}
	p.build()
	t.Cleanup(p.down)
	p.compose("up", "--detach", "--quiet-pull", "--wait", "--wait-timeout", "180")
	for _, line := range strings.Split(strings.TrimSpace(p.compose("ps", "--all", "--format", "json")), "\n") {
		var c struct{ ID, Name, Service string }
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			t.Fatalf("compose ps: %v: %s", err, line)
		}
		k := &container{p: p, id: c.ID, name: strings.TrimPrefix(c.Name, p.name+"-")}
		switch {
		case strings.HasPrefix(c.Service, "nats-"):
			k.name = c.Service
			p.servers = append(p.servers, k)
		case c.Service == "worker":
			p.workers = append(p.workers, k)
			k.follow("")
		}
	}
	if len(p.servers) != 3 || len(p.workers) != 3 {
		t.Fatalf("%d servers and %d workers, want three of each", len(p.servers), len(p.workers))
	}
	return p
}

// down removes all of it, and tells what the containers said if the test has failed.
func (p *project) down() {
	p.mu.Lock()
	p.over = true
	p.mu.Unlock()
	if p.t.Failed() {
		for _, c := range p.workers {
			p.mu.Lock()
			p.t.Logf("%s, last lines:\n%s", c.name, strings.Join(c.raw[max(0, len(c.raw)-15):], ""))
			p.mu.Unlock()
		}
		name, args := composeCommand([]string{"--project-name", p.name, "logs", "--no-color", "--tail", "25"})
		if out, err := output(p.dir, name, args...); err == nil {
			p.t.Logf("logs:\n%s", out)
		}
	}
	name, args := composeCommand([]string{"--project-name", p.name, "down", "--volumes", "--timeout", "1"})
	if _, err := output(p.dir, name, args...); err != nil {
		p.t.Error(err)
	}
	p.follows.Wait()
}

// follow reads the lines of the process that the container runs, until it ends. Lines before the moment are of the one before it.
func (c *container) follow(since string) {
	p := c.p
	args := []string{"logs", "--follow"}
	if since != "" {
		args = append(args, "--since", since)
	}
	cmd := exec.Command("docker", append(args, c.id)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	c.w, c.raw, c.bad, c.followed = eventcheck.Witness{Name: c.name}, nil, nil, true
	p.mu.Unlock()
	p.follows.Go(func() {
		in := bufio.NewReader(out)
		for {
			text, err := in.ReadBytes('\n')
			if err != nil {
				break // half a line is none
			}
			l, err := eventcheck.Parse(text)
			p.mu.Lock()
			if err != nil && c.bad == nil {
				c.bad = fmt.Errorf("%q: %w", text, err)
			}
			c.w.Lines, c.raw = append(c.w.Lines, l), append(c.raw, string(text))
			close(p.changed)
			p.changed = make(chan struct{})
			p.mu.Unlock()
		}
		_ = cmd.Wait() // ends with its container
		p.mu.Lock()
		defer p.mu.Unlock()
		p.ended = append(p.ended, c.w)
		c.followed = false
		close(p.changed)
		p.changed = make(chan struct{})
	})
}

// await waits until what is true; it is asked again at each line, and now and then.
func (p *project) await(what string, is func() bool) {
	p.t.Helper()
	end := time.After(patience)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		p.mu.Lock()
		changed := p.changed
		for _, c := range p.workers {
			if c.bad != nil {
				p.mu.Unlock()
				p.t.Fatalf("%s: %v", c.name, c.bad)
			}
		}
		p.mu.Unlock()
		if is() {
			return
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-end:
			p.t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// ---- what the lines say

// well reports whether these workers, and nobody else, have a leader and a share each of one generation, with all items among them.
func (p *project) well(workers []*container) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	leads := 0
	shares := map[string]eventcheck.Line{}
	for _, c := range workers {
		s, t := c.w.Holdings()
		if n := len(t); n > 0 && t[n-1].End.IsZero() {
			leads++
		}
		if len(s) == 0 || !s[len(s)-1].End.IsZero() {
			return false
		}
		shares[c.name] = s[len(s)-1].Grant
	}
	generation := shares[workers[0].name].Generation
	for _, s := range shares {
		if s.Generation != generation || s.Total != len(workers) {
			return false
		}
	}
	if wrong := eventcheck.CheckShares(shares, p.items); len(wrong) > 0 {
		p.t.Errorf("shares: %s", strings.Join(wrong, "; "))
	}
	return leads == 1
}

func (p *project) awaitWell(what string, without ...*container) {
	p.t.Helper()
	in := slices.DeleteFunc(slices.Clone(p.workers), func(c *container) bool { return slices.Contains(without, c) })
	p.await(what+": a leader, and a share for each", func() bool { return p.well(in) })
}

// leads is the worker that leads.
func (p *project) leads() (lead *container) {
	p.t.Helper()
	p.await("a worker leads", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		lead = nil
		for _, c := range p.workers {
			if _, t := c.w.Holdings(); len(t) > 0 && t[len(t)-1].End.IsZero() {
				lead = c
			}
		}
		return lead != nil
	})
	return lead
}

// ---- containers

// inspect is a field of what Docker knows of a container.
func (c *container) inspect(format string) string {
	c.p.t.Helper()
	return c.p.docker("inspect", "--format", format, c.id)
}

// kill kills a container's process with SIGKILL, and waits until it is dead of it.
func (c *container) kill() string {
	c.p.t.Helper()
	c.p.mu.Lock()
	c.w.Ended = time.Now() // of no meaning for a server
	c.p.mu.Unlock()
	c.p.docker("kill", "--signal", "KILL", c.id)
	if s := c.inspect("{{.State.Status}} {{.State.ExitCode}}"); s != "exited 137" {
		c.p.t.Fatalf("%s was to die of SIGKILL: %s", c.name, s)
	}
	c.gone()
	return c.name + " dead of signal 9"
}

// gone waits until all that a worker's process had printed when it ended was read.
func (c *container) gone() {
	c.p.t.Helper()
	if !slices.Contains(c.p.workers, c) {
		return
	}
	c.p.await("all of "+c.name+" was read", func() bool {
		c.p.mu.Lock()
		defer c.p.mu.Unlock()
		return !c.followed
	})
}

// start starts a container's process again.
func (c *container) start() {
	c.p.t.Helper()
	since := time.Now().UTC().Format(time.RFC3339Nano)
	c.p.docker("start", c.id)
	if slices.Contains(c.p.workers, c) {
		c.follow(since)
	}
}

// healthy waits until a server's own check says that it is ready.
func (c *container) healthy() {
	c.p.t.Helper()
	c.p.await(c.name+" is healthy", func() bool { return c.inspect("{{.State.Health.Status}}") == "healthy" })
}

// enter runs a command of this machine in the network namespace of a container.
func (c *container) enter(args ...string) string {
	c.p.t.Helper()
	return c.p.run("nsenter", append([]string{"--net", "--target", c.inspect("{{.State.Pid}}"), "--"}, args...)...)
}

// ---- servers

func (c *container) addr() string {
	return c.inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
}

// streamLeader is the server that leads the bucket's stream, as one that is reached says.
func (p *project) streamLeader() (lead *container) {
	p.t.Helper()
	p.await("the bucket's stream has a leader", func() bool {
		for _, s := range p.servers {
			if s.inspect("{{.State.Running}}") != "true" {
				continue
			}
			nc, err := nats.Connect("nats://"+s.addr()+":4222", nats.IgnoreDiscoveredServers(), nats.Timeout(time.Second))
			if err != nil {
				continue
			}
			name := leaderBy(nc)
			nc.Close()
			if i := slices.IndexFunc(p.servers, func(s *container) bool { return s.name == name }); i >= 0 {
				lead = p.servers[i]
				return true
			}
		}
		return false
	})
	return lead
}

func leaderBy(nc *nats.Conn) string {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	js, err := jetstream.New(nc)
	if err != nil {
		return ""
	}
	s, err := js.Stream(ctx, "KV_QUORATE_default")
	if err != nil || s.CachedInfo().Cluster == nil {
		return ""
	}
	return s.CachedInfo().Cluster.Leader
}
