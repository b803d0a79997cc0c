package eventcheck

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// What is nobody's, and for how long that is excused.
func TestCheckOrphans(t *testing.T) {
	const ms = time.Millisecond
	killed := func(w Witness, at time.Time) Witness { w.Ended = at; return w }
	own := func(ms int, who string, generation uint64, index, total int, items ...string) Line {
		return with(assignedLine(ms, who, generation, index, total), items...)
	}
	lines := func(name string, l ...Line) Witness { return Witness{Name: name, Lines: l} }
	// b has y and is killed at 40; a has x, lets go at 70, and has both from 80 on.
	one := []Witness{
		lines("a", own(0, "a", 10, 0, 2, "x"), revokedLine(70, "a", 10, 70), own(80, "a", 11, 0, 1, "x", "y")),
		killed(lines("b", own(0, "b", 10, 1, 2, "y")), at(40)),
	}
	kill := Trouble{What: "b killed", From: at(40), Allow: 40 * ms}
	for name, tt := range map[string]struct {
		all      []Witness
		to       int
		pause    time.Duration
		troubles []Trouble
		plans    []Plan
		times    int
		longest  time.Duration
		want     string
	}{
		"in time":            {one, 100, 10 * ms, []Trouble{kill}, nil, 2, 40 * ms, ""},
		"too late":           {one, 100, 10 * ms, []Trouble{{What: "b killed", From: at(40), Allow: 39 * ms}}, nil, 2, 40 * ms, `"y" has no owner from 22:13:20.040000 for 40ms, 39ms were allowed (b killed at 22:13:20.040)`},
		"for no reason":      {one, 100, 10 * ms, nil, nil, 2, 40 * ms, `"y" has no owner from 22:13:20.040000 for 40ms, 10ms were allowed (a settlement)`},
		"settles too slowly": {one, 100, 9 * ms, []Trouble{{What: "b killed", Who: "b", From: at(40), Allow: 40 * ms}}, nil, 2, 40 * ms, `"x" has no owner from 22:13:20.070000 for 10ms, 9ms were allowed`},
		"never again": {[]Witness{killed(lines("b", own(0, "b", 10, 0, 1, "x", "y")), at(40))}, 300, 10 * ms, []Trouble{kill}, nil, 2, 260 * ms,
			`"x" has no owner from 22:13:20.040000 for 260ms`},
		"never at all":      {nil, 50, 10 * ms, nil, nil, 2, 50 * ms, `"y" has no owner`},
		"still in time":     {[]Witness{killed(lines("b", own(0, "b", 10, 0, 1, "x", "y")), at(40))}, 80, 10 * ms, []Trouble{kill}, nil, 2, 40 * ms, ""},
		"held to the end":   {[]Witness{lines("a", own(0, "a", 10, 0, 1, "x", "y"))}, 500, 0, nil, nil, 0, 0, ""},
		"one trouble after": {one, 100, 10 * ms, []Trouble{{What: "b", From: at(40), Allow: 20 * ms}, {What: "a", From: at(60), Allow: 20 * ms}}, nil, 2, 40 * ms, ""},
		"another, too late": {one, 100, 10 * ms, []Trouble{{What: "b", From: at(40), Allow: 20 * ms}, {What: "a", From: at(61), Allow: 20 * ms}}, nil, 2, 40 * ms, `"y"`},
		"while it lasts":    {one, 100, 10 * ms, []Trouble{{What: "NATS away", From: at(30), To: at(75), Allow: 5 * ms}}, nil, 2, 40 * ms, ""},
		"of who had it":     {one, 100, 10 * ms, []Trouble{{What: "b left", Who: "b", From: at(40), Allow: 40 * ms}}, nil, 2, 40 * ms, ""},
		"of another":        {one, 100, 10 * ms, []Trouble{{What: "a left", Who: "a", From: at(45), Allow: 40 * ms}}, nil, 2, 40 * ms, `"y"`},
		"of who had none":   {one, 100, 10 * ms, []Trouble{{What: "c left", Who: "c", From: at(45), Allow: 40 * ms}}, nil, 2, 40 * ms, `"y"`},
		"who was to have it": {one, 100, 10 * ms, []Trouble{{What: "c left", Who: "c", From: at(45), Allow: 40 * ms}},
			[]Plan{{at(0), []string{"a", "b"}}, {at(44), []string{"a", "c"}}, {at(60), []string{"a"}}}, 2, 40 * ms, ""},
		"who was to have another": {one, 100, 10 * ms, []Trouble{{What: "c left", Who: "c", From: at(45), Allow: 40 * ms}},
			[]Plan{{at(0), []string{"a", "b"}}, {at(44), []string{"c", "a"}}, {at(60), []string{"a", "c"}}}, 2, 40 * ms, `"y"`},
		"of another group": {[]Witness{lines("a", of("h", own(0, "a", 10, 0, 1, "x", "y")))}, 50, 10 * ms, nil, nil, 2, 50 * ms, `"x"`},
		"held by two": {[]Witness{lines("a", own(0, "a", 10, 0, 1, "x", "y"), revokedLine(60, "a", 10, 60)), lines("b", own(20, "b", 11, 0, 1, "x", "y"), revokedLine(30, "b", 11, 30)),
			lines("c", own(60, "c", 12, 0, 1, "x", "y"))}, 90, 0, nil, nil, 0, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			work := Work{Items: []string{"x", "y"}, From: at(0), To: at(tt.to), Pause: tt.pause, Troubles: tt.troubles, Plans: tt.plans,
				Index: func(item string, total int) int { return int(item[0]-'x') % total }}
			idle, wrong := work.CheckOrphans(tt.all)
			got := strings.Join(wrong, "; ")
			if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q in it", got, tt.want)
			}
			if idle.Times != tt.times || idle.Longest.Lasted() != tt.longest {
				t.Errorf("got %d times, %v at most; want %d, %v", idle.Times, idle.Longest.Lasted(), tt.times, tt.longest)
			}
			if wrong != nil && !idle.Nearest.To.After(idle.Nearest.Due) {
				t.Errorf("the one nearest to its due time is %v, and some were late", idle.Nearest)
			}
		})
	}
}

// Thousands of generations of many members are checked in a moment: pairs of all shares would not be.
func TestCheckMany(t *testing.T) {
	const members, generations = 100, 300
	all := make([]Witness, members)
	for i := range all {
		all[i].Name = fmt.Sprint(i)
		for g := range generations {
			all[i].Lines = append(all[i].Lines, with(assignedLine(10*g, all[i].Name, uint64(g+1), i, members), all[i].Name), revokedLine(10*g+9, all[i].Name, uint64(g+1), 10*g+9))
		}
	}
	if wrong := Check(all); len(wrong) > 0 {
		t.Errorf("got %q", wrong[0])
	}
	all[7].Lines[len(all[7].Lines)-1].Until = at(10*generations + 5)
	all[7].Lines[len(all[7].Lines)-1].Time = at(10*generations + 5)
	all[8].Lines = append(all[8].Lines, assignedLine(10*generations, "8", generations+1, 0, 1))
	if wrong := Check(all); len(wrong) != 1 || !strings.Contains(wrong[0], "P2") {
		t.Errorf("got %q, want P2 once", wrong)
	}
}
