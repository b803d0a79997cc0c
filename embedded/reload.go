package embedded

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
)

// A reloading is how a server's options are made anew while it runs; the zero value is one whose options stay.
type reloading struct {
	files   []string                                                                    // whose content they follow from; none: they are always made anew
	lenient string                                                                      // the one of them that may be missing
	read    map[string][sha256.Size]byte                                                // sums of those that were read before the server started
	options func(ctx context.Context, running *server.Options) (*server.Options, error) // nil: there is nothing to make anew
	taken   func()                                                                      // the options that were made last are in force; nil: nobody needs to know
}

// contents tells one content of the files from another.
func (r reloading) contents(read map[string][sha256.Size]byte) (string, error) {
	h := sha256.New()
	for _, path := range r.files {
		sum, ok := read[path]
		if !ok {
			b, err := os.ReadFile(path)
			if err != nil && path != r.lenient {
				return "", err
			}
			if sum = sha256.Sum256(b); err != nil {
				sum = sha256.Sum256([]byte("missing"))
			}
		}
		h.Write(sum[:])
	}
	return string(h.Sum(nil)), nil
}

// Reload takes what may change while a server runs, and tells whether it had changed. Of a cluster's file that is who may come in (auth.users), and what the files
// that it names hold: the certificate, the key and the authorities. Who connects from then on, clients and other servers, meets the new ones; connections that
// stand stay, and with them memberships and terms, unless their user is gone or is another now. What else has changed in the file is logged, and waits for a
// restart. A NATS configuration file is read as a whole, as nats-server does at a HUP: what cannot change while a server runs is refused. With [Start] there is
// nothing to reload.
//
// An error leaves everything as it was: a file that is missing or half written, a key that does not fit.
func (s *Server) Reload(ctx context.Context) (changed bool, err error) {
	if s.reload.options == nil {
		return false, nil
	}
	s.reloadMu.Lock()
	defer s.reloadMu.Unlock()
	select {
	case <-s.done:
		return false, fmt.Errorf("embedded: reload: %w", ErrClosed)
	default:
	}
	now, err := s.reload.contents(nil)
	if err != nil {
		return false, fmt.Errorf("embedded: reload: %w", err)
	}
	if len(s.reload.files) > 0 && now == s.loaded {
		return false, nil
	}
	opts, err := s.reload.options(ctx, s.opts)
	if err != nil {
		return false, err
	}
	// The files may have changed in between: then the next call finds that they have.
	if err := s.ns.ReloadOptions(opts); err != nil {
		return false, fmt.Errorf("embedded: reload: %s", strings.Join(strings.Fields(err.Error()), " "))
	}
	s.loaded = now
	if s.reload.taken != nil {
		s.reload.taken()
	}
	return true, nil
}

// reloading is what of the cluster's file can change while its server runs: who may come in, and what its certificates are, not where.
func (c *Cluster) reloading(log *slog.Logger, options func(*Cluster) (*server.Options, error)) reloading {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	var certs reloading
	for _, path := range []string{c.TLS.Cert, c.TLS.Key, c.TLS.CA} {
		if path != "" {
			certs.files = append(certs.files, path)
		}
	}
	all := certs
	if c.read {
		all.files, all.lenient, all.read = append(slices.Clone(certs.files), c.path), c.path, map[string][sha256.Size]byte{c.path: c.sum}
	}
	if len(all.files) == 0 {
		return reloading{}
	}
	last, made := c, c
	var read string
	shown, err := certs.contents(nil)
	if err != nil {
		shown = "" // they are looked into once more, and then it is said
	}
	all.options = func(context.Context, *server.Options) (*server.Options, error) {
		show, err := certs.contents(nil)
		if err != nil {
			return nil, err
		}
		now, waits, err := last.again()
		switch {
		case err != nil && show == shown:
			return nil, err
		case err != nil: // certificates do not wait for a file to be mended
			log.Error("the file is not taken: the users stay, the certificates are new", "error", strings.TrimPrefix(err.Error(), "embedded: "))
			now = last
		}
		if err := now.TLS.check(); err != nil {
			return nil, fmt.Errorf("embedded: %s: %w", c.path, err)
		}
		if len(waits) > 0 {
			log.Warn("the file has changed in what a running server does not take: it waits for a restart", "file", c.path, "changed", strings.Join(waits, ", "))
		}
		made, read = now, show
		return options(now)
	}
	all.taken = func() { last, shown = made, read }
	return all
}

// again is the cluster with the users that its file has now; waits are the fields that differ besides.
func (c *Cluster) again() (now *Cluster, waits []string, err error) {
	copied := *c
	now = &copied
	if !c.read {
		return now, nil, nil
	}
	file, err := ReadCluster(c.path)
	if err != nil {
		return nil, nil, err
	}
	if (len(file.Auth.Users) == 0) != (len(c.Auth.Users) == 0) {
		return nil, nil, fmt.Errorf("embedded: %s: auth.users: the first user, or none any more, puts the namespaces elsewhere: stop all servers, then start them with it", c.path)
	}
	now.Auth.Users, now.accounts = file.Auth.Users, nil
	for _, n := range slices.Concat(c.accounts, namespaces(c.Auth.Users)) {
		if !slices.Contains(now.accounts, n) {
			now.accounts = append(now.accounts, n)
		}
	}
	for _, field := range []struct {
		name     string
		was, are any
	}{
		{"cluster", c.Name, file.Name}, {"domain", c.Domain, file.Domain}, {"jetstream_domain", c.JetStreamDomain, file.JetStreamDomain}, {"machines", c.Machines, file.Machines},
		{"store_dir", c.StoreDir, file.StoreDir}, {"log", c.Log, file.Log}, {"tls", c.TLS, file.TLS}, {"auth.system", c.Auth.System, file.Auth.System},
		{"auth.cluster", c.Auth.Cluster, file.Auth.Cluster},
	} {
		if !reflect.DeepEqual(field.was, field.are) {
			waits = append(waits, field.name)
		}
	}
	return now, waits, nil
}

func namespaces(users []User) []string {
	var l []string
	for _, u := range users {
		l = append(l, u.Namespace)
	}
	return l
}

// reloading reads the file anew.
func (f *NATSFile) reloading() reloading {
	return reloading{options: func(ctx context.Context, running *server.Options) (*server.Options, error) {
		again, err := ReadNATSFile(ctx, f.path)
		if err != nil {
			return nil, err
		}
		o := again.opts
		if o.StoreDir != f.opts.StoreDir {
			return nil, errors.New("embedded: reload: jetstream.store_dir cannot change while the server runs: restart it")
		}
		// Logging is the process's own, and stays as it was told to be.
		o.Debug, o.Trace, o.TraceVerbose, o.TraceHeaders, o.Logtime, o.LogtimeUTC = running.Debug, running.Trace, running.TraceVerbose, running.TraceHeaders, running.Logtime, running.LogtimeUTC
		o.LogFile, o.LogSizeLimit, o.LogMaxFiles, o.Syslog, o.RemoteSyslog = running.LogFile, running.LogSizeLimit, running.LogMaxFiles, running.Syslog, running.RemoteSyslog
		return o, nil
	}}
}
