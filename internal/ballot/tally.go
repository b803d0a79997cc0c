package ballot

import (
	"errors"
	"fmt"
	"strconv"
)

// A Kind is the rule by which a ballot is won. A positive Kind k is 'at least k'.
type Kind int

// The kinds with a name (design 4.4). Abstentions and silence stay in n.
const (
	Majority  Kind = -1 // 2 yes > n
	TwoThirds Kind = -2 // 3 yes >= 2 n
	Consensus Kind = -3 // yes = n
)

// MaxAtLeast is the largest k of 'at least k'.
const MaxAtLeast = 10000

var kindNames = map[Kind]string{Majority: "majority", TwoThirds: "two-thirds", Consensus: "consensus"}

// ParseKind reads majority, two-thirds, consensus, or a plain decimal number k (1 to 10000) for 'at least k'.
func ParseKind(s string) (Kind, error) {
	for k, name := range kindNames {
		if s == name {
			return k, nil
		}
	}
	// One spelling for each kind: kinds are compared as text in records of other processes.
	if k, err := strconv.Atoi(s); err == nil && k >= 1 && k <= MaxAtLeast && strconv.Itoa(k) == s {
		return Kind(k), nil
	}
	if len(s) > 32 {
		s = s[:29] + "..."
	}
	return 0, fmt.Errorf("kind %q: want majority, two-thirds, consensus or a number from 1 to %d (at least so many yes)", s, MaxAtLeast)
}

// String gives the form that [ParseKind] reads.
func (k Kind) String() string {
	if name, ok := kindNames[k]; ok {
		return name
	}
	return strconv.Itoa(int(k))
}

// Need is the least number of yes, of an electorate of n, that wins.
func (k Kind) Need(n int) int {
	switch {
	case k == Majority:
		return n/2 + 1
	case k == TwoThirds:
		return (2*n + 2) / 3
	case k == Consensus:
		return n
	case k > 0:
		return int(k)
	}
	panic(fmt.Sprintf("ballot: kind %d does not exist", int(k)))
}

// A Result is what a count says.
type Result int

// The results of a count.
const (
	Pending Result = iota // further votes can change it
	Yes                   // won, whatever the rest say
	No                    // lost, whatever the rest say
)

func (r Result) String() string { return [...]string{"pending", "yes", "no"}[r] }

// ErrNoVoters is returned for an electorate of nobody, in which every rule is meaningless.
var ErrNoVoters = errors.New("nobody in the group votes")

// Tally counts: of a frozen electorate of n, so many have said yes, no, or abstained; the others are silent so far. It is
// decided as early as possible in both directions (V2): yes once enough said so, no once enough cannot say so any more,
// for 'at least k' with k > n at once. Counts that cannot be panic.
func Tally(kind Kind, n, yes, no, abstain int) (Result, error) {
	if n == 0 {
		return Pending, ErrNoVoters // consensus of nobody would be a yes
	}
	silent := n - yes - no - abstain
	if n < 0 || yes < 0 || no < 0 || abstain < 0 || silent < 0 {
		panic(fmt.Sprintf("ballot: %d yes, %d no, %d abstain of %d", yes, no, abstain, n))
	}
	switch need := kind.Need(n); {
	case yes >= need:
		return Yes, nil
	case yes+silent < need:
		return No, nil
	}
	return Pending, nil
}
