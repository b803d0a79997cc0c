//go:build unix

package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func mustStart(t *testing.T, o Options) *Server {
	t.Helper()
	s, err := Start(within(t), o)
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

func bucket(t *testing.T, nc *nats.Conn) jetstream.KeyValue {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.CreateOrUpdateKeyValue(within(t), jetstream.KeyValueConfig{Bucket: "t", Storage: jetstream.FileStorage})
	if err != nil {
		t.Fatalf("bucket: %v", err)
	}
	return kv
}

// E1
func TestServerKeepsData(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	var rev uint64
	for round := range 3 {
		s := mustStart(t, Options{StoreDir: dir, Token: "secret"})
		if !strings.HasPrefix(s.URL(), "nats://127.0.0.1:") {
			t.Errorf("S1: url: got %s, want a loopback address", s.URL())
		}
		if err := s.Check(); err != nil {
			t.Errorf("check: %v", err)
		}
		nc := connect(t, "", s.Options()...)
		kv := bucket(t, nc)
		got, err := kv.PutString(within(t), "k", fmt.Sprint(round))
		if err != nil {
			t.Fatalf("put: %v", err)
		}
		if got != rev+1 {
			t.Errorf("revision in round %d: got %d, want %d", round, got, rev+1)
		}
		rev = got
		nc.Close()
		if err := s.Close(within(t)); err != nil {
			t.Fatalf("close: %v", err)
		}
		if err := s.Close(within(t)); err != nil {
			t.Fatalf("second close: %v", err)
		}
		if err := s.Check(); !errors.Is(err, ErrClosed) {
			t.Errorf("check of a closed server: got %v, want %v", err, ErrClosed)
		}
	}
}

// R33: the options that a careless Adjust, or the server's defaults, would get wrong.
func TestServerOptions(t *testing.T) {
	var seen *server.Options
	dir := t.TempDir()
	s := mustStart(t, Options{StoreDir: dir, MaxPayload: 2 << 20, Adjust: func(o *server.Options) {
		seen, o.NoSigs, o.JetStream, o.StoreDir = o, false, false, "/nowhere"
	}})
	if !seen.NoSigs || !seen.JetStream || seen.StoreDir != dir || !seen.SyncAlways || seen.Host != "127.0.0.1" || seen.MaxPayload != 2<<20 {
		t.Errorf("options: got NoSigs %v, JetStream %v, StoreDir %s, SyncAlways %v, Host %s, MaxPayload %d",
			seen.NoSigs, seen.JetStream, seen.StoreDir, seen.SyncAlways, seen.Host, seen.MaxPayload)
	}
	if got := connect(t, s.URL()).MaxPayload(); got != 2<<20 {
		t.Errorf("max payload: got %d, want %d", got, 2<<20)
	}
}

// E2
func TestStoreInUse(t *testing.T) {
	dir := t.TempDir()
	first := mustStart(t, Options{StoreDir: dir})
	_, err := Start(within(t), Options{StoreDir: dir})
	if !errors.Is(err, ErrStoreInUse) {
		t.Fatalf("second server: got %v, want %v", err, ErrStoreInUse)
	}
	oneLine(t, err.Error(), dir, fmt.Sprintf("pid %d", os.Getpid()))
	if err := first.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	mustStart(t, Options{StoreDir: dir})
}

// A port that is taken is told by the server in its log only.
func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := t.TempDir()
	_, err = Start(within(t), Options{StoreDir: dir, Port: l.Addr().(*net.TCPAddr).Port})
	if err == nil {
		t.Fatal("start on a port in use: got no error")
	}
	oneLine(t, err.Error(), dir, "address already in use")
	mustStart(t, Options{StoreDir: dir}) // and the directory is free again
}

// An address of another machine, as a copied cluster file has it, or one behind a translation: the error says what to do.
func TestForeignAddress(t *testing.T) {
	dir := t.TempDir()
	_, err := Start(within(t), Options{StoreDir: dir, Host: "192.0.2.1"}) // of no machine: RFC 5737
	if err == nil {
		t.Fatal("start on another machine's address: got no error")
	}
	oneLine(t, err.Error(), dir, "192.0.2.1", `"listen"`)
}

// A start that is called off leaves nothing behind.
func TestStartCancelled(t *testing.T) {
	dir := t.TempDir()
	gate <- struct{}{} // as if another server were starting
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := Start(ctx, Options{StoreDir: dir})
	<-gate
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("start: got %v, want %v", err, context.Canceled)
	}
	mustStart(t, Options{StoreDir: dir})
}

// E5
func TestBadDirectory(t *testing.T) {
	tmp := t.TempDir()
	file := filepath.Join(tmp, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(within(t), Options{}); err == nil {
		t.Error("no directory: got no error")
	}
	for _, dir := range []string{file, filepath.Join(file, "below")} {
		_, err := Start(within(t), Options{StoreDir: dir})
		oneLine(t, fmt.Sprint(err), dir, "not a directory", "choose another directory")
		_, err = OpenHost(within(t), HostOptions{Dir: dir})
		oneLine(t, fmt.Sprint(err), dir, "not a directory", "choose another directory")
	}

	// Modes mean nothing to root, so root lets somebody else try.
	locked := filepath.Join(tmp, "locked")
	if err := os.Mkdir(locked, 0o500); err != nil {
		t.Fatal(err)
	}
	var attr *syscall.SysProcAttr
	if os.Geteuid() == 0 {
		attr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if err := os.Chmod(locked, 0o555); err != nil {
			t.Fatal(err)
		}
	}
	oneLine(t, startHelper(t, "start", locked, attr).line(), locked, "permission denied", "make it writable")
	oneLine(t, startHelper(t, "start", filepath.Join(locked, "new"), attr).line(), "permission denied", "make it writable")

	// A full disk, by way of a limit on the size of a file.
	oneLine(t, startHelper(t, "start-full", t.TempDir(), nil).line(), "file too large")
	oneLine(t, dirError("store directory", "/d", &os.PathError{Op: "write", Path: "/d/x", Err: syscall.ENOSPC}).Error(),
		"store directory /d", "no space left", "make room")
	h := startHelper(t, "fill", t.TempDir(), nil)
	if said := h.line(); said != "<nil>" {
		t.Fatalf("while there is room: %s", said)
	}
	oneLine(t, h.line(), "write error", "file too large", "is the disk full?")
}

// A directory that others could write to is no place to meet.
func TestOpenToOthers(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	_, err := OpenHost(within(t), HostOptions{Dir: dir})
	oneLine(t, fmt.Sprint(err), dir, "other users may write", "chmod 700")
}

// E4: in one process, a hundred times; nothing is left.
func TestStartStop(t *testing.T) {
	dir := t.TempDir()
	round := func() {
		s, err := Start(within(t), Options{StoreDir: dir, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatalf("start: %v", err)
		}
		nc, err := nats.Connect(s.URL())
		if err != nil {
			t.Fatalf("connect: %v", err)
		}
		nc.Close()
		if err := s.Close(within(t)); err != nil {
			t.Fatalf("close: %v", err)
		}
	}
	for range 3 { // what the packages start once and keep
		round()
	}
	before := runtime.NumGoroutine()
	files := openFiles()
	for range 100 {
		round()
	}
	eventually(t, "no goroutines left", func() bool { return runtime.NumGoroutine() <= before })
	eventually(t, "no files left", func() bool { return openFiles() <= files })
}

// openFiles counts the descriptors of this process; 0 where that cannot be seen.
func openFiles() int {
	d, _ := os.ReadDir("/proc/self/fd")
	return len(d)
}
