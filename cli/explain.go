package cli

import (
	"context"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/settle"
	"github.com/quorate/quorate/internal/wire"
)

func explainCommand() *command {
	return &command{
		name:    "explain",
		section: sectionOther,
		summary: "what follows from a lease: worst cases and cost",
		about: "Tells what follows from --lease: how long a fail-over and a reassignment take at worst, when a process that is paused or cut off stops by itself, " +
			"which outages of NATS cost nothing, and what a group costs at rest. It connects to nothing. docs/timings.md has the reasons.",
		flags: []flagSpec{
			{name: "members", kind: kindInt, value: "N", def: "3", usage: "size of the group, for its cost"},
		},
		needs: needNone,
		json:  []shape{{of: explainLine{}}},
		examples: []example{
			{"quorate explain", "of the default lease"},
			{"quorate explain --lease 15s --members 200 -j", "as JSON"},
		},
		run: runExplain,
	}
}

// explainLine is what `explain -o json` shows. Durations are rounded up to milliseconds.
type explainLine struct {
	LeaseMS              int64   `json:"lease_ms" doc:"what all others follow from"`
	RenewMS              int64   `json:"renew_ms" doc:"renewals, heartbeats and reconciles come so often"`
	MarginMS             int64   `json:"margin_ms" doc:"a holder gives up so much early"`
	MemberTimeoutMS      int64   `json:"member_timeout_ms" doc:"a member is out after so long unheard"`
	SettleMS             int64   `json:"settle_ms" doc:"quiet time before the work is shared anew"`
	SettleCeilingMS      int64   `json:"settle_ceiling_ms" doc:"longest delay under constant change"`
	GraceMS              int64   `json:"grace_ms" doc:"guarded work may go on so long after a soft end"`
	AckTimeoutMS         int64   `json:"ack_timeout_ms" doc:"a holder may go on so long after a revoke"`
	CrashFailoverMS      int64   `json:"crash_failover_ms" doc:"leader crashes: the next one leads, at worst"`
	CrashUsualMS         int64   `json:"crash_usual_ms" doc:"the same, usually"`
	HandOverMS           int64   `json:"hand_over_ms" doc:"leader hands over: the next one leads, at worst"`
	LossNoticeMS         int64   `json:"loss_notice_ms" doc:"member crashes: it is out of the roster, at worst"`
	ReassignmentMS       int64   `json:"reassignment_ms" doc:"member crashes: its work is others', at worst"`
	ReassignmentStuckMS  int64   `json:"reassignment_stuck_ms" doc:"the same, when another member does not let go"`
	ReassignmentLeaderMS int64   `json:"reassignment_leader_ms" doc:"the same, when it led"`
	JoinSettledMS        int64   `json:"join_settled_ms" doc:"member joins: it has a share, at worst"`
	LeaveSettledMS       int64   `json:"leave_settled_ms" doc:"member leaves: its work is others', at worst"`
	ChurnMS              int64   `json:"churn_ms" doc:"what these take longer while others come and go, at most"`
	PauseMS              int64   `json:"pause_ms" doc:"a settlement stops all work, at worst"`
	TermStopsMS          int64   `json:"term_stops_ms" doc:"a leader that is cut off stops by itself after"`
	AssignmentStopsMS    int64   `json:"assignment_stops_ms" doc:"a member that is cut off stops working after"`
	TermOutageMS         int64   `json:"term_outage_ms" doc:"an outage of NATS that costs no leadership"`
	TermSilenceMS        int64   `json:"term_silence_ms" doc:"the same, if requests hang and are not refused"`
	AssignmentOutageMS   int64   `json:"assignment_outage_ms" doc:"an outage of NATS that costs no share"`
	SurvivesElection     bool    `json:"survives_stream_election" doc:"a leadership outlives an election of the bucket's own leader"`
	Members              int     `json:"members" doc:"size of the group that the cost is of"`
	Heartbeats           float64 `json:"heartbeats_per_second" doc:"of the whole group"`
	Messages             float64 `json:"messages_per_second" doc:"of the whole group"`
	Writes               float64 `json:"writes_per_second" doc:"of the whole group"`
}

func runExplain(_ context.Context, c *call) error {
	if n := c.integer("members"); n < 1 || n > settle.MaxIDs {
		return usageError("--members %d: a group has from 1 to %d members", n, settle.MaxIDs)
	}
	e, err := quorate.Explain(quorate.Timings{Lease: c.g.lease}, quorate.Situation{Members: c.integer("members")})
	if err != nil {
		_, from := c.setting("lease")
		return usageError("%s: %w", c.spelled("lease", from), err)
	}
	if !c.g.json {
		return c.print(e.String())
	}
	ms, t := wire.ToMS, e.Timings
	return c.printJSON(explainLine{
		LeaseMS: ms(t.Lease), RenewMS: ms(t.Renew), MarginMS: ms(t.Margin), MemberTimeoutMS: ms(t.MemberTimeout), SettleMS: ms(t.Settle),
		SettleCeilingMS: ms(t.SettleCeiling), GraceMS: ms(t.Grace), AckTimeoutMS: ms(t.AckTimeout),
		CrashFailoverMS: ms(e.CrashFailover), CrashUsualMS: ms(e.CrashUsual), HandOverMS: ms(e.HandOver), LossNoticeMS: ms(e.LossNotice),
		ReassignmentMS: ms(e.Reassignment), ReassignmentStuckMS: ms(e.ReassignmentStuck), ReassignmentLeaderMS: ms(e.ReassignmentLeader),
		JoinSettledMS: ms(e.JoinSettled), LeaveSettledMS: ms(e.LeaveSettled), ChurnMS: ms(e.Churn), PauseMS: ms(e.Pause), TermStopsMS: ms(e.TermStops), AssignmentStopsMS: ms(e.AssignmentStops), TermOutageMS: ms(e.TermOutage),
		TermSilenceMS: ms(e.TermSilence), AssignmentOutageMS: ms(e.AssignmentOutage), SurvivesElection: e.SurvivesElection,
		Members: e.Situation.Members, Heartbeats: e.HeartbeatsPerSecond, Messages: e.MessagesPerSecond, Writes: e.WritesPerSecond,
	})
}
