package settle

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

var spreads = flag.Int("settle.spreads", 3000, "how many random questions TestSpread asks")

// spreadCase is one question to Spread.
type spreadCase struct {
	owners []int
	takers []Taker
	fixed  []bool
	tokens []uint64
}

func (c spreadCase) String() string {
	return fmt.Sprintf("owners %v takers %v fixed %v tokens %v", c.owners, c.takers, c.fixed, c.tokens)
}

func randomSpread(r *rand.Rand, buckets, takers int) spreadCase {
	c := spreadCase{owners: make([]int, r.IntN(buckets)), takers: make([]Taker, r.IntN(takers+1)), tokens: make([]uint64, buckets)}
	zones, weights := 1+r.IntN(3), []int{1, 1, 5}[r.IntN(3)]
	for i := range c.takers {
		c.takers[i] = Taker{Weight: 1 + r.IntN(weights), Zone: string(rune('a' + r.IntN(zones)))}
		if r.IntN(10) == 0 {
			c.takers[i].Weight = 0
		}
	}
	for b := range c.owners {
		c.owners[b] = r.IntN(len(c.takers)+1) - 1
		c.tokens[b] = r.Uint64N(4)
	}
	c.tokens = c.tokens[:len(c.owners)]
	return c
}

// exactly is a share as a fraction, for comparisons without rounding: n*weight/all.
type exactly struct{ n, weight, all int }

// near says that got is the share, rounded down or up.
func (e exactly) near(got int) bool {
	d := got*e.all - e.n*e.weight
	return d > -e.all && d < e.all
}

// even says whether so many buckets for each taker is a fair share for all of them, and for each zone.
func even(n int, takers []Taker, got []int) string {
	all, byZone, inZone := 0, map[string]int{}, map[string]int{}
	for i, t := range takers {
		all += t.Weight
		byZone[t.Zone] += t.Weight
		inZone[t.Zone] += got[i]
	}
	if all == 0 {
		return ""
	}
	for i, t := range takers {
		if !(exactly{n, t.Weight, all}).near(got[i]) {
			return fmt.Sprintf("taker %d of weight %d of %d has %d of %d", i, t.Weight, all, got[i], n)
		}
	}
	for z, w := range byZone {
		if !(exactly{n, w, all}).near(inZone[z]) {
			return fmt.Sprintf("zone %s of weight %d of %d has %d of %d", z, w, all, inZone[z], n)
		}
	}
	return ""
}

func counts(owners []int, takers int) []int {
	n := make([]int, takers)
	for _, o := range owners {
		if o >= 0 {
			n[o]++
		}
	}
	return n
}

// fewestMoves tries every way to share the buckets evenly, and says how many have to move at least: the slow, obvious version.
func fewestMoves(owners []int, takers []Taker) int {
	have, best := counts(owners, len(takers)), -1
	got := make([]int, len(takers))
	var try func(i, left, stay int)
	try = func(i, left, stay int) {
		if i == len(takers) {
			if left == 0 && even(len(owners), takers, got) == "" {
				best = max(best, stay)
			}
			return
		}
		for got[i] = 0; got[i] <= left; got[i]++ {
			if takers[i].Weight == 0 && got[i] > 0 {
				break
			}
			try(i+1, left-got[i], stay+min(got[i], have[i]))
		}
	}
	try(0, len(owners), 0)
	return len(owners) - best
}

func moves(before, after []int) (n int) {
	for b := range before {
		if before[b] != after[b] {
			n++
		}
	}
	return n
}

// TestSpread compares Spread with the slow, obvious version: even within one by weight, for members and zones; no way to do that moves fewer
// buckets; asked again it moves nothing; what a taker gives up it has had for the shortest time.
func TestSpread(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range *spreads {
		c := randomSpread(r, 10, 4)
		got := Spread(c.owners, c.takers, nil, c.tokens)
		fail := func(format string, args ...any) {
			t.Helper()
			t.Fatalf("seed %d, case %d: %v\ngot %v: %s", seed, i, c, got, fmt.Sprintf(format, args...))
		}
		all := 0
		for _, k := range c.takers {
			all += k.Weight
		}
		if all == 0 {
			if slices.ContainsFunc(got, func(o int) bool { return o >= 0 }) {
				fail("given to who has no weight")
			}
			continue
		}
		if slices.Contains(got, -1) {
			fail("a bucket is nobody's")
		}
		if bad := even(len(got), c.takers, counts(got, len(c.takers))); bad != "" {
			fail("%s", bad)
		}
		if m, want := moves(c.owners, got), fewestMoves(c.owners, c.takers); m != want {
			fail("%d buckets move, want %d", m, want)
		}
		if again := Spread(got, c.takers, nil, c.tokens); !slices.Equal(again, got) {
			fail("asked again: %v", again)
		}
		for b, o := range c.owners {
			for k, p := range c.owners {
				if o >= 0 && o == p && got[b] != o && got[k] == o && c.tokens[b] < c.tokens[k] {
					fail("%d gives up bucket %d, which it has had for longer than %d", o, b, k)
				}
			}
		}
	}
}

// TestSpreadFixed: what is fixed stays, all have an owner, and what is left over is shared as evenly as it can be.
func TestSpreadFixed(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 2))
	for i := range *spreads {
		c := randomSpread(r, 24, 6)
		c.fixed = make([]bool, len(c.owners))
		for b, o := range c.owners {
			c.fixed[b] = o >= 0 && r.IntN(2) == 0
		}
		got := Spread(c.owners, c.takers, c.fixed, c.tokens)
		fail := func(format string, args ...any) {
			t.Helper()
			t.Fatalf("seed %d, case %d: %v\ngot %v: %s", seed, i, c, got, fmt.Sprintf(format, args...))
		}
		all, held, owned := 0, make([]int, len(c.takers)), counts(got, len(c.takers))
		for _, k := range c.takers {
			all += k.Weight
		}
		for b, o := range c.owners {
			if c.fixed[b] {
				held[o]++
				if got[b] != o {
					fail("fixed bucket %d has moved", b)
				}
			}
		}
		if all > 0 && slices.Contains(got, -1) {
			fail("a bucket is nobody's")
		}
		// Nobody has more than what is fixed while another, by its weight, is more than one short of as much.
		for a, x := range c.takers {
			if x.Weight == 0 && owned[a] > held[a] {
				fail("%d has no weight and is given something", a)
			}
			for b, y := range c.takers {
				if y.Weight > 0 && owned[a] > held[a] && (owned[a]-1)*y.Weight >= (owned[b]+1)*x.Weight {
					fail("%d has %d, more than is fixed, while %d has only %d", a, owned[a], b, owned[b])
				}
			}
		}
	}
}

// TestSpreadSequence: over a long sequence of joins and leaves a join moves only what the newcomer gets, a leave only what the leaver had, and
// neighbours are mostly of different zones.
func TestSpreadSequence(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 3))
	const n = 256
	owners := slices.Repeat([]int{-1}, n)
	takers := []Taker{}
	for range 400 {
		before := slices.Clone(owners)
		if len(takers) < 2 || len(takers) < 40 && r.IntN(2) == 0 {
			takers = append(takers, Taker{Weight: 1, Zone: string(rune('a' + len(takers)%3))})
			owners = Spread(owners, takers, nil, nil)
			if got := counts(owners, len(takers)); moves(before, owners) != got[len(takers)-1] {
				t.Fatalf("a join as number %d moved %d buckets, and it has %d", len(takers), moves(before, owners), got[len(takers)-1])
			}
			continue
		}
		gone := len(takers) - 1 // the last, so that no other has another number after that
		lost := 0
		for b, o := range owners {
			if o == gone {
				owners[b] = -1
				lost++
			}
		}
		takers = takers[:gone]
		owners = Spread(owners, takers, nil, nil)
		// With zones one more may have to move: theirs are rounded too.
		if m := moves(before, owners); m > lost+3 {
			t.Fatalf("a leave of %d buckets moved %d", lost, m)
		}
	}
	owners = Spread(slices.Repeat([]int{-1}, n), takers, nil, nil)
	same := 0
	for b := range owners {
		if takers[owners[b]].Zone == takers[owners[(b+1)%n]].Zone {
			same++
		}
	}
	if same > n/8 {
		t.Errorf("%d of %d neighbours are in one zone", same, n)
	}
}
