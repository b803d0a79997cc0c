//go:build unix

package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/bloc/client"
	"github.com/quorate/quorate/internal/eventcheck"
)

// What is wrong with the words of bloc is said before anything is connected: inequalities with their numbers.
func TestBlocUsage(t *testing.T) {
	t.Parallel()
	env := append(home(t, "", nil), "NATS_URL=nats://127.0.0.1:1")
	dir := t.TempDir()
	empty := writeFile(t, filepath.Join(dir, "empty"), nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, tt := range []struct {
		words string
		code  int
		says  string
	}{
		{"bloc", ExitUsage, "GROUP is missing"},
		{"bloc a.b", ExitUsage, `group "a.b": character 2 is '.'`},
		{"bloc g -t 4 -s 6", ExitUsage, "bloc: settle time 6s > 1.63 leases of 3s: SETTLED could never be said for so long: a lease of 3.7s is needed, or a shorter settle time"},
		{"bloc g -t 4 -s 6 --client-interval 3.5 --lease 4s", ExitUsage, "bloc: settle time 6s < 2 client intervals of 3.5s: a client may believe SETTLED for two of its intervals"},
		{"bloc g -t 1 --client-interval 2", ExitUsage, "bloc: session timeout 1s < client interval 2s: clients would be gone between two questions"},
		{"bloc g -s nats://x", ExitUsage, `--settle "nats://x": not a duration: write seconds, or a number and its unit, like 4, 0.5 or 500ms (after "bloc", -s is --settle)`},
		{"bloc g --settle 0", ExitUsage, `--settle "0": it must be more than 0`},
		{"bloc g -t NaN", ExitUsage, `--session-timeout "NaN": a number of seconds from 0 to 1000000 is meant`},
		{"bloc g -s 1 --settle 2", ExitUsage, "--settle is given twice"},
		{"bloc g --id a.b", ExitUsage, `member id "a.b"`},
		{"bloc g --lease 10ms", ExitUsage, "--lease: lease 10ms: at least 200ms"},
		{"bloc g --listen nowhere", ExitFailed, "bloc: cannot listen on nowhere: address nowhere: missing port in address: name another with --listen HOST:PORT"},
		{"bloc g --listen " + l.Addr().String(), ExitFailed, "address already in use: name another with --listen HOST:PORT"},
		{"bloc g --http-cert x", ExitUsage, "give both --http-cert and --http-key"},
		{"bloc g --http-ca x", ExitUsage, "give --http-cert and --http-key too"},
		{"bloc g --http-cert " + empty + " --http-key " + empty, ExitFailed, "TLS certificate " + empty},
		{"bloc g --listen 127.0.0.1:0", ExitFailed, "cannot reach nats://127.0.0.1:1: connection refused"},
		// Before the command, and for every other command, the letter is what it is everywhere.
		{"-s nats://127.0.0.1:2 bloc g --listen 127.0.0.1:0", ExitFailed, "cannot reach nats://127.0.0.1:2"},
		{"members g -s nats://127.0.0.1:2", ExitFailed, "cannot reach nats://127.0.0.1:2"},
		{"members g -t 4", ExitUsage, "unknown flag -t"},
	} {
		t.Run(tt.words[:min(len(tt.words), 40)], func(t *testing.T) {
			checkLine(t, runIn(t, env, strings.Fields(tt.words)...), tt.code, tt.says)
		})
	}
}

// A gatewayProcess is one `quorate bloc`.
type gatewayProcess struct {
	s      *scene
	cmd    *exec.Cmd
	url    string
	stderr safeBuffer
	exited chan struct{}
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

var servesAt = regexp.MustCompile(`bloc: group "g" at (http://[0-9.:]+), as (\S+)`)

func (s *scene) gateway(id string) *gatewayProcess {
	s.t.Helper()
	// The clients ask eight times in the settle time: a loaded machine may hold this process, in which they run, up for long.
	p := &gatewayProcess{s: s, exited: make(chan struct{}), cmd: commandLine(s.t, nil, "bloc", "g", "--id", id, "--listen", "127.0.0.1:0",
		"--state-dir", s.dir, "--lease", s.lease.String(), "-s", "2.4", "-t", "5")}
	p.cmd.Stderr = &p.stderr
	if err := p.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { _ = p.cmd.Wait(); close(p.exited) }() // looked at by those who care
	s.t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // most have ended
		<-p.exited
		if s.t.Failed() {
			s.t.Logf("%s: %s", id, p.stderr.String())
		}
	})
	s.poll(id+" serves", func() bool { return servesAt.MatchString(p.stderr.String()) })
	p.url = servesAt.FindStringSubmatch(p.stderr.String())[1]
	return p
}

// poll waits for what no line tells of.
func (s *scene) poll(what string, is func() bool) {
	s.t.Helper()
	end := time.After(2 * patience)
	for !is() {
		select {
		case <-end:
			s.t.Fatalf("not within %s: %s", 2*patience, what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (p *gatewayProcess) signal(sig syscall.Signal) {
	p.s.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.s.t.Fatal(err)
	}
}

// TestBlocProcesses: unchanged clients on two gateways, beside two native members, all processes of their own. One gateway is killed, another
// stopped and continued, the last one told to end. No two ever act on one share, and all that are left share everything again each time.
func TestBlocProcesses(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.lease = 1500 * time.Millisecond
	n1, n2 := s.join("n1"), s.join("n2")
	one, two := s.gateway("gw1"), s.gateway("gw2")
	all := client.NewBeliefs(func(wrong string) { t.Errorf("guarantee broken: %s", wrong) })
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	var mu sync.Mutex
	urls := []string{one.url, two.url}
	var clients []*client.Client
	const n = 12
	for i := range n {
		k := i // each begins with another gateway
		hc := &http.Client{Transport: &http.Transport{}}
		c := client.New(all, fmt.Sprintf("0f8fad5b-d9cb-469f-a165-%012d", i), 300*time.Millisecond, func(ctx context.Context, method, path, id string) (int, []byte, error) {
			mu.Lock()
			url := urls[k%len(urls)]
			mu.Unlock()
			code, body, err := client.Over(hc, url)(ctx, method, path, id)
			if err != nil || code != http.StatusOK {
				k++
			}
			return code, body, err
		})
		clients = append(clients, c)
		running.Go(func() { c.Run(ctx) })
	}
	together := func(what string) {
		t.Helper()
		before := all.Seen()
		began := time.Now()
		s.poll(what, func() bool {
			all := all.Seen() > before+3*n && func() bool {
				for _, c := range clients {
					if _, total := c.Get(); total != n+2 {
						return false
					}
				}
				return true
			}()
			s.mu.Lock()
			defer s.mu.Unlock()
			a, b := n1.share(), n2.share()
			return all && a != nil && b != nil && a.Total == n+2 && b.Total == n+2
		})
		longest := time.Duration(0)
		for _, c := range clients {
			longest = max(longest, c.Unsettled())
		}
		t.Logf("%s: after %v; unsettled for %v at most", what, time.Since(began).Round(time.Millisecond), longest.Round(time.Millisecond))
	}
	together("all share the work")

	one.signal(syscall.SIGKILL)
	<-one.exited
	together("one gateway was killed")

	three := s.gateway("gw3")
	mu.Lock()
	urls = []string{two.url, three.url}
	mu.Unlock()
	three.signal(syscall.SIGSTOP) // who came last does not serve this host's NATS, whose stop all others would wait for
	together("one gateway was stopped")
	three.signal(syscall.SIGCONT)
	together("and continued")

	three.signal(syscall.SIGTERM)
	<-three.exited
	if code := three.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d, want 0: %s", code, three.stderr.String())
	}
	together("one gateway was ended")
	stop()
	running.Wait()
	for _, c := range clients {
		if code, body := c.Stop(); code != http.StatusOK || body != "{}" {
			// The first may go to the gateway that has ended, as a client's would.
			if code, body = c.Stop(); code != http.StatusOK || body != "{}" {
				t.Errorf("DELETE: %d %s", code, body)
			}
		}
	}
	s.poll("the native members share the work", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return shared(0, n1, n2) != nil
	})
	two.signal(syscall.SIGTERM)
	<-two.exited
	n1.leave()
	n2.leave()
	s.prove()
	against(t, all, n1, n2)
}

// against checks what clients believed against what native members held, by the clock of this machine.
func against(t *testing.T, all *client.Beliefs, natives ...*process) {
	t.Helper()
	checked := 0
	for _, p := range natives {
		shares, _ := eventcheck.Witness{Name: p.id, Lines: p.lines, Ended: p.killed}.Holdings()
		for _, h := range all.All() {
			for _, s := range shares {
				if h.To.IsZero() || h.To.Before(s.Begin) || !s.End.IsZero() && s.End.Before(h.From) {
					continue
				}
				checked++
				if h.Total != s.Grant.Total || h.Index == s.Grant.Index+1 {
					t.Errorf("guarantee broken: P2: %s believed in %d of %d from %v to %v, %s held %d of %d from %v to %v", h.ID, h.Index, h.Total, h.From, h.To,
						p.id, s.Grant.Index+1, s.Grant.Total, s.Begin, s.End)
				}
			}
		}
	}
	if checked == 0 {
		t.Error("nobody held anything at the same time as a client: nothing was proven")
	}
}

// TestBlocTLS: clients are shown a certificate, and asked for one; the address is served from the beginning, and left when told to end.
func TestBlocTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, key := certificate(t, dir, "ca", nil, nil)
	certificate(t, dir, "server", ca, key)
	certificate(t, dir, "client", ca, key)
	file := func(name string) string { return filepath.Join(dir, name+".pem") }
	r := start(t, natsEnv(t), nil, "bloc", "g", "--listen", "127.0.0.1:0", "--id", "gw", "--http-cert", file("server"), "--http-key", file("server-key"), "--http-ca", file("ca"))
	r.await(r.errs, ", as gw")
	url := regexp.MustCompile(`bloc: group "g" at (https://[0-9.:]+), as gw`).FindStringSubmatch(r.errs.String())
	if url == nil {
		t.Fatalf("%s", r.errs.String())
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	pair, err := tls.LoadX509KeyPair(file("client"), file("client-key"))
	if err != nil {
		t.Fatal(err)
	}
	ask := func(certs ...tls.Certificate) (int, []byte, error) {
		hc := &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: certs}, DisableKeepAlives: true}}
		return client.Over(hc, url[1])(t.Context(), http.MethodGet, "/index", "a")
	}
	if code, body, err := ask(pair); code != http.StatusOK || string(body) != `{"status": "SETTLING"}` {
		t.Errorf("with a certificate: %d %s %v", code, body, err)
	}
	if code, body, err := ask(); err == nil {
		t.Errorf("without a certificate: %d %s", code, body)
	}
	if code, _, err := client.Over(&http.Client{Timeout: patience}, "http"+strings.TrimPrefix(url[1], "https"))(t.Context(), http.MethodGet, "/index", "a"); code == http.StatusOK {
		t.Errorf("without TLS: %d %v", code, err)
	}
	if code := r.stop(); code != ExitDone {
		t.Errorf("exit code %d: %s", code, r.errs.String())
	}
}
