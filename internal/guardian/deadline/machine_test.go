package deadline

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/clock"
)

// The lease is 1 s, the deadline 900 ms away at first: TERM at 500 ms, KILL at 880 ms, as of a leadership.
var config = Config{Grace: 5 * time.Second, Term: 400 * time.Millisecond, Kill: 20 * time.Millisecond}

const (
	ms    = time.Millisecond
	first = 900 * ms
)

func at(d time.Duration) clock.Instant { return clock.Instant{}.Add(time.Hour + d) }

// A move is an input at a time, and the effects that are wanted.
type move struct {
	at   time.Duration
	in   Input
	want string
}

func says(fx []Effect) string {
	var l []string
	for _, f := range fx {
		switch f := f.(type) {
		case Start:
			l = append(l, "start")
		case Term:
			l = append(l, "TERM "+f.Why.String())
		case Kill:
			l = append(l, "KILL "+f.Why.String())
		case Over:
			l = append(l, "over "+f.Why.String())
		}
	}
	return strings.Join(l, ", ")
}

func renewed(sent time.Duration) Input { return Renewed{at(sent + first)} }

func TestRules(t *testing.T) {
	begin := move{0, Begin{}, "start"}
	short, none := config, config
	short.Grace, none.Grace = 100*ms, 0
	for _, tt := range []struct {
		name  string
		c     Config
		moves []move
	}{
		{"C1 not started when too little is left", config, []move{{500 * ms, Begin{}, "over unrenewed"}}},
		{"C1 started a nanosecond earlier", config, []move{{500*ms - 1, Begin{}, "start"}, {500 * ms, Tick{}, "TERM unrenewed"}}},
		{"C1 C3 renewals fail", config, []move{begin,
			{500*ms - 1, Tick{}, ""}, {500 * ms, Tick{}, "TERM unrenewed"},
			{880*ms - 1, Tick{}, ""}, {880 * ms, Tick{}, "KILL unrenewed"}}},
		{"C1 stepped late: both at once", config, []move{begin, {880 * ms, Tick{}, "TERM unrenewed, KILL unrenewed"}}},
		{"C1 renewals move it on", config, []move{begin,
			{170 * ms, renewed(167 * ms), ""}, {340 * ms, renewed(333 * ms), ""},
			{833*ms - 1, Tick{}, ""}, {833 * ms, Tick{}, "TERM unrenewed"}, {1213*ms - 1, Tick{}, ""}, {1213 * ms, Tick{}, "KILL unrenewed"}}},
		{"C1 an older renewal moves nothing back", config, []move{begin, {340 * ms, renewed(333 * ms), ""}, {350 * ms, renewed(167 * ms), ""}, {833*ms - 1, Tick{}, ""}}},
		{"C2 asked", config, []move{begin, {100 * ms, End{Asked}, "TERM asked"}, {110 * ms, End{Asked}, ""}, {880*ms - 1, Tick{}, ""}, {880 * ms, Tick{}, "KILL asked"}}},
		{"C2 asked before it was started", config, []move{{0, End{Asked}, "over asked"}, {1 * ms, Tick{}, ""}}},
		{"C2 alone", config, []move{begin, {100 * ms, End{Alone}, "TERM alone"}, {880*ms - 1, Tick{}, ""}, {880 * ms, Tick{}, "KILL alone"}}},
		{"C3 grace", short, []move{begin, {100 * ms, End{Asked}, "TERM asked"}, {200*ms - 1, Tick{}, ""}, {200 * ms, Tick{}, "KILL asked"}}},
		{"C3 no grace", none, []move{begin, {100 * ms, End{Asked}, "TERM asked, KILL asked"}}},
		{"C3 grace while renewed", config, []move{begin, {100 * ms, End{Asked}, "TERM asked"},
			{1000 * ms, Tick{}, "KILL asked"}, {1001 * ms, renewed(1000 * ms), ""}, {1010 * ms, Tick{}, "KILL asked"}}},
		{"C3 renewals go on for the grace", config, []move{begin, {100 * ms, End{Asked}, "TERM asked"}, {800 * ms, renewed(4500 * ms), ""},
			{5100*ms - 1, Tick{}, ""}, {5100 * ms, Tick{}, "KILL asked"}}},
		{"C4 lost", config, []move{begin, {100 * ms, End{Lost}, "KILL lost"}}},
		{"C4 lost before it was started", config, []move{{0, End{Lost}, "over lost"}}},
		{"C4 lost while it ends", config, []move{begin, {100 * ms, End{Asked}, "TERM asked"}, {110 * ms, End{Lost}, "KILL asked"}, {111 * ms, End{Lost}, ""}}},
		{"C5 what it leaves behind", short, []move{begin, {100 * ms, Exited{}, "TERM itself"}, {200*ms - 1, Tick{}, ""}, {200 * ms, Tick{}, "KILL itself"}, {201 * ms, Gone{}, "over itself"}}},
		{"C5 ended as it was told to", config, []move{begin, {100 * ms, End{Asked}, "TERM asked"}, {110 * ms, Exited{}, ""}, {111 * ms, Gone{}, "over asked"}}},
		{"C6 killed again until none is left", config, []move{begin, {100 * ms, End{Lost}, "KILL lost"}, {110*ms - 1, Tick{}, ""},
			{110 * ms, Tick{}, "KILL lost"}, {150 * ms, Exited{}, "KILL lost"}, {155 * ms, Tick{}, ""}, {160 * ms, Tick{}, "KILL lost"}, {161 * ms, Gone{}, "over lost"}, {1000 * ms, Tick{}, ""}}},
		{"C7 no way back", config, []move{begin, {500 * ms, Tick{}, "TERM unrenewed"}, {501 * ms, renewed(500 * ms), ""}, {1380*ms - 1, Tick{}, ""}, {1380 * ms, Tick{}, "KILL unrenewed"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := New(tt.c, at(first))
			for i, mv := range tt.moves {
				if got := says(m.Step(at(mv.at), mv.in)); got != mv.want {
					t.Errorf("move %d, %T at %v: %q, want %q", i, mv.in, mv.at, got, mv.want)
				}
			}
		})
	}
}

// A moment has come when any one of the clocks says so, whatever the others say.
func TestByWhicheverClockShowsMost(t *testing.T) {
	for name, jump := range map[string]clock.Instant{"boot": {Boot: time.Hour}, "wall": {Wall: time.Hour}, "mono": {Mono: time.Hour}, "wall back": {Mono: time.Hour, Boot: time.Hour, Wall: -time.Hour}} {
		m := New(config, at(first))
		m.Step(at(0), Begin{})
		now := at(10 * ms)
		now = clock.Instant{Mono: now.Mono + jump.Mono, Boot: now.Boot + jump.Boot, Wall: now.Wall + jump.Wall}
		if got := says(m.Step(now, Tick{})); got != "TERM unrenewed, KILL unrenewed" {
			t.Errorf("%s: %q", name, got)
		}
	}
	// The wall clock goes back: the others end the right as before.
	m := New(config, at(first))
	m.Step(at(0), Begin{})
	now := at(880 * ms)
	now.Wall -= time.Hour
	if got := says(m.Step(now, Tick{})); got != "TERM unrenewed, KILL unrenewed" {
		t.Errorf("wall clock set back: %q", got)
	}
}

// Whatever happens in whatever order: a command is started only with time left, killed in time if it is stepped in time, and over once.
func TestRandom(t *testing.T) {
	seed := rand.Uint64()
	defer func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	}()
	r := rand.New(rand.NewPCG(seed, 0))
	for range 2000 {
		c := Config{Grace: time.Duration(r.IntN(3000)) * ms, Term: 400 * ms, Kill: 20 * ms}
		until, now := at(first), time.Duration(0)
		m := New(c, until)
		var log []string
		var started, exited, over bool
		var termed, killed time.Duration = -1, -1
		for range 60 {
			now += time.Duration(r.IntN(100)) * ms
			if next, ok := m.Next(); ok { // stepped in time
				now = min(now, max(next.Mono-at(0).Mono, 0))
			}
			var in Input
			switch n := r.IntN(10); {
			case !started:
				in = Begin{}
			case n < 5:
				in = Renewed{at(now - time.Duration(r.IntN(200))*ms + first)}
			case n == 5 && r.IntN(5) == 0:
				in = End{[]Why{Asked, Alone, Lost}[r.IntN(3)]}
			case n == 6 && r.IntN(5) == 0:
				in, exited = Exited{}, true
			case n == 7 && exited:
				in = Gone{}
			default:
				in = Tick{}
			}
			if rn, ok := in.(Renewed); ok {
				until = until.Later(rn.Deadline)
			}
			fx := m.Step(at(now), in)
			log = append(log, fmt.Sprintf("%v %#v: %s", now, in, says(fx)))
			bad := func(what string) { t.Fatalf("%s:\n%s", what, strings.Join(log, "\n")) }
			for _, f := range fx {
				switch f.(type) {
				case Start:
					if started || at(now).Reached(until.Add(-c.Term)) {
						bad("started twice, or with nothing left")
					}
					started = true
				case Term:
					if termed >= 0 || !started {
						bad("told to end twice, or before it was started")
					}
					termed = now
				case Kill:
					killed = now
				case Over:
					over = true
				}
			}
			if over {
				if len(m.Step(at(now+time.Hour), Tick{})) > 0 {
					bad("something after it was over")
				}
				break
			}
			if !started {
				bad("neither started nor over")
			}
			if killed < 0 && (at(now).Reached(until.Add(-c.Kill)) || termed >= 0 && now >= termed+c.Grace) {
				bad("not killed in time")
			}
			if slices.Contains([]phase{running, ending, killing}, m.phase) {
				if next, ok := m.Next(); !ok || killed < 0 && until.Add(-c.Kill).Mono < next.Mono {
					bad("it would be stepped too late")
				}
			}
		}
	}
}
