package cli

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/quorate/quorate/embedded"
)

// serve starts a server for one test.
func serve(t *testing.T, adjust func(*server.Options)) *embedded.Server {
	t.Helper()
	s, err := embedded.Start(t.Context(), embedded.Options{StoreDir: t.TempDir(), NoSync: true, Adjust: adjust})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(context.Background()) })
	return s
}

// where is a command that connects, asks the server something and prints where it is.
func where(needs need) *command {
	cmd := probe(func(ctx context.Context, c *call) error {
		nc, err := c.connect(ctx)
		if err != nil {
			return err
		}
		defer nc.Close()
		if err := nc.FlushTimeout(5 * time.Second); err != nil {
			return err
		}
		return c.print(nc.where + "\n")
	})
	cmd.name, cmd.args, cmd.needs = "where", nil, needs
	return cmd
}

func runWhere(t *testing.T, env []string, words ...string) result {
	t.Helper()
	return runWith(t, env, []*command{where(needClient)}, append([]string{"where"}, words...)...)
}

// home is an environment whose home directory is empty, with NATS contexts in it.
func home(t *testing.T, selected string, contexts map[string]map[string]any) []string {
	t.Helper()
	dir := t.TempDir()
	nats := filepath.Join(dir, ".config", "nats")
	if err := os.MkdirAll(filepath.Join(nats, "context"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, c := range contexts {
		data, _ := json.Marshal(c)
		writeFile(t, filepath.Join(nats, "context", name+".json"), data)
	}
	if selected != "" {
		writeFile(t, filepath.Join(nats, "context.txt"), []byte(selected))
	}
	return []string{"HOME=" + dir}
}

func writeFile(t *testing.T, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// merged is what settings makes of words and environment.
func merged(t *testing.T, env []string, words ...string) (settings, error) {
	t.Helper()
	var got settings
	var failed error
	extra := probe(func(_ context.Context, c *call) error {
		s, err := c.settings()
		if failed = err; err == nil {
			got = *s
		}
		return nil
	})
	if r := runWith(t, env, []*command{extra}, append([]string{"probe", "g"}, words...)...); r.code != 0 {
		t.Fatalf("%q: %s", words, r.stderr)
	}
	return got, failed
}

// Flags win over variables, these over the context, setting by setting.
func TestPrecedence(t *testing.T) {
	all := map[string]map[string]any{
		"full": {
			"url": "nats://ctx", "user": "cu", "password": "cp", "jetstream_domain": "cd", "inbox_prefix": "_CI",
			"cert": "~/c.pem", "key": "~/k.pem", "ca": "/ca.pem", "tls_first": true, "socks_proxy": "socks5://p",
		},
		"creds":  {"url": "nats://creds", "creds": "$HOME/u.creds"},
		"prefix": {"url": "nats://p", "jetstream_api_prefix": "$JS.leaf.API"},
		"bare":   {"description": "nothing"},
	}
	env := home(t, "full", all)
	dir := strings.TrimPrefix(env[0], "HOME=")
	full := settings{
		server: "nats://ctx", user: "cu", password: "cp", jsDomain: "cd", inboxPrefix: "_CI",
		tlsCert: dir + "/c.pem", tlsKey: dir + "/k.pem", tlsCA: "/ca.pem", tlsFirst: true, socksProxy: "socks5://p", context: "full", from: "context full",
	}
	but := func(s settings, f func(s *settings)) settings { f(&s); return s }
	tests := []struct {
		name  string
		env   []string
		words string
		want  settings
	}{
		{"selected context", nil, "", full},
		{"variable over context", []string{"NATS_URL=nats://env", "NATS_JS_DOMAIN=ed"}, "",
			but(full, func(s *settings) { s.server, s.jsDomain, s.from = "nats://env", "ed", "NATS_URL" })},
		{"flag over variable", []string{"NATS_URL=nats://env"}, "-s nats://flag",
			but(full, func(s *settings) { s.server, s.from = "nats://flag", "" })},
		{"empty variable is none", []string{"NATS_URL=", "NATS_TLSFIRST="}, "", full},
		{"password over the context's", []string{"NATS_PASSWORD=ep"}, "", but(full, func(s *settings) { s.password = "ep" })},
		{"bool off", nil, "--tlsfirst=false", but(full, func(s *settings) { s.tlsFirst = false })},
		{"bool variable", []string{"NATS_TLSFIRST=0"}, "", but(full, func(s *settings) { s.tlsFirst = false })},
		{"another kind of credentials", []string{"NATS_TOKEN=et"}, "",
			but(full, func(s *settings) { s.user, s.password, s.token = "", "", "et" })},
		{"flag's kind over variable's", []string{"NATS_TOKEN=et"}, "--creds f",
			but(full, func(s *settings) { s.user, s.password, s.creds = "", "", "f" })},
		{"context by name", nil, "--context creds", settings{server: "nats://creds", creds: dir + "/u.creds", context: "creds", from: "context creds"}},
		{"context by variable", []string{"NATS_CONTEXT=creds"}, "", settings{server: "nats://creds", creds: dir + "/u.creds", context: "creds", from: "context creds"}},
		{"context flag over variable", []string{"NATS_CONTEXT=nosuch"}, "--context prefix",
			settings{server: "nats://p", jsDomain: "leaf", context: "prefix", from: "context prefix"}},
		{"context without URL", nil, "--context bare", settings{server: "nats://127.0.0.1:4222", context: "bare"}},
		{"context by file", nil, "--context " + dir + "/.config/nats/context/prefix.json",
			settings{server: "nats://p", jsDomain: "leaf", context: dir + "/.config/nats/context/prefix.json", from: "context " + dir + "/.config/nats/context/prefix.json"}},
		{"embedded wins over all but flags", []string{"NATS_URL=nats://env", "QUORATE_STATE_DIR=/s"}, "--embedded",
			settings{embedded: true, stateDir: "/s"}},
		{"state directory by flag", []string{"QUORATE_STATE_DIR=/s"}, "--embedded --state-dir /f", settings{embedded: true, stateDir: "/f"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := merged(t, append(tt.env, env...), strings.Fields(tt.words)...)
			if err != nil {
				t.Fatal(err)
			}
			if got != tt.want {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}

	none := home(t, "", nil)
	for words, want := range map[string]settings{
		"":                     {embedded: true},
		"--js-domain d":        {embedded: true, jsDomain: "d"},
		"-s nats://x":          {server: "nats://x"},
		"--token t":            {server: "nats://127.0.0.1:4222", token: "t"},
		"--user u":             {server: "nats://127.0.0.1:4222", token: "u"}, // as with nats
		"--user u --password=": {server: "nats://127.0.0.1:4222", token: "u"},
	} {
		if got, err := merged(t, none, strings.Fields(words)...); err != nil || got != want {
			t.Errorf("%q: got %+v, %v\nwant %+v", words, got, err, want)
		}
	}
	for words, says := range map[string]string{
		"--embedded -s nats://x":  "--embedded and --server",
		"--embedded --context c":  "--embedded and --context",
		"--password p":            "--password without a user",
		"-s=":                     "--server: a server is missing",
		"-s nats://x,":            "--server: a server is missing",
		"-s http://a:b@x":         "--server: http://x is not a NATS",
		"-s ws://x,nats://y":      "cannot be mixed",
		"-s nats://x --tlscert c": "give both --tlscert and --tlskey",
	} {
		if _, err := merged(t, none, strings.Fields(words)...); exitCode(err) != ExitUsage || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q, exit 2", words, err, says)
		}
	}
}

// A context that quorate cannot follow in all it says is refused by name, and nothing it names is run.
func TestContextRefused(t *testing.T) {
	contexts := map[string]map[string]any{
		"bad": nil, "nsc": {"nsc": "nsc://op/acc/user"}, "jwt": {"user_jwt": "eyJ"}, "win": {"windows_cert_store": "user"},
		"pre": {"jetstream_api_prefix": "hub.api"}, "two": {"jetstream_api_prefix": "$JS.a.API", "jetstream_domain": "b"},
	}
	env := home(t, "nsc", contexts)
	writeFile(t, strings.TrimPrefix(env[0], "HOME=")+"/.config/nats/context/bad.json", []byte("{"))
	for words, says := range map[string]string{
		"":                   `context "nsc" uses nsc, which quorate cannot`,
		"--context jwt":      `context "jwt" uses user_jwt`,
		"--context win":      `context "win" uses windows_cert_store`,
		"--context pre":      `context "pre" uses jetstream_api_prefix`,
		"--context two":      `context "two" uses jetstream_api_prefix`,
		"--context nosuch":   `context "nosuch": there is none: 'nats context ls' lists them`,
		"--context ../x":     `context "../x": not a name`,
		"--context bad":      `context "bad": `,
		"--context /no.json": `context "/no.json": there is none`,
	} {
		t.Run(words, func(t *testing.T) {
			checkLine(t, runWhere(t, env, strings.Fields(words)...), ExitFailed, says)
		})
	}
	t.Run("variable", func(t *testing.T) {
		checkLine(t, runWhere(t, append(env, "NATS_CONTEXT=nosuch")), ExitFailed, `context "nosuch"`, "(NATS_CONTEXT)")
	})
}

// Nobody there, somebody who says nothing, somebody who is no NATS server: one line each, within --timeout, no secrets.
func TestNoServer(t *testing.T) {
	listen := func(serve func(net.Conn)) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				serve(c)
			}
		}()
		return l.Addr().String()
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	closed.Close()
	silent := listen(func(c net.Conn) { t.Cleanup(func() { c.Close() }) })
	http := listen(func(c net.Conn) { c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")); c.Close() })
	rude := listen(func(c net.Conn) { c.Close() })

	for name, tt := range map[string]struct{ url, says string }{
		"nobody":   {"nats://" + nobody, "cannot reach nats://" + nobody + ": connection refused: is a NATS server running there?"},
		"silent":   {"nats://" + silent, "cannot reach nats://" + silent},
		"two":      {"nats://" + silent + ",nats://joe:hunter2@" + nobody, "cannot reach nats://" + silent + ",nats://" + nobody},
		"http":     {"nats://" + http, "is that a NATS server's client port?"},
		"rude":     {"nats://" + rude, "cannot reach nats://" + rude},
		"password": {"nats://joe:hunter2@" + nobody, "cannot reach nats://" + nobody + ": connection refused"},
		"bad URL":  {"nats://joe:hunter2@host:port", "server nats://host:port: not a URL"},
		"no name":  {"nats://no-such-host.invalid:4222", "cannot reach nats://no-such-host.invalid:4222"},
	} {
		t.Run(name, func(t *testing.T) {
			code, timeout := ExitFailed, "1m" // it ends by itself, however long a busy machine takes over it
			if name == "silent" || name == "two" || name == "no name" {
				timeout = "300ms"
			}
			r := runWhere(t, home(t, "", nil), "-s", tt.url, "--timeout", timeout)
			switch {
			case name == "bad URL":
				code = ExitUsage
			case name == "silent", strings.Contains(r.stderr, "no answer"): // of two servers either may be the last one tried
				code = ExitUnanswered
			}
			checkLine(t, r, code, tt.says)
			if strings.Contains(r.stderr, "hunter2") {
				t.Errorf("a secret in %q", r.stderr)
			}
		})
	}
	// What is not on the command line is named: which of several files and variables was it?
	checkLine(t, runWhere(t, append(home(t, "", nil), "NATS_URL=nats://"+nobody)), ExitFailed, "is a NATS server running there? (NATS_URL names it)\n")
	checkLine(t, runWhere(t, home(t, "ctx", map[string]map[string]any{"ctx": {"url": "nats://" + nobody}})), ExitFailed, "is a NATS server running there? (context ctx names it)\n")
}

// A server that does not answer the first attempts is tried again, within --timeout: a lost packet costs a second by itself, as long as an
// attempt may take with a short lease.
func TestConnectSlowly(t *testing.T) {
	to := strings.TrimPrefix(serve(t, nil).URL(), "nats://")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var tries atomic.Int32
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			if tries.Add(1) <= 2 {
				continue // and says nothing
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				return
			}
			t.Cleanup(func() { far.Close() })
			go io.Copy(far, c)
			go io.Copy(c, far)
		}
	}()
	r := runWhere(t, home(t, "", nil), "-s", "nats://"+l.Addr().String(), "--lease", "200ms", "--timeout", "1m")
	if r.code != ExitDone || tries.Load() < 3 {
		t.Errorf("exit code %d after %d attempts: %s", r.code, tries.Load(), r.stderr)
	}
}

// A call that is interrupted while it connects ends.
func TestConnectInterrupted(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		c, err := l.Accept()
		cancel(ErrInterrupted)
		if err == nil {
			<-t.Context().Done()
			c.Close()
		}
	}()
	a := newApp(home(t, "", nil), nil, &strings.Builder{}, &strings.Builder{})
	a.commands = append(a.commands, where(needClient))
	err = a.run(ctx, []string{"where", "-s", l.Addr().String(), "--timeout", "1h", "--lease", "1h"})
	if err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("run = %v, want interrupted", err)
	}
}

// All the ways to show who one is, right and wrong.
func TestCredentials(t *testing.T) {
	env := home(t, "", nil)
	user, _ := nkeys.CreateUser()
	public, _ := user.PublicKey()
	seed, _ := user.Seed()
	seedFile := writeFile(t, filepath.Join(t.TempDir(), "user.nk"), seed)
	other, _ := nkeys.CreateUser()
	otherSeed, _ := other.Seed()
	otherFile := writeFile(t, filepath.Join(t.TempDir(), "other.nk"), otherSeed)
	people := serve(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "joe", Password: "hunter2"}}
		o.Nkeys = []*server.NkeyUser{{Nkey: public}}
	})
	token := serve(t, func(o *server.Options) { o.Authorization = "hunter2" })
	at := func(s *embedded.Server) string { return "nats://" + s.Addr().String() }

	for name, words := range map[string][]string{
		"user":             {"-s", at(people), "--user", "joe", "--password", "hunter2"},
		"user in the URL":  {"-s", strings.Replace(at(people), "//", "//joe:hunter2@", 1)},
		"nkey":             {"-s", at(people), "--nkey", seedFile},
		"token":            {"-s", at(token), "--token", "hunter2"},
		"user is a token":  {"-s", at(token), "--user", "hunter2"},
		"second of a list": {"-s", "nats://127.0.0.1:1," + at(token), "--token", "hunter2"},
	} {
		r := runWhere(t, env, words...)
		if r.code != 0 || !strings.HasPrefix(r.stdout, "nats://127.0.0.1:") || strings.Contains(r.stdout, "hunter2") {
			t.Errorf("%s: %+v", name, r)
		}
	}
	byContext := home(t, "plant", map[string]map[string]any{"plant": {"url": at(people), "user": "joe", "password": "hunter2"}})
	if r := runWhere(t, byContext); r.code != 0 || r.stdout != at(people)+" (context plant)\n" {
		t.Errorf("context: %+v", r)
	}

	refused := " refused the credentials: authorization violation: check --user"
	for name, tt := range map[string]struct {
		words []string
		says  string
	}{
		"wrong password": {[]string{"-s", at(people), "--user", "joe", "--password", "hunter3"}, refused},
		"no password":    {[]string{"-s", at(people)}, refused},
		"wrong token":    {[]string{"-s", at(token), "--token", "hunter3"}, refused},
		"another's seed": {[]string{"-s", at(people), "--nkey", otherFile}, refused},
		"a public key":   {[]string{"-s", at(people), "--nkey", writeFile(t, filepath.Join(t.TempDir(), "public.nk"), []byte(public))}, ": give a user's seed with --nkey"},
		"unknown user":   {[]string{"-s", at(people), "--user", "jim", "--password", "hunter2"}, refused},
		"token for user": {[]string{"-s", at(people), "--token", "hunter2"}, refused},
		"no seed":        {[]string{"-s", at(people), "--nkey", "/nowhere.nk"}, "nkey file /nowhere.nk: no such file or directory"},
		"no creds":       {[]string{"-s", at(people), "--creds", "/nowhere.creds"}, "credentials file /nowhere.creds: no such file or directory"},
		"no ca":          {[]string{"-s", at(people), "--tlsca", "/nowhere.pem"}, "/nowhere.pem"},
		"TLS to plain":   {[]string{"-s", at(people), "--tlsfirst"}, "the server did not answer with TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			r := runWhere(t, env, tt.words...)
			checkLine(t, r, ExitFailed, tt.says)
			if strings.Contains(r.stderr, "hunter") {
				t.Errorf("a secret in %q", r.stderr)
			}
		})
	}
}

// A credentials file (a token that an operator's account has signed, and a seed) opens a server in operator mode, by flag, variable and context, to all that a
// command does; one of nobody's, one that has expired and one that is none give one line.
func TestCreds(t *testing.T) {
	pair := func(make func() (nkeys.KeyPair, error)) (nkeys.KeyPair, string) {
		t.Helper()
		kp, err := make()
		if err != nil {
			t.Fatal(err)
		}
		public, err := kp.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		return kp, public
	}
	operator, operatorKey := pair(nkeys.CreateOperator)
	resolver := &server.MemAccResolver{}
	account := func(most int64) (nkeys.KeyPair, string) {
		t.Helper()
		kp, public := pair(nkeys.CreateAccount)
		claims := jwt.NewAccountClaims(public)
		claims.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: most, DiskStorage: most, Streams: most, Consumer: most}
		signed, err := claims.Encode(operator)
		if err != nil {
			t.Fatal(err)
		}
		if err := resolver.Store(public, signed); err != nil {
			t.Fatal(err)
		}
		return kp, public
	}
	ours, _ := account(jwt.NoLimit)
	_, system := account(0)
	stranger, _ := pair(nkeys.CreateAccount)
	dir := t.TempDir()
	creds := func(name string, by nkeys.KeyPair, expires time.Duration) string {
		t.Helper()
		user, public := pair(nkeys.CreateUser)
		claims := jwt.NewUserClaims(public)
		if expires != 0 {
			claims.Expires = time.Now().Add(expires).Unix()
		}
		signed, err := claims.Encode(by)
		if err != nil {
			t.Fatal(err)
		}
		seed, err := user.Seed()
		if err != nil {
			t.Fatal(err)
		}
		file, err := jwt.FormatUserConfig(signed, seed)
		if err != nil {
			t.Fatal(err)
		}
		return writeFile(t, filepath.Join(dir, name), file)
	}
	s := serve(t, func(o *server.Options) {
		o.TrustedKeys, o.AccountResolver, o.SystemAccount = []string{operatorKey}, resolver, system
	})
	at, good := "nats://"+s.Addr().String(), creds("good.creds", ours, 0)
	env := home(t, "plant", map[string]map[string]any{"plant": {"url": at, "creds": good}})
	for name, tt := range map[string]struct{ env, words []string }{
		"flag":     {nil, []string{"-s", at, "--creds", good}},
		"variable": {[]string{"NATS_URL=" + at, "NATS_CREDS=" + good}, nil},
		"context":  {env, nil},
	} {
		if r := runIn(t, append(home(t, "", nil), tt.env...), append([]string{"init"}, tt.words...)...); r.code != 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if r := runIn(t, env, "check", "--ready"); r.code != 0 {
		t.Errorf("check: %+v", r)
	}
	for name, tt := range map[string]struct{ file, says string }{
		"of no account here": {creds("stranger.creds", stranger, 0), at + " refused the credentials: authorization violation: check --user, --token, --creds or --nkey"},
		"expired":            {creds("old.creds", ours, -time.Hour), at + " refused the credentials: "},
		"no credentials":     {writeFile(t, filepath.Join(dir, "none.creds"), []byte("hunter2\n")), "none.creds: there is no user's seed in it: give a file as 'nsc generate creds' writes it"},
		"a directory":        {dir, "credentials file " + dir + ": is a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			r := runIn(t, home(t, "", nil), "groups", "-s", at, "--creds", tt.file)
			checkLine(t, r, ExitFailed, tt.says)
			if strings.Contains(r.stderr, "hunter") || strings.Contains(r.stderr, "SU") {
				t.Errorf("a secret in %q", r.stderr)
			}
		})
	}
}

// TLS and mutual TLS, and what goes wrong with them.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	ca, caKey := certificate(t, dir, "ca", nil, nil)
	certificate(t, dir, "server", ca, caKey)
	certificate(t, dir, "client", ca, caKey)
	otherCA, otherKey := certificate(t, dir, "other-ca", nil, nil)
	certificate(t, dir, "other", otherCA, otherKey)
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	file := func(name string) string { return filepath.Join(dir, name+".pem") }
	pair, err := tls.LoadX509KeyPair(file("server"), file("server-key"))
	if err != nil {
		t.Fatal(err)
	}
	config := func(verify tls.ClientAuthType) func(*server.Options) {
		return func(o *server.Options) {
			o.TLS, o.TLSTimeout = true, 5
			o.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: verify, MinVersion: tls.VersionTLS12}
			o.TLSVerify = verify == tls.RequireAndVerifyClientCert
		}
	}
	plain := serve(t, nil)
	secure := serve(t, config(tls.NoClientCert))
	mutual := serve(t, config(tls.RequireAndVerifyClientCert))
	first := serve(t, func(o *server.Options) {
		config(tls.NoClientCert)(o)
		o.TLSHandshakeFirst = true
	})
	asUser := serve(t, func(o *server.Options) {
		config(tls.RequireAndVerifyClientCert)(o)
		o.Username, o.Password = "joe", "hunter2"
	})
	env := home(t, "", nil)
	at := func(s *embedded.Server) string { return "nats://" + s.Addr().String() }

	both := []string{"--tlscert", file("client"), "--tlskey", file("client-key"), "--tlsca", file("ca")}
	for name, words := range map[string][]string{
		"tls":                {"-s", at(secure), "--tlsca", file("ca")},
		"mutual":             append([]string{"-s", at(mutual)}, both...),
		"first":              {"-s", at(first), "--tlsca", file("ca"), "--tlsfirst"},
		"mutual, and a user": append([]string{"-s", at(asUser), "--user", "joe", "--password", "hunter2"}, both...),
	} {
		if r := runWhere(t, env, words...); r.code != 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
	checkLine(t, runWhere(t, env, "-s", at(first), "--tlsca", file("ca"), "--timeout", "1s"), ExitUnanswered, "cannot reach "+at(first)+": no answer within 1s: is a NATS server running there, and does it want --tlsfirst?")
	for name, tt := range map[string]struct {
		words []string
		says  string
	}{
		"unknown authority":    {[]string{"-s", at(secure)}, "give its authority with --tlsca"},
		"another authority":    {[]string{"-s", at(secure), "--tlsca", file("other-ca")}, "give its authority with --tlsca"},
		"nobody's certificate": {[]string{"-s", at(mutual), "--tlsca", file("ca"), "--tlscert", file("other"), "--tlskey", file("other-key")}, "TLS with " + at(mutual)},
		"another name":         {[]string{"-s", strings.Replace(at(secure), "127.0.0.1", "localhost", 1), "--tlsca", file("ca")}, "certificate is not valid for any names, but wanted to match localhost"},
		"certificate, no user": {append([]string{"-s", at(asUser)}, both...), at(asUser) + " refused the credentials: authorization violation: check --user"},
		"no certificate":       {[]string{"-s", at(mutual), "--tlsca", file("ca")}, "TLS with " + at(mutual)},
		"server has none":      {[]string{"-s", at(plain), "--tlsca", file("ca")}, "the server has none"},
		"key of another":       {[]string{"-s", at(mutual), "--tlscert", file("client"), "--tlskey", file("server-key")}, "TLS certificate " + file("client")},
		"certificate gone":     {[]string{"-s", at(mutual), "--tlscert", "/no.pem", "--tlskey", "/no.pem"}, "TLS certificate /no.pem with key /no.pem: no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			checkLine(t, runWhere(t, env, tt.words...), ExitFailed, tt.says)
		})
	}
}

// certificate writes NAME.pem and NAME-key.pem for 127.0.0.1 and the hosts, signed by the given authority, or by itself as one.
func certificate(t *testing.T, dir, name string, by *x509.Certificate, byKey *ecdsa.PrivateKey, hosts ...string) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, h := range hosts {
		c.IPAddresses = append(c.IPAddresses, net.ParseIP(h))
	}
	if by == nil {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil
		by, byKey = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by, &key.PublicKey, byKey)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, name+".pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	writeFile(t, filepath.Join(dir, name+"-key.pem"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}))
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return made, key
}

// With nothing configured: this host's own server, which only commands that need one start.
func TestOneHost(t *testing.T) {
	env := home(t, "", nil)
	dir := strings.TrimPrefix(env[0], "HOME=") + "/.local/state/quorate"
	checkLine(t, runWhere(t, env), ExitFailed, "where: no server in "+dir+": ")
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("a client has made %s", dir)
	}
	server := where(needServer)
	server.runsOn = true
	r := runWith(t, env, []*command{server}, "where")
	if r.code != 0 || r.stdout != "this host's server in "+dir+", served by this process\n" ||
		r.stderr != "quorate: where: connected to this host's server in "+dir+", served by this process\n" {
		t.Errorf("%+v", r)
	}
	other := t.TempDir()
	if r := runWith(t, env, []*command{where(needServer)}, "where", "--state-dir", other); !strings.Contains(r.stdout, other) {
		t.Errorf("%+v, want it in %s", r, other)
	}
	checkLine(t, runWhere(t, env), ExitFailed, "no server in "+dir)
}

func TestScrub(t *testing.T) {
	s := &settings{server: "nats://joe:p%40ss@h1,tok@h2", password: "secret", token: "sesame"}
	got := s.scrub("p%40ss p@ss joe:p%40ss tok secret sesame h1")
	for _, secret := range []string{"p%40ss", "p@ss", "tok", "secret", "sesame"} {
		if strings.Contains(got, secret) {
			t.Errorf("scrub left %q in %q", secret, got)
		}
	}
	if r := s.redacted(); r != "nats://h1,nats://h2" {
		t.Errorf("redacted = %q", r)
	}
	for in, want := range map[string]string{"h:4222": "nats://h:4222", "ws://a:b@h": "ws://h", "nats://a@b@h": "nats://h"} {
		if got := redactURL(in); got != want {
			t.Errorf("redactURL(%q) = %q, want %q", in, got, want)
		}
	}
}
