package dashboard

import (
	"bytes"
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/wire"
)

// Config of a [Dashboard]. The zero value works.
type Config struct {
	// Groups to show. Default: all of the namespace. A dashboard that may see some groups only needs no permissions beyond them.
	Groups []string
	// ReadOnly takes step-down, evict and vote away.
	ReadOnly bool
	// Password that browsers ask for. Default: none.
	Password string
	// Hosts are further names that the page may be asked for by. IP addresses and localhost always are: see [Dashboard.ServeHTTP].
	Hosts []string
	// TLS says that browsers come over TLS to this process itself: cookies are for TLS only then.
	TLS bool
	// Viewers is how many may look at live updates at a time; further ones can load the page. Default 100.
	Viewers int
	// Namespace and Where are shown: which namespace it is, and where it is connected to (without secrets).
	Namespace, Where string
	// Timeout is the longest that an action may take. Default 5 s.
	Timeout time.Duration
	// Audit is told, in one line, who had what done. Default: nobody.
	Audit func(line string)
	// Beside are further addresses that are served under the same protection as the page: by their path. Default: none.
	Beside map[string]http.Handler
	// Logger for what viewers cannot see. Default: nothing is logged.
	Logger *slog.Logger
}

// A Dashboard is the page. Make it with [New], and have it [Dashboard.Run].
type Dashboard struct {
	cfg   Config
	log   *slog.Logger
	hub   *hub
	key   []byte // of this run: what forms prove that they come from its pages with
	css   []byte
	js    []byte
	pages *template.Template
	seats chan struct{} // one for each viewer of live updates
	slow  chan struct{} // one for each wrong password that is waiting for its answer
	acts  acts
	life  context.Context // of the dashboard: when it ends, viewers are let go and actions cut off
	end   context.CancelFunc

	mu       sync.Mutex
	pictures map[string]*picture
}

//go:embed page.html style.css live.js
var assets embed.FS

// New makes one. It shows that it waits until it runs.
func New(cfg Config) *Dashboard {
	if cfg.Viewers <= 0 {
		cfg.Viewers = 100
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 5 * time.Second
	}
	if cfg.Namespace == "" {
		cfg.Namespace = wire.DefaultName
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Audit == nil {
		cfg.Audit = func(string) {}
	}
	d := &Dashboard{cfg: cfg, log: cfg.Logger, hub: newHub(cfg.Logger, cfg.Groups), key: make([]byte, 32), seats: make(chan struct{}, cfg.Viewers),
		slow: make(chan struct{}, 16), pictures: map[string]*picture{}}
	d.life, d.end = context.WithCancel(context.Background())
	_, _ = rand.Read(d.key) // never fails
	d.acts.init()
	d.css, d.js = asset("style.css"), asset("live.js")
	d.pages = template.Must(template.New("").Funcs(helpers).ParseFS(assets, "page.html"))
	return d
}

func asset(name string) []byte {
	b, err := assets.ReadFile(name)
	if err != nil {
		panic(err) // it is embedded
	}
	return b
}

// Run follows the namespace that open opens until ctx ends; nil then. A namespace whose bucket is missing is waited for: a page makes none. Any other error
// of open, and the end of the connection, end it. It closes what it has opened, and lets all viewers go.
func (d *Dashboard) Run(ctx context.Context, open func(context.Context) (*quorate.Namespace, error)) error {
	defer func() {
		d.end()
		d.acts.wait()
	}()
	var ns *quorate.Namespace
	for {
		var err error
		ns, err = open(ctx)
		if ctx.Err() != nil {
			if err == nil {
				d.close(ns)
			}
			return nil
		}
		if err == nil {
			break
		}
		if !errors.Is(err, quorate.ErrBucketMissing) {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
	err := d.hub.follow(ctx, ns)
	d.end()
	d.acts.wait()
	d.close(ns)
	return err
}

func (d *Dashboard) close(ns *quorate.Namespace) {
	ctx, cancel := context.WithTimeout(context.Background(), d.cfg.Timeout)
	defer cancel()
	_ = ns.Close(ctx) // it only looks: nothing can be left undone
}

// A query is what the address of the page says.
type query struct {
	Group string
	Span  string
	Find  string // shows members whose id has it in it
	Act   string // id of the action whose result is shown
}

func queryOf(r *http.Request) query {
	v := r.URL.Query()
	q := query{Group: v.Get("group"), Span: spanOf(v.Get("span")).Key, Find: wire.CleanID(v.Get("find")), Act: v.Get("act")}
	if q.Group != "" && wire.CheckGroup(q.Group) != nil {
		q.Group = "?" // none is called so
	}
	if len(q.Act) > 40 {
		q.Act = ""
	}
	return q
}

// with is the address of the page with one value changed; the result of an action is not kept.
func (q query) with(key, value string) string {
	v := url.Values{}
	q.Act = ""
	for k, old := range map[string]string{"group": q.Group, "span": q.Span, "find": q.Find, "act": q.Act} {
		if k == key {
			old = value
		}
		if old != "" && !(k == "span" && old == spans[0].Key) {
			v.Set(k, old)
		}
	}
	if key == "group" {
		v.Del("find")
	}
	if len(v) == 0 {
		return "/"
	}
	return "/?" + v.Encode()
}

// Self is the address of the page that is shown.
func (q query) Self() string { return q.with("", "") }

// Without is the address of the page with all members.
func (q query) Without() string { return q.with("find", "") }

// Spanned is the address of the page with another length of the time line.
func (q query) Spanned(key string) string { return q.with("span", key) }

// key names what is shown: viewers with the same one share a picture.
func (q query) key() string { return strings.Join([]string{q.Group, q.Span, q.Find, q.Act}, " ") }

// sections are the parts of the page that change, in their order.
var sections = []string{"link", "notice", "groups", "summary", "shares", "members", "timeline", "ballots", "act"}

// A picture is the page's sections as HTML, drawn once for all viewers of the same.
type picture struct {
	version uint64
	end     time.Time // of the time line
	acts    uint64
	html    map[string]string
	err     error
}

// draw draws the sections of the page.
func (d *Dashboard) draw(q query, now time.Time) (*picture, *page) {
	p := d.page(q, now)
	pic := &picture{version: p.version, end: now.Truncate(p.Span.step()), acts: d.acts.version(), html: make(map[string]string, len(sections))}
	for _, name := range sections {
		var b bytes.Buffer
		if err := d.pages.ExecuteTemplate(&b, name, p); err != nil {
			pic.err = err
			d.log.Error("page", "section", name, "error", err)
		}
		pic.html[name] = strings.TrimSpace(strings.ReplaceAll(b.String(), "\r", " ")) // which would end a line of live updates
	}
	return pic, p
}

// live is the picture for a viewer, drawn anew only if something has changed since the last.
func (d *Dashboard) live(q query, now time.Time) *picture {
	d.hub.mu.Lock()
	version := d.hub.version
	d.hub.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	pic := d.pictures[q.key()]
	if pic != nil && pic.version == version && pic.acts == d.acts.version() && pic.end.Equal(now.Truncate(spanOf(q.Span).step())) {
		return pic
	}
	if len(d.pictures) > 64 { // what nobody looks at any more
		clear(d.pictures)
	}
	pic, _ = d.draw(q, now)
	d.pictures[q.key()] = pic
	return pic
}

func (d *Dashboard) page(q query, now time.Time) *page {
	p := d.hub.page(q, now)
	p.Namespace, p.Where, p.ReadOnly = d.cfg.Namespace, d.cfg.Where, d.cfg.ReadOnly
	p.Notice = d.acts.notice(q.Act)
	return p
}

// whole is what the template of the whole page is given.
type whole struct {
	*page
	Sections map[string]template.HTML
	Title    string
	Events   string // address of the live updates
	Error    string
}

func (d *Dashboard) servePage(w http.ResponseWriter, r *http.Request) {
	q := queryOf(r)
	pic, p := d.draw(q, time.Now())
	code := http.StatusOK
	switch {
	case pic.err != nil:
		code = http.StatusInternalServerError
	case p.Missing:
		code = http.StatusNotFound
	}
	t := whole{page: p, Sections: map[string]template.HTML{}, Title: "quorate", Events: "/events?" + url.Values{"group": {q.Group}, "span": {q.Span}, "find": {q.Find}, "act": {q.Act}}.Encode()}
	for name, html := range pic.html {
		t.Sections[name] = template.HTML(html) // of our own templates, which have escaped what they were given
	}
	if p.Group != nil {
		t.Title = p.Group.Name + " · quorate"
	}
	d.write(w, code, "page", t)
}

// write writes a page from a template: all of it, or an error.
func (d *Dashboard) write(w http.ResponseWriter, code int, name string, data any) {
	var b bytes.Buffer
	if err := d.pages.ExecuteTemplate(&b, name, data); err != nil {
		d.log.Error("page", "template", name, "error", err)
		http.Error(w, "the page cannot be drawn: see the log", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(code)
	_, _ = w.Write(b.Bytes()) // who has gone away does not want it
}

// refuse answers with a page that says why.
func (d *Dashboard) refuse(w http.ResponseWriter, code int, why string) {
	d.write(w, code, "refusal", map[string]any{"Code": code, "Status": http.StatusText(code), "Why": why})
}

// serveAsset serves what is embedded.
func serveAsset(kind string, body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", kind)
		h.Set("Cache-Control", "no-cache")
		h.Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body) // who has gone away does not want it
	}
}

const icon = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><circle cx="8" cy="8" r="7" fill="#3454d1"/><path d="M4.6 8.4l2.3 2.3 4.5-5" fill="none" stroke="#fff" stroke-width="1.8"/></svg>`

var helpers = template.FuncMap{
	"rfc3339": func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) },
	"clock":   func(t time.Time) string { return t.UTC().Format("15:04:05") + " UTC" },
	"short":   short,
	"plural":  plural,
	"join":    strings.Join,
	"named":   func(l []share) bool { return len(l) <= maxNamed },
	"inc":     func(n int) int { return n + 1 },
	"known":   func(t time.Time) bool { return !t.IsZero() },
	"dict": func(kv ...any) (map[string]any, error) {
		m := map[string]any{}
		for i := 0; i+1 < len(kv); i += 2 {
			k, ok := kv[i].(string)
			if !ok {
				return nil, fmt.Errorf("dict: %v is no key", kv[i])
			}
			m[k] = kv[i+1]
		}
		return m, nil
	},
}
