package quorate

import (
	"fmt"
	"strings"
	"time"
)

// A Situation is what the worst cases depend on beside the timings. The zero value works.
type Situation struct {
	// Members of a group. Default 3.
	Members int
	// ReconnectWait is how long a connection waits between two tries to reconnect. Default that of [Options].
	ReconnectWait time.Duration
}

// An Explanation is what follows from timings: worst cases, while NATS answers at once unless it says otherwise. What a round trip takes comes on
// top of each. Make it with [Explain].
type Explanation struct {
	Timings   Timings
	Situation Situation

	// CrashFailover is from a leader's crash until the next leads: the hint of its last renewal was lost, and so was the candidate's
	// right to be first. CrashUsual is that with all hints heard, and the first candidate alive.
	CrashFailover, CrashUsual time.Duration
	// HandOver is from a resignation, step-down or shutdown until the first candidate leads when the notification is lost; else two writes and a notification.
	HandOver time.Duration
	// LossNotice is from a member's crash until the leader takes it out of the roster.
	LossNotice time.Duration
	// Reassignment is from a member's crash until its share is another's, if all let go at once; ReassignmentStuck if one does not let go at all:
	// then its share, too, has to run out. ReassignmentLeader is for a leader that had a share itself.
	Reassignment, ReassignmentStuck, ReassignmentLeader time.Duration
	// JoinSettled is from a join until the newcomer has its share, LeaveSettled from a leave until the share is another's.
	JoinSettled, LeaveSettled time.Duration
	// Churn is what each of these takes longer while other members come and go all the time: the work is not shared anew before it is quiet, up to the
	// ceiling.
	Churn time.Duration
	// Pause is how long a settlement stops all work (with buckets: on those that move) when no notification of it arrives, if all let go at once; else
	// it takes some round trips.
	Pause time.Duration

	// TermStops is when a leader that is cut off or paused stops by itself, counted from the sending of its last confirmed renewal; AssignmentStops
	// the same for a share, from its last answered heartbeat.
	TermStops, AssignmentStops time.Duration

	// TermOutage is how long NATS may refuse all writes without ending a term, TermSilence how long it may answer nothing, AssignmentOutage how
	// long without revoking a share. None of them is a matter of safety: what is lost is had again afterwards.
	TermOutage, TermSilence, AssignmentOutage time.Duration
	// SurvivesElection says whether a leader keeps its term while a stream of three servers elects a new leader of its own: ElectionMax at most.
	SurvivesElection bool
	// Reconnect is empty, or what is wrong with Situation.ReconnectWait.
	Reconnect string

	// HeartbeatsPerSecond and the rest are what a group costs when nothing happens: heartbeats of all members, messages in all (heartbeats, replies,
	// and each renewal to each member), writes to the bucket.
	HeartbeatsPerSecond, MessagesPerSecond, WritesPerSecond float64
}

// ElectionMax is how long the election of a leader of a stream takes at most, as measured on three servers: 4 to 9 s.
const ElectionMax = 9 * time.Second

// Explain tells what follows from timings; those that are zero derive from the lease. An error is that of [Timings.Check].
func Explain(t Timings, s Situation) (Explanation, error) {
	if err := t.Check(); err != nil {
		return Explanation{}, err
	}
	t = t.derived()
	if s.Members <= 0 {
		s.Members = 3
	}
	if s.ReconnectWait <= 0 {
		s.ReconnectWait = reconnectWait(t)
	}
	e := Explanation{Timings: t, Situation: s}
	tick := t.Lease / 30               // how late what was refused is tried again
	unseen := t.Renew + t.Lease/24     // a reconcile of who is not the first in the queue
	queue := 3*t.Lease/40 + t.Lease/10 // behind three that do not come
	poke := t.Renew                    // a lost poke, or answer: the next heartbeat
	member := t.MemberTimeout - t.MemberTimeout/10

	e.CrashUsual = t.Lease
	e.CrashFailover = t.Lease + unseen + queue + tick
	e.HandOver = t.Renew + tick
	e.LossNotice = t.MemberTimeout + t.Renew
	e.Pause = 2*poke + tick
	e.Churn = t.SettleCeiling - t.Settle
	share := t.Settle + e.Pause
	e.Reassignment = e.LossNotice + share
	e.ReassignmentStuck = e.LossNotice + t.Settle + t.AckTimeout + t.MemberTimeout + 2*poke + tick
	e.ReassignmentLeader = e.CrashFailover + e.Reassignment
	e.JoinSettled = poke + share
	e.LeaveSettled = share

	e.TermStops = t.Lease - t.Margin
	e.AssignmentStops = member
	e.TermOutage = e.TermStops - t.Renew - tick
	e.TermSilence = e.TermOutage - t.Renew // a try that hangs is given up after a sixth
	e.AssignmentOutage = member - 2*t.Renew
	e.SurvivesElection = e.TermOutage >= ElectionMax
	if err := t.CheckReconnect(s.ReconnectWait); err != nil {
		e.Reconnect = err.Error()
	}

	n := float64(s.Members)
	e.HeartbeatsPerSecond = 6 * n / t.Lease.Seconds()
	e.MessagesPerSecond = 18 * n / t.Lease.Seconds()
	e.WritesPerSecond = 6 / t.Lease.Seconds()
	return e, nil
}

// reconnectWait is the longest that [Options] wait.
func reconnectWait(t Timings) time.Duration { return min(t.Renew/2, time.Second) }

// String is the explanation for people, at most 80 columns wide.
func (e Explanation) String() string {
	var b strings.Builder
	row := func(name string, d time.Duration, note string) {
		b.WriteString(strings.TrimRight(fmt.Sprintf("  %-34s%9s  %s", name, short(d), note), " ") + "\n")
	}
	t := e.Timings
	b.WriteString("Timings\n")
	row("lease", t.Lease, "")
	row("renewals, heartbeats, reconciles", t.Renew, "")
	row("margin", t.Margin, "")
	row("member timeout", t.MemberTimeout, "")
	row("settle", t.Settle, "at most "+short(t.SettleCeiling)+" if disturbed")
	row("grace", t.Grace, "after a soft end")
	row("acknowledgement timeout", t.AckTimeout, "")
	b.WriteString("Worst cases, while NATS answers\n")
	row("leader crashes: next leads", e.CrashFailover, "usually "+short(e.CrashUsual))
	row("leader hands over: next leads", e.HandOver, "usually at once")
	row("member crashes: out of the roster", e.LossNotice, "")
	row("  its share is another's", e.Reassignment, "")
	row("  one that does not let go", e.ReassignmentStuck, "")
	row("  the leader's share", e.ReassignmentLeader, "")
	row("member leaves: share is another's", e.LeaveSettled, "")
	row("member joins: has its share", e.JoinSettled, "")
	row("shares, while others come and go", e.Churn, "more at most")
	row("a settlement stops all work", e.Pause, "usually some round trips")
	b.WriteString("A process that is paused or cut off stops by itself\n")
	row("leading", e.TermStops, "after its last renewal")
	row("working on its share", e.AssignmentStops, "after its last heartbeat")
	b.WriteString("An outage of NATS that loses nothing\n")
	row("a leader, writes refused", e.TermOutage, "")
	row("a leader, no answers", e.TermSilence, "")
	row("shares", e.AssignmentOutage, "")
	b.WriteString("While a stream of three NATS servers elects its leader (4 to 9 s)\n")
	if e.SurvivesElection {
		b.WriteString("  a leader keeps its term\n")
	} else {
		b.WriteString("  a leader may lose its term, and one is elected anew: safe, but work pauses\n")
	}
	if e.Reconnect != "" {
		for _, l := range fold("Careful: "+e.Reconnect+".", 80) {
			b.WriteString(l + "\n")
		}
	}
	fmt.Fprintf(&b, "%d members at rest: %.3g messages/s (%.3g heartbeats), %.3g writes/s\n", e.Situation.Members, e.MessagesPerSecond, e.HeartbeatsPerSecond,
		e.WritesPerSecond)
	return b.String()
}

// short is a duration in milliseconds at most.
func short(d time.Duration) string {
	s := d.Round(time.Millisecond).String()
	if strings.HasSuffix(s, "m0s") { // 30m0s is 30m, 1h0m0s is 1h
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// fold breaks a text into lines at spaces.
func fold(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		line = strings.TrimSpace(line + " " + word)
	}
	return append(lines, line)
}
