//go:build containers && linux

package containers

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/eventcheck"
)

// A fault returns when it is over and all is well again, and says what shows that it happened. It fails the test if it did not.
var faults = []struct {
	name, what string
	run        func(p *project) string
}{
	{"kill-worker", "kill -9 of the worker that leads, started again", killWorker},
	{"kill-server", "kill -9 of a server that does not lead the stream, started again", killServer(false)},
	{"kill-stream-leader", "kill -9 of the server that leads the stream, started again", killServer(true)},
	{"cut-off", "the worker that leads taken off the network, and connected again", cutOff},
	{"one-way-in", "packets to the worker that leads dropped, healed", oneWay("INPUT", "-i")},
	{"one-way-out", "packets from the worker that leads dropped, healed", oneWay("OUTPUT", "-o")},
	{"pause", "the worker that leads paused past its lease, and continued", pause},
	{"rolling-restart", "all servers restarted, one after the other", rollingRestart},
}

func TestMain(m *testing.M) {
	for name, pkg := range map[string]string{"docker": "Docker Engine", "iptables": "iptables", "nsenter": "util-linux"} {
		if _, err := exec.LookPath(name); err != nil {
			fmt.Fprintf(os.Stderr, "containers: %s is missing: install %s\n", name, pkg)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// compose.yaml, with a fault after the other.
func TestCompose(t *testing.T) {
	p := up(t, 2*time.Second)
	p.awaitWell("at first")
	p.looksRight()
	lines := []string{"| fault | seen | well again after | result |", "|---|---|---|---|"}
	for _, f := range faults {
		began := time.Now()
		seen := f.run(p)
		p.awaitWell("after " + f.name)
		lines = append(lines, fmt.Sprintf("| %s: %s | %s | %s | ok |", f.name, f.what, seen, time.Since(began).Round(100*time.Millisecond)))
		t.Log(f.name + ": " + seen)
	}
	p.check()
	if !t.Failed() {
		fmt.Print("\n", strings.Join(lines, "\n"), "\n\n")
	}
}

// looksRight is what somebody sees who has just said `docker compose up`.
func (p *project) looksRight() {
	p.t.Helper()
	for _, s := range p.servers {
		if h := s.inspect("{{.State.Health.Status}}"); h != "healthy" {
			p.t.Errorf("%s is %s", s.name, h)
		}
		if ports := s.inspect("{{json .HostConfig.PortBindings}}"); ports != "{}" && ports != "null" {
			p.t.Errorf("S1: %s is published: %s", s.name, ports)
		}
		if u := s.inspect("{{.Config.User}}"); u == "" || strings.HasPrefix(u, "0") {
			p.t.Errorf("%s runs as %q", s.name, u)
		}
	}
	var status int
	p.await("the web page answers", func() bool {
		r, err := http.Get("http://" + p.web + "/")
		if err != nil {
			return false
		}
		r.Body.Close()
		status = r.StatusCode
		return true
	})
	if status != http.StatusOK {
		p.t.Errorf("web page: %d", status)
	}
	out := p.compose("exec", "--no-TTY", "worker", "/quorate", "members", "workers")
	for _, c := range p.workers {
		id := c.w.Lines[0].Self
		if !strings.Contains(out, id) {
			p.t.Errorf("`quorate members` does not show %s:\n%s", id, out)
		}
	}
}

func killWorker(p *project) string {
	lead := p.leads()
	seen := lead.kill()
	p.awaitWell("without the killed", lead)
	lead.start()
	return seen
}

func killServer(leads bool) func(*project) string {
	return func(p *project) string {
		lead := p.streamLeader()
		victim := lead
		if !leads {
			victim = p.servers[slices.IndexFunc(p.servers, func(s *container) bool { return s != lead })]
		}
		seen := victim.kill()
		next := p.streamLeader()
		if leads && next == victim {
			p.t.Fatalf("%s was killed, and leads the stream", victim.name)
		}
		p.awaitWell("without " + victim.name)
		victim.start()
		victim.healthy()
		return fmt.Sprintf("%s; stream leader %s, then %s", seen, lead.name, next.name)
	}
}

func cutOff(p *project) string {
	lead := p.leads()
	network := lead.inspect("{{range $k, $v := .NetworkSettings.Networks}}{{$k}}{{end}}")
	p.docker("network", "disconnect", network, lead.id)
	began := time.Now()
	links := lead.enter("ip", "-brief", "link")
	if strings.Contains(links, "eth") {
		p.t.Fatalf("%s still has a network: %s", lead.name, links)
	}
	p.awaitWell("without the one that is cut off", lead)
	p.awaitEnded(lead)
	took := time.Since(began)
	p.docker("network", "connect", network, lead.id)
	return fmt.Sprintf("%s had no network for %s, and said that its rights were over", lead.name, took.Round(100*time.Millisecond))
}

// awaitEnded waits until a worker holds nothing any more, by its own lines.
func (p *project) awaitEnded(c *container) {
	p.t.Helper()
	p.await(c.name+" holds nothing", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		s, t := c.w.Holdings()
		return len(s) > 0 && len(t) > 0 && !s[len(s)-1].End.IsZero() && !t[len(t)-1].End.IsZero()
	})
}

func oneWay(chain, device string) func(*project) string {
	return func(p *project) string {
		lead := p.leads()
		rule := []string{chain, device, "eth+", "-j", "DROP"}
		lead.enter(append([]string{"iptables", "-w", "-A"}, rule...)...)
		began := time.Now()
		p.awaitWell("without the one that is cut off", lead)
		p.awaitEnded(lead)
		took := time.Since(began)
		dropped := 0
		for line := range strings.Lines(lead.enter("iptables", "-w", "-nvxL", chain)) {
			if f := strings.Fields(line); len(f) > 2 && f[2] == "DROP" {
				n, err := strconv.Atoi(f[0])
				if err != nil {
					p.t.Fatalf("iptables: %q: %v", line, err)
				}
				dropped += n
			}
		}
		if dropped == 0 {
			p.t.Fatalf("no packet was dropped in %s", took)
		}
		lead.enter(append([]string{"iptables", "-w", "-D"}, rule...)...)
		return fmt.Sprintf("%d packets of %s dropped in %s", dropped, lead.name, took.Round(100*time.Millisecond))
	}
}

func pause(p *project) string {
	lead := p.leads()
	p.docker("pause", lead.id)
	began := time.Now()
	if s := lead.inspect("{{.State.Status}}"); s != "paused" {
		p.t.Fatalf("%s is %s", lead.name, s)
	}
	p.awaitWell("without the paused", lead)
	took := time.Since(began)
	if s := lead.inspect("{{.State.Status}}"); s != "paused" {
		p.t.Fatalf("%s is %s", lead.name, s)
	}
	p.mu.Lock()
	first := len(lead.w.Lines)
	p.mu.Unlock()
	p.docker("unpause", lead.id)
	// L3, P3: its first word is that it holds nothing, and has not for a while. What it had stamped before the pause, and could not write any more, is
	// no word of afterwards.
	p.await(lead.name+" says that its rights are over", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		for first < len(lead.w.Lines) && lead.w.Lines[first].Time.Before(began) {
			first++
		}
		return first < len(lead.w.Lines)
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := lead.w.Lines[first]; (l.Type != "leader-lost" && l.Type != "revoked") || !l.Until.Before(l.Time) {
		p.t.Errorf("L3: first line of %s after the pause: %s", lead.name, lead.raw[first])
	}
	return fmt.Sprintf("%s paused for %s", lead.name, took.Round(100*time.Millisecond))
}

func rollingRestart(p *project) string {
	var leaders []string
	for _, s := range p.servers {
		leaders = append(leaders, p.streamLeader().name)
		before := s.inspect("{{.State.StartedAt}}")
		p.compose("restart", s.name)
		if after := s.inspect("{{.State.StartedAt}}"); after == before {
			p.t.Fatalf("%s has not started again", s.name)
		}
		s.healthy()
	}
	return "each started again; stream leaders " + strings.Join(leaders, ", ")
}

// check ends the workers as `docker compose stop` does, and proves what all have printed.
func (p *project) check() {
	p.t.Helper()
	p.compose("stop", "--timeout", "30", "worker")
	for _, c := range p.workers {
		c.gone()
		if code := c.inspect("{{.State.ExitCode}}"); code != "0" {
			p.t.Errorf("%s ended with %s", c.name, code)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	terms := 0
	for _, w := range p.ended {
		_, t := w.Holdings()
		terms += len(t)
	}
	if terms < 5 {
		p.t.Errorf("%d terms in all: the faults happened to nobody", terms)
	}
	for _, wrong := range eventcheck.Check(p.ended) {
		p.t.Error(wrong)
	}
}
