package ballot

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/clock"
	"github.com/quorate/quorate/internal/wire"
)

func TestVoter(t *testing.T) {
	self := wire.Place{ID: "a", Incarnation: 7}
	broadcast := func(id, round string, token uint64) wire.Ballot {
		return wire.Ballot{V: 1, Ballot: id, Round: round, Topic: "deploy", Kind: "majority", LeftMS: 1000, Token: token,
			Electors: []wire.Place{{ID: "b", Incarnation: 1}, self}}
	}
	at := func(d time.Duration) clock.Instant { return startAt.Add(d) }
	// want compares the effects with their short form.
	want := func(t *testing.T, effects []VoterEffect, lines ...string) {
		t.Helper()
		var got []string
		for _, e := range effects {
			switch e := e.(type) {
			case Decide:
				got = append(got, "decide "+e.Ballot.Ballot)
			case SendVote:
				v := e.Vote
				got = append(got, strings.TrimSpace(fmt.Sprintf("%s: %s %s %s#%d %s %s", e.Reply, v.Ballot, v.Round, v.ID, v.Incarnation, v.Answer, v.Reason)))
			}
		}
		if strings.Join(got, "; ") != strings.Join(lines, "; ") {
			t.Errorf("got %q, want %q", got, lines)
		}
	}

	t.Run("asked once, repeats its answer to re-broadcasts and later rounds", func(t *testing.T) {
		v := NewVoter("a", 7)
		want(t, v.Step(at(0), BallotIn{broadcast("x", "r1", 40), "in1"}), "decide x")
		want(t, v.Step(at(1), BallotIn{broadcast("x", "r1", 40), "in1"})) // still deciding
		want(t, v.Step(at(2), Decided{"x", wire.No, "disk full"}), "in1: x r1 a#7 no disk full")
		want(t, v.Step(at(3), Decided{"x", wire.Yes, ""})) // the first answer stands
		want(t, v.Step(at(4), BallotIn{broadcast("x", "r1", 40), "in1"}), "in1: x r1 a#7 no disk full")
		want(t, v.Step(at(5), BallotIn{broadcast("x", "r2", 47), "in2"}), "in2: x r2 a#7 no disk full")
		want(t, v.Step(at(6), BallotIn{broadcast("x", "r1", 40), "in1"})) // the old leader, late
		want(t, v.Step(at(7), BallotIn{broadcast("y", "r3", 47), "in2"}), "decide y")
		if st := v.Stats(); st.Asked != 2 || st.Repeated != 2 || st.Old != 1 {
			t.Errorf("stats %+v, want 2 asked, 2 repeated, 1 old", st)
		}
	})
	t.Run("an answer found while the leader changed goes to the newest", func(t *testing.T) {
		v := NewVoter("a", 7)
		want(t, v.Step(at(0), BallotIn{broadcast("x", "r1", 40), "in1"}), "decide x")
		want(t, v.Step(at(1), BallotIn{broadcast("x", "r2", 47), "in2"}))
		want(t, v.Step(at(2), Decided{"x", wire.Yes, "ignored"}), "in2: x r2 a#7 yes")
	})
	t.Run("anything but yes and no is an abstention", func(t *testing.T) {
		v := NewVoter("a", 7)
		want(t, v.Step(at(0), BallotIn{broadcast("x", "r1", 40), "in1"}), "decide x")
		want(t, v.Step(at(1), Decided{"x", "perhaps", "why"}), "in1: x r1 a#7 abstain")
		want(t, v.Step(at(1), Decided{"unheard", wire.Yes, ""}))
	})
	t.Run("ballots whose electorate does not hold this incarnation are ignored", func(t *testing.T) {
		v := NewVoter("a", 8)
		want(t, v.Step(at(0), BallotIn{broadcast("x", "r1", 40), "in1"}))
		want(t, NewVoter("c", 7).Step(at(0), BallotIn{broadcast("x", "r1", 40), "in1"}))
		late := broadcast("x", "r1", 40)
		late.LeftMS = 0
		want(t, NewVoter("a", 7).Step(at(0), BallotIn{late, "in1"}))
		wild := broadcast("x.y", "r1", 40)
		want(t, NewVoter("a", 7).Step(at(0), BallotIn{wild, "in1"}))
		if v.Remembered() != 0 || v.Stats().NotMine != 1 {
			t.Errorf("%d remembered, stats %+v; want none, 1 not mine", v.Remembered(), v.Stats())
		}
	})
	t.Run("another question under a known id gets no answer", func(t *testing.T) {
		v := NewVoter("a", 7)
		want(t, v.Step(at(0), BallotIn{broadcast("x", "r1", 40), "in1"}), "decide x")
		want(t, v.Step(at(1), Decided{"x", wire.Yes, ""}), "in1: x r1 a#7 yes")
		for i, change := range []func(*wire.Ballot){
			func(b *wire.Ballot) { b.Topic = "destroy" },
			func(b *wire.Ballot) { b.Kind = "1" },
			func(b *wire.Ballot) { b.Data = []byte("more") },
			func(b *wire.Ballot) { b.Topic, b.Data = "dep", []byte("loy") },
		} {
			b := broadcast("x", "r2", 47)
			change(&b)
			want(t, v.Step(at(2), BallotIn{b, "in2"}))
			if got := v.Stats().Different; got != uint64(i+1) {
				t.Errorf("%d different, want %d", got, i+1)
			}
		}
	})
	t.Run("forgets ten minutes after it last heard, and not while it is deciding", func(t *testing.T) {
		v := NewVoter("a", 7)
		want(t, v.Step(at(0), BallotIn{broadcast("x", "r1", 40), "in1"}), "decide x")
		want(t, v.Step(at(0), BallotIn{broadcast("slow", "r1", 40), "in1"}), "decide slow")
		want(t, v.Step(at(0), Decided{"x", wire.Yes, ""}), "in1: x r1 a#7 yes")
		want(t, v.Step(at(1), BallotIn{broadcast("x", "r1", 40), "in1"}), "in1: x r1 a#7 yes")
		want(t, v.Step(at(Retention), BallotIn{broadcast("x", "r2", 41), "in1"}), "in1: x r2 a#7 yes")
		want(t, v.Step(at(2*Retention-1), BallotIn{broadcast("z", "r1", 41), "in1"}), "decide z")
		if v.Remembered() != 3 {
			t.Errorf("%d remembered, want x, slow and z", v.Remembered())
		}
		want(t, v.Step(at(2*Retention), BallotIn{broadcast("x", "r3", 42), "in1"}), "decide x")
		want(t, v.Step(at(2*Retention), BallotIn{broadcast("slow", "r3", 42), "in3"}))
		want(t, v.Step(at(2*Retention), Decided{"slow", wire.Yes, ""}), "in3: slow r3 a#7 yes")
	})
	t.Run("remembers a bounded number", func(t *testing.T) {
		v := NewVoter("a", 7)
		for i := range MaxRemembered + 3 {
			v.Step(at(0), BallotIn{broadcast(fmt.Sprintf("x%d", i), "r1", 40), "in1"})
		}
		if v.Remembered() != MaxRemembered || v.Stats().Forgotten != 3 {
			t.Errorf("%d remembered, %d forgotten; want %d and 3", v.Remembered(), v.Stats().Forgotten, MaxRemembered)
		}
		want(t, v.Step(at(0), Decided{"x0", wire.Yes, ""})) // forgotten: sent nowhere
		want(t, v.Step(at(0), Decided{"x3", wire.Yes, ""}), "in1: x3 r1 a#7 yes")
	})
}
