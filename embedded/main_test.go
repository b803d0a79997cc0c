//go:build unix

package embedded

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// patience is how long a test waits for something that must happen. Nothing is asserted about how soon it does.
const patience = 30 * time.Second

// The test binary is also the processes that the tests start, stop and kill: see startHelper.
const helperEnv = "QUORATE_EMBEDDED_HELPER"

func TestMain(m *testing.M) {
	switch os.Getenv(helperEnv) {
	case "":
		os.Exit(m.Run())
	case "host":
		os.Exit(hostHelper(os.Args[1]))
	case "start":
		os.Exit(startHelperServer(os.Args[1], 0))
	case "start-full":
		os.Exit(startHelperServer(os.Args[1], 100)) // bytes that a file may have
	case "fill":
		os.Exit(fillHelper(os.Args[1]))
	}
	os.Exit(2)
}

// hostHelper opens the host and obeys the lines of its standard input until that ends. Each line is answered by one.
func hostHelper(dir string) int {
	ctx := context.Background()
	h, err := OpenHost(ctx, HostOptions{Dir: dir})
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	nc, err := h.Connect(ctx)
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	js, err := jetstream.New(nc)
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		word := strings.Fields(in.Text())
		switch word[0] {
		case "put":
			fmt.Println(retry(5*time.Second, func(ctx context.Context) (string, error) {
				kv, err := js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "t", Storage: jetstream.FileStorage})
				if err != nil {
					return "", err
				}
				// One that was given up may have landed all the same. (No value is put twice.)
				if e, err := kv.Get(ctx, word[1]); err == nil && string(e.Value()) == word[2] {
					return fmt.Sprint(e.Revision()), nil
				}
				rev, err := kv.PutString(ctx, word[1], word[2])
				return fmt.Sprint(rev), err
			}))
		case "get":
			fmt.Println(retry(200*time.Millisecond, func(ctx context.Context) (string, error) {
				kv, err := js.KeyValue(ctx, "t")
				if err != nil {
					return "", err
				}
				e, err := kv.Get(ctx, word[1])
				if err != nil {
					return "", err
				}
				return fmt.Sprintf("%s %d", e.Value(), e.Revision()), nil
			}))
		case "reconnect":
			fmt.Println("reconnect", nc.ForceReconnect())
		case "close":
			fmt.Println("closed", h.Close(ctx))
		}
	}
	return 0
}

// retry repeats an operation over the take-over, which can interrupt it at any point.
func retry(attempt time.Duration, f func(context.Context) (string, error)) string {
	end := time.Now().Add(patience)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), attempt)
		s, err := f(ctx)
		cancel()
		switch {
		case err == nil:
			return s
		case errors.Is(err, jetstream.ErrKeyNotFound), errors.Is(err, jetstream.ErrBucketNotFound), time.Now().After(end):
			return "error " + err.Error()
		}
		<-time.After(10 * time.Millisecond)
	}
}

// startHelperServer tells how Start fares in the directory, with files limited to so many bytes (0: not).
func startHelperServer(dir string, limit uint64) int {
	if limit > 0 {
		signal.Ignore(syscall.SIGXFSZ) // then the write fails, as it would on a full disk
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
			fmt.Println("rlimit", err)
			return 1
		}
	}
	_, err := Start(context.Background(), Options{StoreDir: dir})
	fmt.Println(err)
	return 0
}

// fillHelper has a server that is well meet a full disk, and tells what it says of itself before and after.
func fillHelper(dir string) int {
	ctx := context.Background()
	s, err := Start(ctx, Options{StoreDir: dir})
	if err == nil {
		err = s.Check()
	}
	fmt.Println(err)
	if err != nil {
		return 1
	}
	nc, err := nats.Connect("", s.Options()...)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	js, err := jetstream.New(nc)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "s", Subjects: []string{"s"}}); err != nil {
		fmt.Println(err)
		return 1
	}
	signal.Ignore(syscall.SIGXFSZ)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 4 << 10, Max: 4 << 10}); err != nil {
		fmt.Println(err)
		return 1
	}
	for err = nil; err == nil; _, err = js.Publish(ctx, "s", make([]byte, 1<<10)) {
	}
	err = s.Check()
	for end := time.Now().Add(patience); err == nil && time.Now().Before(end); err = s.Check() {
		<-time.After(10 * time.Millisecond)
	}
	fmt.Println(err)
	return 0
}

// A helper is a process of ours.
type helper struct {
	t     testing.TB
	cmd   *exec.Cmd
	in    *os.File
	lines chan string
	ended chan struct{}
}

func startHelper(t testing.TB, mode, dir string, attr *syscall.SysProcAttr) *helper {
	t.Helper()
	// Through /proc also a user who may not look into the build directory can run it.
	cmd := exec.Command("/proc/self/exe", dir)
	if _, err := os.Stat("/proc/self/exe"); err != nil {
		cmd = exec.Command(os.Args[0], dir)
	}
	cmd.Env = append(os.Environ(), helperEnv+"="+mode)
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = attr
	r, w, err := os.Pipe() // it ends when this process does, and the helper with it
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = r
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start helper: %v", err)
	}
	r.Close()
	p := &helper{t: t, cmd: cmd, in: w, lines: make(chan string, 100), ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		defer close(p.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
		_ = cmd.Wait()
	}()
	t.Cleanup(p.kill)
	return p
}

// startHost starts a process that opens the host of the directory, and waits until it is connected.
func startHost(t testing.TB, dir string) *helper {
	t.Helper()
	p := startHelper(t, "host", dir, nil)
	if got := p.line(); got != "ready" {
		t.Fatalf("helper: got %q, want ready", got)
	}
	return p
}

func (p *helper) pid() int { return p.cmd.Process.Pid }

// kill ends it as kill -9 does, and waits until it is gone.
func (p *helper) kill() {
	_ = p.cmd.Process.Kill()
	p.in.Close()
	<-p.ended
}

func (p *helper) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("signal: %v", err)
	}
}

// stop stops it as kill -STOP does, and waits until it has stopped: the signal alone lets it run on for a moment.
func (p *helper) stop() {
	p.t.Helper()
	p.signal(syscall.SIGSTOP)
	var ws syscall.WaitStatus
	for {
		_, err := syscall.Wait4(p.pid(), &ws, syscall.WUNTRACED, nil)
		if err == nil && ws.Stopped() {
			return
		}
		if !errors.Is(err, syscall.EINTR) {
			p.t.Fatalf("stop: got status %v, error %v", ws, err)
		}
	}
}

func (p *helper) line() string {
	p.t.Helper()
	select {
	case s, ok := <-p.lines:
		if !ok {
			p.t.Fatal("helper ended")
		}
		return s
	case <-time.After(patience):
		p.t.Fatal("helper does not answer")
		return ""
	}
}

// ask sends a line and gives the answer.
func (p *helper) ask(format string, v ...any) string {
	p.t.Helper()
	p.send(format, v...)
	return p.line()
}

func (p *helper) send(format string, v ...any) {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.in, format+"\n", v...); err != nil {
		p.t.Fatalf("helper: %v", err)
	}
}

// eventually waits until the condition holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	end := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("did not happen within %v: %s", patience, what)
		}
	}
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// oneLine checks the shape of an error that users see.
func oneLine(t *testing.T, text string, wants ...string) {
	t.Helper()
	if text == "" || text == "<nil>" || strings.Contains(text, "\n") {
		t.Errorf("error: got %q, want one line", text)
	}
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("error: got %q, want %q in it", text, want)
		}
	}
}

func connect(t *testing.T, url string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url, append([]nats.Option{nats.Timeout(patience)}, opts...)...)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(nc.Close)
	return nc
}
