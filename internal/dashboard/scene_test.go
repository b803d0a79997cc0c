package dashboard

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/inner"
	"github.com/quorate/quorate/partition"
	"github.com/quorate/quorate/testenv"
	"github.com/quorate/quorate/vote"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// A scene is a dashboard, its HTTP server, browsers and members, in virtual time: only sockets are missing.
type scene struct {
	t    *testing.T
	e    *testenv.Env
	d    *Dashboard
	nc   *nats.Conn // the dashboard's
	link *testenv.Link
	pipe *pipe
	wg   sync.WaitGroup
	part partition.Config // of members that join
	ctx  context.Context  // of all members
	stop context.CancelFunc

	mu    sync.Mutex
	audit []string
}

const lease = 3 * time.Second

func run(t *testing.T, cfg Config, fn func(s *scene)) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		s := &scene{t: t, e: e, pipe: newPipe()}
		ctx, cancel := context.WithCancel(context.Background())
		s.ctx, s.stop = ctx, cancel
		cfg.Audit = func(line string) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.audit = append(s.audit, line)
		}
		s.d = New(cfg)
		srv := &http.Server{Handler: s.d, ReadTimeout: 10 * time.Second, IdleTimeout: time.Minute}
		s.wg.Go(func() { _ = srv.Serve(s.pipe) }) // it ends with Close below
		defer s.wg.Wait()
		defer srv.Close()
		defer cancel()
		s.nc, s.link = e.Connect("dashboard", nats.PingInterval(time.Hour)) // that nothing is heard is for the dashboard to notice
		s.wg.Go(func() {
			if err := s.d.Run(ctx, s.open); err != nil {
				t.Errorf("run: %v", err)
			}
		})
		fn(s)
	})
}

// open opens the namespace as the command does: it makes none.
func (s *scene) open(ctx context.Context) (*quorate.Namespace, error) {
	bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return quorate.OpenWith(bounded, s.nc, quorate.Config{Lease: lease, Logger: s.d.log}, inner.Options{Memory: true, AttachOnly: true})
}

// member joins as a process of its own, works, and votes as it is told.
func (s *scene) member(group, id, answer string, meta map[string]string) (*quorate.Namespace, *coord.Group) {
	s.t.Helper()
	ns := s.e.Namespace(quorate.Config{Lease: lease})
	g, err := coord.Join(s.ctx, ns, group, coord.Config{ID: id, Meta: meta})
	if err != nil {
		s.t.Fatal(err)
	}
	p, err := partition.Join(s.ctx, g, s.part)
	if err != nil {
		s.t.Fatal(err)
	}
	s.wg.Go(func() { // its error is the end of the membership
		if s.part.Buckets > 0 {
			_ = p.RunBuckets(s.ctx, func(ctx context.Context, _ *partition.Bucket) error { <-ctx.Done(); return nil })
			return
		}
		_ = p.Run(s.ctx, func(ctx context.Context, _ *partition.Assignment) error { <-ctx.Done(); return nil })
	})
	if answer != "" {
		if _, err := vote.Join(s.ctx, g, vote.Config{Decide: func(context.Context, vote.Ballot) vote.Answer {
			switch answer {
			case "yes":
				return vote.Yes()
			case "no":
				return vote.No("<b>not</b> now")
			}
			return vote.Abstain()
		}}); err != nil {
			s.t.Fatal(err)
		}
	}
	return ns, g
}

// pass has virtual time pass.
func (s *scene) pass(d time.Duration) { time.Sleep(d) }

// until waits in virtual time.
func (s *scene) until(what string, is func() bool) {
	s.t.Helper()
	for range 6000 {
		if is() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.t.Fatalf("not within a minute: %s", what)
}

// A browser keeps cookies, and says where its requests come from, as browsers do.
type browser struct {
	s      *scene
	c      *http.Client
	origin string // of its forms
	header http.Header
	host   string
}

func (s *scene) browser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return &browser{s: s, origin: "http://127.0.0.1:8080", host: "127.0.0.1:8080", header: http.Header{}, c: &http.Client{Jar: jar, Timeout: 10 * time.Second,
		Transport:     &http.Transport{DialContext: s.pipe.dial, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

func (b *browser) do(method, path string, body io.Reader) *http.Response {
	b.s.t.Helper()
	r, err := http.NewRequestWithContext(b.s.ctx, method, "http://"+b.host+path, body)
	if err != nil {
		b.s.t.Fatal(err)
	}
	r.Header = b.header.Clone()
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if b.origin != "" {
			r.Header.Set("Origin", b.origin)
		}
	}
	resp, err := b.c.Do(r)
	if err != nil {
		b.s.t.Fatal(err)
	}
	return resp
}

func (b *browser) get(path string) (code int, body string) {
	b.s.t.Helper()
	resp := b.do(http.MethodGet, path, nil)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.s.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func (b *browser) post(path string, form url.Values) (code int, body, location string) {
	b.s.t.Helper()
	resp := b.do(http.MethodPost, path, strings.NewReader(form.Encode()))
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.s.t.Fatal(err)
	}
	return resp.StatusCode, string(text), resp.Header.Get("Location")
}

var hidden = regexp.MustCompile(`<input type="hidden" name="([^"]+)" value="([^"]*)">`)

// form is what the page that asks for a confirmation would send.
func (b *browser) form(path string) url.Values {
	b.s.t.Helper()
	code, body := b.get(path)
	if code != http.StatusOK {
		b.s.t.Fatalf("GET %s: %d %s", path, code, body)
	}
	v := url.Values{}
	for _, m := range hidden.FindAllStringSubmatch(body, -1) {
		v.Set(m[1], unescape(m[2]))
	}
	if v.Get("token") == "" {
		b.s.t.Fatalf("GET %s: no token in\n%s", path, body)
	}
	return v
}

func unescape(s string) string {
	return strings.NewReplacer("&#34;", `"`, "&#39;", "'", "&lt;", "<", "&gt;", ">", "&#43;", "+", "&amp;", "&").Replace(s)
}

// act confirms, and returns what came of it.
func (b *browser) act(path string, form url.Values) string {
	b.s.t.Helper()
	code, body, to := b.post(path, form)
	if code != http.StatusSeeOther {
		b.s.t.Fatalf("POST %s: %d %s", path, code, body)
	}
	var said string
	b.s.until("a result", func() bool {
		_, page := b.get(to)
		m := notices.FindStringSubmatch(page)
		if m == nil {
			b.s.t.Fatalf("no result in\n%s", page)
		}
		said = unescape(m[2])
		return !strings.Contains(m[1], "running")
	})
	return said
}

var notices = regexp.MustCompile(`<p class="(notice[^"]*)">([^<]*)</p>`)

// A viewer looks at live updates.
type viewer struct {
	s        *scene
	mu       sync.Mutex
	sections map[string]string
	events   int
	code     int
	end      context.CancelFunc
	over     chan struct{}
}

func (b *browser) view(query string) *viewer {
	b.s.t.Helper()
	ctx, cancel := context.WithCancel(b.s.ctx)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.host+"/events?"+query, nil)
	if err != nil {
		b.s.t.Fatal(err)
	}
	r.Header = b.header.Clone()
	v := &viewer{s: b.s, sections: map[string]string{}, end: cancel, over: make(chan struct{})}
	live := *b.c
	live.Timeout = 0
	resp, err := live.Do(r)
	if err != nil {
		b.s.t.Fatal(err)
	}
	v.code = resp.StatusCode
	go func() {
		defer close(v.over)
		defer resp.Body.Close()
		defer cancel()
		in := bufio.NewReader(resp.Body)
		if v.code != http.StatusOK {
			return
		}
		var kind string
		var data []string
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			line = strings.TrimSuffix(line, "\n")
			switch field, value, _ := strings.Cut(line, ": "); {
			case line == "":
				v.mu.Lock()
				v.events++
				if kind == "section" {
					v.sections[data[0]] = strings.Join(data[1:], "\n")
				}
				v.mu.Unlock()
				kind, data = "", nil
			case field == "event":
				kind = value
			case field == "data", line == "data:":
				data = append(data, value)
			default:
				b.s.t.Errorf("a line that is no event: %q", line)
			}
		}
	}()
	return v
}

func (v *viewer) section(name string) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.sections[name]
}

func (v *viewer) shows(section string, texts ...string) {
	v.s.t.Helper()
	v.s.until(fmt.Sprintf("%s shows %q", section, texts), func() bool {
		html := v.section(section)
		return !slices.ContainsFunc(texts, func(t string) bool { return !strings.Contains(html, t) })
	})
}

func (v *viewer) close() {
	v.end()
	<-v.over
}

// A pipe is a listener without a socket.
type pipe struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipe() *pipe { return &pipe{conns: make(chan net.Conn), done: make(chan struct{})} }

var errPipe = errors.New("closed")

func (p *pipe) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, errPipe
	}
}

func (p *pipe) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipe) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8080} }

func (p *pipe) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case p.conns <- far:
		return near, nil
	case <-p.done:
		return nil, errPipe
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
