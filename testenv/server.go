package testenv

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/clock"
)

// A Server is a NATS server in this process that listens nowhere and keeps JetStream in memory.
type Server struct {
	opts server.Options

	mu   sync.Mutex
	s    *server.Server // nil while it is down
	addr string         // where it listens, if it does
}

// A ServerOption changes how a server is made.
type ServerOption func(*server.Options)

// WithoutJetStream makes a plain NATS server.
func WithoutJetStream() ServerOption { return func(o *server.Options) { o.JetStream = false } }

// WithDomain sets the JetStream domain.
func WithDomain(name string) ServerOption {
	return func(o *server.Options) { o.JetStreamDomain = name }
}

// WithUsers makes the server ask for one of these users, each with its own permissions.
func WithUsers(users ...*server.User) ServerOption {
	return func(o *server.Options) { o.Users = users }
}

// NewServer starts a server that keeps what it must keep on disk in dir. Inside a bubble the caller must have had
// nats-server's clock registered before: [Run] and [Main] do.
func NewServer(dir string, opts ...ServerOption) (*Server, error) {
	registered()
	s := &Server{opts: server.Options{
		ServerName: "testenv",
		DontListen: true,
		NoSigs:     true,
		NoLog:      true,
		JetStream:  true,
		StoreDir:   dir,
		// Bounded, for the default is what the machine has.
		JetStreamMaxMemory: 256 << 20,
		JetStreamMaxStore:  256 << 20,
		// It remembers the last ten thousand connections that were closed, which looks like a leak to a test that counts.
		MaxClosedClients: 100,
	}}
	for _, o := range opts {
		o(&s.opts)
	}
	return s, s.Start()
}

// Start starts the server after a Stop. Memory streams are empty then, and gone.
func (s *Server) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.s != nil {
		return nil
	}
	opts := s.opts // the server changes what it is given
	srv, err := server.NewServer(&opts)
	if err != nil {
		return fmt.Errorf("testenv: server: %w", err)
	}
	srv.Start()
	if !srv.ReadyForConnections(10 * time.Second) {
		srv.Shutdown()
		srv.WaitForShutdown()
		return fmt.Errorf("testenv: server is not ready after 10s")
	}
	if a, ok := srv.Addr().(*net.TCPAddr); ok {
		s.opts.Port, s.addr = a.Port, a.String() // kept over a restart
	}
	s.s = srv
	return nil
}

// Stop stops the server and returns when nothing of it runs any more. Its clients lose their connections.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.s == nil {
		return
	}
	s.s.Shutdown()
	s.s.WaitForShutdown()
	s.s = nil
}

// Server is the nats-server itself; nil while it is stopped.
func (s *Server) Server() *server.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.s
}

// InProcessConn connects to the server directly, without a link.
func (s *Server) InProcessConn() (net.Conn, error) {
	srv := s.Server()
	if srv == nil {
		return nil, fmt.Errorf("testenv: server is down")
	}
	return srv.InProcessConn()
}

// An Env is one test's world: a server and what is connected to it.
type Env struct {
	t      testing.TB
	dir    string
	server *Server
	began  clock.Instant // and the bubble's time then: a reading of real clocks with each look at a virtual one would be a fifth of all work
	at     time.Time

	started    atomic.Int64
	mu         sync.Mutex
	processes  map[*quorate.Namespace]*process
	invariants *Invariants
	conns      []*nats.Conn
	links      []*Link
	closers    []func()

	lease atomic.Int64 // the shortest of all namespaces
	look  chan struct{}
}

func newEnv(t testing.TB, dir string) *Env {
	t.Helper()
	s, err := NewServer(dir)
	if err != nil {
		t.Fatal(err)
	}
	return &Env{t: t, dir: dir, server: s, began: clock.Now(), at: time.Now(), look: make(chan struct{}, 1)}
}

// Server is the environment's server.
func (e *Env) Server() *Server { return e.server }

// Defer has fn called when the test is over, in reverse order, before connections are closed.
func (e *Env) Defer(fn func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closers = append(e.closers, fn)
}

// Connect makes a connection over a link of its own. By default it reconnects for ever, each 50 ms, and takes a server that does
// not answer for a second or two for lost; opts come after these.
func (e *Env) Connect(name string, opts ...nats.Option) (*nats.Conn, *Link) {
	e.t.Helper()
	l := NewLink(e.server)
	nc, err := nats.Connect("", append([]nats.Option{
		nats.InProcessServer(l),
		nats.Name(name),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(50 * time.Millisecond),
		nats.ReconnectJitter(10*time.Millisecond, 10*time.Millisecond),
		nats.PingInterval(time.Second),
		nats.MaxPingsOutstanding(1),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // the default prints
	}, opts...)...)
	if err != nil {
		l.Close()
		e.t.Fatalf("connect %s: %v", name, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.conns = append(e.conns, nc)
	e.links = append(e.links, l)
	return nc, l
}

func (e *Env) close() {
	e.mu.Lock()
	closers, conns, links := e.closers, e.conns, e.links
	e.mu.Unlock()
	for i := range closers {
		closers[len(closers)-1-i]()
	}
	for _, nc := range conns {
		nc.Close()
	}
	for _, l := range links {
		l.Close()
	}
	e.server.Stop()
}
