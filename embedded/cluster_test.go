//go:build linux

// Linux, for the whole of 127.0.0.0/8: three machines of one host, each with the usual ports.

package embedded

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/leader"
)

// A trio is a cluster of three servers in this process.
type trio struct {
	t    *testing.T
	c    *Cluster
	ss   [3]*Server
	logs lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

var trios atomic.Int32

// longLease is that of terms that must not end meanwhile: a server that goes has others lead first, and a busy machine may stand still for a moment.
const longLease = 15 * time.Second

// newTrio describes a cluster; more is put into its file.
func newTrio(t *testing.T, more string) *trio {
	t.Helper()
	tr := &trio{t: t}
	at := fmt.Sprintf("127.%d.%d.", 1+os.Getpid()%250, trios.Add(1))
	file := fmt.Sprintf(`{"cluster": "plant", "machines": [{"name": "a", "host": "%s1"}, {"name": "b", "host": "%s2"}, {"name": "c", "host": "%s3"}], "store_dir": %q%s}`,
		at, at, at, t.TempDir(), more)
	var err error
	if tr.c, err = ParseCluster("cluster.json", []byte(file)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for i := range tr.ss {
			tr.stop(i)
		}
		if t.Failed() {
			t.Log(tr.logs.String())
		}
	})
	return tr
}

func (tr *trio) options(i int) ClusterOptions {
	return ClusterOptions{Local: tr.c.Machines[i].Name, Logger: slog.New(slog.NewTextHandler(&tr.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))}
}

func (tr *trio) start(i int) {
	tr.t.Helper()
	var err error
	if tr.ss[i], err = StartCluster(tr.t.Context(), tr.c, tr.options(i)); err != nil {
		tr.t.Fatal(err)
	}
}

func (tr *trio) stop(i int) {
	if s := tr.ss[i]; s != nil {
		tr.ss[i] = nil
		if err := s.Close(context.Background()); err != nil {
			tr.t.Errorf("close %s: %v", s.Name(), err)
		}
	}
}

// ready waits until all servers that run are.
func (tr *trio) ready() {
	tr.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for _, s := range tr.ss {
		if s != nil {
			if err := s.AwaitReady(ctx); err != nil {
				tr.t.Fatalf("%s: %v", s.Name(), err)
			}
		}
	}
}

func (tr *trio) all() {
	tr.t.Helper()
	for i := range tr.ss {
		tr.start(i)
	}
	tr.ready()
}

// leads says which server leads the bucket's stream, and which all of them; -1 for nobody.
func (tr *trio) leads() (stream, meta int) {
	stream, meta = -1, -1
	for i, s := range tr.ss {
		if s == nil {
			continue
		}
		if s.NATS().JetStreamIsStreamLeader(server.DEFAULT_GLOBAL_ACCOUNT, "KV_QUORATE_default") {
			stream = i
		}
		if s.NATS().JetStreamIsLeader() {
			meta = i
		}
	}
	return stream, meta
}

// Three servers become ready once there is a majority, and not before; they make the bucket with three replicas, and keep its data over a restart of
// all of them. The secrets they share are in no log.
func TestClusterKeepsData(t *testing.T) {
	tr := newTrio(t, `, "auth": {"system": {"password": "hush\"\\$hush"}}`)
	tr.start(1)
	if err := tr.ss[1].Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "not ready: JetStream") {
		t.Errorf("ready alone: got %v, want that JetStream is not", err)
	}
	if err := tr.ss[1].Check(); err != nil {
		t.Errorf("check alone: %v", err) // it is well, and waits
	}
	if _, err := StartCluster(t.Context(), tr.c, tr.options(1)); !errors.Is(err, ErrStoreInUse) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("the same machine once more: got %v, want in use by this process", err)
	}
	tr.start(0)
	tr.start(2)
	tr.ready()

	put := func(s *Server) uint64 {
		t.Helper()
		js, err := jetstream.New(connect(t, s.URL()))
		if err != nil {
			t.Fatal(err)
		}
		kv, err := js.KeyValue(within(t), "QUORATE_default")
		if err != nil {
			t.Fatal(err)
		}
		status, err := kv.Status(within(t))
		if err != nil {
			t.Fatal(err)
		}
		if n := status.(*jetstream.KeyValueBucketStatus).StreamInfo().Config.Replicas; n != 3 {
			t.Errorf("the bucket has %d replicas, want 3", n)
		}
		rev, err := kv.PutString(within(t), "test", "x")
		if err != nil {
			t.Fatal(err)
		}
		return rev
	}
	before := put(tr.ss[0])
	for i := range tr.ss {
		tr.stop(i)
	}
	tr.all()
	if after := put(tr.ss[2]); after <= before {
		t.Errorf("revision %d after the restart, %d before: the data is gone", after, before)
	}
	if logs := tr.logs.String(); strings.Contains(logs, "hush") || strings.Contains(logs, tr.c.keys().cluster) {
		t.Error("a secret is in the log")
	}
}

// A server that is stopped has others lead before it goes: both what it led of streams and the cluster itself.
func TestHandOver(t *testing.T) {
	tr := newTrio(t, "")
	tr.all()
	for range 4 { // so that a server is met that leads both, or at least each once
		stream, meta := tr.leads()
		for _, i := range []int{stream, meta} {
			if i < 0 {
				continue
			}
			s := tr.ss[i]
			led := map[string]bool{}
			for _, g := range s.groups() {
				led[g.key()] = g.leads
			}
			s.handOver()
			for _, g := range s.groups() {
				// Of what another has just handed over this one may not know yet who leads it.
				if g.leads || g.leaderless && led[g.key()] {
					t.Errorf("%s still leads, or nobody does: %+v", s.Name(), g)
				}
			}
		}
	}
	// The last one cannot hand over to anybody, and goes all the same.
	for i := range tr.ss {
		tr.stop(i)
	}
}

// Every server in turn is stopped and started again, under load, the next one once the last is ready: no term of 15 s is lost, for the time without a
// leader of the stream is far below a lease.
func TestRollingRestart(t *testing.T) {
	tr := newTrio(t, "")
	tr.all()
	const elections, lease = 5, longLease
	nc := connect(t, tr.c.URL(), quorate.Options(lease)...)
	ns, err := quorate.Open(within(t), nc, quorate.Config{Lease: lease, Logger: slog.New(slog.NewTextHandler(&tr.logs, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close(context.Background())
	terms := map[string]*leader.Term{}
	for i := range elections {
		e, err := leader.New(ns, fmt.Sprintf("e%d", i), leader.Config{ID: "me"})
		if err != nil {
			t.Fatal(err)
		}
		term, err := e.Campaign(within(t))
		if err != nil {
			t.Fatal(err)
		}
		terms[fmt.Sprintf("e%d", i)] = term
	}

	// The load: writers that wait for each acknowledgement, to another stream of the same servers.
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(within(t), jetstream.StreamConfig{Name: "LOAD", Subjects: []string{"load.>"}, Replicas: 3}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer func() { stop(); wg.Wait() }()
	var written atomic.Int64
	for i := range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				try, cancel := context.WithTimeout(ctx, 2*time.Second)
				if _, err := js.Publish(try, fmt.Sprintf("load.%d", i), make([]byte, 512)); err == nil {
					written.Add(1)
				}
				cancel()
			}
		})
	}
	for i := range tr.ss {
		before := written.Load()
		tr.stop(i)
		// It stays away until the others have written something without it.
		eventually(t, "writes while a server is away", func() bool { return written.Load() > before+10 })
		tr.start(i)
		tr.ready()
	}
	for name, term := range terms {
		e, err := leader.New(ns, name, leader.Config{ID: "looks"})
		if err != nil {
			t.Fatal(err)
		}
		if st, err := e.Leader(within(t)); err != nil || !term.Live() || st.Token != term.Token() {
			t.Errorf("%s: token %d, live %t; the bucket says %d, %v", name, term.Token(), term.Live(), st.Token, err)
		}
	}
}

// Whoever reaches the port of the other servers is none of them without the secret.
func TestForeignRoute(t *testing.T) {
	tr := newTrio(t, `, "auth": {"system": {"password": "p"}}`)
	tr.all()
	for _, user := range []string{"", "quorate:p@", "system:p@"} {
		tr.foreign(user, "", "Authorization Violation")
	}
}

// The system account is for its user alone, and for whom the server left it when the file has none.
func TestSystemUser(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct{ auth, user string }{{"", "system-"}, {`, "auth": {"system": {"user": "root", "password": "p\"w"}}`, "root"}} {
		c, err := ParseCluster("cluster.json", fmt.Appendf(nil, `{"machines": [{"name": "a", "host": "127.%d.%d.1"}], "store_dir": %q%s}`,
			1+os.Getpid()%250, trios.Add(1), dir, tt.auth))
		if err != nil {
			t.Fatal(err)
		}
		s, err := StartCluster(t.Context(), c, ClusterOptions{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		u, err := c.SystemUser(t.Context(), "")
		if err != nil || !strings.HasPrefix(u.User, tt.user) {
			t.Fatalf("got %+v, %v, want user %s", u, err, tt.user)
		}
		ask := func(nc *nats.Conn) error { _, err := nc.Request("$SYS.REQ.SERVER.PING", nil, patience); return err }
		if err := ask(connect(t, u.URL, nats.UserInfo(u.User, string(u.Password)))); err != nil {
			t.Errorf("as the system user: %v", err)
		}
		if err := ask(connect(t, s.URL())); !errors.Is(err, nats.ErrNoResponders) {
			t.Errorf("as anybody: got %v, want %v", err, nats.ErrNoResponders)
		}
		if _, err := nats.Connect(s.URL(), nats.Timeout(patience), nats.UserInfo(u.User, "wrong")); !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("with a wrong password: got %v, want %v", err, nats.ErrAuthorization)
		}
		if err := s.Ready(within(t)); err != nil {
			t.Error(err)
		}
		if tt.auth == "" {
			fi, err := os.Stat(filepath.Join(dir, "a", systemFile))
			if err != nil || fi.Mode().Perm() != 0o600 {
				t.Errorf("%v, %v: want a file that its owner alone reads", fi, err)
			}
		}
		if err := s.Close(within(t)); err != nil {
			t.Error(err)
		}
	}
}

// With users in the file, nobody comes in who is none of them.
func TestUsers(t *testing.T) {
	seed, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, err := seed.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	c, err := ParseCluster("cluster.json", fmt.Appendf(nil, `{"machines": [{"name": "a", "host": "127.%d.%d.1"}], "store_dir": %q,
		"auth": {"users": [{"user": "u", "password": "p"}, {"user": "h", "password": "$2a$04$jDBN1yUuTEMTcvLh.ICeBuZCONdkkcp8xh0I3YKiw9nKVcx9zszHy"}, {"nkey": %q, "role": "observer"}]}}`,
		1+os.Getpid()%250, trios.Add(1), t.TempDir(), public))
	if err != nil {
		t.Fatal(err)
	}
	s, err := StartCluster(t.Context(), c, ClusterOptions{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(context.Background())
	if err := s.Ready(within(t)); err != nil {
		t.Error(err)
	}
	for who, opts := range map[string][]nats.Option{"nobody": nil, "a wrong password": {nats.UserInfo("u", "x")}, "a hash": {nats.UserInfo("h", "$2a$04$jDBN1yUuTEMTcvLh.ICeBuZCONdkkcp8xh0I3YKiw9nKVcx9zszHy")}} {
		if nc, err := nats.Connect(s.URL(), append(opts, nats.Timeout(patience))...); !errors.Is(err, nats.ErrAuthorization) {
			nc.Close()
			t.Errorf("%s: got %v, want %v", who, err, nats.ErrAuthorization)
		}
	}
	connect(t, s.URL(), nats.UserInfo("u", "p"))
	connect(t, s.URL(), nats.Nkey(public, seed.Sign))
}

// A server of an ordinary NATS configuration file is ready as its own user, or without a write if nobody is named.
func TestStartNATSFile(t *testing.T) {
	for name, tt := range map[string]struct {
		conf    string
		connect []nats.Option
		says    string
	}{
		"open":             {"", nil, "set jetstream { sync_interval: always }"},
		"token":            {"authorization { token: t }", nil, ""},
		"user":             {"authorization { user: u, password: p }", nil, ""},
		"users, not given": {"authorization { users: [{user: u, password: p}] }", nil, "that the server takes writes is not tried"},
		"users":            {"authorization { users: [{user: u, password: p}] }", []nats.Option{nats.UserInfo("u", "p")}, ""},
		"accounts":         {"accounts { A { jetstream: enabled, users: [{user: u, password: p}] } }", []nats.Option{nats.UserInfo("u", "p")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "nats.conf")
			if err := os.WriteFile(path, fmt.Appendf(nil, "listen: \"127.0.0.1:-1\"\njetstream { store_dir: %q }\n%s\n", dir, tt.conf), 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := ReadNATSFile(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			var logs lockedBuffer
			s, err := StartNATSFile(t.Context(), f, NATSFileOptions{Connect: tt.connect, Logger: slog.New(slog.NewTextHandler(&logs, nil))})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close(context.Background())
			if err := s.AwaitReady(within(t)); err != nil {
				t.Error(err)
			}
			if !strings.Contains(logs.String(), tt.says) {
				t.Errorf("the log does not say %q: %s", tt.says, logs.String())
			}
			if _, err := os.Stat(filepath.Join(dir, "jetstream")); err != nil {
				t.Errorf("store: %v", err)
			}
			if err := s.Close(within(t)); err != nil {
				t.Error(err)
			}
			if err := s.Ready(t.Context()); !errors.Is(err, ErrClosed) {
				t.Errorf("ready after its end: got %v, want %v", err, ErrClosed)
			}
		})
	}
}

// What is wrong with a machine is said when its server is started: a port in use, certificates that cannot be read, a store that is no directory.
func TestClusterStartRefused(t *testing.T) {
	dir := t.TempDir()
	host := fmt.Sprintf("127.%d.%d.1", 1+os.Getpid()%250, trios.Add(1))
	l, err := net.Listen("tcp", net.JoinHostPort(host, "4222"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ store, more, says string }{
		"port":  {dir, "", "4222"},
		"cert":  {dir, fmt.Sprintf(`, "tls": {"cert": %q, "key": %q}`, file, dir+"/none"), "tls: certificate " + file + " with key"},
		"store": {file, "", "store directory " + file + "/a: not a directory: remove what stands in its place"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := ParseCluster("/q.json", fmt.Appendf(nil, `{"machines": [{"name": "a", "host": %q}], "store_dir": %q%s}`, host, tt.store, tt.more))
			if err != nil {
				t.Fatal(err)
			}
			s, err := StartCluster(t.Context(), c, ClusterOptions{})
			if err == nil {
				s.Close(context.Background())
				t.Fatal("it started")
			}
			oneLine(t, err.Error(), tt.says)
		})
	}
}

// Users of two namespaces share nothing: what one namespace's user has JetStream answer, wherever to, does not reach the other's records. Each namespace's
// data outlives a restart of all servers.
func TestNamespacesApart(t *testing.T) {
	tr := newTrio(t, `, "auth": {"cluster": {"password": "s"}, "users": [
		{"user": "here", "password": "p"}, {"user": "looks", "password": "p", "role": "observer"},
		{"user": "there", "password": "p", "role": "operator", "namespace": "there", "inbox": "_INBOX_there"}]}`)
	tr.all()
	open := func(user, namespace, inbox string) (*nats.Conn, *quorate.Namespace) {
		t.Helper()
		nc := connect(t, tr.c.URL(), nats.UserInfo(user, "p"), nats.CustomInboxPrefix(inbox))
		ns, err := quorate.Open(within(t), nc, quorate.Config{Namespace: namespace, Lease: longLease, Logger: slog.New(slog.NewTextHandler(&tr.logs, nil))})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ns.Close(context.Background()) })
		return nc, ns
	}
	_, here := open("here", "", "_INBOX")
	there, _ := open("there", "there", "_INBOX_there")
	looks := connect(t, tr.c.URL(), nats.UserInfo("looks", "p"))
	e, err := leader.New(here, "e", leader.Config{ID: "me"})
	if err != nil {
		t.Fatal(err)
	}
	term, err := e.Campaign(within(t))
	if err != nil {
		t.Fatal(err)
	}

	const record = "$KV.QUORATE_default.verdict.g.v" // nobody writes it otherwise
	trap := connect(t, "", tr.ss[0].Options()...)
	seen, err := trap.SubscribeSync(record)
	if err != nil {
		t.Fatal(err)
	}
	if err := trap.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, nc := range []*nats.Conn{there, looks} {
		for _, reply := range []string{record, nc.NewInbox()} {
			if err := nc.PublishRequest("$JS.API.INFO", reply, nil); err != nil {
				t.Fatal(err)
			}
		}
		// Behind it, the same with an answer that is heard.
		if _, err := nc.RequestWithContext(within(t), "$JS.API.INFO", nil); err != nil {
			t.Fatal(err)
		}
	}
	// From within the namespace it can be done, as docs/security.md says: which shows that the trap works.
	if _, err := seen.NextMsg(patience); err != nil {
		t.Errorf("from within: %v", err)
	}
	if n, _, err := seen.Pending(); n != 0 || err != nil {
		t.Errorf("%d more, %v: from another namespace", n, err)
	}
	if !term.Live() {
		t.Error("the term has ended")
	}

	// What stands in the buckets, over a restart of all.
	state := func() string {
		t.Helper()
		var b strings.Builder
		for _, u := range [][3]string{{"here", "default", "_INBOX"}, {"there", "there", "_INBOX_there"}} {
			nc := connect(t, tr.c.URL(), nats.UserInfo(u[0], "p"), nats.CustomInboxPrefix(u[2]))
			var info struct {
				Created time.Time `json:"created"`
				Config  struct {
					Replicas int `json:"num_replicas"`
				} `json:"config"`
			}
			m, err := nc.RequestWithContext(within(t), "$JS.API.STREAM.INFO.KV_QUORATE_"+u[1], nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(m.Data, &info); err != nil || info.Created.IsZero() || info.Config.Replicas != 3 {
				t.Errorf("%s: %v: %s", u[1], err, m.Data)
			}
			fmt.Fprintln(&b, u[1], info.Created)
		}
		return b.String()
	}
	before := state()
	for i := range tr.ss {
		tr.stop(i)
	}
	tr.all()
	eventually(t, "both buckets have a leader", func() bool {
		for _, account := range []string{"QUORATE_default", "QUORATE_there"} {
			led := false
			for _, s := range tr.ss {
				led = led || s.NATS().JetStreamIsStreamLeader(account, "KV_"+account)
			}
			if !led {
				return false
			}
		}
		return true
	})
	if after := state(); after != before {
		t.Errorf("before the restart:\n%safter it:\n%s", before, after)
	}
}

// A machine is reached by an IPv6 address as by an IPv4 one. A host without IPv6 has nothing to show.
func TestClusterIPv6(t *testing.T) {
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Log("this host has no IPv6: only the file's reading of addresses is tested (TestClusterFile, TestLocal)")
		return
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	c, err := ParseCluster("cluster.json", fmt.Appendf(nil, `{"machines": [{"name": "a", "host": "::1", "client_port": %d}], "store_dir": %q}`, port, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	s, err := StartCluster(t.Context(), c, ClusterOptions{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(context.Background())
	if err := s.AwaitReady(within(t)); err != nil {
		t.Error(err)
	}
	if want := fmt.Sprintf("nats://[::1]:%d", port); s.URL() != want || c.URL() != want {
		t.Errorf("the server is at %s, the file says %s, want %s", s.URL(), c.URL(), want)
	}
	connect(t, c.URL())
}
