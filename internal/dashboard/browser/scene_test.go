package browser

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/chromedp"
)

// One scene for all tests: a browser, a page, and members, all of them processes. Starting them is most of what the tests cost.

// patience is how long a test waits for what must happen. Nothing is asserted about how soon it does.
const patience = time.Minute

var picture = flag.Bool("picture", false, "draw docs/web.png anew")

var (
	quorate string // the program
	state   string // directory of the server that the members share
	url     string // of the page
	tab     context.Context
	web     *process
	members = map[string]*process{}
	broken  struct { // what the browser has complained about
		sync.Mutex
		lines []string
	}
)

// A process is a quorate.
type process struct {
	cmd    *exec.Cmd
	mu     sync.Mutex
	said   bytes.Buffer
	exited chan struct{}
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.Write(b)
}

func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.String()
}

func start(words ...string) (*process, error) {
	p := &process{cmd: exec.Command(quorate, words...), exited: make(chan struct{})}
	p.cmd.Env = []string{"HOME=" + filepath.Dir(state), "QUORATE_STATE_DIR=" + state, "QUORATE_LEASE=2s", "NATS_TIMEOUT=" + patience.String()}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		err := p.cmd.Wait()
		fmt.Fprintf(p, "ended: %v\n", err)
		close(p.exited)
	}()
	return p, nil
}

func (p *process) end(sig syscall.Signal) {
	_ = p.cmd.Process.Signal(sig) // it may have ended
	select {
	case <-p.exited:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
}

func join(id, answer string, more ...string) error {
	p, err := start(append([]string{"join", "workers", "--id", id, "--vote", answer}, more...)...)
	members[id] = p
	return err
}

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(func() int {
		end, err := stage()
		defer end()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

var pageAt = regexp.MustCompile(`web: (http://[0-9.:]+)\n`)

// stage starts everything. The first member serves NATS, and is none of those that are killed.
func stage() (end func(), err error) {
	var ends []func()
	end = func() {
		for i := range ends {
			ends[len(ends)-1-i]()
		}
	}
	dir, err := os.MkdirTemp("", "browser")
	if err != nil {
		return end, err
	}
	ends = append(ends, func() { _ = os.RemoveAll(dir) })
	quorate, state = filepath.Join(dir, "quorate"), filepath.Join(dir, "state")
	build := exec.Command("go", "build", "-o", quorate, "./cmd/quorate")
	build.Dir = "../../.."
	if out, err := build.CombinedOutput(); err != nil {
		return end, fmt.Errorf("build quorate: %w: %s", err, out)
	}
	web, err = start("web", "--listen", "127.0.0.1:0")
	if err != nil {
		return end, err
	}
	ends = append(ends, func() { web.end(syscall.SIGTERM) })
	for began := time.Now(); url == ""; {
		if at := pageAt.FindStringSubmatch(web.text()); at != nil {
			url = at[1]
		}
		if time.Since(began) > patience {
			return end, fmt.Errorf("no page: %s", web.text())
		}
		<-time.After(10 * time.Millisecond)
	}
	ends = append(ends, func() {
		for _, p := range members {
			p.end(syscall.SIGKILL)
		}
	})
	for i, id := range []string{"web-1", "web-2", "web-3", "web-4"} {
		if err := join(id, "yes", "--meta", "zone="+[]string{"north", "south"}[i%2], "--meta", "build=1.4."+fmt.Sprint(i)); err != nil {
			return end, err
		}
	}

	for began := time.Now(); !settled(); {
		if time.Since(began) > patience {
			return end, fmt.Errorf("the members have not settled: %s", web.text())
		}
		<-time.After(50 * time.Millisecond)
	}
	path := ""
	for _, name := range []string{"chromium", "chromium-headless-shell", "google-chrome", "chrome"} {
		if path, err = exec.LookPath(name); err == nil {
			break
		}
	}
	if path == "" {
		return end, fmt.Errorf("no browser: install chromium, or chromium-headless-shell")
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.WSURLReadTimeout(patience)) // root has no sandbox
	browser, stop := chromedp.NewExecAllocator(context.Background(), opts...)
	ends = append(ends, stop)
	var closeTab context.CancelFunc
	tab, closeTab = chromedp.NewContext(browser)
	ends = append(ends, closeTab)
	if err := chromedp.Do(tab, chromedp.EmulateViewport(1280, 900)); err != nil {
		return end, fmt.Errorf("start %s: %w", path, err)
	}
	return end, chromedp.Listen(tab, func(ev any) {
		if e, ok := ev.(*log.EventEntryAdded); ok {
			complain(e.Entry)
		}
	})
}

// settled says whether the page shows all members and their shares.
func settled() bool {
	resp, err := http.Get(url + "/?group=workers")
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return err == nil && strings.Count(string(body), `<li data-key="`) >= 1+len(members) && strings.Contains(string(body), ">settled<")
}

func complain(e *log.Entry) {
	broken.Lock()
	defer broken.Unlock()
	if strings.Contains(e.Text, "404") && strings.HasSuffix(e.URL, "/nothing") {
		return // that is what was asked for
	}
	broken.lines = append(broken.lines, fmt.Sprintf("%s: %s", e.Source, e.Text))
}

// do carries out steps on the page.
func do(t *testing.T, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(tab, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		t.Fatal(err)
	}
}

// eval is the value of an expression in the page.
func eval[T any](t *testing.T, expression string) T {
	t.Helper()
	v, err := value[T](expression)
	if err != nil {
		t.Fatalf("%v in\n%s", err, expression)
	}
	return v
}

func value[T any](expression string) (v T, err error) {
	ctx, cancel := context.WithTimeout(tab, patience)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string]("JSON.stringify("+expression+")"))
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return v, fmt.Errorf("%w: %s", err, text)
	}
	return v, nil
}

// until waits for an expression to be true in the page. A page that gives way to the next one just then has no value: it is asked again.
func until(t *testing.T, what, expression string) {
	t.Helper()
	for began := time.Now(); ; <-time.After(50 * time.Millisecond) {
		is, err := value[bool]("!!(" + expression + ")")
		switch {
		case err == nil && is:
			return
		case time.Since(began) > patience:
			t.Fatalf("not within %v: %s (%v); the page is\n%s", patience, what, err, eval[string](t, "document.body.innerText"))
		}
	}
}

// shows waits for texts in a section of the page.
func shows(t *testing.T, section string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		until(t, section+" shows "+text, fmt.Sprintf("document.getElementById(%q)?.textContent.replace(/\\s+/g, ' ').includes(%q)", section, text))
	}
}

// visit opens the page of the group as its members have settled.
func visit(t *testing.T) {
	t.Helper()
	do(t, chromedp.Navigate(url+"/?group=workers"))
	until(t, "all alive", `document.querySelectorAll("#members tbody tr").length === `+fmt.Sprint(len(members))+` && [...document.querySelectorAll("#members tbody tr")].every(r => r.querySelector(".status").textContent === "alive" && r.querySelector(".track .of"))`)
	until(t, "settled", `document.querySelector("#summary h2 .badge").textContent === "settled"`)
	t.Cleanup(func() {
		broken.Lock()
		defer broken.Unlock()
		if len(broken.lines) > 0 {
			t.Errorf("the browser complains:\n%s", strings.Join(broken.lines, "\n"))
		}
		broken.lines = nil
		if t.Failed() {
			t.Logf("web: %s", web.text())
		}
	})
}

// media has the page drawn for a colour scheme and a width.
func media(t *testing.T, scheme string, width int64) {
	t.Helper()
	do(t, chromedp.EmulateViewport(width, 900), chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
		return err
	}))
}
