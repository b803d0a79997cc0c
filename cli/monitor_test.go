package cli

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/metrics"
)

// endpoint is one command's --listen.
type endpoint struct {
	t   *testing.T
	r   *running
	url string
}

// listening waits until the command says where it listens.
func listening(t *testing.T, r *running) *endpoint {
	t.Helper()
	r.await(r.errs, "http://127.0.0.1:")
	return &endpoint{t, r, regexp.MustCompile(`http://127\.0\.0\.1:\d+`).FindString(r.errs.String())}
}

func (e *endpoint) get(path string) (int, string) {
	e.t.Helper()
	r, err := http.NewRequestWithContext(e.t.Context(), http.MethodGet, e.url+path, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	resp, err := (&http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// await asks until the answer has the code and the text.
func (e *endpoint) await(path string, code int, text string) {
	e.t.Helper()
	for end := time.After(patience); ; {
		got, body := e.get(path)
		if got == code && strings.Contains(body, text) {
			return
		}
		select {
		case <-end:
			e.t.Fatalf("%s%s: got %d %q, want %d with %q", e.url, path, got, body, code, text)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// TestMonitor: every command that runs on serves metrics and health where --listen says, and what it serves says how it is.
func TestMonitor(t *testing.T) {
	t.Parallel()
	file, cluster := clusterFile(t, 1, "")
	// A namespace that the server does not make.
	more := []string{"--lease", "1s", "--timeout", "5s", "--listen", "127.0.0.1:0", "-N", "plant", "--server", fmt.Sprintf("nats://%s:%d", cluster.Machines[0].Host, cluster.Machines[0].ClientPort)}
	env := append(home(t, "", nil), "PATH="+os.Getenv("PATH"))
	begin := func(words ...string) *endpoint { return listening(t, start(t, env, nil, words...)) }
	server := begin("server", "--config", file, "--listen", "127.0.0.1:0")
	server.await("/readyz", http.StatusOK, "ready\n")
	server.await("/metrics", http.StatusOK, "\nquorate_server_clients 1\n") // the one that tries a write
	server.await("/metrics", http.StatusOK, "\nquorate_ready 1\n")

	all := map[string]*endpoint{
		"server": server,
		"web":    begin(append([]string{"web"}, more...)...),
		"watch":  begin(append([]string{"watch", "workers"}, more...)...),
	}
	all["web"].await("/readyz", http.StatusServiceUnavailable, "not ready: the namespace does not exist yet")
	all["watch"].await("/readyz", http.StatusServiceUnavailable, "not ready: it is starting")
	all["join"] = begin(append([]string{"join", "workers", "--id", "a", "--items", writeFile(t, filepath.Join(t.TempDir(), "items"), []byte("x\ny\n"))}, more...)...)
	all["join"].await("/readyz", http.StatusOK, "ready\n") // it leads
	all["run"] = begin(append([]string{"run", "--election", "reports"}, append(more, "--", "sleep", "1000")...)...)
	all["bloc"] = begin(append([]string{"bloc", "workers"}, more...)...)
	for _, c := range commands() {
		if c.runsOn != (all[c.name] != nil) {
			t.Errorf("%s runs on: %t, and this test has it: %t", c.name, c.runsOn, all[c.name] != nil)
		}
	}
	for name, e := range all {
		e.await("/readyz", http.StatusOK, "ready\n")
		e.await("/healthz", http.StatusOK, "ok\n")
		e.await("/metrics", http.StatusOK, `quorate_build_info{command="`+name+`",`)
		e.await("/metrics", http.StatusOK, "\ngo_goroutines ")
		if name != "server" { // which is no client of its own
			e.await("/metrics", http.StatusOK, "\nprocess_start_time_seconds ")
		}
	}
	all["join"].await("/metrics", http.StatusOK, `quorate_leader{election="",group="workers",namespace="plant"} 1`)
	all["join"].await("/metrics", http.StatusOK, `quorate_roster_size{group="workers",namespace="plant"} 2`)
	all["join"].await("/metrics", http.StatusOK, `quorate_shares{group="workers",namespace="plant"} 1`)
	all["run"].await("/metrics", http.StatusOK, `quorate_leader{election="reports",group="",namespace="plant"} 1`)
	all["bloc"].await("/metrics", http.StatusOK, `quorate_member{group="workers",namespace="plant"} 1`)
	if code, body := all["join"].get("/"); code != http.StatusNotFound || !strings.Contains(body, "/metrics") {
		t.Errorf("/: %d %q", code, body)
	}
	if code, _ := all["bloc"].get("/index"); code != http.StatusBadRequest { // bloc's own API is there, too
		t.Errorf("bloc: /index: %d", code)
	}

	// The server stops: whoever depends on it is not ready any more, but lives.
	if code := server.r.stop(); code != ExitDone {
		t.Errorf("server: exit code %d: %s", code, server.r.errs)
	}
	for name, e := range all {
		if name == "server" {
			continue
		}
		e.await("/readyz", http.StatusServiceUnavailable, "not ready: ")
		e.await("/healthz", http.StatusOK, "ok\n")
		e.await("/metrics", http.StatusOK, "\nquorate_ready 0\n")
	}
}

// TestMonitorFlags: what is wrong with --listen is said before anything is connected.
func TestMonitorFlags(t *testing.T) {
	t.Parallel()
	taken := listening(t, start(t, home(t, "", nil), nil, "web", "--listen", "127.0.0.1:0", "--state-dir", t.TempDir()))
	addr := strings.TrimPrefix(taken.url, "http://")
	for _, w := range []struct {
		words string
		code  int
		has   string
	}{
		{"join g --listen nowhere", ExitFailed, "join: cannot listen on nowhere: address nowhere: missing port in address: name another with --listen HOST:PORT"},
		{"watch g --listen " + addr, ExitFailed, "address already in use: name another with --listen HOST:PORT"},
		{"run g --listen " + addr + " -- true", ExitRunFailed, "address already in use"},
		{"server --listen " + addr, ExitFailed, "address already in use"},
		{"join g --http-cert x --http-key y", ExitFailed, "TLS certificate x with key y"},
		{"join g --http-ca x", ExitUsage, "--http-ca asks clients for certificates, over TLS: give --http-cert and --http-key too"},
	} {
		r := runIn(t, append(home(t, "", nil), "NATS_URL=nats://127.0.0.1:1", "PATH="+os.Getenv("PATH")), strings.Fields(w.words)...)
		checkLine(t, r, w.code, w.has)
	}
}

// TestMetricsOfTheCommand: docs/operations.md has what only the command shows; package metrics looks for the rest.
func TestMetricsOfTheCommand(t *testing.T) {
	doc, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	p := &metrics.Program{Version: "1", Command: "x", Ready: func() bool { return true }, Server: func() (metrics.Server, bool) { return metrics.Server{Clients: 3}, true }}
	w := &recorder{header: http.Header{}}
	metrics.Handler(p).ServeHTTP(w, &http.Request{Method: http.MethodGet, Header: http.Header{}})
	for _, m := range regexp.MustCompile("(?m)^\\| `(quorate_(?:server_\\w+|ready|build_info))` ").FindAllStringSubmatch(string(doc), -1) {
		if !strings.Contains(w.body.String(), "\n"+m[1]) {
			t.Errorf("docs/operations.md has %s, and the command does not show it", m[1])
		}
	}
	if !strings.Contains(w.body.String(), "\nquorate_server_clients 3\n") {
		t.Errorf("quorate_server_clients is not shown:\n%s", w.body.String())
	}
}

// recorder keeps an answer.
type recorder struct {
	header http.Header
	body   strings.Builder
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(int)             {}
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }
