package seat

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/clock"
	"github.com/quorate/quorate/internal/wire"
)

// A step is one line of a transcript: at a moment (ahead and suspended shift the wall clock, and wall and boot clock),
// an input, and the effects it must have, separated by "; ".
type step struct {
	at               time.Duration
	in               Input
	want             string
	ahead, suspended time.Duration
}

const (
	second = time.Second
	milli  = time.Millisecond
)

var config = Config{Place: wire.Place{ID: "a", Incarnation: 1}, Roles: []string{wire.RoleWork}, Lease: 3 * second, AckTimeout: 3 * second}

func instant(s step) clock.Instant {
	return clock.Instant{Mono: s.at, Boot: s.at + s.suspended, Wall: s.at + s.suspended + s.ahead + time.Hour}
}

func show(es []Effect) string {
	var l []string
	for _, e := range es {
		s := ""
		switch e := e.(type) {
		case Send:
			s = fmt.Sprintf("send %d ack %d hold %d", e.HB.Seq, e.HB.Ack, e.HB.Hold)
			if e.HB.Part > 0 {
				s += fmt.Sprintf(" part %d", e.HB.Part)
			}
			if e.HB.Leave {
				s += " leave"
			}
		case Member:
			s = fmt.Sprintf("member until %v", e.Deadline.Mono)
		case Granted:
			s = fmt.Sprintf("granted %d %d/%d", e.Gen, e.Index, e.Total)
			if e.Of > 0 {
				s += fmt.Sprintf(" %v of %d", e.Buckets, e.Of)
			}
			s += fmt.Sprintf(" until %v", e.Deadline.Mono)
		case Gained:
			s = fmt.Sprintf("gained %v until %v", e.Buckets, e.Deadline.Mono)
		case Lost:
			s = fmt.Sprintf("lost %v", e.Buckets)
		case Kept:
			s = fmt.Sprintf("kept for %d", e.Gen)
		case Extended:
			s = fmt.Sprintf("extended until %v", e.Deadline.Mono)
		case Revoke:
			s = fmt.Sprintf("revoke %d for %d", e.Gen, e.For)
			if len(e.Keep) > 0 {
				s += fmt.Sprintf(" keeping %v", e.Keep)
			}
			if e.NotQuorate {
				s += " not quorate"
			}
		case Lapsed:
			s = fmt.Sprintf("lapsed %d at %v", e.Gen, e.Until.Mono)
		case Released:
			s = fmt.Sprintf("released %d", e.Gen)
			if e.NotQuorate {
				s += " not quorate"
			}
		case Gone:
			s = "gone " + e.Reason
		case Left:
			s = fmt.Sprintf("left %v", e.Clean)
		case Waiting, Rewrite, Depart:
			s = strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", e), "seat."))
		case Settling:
			s = fmt.Sprintf("settling %d", e.Gen)
		}
		l = append(l, s)
	}
	return strings.Join(l, "; ")
}

func play(t *testing.T, cfg Config, steps []step) *Machine {
	t.Helper()
	m := New(cfg)
	for i, s := range steps {
		if got := show(m.Step(instant(s), s.in)); got != s.want {
			t.Fatalf("step %d, %T at %v:\n got %q\nwant %q", i+1, s.in, s.at, got, s.want)
		}
	}
	return m
}

func with(before []step, after ...step) []step { return append(slices.Clone(before), after...) }

// reply to a heartbeat by the leader with the token, granting six seconds.
func reply(seq, token, gen uint64, index, total int, settling uint64) Reply {
	return Reply{wire.Reply{V: wire.Version, Seq: seq, Token: token, GrantMS: 6000, Gen: gen, Index: index, Total: total, Settling: settling}}
}

// working holds index 0 of 2 in generation 7; heartbeat 1 was sent at 0 and answered at 100 ms.
var working = []step{
	{at: 0, in: Tick{}, want: "send 1 ack 0 hold 0"},
	{at: 100 * milli, in: reply(1, 5, 7, 0, 2, 0), want: "member until 5.4s; granted 7 0/2 until 5.4s"},
}

// TestDeadline: H1, P3. A grant counts from before its heartbeat was sent, a tenth less, by whichever clock shows most.
func TestDeadline(t *testing.T) {
	const d = 5400 * milli
	for name, c := range map[string]struct {
		s    step
		live bool
	}{
		"one nanosecond before":    {step{at: d - 1}, true},
		"at it":                    {step{at: d}, false},
		"wall clock ahead, before": {step{at: second, ahead: d - second - 1}, true},
		"wall clock ahead, at it":  {step{at: second, ahead: d - second}, false},
		"suspended, before":        {step{at: second, suspended: d - second - 1}, true},
		"suspended, at it":         {step{at: second, suspended: d - second}, false},
	} {
		t.Run(name, func(t *testing.T) {
			m := play(t, config, working)
			if got := m.Live(instant(c.s)); got != c.live {
				t.Errorf("Live: got %v, want %v", got, c.live)
			}
			got := show(m.Step(instant(c.s), Tick{}))
			if lapsed := strings.HasPrefix(got, "lapsed 7 at 5.4s"); lapsed == c.live {
				t.Errorf("tick: got %q", got)
			}
		})
	}
	t.Run("extended from the heartbeat that is answered", func(t *testing.T) {
		play(t, config, with(working,
			step{at: 500 * milli, in: Tick{}, want: "send 2 ack 7 hold 7"},
			step{at: 900 * milli, in: reply(2, 5, 7, 0, 2, 0), want: "member until 5.9s; extended until 5.9s"},
			step{at: 950 * milli, in: reply(1, 5, 7, 0, 2, 0), want: "member until 5.9s; extended until 5.9s"}, // a duplicate
		))
	})
	t.Run("a reply after its own deadline grants nothing", func(t *testing.T) {
		m := New(config)
		m.Step(instant(step{}), Tick{})
		if got := show(m.Step(instant(step{at: d}), reply(1, 5, 7, 0, 2, 0))); strings.Contains(got, "granted") {
			t.Errorf("got %q", got)
		}
	})
	t.Run("counts the leader's grant, not the own setting", func(t *testing.T) { // H2
		long := config
		long.Lease = 30 * second
		play(t, long, working)
	})
}

// TestFloor: H3, H4. No reply takes back what was acknowledged, however late.
func TestFloor(t *testing.T) {
	revoked := with(working,
		step{at: 500 * milli, in: Tick{}, want: "send 2 ack 7 hold 7"},
		step{at: 600 * milli, in: reply(2, 5, 7, 0, 2, 9), want: "member until 5.9s; extended until 5.9s; settling 9; revoke 7 for 9"},
		step{at: 700 * milli, in: LetGo{}, want: "released 7; send 3 ack 9 hold 0"},
	)
	for name, s := range map[string]step{
		"a late reply with the old generation":         {at: 800 * milli, in: reply(2, 5, 7, 0, 2, 0), want: ""},
		"one that was not revoking yet":                {at: 800 * milli, in: reply(1, 5, 7, 0, 2, 0), want: ""},
		"the old generation again, by a newer leader":  {at: 800 * milli, in: reply(3, 6, 7, 0, 2, 0), want: "member until 6.1s"},
		"the old generation while settling that":       {at: 800 * milli, in: reply(3, 5, 7, 0, 2, 9), want: "member until 6.1s"},
		"a late reply of a newer leader":               {at: 800 * milli, in: reply(2, 6, 7, 0, 2, 0), want: ""},
		"an older leader, also with a new generation":  {at: 800 * milli, in: reply(3, 4, 10, 0, 2, 0), want: ""},
		"the generation acknowledged":                  {at: 800 * milli, in: reply(3, 5, 9, 1, 3, 0), want: "member until 6.1s; granted 9 1/3 until 6.1s"},
		"a heartbeat that was never sent":              {at: 800 * milli, in: reply(4, 5, 9, 1, 3, 0), want: ""},
		"asked again to acknowledge what was":          {at: 800 * milli, in: reply(3, 5, 0, 0, 0, 9), want: "member until 6.1s"},
		"asked to acknowledge the next (new settling)": {at: 800 * milli, in: reply(3, 6, 0, 0, 0, 12), want: "member until 6.1s; settling 12; send 4 ack 12 hold 0"},
	} {
		t.Run(name, func(t *testing.T) { play(t, config, with(revoked, s)) })
	}
}

// TestAcknowledge: H5, P2. A generation is acknowledged by number, and only once the work has returned.
func TestAcknowledge(t *testing.T) {
	asked := with(working, step{at: 200 * milli, in: reply(1, 5, 7, 0, 2, 9),
		want: "member until 5.4s; extended until 5.4s; settling 9; revoke 7 for 9"})
	t.Run("not before the work has returned", func(t *testing.T) {
		play(t, config, with(asked, step{at: 500 * milli, in: Tick{}, want: "send 2 ack 7 hold 7"}))
	})
	t.Run("not by the end of the lease", func(t *testing.T) {
		play(t, config, with(asked,
			step{at: 5400 * milli, in: Tick{}, want: "lapsed 7 at 5.4s; send 2 ack 7 hold 0"},
			step{at: 5500 * milli, in: LetGo{}, want: "send 3 ack 9 hold 0"},
		))
	})
	t.Run("the latest, when a new leader began again", func(t *testing.T) {
		play(t, config, with(asked,
			step{at: 500 * milli, in: Tick{}, want: "send 2 ack 7 hold 7"},
			step{at: 600 * milli, in: reply(2, 6, 7, 0, 2, 11), want: "member until 5.9s; extended until 5.9s; settling 11; revoke 7 for 11"},
			step{at: 700 * milli, in: LetGo{}, want: "released 7; send 3 ack 11 hold 0"},
		))
	})
	t.Run("at once, when nothing is held", func(t *testing.T) {
		play(t, config, with(working[:1], step{at: 100 * milli, in: reply(1, 5, 0, 0, 0, 9), want: "member until 5.4s; settling 9; send 2 ack 9 hold 0"}))
	})
}

// TestLapsedWork: H6. What ran out is not taken up again before its work has returned.
func TestLapsedWork(t *testing.T) {
	lapsed := with(working, step{at: 5400 * milli, in: Tick{}, want: "lapsed 7 at 5.4s; send 2 ack 7 hold 0"})
	again := reply(2, 5, 7, 0, 2, 0)
	play(t, config, with(lapsed,
		step{at: 5500 * milli, in: again, want: "member until 10.8s"},
		step{at: 5600 * milli, in: LetGo{}, want: ""},
		step{at: 5650 * milli, in: again, want: "member until 10.8s; granted 7 0/2 until 10.8s"},
	))
	engaged := config
	engaged.Engaged = true // of an earlier incarnation
	play(t, engaged, []step{
		{at: 0, in: Tick{}, want: "send 1 ack 0 hold 0"},
		{at: 100 * milli, in: reply(1, 5, 7, 0, 2, 0), want: "member until 5.4s"},
	})
}

// TestUnrecorded: H7, M2. Nothing counts before the record is stored.
func TestUnrecorded(t *testing.T) {
	cfg := config
	cfg.Unrecorded = true
	m := play(t, cfg, []step{
		{at: 0, in: Tick{}, want: "send 1 ack 0 hold 0"},
		{at: 100 * milli, in: reply(1, 5, 7, 0, 2, 0), want: "rewrite"},
	})
	if m.Live(instant(step{at: 110 * milli})) {
		t.Error("a live member before its record is stored")
	}
	for i, s := range []step{
		{at: 200 * milli, in: Recorded{}, want: "send 2 ack 0 hold 0"},
		{at: 300 * milli, in: reply(2, 5, 7, 0, 2, 0), want: "member until 5.6s; granted 7 0/2 until 5.6s"},
	} {
		if got := show(m.Step(instant(s), s.in)); got != s.want {
			t.Errorf("step %d: got %q, want %q", i, got, s.want)
		}
	}
}

// TestLeave: M1, M2. Who leaves lets go first, and acts no more once its record is being removed.
func TestLeave(t *testing.T) {
	leaving := with(working, step{at: 200 * milli, in: Leave{}, want: "revoke 7 for 0"})
	t.Run("cleanly", func(t *testing.T) {
		m := play(t, config, with(leaving,
			step{at: 300 * milli, in: LetGo{}, want: "released 7; depart"},
			step{at: 310 * milli, in: reply(1, 5, 7, 0, 2, 0), want: ""}, // late, or to a heartbeat before: grants nothing
		))
		if m.Live(instant(step{at: 320 * milli})) {
			t.Error("a live member while its record is being removed")
		}
		if got, want := show(m.Step(instant(step{at: 400 * milli}), Departed{})), "send 2 ack 7 hold 0 leave"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		gone := Reply{wire.Reply{V: wire.Version, Seq: 2, Token: 5, Gone: wire.GoneLeft}}
		if got, want := show(m.Step(instant(step{at: 500 * milli}), gone)), "left true"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	t.Run("its work does not return", func(t *testing.T) { // R12
		play(t, config, with(leaving,
			step{at: 3200 * milli, in: Tick{}, want: ""},
			step{at: 5400*milli - 1, in: Tick{}, want: ""},
			step{at: 5400 * milli, in: Tick{}, want: "lapsed 7 at 5.4s; left false"},
		))
	})
}

// TestGone: M1, M2. Who is no member any more lets go at once.
func TestGone(t *testing.T) {
	for _, reason := range []string{wire.GoneEvicted, wire.GoneExpired, wire.GoneSuperseded} {
		r := Reply{wire.Reply{V: wire.Version, Seq: 1, Token: 5, Gone: reason}}
		m := play(t, config, with(working, step{at: 200 * milli, in: r, want: "lapsed 7 at 200ms; gone " + reason}))
		if m.Live(instant(step{at: 210 * milli})) {
			t.Errorf("%s: still a live member", reason)
		}
		if got := show(m.Step(instant(step{at: 300 * milli}), reply(1, 5, 7, 0, 2, 0))); got != "" {
			t.Errorf("%s: a later reply has effects: %q", reason, got)
		}
		late := Reply{wire.Reply{V: wire.Version, Seq: 1, Token: 4, Gone: reason}}
		play(t, config, with(working, step{at: 200 * milli, in: late, want: ""})) // H3: an older leader's
	}
}

// TestQuit: work that ends by itself gives its place up until there is work again.
func TestQuit(t *testing.T) {
	play(t, config, with(working,
		step{at: 200 * milli, in: LetGo{}, want: "released 7"},
		step{at: 300 * milli, in: reply(1, 5, 7, 0, 2, 0), want: "member until 5.4s"},
		step{at: 400 * milli, in: Roles{[]string{wire.RoleWork}}, want: "send 2 ack 7 hold 0"},
		step{at: 450 * milli, in: reply(2, 5, 7, 0, 2, 0), want: "member until 5.8s; granted 7 0/2 until 5.8s"},
	))
}

// TestNotQuorate: H8. A leader without enough members has the work let go of, acknowledges nothing by it, and may grant the same generation again.
func TestNotQuorate(t *testing.T) {
	short := func(seq, token uint64) Reply {
		r := reply(seq, token, 0, 0, 0, 0)
		r.Reply.Quorate = new(bool)
		return r
	}
	before := with(working,
		step{at: 500 * milli, in: Tick{}, want: "send 2 ack 7 hold 7"},
		step{at: 500 * milli, in: short(2, 60), want: "member until 5.9s; revoke 7 for 0 not quorate"},
		step{at: 600 * milli, in: short(2, 60), want: "member until 5.9s"})
	t.Run("let go, and granted again", func(t *testing.T) {
		play(t, config, with(before,
			step{at: 700 * milli, in: LetGo{}, want: "released 7 not quorate"},
			step{at: 1000 * milli, in: Tick{}, want: "send 3 ack 7 hold 0"},
			step{at: 1000 * milli, in: short(3, 60), want: "member until 6.4s"},
			step{at: 1500 * milli, in: Tick{}, want: "send 4 ack 7 hold 0"},
			step{at: 1500 * milli, in: reply(4, 61, 7, 0, 2, 0), want: "member until 6.9s; granted 7 0/2 until 6.9s"}))
	})
	t.Run("enough again before the work has returned", func(t *testing.T) {
		play(t, config, with(before,
			step{at: 700 * milli, in: reply(2, 61, 7, 0, 2, 0), want: "member until 5.9s; extended until 5.9s"},
			step{at: 800 * milli, in: LetGo{}, want: "released 7 not quorate"},
			step{at: 900 * milli, in: reply(2, 61, 7, 0, 2, 0), want: "member until 5.9s; granted 7 0/2 until 5.9s"}))
	})
	t.Run("work that does not return", func(t *testing.T) {
		play(t, config, with(before, step{at: 5400 * milli, in: Tick{}, want: "lapsed 7 at 5.4s; send 3 ack 7 hold 0"}))
	})
}

// Whatever pokes it, and how often, a member sends eight heartbeats at once and then one each lease/48; none is forgotten.
func TestPokes(t *testing.T) {
	m := New(config)
	sent := 0
	step := func(at time.Duration, in Input) {
		for _, fx := range m.Step(clock.Instant{Mono: at, Boot: at, Wall: at}, in) {
			if _, ok := fx.(Send); ok {
				sent++
			}
		}
	}
	step(0, Tick{})
	for i := range 1000 {
		step(time.Duration(i)*milli/1000, Poke{})
	}
	if sent != 1+pokes {
		t.Errorf("H10: %d heartbeats within a millisecond, want %d", sent, 1+pokes)
	}
	for at := milli; at < 3*second; at += milli {
		step(at, Poke{})
		if m.Next() <= at {
			t.Fatalf("at %v the next step is due at %v", at, m.Next())
		}
	}
	if got, want := sent, 1+pokes+48; got < want-1 || got > want+1 {
		t.Errorf("H10: %d heartbeats in a lease full of pokes, want %d", got, want)
	}
	// One that comes too soon is followed later, before the ordinary next one.
	step(9*second, Tick{})
	sent = 0
	step(10*second, Tick{})
	for range pokes + 1 {
		step(10*second, Poke{})
	}
	if at := m.Next(); at <= 10*second || at > 10*second+3*second/48 || sent != 1+pokes {
		t.Errorf("H10: after %d heartbeats the next is due at %v", sent, at)
	}
}
