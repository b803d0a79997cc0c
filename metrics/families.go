package metrics

import "github.com/prometheus/client_golang/prometheus"

// Names of the metrics, as docs/operations.md has them.
const (
	nameLeader     = "quorate_leader"
	nameTerm       = "quorate_term"
	nameTermAge    = "quorate_term_age_seconds"
	nameTerms      = "quorate_terms_total"
	nameFailovers  = "quorate_failovers_total"
	nameTermsEnded = "quorate_terms_ended_total"
	nameRenewals   = "quorate_renewals_total"

	nameMember           = "quorate_member"
	nameMemberships      = "quorate_memberships_total"
	nameMembershipsEnded = "quorate_memberships_ended_total"
	nameRosterSize       = "quorate_roster_size"
	nameRosterLate       = "quorate_roster_late"
	nameHeartbeatsLate   = "quorate_heartbeats_late_total"
	nameMessagesDropped  = "quorate_messages_dropped_total"

	nameGeneration   = "quorate_generation"
	nameGenerations  = "quorate_generations_total"
	nameShares       = "quorate_shares"
	nameBuckets      = "quorate_buckets"
	nameUnsettledAge = "quorate_unsettled_age_seconds"
	nameUnsettled    = "quorate_unsettled_seconds_total"
	nameSettlingTime = "quorate_settling_duration_seconds"

	nameBallots      = "quorate_ballots_total"
	nameVerdicts     = "quorate_verdicts_total"
	nameVerdictTime  = "quorate_verdict_duration_seconds"
	nameProposals    = "quorate_proposals_total"
	nameProposalTime = "quorate_proposal_duration_seconds"
	nameVotes        = "quorate_votes_total"
	nameActions      = "quorate_actions_total"

	nameConnected     = "quorate_connected"
	nameReconnects    = "quorate_reconnects_total"
	nameDisconnects   = "quorate_disconnects_total"
	nameRenewalTime   = "quorate_renewal_duration_seconds"
	nameHeartbeatTime = "quorate_heartbeat_duration_seconds"
	nameEventsDropped = "quorate_events_dropped_total"
)

// kind of a metric, and how it is kept.
type kind int

const (
	gauge kind = iota
	counter
	counterVec
	histogramVec
)

func (k kind) String() string {
	switch k {
	case gauge:
		return "gauge"
	case histogramVec:
		return "histogram"
	}
	return "counter"
}

// A family is one metric.
type family struct {
	name   string
	kind   kind
	labels []string
	help   string
	desc   *prometheus.Desc
}

var (
	ofNamespace = []string{"namespace"}
	ofGroup     = []string{"namespace", "group"}
	ofBoth      = []string{"namespace", "group", "election"}
)

func with(labels []string, more string) []string {
	return append(labels[:len(labels):len(labels)], more)
}

// families are all metrics, in the order of the table in docs/operations.md, whose words these are.
var families = described([]family{
	{name: nameLeader, kind: gauge, labels: ofBoth, help: "1 while this process leads, else 0."},
	{name: nameTerm, kind: gauge, labels: ofBoth, help: "Token of the newest term that this process knows of, whoever holds it."},
	{name: nameTermAge, kind: gauge, labels: ofBoth, help: "For how long this process has known of that term; absent while nobody leads."},
	{name: nameTerms, kind: counterVec, labels: with(ofBoth, "reason"), help: "Terms that this process has won: fresh, released, expired, turned."},
	{name: nameFailovers, kind: counterVec, labels: ofBoth, help: "Terms that this process has won because the lease of the one before ran out."},
	{name: nameTermsEnded, kind: counterVec, labels: with(ofBoth, "reason"), help: "Terms of this process that have ended: resigned, stepped-down, expired, lost, not-quorate, turned, bucket-lost, conn-closed."},
	{name: nameRenewals, kind: counterVec, labels: with(ofBoth, "outcome"), help: "Attempts to renew a lease: yes, no (refused), unknown (not answered in time)."},

	{name: nameMember, kind: gauge, labels: ofGroup, help: "Memberships of this process that are granted now; 1 or 0, but for gateways."},
	{name: nameMemberships, kind: counterVec, labels: ofGroup, help: "Memberships that were granted, one for each incarnation."},
	{name: nameMembershipsEnded, kind: counterVec, labels: with(ofGroup, "reason"), help: "Memberships that have ended: left, evicted, expired, superseded, bucket-lost, conn-closed."},
	{name: nameRosterSize, kind: gauge, labels: ofGroup, help: "Members of the group; shown by its leader."},
	{name: nameRosterLate, kind: gauge, labels: ofGroup, help: "Of these, those whose heartbeats are overdue; shown by the leader."},
	{name: nameHeartbeatsLate, kind: counterVec, labels: ofGroup, help: "How often heartbeats of a member have become overdue; counted by the leader."},
	{name: nameMessagesDropped, kind: counterVec, labels: ofGroup, help: "Messages that were dropped, as their handler is slow."},

	{name: nameGeneration, kind: gauge, labels: ofGroup, help: "Newest generation of shares that this process has settled as leader, or holds a share of."},
	{name: nameGenerations, kind: counterVec, labels: with(ofGroup, "reason"), help: "Generations settled by this process as leader, by what has led to them: first, joined, left, expired, evicted and so on."},
	{name: nameShares, kind: gauge, labels: ofGroup, help: "Shares of the work that this process holds; 1 or 0, but for gateways. Shown by those that work."},
	{name: nameBuckets, kind: gauge, labels: ofGroup, help: "Buckets that this process holds. Shown by those that work."},
	{name: nameUnsettledAge, kind: gauge, labels: ofGroup, help: "For how long a member that works has been without a share; 0 while it has one."},
	{name: nameUnsettled, kind: counter, labels: ofGroup, help: "The same, all times together: its rate is the part of the time without a share."},
	{name: nameSettlingTime, kind: histogramVec, labels: ofGroup, help: "From the leader's asking the members to let go to the next generation."},

	{name: nameBallots, kind: counterVec, labels: ofGroup, help: "Rounds of ballots opened by this process as leader."},
	{name: nameVerdicts, kind: counterVec, labels: with(ofGroup, "verdict"), help: "Verdicts sealed by this process as leader: yes, no, timed-out."},
	{name: nameVerdictTime, kind: histogramVec, labels: ofGroup, help: "From the opening of a round to its sealed verdict."},
	{name: nameProposals, kind: counterVec, labels: with(ofGroup, "verdict"), help: "Proposals of this process, by what it was told: yes, no, timed-out, unknown."},
	{name: nameProposalTime, kind: histogramVec, labels: ofGroup, help: "From a proposal to what its proposer is told."},
	{name: nameVotes, kind: counterVec, labels: with(ofGroup, "answer"), help: "Votes of this process: yes, no, abstain."},
	{name: nameActions, kind: counterVec, labels: with(ofGroup, "status"), help: "Actions of this process: done, failed, late, cancelled."},

	{name: nameConnected, kind: gauge, labels: ofNamespace, help: "1 while connected to NATS, else 0."},
	{name: nameReconnects, kind: counterVec, labels: ofNamespace, help: "Reconnects to NATS."},
	{name: nameDisconnects, kind: counterVec, labels: ofNamespace, help: "Connections to NATS that were lost."},
	{name: nameRenewalTime, kind: histogramVec, labels: ofNamespace, help: "From the sending of a renewal to its answer, or to the end of waiting for one."},
	{name: nameHeartbeatTime, kind: histogramVec, labels: ofNamespace, help: "From the sending of a heartbeat to the leader's answer."},
	{name: nameEventsDropped, kind: counterVec, labels: ofNamespace, help: "Events that are missing in all of this, as they came too fast."},
})

func described(all []family) []family {
	for i := range all {
		f := &all[i]
		f.desc = prometheus.NewDesc(f.name, f.help, f.labels, nil)
	}
	return all
}

var byName = func() map[string]*family {
	m := map[string]*family{}
	for i := range families {
		m[families[i].name] = &families[i]
	}
	return m
}()
