//go:build linux

package cli

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// caughtUp says whether all three servers have answered, and have a leader and all that it has in each of two groups.
func caughtUp(st raftState) bool {
	for _, g := range st.Groups {
		for _, s := range g.Servers {
			if g.Leader == "" || s.Leader != g.Leader || s.Term == 0 || s.Commit == 0 || s.Applied == 0 || s.Index == 0 || len(s.Peers) != 2 || (s.Lag == nil) != (s.Server == g.Leader) {
				return false
			}
		}
		if len(g.Servers) != 3 {
			return false
		}
	}
	return len(st.Servers) == 3 && len(st.Silent) == 0 && len(st.Groups) == 2
}

func TestRaft(t *testing.T) {
	t.Parallel()
	path, c := clusterFile(t, 3, "")
	servers := startServers(t, c, "default")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for _, s := range servers {
		if err := s.AwaitReady(ctx); err != nil {
			t.Fatal(err)
		}
	}
	env := append(home(t, "", nil), patient...)
	state := func(words ...string) raftState {
		t.Helper()
		r := runIn(t, env, append([]string{"raft", "--config", path, "--local", "a", "-j"}, words...)...)
		var st raftState
		if err := json.Unmarshal([]byte(r.stdout), &st); r.code != 0 || err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
		return st
	}
	// A server may have to catch up yet, or be too busy to answer beside the others.
	st := state()
	for end := time.Now().Add(patience); !caughtUp(st) && time.Now().Before(end); {
		st = state()
	}
	if st.Cluster != "quorate" || !slices.Equal(st.Servers, []string{"a", "b", "c"}) || len(st.Silent) > 0 || len(st.Hints) > 0 || len(st.Groups) != 2 {
		t.Fatalf("got %+v, want three servers and two groups", st)
	}
	if m, s := st.Groups[0], st.Groups[1]; m.Kind != "meta" || m.Group != "_meta_" || s.Kind != "stream" || s.Stream != "KV_QUORATE_default" || s.Account != "$G" {
		t.Errorf("groups %+v, %+v, want the meta group and the bucket's stream", m, s)
	}
	for _, g := range st.Groups {
		if g.Leader == "" || g.Size != 3 || g.Quorum != 2 || len(g.Servers) != 3 {
			t.Errorf("%s: %+v, want a leader of three", g.title(), g)
		}
		for _, s := range g.Servers {
			leads := s.Server == g.Leader
			if s.Role != map[bool]string{true: "leader", false: "follower"}[leads] || s.Leader != g.Leader || s.Term == 0 || s.Commit == 0 || s.Applied == 0 || s.Index == 0 || len(s.Peers) != 2 {
				t.Errorf("%s: %+v", g.title(), s)
			}
			if (s.Lag == nil) != leads || (s.LastContact == nil) != leads {
				t.Errorf("%s: lag and contact of %+v, want those that the leader sees", g.title(), s)
			}
		}
	}
	r := runIn(t, env, "raft", "--config", path, "--local", "b")
	for end := time.Now().Add(patience); strings.Count(r.stdout, "\n") != 7 && time.Now().Before(end); {
		r = runIn(t, env, "raft", "--config", path, "--local", "b")
	}
	wantLike(t, "raft", r, 0, `GROUP +SERVER +ROLE +TERM +COMMIT +APPLIED +LAG +CONTACT\n(meta +[abc] +(leader|follower) +\d+ +\d+ +\d+ +(-|\d+) +\S+\n){3}`+
		`(KV_QUORATE_default +[abc] +(leader|follower) +\d+ +\d+ +\d+ +(-|\d+) +\S+\n){3}`)
	for line := range strings.Lines(r.stdout) {
		if len(line) > helpWidth+1 {
			t.Errorf("%d columns: %s", len(line)-1, line)
		}
	}

	// Live, until it is interrupted.
	w := start(t, env, nil, "raft", "--config", path, "--local", "a", "-j", "--watch")
	for end := time.After(patience); strings.Count(w.out.String(), "\n") < 2; {
		select {
		case <-end:
			t.Fatalf("one picture only: %s", w.out)
		case <-time.After(10 * time.Millisecond):
		}
	}
	if code := w.stop(); code != 0 {
		t.Errorf("watch: exit code %d", code)
	}

	// Not everybody may look.
	checkLine(t, runIn(t, env, "raft", "-s", servers[0].URL()), ExitFailed, "raft: nats://127.", "does not let this user see it: give a user of the system account")
	checkLine(t, runIn(t, env, "raft", "--config", path), ExitFailed, "which machine is this?", "name it with --local")
	checkLine(t, runIn(t, env, "raft", "--local", "a"), ExitUsage, "give --config too")

	// One that is gone is missed, and one that the file does not know is named.
	if err := servers[1].Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, []byte(strings.Replace(string(data), `"name": "b"`, `"name": "d"`, 1)))
	st = state()
	for end := time.Now().Add(patience); !slices.Equal(st.Servers, []string{"a", "c"}) && time.Now().Before(end); {
		st = state()
	}
	if !slices.Equal(st.Servers, []string{"a", "c"}) || !slices.Equal(st.Silent, []string{"b"}) {
		t.Errorf("servers %q, silent %q, want b silent", st.Servers, st.Silent)
	}
	for _, want := range []string{"b is no machine of the file, but counts for every majority until it is removed", "d has not been seen yet", "no answer from b"} {
		if !slices.ContainsFunc(st.Hints, func(h string) bool { return strings.Contains(h, want) }) {
			t.Errorf("hints %q, want %q", st.Hints, want)
		}
	}
}

// One server has no Raft beneath, whoever asks.
func TestRaftAlone(t *testing.T) {
	t.Parallel()
	env := natsEnv(t)
	r := runIn(t, env, "raft")
	wantLike(t, "raft", r, 0, `nats://\S+ is not in a cluster: nothing is replicated, and there is no Raft beneath\n`)
	checkLine(t, runIn(t, home(t, "", nil), "raft", "--state-dir", filepath.Join(t.TempDir(), "none")), ExitFailed, "no server in")
}

// The system user of the file needs its nkey's seed.
func TestRaftNKey(t *testing.T) {
	t.Parallel()
	path, _ := clusterFile(t, 1, `, "auth": {"system": {"nkey": "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"}}`)
	checkLine(t, runIn(t, home(t, "", nil), "raft", "--config", path), ExitUsage, "has an nkey: give its seed file with --nkey")
}
