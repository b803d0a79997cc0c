//go:build scenarios && linux

package scenarios

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quorate/quorate/internal/eventcheck"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/partition"
)

// stalls are the times in which the machine did not even let this process go on: whatever else was to be done then has waited too.
var stalls struct {
	mu  sync.Mutex
	all []eventcheck.Trouble
}

// stalled is from when on a process counts as held up. It wakes each twentieth of a second.
const stalled = 250 * time.Millisecond

// watchTheMachine tells of each time in which this process was held up, for as long as it lives.
func watchTheMachine(tell func(from, to time.Time)) {
	tick := time.NewTicker(stalled / 5)
	last := time.Now()
	for range tick.C {
		now := time.Now()
		if now.Sub(last) > stalled {
			tell(last, now)
		}
		last = now
	}
}

func noteStall(what string, from, to time.Time) {
	stalls.mu.Lock()
	defer stalls.mu.Unlock()
	stalls.all = append(stalls.all, eventcheck.Trouble{What: fmt.Sprintf("%s for %s", what, to.Sub(from).Round(time.Millisecond)), From: from, To: to})
}

// watchTheServer notes when it was held up, or what is between, or its disk: a write takes some milliseconds.
func (w *world) watchTheServer(ctx context.Context) {
	tick := time.NewTicker(stalled / 2)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		began := time.Now()
		bounded, cancel := context.WithTimeout(ctx, w.k.lease)
		_, err := w.js.Publish(bounded, tries, nil, jetstream.WithRetryAttempts(0))
		cancel()
		if now := time.Now(); err == nil && now.Sub(began) > stalled {
			w.trouble(fmt.Sprintf("the server took no write for %s", now.Sub(began).Round(time.Millisecond)), began, now, w.bound.ReassignmentLeader)
		}
	}
}

// starved are the troubles that nobody has made: a busy machine did not let a process renew in time what it held, which it has told by itself. What that
// costs others is bounded too.
func (w *world) starved(p *process) (l []eventcheck.Trouble) {
	for _, e := range p.lines {
		switch {
		case e.Type == "stalled" && slices.ContainsFunc(p.stood, func(at [2]time.Time) bool { return e.Until.Before(at[1]) && e.Time.After(at[0]) }):
		case e.Type == "stalled":
			l = append(l, eventcheck.Trouble{What: p.name + " was held up", From: e.Until, To: e.Time, Allow: w.bound.ReassignmentLeader})
		case e.Type == "leader-lost" && e.Group == group && e.Leader == e.Self && e.Reason != "resigned" && e.Reason != "stepped-down":
			l = append(l, eventcheck.Trouble{What: e.Self + " lost its term", From: e.Until.Add(-w.k.lease), Allow: w.bound.ReassignmentLeader})
		case e.Type == "revoked" && e.Member == e.Self && e.Reason == "expired":
			l = append(l, eventcheck.Trouble{What: "the share of " + e.Self + " ran out", From: e.Until.Add(-w.bound.AssignmentStops), Allow: w.bound.Reassignment})
		}
	}
	return l
}

// trouble notes what has happened, from when to when, and how long an item may have no owner after it by quorate.Explain.
func (w *world) trouble(what string, from, to time.Time, allow time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.troubles = append(w.troubles, eventcheck.Trouble{What: what, From: from, To: to, Allow: allow})
}

// natsTrouble notes that NATS was away, or did not take writes, since a moment, and is well again now: connections are made anew, and a leader that was lost
// meanwhile has a successor, who begins to count.
func (w *world) natsTrouble(what string, from time.Time, more time.Duration) {
	w.trouble(what, from, time.Now(), w.bound.Situation.ReconnectWait+w.bound.ReassignmentLeader+more)
}

// silenced notes that members are heard no more from a moment on: killed or stopped. One that led, or may, takes the leader with it.
func (w *world) silenced(what string, at time.Time, ps []*process, more time.Duration) {
	lead := w.leads(w.members)
	for _, p := range ps {
		switch {
		case p.role == "crowd" || p.role == "member" && (lead == nil || lead == p):
			w.trouble(p.name+" "+what+", and may have led", at, time.Time{}, w.bound.ReassignmentLeader+more)
		case p.role == "member":
			w.trouble(p.name+" "+what, at, time.Time{}, w.bound.Reassignment+more)
		}
	}
}

// answers is what answers take, at most, that Explain leaves to whoever knows the network and the disks: here several worlds share two processors and one
// disk, which syncs each write.
func (w *world) answers() time.Duration { return w.k.lease / 2 }

// planned notes who is to have which share, as soon as the leader has written it: the server tells of each write.
func (w *world) planned(m *nats.Msg) {
	var r wire.Settled
	if len(m.Data) == 0 || wire.Decode(m.Data, &r) != nil || r.Phase != wire.SettledDone {
		return
	}
	p := eventcheck.Plan{At: time.Now()}
	for _, place := range r.Places {
		p.Owners = append(p.Owners, place.ID)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.plans = append(w.plans, p)
}

// checkOrphans proves that no item was nobody's for longer than what has happened to it allows (P5). With the lock held.
func (w *world) checkOrphans(all []eventcheck.Witness) {
	troubles := slices.Clone(w.troubles)
	for _, p := range w.all {
		troubles = append(append(troubles, w.leavings(p)...), w.starved(p)...)
	}
	stalls.mu.Lock()
	for _, s := range stalls.all {
		s.Allow = w.bound.ReassignmentLeader
		troubles = append(troubles, s)
	}
	stalls.mu.Unlock()
	for i := range troubles {
		troubles[i].Allow += w.bound.Churn + w.answers() // who is back joins while others are missed
	}
	work := eventcheck.Work{Group: group, Items: w.items, From: w.well0, To: w.over, Pause: w.bound.Pause + w.answers(), Troubles: troubles, Plans: w.plans, Index: partition.Index}
	idle, wrong := work.CheckOrphans(all)
	if n := len(wrong); n > 5 {
		wrong = append(wrong[:5], fmt.Sprintf("and %d more", n-5))
	}
	if len(wrong) > 0 {
		w.t.Errorf("P5: %s", strings.Join(wrong, "\n"))
	}
	w.idle = idle
}
