package eventcheck

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"
)

// A Line is an event line read back: the fields that prove what was held (design section 7).
type Line struct {
	Type       string    `json:"type"`
	Time       time.Time `json:"time"`
	Group      string    `json:"group"`
	Election   string    `json:"election"`
	Self       string    `json:"self"`
	Member     string    `json:"member"`
	Leader     string    `json:"leader"`
	Token      uint64    `json:"token"`
	Index      int       `json:"index"`
	Total      int       `json:"total"`
	Generation uint64    `json:"generation"`
	LeaseMS    int64     `json:"lease_ms"`
	Buckets    []int     `json:"buckets"` // of `revoked`: only these, and the index; nil: everything
	Tokens     []uint64  `json:"tokens"`
	Items      []string  `json:"items"`
	Reason     string    `json:"reason"`
	Until      time.Time `json:"until"`
	Ballot     string    `json:"ballot"`
	Topic      string    `json:"topic"`
	Verdict    string    `json:"verdict"`
	Yes        int       `json:"yes"`
	No         int       `json:"no"`
	Abstain    int       `json:"abstain"`
	Of         int       `json:"of"` // of a ballot: who votes; of a share with buckets: how many there are

	Status      string    `json:"status"`       // of an action
	At          time.Time `json:"at"`           // of the verdict on an action: its instant
	ToleranceMS int64     `json:"tolerance_ms"` // the same
}

// The types of lines that say who holds what, and what was decided.
const (
	assigned      = "assigned"
	revoked       = "revoked"
	leaderElected = "leader-elected"
	leaderLost    = "leader-lost"
	verdict       = "verdict"
	action        = "action"
)

// Parse reads one line.
func Parse(line []byte) (Line, error) {
	var l Line
	if err := json.Unmarshal(line, &l); err != nil {
		return l, fmt.Errorf("not an event line: %w", err)
	}
	if l.Type == "" || l.Time.IsZero() {
		return l, fmt.Errorf("not an event line: no type or time")
	}
	return l, nil
}

// A Witness is what one process has printed, in its order. A client that has asked for a vote is one too: with a line for each
// answer that it got.
type Witness struct {
	Name  string
	Lines []Line
	Ended time.Time // when it was killed; zero: it was not
	// Stopped is when it was stopped (SIGSTOP), if that was before Ended and it was never continued: it prints no end then, and
	// what it held ran out at most lease_ms after the stop.
	Stopped time.Time
}

// A Loss is a time in which acknowledged data was lost under live rights (a bucket deleted, purged, restored): the documented
// exception, in which two terms may overlap for a lease. Nothing else is excused.
type Loss struct{ From, To time.Time }

// A Holding is a right from its announcement to its end.
type Holding struct {
	Who        string
	Grant      Line
	Bucket     int       // of a bucket's
	Token      uint64    // of a bucket's
	Begin, End time.Time // End is zero while it is held
}

func (h Holding) overlaps(o Holding) bool {
	return (h.End.IsZero() || h.End.After(o.Begin)) && (o.End.IsZero() || o.End.After(h.Begin))
}

// excused says whether two holdings overlap only within one of the losses.
func (h Holding) excused(o Holding, losses []Loss) bool {
	from := h.Begin
	if o.Begin.After(from) {
		from = o.Begin
	}
	to := h.End
	if to.IsZero() || !o.End.IsZero() && o.End.Before(to) {
		to = o.End
	}
	return !to.IsZero() && slices.ContainsFunc(losses, func(l Loss) bool { return !from.Before(l.From) && !to.After(l.To) })
}

func (h Holding) String() string {
	end := "now"
	if !h.End.IsZero() {
		end = h.End.Format("15:04:05.000000")
	}
	return fmt.Sprintf("%s [%s, %s]", h.Who, h.Begin.Format("15:04:05.000000"), end)
}

// where is the group or election of a line: what is held in one says nothing about another.
func (l Line) where() string { return l.Group + "\x00" + l.Election }

// Check proves from the lines of several processes of one machine what is promised, for each group and election in them, and
// tells what contradicts it:
//
//   - L1, L2: no two leaderships at one instant, each later one with a higher token;
//   - P1: within a generation indexes are distinct, and from 0 to total-1;
//   - P2: no shares of different generations at one instant; no bucket with two owners;
//   - P3: generations only grow; a bucket's token grows with each owner, and stays while it stays;
//   - V1: no ballot has two verdicts, nor two tallies, whoever tells of them ("unknown" is none);
//   - A1: a process tells its own part in an action once; it has done nothing without a yes, and nothing before the instant by more than the
//     tolerance (wall clocks of one machine are one clock); nobody tells another part of a member than its processes do;
//   - the shares of one generation have no item in common;
//   - lines are in the order of their times, and nothing is announced after its end.
func Check(all []Witness, losses ...Loss) (wrong []string) {
	fail := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	shares, terms, buckets := map[string][]Holding{}, map[string][]Holding{}, map[string][]Holding{}
	for _, w := range all {
		s, t, b := w.holdings(fail)
		for _, h := range s {
			shares[h.Grant.where()] = append(shares[h.Grant.where()], h)
		}
		for _, h := range t {
			terms[h.Grant.where()] = append(terms[h.Grant.where()], h)
		}
		for _, h := range b {
			buckets[h.Grant.where()] = append(buckets[h.Grant.where()], h)
		}
	}
	for _, where := range slices.Sorted(maps.Keys(terms)) {
		checkTerms(terms[where], losses, fail)
	}
	for _, where := range slices.Sorted(maps.Keys(shares)) {
		checkGenerations(shares[where], fail)
	}
	for _, where := range slices.Sorted(maps.Keys(buckets)) {
		checkBuckets(buckets[where], fail)
	}
	checkVerdicts(all, fail)
	checkActions(all, fail)
	return wrong
}

func byBegin(a, b Holding) int { return a.Begin.Compare(b.Begin) }

func checkTerms(terms []Holding, losses []Loss, fail func(string, ...any)) {
	slices.SortStableFunc(terms, byBegin)
	for i, t := range terms {
		for _, u := range terms[i+1:] {
			if t.overlaps(u) && !t.excused(u, losses) {
				fail("L1: two leaders: %v, %v", t, u)
			}
			if t.Grant.Token >= u.Grant.Token {
				fail("L2: token %d of %v after token %d of %v", u.Grant.Token, u, t.Grant.Token, t)
			}
		}
	}
}

// A generation is what was seen of one.
type generation struct {
	first Holding
	by    map[string][]Holding // who has a share of it
	at    map[int]Holding      // whose is an index: the first
}

func checkGenerations(shares []Holding, fail func(string, ...any)) {
	slices.SortStableFunc(shares, byBegin)
	type itemOf struct {
		generation uint64
		item       string
	}
	owner := map[itemOf]string{}
	seen := map[uint64]*generation{}
	var newest Holding
	var held []*Holding // those that go on, as far as it has come: pairs of all shares would take hours of a long run
	for i, s := range shares {
		held = slices.DeleteFunc(held, func(h *Holding) bool { return !h.End.IsZero() && !h.End.After(s.Begin) })
		for _, h := range held {
			if h.Grant.Generation < s.Grant.Generation && h.overlaps(s) {
				fail("P2: generations %d of %v and %d of %v", h.Grant.Generation, *h, s.Grant.Generation, s)
			}
		}
		held = append(held, &shares[i])
		if s.Grant.Generation < newest.Grant.Generation {
			fail("P3: generation %d of %v after %d of %v", s.Grant.Generation, s, newest.Grant.Generation, newest)
		} else {
			newest = s
		}
		g := seen[s.Grant.Generation]
		if g == nil {
			g = &generation{s, map[string][]Holding{}, map[int]Holding{}}
			seen[s.Grant.Generation] = g
		}
		o, taken := g.at[s.Grant.Index]
		switch own := g.by[s.Who]; {
		case g.first.Grant.Total != s.Grant.Total:
			fail("P1: generation %d has totals %d (%v) and %d (%v)", s.Grant.Generation, g.first.Grant.Total, g.first, s.Grant.Total, s)
		case len(own) > 0:
			// A share that ran out may be granted again while its generation stands.
			if o := own[len(own)-1]; o.Grant.Index != s.Grant.Index || o.overlaps(s) {
				fail("P1: generation %d twice, with index %d and %d: %v, %v", s.Grant.Generation, o.Grant.Index, s.Grant.Index, o, s)
			}
		case taken:
			fail("P1: generation %d has index %d twice: %v, %v", s.Grant.Generation, s.Grant.Index, o, s)
		}
		g.by[s.Who] = append(g.by[s.Who], s)
		if !taken {
			g.at[s.Grant.Index] = s
		}
		if s.Grant.Index < 0 || s.Grant.Index >= s.Grant.Total {
			fail("P1: generation %d: index %d of %d: %v", s.Grant.Generation, s.Grant.Index, s.Grant.Total, s)
		}
		for _, item := range s.Grant.Items {
			k := itemOf{s.Grant.Generation, item}
			if o, ok := owner[k]; ok && o != s.Who {
				fail("P1: generation %d: %s and %s both have item %q", s.Grant.Generation, o, s.Who, item)
			}
			owner[k] = s.Who
		}
	}
}

func checkBuckets(all []Holding, fail func(string, ...any)) {
	slices.SortStableFunc(all, func(a, b Holding) int { return cmp.Or(cmp.Compare(a.Bucket, b.Bucket), byBegin(a, b)) })
	for i, h := range all {
		for _, o := range all[i+1:] {
			if o.Bucket != h.Bucket {
				break
			}
			switch {
			case h.Grant.Of != o.Grant.Of: // cut in another way
				if h.overlaps(o) {
					fail("P2: %d buckets of %v and %d of %v", h.Grant.Of, h, o.Grant.Of, o)
				}
			case h.overlaps(o):
				fail("P2: bucket %d has two owners: %v, %v", h.Bucket, h, o)
			}
			if h.Token > o.Token || h.Token == o.Token && h.Who != o.Who {
				fail("P3: bucket %d: token %d of %v after %d of %v", h.Bucket, o.Token, o, h.Token, h)
			}
		}
	}
}

func checkVerdicts(all []Witness, fail func(string, ...any)) {
	type told struct{ verdict, by string }
	first := map[string]told{}
	say := func(l Line) string {
		return fmt.Sprintf("%s (%d yes, %d no, %d abstain of %d)", l.Verdict, l.Yes, l.No, l.Abstain, l.Of)
	}
	for _, w := range all {
		for _, l := range w.Lines {
			if l.Type != verdict || l.Verdict == "unknown" {
				continue // unknown says that none was heard, and can be asked for again
			}
			k := l.where() + "\x00" + l.Ballot
			if f, ok := first[k]; ok && f.verdict != say(l) {
				fail("V1: ballot %s: %s was told %s, %s %s", l.Ballot, f.by, f.verdict, w.Name, say(l))
			} else if !ok {
				first[k] = told{say(l), w.Name}
			}
		}
	}
}

func checkActions(all []Witness, fail func(string, ...any)) {
	agreed := map[string]Line{} // by group and ballot
	for _, w := range all {
		for _, l := range w.Lines {
			if l.Type == verdict && l.Verdict == "yes" {
				agreed[l.where()+"\x00"+l.Ballot] = l
			}
		}
	}
	own := map[string]map[string]bool{} // by ballot and member: what its processes have told of its part
	ended := map[string]bool{}          // by member: one of its processes could not tell all, as it was killed or stands still
	for _, w := range all {
		told := map[string]bool{}
		for _, l := range w.Lines {
			if !w.Ended.IsZero() || !w.Stopped.IsZero() {
				ended[l.Self] = true
			}
			if l.Type != action || l.Member != l.Self {
				continue // what others have reported is told again
			}
			k := l.where() + "\x00" + l.Ballot
			if told[k] {
				fail("A1: ballot %s: %s told its part twice", l.Ballot, w.Name)
			}
			told[k] = true
			by := k + "\x00" + l.Member
			if own[by] == nil {
				own[by] = map[string]bool{}
			}
			own[by][l.Status] = true
			if l.Status != "done" && l.Status != "failed" {
				continue // it has not begun
			}
			v, ok := agreed[k]
			switch {
			case !ok:
				fail("A1: ballot %s: %s acted, and nobody was told a yes", l.Ballot, w.Name)
			case l.Time.Before(v.At.Add(-time.Duration(v.ToleranceMS) * time.Millisecond)):
				fail("A1: ballot %s: %s was done at %v, before the instant %v", l.Ballot, w.Name, l.Time, v.At)
			}
		}
	}
	for _, w := range all {
		for _, l := range w.Lines {
			if l.Type != action || l.Member == l.Self || ended[l.Member] || l.Status == "unheard" {
				continue
			}
			if o := own[l.where()+"\x00"+l.Ballot+"\x00"+l.Member]; len(o) > 0 && !o[l.Status] {
				fail("A1: ballot %s: %s tells that %s is %s, its own word is %s", l.Ballot, w.Name, l.Member, l.Status, slices.Sorted(maps.Keys(o)))
			}
		}
	}
}

// Holdings are the shares and leaderships of one process.
func (w Witness) Holdings() (shares, terms []Holding) {
	shares, terms, _ = w.holdings(func(string, ...any) {})
	return shares, terms
}

// Buckets are what one process held of each bucket: over generations, as long as it kept it.
func (w Witness) Buckets() []Holding {
	_, _, buckets := w.holdings(func(string, ...any) {})
	return buckets
}

// A place is where one process can hold one share, some buckets and one leadership at a time.
type place struct {
	share, term *Holding
	buckets     map[int]*Holding
}

func (w Witness) holdings(fail func(string, ...any)) (shares, terms, buckets []Holding) {
	places := map[string]*place{}
	end := func(h **Holding, list *[]Holding, at time.Time) {
		(*h).End = at
		*list = append(*list, **h)
		*h = nil
	}
	var last time.Time
	for _, l := range w.Lines {
		if l.Time.Before(last) {
			fail("%s: a line of %v follows one of %v", w.Name, l.Time, last)
		}
		last = l.Time
		p := places[l.where()]
		if p == nil {
			p = &place{buckets: map[int]*Holding{}}
			places[l.where()] = p
		}
		switch {
		case l.Type == assigned && l.Member == l.Self:
			if p.share != nil {
				fail("%s: assigned generation %d while it holds %d", w.Name, l.Generation, p.share.Grant.Generation)
				end(&p.share, &shares, l.Time)
			}
			p.share = &Holding{Who: w.Name, Grant: l, Begin: l.Time}
			buckets = append(buckets, w.assigned(p, l, fail)...)
		case l.Type == revoked && l.Member == l.Self:
			named := map[int]bool{}
			for _, n := range l.Buckets {
				named[n] = true
				if p.buckets[n] == nil {
					fail("%s: revoked bucket %d, which it does not hold", w.Name, n)
				}
			}
			if p.share == nil && len(p.buckets) == 0 || p.share != nil && p.share.Grant.Generation != l.Generation {
				fail("%s: revoked generation %d, which it does not hold", w.Name, l.Generation)
				continue
			}
			for n, b := range p.buckets {
				if l.Buckets == nil || named[n] {
					w.checkEnd(b, l, fail)
					end(&b, &buckets, l.Until)
					delete(p.buckets, n)
				}
			}
			if p.share != nil {
				w.checkEnd(p.share, l, fail)
				end(&p.share, &shares, l.Until)
			}
		case l.Type == leaderElected && l.Leader == l.Self:
			if p.term != nil {
				fail("%s: leader with token %d while it is with %d", w.Name, l.Token, p.term.Grant.Token)
				end(&p.term, &terms, l.Time)
			}
			p.term = &Holding{Who: w.Name, Grant: l, Begin: l.Time}
		case l.Type == leaderLost && l.Leader == l.Self:
			if p.term == nil || p.term.Grant.Token != l.Token {
				fail("%s: lost token %d, which it does not hold", w.Name, l.Token)
				continue
			}
			w.checkEnd(p.term, l, fail)
			end(&p.term, &terms, l.Until)
		}
	}
	for _, where := range slices.Sorted(maps.Keys(places)) {
		p := places[where]
		for _, n := range slices.Sorted(maps.Keys(p.buckets)) {
			b := p.buckets[n]
			end(&b, &buckets, w.gone(b))
		}
		if p.share != nil {
			end(&p.share, &shares, w.gone(p.share))
		}
		if p.term != nil {
			end(&p.term, &terms, w.gone(p.term))
		}
	}
	return shares, terms, buckets
}

// assigned takes the buckets of a new share: those that are held already go on, with the token that they have. It returns what is over.
func (w Witness) assigned(p *place, l Line, fail func(string, ...any)) (over []Holding) {
	if len(l.Tokens) != len(l.Buckets) {
		fail("%s: %d buckets with %d tokens", w.Name, len(l.Buckets), len(l.Tokens))
		return nil
	}
	named := map[int]bool{}
	for i, n := range l.Buckets {
		named[n] = true
		if b := p.buckets[n]; b != nil {
			if b.Token != l.Tokens[i] {
				fail("P3: %s keeps bucket %d, and its token %d becomes %d", w.Name, n, b.Token, l.Tokens[i])
			}
			b.Grant = l // what it is held for without a further reply
			continue
		}
		if n < 0 || n >= l.Of {
			fail("P1: %s has bucket %d of %d", w.Name, n, l.Of)
		}
		p.buckets[n] = &Holding{Who: w.Name, Grant: l, Bucket: n, Token: l.Tokens[i], Begin: l.Time}
	}
	for n, b := range p.buckets {
		if !named[n] {
			fail("%s: held bucket %d is neither revoked nor assigned again", w.Name, n)
			b.End = l.Time
			over = append(over, *b)
			delete(p.buckets, n)
		}
	}
	return over
}

// gone is when a process that says no more held h no more; zero if it still may.
func (w Witness) gone(h *Holding) time.Time {
	if w.Stopped.IsZero() {
		return w.Ended
	}
	out := w.Stopped.Add(time.Duration(h.Grant.LeaseMS) * time.Millisecond)
	if w.Ended.IsZero() || out.Before(w.Ended) {
		return out
	}
	return w.Ended
}

func (w Witness) checkEnd(h *Holding, l Line, fail func(string, ...any)) {
	switch {
	case l.Until.IsZero():
		fail("%s: %s without until", w.Name, l.Type)
	case l.Until.After(l.Time):
		fail("%s: %s at %v, until %v which is later", w.Name, l.Type, l.Time, l.Until)
	case l.Until.Before(h.Begin):
		fail("%s: announced at %v what had ended at %v", w.Name, h.Begin, l.Until)
	}
}

// CheckShares tells what is wrong with the shares of one generation: members that have none, another total, items that
// nobody or several have. Equal items have one owner.
func CheckShares(shares map[string]Line, items []string) (wrong []string) {
	fail := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	count := func(lines []string) map[string]int {
		n := map[string]int{}
		for _, l := range lines {
			n[l]++
		}
		return n
	}
	want, have, owner := count(items), map[string]int{}, map[string]string{}
	indexes := map[int]string{}
	for _, id := range slices.Sorted(maps.Keys(shares)) {
		s := shares[id]
		if s.Total != len(shares) {
			fail("%s has an index of %d, want of %d", id, s.Total, len(shares))
		}
		if o, ok := indexes[s.Index]; ok {
			fail("%s and %s both have index %d", o, id, s.Index)
		}
		indexes[s.Index] = id
		for item, n := range count(s.Items) {
			if o, ok := owner[item]; ok {
				fail("%s and %s both have item %q", o, id, item)
			}
			owner[item] = id
			have[item] += n
		}
	}
	missing, extra := 0, 0
	for item, n := range want {
		missing += max(n-have[item], 0)
		extra += max(have[item]-n, 0)
	}
	for item, n := range have {
		if want[item] == 0 {
			extra += n
		}
	}
	if missing > 0 || extra > 0 {
		fail("%d items of %d have no owner, %d are too many", missing, len(items), extra)
	}
	slices.SortFunc(wrong, cmp.Compare[string])
	return wrong
}
