package embedded

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate/internal/wire"
)

// ClusterOptions of [StartCluster]. The zero value works.
type ClusterOptions struct {
	// Local is the name of this machine in the file; default the one whose host is an address of this machine.
	Local string

	// Namespace whose bucket [Server.Ready] makes and writes to; default "default". The same on all servers of a cluster.
	Namespace string

	// NoSync leaves it to the system when acknowledged writes reach the disk: some ten times faster, but a power loss of a majority of the machines
	// may take acknowledged writes along, and with them the promises L1 and L2. Default false: synced.
	NoSync bool

	MaxMemory int64 // bytes of all memory streams; default 64 MiB
	MaxStore  int64 // bytes of all file streams; default 1 GiB

	Logger *slog.Logger // default discards

	// Adjust has the last word on the server's options, as in [Options].
	Adjust func(*server.Options)
}

// StartCluster starts this machine's server of a cluster, or the only one if the file lists one. It returns when clients can connect and JetStream is
// on, which says nothing about the other servers: [Server.Ready] does.
//
// Data lies below the store directory of the file under the machine's name, so a server that is started under the name of another does not meet the
// other's data.
func StartCluster(ctx context.Context, c *Cluster, o ClusterOptions) (*Server, error) {
	m, err := c.Local(ctx, o.Local)
	if err != nil {
		return nil, err
	}
	listen, err := m.listen(ctx, c, network{ownAddresses, lookup})
	if err != nil {
		return nil, err
	}
	if o.MaxMemory < 0 || o.MaxStore < 0 {
		return nil, fmt.Errorf("embedded: a limit is negative: give a number of bytes, or 0 for the default")
	}
	if err := c.TLS.check(); err != nil {
		return nil, fmt.Errorf("embedded: %s: %w", c.path, err)
	}
	own := *c // what its owner makes of it later is not this server's
	c = &own
	c.read = c.read && reflect.DeepEqual(c.asRead, c.Auth.Users) // users that were put in by code are not those of the file
	k := c.keys()
	options := func(c *Cluster, dir string) (*server.Options, error) {
		// As text, for the server's own parser: built in code, servers with accounts lose their streams over a restart (R33).
		opts := &server.Options{}
		if err := opts.ProcessConfigString(c.config(m, listen, dir, k, o)); err != nil {
			return nil, fmt.Errorf("embedded: %s: %w", c.path, err)
		}
		if o.Adjust != nil {
			o.Adjust(opts)
		}
		return opts, nil
	}
	return launch(ctx, filepath.Join(c.StoreDir, m.Name), launching{
		options: func(dir string) (*server.Options, error) {
			if err := c.leaveSystemUser(dir, m, k); err != nil {
				return nil, err
			}
			return options(c, dir)
		},
		reload: func(dir string) reloading {
			return c.reloading(o.Logger, func(c *Cluster) (*server.Options, error) { return options(c, dir) })
		},
		inside:    []nats.Option{nats.UserInfo(k.insideUser, k.inside)},
		system:    []nats.Option{nats.UserInfo(k.innerSystemUser, k.innerSystem)},
		namespace: o.Namespace, replicas: min(len(c.Machines), 3), log: o.Logger, notices: slog.LevelInfo, ownUsers: true,
	})
}

// check looks into the files: the server would tell of them in terms of the configuration that is made of this.
func (t TLS) check() error {
	if t.Cert == "" {
		return nil
	}
	if _, err := tls.LoadX509KeyPair(t.Cert, t.Key); err != nil {
		return fmt.Errorf("tls: certificate %s with key %s: %w", t.Cert, t.Key, err)
	}
	if t.CA == "" {
		return nil
	}
	pem, err := os.ReadFile(t.CA)
	if err != nil {
		return fmt.Errorf("tls.ca: %w", err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(pem) {
		return fmt.Errorf("tls.ca: %s: there is no certificate in it", t.CA)
	}
	return nil
}

// keys are the secrets of one server that the file does not hold: they live as long as the process.
type keys struct {
	insideUser, inside           string // of this process
	innerSystemUser, innerSystem string // of this process in the system account
	anyone, nobodys              string // whom the server takes clients for that do not say who they are, and the password that nobody is told
	systemUser, system           string // for the CLI, if the file has no user for it
	cluster                      string // of the servers among themselves; "" is none
}

func (c *Cluster) keys() keys {
	k := keys{insideUser: "quorate-" + randomHex(8), inside: randomHex(24), innerSystemUser: "quorate-system-" + randomHex(8), innerSystem: randomHex(24)}
	k.anyone, k.nobodys = "anyone-"+randomHex(8), randomHex(24)
	if !c.Auth.System.given() {
		k.systemUser, k.system = defaultSystemUser+"-"+randomHex(8), randomHex(24)
	}
	k.cluster = string(c.Auth.Cluster.Password)
	if k.cluster == "" && c.Auth.System.Password != "" {
		// From this password alone: from one that a client knows too the client could follow it.
		h := hmac.New(sha256.New, []byte(c.Auth.System.Password))
		h.Write([]byte("quorate cluster " + c.Name))
		k.cluster = hex.EncodeToString(h.Sum(nil))
	}
	return k
}

func (s System) given() bool { return s.Password != "" || s.NKey != "" }

// routeUser is the name under which servers show each other their secret.
const routeUser = "quorate"

// config is the server's configuration, as its own parser reads it. It holds secrets, and is never written anywhere.
func (c *Cluster) config(m Machine, listen, dir string, k keys, o ClusterOptions) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	hostPort := func(host string, port int) string { return quote(net.JoinHostPort(host, strconv.Itoa(port))) }

	line("server_name: %s", quote(m.Name))
	line("listen: %s", hostPort(listen, m.ClientPort))
	line("client_advertise: %s", hostPort(m.Host, m.ClientPort))
	if m.HTTPPort != 0 {
		line("http: %s", hostPort(listen, m.HTTPPort))
	}
	line("max_payload: %d", 1<<20)
	sync := "always"
	if o.NoSync {
		sync = `"2m"` // the server's own default
	}
	line("jetstream { store_dir: %s, max_mem: %d, max_file: %d, domain: %s, sync_interval: %s }", quote(dir), or(o.MaxMemory, 64<<20), or(o.MaxStore, 1<<30),
		quote(c.JetStreamDomain), sync)

	// Who comes in. Without users everybody shares the global account; else each namespace has an account of its own (S1): in one account whoever may ask
	// JetStream anything could have the answer written over the records of all, for nobody is asked whether he may publish where an answer is to go.
	user := func(name, password string) string {
		return fmt.Sprintf("{ user: %s, password: %s }", quote(name), quote(password))
	}
	accounts, byNamespace := []string{}, map[string][]string{}
	inside := user(k.insideUser, k.inside)
	if len(c.Auth.Users) == 0 {
		line("no_auth_user: %s", quote(k.anyone))
		line("authorization { timeout: 5, users: [ %s, %s ] }", inside, user(k.anyone, k.nobodys))
	} else {
		line("authorization { timeout: 5 }")
		byNamespace[or(o.Namespace, wire.DefaultName)] = []string{inside}
	}
	for _, namespace := range c.accounts { // an account that went would leave its streams running where nobody reaches them, also once it is back
		if _, ok := byNamespace[namespace]; !ok {
			byNamespace[namespace] = nil
		}
	}
	for _, u := range c.Auth.Users {
		who := "nkey: " + quote(u.NKey)
		if u.NKey == "" {
			who = fmt.Sprintf("user: %s, password: %s", quote(u.User), quote(string(u.Password)))
		}
		byNamespace[u.Namespace] = append(byNamespace[u.Namespace], fmt.Sprintf("{ %s, %s }", who, u.permissions().Config()))
	}
	for _, namespace := range slices.Sorted(maps.Keys(byNamespace)) {
		accounts = append(accounts, fmt.Sprintf("%s: { jetstream: enabled, users: [ %s ] }", quote(wire.Bucket(namespace)), strings.Join(byNamespace[namespace], ", ")))
	}
	system := []string{user(k.innerSystemUser, k.innerSystem)}
	switch s := c.Auth.System; {
	case s.NKey != "":
		system = append(system, fmt.Sprintf("{ nkey: %s }", quote(s.NKey)))
	case s.Password != "":
		system = append(system, user(s.User, string(s.Password)))
	default:
		system = append(system, user(k.systemUser, k.system))
	}
	accounts = append(accounts, fmt.Sprintf("%s: { users: [ %s ] }", quote(server.DEFAULT_SYSTEM_ACCOUNT), strings.Join(system, ", ")))
	line("accounts { %s }", strings.Join(accounts, ", "))
	line("system_account: %s", quote(server.DEFAULT_SYSTEM_ACCOUNT))

	secured := ""
	if t := c.TLS; t.Cert != "" {
		secured = fmt.Sprintf("cert_file: %s, key_file: %s, timeout: 5", quote(t.Cert), quote(t.Key))
		if t.CA != "" {
			secured += fmt.Sprintf(", ca_file: %s", quote(t.CA))
		}
		line("tls { %s, verify: %t }", secured, t.Verify)
	}
	if len(c.Machines) == 1 {
		return b.String()
	}

	var routes []string
	for _, other := range c.Machines {
		if other.Name != m.Name {
			u := url.URL{Scheme: "nats-route", Host: net.JoinHostPort(other.Host, strconv.Itoa(other.ClusterPort))}
			if k.cluster != "" {
				u.User = url.UserPassword(routeUser, k.cluster)
			}
			routes = append(routes, quote(u.String()))
		}
	}
	line("cluster {")
	line("name: %s", quote(c.Name))
	line("listen: %s", hostPort(listen, m.ClusterPort))
	line("advertise: %s", hostPort(m.Host, m.ClusterPort))
	line("routes: [ %s ]", strings.Join(routes, ", "))
	if k.cluster != "" {
		line("authorization { user: %s, password: %s, timeout: 5 }", quote(routeUser), quote(k.cluster))
	}
	if secured != "" {
		line("tls { %s, verify: true }", secured)
	}
	line("}")
	return b.String()
}

// quote writes text so that the server's parser reads it back as it is: no variables, no numbers with units. Control characters, which it could not
// carry, are refused in all that a file holds.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// systemFile is where a server leaves the user of the system account that it made.
const systemFile = "system.json"

// A SystemUser is how to come into the system account of a cluster's servers.
type SystemUser struct {
	URL      string // of the servers that know it
	User     string
	Password Secret
	NKey     string // public key, whose seed its user has; then there is no password
}

// SystemUser is the user of the system account: the one of the file, or else the one that the server of this machine has made and left in its store.
// Local is as in [Cluster.Local].
func (c *Cluster) SystemUser(ctx context.Context, local string) (SystemUser, error) {
	if a := c.Auth.System; a.given() {
		return SystemUser{URL: c.URL(), User: a.User, Password: a.Password, NKey: a.NKey}, nil
	}
	m, err := c.Local(ctx, local)
	if err != nil {
		return SystemUser{}, err
	}
	dir := stateDir(filepath.Join(c.StoreDir, m.Name))
	b, err := dir.read(systemFile)
	var left struct {
		URL      string `json:"url"`
		User     string `json:"user"`
		Password string `json:"password"`
	}
	if err == nil {
		err = json.Unmarshal(b, &left)
	}
	if err != nil {
		return SystemUser{}, fmt.Errorf("embedded: %s has no auth.system, and the user that server %s has made cannot be read: %w", c.path, m.Name, err)
	}
	return SystemUser{URL: left.URL, User: left.User, Password: Secret(left.Password)}, nil
}

// leaveSystemUser writes the user that was made into the store, for [Cluster.SystemUsers].
func (c *Cluster) leaveSystemUser(dir string, m Machine, k keys) error {
	if k.systemUser == "" {
		return nil
	}
	b, err := json.Marshal(map[string]any{"v": 1, "url": m.url(c), "user": k.systemUser, "password": k.system})
	if err != nil {
		return err
	}
	return stateDir(dir).write(systemFile, append(b, '\n'), false)
}

func (m Machine) url(c *Cluster) string {
	scheme := "nats"
	if c.TLS.Cert != "" {
		scheme = "tls"
	}
	return scheme + "://" + net.JoinHostPort(m.Host, strconv.Itoa(m.ClientPort))
}

// URL is where clients connect: all servers, separated by commas.
func (c *Cluster) URL() string {
	var l []string
	for _, m := range c.Machines {
		l = append(l, m.url(c))
	}
	return strings.Join(l, ",")
}

// SystemOptions gives the options with which [nats.Connect] connects in process as the user of the system account; nil if there is none.
func (s *Server) SystemOptions() []nats.Option { return slices.Clone(s.system) }
