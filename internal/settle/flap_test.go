package settle

import (
	"fmt"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/wire"
)

// group drives a machine whose members acknowledge at once, and counts its generations: for what takes many of them.
type group struct {
	*player
	live  map[string]uint64 // incarnations
	seqs  map[string]uint64
	rev   uint64
	begun []time.Duration // when generations began
}

func driven(t *testing.T) *group {
	g := &group{player: start(t, config), live: map[string]uint64{}, seqs: map[string]uint64{}, rev: 51}
	for _, s := range with(adopting(found(wire.SettledDone, 6*second), "settled over 40 [] previous 0 timeout 6000"), step{0, wrote(1, 51), "poke"}) {
		g.step(s)
	}
	return g
}

// run goes on until a moment: all who are there beat every quarter of a second.
func (g *group) run(until time.Duration) {
	g.t.Helper()
	for ; g.now < until; g.now += 250 * milli {
		g.take(g.m.Step(instant(g.now), Tick{}))
		g.beat("l", 1, false)
		for id, inc := range g.live {
			g.beat(id, inc, false)
		}
	}
}

func (g *group) beat(id string, inc uint64, leave bool) {
	g.seqs[id]++
	b := beat(id, inc, g.seqs[id], 0)
	b.HB.Ack, b.HB.Leave = g.m.rec.Generation, leave
	if id == "l" {
		b.HB.Roles = nil
	}
	g.take(g.m.Step(instant(g.now), b))
}

func (g *group) take(es []Effect) {
	for _, e := range es {
		if w, ok := e.(WriteSettled); ok {
			if w.Rec.Phase == wire.Settling {
				g.begun = append(g.begun, g.now)
			}
			g.rev++
			g.take(g.m.Step(instant(g.now), Wrote{Nonce: w.Rec.Nonce, Outcome: Yes, Rev: g.rev}))
		}
	}
}

func (g *group) join(id string)  { g.live[id] = uint64(g.now) + 1; g.seqs[id] = 0 }
func (g *group) leave(id string) { g.beat(id, g.live[id], true); delete(g.live, id) }
func (g *group) has(id string) bool {
	_, ok := g.m.index[place(id, g.live[id])]
	return ok
}

// TestFlapping: S17, R25. A member that goes soon after it has come, again and again, has the group settle ever more seldom; a single restart costs it
// nothing, and one whose place has lasted is as good as new.
func TestFlapping(t *testing.T) {
	g := driven(t)
	g.join("a")
	g.join("b")
	g.run(5 * second)
	var waits []time.Duration
	for range 6 {
		g.join("f")
		at := g.now
		for !g.has("f") {
			if g.run(g.now + 250*milli); g.now > at+time.Minute {
				t.Fatal("it never gets a place")
			}
		}
		waits = append(waits, (g.now - at).Truncate(500*milli))
		g.run(g.now + 5*second)
		g.leave("f")
		g.run(g.now + 3*second)
		if g.has("f") || !g.has("a") || !g.has("b") {
			t.Fatal("its leave is not settled, or others have lost their place")
		}
	}
	want := []time.Duration{500 * milli, 500 * milli, 2500 * milli, 4500 * milli, 8500 * milli, 16500 * milli}
	if fmt.Sprint(waits) != fmt.Sprint(want) {
		t.Errorf("it waited %v for its place, want %v", waits, want)
	}
	// Never longer than eight leases; others who join meanwhile do not wait.
	g.run(g.now + second)
	g.join("f")
	at := g.now
	g.join("c")
	g.run(at + 2*second)
	if !g.has("c") || g.has("f") {
		t.Error("a newcomer waits for one that rests, or that does not rest")
	}
	g.run(at + 25*second)
	if !g.has("f") {
		t.Error("it rests for more than eight leases")
	}
	// Its place lasts: all is forgotten.
	g.run(g.now + 31*second)
	for range 2 {
		g.leave("f")
		g.run(g.now + 3*second)
		g.join("f")
		g.run(g.now + 2*second)
		if !g.has("f") {
			t.Error("it rests though its place had lasted")
		}
	}
}

// TestFlappingAlone: with nobody else to do the work nobody rests.
func TestFlappingAlone(t *testing.T) {
	g := driven(t)
	for range 5 {
		g.join("f")
		g.run(g.now + 2*second)
		if !g.has("f") {
			t.Fatal("it rests, and nobody works")
		}
		g.leave("f")
		g.run(g.now + 2*second)
	}
}
