//go:build linux

package cli

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The bucket is made, compared, and mended.
func TestInit(t *testing.T) {
	t.Parallel()
	env := natsEnv(t)
	wantLike(t, "init", runIn(t, env, "init"), 0, `bucket QUORATE_default of namespace default was made: 1 replica, led by .*\n`)
	wantLike(t, "init again", runIn(t, env, "init", "-j"), 0,
		`\{"namespace":"default","bucket":"QUORATE_default","made":false,"replicas":1,"leader":".*","behind":\[\],"differences":\[\],"repaired":\[\]\}\n`)
	r := runIn(t, env, "init", "--replicas", "3")
	if r.code != ExitFailed || !strings.Contains(r.stdout, "num_replicas is 1, must be 3\n") || !strings.Contains(r.stderr, "differs in 1 field: 'quorate init --repair' mends it") {
		t.Errorf("too few replicas: %+v", r)
	}
	// One server has no place for three: what can be mended is.
	wantLike(t, "repair", runIn(t, env, "init", "--repair"), 0, `bucket QUORATE_default of namespace default is as it must be: 1 replica, led by .*\n`)
	checkLine(t, runIn(t, env, "init", "--repair", "--replicas", "3"), ExitFailed, "init: repair QUORATE_default:")
	checkLine(t, runIn(t, env, "init", "--replicas", "6"), ExitUsage, "--replicas 6: NATS keeps from 1 to 5")

	// What nats.go makes of a bucket of that name.
	nc, err := nats.Connect(strings.TrimPrefix(env[len(env)-1], "NATS_URL="))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "QUORATE_other", History: 5}); err != nil {
		t.Fatal(err)
	}
	r = runIn(t, env, "init", "-N", "other")
	if r.code != ExitFailed || !strings.Contains(r.stdout, "allow_direct is true, must be false\n") || !strings.Contains(r.stdout, "max_msgs_per_subject is 5, must be 1\n") {
		t.Errorf("another bucket: %+v", r)
	}
	r = runIn(t, env, "init", "-N", "other", "--repair")
	if r.code != 0 || !strings.Contains(r.stdout, "allow_direct was true, is now false\n") || !strings.Contains(r.stdout, "is as it must be") {
		t.Errorf("repair: %+v", r)
	}
	checkLine(t, runIn(t, home(t, "", nil), "init", "--state-dir", filepath.Join(t.TempDir(), "none")), ExitFailed, "no server in")
}

// A bucket that was made with one replica gets the others, and its members do not notice.
func TestInitRepairReplicas(t *testing.T) {
	t.Parallel()
	_, c := clusterFile(t, 3, "")
	startServers(t, c, "ready")
	env := append(append(home(t, "", nil), patient...), "NATS_URL="+c.URL())
	// It waits for the servers to agree on a leader.
	wantLike(t, "init", runIn(t, env, "init", "--replicas", "1", "--timeout", "2m"), 0, `bucket QUORATE_default of namespace default was made: 1 replica, led by .\n`)
	m := start(t, env, nil, "join", "g", "--id", "m", "-o", "json", "--lease", "30s") // it outlives an election of the servers, on a busy machine two
	m.await(m.out, `"leader-elected"`)
	wantLike(t, "repair", runIn(t, env, "init", "--repair", "--timeout", "2m"), 0,
		`num_replicas was 1, is now 3\nbucket QUORATE_default of namespace default is as it must be: 3 replicas, led by .\n`)
	if r := runIn(t, env, "leader", "g", "-j"); r.code != 0 || !strings.Contains(r.stdout, `"leader":"m"`) {
		t.Errorf("leader: %+v", r)
	}
	if out := m.out.String(); strings.Contains(out, `"leader-lost"`) {
		t.Errorf("the leader lost its lease: %s", out)
	}
	if code := m.stop(); code != 0 {
		t.Errorf("join: exit code %d", code)
	}
}
