package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
)

// What commands that serve HTTP have in common.

// httpTLSFlags say what clients are shown and asked for.
func httpTLSFlags() []flagSpec {
	return []flagSpec{
		{name: "http-cert", value: "FILE", usage: "TLS certificate that clients are shown"},
		{name: "http-key", value: "FILE", usage: "its private key"},
		{name: "http-ca", value: "FILE", usage: "certificate authorities that clients must have a certificate of"},
	}
}

// listen listens where --listen says.
func (c *call) listen(ctx context.Context, addr string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, failure(ExitFailed, "%s: cannot listen on %s: %s: name another with --listen HOST:PORT", c.cmd.name, addr, plainListen(err))
	}
	return l, nil
}

// loopback says whether only this host can reach a listener.
func loopback(l net.Listener) bool {
	t, ok := l.Addr().(*net.TCPAddr)
	return ok && t.IP.IsLoopback()
}

// httpTLS is what clients are shown and asked for; nil without --http-cert.
func (c *call) httpTLS() (*tls.Config, error) {
	cert, key, ca := c.str("http-cert"), c.str("http-key"), c.str("http-ca")
	switch {
	case (cert == "") != (key == ""):
		return nil, usageError("a TLS certificate needs its key, and a key its certificate: give both --http-cert and --http-key")
	case cert == "" && ca != "":
		return nil, usageError("--http-ca asks clients for certificates, over TLS: give --http-cert and --http-key too")
	case cert == "":
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, failure(ExitFailed, "%s: TLS certificate %s with key %s: %w", c.cmd.name, cert, key, plainFile(err))
	}
	conf := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, failure(ExitFailed, "%s: certificate authorities %s: %w", c.cmd.name, ca, plainFile(err))
		}
		conf.ClientCAs, conf.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		if !conf.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, failure(ExitFailed, "%s: certificate authorities %s: there is no certificate in it", c.cmd.name, ca)
		}
	}
	return conf, nil
}

// plainListen leaves out of an error what the message names already.
func plainListen(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return fmt.Sprint(op.Err)
	}
	return err.Error()
}
