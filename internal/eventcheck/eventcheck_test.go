package eventcheck

import (
	"strings"
	"testing"
	"time"
)

// at is a moment of these tests: so many milliseconds after an arbitrary one.
func at(ms int) time.Time { return time.UnixMilli(1_700_000_000_000 + int64(ms)).UTC() }

func assignedLine(ms int, who string, gen uint64, index, total int) Line {
	return Line{Type: assigned, Time: at(ms), Self: who, Member: who, Generation: gen, Index: index, Total: total, LeaseMS: 100}
}

func revokedLine(ms int, who string, gen uint64, until int) Line {
	return Line{Type: revoked, Time: at(ms), Self: who, Member: who, Generation: gen, Until: at(until)}
}

func electedLine(ms int, who string, token uint64) Line {
	return Line{Type: leaderElected, Time: at(ms), Self: who, Leader: who, Token: token, LeaseMS: 100}
}

func lostLine(ms int, who string, token uint64, until int) Line {
	return Line{Type: leaderLost, Time: at(ms), Self: who, Leader: who, Token: token, Until: at(until)}
}

func verdictLine(ms int, ballot, is string) Line {
	return Line{Type: verdict, Time: at(ms), Ballot: ballot, Verdict: is}
}

func agreedLine(ms int, ballot string, instant int) Line {
	return Line{Type: verdict, Time: at(ms), Ballot: ballot, Verdict: "yes", At: at(instant), ToleranceMS: 100}
}

func actionLine(ms int, who, ballot, status string) Line {
	return Line{Type: action, Time: at(ms), Self: who, Member: who, Ballot: ballot, Status: status}
}

func tally(l Line, yes, of int) Line { l.Yes, l.Of = yes, of; return l }

// cutLine is an assigned line with buckets, of eight: number and token in turn.
func cutLine(l Line, buckets ...int) Line {
	l.Of, l.Buckets = 8, []int{}
	for i := 0; i < len(buckets); i += 2 {
		l.Buckets, l.Tokens = append(l.Buckets, buckets[i]), append(l.Tokens, uint64(buckets[i+1]))
	}
	return l
}

// partly is a revoked line of some buckets.
func partly(l Line, buckets ...int) Line { l.Buckets = append([]int{}, buckets...); return l }

func with(l Line, items ...string) Line { l.Items = items; return l }

func of(group string, l Line) Line { l.Group = group; return l }

func stopped(w Witness, ms, killed int) Witness {
	w.Stopped = at(ms)
	if killed > 0 {
		w.Ended = at(killed)
	}
	return w
}

// The checker finds what contradicts each promise, and nothing in what does not.
func TestCheck(t *testing.T) {
	lines := func(name string, l ...Line) Witness { return Witness{Name: name, Lines: l} }
	killed := func(w Witness, ms int) Witness { w.Ended = at(ms); return w }
	for name, tt := range map[string]struct {
		all  []Witness
		want string // "" for nothing
	}{
		"one after the other": {[]Witness{
			lines("a", electedLine(0, "a", 1), assignedLine(1, "a", 10, 0, 2), revokedLine(20, "a", 10, 20), assignedLine(30, "a", 11, 0, 1), lostLine(50, "a", 1, 50)),
			lines("b", assignedLine(1, "b", 10, 1, 2), revokedLine(29, "b", 10, 25), electedLine(50, "b", 2)),
		}, ""},
		"killed": {[]Witness{
			killed(lines("a", electedLine(0, "a", 1), assignedLine(0, "a", 10, 0, 2)), 40),
			lines("b", assignedLine(0, "b", 10, 1, 2), revokedLine(39, "b", 10, 39), electedLine(40, "b", 2), assignedLine(41, "b", 11, 0, 1)),
		}, ""},
		"the same again": {[]Witness{
			lines("a", assignedLine(0, "a", 10, 0, 1), revokedLine(30, "a", 10, 20), assignedLine(31, "a", 10, 0, 1)),
		}, ""},
		"told by others": {[]Witness{lines("a", electedLine(0, "a", 1)),
			lines("b", Line{Type: leaderElected, Time: at(1), Self: "b", Leader: "a", Token: 1})}, ""},
		"two leaders":   {[]Witness{lines("a", electedLine(0, "a", 1), lostLine(30, "a", 1, 30)), lines("b", electedLine(29, "b", 2))}, "L1"},
		"still leading": {[]Witness{lines("a", electedLine(0, "a", 1)), lines("b", electedLine(29, "b", 2))}, "L1"},
		"killed too late": {[]Witness{
			killed(lines("a", electedLine(0, "a", 1)), 40), lines("b", electedLine(39, "b", 2))}, "L1"},
		"same token":  {[]Witness{lines("a", electedLine(0, "a", 2), lostLine(30, "a", 2, 30)), lines("b", electedLine(30, "b", 2))}, "L2"},
		"older token": {[]Witness{lines("a", electedLine(0, "a", 2), lostLine(30, "a", 2, 30)), lines("b", electedLine(30, "b", 1))}, "L2"},
		"index twice": {[]Witness{lines("a", assignedLine(0, "a", 10, 0, 2)), lines("b", assignedLine(1, "b", 10, 0, 2))}, "P1"},
		"two totals":  {[]Witness{lines("a", assignedLine(0, "a", 10, 0, 2)), lines("b", assignedLine(1, "b", 10, 1, 3))}, "P1"},
		"index past":  {[]Witness{lines("a", assignedLine(0, "a", 10, 2, 2))}, "P1"},
		"same again, moved": {[]Witness{
			lines("a", assignedLine(0, "a", 10, 0, 2), revokedLine(30, "a", 10, 20), assignedLine(31, "a", 10, 1, 2))}, "P1"},
		"two generations": {[]Witness{
			lines("a", assignedLine(0, "a", 10, 0, 2), revokedLine(30, "a", 10, 30)), lines("b", assignedLine(29, "b", 11, 0, 1))}, "P2"},
		"until later":     {[]Witness{lines("a", assignedLine(0, "a", 10, 0, 1), revokedLine(30, "a", 10, 31))}, "which is later"},
		"ended before":    {[]Witness{lines("a", assignedLine(20, "a", 10, 0, 1), revokedLine(30, "a", 10, 19))}, "announced"},
		"no until":        {[]Witness{lines("a", electedLine(0, "a", 1), Line{Type: leaderLost, Time: at(2), Self: "a", Leader: "a", Token: 1})}, "without until"},
		"never had it":    {[]Witness{lines("a", revokedLine(30, "a", 10, 30))}, "does not hold"},
		"never led":       {[]Witness{lines("a", lostLine(30, "a", 10, 30))}, "does not hold"},
		"another's end":   {[]Witness{lines("a", assignedLine(0, "a", 10, 0, 1), revokedLine(30, "a", 9, 30))}, "does not hold"},
		"assigned twice":  {[]Witness{lines("a", assignedLine(0, "a", 10, 0, 1), assignedLine(5, "a", 11, 0, 1))}, "while it holds"},
		"elected twice":   {[]Witness{lines("a", electedLine(0, "a", 10), electedLine(5, "a", 11))}, "while it is"},
		"time goes back":  {[]Witness{lines("a", electedLine(5, "a", 10), lostLine(4, "a", 10, 4))}, "follows"},
		"nobody's at all": {nil, ""},

		"older generation": {[]Witness{
			lines("a", assignedLine(0, "a", 11, 0, 1), revokedLine(10, "a", 11, 10)), lines("b", assignedLine(20, "b", 10, 0, 1))}, "P3"},
		"its own older generation": {[]Witness{
			lines("a", assignedLine(0, "a", 11, 0, 1), revokedLine(10, "a", 11, 10), assignedLine(20, "a", 10, 0, 1))}, "P3"},
		"item twice": {[]Witness{
			lines("a", with(assignedLine(0, "a", 10, 0, 2), "x")), lines("b", with(assignedLine(0, "b", 10, 1, 2), "y", "x"))}, `item "x"`},
		"item again": {[]Witness{
			lines("a", with(assignedLine(0, "a", 10, 0, 1), "x", "x"), revokedLine(10, "a", 10, 10), with(assignedLine(20, "a", 10, 0, 1), "x", "x"))}, ""},
		"buckets kept over a generation": {[]Witness{
			lines("a", cutLine(assignedLine(0, "a", 10, 0, 1), 0, 10, 1, 10), partly(revokedLine(20, "a", 10, 20), 1), cutLine(assignedLine(40, "a", 11, 0, 2), 0, 10), revokedLine(50, "a", 11, 50)),
			lines("b", cutLine(assignedLine(30, "b", 11, 1, 2), 1, 11)),
		}, ""},
		"buckets, none of them moves": {[]Witness{
			lines("a", cutLine(assignedLine(0, "a", 10, 0, 1), 0, 10), partly(revokedLine(20, "a", 10, 20)), cutLine(assignedLine(40, "a", 11, 0, 2), 0, 10)),
			lines("b", cutLine(assignedLine(30, "b", 11, 1, 2)))}, ""},
		"bucket with two owners": {[]Witness{
			lines("a", cutLine(assignedLine(0, "a", 10, 0, 1), 0, 10, 1, 10), partly(revokedLine(20, "a", 10, 20), 1), cutLine(assignedLine(40, "a", 11, 0, 2), 0, 10)),
			lines("b", cutLine(assignedLine(30, "b", 11, 1, 2), 0, 11)),
		}, "P2: bucket 0"},
		"bucket, killed too late": {[]Witness{
			killed(lines("a", cutLine(assignedLine(0, "a", 10, 0, 1), 0, 10), partly(revokedLine(20, "a", 10, 20))), 40),
			lines("b", cutLine(assignedLine(39, "b", 11, 0, 1), 0, 11))}, "P2: bucket 0"},
		"bucket, other token": {[]Witness{
			lines("a", cutLine(assignedLine(0, "a", 10, 0, 1), 0, 10), partly(revokedLine(20, "a", 10, 20)), cutLine(assignedLine(40, "a", 11, 0, 1), 0, 11))}, "P3: a keeps"},
		"bucket, old token": {[]Witness{
			lines("a", cutLine(assignedLine(0, "a", 10, 0, 1), 0, 10), revokedLine(20, "a", 10, 20)), lines("b", cutLine(assignedLine(40, "b", 11, 0, 1), 0, 10))}, "P3: bucket 0"},
		"bucket forgotten": {[]Witness{
			lines("a", cutLine(assignedLine(0, "a", 10, 0, 1), 0, 10), partly(revokedLine(20, "a", 10, 20)), cutLine(assignedLine(40, "a", 11, 0, 1)))}, "neither revoked nor"},
		"bucket of another": {[]Witness{
			lines("a", cutLine(assignedLine(0, "a", 10, 0, 1), 0, 10), partly(revokedLine(20, "a", 10, 20), 5))}, "bucket 5, which it does not hold"},
		"bucket that is none": {[]Witness{lines("a", cutLine(assignedLine(0, "a", 10, 0, 1), 8, 10))}, "P1: a has bucket 8"},
		"bucket, ran out": {[]Witness{
			lines("a", cutLine(assignedLine(0, "a", 10, 0, 1), 0, 10), partly(revokedLine(20, "a", 10, 20)), revokedLine(200, "a", 10, 120)), lines("b", cutLine(assignedLine(120, "b", 11, 0, 1), 0, 11))}, ""},
		"cut anew": {[]Witness{
			lines("a", cutLine(assignedLine(0, "a", 10, 0, 1), 0, 10), revokedLine(20, "a", 10, 20)), lines("b", func() Line { l := cutLine(assignedLine(30, "b", 11, 0, 1), 0, 11); l.Of = 4; return l }())}, ""},
		"stopped, ran out": {[]Witness{
			stopped(lines("a", electedLine(0, "a", 1)), 40, 0), lines("b", electedLine(140, "b", 2))}, ""},
		"stopped, too soon": {[]Witness{
			stopped(lines("a", electedLine(0, "a", 1)), 40, 0), lines("b", electedLine(139, "b", 2))}, "L1"},
		"stopped, then killed": {[]Witness{
			stopped(lines("a", electedLine(0, "a", 1)), 40, 60), lines("b", electedLine(60, "b", 2))}, ""},
		"stopped share, too soon": {[]Witness{
			stopped(lines("a", assignedLine(0, "a", 10, 0, 1)), 40, 0), lines("b", assignedLine(139, "b", 11, 0, 1))}, "P2"},
		"verdicts": {[]Witness{lines("a", verdictLine(0, "1", "yes"), verdictLine(1, "2", "no")),
			lines("b", verdictLine(0, "1", "yes"), verdictLine(1, "2", "unknown"), verdictLine(9, "2", "no"))}, ""},
		"actions": {[]Witness{lines("a", agreedLine(0, "1", 500), actionLine(400, "a", "1", "done"), Line{Type: action, Time: at(500), Self: "a", Member: "b", Ballot: "1", Status: "failed"}),
			lines("b", actionLine(480, "b", "1", "failed")), lines("c", actionLine(10, "c", "1", "cancelled"))}, ""},
		"told otherwise": {[]Witness{lines("a", agreedLine(0, "1", 500), Line{Type: action, Time: at(600), Self: "a", Member: "b", Ballot: "1", Status: "done"}),
			lines("b", actionLine(580, "b", "1", "late"))}, "A1"},
		"told otherwise of one that was killed": {[]Witness{lines("a", agreedLine(0, "1", 500), Line{Type: action, Time: at(600), Self: "a", Member: "b", Ballot: "1", Status: "done"}),
			killed(lines("b", Line{Type: "joined", Time: at(0), Self: "b", Member: "b"}), 590), lines("b", actionLine(800, "b", "1", "late"))}, ""},
		"two tallies":         {[]Witness{lines("a", tally(verdictLine(0, "1", "yes"), 2, 3)), lines("b", tally(verdictLine(0, "1", "yes"), 2, 4))}, "V1"},
		"acted twice":         {[]Witness{lines("a", agreedLine(0, "1", 500), actionLine(500, "a", "1", "done"), actionLine(600, "a", "1", "done"))}, "A1"},
		"acted too early":     {[]Witness{lines("a", agreedLine(0, "1", 500)), lines("b", actionLine(399, "b", "1", "done"))}, "A1"},
		"acted without a yes": {[]Witness{lines("a", verdictLine(0, "1", "no"), actionLine(500, "a", "1", "failed"))}, "A1"},
		"two verdicts":        {[]Witness{lines("a", verdictLine(0, "1", "yes")), lines("b", verdictLine(0, "1", "timed-out"))}, "V1"},
		"two verdicts to one": {[]Witness{lines("a", verdictLine(0, "1", "yes"), verdictLine(5, "1", "no"))}, "V1"},
		"two groups": {[]Witness{lines("a", of("g", electedLine(0, "a", 2)), of("g", assignedLine(0, "a", 10, 0, 1))),
			lines("b", of("h", electedLine(1, "b", 1)), of("h", assignedLine(1, "b", 9, 0, 1)))}, ""},
		"one process in two": {[]Witness{lines("a", of("g", electedLine(0, "a", 2)), of("h", electedLine(0, "a", 1)))}, ""},
		"second of two": {[]Witness{lines("a", of("g", electedLine(0, "a", 2)), of("h", electedLine(0, "a", 3))),
			lines("b", of("h", electedLine(1, "b", 4)))}, "L1"},
	} {
		t.Run(name, func(t *testing.T) {
			got := strings.Join(Check(tt.all), "; ")
			if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q in it", got, tt.want)
			}
		})
	}
}

// What a loss of data excuses: an overlap of terms within its time, and nothing else.
func TestCheckLoss(t *testing.T) {
	all := []Witness{{Name: "a", Lines: []Line{electedLine(0, "a", 1), lostLine(30, "a", 1, 30)}}, {Name: "b", Lines: []Line{electedLine(20, "b", 2), lostLine(35, "b", 2, 35)}}}
	for name, tt := range map[string]struct {
		loss Loss
		want int
	}{
		"around":   {Loss{at(20), at(30)}, 0},
		"too late": {Loss{at(21), at(60)}, 1},
		"too soon": {Loss{at(0), at(29)}, 1},
		"none":     {Loss{}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Check(all, tt.loss); len(got) != tt.want {
				t.Errorf("got %q, want %d", got, tt.want)
			}
		})
	}
	all[1].Lines[0].Token, all[1].Lines[1].Token = 1, 1
	if got := Check(all, Loss{at(0), at(100)}); len(got) != 1 || !strings.Contains(got[0], "L2") {
		t.Errorf("got %q, want L2: a loss excuses no token", got)
	}
	still := []Witness{{Name: "a", Lines: []Line{electedLine(0, "a", 1)}}, {Name: "b", Lines: []Line{electedLine(20, "b", 2)}}}
	if got := Check(still, Loss{at(0), at(100)}); len(got) != 1 {
		t.Errorf("got %q, want L1: they overlap still", got)
	}
	shares := []Witness{{Name: "a", Lines: []Line{assignedLine(40, "a", 10, 0, 1), revokedLine(60, "a", 10, 60)}}, {Name: "b", Lines: []Line{assignedLine(50, "b", 11, 0, 1)}}}
	if got := Check(shares, Loss{at(0), at(100)}); len(got) != 1 || !strings.Contains(got[0], "P2") {
		t.Errorf("got %q, want P2: a loss excuses no share", got)
	}
}

func TestCheckShares(t *testing.T) {
	share := func(index, total int, items ...string) Line {
		return Line{Index: index, Total: total, Items: items}
	}
	for name, tt := range map[string]struct {
		shares map[string]Line
		items  string
		want   string
	}{
		"all":       {map[string]Line{"a": share(0, 2, "x", "y"), "b": share(1, 2, "z")}, "x y z", ""},
		"twice":     {map[string]Line{"a": share(0, 1, "x", "x")}, "x x", ""},
		"none":      {map[string]Line{"a": share(0, 1)}, "", ""},
		"missing":   {map[string]Line{"a": share(0, 1, "x")}, "x y", "1 items of 2 have no owner"},
		"fewer":     {map[string]Line{"a": share(0, 1, "x")}, "x x", "1 items of 2 have no owner"},
		"more":      {map[string]Line{"a": share(0, 1, "x", "x")}, "x", "1 are too many"},
		"unknown":   {map[string]Line{"a": share(0, 1, "x", "q")}, "x", "1 are too many"},
		"common":    {map[string]Line{"a": share(0, 2, "x"), "b": share(1, 2, "x")}, "x", `a and b both have item "x"`},
		"one index": {map[string]Line{"a": share(0, 2, "x"), "b": share(0, 2)}, "x", "both have index 0"},
		"one short": {map[string]Line{"a": share(0, 2, "x")}, "x", "want of 1"},
	} {
		t.Run(name, func(t *testing.T) {
			got := strings.Join(CheckShares(tt.shares, strings.Fields(tt.items)), "; ")
			if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q in it", got, tt.want)
			}
		})
	}
}
