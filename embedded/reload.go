package embedded

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
)

// A reloading is how a server's options are made anew while it runs; the zero value is one whose options stay.
type reloading struct {
	files   []string                                                                    // whose content they follow from; none: they are always made anew
	options func(ctx context.Context, running *server.Options) (*server.Options, error) // nil: there is nothing to make anew
}

// contents tells one content of the files from another.
func (r reloading) contents() (string, error) {
	h := sha256.New()
	for _, path := range r.files {
		b, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		sum := sha256.Sum256(b)
		h.Write(sum[:])
	}
	return string(h.Sum(nil)), nil
}

// Reload takes new certificates: of a cluster's file it reads the certificate, the key and the authorities again, and tells whether they had changed. Who
// connects from then on, clients and other servers, meets the new ones; connections that stand stay, and with them memberships and terms. A NATS
// configuration file is read as a whole, as nats-server does at a HUP: what cannot change while a server runs is refused. With [Start] there is nothing to
// reload.
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
	now, err := s.reload.contents()
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
	return true, nil
}

// reloading is what of the cluster's file can change while its server runs: what its certificates are, not where.
func (c *Cluster) reloading(options func() (*server.Options, error)) reloading {
	t := c.TLS
	if t.Cert == "" {
		return reloading{}
	}
	return reloading{
		files: slices.DeleteFunc([]string{t.Cert, t.Key, t.CA}, func(path string) bool { return path == "" }),
		options: func(context.Context, *server.Options) (*server.Options, error) {
			if err := t.check(); err != nil {
				return nil, fmt.Errorf("embedded: %s: %w", c.path, err)
			}
			return options()
		},
	}
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
