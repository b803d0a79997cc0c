package embedded

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate/internal/kv"
)

// A probe is what a server tries itself out with: a connection of its own, and the bucket of one namespace.
type probe struct {
	namespace string
	replicas  int
	outside   bool // it cannot come in: no write is made

	turn   chan struct{} // holds one token: one at a time; whoever has it has what is below
	ended  context.Context
	end    context.CancelFunc
	nc     *nats.Conn
	store  *kv.Store
	closed bool
}

func (p *probe) init(namespace string, replicas int, outside bool) {
	p.namespace, p.replicas, p.outside = namespace, replicas, outside
	p.turn = make(chan struct{}, 1)
	p.ended, p.end = context.WithCancel(context.Background())
}

// close ends a try that is under way, and all further ones.
func (p *probe) close() {
	p.end()
	p.turn <- struct{}{}
	p.closed = true
	p.hangUp()
	<-p.turn
}

func (p *probe) hangUp() {
	if p.store != nil {
		p.store.Close()
	}
	if p.nc != nil {
		p.nc.Close()
	}
	p.nc, p.store = nil, nil
}

// Ready says why the server cannot be relied on now; nil when it can (R34): it accepts connections, JetStream is on and its directory its own, in a
// cluster it knows the leader and has caught up with it and with every stream it has a replica of, the namespace's bucket has a leader, and a
// record was created, read, updated and removed in it. The first call that gets so far makes the bucket if there is none.
//
// That depends on the other servers: what restarts a process that is not ready would restart a whole cluster that has lost its majority, and it
// would never form. For that ask [Server.Check].
func (s *Server) Ready(ctx context.Context) error {
	if err := s.Check(); err != nil {
		return err
	}
	if h := s.ns.Healthz(&server.HealthzOptions{}); h.Error != "" {
		return fmt.Errorf("embedded: not ready: %s", h.Error)
	}
	p := &s.probe
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.ended, cancel)()
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return fmt.Errorf("embedded: not ready: %w", ctx.Err())
	}
	if p.closed {
		return fmt.Errorf("embedded: server: %w", ErrClosed)
	}
	if p.outside {
		return nil
	}
	if err := s.try(ctx); err != nil {
		return fmt.Errorf("embedded: not ready: %w", err)
	}
	return nil
}

// try makes a write, as a client of this server.
func (s *Server) try(ctx context.Context) error {
	p := &s.probe
	if p.nc == nil {
		nc, err := nats.Connect("", append(s.Options(), nats.Name("quorate server"), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond),
			nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))...) // the default prints
		if err != nil {
			return err
		}
		p.nc = nc
	}
	if p.store == nil {
		st, err := kv.Open(ctx, p.nc, kv.Options{Namespace: p.namespace, Replicas: p.replicas, Timeout: time.Second, Reconcile: 5 * time.Second, Logger: s.log})
		if err != nil {
			return err
		}
		p.store = st
	}
	err := p.store.Check(ctx)
	if errors.Is(err, kv.ErrBucketLost) {
		p.store.Close()
		p.store = nil // the next try attaches to what there is then
	}
	return err
}

// AwaitReady waits until the server is ready ([Server.Ready]), and until ctx ends. Each try takes some seconds at most; after the first few that fail
// it logs why it still waits.
func (s *Server) AwaitReady(ctx context.Context) error {
	const (
		attempt = 5 * time.Second
		often   = 50 * time.Millisecond // between tries
		quiet   = 5 * time.Second       // before the first remark
	)
	told := time.Now().Add(quiet)
	for {
		try, cancel := context.WithTimeout(ctx, attempt)
		err := s.Ready(try)
		cancel()
		if err == nil || errors.Is(err, ErrClosed) {
			return err
		}
		if time.Now().After(told) {
			told = time.Now().Add(4 * quiet)
			s.log.Warn("embedded: waiting to be ready", "server", s.Name(), "error", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (%w)", err, context.Cause(ctx))
		case <-time.After(often):
		}
	}
}
