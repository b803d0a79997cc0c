package settle

import (
	"testing"
	"time"

	"github.com/quorate/quorate/internal/wire"
)

// foundBuckets is a record of a former term with buckets; the owners are indexes of the places, the tokens 10, 11, ...
func foundBuckets(phase string, moving, owners []int, places ...wire.Place) Adopt {
	a := found(phase, 6*second, places...)
	r := a.Rec
	r.Map, r.Buckets, r.Owners, r.Moving = wire.MapXXH64, len(owners), owners, moving
	for b := range owners {
		r.Tokens = append(r.Tokens, uint64(10+b))
	}
	return a
}

// with says which buckets the member holds: the whole of a generation, or the part that is kept.
func (b Beat) having(hold, part uint64) Beat {
	b.HB.Hold, b.HB.Part = hold, part
	return b
}

// sharing is the term of a leader that found generation 30 with a.1, which has buckets 0 and 1, and b.1, which has 2 and 3.
func sharing() []step {
	return with(adopting(foundBuckets(wire.SettledDone, nil, []int{0, 0, 1, 1}, place("a", 1), place("b", 1)),
		"settled over 40 [{a 1} {b 1}] previous 0 timeout 6000 owners [0 0 1 1] since [10 11 12 13]", key("a", 1, 11), key("b", 1, 12)),
		step{0, wrote(1, 51), "poke"},
		step{0, beat("a", 1, 100, 30).having(30, 0), "a: member gen 30 0/2 2 of 4"},
		step{0, beat("b", 1, 100, 30), "b: member gen 30 1/2 2 of 4 [2 3] since [12 13]"})
}

// dealing is sharing with a newcomer: generation 60 has begun, and one bucket of a.1 is to move.
func dealing() []step {
	return with(sharing(),
		step{0, beat("c", 1, 1, 0), "c: member"},
		step{500 * milli, Tick{}, "settling over 51 [{a 1} {b 1}] previous 30 timeout 6000 owners [0 0 1 1] since [10 11 12 13] moving [3]"},
		step{510 * milli, wrote(2, 60), "told a b c self"})
}

// dealt is dealing once a.1 has acknowledged.
func dealt() []step {
	return with(dealing(),
		step{520 * milli, beat("a", 1, 101, 30).having(30, 0), "a: member gen 30 0/2 2 of 4 settling 60 keep [0 1]"},
		step{530 * milli, beat("a", 1, 102, 60), "a: member part of gen 60 2 of 4 [0 1] since [10 11] settling 60"},
		step{540 * milli, beat("a", 1, 103, 60).having(0, 60), "a: member part of gen 60 2 of 4 settling 60"},
		step{550 * milli, beat("b", 1, 101, 30).having(30, 0), "b: member gen 30 1/2 2 of 4 settling 60 keep [2]"})
}

// TestBuckets: S16, P2, P3. Only what moves is let go of; what is kept is granted all the while, and keeps its token.
func TestBuckets(t *testing.T) {
	const settled = "settled over 60 [{a 1} {b 1} {c 1}] previous 0 timeout 6000 owners [0 0 1 2] since [10 11 12 60]"
	t.Run("over a generation", func(t *testing.T) {
		play(t, config, with(dealt(),
			step{560 * milli, beat("b", 1, 102, 60).having(0, 60), "b: member part of gen 60 1 of 4 settling 60; " + settled},
			step{565 * milli, beat("a", 1, 104, 60).having(0, 60), "a: member part of gen 60 2 of 4 settling 60"}, // S6 is of what moves
			step{570 * milli, wrote(3, 61), "told a b c self"},
			step{580 * milli, beat("a", 1, 105, 60).having(0, 60), "a: member gen 60 0/3 2 of 4 [0 1] since [10 11]"},
			step{580 * milli, beat("b", 1, 103, 60).having(0, 60), "b: member gen 60 1/3 1 of 4 [2] since [12]"},
			step{580 * milli, beat("c", 1, 2, 0), "c: member gen 60 2/3 1 of 4 [3] since [60] rewrite"},
		))
	})
	t.Run("not before what moves is let go of", func(t *testing.T) {
		play(t, config, with(dealt(), step{3 * second, beat("c", 1, 2, 0), "c: member settling 60 rewrite"},
			step{3 * second, beat("a", 1, 104, 60).having(0, 60), "a: member part of gen 60 2 of 4 settling 60"},
			step{5 * second, beat("a", 1, 105, 60).having(0, 60), "a: member part of gen 60 2 of 4 settling 60"},
			step{6550*milli - 1, Tick{}, ""},
			step{6550 * milli, Tick{}, "remove {b 1} 12 expired; settled over 60 [{a 1} {c 1}] previous 0 timeout 6000 owners [0 0 1 1] since [10 11 60 60]"}))
	})
	t.Run("an evicted member's are its own until its lease has run out", func(t *testing.T) {
		play(t, config, with(dealt(),
			step{560 * milli, Evict{Place: place("a", 1)}, "remove {a 1} 11 evicted"},
			step{570 * milli, beat("b", 1, 102, 60).having(0, 60), "b: member part of gen 60 1 of 4 settling 60; " + settled},
			step{580 * milli, wrote(3, 61), "told b c self"},
			step{590 * milli, beat("a", 1, 104, 60).having(0, 60), "a: gone evicted"},
			step{590 * milli, beat("b", 1, 103, 60).having(0, 60), "b: member gen 60 1/3 1 of 4 [2] since [12]"},
			step{590 * milli, beat("c", 1, 2, 60), "c: member gen 60 2/3 1 of 4 [3] since [60] rewrite"},
			step{1080 * milli, Tick{}, "settling over 61 [{a 1} {b 1} {c 1}] previous 60 timeout 6000 owners [0 0 1 2] since [10 11 12 60] moving [0 1]"},
			step{1090 * milli, wrote(4, 70), "told b c self"},
			step{1100 * milli, beat("b", 1, 104, 70), "b: member part of gen 70 1 of 4 [2] since [12] settling 70"},
			step{1100 * milli, beat("c", 1, 3, 70), "c: member part of gen 70 1 of 4 [3] since [60] settling 70 rewrite"},
			step{5 * second, beat("b", 1, 105, 70), "b: member part of gen 70 1 of 4 [2] since [12] settling 70"},
			step{5 * second, beat("c", 1, 4, 70), "c: member part of gen 70 1 of 4 [3] since [60] settling 70 rewrite"},
			step{6540*milli - 1, Tick{}, ""},
			step{6540 * milli, Tick{}, "settled over 70 [{c 1} {b 1}] previous 0 timeout 6000 owners [0 1 1 0] since [70 70 12 60]"},
		))
	})
	t.Run("who works no more keeps them until the next generation", func(t *testing.T) {
		idle := beat("a", 1, 104, 60)
		idle.HB.Roles = nil
		play(t, config, with(dealt(),
			step{560 * milli, idle, "a: member part of gen 60 2 of 4 [0 1] since [10 11] settling 60"},
			step{570 * milli, beat("b", 1, 102, 60).having(0, 60), "b: member part of gen 60 1 of 4 settling 60; " + settled}))
	})
	t.Run("what ran out is granted to nobody while the write is in flight", func(t *testing.T) {
		// With a fourth member a.1, which was not heard for long, is to have one of its two buckets.
		newcomers := func(at time.Duration, seq uint64) []step {
			return []step{{at, beat("c", 1, seq, 0), "c: member settling 60 rewrite"}, {at, beat("d", 1, seq, 0), "d: member settling 60 rewrite"}}
		}
		steps := with(dealt(), step{3 * second, beat("d", 1, 1, 0), "d: member settling 60"}, step{3 * second, beat("b", 1, 102, 30).having(30, 0), "b: member gen 30 1/2 2 of 4 settling 60 keep [2]"})
		steps = append(steps, newcomers(4*second, 2)...)
		steps = append(steps, step{5 * second, Reconnected{}, ""}) // members have more time, assignments have not
		steps = append(steps, newcomers(6*second, 3)...)
		play(t, config, with(steps,
			step{7 * second, beat("b", 1, 103, 60), "b: member part of gen 60 1 of 4 [2] since [12] settling 60; " +
				"settled over 60 [{a 1} {b 1} {c 1} {d 1}] previous 0 timeout 6000 owners [0 2 1 3] since [10 60 12 60]"},
			step{7 * second, beat("a", 1, 104, 60), "a: member settling 60"},
			step{7 * second, beat("b", 1, 104, 60), "b: member part of gen 60 1 of 4 [2] since [12] settling 60"},
		))
	})
	t.Run("who leaves has let go of all", func(t *testing.T) {
		leave := beat("a", 1, 104, 60)
		leave.HB.Leave = true
		play(t, config, with(dealt(),
			step{560 * milli, leave, "remove {a 1} 11 left; a: gone left"},
			step{570 * milli, beat("b", 1, 102, 60), "b: member part of gen 60 1 of 4 [2] since [12] settling 60; " +
				"settled over 60 [{c 1} {b 1}] previous 0 timeout 6000 owners [0 0 1 1] since [60 60 12 13]"})) // 3 stays with b.1 after all
	})
	t.Run("a new leader begins again with what was to move", func(t *testing.T) {
		// a.1 has let go of 1 for the former leader's number, and goes on with 0.
		play(t, config, with(adopting(foundBuckets(wire.Settling, []int{1}, []int{0, 0, 1, 1}, place("a", 1), place("b", 1)),
			"settling over 40 [{a 1} {b 1}] previous 30 timeout 6000 owners [0 0 1 1] since [10 11 12 13] moving [1]"),
			step{0, wrote(1, 51), "poke"},
			step{0, beat("a", 1, 1, 41).having(0, 41), "a: member gen 30 0/2 2 of 4 [0 1] since [10 11] settling 51 keep [0] rewrite"},
			step{10 * milli, beat("a", 1, 2, 51).having(0, 51), "a: member part of gen 51 1 of 4 settling 51"},
			step{20 * milli, beat("b", 1, 1, 51), "b: member part of gen 51 2 of 4 [2 3] since [12 13] settling 51 rewrite; " +
				"settled over 51 [{a 1} {b 1}] previous 0 timeout 6000 owners [0 0 1 1] since [10 11 12 13]"},
		))
	})
	t.Run("a restarted member has its buckets with new tokens", func(t *testing.T) {
		leave := beat("a", 1, 101, 30)
		leave.HB.Leave = true
		play(t, config, with(sharing(),
			step{0, leave, "remove {a 1} 11 left; a: gone left"},
			step{0, beat("a", 2, 1, 0), "a: member"},
			step{500 * milli, Tick{}, "settling over 51 [{a 1} {b 1}] previous 30 timeout 6000 owners [0 0 1 1] since [10 11 12 13] moving [0 1]"},
			step{510 * milli, wrote(2, 60), "told a b self"},
			step{520 * milli, beat("b", 1, 101, 60), "b: member part of gen 60 2 of 4 [2 3] since [12 13] settling 60; " +
				"settled over 60 [{a 2} {b 1}] previous 0 timeout 6000 owners [0 0 1 1] since [60 60 12 13]"},
		))
	})
}

// TestCut: another number of buckets, another map, none: everything moves, whatever it was.
func TestCut(t *testing.T) {
	cut := func(buckets int, mapped string) Tune {
		return Tune{Settle: config.Settle, Ceiling: config.Ceiling, AckTimeout: config.AckTimeout, Buckets: buckets, Map: mapped}
	}
	const moving = "settling over 51 [{a 1} {b 1}] previous 30 timeout 6000 owners [0 0 1 1] since [10 11 12 13] moving [0 1 2 3]"
	for name, c := range map[string]struct {
		tune Tune
		want string
	}{
		"fewer":       {cut(2, wire.MapXXH64), " owners [0 1] since [60 60]"},
		"another map": {cut(4, wire.MapFNV1a), " owners [0 1 0 1] since [60 60 60 60]"},
		"none":        {cut(-1, ""), ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := play(t, config, with(sharing(),
				step{0, c.tune, ""},
				step{500 * milli, Tick{}, moving},
				step{510 * milli, wrote(2, 60), "told a b self"},
				step{520 * milli, beat("a", 1, 101, 60), "a: member settling 60"},
				step{520 * milli, beat("b", 1, 101, 60), "b: member settling 60; settled over 60 [{a 1} {b 1}] previous 0 timeout 6000" + c.want},
				step{530 * milli, wrote(3, 61), "told a b self"},
			))
			want := c.tune.Map
			if want == "" {
				want = wire.MapJump
			}
			if r, _ := m.Record(); r.Map != want {
				t.Errorf("map %s, want %s", r.Map, want)
			}
		})
	}
	t.Run("as the record has it", func(t *testing.T) {
		play(t, config, with(sharing(), step{3 * second, Tick{}, ""}))
	})
	t.Run("in the middle of a generation it waits for the next", func(t *testing.T) {
		play(t, config, with(dealt(),
			step{555 * milli, cut(2, wire.MapXXH64), ""},
			step{560 * milli, beat("b", 1, 102, 60), "b: member part of gen 60 1 of 4 [2] since [12] settling 60; " +
				"settled over 60 [{a 1} {b 1} {c 1}] previous 0 timeout 6000 owners [0 0 1 2] since [10 11 12 60]"},
			step{570 * milli, wrote(3, 61), "told a b c self"},
			step{1080 * milli, Tick{}, "settling over 61 [{a 1} {b 1} {c 1}] previous 60 timeout 6000 owners [0 0 1 2] since [10 11 12 60] moving [0 1 2 3]"}))
	})
	t.Run("nobody works", func(t *testing.T) {
		play(t, config, with(adopting(found(wire.SettledDone, 6*second), "settled over 40 [] previous 0 timeout 6000"),
			step{0, wrote(1, 51), "poke"}, step{0, cut(4, wire.MapXXH64), ""}, step{3 * second, Tick{}, ""}))
	})
}

// TestWeights: a weight that changes moves buckets, in a generation like any other; without buckets it means nothing.
func TestWeights(t *testing.T) {
	heavy := beat("a", 1, 101, 30)
	heavy.HB.Weight = 3
	play(t, config, with(sharing(),
		step{0, heavy, "a: member gen 30 0/2 2 of 4 [0 1] since [10 11]"},
		step{500 * milli, Tick{}, "settling over 51 [{a 1} {b 1}] previous 30 timeout 6000 owners [0 0 1 1] since [10 11 12 13] moving [3]"}))
	play(t, config, with(serving(), step{0, heavy, "a: member gen 30 0/2"}, step{3 * second, Tick{}, ""}))
}
