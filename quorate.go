package quorate

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate/internal/inner"
	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/wire"
)

// Config of a namespace. The zero value works.
type Config struct {
	// Namespace separates groups that must not see each other; it is the security boundary, one bucket each. Default
	// "default".
	Namespace string
	// JSDomain is the JetStream domain the bucket lives in. Default: the connection's own.
	JSDomain string
	// Lease is the one knob: how long a leader holds without a confirmed renewal, and what all other timings derive from
	// (see [Derive]). Default 3 s, at least 200 ms. Raising it makes fail-over slower and rides out longer NATS outages;
	// lowering it costs messages: each member sends six heartbeats per lease. [Explain] tells what follows from it.
	Lease time.Duration
	// Timings sets single values that do not follow from the lease; zero fields do. What would break a guarantee is refused: see
	// [Timings.Check]. The group's own (member timeout, settle, ack timeout) are those of whoever leads: they travel in the leader's record.
	Timings Timings
	// Replicas of the bucket, if it is made here. Default 3 in a cluster of three or more servers, else 1.
	Replicas int
	// Logger for what users cannot see otherwise. Default: slog.Default().
	Logger *slog.Logger
	// Hooks are told what happens, for metrics and traces. Default: nobody is, and it costs nothing.
	Hooks Hooks
}

// A Namespace is what elections and groups live in: a connection, a bucket, and timings.
type Namespace struct {
	in      *inner.Namespace
	unwatch func() // of the connection, for the hooks
}

// Open attaches to the namespace's bucket, and makes it if there is none. It checks what quorate needs by a real
// compare-and-set round trip, and names what is missing: [ErrNoJetStream], [ErrOldServer], [ErrBucket], [ErrPermission].
// It waits until ctx ends for a cluster that has no leader yet. The connection stays the caller's: it is never closed.
func Open(ctx context.Context, nc *nats.Conn, cfg Config) (*Namespace, error) {
	return OpenWith(ctx, nc, cfg, inner.Options{})
}

// OpenWith is [Open] for quorate's own packages.
func OpenWith(ctx context.Context, nc *nats.Conn, cfg Config, o inner.Options) (*Namespace, error) {
	if cfg.Namespace == "" {
		cfg.Namespace = wire.DefaultName
	}
	if err := wire.CheckNamespace(cfg.Namespace); err != nil {
		return nil, fmt.Errorf("quorate: %w", err)
	}
	t := cfg.Timings
	if t.Lease != 0 && cfg.Lease != 0 && t.Lease != cfg.Lease {
		return nil, fmt.Errorf("quorate: Lease %v and Timings.Lease %v differ: leave one out", cfg.Lease, t.Lease)
	}
	t.Lease = cmp.Or(t.Lease, cfg.Lease)
	if err := t.Check(); err != nil {
		return nil, fmt.Errorf("quorate: %w", err)
	}
	t = t.derived()
	cfg.Lease = t.Lease
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	log := cfg.Logger.With("namespace", cfg.Namespace) // R40
	store, err := kv.Open(ctx, nc, kv.Options{
		Namespace: cfg.Namespace, Domain: cfg.JSDomain, Replicas: cfg.Replicas, Reconcile: cfg.Lease / 6,
		Timeout: cfg.Lease / 6, Memory: o.Memory, AttachOnly: o.AttachOnly, Patient: o.Patient, Clock: o.Clock, Logger: log,
	})
	if err != nil {
		return nil, fmt.Errorf("quorate: open namespace %q: %w", cfg.Namespace, err)
	}
	host, err := os.Hostname()
	if err != nil {
		host = ""
	}
	tell(log, nc.Opts, t)
	o.Hooks = cfg.Hooks.inside()
	in := inner.New(store, inner.Timings(t), host, log, o)
	return &Namespace{in: in, unwatch: noteConnection(in, nc)}, nil
}

// Name of the namespace.
func (n *Namespace) Name() string { return n.in.Name }

// Timings of the namespace: those given, and what follows from its lease.
func (n *Namespace) Timings() Timings { return Timings(n.in.Timings) }

// Inner is for quorate's own packages.
func (n *Namespace) Inner() *inner.Namespace { return n.in }

// Check proves that the namespace works: a record is created, read, updated and purged. The error names what is missing. Last it looks at how long the
// connection waits between two tries to reconnect: see [Timings.CheckReconnect].
func (n *Namespace) Check(ctx context.Context) error {
	if err := n.in.Store.Check(ctx); err != nil {
		return fmt.Errorf("quorate: check namespace %q: %w", n.in.Name, err)
	}
	if o := n.in.Store.Conn().Opts; o.CustomReconnectDelayCB == nil {
		if err := n.Timings().CheckReconnect(o.ReconnectWait); err != nil {
			return fmt.Errorf("quorate: check namespace %q: %w", n.in.Name, err)
		}
	}
	return nil
}

// Close resigns and leaves all that was opened through the namespace, all at once, and waits for it until ctx ends. It may
// be called more than once. The connection stays open. Last, what has happened is told to Hooks.Event.
func (n *Namespace) Close(ctx context.Context) error {
	err := n.in.CloseAll(ctx)
	n.in.Store.Close()
	n.unwatch()
	if herr := n.in.EndNotes(ctx); herr != nil && err == nil {
		err = fmt.Errorf("quorate: close namespace %q: the event hook has not returned: %w", n.in.Name, herr)
	}
	return err
}

// Options are the connection options quorate likes best for the given lease (0: [DefaultLease]): reconnects for ever and
// soon, no buffering of writes while away, and pings that notice a dead server in time. A connection that does not last (each time
// for less than two leases, as when the server or this machine has far too much to do) comes back later each time, within four leases at last: all of them together are what would keep
// it so. A plain nats.Connect(url) keeps every guarantee as well; it is slower to notice and to come back.
func Options(lease time.Duration) []nats.Option {
	t := Derive(lease)
	return []nats.Option{
		nats.MaxReconnects(-1),
		nats.ReconnectBufSize(-1), // R21: a write buffered for minutes is a ghost
		nats.RetryOnFailedConnect(false),
		nats.PingInterval(t.Lease / 5),
		nats.MaxPingsOutstanding(optionPings),
		func(o *nats.Options) error { // for each connection its own
			o.CustomReconnectDelayCB = (&redial{wait: reconnectWait(t), lasts: 2 * t.Lease, most: 4 * t.Lease}).delay
			return nil
		},
	}
}

// A redial says how long one connection waits before it tries to reconnect.
type redial struct {
	wait  time.Duration // at most, while there is no server
	lasts time.Duration // a connection that ends sooner has not lasted
	most  time.Duration // the longest wait after those that have not
	tried time.Time     // when the last try was to be made
	short int           // connections in a row that have not lasted
}

// delay is called for one try at a time; attempts counts from 1 anew each time that the connection has ended.
func (r *redial) delay(attempts int) time.Duration {
	d := r.wait
	if attempts <= 1 {
		if r.short++; time.Since(r.tried) >= r.lasts {
			r.short = 0
		}
		d = min(r.wait<<min(r.short, 16), r.most)
	}
	d = d/2 + rand.N(d/2+1)
	r.tried = time.Now().Add(d)
	return d
}
