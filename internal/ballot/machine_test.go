package ballot

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/wire"
)

// The scripts count with a lease of 3 s and mostly 1.5 s left: margin 375 ms, so voting closes at 1.125 s and requests
// are answered by 1.40625 s. Pace of repeats 250 ms; broadcasts after 0.5, 1, 2, 3, 3 s.

const opened = `
	@0s propose b majority a,b,c from=p1
	    read b
	@1ms read b none
	    broadcast b r1 majority of=3 left=1.124s
`

func TestSealedBeforeTold(t *testing.T) {
	s := newScript(t, 40)
	s.run(opened + `
	@2ms vote b r1 a yes
	@3ms vote b r1 b yes          // settled, and still nothing is told
	    seal b yes by n1 2-0-0 of 3 silent=c
	@4ms vote b r1 c no
	@5ms tick
	@6ms sealed b yes             // V1: only now
	    answer p1 b yes by n1
	    announce b yes by n1
	`)
	v := s.sealed["b"]
	want := wire.Verdict{V: 1, Ballot: "b", Topic: "deploy", Kind: "majority", Verdict: "yes", Yes: 2, Of: 3, Silent: []string{"c"},
		Electors:  []wire.Place{{ID: "a", Incarnation: 1}, {ID: "b", Incarnation: 1}, {ID: "c", Incarnation: 1}},
		DecidedAt: "2023-11-14T22:13:20.003000000Z", Token: 40, Round: "r1", Nonce: "n1"}
	if !reflect.DeepEqual(v, want) {
		t.Errorf("sealed record\n got %+v\nwant %+v", v, want)
	}
	if got := s.m.Stats(); got.Sealed != 1 || got.Votes != 2 || got.Late != 1 || got.Open != 0 {
		t.Errorf("stats %+v, want 1 sealed, 2 votes, 1 late, 0 open", got)
	}
	if !s.m.Next().IsZero() {
		t.Errorf("next step at %v, want none", s.m.Next())
	}
}

func TestReasonsAreNamed(t *testing.T) {
	s := newScript(t, 40)
	s.run(`
	@0s propose b majority a,b,c,d,e
	    read b
	@1ms read b none
	    broadcast b r1 majority of=5 left=1.124s
	@2ms vote b r1 c abstain not my business
	@3ms vote b r1 a no the disk is full
	@4ms vote b r1 b no
	    seal b no by n1 0-2-1 of 5 silent=d,e
	`)
	if got, want := s.sealed["b"].Reasons, []wire.Reason{{Member: "a", Text: "the disk is full"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("reasons %v, want %v: of those who said no, and gave one", got, want)
	}
	long := newScript(t, 40)
	long.run(`
	@0s propose b consensus a from=p1
	    read b
	@1ms read b none
	    broadcast b r1 consensus of=1 left=1.124s
	`)
	long.step(startAt.Add(2*time.Millisecond), VoteIn{wire.Vote{Ballot: "b", Round: "r1", ID: "a", Incarnation: 1, Answer: wire.No,
		Reason: strings.Repeat("ä", MaxReason)}})
	if got := long.sealed["b"].Reasons[0].Text; len(got) != MaxReason || strings.Trim(got, "ä") != "" {
		t.Errorf("a long reason became %d bytes %q, want %d whole letters", len(got), got, MaxReason/2)
	}
}

func TestVotes(t *testing.T) {
	for _, c := range []struct {
		name, vote string
		count      func(Stats) uint64
	}{
		{"V2 the same vote again is counted once", "a yes", func(s Stats) uint64 { return s.Repeated }},
		{"V2 a changed second vote is refused", "a no", func(s Stats) uint64 { return s.Changed }},
		{"V2 another incarnation of an elector is refused", "b#2 yes", func(s Stats) uint64 { return s.Foreign }},
		{"V2 nobody of the electorate is refused", "z yes", func(s Stats) uint64 { return s.Foreign }},
		{"a word that is no answer is refused", "b maybe", func(s Stats) uint64 { return s.Malformed }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScript(t, 40)
			s.run(opened + `
			@2ms vote b r1 a yes
			@3ms vote b r1 ` + c.vote + `
			@4ms vote b r1 ` + c.vote + `
			`)
			if st := s.m.Stats(); c.count(st) != 2 || st.Votes != 1 {
				t.Errorf("stats %+v, want 1 vote counted and 2 of this sort", st)
			}
			s.run(`
			@5ms vote b r1 c yes
			    seal b yes by n1 2-0-0 of 3 silent=b
			`)
		})
	}
	t.Run("votes of another round are refused", func(t *testing.T) {
		s := newScript(t, 41)
		s.run(opened + `
		@2ms vote b r0 a yes
		@3ms vote b r0 b yes
		@4ms vote b r1 c yes
		`)
		if st := s.m.Stats(); st.OtherRound != 2 || st.Votes != 1 {
			t.Errorf("stats %+v, want 2 of another round, 1 counted", st)
		}
	})
	t.Run("votes before the round is open and of unknown ballots are refused", func(t *testing.T) {
		s := newScript(t, 41)
		s.run(`
		@0s propose b majority a,b,c
		    read b
		@1ms vote b r1 a yes
		@2ms vote x r1 a yes
		@3ms read b none
		    broadcast b r1 majority of=3 left=1.122s
		`)
		if st := s.m.Stats(); st.Stray != 2 || st.Votes != 0 {
			t.Errorf("stats %+v, want 2 stray", st)
		}
	})
	t.Run("late votes are refused before and after the seal is confirmed", func(t *testing.T) {
		s := newScript(t, 41)
		s.run(opened + `
		@1125ms tick
		    seal b timed-out by n1 0-0-0 of 3 silent=a,b,c
		@1126ms vote b r1 a yes
		@1127ms sealed b yes
		    answer p1 b timed-out by n1
		    announce b timed-out by n1
		@1128ms vote b r1 a yes
		`)
		if st := s.m.Stats(); st.Late != 2 || st.Votes != 0 {
			t.Errorf("stats %+v, want 2 late", st)
		}
	})
	t.Run("the electorate is that of the moment at which the round opens", func(t *testing.T) {
		newScript(t, 41).run(`
		@0s propose b majority a,b,c
		    read b
		@1ms read b failed
		@251ms tick
		    read b
		@260ms read b none a,b#2,d,e                   // c has left meanwhile, b has come back, d and e have joined
		    broadcast b r1 majority of=4 left=865ms
		@261ms vote b r1 b yes
		@261ms vote b r1 c yes
		@261ms vote b r1 a yes
		@262ms vote b r1 b#2 yes
		@263ms vote b r1 e yes
		    seal b yes by n1 3-0-0 of 4 silent=d
		`)
	})
	t.Run("an id in the roster twice counts once, as its newest incarnation", func(t *testing.T) {
		newScript(t, 41).run(`
		@0s propose b majority a#1,a#2,a#2,b#1
		    read b
		@1ms read b none
		    broadcast b r1 majority of=2 left=1.124s
		@2ms vote b r1 a#1 yes
		@3ms vote b r1 a#2 yes
		@4ms vote b r1 b yes
		    seal b yes by n1 2-0-0 of 2 silent=
		`)
	})
}

func TestEarly(t *testing.T) {
	t.Run("V2 lost as soon as winning is impossible", func(t *testing.T) {
		newScript(t, 40).run(opened + `
		@2ms vote b r1 a no
		@3ms vote b r1 b no
		    seal b no by n1 0-2-0 of 3 silent=c
		`)
	})
	t.Run("V2 more than there are is lost before anybody is asked", func(t *testing.T) {
		newScript(t, 40).run(`
		@0s propose b 4 a,b,c
		    read b
		@1ms read b none
		    seal b no by n1 0-0-0 of 3 silent=a,b,c
		`)
	})
	t.Run("V2 consensus ends at the first abstention", func(t *testing.T) {
		newScript(t, 40).run(`
		@0s propose b consensus a,b,c
		    read b
		@1ms read b none
		    broadcast b r1 consensus of=3 left=1.124s
		@2ms vote b r1 a abstain
		    seal b no by n1 0-0-1 of 3 silent=b,c
		`)
	})
}

func TestDeadlines(t *testing.T) {
	t.Run("voting is open one nanosecond before it closes", func(t *testing.T) {
		newScript(t, 40).run(opened + `
		@2ms vote b r1 a yes
		@600ms tick
		    broadcast b r1 majority of=3 left=525ms
		@1.125s-1ns vote b r1 b yes
		    seal b yes by n1 2-0-0 of 3 silent=c
		`)
	})
	t.Run("a vote at the moment it closes is late, without a tick", func(t *testing.T) {
		s := newScript(t, 40)
		s.run(opened + `
		@2ms vote b r1 a yes
		@1.125s vote b r1 b yes
		    seal b timed-out by n1 1-0-0 of 3 silent=b,c
		`)
		if st := s.m.Stats(); st.Late != 1 {
			t.Errorf("stats %+v, want 1 late", st)
		}
	})
	t.Run("V3 unknown at the moment the answer is due, not a nanosecond before, and the seal goes on", func(t *testing.T) {
		newScript(t, 40).run(opened + `
		@1.125s tick
		    seal b timed-out by n1 0-0-0 of 3 silent=a,b,c
		@1.40625s-1ns tick
		@1.40625s tick
		    answer p1 unknown
		@2s propose b majority a,b from=p2   // asked again: the same ballot
		@3s sealed b yes
		    answer p2 b timed-out by n1
		    announce b timed-out by n1
		@4s propose b majority a,b from=p3   // from memory
		    answer p3 b timed-out by n1
		`)
	})
	t.Run("V3 requests are answered by their own deadlines", func(t *testing.T) {
		newScript(t, 40).run(opened + `
		@2ms propose b majority a,b from=p2 left=100ms
		@95.75ms-1ns tick
		@95.75ms tick
		    answer p2 unknown
		@96ms vote b r1 a yes
		@97ms vote b r1 b yes
		    seal b yes by n1 2-0-0 of 3 silent=c
		@98ms sealed b yes
		    answer p1 b yes by n1
		    announce b yes by n1
		`)
	})
	t.Run("a later deadline does not prolong an open round", func(t *testing.T) {
		newScript(t, 40).run(opened + `
		@2ms propose b majority a,b,c from=p2 left=60s
		@1.125s tick
		    seal b timed-out by n1 0-0-0 of 3 silent=a,b,c
		@1.126s sealed b yes
		    answer p1 b timed-out by n1
		    answer p2 b timed-out by n1
		    announce b timed-out by n1
		`)
	})
	t.Run("a short time left is served in its own measure", func(t *testing.T) {
		newScript(t, 40).run(`
		@0s propose b majority a,b,c left=4ms
		    read b
		@1ms read b none
		    broadcast b r1 majority of=3 left=2ms
		@3ms-1ns tick
		@3ms tick
		    seal b timed-out by n1 0-0-0 of 3 silent=a,b,c
		@3.75ms-1ns tick
		@3.75ms tick
		    answer p1 unknown
		`)
	})
	t.Run("more than ten minutes is cut to ten minutes", func(t *testing.T) {
		for _, left := range []int64{600_001, 3_600_000, 1 << 62} {
			m := New(40, 3*second)
			m.Step(startAt, Propose{Handle: "p", Proposal: wire.Proposal{Ballot: "b", Topic: "t", Kind: "majority", LeftMS: left}})
			if got, want := m.Next().Sub(startAt), 10*time.Minute-125*time.Millisecond; got != want {
				t.Errorf("left_ms %d is answered after %v, want %v", left, got, want)
			}
		}
	})
	t.Run("a broadcast is repeated while somebody is silent, ever more rarely", func(t *testing.T) {
		newScript(t, 40).run(`
		@0s propose b majority a,b,c left=20s
		    read b
		@0s read b none
		    broadcast b r1 majority of=3 left=19.5s
		@500ms-1ns tick
		@500ms tick
		    broadcast b r1 majority of=3 left=19s
		@1.5s-1ns tick
		@1.5s tick
		    broadcast b r1 majority of=3 left=18s
		@3.5s-1ns tick
		@3.5s tick
		    broadcast b r1 majority of=3 left=16s
		@6.5s-1ns tick
		@6.5s tick
		    broadcast b r1 majority of=3 left=13s
		@9.5s-1ns tick
		@9.5s tick
		    broadcast b r1 majority of=3 left=10s
		`)
	})
	t.Run("the wall and boot clocks may jump: waits are on the monotonic clock", func(t *testing.T) {
		s := newScript(t, 40)
		s.run(opened)
		jumped := startAt.Add(2 * time.Millisecond)
		jumped.Wall += time.Hour
		jumped.Boot += time.Hour
		if got := s.step(jumped, Tick{}); len(got) != 0 {
			t.Errorf("after a jump of the wall clock: got %v, want nothing", s.show(got))
		}
	})
	t.Run("a machine that ran late does everything at its next step", func(t *testing.T) {
		newScript(t, 40).run(opened + `
		@1h tick
		    seal b timed-out by n1 0-0-0 of 3 silent=a,b,c
		    answer p1 unknown
		@1h sealed b yes
		    announce b timed-out by n1
		`)
	})
}

func TestUnknownSeal(t *testing.T) {
	const decided = opened + `
	@2ms vote b r1 a yes
	@3ms vote b r1 b yes
	    seal b yes by n1 2-0-0 of 3 silent=c
	`
	t.Run("L4 read back: our own nonce confirms it", func(t *testing.T) {
		newScript(t, 40).run(decided + `
		@10ms sealed b unknown
		    read b
		@11ms read b yes by n1
		    answer p1 b yes by n1
		    announce b yes by n1
		`)
	})
	t.Run("L4 read back: nothing there, so it is repeated unchanged, paced, until confirmed", func(t *testing.T) {
		s := newScript(t, 40)
		s.run(decided + `
		@10ms sealed b unknown
		    read b
		@11ms read b none
		@12ms vote b r1 c yes          // changes nothing any more
		@253ms-1ns tick
		@253ms tick
		    seal b yes by n1 2-0-0 of 3 silent=c
		@900ms sealed b unknown
		    read b
		@1s read b none
		    seal b yes by n1 2-0-0 of 3 silent=c
		@1.1s sealed b unknown
		    read b
		@1.2s read b failed
		@1.40625s tick                 // V3
		    answer p1 unknown
		@1.45s-1ns tick
		@1.45s tick
		    read b
		@1.46s read b none
		    seal b yes by n1 2-0-0 of 3 silent=c
		@20m sealed b yes              // for ever, while the term lasts
		    announce b yes by n1
		`)
		if st := s.m.Stats(); st.Resealed != 3 || st.Sealed != 1 || st.Unknown != 1 {
			t.Errorf("stats %+v, want 3 resealed, 1 sealed, 1 unknown", st)
		}
	})
	t.Run("while nobody waits for it, it is repeated ever more slowly, and given up at last", func(t *testing.T) {
		s := newScript(t, 40)
		s.run(decided + `
		@10ms sealed b unknown
		    read b
		@11ms read b failed
		@1.40625s tick
		    answer p1 unknown
		    read b
		@2s read b none
		    seal b yes by n1 2-0-0 of 3 silent=c
		@2.1s sealed b unknown
		    read b
		@2.1s read b failed
		@2.6s-1ns tick
		@2.6s tick
		    read b
		@2.6s read b none               // sent at 2 s, and again a second after that
		@3s-1ns tick
		@3s tick
		    seal b yes by n1 2-0-0 of 3 silent=c
		@3.1s sealed b unknown
		    read b
		@3.1s read b failed
		@3.2s propose b majority a,b,c from=p2
		@3.45s-1ns tick
		@3.45s tick                     // somebody does
		    read b
		@3.5s read b none
		    seal b yes by n1 2-0-0 of 3 silent=c
		@3.6s sealed b unknown
		    read b
		@4.60625s tick
		    answer p2 unknown
		@10m3ms-1ns read b failed
		@10m1s tick
		`)
		if st := s.m.Stats(); st.Open != 0 {
			t.Errorf("%d ballots open after %v, want none", st.Open, Retention)
		}
	})
	t.Run("the first try lands late and refuses the repeat: found by nonce", func(t *testing.T) {
		newScript(t, 40).run(decided + `
		@10ms sealed b unknown
		    read b
		@300ms read b none
		    seal b yes by n1 2-0-0 of 3 silent=c
		@301ms sealed b no
		    read b
		@302ms read b yes by n1
		    answer p1 b yes by n1
		    announce b yes by n1
		`)
	})
	t.Run("V1 a seal that finds another verdict adopts it", func(t *testing.T) {
		for _, outcome := range []string{"no", "unknown"} {
			s := newScript(t, 40)
			s.run(decided + `
			@10ms sealed b ` + outcome + `
			    read b
			@11ms read b timed-out by n0
			    answer p1 b timed-out by n0
			    announce b timed-out by n0
			@12ms propose b majority a,b,c from=p2
			    answer p2 b timed-out by n0
			`)
			if st := s.m.Stats(); st.Adopted != 1 || st.Sealed != 0 {
				t.Errorf("stats %+v, want 1 adopted, 0 sealed", st)
			}
		}
	})
	t.Run("a refused seal that finds a marker is unknown for ever", func(t *testing.T) {
		newScript(t, 40).run(decided + `
		@10ms sealed b no
		    read b
		@11ms read b marker
		    answer p1 unknown
		@12ms propose b majority a,b,c from=p2
		    read b
		@13ms read b marker
		    answer p2 unknown
		`)
	})
	t.Run("V1 a refused seal is never sealed again, whatever a stale read shows", func(t *testing.T) {
		s := newScript(t, 40)
		s.run(decided + `
		@10ms sealed b no
		    read b
		@11ms read b none
		@261ms-1ns tick
		@261ms tick
		    read b
		@262ms read b none
		@1.3s tick
		    read b
		@1.31s read b none
		@1.40625s tick
		    answer p1 unknown
		`)
		if st := s.m.Stats(); st.Open != 0 {
			t.Errorf("%d ballots open, want none: it cannot be sealed here and nobody waits", st.Open)
		}
	})
}

func TestAskedAgain(t *testing.T) {
	t.Run("a sealed verdict is answered and nobody is asked", func(t *testing.T) {
		newScript(t, 41).run(`
		@0s propose b majority a,b,c
		    read b
		@1ms read b no by n0
		    answer p1 b no by n0
		@2ms propose b majority a,b,c from=p2
		    answer p2 b no by n0
		`)
	})
	t.Run("a sealed verdict is answered also when nobody votes any more", func(t *testing.T) {
		newScript(t, 41).run(`
		@0s propose b majority
		    read b
		@1ms read b no by n0
		    answer p1 b no by n0
		`)
	})
	t.Run("a ballot under a marker is never run", func(t *testing.T) {
		newScript(t, 41).run(`
		@0s propose b majority a,b,c
		    read b
		@1ms read b marker
		    answer p1 unknown
		`)
	})
	t.Run("all who asked are answered, whenever they asked", func(t *testing.T) {
		newScript(t, 41).run(`
		@0s propose b majority a,b,c from=p1 round=r1 nonce=n1
		    read b
		@1ms propose b majority a,b,c,d from=p2 round=r2 nonce=n2 // not open yet: the newest electorate
		@2ms read b none
		    broadcast b r1 majority of=4 left=1.124s
		@3ms propose b majority a from=p3 round=r3 nonce=n3       // open: frozen
		@4ms vote b r1 a yes
		@5ms vote b r1 b yes
		@6ms vote b r1 c yes
		    seal b yes by n1 3-0-0 of 4 silent=d
		@7ms propose b majority a from=p4
		@8ms sealed b yes
		    answer p1 b yes by n1
		    answer p2 b yes by n1
		    answer p3 b yes by n1
		    answer p4 b yes by n1
		    announce b yes by n1
		`)
	})
	t.Run("another question under the same id is refused, in every phase", func(t *testing.T) {
		newScript(t, 41).run(`
		@0s propose b majority a,b,c from=p1
		    read b
		@1ms propose b majority a,b,c from=p2 topic=destroy
		    answer p2 error bad
		@2ms read b none
		    broadcast b r1 majority of=3 left=1.123s
		@3ms propose b consensus a,b,c from=p3
		    answer p3 error bad
		@4ms propose b majority a,b,c from=p4 data=x
		    answer p4 error bad
		@5ms vote b r1 a no
		@6ms vote b r1 b no
		    seal b no by n1 0-2-0 of 3 silent=c
		@7ms sealed b yes
		    answer p1 b no by n1
		    announce b no by n1
		@8ms propose b majority a,b,c from=p5 topic=destroy
		    answer p5 error bad
		@9ms propose c majority a,b,c from=p6
		    read c
		@10ms read c yes by n0 topic=destroy
		    answer p6 error bad
		`)
	})
	t.Run("a failed read is repeated, paced; no time left means unknown and nobody was asked", func(t *testing.T) {
		s := newScript(t, 41)
		s.run(`
		@0s propose b majority a,b,c
		    read b
		@10ms read b failed
		@260ms-1ns tick
		@260ms tick
		    read b
		@1.2s read b none
		    answer p1 unknown
		@2s propose b majority a,b,c from=p2
		    read b
		@2.1s read b failed
		@3.40625s tick
		    answer p2 unknown
		`)
		if st := s.m.Stats(); st.Open != 0 || st.Rounds != 0 {
			t.Errorf("stats %+v, want nothing open, no round", st)
		}
		s.run(`
		@4s propose b majority a,b,c from=p3 // a read without an answer
		    read b
		@6s tick
		    answer p3 unknown
		@7s propose b majority a,b,c from=p4
		@7.1s read b none
		    broadcast b r1 majority of=3 left=1.025s
		`)
	})
	t.Run("a read answered after all have gone opens nothing", func(t *testing.T) {
		s := newScript(t, 41)
		s.run(`
		@0s propose b majority a,b,c
		    read b
		@6s tick
		    answer p1 unknown
		@7s read b none
		`)
		if st := s.m.Stats(); st.Open != 0 {
			t.Errorf("%d open, want none", st.Open)
		}
	})
	t.Run("verdicts are remembered for ten minutes, and not more than a bound", func(t *testing.T) {
		s := newScript(t, 41)
		s.run(`
		@0s propose b majority a
		    read b
		@1s read b no by n0
		    answer p1 b no by n0
		@601s-1ns propose b majority a from=p2
		    answer p2 b no by n0
		@601s propose b majority a from=p3
		    read b
		`)
		at := startAt.Add(700 * second)
		for i := range MaxFinished + 50 {
			id := fmt.Sprintf("x%d", i)
			s.m.Step(at, Propose{Proposal: wire.Proposal{Ballot: id, Topic: "t", Kind: "majority", LeftMS: 1}})
			s.m.Step(at, ReadDone{Ballot: id, Found: FoundVerdict, Verdict: &wire.Verdict{Ballot: id, Topic: "t", Kind: "majority", Verdict: "yes"}})
		}
		if len(s.m.finished) != MaxFinished || len(s.m.order) != MaxFinished {
			t.Errorf("%d verdicts remembered, want %d", len(s.m.finished), MaxFinished)
		}
	})
	t.Run("what a foreign hand put under the key is told to nobody", func(t *testing.T) {
		for _, v := range []wire.Verdict{{Ballot: "other", Verdict: "yes"}, {Ballot: "b", Verdict: "unknown"}, {Ballot: "b"}} {
			v.Topic, v.Kind = "deploy", "majority"
			s := newScript(t, 41)
			s.run("@0s propose b majority a\n read b")
			if got := s.show(s.step(startAt, ReadDone{Ballot: "b", Found: FoundVerdict, Verdict: &v})); len(got) != 1 || got[0] != "answer p1 unknown" {
				t.Errorf("found %+v: got %v, want unknown", v, got)
			}
		}
	})
}

func TestCancel(t *testing.T) {
	t.Run("before the seal it seals timed-out", func(t *testing.T) {
		newScript(t, 40).run(opened + `
		@2ms vote b r1 a yes
		@3ms cancel b
		    seal b timed-out by n1 1-0-0 of 3 silent=b,c
		@4ms vote b r1 b yes
		@5ms sealed b yes
		    answer p1 b timed-out by n1
		    answer c1 b timed-out by n1
		    announce b timed-out by n1
		`)
	})
	t.Run("after the seal was sent the seal is the answer", func(t *testing.T) {
		newScript(t, 40).run(opened + `
		@2ms vote b r1 a yes
		@3ms vote b r1 b yes
		    seal b yes by n1 2-0-0 of 3 silent=c
		@4ms cancel b
		@5ms sealed b yes
		    answer p1 b yes by n1
		    answer c1 b yes by n1
		    announce b yes by n1
		@6ms cancel b from=c2
		    answer c2 b yes by n1
		`)
	})
	t.Run("while the key is read nobody is asked any more", func(t *testing.T) {
		newScript(t, 40).run(`
		@0s propose b majority a,b,c
		    read b
		@1ms cancel b
		@2ms read b none
		    seal b timed-out by n1 0-0-0 of 3 silent=a,b,c
		`)
	})
	t.Run("of a former leader's ballot: its seal, or no such ballot", func(t *testing.T) {
		newScript(t, 40).run(`
		@0s cancel b
		    read b
		@1ms read b yes by n0
		    answer c1 b yes by n0
		@2ms cancel c from=c2
		    read c
		@3ms read c none
		    answer c2 error no-ballot
		@4ms cancel d from=c3
		    read d
		@5ms propose d majority a from=p1
		@6ms read d none
		    seal d timed-out by n1 0-0-0 of 1 silent=a
		@7ms cancel e from=c4 left=100ms
		    read e
		@100.75ms-1ns tick
		@100.75ms tick
		    answer c4 unknown
		@101ms cancel .. from=c5
		    answer c5 error bad
		`)
	})
}

func TestRefused(t *testing.T) {
	good := wire.Proposal{V: 1, Ballot: "b", Topic: "t", Kind: "majority", LeftMS: 1000}
	for name, change := range map[string]func(*wire.Proposal){
		"no ballot id":       func(p *wire.Proposal) { p.Ballot = "" },
		"a wild ballot id":   func(p *wire.Proposal) { p.Ballot = "a.b" },
		"an unknown kind":    func(p *wire.Proposal) { p.Kind = "plurality" },
		"at least nobody":    func(p *wire.Proposal) { p.Kind = "0" },
		"no topic":           func(p *wire.Proposal) { p.Topic = "" },
		"a long topic":       func(p *wire.Proposal) { p.Topic = strings.Repeat("x", wire.MaxTopic+1) },
		"a topic of bytes":   func(p *wire.Proposal) { p.Topic = "\xff" },
		"too much data":      func(p *wire.Proposal) { p.Data = make([]byte, wire.MaxData+1) },
		"no time left":       func(p *wire.Proposal) { p.LeftMS = 0 },
		"a deadline in past": func(p *wire.Proposal) { p.LeftMS = -5 },
	} {
		t.Run(name, func(t *testing.T) {
			p := good
			change(&p)
			m := New(40, 3*second)
			got := m.Step(startAt, Propose{Handle: 1, Proposal: p})
			if len(got) != 1 {
				t.Fatalf("got %v, want one answer", got)
			}
			a, ok := got[0].(Answer)
			if !ok || a.Handle != 1 || a.Answer.Error != CodeBad || a.Answer.Token != 40 || a.Answer.V != wire.Version {
				t.Fatalf("got %+v, want a bad request of token 40", got[0])
			}
			if strings.Contains(a.Answer.Text, "\n") || a.Answer.Text == "" || len(a.Answer.Text) > 250 {
				t.Errorf("text %q, want one short line", a.Answer.Text)
			}
		})
	}
	t.Run("nobody votes", func(t *testing.T) {
		newScript(t, 40).run(`
		@0s propose b majority
		    read b
		@1ms read b none
		    answer p1 error no-voters
		`)
	})
	t.Run("too many ballots", func(t *testing.T) {
		m := New(40, 3*second)
		p := good
		for i := range MaxOpen {
			p.Ballot = fmt.Sprintf("b%d", i)
			if e, ok := m.Step(startAt, Propose{Handle: i, Proposal: p})[0].(Read); !ok {
				t.Fatalf("ballot %d: got %v, want a read", i, e)
			}
		}
		p.Ballot = "one-more"
		if a, ok := m.Step(startAt, Propose{Proposal: p})[0].(Answer); !ok || a.Answer.Error != CodeBusy {
			t.Errorf("got %+v, want busy", a)
		}
		p.Ballot = "b7"
		if got := m.Step(startAt, Propose{Proposal: p}); len(got) != 0 {
			t.Errorf("one that is open already: got %v, want to wait with the others", got)
		}
		// All go at their deadline, and with them the room they took.
		if got := m.Step(startAt.Add(time.Minute), Tick{}); len(got) != MaxOpen+1 {
			t.Errorf("%d answered at the deadline, want %d", len(got), MaxOpen+1)
		}
	})
	t.Run("too much data at once, and too many requests for one", func(t *testing.T) {
		m := New(40, 3*second)
		p := good
		p.Data = make([]byte, wire.MaxData)
		busy := 0
		for i := range MaxOpenBytes/wire.MaxData + 1 {
			p.Ballot = fmt.Sprintf("b%d", i)
			if a, ok := m.Step(startAt, Propose{Proposal: p})[0].(Answer); ok && a.Answer.Error == CodeBusy {
				busy++
			}
		}
		if busy != 1 {
			t.Errorf("%d of %d refused, want the last", busy, MaxOpenBytes/wire.MaxData+1)
		}
		m.Step(startAt, ReadDone{Ballot: "b0", Found: FoundMarker})
		p.Ballot = "again"
		if _, ok := m.Step(startAt, Propose{Proposal: p})[0].(Read); !ok {
			t.Errorf("a ballot that ended did not give back its room")
		}
		// One that a cancellation has named takes its room when it is proposed.
		for _, id := range []string{"c1", "c2"} {
			m.Step(startAt, Cancel{Ballot: id})
			p.Ballot = id
			got := m.Step(startAt, Propose{Proposal: p})
			if a, ok := append(got, nil)[0].(Answer); !ok || a.Answer.Error != CodeBusy {
				t.Errorf("%s, cancelled before, beyond the bound: got %+v, want busy", id, got)
			}
		}
		p.Ballot = "again"
		busy = 0
		for range MaxAsks {
			busy += len(m.Step(startAt, Propose{Proposal: p}))
		}
		if busy != 1 {
			t.Errorf("%d of %d requests for one ballot refused, want the last", busy, MaxAsks+1)
		}
	})
	t.Run("an answer to what was not asked panics", func(t *testing.T) {
		for _, in := range []Input{ReadDone{Ballot: "x"}, SealDone{Ballot: "b"}, SealDone{Ballot: "x"}} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%#v was taken", in)
					}
				}()
				m := New(40, 3*second)
				m.Step(startAt, Propose{Proposal: good})
				m.Step(startAt, in)
			}()
		}
	})
}

func TestManyBallots(t *testing.T) {
	newScript(t, 40).run(`
	@0s propose x majority a,b,c from=px nonce=nx
	    read x
	@0s propose y majority a,b,c from=py nonce=ny left=1s
	    read y
	@0s propose z majority a,b,c from=pz nonce=nz
	    read z
	@1ms read z none
	    broadcast z r1 majority of=3 left=1.124s
	@2ms read y none
	    broadcast y r1 majority of=3 left=748ms
	@3ms read x none
	    broadcast x r1 majority of=3 left=1.122s
	@4ms vote y r1 a yes
	@5ms vote x r1 a yes
	@6ms vote x r1 b yes
	    seal x yes by nx 2-0-0 of 3 silent=c
	@500ms tick
	@502ms tick // in order of what is due
	    broadcast z r1 majority of=3 left=623ms
	    broadcast y r1 majority of=3 left=248ms
	@750ms tick
	    seal y timed-out by ny 1-0-0 of 3 silent=b,c
	@751ms sealed x yes
	    answer px x yes by nx
	    announce x yes by nx
	@937.5ms tick
	    answer py unknown
	@1.125s tick
	    seal z timed-out by nz 0-0-0 of 3 silent=a,b,c
	@1.126s sealed z yes
	    answer pz z timed-out by nz
	    announce z timed-out by nz
	@1.127s sealed y yes
	    announce y timed-out by ny
	`)
}

// TestRIAPS holds the faults of the ancestor's votes (design section 8) that a leader's machine can have.
func TestRIAPS(t *testing.T) {
	t.Run("a vote timeout of 1500 means milliseconds, not 1500 seconds", func(t *testing.T) {
		m := New(40, 3*second)
		m.Step(startAt, Propose{Proposal: wire.Proposal{Ballot: "b", Topic: "t", Kind: "majority", LeftMS: 1500}})
		m.Step(startAt, ReadDone{Ballot: "b", Found: FoundNone, Electorate: []wire.Place{{ID: "a", Incarnation: 1}}})
		m.Step(startAt.Add(1500*time.Millisecond), Tick{})
		if got := m.ballots["b"]; got.phase != sealing || len(got.asks) != 0 {
			t.Errorf("phase %v with %d waiting after 1.5 s, want sealing and none", got.phase, len(got.asks))
		}
	})
	t.Run("duplicate votes do not count", func(t *testing.T) {
		s := newScript(t, 40)
		s.run(opened + `
		@2ms vote b r1 a yes
		@3ms vote b r1 a yes
		@4ms vote b r1 a yes
		@5ms tick
		`)
		if got := s.m.ballots["b"]; got.count.yes != 1 || got.phase != open {
			t.Errorf("%d yes after three of one member, want 1 and an open ballot", got.count.yes)
		}
	})
	t.Run("a won majority does not wait for a dead member", func(t *testing.T) {
		newScript(t, 40).run(opened + `
		@2ms vote b r1 a yes
		@3ms vote b r1 c yes          // b is dead
		    seal b yes by n1 2-0-0 of 3 silent=b
		@4ms sealed b yes
		    answer p1 b yes by n1
		    announce b yes by n1
		`)
	})
	t.Run("polls do not die with the leader", func(t *testing.T) {
		first := newScript(t, 40)
		first.run(opened + `
		@2ms vote b r1 a yes
		`)
		second := newScript(t, 47) // the first leader is gone; the proposer asks the next one with the same id
		second.run(`
		@5s propose b majority a,b,c from=p1 round=r2 nonce=n2
		    read b
		@5.001s read b none
		    broadcast b r2 majority of=3 left=1.124s
		@5.002s vote b r1 b yes       // of the dead round
		@5.003s vote b r2 a yes       // repeats its answer
		@5.004s vote b r2 b yes
		    seal b yes by n2 2-0-0 of 3 silent=c
		@5.005s sealed b yes
		    answer p1 b yes by n2
		    announce b yes by n2
		`)
		if st := second.m.Stats(); st.OtherRound != 1 {
			t.Errorf("stats %+v, want 1 vote of another round", st)
		}
	})
	t.Run("leaders of different terms yield to one verdict", func(t *testing.T) {
		old := newScript(t, 40)
		old.run(opened + `
		@1.125s tick
		    seal b timed-out by n1 0-0-0 of 3 silent=a,b,c
		@1.2s sealed b unknown
		    read b
		`)
		next := newScript(t, 47)
		next.run(`
		@1.2s propose b majority a,b,c from=p1 round=r2 nonce=n2
		    read b
		@1.3s read b none             // the old seal lands only now
		    broadcast b r2 majority of=3 left=1.025s
		@1.4s vote b r2 a yes
		@1.5s vote b r2 b yes
		    seal b yes by n2 2-0-0 of 3 silent=c
		@1.6s sealed b no
		    read b
		@1.7s read b timed-out by n1
		    answer p1 b timed-out by n1
		    announce b timed-out by n1
		`)
		old.run(`
		@1.7s tick
		    answer p1 unknown
		@1.8s read b timed-out by n1
		    announce b timed-out by n1
		`)
	})
	t.Run("a dead proposer leaves no ballot running", func(t *testing.T) {
		s := newScript(t, 40)
		s.run(opened + `
		@1.125s tick
		    seal b timed-out by n1 0-0-0 of 3 silent=a,b,c
		@1.126s sealed b yes
		    answer p1 b timed-out by n1
		    announce b timed-out by n1
		`)
		if st := s.m.Stats(); st.Open != 0 || !s.m.Next().IsZero() {
			t.Errorf("stats %+v, next %v; want nothing open and nothing due", st, s.m.Next())
		}
	})
}
