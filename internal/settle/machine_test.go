package settle

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/clock"
	"github.com/quorate/quorate/internal/wire"
)

// A step is one line of a transcript: at a moment, an input, and the effects it must have, separated by "; ". Changed and
// Settled are left out.
type step struct {
	at   time.Duration
	in   Input
	want string
}

const (
	second = time.Second
	milli  = time.Millisecond
)

// config is of a leader with token 50 and a lease of three seconds; its term begins at 0.
var config = Config{Token: 50, Self: wire.Place{ID: "l", Incarnation: 1}, Prefix: "L", Lease: 3 * second, Timeout: 6 * second,
	Settle: 500 * milli, Ceiling: 6 * second, AckTimeout: 3 * second, Fresh: true}

func instant(at time.Duration) clock.Instant {
	at += time.Hour
	return clock.Instant{Mono: at, Boot: at, Wall: at}
}

func show(es []Effect) string {
	var l []string
	for _, e := range es {
		switch e := e.(type) {
		case ReadSettled:
			l = append(l, "read")
		case ReadMembers:
			l = append(l, "read members")
		case WriteSettled:
			w := fmt.Sprintf("%s over %d %v previous %d timeout %d", e.Rec.Phase, e.Expected, e.Rec.Places, e.Rec.Previous, e.Rec.MemberTimeoutMS)
			if e.Rec.Buckets > 0 {
				w += fmt.Sprintf(" owners %v since %v", e.Rec.Owners, e.Rec.Tokens)
			}
			if e.Rec.Phase == wire.Settling && e.Rec.Buckets > 0 {
				w += fmt.Sprintf(" moving %v", e.Rec.Moving)
			}
			if e.Rec.Lost {
				w += " lost"
			}
			l = append(l, w)
		case Reply:
			what := e.Handle.(string) + ": " + showReply(e.Reply)
			if e.Late { // what it says, TestToldAgain has
				if what = "told " + e.Handle.(string); len(l) > 0 && strings.HasPrefix(l[len(l)-1], "told ") {
					what, l = l[len(l)-1]+" "+e.Handle.(string), l[:len(l)-1]
				}
			}
			l = append(l, what)
		case Poke:
			l = append(l, "poke")
		case Remove:
			l = append(l, fmt.Sprintf("remove %v %d %s", e.Place, e.Rev, e.Reason))
		case Turn:
			l = append(l, fmt.Sprintf("turn %v", e.Quorate))
		case Superseded:
			l = append(l, "superseded")
		}
	}
	return strings.Join(l, "; ")
}

func showReply(r wire.Reply) string {
	var l []string
	if r.Gone != "" {
		l = append(l, "gone "+r.Gone)
	}
	if r.Wait {
		l = append(l, "wait")
	}
	if r.GrantMS > 0 {
		l = append(l, "member")
	}
	switch {
	case r.Part:
		l = append(l, fmt.Sprintf("part of gen %d", r.Gen))
	case r.Gen > 0:
		l = append(l, fmt.Sprintf("gen %d %d/%d", r.Gen, r.Index, r.Total))
	}
	if r.Of > 0 {
		l = append(l, fmt.Sprintf("%d of %d", r.Count, r.Of))
	}
	if len(r.Buckets) > 0 {
		l = append(l, fmt.Sprintf("%v since %v", r.Buckets, r.Tokens))
	}
	if r.Settling > 0 {
		l = append(l, fmt.Sprintf("settling %d", r.Settling))
	}
	if len(r.Keep) > 0 {
		l = append(l, fmt.Sprintf("keep %v", r.Keep))
	}
	if r.Quorate != nil {
		l = append(l, fmt.Sprintf("quorate %v", *r.Quorate))
	}
	if r.Rewrite {
		l = append(l, "rewrite")
	}
	return strings.Join(l, " ")
}

// play feeds the steps; between them it ticks as often as the machine wants, with the leader's own heartbeats coming
// back, as in a process that runs well. What those ticks do is collected in front of the next step's effects.
func play(t *testing.T, cfg Config, steps []step) *Machine {
	t.Helper()
	p := start(t, cfg)
	for _, s := range steps {
		p.step(s)
	}
	return p.m
}

type player struct {
	t     *testing.T
	m     *Machine
	now   time.Duration
	seq   uint64
	alone bool // no heartbeats of its own come back
	seen  map[string]uint64
	n     int
}

func start(t *testing.T, cfg Config) *player {
	return &player{t: t, m: New(cfg, instant(0)), seen: map[string]uint64{}}
}

func (p *player) step(s step) {
	p.t.Helper()
	p.n++
	var got []string
	add := func(es []Effect) {
		if x := show(es); x != "" && !strings.HasPrefix(x, "self: ") {
			got = append(got, x)
		}
	}
	for at := p.now + 250*milli; at < s.at; at += 250 * milli {
		add(p.m.Step(instant(at), Tick{}))
		if !p.alone {
			p.seq++
			hb := wire.Heartbeat{V: wire.Version, ID: p.m.cfg.Self.ID, Incarnation: p.m.cfg.Self.Incarnation, Seq: p.seq, Ack: p.m.rec.Generation}
			add(p.m.Step(instant(at), Beat{"self", hb}))
		}
	}
	p.now = s.at
	add(p.m.Step(instant(s.at), s.in))
	if g := strings.Join(got, "; "); g != s.want {
		p.t.Fatalf("step %d, %T at %v:\n got %q\nwant %q", p.n, s.in, s.at, g, s.want)
	}
}

func with(before []step, after ...step) []step { return append(slices.Clone(before), after...) }

func place(id string, inc uint64) wire.Place { return wire.Place{ID: id, Incarnation: inc} }

// beat of an incarnation that works, with its number, acknowledging a generation.
func beat(id string, inc, seq, ack uint64) Beat {
	return Beat{id, wire.Heartbeat{V: wire.Version, ID: id, Incarnation: inc, Seq: seq, Ack: ack, Roles: []string{wire.RoleWork}, Joined: id}}
}

func holding(b Beat, gen uint64) Beat { b.HB.Hold = gen; return b }

func key(id string, inc, rev uint64) Key {
	return Key{Place: place(id, inc), Rev: rev, Record: &wire.Member{ID: id, Incarnation: inc, Nonce: id, Roles: []string{wire.RoleWork}, Joined: id}}
}

// found is a record of a former term: generation 30, or being settled after it.
func found(phase string, timeout time.Duration, places ...wire.Place) Adopt {
	r := &wire.Settled{V: wire.Version, Phase: phase, Generation: 30, Places: places, MemberTimeoutMS: wire.ToMS(timeout), Token: 20, Nonce: "K", Map: wire.MapJump}
	if phase == wire.Settling {
		r.Generation, r.Previous = 0, 30
	}
	return Adopt{OK: true, Rev: 40, Rec: r}
}

func wrote(n int, rev uint64) Wrote {
	return Wrote{Nonce: fmt.Sprintf("L.s%d", n), Outcome: Yes, Rev: rev}
}

// adopting reads what a former term left.
func adopting(a Adopt, want string, keys ...Key) []step {
	return []step{
		{0, Tick{}, "read members; read"},
		{0, Members{OK: true, Keys: keys}, ""},
		{0, a, want},
	}
}

// serving is the term of a leader that found generation 30 with a.1 and b.1, whose records stand.
func serving() []step {
	return with(adopting(found(wire.SettledDone, 6*second, place("a", 1), place("b", 1)), "settled over 40 [{a 1} {b 1}] previous 0 timeout 6000", key("a", 1, 11), key("b", 1, 12)),
		step{0, wrote(1, 51), "poke"},
		step{0, beat("a", 1, 100, 30), "a: member gen 30 0/2"},
		step{0, beat("b", 1, 100, 30), "b: member gen 30 1/2"})
}

// TestServe: S1, P4. Nothing is answered before the record carries the term's own token; then everyone keeps its place.
func TestServe(t *testing.T) {
	before := adopting(found(wire.SettledDone, 6*second, place("a", 1)), "settled over 40 [{a 1}] previous 0 timeout 6000", key("a", 1, 11))
	t.Run("not before the read", func(t *testing.T) {
		play(t, config, with(before[:2], step{0, beat("a", 1, 1, 30), ""}))
	})
	t.Run("not before the write", func(t *testing.T) {
		play(t, config, with(before, step{0, beat("a", 1, 1, 30), ""}))
	})
	t.Run("not when the write is refused", func(t *testing.T) {
		play(t, config, with(before, step{10 * milli, Wrote{Nonce: "L.s1", Outcome: No, Rev: 41}, "read"}, step{10 * milli, beat("a", 1, 1, 30), ""}))
	})
	t.Run("then the same generation, and no new one", func(t *testing.T) {
		m := play(t, config, with(before, step{0, wrote(1, 51), "poke"}, step{0, beat("a", 1, 1, 30), "a: member gen 30 0/1"},
			step{2 * second, beat("a", 1, 2, 30), "a: member gen 30 0/1"}))
		if r, _ := m.Record(); r.Token != 50 {
			t.Errorf("token recorded: got %d, want 50", r.Token)
		}
	})
}

// TestFirstTimeout: S2, M2, P2. Whoever was a member before is waited for, from the answer to the acquiring write, for the larger
// of both member timeouts, which stays recorded until a generation has settled.
func TestFirstTimeout(t *testing.T) {
	for name, c := range map[string]struct{ recorded, wait time.Duration }{
		"own is larger":      {3 * second, 6 * second},
		"recorded is larger": {18 * second, 18 * second},
	} {
		t.Run(name, func(t *testing.T) {
			// a.1 is never heard; a.2 waits for it, and takes its place in a new generation.
			play(t, config, with(adopting(found(wire.SettledDone, c.recorded, place("a", 1)), fmt.Sprintf("settled over 40 [{a 1}] previous 0 timeout %d", c.wait/milli)),
				step{0, wrote(1, 51), "poke"},
				step{0, beat("a", 2, 1, 0), "a: wait"},
				step{c.wait - 1, beat("a", 2, 2, 0), "a: wait"},
				step{c.wait, beat("a", 2, 3, 0), "a: member rewrite"},
				step{c.wait + 501*milli, beat("a", 2, 4, 0), fmt.Sprintf("settling over 51 [{a 1}] previous 30 timeout %d; a: member rewrite", c.wait/milli)},
				step{c.wait + 600*milli, wrote(2, 60), "told a self; settled over 60 [{a 2}] previous 0 timeout 6000"},
			))
		})
	}
}

// TestHolders: S4, P2. Holders are waited for whether they are members or not, to the nanosecond.
func TestHolders(t *testing.T) {
	t.Run("evicted", func(t *testing.T) {
		// a.1 was granted at 1 s, so its lease may last until 7 s here.
		p := start(t, config)
		for _, s := range with(serving(),
			step{second, beat("a", 1, 101, 30), "a: member gen 30 0/2"},
			step{second, Evict{Place: place("a", 1)}, "remove {a 1} 11 evicted"},
			step{second, beat("a", 1, 102, 30), "a: gone evicted"},
			step{1500 * milli, Tick{}, "settling over 51 [{a 1} {b 1}] previous 30 timeout 6000"},
			step{1510 * milli, wrote(2, 60), "told self"},
			step{1520 * milli, beat("b", 1, 101, 60), "b: member settling 60"},
			step{5 * second, beat("b", 1, 102, 60), "b: member settling 60"},
			step{7*second - 1, Tick{}, ""},
			step{7 * second, Tick{}, "settled over 60 [{b 1}] previous 0 timeout 6000"},
		) {
			p.step(s)
		}
	})
	t.Run("of a record found settling", func(t *testing.T) {
		// The former leader had begun a generation; a.1 acknowledges the new number, b.1 is waited for.
		play(t, config, with(adopting(found(wire.Settling, 6*second, place("a", 1), place("b", 1)), "settling over 40 [{a 1} {b 1}] previous 30 timeout 6000"),
			step{0, wrote(1, 51), "poke"},
			step{0, beat("a", 1, 1, 41), "a: member gen 30 0/2 settling 51 rewrite"}, // 41 was the former leader's number
			step{10 * milli, beat("a", 1, 2, 51), "a: member settling 51"},
			step{5 * second, beat("a", 1, 3, 51), "a: member settling 51 rewrite"},
			step{6*second - 1, Tick{}, ""},
			step{6 * second, Tick{}, "settled over 51 [{a 1}] previous 0 timeout 6000"},
		))
	})
}

// settling is serving's group with a newcomer: generation 60 has begun.
func settling() []step {
	return with(serving(),
		step{0, beat("c", 1, 1, 0), "c: member"},
		step{500 * milli, Tick{}, "settling over 51 [{a 1} {b 1}] previous 30 timeout 6000"},
		step{510 * milli, wrote(2, 60), "told a b c self"})
}

// TestLetGo: S5, P2. Only an acknowledgement by number counts, and only of that incarnation.
func TestLetGo(t *testing.T) {
	t.Run("by number", func(t *testing.T) {
		play(t, config, with(settling(),
			step{520 * milli, beat("a", 1, 101, 60), "a: member settling 60"},
			step{520 * milli, beat("b", 1, 101, 60), "b: member settling 60; settled over 60 [{a 1} {b 1} {c 1}] previous 0 timeout 6000"},
			step{530 * milli, wrote(3, 61), "told a b c self"},
			step{540 * milli, beat("c", 1, 2, 60), "c: member gen 60 2/3 rewrite"},
		))
	})
	t.Run("holding nothing is no acknowledgement", func(t *testing.T) {
		play(t, config, with(settling(),
			step{520 * milli, holding(beat("a", 1, 101, 30), 0), "a: member gen 30 0/2 settling 60"},
			step{520 * milli, beat("b", 1, 101, 60), "b: member settling 60"},
		))
	})
	t.Run("nor is an older number", func(t *testing.T) {
		play(t, config, with(settling(),
			step{520 * milli, beat("a", 1, 101, 59), "a: member gen 30 0/2 settling 60"},
			step{520 * milli, beat("b", 1, 101, 60), "b: member settling 60"},
		))
	})
	t.Run("nor a heartbeat heard too late", func(t *testing.T) { // S8
		play(t, config, with(settling(), step{520 * milli, beat("a", 1, 99, 60), ""}, step{520 * milli, beat("b", 1, 101, 60), "b: member settling 60"}))
	})
	t.Run("who leaves has let go", func(t *testing.T) {
		leave := beat("a", 1, 101, 30)
		leave.HB.Leave = true
		play(t, config, with(settling(),
			step{520 * milli, beat("b", 1, 101, 60), "b: member settling 60"},
			step{520 * milli, leave, "remove {a 1} 11 left; a: gone left; settled over 60 [{c 1} {b 1}] previous 0 timeout 6000"},
		))
	})
}

// TestToldAgain: S11, S18, S3. Once a record stands its members are answered again, with what it says, counted from when they were heard last: the leader is as long
// about it as the member may be. Who was not heard lately is not told, nor who was never heard in this term.
func TestToldAgain(t *testing.T) {
	p := start(t, config)
	for _, s := range with(serving(),
		step{0, beat("c", 1, 1, 0), "c: member"},
		step{300 * milli, beat("a", 1, 101, 30), "a: member gen 30 0/2"},
		step{400 * milli, beat("c", 1, 2, 0), "c: member rewrite"},
		step{500 * milli, Tick{}, "settling over 51 [{a 1} {b 1}] previous 30 timeout 6000"},
	) {
		p.step(s)
	}
	told := func(es []Effect) string {
		var l []string
		for _, e := range es {
			if r, ok := e.(Reply); ok && r.Handle != "self" {
				if r.Reply.Params != nil {
					t.Errorf("%s is told the parameters again", r.Handle)
				}
				l = append(l, fmt.Sprintf("%s %d: %s", r.Handle, r.Reply.Seq, showReply(r.Reply)))
			}
		}
		return strings.Join(l, "; ")
	}
	if got := p.m.Step(instant(510*milli), Wrote{Nonce: "L.s2", Outcome: Unknown}); told(got) != "" {
		t.Errorf("S11: told before the record is known to stand: %s", told(got))
	}
	mine := p.m.pending
	if got, want := told(p.m.Step(instant(520*milli), Adopt{OK: true, Rev: 60, Rec: mine})), "a 101: member gen 30 0/2 settling 60; b 100: member gen 30 1/2 settling 60; c 2: member settling 60"; got != want {
		t.Errorf("settling:\n got %s\nwant %s", got, want)
	}
	p.now = 520 * milli
	p.step(step{530 * milli, beat("a", 1, 102, 60), "a: member settling 60"})
	p.step(step{540 * milli, beat("b", 1, 101, 60), "b: member settling 60; settled over 60 [{a 1} {b 1} {c 1}] previous 0 timeout 6000"})
	p.step(step{550 * milli, beat("d", 1, 1, 0), "d: member settling 60"})
	if got, want := told(p.m.Step(instant(560*milli), wrote(3, 61))), "a 102: member gen 60 0/3; b 101: member gen 60 1/3; c 2: member gen 60 2/3; d 1: member"; got != want {
		t.Errorf("settled:\n got %s\nwant %s", got, want)
	}
	for id, want := range map[string]time.Duration{"a": 530 * milli, "b": 540 * milli, "c": 400 * milli} {
		if got := p.m.ids[id].now.assigned - time.Hour; got != want+6*second {
			t.Errorf("S3: %s was heard at %v, and its assignment counts until %v", id, want, got)
		}
	}
}

// TestHeldAnswer: S19. Who has let go is answered when all have, with its share, or after lease/48; at once, if the answer says something that should not wait.
// Who was not heard lately by then is not answered, nor later.
func TestHeldAnswer(t *testing.T) {
	before := with(settling(), // the first three answers carry the parameters
		step{520 * milli, beat("a", 1, 101, 30), "a: member gen 30 0/2 settling 60"}, step{520 * milli, beat("a", 1, 102, 30), "a: member gen 30 0/2 settling 60"},
		step{520 * milli, beat("b", 1, 101, 30), "b: member gen 30 1/2 settling 60"}, step{520 * milli, beat("b", 1, 102, 30), "b: member gen 30 1/2 settling 60"})
	t.Run("all let go", func(t *testing.T) {
		play(t, config, with(before,
			step{530 * milli, beat("a", 1, 103, 60), ""},
			step{540 * milli, beat("b", 1, 103, 60), "settled over 60 [{a 1} {b 1} {c 1}] previous 0 timeout 6000"},
			step{550 * milli, wrote(3, 61), "told a b c self"},
		))
	})
	t.Run("one does not", func(t *testing.T) {
		m := play(t, config, with(before, step{530 * milli, beat("a", 1, 103, 60), ""}))
		if got, want := m.Next(), instant(530*milli).Mono+config.Lease/48; got != want {
			t.Errorf("got a tick at %v, want one at %v", got, want)
		}
		play(t, config, with(before,
			step{530 * milli, beat("a", 1, 103, 60), ""},
			step{530*milli + config.Lease/48 - 1, Tick{}, ""},
			step{530*milli + config.Lease/48, Tick{}, "told a"},
			step{600 * milli, beat("a", 1, 104, 60), "a: member settling 60"}, // it has said it before
		))
	})
	t.Run("the leader stands still", func(t *testing.T) {
		p := start(t, config)
		for _, s := range with(before,
			step{530 * milli, beat("a", 1, 103, 60), ""},
			step{540 * milli, beat("b", 1, 103, 60), "settled over 60 [{a 1} {b 1} {c 1}] previous 0 timeout 6000"}) {
			p.step(s)
		}
		p.now = 2500 * milli
		p.step(step{2500 * milli, wrote(3, 61), ""})
		p.step(step{2510 * milli, beat("c", 1, 3, 0), "c: member gen 60 2/3 rewrite"})
		for _, id := range p.m.ids {
			if id.now != nil && id.now.held {
				t.Errorf("%v is still to be answered", id.now.place)
			}
		}
	})
	t.Run("heard twice", func(t *testing.T) { // with another reply subject, say: it is the first one that is answered later
		again := beat("a", 1, 103, 60)
		again.Handle = "another"
		play(t, config, with(before,
			step{530 * milli, beat("a", 1, 103, 60), ""},
			step{530 * milli, again, "another: member settling 60"},
			step{530*milli + config.Lease/48, Tick{}, "told a"},
		))
	})
	t.Run("its record is missing", func(t *testing.T) {
		play(t, config, with(before, step{520 * milli, Key{Place: place("a", 1), Rev: 70}, ""}, step{530 * milli, beat("a", 1, 103, 60), "a: member settling 60 rewrite"}))
	})
	t.Run("the write is in flight", func(t *testing.T) {
		play(t, config, with(before,
			step{530 * milli, beat("a", 1, 103, 60), ""},
			step{540 * milli, beat("b", 1, 103, 60), "settled over 60 [{a 1} {b 1} {c 1}] previous 0 timeout 6000"},
			step{530*milli + config.Lease/48, Tick{}, "told a b"},
			step{600 * milli, wrote(3, 61), "told a b c self"},
		))
	})
}

// TestInFlight: S6, S5. Who was counted out, and everyone from before `settled` is sent, is granted nothing of the old generation.
func TestInFlight(t *testing.T) {
	// a.1 goes on hearing nothing of the new generation, and its lease of 6 s (granted at 0) runs out here.
	p := start(t, config)
	for _, s := range with(settling(), step{520 * milli, beat("b", 1, 101, 60), "b: member settling 60"},
		step{5 * second, beat("b", 1, 102, 60), "b: member settling 60"},
		step{5 * second, beat("c", 1, 2, 0), "c: member settling 60 rewrite"},
		step{6 * second, Tick{}, "remove {a 1} 11 expired; settled over 60 [{c 1} {b 1}] previous 0 timeout 6000"},
	) {
		p.step(s)
	}
	t.Run("one that is a member no more", func(t *testing.T) {
		p.step(step{6100 * milli, beat("a", 1, 101, 30), "a: gone expired"})
	})
	t.Run("one that still is", func(t *testing.T) {
		// AckTimeout is over at 3.5 s: a.1 keeps its membership, is granted nothing more, and is counted out at 7.5 s.
		play(t, config, with(settling(),
			step{1500 * milli, beat("a", 1, 101, 30), "a: member gen 30 0/2 settling 60"},
			step{3510 * milli, beat("a", 1, 102, 30), "a: member settling 60"},
			step{3520 * milli, beat("b", 1, 102, 60), "b: member settling 60"},
			step{3520 * milli, beat("c", 1, 2, 0), "c: member settling 60 rewrite"},
			step{7500*milli - 1, beat("a", 1, 103, 30), "a: member settling 60"},
			step{7500 * milli, Tick{}, "settled over 60 [{c 1} {b 1}] previous 0 timeout 6000"},
			step{7510 * milli, beat("a", 1, 104, 30), "a: member settling 60"}, // the write is in flight
			step{7520 * milli, wrote(3, 61), "told a self"},
			step{7530 * milli, beat("a", 1, 105, 30), "a: member settling 60"}, // S12: it is told what it owes
			step{7540 * milli, beat("a", 1, 106, 60), "a: member"},
			step{8050 * milli, Tick{}, "settling over 61 [{c 1} {b 1}] previous 60 timeout 6000"},
		))
	})
}

// TestSameID: S7, M2. A new incarnation waits for the old one, whoever that was.
func TestSameID(t *testing.T) {
	t.Run("old one heard", func(t *testing.T) {
		play(t, config, with(serving(),
			step{second, beat("a", 1, 101, 30), "a: member gen 30 0/2"},
			step{2 * second, beat("a", 2, 1, 0), "a: wait"},
			step{5 * second, beat("b", 1, 101, 30), "b: member gen 30 1/2"},
			step{7*second - 1, beat("a", 2, 2, 0), "a: wait"},
			step{7 * second, beat("a", 2, 3, 0), "a: member rewrite"},
			step{7 * second, beat("a", 1, 102, 30), "a: gone superseded"},
		))
	})
	t.Run("old one left", func(t *testing.T) {
		leave := beat("a", 1, 101, 30)
		leave.HB.Leave = true
		play(t, config, with(serving(),
			step{second, leave, "remove {a 1} 11 left; a: gone left"},
			step{second, beat("a", 2, 1, 0), "a: member"},
		))
	})
	t.Run("old one was evicted without a place", func(t *testing.T) {
		play(t, config, with(serving(),
			step{milli, key("c", 1, 13), ""},
			step{milli, beat("c", 1, 1, 0), "c: member"}, // granted membership until 6.001 s here
			step{2 * milli, Evict{Place: place("c", 1)}, "remove {c 1} 13 evicted"},
			step{3 * milli, beat("c", 2, 1, 0), "c: wait"},
			step{second, beat("a", 1, 101, 30), "a: member gen 30 0/2"}, step{second, beat("b", 1, 101, 30), "b: member gen 30 1/2"},
			step{6*second + milli - 1, beat("c", 2, 2, 0), "c: wait"},
			step{6*second + milli, beat("c", 2, 3, 0), "c: member rewrite"},
		))
	})
	t.Run("old one was evicted by the leader before", func(t *testing.T) {
		evicted := Key{Place: place("c", 0), Rev: 13, Reason: wire.ReasonEvicted, Nonce: "c"}
		play(t, config, with(adopting(found(wire.SettledDone, 6*second), "settled over 40 [] previous 0 timeout 6000", evicted),
			step{0, wrote(1, 51), "poke"},
			step{0, beat("c", 2, 1, 0), "c: wait"},
			step{6*second - 1, beat("c", 2, 2, 0), "c: wait"},
			step{6 * second, beat("c", 2, 3, 0), "c: member rewrite"},
		))
	})
	t.Run("old one had expired, and may have been heard again since", func(t *testing.T) {
		// What a leader between the one that removed the record and this one does: it is asked to write it again, and granted meanwhile.
		expired := Key{Place: place("c", 1), Rev: 13, Reason: wire.ReasonExpired, Nonce: "c", ByToken: 20}
		play(t, config, with(adopting(found(wire.SettledDone, 6*second), "settled over 40 [] previous 0 timeout 6000"),
			step{0, wrote(1, 51), "poke"},
			step{milli, beat("c", 1, 1, 0), "c: member"},
			step{2 * milli, expired, ""}, // landed late
			step{3 * milli, beat("c", 1, 2, 0), "c: member rewrite"}))
		// It dies before that is done: this one finds the removal.
		play(t, config, with(adopting(found(wire.SettledDone, 6*second), "settled over 40 [] previous 0 timeout 6000", expired),
			step{0, wrote(1, 51), "poke"},
			step{0, beat("c", 2, 1, 0), "c: wait"},
			step{6*second - 1, beat("c", 2, 2, 0), "c: wait"},
			step{6 * second, beat("c", 2, 3, 0), "c: member rewrite"}))
	})
	t.Run("one that waits does not expire", func(t *testing.T) {
		// Its record stands, but b.1 may still hold: with a recorded timeout of 18 s it waits longer than its own six.
		play(t, config, with(adopting(found(wire.SettledDone, 18*second, place("b", 1)), "settled over 40 [{b 1}] previous 0 timeout 18000", key("b", 2, 12)),
			step{0, wrote(1, 51), "poke"},
			step{500 * milli, Tick{}, "settling over 51 [{b 1}] previous 30 timeout 18000"},
			step{510 * milli, wrote(2, 60), "told self"},
			step{5 * second, beat("b", 2, 1, 0), "b: wait"}, step{10 * second, beat("b", 2, 2, 0), "b: wait"}, step{15 * second, beat("b", 2, 3, 0), "b: wait"},
			step{18 * second, beat("b", 2, 4, 0), "b: member settling 60; settled over 60 [{b 2}] previous 0 timeout 6000"},
		))
	})
}

// TestAccuse: S9, M3. A leader that does not hear itself, or ran late, accuses nobody.
func TestAccuse(t *testing.T) {
	t.Run("well", func(t *testing.T) {
		play(t, config, with(serving(), step{5 * second, beat("b", 1, 101, 30), "b: member gen 30 1/2"},
			step{6 * second, Tick{}, "remove {a 1} 11 expired"}))
	})
	t.Run("deaf", func(t *testing.T) {
		p := start(t, config)
		for _, s := range serving() {
			p.step(s)
		}
		p.alone = true
		p.step(step{20 * second, Tick{}, ""})
		p.alone = false
		p.step(step{25 * second, beat("b", 1, 101, 30), "b: member gen 30 1/2"}) // every timeout began again at 20.25 s
		p.step(step{26250 * milli, Tick{}, "remove {a 1} 11 expired"})
	})
	t.Run("ran late", func(t *testing.T) {
		p := start(t, config)
		for _, s := range serving() {
			p.step(s)
		}
		p.now = 20 * second // nothing happened since
		p.step(step{20 * second, Tick{}, ""})
		p.step(step{25 * second, beat("b", 1, 101, 30), "b: member gen 30 1/2"})
		p.step(step{26250 * milli, Tick{}, "remove {a 1} 11 expired"})
	})
	t.Run("reconnected", func(t *testing.T) {
		play(t, config, with(serving(), step{5 * second, Reconnected{}, ""}, step{10 * second, beat("b", 1, 101, 30), "b: member gen 30 1/2"},
			step{11 * second, Tick{}, "remove {a 1} 11 expired"}))
	})
	t.Run("its own member joined again", func(t *testing.T) {
		p := start(t, config)
		for _, s := range serving() {
			p.step(s)
		}
		p.m.cfg.Self.Incarnation = 2 // as the player beats from here on
		p.step(step{5 * second, beat("b", 1, 101, 30), "b: member gen 30 1/2"})
		p.step(step{6 * second, Tick{}, "remove {a 1} 11 expired"})
	})
}

// TestUnanswered: L4. An unanswered write is repeated unchanged, or found, or the term is over.
func TestUnanswered(t *testing.T) {
	unknown := with(serving(), step{0, beat("c", 1, 1, 0), "c: member"},
		step{500 * milli, Tick{}, "settling over 51 [{a 1} {b 1}] previous 30 timeout 6000"},
		step{510 * milli, Wrote{Nonce: "L.s2"}, "read"})
	mine := &wire.Settled{V: wire.Version, Phase: wire.Settling, Previous: 30, Nonce: "L.s2", Token: 50}
	adopted := &wire.Settled{V: wire.Version, Phase: wire.SettledDone, Generation: 30, Nonce: "L.s1", Token: 50}
	other := &wire.Settled{V: wire.Version, Phase: wire.SettledDone, Generation: 30, Nonce: "M.s1", Token: 55}
	t.Run("found", func(t *testing.T) {
		play(t, config, with(unknown, step{520 * milli, Adopt{OK: true, Rev: 60, Rec: mine}, "told a b c self"},
			step{530 * milli, beat("a", 1, 101, 30), "a: member gen 30 0/2 settling 60"}))
	})
	t.Run("not landed", func(t *testing.T) {
		play(t, config, with(unknown, step{520 * milli, Adopt{OK: true, Rev: 51, Rec: adopted}, ""},
			step{610 * milli, Tick{}, "settling over 51 [{a 1} {b 1}] previous 30 timeout 6000"}))
	})
	t.Run("an old answer", func(t *testing.T) {
		play(t, config, with(unknown, step{520 * milli, Adopt{OK: true, Rev: 40, Rec: found(wire.SettledDone, second).Rec}, ""},
			step{610 * milli, Tick{}, "settling over 51 [{a 1} {b 1}] previous 30 timeout 6000"}))
	})
	t.Run("another leader's", func(t *testing.T) {
		play(t, config, with(unknown, step{520 * milli, Adopt{OK: true, Rev: 60, Rec: other}, "superseded"}))
	})
}

// TestMissingRecord: S10. If the record is gone though the group is not new, nothing is granted for one member timeout.
func TestMissingRecord(t *testing.T) {
	old := config
	old.Fresh = false
	play(t, old, with(adopting(Adopt{OK: true}, "settled over 0 [] previous 0 timeout 6000 lost"),
		step{0, wrote(1, 51), "poke"},
		step{milli, beat("a", 1, 1, 30), "a: member"},
		step{3 * second, beat("a", 1, 2, 30), "a: member rewrite"},
		step{6*second - 1, Tick{}, ""},
		step{6 * second, Tick{}, ""}, // from here on it settles as ever
		step{6500*milli - 1, Tick{}, ""},
		step{6500 * milli, Tick{}, "settling over 51 [] previous 0 timeout 6000"},
	))
}

// TestRemoval: M1. Only the member's own removal, by the nonce of its record, makes it leave.
func TestRemoval(t *testing.T) {
	for name, c := range map[string]struct {
		k    Key
		want string
	}{
		"by itself":          {Key{Place: place("a", 0), Rev: 70, Reason: wire.ReasonLeft, Nonce: "a"}, "a: gone left"},
		"of another record":  {Key{Place: place("a", 0), Rev: 70, Reason: wire.ReasonLeft, Nonce: "z"}, "a: member gen 30 0/2 rewrite"},
		"by a former leader": {Key{Place: place("a", 0), Rev: 70, Reason: wire.ReasonExpired, Nonce: "a", ByToken: 20}, "a: member gen 30 0/2 rewrite"},
		"by expiry":          {Key{Place: place("a", 0), Rev: 70, Reason: "MaxAge"}, "a: member gen 30 0/2 rewrite"},
		"that is old":        {Key{Place: place("a", 0), Rev: 10, Reason: wire.ReasonLeft, Nonce: "a"}, "a: member gen 30 0/2"},
		"written over":       {key("a", 7, 70), "a: member gen 30 0/2 rewrite"},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, config, with(serving(), step{milli, c.k, ""}, step{2 * milli, beat("a", 1, 101, 30), c.want}))
		})
	}
}

// TestSticky: P1. Places stay, newcomers fill holes, then the end; the last fill what stays empty.
func TestSticky(t *testing.T) {
	p := func(ids string) (l []wire.Place) {
		for _, id := range strings.Fields(ids) {
			inc := uint64(1)
			if strings.HasSuffix(id, "'") {
				id, inc = id[:1], 2
			}
			l = append(l, place(id, inc))
		}
		return l
	}
	for _, c := range [][3]string{
		{"", "a b", "a b"},
		{"a b c", "a b c", "a b c"},
		{"a b c", "a b c d", "a b c d"},
		{"a b c", "b c", "c b"},
		{"a b c", "a b", "a b"},
		{"a b c d", "b c", "c b"},
		{"a b c", "b c d", "d b c"},
		{"a b c", "a b' c", "a b' c"},
		{"a b c", "", ""},
		{"a b c d e", "b d", "d b"},
	} {
		got := Sticky(p(c[0]), p(c[1]))
		if !slices.Equal(got, p(c[2])) {
			t.Errorf("Sticky(%s; %s): got %v, want %v", c[0], c[1], got, p(c[2]))
		}
	}
}

// TestMinSize: S13. Nothing is settled or granted by a term below the minimum; it hears everybody, and asks to be turned.
func TestMinSize(t *testing.T) {
	three := config
	three.MinSize = 3
	keeps := three
	keeps.Keeps = true
	fell := keeps
	fell.Fell = true
	rec := found(wire.SettledDone, 6*second, place("a", 1), place("b", 1))
	const adopted = "settled over 40 [{a 1} {b 1}] previous 0 timeout 6000"
	before := with(adopting(rec, adopted, key("a", 1, 11), key("b", 1, 12), key("c", 1, 13)), step{0, wrote(1, 51), "poke"})
	lone := with(adopting(rec, adopted, key("a", 1, 11), key("b", 1, 12)), step{0, wrote(1, 51), "poke"})

	t.Run("a term that begins hears who is there, and revokes nothing at first", func(t *testing.T) {
		play(t, keeps, with(before,
			step{0, beat("a", 1, 1, 30), "a: member"},
			step{milli, beat("b", 1, 1, 30), "b: member"},
			step{2 * milli, beat("c", 1, 1, 30), "c: member; turn true"},
			step{3 * milli, beat("a", 1, 2, 30), "a: member"}))
	})
	t.Run("then it does", func(t *testing.T) {
		play(t, keeps, with(before,
			step{milli, beat("a", 1, 1, 30), "a: member"},
			step{1500*milli - 1, beat("a", 1, 2, 30), "a: member"},
			step{1500 * milli, beat("a", 1, 3, 30), "a: member quorate false"},
			step{1500 * milli, beat("b", 1, 1, 30), "b: member quorate false"},
			step{6 * second, Tick{}, "remove {c 1} 13 expired"}, // it is counted out as ever, and nothing is settled
			step{20 * second, Tick{}, "remove {a 1} 11 expired; remove {b 1} 12 expired"}))
	})
	t.Run("at once, if it fell", func(t *testing.T) {
		play(t, fell, with(before, step{milli, beat("a", 1, 1, 30), "a: member quorate false"}))
	})
	t.Run("who is known by a record only, has no role, or no record, does not count", func(t *testing.T) {
		observer := beat("o", 1, 1, 0)
		observer.HB.Roles = nil
		play(t, fell, with(before,
			step{milli, beat("a", 1, 1, 30), "a: member quorate false"},
			step{milli, beat("b", 1, 1, 30), "b: member quorate false"},
			step{milli, observer, "o: member quorate false"},
			step{milli, beat("d", 1, 1, 0), "d: member quorate false"},
			step{2 * milli, key("d", 1, 60), "turn true"}))
	})
	t.Run("no generation is settled by it", func(t *testing.T) {
		settling := found(wire.Settling, 6*second, place("a", 1), place("b", 1))
		play(t, fell, with(adopting(settling, "settling over 40 [{a 1} {b 1}] previous 30 timeout 6000", key("a", 1, 11), key("b", 1, 12)),
			step{0, wrote(1, 51), "poke"},
			step{milli, beat("a", 1, 1, 51), "a: member quorate false"},
			step{milli, beat("b", 1, 1, 51), "b: member quorate false"},
			step{5 * second, Tick{}, ""}))
	})
	t.Run("a leading term that falls", func(t *testing.T) {
		play(t, three, with(before,
			step{2 * second, beat("a", 1, 1, 30), "a: member gen 30 0/2"},
			step{2 * second, beat("b", 1, 1, 30), "b: member gen 30 1/2"},
			step{6*second - 1, beat("a", 1, 2, 30), "a: member gen 30 0/2"},
			step{6 * second, Tick{}, "remove {c 1} 13 expired; turn false; poke"},
			step{6 * second, beat("a", 1, 3, 30), "a: member quorate false"},
			step{6 * second, beat("d", 1, 1, 0), "d: member quorate false"}, // it is turned all the same
			step{8 * second, Tick{}, "remove {b 1} 12 expired"}))
	})
	t.Run("what became due while the leader stood still comes before any answer", func(t *testing.T) {
		p := start(t, three)
		for _, s := range with(lone, step{milli, beat("a", 1, 1, 30), "a: member gen 30 0/2"}) {
			p.step(s)
		}
		p.now = 2 * second
		p.step(step{2 * second, beat("a", 1, 2, 30), "turn false; poke; a: member quorate false"})
	})
	t.Run("a leading term is not turned back by what it has not heard yet", func(t *testing.T) {
		play(t, three, with(lone,
			step{0, beat("a", 1, 1, 30), "a: member gen 30 0/2"},
			step{1500*milli - 1, Tick{}, ""},
			step{1500*milli - 1, key("c", 1, 13), ""},
			step{3 * second, Tick{}, ""}))
		play(t, three, with(lone,
			step{1500*milli - 1, beat("a", 1, 1, 30), "a: member gen 30 0/2"},
			step{1500 * milli, Tick{}, "turn false; poke"}))
	})
	t.Run("nor is there anything to wake up for once the quiet time is over", func(t *testing.T) {
		two := config
		two.MinSize = 2
		p := start(t, two)
		for _, s := range with(serving(), step{2 * second, beat("a", 1, 101, 30), "a: member gen 30 0/2"}, step{2 * second, beat("b", 1, 101, 30), "b: member gen 30 1/2"},
			step{2100 * milli, beat("c", 1, 1, 0), "c: member"},
			step{2200 * milli, Evict{Place: place("b", 1)}, "remove {b 1} 12 evicted"},
			step{2200 * milli, Evict{Place: place("c", 1)}, "turn false; poke"},
		) {
			p.step(s)
		}
		for at := 2200 * milli; at < 5*second; {
			next := p.m.Next() - time.Hour
			if next <= at {
				t.Fatalf("at %v it wants a tick at %v", at, next)
			}
			at = next
			p.m.Step(instant(at), Tick{})
		}
	})
	t.Run("nor does it settle meanwhile", func(t *testing.T) {
		play(t, three, with(lone,
			step{0, beat("d", 1, 1, 0), "d: member"},
			step{0, Key{Place: place("b", 1), Rev: 14, Reason: wire.ReasonLeft, Nonce: "b"}, ""},
			step{1400 * milli, Tick{}, ""}))
	})
}

// TestParamsTold: the first replies to each incarnation carry what the leader counts with.
func TestParamsTold(t *testing.T) {
	cfg := config
	cfg.Params = wire.Params{LeaseMS: 3000, MinSize: 2}
	p := start(t, cfg)
	for _, s := range with(adopting(found(wire.SettledDone, 6*second, place("a", 1)), "settled over 40 [{a 1}] previous 0 timeout 6000", key("a", 1, 11)), step{0, wrote(1, 51), "poke"}) {
		p.step(s)
	}
	for i := range 5 {
		for _, fx := range p.m.Step(instant(time.Duration(i)*milli), beat("a", 1, uint64(i+1), 30)) {
			if r, ok := fx.(Reply); ok && (r.Reply.Params != nil) != (i < 3) {
				t.Errorf("reply %d: parameters %v", i+1, r.Reply.Params)
			}
		}
	}
}

// TestTurned: S14. A term that was turned from another of the same process knows what that one knew: who is gone, who holds what until when.
func TestTurned(t *testing.T) {
	three := config
	three.MinSize = 3
	rec := found(wire.SettledDone, 6*second, place("a", 1), place("b", 1), place("c", 1))
	p := start(t, three)
	for _, s := range with(adopting(rec, "settled over 40 [{a 1} {b 1} {c 1}] previous 0 timeout 6000", key("a", 1, 11), key("b", 1, 12), key("c", 1, 13)),
		step{0, wrote(1, 51), "poke"},
		step{milli, beat("a", 1, 1, 30), "a: member gen 30 0/3"},
		step{milli, beat("b", 1, 1, 30), "b: member gen 30 1/3"},
		step{milli, beat("c", 1, 1, 30), "c: member gen 30 2/3"},
		step{5 * second, beat("a", 1, 2, 30), "a: member gen 30 0/3"},
		step{5 * second, beat("b", 1, 2, 30), "b: member gen 30 1/3"},
		step{6*second + milli, Tick{}, "remove {c 1} 13 expired; turn false; poke"}) {
		p.step(s)
	}
	next := three
	next.Token, next.Keeps, next.Fell, next.Before, next.Prefix = 60, true, true, p.m, "M"
	then := func(cfg Config, at time.Duration) *player {
		q := start(t, cfg)
		q.m, q.now = New(cfg, instant(at)), at
		return q
	}
	q := then(next, 6*second+10*milli)
	at := 6*second + 10*milli
	stored := Adopt{OK: true, Rev: 51, Rec: &wire.Settled{V: wire.Version, Phase: wire.SettledDone, Generation: 30, Places: rec.Rec.Places,
		MemberTimeoutMS: 6000, Token: 50, Nonce: "L.s1", Map: wire.MapJump}}
	for _, s := range []step{
		{at, Tick{}, "read members; read"},
		{at, Members{OK: true, Keys: []Key{key("a", 1, 11), key("b", 1, 12), key("c", 1, 13)}}, "remove {c 1} 13 expired"}, // not removed in time: it is no member all the same
		{at, stored, "settled over 51 [{a 1} {b 1} {c 1}] previous 0 timeout 6000"},
		{at, Wrote{Nonce: "M.s1", Outcome: Yes, Rev: 61}, "poke"},
		{at, beat("a", 1, 3, 30), "a: member quorate false"},
		{at, beat("c", 1, 2, 30), "c: gone expired"},
		// Its time is up as this process counts it, so another takes its place at once.
		{at + milli, beat("c", 2, 1, 0), "c: member quorate false"},
		{at + 2*milli, key("c", 2, 62), "turn true"},
	} {
		q.step(s)
	}
	// The reverse: what was granted by the term before is waited for.
	lead := three
	lead.Token, lead.Before, lead.Prefix = 70, q.m, "N"
	r := then(lead, at+10*milli)
	at += 10 * milli
	stored = Adopt{OK: true, Rev: 61, Rec: &wire.Settled{V: wire.Version, Phase: wire.SettledDone, Generation: 30, Places: rec.Rec.Places,
		MemberTimeoutMS: 6000, Token: 60, Nonce: "M.s1", Map: wire.MapJump}}
	for _, s := range []step{
		{at, Tick{}, "read members; read"},
		{at, Members{OK: true, Keys: []Key{key("a", 1, 11), key("b", 1, 12), key("c", 2, 62)}}, ""},
		{at, stored, "settled over 61 [{a 1} {b 1} {c 1}] previous 0 timeout 6000"},
		{at, Wrote{Nonce: "N.s1", Outcome: Yes, Rev: 71}, "poke"},
		{at, beat("a", 1, 4, 30), "a: member gen 30 0/3"},
		{at, beat("b", 1, 4, 30), "b: member gen 30 1/3"},
		{at, beat("c", 2, 2, 0), "c: member"},
		{at + 510*milli, Tick{}, "settling over 71 [{a 1} {b 1} {c 1}] previous 30 timeout 6000"},
		{at + 510*milli, Wrote{Nonce: "N.s2", Outcome: Yes, Rev: 72}, "told a b c"},
		{at + 520*milli, beat("a", 1, 5, 72), "a: member settling 72"},
		{at + 520*milli, beat("c", 2, 3, 72), "c: member settling 72"},
		{at + 530*milli, beat("b", 1, 5, 72), "b: member settling 72; settled over 72 [{a 1} {b 1} {c 2}] previous 0 timeout 6000"},
	} {
		r.step(s)
	}
}

// TestTurnedSilent: S10, S14, P2. A record that was lost is waited for for one timeout, also over a turn: the term before has written it again, so
// the next one finds it; and over a change of leader before anything has settled.
func TestTurnedSilent(t *testing.T) {
	lost := config
	lost.Fresh, lost.MinSize, lost.Keeps = false, 2, true
	p := start(t, lost)
	for _, s := range with(adopting(Adopt{OK: true, Rev: 40, Lost: true}, "settled over 40 [] previous 0 timeout 6000 lost", key("a", 1, 11), key("b", 1, 12)),
		step{0, wrote(1, 51), "poke"},
		step{milli, beat("a", 1, 1, 0), "a: member"},
		step{milli, beat("b", 1, 1, 0), "b: member; turn true"}) {
		p.step(s)
	}
	next := lost
	next.Token, next.Keeps, next.Prefix = 60, false, "M"
	stored := Adopt{OK: true, Rev: 51, Rec: &wire.Settled{V: wire.Version, Phase: wire.SettledDone, MemberTimeoutMS: 6000, Lost: true, Token: 50, Nonce: "L.s1", Map: wire.MapJump}}
	for _, c := range []struct {
		name   string
		before *Machine
		silent time.Duration
	}{{"another process", nil, 6*second + 10*milli}, {"turned", p.m, 6 * second}} {
		t.Run(c.name, func(t *testing.T) {
			cfg, at := next, 10*milli
			cfg.Before = c.before
			q := start(t, cfg)
			q.m, q.now = New(cfg, instant(at)), at
			for _, s := range []step{
				{at, Tick{}, "read members; read"},
				{at, Members{OK: true, Keys: []Key{key("a", 1, 11), key("b", 1, 12)}}, ""},
				{at, stored, "settled over 51 [] previous 0 timeout 6000 lost"},
				{at, Wrote{Nonce: "M.s1", Outcome: Yes, Rev: 61}, "poke"},
				{at + milli, beat("a", 1, 2, 0), "a: member"},
				{at + milli, beat("b", 1, 2, 0), "b: member"},
				{5 * second, beat("a", 1, 3, 0), "a: member"},
				{5 * second, beat("b", 1, 3, 0), "b: member"},
				{c.silent - 1, Tick{}, ""},
				{c.silent, Tick{}, ""},
				{c.silent + 500*milli, Tick{}, "settling over 61 [] previous 0 timeout 6000"},
			} {
				q.step(s)
			}
		})
	}
}

// TestLongerStaysRecorded: S2, M2. What a former leader granted for longer goes on for all of it, also when a generation settles at once: the next
// leader must find it recorded.
func TestLongerStaysRecorded(t *testing.T) {
	before := with(adopting(found(wire.SettledDone, 18*second, place("a", 1)), "settled over 40 [{a 1}] previous 0 timeout 18000", key("a", 1, 11), key("b", 1, 12)),
		step{0, wrote(1, 51), "poke"},
		step{0, beat("a", 1, 1, 30), "a: member gen 30 0/1"},
		step{0, beat("c", 1, 1, 0), "c: member"},
		step{500 * milli, Tick{}, "settling over 51 [{a 1}] previous 30 timeout 18000"},
		step{500 * milli, wrote(2, 60), "told a c self"},
		// b.1, which has no share, was granted 18 s by the leader before, and is not heard: it may act until then.
		step{510 * milli, beat("a", 1, 2, 60), "a: member settling 60; settled over 60 [{a 1} {c 1}] previous 0 timeout 18000"})
	play(t, config, before)
}

// TestReturnWindow: S15. The place of who expired with a return window is kept: no generation begins for its absence, nobody is granted it, and
// its next incarnation takes the index.
func TestReturnWindow(t *testing.T) {
	returning := key("b", 1, 12)
	returning.Record.ReturnMS = 20_000
	before := with(adopting(found(wire.SettledDone, 6*second, place("a", 1), place("b", 1)), "settled over 40 [{a 1} {b 1}] previous 0 timeout 6000", key("a", 1, 11), returning),
		step{0, wrote(1, 51), "poke"},
		step{milli, beat("b", 1, 1, 30), "b: member gen 30 1/2"},
		step{2 * second, beat("a", 1, 1, 30), "a: member gen 30 0/2"},
		step{6*second + milli, beat("a", 1, 2, 30), "a: member gen 30 0/2; remove {b 1} 12 expired"})
	expired := func(m *Machine) bool { return len(m.Roster()) == 2 } // with the leader
	t.Run("kept, then given up", func(t *testing.T) {
		m := play(t, config, with(before,
			step{11 * second, beat("a", 1, 3, 30), "a: member gen 30 0/2"},
			step{16 * second, beat("a", 1, 4, 30), "a: member gen 30 0/2"},
			step{21 * second, beat("a", 1, 5, 30), "a: member gen 30 0/2"},
			step{26 * second, beat("b", 1, 2, 30), "b: gone expired"},
			step{26*second + 501*milli, Tick{}, ""},
			step{27 * second, beat("a", 1, 6, 30), "settling over 51 [{a 1} {b 1}] previous 30 timeout 6000; a: member gen 30 0/2"}))
		if !expired(m) {
			t.Errorf("M1: roster %v", m.Roster())
		}
	})
	t.Run("back in time", func(t *testing.T) {
		play(t, config, with(before,
			step{10 * second, beat("b", 2, 1, 0), "b: member"}, // at once: the lease of the one before has run out
			step{10 * second, key("b", 2, 60), ""},
			step{10*second + 500*milli, Tick{}, "settling over 51 [{a 1} {b 1}] previous 30 timeout 6000"},
			step{10*second + 500*milli, wrote(2, 61), "told b self"},
			step{10*second + 510*milli, beat("a", 1, 3, 61), "a: member settling 61; settled over 61 [{a 1} {b 2}] previous 0 timeout 6000"}))
	})
	t.Run("back by its record, and heard later", func(t *testing.T) {
		play(t, config, with(before,
			step{10 * second, beat("a", 1, 3, 30), "a: member gen 30 0/2"},
			step{10 * second, key("b", 2, 60), ""},
			step{13 * second, beat("a", 1, 4, 30), "a: member gen 30 0/2"},
			step{13 * second, beat("b", 2, 1, 0), "b: member"},
			step{13*second + 500*milli, Tick{}, "settling over 51 [{a 1} {b 1}] previous 30 timeout 6000"},
			step{13*second + 500*milli, wrote(2, 61), "told a b self"},
			step{13*second + 510*milli, beat("a", 1, 5, 61), "settled over 61 [{a 1} {b 2}] previous 0 timeout 6000"}))
	})
	t.Run("another joins meanwhile", func(t *testing.T) {
		play(t, config, with(before,
			step{10 * second, beat("c", 1, 1, 0), "c: member"},
			step{10 * second, key("c", 1, 60), ""},
			step{10*second + 500*milli, Tick{}, "settling over 51 [{a 1} {b 1}] previous 30 timeout 6000"},
			step{10*second + 500*milli, wrote(2, 61), "told c self"},
			step{10*second + 510*milli, beat("a", 1, 3, 61), "a: member settling 61; settled over 61 [{a 1} {b 1} {c 1}] previous 0 timeout 6000"},
			step{10*second + 510*milli, wrote(3, 62), "told a c self"},
			step{10*second + 520*milli, beat("a", 1, 4, 61), "a: member gen 61 0/3"},
			step{10*second + 520*milli, beat("b", 1, 2, 30), "b: gone expired"}))
	})
	t.Run("who leaves is not waited for", func(t *testing.T) {
		left := beat("b", 1, 2, 30)
		left.HB.Leave = true
		play(t, config, with(before[:5], step{second, left, "remove {b 1} 12 left; b: gone left"},
			step{1510 * milli, Tick{}, "settling over 51 [{a 1} {b 1}] previous 30 timeout 6000"}))
	})
}

// TestLooks: who was not heard in this term is late only once it has had time to be.
func TestLooks(t *testing.T) {
	looks := func(m *Machine) string {
		var l []string
		for _, r := range m.Roster() {
			s := "alive"
			switch {
			case r.Late && r.New:
				s = "late and new"
			case r.Late:
				s = "late"
			case r.New:
				s = "new"
			}
			l = append(l, r.Place.ID+" "+s)
		}
		return strings.Join(l, ", ")
	}
	p := start(t, config)
	for _, s := range serving()[:5] { // a was heard, b not
		p.step(s)
	}
	for _, s := range []struct {
		at   time.Duration
		in   Input
		want string
	}{
		{0, Tick{}, "a alive, b new"},
		{1250 * milli, Tick{}, "a alive, b new"},
		{1251 * milli, Tick{}, "a late, b late"},
		{1300 * milli, beat("b", 1, 100, 30), "a late, b alive"},
		{1400 * milli, key("c", 7, 60), "a late, b alive, c new"}, // it has just joined
		{1500 * milli, beat("c", 7, 1, 0), "a late, b alive, c alive"},
	} {
		for at := p.now; at < s.at; at += 50 * milli { // or it had run late itself, and accused nobody
			p.m.Step(instant(at), Tick{})
			p.m.Step(instant(at), Beat{"self", wire.Heartbeat{V: wire.Version, ID: "l", Incarnation: 1, Seq: uint64(at / milli)}})
		}
		p.now = s.at
		p.m.Step(instant(s.at), s.in)
		if got := looks(p.m); !strings.HasPrefix(got, s.want) { // the leader comes last: l
			t.Errorf("at %v: %s, want %s", s.at, got, s.want)
		}
	}
}
