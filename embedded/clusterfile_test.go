package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
)

// A file that says as little as possible, and one that says everything.
func TestClusterFile(t *testing.T) {
	c, err := ParseCluster("/etc/q.json", []byte(`{"machines": [{"name": "a"}], "store_dir": "data"}`))
	if err != nil {
		t.Fatal(err)
	}
	want := &Cluster{Name: "quorate", JetStreamDomain: "quorate", StoreDir: "/etc/data", path: "/etc/q.json",
		Machines: []Machine{{Name: "a", Host: "a", ClientPort: 4222, ClusterPort: 6222}}}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("defaults:\n got %+v\nwant %+v", c, want)
	}
	c, err = ParseCluster("/etc/q.json", []byte("\ufeff"+`{
		"cluster": "plant", "domain": ".example.org.", "jetstream_domain": "js",
		"machines": [
			{"name": "a", "host": "10.0.0.1", "listen": "0.0.0.0", "client_port": 1, "cluster_port": 2, "http_port": 3},
			{"name": "b", "host": "fd00::2"},
			{"name": "c"}],
		"store_dir": "/var/lib/quorate",
		"log": {"level": "warn", "format": "json", "file": "/var/log/q"},
		"tls": {"cert": "c.pem", "key": "/k.pem", "ca": "ca.pem", "verify": true},
		"auth": {"users": [{"user": "u", "password": "p"}, {"nkey": "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4", "role": "operator", "namespace": "n", "groups": ["g"], "elections": ["e"], "inbox": "_I"}],
			"system": {"user": "root", "password": "p"}, "cluster": {"password": "s"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	want = &Cluster{Name: "plant", Domain: "example.org", JetStreamDomain: "js", StoreDir: "/var/lib/quorate", path: "/etc/q.json",
		Machines: []Machine{{"a", "10.0.0.1", "0.0.0.0", 1, 2, 3}, {Name: "b", Host: "fd00::2", ClientPort: 4222, ClusterPort: 6222},
			{Name: "c", Host: "c.example.org", ClientPort: 4222, ClusterPort: 6222}},
		Log: Log{"warn", "json", "/var/log/q"}, TLS: TLS{"/etc/c.pem", "/k.pem", "/etc/ca.pem", true},
		Auth: Auth{Users: []User{{User: "u", Password: "p", Role: "member", Namespace: "default", Inbox: "_INBOX"},
			{NKey: "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4", Role: "operator", Namespace: "n", Groups: []string{"g"}, Elections: []string{"e"}, Inbox: "_I"}},
			System: System{User: "root", Password: "p"}, Cluster: ClusterAuth{"s"}}}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("everything:\n got %+v\nwant %+v", c, want)
	}
	if c.Log.SlogLevel() != slog.LevelWarn {
		t.Errorf("level %v", c.Log.SlogLevel())
	}
	if got, want := c.URL(), "tls://10.0.0.1:1,tls://[fd00::2]:4222,tls://c.example.org:4222"; got != want {
		t.Errorf("URL: got %q, want %q", got, want)
	}
}

// good is a file of three machines, with a part put in.
func good(part string) string {
	return `{"machines": [{"name": "a", "host": "10.0.0.1"}, {"name": "b", "host": "10.0.0.2"}, {"name": "c", "host": "10.0.0.3"}], "store_dir": "/s"` + part + "}"
}

// machines is a file whose second of three machines is given.
func machines(second string) string {
	return `{"store_dir": "/s", "machines": [{"name": "a", "host": "10.0.0.1"},` + "\n" + second + ",\n" + `{"name": "c", "host": "10.0.0.3"}]}`
}

// Every mistake is named with its line and field, and what to write instead.
func TestClusterFileMistakes(t *testing.T) {
	const key = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
	tests := []struct {
		name, file string
		says       string // all of it, after the file's name
	}{
		{"empty", "", "line 1: the file ends here: a brace, a bracket or a quotation mark is missing"},
		{"cut off", "{\n\"cluster\": \"a", "line 2: cluster: the file ends here: a brace, a bracket or a quotation mark is missing"},
		{"not JSON", "{\n cluster: a}", "line 2: not JSON: invalid character 'c'"},
		{"comma too much", "{\"cluster\": \"a\",\n}", "line 2: not JSON: invalid character '}'"},
		{"a list", "[]", `line 1: an object is meant, { "field": ... }, and this is a list`},
		{"something behind", good("") + "\n{}", "line 2: something follows the closing brace: remove it"},
		{"nothing", "{}", `machines: it is missing: list one, three or five, like {"name": "a", "host": "10.0.0.1"}; ` +
			"store_dir: it is missing: name a directory that outlives the process, for the data of each server"},
		{"unknown", good(`, "machnies": 1`), `line 1: machnies: there is no such field: did you mean "machines"?`},
		{"case", good(`, "Log": {}`), `line 1: Log: there is no such field: did you mean "log"?`},
		{"far from anything", good(`, "frobnicate": {"a": [1, {}]}`),
			"line 1: frobnicate: there is no such field: the fields are cluster, domain, jetstream_domain, machines, store_dir, log, tls, auth"},
		{"unknown inside", machines(`{"name": "b", "host": "10.0.0.2", "clientport": 1}`), `line 2: machines[1].clientport: there is no such field: did you mean "client_port"?`},
		{"twice", good(`, "store_dir": {"x": 1}`), "line 1: store_dir: it is given twice: remove one"},
		{"several", "{\"cluster\": 1,\n\"machines\": {},\n\"store_dir\": [\"x\"],\n\"log\": \"x\"}",
			"line 1: cluster: text in quotation marks is meant, and this is a number; line 2: machines: a list is meant, [ ... ], and this is an object; " +
				`line 3: store_dir: text in quotation marks is meant, and this is a list; line 4: log: an object is meant, { "field": ... }, and this is text`},
		{"port as text", machines(`{"name": "b", "client_port": "4222"}`), "line 2: machines[1].client_port: a whole number is meant, without quotation marks, and this is text"},
		{"half a port", machines(`{"name": "b", "client_port": 4222.5}`), "line 2: machines[1].client_port: 4222.5 is no whole number"},
		{"huge port", machines(`{"name": "b", "client_port": 1e99}`), "line 2: machines[1].client_port: 1e99 is no whole number"},
		{"port", machines(`{"name": "b", "client_port": 65536, "http_port": -1}`),
			"line 2: machines[1].client_port: 65536 is no port: ports are from 1 to 65535; line 2: machines[1].http_port: -1 is no port: ports are from 1 to 65535"},
		{"truth", good(`, "tls": {"verify": "yes"}`), "line 1: tls.verify: true or false is meant, and this is text"},
		{"secret of another type", good(`, "auth": {"system": {"password": 12345}}`), "line 1: auth.system.password: text in quotation marks is meant, and this is a number"},
		{"one port twice", machines(`{"name": "b", "host": "10.0.0.1"}`),
			"line 2: machines[1].client_port: 4222 on 10.0.0.1 is taken by machines[0].client_port; line 2: machines[1].cluster_port: 6222 on 10.0.0.1 is taken by machines[0].cluster_port"},
		{"ports of one machine", machines(`{"name": "b", "http_port": 6222}`), "line 2: machines[1].http_port: 6222 on b is taken by machines[1].cluster_port"},
		{"two", `{"store_dir": "/s", "machines": [{"name": "a"}, {"name": "b"}]}`,
			"line 1: machines: with two servers the loss of either stops both, for one is no majority of two: list one, three or five"},
		{"four", `{"store_dir": "/s", "machines": [{"name": "a"}, {"name": "b"}, {"name": "c"}, {"name": "d"}]}`,
			"line 1: machines: 4 servers: list one, three (one may fail) or five (two may fail)"},
		{"no name", machines(`{"host": "10.0.0.2"}`), "line 2: machines[1].name: it is missing: each server keeps its name for good"},
		{"name", machines(`{"name": "b.c"}`), `line 2: machines[1].name: "b.c": character 2 is '.'; letters, digits, '_' and '-' are allowed, the first is a letter or digit`},
		{"same name", machines(`{"name": "a", "host": "10.0.0.2"}`), `line 2: machines[1].name: "a" is the name of machines[0] too`},
		{"long name", machines(`{"name": "` + strings.Repeat("b", 64) + `"}`), "it is 64 characters long, at most 63 are allowed"},
		{"host with port", machines(`{"name": "b", "host": "10.0.0.2:4222"}`), `line 2: machines[1].host: "10.0.0.2:4222" has a port: write "10.0.0.2" here, and 4222 as a port of its own`},
		{"URL", machines(`{"name": "b", "host": "nats://10.0.0.2"}`), `line 2: machines[1].host: "nats://10.0.0.2" is a URL: write the host alone`},
		{"brackets", machines(`{"name": "b", "host": "[fd00::2]"}`), `line 2: machines[1].host: "[fd00::2]": write an IPv6 address without brackets and port`},
		{"zone", machines(`{"name": "b", "host": "fe80::1%eth0"}`), "line 2: machines[1].host: fe80::1%eth0: an address with a zone is good on one machine only: give another of its addresses"},
		{"every address", machines(`{"name": "b", "host": "::"}`), `line 2: machines[1].host: :: is no address at which others reach a machine: write that, and this as "listen"`},
		{"no address", machines(`{"name": "b", "host": "10.0.0"}`), `line 2: machines[1].host: "10.0.0" is no IP address`},
		{"no host", machines(`{"name": "b", "host": "a..b"}`), `line 2: machines[1].host: "a..b" is neither an IP address nor a host name`},
		{"host with blank", machines(`{"name": "b", "host": "a b"}`), `line 2: machines[1].host: "a b" is neither an IP address nor a host name: it has a ' '`},
		{"star", machines(`{"name": "b", "listen": "*"}`), `line 2: machines[1].listen: "*": write 0.0.0.0 for all addresses, or :: for IPv6 too`},
		{"loopback among others", machines(`{"name": "b", "host": "localhost"}`), "line 2: machines[1].host: localhost is each machine's own: the others cannot reach it there"},
		{"cluster", good(`, "cluster": "a b"`), `line 1: cluster: "a b": character 2 is ' '; letters, digits, '_' and '-' are allowed, the first is a letter or digit`},
		{"JetStream domain", good(`, "jetstream_domain": "a.b"`), `line 1: jetstream_domain: "a.b": character 2 is '.'; letters, digits, '_' and '-' are allowed, the first is a letter or digit`},
		{"domain", good(`, "domain": "ex ample"`), `line 1: domain: "ex ample" is neither an IP address nor a host name: it has a ' '`},
		{"level", good(`, "log": {"level": "loud", "format": "xml"}`), `line 1: log.level: "loud" is none of debug, info, warn, error; line 1: log.format: "xml" is none of text, json`},
		{"cert without key", good(`, "tls": {"cert": "c"}`), "line 1: tls: a certificate needs its key, and a key its certificate: give cert and key"},
		{"ca alone", good(`, "tls": {"ca": "c"}`), "line 1: tls: without cert and key there is no TLS: give both"},
		{"cluster without ca", good(`, "tls": {"cert": "c", "key": "k"}`), "line 1: tls.ca: it is missing: the servers check each other's certificates with it"},
		{"verify without ca", `{"machines": [{"name": "a"}], "store_dir": "/s", "tls": {"cert": "c", "key": "k", "verify": true}}`,
			"line 1: tls.verify: clients' certificates are checked with ca: give it"},
		{"user without password", good(`, "auth": {"system": {"user": "u"}}`), `line 1: auth.system: user "u" has neither a password nor an nkey: give one`},
		{"two ways", good(`, "auth": {"system": {"password": "p", "nkey": "` + key + `"}}`), "line 1: auth.system: a password and an nkey: leave one out"},
		{"user", good(`, "auth": {"system": {"user": "a b", "password": "p"}}`), `line 1: auth.system.user: "a b" has a character that cannot be typed`},
		{"password", good(`, "auth": {"system": {"password": "hush\n"}}`), "line 1: auth.system.password: it has a control character, or is no UTF-8"},
		{"seed", good(`, "auth": {"system": {"nkey": "SUAEVFKBEXAMPLESEED"}, "cluster": {"password": "s"}}`), "line 1: auth.system.nkey: that is a seed, which its user alone keeps: write the public key here, U..."},
		{"nkey", good(`, "auth": {"system": {"nkey": "UX"}, "cluster": {"password": "s"}}`), `line 1: auth.system.nkey: "UX" is no public key of a user: it begins with U`},
		{"no secret among servers", good(`, "auth": {"system": {"nkey": "` + key + `"}}`),
			"line 1: auth.cluster.password: it is missing, and system has no password from which it could follow: without it whoever reaches a cluster_port is above all who come in by a client_port"},
		{"users", good(`, "auth": {"cluster": {"password": "s"}, "users": [{"user": "a"}, {"user": "a b", "password": "p", "role": "chief"}, {"nkey": "` + key + `", "user": "c"}, {}, {"password": "p"}]}`),
			`line 1: auth.users[0]: user "a" has no password; line 1: auth.users[1].user: "a b" has a character that cannot be typed; line 1: auth.users[1].role: "chief" is none of member, observer, operator; ` +
				"line 1: auth.users[2]: an nkey stands in place of user and password: leave them out, or it; line 1: auth.users[3]: it has neither a user nor an nkey: give a user with a password, or an nkey; " +
				"line 1: auth.users[4]: it has neither a user nor an nkey: give a user with a password, or an nkey"},
		{"users twice", good(`, "auth": {"system": {"password": "p"}, "users": [{"user": "a", "password": "p"}, {"user": "a", "password": "q"}, {"user": "system", "password": "r"}]}`),
			`line 1: auth.users[1]: "a" is auth.users[0] too; line 1: auth.users[2]: "system" is auth.system too`},
		{"users' names", good(`, "auth": {"system": {"password": "p"}, "users": [{"user": "a", "password": "p", "namespace": "a b", "groups": ["g", "g.h"], "elections": ["e/f"], "inbox": "x.*"}]}`),
			`line 1: auth.users[0].namespace: namespace "a b": character 2 is ' '; letters, digits, '_' and '-' are allowed; line 1: auth.users[0].groups[1]: group "g.h": character 2 is '.'; letters, digits, '_' and '-' are allowed; ` +
				`line 1: auth.users[0].elections[0]: election "e/f": character 2 is '/'; letters, digits, '_' and '-' are allowed; line 1: auth.users[0].inbox: "x.*" is no prefix of subjects: write one like _INBOX_mine`},
		{"users, no secret among servers", good(`, "auth": {"users": [{"user": "a", "password": "hush"}]}`),
			"line 1: auth.cluster.password: it is missing, and system has no password from which it could follow: without it whoever reaches a cluster_port is above all who come in by a client_port"},
		{"large", good("") + strings.Repeat(" ", 1<<20), "it is larger than 1048576 bytes: is it the right file?"},
		{"many", "{" + strings.Repeat(`"x": 1, `, 12) + `"y": 1}`, "and 3 more"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseCluster("q.json", []byte(tt.file))
			var wrong *FileError
			if !errors.As(err, &wrong) {
				t.Fatalf("got %v, want a FileError", err)
			}
			got := strings.TrimPrefix(err.Error(), "q.json: ")
			short := strings.HasPrefix(tt.says, "line 1: not JSON") || strings.HasPrefix(tt.says, "line 2: not JSON") || strings.HasPrefix(tt.says, "it is 64") || strings.HasPrefix(tt.says, "and 3")
			if got != tt.says && !(short && strings.Contains(got, tt.says)) {
				t.Errorf("\n got %s\nwant %s", got, tt.says)
			}
			for _, secret := range []string{"hush", "SUAEVFKB", "12345"} {
				if strings.Contains(got, secret) {
					t.Errorf("a secret is in %q", got)
				}
			}
		})
	}
}

// FuzzClusterFile: whatever is read ends in a file or in mistakes, and what is accepted the server's own parser takes.
func FuzzClusterFile(f *testing.F) {
	f.Add([]byte(good("")))
	f.Add([]byte(machines(`{"name": "b", "host": "fd00::2", "http_port": 1}`)))
	f.Add([]byte(good(`, "auth": {"system": {"user": "\"\\", "password": "$x\"\\ü{}#"}}, "cluster": "x"`)))
	f.Add([]byte(`{"machines": [{"name": "a", "host": "a"}], "store_dir": "a\"b\\n"}`))
	f.Add([]byte(good(`, "auth": {"system": {"password": "p"}, "users": [{"user": "a\"{", "password": "}\\", "groups": ["g/h"], "inbox": "a\"b"}, {"user": "#", "password": "$2a$x", "role": "observer"}]}`)))
	f.Add([]byte(`{"machines": [null, 1, {"name": {}}], "log": null, "x": [[[[{}]]]]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseCluster("q.json", data)
		if err != nil {
			var wrong *FileError
			if !errors.As(err, &wrong) || len(wrong.Mistakes) == 0 {
				t.Fatalf("got %v, want mistakes", err)
			}
			return
		}
		for _, m := range c.Machines {
			o := &server.Options{}
			k := c.keys()
			if err := o.ProcessConfigString(c.config(m, "127.0.0.1", c.StoreDir, k, ClusterOptions{})); err != nil {
				t.Fatalf("the server's parser: %v", err)
			}
			if o.ServerName != m.Name || o.StoreDir != c.StoreDir || len(o.Routes) != len(c.Machines)-1 || o.Cluster.Password != k.cluster && len(c.Machines) > 1 {
				t.Fatalf("name %q, store %q, %d routes, secret %t", o.ServerName, o.StoreDir, len(o.Routes), o.Cluster.Password == k.cluster)
			}
			read := slices.ContainsFunc(o.Users, func(u *server.User) bool {
				return u.Username == c.Auth.System.User && u.Password == string(c.Auth.System.Password)
			})
			if c.Auth.System.Password != "" && !read {
				t.Fatalf("the server reads another password of %q", c.Auth.System.User)
			}
			for _, w := range c.Auth.Users {
				if w.User != "" && !slices.ContainsFunc(o.Users, func(u *server.User) bool {
					return u.Username == w.User && u.Password == string(w.Password) && u.Permissions != nil && slices.Contains(u.Permissions.Subscribe.Allow, w.Inbox+".>")
				}) {
					t.Fatalf("the server reads user %q otherwise", w.User)
				}
			}
			for _, r := range o.Routes {
				if p, ok := r.User.Password(); ok && p != k.cluster {
					t.Fatal("the server reads another secret in a route")
				}
			}
		}
	})
}

// Printing a cluster, however, shows no secret.
func TestSecretsAreNotPrinted(t *testing.T) {
	c, err := ParseCluster("q.json", []byte(good(`, "auth": {"system": {"password": "hush-1"}, "cluster": {"password": "hush-2"}}`)))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "cluster", c, "secret", c.Auth.System.Password)
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "cluster", c, "secret", c.Auth.System.Password)
	j, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{b.String(), string(j), fmt.Sprint(c), fmt.Sprintf("%v %+v %#v %s", c, c, c, c.Auth)} {
		if strings.Contains(text, "hush") {
			t.Errorf("a secret is in %s", text)
		}
	}
}

// A process finds the machine that it is by a name or by its addresses, and says what it found if that is not one.
func TestLocal(t *testing.T) {
	parse := func(file string) *Cluster {
		c, err := ParseCluster("/q.json", []byte(file))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	hosts := map[string][]netip.Addr{"b.example.org": {netip.MustParseAddr("fd00::2"), netip.MustParseAddr("10.0.0.2")}, "debian": {netip.MustParseAddr("127.0.1.1")}}
	net := func(own ...string) network {
		return network{
			own: func() (l []netip.Addr, err error) {
				for _, a := range own {
					l = append(l, netip.MustParseAddr(a))
				}
				return l, nil
			},
			lookup: func(_ context.Context, host string) ([]netip.Addr, error) {
				if a, err := netip.ParseAddr(host); err == nil {
					return []netip.Addr{a}, nil
				}
				if l := hosts[host]; l != nil {
					return l, nil
				}
				return nil, errors.New("no such host")
			},
		}
	}
	mixed := parse(`{"domain": "example.org", "store_dir": "/s", "machines": [{"name": "a", "host": "10.0.0.1"}, {"name": "b"}, {"name": "c", "host": "fd00::3"}]}`)
	home := parse(`{"store_dir": "/s", "machines": [{"name": "a", "host": "127.0.0.1"}, {"name": "b", "host": "127.0.0.2"}, {"name": "c", "host": "127.0.0.3"}]}`)
	single := parse(`{"store_dir": "/s", "machines": [{"name": "a"}]}`)
	debian := parse(`{"store_dir": "/s", "machines": [{"name": "a", "host": "debian"}, {"name": "b", "host": "10.0.0.2"}, {"name": "c", "host": "10.0.0.3", "listen": "::"}]}`)
	for _, tt := range []struct {
		what  string
		c     *Cluster
		name  string
		net   network
		want  string // name, and address to listen on
		wrong string
	}{
		{"IPv4", mixed, "", net("127.0.0.1", "10.0.0.1"), "a 10.0.0.1", ""},
		{"IPv6", mixed, "", net("::1", "fd00::3"), "c fd00::3", ""},
		{"host name, IPv6", mixed, "", net("fd00::2"), "b fd00::2", ""},
		{"host name, IPv4", mixed, "", net("10.0.0.2", "127.0.0.1"), "b 10.0.0.2", ""},
		{"by name, whatever the addresses", mixed, "a", net("10.9.9.9"), "a 10.0.0.1", ""},
		{"another's name", mixed, "x", net(), "", `has no machine "x": its machines are a, b, c`},
		{"nobody", mixed, "", net("10.9.9.9"), "", "no host in /q.json has an address of this machine: name it: a, b, c"},
		{"all", home, "", net("127.0.0.1"), "", "a, b, c all have an address of it: name it"},
		{"one of many on this machine", home, "b", net("127.0.0.1"), "b 127.0.0.2", ""},
		{"the only one, unknown host", single, "", net(), "", `address of host a: no such host: give machine "a" a "listen"`},
		{"own name on loopback", debian, "", net("10.0.0.1", "127.0.0.1"), "", "host debian is 127.0.1.1 on this machine itself, where the others cannot reach it"},
		{"listen", debian, "c", net("10.0.0.3"), "c ::", ""},
		{"host of somebody else", mixed, "b", net("10.9.9.9"), "", `host b.example.org is [fd00::2 10.0.0.2], which this machine does not have: give machine "b" a "listen"`},
	} {
		t.Run(tt.what, func(t *testing.T) {
			m, err := tt.c.local(t.Context(), tt.name, tt.net)
			got := m.Name
			if err == nil {
				var listen string
				listen, err = m.listen(t.Context(), tt.c, tt.net)
				got += " " + listen
			}
			if tt.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wrong) {
					t.Errorf("got %q, %v, want the error %q", got, err, tt.wrong)
				}
			} else if err != nil || got != tt.want {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

// The secret of the servers follows from the system user's password alone, and differs between clusters.
func TestClusterSecret(t *testing.T) {
	secret := func(part string) string {
		c, err := ParseCluster("q.json", []byte(good(part)))
		if err != nil {
			t.Fatal(err)
		}
		return c.keys().cluster
	}
	a := secret(`, "auth": {"system": {"password": "p"}}`)
	if a == "" || strings.Contains(a, "p") || a != secret(`, "auth": {"system": {"user": "other", "password": "p"}}`) {
		t.Errorf("secret %q: want one that all servers find", a)
	}
	if b := secret(`, "cluster": "other", "auth": {"system": {"password": "p"}}`); a == b {
		t.Error("two clusters have one secret")
	}
	if b := secret(`, "auth": {"system": {"password": "p"}, "cluster": {"password": "own"}}`); b != "own" {
		t.Errorf("secret %q, want the one of the file", b)
	}
	if b := secret(`, "auth": {"system": {"password": "p"}, "users": [{"user": "u", "password": "q"}]}`); a != b {
		t.Error("the secret changes with the users")
	}
	if b := secret(""); b != "" {
		t.Errorf("secret %q out of nothing", b)
	}
}

// What coordination cannot rest on is refused before anything starts.
func TestNATSFile(t *testing.T) {
	for name, tt := range map[string]struct{ conf, says string }{
		"syntax":      {"listen: [", "NATS configuration:"},
		"unknown":     {"frobnicate: 1\njetstream { store_dir: /s }", `unknown field "frobnicate"`},
		"JetStream":   {"port: 4222", "JetStream is not on: add a jetstream block with a store_dir"},
		"store_dir":   {"jetstream: enabled", "jetstream has no store_dir"},
		"two":         {"server_name: a\njetstream { store_dir: /s }\ncluster { name: x, listen: \"127.0.0.1:6222\", routes: [\"nats://127.0.0.1:6222\", \"nats://127.0.0.1:6223\"] }", "with two servers the loss of either stops both"},
		"two, unseen": {"server_name: a\njetstream { store_dir: /s }\ncluster { name: x, listen: \"127.0.0.1:6222\", routes: [\"nats://127.0.0.1:6223\"] }", "its routes name one other server"},
		"three":       {"server_name: a\njetstream { store_dir: /s }\ncluster { name: x, listen: \"127.0.0.1:6222\", routes: [\"nats://127.0.0.1:6223\", \"nats://127.0.0.1:6224\"] }", ""},
		"one":         {"jetstream { store_dir: /s }\ndebug: true\nlog_file: /l", ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "nats.conf")
			if err := os.WriteFile(path, []byte(tt.conf), 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := ReadNATSFile(t.Context(), path)
			switch {
			case tt.says == "" && err != nil:
				t.Errorf("got %v, want none", err)
			case tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "\n")):
				t.Errorf("got %v, want one line with %q", err, tt.says)
			case name == "one" && f.Log != (Log{Level: "debug", File: "/l"}):
				t.Errorf("log %+v", f.Log)
			}
		})
	}
}
