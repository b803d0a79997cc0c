package bloc

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/bloc/client"
	"github.com/quorate/quorate/testenv"
)

// longest is how long a test with sockets waits for what must happen.
const longest = time.Minute

// served is a gateway on a socket, over a real NATS server.
func served(t *testing.T, cfg Config, conns int) (*Gateway, string) {
	t.Helper()
	ctx := context.Background()
	log := slog.New(slog.DiscardHandler)
	nc := testenv.Real(t).Connect("gateway")
	ns, err := quorate.Open(ctx, nc, quorate.Config{Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close(ctx) }) // what cannot leave runs out
	cfg.Logger = log
	gw, err := Open(ctx, ns, "g", cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := Server(gw, log)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(Limit(l, conns)) // it ends with Close
	}()
	t.Cleanup(func() { srv.Close(); <-done })
	return gw, l.Addr().String()
}

// exchange sends bytes as they are, and reads one answer.
func exchange(t *testing.T, addr, text string) (*http.Response, string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(longest))     // a socket takes one
	go func() { _, _ = io.WriteString(c, text) }() // a server that has heard enough closes before all is sent
	method, _, _ := strings.Cut(text, " ")
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%.60q: no answer: %v", text, err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body) // the code is what counts
	return resp, string(body)
}

func TestBadInput(t *testing.T) {
	gw, addr := served(t, Config{Sessions: 2, Timeout: longest}, 100)
	const ok = "Bloc-Session-ID: a\r\n"
	req := func(line, headers string) string { return line + " HTTP/1.1\r\nHost: x\r\n" + headers + "\r\n" }
	for name, c := range map[string]struct {
		text string
		code int
		has  string // in the body
	}{
		"no header":            {req("GET /index", ""), 400, "the header Bloc-Session-ID is missing"},
		"no header, DELETE":    {req("DELETE /session", ""), 400, "is missing"},
		"two headers":          {req("GET /index", ok+ok), 400, "more than once"},
		"empty id":             {req("GET /index", "Bloc-Session-ID: \r\n"), 400, "Bloc-Session-ID"},
		"id with a blank":      {req("GET /index", "Bloc-Session-ID: a b\r\n"), 400, `\"a b\"`},
		"id with a wildcard":   {req("GET /index", "Bloc-Session-ID: a.>\r\n"), 400, "Bloc-Session-ID"},
		"id of another script": {req("GET /index", "Bloc-Session-ID: \xc3\xa4\r\n"), 400, "Bloc-Session-ID"},
		"id of bytes":          {req("GET /index", "Bloc-Session-ID: \xff\xfe\r\n"), 400, "Bloc-Session-ID"},
		"long id":              {req("GET /index", "Bloc-Session-ID: "+strings.Repeat("a", 64)+"\r\n"), 400, "Bloc-Session-ID"},
		"reserved id":          {req("GET /index", "Bloc-Session-ID: leader\r\n"), 400, "leader"},
		"another path":         {req("GET /", ok), 404, "GET /index and DELETE /session"},
		"path above":           {req("GET /../index", ok), 404, "GET /index"},
		"longer path":          {req("GET /index/", ok), 404, "GET /index"},
		"POST":                 {req("POST /index", ok+"Content-Length: 0\r\n"), 405, "only GET"},
		"HEAD":                 {req("HEAD /index", ok), 405, ""},
		"preflight":            {req("OPTIONS /index", "Origin: http://x\r\nAccess-Control-Request-Headers: bloc-session-id\r\n"), 405, "only GET"},
		"GET session":          {req("GET /session", ok), 405, "only DELETE"},
		"DELETE index":         {req("DELETE /index", ok), 405, "only GET"},
		"unknown method":       {req("BREW /index", ok), 405, "only GET"},
		"DELETE of nobody":     {req("DELETE /session", ok), 404, "no such session"},
		"huge header":          {req("GET /index", ok+"X: "+strings.Repeat("x", 1<<20)+"\r\n"), 431, ""},
		"many headers":         {req("GET /index", ok+strings.Repeat("X: y\r\n", 10000)), 431, ""},
		"not HTTP":             {"\x16\x03\x01 hello\r\n\r\n", 400, ""},
		"no host":              {"GET /index HTTP/1.1\r\n" + ok + "\r\n", 400, ""},
		"two lengths":          {req("GET /index", ok+"Content-Length: 1\r\nContent-Length: 2\r\n"), 400, ""},
	} {
		resp, body := exchange(t, addr, c.text)
		if resp.StatusCode != c.code || !strings.Contains(body, c.has) {
			t.Errorf("%s: got %d %q, want %d and %q", name, resp.StatusCode, body, c.code, c.has)
		}
		var e struct{ Error string }
		if c.has != "" && (json.Unmarshal([]byte(body), &e) != nil || e.Error == "" || resp.Header.Get("Content-Type") != "application/json") {
			t.Errorf("%s: %q is no JSON with an error", name, body)
		}
		if c.code == 405 && resp.Header.Get("Allow") == "" {
			t.Errorf("%s: no header Allow", name)
		}
	}
	if n := gw.Sessions(); n != 0 {
		t.Errorf("bad input has made %d sessions", n)
	}

	// Nobody is harmed, and the number of sessions is bounded.
	for _, id := range []string{"a", "b"} {
		if resp, body := exchange(t, addr, req("GET /index", "bloc-session-id: "+id+"\r\n")); resp.StatusCode != 200 || body != `{"status": "SETTLING"}` {
			t.Errorf("%s: %d %s", id, resp.StatusCode, body)
		}
	}
	if resp, body := exchange(t, addr, req("GET /index", "Bloc-Session-ID: c\r\n")); resp.StatusCode != 503 || !strings.Contains(body, "too many sessions") {
		t.Errorf("one too many: %d %s", resp.StatusCode, body)
	}
	if resp, body := exchange(t, addr, req("GET /index?x=1", "Bloc-Session-ID: b\r\nContent-Length: 3\r\n")+"abc"); resp.StatusCode != 200 {
		t.Errorf("a question with a body: %d %s", resp.StatusCode, body)
	}
}

// TestSlowClients: connections that send nothing, or a byte now and then, or do not read, or are too many, keep nobody from being answered.
func TestSlowClients(t *testing.T) {
	_, addr := served(t, Config{}, 60)
	stop := make(chan struct{})
	var slow []net.Conn
	for i := range 50 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		slow = append(slow, c)
		go func() {
			_, _ = io.WriteString(c, "GET /index HTTP/1.1\r\nBloc-Session-ID: x")
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			for i%2 == 0 {
				select {
				case <-stop:
					return
				case <-tick.C:
				}
				if _, err := io.WriteString(c, "x"); err != nil {
					return
				}
			}
		}()
	}
	defer close(stop)
	ask := func() int {
		ctx, cancel := context.WithTimeout(context.Background(), longest)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/index", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Bloc-Session-ID", "good")
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
		if err != nil {
			return 0
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	for range 20 {
		if code := ask(); code != 200 {
			t.Fatalf("beside slow clients: %d", code)
		}
	}
	// More than the limit are hung up on, and those that were there are served on.
	for range 30 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		slow = append(slow, c)
	}
	// All of them are ended by the server: who says nothing for so long says nothing any more.
	for i, c := range slow {
		_ = c.SetReadDeadline(time.Now().Add(longest)) // a socket takes one
		if _, err := io.Copy(io.Discard, c); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Fatalf("slow client %d is still connected after %v", i, longest)
		}
	}
	if code := ask(); code != 200 {
		t.Errorf("after the slow clients: %d", code)
	}
}

// TestUnchangedClients: clients as bloc's own, over sockets and kept connections, on two gateways of one process each with its own
// connection to NATS; one gateway's socket goes away under them.
func TestUnchangedClients(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	srv := testenv.Real(t)
	watch := testenv.Watch(t)
	ctx := context.Background()
	var urls []string
	var servers []*httptest.Server
	for i := range 2 {
		ns, err := watch.Open(ctx, srv.Connect(fmt.Sprint("gateway ", i)), quorate.Config{Lease: 1500 * time.Millisecond, Logger: log})
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close(ctx)
		gw, err := Open(ctx, ns, "g", Config{Settle: 2400 * time.Millisecond, Logger: log})
		if err != nil {
			t.Fatal(err)
		}
		hs := httptest.NewUnstartedServer(gw)
		hs.Config = Server(gw, log)
		hs.Start()
		defer hs.Close()
		urls, servers = append(urls, hs.URL), append(servers, hs)
	}
	all := newBeliefs(t)
	clients, stop := context.WithCancel(ctx)
	done := make(chan struct{}, 6)
	for i := range 6 {
		c := client.New(all, fmt.Sprintf("c%d", i), 300*time.Millisecond, client.Over(&http.Client{Transport: &http.Transport{}}, urls[i%2], urls[(i+1)%2]))
		go func() { c.Run(clients); done <- struct{}{} }()
	}
	await := func(what string, is func() bool) {
		t.Helper()
		end := time.After(longest)
		for !is() {
			select {
			case <-end:
				t.Fatalf("not within %v: %s: %v", longest, what, all)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	await("6 settled", func() bool { return all.Whole(6) })
	servers[0].Listener.Close()
	servers[0].CloseClientConnections()
	before := all.Seen()
	await("6 settled through the other", func() bool { return all.Seen() > before+30 && all.Whole(6) })
	stop()
	for range 6 {
		<-done
	}
}
