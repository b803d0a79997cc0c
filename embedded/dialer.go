package embedded

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	dialTimeout = time.Second // for the connection, and again for the server's first line; the nats connection is locked meanwhile
	maxInfo     = 64 << 10    // bytes of the first line

	redialMin = 10 * time.Millisecond // between two attempts of a connection, with jitter up to redialMax
	redialMax = 50 * time.Millisecond
	redialOff = time.Second // of a connection that outlived its Host

	// anyURL is what the nats connection believes to dial; the dialer goes where host.json says.
	anyURL = "nats://127.0.0.1:4222"
)

// Options gives the options with which [nats.Connect] connects to whichever process of the host serves, and goes on doing
// so for good; the URL given to it is not used. Options that are added behind these win.
//
// A connection made with them is the caller's: close it before the Host. [Host.Connect] does that by itself.
func (h *Host) Options() []nats.Option {
	return []nats.Option{
		func(o *nats.Options) error { o.Url, o.Servers = "", []string{anyURL}; return nil },
		nats.SetCustomDialer((*dialer)(h)),
		nats.TokenHandler(h.token),
		nats.MaxReconnects(-1),
		nats.RetryOnFailedConnect(true),
		nats.ReconnectBufSize(-1), // nothing is sent later than it was meant to be
		nats.CustomReconnectDelay(h.redialDelay),
		// The token may belong to a server that ended a moment ago; the next attempt reads the next one.
		nats.IgnoreAuthErrorAbort(),
		nats.IgnoreDiscoveredServers(),
	}
}

// Connect connects to the server of the host, waiting until ctx ends for one that answers. The connection is closed with
// the Host, if not before.
//
// Also the serving process connects through loopback, with the same dialer: then it need not know whether it serves,
// and its connection moves by itself when it no longer does. (In process would be no faster: that is a synchronous pipe.)
func (h *Host) Connect(ctx context.Context, opts ...nats.Option) (*nats.Conn, error) {
	nc, err := nats.Connect("", append(h.Options(), opts...)...)
	if err != nil {
		return nil, fmt.Errorf("embedded: connect to the server in %s: %w", h.dir, err)
	}
	if !h.adopt(nc) {
		nc.Close()
		return nil, fmt.Errorf("embedded: connect to the server in %s: %w", h.dir, ErrClosed)
	}
	changed := nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer nc.RemoveStatusListener(changed)
	for !nc.IsConnected() {
		if nc.IsClosed() {
			return nil, fmt.Errorf("embedded: connect to the server in %s: %w", h.dir, ErrClosed)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			nc.Close()
			return nil, h.waited(ctx) // it names the directory
		}
	}
	return nc, nil
}

func (h *Host) redialDelay(int) time.Duration {
	if h.dialing.Err() != nil {
		return redialOff
	}
	return redialMin + rand.N(redialMax-redialMin)
}

// token is asked for after the dial, on each attempt. An empty one is refused by the server, and tried again.
func (h *Host) token() string {
	token, err := h.dir.token()
	if err != nil {
		h.log.Debug("embedded: no token", "dir", string(h.dir), "error", err)
	}
	return token
}

// A dialer is a Host as a nats.CustomDialer.
type dialer Host

// Dial ignores the address and connects to the process that serves.
func (d *dialer) Dial(string, string) (net.Conn, error) {
	h := (*Host)(d)
	c, err := h.dial(h.dialing)
	if err != nil {
		h.lostServer()
		return nil, err
	}
	return c, nil
}

// dial connects to the process that serves, and hangs up if something else answers (H4).
func (h *Host) dial(ctx context.Context) (net.Conn, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("embedded: %w", ErrClosed)
	}
	// With the lock free, what host.json says is of the past: its port may belong to anybody by now.
	held, err := lockHeld(h.dir.path(hostLock))
	if err != nil {
		return nil, dirError("state directory", string(h.dir), err)
	}
	if !held {
		return nil, h.noServer()
	}
	// Read at each dial: that is what makes a take-over need no fixed port.
	info, err := h.dir.server()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("embedded: the server in %s (%s) is not up yet", h.dir, holder(h.dir.path(hostLock)))
	}
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(info.URL)
	if err != nil {
		return nil, fmt.Errorf("embedded: %s: %w", h.dir.path(hostFile), err)
	}
	nd := net.Dialer{Timeout: dialTimeout}
	nc, err := nd.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, fmt.Errorf("embedded: server in %s (pid %d): %w", h.dir, info.PID, err)
	}
	first, err := greet(ctx, nc, info.Server)
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("embedded: server in %s (pid %d) at %s: %w", h.dir, info.PID, u.Host, err)
	}
	return &hostConn{Conn: nc, first: first, lost: h.lostServer}, nil
}

// greet reads what the server says first, up to its first line at least, and checks the name in it.
func greet(ctx context.Context, nc net.Conn, name string) ([]byte, error) {
	nc.SetReadDeadline(time.Now().Add(dialTimeout))
	stop := context.AfterFunc(ctx, func() { nc.SetReadDeadline(time.Unix(1, 0)) })
	var got []byte
	buf := make([]byte, 4096)
	for {
		n, err := nc.Read(buf)
		got = append(got, buf[:n]...)
		if line, _, ok := bytes.Cut(got, []byte("\n")); ok {
			if err := checkInfo(line, name); err != nil {
				return nil, err
			}
			break
		}
		if err != nil {
			return nil, fmt.Errorf("does not answer: %w", err)
		}
		if len(got) > maxInfo {
			return nil, fmt.Errorf("%w: its first line is too long", ErrWrongServer)
		}
	}
	if !stop() {
		return nil, ErrClosed // the deadline was, or is just being, put into the past
	}
	return got, nc.SetReadDeadline(time.Time{})
}

// checkInfo looks for the server's name in its INFO line.
func checkInfo(line []byte, name string) error {
	body, ok := bytes.CutPrefix(line, []byte("INFO "))
	var info struct {
		Name string `json:"server_name"`
	}
	if !ok || json.Unmarshal(body, &info) != nil {
		return fmt.Errorf("%w: it does not speak NATS", ErrWrongServer)
	}
	if info.Name != name {
		return fmt.Errorf("%w: it is %q, not %q", ErrWrongServer, info.Name, name)
	}
	return nil
}

// A hostConn gives back what greet has read, and tells its Host at once when the connection breaks.
type hostConn struct {
	net.Conn
	first []byte // used by the one reader only
	lost  func()
	once  sync.Once
}

func (c *hostConn) Read(b []byte) (int, error) {
	if len(c.first) > 0 {
		n := copy(b, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	n, err := c.Conn.Read(b)
	var timeout net.Error
	if err != nil && !(errors.As(err, &timeout) && timeout.Timeout()) {
		c.once.Do(c.lost)
	}
	return n, err
}
