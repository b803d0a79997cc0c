package cli

import (
	"strings"
	"testing"
)

// The JSON of `explain` is a contract: exactly these fields in this order.
func TestExplain(t *testing.T) {
	t.Parallel()
	env := home(t, "", nil)
	r := runIn(t, env, "explain", "--lease", "15s", "--members", "200", "-j")
	const want = `{"lease_ms":15000,"renew_ms":2500,"margin_ms":1500,"member_timeout_ms":30000,"settle_ms":7500,"settle_ceiling_ms":30000,"grace_ms":15000,` +
		`"ack_timeout_ms":15000,"crash_failover_ms":21250,"crash_usual_ms":15000,"hand_over_ms":3000,"loss_notice_ms":32500,"reassignment_ms":45500,` +
		`"reassignment_stuck_ms":90500,"reassignment_leader_ms":66750,"join_settled_ms":15500,"leave_settled_ms":13000,"churn_ms":22500,"pause_ms":5500,"term_stops_ms":13500,"assignment_stops_ms":27000,` +
		`"term_outage_ms":10500,"term_silence_ms":8000,"assignment_outage_ms":22000,"survives_stream_election":true,"members":200,` +
		`"heartbeats_per_second":80,"messages_per_second":240,"writes_per_second":0.4}` + "\n"
	if r.code != 0 || r.stdout != want {
		t.Errorf("explain -j: %+v\nwant %s", r, want)
	}
	r = runIn(t, env, "explain")
	if r.code != 0 || !strings.Contains(r.stdout, "\n  leader crashes: next leads            4.25s  usually 3s\n") ||
		!strings.Contains(r.stdout, "3 members at rest: 18 messages/s (6 heartbeats), 2 writes/s\n") {
		t.Errorf("explain: %+v", r)
	}
	checkLine(t, runIn(t, env, "explain", "--lease", "100ms"), ExitUsage, "--lease: lease 100ms: at least 200ms are needed")
	checkLine(t, runIn(t, env, "explain", "--members", "x"), ExitUsage, "--members")
	checkLine(t, runIn(t, env, "explain", "--members", "0"), ExitUsage, "--members 0: a group has from 1 to ")
	checkLine(t, runIn(t, env, "explain", "--members", "100000"), ExitUsage, "--members 100000: a group has from 1 to ")
	r = runIn(t, env, "explain", "--lease", "1h")
	if r.code != 0 || !strings.Contains(r.stdout, "\n  leader crashes: next leads            1h25m  usually 1h\n") ||
		!strings.Contains(r.stdout, " 30m  at most 2h if disturbed\n") {
		t.Errorf("explain --lease 1h: %+v", r)
	}
}
