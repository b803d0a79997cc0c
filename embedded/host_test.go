//go:build unix

package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

func mustOpen(t *testing.T, o HostOptions) *Host {
	t.Helper()
	h, err := OpenHost(within(t), o)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { _ = h.Close(context.Background()) })
	return h
}

// serverPID is who serves in the directory; 0 when nobody does.
func serverPID(dir string) int {
	held, err := lockHeld(stateDir(dir).path(hostLock))
	info, ierr := stateDir(dir).server()
	if err != nil || ierr != nil || !held {
		return 0
	}
	return info.PID
}

// want checks an answer of a helper.
func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// H1, H2: the serving process is killed, twice; the data and the revisions go on.
func TestTakeOver(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	a := startHost(t, dir)
	b, c := startHost(t, dir), startHost(t, dir)
	if got := serverPID(dir); got != a.pid() {
		t.Fatalf("serving: got process %d, want the first, %d", got, a.pid())
	}
	want(t, "put", c.ask("put k one"), "1")
	want(t, "put", b.ask("put k two"), "2")
	a.kill()
	eventually(t, "one of the rest serves", func() bool { p := serverPID(dir); return p == b.pid() || p == c.pid() })
	want(t, "get after the kill", b.ask("get k"), "two 2")
	want(t, "put after the kill", c.ask("put k three"), "3")

	// A newcomer in the middle of it, and the second kill.
	second, third := b, c
	if serverPID(dir) == c.pid() {
		second, third = c, b
	}
	second.kill()
	d := startHost(t, dir)
	want(t, "get after the second kill", d.ask("get k"), "three 3")
	want(t, "put after the second kill", third.ask("put k four"), "4")

	// All are dead: host.json and the lock file of the dead are left, and mean nothing. Who serves is killed last: one that is killed while it
	// takes over leaves no host.json.
	serves, other := third, d
	if serverPID(dir) == d.pid() {
		serves, other = d, third
	}
	other.kill()
	serves.kill()
	if _, err := stateDir(dir).server(); err != nil {
		t.Fatalf("host.json of a killed server: %v", err)
	}
	_, err := OpenHost(within(t), HostOptions{Dir: dir, ClientOnly: true})
	if !errors.Is(err, ErrNoServer) {
		t.Errorf("client: got %v, want %v", err, ErrNoServer)
	}
	e := startHost(t, dir)
	want(t, "get after the death of all", e.ask("get k"), "four 4")
}

// H1, H2: the serving process ends in an orderly way.
func TestGracefulClose(t *testing.T) {
	dir := t.TempDir()
	a := startHost(t, dir)
	b := startHost(t, dir)
	want(t, "put", b.ask("put k one"), "1")
	want(t, "close", a.ask("close"), "closed <nil>")
	eventually(t, "the other serves", func() bool { return serverPID(dir) == b.pid() })
	want(t, "get", b.ask("get k"), "one 1")
	want(t, "close", b.ask("close"), "closed <nil>")
	if _, err := stateDir(dir).server(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("host.json after the last one left: got %v, want %v", err, fs.ErrNotExist)
	}
}

// H1: a stopped process keeps the lock, and all wait.
func TestStoppedServer(t *testing.T) {
	dir := t.TempDir()
	a := startHost(t, dir)
	b := startHost(t, dir)
	want(t, "put", b.ask("put k one"), "1")
	before, err := stateDir(dir).server()
	if err != nil {
		t.Fatal(err)
	}
	a.stop()
	want(t, "reconnect", b.ask("reconnect"), "reconnect <nil>") // now b competes as if the server were dead

	ctx, cancel := context.WithTimeout(context.Background(), 1500*time.Millisecond)
	defer cancel()
	_, err = OpenHost(ctx, HostOptions{Dir: dir})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("open with the server stopped: got %v, want %v", err, context.DeadlineExceeded)
	}
	oneLine(t, fmt.Sprint(err), dir, fmt.Sprintf("process %d", a.pid()))
	_, err = OpenHost(within(t), HostOptions{Dir: dir, ServeOnly: true})
	if !errors.Is(err, ErrStoreInUse) {
		t.Errorf("serve with the server stopped: got %v, want %v", err, ErrStoreInUse)
	}
	oneLine(t, fmt.Sprint(err), dir, fmt.Sprintf("process %d", a.pid()))
	if after, err := stateDir(dir).server(); err != nil || after != before {
		t.Errorf("serving: got %+v (%v), want %+v", after, err, before)
	}

	a.signal(syscall.SIGCONT)
	want(t, "get", b.ask("get k"), "one 1")
	want(t, "put", b.ask("put k two"), "2")
	if got := serverPID(dir); got != a.pid() {
		t.Errorf("serving after it goes on: got %d, want %d", got, a.pid())
	}
}

// H3: the state directory is removed and made again under the server.
func TestDirectoryReplaced(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	a := startHost(t, dir)
	b := startHost(t, dir)
	want(t, "put", b.ask("put k one"), "1")
	old, err := stateDir(dir).server()
	if err != nil {
		t.Fatal(err)
	}
	// Both may write into it, or make it anew, at any moment.
	eventually(t, "directory removed", func() bool { return os.RemoveAll(dir) == nil })
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the old server has stopped", func() bool {
		c, err := net.Dial("tcp", strings.TrimPrefix(old.URL, "nats://"))
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	eventually(t, "a new server", func() bool { s, err := stateDir(dir).server(); return err == nil && s.Server != old.Server })
	// The old data is gone: both meet again at the new server.
	eventually(t, "both see the same data", func() bool { return b.ask("put k two") != "" && strings.HasPrefix(a.ask("get k"), "two ") })
}

// H3, E2: the lock file alone is removed, say by somebody who takes it for stale: never two servers on one store.
func TestLockFileRemoved(t *testing.T) {
	dir := t.TempDir()
	a := startHost(t, dir)
	b := startHost(t, dir)
	want(t, "put", b.ask("put k one"), "1")
	old, err := stateDir(dir).server()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, hostLock)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a new server", func() bool { s, err := stateDir(dir).server(); return err == nil && s.Server != old.Server })
	want(t, "get", a.ask("get k"), "one 1")
	want(t, "put", b.ask("put k two"), "2")
}

// H4
func TestWrongServer(t *testing.T) {
	for _, c := range []struct{ name, says, want string }{
		{"another NATS server", `INFO {"server_name":"other","max_payload":1}` + "\r\n", `it is "other"`},
		{"no NATS server", "220 mail.example.org ESMTP\r\n", "does not speak NATS"},
		{"endless", strings.Repeat("x", maxInfo+4096), "too long"},
		{"silent", "", "does not answer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := stateDir(t.TempDir())
			lock, err := tryLock(dir.path(hostLock))
			if err != nil {
				t.Fatal(err)
			}
			defer lock.release()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			heard := make(chan string, 1)
			go func() {
				nc, err := l.Accept()
				if err != nil {
					heard <- err.Error()
					return
				}
				defer nc.Close()
				go func() { _, _ = io.WriteString(nc, c.says) }()
				b, _ := io.ReadAll(nc)
				heard <- string(b)
			}()
			b, err := json.Marshal(ServerInfo{Version: 1, PID: os.Getpid(), URL: "nats://" + l.Addr().String(), Server: "right"})
			if err != nil {
				t.Fatal(err)
			}
			if err := dir.write(hostFile, b, false); err != nil {
				t.Fatal(err)
			}
			h := &Host{dir: dir}
			_, err = h.dial(within(t))
			if err == nil {
				t.Fatal("dial: got no error")
			}
			oneLine(t, err.Error(), c.want)
			if c.says != "" && !errors.Is(err, ErrWrongServer) {
				t.Errorf("dial: got %v, want %v", err, ErrWrongServer)
			}
			l.Close()
			if got := <-heard; got != "" {
				t.Errorf("the wrong server heard %q, want nothing", got)
			}

			lock.release() // then it is not even dialled
			if _, err := h.dial(within(t)); !errors.Is(err, ErrNoServer) {
				t.Errorf("dial with the lock free: got %v, want %v", err, ErrNoServer)
			}
		})
	}
}

// H4
func TestTokenNeeded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	h := mustOpen(t, HostOptions{Dir: dir})
	info, err := h.Server()
	if err != nil {
		t.Fatal(err)
	}
	for _, opts := range [][]nats.Option{nil, {nats.Token("")}, {nats.Token("guess")}, {nats.UserInfo("quorate", "guess")}} {
		if _, err := nats.Connect(info.URL, append(opts, nats.Timeout(patience))...); !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("connect without the token: got %v, want %v", err, nats.ErrAuthorization)
		}
	}
	token, err := stateDir(dir).token()
	if err != nil {
		t.Fatal(err)
	}
	connect(t, info.URL, nats.Token(token))
	for path, want := range map[string]fs.FileMode{"": 0o700, tokenFile: 0o600, hostFile: 0o600, hostLock: 0o600} {
		fi, err := os.Stat(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		if got := fi.Mode().Perm(); got != want {
			t.Errorf("mode of %q: got %v, want %v", path, got, want)
		}
	}
	// The next server has another one.
	if err := h.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, HostOptions{Dir: dir})
	if next, err := stateDir(dir).token(); err != nil || next == token {
		t.Errorf("token of the next server: got the same (%v)", err)
	}
}

// H5
func TestClientOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	client := func() error {
		h, err := OpenHost(within(t), HostOptions{Dir: dir, ClientOnly: true})
		if err != nil {
			return err
		}
		defer h.Close(within(t))
		nc, err := h.Connect(within(t))
		if err != nil {
			return err
		}
		return nc.Flush()
	}
	err := client()
	if !errors.Is(err, ErrNoServer) {
		t.Errorf("client without a directory: got %v, want %v", err, ErrNoServer)
	}
	oneLine(t, fmt.Sprint(err), "no server in "+dir)
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a client made the directory (%v)", err)
	}

	h := mustOpen(t, HostOptions{Dir: dir})
	if err := client(); err != nil {
		t.Errorf("client with a server: %v", err)
	}
	if err := h.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := client(); !errors.Is(err, ErrNoServer) {
		t.Errorf("client after the server has left: got %v, want %v", err, ErrNoServer)
	}
	if _, err := OpenHost(within(t), HostOptions{Dir: dir, ClientOnly: true, ServeOnly: true}); err == nil {
		t.Error("ClientOnly with ServeOnly: got no error")
	}
}

// A client that was there before keeps trying, without ever serving, and finds the next server.
func TestClientStays(t *testing.T) {
	dir := t.TempDir()
	first := mustOpen(t, HostOptions{Dir: dir})
	client := mustOpen(t, HostOptions{Dir: dir, ClientOnly: true})
	nc, err := client.Connect(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "disconnected", func() bool { return !nc.IsConnected() })
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, err := client.Connect(ctx); !errors.Is(err, ErrNoServer) {
		t.Errorf("connect: got %v, want %v", err, ErrNoServer)
	}
	if _, err := client.Server(); !errors.Is(err, ErrNoServer) {
		t.Errorf("server: got %v, want %v", err, ErrNoServer)
	}
	served := make(chan string, 1)
	second := mustOpen(t, HostOptions{Dir: dir, OnServe: func(url string) { served <- url }})
	info, err := second.Server()
	if err != nil {
		t.Fatal(err)
	}
	want(t, "OnServe", <-served, info.URL)
	eventually(t, "connected again", nc.IsConnected)
}

// Hosts of one process are as good as those of several; Close ends the connections and leaves no goroutine.
func TestOpenClose(t *testing.T) {
	dir := t.TempDir()
	round := func() {
		a, err := OpenHost(within(t), HostOptions{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		b, err := OpenHost(within(t), HostOptions{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		nca, err := a.Connect(within(t))
		if err != nil {
			t.Fatal(err)
		}
		ncb, err := b.Connect(within(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Close(within(t)); err != nil {
			t.Fatal(err)
		}
		if !nca.IsClosed() {
			t.Error("Close left a connection open")
		}
		if _, err := a.Connect(within(t)); !errors.Is(err, ErrClosed) {
			t.Errorf("connect after Close: got %v, want %v", err, ErrClosed)
		}
		eventually(t, "the other serves", func() bool { return ncb.IsConnected() && ncb.Flush() == nil })
		for range 2 {
			if err := b.Close(within(t)); err != nil {
				t.Fatal(err)
			}
		}
	}
	round()
	before := runtime.NumGoroutine()
	for range 10 {
		round()
	}
	eventually(t, "no goroutines left", func() bool { return runtime.NumGoroutine() <= before })
}

// The default directory follows the XDG specification.
func TestDefaultDir(t *testing.T) {
	t.Setenv("HOME", "/home/u")
	for _, c := range []struct{ xdg, want string }{
		{"/state", "/state/quorate"},
		{"", "/home/u/.local/state/quorate"},
		{"relative", "/home/u/.local/state/quorate"},
	} {
		t.Setenv("XDG_STATE_HOME", c.xdg)
		got, err := DefaultDir()
		if err != nil {
			t.Fatal(err)
		}
		want(t, "XDG_STATE_HOME="+c.xdg, got, c.want)
	}
	t.Setenv("XDG_STATE_HOME", "")
	t.Setenv("HOME", "")
	if _, err := DefaultDir(); err == nil {
		t.Error("no home: got no error")
	}
}

// Files that somebody damaged give one line, and never a server on the wrong store.
func TestDamagedFiles(t *testing.T) {
	for name, content := range map[string]string{
		storeFile: "../../etc\n",
		hostFile:  "{",
	} {
		dir := stateDir(t.TempDir())
		if err := os.WriteFile(dir.path(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if name == hostFile {
			if _, err := dir.server(); err == nil {
				t.Errorf("%s: got no error", name)
			} else {
				oneLine(t, err.Error(), dir.path(name))
			}
			mustOpen(t, HostOptions{Dir: string(dir)}) // whoever takes the lock writes it anew
			continue
		}
		_, err := OpenHost(within(t), HostOptions{Dir: string(dir)})
		oneLine(t, fmt.Sprint(err), dir.path(name))
	}
}

// H1: the locks outlive the server, also when its stop takes longer than Close may wait.
func TestLockOutlivesServer(t *testing.T) {
	dir := t.TempDir()
	h := mustOpen(t, HostOptions{Dir: dir})
	info, err := h.Server()
	if err != nil {
		t.Fatal(err)
	}
	store, err := stateDir(dir).store()
	if err != nil {
		t.Fatal(err)
	}
	gate <- struct{}{} // the server cannot stop now
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := h.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("close: got %v, want %v", err, context.DeadlineExceeded)
	}
	for _, path := range []string{filepath.Join(dir, hostLock), filepath.Join(store, storeLock)} {
		if held, err := lockHeld(path); !held {
			t.Errorf("%s while the server runs: got free (%v), want held", filepath.Base(path), err)
		}
	}
	<-gate
	if err := h.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, hostLock), filepath.Join(store, storeLock)} {
		if held, err := lockHeld(path); held || err != nil {
			t.Errorf("%s after the stop: got held (%v), want free", filepath.Base(path), err)
		}
	}
	if c, err := net.Dial("tcp", strings.TrimPrefix(info.URL, "nats://")); err == nil {
		c.Close()
		t.Error("the server still listens")
	}
}
