//go:build docs

package documents

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quorate/quorate/embedded"
)

// root of the repository, as seen from this package's folder.
const root = "../.."

const module = "github.com/quorate/quorate"

// goEnv asks go for some of its settings.
func goEnv(t *testing.T, names ...string) map[string]string {
	t.Helper()
	out, err := exec.Command("go", append([]string{"env"}, names...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]string{}
	for i, v := range strings.Split(strings.TrimSuffix(string(out), "\n"), "\n") {
		m[names[i]] = v
	}
	return m
}

// settings are those of a reader who has set nothing, and has Go.
func settings(t *testing.T, home, bin string) []string {
	t.Helper()
	g := goEnv(t, "GOCACHE", "GOMODCACHE", "GOPATH", "GOROOT")
	proxy := "file://" + filepath.ToSlash(filepath.Join(g["GOMODCACHE"], "cache", "download"))
	return []string{
		"HOME=" + home, "PATH=" + bin + ":" + filepath.Join(g["GOROOT"], "bin") + ":" + os.Getenv("PATH"), "TMPDIR=" + home,
		"GOCACHE=" + g["GOCACHE"], "GOMODCACHE=" + g["GOMODCACHE"], "GOPATH=" + g["GOPATH"], "GOBIN=" + bin,
		"GOPROXY=" + proxy, "GOSUMDB=off", "GOFLAGS=", "GOWORK=off", "GOTOOLCHAIN=local", "USER=reader",
	}
}

// built is the command, once for all pages.
func built(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	cmd := exec.Command("go", "build", "-o", filepath.Join(bin, "quorate"), "./cmd/quorate")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build ./cmd/quorate: %v\n%s", err, out)
	}
	return filepath.Join(bin, "quorate")
}

// tries: on a machine that is busy enough a lease of one second runs out, and then something else comes than is shown, as it must. One during which it was seen to
// stand still for so long that leases may have run out does not count, for some minutes.
const (
	tries   = 3
	stood   = 300 * time.Millisecond
	minutes = 3 * time.Minute
)

// watchTheMachine gives a function that tells for how long at most this process was held up since.
func watchTheMachine() (longest func() time.Duration) {
	stop, told := make(chan struct{}), make(chan time.Duration)
	go func() {
		tick := time.NewTicker(stood / 10)
		defer tick.Stop()
		var most time.Duration
		for last := time.Now(); ; {
			select {
			case <-stop:
				told <- most
				return
			case <-tick.C:
			}
			now := time.Now()
			most, last = max(most, now.Sub(last)), now
		}
	}()
	return func() time.Duration {
		close(stop)
		return <-told
	}
}

// TestPages does what the pages say.
func TestPages(t *testing.T) {
	binary := built(t)
	n := 0
	for name, l := range pages(t) {
		if !slices.ContainsFunc(l, func(b block) bool { return b.lang == "sh" }) {
			continue // nothing to do; its Go is compiled: TestSnippets
		}
		n++
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they wait for each other's leases most of the time
			began := time.Now()
			for try := 1; ; try++ {
				longest := watchTheMachine()
				err := (&reader{t: t, binary: binary}).read(l)
				held := longest()
				switch {
				case err == nil:
					return
				case held > stood && time.Since(began) < minutes:
					try--
				case try == tries:
					t.Fatal(err)
				}
				t.Logf("try %d, held up for %v: %v", try, held.Round(time.Millisecond), err)
			}
		})
	}
	if n < 5 {
		t.Errorf("%d pages have something to do: the search is wrong", n)
	}
}

// A reader goes through one page.
type reader struct {
	t      *testing.T
	binary string

	machine   string // its directory
	bin       string
	env       []string
	dir       string // where the reader's shell is
	terminals map[string]*terminal
	order     []*terminal
	last      *terminal // that was typed into last
	ended     *result   // of what was typed into the reader's own shell
	ports     map[string]string
	nats      *embedded.Server
}

const own = "the shell"

// read does all of a page; what does not go as it says is the error.
func (r *reader) read(l []block) (err error) {
	defer func() {
		left := r.leave()
		switch f := recover().(type) {
		case nil:
			if left != "" {
				err = errors.New(left)
			}
		case failure:
			err = f
		default:
			panic(f)
		}
	}()
	r.afresh()
	for _, b := range l {
		b.text = r.local(b.text)
		switch b.lang {
		case "run":
			r.asked(b)
		case "sh":
			r.typed(b)
		case "text":
			r.shown(b)
		case "go":
			if b.info != "" {
				r.write(b)
			}
		case "shell", "yaml", "ini", "json", "":
		default:
			r.fail("%s: what is %q?", b.where(), b.lang)
		}
	}
	return nil
}

// A failure ends the reading of a page.
type failure string

func (f failure) Error() string { return string(f) }

func (r *reader) fail(format string, args ...any) { panic(failure(fmt.Sprintf(format, args...))) }

// afresh is another machine, on which nothing was done.
func (r *reader) afresh() {
	if left := r.leave(); left != "" {
		r.fail("%s", left)
	}
	r.machine = r.t.TempDir()
	r.bin = filepath.Join(r.machine, "bin")
	home := filepath.Join(r.machine, "home")
	r.dir = filepath.Join(home, "try")
	for _, d := range []string{r.bin, r.dir} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			r.fail("%v", err)
		}
	}
	r.env = settings(r.t, home, r.bin)
	r.terminals, r.ports, r.last, r.ended = map[string]*terminal{}, map[string]string{}, nil, nil
}

// leave ends what is left of a page, which is a mistake of the page: it says what.
func (r *reader) leave() (mistake string) {
	for _, t := range r.order {
		if left := t.close(); len(left) > 0 {
			mistake = fmt.Sprintf("the page leaves running in %s: %s", t.name, strings.Join(left, ", "))
		}
	}
	if r.order = nil; r.nats != nil {
		_ = r.nats.Close(context.Background())
		r.nats = nil
	}
	return mistake
}

var address = regexp.MustCompile(`127\.0\.0\.1:(\d+)`)

// local replaces ports, the same one by the same one.
func (r *reader) local(text string) string {
	return address.ReplaceAllStringFunc(text, func(a string) string {
		if r.ports[a] == "" {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				r.fail("%v", err)
			}
			r.ports[a] = l.Addr().String()
			_ = l.Close()
		}
		return r.ports[a]
	})
}

// at is the terminal of that name, opened where the reader is.
func (r *reader) at(name string) *terminal {
	if t := r.terminals[name]; t != nil {
		return t
	}
	t, err := open(name, r.dir, r.env)
	if err != nil {
		r.fail("%v", err)
	}
	r.terminals[name] = t
	r.order = append(r.order, t)
	return t
}

// typed runs a block of commands.
func (r *reader) typed(b block) {
	name := b.info
	if name == "" {
		name = own
	}
	t := r.at(name)
	text := b.text
	// What only a published module can do.
	if install := "go install " + module + "/cmd/quorate@latest\n"; strings.Contains(text, install) {
		if err := os.Symlink(r.binary, filepath.Join(r.bin, "quorate")); err != nil {
			r.fail("%v", err)
		}
		text = strings.ReplaceAll(text, install, "")
	}
	tree, err := filepath.Abs(root)
	if err != nil {
		r.fail("%v", err)
	}
	text = regexp.MustCompile(`(?m)^go mod init .*$`).ReplaceAllString(text, "$0 2>/dev/null\ngo mod edit -replace "+module+"="+tree)
	text = regexp.MustCompile(`(?m)^go get .*$`).ReplaceAllString(text, "$0 2>/dev/null") // versions, and the replacement
	if err := t.typeIn(r.machine, text); err != nil {
		r.fail("%s: %v", b.where(), err)
	}
	r.last, r.ended = t, nil
	if name != own {
		return
	}
	res, err := t.wait()
	if err != nil {
		r.fail("%s: %v", b.where(), err)
	}
	if (res.code != 0 || res.failed != "") && !strings.Contains(b.text, "$?") {
		r.fail("%s: %q has failed:\n%s", b.where(), res.failed, res.out)
	}
	r.dir, r.ended = res.dir, &res
}

// shown compares what has come with what the page shows.
func (r *reader) shown(b block) {
	t := r.last
	if b.info != "" {
		t = r.terminals[b.info]
	}
	if t == nil {
		r.fail("%s: shows what comes, but nothing was typed there", b.where())
	}
	var err error
	if t == r.terminals[own] {
		if r.ended == nil {
			r.fail("%s: nothing was typed that this could come from", b.where())
		}
		p, perr := regexp.Compile(`\A` + pattern(b.text) + `\z`)
		if perr != nil {
			r.fail("%s: %v", b.where(), perr)
		}
		if !p.MatchString(r.ended.out) {
			err = fmt.Errorf("something else has come:\n%s", r.ended.out)
		}
		r.ended = nil
	} else {
		err = t.shows(b.text)
	}
	if err != nil {
		r.fail("%s: shown is\n%s%v", b.where(), b.text, err)
	}
}

// write saves a file.
func (r *reader) write(b block) {
	if filepath.Base(b.info) != b.info {
		r.fail("%s: %q is no name of a file", b.where(), b.info)
	}
	if err := os.WriteFile(filepath.Join(r.dir, b.info), []byte(b.text), 0o600); err != nil {
		r.fail("%v", err)
	}
}

var ofTerminal = regexp.MustCompile(`^(end|kill|stop|go on) (terminal \w+)$`)

// asked does what no shell can.
func (r *reader) asked(b block) {
	switch m := ofTerminal.FindStringSubmatch(b.text); {
	case b.text == "afresh":
		r.afresh()
	case b.text == "a NATS server":
		r.server()
	case m == nil:
		r.fail("%s: nobody knows how to run %q", b.where(), b.text)
	case r.terminals[m[2]] == nil:
		r.fail("%s: there is no %s", b.where(), m[2])
	default:
		t := r.terminals[m[2]]
		var err error
		switch m[1] {
		case "end":
			if err = t.signal(syscall.SIGINT, true); err == nil {
				_, err = t.wait()
			}
		case "kill":
			if err = t.signal(syscall.SIGKILL, false); err == nil {
				_, err = t.wait()
			}
		case "stop":
			err = t.signal(syscall.SIGSTOP, false)
		case "go on":
			err = t.signal(syscall.SIGCONT, false)
		}
		if err != nil {
			r.fail("%s: %v", b.where(), err)
		}
	}
}

// server is the NATS that the reader has, at the usual port.
func (r *reader) server() {
	_, port, err := net.SplitHostPort(r.local("127.0.0.1:4222"))
	if err != nil {
		r.fail("%v", err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		r.fail("%v", err)
	}
	r.nats, err = embedded.Start(context.Background(), embedded.Options{StoreDir: r.t.TempDir(), Port: n})
	if err != nil {
		r.fail("%v", err)
	}
}
