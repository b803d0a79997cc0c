package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/guardian"
	"github.com/quorate/quorate/internal/wire"
)

// appFlags are the application's flags with their variables. Names and variables that the `nats` command has too mean
// the same here, so that hands and scripts carry over (design section 7).
func appFlags() []flagSpec {
	return []flagSpec{
		{name: "server", short: "s", value: "URL", env: "NATS_URL", usage: "NATS server, or several with commas between"},
		{name: "context", value: "NAME", env: "NATS_CONTEXT", usage: "NATS context to use in place of the selected one"},
		{name: "user", value: "NAME", env: "NATS_USER", usage: "user name; without a password, a token"},
		{name: "password", value: "TEXT", env: "NATS_PASSWORD", secret: true, usage: "password"},
		{name: "token", value: "TEXT", env: "NATS_TOKEN", secret: true, usage: "authentication token"},
		{name: "creds", value: "FILE", env: "NATS_CREDS", usage: "credentials file"},
		{name: "nkey", value: "FILE", env: "NATS_NKEY", usage: "nkey seed file"},
		{name: "tlscert", value: "FILE", env: "NATS_CERT", usage: "TLS certificate of this client"},
		{name: "tlskey", value: "FILE", env: "NATS_KEY", usage: "its private key"},
		{name: "tlsca", value: "FILE", env: "NATS_CA", usage: "certificate authorities to trust"},
		{name: "tlsfirst", kind: kindBool, env: "NATS_TLSFIRST", usage: "TLS handshake before the server's greeting"},
		{name: "inbox-prefix", value: "SUBJECT", env: "NATS_INBOX_PREFIX", usage: "prefix of reply subjects"},
		{name: "js-domain", value: "NAME", env: "NATS_JS_DOMAIN", usage: "JetStream domain"},
		{name: "namespace", short: "N", value: "NAME", env: "QUORATE_NAMESPACE", def: wire.DefaultName,
			usage: "namespace that groups live in"},
		{name: "embedded", kind: kindBool, usage: "use this host's own server, whatever else is set"},
		{name: "state-dir", value: "DIR", env: "QUORATE_STATE_DIR",
			usage: "where this host's own server keeps its data; else in quorate below XDG_STATE_HOME, or below ~/.local/state"},
		{name: "lease", kind: kindDuration, value: "D", env: "QUORATE_LEASE", def: "3s",
			usage: "how long a right lasts unrenewed; all other times follow"},
		{name: "timeout", kind: kindDuration, value: "D", env: "NATS_TIMEOUT", def: "5s",
			usage: "longest a request or a one-shot command may take"},
		{name: "output", short: "o", value: "FORMAT", def: "table", choices: []string{"table", "json"},
			usage: "table or json"},
		{name: "json", short: "j", kind: kindBool, usage: "the same as -o json"},
		{name: "verbose", kind: kindBool, usage: "say on standard error what is being done"},
	}
}

// app is what one call of Main has: nothing of it outlives the call.
type app struct {
	flags    []flagSpec
	commands []*command
	env      map[string]string
	stdin    io.Reader
	stdout   io.Writer
	stderr   io.Writer
	progress *progress // of the command that runs; nil: it shows none
}

// Main runs the command that args name (without the program's own name) and returns its exit code. The environment is
// a list of NAME=VALUE as from os.Environ; the process's own is not looked at. ctx ending is an INT or TERM.
func Main(ctx context.Context, args, env []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := newApp(env, stdin, stdout, stderr)
	if guardian.Called(args, a.env) {
		return guardian.Main(stderr) // of a `run`
	}
	if len(args) > 0 && args[0] == completeWord { // before anything could run
		return a.complete(ctx, args[1:])
	}
	return report(stderr, a.run(ctx, args))
}

func newApp(env []string, stdin io.Reader, stdout, stderr io.Writer) *app {
	a := &app{
		flags:    appFlags(),
		commands: commands(),
		env:      make(map[string]string, len(env)),
		stdin:    stdin,
		stdout:   stdout,
		stderr:   sharedStream(stderr),
	}
	for _, e := range env {
		if name, value, ok := strings.Cut(e, "="); ok {
			a.env[name] = value
		}
	}
	return a
}

// sharedStream is a stream that a command's goroutines and the callbacks of its connection may all write to. A file takes each write whole by itself, and CMD
// and hooks are given it as it is.
func sharedStream(w io.Writer) io.Writer {
	if _, ok := w.(*os.File); ok {
		return w
	}
	return &sharedWriter{w: w}
}

type sharedWriter struct {
	mu sync.Mutex
	w  io.Writer // nil: nobody is there any more
}

func (s *sharedWriter) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.w == nil {
		return len(b), nil
	}
	return s.w.Write(b)
}

// seal keeps what comes too late (a callback of a connection that has just been closed) from a stream that is the caller's again.
func (a *app) seal() {
	if s, ok := a.stderr.(*sharedWriter); ok {
		s.mu.Lock()
		s.w = nil
		s.mu.Unlock()
	}
}

func (a *app) run(ctx context.Context, words []string) error {
	defer a.seal()
	o, err := order(words, a.flags, a.commands)
	switch {
	case err != nil:
		return err
	case o.help:
		return a.help(o.cmd)
	case o.version:
		o = &ordered{cmd: find(a.commands, "version"), global: o.global}
	}
	if o.cmd.needs != needNone && !o.cmd.runsOn {
		a.progress = a.startProgress(o.cmd.name+": waiting", 0)
		defer a.quiet()
	}
	err = a.urfave(o).RunContext(ctx, o.words())
	// A one-shot command that was interrupted says so, not whatever it was waiting for.
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		if cause := context.Cause(ctx); errors.Is(cause, ErrInterrupted) {
			return failure(ExitFailed, "%s: %w", o.cmd.name, cause)
		}
	}
	return err
}

// urfave makes the urfave/cli application for words that order has put in order. All of its own printing, helping,
// guessing and exiting is off: order has answered whatever there was to answer.
func (a *app) urfave(o *ordered) *cli.App {
	u := &cli.App{
		Name:                      "quorate",
		Flags:                     urfaveFlags(a.flags),
		HideHelp:                  true,
		HideVersion:               true,
		DisableSliceFlagSeparator: true, // a comma in --meta is a comma
		Reader:                    a.stdin,
		Writer:                    io.Discard,
		ErrWriter:                 io.Discard,
		ExitErrHandler:            func(*cli.Context, error) {},
		OnUsageError:              asUsage,
	}
	for _, c := range a.commands {
		u.Commands = append(u.Commands, &cli.Command{
			Name:         c.name,
			Aliases:      c.aliases,
			Flags:        urfaveFlags(c.flags),
			HideHelp:     true,
			OnUsageError: asUsage,
			Action: func(uc *cli.Context) error {
				call, err := a.newCall(c, uc, o.after)
				if err != nil {
					return err
				}
				return call.explained(c.run(uc.Context, call))
			},
		})
	}
	return u
}

// asUsage turns what urfave/cli has against words into an error of ours. order lets none of these through.
func asUsage(_ *cli.Context, err error, _ bool) error { return usageError("%w", err) }

// urfaveFlags are the flags as urfave/cli knows them: text, yes-or-no and lists. Variables and types are ours
// (setting.go), since urfave would read the environment of the process.
func urfaveFlags(specs []flagSpec) []cli.Flag {
	flags := make([]cli.Flag, 0, len(specs))
	for _, f := range specs {
		switch f.kind {
		case kindBool:
			flags = append(flags, &cli.BoolFlag{Name: f.name})
		case kindList:
			flags = append(flags, &cli.StringSliceFlag{Name: f.name})
		default:
			flags = append(flags, &cli.StringFlag{Name: f.name})
		}
	}
	return flags
}

// A call is what a command is given.
type call struct {
	*app
	cmd   *command
	args  []string // positionals, as many as the command's args ask for
	after []string // what followed `--`, for a command with rest
	g     globals

	denied atomic.Pointer[string] // the first permission that the server missed
	mon    *monitor               // nil: nobody looks

	uc *cli.Context
}

// globals are the application's settings that are not about the connection (see settings).
type globals struct {
	namespace string
	lease     time.Duration
	timeout   time.Duration
	timed     bool // --timeout was given as a flag: wait is endless otherwise
	json      bool
	verbose   bool
}

func (a *app) newCall(cmd *command, uc *cli.Context, after []string) (*call, error) {
	c := &call{app: a, cmd: cmd, args: uc.Args().Slice(), after: after, uc: uc}

	// Variables are checked like flags, and by name: QUORATE_LEASE=3 is found here and not as an odd lease later.
	for i := range a.flags {
		f := &a.flags[i]
		if v, from := c.setting(f.name); from == fromEnv {
			if err := checkValueOf(f, f.env, v); err != nil {
				return nil, err
			}
		}
	}
	c.g.namespace, _ = c.setting("namespace")
	if err := wire.CheckNamespace(c.g.namespace); err != nil {
		return nil, err
	}
	for name, d := range map[string]*time.Duration{"lease": &c.g.lease, "timeout": &c.g.timeout} {
		v, from := c.setting(name)
		parsed, err := parseDuration(v)
		if err != nil || parsed == 0 {
			return nil, usageError("%s %q: it must be more than 0", c.spelled(name, from), v)
		}
		*d = parsed
	}
	c.g.timed = uc.IsSet("timeout")
	c.g.verbose = c.bool("verbose")
	c.g.json = c.bool("json")
	if out, from := c.setting("output"); from == fromFlag {
		if c.g.json && out != "json" {
			return nil, usageError("--json and --output %s: leave one out", out)
		}
		c.g.json = out == "json"
	}
	return c, nil
}

// explained adds to a failure that the server has refused something: to whoever asked that looks as if nobody answered.
func (c *call) explained(err error) error {
	text := c.denied.Load()
	if errors.Is(err, quorate.ErrPermission) {
		code := exitCode(err)
		if code == ExitUnanswered {
			code = ExitFailed // it was not heard
		}
		return &exitError{code: code, err: err, text: err.Error() + ": 'quorate permissions' shows what is needed"}
	}
	if err == nil || text == nil {
		return err
	}
	code := exitCode(err)
	if code == ExitUnanswered {
		code = ExitFailed // it was not heard
	}
	var coded *exitError
	if errors.As(err, &coded) && coded.text == "" || code != ExitFailed {
		return err // an answer, or wrong usage
	}
	return &exitError{code: code, err: err, text: fmt.Sprintf("%s: the server does not permit it (%s): 'quorate permissions' shows what is needed", err, *text)}
}

// source is where a setting comes from, the weakest first.
type source int

const (
	fromNowhere source = iota
	fromDefault
	fromContext // the NATS context
	fromEnv
	fromFlag
)

// setting is the value of an application flag: the flag's, else its variable's, else its default. An empty variable
// counts as none, as everywhere in shells.
func (c *call) setting(name string) (string, source) {
	i := slices.IndexFunc(c.flags, func(f flagSpec) bool { return f.name == name })
	f := &c.flags[i]
	if c.uc.IsSet(name) {
		if f.kind == kindBool {
			return strconv.FormatBool(c.uc.Bool(name)), fromFlag
		}
		return c.uc.String(name), fromFlag
	}
	if v := c.env[f.env]; f.env != "" && v != "" {
		return v, fromEnv
	}
	if f.def != "" {
		return f.def, fromDefault
	}
	return "", fromNowhere
}

// spelled names a setting in a message: by its flag, or by the variable that set it.
func (c *call) spelled(name string, from source) string {
	if from == fromEnv {
		for _, f := range c.flags {
			if f.name == name {
				return f.env
			}
		}
	}
	return "--" + name
}

// isSet tells whether the command's flag was given.
func (c *call) isSet(name string) bool { return c.uc.IsSet(name) }

// str is the value of the command's flag, or of its variable, or its default.
func (c *call) str(name string) string {
	if !c.uc.IsSet(name) {
		if f := c.cmd.flag(name); f != nil {
			if v := c.env[f.env]; f.env != "" && v != "" {
				return v
			}
			return f.def
		}
	}
	return c.uc.String(name)
}

// bool is whether a flag of the command or the application is on.
func (c *call) bool(name string) bool {
	if c.cmd.flag(name) != nil {
		return c.uc.Bool(name)
	}
	v, _ := c.setting(name)
	return v == "true" || v == "1"
}

// duration is the value of the command's flag, or its default, or 0. (Its form was checked before.)
func (c *call) duration(name string) time.Duration {
	d, _ := parseDuration(c.str(name))
	return d
}

// seconds is the value of the command's flag, or its default, or 0. (Its form was checked before.)
func (c *call) seconds(name string) time.Duration {
	d, _ := parseSeconds(c.str(name))
	return d
}

// integer is the value of the command's flag, or its default, or 0.
func (c *call) integer(name string) int {
	n, _ := parseInt(c.str(name))
	return n
}

// list is all values of the command's repeated flag, in order.
func (c *call) list(name string) []string { return c.uc.StringSlice(name) }

// arg is the i-th positional argument, or "".
func (c *call) arg(i int) string {
	if i < len(c.args) {
		return c.args[i]
	}
	return ""
}

// bounded is a context that ends with --timeout, for requests and one-shot commands.
func (c *call) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.g.timeout)
}

// logger is what the library's remarks go to: standard error, warnings only for commands that run on, nothing for the
// others (their one line is their error), everything with --verbose.
func (c *call) logger() *slog.Logger {
	level := slog.LevelError + 4
	switch {
	case c.g.verbose:
		level = slog.LevelDebug
	case c.cmd.runsOn:
		level = slog.LevelWarn
	}
	var h slog.Handler = slog.NewTextHandler(c.stderr, &slog.HandlerOptions{Level: level})
	if !c.g.verbose {
		h = withoutServer{h}
	}
	return slog.New(h)
}

// withoutServer leaves out what a NATS server in this process remarks, except its errors: who runs `join` did not ask for
// a server.
type withoutServer struct{ slog.Handler }

func (h withoutServer) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelError && strings.HasPrefix(r.Message, "nats-server: ") {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

func (h withoutServer) WithAttrs(attrs []slog.Attr) slog.Handler {
	return withoutServer{h.Handler.WithAttrs(attrs)}
}

func (h withoutServer) WithGroup(name string) slog.Handler {
	return withoutServer{h.Handler.WithGroup(name)}
}

// quiet takes away the progress that is shown: something is printed.
func (a *app) quiet() {
	if a.progress != nil {
		a.progress.end()
	}
}

// note prints one line on standard error.
func (c *call) note(format string, args ...any) {
	c.quiet()
	io.WriteString(c.stderr, "quorate: "+oneLine(fmt.Sprintf(format, args...))+"\n")
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, errors.New("not a duration: write a number and its unit, like 500ms, 3s or 2m")
	}
	if d < 0 {
		return 0, errors.New("less than 0")
	}
	return d, nil
}

// parseSeconds takes a duration, or a plain number of seconds.
func parseSeconds(s string) (time.Duration, error) {
	if n, err := strconv.ParseFloat(s, 64); err == nil {
		if !(n >= 0 && n <= 1e6) {
			return 0, errors.New("a number of seconds from 0 to 1000000 is meant")
		}
		return time.Duration(n * float64(time.Second)).Round(time.Microsecond), nil
	}
	d, err := parseDuration(s)
	if err != nil {
		return 0, errors.New("not a duration: write seconds, or a number and its unit, like 4, 0.5 or 500ms")
	}
	return d, nil
}

func parseInt(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, errors.New("not a whole number")
	}
	if n < 0 {
		return 0, errors.New("less than 0")
	}
	return n, nil
}

// terminal tells whether a stream is a terminal (or another character device, which does no harm).
func terminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}
