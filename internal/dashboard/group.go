package dashboard

import (
	"cmp"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/vote"
)

// A group is what is known of one group. It belongs to the hub, and is touched under its lock only.
type group struct {
	name    string
	version uint64 // grows with each change
	client  *coord.Client
	follow  *coord.Follower
	started time.Time // what was before is known from records alone
	told    bool      // who comes and goes is news: what was there at the start is known

	view    coord.View
	dirty   bool // a member's record has changed since the view
	equals  bool // a group without a leader: its members' records are leases
	lead    leader.State
	minSize int
	lease   time.Duration // the leader's, or the namespace's own
	renewed time.Time     // when the leader's key was last written, as it was heard
	written time.Time     // the same, by the server's clock
	late    bool          // it should have been written again by now
	settled *wire.Settled
	current uint64 // generation of settled

	terms    []term
	gens     []generation
	events   []event
	verdicts []ballot // oldest first
	open     []ballot
	colours  map[string]int

	roster   coord.Roster // as the leader said when it was last asked
	rosterAt time.Time
	asking   bool
	askAt    time.Time // not before then again
}

// A term is one leader's time.
type term struct {
	leader   string
	token    uint64
	from, to time.Time // to: zero while it lasts
}

// A generation is one sharing of the work.
type generation struct {
	number         uint64
	cause          string
	began, settled time.Time // settled: zero while members let go
	until          time.Time // the next began; zero: it is the present one
	total          int
	buckets, moved int // of history alone: how many there were, and how many changed hands
}

// An event is a line of the time line.
type event struct {
	at   time.Time
	kind string // what it is drawn as: leader, none, joined, left, gone
	who  string
	text string
}

// A ballot is one that is under way, or its verdict.
type ballot struct {
	vote.Verdict
	from     string
	deadline time.Time
	reports  map[string]string // of an action: what became of it at each member
}

func newGroup(name string, memberTimeout, lease time.Duration, started time.Time) *group {
	return &group{name: name, follow: coord.NewFollower(memberTimeout), lease: lease, started: started, colours: map[string]int{}}
}

// colour of an id: one of eight, the next one for each id that is new, so that few look the same.
func (g *group) colour(id string) int {
	c, ok := g.colours[id]
	if !ok {
		if len(g.colours) >= maxColours {
			clear(g.colours)
		}
		c = len(g.colours) % 8
		g.colours[id] = c
	}
	return c
}

func (g *group) tell(e event) {
	if g.told {
		g.events = append(g.events, e)
		if n := len(g.events); n > maxEvents {
			g.events = slices.Delete(g.events, 0, n-maxEvents)
		}
	}
}

// hear takes what stands under one of the group's keys, and says whether anything that is shown has changed.
func (g *group) hear(kind, rest string, e kv.Entry, now time.Time) bool {
	at := e.Stored
	if at.IsZero() || at.After(now) {
		at = now
	}
	switch kind {
	case "leader":
		return g.leaderIs(e, at, now)
	case "member":
		g.follow.Hear(e, now)
		g.dirty = true
		if !g.equals && e.Op == kv.Record && g.lead.Keeper == "" {
			var rec wire.Member
			g.equals = wire.Decode(e.Value, &rec) == nil && rec.Params != nil
		}
		return false // the view tells
	case "settled":
		return g.settledIs(e, at)
	case "history":
		return g.history(rest, e)
	case "verdict":
		return g.verdict(rest, e)
	}
	return false
}

func (g *group) leaderIs(e kv.Entry, at, now time.Time) bool {
	s, was := leader.StateOf(e), g.lead
	lastWritten := g.written
	if e.Op == kv.Record {
		g.renewed, g.written = now, at
	}
	if s == was {
		return false // a renewal
	}
	g.follow.Hear(e, now)
	g.lead, g.dirty = s, true
	if s.Lease > 0 {
		g.lease, g.equals = s.Lease, false
		var rec wire.Leader
		if wire.Decode(e.Value, &rec) == nil {
			g.minSize = rec.Params.MinSize
		}
	}
	if was.Holder != "" && s.Token != was.Token {
		end, text := at, "leads no more"
		switch {
		case e.Op == kv.Record && s.Holder == "":
			text = "leads no more: the group is not quorate"
		case e.Op == kv.Record && s.Holder == was.Holder:
			text = "began another term"
		case e.Op == kv.Record:
			end, text = lastWritten, "was not heard for its lease"
		case e.Reason == wire.ReasonStep:
			text = "stepped down"
		case e.Reason == wire.ReasonResign:
			text = "resigned"
		}
		if n := len(g.terms); n > 0 && g.terms[n-1].to.IsZero() {
			g.terms[n-1].to = later(end, g.terms[n-1].from)
		}
		if s.Holder != was.Holder || s.Holder == "" {
			g.tell(event{at: at, kind: "none", who: was.Holder, text: text})
		}
	}
	if s.Holder != "" && s.Token != was.Token {
		from := at
		if e.Revision != s.Token && !s.Since.IsZero() && s.Since.Before(at) {
			from = s.Since // it was there before: by its holder's clock
		}
		g.terms = append(g.terms, term{leader: s.Holder, token: s.Token, from: from})
	}
	return true
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// moment reads a time of a record; what cannot be one, or lies ahead, is the other.
func moment(s string, other time.Time) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.After(other) {
		return other
	}
	return t
}

func (g *group) settledIs(e kv.Entry, at time.Time) bool {
	was, wasGen := g.settled, g.current
	g.settled, g.current = nil, 0
	var rec wire.Settled
	if e.Op == kv.Record && wire.Decode(e.Value, &rec) == nil && rec.Check() == nil {
		g.settled, g.current = &rec, rec.Generation
		if rec.Phase == wire.Settling {
			g.current = e.Revision
		}
	}
	switch {
	case g.settled == nil:
		if n := len(g.gens); n > 0 && g.gens[n-1].until.IsZero() {
			g.gens[n-1].until = at
		}
		return was != nil
	case was != nil && wasGen == g.current && was.Phase == rec.Phase:
		return false // written again so that it stays
	}
	n := generation{number: g.current, cause: rec.Cause, began: at, total: len(rec.Places)}
	heard := wasGen == g.current // its settling was
	if !heard {
		n.began = moment(rec.Began, at)
	}
	if rec.Phase == wire.SettledDone {
		if n.settled = at; !heard {
			n.settled = n.began // how long it took is not known
		}
	}
	g.generation(n)
	return true
}

// history takes the record of a past generation.
func (g *group) history(number string, e kv.Entry) bool {
	var rec wire.History
	n, err := strconv.ParseUint(number, 10, 64)
	if e.Op != kv.Record || err != nil || wire.Decode(e.Value, &rec) != nil || rec.Generation != n {
		return false
	}
	at := e.Stored
	if at.IsZero() {
		at = time.Now()
	}
	settled := moment(rec.Settled, at)
	g.generation(generation{number: n, cause: rec.Cause, began: moment(rec.Began, settled), settled: settled, total: len(rec.Members),
		buckets: max(rec.Buckets, 0), moved: max(rec.Moved, 0)})
	return true
}

// generation adds what is known of one; each lasts until the next begins.
func (g *group) generation(n generation) {
	if n.number == 0 {
		return // a record before the first
	}
	i, found := slices.BinarySearchFunc(g.gens, n.number, func(a generation, b uint64) int { return cmp.Compare(a.number, b) })
	if !found {
		g.gens = slices.Insert(g.gens, i, n)
	} else {
		old := &g.gens[i]
		if n.began.Before(old.began) {
			old.began = n.began
		}
		if !n.settled.IsZero() && (old.settled.IsZero() || old.settled.Equal(old.began)) {
			old.settled, old.total = n.settled, n.total
		}
		old.cause = cmp.Or(old.cause, n.cause)
		old.buckets, old.moved = max(old.buckets, n.buckets), max(old.moved, n.moved)
	}
	if i > 0 {
		g.gens[i-1].until = later(g.gens[i].began, g.gens[i-1].began)
	}
	if i+1 < len(g.gens) {
		g.gens[i].until = later(g.gens[i+1].began, g.gens[i].began)
	}
	if n := len(g.gens); n > maxEvents {
		g.gens = slices.Delete(g.gens, 0, n-maxEvents)
	}
}

func (g *group) verdict(id string, e kv.Entry) bool {
	i := slices.IndexFunc(g.verdicts, func(b ballot) bool { return b.Ballot == id })
	if e.Op != kv.Record {
		if i >= 0 {
			g.verdicts = slices.Delete(g.verdicts, i, i+1)
		}
		return i >= 0
	}
	if g.client == nil || i >= 0 {
		return false // one that is sealed does not change
	}
	v, ok := vote.Sealed(g.client, e)
	if !ok {
		return false
	}
	g.open = slices.DeleteFunc(g.open, func(b ballot) bool { return b.Ballot == id })
	g.verdicts = append(g.verdicts, ballot{Verdict: v})
	slices.SortStableFunc(g.verdicts, func(a, b ballot) int { return a.DecidedAt.Compare(b.DecidedAt) })
	if n := len(g.verdicts); n > maxVerdicts {
		g.verdicts = slices.Delete(g.verdicts, 0, n-maxVerdicts)
	}
	return true
}

// opened hears of a ballot. It is sent again to those who are silent.
func (g *group) opened(b wire.Ballot, now time.Time) bool {
	same := func(o ballot) bool { return o.Ballot == b.Ballot }
	if slices.ContainsFunc(g.verdicts, same) || slices.ContainsFunc(g.open, same) || len(g.open) >= maxOpen {
		return false
	}
	const longest = 10 * time.Minute
	o := ballot{from: b.From, deadline: now.Add(min(max(wire.MS(min(max(b.LeftMS, 0), longest.Milliseconds())), 0), longest)),
		Verdict: vote.Verdict{Ballot: b.Ballot, Topic: b.Topic, Kind: vote.Kind(b.Kind), Of: max(b.Of, len(b.Electors))}}
	if b.When != nil {
		o.At, _ = time.Parse(time.RFC3339Nano, b.When.Wall) // display only
	}
	g.open = append(g.open, o)
	return true
}

func (g *group) reported(r wire.Report, now time.Time) bool {
	i := slices.IndexFunc(g.verdicts, func(b ballot) bool { return b.Ballot == r.Ballot })
	if i < 0 {
		return false
	}
	b := &g.verdicts[i]
	if b.At.IsZero() || !b.Won() || !slices.Contains(b.Agreed, r.ID) && !slices.Contains(b.Silent, r.ID) || b.reports[r.ID] != "" {
		return false
	}
	switch r.Status {
	case wire.ReportDone, wire.ReportFailed, wire.ReportLate, wire.ReportCancelled:
	default:
		return false
	}
	if b.reports == nil {
		b.reports = map[string]string{}
	}
	b.reports[r.ID] = r.Status
	return true
}

// settleView takes who has come and gone.
func (g *group) settleView(stale bool, now time.Time) bool {
	v, changed := g.follow.View(stale, now)
	g.dirty = false
	if !changed {
		return false
	}
	for _, d := range v.Left {
		text := map[string]string{wire.ReasonLeft: "left", wire.ReasonEvicted: "was evicted", wire.ReasonExpired: "expired: its lease ran out unheard"}[d.Reason]
		kind := "gone"
		if d.Reason == wire.ReasonLeft {
			kind = "left"
		}
		g.tell(event{at: now, kind: kind, who: d.Member.ID, text: cmp.Or(text, "is no member any more")})
	}
	for _, m := range v.Joined {
		at := now
		if d := now.Sub(m.Joined); d > 0 && d < 10*time.Second {
			at = m.Joined // by its own clock, which may be off: only what was heard just now
		}
		g.tell(event{at: at, kind: "joined", who: m.ID, text: "joined"})
	}
	g.view = v
	return true
}

// tick looks at what changes with time alone.
func (g *group) tick(stale bool, now time.Time) (changed bool) {
	changed = g.settleView(stale, now)
	// Renewals come each lease/6.
	if late := g.lead.Keeper != "" && !stale && now.Sub(g.renewed) > g.lease/2; late != g.late && !stale {
		g.late, changed = late, true
	}
	open := len(g.open)
	g.open = slices.DeleteFunc(g.open, func(b ballot) bool { return now.After(b.deadline.Add(2 * g.lease)) }) // its verdict cannot be known
	old := now.Add(-remembered)
	g.events = slices.DeleteFunc(g.events, func(e event) bool { return e.at.Before(old) })
	g.terms = slices.DeleteFunc(g.terms, func(t term) bool { return !t.to.IsZero() && t.to.Before(old) })
	g.gens = slices.DeleteFunc(g.gens, func(n generation) bool { return !n.until.IsZero() && n.until.Before(old) })
	return changed || open != len(g.open)
}

// there says whether the group is one that is listed: somebody is in it, or was in the last hour.
func (g *group) there() bool {
	return g.lead.Keeper != "" || len(g.view.Members) > 0 || len(g.events) > 0
}

// empty says whether nothing is left to know.
func (g *group) empty(now time.Time) bool {
	return !g.there() && !g.dirty && g.settled == nil && len(g.verdicts) == 0 && len(g.gens) == 0
}

// rosterIs takes what the leader says, and whether any of it is news. When it has heard those who are well is none.
func (g *group) rosterIs(r coord.Roster, now time.Time) bool {
	for i := range r.Members {
		if r.Members[i].Status == coord.Alive {
			r.Members[i].LastSeen = time.Time{}
		}
	}
	was := g.fresh(now)
	changed := !was || !reflect.DeepEqual(r, g.roster)
	g.roster, g.rosterAt = r, now
	return changed
}

// fresh says whether the roster is the present leader's, and new enough to be shown.
func (g *group) fresh(now time.Time) bool {
	return !g.rosterAt.IsZero() && g.roster.Leader != "" && g.roster.Token == g.lead.Token && now.Sub(g.rosterAt) < 3*slowest
}
