package offset

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/clock"
)

const ms = time.Millisecond

func at(d time.Duration) clock.Instant {
	return clock.Instant{Mono: time.Hour + d, Boot: 2*time.Hour + d, Wall: 3*time.Hour + d}
}

func sample(sent, received, theirs time.Duration) Sample {
	return Sample{Token: 7, Sent: at(sent), Received: at(received), Clock: theirs}
}

func TestBest(t *testing.T) {
	var c Clocks
	if _, ok := c.Of(7); ok {
		t.Error("a clock that was never heard of is known")
	}
	c.Add(sample(0, 40*ms, time.Second))
	k, _ := c.Of(7)
	bound := func(now, want time.Duration, why string) {
		t.Helper()
		k, _ = c.Of(7)
		if got := k.Bound(at(now)); (got - want - grain).Abs() > 2 { // what is divided is rounded
			t.Errorf("bound %v, want %v: %s", got, want+grain, why)
		}
	}
	bound(40*ms, 20*ms+2*ms, "half of the round trip and 5 % of the time since its sending")
	if got, want := k.Within(at(40*ms), 0).Here(time.Second), at(20*ms); got != want {
		t.Errorf("one second there is %v here, want %v", got, want)
	}
	if got := k.There(at(20 * ms).Boot); got != time.Second {
		t.Errorf("and back: %v", got)
	}
	// A shorter round trip counts at once, a longer one only when the shorter has grown worse.
	c.Add(sample(100*ms, 102*ms, 1081*ms))
	c.Add(sample(200*ms, 240*ms, 1200*ms))
	bound(240*ms, 1*ms+7*ms, "that of the shortest round trip")
	if k.base != at(240*ms) {
		t.Errorf("converted from %v, want from the newest exchange", k.base)
	}
	c.Add(sample(2000*ms, 2040*ms, 3000*ms))
	bound(2040*ms, 20*ms+2*ms, "that of the newest: two seconds cost the shortest 100 ms")
	// What one leaves possible and another does not is not: both are right.
	c.Add(sample(2100*ms, 2160*ms, 3140*ms)) // ahead by 1010 ms, give or take 30; before it was 980, give or take 20 and what has been added since
	bound(2160*ms, (980*ms+20*ms+8*ms-(1010*ms-30*ms-3*ms))/2, "what is left of both")
}

// The quickest exchange is believed, but never beyond what is possible, nor beyond what is tolerated while that can be had.
func TestWithin(t *testing.T) {
	var c Clocks
	c.Add(sample(0, ms, 1000*ms+ms/2))     // ahead by 1 s, give or take half a millisecond
	c.Add(sample(100*ms, 106*ms, 1106*ms)) // ahead by 1003 ms, give or take 3
	k, _ := c.Of(7)
	now := at(140 * ms)
	for _, w := range []struct {
		most, off time.Duration // how far from the 1 s of the quickest
	}{
		{time.Second, 0},
		{10 * ms, 0},
		{k.Bound(now) + ms, k.There(now.Boot) - 1141*ms},
		{k.Bound(now), k.There(now.Boot) - 1140*ms},
		{0, k.There(now.Boot) - 1140*ms},
	} {
		v := k.Within(now, w.most)
		if got := now.Boot - v.Here(1140*ms).Boot; got != w.off {
			t.Errorf("at most %v: taken to be %v further ahead, want %v", w.most, got, w.off)
		}
		if b := v.Bound(now); b > max(w.most, k.Bound(now)) {
			t.Errorf("at most %v: the bound is %v", w.most, b)
		}
	}
}

// Members of one machine that are slow, each at other moments, mean the same moment.
func TestQuickest(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	const theirs, most = 5 * time.Second, 100 * ms
	far := 0
	for range 500 {
		var c Clocks
		now, quick := 10*time.Second, 0
		for range window {
			now += 500 * ms
			there, back := time.Duration(rng.ExpFloat64()*float64(4*ms)), time.Duration(rng.ExpFloat64()*float64(4*ms)) // a busy machine
			if rng.IntN(3) == 0 {
				there, back = time.Duration(rng.ExpFloat64()*float64(ms/10)), time.Duration(rng.ExpFloat64()*float64(ms/10))
				quick++
			}
			c.Add(sample(now, now+there+back, at(now+there).Boot+theirs))
			now += there + back
		}
		k, _ := c.Of(7)
		v := k.Within(at(now), most)
		off := (v.Here(at(now).Boot+theirs).Boot - at(now).Boot).Abs()
		if off > v.Bound(at(now)) || v.Bound(at(now)) > most {
			t.Fatalf("off by %v, the bound is %v", off, v.Bound(at(now)))
		}
		if off > ms/2 && quick > 0 {
			far++
		}
	}
	if far > 5 {
		t.Errorf("%d of 500 are more than %v off, though some of their exchanges were quick", far, ms/2)
	}
}

func TestImpossible(t *testing.T) {
	var c Clocks
	for _, s := range []Sample{{}, sample(10*ms, 9*ms, time.Second), sample(0, 0, 0), sample(0, 0, most+1), {Sent: at(0), Received: at(1), Clock: 1}} {
		if c.Add(s) {
			t.Errorf("%+v was taken", s)
		}
	}
	// What contradicts all that was known shows that a clock has stood still or jumped: the newer one counts.
	c.Add(sample(0, 2*ms, time.Second))
	c.Add(sample(100*ms, 140*ms, 11*time.Second))
	if k, _ := c.Of(7); k.There(at(120*ms).Boot) != 11*time.Second {
		t.Errorf("the leader's clock is %v, want 11s", k.There(at(120*ms).Boot))
	}
	for token := range uint64(2 * kept) {
		c.Add(Sample{Token: token + 100, Sent: at(0), Received: at(1), Clock: 1})
	}
	if len(c.all) > kept {
		t.Errorf("%d leaders remembered", len(c.all))
	}
	if _, ok := c.Of(7); ok {
		t.Error("the oldest was kept")
	}
}

// The truth is never further off than the bound, whatever the two clocks' rates are within the assumption, and however the
// round trips fall out.
func TestBoundHolds(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		// Rates as each clock counts real time: the faster gains 5 % at most.
		slow := 0.5 + rng.Float64()
		mine, theirs := slow, slow*(1+0.05*rng.Float64())
		if rng.IntN(2) == 0 {
			mine, theirs = theirs, mine
		}
		begin := time.Duration(rng.Int64N(int64(time.Hour)))
		here := func(real time.Duration) clock.Instant { return at(time.Duration(float64(real) * mine)) }
		there := func(real time.Duration) time.Duration { return begin + time.Duration(float64(real)*theirs) }
		var c Clocks
		real := time.Duration(0)
		worst := 0.0
		for range 200 {
			real += time.Duration(rng.Int64N(int64(2 * time.Second)))
			if k, ok := c.Of(7); ok {
				now := here(real)
				off := (k.There(now.Boot) - there(real)).Abs()
				if off > k.Bound(now) {
					t.Fatalf("seed %d: off by %v, the bound is %v", seed, off, k.Bound(now))
				}
				worst = max(worst, float64(off)/float64(k.Bound(now)))
				v := k.Within(now, time.Duration(rng.Int64N(int64(200*ms))))
				if off := (v.Here(there(real)).Boot - now.Boot).Abs(); off > v.Bound(now) {
					t.Fatalf("seed %d: converted, off by %v, the bound is %v", seed, off, v.Bound(now))
				}
			}
			sent := real
			answered := sent + time.Duration(rng.ExpFloat64()*float64(10*ms))
			real = answered + time.Duration(rng.ExpFloat64()*float64(10*ms))
			c.Add(Sample{Token: 7, Sent: here(sent), Received: here(real), Clock: there(answered).Truncate(time.Microsecond) + 1})
		}
		if seed == 0 && worst == 0 {
			t.Error("nothing was ever off: this shows nothing")
		}
	}
}
