//go:build unix

package cli

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// What is wrong with the words of web is said before anything is connected; an address that others reach is not opened to all by oversight.
func TestWebUsage(t *testing.T) {
	t.Parallel()
	env := append(home(t, "", nil), "NATS_URL=nats://127.0.0.1:1")
	dir := t.TempDir()
	empty := writeFile(t, filepath.Join(dir, "empty"), []byte("\nsecret\n"))
	password := writeFile(t, filepath.Join(dir, "password"), []byte("open sesame\n"))
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
		{"web a.b", ExitUsage, `group "a.b": character 2 is '.'`},
		{"web --lease 10ms", ExitUsage, "--lease: lease 10ms: at least 200ms"},
		{"web --viewers 0", ExitUsage, `--viewers "0": it must be more than 0`},
		{"web --host http://x", ExitUsage, `--host "http://x": a name is meant`},
		{"web --password-file nowhere", ExitFailed, "web: password file nowhere: no such file"},
		{"web --password-file " + empty, ExitFailed, "web: password file " + empty + ": its first line is empty"},
		{"web --no-password --password-file " + password, ExitUsage, "leave one out"},
		{"web --http-cert x", ExitUsage, "give both --http-cert and --http-key"},
		{"web --listen nowhere", ExitFailed, "web: cannot listen on nowhere: address nowhere: missing port in address: name another with --listen HOST:PORT"},
		{"web --listen " + l.Addr().String(), ExitFailed, "address already in use: name another with --listen HOST:PORT"},
		{"web --listen 127.0.0.1:0", ExitFailed, "cannot reach nats://127.0.0.1:1: connection refused"},
		{"web --listen :0", ExitUsage, "web: whoever reaches :0 could step leaders down and evict members: add --read-only, --password-file FILE or --http-ca FILE; or --no-password, if that is meant"},
		{"web --listen :0 --read-only", ExitFailed, "cannot reach nats://127.0.0.1:1"},
		{"web --listen :0 --no-password", ExitFailed, "cannot reach nats://127.0.0.1:1"},
		{"web --listen :0 --password-file " + password, ExitFailed, "cannot reach nats://127.0.0.1:1"},
	} {
		t.Run(tt.words[:min(len(tt.words), 40)], func(t *testing.T) {
			checkLine(t, runIn(t, env, strings.Fields(tt.words)...), tt.code, tt.says)
		})
	}
}

// A whole life of the command: it serves this host's NATS when nobody does, waits for a namespace, shows the group that somebody makes, over TLS and with a
// password, and ends when it is asked to.
func TestWeb(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, key := certificate(t, dir, "ca", nil, nil)
	certificate(t, dir, "server", ca, key)
	env := append(home(t, "", nil), "QUORATE_STATE_DIR="+filepath.Join(dir, "state"))
	password := writeFile(t, filepath.Join(dir, "password"), []byte("open sesame\r\nand more\n"))
	w := start(t, env, nil, "web", "--listen", "127.0.0.1:0", "--http-cert", filepath.Join(dir, "server.pem"), "--http-key", filepath.Join(dir, "server-key.pem"), "--password-file", password)
	w.await(w.errs, `namespace "default" does not exist yet`)
	url := regexp.MustCompile(`web: (https://[0-9.:]+)\n`).FindStringSubmatch(w.errs.String())
	if url == nil {
		t.Fatal(w.errs.String())
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	c := &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
	get := func(password string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url[1]+"/?group=workers", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.SetBasicAuth("me", password)
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	if code, body := get("wrong"); code != http.StatusUnauthorized {
		t.Errorf("a wrong password: %d %s", code, body)
	}
	m := start(t, env, nil, "join", "workers", "--id", "m")
	var body string
	for end := time.After(patience); !strings.Contains(body, "<b>m</b>") || !strings.Contains(body, "settled"); _, body = get("open sesame") {
		select {
		case <-end:
			t.Fatalf("the group is not shown:\n%s", body)
		case <-time.After(20 * time.Millisecond):
		}
	}
	if code := m.stop(); code != ExitDone {
		t.Errorf("the member ended with %d", code)
	}
	if code := w.stop(); code != ExitDone || w.out.String() != "" || strings.Contains(w.errs.String(), "open sesame") {
		t.Errorf("it ended with %d, and said %q and %q", code, w.out, w.errs)
	}
}
