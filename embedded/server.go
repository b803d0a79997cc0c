package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// Options of [Start]. Only StoreDir is required.
type Options struct {
	// StoreDir is where JetStream keeps its data; it is made (mode 0700) if it does not exist. Required: there is no
	// temporary default, which would lose everything at the next boot.
	StoreDir string

	Host string // address to listen on; default 127.0.0.1, so that nothing off this host can connect (S1)
	Port int    // default 0: a free one
	Name string // server name; default a random one

	// Token that clients have to show; default none. With none, every user of the host can connect.
	Token string

	// NoSync leaves it to the system when acknowledged writes reach the disk: some 15 times faster, but a power loss
	// may take acknowledged writes along, and with them the promises L1 and L2. Default false: synced.
	NoSync bool

	MaxPayload int32 // bytes of one message; default 1 MiB
	MaxMemory  int64 // bytes of all memory streams; default 64 MiB
	MaxStore   int64 // bytes of all file streams; default 1 GiB (a member needs less than 1 KiB)

	// Namespace whose bucket [Server.Ready] makes and writes to; default "default".
	Namespace string

	Logger *slog.Logger // of the server; default discards. Its notices come as debug lines

	// Adjust has the last word on the server's options, for what has no field here; default none. What it does to
	// StoreDir, NoSigs, NoLog or JetStream is undone.
	Adjust func(*server.Options)
}

const (
	storeLock    = "quorate.lock"   // in StoreDir
	startTimeout = 30 * time.Second // for a server that has started to become ready, if the caller's context allows as much
	readyPoll    = time.Millisecond
	probeBytes   = 64 << 10 // written and removed at start to find a full disk
)

// gate serialises starts and stops: done at once in one process they made the server panic (field rules section 4).
// The state they share is the nats-server packages' own, so the gate is as wide as the process.
var gate = make(chan struct{}, 1)

// A Server is a NATS server in this process.
type Server struct {
	ns   *server.Server
	lock *fileLock
	url  string
	log  *slog.Logger

	inside []nats.Option // by which this process comes in
	system []nats.Option // by which it comes into the system account; nil: it cannot
	probe  probe         // what Ready has

	reload   reloading
	reloadMu sync.Mutex      // over a reload, which calls nobody
	opts     *server.Options // that it was started with
	loaded   string          // content of the files that they follow from, as it was then

	closing sync.Once
	done    chan struct{} // closed when the server has stopped and the lock is released
}

// Start starts a server and returns when JetStream is enabled and clients can connect.
//
// ctx bounds the start only, and not the time in which the server recovers what is on the disk. A directory that is in use
// gives [ErrStoreInUse].
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.StoreDir == "" {
		return nil, errors.New("embedded: no store directory given: name one that outlives the process")
	}
	dir, err := filepath.Abs(o.StoreDir)
	if err != nil {
		return nil, dirError("store directory", o.StoreDir, err)
	}
	if o.Port < 0 || o.Port > 65535 {
		return nil, fmt.Errorf("embedded: port %d: give one from 1 to 65535, or 0 for a free one", o.Port)
	}
	if o.MaxPayload < 0 || o.MaxMemory < 0 || o.MaxStore < 0 {
		return nil, errors.New("embedded: a limit is negative: give a number of bytes, or 0 for the default")
	}
	return launch(ctx, dir, launching{
		options: func(dir string) (*server.Options, error) {
			opts := o.server()
			if o.Adjust != nil {
				o.Adjust(opts)
			}
			return opts, nil
		},
		namespace: o.Namespace, replicas: 1, log: o.Logger, notices: slog.LevelDebug,
	})
}

// launching is what the ways to start a server differ in.
type launching struct {
	options   func(dir string) (*server.Options, error) // asked once the directory is locked
	reload    func(dir string) reloading                // nil: there is nothing to reload
	inside    []nats.Option                             // how this process comes in, besides with the token if there is one
	system    []nats.Option                             // and into the system account
	namespace string
	replicas  int  // of its bucket, if it is made here; 0 leaves it to the number of servers
	outside   bool // nobody knows how to come in: no write is tried
	log       *slog.Logger
	notices   slog.Level // of what the server tells in passing; the zero value is LevelInfo
	ownUsers  bool       // users are of our making, so that what the server thinks of passwords helps nobody
}

// launch starts a server on a directory, which it locks.
func launch(ctx context.Context, dir string, l launching) (*Server, error) {
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	lock, err := lockStore(dir)
	if err != nil {
		return nil, err
	}
	select {
	case gate <- struct{}{}:
	case <-ctx.Done():
		lock.release()
		return nil, fmt.Errorf("embedded: start server on %s: %w", dir, context.Cause(ctx))
	}
	s, err := start(ctx, dir, l)
	<-gate
	if err != nil {
		lock.release()
		return nil, err
	}
	s.lock = lock
	return s, nil
}

// lockStore makes the directory, locks it, and finds out whether it can be written to.
func lockStore(dir string) (*fileLock, error) {
	const what = "store directory"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, dirError(what, dir, err)
	}
	path := filepath.Join(dir, storeLock)
	lock, err := tryLock(path)
	if errors.Is(err, errHeld) {
		// E2: the server itself would start, and destroy the store.
		return nil, fmt.Errorf("embedded: store directory %s: %w by %s: stop that, or choose another directory", dir, ErrStoreInUse, holder(path))
	}
	if err != nil {
		return nil, dirError(what, dir, err)
	}
	// A full disk would show at the first write otherwise, as a JetStream error that does not say so.
	probe := filepath.Join(dir, storeLock+".probe")
	err = os.WriteFile(probe, make([]byte, probeBytes), 0o600)
	os.Remove(probe)
	if err != nil {
		lock.release()
		return nil, dirError(what, dir, err)
	}
	return lock, nil
}

// start makes and starts the server, with the gate held.
func start(ctx context.Context, dir string, l launching) (*Server, error) {
	s := &Server{log: l.log, done: make(chan struct{})}
	var err error
	if l.reload != nil {
		s.reload = l.reload(dir)
		if s.loaded, err = s.reload.contents(s.reload.read); err != nil { // before they are read: what changes later is seen as a change
			return nil, fmt.Errorf("embedded: %w", err)
		}
		if again := s.reload.options; again != nil {
			s.reload.options = func(ctx context.Context, running *server.Options) (*server.Options, error) {
				opts, err := again(ctx, running)
				if err == nil {
					own(opts, dir)
				}
				return opts, err
			}
		}
	}
	opts, err := l.options(dir)
	if err != nil {
		return nil, err
	}
	own(opts, dir)
	s.opts = opts.Clone()

	log := &serverLog{log: l.log, notices: l.notices, noPasswords: l.ownUsers}
	ns, err := server.NewServer(opts)
	if err != nil {
		return nil, fmt.Errorf("embedded: server options: %w", err)
	}
	ns.SetLoggerV2(log, l.notices > slog.LevelDebug && l.log.Enabled(ctx, slog.LevelDebug), false, false)
	ns.Start()
	if err := ready(ctx, ns, log); err != nil {
		ns.Shutdown()
		ns.WaitForShutdown()
		if strings.Contains(err.Error(), "cannot assign requested address") { // the server gives the text alone
			return nil, fmt.Errorf("embedded: start server on %s: %w: this machine has no such address: \"listen\" of the cluster file names one to listen on", dir, err)
		}
		return nil, fmt.Errorf("embedded: start server on %s: %w", dir, err)
	}
	s.ns = ns
	s.probe.init(l.namespace, l.replicas, l.outside)
	s.inside = append([]nats.Option{nats.InProcessServer(ns)}, l.inside...)
	if opts.Authorization != "" {
		s.inside = append(s.inside, nats.Token(opts.Authorization))
	}
	if l.system != nil {
		s.system = append([]nats.Option{nats.InProcessServer(ns)}, l.system...)
	}
	if a := ns.Addr(); a != nil { // with DontListen there is none
		s.url = "nats://" + a.String()
	}
	return s, nil
}

// own sets what is not for the server's options to say.
func own(opts *server.Options, dir string) {
	// R33: the process's signals are its own (the server would end it at SIGTERM, before its leases are released).
	opts.NoSigs, opts.NoLog, opts.JetStream, opts.StoreDir, opts.DisableJetStreamBanner = true, true, true, dir, true
}

// server gives the server's options.
func (o Options) server() *server.Options {
	opts := &server.Options{
		ServerName:             or(o.Name, "quorate-"+randomHex(8)),
		Host:                   or(o.Host, "127.0.0.1"),
		Port:                   or(o.Port, server.RANDOM_PORT),
		Authorization:          o.Token,
		AuthTimeout:            5, // seconds; the default of 2 is short when a thousand members reconnect at once
		MaxPayload:             or(o.MaxPayload, 1<<20),
		JetStreamMaxMemory:     or(o.MaxMemory, 64<<20),
		JetStreamMaxStore:      or(o.MaxStore, 1<<30),
		SyncAlways:             !o.NoSync,
		DisableJetStreamBanner: true,
	}
	return opts
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// ready waits until JetStream is enabled and clients can connect (R34; a single server needs no more than that).
func ready(ctx context.Context, ns *server.Server, log *serverLog) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not ready after %v", startTimeout))
	defer cancel()
	for {
		if fatal := log.fatal(); fatal != "" {
			return errors.New(fatal)
		}
		// Above 25 ms the server's own wait sleeps for 25 ms, however soon it is ready; below, it spins.
		if ns.JetStreamEnabled() && ns.ReadyForConnections(readyPoll) {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(readyPoll):
		}
	}
}

// URL is where clients connect: nats://host:port.
func (s *Server) URL() string { return s.url }

// Addr is the address that the server listens on; nil when it does not listen.
func (s *Server) Addr() net.Addr { return s.ns.Addr() }

// Name is the server's name.
func (s *Server) Name() string { return s.ns.Name() }

// NATS is the server itself, for what this package does not offer. Do not shut it down.
func (s *Server) NATS() *server.Server { return s.ns }

// InProcess is for [nats.InProcessServer]: a connection without a socket. It needs the token too: see Options.
func (s *Server) InProcess() nats.InProcessConnProvider { return s.ns }

// Options gives the options with which [nats.Connect] connects in process; its URL is not used then.
func (s *Server) Options() []nats.Option { return slices.Clone(s.inside) }

// Check says what is wrong with the server: its directory was removed or replaced, JetStream was disabled (the server
// does that by itself when it cannot write), a stream could not be written, or it was stopped. Nil when it is well.
func (s *Server) Check() error {
	select {
	case <-s.done:
		return fmt.Errorf("embedded: server: %w", ErrClosed)
	default:
	}
	if err := s.lock.intact(); err != nil {
		return fmt.Errorf("embedded: store: %w", err)
	}
	if !s.ns.JetStreamEnabled() {
		return errors.New("embedded: JetStream was disabled: look for write errors of the disk in the log")
	}
	return s.writes()
}

// writes tells of a stream that a server by itself could not write. NATS leaves JetStream on then, and refuses every further write of that stream until the
// server is started again, also when there is room. (A server of a cluster switches JetStream off, and the others go on.)
func (s *Server) writes() error {
	if s.ns.JetStreamIsClustered() {
		return nil
	}
	for _, e := range s.ns.Healthz(&server.HealthzOptions{Details: true}).Errors {
		if e.Type == server.HealthzErrorStream && strings.Contains(e.Error, "write error") {
			return fmt.Errorf("embedded: %s: is the disk full? What cannot be written is refused until the server is started again", e.Error)
		}
	}
	return nil
}

// Close stops the server, waits until it has stopped, and releases the directory. In a cluster it first hands over to others what it leads, so
// that nobody has to find out. When ctx ends first the stop goes on, and another Close waits for it.
func (s *Server) Close(ctx context.Context) error {
	s.closing.Do(func() { go s.stop() })
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("embedded: stop server: %w", context.Cause(ctx))
	}
}

func (s *Server) stop() {
	s.handOver()
	s.probe.close()
	gate <- struct{}{}
	s.ns.Shutdown()
	s.ns.WaitForShutdown() // without it the process may exit while the store is being written
	<-gate
	s.lock.release() // H1: only now may another server have the directory
	close(s.done)
}
