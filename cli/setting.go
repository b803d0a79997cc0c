package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/synadia-io/orbit.go/natscontext"
)

// settings is how to reach NATS, merged from flags, variables and the NATS context, setting by setting.
type settings struct {
	embedded bool // this host's own server; nothing else is set then but stateDir
	stateDir string

	server      string // one or more URLs with commas between
	user        string
	password    string
	token       string
	creds       string
	nkey        string
	tlsCert     string
	tlsKey      string
	tlsCA       string
	tlsFirst    bool
	inboxPrefix string
	jsDomain    string
	socksProxy  string // of a context only
	context     string // name of the context that was used, or ""
	from        string // what named the server, if it is not on the command line: a variable, a context
}

// settings merges what flags, variables and the NATS context say (design section 7).
func (c *call) settings() (*settings, error) {
	s := &settings{}
	s.stateDir, _ = c.setting("state-dir")

	if c.bool("embedded") {
		for _, f := range []string{"server", "context"} {
			if c.uc.IsSet(f) {
				return nil, usageError("--embedded and --%s: leave one out", f)
			}
		}
		s.embedded = true
		return s, nil
	}

	name, from := c.setting("context")
	nc, err := c.readContext(name)
	if err != nil {
		if from == fromEnv {
			err = fmt.Errorf("%w (NATS_CONTEXT)", err)
		}
		return nil, failure(ExitFailed, "%w", err)
	}
	s.context = nc.Name

	// The plain settings: each from its strongest source.
	below := func(name, of string) (string, source) {
		if v, from := c.setting(name); from > fromContext {
			return v, from
		}
		if of != "" {
			return of, fromContext
		}
		return "", fromNowhere
	}
	var serverFrom source
	s.server, serverFrom = below("server", nc.URL)
	if serverFrom > fromNowhere {
		if err := checkServers(c.spelled("server", serverFrom), s.server); err != nil {
			return nil, err
		}
	}
	switch serverFrom {
	case fromEnv:
		s.from = c.spelled("server", fromEnv)
	case fromContext:
		s.from = "context " + s.context
	}
	s.tlsCert, _ = below("tlscert", expandHome(c.env, nc.Cert))
	s.tlsKey, _ = below("tlskey", expandHome(c.env, nc.Key))
	s.tlsCA, _ = below("tlsca", expandHome(c.env, nc.CA))
	s.inboxPrefix, _ = below("inbox-prefix", nc.InboxPrefix)
	s.jsDomain, _ = below("js-domain", nc.JSDomain)
	s.socksProxy = nc.SocksProxy
	s.tlsFirst = nc.TLSFirst
	if v, from := c.setting("tlsfirst"); from > fromContext {
		s.tlsFirst = v == "true" || v == "1"
	}

	// Credentials: each from its strongest source too, but only one kind of them is used, that of the strongest source
	// that gives any; among those of one source in the order that the `nats` command has: user, creds, nkey, token.
	var fromOf [4]source
	s.user, fromOf[0] = below("user", nc.User)
	var fromPassword source
	s.password, fromPassword = below("password", nc.Password)
	s.creds, fromOf[1] = below("creds", expandHome(c.env, expandVariables(c.env, nc.Creds)))
	s.nkey, fromOf[2] = below("nkey", expandHome(c.env, nc.NKey))
	s.token, fromOf[3] = below("token", nc.Token)
	if s.user == "" && fromPassword > fromContext {
		return nil, usageError("%s without a user: give --user too", c.spelled("password", fromPassword))
	}
	best := 0
	for i, from := range fromOf {
		if from > fromOf[best] {
			best = i
		}
	}
	if fromOf[best] > fromNowhere {
		for i, v := range []*string{&s.user, &s.creds, &s.nkey, &s.token} {
			if i != best {
				*v = ""
			}
		}
	}
	if s.user == "" {
		s.password = ""
	} else if s.password == "" && fromOf[0] > fromContext {
		// As the `nats` command has it: --user without a password is a token.
		s.user, s.token = "", s.user
	}
	if (s.tlsCert == "") != (s.tlsKey == "") {
		return nil, usageError("a TLS certificate needs its key, and a key its certificate: give both --tlscert and --tlskey")
	}

	if s.server == "" {
		if s.context == "" && fromOf[best] == fromNowhere && s.tlsCert == "" && s.tlsCA == "" {
			s.embedded = true
			return s, nil
		}
		// Credentials or a context without a URL: the server that the `nats` command takes.
		s.server = nats.DefaultURL
	}
	return s, nil
}

// checkServers says what is wrong with a server list. An empty one was given for nothing (a script's unset variable):
// to take this host's own server instead would be a guess.
func checkServers(where, servers string) error {
	ws := 0
	urls := strings.Split(servers, ",")
	for _, u := range urls {
		u = strings.TrimSpace(u)
		scheme, _, ok := strings.Cut(u, "://")
		switch {
		case u == "":
			return usageError("%s: a server is missing: write nats://HOST:PORT", where)
		case !ok, scheme == "nats", scheme == "tls":
		case scheme == "ws", scheme == "wss":
			ws++
		default:
			return usageError("%s: %s is not a NATS server's URL: write nats://HOST:PORT", where, redactURL(u))
		}
	}
	if ws > 0 && ws < len(urls) {
		return usageError("%s: websocket servers cannot be mixed with others: give one kind", where)
	}
	return nil
}

// readContext reads the NATS context of that name; "" is the selected one, or none. A name may also be the path of a
// context file, absolute or ending in .json.
//
// The format is that of natscontext.Settings. The file is decoded here, and not by natscontext.Connect, for three
// reasons: that one runs the program nsc when a context names it, ignores user_jwt silently, and has connected with the
// context's URL and opened all its files before a flag or variable could win over them.
func (c *call) readContext(name string) (natscontext.Settings, error) {
	var s natscontext.Settings
	path := name
	if !filepath.IsAbs(name) && !strings.HasSuffix(name, ".json") {
		dir, err := c.contextDir()
		if err != nil {
			if name == "" {
				return s, nil // nobody's home: nothing can be selected
			}
			return s, fmt.Errorf("context %q: %w", name, err)
		}
		if name == "" {
			selected, err := os.ReadFile(filepath.Join(dir, "context.txt"))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return s, fmt.Errorf("selected context: %w", err)
			}
			if name = strings.TrimSpace(string(selected)); name == "" {
				return s, nil
			}
		}
		if strings.Contains(name, "..") || strings.ContainsRune(name, os.PathSeparator) {
			return s, fmt.Errorf("context %q: not a name: 'nats context ls' lists them", name)
		}
		path = filepath.Join(dir, "context", name+".json")
	}
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s, fmt.Errorf("context %q: there is none: 'nats context ls' lists them", name)
	case err != nil:
		return s, fmt.Errorf("context %q: %w", name, err)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("context %q: %s: %w", name, path, err)
	}
	s.Name = name

	// What we would have to leave out is refused, by name: half a context connects as somebody else.
	for field, value := range map[string]string{
		"nsc":                  s.NSCLookup,
		"user_jwt":             s.UserJwt,
		"windows_cert_store":   s.WinCertStoreType,
		"jetstream_api_prefix": s.JSAPIPrefix,
	} {
		if value == "" {
			continue
		}
		if field == "jetstream_api_prefix" {
			// The prefix of a domain is a domain.
			if d, ok := strings.CutPrefix(value, "$JS."); ok {
				if d, ok = strings.CutSuffix(d, ".API"); ok && d != "" && !strings.Contains(d, ".") && s.JSDomain == "" {
					s.JSDomain = d
					continue
				}
			}
		}
		return s, fmt.Errorf("context %q uses %s, which quorate cannot: name another with --context", name, field)
	}
	return s, nil
}

// contextDir is where the `nats` command keeps its contexts.
func (c *call) contextDir() (string, error) {
	if dir := c.env["XDG_CONFIG_HOME"]; dir != "" {
		return filepath.Join(dir, "nats"), nil
	}
	home := homeDir(c.env)
	if home == "" {
		return "", errors.New("no home directory to look for it")
	}
	return filepath.Join(home, ".config", "nats"), nil
}

func homeDir(env map[string]string) string {
	if h := env["HOME"]; h != "" {
		return h
	}
	if u, err := user.Current(); err == nil {
		return u.HomeDir
	}
	return ""
}

// expandHome and expandVariables do what natscontext does to the paths in a context.
func expandHome(env map[string]string, path string) string {
	if rest, ok := strings.CutPrefix(path, "~"); ok {
		return homeDir(env) + rest
	}
	return path
}

func expandVariables(env map[string]string, path string) string {
	return os.Expand(path, func(name string) string { return env[name] })
}

// redacted is the server list without the secrets that URLs may carry: nats://user:pass@host becomes nats://host.
func (s *settings) redacted() string {
	var out []string
	for u := range strings.SplitSeq(s.server, ",") {
		if u = strings.TrimSpace(u); u != "" {
			out = append(out, redactURL(u))
		}
	}
	return strings.Join(out, ",")
}

// named says after an error what named the server, where the command line does not show it.
func (s *settings) named() string {
	if s.from == "" {
		return ""
	}
	return " (" + s.from + " names it)"
}

func redactURL(u string) string {
	scheme, rest, ok := strings.Cut(u, "://")
	if !ok {
		scheme, rest = "nats", u
	}
	// Not url.Parse: what does not parse has secrets too.
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = rest[i+1:]
	}
	return scheme + "://" + rest
}

// scrub takes the secrets out of a message that others made.
func (s *settings) scrub(text string) string {
	secrets := []string{s.password, s.token}
	for u := range strings.SplitSeq(s.server, ",") {
		_, rest, ok := strings.Cut(u, "://")
		if !ok {
			rest = u
		}
		i := strings.LastIndexByte(rest, '@')
		if i < 0 {
			continue
		}
		secrets = append(secrets, rest[:i])
		if _, password, ok := strings.Cut(rest[:i], ":"); ok {
			secrets = append(secrets, password)
			if plain, err := url.PathUnescape(password); err == nil {
				secrets = append(secrets, plain)
			}
		}
	}
	for _, secret := range secrets {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "***")
		}
	}
	return text
}
