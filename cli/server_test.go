//go:build linux

// Linux, for the whole of 127.0.0.0/8: three machines of one host, each with the usual ports.

package cli

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate/embedded"
)

var clusters atomic.Int32

// clusterFile writes the file of n machines; more is put into it.
func clusterFile(t *testing.T, n int, more string) (path string, c *embedded.Cluster) {
	t.Helper()
	dir := t.TempDir()
	at := fmt.Sprintf("127.%d.%d.", 1+os.Getpid()%250, 100+clusters.Add(1))
	var l []string
	for i := range n {
		l = append(l, fmt.Sprintf(`{"name": "%c", "host": "%s%d"}`, 'a'+i, at, i+1))
	}
	path = writeFile(t, filepath.Join(dir, "cluster.json"), fmt.Appendf(nil, "{\"machines\": [%s],\n\"store_dir\": \"store\"%s}\n", strings.Join(l, ",\n"), more))
	c, err := embedded.ReadCluster(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, c
}

// startServers starts all servers of a cluster in this process. Whether they are ready is not waited for.
func startServers(t *testing.T, c *embedded.Cluster, namespace string) []*embedded.Server {
	t.Helper()
	var l []*embedded.Server
	for _, m := range c.Machines {
		s, err := embedded.StartCluster(t.Context(), c, embedded.ClusterOptions{Local: m.Name, Namespace: namespace, NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close(context.Background()) })
		l = append(l, s)
	}
	return l
}

// A daemon is one `quorate server`, a process of its own that tells how it is on a socket, as under systemd.
type daemon struct {
	t      *testing.T
	cmd    *exec.Cmd
	out    *output
	states chan string
	exited chan struct{}
}

func startDaemon(t *testing.T, env []string, words ...string) *daemon {
	t.Helper()
	d := &daemon{t: t, out: newOutput(), states: make(chan string, 10), exited: make(chan struct{})}
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "n"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := socket.Read(buf)
			if err != nil {
				return
			}
			d.states <- string(buf[:n])
		}
	}()
	d.cmd = commandLine(t, append([]string{"NOTIFY_SOCKET=" + socket.LocalAddr().String()}, env...), append([]string{"server"}, words...)...)
	d.cmd.Stderr = d.out
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = d.cmd.Wait()
		close(d.exited)
		// Behind all that it said itself.
		if last, err := net.DialUnix("unixgram", nil, socket.LocalAddr().(*net.UnixAddr)); err == nil {
			last.Write([]byte(stateGone))
			last.Close()
		}
	}()
	t.Cleanup(func() {
		_ = d.cmd.Process.Kill() // most have ended
		<-d.exited
		socket.Close()
		if t.Failed() {
			t.Logf("%q: %s", words, d.out)
		}
	})
	return d
}

// state waits for one of the states that it tells.
func (d *daemon) state(want string) {
	d.t.Helper()
	end := time.After(2 * patience) // an election of NATS takes some seconds
	for {
		select {
		case s := <-d.states:
			if s == want {
				return
			}
			if s == stateGone {
				d.t.Fatalf("it ended without %q", want)
			}
		case <-end:
			d.t.Fatalf("no %q", want)
		}
	}
}

const (
	stateReady = "READY=1\nSTATUS=ready"
	stateStops = "STOPPING=1"
	stateGone  = "gone"
)

// end stops it as an operator does.
func (d *daemon) end() {
	d.t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		d.t.Fatal(err)
	}
	<-d.exited
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		d.t.Errorf("exit code %d, want 0", code)
	}
}

// await waits for a text in its log.
func (d *daemon) await(text string) {
	d.t.Helper()
	end := time.After(patience)
	for {
		d.out.mu.Lock()
		ok, changed := strings.Contains(d.out.text.String(), text), d.out.changed
		d.out.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-d.exited:
			d.t.Fatalf("it ended without %q", text)
		case <-end:
			d.t.Fatalf("no %q", text)
		}
	}
}

func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	<-d.exited
}

// Three processes with one file are a cluster, of which one may be killed.
func TestServerCluster(t *testing.T) {
	t.Parallel()
	path, c := clusterFile(t, 3, `, "auth": {"system": {"password": "hush"}}`)
	var ds []*daemon
	run := func(name string) *daemon { return startDaemon(t, nil, "--config", path, "--local", name) }
	for _, m := range c.Machines {
		ds = append(ds, run(m.Name))
	}
	for _, d := range ds {
		d.state(stateReady)
	}
	env := append(append(home(t, "", nil), patient...), "NATS_URL="+c.URL())
	a := start(t, env, nil, "join", "g", "--id", "a", "--lease", "30s") // it outlives an election of the servers, on a busy machine two
	a.await(a.out, "leader-elected a")
	ds[0].kill()
	ds[0] = run("a")
	ds[0].state(stateReady)
	if r := runIn(t, env, "leader", "g", "-j"); r.code != 0 || !strings.Contains(r.stdout, `"leader":"a"`) {
		t.Errorf("leader: %+v", r)
	}
	if out := a.out.String(); strings.Contains(out, "leader-lost") {
		t.Errorf("the leader lost a lease of 30 s by the death of one server: %s", out)
	}
	if code := a.stop(); code != 0 {
		t.Errorf("join: exit code %d", code)
	}
	ds[1].end()
	ds[1].state(stateStops)
	for _, d := range ds {
		if strings.Contains(d.out.String(), "hush") {
			t.Error("a secret is in the log")
		}
	}
}

// Without a file it serves this host, for all that name the same directory, and only one does.
func TestServerHost(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	d := startDaemon(t, nil, "--state-dir", dir)
	d.state(stateReady)
	env := home(t, "", nil)
	m := start(t, env, nil, "join", "g", "--id", "m", "--state-dir", dir)
	m.await(m.out, "joined")
	if errs := m.errs.String(); strings.Contains(errs, "served by this process") {
		t.Errorf("the member serves: %s", errs)
	}
	r := runIn(t, env, "server", "--state-dir", dir)
	checkLine(t, r, ExitFailed, "server: state directory "+dir+": in use by process", "stop that, or choose another directory")
	if code := m.stop(); code != 0 {
		t.Errorf("join: exit code %d", code)
	}
	d.end()
}

// An ordinary NATS configuration file does as well; its log file is opened anew at a HUP.
func TestServerNATSFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	path := writeFile(t, filepath.Join(dir, "nats.conf"), fmt.Appendf(nil,
		"listen: \"127.0.0.1:-1\"\njetstream { store_dir: %q, sync_interval: always }\nlog_file: %q\nauthorization { users: [{ user: u, password: p }] }\n", dir, log))
	d := startDaemon(t, []string{"NATS_USER=u", "NATS_PASSWORD=p"}, "--config", path)
	d.state(stateReady)
	if err := os.Rename(log, log+".1"); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for end := time.After(patience); ; { // it appears when the file has been opened anew
		if _, err := os.Stat(log); err == nil {
			break
		}
		select {
		case <-end:
			t.Fatal("no new log file")
		case <-time.After(5 * time.Millisecond):
		}
	}
	d.end()
	old, _ := os.ReadFile(log + ".1")
	now, _ := os.ReadFile(log)
	if !strings.Contains(string(old), "server: ready") || !strings.Contains(string(now), "server: stopped") {
		t.Errorf("before the HUP:\n%s\nafter it:\n%s", old, now)
	}
	if out := d.out.String(); out != "" {
		t.Errorf("standard error: %s", out)
	}
}

// A server takes a new certificate at a HUP, and by itself some seconds after its files have changed; members and leaders notice nothing.
func TestServerCertificates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, c := clusterFile(t, 1, fmt.Sprintf(`, "tls": {"cert": "%[1]s/server.pem", "key": "%[1]s/server-key.pem"}`, dir))
	ca, caKey := certificate(t, dir, "ca", nil, nil)
	issue := func() *x509.Certificate {
		cert, _ := certificate(t, dir, "server", ca, caKey, c.Machines[0].Host)
		return cert
	}
	shown := func() *x509.Certificate {
		t.Helper()
		nc, err := nats.Connect(c.URL(), nats.RootCAs(filepath.Join(dir, "ca.pem")))
		for end := time.Now().Add(patience); err != nil; { // a handshake may take 2 s, on either side
			if time.Now().After(end) {
				t.Fatal(err)
			}
			nc, err = nats.Connect(c.URL(), nats.RootCAs(filepath.Join(dir, "ca.pem")))
		}
		defer nc.Close()
		state, err := nc.TLSConnectionState()
		if err != nil {
			t.Fatal(err)
		}
		return state.PeerCertificates[0]
	}
	first := issue()
	d := startDaemon(t, nil, "--config", path)
	d.state(stateReady)
	env := append(append(home(t, "", nil), patient...), "NATS_URL="+c.URL(), "NATS_CA="+filepath.Join(dir, "ca.pem"))
	a := start(t, env, nil, "join", "g", "--id", "a", "--lease", "15s") // a server that is slow to answer pings is not taken for dead
	a.await(a.out, "assigned")
	if !shown().Equal(first) {
		t.Error("the server shows another certificate than its file's")
	}

	// One by a HUP, one without. With the first comes a word about a key that does not fit, which changes nothing.
	key, err := os.ReadFile(filepath.Join(dir, "server-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	second := issue()
	good, err := os.ReadFile(filepath.Join(dir, "server-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "server-key.pem"), key)
	hangUp := func(says string) {
		t.Helper()
		if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		d.await(says)
	}
	hangUp("server: not reloaded: going on as before")
	if !shown().Equal(first) {
		t.Error("a key that does not fit has changed what the server shows")
	}
	writeFile(t, filepath.Join(dir, "server-key.pem"), good)
	hangUp("server: reloaded")
	if !shown().Equal(second) {
		t.Error("after the HUP the server does not show the new certificate")
	}
	third := issue()
	for end := time.After(patience); !shown().Equal(third); {
		select {
		case <-end:
			t.Fatal("without a HUP the server does not show the new certificate")
		case <-time.After(250 * time.Millisecond):
		}
	}
	if r := runIn(t, env, "leader", "g", "-j"); r.code != 0 || !strings.Contains(r.stdout, `"leader":"a"`) {
		t.Errorf("leader: %+v", r)
	}
	if code := a.stop(); code != 0 {
		t.Errorf("join: exit code %d", code)
	}
	if out := a.out.String(); strings.Contains(out, "disconnected") || strings.Count(out, "leader-lost") != 1 || strings.Count(out, "revoked") != 1 {
		t.Errorf("the member noticed: %s", out)
	}
	d.end()
}

// What cannot be a server says why, in one line.
func TestServerRefused(t *testing.T) {
	t.Parallel()
	env := home(t, "", nil)
	path, _ := clusterFile(t, 3, "")
	two := writeFile(t, filepath.Join(t.TempDir(), "two.json"), []byte(`{"machines": [{"name": "a"}, {"name": "b"}], "store_dir": "s"}`))
	conf := writeFile(t, filepath.Join(t.TempDir(), "nats.conf"), []byte("port: 4222\n"))
	log, _ := clusterFile(t, 1, `, "log": {"file": "/no/such/dir/log"}`)
	for _, tt := range []struct {
		words string
		code  int
		says  string
	}{
		{"--config /no/such/file", ExitFailed, "server: /no/such/file: no such file or directory"},
		{"--config " + two, ExitFailed, "two.json: line 1: machines: with two servers the loss of either stops both"},
		{"--config " + path, ExitFailed, "which machine is this? a, b, c all have an address of it: name it with --local"},
		{"--config " + path + " --local x", ExitFailed, `has no machine "x": its machines are a, b, c`},
		{"--config " + conf, ExitFailed, "JetStream is not on: add a jetstream block with a store_dir"},
		{"--config " + log, ExitFailed, "server: log file /no/such/dir/log: no such file or directory"},
		{"--config " + conf + " --local a", ExitUsage, "is a configuration file of one NATS server"},
		{"--local a", ExitUsage, "--local names a machine of a file: give --config too"},
	} {
		t.Run(tt.words, func(t *testing.T) {
			checkLine(t, runIn(t, env, append([]string{"server"}, strings.Fields(tt.words)...)...), tt.code, tt.says)
		})
	}
	// Variables do as well.
	checkLine(t, runIn(t, append(env, "QUORATE_CONFIG="+path, "QUORATE_LOCAL=x"), "server"), ExitFailed, `has no machine "x"`)
}
