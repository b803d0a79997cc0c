package coord

import (
	"strings"
	"time"

	"github.com/quorate/quorate/internal/ballot"
	"github.com/quorate/quorate/internal/inner"
	"github.com/quorate/quorate/internal/wire"
)

// What hooks are told of what a leader does. All of it belongs to the chair's loop, and is nothing when there are no hooks.

// chairNotes are what the chair remembers for them.
type chairNotes struct {
	at       time.Duration       // monotonic: when the roster is looked at next
	count    int                 // members, as told
	overdue  int                 // and those late
	late     map[wire.Place]bool // who was late at the last look
	settling time.Time           // since when members are asked to let go; zero: they are not
	rounds   map[string]round    // by ballot
}

// round is an open ballot.
type round struct {
	began time.Time
	topic string
	trace map[string]string
}

// noteRoster tells of the roster when it has changed. Nothing happens when somebody becomes late, so it is looked at every lease/12.
func (c *chair) noteRoster() {
	now, n := c.g.in.Now().Mono, &c.notes
	if !c.g.in.Noting() || now < n.at || !c.ready || !c.alive() {
		return
	}
	n.at = now + c.g.in.Lease/12
	late, count, overdue := map[wire.Place]bool{}, 0, 0
	for _, r := range c.m.Roster() {
		count++
		if !r.Late || r.Heard == 0 { // who was not heard in this term yet is not late: the term is young
			continue
		}
		overdue++
		late[r.Place] = true
		if !n.late[r.Place] {
			c.note(inner.Note{Kind: inner.NoteMemberLate, Peer: r.Place.ID})
		}
	}
	n.late = late
	if count != n.count || overdue != n.overdue {
		n.count, n.overdue = count, overdue
		c.note(inner.Note{Kind: inner.NoteRoster, Count: count, Late: overdue})
	}
}

func (c *chair) note(n inner.Note) {
	n.Term = c.t.Token()
	c.g.note(n)
}

func (c *chair) noteSettling(rec wire.Settled) {
	if rec.Phase == wire.Settling && c.notes.settling.IsZero() {
		c.notes.settling = time.Now()
	}
}

func (c *chair) noteSettled(rec wire.Settled) {
	c.g.known.Generation(rec.Generation)
	if !c.g.in.Noting() {
		return
	}
	why, _, _ := strings.Cut(rec.Cause, " ") // joined ID, left ID and so on
	n := inner.Note{Kind: inner.NoteSettled, Generation: rec.Generation, Total: len(rec.Places), Reason: why}
	if !c.notes.settling.IsZero() {
		n.Took = time.Since(c.notes.settling)
		c.notes.settling = time.Time{}
	}
	c.note(n)
}

// noteRound notes a broadcast, or a seal, of a ballot: the first one opens its round.
func (c *chair) noteRound(b wire.Ballot) {
	if _, open := c.notes.rounds[b.Ballot]; open || !c.g.in.Noting() {
		return
	}
	if c.notes.rounds == nil || len(c.notes.rounds) >= ballot.MaxOpen { // those that nobody waits for any more are never announced
		c.notes.rounds = map[string]round{}
	}
	c.notes.rounds[b.Ballot] = round{time.Now(), b.Topic, b.Trace}
	c.note(inner.Note{Kind: inner.NoteRound, Ballot: b.Ballot, Topic: b.Topic, Trace: b.Trace})
}

// noteVerdict notes an announcement: the first one says that the verdict is sealed.
func (c *chair) noteVerdict(v wire.Verdict) {
	r, open := c.notes.rounds[v.Ballot]
	if !open {
		return
	}
	delete(c.notes.rounds, v.Ballot)
	c.note(inner.Note{Kind: inner.NoteVerdict, Ballot: v.Ballot, Topic: r.topic, Trace: r.trace, Answer: v.Verdict, Took: time.Since(r.began)})
}
