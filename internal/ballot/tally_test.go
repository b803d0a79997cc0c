package ballot

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestKind(t *testing.T) {
	for _, s := range []string{"majority", "two-thirds", "consensus", "1", "7", "10000"} {
		k, err := ParseKind(s)
		if err != nil || k.String() != s {
			t.Errorf("ParseKind(%q) = %v, %v; want the same back", s, k, err)
		}
	}
	for _, s := range []string{"", "Majority", "0", "-1", "+1", "01", "1.5", " 1", "10001", "99999999999999999999", strings.Repeat("x", 5000)} {
		k, err := ParseKind(s)
		if err == nil {
			t.Errorf("ParseKind(%.20q) = %v, want an error", s, k)
		} else if strings.Contains(err.Error(), "\n") || len(err.Error()) > 200 {
			t.Errorf("ParseKind(%.20q): %v; want one short line", s, err)
		}
	}
}

func TestTally(t *testing.T) {
	for _, c := range []struct {
		kind           string
		n, yes, no, ab int
		want           Result
		why            string
	}{
		{"majority", 1, 0, 0, 0, Pending, "nobody has spoken"},
		{"majority", 1, 1, 0, 0, Yes, "2*1 > 1"},
		{"majority", 4, 2, 0, 0, Pending, "half is no majority"},
		{"majority", 4, 2, 2, 0, No, "half is no majority"},
		{"majority", 4, 0, 2, 0, No, "two left cannot be more than half"},
		{"majority", 5, 3, 0, 0, Yes, "the other two cannot change it"},
		{"majority", 5, 2, 2, 1, No, "abstentions stay in n"},
		{"majority", 5, 0, 0, 3, No, "abstentions alone can lose it"},
		{"two-thirds", 3, 2, 0, 0, Yes, "3*2 >= 2*3"},
		{"two-thirds", 4, 2, 1, 0, Pending, "3*3 >= 2*4 is possible"},
		{"two-thirds", 4, 2, 2, 0, No, "3*2 < 2*4"},
		{"two-thirds", 4, 3, 0, 0, Yes, "3*3 >= 2*4"},
		{"consensus", 3, 2, 0, 0, Pending, "one is silent"},
		{"consensus", 3, 2, 0, 1, No, "an abstention is no yes"},
		{"consensus", 3, 0, 1, 0, No, "one no is enough"},
		{"consensus", 3, 3, 0, 0, Yes, "all"},
		{"2", 5, 1, 3, 0, Pending, "one is silent"},
		{"2", 5, 2, 3, 0, Yes, "two are enough, whatever the rest"},
		{"2", 5, 1, 3, 1, No, "nobody left"},
		{"6", 5, 0, 0, 0, No, "more than there are: lost at once"},
	} {
		k, err := ParseKind(c.kind)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Tally(k, c.n, c.yes, c.no, c.ab); got != c.want || err != nil {
			t.Errorf("%s of %d: %d yes, %d no, %d abstain: got %v, %v, want %v (%s)", c.kind, c.n, c.yes, c.no, c.ab, got, err, c.want, c.why)
		}
	}
	for _, k := range []Kind{Majority, TwoThirds, Consensus, 1} {
		if r, err := Tally(k, 0, 0, 0, 0); !errors.Is(err, ErrNoVoters) || r != Pending {
			t.Errorf("%v of nobody: got %v, %v, want ErrNoVoters", k, r, err)
		}
	}
}

// slowTally tries every way in which the silent could still vote, by the rules as design 4.4 words them.
func slowTally(kind Kind, n, yes, no, abstain int) Result {
	won := func(yes int) bool {
		switch kind {
		case Majority:
			return 2*yes > n
		case TwoThirds:
			return 3*yes >= 2*n
		case Consensus:
			return yes == n
		}
		return yes >= int(kind)
	}
	var wins, losses bool
	var try func(silent, yes int)
	try = func(silent, yes int) {
		if silent == 0 {
			wins, losses = wins || won(yes), losses || !won(yes)
			return
		}
		try(silent-1, yes+1) // says yes
		try(silent-1, yes)   // says no, abstains, or stays silent
	}
	try(n-yes-no-abstain, yes)
	switch {
	case wins && losses:
		return Pending
	case wins:
		return Yes
	}
	return No
}

func TestTallyAgainstBruteForce(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	for range 20000 {
		n := 1 + rng.IntN(9)
		kind := []Kind{Majority, TwoThirds, Consensus, Kind(1 + rng.IntN(11))}[rng.IntN(4)]
		yes := rng.IntN(n + 1)
		no := rng.IntN(n - yes + 1)
		abstain := rng.IntN(n - yes - no + 1)
		got, err := Tally(kind, n, yes, no, abstain)
		if want := slowTally(kind, n, yes, no, abstain); err != nil || got != want {
			t.Fatalf("%v of %d: %d yes, %d no, %d abstain: got %v, %v, want %v", kind, n, yes, no, abstain, got, err, want)
		}
	}
}
