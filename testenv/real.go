package testenv

import (
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// A RealServer is a NATS server on a loopback socket with its JetStream in files that are synced at each write. It is for what
// virtual time cannot show: restarts on the same data, real sockets, real clocks. Not in a bubble.
type RealServer struct {
	*Server
	t testing.TB
}

// Real starts a server that lives as long as the test, on a free port that it keeps over Stop and Start.
func Real(t testing.TB, opts ...ServerOption) *RealServer {
	t.Helper()
	s, err := NewServer(t.TempDir(), append([]ServerOption{func(o *server.Options) {
		o.DontListen = false
		o.Host = "127.0.0.1"
		o.Port = server.RANDOM_PORT
		o.SyncAlways = true
	}}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return &RealServer{Server: s, t: t}
}

// Dir is where the server keeps its data.
func (r *RealServer) Dir() string { return r.opts.StoreDir }

// URL is where the server listens.
func (r *RealServer) URL() string { return "nats://" + r.address() }

func (r *RealServer) address() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.addr
}

// InProcessConn connects over the socket, so that a [Link] can stand before a real server too.
func (r *RealServer) InProcessConn() (net.Conn, error) { return net.Dial("tcp", r.address()) }

// Connect makes a connection that is closed when the test ends; it reconnects for ever.
func (r *RealServer) Connect(name string, opts ...nats.Option) *nats.Conn {
	r.t.Helper()
	nc, err := nats.Connect(r.URL(), append([]nats.Option{
		nats.Name(name),
		nats.Timeout(10 * time.Second), // a busy machine may stand still for longer than the default
		nats.MaxReconnects(-1),
		nats.ReconnectWait(10 * time.Millisecond),
		nats.ReconnectJitter(5*time.Millisecond, 5*time.Millisecond),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
	}, opts...)...)
	if err != nil {
		r.t.Fatalf("connect %s: %v", name, err)
	}
	r.t.Cleanup(nc.Close)
	return nc
}
