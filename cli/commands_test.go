package cli

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// output is what a running command has written so far.
type output struct {
	mu      sync.Mutex
	text    strings.Builder
	changed chan struct{}
}

func newOutput() *output { return &output{changed: make(chan struct{})} }

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// running is a command that runs on, in this process.
type running struct {
	t           *testing.T
	out, errs   *output
	code        int
	done        chan struct{}
	interrupted context.CancelCauseFunc
}

// memberLease is the lease of what start starts, unless its words or a process of its own say another: it is held while the whole machine stands still for
// three seconds, which a loaded one does, and waits for quiet no longer than tests can bear.
const memberLease = 6 * time.Second

func start(t *testing.T, env []string, stdin io.Reader, words ...string) *running {
	t.Helper()
	env = append(env[:len(env):len(env)], "QUORATE_LEASE="+memberLease.String())
	r := &running{t: t, out: newOutput(), errs: newOutput(), done: make(chan struct{})}
	var ctx context.Context
	ctx, r.interrupted = context.WithCancelCause(context.Background())
	go func() {
		defer close(r.done)
		r.code = Main(ctx, words, env, stdin, r.out, r.errs)
	}()
	t.Cleanup(func() {
		r.interrupted(ErrInterrupted)
		<-r.done
		if t.Failed() {
			t.Logf("%q: exit code %d\n%s%s", words, r.code, r.errs, r.out)
		}
	})
	return r
}

// over says whether the command has ended.
func (r *running) over() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// await waits for a text in what the command writes, awaitLike for what a regular expression says.
func (r *running) await(o *output, text string) {
	r.t.Helper()
	r.until(o, text, func(s string) bool { return strings.Contains(s, text) })
}

func (r *running) awaitLike(o *output, pattern string) {
	r.t.Helper()
	r.until(o, pattern, regexp.MustCompile(pattern).MatchString)
}

func (r *running) until(o *output, what string, is func(string) bool) {
	r.t.Helper()
	end := time.After(time.Minute)
	for {
		o.mu.Lock()
		ok, changed := is(o.text.String()), o.changed
		o.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-r.done:
			if !is(o.String()) {
				r.t.Fatalf("ended with code %d without %q: %s%s", r.code, what, r.errs, r.out)
			}
		case <-end:
			r.t.Fatalf("no %q in: %s%s", what, r.errs, r.out)
		}
	}
}

// stop interrupts the command and returns its exit code.
func (r *running) stop() int {
	r.interrupted(ErrInterrupted)
	<-r.done
	return r.code
}

// patient has commands that only look wait for an answer as long as a loaded machine may take for it: a read for a sixth of the lease that they count with,
// a leader's answer for a third of it, all of it for --timeout.
var patient = []string{"QUORATE_LEASE=18s", "NATS_TIMEOUT=1m"}

// natsEnv is an environment that names a server of the test's own. What takes part has a lease of its own: see start.
func natsEnv(t *testing.T) []string {
	t.Helper()
	return append(append(home(t, "", nil), patient...), "NATS_URL="+serve(t, nil).URL())
}

// awaitAnswer runs a command that looks until its output has the text, and returns the answer: for what comes to be beside the line that was awaited.
func awaitAnswer(t *testing.T, env []string, text string, words ...string) result {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		r := runIn(t, env, words...)
		if strings.Contains(r.stdout, text) {
			return r
		}
		if time.Now().After(end) {
			t.Fatalf("%q: no %q: %+v", words, text, r)
		}
	}
}

// lateness is how commands that look tell that somebody is late. After the machine has stood still each member says so itself, until its next heartbeat.
var lateness = regexp.MustCompile(`"status":"late"| late |, \d+ late|"late":[1-9]|_late\{[^}]*\} [1-9]`)

// onTime runs a command that looks until nobody is late.
func onTime(t *testing.T, env []string, words ...string) result {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		r := runIn(t, env, words...)
		if !lateness.MatchString(r.stdout) || time.Now().After(end) {
			return r
		}
		<-time.After(50 * time.Millisecond)
	}
}

// awaitVoters waits until the leader of a group counts so many voters.
func awaitVoters(t *testing.T, env []string, group string, n int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		out := runIn(t, env, "members", group, "-j").stdout
		if strings.Count(out, `"vote"`) == n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not %d voters: %s", n, out)
		}
	}
}

// timesOut puts a question that not all answer, with twice the time until the answer is that time is up and all that is to happen meanwhile has: on a machine
// that stands still at the deadline nobody has confirmed a seal, and the verdict is unknown (V3). The topic ends with the time. It returns how often it was put.
func timesOut(t *testing.T, env []string, happened func(topic string, r result) bool, topic, pattern string) (tries int) {
	t.Helper()
	for limit := 2 * time.Second; ; limit *= 2 {
		tries++
		topic := fmt.Sprint(topic, limit)
		r := runIn(t, env, "vote", "g", topic, "--timeout", limit.String(), "-j")
		if (strings.Contains(r.stdout, `"verdict":"unknown"`) || !happened(topic, r)) && limit < time.Minute {
			continue
		}
		wantLike(t, "vote, timed out", r, ExitUnanswered, pattern)
		return tries
	}
}

func wantLike(t *testing.T, what string, r result, code int, pattern string) {
	t.Helper()
	if r.code != code {
		t.Errorf("%s: exit code %d, want %d: %s", what, r.code, code, r.stderr)
	}
	if !regexp.MustCompile(`^` + pattern + `$`).MatchString(r.stdout) {
		t.Errorf("%s\n got %q\nwant %s", what, r.stdout, pattern)
	}
}

const (
	aTime  = `"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"`
	aToken = `\d{16}`
)

// The JSON of the commands that look is a contract: exactly these fields in this order.
func TestLook(t *testing.T) {
	t.Parallel()
	env := natsEnv(t)
	a := start(t, env, nil, "join", "g", "--id", "a", "--meta", "zone=<1>", "--vote", "yes")
	a.await(a.out, " assigned ")
	o := start(t, env, nil, "join", "g", "--id", "o", "--observer", "-o", "json")
	o.await(o.out, `"leader-elected"`)
	nested := start(t, env, nil, "join", "x/y", "--id", "n", "--observer")
	nested.await(nested.errs, "waiting") // an observer alone has nobody to let it in
	awaitAnswer(t, env, `"n"`, "members", "x/y", "-j")

	wantLike(t, "groups -j", runIn(t, env, "groups", "-j"), 0,
		`\[\{"group":"g","members":2,"leader":"a","token":`+aToken+`,"phase":"settled","generation":`+aToken+`\},`+
			`\{"group":"x/y","members":1,"leader":"","token":0,"phase":"idle","generation":0\}\]\n`)
	wantLike(t, "ls", runIn(t, env, "ls"), 0, `GROUP +MEMBERS +LEADER +TOKEN +PHASE +GENERATION\n`+
		`g +2 +a +`+aToken+` +settled +`+aToken+`\nx/y +1 +- +- +idle +-\n`)
	wantLike(t, "members -j", onTime(t, env, "members", "g", "-j"), 0,
		`\[\{"id":"a","status":"alive","leader":true,"roles":\["lead","work","vote"\],"index":0,"joined":`+aTime+`,"last_seen":`+aTime+
			`,"meta":\{"zone":"<1>"\},"host":"[^"]*","version":"[^"]*"\},`+
			`\{"id":"o","status":"alive","leader":false,"roles":\[\],"index":null,"joined":`+aTime+`,"last_seen":`+aTime+
			`,"meta":\{\},"host":"[^"]*","version":"[^"]*"\}\]\n`)
	wantLike(t, "members", onTime(t, env, "members", "g"), 0, `ID +STATUS +INDEX +ROLES +JOINED +SEEN +HOST +META\n`+
		`a +alive +0 +LEADER,work,vote .* zone=<1>\no +alive +- +observer .*\n`)
	wantLike(t, "leader -j", runIn(t, env, "leader", "g", "-j"), 0,
		`\{"group":"g","leader":"a","token":`+aToken+`,"since":`+aTime+`,"lease_ms":6000\}\n`)
	wantLike(t, "leader", runIn(t, env, "leader", "g"), 0, `a leads g, token `+aToken+`, since .*, lease 6s\n`)

	if code := a.stop(); code != 0 {
		t.Errorf("join: exit code %d, want 0", code)
	}
	if out := a.out.String(); !strings.HasSuffix(out, " left           a: left\n") {
		t.Errorf("last line is not left: %s", out)
	}
	// Without a leader the records are shown.
	wantLike(t, "members -j, no leader", runIn(t, env, "members", "g", "-j"), 0,
		`\[\{"id":"o","status":"unknown","leader":false,"roles":\[\],"index":null,"joined":`+aTime+`,"last_seen":null,"meta":\{\},"host":"[^"]*","version":"[^"]*"\}\]\n`)
	checkLine(t, runIn(t, env, "leader", "g"), ExitUnanswered, `group "g" has no leader now`)
	wantLike(t, "groups -j, no leader", runIn(t, env, "groups", "-j"), 0, `\[\{"group":"g","members":1,"leader":"","token":0,.*\n`)
	for _, cmd := range []string{"members", "leader"} {
		checkLine(t, runIn(t, env, cmd, "nope"), ExitFailed, cmd+`: no such group "nope": 'quorate groups' lists them`)
		checkLine(t, runIn(t, env, cmd, "g", "-N", "other"), ExitFailed, `no such group "g": namespace "other" does not exist on nats://127`)
		checkLine(t, runIn(t, env, cmd, "a b"), ExitUsage, `group "a b": character 2 is ' '`)
	}
	checkLine(t, runIn(t, env, "leader", "--election", "e"), ExitFailed, `no such election "e"`)
	checkLine(t, runIn(t, env, "leader", "--election", "e.f"), ExitUsage, `election "e.f"`)
	checkLine(t, runIn(t, env, "leader", "g", "--election", "e"), ExitUsage, "too much beside --election")
}

// Nothing there is an empty list, with a word about the namespace.
func TestGroupsNone(t *testing.T) {
	t.Parallel()
	env := natsEnv(t)
	if r := runIn(t, env, "groups", "-j"); r.code != 0 || r.stdout != "[]\n" || !strings.Contains(r.stderr, `namespace "default" does not exist on nats://`) {
		t.Errorf("%+v", r)
	}
	if r := runIn(t, env, "groups"); r.code != 0 || r.stdout != "no groups\n" {
		t.Errorf("%+v", r)
	}
}

func TestVote(t *testing.T) {
	t.Parallel()
	env := natsEnv(t)
	silentMember := start(t, env, nil, "join", "g", "--id", "s")
	silentMember.await(silentMember.out, "joined")
	checkLine(t, runIn(t, env, "vote", "g", "go?"), ExitUnanswered, `nobody in group "g" votes`)
	checkLine(t, runIn(t, env, "vote", "nope", "go?"), ExitFailed, `no such group "nope"`)
	checkLine(t, runIn(t, env, "vote", "g", "go?", "--kind", "most"), ExitUsage, `--kind "most"`)
	checkLine(t, runIn(t, env, "vote", "g", ""), ExitUsage, "TOPIC is empty")
	checkLine(t, runIn(t, env, "vote", "g", strings.Repeat("x", 1025)), ExitUsage, "1025 bytes")
	checkLine(t, runIn(t, env, "vote", "g", "go?", "--timeout", "11m"), ExitUsage, "at most 10m")

	stdin, answers := io.Pipe()
	y := start(t, env, nil, "join", "g", "--id", "y", "--vote", "yes", "-o", "json")
	q := start(t, env, stdin, "join", "g", "--id", "q", "--vote", "ask")
	t.Cleanup(func() { answers.Close() })
	awaitVoters(t, env, "g", 2)
	go io.WriteString(answers, "what?\nn not yet\n")
	const head = `\{"group":"g","ballot":"[A-Za-z0-9]+","topic":"go <&> on\?","kind":"consensus",`
	wantLike(t, "vote, no", runIn(t, env, "vote", "g", "go <&> on?", "--kind", "consensus", "-j"), ExitNo, head+
		`"verdict":"no","yes":[01],"no":1,"abstain":0,"of":2,"silent":\[("y")?\],"reasons":\[\{"member":"q","text":"not yet"\}\],"decided_at":`+aTime+`\}\n`)
	if got := strings.Count(q.errs.String(), "ballot: go <&> on? (consensus of 2, "); got != 2 {
		t.Errorf("asked %d times, want twice: %s", got, q.errs)
	}
	tries := 0 // it may be decided before q has begun to ask
	for asked := false; !asked; tries++ {
		wantLike(t, "vote, yes", runIn(t, env, "vote", "g", "and now?", "--kind", "1"), 0, `yes: 1 yes, 0 no, 0 abstain of 2 \(at least 1\), silent: q\n`)
		asked = strings.Contains(q.errs.String(), "ballot: and now?")
		if tries > 1000 {
			t.Fatalf("q was never asked: %s", q.errs)
		}
	}
	q.await(q.errs, "ballot: and now?: it is over")
	heard := func(topic string, r result) bool {
		return strings.Contains(q.errs.String(), topic+" (") && strings.Contains(r.stdout, `"yes":1`)
	}
	tries += timesOut(t, env, heard, "and then? in ",
		`\{"group":"g","ballot":"[A-Za-z0-9]+","topic":"and then\? in \d+s","kind":"majority","verdict":"timed-out","yes":1,"no":0,"abstain":0,"of":2,"silent":\["q"\],"reasons":\[\],"decided_at":`+aTime+`\}\n`)
	for _, m := range regexp.MustCompile(`and then\? in \d+s \(`).FindAllString(q.errs.String(), -1) {
		q.await(q.errs, strings.TrimSuffix(m, " (")+": it is over") // before the input ends, or q may hear of that first
	}
	answers.Close()
	wantLike(t, "vote, abstained", runIn(t, env, "vote", "g", "last?"), ExitNo, `no: [01] yes, 0 no, 1 abstain of 2 \(majority\)(, silent: y)?\n`)
	y.await(y.out, `"topic":"last?","kind":"majority","verdict":"no"`)
	silentMember.await(silentMember.out, "last?, majority of 2")
	silentMember.await(silentMember.out, "verdict        no:")
	if n := strings.Count(silentMember.out.String(), "ballot  "); n != 2+tries {
		t.Errorf("%d ballots, want %d: %s", n, 2+tries, silentMember.out)
	}
	// Nobody left to ask.
	y.stop()
	q.stop()
	silentMember.stop()
	checkLine(t, runIn(t, env, "vote", "g", "anybody?", "--timeout", "10s"), ExitFailed, `no such group "g"`)
	wantLike(t, "votes of a group that all have left", runIn(t, env, "votes", "g"), 0, `DECIDED +BALLOT(.|\n)* and now\?\n(.|\n)*`)
	checkLine(t, runIn(t, env, "votes", "nosuch"), ExitFailed, `no such group "nosuch"`)
	checkLine(t, runIn(t, env, "leader", "nosuch"), ExitFailed, `no such group "nosuch"`, "a plain election is named by --election")
}

// What is wrong with the words of join is said before anything is connected.
func TestJoinUsage(t *testing.T) {
	t.Parallel()
	env := append(home(t, "", nil), "NATS_URL=nats://127.0.0.1:1")
	dir := t.TempDir()
	latin := writeFile(t, filepath.Join(dir, "latin"), []byte("ok\n\nb\xe4d\n"))
	for _, tt := range []struct {
		words string
		code  int
		says  string
	}{
		{"join a.b", ExitUsage, `group "a.b": character 2 is '.'`},
		{"join g --id web.1", ExitUsage, `member id "web.1": character 4 is '.'; letters, digits, '_' and '-' are allowed; "web-1" would do`},
		{"join g --id all", ExitUsage, `"all-1" would do`},
		{"join g --weight 0", ExitUsage, "--weight 0: a member has a weight of 1 at least"},
		{"join g --buckets=-1", ExitUsage, `--buckets "-1": less than 0`},
		{"join g --meta zone", ExitUsage, `--meta "zone": write it KEY=VALUE`},
		{"join g --meta =a", ExitUsage, `--meta "=a": write it KEY=VALUE`},
		{"join g --meta a=1 --meta a=2", ExitUsage, `--meta "a=2": the key is given twice`},
		{"join g --meta a=" + strings.Repeat("x", 4096), ExitUsage, "4097 bytes, at most 4096"},
		{"join g --buckets -1", ExitUsage, "--buckets"},
		{"join g --buckets 20000", ExitUsage, "20000 buckets: 1 to 16384 are possible"},
		{"join g --hash nats", ExitUsage, "give --buckets too"},
		{"join g --buckets 4 --hash md5", ExitUsage, `--hash "md5": write one of xxh64, nats`},
		{"join g --weight 0", ExitUsage, "--weight 0"},
		{"join g --weight 2000000", ExitUsage, "weight 2000000: it is between 1 and 1048576"},
		{"join g --zone " + strings.Repeat("z", 65), ExitUsage, "at most 64 bytes"},
		{"join g --observer --buckets 4", ExitUsage, "--observer and --buckets"},
		{"join g --observer --vote yes", ExitUsage, "--observer and --vote"},
		{"join g --observer --on-action x", ExitUsage, "--observer and --on-action"},
		{"join g --vote yes --on-ballot x", ExitUsage, "--vote and --on-ballot"},
		{"join g --on-action x", ExitUsage, "--on-action: only who has a vote acts"},
		{"vote g x --at noon", ExitUsage, `--at "noon": want a time as in 2`},
		{"vote g x --at +x", ExitUsage, `--at "+x": want a time ahead, as in +10s`},
		{"vote g x --at 2020-01-01T00:00:00Z", ExitUsage, "ago"},
		{"vote g x --at +1h", ExitUsage, "--at +1h: that is 1h0m0s ahead, at most 30m0s"},
		{"vote g x --tolerance 1s", ExitUsage, "--tolerance: of what?"},
		{"vote g x --at +10s --tolerance 1h", ExitUsage, "--tolerance 1h0m0s: want from 1ms to 1m0s"},
		{"vote g --cancel a.b", ExitUsage, `"a.b": character 2 is '.'`},
		{"vote g x --cancel b", ExitUsage, "too much beside --cancel"},
		{"vote g --cancel b --at +1s", ExitUsage, "--cancel and --at"},
		{"join g --observer --items " + latin, ExitUsage, "--observer and --items"},
		{"join g --vote maybe", ExitUsage, `--vote "maybe": write one of yes, no, abstain, ask`},
		{"join g --items " + dir + "/nope", ExitFailed, "--items " + dir + "/nope: no such file"},
		{"join g --items " + dir, ExitFailed, "is a directory"},
		{"join g --items " + latin, ExitFailed, "line 3 is not UTF-8"},
		{"join g --lease 10ms", ExitUsage, "--lease: lease 10ms: at least 200ms"},
		{"members g --lease 10ms", ExitUsage, "--lease: lease 10ms: at least 200ms"},
		{"join g", ExitFailed, "cannot reach nats://127.0.0.1:1: connection refused"},
		{"members g", ExitFailed, "cannot reach nats://127.0.0.1:1: connection refused"},
		{"vote g x", ExitFailed, "cannot reach"},
		{"demo --members 2", ExitUsage, "--members 2: from 3 to 30"},
		{"demo --lease 4s", ExitUsage, "--lease 4s: the demo takes at most 3s"},
		{"demo --items " + dir + "/nope", ExitFailed, "no such file"},
	} {
		t.Run(tt.words[:min(len(tt.words), 40)], func(t *testing.T) {
			checkLine(t, runIn(t, env, strings.Fields(tt.words)...), tt.code, tt.says)
		})
	}
	file := writeFile(t, filepath.Join(dir, "file"), nil)
	checkLine(t, runIn(t, home(t, "", nil), "join", "g", "--state-dir", file), ExitFailed, "join: ", file)
	checkLine(t, runIn(t, home(t, "", nil), "members", "g", "--state-dir", dir), ExitFailed, "members: no server in "+dir)
}

// A NATS server without JetStream is named as such.
func TestNoJetStream(t *testing.T) {
	t.Parallel()
	ns, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	if !ns.ReadyForConnections(30 * time.Second) {
		t.Fatal("server is not ready")
	}
	env := append(home(t, "", nil), "NATS_URL="+ns.ClientURL())
	for _, words := range []string{"members g", "groups", "leader g", "vote g x", "join g"} {
		r := runIn(t, env, strings.Fields(words)...)
		cmd, _, _ := strings.Cut(words, " ")
		if !strings.Contains(r.stderr, "quorate: "+cmd+": ") || !strings.Contains(r.stderr, "JetStream is not available") || r.code != ExitFailed {
			t.Errorf("%s: %+v", words, r)
		}
	}
}

// An id that is in use is waited for, and what it waits for is said; interrupted it leaves nothing and nobody.
func TestJoinIDInUse(t *testing.T) {
	t.Parallel()
	env := natsEnv(t)
	a := start(t, env, nil, "join", "g", "--id", "a")
	a.await(a.out, "leader-elected")
	b := start(t, env, nil, "join", "g", "--id", "a")
	b.await(b.errs, `join: waiting: `)
	if code := b.stop(); code != 0 || b.out.String() != "" {
		t.Errorf("exit code %d, output %q: want 0 and nothing", code, b.out)
	}
	if strings.Contains(a.out.String(), "left") {
		t.Errorf("the first has left: %s", a.out)
	}
	c := start(t, env, nil, "join", "g", "--id", "a")
	c.await(c.errs, `join: waiting: `)
	a.stop()
	c.await(c.out, "joined         as a")
}

// failingWriter is a standard output that goes away after some lines.
type failingWriter struct {
	mu   sync.Mutex
	left int
}

func (w *failingWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.left--; w.left < 0 {
		return 0, io.ErrClosedPipe
	}
	return len(b), nil
}

// A member nobody listens to any more leaves the group.
func TestJoinOutputGone(t *testing.T) {
	t.Parallel()
	env := append(natsEnv(t), "QUORATE_LEASE="+memberLease.String())
	errs := newOutput()
	done := make(chan int)
	go func() {
		done <- Main(context.Background(), []string{"join", "g", "--id", "a"}, env, nil, &failingWriter{left: 2}, errs)
	}()
	if code := <-done; code != ExitFailed || !strings.Contains(errs.String(), "standard output: ") {
		t.Errorf("exit code %d: %s", code, errs)
	}
	checkLine(t, runIn(t, env, "members", "g"), ExitFailed, fmt.Sprintf("no such group %q", "g"))
}
