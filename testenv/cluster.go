package testenv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A Cluster is several NATS servers in this process, on loopback sockets, with JetStream in files: for what virtual time cannot show,
// such as replicas and the election of a stream's leader. Not in a bubble.
//
// Servers are counted from 0. Each keeps its name, port and data over Stop, Kill and Start.
type Cluster struct {
	t     testing.TB
	nodes []*clusterNode
}

type clusterNode struct {
	config string
	adjust []ServerOption
	routes []*wire // of its own making: to each other server
	mu     sync.Mutex
	port   int // 0 until it has run
	s      *server.Server
}

// clusterReady bounds the wait for JetStream to become usable. An election of its leader alone takes 4 to 9 s on an idle machine (R36).
const clusterReady = 2 * time.Minute

// NewCluster starts n clustered servers that live as long as the test. It returns when each of them is current, they have a leader, and
// a compare-and-set went through to n replicas (at most 5, as NATS has it). Writes are synced lazily, as is the servers' default; see
// [WithSync].
func NewCluster(t testing.TB, n int, opts ...ServerOption) *Cluster {
	t.Helper()
	if n < 2 {
		t.Fatal("testenv: a cluster has two servers or more; for one there is Real")
	}
	registered()
	c := &Cluster{t: t}
	dir := t.TempDir()
	for range n { // all before any wire: somebody may call there at once, a server of an earlier test that had the port
		c.nodes = append(c.nodes, &clusterNode{adjust: opts})
	}
	for i, node := range c.nodes {
		var routes []string
		for j := range n {
			if j == i {
				node.routes = append(node.routes, nil)
				continue
			}
			w, err := newWire(func() (net.Conn, error) { return c.nodes[j].dialRoute() })
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(w.close)
			node.routes = append(node.routes, w)
			routes = append(routes, fmt.Sprintf("%q", "nats-route://"+w.addr()))
		}
		// The configuration as text: built in code, servers with accounts lose their streams over a restart (R33). Names are fixed, for a
		// server with a new one is a new member of the cluster to NATS (R32). The advertised address is one where nobody listens, so that
		// servers reach each other over the wires of their configuration alone.
		node.config = fmt.Sprintf(`
			server_name: "testenv-%d", listen: "127.0.0.1:-1", max_payload: 1MB
			jetstream { store_dir: %q, max_mem: 64MB, max_file: 256MB }
			cluster { name: "testenv", listen: "127.0.0.1:-1", advertise: "127.0.0.1:1", no_advertise: true, pool_size: -1, routes: [ %s ] }`,
			i, filepath.Join(dir, fmt.Sprint(i)), strings.Join(routes, ", "))
	}
	t.Cleanup(func() {
		for i := range c.nodes {
			c.Stop(i)
		}
	})
	for i := range c.nodes {
		if err := c.launch(i); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), clusterReady)
	defer cancel()
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.tryOut(ctx); err != nil {
		t.Fatal(err)
	}
	return c
}

// WithSync has each write reach the disk before it is acknowledged.
func WithSync() ServerOption { return func(o *server.Options) { o.SyncAlways = true } }

func (c *Cluster) launch(i int) error {
	n := c.nodes[i]
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.s != nil {
		return nil
	}
	fail := func(err error) error { return fmt.Errorf("testenv: server %d of the cluster: %w", i, err) }
	o := &server.Options{}
	if err := o.ProcessConfigString(n.config); err != nil {
		return fail(err)
	}
	o.NoSigs, o.NoLog = true, true
	if n.port != 0 {
		o.Port = n.port
	}
	for _, adjust := range n.adjust {
		adjust(o)
	}
	s, err := server.NewServer(o)
	if err != nil {
		return fail(err)
	}
	s.Start()
	// Above 25 ms the server's own wait sleeps for as long, below it spins; so: often, and briefly.
	for end := time.Now().Add(clusterReady); !s.ReadyForConnections(time.Millisecond); {
		if time.Now().After(end) || !s.Running() {
			s.Shutdown()
			s.WaitForShutdown()
			return fail(errors.New("does not listen"))
		}
		time.Sleep(5 * time.Millisecond)
	}
	if a, ok := s.Addr().(*net.TCPAddr); ok {
		n.port = a.Port
	}
	n.s = s
	for _, w := range n.routes {
		if w != nil {
			w.mend()
		}
	}
	return nil
}

// dialRoute connects to the port for the other servers.
func (n *clusterNode) dialRoute() (net.Conn, error) {
	n.mu.Lock()
	s := n.s
	n.mu.Unlock()
	if s == nil || s.ClusterAddr() == nil {
		return nil, errCut
	}
	return net.Dial("tcp", s.ClusterAddr().String())
}

// Size is how many servers the cluster has, running or not.
func (c *Cluster) Size() int { return len(c.nodes) }

// Server is the i-th nats-server; nil while it is stopped.
func (c *Cluster) Server(i int) *server.Server {
	c.nodes[i].mu.Lock()
	defer c.nodes[i].mu.Unlock()
	return c.nodes[i].s
}

// URL is where clients connect: all servers, separated by commas. URLOf is that of one.
func (c *Cluster) URL() string {
	urls := make([]string, len(c.nodes))
	for i := range c.nodes {
		urls[i] = c.URLOf(i)
	}
	return strings.Join(urls, ",")
}

// URLOf is where clients connect to the i-th server.
func (c *Cluster) URLOf(i int) string {
	c.nodes[i].mu.Lock()
	defer c.nodes[i].mu.Unlock()
	return fmt.Sprintf("nats://127.0.0.1:%d", c.nodes[i].port)
}

// Connect makes a connection to the cluster that is closed when the test ends; it reconnects for ever, to any server. Options come
// after the usual ones.
func (c *Cluster) Connect(name string, opts ...nats.Option) *nats.Conn {
	c.t.Helper()
	nc, err := nats.Connect(c.URL(), append([]nats.Option{
		nats.Name(name),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(20 * time.Millisecond),
		nats.ReconnectJitter(10*time.Millisecond, 10*time.Millisecond),
		nats.RetryOnFailedConnect(true),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // the default prints
	}, opts...)...)
	if err != nil {
		c.t.Fatalf("connect %s: %v", name, err)
	}
	c.t.Cleanup(nc.Close)
	return nc
}

// Ready waits until all running servers are current and know a leader.
func (c *Cluster) Ready(ctx context.Context) error {
	return c.until(ctx, "a leader, and all running servers current", func() bool {
		lead := false
		for i := range c.nodes {
			if s := c.Server(i); s != nil {
				if !s.JetStreamIsCurrent() {
					return false
				}
				lead = lead || s.JetStreamIsLeader()
			}
		}
		return lead
	})
}

// tryOut makes a stream on all servers, writes to it, and removes it: that ports are open says nothing yet (R34).
func (c *Cluster) tryOut(ctx context.Context) error {
	nc, err := nats.Connect(c.URL(), nats.Timeout(10*time.Second), nats.MaxReconnects(-1), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		return fmt.Errorf("testenv: cluster: %w", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("testenv: cluster: %w", err)
	}
	const name = "TESTENV_READY"
	for {
		try, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err = js.CreateOrUpdateStream(try, jetstream.StreamConfig{Name: name, Subjects: []string{name}, Replicas: min(len(c.nodes), 5)})
		if err == nil {
			_, err = js.Publish(try, name, nil, jetstream.WithExpectLastSequencePerSubject(0))
		}
		if derr := js.DeleteStream(try, name); err == nil {
			err = derr
		}
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("testenv: cluster does not take writes: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (c *Cluster) until(ctx context.Context, what string, is func() bool) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("testenv: cluster: waiting for %s: %w", what, context.Cause(ctx))
		}
	}
	return nil
}

// Start starts the i-th server again, on the same port and data. It does not wait until the server has caught up: see [Cluster.Ready].
func (c *Cluster) Start(i int) {
	c.t.Helper()
	if err := c.launch(i); err != nil {
		c.t.Fatal(err)
	}
}

// Stop stops the i-th server as an operator does: it hands over what it leads, and returns when nothing of it runs any more.
func (c *Cluster) Stop(i int) {
	n := c.nodes[i]
	n.mu.Lock()
	s := n.s
	n.s = nil
	n.mu.Unlock()
	if s != nil {
		s.Shutdown()
		s.WaitForShutdown()
	}
}

// Kill ends the i-th server without a word to anybody, as kill -9 does to a process: the others have to find out that what it led has
// no leader any more. What it had written stays, as it does in the page cache of a machine that goes on.
func (c *Cluster) Kill(i int) {
	c.Isolate(i)
	c.Stop(i)
	// A Start mends what leads from here to the others; what leads here is of no use until then.
	for _, n := range c.nodes {
		if w := n.routes[i]; w != nil {
			w.mend()
		}
	}
}

// Isolate cuts the i-th server off from the other servers, silently: nothing is closed. Its clients stay connected. Rejoin ends that.
func (c *Cluster) Isolate(i int) {
	c.wires(i, (*wire).cut)
}

// Rejoin lets an isolated server speak with the others again, over new connections.
func (c *Cluster) Rejoin(i int) {
	c.wires(i, (*wire).mend)
}

func (c *Cluster) wires(i int, do func(*wire)) {
	for j, n := range c.nodes {
		for k, w := range n.routes {
			if w != nil && (j == i || k == i) {
				do(w)
			}
		}
	}
}

// StreamLeader says which server leads a bucket's stream; -1 while none does. The namespace "default" has the bucket "QUORATE_default".
func (c *Cluster) StreamLeader(bucket string) int {
	for i := range c.nodes {
		if s := c.Server(i); s != nil && s.JetStreamIsStreamLeader(server.DEFAULT_GLOBAL_ACCOUNT, "KV_"+bucket) {
			return i
		}
	}
	return -1
}

// StepDownStream has another server lead a bucket's stream, and waits until one does. It returns the one before and the one after.
func (c *Cluster) StepDownStream(ctx context.Context, bucket string) (from, to int, err error) {
	from, to = -1, -1
	if err := c.until(ctx, "a leader of "+bucket, func() bool { from = c.StreamLeader(bucket); return from >= 0 }); err != nil {
		return from, to, err
	}
	s := c.Server(from)
	if s == nil {
		return from, to, fmt.Errorf("testenv: server %d of the cluster was stopped", from)
	}
	if err := s.JetStreamStepdownStream(server.DEFAULT_GLOBAL_ACCOUNT, "KV_"+bucket); err != nil {
		return from, to, fmt.Errorf("testenv: step-down of %s: %w", bucket, err)
	}
	err = c.until(ctx, "another leader of "+bucket, func() bool { to = c.StreamLeader(bucket); return to >= 0 && to != from })
	return from, to, err
}

// A wire is a way from one server to another over TCP, which can be cut without either side seeing anything closed.
type wire struct {
	to func() (net.Conn, error)
	l  net.Listener
	wg sync.WaitGroup

	mu     sync.Mutex
	cond   *sync.Cond
	held   bool
	closed bool
	conns  map[net.Conn]struct{}
}

func newWire(to func() (net.Conn, error)) (*wire, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("testenv: %w", err)
	}
	w := &wire{to: to, l: l, conns: map[net.Conn]struct{}{}}
	w.cond = sync.NewCond(&w.mu)
	w.wg.Go(w.accept)
	return w, nil
}

func (w *wire) addr() string { return w.l.Addr().String() }

func (w *wire) accept() {
	for {
		near, err := w.l.Accept()
		if err != nil {
			return
		}
		w.wg.Go(func() { w.carry(near) })
	}
}

// carry is one connection. Both ends are closed together.
func (w *wire) carry(near net.Conn) {
	defer near.Close()
	w.mu.Lock()
	held := w.held || w.closed
	w.mu.Unlock()
	if held {
		return
	}
	far, err := w.to()
	if err != nil {
		return
	}
	defer far.Close()
	w.mu.Lock()
	w.conns[near], w.conns[far] = struct{}{}, struct{}{}
	w.mu.Unlock()
	var both sync.WaitGroup
	pump := func(from, to net.Conn) {
		defer near.Close()
		defer far.Close()
		buf := make([]byte, 32<<10)
		for {
			n, err := from.Read(buf)
			if err != nil || !w.pass() {
				return
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
	}
	both.Go(func() { pump(near, far) })
	both.Go(func() { pump(far, near) })
	both.Wait()
	w.mu.Lock()
	delete(w.conns, near)
	delete(w.conns, far)
	w.mu.Unlock()
}

// pass waits while the wire is cut. False: what was held is lost, with its connection.
func (w *wire) pass() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.held {
		return !w.closed
	}
	for w.held && !w.closed {
		w.cond.Wait()
	}
	return false
}

func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held = true
}

// mend lets new connections through; those of before the cut are closed.
func (w *wire) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.held {
		return
	}
	w.held = false
	w.hangUp()
}

func (w *wire) hangUp() {
	for c := range w.conns {
		c.Close()
	}
	w.cond.Broadcast()
}

func (w *wire) close() {
	w.l.Close()
	w.mu.Lock()
	w.closed = true
	w.hangUp()
	w.mu.Unlock()
	w.wg.Wait()
}
