//go:build scenarios && linux

package scenarios

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// TestPods: three servers named like the pods of a StatefulSet form a cluster in whatever order they start, also when the name of a server is
// unknown until it starts, as on Kubernetes, where a pod has none before. Each waits until the last one has begun to listen, and no longer.
func TestPods(t *testing.T) {
	names := newDNS(t)
	places := make(chan struct{}, max(*parallel/2, 1))
	for i, order := range [][3]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			t.Parallel()
			places <- struct{}{}
			defer func() { <-places }()
			startPods(t, names, i, order)
		})
	}
}

func startPods(t *testing.T, names *dns, n int, order [3]int) {
	dir := t.TempDir()
	domain := fmt.Sprintf("quorate.ns%d.svc.cluster.local", n)
	file := filepath.Join(dir, "cluster.json")
	text := fmt.Sprintf(`{"domain": %q, "machines": [{"name": "quorate-0"}, {"name": "quorate-1"}, {"name": "quorate-2"}], "store_dir": "store"}`, domain)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	said := make([]*lines, 3)
	for _, i := range order {
		name := fmt.Sprintf("quorate-%d", i)
		addr := fmt.Sprintf("10.60.%d.%d", n, i+1)
		if err := ip(nil, "addr add "+addr+"/32 dev lo"); err != nil {
			t.Fatal(err)
		}
		names.add(name+"."+domain, net.ParseIP(addr))
		said[i] = startPod(t, name, file)
		said[i].await(t, "server: listening")
		if i != order[2] && said[i].has("server: ready") {
			t.Errorf("%s is ready before the last one has started", name)
		}
	}
	for _, l := range said {
		l.await(t, "server: ready")
	}
}

// startPod starts a server, and ends it with the test.
func startPod(t *testing.T, name, file string) *lines {
	cmd := exec.Command(os.Getenv(binaryEnv), "server", "--config", file)
	cmd.Env = []string{"QUORATE_LOCAL=" + name, "HOME=" + t.TempDir()}
	out := &lines{changed: make(chan struct{}), over: make(chan struct{})}
	cmd.Stderr = out
	if err := spawn(nil, cmd); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait()
		close(out.over)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-out.over
		if t.Failed() {
			t.Logf("%s:\n%s", name, out.text.String())
		}
	})
	return out
}

// lines is what a process has said so far.
type lines struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
	over    chan struct{} // closed when the process has ended
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
	return l.text.Write(b)
}

func (l *lines) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

func (l *lines) await(t *testing.T, text string) {
	t.Helper()
	end := time.After(patience)
	for {
		l.mu.Lock()
		changed := l.changed
		l.mu.Unlock()
		if l.has(text) {
			return
		}
		select {
		case <-changed:
		case <-l.over:
			t.Fatalf("it ended without: %s", text)
		case <-end:
			t.Fatalf("not said: %s", text)
		}
	}
}

// dns is a DNS server that knows who has started.
type dns struct {
	mu    sync.Mutex
	known map[string]net.IP
}

func (n *dns) add(name string, ip net.IP) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.known[name+"."] = ip.To4()
}

// newDNS answers for the rest of the test, in this mount namespace.
func newDNS(t *testing.T) *dns {
	n := &dns{known: map[string]net.IP{}}
	conn, err := net.ListenPacket("udp", "127.60.60.53:53")
	if err != nil {
		t.Fatal(err)
	}
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(resolv, []byte("nameserver 127.60.60.53\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(resolv, "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Unmount("/etc/resolv.conf", unix.MNT_DETACH)
		conn.Close()
	})
	go func() {
		buf := make([]byte, 1500)
		for {
			k, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if answer := n.answer(buf[:k]); answer != nil {
				_, _ = conn.WriteTo(answer, from) // who does not hear it asks again
			}
		}
	}()
	return n
}

func (n *dns) answer(question []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	n.mu.Lock()
	ip := n.known[q.Name.String()]
	n.mu.Unlock()
	m = dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true, RecursionDesired: m.RecursionDesired, RecursionAvailable: true}, Questions: m.Questions}
	switch {
	case ip == nil:
		m.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 5},
			Body:   &dnsmessage.AResource{A: [4]byte(ip)},
		}}
	}
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}
