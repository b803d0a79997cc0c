package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/embedded"
)

func serverCommand() *command {
	return &command{
		name:    "server",
		section: sectionServe,
		summary: "run a NATS server: of a cluster, or of this host",
		about: "With --config, runs this machine's server of the cluster that the file describes: one, three or five machines that all have the same file. " +
			"Which of them this is says --local, or else its own addresses. docs/operations.md has the file. A file that does not begin with '{' is read as an ordinary " +
			"configuration file of the NATS server; if it demands users, readiness is tried as the one of --user, --creds or --nkey.\n\n" +
			"Without --config, serves this host from its state directory, as the first `join` would, but takes no part in anything.\n\n" +
			"It is ready when it has caught up with the others, the namespace's bucket has a leader, and a write went through; under systemd it says so (Type=notify). " +
			"It makes the bucket if there is none. INT or TERM hands over to other servers what it leads, and stops it. HUP opens the log file anew, and takes the users " +
			"that the cluster's file has now, and new certificates from the files that it names, as does each change of theirs within ten seconds; a NATS configuration file is read anew at a HUP.",
		flags: append([]flagSpec{
			{name: "config", value: "FILE", env: "QUORATE_CONFIG", usage: "the cluster's file, or a NATS configuration file"},
			{name: "local", value: "NAME", env: "QUORATE_LOCAL", usage: "which of the file's machines this is"},
		}, monitorFlags()...),
		needs:  needNone,
		runsOn: true,
		examples: []example{
			{"quorate server --config cluster.json", "on each of three machines"},
			{"quorate server --config cluster.json --local a", "machine a of several on one host, or behind other addresses"},
			{"quorate server --state-dir /var/lib/quorate", "for all processes of this host that name the same directory"},
		},
		exits: []exitSpec{{ExitDone, "interrupted, and stopped"}, {ExitFailed, "failed; also: the file is wrong, the directory is in use or cannot be written to"}},
		run:   runServer,
	}
}

// stopMost is the longest that a stop may take: handing over, and writing what is left.
const stopMost = 30 * time.Second

func runServer(ctx context.Context, c *call) error {
	path := c.str("config")
	if path == "" {
		if c.str("local") != "" {
			return usageError("--local names a machine of a file: give --config too")
		}
		stop, err := c.monitor(ctx, false)
		if err != nil {
			return err
		}
		defer stop()
		return c.serveHost(ctx)
	}
	stop, err := c.monitor(ctx, true)
	if err != nil {
		return err
	}
	defer stop()
	data, err := os.ReadFile(path)
	if err != nil {
		return failure(ExitFailed, "server: %s: %w", path, plainFile(err))
	}
	if bytes.HasPrefix(bytes.TrimSpace(bytes.TrimPrefix(data, []byte("\ufeff"))), []byte("{")) || filepath.Ext(path) == ".json" {
		return c.serveCluster(ctx, path)
	}
	if c.str("local") != "" {
		return usageError("--local names a machine of a cluster's file, and %s is a configuration file of one NATS server", path)
	}
	return c.serveNATSFile(ctx, path)
}

func (c *call) serveCluster(ctx context.Context, path string) error {
	cluster, err := embedded.ReadCluster(path)
	if err != nil {
		return c.serverError(ctx, err)
	}
	log, err := c.serverLog(cluster.Log)
	if err != nil {
		return err
	}
	defer log.Close()
	s, err := embedded.StartCluster(ctx, cluster, embedded.ClusterOptions{Local: c.str("local"), Namespace: c.g.namespace, Logger: log.Logger})
	if err != nil {
		return c.serverError(ctx, err)
	}
	return c.serve(ctx, s, log, true)
}

func (c *call) serveNATSFile(ctx context.Context, path string) error {
	file, err := embedded.ReadNATSFile(ctx, path)
	if err != nil {
		return c.serverError(ctx, err)
	}
	credentials, err := c.ownCredentials()
	if err != nil {
		return err
	}
	log, err := c.serverLog(file.Log)
	if err != nil {
		return err
	}
	defer log.Close()
	srv, err := embedded.StartNATSFile(ctx, file, embedded.NATSFileOptions{Connect: credentials, Namespace: c.g.namespace, Logger: log.Logger})
	if err != nil {
		return c.serverError(ctx, err)
	}
	return c.serve(ctx, srv, log, false) // nothing tells when it is meant to be read
}

// ownCredentials are those that this very call was given: the selected NATS context is about some other server.
func (c *call) ownCredentials() ([]nats.Option, error) {
	for _, name := range []string{"user", "token", "creds", "nkey", "context"} {
		if _, from := c.setting(name); from > fromContext {
			s, err := c.settings()
			if err != nil {
				return nil, err
			}
			return c.credentials(s)
		}
	}
	return nil, nil
}

// local ends the line about a machine that could not be found: with the flag that names it.
func local(text string) string {
	if strings.Contains(text, "has no machine") {
		return " (--local)"
	}
	return " with --local"
}

// serverError is the one line for a server that could not be started.
func (c *call) serverError(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		return nil // interrupted before it was up
	}
	text := strings.ReplaceAll(strings.TrimPrefix(err.Error(), "embedded: "), "nats-server: ", "")
	if errors.Is(err, embedded.ErrNoMachine) {
		text += local(text)
	}
	return failure(ExitFailed, "server: %s", text)
}

// serve looks after a server until it is told to stop. With watch it takes changed files by itself, else at a HUP alone.
func (c *call) serve(ctx context.Context, s *embedded.Server, log *serverLog, watch bool) error {
	c.mon.serves(s)
	log.Info("server: listening", "server", s.Name(), "url", s.URL())
	ready, cancel := context.WithCancel(ctx)
	defer cancel()
	waited := make(chan error, 1)
	go func() { waited <- s.AwaitReady(ready) }()
	err := c.tendServer(ctx, log, waited, s.Check, &reloader{s: s, log: log, watch: watch})
	cancel()
	c.mon.becomes(func() error { return errors.New("it is stopping") })
	c.notify("STOPPING=1")
	log.Info("server: stopping", "server", s.Name())
	bounded, stop := context.WithTimeout(context.Background(), stopMost)
	defer stop()
	if cerr := s.Close(bounded); cerr != nil && err == nil {
		err = failure(ExitFailed, "server: %s", strings.TrimPrefix(cerr.Error(), "embedded: "))
	}
	log.Info("server: stopped", "server", s.Name())
	return err
}

// tendServer is a server's life: ready at some time, and well until it is told to stop. It returns why it ended if that was not on demand.
func (c *call) tendServer(ctx context.Context, log *serverLog, ready <-chan error, check func() error, r *reloader) error {
	c.notify("STATUS=waiting to be ready")
	hangUps := make(chan os.Signal, 1)
	signal.Notify(hangUps, syscall.SIGHUP)
	defer signal.Stop(hangUps)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ready:
			ready = nil
			if err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return failure(ExitFailed, "server: %s", strings.TrimPrefix(err.Error(), "embedded: "))
			}
			log.Info("server: ready")
			c.notify("READY=1\nSTATUS=ready")
		case <-hangUps:
			log.reopen()
			r.hangUp(ctx)
		case <-tick.C:
			r.look(ctx)
			// What JetStream cannot write any more, or what was taken from under it, does not come back by itself.
			if err := check(); err != nil {
				return failure(ExitFailed, "server: %s", strings.TrimPrefix(err.Error(), "embedded: "))
			}
		}
	}
}

// A reloader has a server take new users and certificates.
type reloader struct {
	s     *embedded.Server
	log   *serverLog
	watch bool
	looks int
	said  string // the last failure
}

// lookEvery is how many of tendServer's seconds lie between two looks at the files.
const lookEvery = 10

func (r *reloader) hangUp(ctx context.Context) {
	if r != nil {
		r.said = ""
		r.reload(ctx)
	}
}

func (r *reloader) look(ctx context.Context) {
	if r == nil || !r.watch {
		return
	}
	if r.looks++; r.looks%lookEvery == 0 {
		r.reload(ctx)
	}
}

func (r *reloader) reload(ctx context.Context) {
	changed, err := r.s.Reload(ctx)
	switch {
	case err != nil && ctx.Err() == nil && err.Error() != r.said:
		r.said = err.Error()
		r.log.Error("server: not reloaded: going on as before", "server", r.s.Name(), "error", strings.TrimPrefix(r.said, "embedded: "))
	case changed:
		r.said = ""
		r.log.Info("server: reloaded", "server", r.s.Name())
	}
}

// serveHost serves this host from its state directory.
func (c *call) serveHost(ctx context.Context) error {
	log, err := c.serverLog(embedded.Log{})
	if err != nil {
		return err
	}
	dir, _ := c.setting("state-dir")
	if dir == "" {
		dir = defaultStateDir(c.env)
	}
	h, err := embedded.OpenHost(ctx, embedded.HostOptions{Dir: dir, ServeOnly: true, Logger: log.Logger})
	if err != nil {
		return c.serverError(ctx, err)
	}
	ready, cancel := context.WithCancel(ctx)
	defer cancel()
	waited := make(chan error, 1)
	go func() { waited <- c.tryHost(ready, h, log.Logger) }()
	c.mon.become(func(ctx context.Context) error { return c.tryHost(ctx, h, log.Logger) })
	// Its directory is looked after by the Host, which stops the server when it has to and serves again when it may.
	err = c.tendServer(ctx, log, waited, func() error { return nil }, nil)
	cancel()
	c.mon.becomes(func() error { return errors.New("it is stopping") })
	c.notify("STOPPING=1")
	if cerr := closeHost(h); err == nil {
		err = cerr
	}
	return err
}

// tryHost makes a write to this host's server.
func (c *call) tryHost(ctx context.Context, h *embedded.Host, log *slog.Logger) error {
	nc, err := h.Connect(ctx, append(quorate.Options(c.g.lease), nats.Name("quorate server"))...)
	if err != nil {
		return err
	}
	defer nc.Close()
	ns, err := quorate.Open(ctx, nc, quorate.Config{Namespace: c.g.namespace, Logger: log})
	if err != nil {
		return err
	}
	defer ns.Close(context.WithoutCancel(ctx))
	return ns.Check(ctx)
}

// A serverLog is what a server logs to.
type serverLog struct {
	*slog.Logger
	out *logFile
}

// serverLog makes the log that a file asks for. --verbose shows everything.
func (c *call) serverLog(l embedded.Log) (*serverLog, error) {
	out := &logFile{path: l.File, w: c.stderr}
	if err := out.open(); err != nil {
		return nil, failure(ExitFailed, "server: log file %s: %w", l.File, plainFile(err))
	}
	o := &slog.HandlerOptions{Level: l.SlogLevel()}
	if c.g.verbose {
		o.Level = slog.LevelDebug
	}
	if l.Format == "json" {
		return &serverLog{slog.New(slog.NewJSONHandler(out, o)), out}, nil
	}
	return &serverLog{slog.New(slog.NewTextHandler(out, o)), out}, nil
}

// reopen is for what moves log files away.
func (l *serverLog) reopen() {
	if err := l.out.open(); err != nil {
		l.Error("server: log file cannot be opened anew: going on with the old one", "file", l.out.path, "error", err)
	}
}

// Close closes the log file. What is logged later goes to standard error.
func (l *serverLog) Close() { l.out.close() }

// A logFile is a file that is appended to, or a stream that stays.
type logFile struct {
	path string // "" is the stream
	mu   sync.Mutex
	w    io.Writer
	file *os.File
}

func (f *logFile) open() error {
	if f.path == "" {
		return nil
	}
	// Readable for this user alone: a log names groups, members and addresses.
	file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	f.mu.Lock()
	old := f.file
	f.file = file
	f.mu.Unlock()
	if old != nil {
		old.Close()
	}
	return nil
}

func (f *logFile) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file != nil {
		f.file.Close()
		f.file = nil
	}
}

// Write writes a line whole. The lock keeps a file from being closed under it; there is nothing else to wait for.
func (f *logFile) Write(line []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file != nil {
		return f.file.Write(line)
	}
	return f.w.Write(line)
}
