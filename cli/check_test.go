package cli

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// checked runs check and returns its lines, by status and what was checked.
func checked(t *testing.T, env []string, code int, words ...string) string {
	t.Helper()
	r := onTime(t, env, append([]string{"check"}, words...)...)
	if r.code != code || r.stderr != "" {
		t.Errorf("check %q: exit code %d, want %d: %s%s", words, r.code, code, r.stdout, r.stderr)
	}
	return r.stdout
}

func mustHave(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !regexp.MustCompile(`(?m)^` + p + `$`).MatchString(text) {
			t.Errorf("no line %q in\n%s", p, text)
		}
	}
}

// From nothing to a group that is well: each thing is told by what is wrong with it, and the exit code is that of the worst.
func TestCheck(t *testing.T) {
	t.Parallel()
	mustHave(t, checked(t, []string{"NATS_URL=nats://127.0.0.1:1"}, 2), `critical  nats +cannot reach nats://127.0.0.1:1: connection refused.*`)
	mustHave(t, checked(t, []string{"NATS_CONTEXT=nosuch", "HOME=" + t.TempDir()}, 3), `unknown   nats +context "nosuch": there is none.*`)
	mustHave(t, checked(t, []string{"HOME=" + t.TempDir()}, 2, "--format", "nagios"), `QUORATE CRITICAL - no server in .*`, `CRITICAL: nats: no server in .*`)

	env := natsEnv(t)
	mustHave(t, checked(t, env, 2), `ok        nats +connected to .*`, `critical  bucket +namespace "default" has no bucket.*`)
	if r := runIn(t, env, "init"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	none := checked(t, env, 0)
	mustHave(t, none, `ok        bucket +as it must be, 1 replica.*`, `ok        compare-and-set +works; a write took .*s`)
	if strings.Count(none, "\n") != 3 {
		t.Errorf("without groups: %s", none)
	}
	mustHave(t, checked(t, env, 2, "g"), `critical  g leader +no such group: .*`)

	a := start(t, env, nil, "join", "g", "--id", "a")
	a.await(a.out, " assigned ")
	mustHave(t, checked(t, env, 0, "g", "--unsettled", "1ns"), `ok +g leader +a leads`, `ok +g members +1 member`, `ok +g settled +settled`)
	mustHave(t, checked(t, env, 2, "g", "--members", "2"), `critical  g members +1 member, at least 2 are wanted`)
	mustHave(t, checked(t, env, 1, "g", "--members", "2", "--ready"), `critical  g members +1 member, at least 2 are wanted`)
	checked(t, env, 0, "g", "--ready")
	few := start(t, env, nil, "join", "few", "--id", "f", "--min-size", "2")
	few.await(few.out, "joined")
	mustHave(t, checked(t, env, 2, "few"), `critical  few leader +not quorate: .*`, `ok +few settled.*`)
	few.stop()
	alone := start(t, env, nil, "join", "alone", "--id", "o", "--observer")
	awaitAnswer(t, env, `"o"`, "members", "alone", "-j")
	mustHave(t, checked(t, env, 2, "alone"), `critical  alone leader +it has no leader`, `ok +alone members +1 member`, `ok +alone settled +nobody works in it`)
	alone.stop()

	// Records as they stand when a leader has died while it shared the work anew, and before anything was settled.
	nc, err := nats.Connect(strings.TrimPrefix(env[len(env)-1], "NATS_URL="))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for key, rec := range map[string]string{
		"member.mid.m":   `{"v":1,"id":"m","incarnation":1,"roles":["work"],"joined":"2026-01-02T03:04:05Z"}`,
		"settled.mid":    `{"v":1,"phase":"settling","places":[],"map":"jump-xxh64"}`,
		"member.first.m": `{"v":1,"id":"m","incarnation":1,"roles":["work"],"joined":"2026-01-02T03:04:05Z"}`,
	} {
		if _, err := nc.Request("$KV.QUORATE_default."+key, []byte(rec), time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	mustHave(t, checked(t, env, 2, "mid", "--unsettled", "1ns"), `critical  mid settled +unsettled for .*, longer than 1ns`)
	mustHave(t, checked(t, env, 2, "mid", "first"), `ok +mid settled +unsettled for .*`, `ok +first settled +unsettled for \d+h.*`)
	for _, key := range []string{"member.mid.m", "settled.mid", "member.first.m"} {
		if _, err := nc.RequestMsg(&nats.Msg{Subject: "$KV.QUORATE_default." + key, Header: nats.Header{"KV-Operation": {"PURGE"}, "Nats-Rollup": {"sub"}}}, time.Minute); err != nil {
			t.Fatal(err)
		}
	}

	text := checked(t, env, 0, "--format", "nagios", "g", "--members", "1", "--unsettled", "1h")
	mustHave(t, text, `QUORATE OK - 1 group, 1 member, a write took .*s \| round_trip=[0-9.]+s;;;0 groups=1;;;0 'members'=1;;1:;0 'unsettled'=0s;;3600;0`, `OK: g leader: a leads`)
	prom := checked(t, env, 0, "--format", "prometheus")
	mustHave(t, prom, `quorate_check_status\{namespace="default"\} 0`, `quorate_check_connected\{namespace="default"\} 1`, `quorate_check_leader\{namespace="default",group="g"\} 1`,
		`quorate_check_members\{namespace="default",group="g"\} 1`, `quorate_check_unsettled_seconds\{namespace="default",group="g"\} [0-9.e+-]+`, `# TYPE quorate_check_members gauge`)
	for line := range strings.Lines(prom) {
		if !regexp.MustCompile(`^(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\} [0-9.e+-]+)\n$`).MatchString(line) {
			t.Errorf("not in the format of Prometheus: %q", line)
		}
	}
	out := checked(t, env, 0, "-j")
	if !regexp.MustCompile(`^\{"status":"ok","namespace":"default","server":"nats://[^"]+","round_trip_us":\d+,"replicas":1,"checks":\[(\{"check":"[a-z-]+","group":"g?","status":"ok","text":"[^"]+"\},?)+\],`+
		`"groups":\[\{"group":"g","leader":"a","members":1,"late":0,"phase":"[a-z]*","unsettled_ms":\d+\}\]\}\n$`).MatchString(out) || !json.Valid([]byte(out)) {
		t.Errorf("json: %s", out)
	}
	if again := checked(t, env, 0, "--format", "json"); !strings.HasPrefix(again, `{"status":"ok"`) {
		t.Errorf("--format json: %s", again)
	}

	checkLine(t, runIn(t, env, "check", "--members", "3"), ExitUsage, "--members 3 of which group")
	checkLine(t, runIn(t, env, "check", "-j", "--format", "nagios"), ExitUsage, "--format nagios and --json")
	checkLine(t, runIn(t, env, "check", "g", "--lease", "1ms"), ExitUsage, "--lease")
	checkLine(t, runIn(t, env, "check", "a b"), ExitUsage, `"a b"`)
}

// A bucket that differs is critical, naming each difference.
func TestCheckBucket(t *testing.T) {
	t.Parallel()
	env := natsEnv(t)
	nc, err := nats.Connect(strings.TrimPrefix(env[len(env)-1], "NATS_URL="))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "QUORATE_default", History: 5}); err != nil {
		t.Fatal(err)
	}
	mustHave(t, checked(t, env, 2), `critical  bucket +QUORATE_default differs from what it must be: .*max_msgs_per_subject.*`)
}
