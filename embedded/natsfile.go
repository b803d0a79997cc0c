package embedded

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// A NATSFile is an ordinary configuration file of the NATS server ([ReadNATSFile]).
type NATSFile struct {
	Log Log // what the file says of the log

	path string
	opts *server.Options
}

// NATSFileOptions of [StartNATSFile]. The zero value works.
type NATSFileOptions struct {
	// Connect is how [Server.Ready] comes in, if the file demands users; default what the file itself tells: its token, or its only user. With neither,
	// Ready looks at the server from inside but makes no write.
	Connect []nats.Option

	// Namespace whose bucket [Server.Ready] makes and writes to; default "default".
	Namespace string

	Logger *slog.Logger // default discards
}

// ReadNATSFile reads a configuration file of the NATS server, and refuses what coordination cannot rest on: no JetStream, no store directory (the server's
// default is a temporary one), a cluster of two.
func ReadNATSFile(ctx context.Context, path string) (*NATSFile, error) {
	opts, err := server.ProcessConfigFile(path)
	if err != nil {
		return nil, fmt.Errorf("embedded: NATS configuration: %s", strings.Join(strings.Fields(err.Error()), " "))
	}
	refused := func(format string, args ...any) (*NATSFile, error) {
		return nil, fmt.Errorf("embedded: NATS configuration %s: "+format, append([]any{path}, args...)...)
	}
	if !opts.JetStream {
		return refused("JetStream is not on: add a jetstream block with a store_dir")
	}
	if opts.StoreDir == "" {
		return refused("jetstream has no store_dir: name a directory that outlives the process")
	}
	if others := otherServers(ctx, opts); clustered(opts) && others == 1 {
		return refused("its routes name one other server, and with two servers the loss of either stops both: name all of the cluster's in routes, three or five")
	}
	f := &NATSFile{path: path, opts: opts, Log: Log{File: opts.LogFile}}
	if opts.Debug || opts.Trace {
		f.Log.Level = "debug"
	}
	return f, nil
}

func clustered(o *server.Options) bool { return o.Cluster.Port != 0 || o.Cluster.ListenStr != "" }

// otherServers counts those that the routes name besides this one, which a file that all share may name too.
func otherServers(ctx context.Context, o *server.Options) int {
	own, err := ownAddresses()
	if err != nil {
		own = nil
	}
	others := map[string]bool{}
	for _, r := range o.Routes {
		if !isOwn(ctx, r, o, own) {
			others[strings.ToLower(r.Host)] = true
		}
	}
	return len(others)
}

func isOwn(ctx context.Context, r *url.URL, o *server.Options, own []netip.Addr) bool {
	if r.Port() != strconv.Itoa(o.Cluster.Port) {
		return false
	}
	if r.Hostname() == o.Cluster.Host {
		return true
	}
	addrs, err := lookup(ctx, r.Hostname())
	if err != nil {
		return false
	}
	listens, _ := netip.ParseAddr(o.Cluster.Host)
	for _, a := range addrs {
		// Another address of this machine with the same port is another server, if this one listens on one address only.
		if a == listens || !(listens.IsValid() && !listens.IsUnspecified()) && owned(own)(a) {
			return true
		}
	}
	return false
}

// StartNATSFile starts the server that the file describes. What the file says of signals and logging is not used: they are the process's own.
func StartNATSFile(ctx context.Context, f *NATSFile, o NATSFileOptions) (*Server, error) {
	dir, err := filepath.Abs(f.opts.StoreDir)
	if err != nil {
		return nil, dirError("store directory", f.opts.StoreDir, err)
	}
	l := launching{
		// The directory stays the file's: a server that was run on it without quorate finds its data.
		options:   func(string) (*server.Options, error) { return f.opts.Clone(), nil },
		reload:    func(string) reloading { return f.reloading() },
		inside:    o.Connect,
		namespace: o.Namespace, log: o.Logger, notices: slog.LevelInfo,
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if !f.opts.SyncAlways {
		l.log.Warn("embedded: a power loss can take acknowledged writes along, and with them promises about leaders: set jetstream { sync_interval: always }",
			"file", f.path, "sync_interval", or(f.opts.SyncInterval, 2*time.Minute))
	}
	if len(l.inside) == 0 {
		l.inside, l.outside = f.comeIn()
	}
	if l.outside {
		l.log.Warn("embedded: the file demands users, and none was given: that the server takes writes is not tried", "file", f.path)
	}
	return launch(ctx, dir, l)
}

// comeIn finds how to connect by what the file says; outside: it does not say.
func (f *NATSFile) comeIn() (options []nats.Option, outside bool) {
	plain := func(s string) bool { return s != "" && !strings.HasPrefix(s, "$2") } // a bcrypt hash opens nothing
	o := f.opts
	switch {
	case plain(o.Authorization):
		return nil, false // known to whoever starts it
	case o.Username != "" && plain(o.Password):
		return []nats.Option{nats.UserInfo(o.Username, o.Password)}, false
	case o.NoAuthUser != "":
		return nil, false
	case o.Authorization != "", o.Username != "", len(o.Users) > 0, len(o.Nkeys) > 0, len(o.TrustedOperators) > 0, len(o.TrustedKeys) > 0, o.AuthCallout != nil:
		return nil, true
	}
	return nil, false
}
