//go:build oldnats

package cli

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// A NATS server that is too old, a real one: Debian's package, whose binary QUORATE_OLD_NATS names (.ci/run fetches it).
func TestOldServer(t *testing.T) {
	binary := os.Getenv("QUORATE_OLD_NATS")
	if binary == "" {
		t.Fatal("QUORATE_OLD_NATS must name the binary of a NATS server older than 2.11.2")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	_, port, _ := net.SplitHostPort(addr)
	server := exec.Command(binary, "-a", "127.0.0.1", "-p", port, "-js", "-sd", t.TempDir())
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	}()
	for deadline := time.Now().Add(patience); ; {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		<-time.After(10 * time.Millisecond)
	}
	for _, args := range [][]string{{"join", "g"}, {"members", "g"}, {"groups"}} {
		var out, errs bytes.Buffer
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		code := Main(ctx, append([]string{"--server", "nats://" + addr, "--timeout", "1m"}, args...), nil, strings.NewReader(""), &out, &errs)
		cancel()
		last := errs.String()
		if code != 1 || !strings.Contains(last, "NATS server is too old: found 2.") || !strings.Contains(last, "need 2.11.2") || out.Len() != 0 {
			t.Errorf("%v: exit %d, stdout %q, stderr %q", args, code, out.String(), last)
		}
	}
}
