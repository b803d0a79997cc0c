package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/embedded"
	"github.com/quorate/quorate/internal/bloc"
	"github.com/quorate/quorate/internal/inner"
	"github.com/quorate/quorate/metrics"
)

// What monitors ask of commands that run on, over HTTP where --listen says: /metrics, /healthz and /readyz.

// monitorFlags are the flags of it, for commands that serve nothing else over HTTP.
func monitorFlags() []flagSpec {
	return append([]flagSpec{{name: "listen", value: "ADDR", usage: "serve metrics and health over HTTP at this address: /metrics, /healthz, /readyz (default: nowhere)"}}, httpTLSFlags()...)
}

// monitored is what commands say of it that serve a page or an API at --listen.
const monitored = "At the same address there are /metrics for Prometheus, /healthz, which answers while the process lives, and /readyz, which answers 503 while it is not ready, and why."

// A monitor is what one command serves to monitors. A nil one serves nothing.
type monitor struct {
	metrics *metrics.Metrics
	handler http.Handler

	mu    sync.Mutex
	ready func(context.Context) error
	last  error // what ready said
	asked time.Time

	server atomic.Pointer[embedded.Server] // of `server`
}

// readyMost is the longest that ready may take; readyAge for how long its answer stands: whoever asks more often gets the last one.
const (
	readyMost = 5 * time.Second
	readyAge  = time.Second
)

var errStarting = errors.New("it is starting")

// newMonitor makes one, of a command that may be a NATS server.
func (c *call) newMonitor(serves bool) *monitor {
	m := &monitor{metrics: metrics.New()}
	var server func() (metrics.Server, bool)
	if serves {
		server = m.natsServer
	}
	m.become(func(context.Context) error { return errStarting })
	m.handler = metrics.Handler(m.metrics, &metrics.Program{Version: inner.Version(), Command: c.cmd.name, Server: server,
		Ready: func() bool { return m.check(context.Background()) == nil }})
	return m
}

// hooks are for the namespaces of the command.
func (m *monitor) hooks() quorate.Hooks {
	if m == nil {
		return quorate.Hooks{}
	}
	return m.metrics.Hooks()
}

// become sets what says whether the command is ready.
func (m *monitor) become(ready func(context.Context) error) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ready, m.asked = ready, time.Time{}
}

// becomes is become for what asks nobody.
func (m *monitor) becomes(ready func() error) {
	m.become(func(context.Context) error { return ready() })
}

// serves says which NATS server the command is.
func (m *monitor) serves(s *embedded.Server) {
	if m == nil {
		return
	}
	m.server.Store(s)
	m.become(s.Ready)
}

// natsServer is what that server tells of itself.
func (m *monitor) natsServer() (metrics.Server, bool) {
	s := m.server.Load()
	if s == nil || s.Check() != nil {
		return metrics.Server{}, false
	}
	n := s.NATS()
	st := metrics.Server{Clients: n.NumClients(), Routes: n.NumRoutes(), LeafNodes: n.NumLeafNodes()}
	if js, err := n.Jsz(nil); err == nil {
		st.Store, st.Memory = js.Store, js.Memory
	}
	return st, true
}

// check says why the command is not ready. One asks at a time, the others have its answer.
func (m *monitor) check(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.asked.IsZero() || time.Since(m.asked) > readyAge {
		ctx, cancel := context.WithTimeout(ctx, readyMost)
		defer cancel()
		m.last = m.ready(ctx)
		m.asked = time.Now()
	}
	return m.last
}

// monitorPaths are what a monitor serves.
var monitorPaths = []string{"/healthz", "/metrics", "/readyz"}

// beside serves the monitor's paths, and all others by h.
func (m *monitor) beside(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if slices.Contains(monitorPaths, r.URL.Path) {
			m.ServeHTTP(w, r)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// ServeHTTP serves what monitors ask.
func (m *monitor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD can be asked here", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	switch r.URL.Path {
	case "/metrics":
		m.handler.ServeHTTP(w, r)
	case "/healthz":
		text(w, http.StatusOK, "ok")
	case "/readyz":
		if err := m.check(r.Context()); err != nil {
			text(w, http.StatusServiceUnavailable, "not ready: "+oneLine(err.Error()))
			return
		}
		text(w, http.StatusOK, "ready")
	default:
		text(w, http.StatusNotFound, "there are "+strings.Join(monitorPaths, ", "))
	}
}

func text(w http.ResponseWriter, code int, line string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, line+"\n") // who has gone away does not want it
}

// monitor serves monitors at --listen, until stop is called; nowhere without it. What is wrong with the flags is said before anything is connected.
func (c *call) monitor(ctx context.Context, serves bool) (stop func(), err error) {
	conf, err := c.httpTLS()
	if err != nil {
		return nil, err
	}
	if !c.isSet("listen") {
		if conf != nil {
			return nil, usageError("--http-cert: for what? give --listen too")
		}
		return func() {}, nil
	}
	l, err := c.listen(ctx, c.str("listen"))
	if err != nil {
		return nil, err
	}
	c.mon = c.newMonitor(serves)
	url, stop := c.serveOn(l, conf, c.mon, 100, func(err error) { c.note("%s", err) }) // a member does not leave because nobody can look at it
	c.note("%s: metrics and health at %s", c.cmd.name, url)
	if !loopback(l) && (conf == nil || conf.ClientCAs == nil) {
		c.note("%s: whoever reaches %s can read them: --http-ca asks for certificates", c.cmd.name, l.Addr())
	}
	return stop, nil
}

// serveOn serves until stop is called; failed is told what ended it before.
func (c *call) serveOn(l net.Listener, conf *tls.Config, h http.Handler, connections int, failed func(error)) (url string, stop func()) {
	// Live updates are long: their own deadlines are set with each write.
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(c.logger().Handler(), slog.LevelDebug)}
	url = "http://" + l.Addr().String()
	l = bloc.Limit(l, connections)
	if conf != nil {
		l = tls.NewListener(l, conf)
		url = "https" + strings.TrimPrefix(url, "http")
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			failed(failure(ExitFailed, "%s: %w", c.cmd.name, err))
		}
	}()
	return url, func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = srv.Shutdown(ctx) // what does not end by itself is cut off
		_ = srv.Close()
		<-served
	}
}

// connected is ready while the connection to NATS stands.
func (c *conn) connected() error {
	if !c.IsConnected() {
		return errors.New("it is not connected to NATS")
	}
	return nil
}
