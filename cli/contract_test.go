package cli

import (
	"maps"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
)

// The contract that scripts rely on, as the design has it: flags with their variables, commands with theirs, fields of JSON in their order. More may come
// behind what stands here, nothing may go.

func TestContractFlags(t *testing.T) {
	flags := appFlags()
	for _, want := range []struct{ name, short, env, def string }{
		{"server", "s", "NATS_URL", ""}, {"context", "", "NATS_CONTEXT", ""}, {"user", "", "NATS_USER", ""}, {"password", "", "NATS_PASSWORD", ""},
		{"token", "", "NATS_TOKEN", ""}, {"creds", "", "NATS_CREDS", ""}, {"nkey", "", "NATS_NKEY", ""}, {"tlscert", "", "NATS_CERT", ""},
		{"tlskey", "", "NATS_KEY", ""}, {"tlsca", "", "NATS_CA", ""}, {"tlsfirst", "", "NATS_TLSFIRST", ""}, {"inbox-prefix", "", "NATS_INBOX_PREFIX", ""},
		{"js-domain", "", "NATS_JS_DOMAIN", ""}, {"namespace", "N", "QUORATE_NAMESPACE", "default"}, {"state-dir", "", "QUORATE_STATE_DIR", ""},
		{"lease", "", "QUORATE_LEASE", "3s"}, {"output", "o", "", "table"}, {"json", "j", "", ""}, {"timeout", "", "NATS_TIMEOUT", "5s"}, {"verbose", "", "", ""},
		{"embedded", "", "", ""},
	} {
		i := slices.IndexFunc(flags, func(f flagSpec) bool { return f.name == want.name })
		if i < 0 || flags[i].short != want.short || flags[i].env != want.env || flags[i].def != want.def {
			t.Errorf("--%s: %+v", want.name, want)
		}
	}
}

func TestContractCommands(t *testing.T) {
	table := commands()
	for _, want := range []struct {
		name, args string
		flags      string // with their defaults
		needs      need
		runsOn     bool
	}{
		{"join", "GROUP", "id meta items min-size observer vote on-ballot on-action on-message listen http-cert http-key http-ca", needServer, true},
		{"run", "GROUP -- CMD...", "leader assign grace=5s restart=lost election listen http-cert http-key http-ca", needServer, true},
		{"groups", "", "", needClient, false},
		{"ls", "", "", needClient, false},
		{"members", "GROUP", "", needClient, false},
		{"leader", "GROUP", "election", needClient, false},
		{"votes", "GROUP", "", needClient, false},
		{"history", "GROUP", "", needClient, false},
		{"watch", "GROUP", "election listen http-cert http-key http-ca", needServer, true},
		{"wait", "GROUP", "leader settled members", needServer, false},
		{"step-down", "GROUP", "to election", needClient, false},
		{"evict", "GROUP ID", "", needClient, false},
		{"send", "GROUP TEXT", "to=all topic=text ask", needClient, false},
		{"vote", "GROUP TOPIC", "kind=majority at cancel", needClient, false},
		{"owner", "GROUP KEY...", "", needClient, false},
		{"init", "", "replicas repair", needClient, false},
		{"server", "", "config local listen http-cert http-key http-ca", needNone, true},
		{"raft", "", "watch", needClient, false},
		{"web", "[GROUP...]", "listen=127.0.0.1:8080", needServer, true},
		{"bloc", "GROUP", "listen=127.0.0.1:8989 session-timeout settle", needServer, true},
		{"explain", "", "", needNone, false},
		{"check", "[GROUP...]", "ready members unsettled format=text", needClient, false},
		{"demo", "", "members=5 items", needNone, false},
		{"bench", "", "", needClient, false},
		{"completion", "SHELL", "", needNone, false},
		{"version", "", "", needNone, false},
		{"help", "[COMMAND]", "", needNone, false},
	} {
		c := find(table, want.name)
		if c == nil {
			t.Errorf("no command %s", want.name)
			continue
		}
		if args := strings.TrimSpace(strings.TrimPrefix(c.synopsis(), "quorate "+c.name)); args != want.args || c.needs != want.needs || c.runsOn != want.runsOn {
			t.Errorf("%s: arguments %q, needs %d, runs on %t; want %q, %d, %t", want.name, args, c.needs, c.runsOn, want.args, want.needs, want.runsOn)
		}
		for f := range strings.FieldsSeq(want.flags) {
			name, def, _ := strings.Cut(f, "=")
			if own := c.flag(name); own == nil || own.def != def {
				t.Errorf("%s --%s (default %q): %+v", want.name, name, def, own)
			}
		}
	}
	for command, choices := range map[string]map[string]string{
		"join":  {"vote": "yes no abstain ask"},
		"run":   {"restart": "lost always no"},
		"check": {"format": "text nagios prometheus json"},
	} {
		for flag, want := range choices {
			if got := find(table, command).flag(flag).choices; !slices.Equal(got, strings.Fields(want)) {
				t.Errorf("%s --%s: %q, want %q", command, flag, got, want)
			}
		}
	}
}

// jsonFields are the fields of a struct as JSON has them, in their order.
func jsonFields(t reflect.Type) (l []string) {
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous && f.Type.Kind() == reflect.Struct {
			l = append(l, jsonFields(f.Type)...)
		} else if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
			l = append(l, name)
		}
	}
	return l
}

func TestContractJSON(t *testing.T) {
	const event = "v time type group election self "
	for _, want := range []struct {
		of     any
		fields string
	}{
		{memberLine{}, "id status leader roles index joined last_seen meta host version"},
		{groupLine{}, "group members leader token phase generation"},
		{leaderLine{}, "group election leader token since lease_ms value"},
		{historyLine{}, "group generation cause began settled members"},
		{ownerLine{}, "key member index bucket generation"},
		{gatheredLine{}, "replies missing"},
		{replyLine{}, "member data data_base64 error rtt_ms"},
		{joinedEvent{}, event + "member incarnation"},
		{leftEvent{}, event + "member reason"},
		{disconnectedEvent{}, event},
		{reconnectedEvent{}, event},
		{memberJoinedEvent{}, event + "member meta"},
		{memberLeftEvent{}, event + "member reason"},
		{leaderElectedEvent{}, event + "leader token lease_ms"},
		{leaderLostEvent{}, event + "leader token reason until"},
		{settlingEvent{}, event + "generation"},
		{settledEvent{}, event + "generation total"},
		{assignedEvent{}, event + "member index total generation lease_ms buckets items"},
		{revokedEvent{}, event + "member generation reason until"},
		{messageEvent{}, event + "from to topic data data_base64"},
		{ballotEvent{}, event + "ballot topic kind deadline of"},
		{verdictEvent{}, event + "ballot topic kind verdict yes no abstain of silent"},
		{actionEvent{}, event + "ballot member status late_ms"},
	} {
		got := jsonFields(reflect.TypeOf(want.of))
		wanted := strings.Fields(want.fields)
		// What came later may stand anywhere; what is in the contract keeps its order.
		var of []string
		for _, f := range got {
			if slices.Contains(wanted, f) {
				of = append(of, f)
			}
		}
		if !slices.Equal(of, wanted) {
			t.Errorf("%T: %q, want %q among them, in this order", want.of, got, wanted)
		}
	}
}

// Whatever is wrong, a command says so in one line, with the exit code of the contract, and ends: no command hangs past --timeout, and none prints a stack.
func TestContractErrors(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and never says a word
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	good := natsEnv(t)
	if r := runIn(t, good, "init"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	path := "PATH=" + os.Getenv("PATH")
	words := map[string][]string{"GROUP": {"nosuch"}, "ID": {"x"}, "TEXT": {"x"}, "TOPIC": {"x"}, "KEY": {"x"}}
	type wrong struct {
		name string
		env  []string
		code int
		of   map[string]int // commands that end otherwise; -1: not in question
	}
	local := map[string]int{"server": -1, "demo": -1, "completion": -1, "version": -1, "help": -1, "explain": -1, "permissions": -1} // that need no NATS of another
	with := func(more map[string]int) map[string]int {
		m := maps.Clone(local)
		maps.Copy(m, more)
		return m
	}
	// Those that become the server of this host are for other tests; those without a group have nothing wrong with them.
	noHost := with(map[string]int{"check": checkCritical, "join": -1, "run": -1, "watch": -1, "wait": -1, "bloc": -1, "web": -1})
	noGroup := with(map[string]int{"check": checkCritical, "join": -1, "run": -1, "watch": -1, "bloc": -1, "web": -1, "groups": -1, "init": -1, "raft": -1, "bench": -1,
		"wait": ExitUnanswered})
	for _, w := range []wrong{
		{"refused", []string{"NATS_URL=nats://127.0.0.1:1", path}, ExitFailed, with(map[string]int{"check": checkCritical, "run": ExitRunFailed})},
		{"silent", []string{"NATS_URL=nats://" + silent.Addr().String(), path}, ExitUnanswered, with(map[string]int{"check": checkCritical, "run": ExitRunFailed})},
		{"not a URL", []string{"NATS_URL=http://x", path}, ExitUsage, local},
		{"no context", []string{"NATS_CONTEXT=nosuch", "HOME=" + t.TempDir(), path}, ExitFailed, with(map[string]int{"check": checkUnknown, "run": ExitRunFailed})},
		{"no server of this host", []string{"HOME=" + t.TempDir(), path}, ExitFailed, noHost},
		{"no such group", append(good, path), ExitFailed, noGroup},
	} {
		var all sync.WaitGroup
		for _, c := range commands() {
			code := w.code
			if of, ok := w.of[c.name]; ok {
				code = of
			}
			if code < 0 {
				continue
			}
			limit := "500ms"
			if code != ExitUnanswered && code != ExitRunFailed && code != checkCritical { // it ends by itself, however long a busy machine takes over it
				limit = "1m"
			}
			line := []string{c.name, "--timeout", limit}
			for _, a := range c.args {
				line = append(line, words[a.name]...)
			}
			if c.name == "web" || c.name == "bloc" {
				line = append(line, "--listen", "127.0.0.1:0")
			}
			if c.rest != "" {
				line = append(line, "--", "true")
			}
			all.Go(func() {
				r := runIn(t, w.env, line...)
				if c.name == "check" && w.code != ExitUsage { // its report is its output
					if r.code != code || r.stderr != "" || !strings.Contains(r.stdout, checkLevels[code]+" ") {
						t.Errorf("%s: %q: %+v, want exit code %d", w.name, line, r, code)
					}
					return
				}
				lines := strings.Split(strings.TrimSuffix(r.stderr, "\n"), "\n")
				if c.runsOn && len(lines) == 2 && strings.Contains(lines[0], ": connected to ") {
					lines = lines[1:]
				}
				if r.code != code || len(lines) != 1 || !strings.HasPrefix(lines[0], "quorate: ") {
					t.Errorf("%s: %q: exit code %d, want %d: %q", w.name, line, r.code, code, r.stderr)
				}
			})
		}
		all.Wait()
	}
}
