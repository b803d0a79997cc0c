package ballot

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/clock"
	"github.com/quorate/quorate/internal/dice"
	"github.com/quorate/quorate/internal/offset"
	"github.com/quorate/quorate/internal/wire"
)

// seeds are sequences of choices in which something happens; those that once showed a bug are in testdata.
func seeds(f *testing.F) {
	for i := range 4 {
		data := make([]byte, 200)
		for j := range data {
			data[j] = byte(j*(7+i*16) + j*j*i)
		}
		f.Add(data)
	}
	f.Add([]byte{})
}

func aWhen(d *dice.Dice, token uint64, boot time.Duration) *wire.When {
	if d.Coin() {
		return nil
	}
	at := (boot + d.Time()).Microseconds()
	if d.N(4) == 0 {
		at = d.Number()
	}
	if d.N(4) == 0 {
		token = d.Unsigned()
	}
	return &wire.When{Token: token, AtUS: at, ToleranceMS: dice.Pick[int64](d, 100, 1, d.Number()), Wall: d.Text()}
}

func places2(d *dice.Dice) (l []wire.Place) {
	for range d.N(5) {
		l = append(l, wire.Place{ID: d.Name(), Incarnation: uint64(d.N(3))})
	}
	return l
}

// FuzzMachine: whatever comes over the wire, a leader's machine does not panic, tells nothing that the bucket has not confirmed (V1), answers each
// request once and by its deadline (V3), wants to be woken only later, and forgets every ballot at last.
func FuzzMachine(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		d := dice.New(data)
		m := New(5, 3*second)
		now := startAt
		type request struct {
			by       time.Duration
			answered bool
		}
		var all []*request
		confirmed := map[string]bool{}
		sealed := map[string]wire.Verdict{}
		var todo []Effect // reads and seals under way
		step := func(in Input) {
			for _, fx := range m.Step(now, in) {
				switch fx := fx.(type) {
				case Read, Seal:
					if s, ok := fx.(Seal); ok {
						sealed[s.Ballot] = s.Verdict
						if v := s.Verdict; v.Yes+v.No+v.Abstain+len(v.Silent) != v.Of || v.Yes < 0 || v.No < 0 {
							t.Fatalf("V2: %s does not add up", wire.Encode(v))
						}
					}
					todo = append(todo, fx)
				case Announce:
					if !confirmed[key(fx.Verdict)] {
						t.Fatalf("V1: announced %s", wire.Encode(fx.Verdict))
					}
				case Answer:
					r := fx.Handle.(*request)
					if r.answered {
						t.Fatal("V3: answered twice")
					}
					if r.answered = true; now.Mono > r.by {
						t.Fatalf("V3: answered %v late", now.Mono-r.by)
					}
					if v := fx.Answer.Verdict; v != nil && !confirmed[key(*v)] {
						t.Fatalf("V1: told %s", wire.Encode(v))
					}
				}
			}
			if next := m.Next(); !next.IsZero() && next.Mono <= now.Mono {
				t.Fatalf("wants to be woken at %v, it is %v", next.Mono, now.Mono)
			}
		}
		// pass lets time go by, with a tick at each moment that is asked for.
		pass := func(dt time.Duration) {
			end := now.Add(dt)
			for n := 0; ; n++ {
				next := m.Next()
				if next.IsZero() || next.Mono > end.Mono {
					break
				}
				if n > 100_000 {
					t.Fatal("it is woken without end")
				}
				now = clock.Instant{Mono: next.Mono, Boot: now.Boot + next.Mono - now.Mono, Wall: now.Wall + next.Mono - now.Mono}
				step(Tick{})
			}
			now = end
		}
		ask := func(left int64) *request {
			r := &request{by: now.Mono + wire.MS(min(max(left, 0), MaxLeft.Milliseconds()))}
			if left <= 0 {
				r.by = now.Mono + 3*second
			}
			all = append(all, r)
			return r
		}
		done := func() {
			i := d.N(len(todo))
			fx := todo[i]
			todo = slices.Delete(todo, i, i+1)
			switch fx := fx.(type) {
			case Read:
				in := ReadDone{Ballot: fx.Ballot, Found: dice.Pick(d, FoundNone, ReadFailed, FoundVerdict, FoundMarker), Electorate: places2(d)}
				if in.Found == FoundVerdict {
					v, ours := sealed[fx.Ballot]
					if !ours || d.Coin() {
						v = wire.Verdict{V: 1, Ballot: dice.Pick(d, fx.Ballot, d.Name()), Topic: d.Text(), Kind: dice.Pick(d, "majority", d.Text()), Verdict: dice.Pick(d, "yes", "no", "timed-out", "maybe"),
							Yes: int(d.Number()), Nonce: d.Text(), When: aWhen(d, 5, now.Boot), Electors: places2(d), Agreed: []string{d.Name()}}
					}
					in.Verdict = &v
					confirmed[key(v)] = true
				}
				step(in)
			case Seal:
				out := dice.Pick(d, SealYes, SealUnknown, SealNo)
				if out == SealYes {
					confirmed[key(fx.Verdict)] = true
				}
				step(SealDone{Ballot: fx.Ballot, Outcome: out})
			}
		}
		for n := 0; d.More() && n < 400; n++ {
			switch d.N(9) {
			case 0, 1:
				left := dice.Pick[int64](d, 1500, 5000, d.Number())
				step(Propose{Handle: ask(left), Round: fmt.Sprint("r", n), Nonce: fmt.Sprint("n", n), Proposal: wire.Proposal{V: 1, Ballot: d.Name(), Topic: d.Text(),
					Kind: dice.Pick(d, "majority", "two-thirds", "consensus", "2", d.Text()), LeftMS: left, When: aWhen(d, 5, now.Boot), Ask: dice.Pick(d, "", "", "", wire.AskClock, wire.AskOutcome, d.Text())}})
			case 2:
				left := d.Number()
				step(Cancel{Handle: ask(left), Ballot: d.Name(), LeftMS: left})
			case 3, 4:
				v := wire.Vote{V: 1, Ballot: d.Name(), Round: fmt.Sprint("r", d.N(max(n, 1))), ID: d.Name(), Incarnation: uint64(d.N(3)), Answer: dice.Pick(d, "yes", "no", "abstain", d.Text()), Reason: d.Text()}
				if b := m.ballots[v.Ballot]; b != nil && d.Coin() {
					v.Round = b.round
				}
				step(VoteIn{v})
			case 5:
				step(ReportIn{Handle: n, Report: wire.Report{V: 1, Ballot: d.Name(), ID: d.Name(), Incarnation: uint64(d.N(3)), Status: dice.Pick(d, "done", "late", d.Text()), LateUS: d.Number(), Text: d.Text()}})
			case 6, 7:
				if len(todo) > 0 {
					done()
				}
			case 8:
				pass(d.Time())
				if d.N(8) == 0 {
					now.Boot += d.Time() // a suspend
				}
			}
		}
		for len(todo) > 0 {
			done() // nothing fails for ever: the first of each is an answer
			pass(time.Second)
		}
		pass(time.Hour)
		for len(todo) > 0 {
			done()
		}
		pass(time.Hour)
		for i, r := range all {
			if !r.answered {
				t.Fatalf("V3: request %d of %d was never answered", i, len(all))
			}
		}
		if st := m.Stats(); st.Open != 0 || m.bytes != 0 || len(m.queue) != 0 {
			t.Fatalf("%d ballots with %d bytes are left, %d queued", st.Open, m.bytes, len(m.queue))
		}
	})
}

// FuzzActor: whatever a voter is told, an action begins once at most, with a sealed yes in a round of its own yes, and not before its instant; and the machine
// does not panic, wants to be woken only later, and forgets all of it at last (A1).
func FuzzActor(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		d := dice.New(data)
		a := NewActor(3 * second)
		now := startAt
		yes, began := map[string]bool{}, map[string]int{}
		sealed := map[string]bool{} // ballot and round: a yes that came from a leader or the key
		var acting, looking []string
		step := func(in ActorInput) {
			for _, fx := range a.Step(now, in) {
				switch fx := fx.(type) {
				case Send:
					if fx.Vote.Answer == wire.Yes {
						yes[fx.Vote.Ballot+" "+fx.Vote.Round] = true
					}
				case Look:
					looking = append(looking, fx.Ballot)
				case Act:
					id := fx.Ballot.Ballot
					ok := false
					for k := range sealed {
						ok = ok || yes[k] && len(k) > len(id) && k[:len(id)+1] == id+" "
					}
					if began[id]++; began[id] > 1 || !ok || now.Boot < fx.Target.Boot {
						t.Fatalf("A1: %q begins %d times, at %v, instant %v, said and sealed yes: %v", id, began[id], now.Boot, fx.Target.Boot, ok)
					}
					acting = append(acting, id)
				}
			}
			if _, tick := in.(ActorTick); tick {
				if next := a.Next(); !next.IsZero() && next.Mono <= now.Mono {
					t.Fatalf("wants to be woken at %v, it is %v", next.Mono, now.Mono)
				}
			}
		}
		pass := func(dt time.Duration) {
			end := now.Add(dt)
			for n := 0; n < 20_000; n++ {
				next := a.Next()
				if next.IsZero() || next.Mono > end.Mono {
					break
				}
				now = now.Add(max(next.Mono-now.Mono, 0))
				step(ActorTick{})
			}
			now = end
			step(ActorTick{})
		}
		answer := func() {
			if len(acting) > 0 {
				step(Acted{Ballot: acting[0], Missed: d.N(4) == 1, Failed: dice.Pick(d, "", d.Text())})
				acting = acting[1:]
			}
			if len(looking) > 0 {
				id := looking[0]
				looking = looking[1:]
				in := LookDone{Ballot: id, Found: dice.Pick(d, FoundMarker, ReadFailed, FoundNone, FoundVerdict)}
				if in.Found == FoundVerdict {
					v := wire.Verdict{Ballot: dice.Pick(d, id, d.Name()), Round: fmt.Sprint("r", d.N(3)), Verdict: dice.Pick(d, "yes", "no", d.Text()), When: aWhen(d, 5, now.Boot)}
					in.Verdict = &v
					sealed[id+" "+v.Round] = sealed[id+" "+v.Round] || v.Verdict == "yes" && v.Ballot == id
				}
				step(in)
			}
		}
		for n := 0; d.More() && n < 400; n++ {
			switch d.N(10) {
			case 0, 1:
				w := aWhen(d, 5, now.Boot)
				step(Asked{wire.Ballot{Ballot: d.Name(), LeftMS: d.Number(), Data: []byte(d.Text()), When: w}, wire.Place{ID: "a", Incarnation: uint64(d.N(2))}})
			case 2, 3:
				step(Say{SendVote{Vote: wire.Vote{Ballot: d.Name(), Round: fmt.Sprint("r", d.N(3)), ID: "a", Incarnation: uint64(d.N(2)), Answer: dice.Pick(d, "yes", "no", "abstain")}, When: aWhen(d, 5, now.Boot)}})
			case 4:
				v := wire.Verdict{Ballot: d.Name(), Round: fmt.Sprint("r", d.N(3)), Verdict: dice.Pick(d, "yes", "no", d.Text()), Silent: []string{d.Name()}, When: aWhen(d, 5, now.Boot)}
				sealed[v.Ballot+" "+v.Round] = sealed[v.Ballot+" "+v.Round] || v.Verdict == "yes"
				step(VerdictIn{v})
			case 5:
				rtt := d.Time()
				c := now.Boot
				if d.N(4) == 0 {
					c = time.Duration(d.Number())
				}
				step(ClockIn{offset.Sample{Token: dice.Pick[uint64](d, 5, d.Unsigned()), Sent: now.Add(-rtt), Received: now, Clock: c}})
			case 6:
				step(StopIn{d.Name()})
			case 7:
				answer()
			case 8:
				pass(d.Time())
				if d.N(8) == 0 {
					now.Boot += d.Time()
					now.Wall += d.Time() - time.Second
				}
			case 9:
				step(dice.Pick[ActorInput](d, Acked{d.Name()}, ActorTick{}, Resign{}))
			}
		}
		for range 40 {
			for len(acting)+len(looking) > 0 {
				answer()
			}
			pass(10 * time.Minute)
		}
		if a.Deeds() != 0 || a.bytes != 0 {
			t.Fatalf("%d deeds with %d bytes are remembered", a.Deeds(), a.bytes)
		}
	})
}

// FuzzVoter: whatever it hears, a voter is asked once for each ballot, and repeats only what it has said.
func FuzzVoter(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		d := dice.New(data)
		v := NewVoter("a", 1)
		now := startAt
		asked, said := map[string]bool{}, map[string]string{}
		for n := 0; d.More() && n < 400; n++ {
			var in VoterInput = Decided{Ballot: d.Name(), Answer: dice.Pick(d, "yes", "no", "abstain", d.Text()), Reason: d.Text()}
			if d.Coin() {
				in = BallotIn{wire.Ballot{Ballot: d.Name(), Round: d.Text(), Topic: d.Text(), Kind: d.Text(), LeftMS: d.Number(), Token: d.Unsigned(), Electors: places2(d), When: aWhen(d, 5, now.Boot)}, "in"}
			}
			for _, fx := range v.Step(now, in) {
				switch fx := fx.(type) {
				case Decide:
					if asked[fx.Ballot.Ballot] {
						t.Fatalf("asked twice about %q", fx.Ballot.Ballot)
					}
					asked[fx.Ballot.Ballot] = true
				case SendVote:
					id := fx.Vote.Ballot
					if s, ok := said[id]; ok && s != fx.Vote.Answer+fx.Vote.Reason || !asked[id] || len(fx.Vote.Reason) > MaxReason {
						t.Fatalf("said %q about %q, now %q %q", s, id, fx.Vote.Answer, fx.Vote.Reason)
					}
					said[id] = fx.Vote.Answer + fx.Vote.Reason
				}
			}
			if dt := dice.Pick[time.Duration](d, 0, time.Second); n%8 == 0 {
				now = now.Add(dt)
			}
		}
	})
}
