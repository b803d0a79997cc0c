package eventcheck

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// A Trouble is what keeps an item from being somebody's for longer than a settlement takes: a member that was killed, stopped, cut off or has left,
// NATS away. Who checks knows these, for it has brought them about, and how long each may last (quorate.Explain).
type Trouble struct {
	What string
	// Who it happened to, as the lines have it under self: it concerns only what that member held, or was to be given (Work.Plans). Empty: all.
	Who      string
	From, To time.Time     // To zero: one moment
	Allow    time.Duration // how long an item may have no owner from To on
}

func (t Trouble) until() time.Time {
	if t.To.IsZero() {
		return t.From.Add(t.Allow)
	}
	return t.To.Add(t.Allow)
}

// An Orphan is an item from when it was nobody's to when it was somebody's again, or the time that was looked at was over.
type Orphan struct {
	Item     string
	From, To time.Time
	Due      time.Time // by when it had to be somebody's
	Why      string    // the troubles that put that off
}

// Lasted is how long it had no owner.
func (o Orphan) Lasted() time.Duration { return o.To.Sub(o.From) }

func (o Orphan) String() string {
	return fmt.Sprintf("item %q has no owner from %s for %s, %s were allowed (%s)", o.Item, o.From.Format("15:04:05.000000"), o.Lasted().Round(time.Microsecond),
		o.Due.Sub(o.From).Round(time.Microsecond), cmp.Or(o.Why, "a settlement"))
}

// Idle is what CheckOrphans has seen.
type Idle struct {
	Times   int    // how many times an item had no owner
	Longest Orphan // the longest of those
	Nearest Orphan // the one that was over, or not, with the least time left until it was due
}

// A Plan is who was to have which share of a generation, in the order of their indexes: they may not have been given it yet.
type Plan struct {
	At     time.Time // when it was decided
	Owners []string
}

// Work is what is to be somebody's at every moment between two.
type Work struct {
	Group    string
	Items    []string
	From, To time.Time
	Pause    time.Duration // how long a settlement may take while nothing is wrong
	Troubles []Trouble
	// Plans, in their order, and the index of an item's share of a total. Without them a trouble concerns what its member held.
	Plans []Plan
	Index func(item string, total int) int
}

// CheckOrphans tells which items were nobody's for too long, by the items of the shares that the lines tell of, and sums up all that were. An item that
// loses its owner is due again after the pause. Each trouble that begins while it is not due yet puts that off to its own end and what it allows; one that
// begins when it was due already excuses nothing. So who is slow is not excused by what happened to others afterwards, and troubles in a row are each waited
// for from the last one on, as the protocol does.
func (w Work) CheckOrphans(all []Witness) (idle Idle, wrong []string) {
	by, who := map[string][]Holding{}, map[string][]Holding{}
	for _, witness := range all {
		shares, _ := witness.Holdings()
		for _, h := range shares {
			if h.Grant.Group != w.Group {
				continue
			}
			who[h.Grant.Self] = append(who[h.Grant.Self], h)
			for _, item := range h.Grant.Items {
				by[item] = append(by[item], h)
			}
		}
	}
	troubles := slices.Clone(w.Troubles)
	slices.SortStableFunc(troubles, func(a, b Trouble) int { return a.From.Compare(b.From) })
	concerns := make([]map[string]bool, len(troubles)) // nil: all
	for i, t := range troubles {
		if t.Who != "" {
			concerns[i] = w.concerned(t, who[t.Who])
		}
	}
	first := true
	nobody := func(o Orphan) {
		o.Due = o.From.Add(w.Pause)
		for i, t := range troubles {
			if t.From.After(o.Due) || t.From.After(o.To) {
				break
			}
			if t.until().After(o.Due) && (concerns[i] == nil || concerns[i][o.Item]) {
				o.Due = t.until()
				if o.Why != "" {
					o.Why += ", "
				}
				o.Why += t.What + " at " + t.From.Format("15:04:05.000")
			}
		}
		idle.Times++
		if first || o.Lasted() > idle.Longest.Lasted() {
			idle.Longest = o
		}
		if first || o.Due.Sub(o.To) < idle.Nearest.Due.Sub(idle.Nearest.To) {
			idle.Nearest = o
		}
		first = false
		if o.To.After(o.Due) {
			wrong = append(wrong, o.String())
		}
	}
	for _, item := range w.Items {
		held := by[item]
		slices.SortStableFunc(held, byBegin)
		at := w.From
		for _, h := range held {
			begin := h.Begin
			if begin.After(w.To) {
				break
			}
			if begin.After(at) {
				nobody(Orphan{Item: item, From: at, To: begin})
				at = begin
			}
			if h.End.IsZero() {
				at = w.To
			} else if h.End.After(at) {
				at = h.End
			}
		}
		if at.Before(w.To) {
			nobody(Orphan{Item: item, From: at, To: w.To})
		}
	}
	return idle, wrong
}

// concerned is what a member held, or was to be given, when something happened to it.
func (w Work) concerned(t Trouble, held []Holding) map[string]bool {
	until := t.From
	if t.To.After(until) {
		until = t.To
	}
	items := map[string]bool{}
	for _, h := range held {
		if !h.Begin.After(until) && (h.End.IsZero() || !h.End.Before(t.From)) {
			for _, item := range h.Grant.Items {
				items[item] = true
			}
		}
	}
	for i, p := range w.Plans {
		// It was decided before it was written, and written before it was noted.
		if p.At.Add(-w.Pause).After(until) || i+1 < len(w.Plans) && w.Plans[i+1].At.Before(t.From) {
			continue
		}
		at := slices.Index(p.Owners, t.Who)
		for _, item := range w.Items {
			if at >= 0 && w.Index(item, len(p.Owners)) == at {
				items[item] = true
			}
		}
	}
	return items
}
