package settle

import (
	"cmp"
	"slices"
)

// A Taker is a member as the spreading of buckets sees it. Weight 0: it takes nothing, and keeps only what is fixed.
type Taker struct {
	Weight int
	Zone   string
}

// Spread deals buckets out to takers, by the owners of before: owners[b] is who has bucket b, -1 if nobody. It returns the new owners.
//
//   - Even: each taker gets its share by weight, rounded down or up; with equal weights any two differ by one at most.
//   - Spread: the same holds of each zone, so that the loss of a zone stops no more than its share; buckets next to each other go to
//     different zones, and members, where they are dealt out.
//   - Minimal: of all ways to do that it moves as few buckets as any. A taker that has to give some up gives those that it has had for the
//     shortest time (the highest tokens).
//   - A bucket that is fixed stays where it is. Who has more of those than its share keeps them, and the others share the rest.
//
// Pure: the same question has the same answer in every leader. Buckets have no owner (-1) only if nobody has a weight.
func Spread(owners []int, takers []Taker, fixed []bool, tokens []uint64) []int {
	to := slices.Clone(owners)
	have, held := make([]int, len(takers)), make([]int, len(takers)) // what each has, and how much of that is fixed
	for b, o := range owners {
		if o < 0 {
			continue
		}
		have[o]++
		if fixed != nil && fixed[b] {
			held[o]++
		}
	}
	want := quotas(len(owners), takers, have, held)
	release(to, want, have, fixed, tokens)
	deal(to, want, takers)
	return to
}

// quotas is how many buckets each taker gets. It moves as few as possible: of those whose share is no whole number, the rounding up goes to
// those who have that many already, zone by zone.
func quotas(n int, takers []Taker, have, held []int) []int {
	want := slices.Clone(held)
	in := make([]bool, len(takers)) // shares the rest, by weight
	for i, t := range takers {
		if in[i] = t.Weight > 0; !in[i] {
			n -= held[i]
		}
	}
	for {
		over := round(n, takers, in, have, held, want)
		if len(over) == 0 {
			return want
		}
		for _, i := range over { // it keeps what is fixed, the others share the rest
			in[i], want[i] = false, held[i]
			n -= held[i]
		}
	}
}

// round shares n by weight among the takers that are in, and names those for whom that is less than they have to keep.
func round(n int, takers []Taker, in []bool, have, held, want []int) (over []int) {
	weight, zones := 0, map[string]*zone{}
	var order []*zone
	for i, t := range takers {
		if !in[i] {
			continue
		}
		weight += t.Weight
		z := zones[t.Zone]
		if z == nil {
			z = &zone{}
			zones[t.Zone] = z
			order = append(order, z)
		}
		z.weight += t.Weight
		z.takers = append(z.takers, i)
	}
	if weight == 0 {
		return nil
	}
	// Rounded down, for takers and zones; what is left over goes up, one for each zone, and in it one for each taker.
	spare := n
	for _, z := range order {
		exact := n * z.weight
		z.ups = exact / weight
		z.up = exact%weight != 0
		spare -= z.ups
		for _, i := range z.takers {
			exact := n * takers[i].Weight
			want[i] = exact / weight
			z.ups -= want[i]
			if exact%weight != 0 {
				z.gain = append(z.gain, i)
			}
		}
		// First who must have it, then who has it already.
		slices.SortStableFunc(z.gain, func(a, b int) int { return cmp.Compare(rank(b, have, held, want), rank(a, have, held, want)) })
	}
	// A zone gains by one more if that spares a move.
	slices.SortStableFunc(order, func(a, b *zone) int { return cmp.Compare(b.next(have, held, want), a.next(have, held, want)) })
	for _, z := range order {
		if z.up && spare > 0 {
			spare--
			z.ups++
		}
		for _, i := range z.gain[:z.ups] {
			want[i]++
		}
	}
	for i := range takers {
		if in[i] && want[i] < held[i] {
			over = append(over, i)
		}
	}
	return over
}

type zone struct {
	weight int
	takers []int
	ups    int   // takers that are rounded up
	up     bool  // it may have one more of them
	gain   []int // whose share is no whole number: in the order in which they are rounded up
}

// rank is 2 for a taker that has to be rounded up, 1 for one that is spared a move by it.
func rank(i int, have, held, want []int) int {
	switch {
	case held[i] > want[i]:
		return 2
	case have[i] > want[i]:
		return 1
	}
	return 0
}

// next is what one more is worth to the zone.
func (z *zone) next(have, held, want []int) int {
	if !z.up {
		return -1
	}
	return rank(z.gain[z.ups], have, held, want)
}

// release takes from each who has more than its share what it has had for the shortest time.
func release(to, want, have []int, fixed []bool, tokens []uint64) {
	var loose [][]int // by taker, only of those that give some up
	for b, o := range to {
		if o < 0 || have[o] <= want[o] || fixed != nil && fixed[b] {
			continue
		}
		if loose == nil {
			loose = make([][]int, len(want))
		}
		loose[o] = append(loose[o], b)
	}
	for o, l := range loose {
		slices.SortFunc(l, func(a, b int) int {
			var age int
			if tokens != nil {
				age = cmp.Compare(tokens[b], tokens[a])
			}
			return cmp.Or(age, cmp.Compare(b, a))
		})
		for _, b := range l[:min(len(l), max(have[o]-want[o], 0))] {
			to[b] = -1
		}
	}
}

// deal gives the buckets that nobody has to those who have less than their share: one after the other to the zone that lacks most, but not to
// the one that has the bucket before it, if another lacks any; within a zone in turn.
func deal(to, want []int, takers []Taker) {
	need := slices.Clone(want)
	for _, o := range to {
		if o >= 0 {
			need[o]--
		}
	}
	type queue struct {
		zone   string
		need   int
		takers []int
		at     int
	}
	var zones []*queue
	for i, t := range takers {
		if need[i] <= 0 {
			continue
		}
		k := slices.IndexFunc(zones, func(q *queue) bool { return q.zone == t.Zone })
		if k < 0 {
			k = len(zones)
			zones = append(zones, &queue{zone: t.Zone})
		}
		zones[k].need += need[i]
		zones[k].takers = append(zones[k].takers, i)
	}
	for b, o := range to {
		if o >= 0 {
			continue
		}
		var best, beside *queue
		for _, q := range zones {
			switch {
			case q.need == 0:
			case b > 0 && to[b-1] >= 0 && takers[to[b-1]].Zone == q.zone:
				beside = q
			case best == nil || best.need < q.need:
				best = q
			}
		}
		if best = cmp.Or(best, beside); best == nil {
			return // nobody has a weight
		}
		best.at %= len(best.takers)
		i := best.takers[best.at]
		to[b] = i
		best.need--
		if need[i]--; need[i] == 0 {
			best.takers = slices.Delete(best.takers, best.at, best.at+1)
		} else {
			best.at++
		}
	}
}
