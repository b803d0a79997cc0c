package ballot

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/clock"
	"github.com/quorate/quorate/internal/offset"
	"github.com/quorate/quorate/internal/wire"
)

// A play drives one Actor by lines, as the script of the Machine does:
//
//	@0s clock T rtt=2ms                  an exchange with the leader of token T
//	@1s asked B T at=10s tol=100ms       the instant is at 10 s of the play
//	@1s say B R yes T at=10s tol=100ms   the voter wants to vote in round R (inc=8: as another incarnation)
//	@2s verdict B R yes [silent=a]
//	@2s looked B none|failed|marker|yes R
//	@3s stop B
//	@4s acted B [failed|missed]
//	@5s acked B
//	@6s resign
//	@7s tick
//	@8s suspend 300ms                    from here on boot time and wall clock show that much more (and a tick)
//	@8s jump 300ms                       from here on the wall clock does (and a tick)
//
// It fails by itself if an action begins twice, without a sealed yes in a round of its own yes, or before its instant.
type play struct {
	t      *testing.T
	a      *Actor
	shift  clock.Instant
	yes    map[string]bool // ballot round: its yes was sent
	sealed map[string]string
	acted  map[string]int
}

// theirs is how far the leaders' clocks are ahead of the voter's boot-time clock in a play.
const theirs = 12345 * second

func newPlay(t *testing.T) *play {
	return &play{t: t, a: NewActor(3 * second), yes: map[string]bool{}, sealed: map[string]string{}, acted: map[string]int{}}
}

func (p *play) at(d time.Duration) clock.Instant {
	n := startAt.Add(d)
	return clock.Instant{Mono: n.Mono, Boot: n.Boot + p.shift.Boot, Wall: n.Wall + p.shift.Wall}
}

func when(token uint64, at, tol time.Duration) *wire.When {
	return &wire.When{Token: token, AtUS: (startAt.Boot + theirs + at).Microseconds(), ToleranceMS: tol.Milliseconds(), Wall: "at"}
}

func (p *play) run(text string) {
	p.t.Helper()
	var lines []string
	for line := range strings.SplitSeq(text, "\n") {
		if line, _, _ = strings.Cut(line, " //"); strings.TrimSpace(line) != "" {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	for i := 0; i < len(lines); {
		step := lines[i]
		var want []string
		for i++; i < len(lines) && !strings.HasPrefix(lines[i], "@"); i++ {
			want = append(want, lines[i])
		}
		now, in := p.parse(step)
		if got := p.show(p.step(now, in)); strings.Join(got, "\n") != strings.Join(want, "\n") {
			p.t.Fatalf("at %q\ngot:\n    %s\nwant:\n    %s", step, strings.Join(got, "\n    "), strings.Join(want, "\n    "))
		}
	}
}

func (p *play) parse(step string) (clock.Instant, ActorInput) {
	p.t.Helper()
	f := strings.Fields(step)
	d := duration(p.t, strings.TrimPrefix(f[0], "@"))
	val := func(name string, def time.Duration) time.Duration {
		for _, w := range f {
			if s, ok := strings.CutPrefix(w, name+"="); ok {
				return duration(p.t, s)
			}
		}
		return def
	}
	token := func(s string) uint64 { return uint64(s[len(s)-1] - '0') }
	inc := uint64(7)
	if strings.HasSuffix(step, " inc=8") {
		inc = 8
	}
	switch f[1] {
	case "clock":
		now, rtt := p.at(d), val("rtt", 2*time.Millisecond)
		return now, ClockIn{offset.Sample{Token: token(f[2]), Sent: now.Add(-rtt), Received: now, Clock: now.Boot + theirs - rtt/2}}
	case "asked":
		return p.at(d), Asked{wire.Ballot{Ballot: f[2], LeftMS: 1000, Data: []byte("data"), When: when(token(f[3]), val("at", 0), val("tol", 0))}, wire.Place{ID: "a", Incarnation: inc}}
	case "say":
		return p.at(d), Say{SendVote{Reply: "in", Vote: wire.Vote{V: 1, Ballot: f[2], Round: f[3], ID: "a", Incarnation: inc, Answer: f[4]},
			When: when(token(f[5]), val("at", 0), val("tol", 0))}}
	case "verdict":
		v := wire.Verdict{Ballot: f[2], Round: f[3], Verdict: f[4], When: when(5, 10*second, 100*time.Millisecond)}
		if strings.Contains(step, "silent=a") {
			v.Silent = []string{"a"}
		}
		p.sealed[f[2]] = f[3] + " " + f[4]
		return p.at(d), VerdictIn{v}
	case "looked":
		in := LookDone{Ballot: f[2], Found: map[string]Found{"none": FoundNone, "failed": ReadFailed, "marker": FoundMarker, "yes": FoundVerdict}[f[3]]}
		if in.Found == FoundVerdict {
			in.Verdict = &wire.Verdict{Ballot: f[2], Round: f[4], Verdict: wire.Yes, When: when(5, 10*second, 100*time.Millisecond)}
			p.sealed[f[2]] = f[4] + " yes"
		}
		return p.at(d), in
	case "stop":
		return p.at(d), StopIn{f[2]}
	case "acted":
		in := Acted{Ballot: f[2]}
		if len(f) > 3 && f[3] == "failed" {
			in.Failed = "broken"
		}
		in.Missed = len(f) > 3 && f[3] == "missed"
		return p.at(d), in
	case "acked":
		return p.at(d), Acked{f[2]}
	case "resign":
		return p.at(d), Resign{}
	case "tick":
		return p.at(d), ActorTick{}
	case "suspend":
		p.shift.Boot += duration(p.t, f[2])
		p.shift.Wall += duration(p.t, f[2])
		return p.at(d), ActorTick{}
	case "jump":
		p.shift.Wall += duration(p.t, f[2])
		return p.at(d), ActorTick{}
	}
	p.t.Fatalf("play: %q", step)
	return clock.Instant{}, nil
}

func duration(t *testing.T, s string) time.Duration {
	t.Helper()
	s, less, _ := strings.Cut(s, "s-")
	if less != "" {
		s += "s"
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	if less != "" {
		l, err := time.ParseDuration(less)
		if err != nil {
			t.Fatal(err)
		}
		d -= l
	}
	return d
}

// step makes one step and checks what holds for every step (A1).
func (p *play) step(now clock.Instant, in ActorInput) []ActorEffect {
	p.t.Helper()
	fx := p.a.Step(now, in)
	for _, e := range fx {
		switch e := e.(type) {
		case Send:
			if e.Vote.Answer == wire.Yes {
				p.yes[e.Vote.Ballot+" "+e.Vote.Round] = true
			}
		case Act:
			id := e.Ballot.Ballot
			round, yes := strings.CutSuffix(p.sealed[id], " yes")
			if p.acted[id]++; p.acted[id] > 1 {
				p.t.Errorf("A1: %s begins twice", id)
			}
			if !yes || !p.yes[id+" "+round] {
				p.t.Errorf("A1: %s begins, sealed %q, said yes in %v", id, p.sealed[id], p.yes)
			}
			if off := now.Boot + theirs - e.When.At(); off < -e.Bound {
				p.t.Errorf("A1: %s begins %v before its instant, with a bound of %v", id, -off, e.Bound)
			}
			if e.Late(now) {
				p.t.Errorf("A1: %s begins, and is late", id)
			}
		}
	}
	return fx
}

func (p *play) show(fx []ActorEffect) (out []string) {
	for _, e := range fx {
		switch e := e.(type) {
		case Send:
			out = append(out, strings.TrimSpace(fmt.Sprintf("send %s %s %s %s", e.Vote.Ballot, e.Vote.Round, e.Vote.Answer, e.Vote.Reason)))
		case Exchange:
			out = append(out, "exchange")
		case Look:
			out = append(out, "look "+e.Ballot)
		case Act:
			out = append(out, fmt.Sprintf("act %s %s bound=%v", e.Ballot.Ballot, e.Ballot.Data, e.Bound.Round(time.Millisecond)))
		case Tell:
			s := "report " + e.Report.Ballot + " " + e.Report.Status
			if e.Report.LateUS > 0 {
				s += " late=" + (time.Duration(e.Report.LateUS) * time.Microsecond).Round(time.Millisecond).String()
			}
			if e.Report.Text != "" {
				s += " " + e.Report.Text
			}
			if !e.First {
				s += " again"
			}
			out = append(out, s)
		}
	}
	return out
}

const agreed = `
	@0s clock T5 rtt=2ms
	@1s asked x T5 at=10s tol=100ms
	@1s say x r1 yes T5 at=10s tol=100ms
	    send x r1 yes
`

func TestActor(t *testing.T) {
	for _, c := range []struct{ name, text string }{
		{"A1: it begins at its instant, once, and reports until that is heard", agreed + `
			@1.1s verdict x r1 yes
			@9s clock T5 rtt=4ms
			@9.8s tick
			    exchange                      // T4: once more, shortly before
			@9.9s clock T5 rtt=2ms
			@10s-1ns tick
			@10s tick
			    act x data bound=6ms
			@10s verdict x r1 yes             // announced again
			@10.3s acted x
			    report x done
			@10.8s tick
			    report x done again
			@11.8s tick
			    report x done again
			@12s acked x
			@100s tick
			@101s verdict x r1 yes            // somebody asks for the outcome
			    report x done again
			@102s acked x
			@103s say x r1 yes T5 at=10s tol=100ms // and a broadcast that comes very late
			    send x r1 yes
		`},
		{"A1: what fails is reported as failed", agreed + `
			@1.1s verdict x r1 yes
			@10s tick
			    act x data bound=501ms
			@10.3s acted x failed
			    report x failed broken
		`},
		{"an instant that no leader lets through is answered no: it would be kept in mind for as long", `
			@0s clock T5
			@1s asked x T5 at=1863s tol=1s
			@1s say x r1 yes T5 at=1863s tol=1s
			    send x r1 no its instant is too far ahead
			@1s asked y T5 at=1860s tol=2s
			@1s say y r1 yes T5 at=1860s tol=2s
			    send y r1 yes
		`},
		{"A1: nothing begins without a sealed yes", agreed + `
			@1.1s verdict x r1 no
			@10s tick
			@11s tick
		`},
		{"A1: nothing begins on a yes of its own alone; T5: it looks for itself", agreed + `
			@9.5s-1ns tick
			@9.5s tick
			    look x
			@9.51s looked x failed
			@9.635s tick
			    look x
			@9.7s looked x none
			@9.825s tick
			    look x
			@9.9s looked x yes r1
			@9.9s tick
			    exchange
			@10s tick
			    act x data bound=501ms
		`},
		{"A1: what is learned after the instant, but within the tolerance, begins at once", agreed + `
			@9.5s tick
			    look x
			@10.1s looked x yes r1
			    act x data bound=506ms
		`},
		{"A1: what is learned later is late, and says so", agreed + `
			@9.5s tick
			    look x
			@10.1s+ looked x yes r1
		`},
		{"T5: it goes on looking, ever more slowly, to say that it was late", agreed + `
			@9.5s tick
			    look x
			@30s looked x failed
			@30.125s tick
			    look x
			@31s looked x none
			@31.25s-1ns tick
			@31.25s tick
			    look x
			@32s looked x yes r1
			    report x late late=22s
		`},
		{"B1: a marker is unknown for ever", agreed + `
			@9.5s tick
			    look x
			@9.6s looked x marker
			@10s tick
			@20s tick
		`},
		{"T2: who does not know the leader's clock votes no", `
			@1s asked x T5 at=10s tol=100ms
			    exchange
			@1s say x r1 yes T5 at=10s tol=100ms
			    exchange
			@1.2s say x r1 yes T5 at=10s tol=100ms   // broadcast again
			@1.5s tick
			    send x r1 no the leader's clock is not known here
			@1.6s clock T5 rtt=2ms
			@1.7s say x r1 yes T5 at=10s tol=100ms
			    send x r1 no the leader's clock is not known here
			@1.8s verdict x r1 yes
			@10s tick
		`},
		{"T2: who knows it too badly votes no, and says how badly", `
			@0s clock T5 rtt=100ms
			@1s asked x T5 at=10s tol=99ms
			    exchange
			@1s say x r1 yes T5 at=10s tol=99ms
			    exchange
			@1.1s clock T5 rtt=240ms
			@1.5s tick
			    send x r1 no the leader's clock is known here to 130ms, the tolerance is 99ms
		`},
		{"T2: an exchange in time makes it a yes", `
			@0s clock T5 rtt=100ms
			@1s asked x T5 at=10s tol=50ms
			    exchange
			@1s say x r1 yes T5 at=10s tol=50ms
			    exchange
			@1.1s clock T5 rtt=10ms
			    send x r1 yes
		`},
		{"T2: a no needs no clock", `
			@1s asked x T5 at=10s tol=1ms
			    exchange
			@1s say x r1 no T5 at=10s tol=1ms
			    send x r1 no
			@1.1s verdict x r1 yes
			@10s tick
		`},
		{"T3: a suspend over the instant", agreed + `
			@1.1s verdict x r1 yes
			@5s suspend 10s
			    report x late late=5s
		`},
		{"T3: a suspend before it: boot time goes on", agreed + `
			@1.1s verdict x r1 yes
			@5s suspend 3s
			@6.8s tick
			    exchange
			@7s tick
			    act x data bound=501ms
		`},
		{"T3: a wall clock that has jumped ahead, with no exchange since", agreed + `
			@1.1s verdict x r1 yes
			@5s jump 3s
			@10s tick
			    report x late
		`},
		{"T4: with an exchange since the jump it is known to be one", agreed + `
			@1.1s verdict x r1 yes
			@5s jump 3s
			@9s clock T5 rtt=2ms
			@10s tick
			    act x data bound=51ms
		`},
		{"T3: a wall clock that was set back stops nothing", agreed + `
			@1.1s verdict x r1 yes
			@5s jump -3s
			@10s tick
			    act x data bound=501ms
		`},
		{"T3: a paused process", agreed + `
			@1.1s verdict x r1 yes
			@10.1s+ tick
		`},
		{"T3: called too late", agreed + `
			@1.1s verdict x r1 yes
			@10s tick
			    act x data bound=501ms
			@11s acted x missed
			    report x late late=1s
		`},
		{"T4: another leader changes nothing", agreed + `
			@1.1s verdict x r1 yes
			@2s clock T6 rtt=2ms
			@10s tick
			    act x data bound=501ms
		`},
		{"T6: the round that is sealed counts", agreed + `
			@2s clock T6 rtt=2ms
			@2s say x r2 yes T6 at=10s tol=100ms
			    send x r2 yes
			@3s verdict x r1 yes
			@10s tick
			    act x data bound=501ms
			@10.1s verdict x r2 yes             // cannot be
			@10.2s acted x
			    report x done
		`},
		{"A1: a yes in another round than the one that was sealed", agreed + `
			@3s verdict x r2 yes
			    report x late its yes came in another round of the ballot
			@10s tick
			    report x late its yes came in another round of the ballot again
		`},
		{"A1: a no in the round that was sealed", agreed + `
			@3s say x r2 yes T6 at=10s tol=100ms
			    exchange
			@3.5s tick
			    send x r2 no the leader's clock is not known here
			@4s verdict x r2 yes silent=a
			    report x none
			@10s tick
			    report x none again
		`},
		{"T8: cancelled before the instant", agreed + `
			@1.1s verdict x r1 yes
			@10s-1ns stop x
			    exchange
			    report x cancelled
			@10s tick
		`},
		{"T8: cancelled before the verdict was heard", agreed + `
			@1.1s stop x
			@9.5s tick
			    look x
			@9.6s looked x yes r1
			    report x cancelled
			@10s tick
		`},
		{"T8: what has begun goes on", agreed + `
			@1.1s verdict x r1 yes
			@10s stop x
			    act x data bound=501ms
			@10.1s stop x
			@10.2s acted x
			    report x done
		`},
		{"T9: who says yes after the verdict takes part", `
			@0s clock T5 rtt=2ms
			@1s asked x T5 at=10s tol=100ms
			@1.1s verdict x r1 yes silent=a
			@4s clock T5 rtt=2ms
			@5s say x r1 yes T5 at=10s tol=100ms
			    send x r1 yes
			@10s tick
			    act x data bound=301ms
		`},
		{"T9: who says yes after the instant is late", `
			@0s clock T5 rtt=2ms
			@1s asked x T5 at=10s tol=100ms
			@1.1s verdict x r1 yes silent=a
			@11s clock T5 rtt=2ms
			@11s say x r1 yes T5 at=10s tol=100ms
			    send x r1 yes
			    report x late late=1s
		`},
		{"T9: who says no after the verdict says that it takes no part", `
			@0s clock T5 rtt=2ms
			@1s asked x T5 at=10s tol=100ms
			@1.1s verdict x r1 yes silent=a
			@5s say x r1 abstain T5 at=10s tol=100ms
			    send x r1 abstain
			    report x none
			@10s tick
			    report x none again
		`},
		{"A1: who leaves does not begin", agreed + `
			@1.1s verdict x r1 yes
			@5s resign
			    report x late it left before the instant
			@10s tick
			    report x late it left before the instant again
		`},
		{"A1: who left before it heard says so when it hears", agreed + `
			@5s resign
			@6s verdict x r1 yes
			    report x late it left before the instant
			@10s tick
			    report x late it left before the instant again
		`},
		{"A1: two incarnations of one process begin once", agreed + `
			@2s clock T6 rtt=2ms
			@2s asked x T6 at=10s tol=100ms inc=8
			@2s say x r1 yes T5 at=10s tol=100ms inc=8   // the round in which the one before it has voted
			@2s say x r2 yes T6 at=10s tol=100ms inc=8
			    send x r2 yes
			@3s verdict x r1 yes
			@10s tick
			    act x data bound=501ms
			@10.1s acted x
			    report x done
		`},
		{"an instant that is none", `
			@0s clock T5 rtt=2ms
			@1s asked x T5 at=10s tol=0s
			    exchange
			@1s say x r1 yes T5 at=10s tol=0s
			    send x r1 no the instant of the action is none
		`},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlay(t)
			switch {
			case strings.Contains(c.text, "@10.1s+ looked"):
				p.run(strings.ReplaceAll(c.text, "@10.1s+ looked x yes r1", "@10.102s looked x yes r1\nreport x late late=102ms"))
			case strings.Contains(c.text, "@10.1s+ tick"):
				p.run(strings.ReplaceAll(c.text, "@10.1s+ tick", "@10.102s tick\nreport x late late=102ms"))
			default:
				p.run(c.text)
			}
		})
	}
}

// What is remembered has bounds, and goes away.
func TestActorForgets(t *testing.T) {
	p := newPlay(t)
	p.run(`@0s clock T5 rtt=2ms`)
	for i := range MaxDeeds + 10 {
		p.step(p.at(second), Asked{wire.Ballot{Ballot: fmt.Sprint("b", i), LeftMS: 1000, When: when(5, 10*second, 100*time.Millisecond)}, wire.Place{ID: "a", Incarnation: 7}})
	}
	if n := p.a.Deeds(); n != MaxDeeds {
		t.Errorf("%d actions remembered, want %d", n, MaxDeeds)
	}
	p.run(fmt.Sprintf(`
		@1s say b1 r1 yes T5 at=10s tol=100ms
		    send b1 r1 yes
		@1s say b%d r1 yes T5 at=10s tol=100ms
		    send b%d r1 no too many actions wait here already
	`, MaxDeeds+1, MaxDeeds+1))
	p.step(p.at(24*time.Hour), ActorTick{})
	for _, fx := range p.step(p.at(24*time.Hour), ActorTick{}) {
		if l, ok := fx.(Look); ok {
			p.step(p.at(24*time.Hour), LookDone{Ballot: l.Ballot})
		}
	}
	for _, d := range p.a.deeds {
		if d.looking {
			p.step(p.at(24*time.Hour), LookDone{Ballot: d.ballot.Ballot})
			break
		}
	}
	p.step(p.at(24*time.Hour), ActorTick{})
	if n := p.a.Deeds(); n != 0 || p.a.bytes != 0 || !p.a.Next().IsZero() {
		t.Errorf("%d actions remembered, %d bytes, next at %v", n, p.a.bytes, p.a.Next())
	}
}

// An action may take longer than it is remembered: until it has returned it is kept, and nothing is due.
func TestActorLong(t *testing.T) {
	p := newPlay(t)
	p.run(agreed + `
		@1.1s verdict x r1 yes
		@9.8s tick
		    exchange
		@10s tick
		    act x data bound=501ms
		@1h tick
	`)
	if next := p.a.Next(); !next.IsZero() && next.Mono <= p.at(time.Hour).Mono {
		t.Errorf("A1: while it acts the actor wants to be woken at once, again and again: at %v, it is %v", next.Mono, p.at(time.Hour).Mono)
	}
	p.run(`
		@1h acted x
		    report x done
	`)
}

// Random inputs in random order, with clocks that drift and jump: what the play checks at each step holds (A1), and what was
// agreed on, known in time and not disturbed does begin.
func TestActorRandom(t *testing.T) {
	total := map[string]int{}
	for seed := range uint64(3000) {
		rng := rand.New(rand.NewPCG(seed, 3))
		p := newPlay(t)
		began, reports := 0, map[string]int{}
		var pending []ActorInput
		disturbed := false
		now := time.Duration(0)
		verdict, heard, agreedAt := "", time.Duration(0), time.Duration(0)
		for now < 25*second {
			now += time.Duration(rng.Int64N(int64(300 * time.Millisecond)))
			if next := p.a.Next(); !next.IsZero() && next.Mono-startAt.Mono < now && next.Mono > startAt.Mono {
				if rng.IntN(50) > 0 { // ticks come in time, mostly
					now = next.Mono - startAt.Mono
				} else {
					disturbed = true
				}
			}
			var in ActorInput = ActorTick{}
			at := p.at(now)
			switch n := rng.IntN(30); {
			case len(pending) > 0 && n < 10:
				in, pending = pending[0], pending[1:]
			case n < 16:
				rtt := time.Duration(rng.Int64N(int64(30 * time.Millisecond)))
				back := time.Duration(rng.Int64N(int64(rtt) + 1))
				token := 5 + uint64(rng.IntN(2))
				in = ClockIn{offset.Sample{Token: token, Sent: at.Add(-rtt), Received: at, Clock: at.Boot + theirs - back}}
			case n < 18:
				in = Asked{wire.Ballot{Ballot: "x", LeftMS: 1000, When: when(5, 10*second, 100*time.Millisecond)}, wire.Place{ID: "a", Incarnation: 7 + uint64(rng.IntN(2))}}
			case n < 21:
				r := rng.IntN(2)
				in = Say{SendVote{Reply: "in", When: when(5+uint64(r), 10*second, 100*time.Millisecond), Vote: wire.Vote{Ballot: "x", Round: fmt.Sprint("r", r),
					ID: "a", Incarnation: 7 + uint64(rng.IntN(2)), Answer: []string{wire.Yes, wire.Yes, wire.Yes, wire.No}[rng.IntN(4)]}}}
			case n < 23 && now > 2*second && p.a.Knows("x"):
				if verdict == "" {
					verdict = fmt.Sprintf("r%d %s", rng.IntN(2), []string{wire.Yes, wire.Yes, wire.Yes, wire.No, wire.TimedOut}[rng.IntN(5)])
					p.sealed["x"] = verdict
				}
				round, v, _ := strings.Cut(verdict, " ")
				if now < 10*second && heard == 0 {
					heard = now
				}
				in = VerdictIn{wire.Verdict{Ballot: "x", Round: round, Verdict: v, When: when(5, 10*second, 100*time.Millisecond), Silent: []string{"a"}}}
			case n == 23 && rng.IntN(10) == 0 && verdict != "":
				in, disturbed = StopIn{"x"}, true
			case n == 24 && rng.IntN(20) == 0:
				in, disturbed = Resign{}, true
			case n == 25:
				in = Acked{"x"}
			case n == 26 && rng.IntN(10) == 0:
				d := time.Duration(rng.Int64N(int64(4 * second)))
				// A suspend stops no clock but the monotonic one: the leader's goes on too.
				p.shift.Boot, p.shift.Wall, disturbed = p.shift.Boot+d, p.shift.Wall+d, true
				at = p.at(now)
			case n == 27 && rng.IntN(10) == 0:
				p.shift.Wall, disturbed = p.shift.Wall+time.Duration(rng.Int64N(int64(4*second)))-2*second, true
				at = p.at(now)
			}
			for _, fx := range p.step(at, in) {
				switch fx := fx.(type) {
				case Send:
					if now >= 9*second && fx.Vote.Answer == wire.Yes && agreedAt == 0 {
						disturbed = true // perhaps too late
					}
					if agreedAt == 0 && fx.Vote.Answer == wire.Yes && verdict == fx.Vote.Round+" yes" {
						agreedAt = now
					}
				case Look:
					done := LookDone{Ballot: "x", Found: []Found{ReadFailed, FoundNone}[rng.IntN(2)]}
					if round, v, ok := strings.Cut(verdict, " "); ok && rng.IntN(3) > 0 {
						done = LookDone{Ballot: "x", Found: FoundVerdict, Verdict: &wire.Verdict{Ballot: "x", Round: round, Verdict: v, When: when(5, 10*second, 100*time.Millisecond)}}
					}
					pending = append(pending, done)
				case Act:
					began++
					pending = append(pending, Acted{Ballot: "x", Missed: rng.IntN(20) == 0})
				case Tell:
					if fx.First {
						reports[fx.Report.Status]++
						total[fx.Report.Status]++
					}
				}
			}
		}
		n := 0
		for _, k := range reports {
			n += k
		}
		if n > 1 {
			t.Fatalf("seed %d: reports %v: want one", seed, reports)
		}
		if began == 0 && reports[wire.ReportDone]+reports[wire.ReportFailed] > 0 {
			t.Fatalf("seed %d: %v without having begun", seed, reports)
		}
		if reports[wire.ReportCancelled] > 0 && began > 0 {
			t.Fatalf("seed %d: cancelled, and begun", seed)
		}
		if !disturbed && heard > 0 && agreedAt > 0 && began != 1 {
			t.Fatalf("seed %d: said yes at %v, heard of the yes at %v, and did not begin: %v", seed, agreedAt, heard, reports)
		}
		if !disturbed && heard > 0 && agreedAt > 0 {
			total["surely"]++
		}
		total["began"] += began
	}
	for _, s := range []string{wire.ReportDone, wire.ReportLate, wire.ReportCancelled, wire.ReportNone, "began", "surely"} {
		if total[s] < 20 {
			t.Errorf("%d %s in all runs: this shows nothing: %v", total[s], s, total)
		}
	}
}
