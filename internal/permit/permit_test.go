package permit

import (
	"slices"
	"strings"
	"testing"
)

func TestOf(t *testing.T) {
	has := func(t *testing.T, l []string, subject string, want bool) {
		t.Helper()
		if slices.Contains(l, subject) != want {
			t.Errorf("%q: %t, want %t", subject, !want, want)
		}
	}
	for _, role := range []Role{Member, Observer, Operator} {
		t.Run(string(role), func(t *testing.T) {
			all := Of(Options{Role: role})
			some := Of(Options{Role: role, Namespace: "prod", Groups: []string{"a/b"}, Elections: []string{"e"}, Domains: []string{"hub"}, Inbox: "_I"})
			// Nobody may say what the server republishes, and nobody may do anything to the stream but an operator.
			for _, s := range slices.Concat(all.Publish, some.Publish) {
				if strings.Contains(s, ".kv.") || strings.Contains(s, ">") || strings.Contains(s, "DELETE") || strings.Contains(s, "PURGE") {
					t.Errorf("%s may publish to %s", role, s)
				}
			}
			for _, s := range some.Publish {
				if strings.Contains(s, "default") || strings.HasPrefix(s, "$JS.API") {
					t.Errorf("%s of another namespace and domain may publish to %s", role, s)
				}
			}
			for _, s := range slices.Concat(some.Publish, some.Subscribe) {
				if strings.Contains(s, ".g.*.") || strings.Contains(s, ".e.*.") || strings.HasSuffix(s, ".leader.*") && !strings.Contains(s, ".g.") {
					t.Errorf("%s of one group has %s", role, s)
				}
			}
			has(t, all.Publish, "$JS.API.STREAM.UPDATE.KV_QUORATE_default", role == Operator)
			has(t, all.Publish, "$JS.API.STREAM.CREATE.KV_QUORATE_default", role == Operator)
			has(t, all.Publish, "quorate.default.g.*.heartbeat", role == Member)
			has(t, all.Publish, "quorate.default.g.*.ctl.evict", role == Operator)
			has(t, all.Publish, "quorate.default.g.*.ctl.propose", role != Observer)
			has(t, all.Publish, "$KV.QUORATE_default.leader.*", role == Member)
			has(t, all.Subscribe, "_INBOX.>", true)
			has(t, all.Subscribe, "quorate.default.kv.>", true)
			has(t, all.Subscribe, "quorate.default.g.*.>", role == Member)
			has(t, some.Publish, "$JS.hub.API.$KV.QUORATE_prod.leader.a/b", role == Member)
			has(t, some.Publish, "$JS.hub.API.$KV.QUORATE_prod.election.e", role == Member)
			has(t, some.Subscribe, "_I.>", true)
			has(t, some.Subscribe, "quorate.prod.kv.member.a/b.*", true)
			if (all.Responses != 0) != (role == Member) {
				t.Errorf("%s may answer: %d", role, all.Responses)
			}
			if again := Of(Options{Role: role}); again.Config() != all.Config() {
				t.Errorf("another text at each call")
			}
		})
	}
}

func TestChecks(t *testing.T) {
	for inbox, ok := range map[string]bool{"_INBOX": true, "_INBOX_mine": true, "a.b": true, "": false, "a.": false, "a.*": false, ">": false, "a b": false, "$JS": false, "quorate.x": false} {
		if err := CheckInbox(inbox); (err == nil) != ok {
			t.Errorf("inbox %q: %v", inbox, err)
		}
	}
	for role, ok := range map[string]bool{"member": true, "observer": true, "operator": true, "": false, "chief": false} {
		if err := CheckRole(role); (err == nil) != ok {
			t.Errorf("role %q: %v", role, err)
		}
	}
}
