package embedded

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/nats-io/nkeys"

	"github.com/quorate/quorate/internal/permit"
	"github.com/quorate/quorate/internal/wire"
)

// A Secret is text that no log, message or print of its struct shows.
type Secret string

func (Secret) String() string { return "***" }

// GoString hides the secret from %#v too.
func (Secret) GoString() string { return "***" }

// LogValue hides the secret from slog's handlers.
func (Secret) LogValue() slog.Value { return slog.StringValue("***") }

// MarshalText hides the secret from encoders.
func (Secret) MarshalText() ([]byte, error) { return []byte("***"), nil }

// A Cluster is the file that all machines of a cluster share ([ReadCluster]), with its defaults filled in. The fields are those of the file.
type Cluster struct {
	// Name of the cluster; default "quorate". Servers of another name are no part of it.
	Name string `json:"cluster"`
	// Domain is the DNS suffix of machines that have no host: machine a is a.example.org then. Default none: the name as it stands.
	Domain string `json:"domain"`
	// JetStreamDomain is the JetStream domain; default the cluster's name. A domain of its own keeps the cluster apart from others that leaf nodes
	// connect it with (R37).
	JetStreamDomain string `json:"jetstream_domain"`
	// Machines are the servers: one, three or five. All stand in the file of each.
	Machines []Machine `json:"machines"`
	// StoreDir is where each server keeps its data, below its own name. Required.
	StoreDir string `json:"store_dir"`
	Log      Log    `json:"log"`
	TLS      TLS    `json:"tls"`
	Auth     Auth   `json:"auth"`

	path string // of the file

	// Of one that was read from there, and can be read again.
	read   bool
	sum    [sha256.Size]byte // of what was read
	asRead []User            // Auth.Users then

	accounts []string // namespaces that have had users while the server runs
}

// A Machine is one server of a [Cluster].
type Machine struct {
	// Name of the server, for good: to NATS a server with a new name is another one, and the old one goes on counting (R32).
	Name string `json:"name"`
	// Host is the address or host name at which clients and the other servers reach it; default the name, with the domain behind it.
	Host string `json:"host"`
	// Listen is the address to listen on; default the host's. 0.0.0.0 or :: is all of them: behind a translation of addresses, or in a container.
	Listen string `json:"listen"`

	ClientPort  int `json:"client_port"`  // default 4222
	ClusterPort int `json:"cluster_port"` // for the other servers; default 6222
	HTTPPort    int `json:"http_port"`    // NATS' own monitoring, which asks for no password; default 0: off
}

// Log is how a server logs. Package embedded leaves it to its caller's logger; `quorate server` obeys it.
type Log struct {
	Level  string `json:"level"`  // debug, info, warn or error; default info
	Format string `json:"format"` // text or json; default text
	File   string `json:"file"`   // default standard error
}

// SlogLevel is the level as slog has it.
func (l Log) SlogLevel() slog.Level {
	var level slog.Level
	_ = level.UnmarshalText([]byte(l.Level)) // checked before; "" is info
	return level
}

// TLS names the files with which connections of clients and of the other servers are secured. Relative paths are relative to the cluster file.
type TLS struct {
	Cert string `json:"cert"` // of this machine, for its host; without it there is no TLS
	Key  string `json:"key"`
	// CA has the authorities of the other servers' certificates, and of clients' with Verify. Required in a cluster: servers always check each
	// other.
	CA string `json:"ca"`
	// Verify demands a certificate of CA from clients too; default false.
	Verify bool `json:"verify"`
}

// Auth says who may come in.
type Auth struct {
	// Users are those who may come in, with what each may do. Default: whoever reaches a client port, with everything but the system account.
	Users []User `json:"users"`
	// System is the user of the system account, for `quorate raft` and other tools that look after servers. Default: one that each server makes
	// at each start, whose password lies in its store.
	System System `json:"system"`
	// Cluster is what servers show each other. Default: derived from the password of System.
	Cluster ClusterAuth `json:"cluster"`
}

// A User is a client with the least permissions for what it does (docs/security.md).
type User struct {
	User     string `json:"user"`
	Password Secret `json:"password"` // or its bcrypt hash
	NKey     string `json:"nkey"`     // or a public key in place of both, U...

	Role      string   `json:"role"`      // member (takes part), observer (looks) or operator (steps down, evicts, repairs); default member
	Namespace string   `json:"namespace"` // default "default"; each has an account of its own, so that users of two share nothing
	Groups    []string `json:"groups"`    // which it may act on
	Elections []string `json:"elections"` // likewise; with neither all of the namespace
	Inbox     string   `json:"inbox"`     // prefix of its reply subjects; default "_INBOX"
}

// permissions are those of the role. By the name of its own JetStream domain a server means itself, and asks no further permission.
func (u User) permissions() permit.Set {
	return permit.Of(permit.Options{Namespace: u.Namespace, Role: permit.Role(u.Role), Groups: u.Groups, Elections: u.Elections, Inbox: u.Inbox})
}

// System is the user of the system account: with a password, or with an nkey.
type System struct {
	User     string `json:"user"`     // default "system"
	Password Secret `json:"password"` // or its bcrypt hash
	NKey     string `json:"nkey"`     // public key of a user, U...
}

// ClusterAuth is the secret of the servers among themselves.
type ClusterAuth struct {
	Password Secret `json:"password"`
}

// Ports, and the name, of a cluster file that does not say.
const (
	defaultCluster     = "quorate"
	defaultSystemUser  = "system"
	defaultClientPort  = 4222
	defaultClusterPort = 6222

	maxClusterFile = 1 << 20 // bytes
	lookupTimeout  = 5 * time.Second
)

// ReadCluster reads the file that all machines share. All that is wrong in it is in the error, a *[FileError], each with its line and field.
func ReadCluster(path string) (*Cluster, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("embedded: cluster file: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxClusterFile+1))
	if err != nil {
		return nil, fmt.Errorf("embedded: cluster file: %w", err)
	}
	c, err := ParseCluster(path, data)
	if err != nil {
		return nil, err
	}
	c.read, c.sum, c.asRead = true, sha256.Sum256(data), slices.Clone(c.Auth.Users)
	return c, nil
}

// ParseCluster is [ReadCluster] for a file's content. The path is for messages, and relative paths in the file are relative to it.
func ParseCluster(path string, data []byte) (*Cluster, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("embedded: cluster file: %w", err)
	}
	c := &Cluster{path: abs}
	var f jsonFile
	if len(data) > maxClusterFile {
		f.wrong(0, "", "it is larger than %d bytes: is it the right file?", maxClusterFile)
		return nil, f.err(path)
	}
	f.decode(data, c)
	// What a mistake hides from the reader would only be reported as missing.
	if f.err(path) == nil {
		c.complete()
		c.check(&f)
	}
	if err := f.err(path); err != nil {
		return nil, err
	}
	return c, nil
}

// complete fills in the defaults.
func (c *Cluster) complete() {
	c.Name = or(c.Name, defaultCluster)
	c.JetStreamDomain = or(c.JetStreamDomain, c.Name)
	c.Domain = strings.Trim(c.Domain, ".")
	for i := range c.Machines {
		m := &c.Machines[i]
		if m.Host == "" && m.Name != "" {
			m.Host = m.Name
			if c.Domain != "" {
				m.Host += "." + c.Domain
			}
		}
		m.ClientPort = or(m.ClientPort, defaultClientPort)
		m.ClusterPort = or(m.ClusterPort, defaultClusterPort)
	}
	for _, p := range []*string{&c.StoreDir, &c.Log.File, &c.TLS.Cert, &c.TLS.Key, &c.TLS.CA} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(filepath.Dir(c.path), *p)
		}
	}
	for i := range c.Auth.Users {
		u := &c.Auth.Users[i]
		u.Role, u.Namespace, u.Inbox = or(u.Role, string(permit.Member)), or(u.Namespace, wire.DefaultName), or(u.Inbox, "_INBOX")
	}
	if s := &c.Auth.System; s.Password != "" || s.NKey != "" {
		s.User = or(s.User, defaultSystemUser)
	}
}

// check finds what is wrong with what was read.
func (c *Cluster) check(f *jsonFile) {
	if p := badName(c.Name); p != "" {
		f.at("cluster", "%s", p)
	}
	if p := badName(c.JetStreamDomain); p != "" && f.lines["jetstream_domain"] > 0 {
		f.at("jetstream_domain", "%s", p)
	}
	if c.Domain != "" {
		if p := badHost(c.Domain); p != "" {
			f.at("domain", "%s", p)
		}
	}
	c.checkMachines(f)
	if c.StoreDir == "" {
		f.at("store_dir", "it is missing: name a directory that outlives the process, for the data of each server")
	}

	if !slices.Contains([]string{"", "debug", "info", "warn", "error"}, c.Log.Level) {
		f.at("log.level", "%q is none of debug, info, warn, error", c.Log.Level)
	}
	if !slices.Contains([]string{"", "text", "json"}, c.Log.Format) {
		f.at("log.format", "%q is none of text, json", c.Log.Format)
	}

	switch t := c.TLS; {
	case (t.Cert == "") != (t.Key == ""):
		f.at("tls", "a certificate needs its key, and a key its certificate: give cert and key")
	case t.Cert == "" && (t.CA != "" || t.Verify):
		f.at("tls", "without cert and key there is no TLS: give both")
	case t.Cert != "" && t.CA == "" && len(c.Machines) > 1:
		f.at("tls.ca", "it is missing: the servers check each other's certificates with it")
	case t.Verify && t.CA == "":
		f.at("tls.verify", "clients' certificates are checked with ca: give it")
	}
	c.checkAuth(f)
}

func (c *Cluster) checkMachines(f *jsonFile) {
	switch n := len(c.Machines); {
	case n == 0:
		f.at("machines", `it is missing: list one, three or five, like {"name": "a", "host": "10.0.0.1"}`)
	case n == 2:
		f.at("machines", "with two servers the loss of either stops both, for one is no majority of two: list one, three or five")
	case n > 5 || n%2 == 0:
		f.at("machines", "%d servers: list one, three (one may fail) or five (two may fail)", n)
	}
	names := map[string]int{}
	ports := map[string]string{} // who has a port of a host
	local := 0
	for i, m := range c.Machines {
		at := fmt.Sprintf("machines[%d]", i)
		if m.Name == "" {
			f.at(at+".name", "it is missing: each server keeps its name for good")
		} else if p := badName(m.Name); p != "" {
			f.at(at+".name", "%s", p)
		} else if j, ok := names[m.Name]; ok {
			f.at(at+".name", "%q is the name of machines[%d] too", m.Name, j)
		} else {
			names[m.Name] = i
		}
		if m.Host != "" {
			if p := badHost(m.Host); p != "" {
				f.at(at+".host", "%s", p)
			} else if a, err := netip.ParseAddr(m.Host); err == nil && (a.IsUnspecified() || a.IsMulticast()) {
				f.at(at+".host", `%s is no address at which others reach a machine: write that, and this as "listen"`, m.Host)
			}
		}
		if m.Listen != "" {
			if p := badHost(m.Listen); p != "" {
				f.at(at+".listen", "%s", p)
			}
		}
		if loopback(m.Host) {
			local++
		}
		for _, port := range []struct {
			field string
			n     int
		}{{"client_port", m.ClientPort}, {"cluster_port", m.ClusterPort}, {"http_port", m.HTTPPort}} {
			field := at + "." + port.field
			if port.n == 0 && port.field == "http_port" {
				continue
			}
			if port.n < 1 || port.n > 65535 {
				f.at(field, "%d is no port: ports are from 1 to 65535", port.n)
				continue
			}
			key := strings.ToLower(m.Host) + " " + strconv.Itoa(port.n)
			if other, ok := ports[key]; ok {
				f.at(field, "%d on %s is taken by %s", port.n, m.Host, other)
			} else if m.Host != "" {
				ports[key] = field
			}
		}
	}
	if local > 0 && local < len(c.Machines) {
		for i, m := range c.Machines {
			if loopback(m.Host) {
				f.at(fmt.Sprintf("machines[%d].host", i), "%s is each machine's own: the others cannot reach it there", m.Host)
			}
		}
	}
}

func (c *Cluster) checkAuth(f *jsonFile) {
	c.checkUsers(f)
	s := c.Auth.System
	switch {
	case s.Password != "" && s.NKey != "":
		f.at("auth.system", "a password and an nkey: leave one out")
	case s.User != "" && s.Password == "" && s.NKey == "":
		f.at("auth.system", "user %q has neither a password nor an nkey: give one", s.User)
	}
	if p := badWord(s.User); p != "" {
		f.at("auth.system.user", "%s", p)
	}
	if p := badSecret(s.Password); p != "" {
		f.at("auth.system.password", "%s", p)
	}
	if p := badNKey(s.NKey); p != "" {
		f.at("auth.system.nkey", "%s", p)
	}
	if p := badSecret(c.Auth.Cluster.Password); p != "" {
		f.at("auth.cluster.password", "%s", p)
	}
	// Who can be a server of the cluster is above all its users.
	if len(c.Machines) > 1 && c.guarded() && c.Auth.Cluster.Password == "" && s.Password == "" {
		f.at("auth.cluster.password", "it is missing, and system has no password from which it could follow: "+
			"without it whoever reaches a cluster_port is above all who come in by a client_port")
	}
}

func (c *Cluster) checkUsers(f *jsonFile) {
	who := map[string]string{} // names and keys, and where they stand
	if s := c.Auth.System; s.given() {
		who[or(s.NKey, s.User)] = "auth.system"
	}
	for i, u := range c.Auth.Users {
		at := fmt.Sprintf("auth.users[%d]", i)
		switch {
		case u.NKey != "" && (u.User != "" || u.Password != ""):
			f.at(at, "an nkey stands in place of user and password: leave them out, or it")
		case u.NKey == "" && u.User == "":
			f.at(at, "it has neither a user nor an nkey: give a user with a password, or an nkey")
		case u.NKey == "" && u.Password == "":
			f.at(at, "user %q has no password", u.User)
		}
		if p := badWord(u.User); p != "" {
			f.at(at+".user", "%s", p)
		}
		if p := badSecret(u.Password); p != "" {
			f.at(at+".password", "%s", p)
		}
		if p := badNKey(u.NKey); p != "" {
			f.at(at+".nkey", "%s", p)
		}
		if name := or(u.NKey, u.User); name != "" && badWord(name) == "" && badNKey(u.NKey) == "" {
			if other, ok := who[name]; ok {
				f.at(at, "%q is %s too", name, other)
			} else {
				who[name] = at
			}
		}
		if err := permit.CheckRole(u.Role); err != nil {
			f.at(at+".role", "%v", err)
		}
		if err := wire.CheckNamespace(u.Namespace); err != nil {
			f.at(at+".namespace", "%v", err)
		}
		for j, g := range u.Groups {
			if err := wire.CheckGroup(g); err != nil {
				f.at(fmt.Sprintf("%s.groups[%d]", at, j), "%v", err)
			}
		}
		for j, e := range u.Elections {
			if err := wire.CheckElection(e); err != nil {
				f.at(fmt.Sprintf("%s.elections[%d]", at, j), "%v", err)
			}
		}
		if err := permit.CheckInbox(u.Inbox); err != nil {
			f.at(at+".inbox", "%v", err)
		}
	}
}

// guarded tells whether clients have to show who they are.
func (c *Cluster) guarded() bool {
	return c.TLS.Verify || len(c.Auth.Users) > 0 || c.Auth.System.Password != "" || c.Auth.System.NKey != ""
}

// badName says what is wrong with the name of a machine or cluster; "" is nothing.
func badName(s string) string {
	if len(s) > 63 {
		return fmt.Sprintf("it is %d characters long, at most 63 are allowed", len(s))
	}
	for i, r := range s {
		alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !alnum && (i == 0 || r != '_' && r != '-') {
			return fmt.Sprintf("%q: character %d is %q; letters, digits, '_' and '-' are allowed, the first is a letter or digit", s, i+1, r)
		}
	}
	return ""
}

// badHost says what is wrong with an address or a host name; "" is nothing.
func badHost(s string) string {
	if a, err := netip.ParseAddr(s); err == nil {
		if a.Zone() != "" {
			return fmt.Sprintf("%s: an address with a zone is good on one machine only: give another of its addresses", s)
		}
		return ""
	}
	switch {
	case strings.Contains(s, "://"):
		return fmt.Sprintf("%q is a URL: write the host alone", s)
	case strings.HasPrefix(s, "["):
		return fmt.Sprintf("%q: write an IPv6 address without brackets and port", s)
	case s == "*":
		return `"*": write 0.0.0.0 for all addresses, or :: for IPv6 too`
	}
	if host, port, err := net.SplitHostPort(s); err == nil && host != "" {
		return fmt.Sprintf("%q has a port: write %q here, and %s as a port of its own", s, host, or(port, "it"))
	}
	numeric := true
	for _, r := range s {
		numeric = numeric && (r == '.' || r == ':' || r >= '0' && r <= '9')
	}
	if numeric {
		return fmt.Sprintf("%q is no IP address", s)
	}
	if len(s) > 253 {
		return fmt.Sprintf("it is %d characters long, no host name is", len(s))
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if label == "" || len(label) > 63 || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
			return fmt.Sprintf("%q is neither an IP address nor a host name", s)
		}
		for _, r := range label {
			if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_') {
				return fmt.Sprintf("%q is neither an IP address nor a host name: it has a %q", s, r)
			}
		}
	}
	return ""
}

// badWord says what is wrong with a user's name.
func badWord(s string) string {
	if len(s) > 255 {
		return "it is longer than 255 bytes"
	}
	for _, r := range s {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) || unicode.IsSpace(r) {
			return fmt.Sprintf("%q has a character that cannot be typed", s)
		}
	}
	return ""
}

// badSecret says what is wrong with a password, without showing it.
func badSecret(s Secret) string {
	if len(s) > 255 {
		return "it is longer than 255 bytes"
	}
	for _, r := range string(s) {
		if r == unicode.ReplacementChar || unicode.IsControl(r) {
			return "it has a control character, or is no UTF-8"
		}
	}
	return ""
}

// badNKey says what is wrong with a user's public key. A seed in its place is not repeated: it is a secret.
func badNKey(s string) string {
	switch {
	case s == "" || nkeys.IsValidPublicUserKey(s):
		return ""
	case strings.HasPrefix(s, "S"):
		return "that is a seed, which its user alone keeps: write the public key here, U..."
	}
	return fmt.Sprintf("%q is no public key of a user: it begins with U", s)
}

// loopback tells whether a host is reached from its own machine only.
func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback() || strings.EqualFold(host, "localhost")
}

// ErrNoMachine is returned by [Cluster.Local] when the file does not say which of its machines this one is.
var ErrNoMachine = errors.New("which machine is this?")

// Local finds the machine that this one is: the one of that name, or with "" the one whose host has an address of this machine. Only the
// latter asks for names of hosts.
func (c *Cluster) Local(ctx context.Context, name string) (Machine, error) {
	return c.local(ctx, name, network{ownAddresses, lookup})
}

// network is what Local asks.
type network struct {
	own    func() ([]netip.Addr, error)
	lookup func(ctx context.Context, host string) ([]netip.Addr, error)
}

func (c *Cluster) local(ctx context.Context, name string, n network) (Machine, error) {
	var names []string
	for _, m := range c.Machines {
		if m.Name == name {
			return m, nil
		}
		names = append(names, m.Name)
	}
	all := strings.Join(names, ", ")
	if name != "" {
		return Machine{}, fmt.Errorf("embedded: %w %s has no machine %q: its machines are %s", ErrNoMachine, c.path, name, all)
	}
	if len(c.Machines) == 1 {
		return c.Machines[0], nil // if it is not, its address cannot be listened on
	}
	own, err := n.own()
	if err != nil {
		return Machine{}, fmt.Errorf("embedded: %w own addresses: %w: name it: %s", ErrNoMachine, err, all)
	}
	var found []Machine
	var unknown []string
	for _, m := range c.Machines {
		addrs, err := n.lookup(ctx, m.Host)
		if err != nil {
			unknown = append(unknown, m.Host)
		}
		if slices.ContainsFunc(addrs, owned(own)) {
			found = append(found, m)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		more := ""
		if len(unknown) > 0 {
			more = fmt.Sprintf(" (unknown here: %s)", strings.Join(unknown, ", "))
		}
		return Machine{}, fmt.Errorf("embedded: %w no host in %s has an address of this machine%s: name it: %s", ErrNoMachine, c.path, more, all)
	}
	names = names[:0]
	for _, m := range found {
		names = append(names, m.Name)
	}
	return Machine{}, fmt.Errorf("embedded: %w %s all have an address of it: name it", ErrNoMachine, strings.Join(names, ", "))
}

// listen is the address that the machine's server listens on.
func (m Machine) listen(ctx context.Context, c *Cluster, n network) (string, error) {
	if m.Listen != "" {
		return m.Listen, nil
	}
	if _, err := netip.ParseAddr(m.Host); err == nil {
		return m.Host, nil
	}
	const advice = `: give machine %q a "listen"`
	addrs, err := n.lookup(ctx, m.Host)
	if err != nil {
		return "", fmt.Errorf("embedded: address of host %s: %w"+advice, m.Host, err, m.Name)
	}
	own, err := n.own()
	if err != nil {
		return "", fmt.Errorf("embedded: own addresses: %w"+advice, err, m.Name)
	}
	i := slices.IndexFunc(addrs, owned(own))
	if i < 0 {
		return "", fmt.Errorf("embedded: host %s is %v, which this machine does not have"+advice, m.Host, addrs, m.Name)
	}
	// Many a machine has its own name for 127.0.1.1: there the others would not find it.
	if addrs[i].IsLoopback() && len(c.Machines) > 1 && !loopback(m.Host) {
		return "", fmt.Errorf("embedded: host %s is %s on this machine itself, where the others cannot reach it"+advice, m.Host, addrs[i], m.Name)
	}
	return addrs[i].String(), nil
}

// ownAddresses are those of this machine's interfaces.
func ownAddresses() ([]netip.Addr, error) {
	nets, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var l []netip.Addr
	for _, n := range nets {
		if p, err := netip.ParsePrefix(n.String()); err == nil {
			l = append(l, p.Addr().Unmap())
		}
	}
	return l, nil
}

// owned tells whether an address is one of the machine's own: all of 127.0.0.0/8 is, whatever its interface says.
func owned(own []netip.Addr) func(netip.Addr) bool {
	return func(a netip.Addr) bool { return a.IsLoopback() || slices.Contains(own, a) }
}

// lookup finds the addresses of a host.
func lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs, err
}
