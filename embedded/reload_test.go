//go:build linux

package embedded

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/leader"
)

// An authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t}
	var der []byte
	a.cert, a.key, der = a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return a
}

func (a *authority) sign(c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey, []byte) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	by, byKey := a.cert, a.key
	if by == nil {
		by, byKey = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by, &key.PublicKey, byKey)
	if err != nil {
		a.t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return made, key, der
}

// issue writes a certificate for the addresses into the directory, with its key.
func (a *authority) issue(dir, name string, addresses ...string) (cert, key string) {
	a.t.Helper()
	c := &x509.Certificate{Subject: pkix.Name{CommonName: name}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	for _, s := range addresses {
		c.IPAddresses = append(c.IPAddresses, net.ParseIP(s))
	}
	_, private, der := a.sign(c)
	der2, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, key = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+"-key.pem")
	writeFile(a.t, cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	writeFile(a.t, key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der2}))
	return cert, key
}

func (a *authority) file(dir string) string {
	path := filepath.Join(dir, a.cert.Subject.CommonName+"-ca.pem")
	writeFile(a.t, path, a.pem)
	return path
}

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// shows connects anew and says which certificate the server shows, by its authority.
func shows(t *testing.T, url string, opts ...nats.Option) string {
	t.Helper()
	nc, err := nats.Connect(url, append([]nats.Option{nats.Timeout(patience)}, opts...)...)
	if err != nil {
		t.Errorf("connect: %v", err)
		return ""
	}
	defer nc.Close()
	state, err := nc.TLSConnectionState()
	if err != nil {
		t.Errorf("TLS: %v", err)
		return ""
	}
	return state.PeerCertificates[0].Issuer.CommonName
}

// Servers take new certificates of a new authority while they run: who connects afterwards, a client or a server, meets those; who was connected before stays
// connected, and keeps its membership and its term. Who has no certificate is neither a client nor, with the right secret, a server.
func TestReload(t *testing.T) {
	dir := t.TempDir()
	before, after, others := newAuthority(t, "before"), newAuthority(t, "after"), newAuthority(t, "others")
	ca := filepath.Join(dir, "ca.pem")
	seed, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, err := seed.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	tr := newTrio(t, fmt.Sprintf(`, "tls": {"cert": "%[1]s/server.pem", "key": "%[1]s/server-key.pem", "ca": %[2]q, "verify": true},
		"auth": {"cluster": {"password": "route secret"}, "users": [{"user": "u", "password": "p"}, {"nkey": %[3]q}]}`, dir, ca, public))
	var hosts []string
	for _, m := range tr.c.Machines {
		hosts = append(hosts, m.Host)
	}
	before.issue(dir, "server", hosts...)
	writeFile(t, ca, before.pem)
	tr.all()

	cert, key := before.issue(dir, "client")
	trusts := func(a *authority) []nats.Option {
		return []nats.Option{nats.ClientCert(cert, key), nats.RootCAs(a.file(dir)), nats.UserInfo("u", "p")}
	}
	url := tr.c.Machines[0].url(tr.c)
	if nc, err := nats.Connect(url, nats.RootCAs(before.file(dir)), nats.UserInfo("u", "p")); err == nil {
		nc.Close()
		t.Error("a client without a certificate came in")
	}
	// One by its password, one by its key: what the server has against either it looks at anew.
	open := func(who ...nats.Option) (*nats.Conn, *quorate.Namespace) {
		t.Helper()
		nc := connect(t, url, append(append(quorate.Options(longLease), trusts(before)...), who...)...)
		ns, err := quorate.Open(within(t), nc, quorate.Config{Lease: longLease, Logger: slog.New(slog.NewTextHandler(&tr.logs, nil))})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ns.Close(context.Background()) })
		return nc, ns
	}
	nc, ns := open()
	byKey, group := open(nats.UserInfo("", ""), nats.Nkey(public, seed.Sign))
	e, err := leader.New(ns, "e", leader.Config{ID: "me"})
	if err != nil {
		t.Fatal(err)
	}
	term, err := e.Campaign(within(t))
	if err != nil {
		t.Fatal(err)
	}
	member, err := coord.Join(within(t), group, "g", coord.Config{ID: "me"})
	if err != nil {
		t.Fatal(err)
	}

	reload := func(want bool) {
		t.Helper()
		for _, s := range tr.ss {
			if changed, err := s.Reload(t.Context()); err != nil || changed != want {
				t.Errorf("reload of %s: got %t, %v, want %t", s.Name(), changed, err, want)
			}
		}
	}
	reload(false)
	// Half written: nothing happens.
	writeFile(t, filepath.Join(dir, "server.pem"), after.pem)
	if changed, err := tr.ss[0].Reload(t.Context()); err == nil || changed {
		t.Errorf("a certificate without its key: got %t, %v, want an error", changed, err)
	} else {
		oneLine(t, err.Error(), "tls: certificate "+dir+"/server.pem with key "+dir+"/server-key.pem: ")
	}
	if got := shows(t, url, trusts(before)...); got != "before" {
		t.Errorf("the server shows a certificate of %q, want that of before", got)
	}
	after.issue(dir, "server", hosts...)
	writeFile(t, ca, append(append([]byte{}, before.pem...), after.pem...))
	reload(true)
	reload(false)

	if got := shows(t, url, trusts(after)...); got != "after" {
		t.Errorf("the server shows a certificate of %q, want that of after", got)
	}
	if nc, err := nats.Connect(url, trusts(before)...); err == nil {
		nc.Close()
		t.Error("who trusts the old authority alone came in: the old certificate is shown")
	}
	// A server that starts now dials the others, and they it.
	tr.stop(2)
	tr.start(2)
	tr.ready()
	if err := ns.Check(within(t)); err != nil {
		t.Error(err)
	}
	st, err := e.Leader(within(t))
	if err != nil || !term.Live() || st.Token != term.Token() || !member.Live() {
		t.Errorf("term live %t with token %d, member live %t; the bucket says %d, %v", term.Live(), term.Token(), member.Live(), st.Token, err)
	}
	if a, b := nc.Stats().Reconnects, byKey.Stats().Reconnects; a+b != 0 {
		t.Errorf("the connections were lost %d and %d times", a, b)
	}

	// With the secret, and a certificate of nobody whom they trust.
	cert, key = others.issue(dir, "x", hosts...)
	tr.foreign(fmt.Sprintf("quorate:%s@", "route secret"), fmt.Sprintf("tls { cert_file: %q, key_file: %q, ca_file: %q, verify: true }", cert, key, ca), "TLS route handshake error")
}

// Without users nobody is put out either, and clients need no certificate unless the file says so.
func TestReloadOpen(t *testing.T) {
	dir := t.TempDir()
	before, after := newAuthority(t, "before"), newAuthority(t, "after")
	c, err := ParseCluster("cluster.json", fmt.Appendf(nil, `{"machines": [{"name": "a", "host": "127.%d.%d.1"}], "store_dir": %q, "tls": {"cert": "%[4]s/server.pem", "key": "%[4]s/server-key.pem"}}`,
		1+os.Getpid()%250, trios.Add(1), t.TempDir(), dir))
	if err != nil {
		t.Fatal(err)
	}
	before.issue(dir, "server", c.Machines[0].Host)
	s, err := StartCluster(t.Context(), c, ClusterOptions{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(context.Background())
	nc := connect(t, c.URL(), nats.RootCAs(before.file(dir)), nats.NoReconnect())
	after.issue(dir, "server", c.Machines[0].Host)
	if changed, err := s.Reload(t.Context()); err != nil || !changed {
		t.Errorf("reload: got %t, %v", changed, err)
	}
	if got := shows(t, c.URL(), nats.RootCAs(after.file(dir))); got != "after" {
		t.Errorf("the server shows a certificate of %q, want that of after", got)
	}
	if err := nc.FlushWithContext(within(t)); err != nil {
		t.Errorf("who was connected before: %v", err)
	}
}

// Users are added, changed and taken out while the server runs: who is none of them keeps its connection, its membership and its term.
func TestReloadUsers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cluster.json")
	host, store := fmt.Sprintf("127.%d.%d.1", 1+os.Getpid()%250, trios.Add(1)), t.TempDir()
	write := func(more string, users ...string) {
		auth := ""
		if len(users) > 0 {
			auth = `, "auth": {"cluster": {"password": "s"}, "users": [` + strings.Join(users, ", ") + "]}"
		}
		writeFile(t, path, fmt.Appendf(nil, `{"machines": [{"name": "a", "host": %q}], "store_dir": %q%s%s}`, host, store, auth, more))
	}
	const stays, leaves = `{"user": "stays", "password": "p"}`, `{"user": "leaves", "password": "p"}`
	changes := func(password string) string {
		return fmt.Sprintf(`{"user": "changes", "password": %q, "role": "observer"}`, password)
	}
	write("", stays, leaves, changes("before"))
	c, err := ReadCluster(path)
	if err != nil {
		t.Fatal(err)
	}
	var logs lockedBuffer
	s, err := StartCluster(t.Context(), c, ClusterOptions{NoSync: true, Logger: slog.New(slog.NewTextHandler(&logs, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(context.Background()) }) // after those who let go of what they hold
	if err := s.AwaitReady(within(t)); err != nil {
		t.Fatal(err)
	}
	open := func(nc *nats.Conn, namespace string) *quorate.Namespace {
		t.Helper()
		ns, err := quorate.Open(within(t), nc, quorate.Config{Namespace: namespace, Lease: longLease})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ns.Close(context.Background()) })
		return ns
	}
	nc := connect(t, c.URL(), append(quorate.Options(longLease), nats.UserInfo("stays", "p"))...)
	ns := open(nc, "")
	e, err := leader.New(ns, "e", leader.Config{ID: "me"})
	if err != nil {
		t.Fatal(err)
	}
	term, err := e.Campaign(within(t))
	if err != nil {
		t.Fatal(err)
	}
	member, err := coord.Join(within(t), ns, "g", coord.Config{ID: "me"})
	if err != nil {
		t.Fatal(err)
	}
	var out []*nats.Conn
	for _, who := range [][2]string{{"leaves", "p"}, {"changes", "before"}} {
		out = append(out, connect(t, c.URL(), nats.UserInfo(who[0], who[1]), nats.NoReconnect(), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})))
	}
	reload := func(want bool) {
		t.Helper()
		if changed, err := s.Reload(t.Context()); err != nil || changed != want {
			t.Errorf("reload: got %t, %v, want %t", changed, err, want)
		}
	}
	refused := func(says string) {
		t.Helper()
		if changed, err := s.Reload(t.Context()); err == nil || changed {
			t.Errorf("got %t, %v, want an error", changed, err)
		} else {
			oneLine(t, err.Error(), says)
		}
	}
	reload(false)
	write(", ", stays)
	refused("cluster.json: line 1: ")
	write("")
	refused("auth.users: the first user, or none any more, puts the namespaces elsewhere")
	for _, nc := range out {
		if nc.IsClosed() {
			t.Errorf("what was refused has put out %q", nc.Opts.User)
		}
	}

	write(`, "log": {"level": "debug"}`, stays, changes("after"), `{"user": "comes", "password": "p", "namespace": "other", "role": "operator"}`)
	reload(true)
	reload(false)
	if text := logs.String(); !strings.Contains(text, "it waits for a restart") || !strings.Contains(text, "changed=log") {
		t.Errorf("no word of what waits for a restart: %s", text)
	}
	for _, nc := range out {
		eventually(t, nc.Opts.User+" is put out", nc.IsClosed)
		if nc, err := nats.Connect(c.URL(), nats.UserInfo(nc.Opts.User, nc.Opts.Password)); err == nil {
			nc.Close()
			t.Errorf("%q comes in as before", nc.Opts.User)
		}
	}
	connect(t, c.URL(), nats.UserInfo("changes", "after"))
	other := open(connect(t, c.URL(), append(quorate.Options(longLease), nats.UserInfo("comes", "p"))...), "other")
	if err := other.Check(within(t)); err != nil {
		t.Errorf("the namespace of the first user of its own: %v", err)
	}
	if err := ns.Check(within(t)); err != nil {
		t.Error(err)
	}
	st, err := e.Leader(within(t))
	if err != nil || !term.Live() || st.Token != term.Token() || !member.Live() || nc.Stats().Reconnects != 0 {
		t.Errorf("term live %t with token %d, member live %t, %d reconnects; the bucket says %d, %v", term.Live(), term.Token(), member.Live(), nc.Stats().Reconnects, st.Token, err)
	}
	if err := s.Ready(within(t)); err != nil {
		t.Errorf("the server itself: %v", err)
	}

	// The last user of a namespace goes, and comes back: what its account has is as it was.
	back := `{"user": "comes", "password": "p", "namespace": "other", "role": "operator"}`
	write("", stays)
	reload(true)
	write("", stays, back)
	reload(true)
	other = open(connect(t, c.URL(), append(quorate.Options(longLease), nats.UserInfo("comes", "p"))...), "other")
	if err := other.Check(within(t)); err != nil {
		t.Errorf("the namespace whose last user went and came back: %v", err)
	}
	// A file that is away changes nothing.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	refused("cluster.json")
	write("", stays, back)
	reload(false)
}

// A NATS configuration file is read anew as a whole; what cannot change is refused, and the log stays the process's own.
func TestReloadNATSFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "nats.conf")
	write := func(more string) {
		writeFile(t, path, fmt.Appendf(nil, "listen: \"127.0.0.1:-1\"\njetstream { store_dir: %q, sync_interval: always }\n%s\n", dir, more))
	}
	write("authorization { user: u, password: before }")
	f, err := ReadNATSFile(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	var logs lockedBuffer
	s, err := StartNATSFile(t.Context(), f, NATSFileOptions{Logger: slog.New(slog.NewTextHandler(&logs, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(context.Background())
	connect(t, s.URL(), nats.UserInfo("u", "before"))
	write("authorization { user: u, password: after }\nlog_file: \"" + dir + "/log\"")
	if changed, err := s.Reload(t.Context()); err != nil || !changed {
		t.Errorf("reload: got %t, %v", changed, err)
	}
	connect(t, s.URL(), nats.UserInfo("u", "after"))
	if _, err := nats.Connect(s.URL(), nats.UserInfo("u", "before")); err == nil {
		t.Error("the password of before still opens")
	}
	if _, err := os.Stat(dir + "/log"); err == nil {
		t.Error("the server has opened a log of its own")
	}
	for text, says := range map[string]string{
		"server_name: another": "not supported", "nonsense {": "", "jetstream: disabled": "JetStream is not on", "jetstream { store_dir: /elsewhere }": "store_dir cannot change",
	} {
		write(text)
		if _, err := s.Reload(t.Context()); err == nil {
			t.Errorf("%q was taken", text)
		} else {
			oneLine(t, err.Error(), says)
		}
	}
	connect(t, s.URL(), nats.UserInfo("u", "after"))
	s.Close(within(t))
	if _, err := s.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("after its end: %v", err)
	}
}

// foreign starts a server with a route to the first of the cluster's, as the user, and fails if any of them takes it. It waits until the log says that it
// was refused.
func (tr *trio) foreign(user, more, refused string) {
	tr.t.Helper()
	o := &server.Options{}
	text := fmt.Sprintf("server_name: x, listen: \"127.0.0.1:-1\", cluster { name: plant, listen: \"127.0.0.1:-1\", routes: [\"nats://%s%s:6222\"], %s }", strings.ReplaceAll(user, " ", "%20"), tr.c.Machines[0].Host, more)
	if err := o.ProcessConfigString(text); err != nil {
		tr.t.Fatal(err)
	}
	o.NoSigs, o.NoLog = true, true
	s, err := server.NewServer(o)
	if err != nil {
		tr.t.Fatal(err)
	}
	var seen lockedBuffer
	s.SetLoggerV2(&serverLog{log: slog.New(slog.NewTextHandler(&seen, nil))}, false, false, false)
	before := len(tr.logs.String())
	s.Start()
	defer func() {
		s.Shutdown()
		s.WaitForShutdown()
	}()
	// The foreign server itself counts a route from when it has dialled until it hears that it was refused: what counts is whether ours take it.
	var taken []string
	eventually(tr.t, "the route is refused, or taken", func() bool {
		taken = nil
		for _, ours := range tr.ss {
			routes, err := ours.NATS().Routez(nil)
			if err != nil {
				tr.t.Fatal(err)
			}
			for _, r := range routes.Routes {
				if r.RemoteName == "x" {
					taken = append(taken, ours.Name())
				}
			}
		}
		return len(taken) > 0 || strings.Contains(seen.String()+tr.logs.String()[before:], refused)
	})
	if len(taken) > 0 {
		tr.t.Errorf("with %q: %s took it", user, taken)
	}
}
