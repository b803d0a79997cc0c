package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"os"
	"strings"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/dashboard"
	"github.com/quorate/quorate/internal/inner"
	"github.com/quorate/quorate/internal/wire"
)

func webCommand() *command {
	return &command{
		name:    "web",
		section: sectionServe,
		summary: "serve a live page of groups, members, leaders, shares and votes",
		about: "Serves one page for browsers: the groups, or only those that are named; of each its members with their shares of the work, who leads and who is late, " +
			"a time line of leaders and generations, and ballots with their tallies. It follows what happens by itself. Step-down, evict and vote can be done from it, each after a " +
			"confirmation.\n\n" +
			"It listens on loopback only, unless --listen says otherwise. Whoever reaches another address could act: then a password (--password-file), certificates (--http-ca) or " +
			"--read-only is wanted, or --no-password, which says that this is meant. The page is shown under IP addresses, localhost, and the names given with --host. " +
			"docs/web.md says how it is protected, and how to put it behind a proxy.\n\n" +
			monitored + " Metrics are protected as the page is.\n\n" +
			"The namespace need not exist yet: the page waits for it, and makes none.",
		args: []argSpec{{name: "GROUP", many: true, optional: true}},
		flags: append([]flagSpec{
			{name: "listen", value: "ADDR", def: "127.0.0.1:8080", usage: "where browsers connect to"},
			{name: "host", kind: kindList, value: "NAME", usage: "a name that the page may be asked for by, beside localhost and IP addresses"},
			{name: "read-only", kind: kindBool, usage: "nothing can be done from the page"},
			{name: "password-file", value: "FILE", usage: "file with the password that browsers must give, with any user name"},
			{name: "no-password", kind: kindBool, usage: "whoever reaches the page may act, also beyond loopback"},
			{name: "viewers", kind: kindInt, value: "N", def: "100", usage: "how many may look at live updates at a time"},
		}, httpTLSFlags()...),
		needs:  needServer,
		runsOn: true,
		examples: []example{
			{"quorate web", "then open http://127.0.0.1:8080"},
			{"quorate web workers valves --read-only --listen :8080", "two groups, for everybody to look at"},
			{"quorate web --listen :8443 --host ops.example.org --password-file web.txt", "with a password; add --http-cert and --http-key"},
		},
		exits: []exitSpec{{ExitDone, "interrupted"}, {ExitFailed, "failed; also: the address is in use"}},
		run:   runWeb,
	}
}

func runWeb(ctx context.Context, c *call) error {
	cfg, conf, err := c.webConfig()
	if err != nil {
		return err
	}
	l, err := c.listen(ctx, c.str("listen"))
	if err != nil {
		return err
	}
	defer l.Close()
	if !loopback(l) && !cfg.ReadOnly && cfg.Password == "" && (conf == nil || conf.ClientCAs == nil) && !c.bool("no-password") {
		return usageError("web: whoever reaches %s could step leaders down and evict members: add --read-only, --password-file FILE or --http-ca FILE; or --no-password, if that is meant",
			c.str("listen"))
	}
	nc, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer nc.Close()
	if cfg.Where = nc.where; nc.host != nil {
		cfg.Where = "this host's server" // where its data lie is nothing that viewers need to know
	}
	c.mon = c.newMonitor(false)
	c.mon.becomes(func() error { return errors.New("the namespace does not exist yet") })
	cfg.Beside = map[string]http.Handler{"/metrics": c.mon}
	d := dashboard.New(cfg)
	run, end := context.WithCancelCause(ctx)
	defer end(nil)
	url, stop := c.serveOn(l, conf, c.besidePage(d), 1000, end)
	defer stop()
	c.note("web: %s", url)
	if cfg.Password != "" && conf == nil && !loopback(l) {
		c.note("web: without TLS the password can be read on the way: --http-cert and --http-key, or a proxy on this host")
	}
	told := false
	err = d.Run(run, func(ctx context.Context) (*quorate.Namespace, error) {
		ns, err := c.lookAt(ctx, nc)
		if err == nil {
			c.mon.becomes(nc.connected)
		}
		if errors.Is(err, quorate.ErrBucketMissing) && !told {
			told = true
			c.note("web: namespace %q does not exist yet: waiting until somebody joins a group in it", c.g.namespace)
		}
		return ns, err
	})
	switch cause := context.Cause(run); {
	case err != nil:
		return err
	case ctx.Err() == nil && cause != nil:
		return cause
	}
	return nil
}

// besidePage serves health beside the page: it is asked for by whatever name or address, and without the password, and tells nothing. Metrics are asked for as the page is.
func (c *call) besidePage(page http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" || r.URL.Path == "/readyz" {
			c.mon.ServeHTTP(w, r)
			return
		}
		page.ServeHTTP(w, r)
	})
}

// webConfig reads arguments, flags and files: whatever is wrong with them is said before anything is connected.
func (c *call) webConfig() (cfg dashboard.Config, conf *tls.Config, err error) {
	if err := quorate.CheckLease(c.g.lease); err != nil {
		_, from := c.setting("lease")
		return cfg, nil, usageError("%s: %w", c.spelled("lease", from), err)
	}
	for _, g := range c.args {
		if err := wire.CheckGroup(g); err != nil {
			return cfg, nil, err
		}
	}
	cfg = dashboard.Config{Groups: c.args, ReadOnly: c.bool("read-only"), Hosts: c.list("host"), Viewers: c.integer("viewers"), Namespace: c.g.namespace,
		Timeout: c.g.timeout, Logger: c.logger(), Audit: func(line string) { c.note("web: %s", line) }}
	if cfg.Viewers == 0 {
		return cfg, nil, usageError("--viewers %q: it must be more than 0", c.str("viewers"))
	}
	for _, h := range cfg.Hosts {
		if h == "" || strings.ContainsAny(h, "/@ ") {
			return cfg, nil, usageError("--host %q: a name is meant, as in ops.example.org", h)
		}
	}
	if file := c.str("password-file"); file != "" {
		if c.bool("no-password") {
			return cfg, nil, usageError("--password-file and --no-password: leave one out")
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return cfg, nil, failure(ExitFailed, "web: password file %s: %w", file, plainFile(err))
		}
		if cfg.Password, _, _ = strings.Cut(string(text), "\n"); strings.TrimSpace(cfg.Password) == "" {
			return cfg, nil, failure(ExitFailed, "web: password file %s: its first line is empty", file)
		}
		cfg.Password = strings.TrimSuffix(cfg.Password, "\r")
	}
	if conf, err = c.httpTLS(); err != nil {
		return cfg, nil, err
	}
	cfg.TLS = conf != nil
	return cfg, conf, nil
}

// lookAt attaches to the namespace, within --timeout, and does not make it.
func (c *call) lookAt(ctx context.Context, nc *conn) (*quorate.Namespace, error) {
	first, cancel := c.bounded(ctx)
	defer cancel()
	ns, err := quorate.OpenWith(first, nc.Conn, quorate.Config{Namespace: c.g.namespace, JSDomain: nc.jsDomain, Lease: c.g.lease, Logger: c.logger(), Hooks: c.mon.hooks()},
		inner.Options{AttachOnly: true})
	if err != nil && ctx.Err() == nil && !errors.Is(err, quorate.ErrBucketMissing) {
		err = c.failed(first, err)
	}
	return ns, err
}
