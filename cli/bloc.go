package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/bloc"
	"github.com/quorate/quorate/internal/wire"
)

func blocCommand() *command {
	return &command{
		name:    "bloc",
		section: sectionServe,
		summary: "serve bloc's HTTP API over a group, for clients of bloc",
		about: "Unchanged clients of bloc become members of the group: each session is a member under its Bloc-Session-ID, beside native members " +
			"(`quorate join`), and is told its index and the total, counted from 1 as bloc does. Several gateways may serve one group, behind one " +
			"address; when one is killed its clients find their sessions on another. docs/bloc.md says what is the same as in bloc and what is not.\n\n" +
			"Times are durations, or seconds as plain numbers. A settle time must be at least two intervals of the clients, and at most 1.63 leases; " +
			"else the gateway refuses to start and names the lease that is needed.\n\n" +
			monitored + "\n\n" +
			"After `bloc` the letter -s is --settle, as in bloc's own command: write --server for the NATS server.",
		args: []argSpec{{name: "GROUP"}},
		flags: append([]flagSpec{
			{name: "listen", value: "ADDR", def: "127.0.0.1:8989", usage: "where clients connect to"},
			{name: "session-timeout", local: "t", kind: kindSeconds, value: "D", usage: "a client that was not heard for so long is gone (default: the settle time)"},
			{name: "settle", local: "s", kind: kindSeconds, value: "D", usage: "the group is shared anew when nobody has come or gone for so long; " +
				"and a client may believe SETTLED for so long without being heard (default: half a lease; and 1.5 leases)"},
			{name: "client-interval", kind: kindSeconds, value: "D", usage: "how often clients ask, at most (default: half the settle time)"},
			{name: "id", value: "ID", usage: "the gateway's own member id (default: the host's name and a random part)"},
		}, httpTLSFlags()...),
		needs:  needServer,
		runsOn: true,
		examples: []example{
			{"quorate bloc workers", "clients ask http://127.0.0.1:8989 every 2.25 s, or more often"},
			{"quorate bloc workers -t 4 -s 6 --lease 4s", "in place of bloc's `twist bloc -t 4 -s 6`"},
			{"curl -H 'Bloc-Session-ID: web-1' http://127.0.0.1:8989/index", "what a client asks"},
		},
		exits: []exitSpec{{ExitDone, "interrupted, and all sessions have left"}, {ExitFailed, "failed; also: the gateway was evicted, the address is in use"}},
		run:   runBloc,
	}
}

func runBloc(ctx context.Context, c *call) error {
	group := c.arg(0)
	if err := wire.CheckGroup(group); err != nil {
		return err
	}
	if err := quorate.CheckLease(c.g.lease); err != nil {
		_, from := c.setting("lease")
		return usageError("%s: %w", c.spelled("lease", from), err)
	}
	cfg := bloc.Config{Timeout: c.seconds("session-timeout"), Settle: c.seconds("settle"), Interval: c.seconds("client-interval"),
		ID: c.str("id"), Listen: c.str("listen"), Logger: c.logger()}
	for name, d := range map[string]time.Duration{"session-timeout": cfg.Timeout, "settle": cfg.Settle, "client-interval": cfg.Interval} {
		if c.isSet(name) && d == 0 {
			return usageError("--%s %q: it must be more than 0", name, c.str(name))
		}
	}
	if err := cfg.Check(c.g.lease); err != nil {
		return usageError("bloc: %w", err)
	}
	conf, err := c.httpTLS()
	if err != nil {
		return err
	}
	l, err := c.listen(ctx, cfg.Listen)
	if err != nil {
		return err
	}
	cfg.Listen = l.Addr().String()
	c.mon = c.newMonitor(false)
	h := c.serveHTTP(l, conf)
	defer h.close()

	s, err := c.session(ctx)
	if err != nil {
		return err
	}
	waiting := time.AfterFunc(time.Second, func() { c.note("bloc: waiting to become a member of group %q", group) })
	gw, err := bloc.Open(ctx, s.ns, group, cfg)
	waiting.Stop()
	if err != nil {
		s.Close()
		if ctx.Err() != nil {
			return nil // interrupted while it waited: nothing is left of it
		}
		return c.failed(ctx, errors.New(strings.TrimPrefix(err.Error(), "bloc: ")))
	}
	h.door.Open(gw)
	c.mon.becomes(func() error {
		if cause := context.Cause(gw.Context()); cause != nil {
			return cause
		}
		return s.nc.connected()
	})
	c.note("bloc: group %q at %s, as %s", group, h.url, gw.ID())
	if !loopback(l) && (conf == nil || conf.ClientCAs == nil) {
		c.note("bloc: whoever reaches %s can be a client: --http-ca asks for certificates", l.Addr())
	}
	err = c.tend(ctx, gw, h)
	return s.end(ctx, err)
}

// httpServer is the side of the gateway that clients see. Until the door is open they are told to go elsewhere.
type httpServer struct {
	door   bloc.Door
	srv    *http.Server
	url    string
	served chan struct{} // closed when it serves no more, for the reason err
	err    error
}

func (c *call) serveHTTP(l net.Listener, conf *tls.Config) *httpServer {
	const connections = 10000
	h := &httpServer{url: "http://" + l.Addr().String(), served: make(chan struct{})}
	l = bloc.Limit(l, connections)
	if conf != nil {
		l = tls.NewListener(l, conf)
		h.url = "https" + strings.TrimPrefix(h.url, "http")
	}
	h.srv = bloc.Server(c.mon.beside(&h.door), c.logger())
	go func() {
		h.err = h.srv.Serve(l)
		close(h.served)
	}()
	return h
}

func (h *httpServer) close() {
	_ = h.srv.Close() // connections that are still busy are cut off
	<-h.served
}

// tend is the life of the gateway.
func (c *call) tend(ctx context.Context, gw *bloc.Gateway, h *httpServer) (failed error) {
	select {
	case <-ctx.Done():
	case <-gw.Context().Done():
		failed = failure(ExitFailed, "bloc: the gateway is no member of group %q any more: %w", c.arg(0), context.Cause(gw.Context()))
	case <-h.served:
		failed = failure(ExitFailed, "bloc: %w", h.err)
	}
	c.mon.becomes(func() error { return errors.New("it is leaving") })
	// Clients are told until all of them have stopped; then nobody answers any more.
	bounded, cancel := context.WithTimeout(context.Background(), gw.Parting())
	defer cancel()
	if err := gw.Close(bounded); err != nil && failed == nil {
		c.note("%s", err)
	}
	_ = h.srv.Shutdown(bounded) // what does not end is cut off by close
	return failed
}
