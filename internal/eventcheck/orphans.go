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
	// Who it happened to, as the lines have it under self. It concerns only what that member held then; if it held nothing, or Who is empty, all.
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

// CheckOrphans tells which items of a group were nobody's for too long between two moments, by the items of the shares that the lines tell of, and sums up all
// that were. An item that loses its owner is due again after pause: what a settlement takes while nothing is wrong. Each trouble that begins while it is not
// due yet puts that off to its own end and what it allows; one that begins when it was due already excuses nothing. So who is slow is not excused by what
// happened to others afterwards, and troubles in a row are each waited for from the last one on, as the protocol does.
func CheckOrphans(all []Witness, group string, items []string, from, to time.Time, pause time.Duration, troubles ...Trouble) (idle Idle, wrong []string) {
	by, who := map[string][]Holding{}, map[string][]Holding{}
	for _, w := range all {
		shares, _ := w.Holdings()
		for _, h := range shares {
			if h.Grant.Group != group {
				continue
			}
			who[h.Grant.Self] = append(who[h.Grant.Self], h)
			for _, item := range h.Grant.Items {
				by[item] = append(by[item], h)
			}
		}
	}
	troubles = slices.Clone(troubles)
	slices.SortStableFunc(troubles, func(a, b Trouble) int { return a.From.Compare(b.From) })
	had := make([]*Holding, len(troubles))
	for i, t := range troubles {
		for _, h := range who[t.Who] {
			if t.Who != "" && !h.Begin.After(t.From) && (h.End.IsZero() || !h.End.Before(t.From)) {
				had[i] = &h
			}
		}
	}
	first := true
	nobody := func(o Orphan) {
		o.Due = o.From.Add(pause)
		for i, t := range troubles {
			if t.From.After(o.Due) {
				break
			}
			if t.until().After(o.Due) && (had[i] == nil || slices.Contains(had[i].Grant.Items, o.Item)) {
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
	for _, item := range items {
		held := by[item]
		slices.SortStableFunc(held, byBegin)
		at := from
		for _, h := range held {
			begin := h.Begin
			if begin.After(to) {
				break
			}
			if begin.After(at) {
				nobody(Orphan{Item: item, From: at, To: begin})
				at = begin
			}
			if h.End.IsZero() {
				at = to
			} else if h.End.After(at) {
				at = h.End
			}
		}
		if at.Before(to) {
			nobody(Orphan{Item: item, From: at, To: to})
		}
	}
	return idle, wrong
}
