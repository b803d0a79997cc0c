package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"golang.org/x/net/proxy"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/embedded"
)

// Bounds of attempt.
const (
	attemptMost  = 2 * time.Second
	attemptLeast = 500 * time.Millisecond
)

// closeMost is the longest that leaving this host's server may take at the end of a command.
const closeMost = 5 * time.Second

// A conn is a connection to NATS, with what else a command needs to know of it.
type conn struct {
	*nats.Conn
	jsDomain string
	where    string         // for messages: where it is connected, without secrets
	host     *embedded.Host // one-host embedded; else nil
}

// Close closes the connection, and this process's share in this host's server. What is to end in order (terms,
// memberships) must end before.
func (c *conn) Close() error {
	c.Conn.Close()
	if c.host == nil {
		return nil
	}
	return closeHost(c.host)
}

func closeHost(h *embedded.Host) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeMost)
	defer cancel()
	if err := h.Close(ctx); err != nil {
		return failure(ExitFailed, "%s", strings.TrimPrefix(err.Error(), "embedded: "))
	}
	return nil
}

// connect connects to what the settings say; on top come the command's own options (handlers). It takes no longer than
// --timeout. A command that runs on says on standard error where it is. The caller closes the connection.
func (c *call) connect(ctx context.Context, extra ...nats.Option) (*conn, error) {
	s, err := c.settings()
	if err != nil {
		return nil, err
	}
	var nc *conn
	if s.embedded {
		nc, err = c.open(ctx, s, extra...)
	} else {
		nc, err = c.dial(ctx, s, extra...)
	}
	if err != nil {
		return nil, err
	}
	if c.cmd.runsOn || c.g.verbose {
		c.note("%s: connected to %s", c.cmd.name, nc.where)
	}
	return nc, nil
}

// open connects to the server of this host. Commands that need a server become it when nobody is, the others do not: a
// server that ends with a one-shot command would only be in the way.
func (c *call) open(ctx context.Context, s *settings, extra ...nats.Option) (*conn, error) {
	first, cancel := c.bounded(ctx)
	defer cancel()
	dir := s.stateDir
	if dir == "" {
		dir = defaultStateDir(c.env)
	}
	told := make(chan struct{}) // closed once it is known whether this process serves
	tell := sync.OnceFunc(func() { close(told) })
	defer tell()
	var serving atomic.Bool // it says that this process serves
	h, err := embedded.OpenHost(first, embedded.HostOptions{
		Dir:        dir,
		ClientOnly: c.cmd.needs != needServer,
		Logger:     c.logger(),
		OnServe: func(string) {
			<-told
			if !serving.Swap(false) && c.cmd.runsOn {
				c.note("%s: this host's server in %s is served by this process now", c.cmd.name, dir)
			}
		},
	})
	if err != nil {
		return nil, c.openError(ctx, err)
	}
	opts := append(c.commonOptions(s), extra...)
	nc, err := h.Connect(first, opts...)
	if err != nil {
		_ = closeHost(h) // the error that counts is the connection's
		return nil, c.openError(ctx, err)
	}
	where := "this host's server in " + h.Dir()
	if info, err := h.Server(); err == nil && info.PID == os.Getpid() {
		where += ", served by this process"
		serving.Store(true)
	}
	return &conn{Conn: nc, where: where, host: h}, nil
}

func (c *call) openError(ctx context.Context, err error) error {
	text := strings.TrimPrefix(err.Error(), "embedded: ")
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		text = strings.Replace(text, ": "+context.DeadlineExceeded.Error(), fmt.Sprintf(" within %s", c.g.timeout), 1)
		return &exitError{code: ExitUnanswered, err: err, text: c.cmd.name + ": " + text}
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	if errors.Is(err, embedded.ErrNoServer) {
		return failure(ExitFailed, "%s: %s: 'quorate join GROUP' would start one; or name yours with --server", c.cmd.name, text)
	}
	return failure(ExitFailed, "%s: %s", c.cmd.name, text)
}

// defaultStateDir is embedded.DefaultDir by our environment; "" leaves it to that.
func defaultStateDir(env map[string]string) string {
	if dir := env["XDG_STATE_HOME"]; filepath.IsAbs(dir) {
		return filepath.Join(dir, "quorate")
	}
	if home := env["HOME"]; home != "" {
		return filepath.Join(home, ".local", "state", "quorate")
	}
	return ""
}

// dial connects to the server of the settings; on top come the command's own options (handlers). It takes no longer
// than --timeout. The caller closes the connection.
//
// A plain nats.Connect would keep every guarantee; these are the options that quorate likes best (field rule R21).
func (c *call) dial(ctx context.Context, s *settings, extra ...nats.Option) (*conn, error) {
	first, cancel := c.bounded(ctx)
	defer cancel()
	d := &dialer{settings: s, attempt: c.attempt(s)}
	d.first.Store(&first)
	defer d.first.Store(nil)

	opts, err := c.connOptions(s)
	if err != nil {
		return nil, err
	}
	opts = append(append(opts, nats.SetCustomDialer(d)), extra...)
	var nc *nats.Conn
	for {
		d.failed.Store(nil)
		if nc, err = nats.Connect(s.server, opts...); err == nil {
			break
		}
		// The server that could not be dialled says more than nats.go's summary.
		if errors.Is(err, nats.ErrNoServers) && d.last() != nil {
			err = d.last()
		}
		// An attempt is short: a packet that is lost, or a busy server, takes longer. (One that is refused fails at once.)
		if !slow(err) || first.Err() != nil {
			break
		}
	}
	if err != nil {
		if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, context.Cause(ctx)
		}
		if first.Err() != nil {
			hint := "is a NATS server running there?"
			if (s.tlsCA != "" || s.tlsCert != "") && !s.tlsFirst { // a server that waits for the handshake says nothing
				hint = "is a NATS server running there, and does it want --tlsfirst?"
			}
			return nil, failure(ExitUnanswered, "cannot reach %s: no answer within %s: %s%s", s.redacted(), c.g.timeout, hint, s.named())
		}
		return nil, connectError(s, err)
	}
	where := redactURL(nc.ConnectedUrl())
	if s.context != "" {
		where += " (context " + s.context + ")"
	}
	return &conn{Conn: nc, jsDomain: s.jsDomain, where: where}, nil
}

// slow says whether an attempt to connect got no answer in its time.
func slow(err error) bool {
	var n net.Error
	return errors.Is(err, nats.ErrTimeout) || errors.As(err, &n) && n.Timeout()
}

// commonOptions are the options of every connection of our own, to this host's server too.
func (c *call) commonOptions(s *settings) []nats.Option {
	log := c.logger()
	return []nats.Option{
		nats.Name("quorate " + c.cmd.name),
		nats.PingInterval(max(c.g.lease/5, 100*time.Millisecond)),
		nats.MaxPingsOutstanding(2),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			// nats.go would write to the standard error of the process.
			if errors.Is(err, nats.ErrPermissionViolation) {
				text := strings.TrimPrefix(err.Error(), "nats: permissions violation: ")
				c.denied.CompareAndSwap(nil, &text)
			}
			if sub != nil {
				log.Warn("nats", "subject", sub.Subject, "error", s.scrub(err.Error()))
			} else {
				log.Warn("nats", "error", s.scrub(err.Error()))
			}
		}),
	}
}

// attempt is the longest that one server may take to answer, at the first connect and at every later one: short, so
// that the next server of a list gets its turn, and so that a reconnect stays below half a member timeout (design 4.2).
func (c *call) attempt(s *settings) time.Duration {
	servers := 1 + strings.Count(s.server, ",")
	return min(max(min(attemptMost, c.g.lease), attemptLeast), c.g.timeout/time.Duration(servers))
}

// connOptions are the options of a connection to the server of the settings.
func (c *call) connOptions(s *settings) ([]nats.Option, error) {
	opts := append(quorate.Options(c.g.lease), c.commonOptions(s)...)
	opts = append(opts,
		nats.Timeout(c.attempt(s)),
		// An outage is waited out, however long, also one in which the server knows us no longer.
		nats.IgnoreAuthErrorAbort(),
		// The hosts are looked up by our dialer, which can be interrupted.
		nats.SkipHostLookup(),
	)
	who, err := c.credentials(s)
	if err != nil {
		return nil, err
	}
	opts = append(opts, who...)
	if s.tlsCert != "" {
		if _, err := tls.LoadX509KeyPair(s.tlsCert, s.tlsKey); err != nil {
			return nil, failure(ExitFailed, "TLS certificate %s with key %s: %w", s.tlsCert, s.tlsKey, plainFile(err))
		}
		opts = append(opts, nats.ClientCert(s.tlsCert, s.tlsKey))
	}
	if s.tlsCA != "" {
		opts = append(opts, nats.RootCAs(s.tlsCA))
	}
	if s.tlsFirst {
		opts = append(opts, nats.TLSHandshakeFirst())
	}
	if s.inboxPrefix != "" {
		opts = append(opts, nats.CustomInboxPrefix(s.inboxPrefix))
	}
	return opts, nil
}

// credentials are the options by which a connection shows who it is.
func (c *call) credentials(s *settings) ([]nats.Option, error) {
	switch {
	case s.creds != "":
		if data, err := os.ReadFile(s.creds); err == nil { // one that cannot be read is told of by the attempt to connect, which reads it each time
			if _, err := nkeys.ParseDecoratedUserNKey(data); err != nil {
				return nil, failure(ExitFailed, "credentials file %s: there is no user's seed in it: give a file as 'nsc generate creds' writes it", s.creds)
			}
		}
		return []nats.Option{nats.UserCredentials(s.creds)}, nil
	case s.nkey != "":
		opt, err := nats.NkeyOptionFromSeed(s.nkey)
		if err != nil {
			return nil, failure(ExitFailed, "nkey file %s: %w: give a user's seed with --nkey", s.nkey, plainFile(err))
		}
		return []nats.Option{opt}, nil
	case s.user != "":
		return []nats.Option{nats.UserInfo(s.user, s.password)}, nil
	case s.token != "":
		return []nats.Option{nats.Token(s.token)}, nil
	}
	return nil, nil
}

// plainFile leaves out of a file's error what the message names already.
func plainFile(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// connectError is the one line for a connection that could not be made: where, why, what to do.
func connectError(s *settings, err error) error {
	where := s.redacted()
	text := strings.TrimPrefix(s.scrub(err.Error()), "nats: ")
	var (
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
		parse     *url.Error
		op        *net.OpError
		file      *fs.PathError
	)
	hint, code := "is a NATS server running there?", ExitFailed
	switch {
	case errors.As(err, &parse):
		// Its text repeats the URL.
		return failure(ExitUsage, "server %s: not a URL: %s: write nats://HOST:PORT", where, s.scrub(parse.Err.Error()))
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked),
		errors.Is(err, nats.ErrAccountAuthExpired):
		return failure(ExitFailed, "%s refused the credentials: %s: check --user, --token, --creds or --nkey",
			where, strings.ToLower(text))
	case errors.As(err, &authority):
		return failure(ExitFailed, "TLS with %s: %s: give its authority with --tlsca", where, text)
	case errors.As(err, &host), errors.As(err, &invalid):
		return failure(ExitFailed, "TLS with %s: %s", where, text)
	case errors.Is(err, nats.ErrSecureConnWanted):
		return failure(ExitFailed, "TLS with %s: the server has none: leave out --tlscert, --tlsca and --tlsfirst", where)
	case errors.As(err, &record):
		return failure(ExitFailed, "TLS with %s: the server did not answer with TLS: leave out --tlsfirst?", where)
	case errors.Is(err, nats.ErrTLS), errors.As(err, &op) && strings.HasPrefix(op.Err.Error(), "tls: "):
		// An alert of the server comes with TLS 1.3 after the handshake, as an error of reading.
		return failure(ExitFailed, "TLS with %s: %s: does it want a certificate (--tlscert, --tlskey)?", where, text)
	case errors.Is(err, nats.ErrNoInfoReceived), errors.Is(err, io.EOF):
		hint = "is that a NATS server's client port?"
	case errors.As(err, &op):
		text = s.scrub(op.Err.Error()) // the rest of it names the address once more
		if i := strings.LastIndex(text, ": "); i >= 0 && strings.HasPrefix(text, "connect: ") {
			text = text[i+2:]
		}
		if op.Timeout() {
			text, code = "no answer", ExitUnanswered
		}
	case errors.As(err, &file):
		what := "file"
		switch file.Path {
		case s.creds:
			what = "credentials file"
		case s.tlsCA:
			what = "file of certificate authorities"
		}
		return failure(ExitFailed, "%s %s: %w", what, file.Path, file.Err)
	}
	return failure(code, "cannot reach %s: %s: %s%s", where, text, hint, s.named())
}

// A dialer makes the TCP connections. While first is set (the first connect) everything it has made ends with that
// context: nats.Connect takes none.
type dialer struct {
	settings *settings
	attempt  time.Duration
	first    atomic.Pointer[context.Context]
	failed   atomic.Pointer[error]
}

func (d *dialer) last() error {
	if err := d.failed.Load(); err != nil {
		return *err
	}
	return nil
}

func (d *dialer) Dial(network, address string) (net.Conn, error) {
	parent := context.Background()
	first := d.first.Load()
	if first != nil {
		parent = *first
	}
	ctx, cancel := context.WithTimeout(parent, d.attempt)
	defer cancel()
	nc, err := d.dial(ctx, network, address)
	if err != nil {
		d.failed.Store(&err)
		return nil, err
	}
	if first != nil {
		// A server that accepts and then says nothing.
		context.AfterFunc(*first, func() {
			if d.first.Load() == first {
				nc.Close()
			}
		})
	}
	return nc, nil
}

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if d.settings.socksProxy == "" {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	u, err := url.Parse(d.settings.socksProxy)
	if err != nil {
		return nil, errors.New("the context's socks_proxy is not a URL")
	}
	p, err := proxy.FromURL(u, &net.Dialer{})
	if err != nil {
		return nil, fmt.Errorf("the context's socks_proxy: %w", err)
	}
	if cd, ok := p.(proxy.ContextDialer); ok {
		return cd.DialContext(ctx, network, address)
	}
	return p.Dial(network, address)
}
