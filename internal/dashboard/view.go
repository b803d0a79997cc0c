package dashboard

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/wire"
)

// Bounds of what one page shows.
const (
	maxRows    = 200 // members; those that need looking at first
	maxNamed   = 24  // shares of a strip that have room for names
	maxLines   = 40  // of the time line's list
	maxBallots = 15
)

// A page is what is shown to a viewer, made under the hub's lock and not changed any more: texts from the wire are in it as they came, the
// template escapes them.
type page struct {
	version   uint64
	Namespace string
	Where     string
	ReadOnly  bool
	Link      link
	Started   time.Time
	Now       time.Time
	Groups    []groupLine
	More      int
	Chosen    string // group that is shown; "" for none
	Missing   bool   // that group is not there
	Group     *groupView
	Span      span
	Query     query
	Notice    *notice
}

// State of the link, for the template.
func (p *page) State() string { return p.Link.state }

// Since is when the state of the link began.
func (p *page) Since() time.Time { return p.Link.since }

// LinkText is what more is known of the link.
func (p *page) LinkText() string { return p.Link.text }

// Spans are the lengths that the time line can have.
func (p *page) Spans() []span { return spans }

// groupLine is a group in the list.
type groupLine struct {
	Name    string
	URL     string
	Members int
	Leader  string
	Phase   phase
	Shares  []share
	Chosen  bool
}

// A phase is how a group is, in a word.
type phase struct {
	Word string
	Kind string // good, busy, bad, idle: how it is drawn
	Text string // the word in a sentence
}

// groupView is a group in full.
type groupView struct {
	Name       string
	Leader     string
	Colour     int
	Late       bool // the leader does not renew
	Renewed    time.Time
	Token      uint64
	Since      time.Time
	Lease      time.Duration
	Host       string
	Value      string
	Keeper     string
	MinSize    int
	Equals     bool
	Phase      phase
	Generation uint64
	Buckets    int // fixed partitions that the shares are made of; 0: shares are by index
	Moving     int // of them, that change hands now
	Shares     []share
	Members    []memberView
	Count      int // of all members
	LateCount  int
	Hidden     int  // members that are not listed
	Asked      bool // the leader has said whom it hears
	Candidates []string
	Voters     int
	Chart      chart
	Events     []eventView
	Open       []ballotView
	Ballots    []ballotView
	Older      int // ballots that are not listed
}

// A share is one index.
type share struct {
	Index   int
	Owner   string
	Colour  int
	Leader  bool
	Status  string  // of its owner: alive, late, unknown; gone: it is no member any more, and its lease has not run out
	Runs    []piece // where it is drawn
	Total   int
	Pending bool // its owner lets go of it, or of some of its buckets
	Buckets int  // how many it has
}

// A piece of a line, in percent of it.
type piece struct{ X, W string }

// memberView is a line of the roster.
type memberView struct {
	coord.Member
	Colour int
	Share  *share
	Roles  string
	Meta   []metaPair
	Me     bool
}

type metaPair struct{ Key, Value string }

// Incarnated is the incarnation as a form carries it.
func (m memberView) Incarnated() string { return strconv.FormatUint(m.Incarnation, 10) }

// eventView is a line of the time line's list.
type eventView struct {
	At   time.Time
	Kind string
	Who  string
	Text string
}

// ballotView is a ballot with its tally drawn.
type ballotView struct {
	ballot
	Word     string // yes, no, timed out, voting
	Kind     string // how it is drawn: good, bad, idle, busy
	Rule     string
	Bars     []bar
	Deadline time.Time
	Unheard  int // members that have not answered
	Reports  []reportView
}

type reportView struct{ Member, Status string }

// A bar is a rectangle of a chart, in percent of its width.
type bar struct {
	X, W   string
	Class  string
	Label  string // "" if there is no room
	Title  string
	Colour int
}

// A chart is the time line.
type chart struct {
	Leaders []bar
	Shares  []bar
	Ticks   []tickMark
	Summary string // what it shows, for those who do not see it
}

type tickMark struct {
	N                int // from the left
	X, Label, Anchor string
}

// A span is a length of the time line.
type span struct {
	Key    string
	Length time.Duration
	Label  string
	Ticks  []time.Duration // before now
}

var spans = []span{
	{"5m", 5 * time.Minute, "5 minutes", every(time.Minute, 5)},
	{"15m", 15 * time.Minute, "15 minutes", every(5*time.Minute, 3)},
	{"1h", time.Hour, "1 hour", every(15*time.Minute, 4)},
}

func every(d time.Duration, n int) (l []time.Duration) {
	for ; n >= 0; n-- {
		l = append(l, time.Duration(n)*d)
	}
	return l
}

// spanOf is the span of that key, the first one if there is none.
func spanOf(key string) span {
	for _, s := range spans {
		if s.Key == key {
			return s
		}
	}
	return spans[0]
}

// step is what the chart's end is rounded to: it moves by a third of a percent of its width.
func (s span) step() time.Duration { return s.Length / 300 }

// page makes what a viewer is shown.
func (h *hub) page(q query, now time.Time) *page {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := &page{version: h.version, Link: h.link, Started: h.started, Now: now, Chosen: q.Group, Query: q, Span: spanOf(q.Span), More: len(h.more)}
	stale := h.link.state != linkLive
	for _, name := range slices.Sorted(maps.Keys(h.groups)) {
		g := h.groups[name]
		if g.dirty && g.told {
			if g.settleView(stale, now) {
				g.version++
				h.touch()
			}
		}
		if g.there() || name == q.Group {
			p.Groups = append(p.Groups, g.line(now))
		}
	}
	if p.Chosen == "" && len(p.Groups) == 1 {
		p.Chosen = p.Groups[0].Name // nothing to choose from
	}
	for i := range p.Groups {
		l := &p.Groups[i]
		l.Chosen = l.Name == p.Chosen
		l.URL = q.with("group", l.Name)
	}
	if p.Chosen == "" {
		return p
	}
	g := h.groups[p.Chosen]
	if g == nil {
		p.Missing = true
		return p
	}
	p.Group = g.full(p.Span, q.Find, now)
	return p
}

// phase is how the group is.
func (g *group) phase() phase {
	total := 0
	if g.settled != nil {
		total = len(g.settled.Places)
	}
	switch {
	case g.equals:
		return phase{"messages only", "idle", "has no leader: its members only exchange messages"}
	case g.lead.Holder == "" && g.lead.Keeper != "":
		return phase{"not quorate", "bad", "has fewer members than its minimum size, and no leader"}
	case g.lead.Holder == "" && len(g.view.Members) == 0:
		return phase{"gone", "idle", "has no members any more"}
	case g.lead.Holder == "":
		return phase{"no leader", "bad", "has no leader now"}
	case g.late:
		return phase{"leader unheard", "bad", "does not hear from its leader"}
	case g.settled == nil:
		return phase{"idle", "idle", "has a leader, and no shares of work"}
	case g.settled.Phase == wire.Settling:
		return phase{"settling", "busy", "is being shared anew"}
	case total == 0:
		return phase{"idle", "idle", "has a leader, and nobody who works"}
	}
	return phase{"settled", "good", "is settled"}
}

// statuses are what the leader says of its members, unknown where it says nothing.
func (g *group) statuses(now time.Time) (of map[string]coord.Member, asked bool) {
	of = make(map[string]coord.Member, len(g.roster.Members))
	if !g.fresh(now) {
		return of, false
	}
	for _, m := range g.roster.Members {
		of[m.ID] = m
	}
	return of, true
}

// shares are those on record, in the order of their indexes.
func (g *group) shares(now time.Time) []share {
	if g.settled == nil {
		return nil
	}
	said, _ := g.statuses(now)
	there := make(map[string]uint64, len(g.view.Members))
	for _, m := range g.view.Members {
		there[m.ID] = m.Incarnation
	}
	n := len(g.settled.Places)
	l := make([]share, n)
	for i, p := range g.settled.Places {
		s := share{Index: i, Total: n, Owner: p.ID, Colour: g.colour(p.ID), Leader: p.ID == g.lead.Holder, Status: coord.Unknown,
			Pending: g.settled.Phase == wire.Settling}
		if g.settled.Buckets == 0 {
			s.Runs = []piece{{percent(float64(i) / float64(n)), percent(1 / float64(n))}}
		}
		switch m, ok := said[p.ID]; {
		case there[p.ID] != p.Incarnation:
			s.Status = "gone"
		case ok && m.Incarnation == p.Incarnation:
			s.Status = m.Status
		}
		if s.Leader && g.late {
			s.Status = coord.Late
		}
		l[i] = s
	}
	if b := g.settled.Buckets; b > 0 {
		g.buckets(l, b)
	}
	return l
}

// mostDrawn is how many buckets are drawn; of a group with more only the numbers are shown.
const mostDrawn = 2048

// buckets says which of the n buckets each share has. One that keeps its owner while the work is shared anew goes on being held.
func (g *group) buckets(l []share, n int) {
	moving := make(map[int]bool, len(g.settled.Moving))
	for _, b := range g.settled.Moving {
		moving[b] = true
	}
	for i := range l {
		l[i].Pending = false
	}
	first := 0 // of the buckets side by side that the present owner has
	for b, o := range g.settled.Owners {
		if b > 0 && g.settled.Owners[b-1] != o {
			first = b
		}
		if o < 0 {
			continue // nobody's
		}
		s := &l[o]
		s.Buckets++
		s.Pending = s.Pending || moving[b] && g.settled.Phase == wire.Settling
		at := piece{percent(float64(first) / float64(n)), percent(float64(b+1-first) / float64(n))}
		switch {
		case n > mostDrawn:
		case first < b:
			s.Runs[len(s.Runs)-1] = at
		default:
			s.Runs = append(s.Runs, at)
		}
	}
}

func percent(f float64) string { return strconv.FormatFloat(100*f, 'f', 3, 64) + "%" }

func (g *group) line(now time.Time) groupLine {
	return groupLine{Name: g.name, Members: len(g.view.Members), Leader: g.lead.Holder, Phase: g.phase(), Shares: g.shares(now)}
}

// full is all that is shown of the group.
func (g *group) full(sp span, find string, now time.Time) *groupView {
	v := &groupView{Name: g.name, Leader: g.lead.Holder, Late: g.late, Renewed: g.renewed, Token: g.lead.Token, Since: g.lead.Since, Lease: g.lease,
		Host: g.lead.Host, Value: g.lead.Value, Keeper: g.lead.Keeper, MinSize: g.minSize, Equals: g.equals, Phase: g.phase(), Generation: g.current,
		Shares: g.shares(now), Count: len(g.view.Members)}
	if v.Leader != "" {
		v.Colour = g.colour(v.Leader)
	}
	if g.settled != nil {
		v.Buckets, v.Moving = g.settled.Buckets, len(g.settled.Moving)
	}
	byOwner := map[string]*share{}
	for i := range v.Shares {
		byOwner[v.Shares[i].Owner] = &v.Shares[i]
	}
	said, asked := g.statuses(now)
	v.Asked = asked
	for _, m := range g.view.Members {
		line := memberView{Member: m, Colour: g.colour(m.ID), Share: byOwner[m.ID]}
		line.Leader = m.ID == g.lead.Holder
		line.Status = coord.Unknown
		if s, ok := said[m.ID]; ok && s.Incarnation == m.Incarnation {
			line.Status, line.LastSeen = s.Status, s.LastSeen
		}
		if line.Leader && g.late {
			line.Status, line.LastSeen = coord.Late, g.renewed
		}
		if line.Status == coord.Late {
			v.LateCount++
		}
		if line.Share != nil && line.Share.Status == "gone" {
			line.Share = nil // of an earlier incarnation
		}
		for _, k := range slices.Sorted(maps.Keys(m.Meta)) {
			line.Meta = append(line.Meta, metaPair{k, m.Meta[k]})
		}
		if line.Roles = strings.Join(m.Roles, ", "); len(m.Roles) == 0 {
			line.Roles = "observer"
		}
		if slices.Contains(m.Roles, wire.RoleLead) && !line.Leader {
			v.Candidates = append(v.Candidates, m.ID)
		}
		if slices.Contains(m.Roles, wire.RoleVote) {
			v.Voters++
		}
		if find == "" || strings.Contains(strings.ToLower(m.ID), strings.ToLower(find)) {
			v.Members = append(v.Members, line)
		}
	}
	// In the order of the shares, so that they are a staircase. If not all have room: who leads and who is late first, for they need looking at.
	crowd := len(v.Members) > maxRows
	rank := func(m memberView) int {
		switch {
		case crowd && m.Leader:
			return -2
		case crowd && m.Status == coord.Late:
			return -1
		case m.Share == nil:
			return 1 << 30
		}
		return m.Share.Index
	}
	slices.SortStableFunc(v.Members, func(a, b memberView) int { return cmp.Compare(rank(a), rank(b)) })
	if crowd {
		v.Hidden = len(v.Members) - maxRows
		v.Members = v.Members[:maxRows]
	}
	v.Chart = g.chart(sp, now)
	v.Events = g.list()
	for _, b := range slices.Backward(g.open) {
		v.Open = append(v.Open, g.tally(b))
	}
	for _, b := range slices.Backward(g.verdicts) {
		if len(v.Ballots) == maxBallots {
			v.Older = len(g.verdicts) - maxBallots
			break
		}
		v.Ballots = append(v.Ballots, g.tally(b))
	}
	return v
}

// tally draws a ballot.
func (g *group) tally(b ballot) ballotView {
	v := ballotView{ballot: b, Word: "voting", Kind: "busy", Rule: rule(string(b.Verdict.Kind)), Deadline: b.deadline}
	switch b.Verdict.Verdict {
	case wire.Yes:
		v.Word, v.Kind = "yes", "good"
	case wire.No:
		v.Word, v.Kind = "no", "bad"
	case wire.TimedOut:
		v.Word, v.Kind = "timed out", "idle"
	}
	v.Unheard = max(b.Of-b.Yes-b.No-b.Abstain, 0)
	if b.Verdict.Verdict != "" {
		x := 0
		for _, part := range []struct {
			n     int
			class string
		}{{b.Yes, "yes"}, {b.No, "no"}, {b.Abstain, "abstain"}, {v.Unheard, "silent"}} {
			if n := max(part.n, 0); n > 0 && b.Of > 0 {
				v.Bars = append(v.Bars, bar{X: percent(min(float64(x)/float64(b.Of), 1)), W: percent(min(float64(n)/float64(b.Of), 1)), Class: part.class})
				x += n
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(b.reports)) {
		v.Reports = append(v.Reports, reportView{id, b.reports[id]})
	}
	return v
}

// rule is a kind of ballot for people.
func rule(kind string) string {
	switch kind {
	case "majority":
		return "more than half"
	case "two-thirds":
		return "two thirds"
	case "consensus":
		return "all"
	}
	return "at least " + kind
}

// list is what has happened, newest first.
func (g *group) list() []eventView {
	var l []eventView
	for _, e := range g.events {
		l = append(l, eventView{e.at, e.kind, e.who, e.text})
	}
	for _, t := range g.terms {
		l = append(l, eventView{t.from, "leader", t.leader, "leads, token " + strconv.FormatUint(t.token, 10)})
	}
	for _, n := range g.gens {
		switch {
		case n.settled.IsZero() && n.until.IsZero():
			l = append(l, eventView{n.began, "settling", "", "The work is being shared anew" + because(n.cause) + "."})
		case !n.settled.IsZero():
			text := plural(n.total, "share") + ", generation " + strconv.FormatUint(n.number, 10) + because(n.cause)
			if n.buckets > 0 {
				text += fmt.Sprintf(", %d of %s moved", n.moved, plural(n.buckets, "bucket"))
			}
			if d := n.settled.Sub(n.began); d > 0 {
				text += ", settled in " + short(d)
			}
			l = append(l, eventView{n.settled, "settled", "", text + "."})
		}
	}
	// Of what was at one moment, the one who leads comes after the one who did before.
	rank := func(e eventView) int { return slices.Index([]string{"settled", "settling", "leader"}, e.Kind) }
	slices.SortStableFunc(l, func(a, b eventView) int { return cmp.Or(b.At.Compare(a.At), cmp.Compare(uint(rank(a)), uint(rank(b)))) })
	return l[:min(len(l), maxLines)]
}

func because(cause string) string {
	if cause == "" {
		return ""
	}
	return " (" + cause + ")"
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// short is a duration for people.
func short(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return "under 1 ms"
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second && d%time.Second != 0:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	}
	return fmt.Sprintf("%d h", int(d.Hours()))
}

// chart draws the last while: who led, and the generations. What lies before the first thing known is left empty.
func (g *group) chart(sp span, now time.Time) chart {
	end := now.Truncate(sp.step()).Add(sp.step())
	begin := end.Add(-sp.Length)
	at := func(t time.Time) float64 { // from 0 to 1
		return min(max(float64(t.Sub(begin))/float64(sp.Length), 0), 1)
	}
	var c chart
	draw := func(l *[]bar, from, to time.Time, least float64, b bar) {
		if to.IsZero() || to.After(now) {
			to = now
		}
		x, w := at(from), at(to)-at(from)
		if !to.After(begin) || from.After(end) {
			return
		}
		w = min(max(w, least), 1-x)
		if w*90 < float64(min(len(b.Label), 6)) { // about eight pixels for each letter of a narrow screen
			b.Label = ""
		}
		b.X, b.W = percent(x), percent(w)
		*l = append(*l, b)
	}
	const dot = 0.004 // so that what was short is seen
	leaders, gaps := map[string]bool{}, 0
	for i, t := range g.terms {
		if i > 0 && t.from.After(g.terms[i-1].to) && !g.terms[i-1].to.IsZero() && t.from.After(begin) {
			draw(&c.Leaders, g.terms[i-1].to, t.from, dot, bar{Class: "nobody", Title: "nobody leads, for " + short(t.from.Sub(g.terms[i-1].to))})
			gaps++
		}
		if t.to.IsZero() || t.to.After(begin) {
			leaders[t.leader] = true
		}
		to := t.to
		if to.IsZero() && g.late {
			to = g.renewed
		}
		draw(&c.Leaders, t.from, to, dot, bar{Class: "term", Colour: g.colour(t.leader), Label: t.leader,
			Title: t.leader + " leads, token " + strconv.FormatUint(t.token, 10)})
	}
	if n := len(g.terms); n > 0 {
		if last := g.terms[n-1]; !last.to.IsZero() {
			draw(&c.Leaders, last.to, now, dot, bar{Class: "nobody", Title: "nobody leads"})
			gaps++
		} else if g.late {
			draw(&c.Leaders, g.renewed, now, dot, bar{Class: "nobody", Title: last.leader + " is not heard"})
			gaps++
		}
	}
	shared := 0
	for i, n := range g.gens {
		until := n.until
		if until.IsZero() || until.After(begin) {
			shared++
		}
		if n.settled.IsZero() {
			draw(&c.Shares, n.began, until, dot, bar{Class: "settling", Title: "settling" + because(n.cause)})
			continue
		}
		if n.settled.After(n.began) {
			draw(&c.Shares, n.began, n.settled, dot, bar{Class: "settling", Title: "settling" + because(n.cause) + ", " + short(n.settled.Sub(n.began))})
		}
		label := plural(n.total, "share")
		if n.total == 0 {
			label = "idle"
		}
		draw(&c.Shares, n.settled, until, dot, bar{Class: "gen", Colour: i % 2, Label: label,
			Title: label + ", generation " + strconv.FormatUint(n.number, 10) + because(n.cause)})
	}
	for i, back := range sp.Ticks {
		t := tickMark{N: i, X: percent(1 - float64(back)/float64(sp.Length)), Anchor: "middle", Label: short(back)}
		switch {
		case back == 0:
			t.Anchor, t.Label = "end", "now"
		case i == 0:
			t.Anchor = "start"
			t.Label += " ago"
		}
		c.Ticks = append(c.Ticks, t)
	}
	c.Summary = fmt.Sprintf("Time line of the last %s: %s led, %s, %s.", sp.Label, plural(len(leaders), "member"),
		plural(gaps, "gap")+" without a leader", plural(shared, "generation")+" of shares")
	return c
}
