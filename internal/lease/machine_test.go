package lease

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
	origin = 1000 * time.Hour // of the wall clock
)

var config = Config{ID: "a", Prefix: "A", Lease: 3 * second, Margin: 300 * milli, Grace: 3 * second}

func instant(s step) clock.Instant {
	return clock.Instant{Mono: s.at, Boot: s.at + s.suspended, Wall: s.at + s.suspended + s.ahead + origin}
}

func show(es []Effect) string {
	var l []string
	for _, e := range es {
		switch e := e.(type) {
		case Read:
			l = append(l, "read")
		case Write:
			s := [...]string{"acquire", "renew", "undo", "turn"}[e.Kind]
			if e.Keeps {
				s += " not quorate"
			}
			if e.Kind == Undo {
				if e.Next != "" {
					e.Reason += " for " + e.Next
				}
				l = append(l, fmt.Sprintf("%s %d (%s, %s)", s, e.Expected, e.Replaces, e.Reason))
				break
			}
			l = append(l, fmt.Sprintf("%s %s over %d", s, e.Nonce, e.Expected))
		case Begin:
			s := fmt.Sprintf("begin %d until %v", e.Token, e.Deadline.Mono)
			if !e.Quorate {
				s += ", not quorate"
			}
			if e.After != 0 {
				s += fmt.Sprintf(", after %d", e.After)
			}
			l = append(l, s)
		case Extend:
			l = append(l, fmt.Sprintf("extend %d until %v", e.Token, e.Deadline.Mono))
		case Asked:
			l = append(l, "asked")
		case Ended:
			c := map[Cause]string{Resigned: "resigned", StepDown: "stepped down", Expired: "expired", Lost: "lost", BucketLost: "bucket lost",
				NotQuorate: "not quorate", Turned: "turned"}[e.Cause]
			l = append(l, fmt.Sprintf("ended: %s at %v", c, e.Until.Mono))
		case Turning:
			l = append(l, "turning")
		case Released:
			l = append(l, "released")
		case Busy:
			l = append(l, "busy")
		}
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

// held is a record of somebody, or of a ("A.n").
func held(rev uint64, nonce string, token uint64, lease time.Duration) Entry {
	return Entry{Kind: Held, Rev: rev, Rec: &wire.Leader{ID: "x", Nonce: nonce, Token: token, Params: wire.Params{LeaseMS: wire.ToMS(lease)}}}
}

func found(e Entry) ReadDone                   { return ReadDone{OK: true, Entry: e} }
func yes(nonce string, rev uint64) WriteDone   { return WriteDone{nonce, Yes, rev, nil} }
func no(nonce string, rev uint64) WriteDone    { return WriteDone{nonce, No, rev, nil} }
func unanswered(nonce string) WriteDone        { return WriteDone{nonce, Unknown, 0, nil} }
func with(before []step, after ...step) []step { return append(slices.Clone(before), after...) }
func tick(at time.Duration, want string) step  { return step{at: at, in: Tick{}, want: want} }
func release(rev, replaced uint64, n string) Entry {
	return Entry{Release, rev, nil, replaced, n, "", nil}
}

// leading is a term with token 5, acquired by a write sent at 10 ms.
var leading = []step{
	{at: 0, in: Campaign{}, want: "read"},
	{at: 10 * milli, in: found(Entry{}), want: "acquire A.1 over 0"},
	{at: 20 * milli, in: yes("A.1", 5), want: "begin 5 until 2.71s"},
}

// TestDeadline: E1, L3. The term ends at sent + lease - margin, by whichever clock shows most, also when no call returns.
func TestDeadline(t *testing.T) {
	silent := with(leading, step{at: 510 * milli, in: Tick{}, want: "renew A.2 over 5"})
	const d = 2710 * milli
	for name, s := range map[string]step{
		"one nanosecond before":              {at: d - 1, want: ""},
		"at it":                              {at: d, want: "ended: expired at 2.71s"},
		"wall clock ahead, before":           {at: second, ahead: d - second - 1, want: ""},
		"wall clock ahead, at it":            {at: second, ahead: d - second, want: "ended: expired at 2.71s"},
		"suspended, before":                  {at: second, suspended: d - second - 1, want: ""},
		"suspended, at it":                   {at: second, suspended: d - second, want: "ended: expired at 2.71s"},
		"wall clock set back does not delay": {at: d, ahead: -time.Hour, want: "ended: expired at 2.71s"},
	} {
		t.Run(name, func(t *testing.T) {
			s.in = Tick{}
			m := play(t, config, with(silent, s))
			if _, _, ok := m.Holding(); ok != (s.want == "") {
				t.Errorf("Holding: got %v, want %v", ok, s.want == "")
			}
		})
	}
	t.Run("an answer at the deadline is too late", func(t *testing.T) {
		play(t, config, with(silent, step{at: d, in: yes("A.2", 6), want: "ended: expired at 2.71s"}))
	})
	t.Run("an acquire answered at its deadline is undone", func(t *testing.T) {
		play(t, config, with(leading[:2], step{at: d, in: yes("A.1", 5), want: "undo 5 (A.1, undone)"}))
	})
	t.Run("and one nanosecond before is a term", func(t *testing.T) {
		play(t, config, with(leading[:2], step{at: d - 1, in: yes("A.1", 5), want: "begin 5 until 2.71s; renew A.2 over 5"}))
	})
}

// TestToken: L2. The token is the revision of the acquiring write for the whole term.
func TestToken(t *testing.T) {
	m := play(t, config, with(leading,
		tick(510*milli, "renew A.2 over 5"),
		step{at: 520 * milli, in: yes("A.2", 9), want: "extend 5 until 3.21s"},
		tick(1010*milli, "renew A.3 over 9"),
		step{at: 1020 * milli, in: yes("A.3", 12), want: "extend 5 until 3.71s"},
	))
	if token, _, _ := m.Holding(); token != 5 {
		t.Errorf("token after two renewals: got %d, want 5", token)
	}
}

// TestWait: E2. A candidate waits the larger lease on the monotonic clock, from the arrival of what it saw.
func TestWait(t *testing.T) {
	// The read was asked at 0 and answered after a second, in which the holder may have renewed for the last time.
	seen := func(lease time.Duration) []step {
		e := held(7, "X.1", 3, lease)
		l := []step{{at: 0, in: Campaign{}, want: "read"}, {at: second, in: found(e), want: ""}}
		for at := second + 400*milli; at < second+max(lease, 3*second)-50*milli; at += 400 * milli {
			l = append(l, step{at: at, in: Seen{e}, want: ""})
		}
		return l
	}
	for name, c := range map[string]struct {
		lease time.Duration
		s     step
	}{
		"from the answer, not the question": {3 * second, tick(3*second, "")},
		"one nanosecond before":             {3 * second, tick(4*second-1, "")},
		"at it":                             {3 * second, tick(4*second, "acquire A.1 over 7")},
		"wall clock jumps":                  {3 * second, step{at: 3900 * milli, in: Tick{}, ahead: time.Hour, want: ""}},
		"suspended":                         {3 * second, step{at: 3900 * milli, in: Tick{}, suspended: time.Hour, want: ""}},
		"longer lease in the record":        {9 * second, tick(10*second-1, "")},
		"longer lease is over":              {9 * second, tick(10*second, "acquire A.1 over 7")},
		"shorter lease in the record":       {second, tick(4*second-1, "")},
		"shorter lease, own is over":        {second, tick(4*second, "acquire A.1 over 7")},
	} {
		t.Run(name, func(t *testing.T) { play(t, config, with(seen(c.lease), c.s)) })
	}
	t.Run("starts again with every newer revision", func(t *testing.T) {
		play(t, config, with(seen(3*second), step{at: 3900 * milli, in: Seen{held(8, "X.2", 3, 3*second)}, want: ""}, tick(4*second, "")))
	})
	t.Run("a read older than what was seen proves nothing", func(t *testing.T) { // E5
		play(t, config, []step{
			{at: 0, in: Campaign{}, want: "read"},
			{at: milli, in: Seen{held(7, "X.1", 3, 3*second)}, want: ""},
			{at: 2 * milli, in: found(release(6, 5, "X.0")), want: ""},
		})
	})
}

// TestAbsent: E3. What is free at once, and what is waited for like a held key.
func TestAbsent(t *testing.T) {
	known := []step{
		{at: 0, in: Campaign{}, want: "read"},
		{at: 0, in: found(held(7, "X.1", 3, 3*second)), want: ""},
		tick(second, "read"),
	}
	removed := Entry{Kind: Removed, Rev: 8}
	for name, c := range map[string]struct {
		before []step
		e      Entry
		want   string
	}{
		"released by its author":                {known, release(8, 7, "X.1"), "acquire A.1 over 8"},
		"released, record not seen":             {known, release(9, 8, "X.2"), "acquire A.1 over 9"},
		"released with another's nonce":         {known, release(8, 7, "Y.1"), ""},
		"removed by expiry or foreign hand":     {known, removed, ""},
		"nothing there, though a holder was":    {known, Entry{}, ""},
		"nothing there, nothing ever seen":      {known[:1], Entry{}, "acquire A.1 over 0"},
		"removed, record never seen":            {known[:1], removed, ""},
		"record that does not decode":           {known[:1], Entry{Kind: Held, Rev: 8}, ""},
		"released, nothing known of its record": {known[:1], release(8, 0, "X.1"), "acquire A.1 over 8"},
	} {
		t.Run(name, func(t *testing.T) {
			at := second + 10*milli
			m := play(t, config, with(c.before, step{at: at, in: found(c.e), want: c.want}))
			if c.want != "" {
				return
			}
			wait := 3 * second
			if len(c.before) == 1 {
				wait = Unseen
			}
			due, _ := m.wait()
			if got := m.firstSeen.Mono + due; got != at+wait {
				t.Errorf("free at %v, want %v", got, at+wait)
			}
		})
	}
}

// TestUnanswered: L4, E4. An unanswered renewal is settled by a read, and counts from its own sending.
func TestUnanswered(t *testing.T) {
	unknown := with(leading,
		tick(510*milli, "renew A.2 over 5"),
		step{at: 1010 * milli, in: unanswered("A.2"), want: "read"},
	)
	t.Run("it had not landed", func(t *testing.T) {
		play(t, config, with(unknown, step{at: 1020 * milli, in: found(held(5, "A.1", 0, 3*second)), want: ""},
			tick(1110*milli, "renew A.3 over 5")))
	})
	t.Run("found at once", func(t *testing.T) {
		play(t, config, with(unknown, step{at: 1020 * milli, in: found(held(6, "A.2", 5, 3*second)), want: "extend 5 until 3.21s"}))
	})
	t.Run("found after a second try was sent", func(t *testing.T) {
		play(t, config, with(unknown,
			step{at: 1020 * milli, in: found(held(5, "A.1", 0, 3*second)), want: ""},
			tick(1110*milli, "renew A.3 over 5"),
			step{at: 1610 * milli, in: unanswered("A.3"), want: "read"},
			step{at: 1620 * milli, in: found(held(6, "A.2", 5, 3*second)), want: "extend 5 until 3.21s"},
		))
	})
	t.Run("an acquire found by a read counts from its sending", func(t *testing.T) {
		play(t, config, with(leading[:2],
			step{at: 510 * milli, in: unanswered("A.1"), want: "read"},
			step{at: 900 * milli, in: found(held(5, "A.1", 0, 3*second)), want: "begin 5 until 2.71s; renew A.2 over 5"},
		))
	})
	t.Run("and not at all after its deadline", func(t *testing.T) {
		play(t, config, with(leading[:2],
			step{at: 510 * milli, in: unanswered("A.1"), want: "read"},
			step{at: 2710 * milli, in: found(held(5, "A.1", 0, 3*second)), want: "undo 5 (A.1, undone)"},
		))
	})
}

// TestProof: E8. A transient error or a hint ends nothing, a proven loss does.
func TestProof(t *testing.T) {
	foreign := held(6, "X.1", 0, 3*second)
	t.Run("unanswered renewals and reads", func(t *testing.T) {
		m := play(t, config, with(leading,
			tick(510*milli, "renew A.2 over 5"),
			step{at: 1010 * milli, in: unanswered("A.2"), want: "read"},
			step{at: 1510 * milli, in: ReadDone{}, want: ""},
			tick(1610*milli, "renew A.3 over 5"),
			step{at: 2110 * milli, in: no("A.3", 4), want: "read"},
			step{at: 2610 * milli, in: ReadDone{}, want: ""},
		))
		if _, _, ok := m.Holding(); !ok {
			t.Error("the term ended before its deadline")
		}
	})
	t.Run("a hint of another's record", func(t *testing.T) {
		play(t, config, with(leading,
			step{at: 100 * milli, in: Seen{foreign}, want: "read"},
			step{at: 110 * milli, in: found(foreign), want: "ended: lost at 110ms; released"},
		))
	})
	t.Run("a hint that was wrong", func(t *testing.T) {
		play(t, config, with(leading,
			step{at: 100 * milli, in: Seen{foreign}, want: "read"},
			step{at: 110 * milli, in: found(held(5, "A.1", 0, 3*second)), want: ""},
			tick(510*milli, "renew A.2 over 5"),
		))
	})
	t.Run("a removal", func(t *testing.T) {
		play(t, config, with(leading,
			step{at: 100 * milli, in: Seen{Entry{Kind: Removed, Rev: 6}}, want: "read"},
			step{at: 110 * milli, in: found(Entry{Kind: Removed, Rev: 6}), want: "ended: lost at 110ms; released"},
		))
	})
}

// TestRelease: E6, L5. Work returned, then the term ends, then the release is sent.
func TestRelease(t *testing.T) {
	asked := with(leading, step{at: 100 * milli, in: Stop{Cause: Resigned}, want: "asked"})
	t.Run("in this order", func(t *testing.T) {
		play(t, config, with(asked,
			step{at: 300 * milli, in: Returned{}, want: "ended: resigned at 300ms; undo 5 (A.1, resigned)"},
			step{at: 310 * milli, in: yes("A.2", 6), want: "released"}, // and campaigns again, after the others
			tick(400*milli, "acquire A.3 over 6"),
		))
	})
	t.Run("goes on being renewed meanwhile", func(t *testing.T) {
		play(t, config, with(asked,
			tick(510*milli, "renew A.2 over 5"),
			step{at: 520 * milli, in: yes("A.2", 6), want: "extend 5 until 3.21s"},
		))
	})
	overdue := with(asked,
		tick(510*milli, "renew A.2 over 5"), step{at: 520 * milli, in: yes("A.2", 6), want: "extend 5 until 3.21s"},
		tick(3000*milli, "renew A.3 over 6"), step{at: 3010 * milli, in: yes("A.3", 7), want: "extend 5 until 5.7s"},
	)
	t.Run("not beyond its grace", func(t *testing.T) { // asked at 100 ms, grace 3 s
		play(t, config, with(overdue, tick(3500*milli, ""), tick(3700*milli, "read"),
			step{at: 3710 * milli, in: found(held(7, "A.3", 5, 3*second)), want: ""}, tick(5700*milli, "ended: resigned at 5.7s")))
	})
	t.Run("work that does not return is not released", func(t *testing.T) {
		m := play(t, config, with(overdue, tick(3700*milli, "read"), step{at: 3710 * milli, in: found(held(7, "A.3", 5, 3*second)), want: ""},
			tick(5700*milli, "ended: resigned at 5.7s"), tick(7*second, "")))
		if got := show(m.Step(instant(step{at: 8 * second}), Returned{})); got != "undo 7 (A.3, resigned)" {
			t.Errorf("once it is back: got %q", got)
		}
	})
	t.Run("an unanswered release is repeated by revision", func(t *testing.T) {
		play(t, config, with(asked,
			step{at: 300 * milli, in: Returned{}, want: "ended: resigned at 300ms; undo 5 (A.1, resigned)"},
			step{at: 800 * milli, in: unanswered("A.2"), want: "read"},
			step{at: 900 * milli, in: found(held(5, "A.1", 0, 3*second)), want: "undo 5 (A.1, resigned)"},
		))
	})
}

// TestNeverAgain: E7. What was given up is never taken up again, whatever a read shows.
func TestNeverAgain(t *testing.T) {
	t.Run("a term whose release is not answered", func(t *testing.T) {
		// The read shows the acquiring write of the term that has ended, well before the deadline it would have had.
		play(t, config, with(leading,
			step{at: 30 * milli, in: Stop{Cause: Resigned}, want: "asked"},
			step{at: 40 * milli, in: Returned{}, want: "ended: resigned at 40ms; undo 5 (A.1, resigned)"},
			step{at: 540 * milli, in: unanswered("A.2"), want: "read"},
			step{at: 550 * milli, in: found(held(5, "A.1", 0, 3*second)), want: ""},
			tick(650*milli, "undo 5 (A.1, resigned)"),
			step{at: 1150 * milli, in: unanswered("A.3"), want: "read"},
			step{at: 1160 * milli, in: found(held(5, "A.1", 0, 3*second)), want: ""},
		))
	})
	t.Run("an acquire whose removal was sent, by a campaign that begins again", func(t *testing.T) {
		play(t, config, with(leading[:2],
			step{at: 11 * milli, in: Withdraw{}, want: ""},
			step{at: 20 * milli, in: yes("A.1", 5), want: "undo 5 (A.1, undone)"},
			step{at: 30 * milli, in: Campaign{}, want: ""},
			step{at: 520 * milli, in: unanswered("A.2"), want: "read"}, // it may still land
			step{at: 530 * milli, in: found(held(5, "A.1", 0, 3*second)), want: ""},
			tick(620*milli, "undo 5 (A.1, undone)"),
		))
	})
	t.Run("a renewal that lands after the end", func(t *testing.T) {
		play(t, config, with(leading,
			step{at: 100 * milli, in: Stop{Cause: Resigned}, want: "asked"},
			tick(510*milli, "renew A.2 over 5"),
			step{at: 600 * milli, in: Returned{}, want: "ended: resigned at 600ms"}, // E9
			step{at: 610 * milli, in: yes("A.2", 6), want: "undo 6 (A.2, resigned)"},
		))
	})
	t.Run("a write that lands long after it was given up", func(t *testing.T) { // R22
		play(t, config, with(leading[:2],
			step{at: 510 * milli, in: unanswered("A.1"), want: "read"},
			step{at: 520 * milli, in: Withdraw{}, want: ""},
			step{at: 530 * milli, in: found(Entry{}), want: ""},
			tick(1030*milli, ""), tick(1200*milli, "read"),
			step{at: 1210 * milli, in: found(held(5, "A.1", 0, 3*second)), want: "undo 5 (A.1, undone)"},
		))
	})
}

// TestOneWrite: E9. One write is in flight at a time.
func TestOneWrite(t *testing.T) {
	play(t, config, with(leading,
		tick(510*milli, "renew A.2 over 5"),
		tick(1010*milli, ""), tick(1510*milli, ""),
	))
}

// quorum is a machine of a group with a minimum size; keeping its first term, which is not quorate.
var quorum = func() Config { c := config; c.Quorum = true; return c }()

var keeping = []step{
	{at: 0, in: Campaign{}, want: "read"},
	{at: 10 * milli, in: found(Entry{}), want: "acquire not quorate A.1 over 0"},
	{at: 20 * milli, in: yes("A.1", 5), want: "begin 5 until 2.71s, not quorate"},
	{at: 20 * milli, in: Withdraw{}, want: ""}, // one term is one campaign
}

// TestTurn: E10. The old term ends once its work has returned, then its own revision is written over: no release, a new token.
func TestTurn(t *testing.T) {
	turning := with(keeping,
		step{at: 100 * milli, in: Flip{true}, want: "asked"},
		step{at: 200 * milli, in: Returned{}, want: "ended: turned at 200ms; turning"},
		step{at: 210 * milli, in: Campaign{}, want: "turn A.2 over 5"},
	)
	turned := with(turning, step{at: 220 * milli, in: yes("A.2", 6), want: "begin 6 until 2.91s, after 5"}, step{at: 220 * milli, in: Withdraw{}, want: ""})
	t.Run("to quorate and back", func(t *testing.T) {
		m := play(t, quorum, with(turned,
			step{at: 300 * milli, in: Flip{true}, want: ""}, // it is
			step{at: 720 * milli, in: Tick{}, want: "renew A.3 over 6"},
			step{at: 730 * milli, in: yes("A.3", 7), want: "extend 6 until 3.42s"},
			step{at: 800 * milli, in: Flip{false}, want: "asked"},
			step{at: 810 * milli, in: Returned{}, want: "ended: not quorate at 810ms; turning"},
			step{at: 810 * milli, in: Campaign{}, want: "turn not quorate A.4 over 7"},
			step{at: 820 * milli, in: yes("A.4", 8), want: "begin 8 until 3.51s, not quorate, after 6"},
			step{at: 820 * milli, in: Withdraw{}, want: ""},
			step{at: 1320 * milli, in: Tick{}, want: "renew not quorate A.5 over 8"},
		))
		if token, _, _ := m.Holding(); token != 8 {
			t.Errorf("token: got %d, want 8", token)
		}
	})
	t.Run("goes on being renewed until the work returns", func(t *testing.T) {
		play(t, quorum, with(turned[:5],
			tick(510*milli, "renew not quorate A.2 over 5"),
			step{at: 520 * milli, in: yes("A.2", 6), want: "extend 5 until 3.21s"},
			step{at: 600 * milli, in: Returned{}, want: "ended: turned at 600ms; turning"},
			step{at: 600 * milli, in: Campaign{}, want: "turn A.3 over 6"},
		))
	})
	t.Run("waits for a renewal in flight", func(t *testing.T) { // E9
		play(t, quorum, with(turned[:5],
			tick(510*milli, "renew not quorate A.2 over 5"),
			step{at: 520 * milli, in: Returned{}, want: "ended: turned at 520ms; turning"},
			step{at: 530 * milli, in: Campaign{}, want: ""},
			step{at: 540 * milli, in: yes("A.2", 6), want: "turn A.3 over 6"},
		))
	})
	t.Run("unanswered, and found by a read: it counts from its sending", func(t *testing.T) { // E4
		play(t, quorum, with(turning,
			step{at: 710 * milli, in: unanswered("A.2"), want: "read"},
			step{at: 720 * milli, in: found(held(6, "A.2", 0, 3*second)), want: "begin 6 until 2.91s, after 5"}, tick(810*milli, "renew A.3 over 6"),
		))
	})
	t.Run("unanswered, and not there: tried again over the same revision", func(t *testing.T) {
		play(t, quorum, with(turning,
			step{at: 710 * milli, in: unanswered("A.2"), want: "read"},
			step{at: 720 * milli, in: found(held(5, "A.1", 0, 3*second)), want: ""},
			tick(810*milli, "turn A.3 over 5"),
			step{at: 820 * milli, in: no("A.3", 6), want: "read"}, // the first one landed before
			step{at: 830 * milli, in: found(held(6, "A.2", 0, 3*second)), want: "begin 6 until 2.91s, after 5"},
		))
	})
	t.Run("refused: a candidate like any other", func(t *testing.T) {
		m := play(t, quorum, with(turning,
			step{at: 220 * milli, in: no("A.2", 9), want: "read"},
			step{at: 230 * milli, in: found(held(9, "X.1", 0, 3*second)), want: "released"},
			tick(320*milli, ""),
		))
		if at, _ := m.Next(); at < 700*milli {
			t.Errorf("next step at %v", at)
		}
	})
	t.Run("the lease ran out meanwhile: undone, and a candidate like any other", func(t *testing.T) {
		play(t, quorum, with(turning,
			step{at: 710 * milli, in: unanswered("A.2"), want: "read"},
			step{at: 1210 * milli, in: ReadDone{}, want: ""},
			tick(2710*milli, "undo 5 (A.1, undone)"),
		))
	})
	t.Run("no campaign follows: released", func(t *testing.T) {
		play(t, quorum, with(turned[:6],
			step{at: 300 * milli, in: Withdraw{}, want: "undo 5 (A.1, resigned)"},
			step{at: 310 * milli, in: yes("A.2", 6), want: "released"},
		))
	})
	t.Run("a turn that lands after its campaign was given up is undone", func(t *testing.T) { // E7
		play(t, quorum, with(turning,
			step{at: 215 * milli, in: Withdraw{}, want: ""},
			step{at: 220 * milli, in: yes("A.2", 6), want: "undo 6 (A.2, resigned)"},
		))
	})
	t.Run("asked to resign while it turns: released", func(t *testing.T) {
		play(t, quorum, with(turned[:5],
			step{at: 150 * milli, in: Stop{Cause: Resigned}, want: ""},
			step{at: 200 * milli, in: Returned{}, want: "ended: resigned at 200ms; undo 5 (A.1, resigned)"},
		))
	})
	t.Run("work that overruns its grace: left to run out", func(t *testing.T) {
		play(t, quorum, with(turned[:5],
			tick(510*milli, "renew not quorate A.2 over 5"), step{at: 520 * milli, in: yes("A.2", 6), want: "extend 5 until 3.21s"},
			tick(3000*milli, "renew not quorate A.3 over 6"), step{at: 3010 * milli, in: yes("A.3", 7), want: "extend 5 until 5.7s"},
			tick(3700*milli, "read"), step{at: 3710 * milli, in: found(held(7, "A.3", 5, 3*second)), want: ""},
			tick(5700*milli, "ended: turned at 5.7s"),
		))
	})
	t.Run("waits for its campaign without a busy timer", func(t *testing.T) {
		m := play(t, quorum, turned[:6])
		if at, ok := m.Next(); !ok || at != 2710*milli {
			t.Errorf("next step at %v, want the deadline of the term", at)
		}
		if got := show(m.Step(instant(step{at: 2710 * milli}), Tick{})); got != "undo 5 (A.1, undone)" {
			t.Errorf("at the deadline: got %q", got)
		}
	})
}

// TestNamed: E11. A release that names a candidate is taken by it at once; the others hold back, and then go on in their order.
func TestNamed(t *testing.T) {
	named := func(id string) Entry { e := release(8, 7, "X.1"); e.Next = id; return e }
	rec := held(7, "X.1", 3, 3*second)
	rec.Rec.Next = []string{"b", "a"} // a is the second
	waiting := []step{{at: 0, in: Campaign{}, want: "read"}, {at: 0, in: found(rec), want: ""}}
	const at = 100 * milli
	t.Run("the one named", func(t *testing.T) {
		play(t, config, with(waiting, step{at: at, in: Seen{named("a")}, want: "acquire A.1 over 8"}))
	})
	t.Run("another", func(t *testing.T) {
		play(t, config, with(waiting, step{at: at, in: Seen{named("c")}, want: ""},
			tick(at+625*milli, "read"), step{at: at + 625*milli, in: found(named("c")), want: ""},
			tick(at+825*milli-1, ""), tick(at+825*milli, "acquire A.1 over 8"))) // lease/4 and lease/40
	})
	t.Run("another that only tries", func(t *testing.T) {
		play(t, config, with(waiting, step{at: at, in: Seen{named("c")}, want: ""}, step{at: at, in: Campaign{Try: true}, want: "read"},
			step{at: at, in: found(named("c")), want: "busy"}))
	})
	t.Run("the one named that did not hear of it finds it before the others may try", func(t *testing.T) {
		m := play(t, config, waiting)
		if next, ok := m.Next(); !ok || next >= 750*milli {
			t.Errorf("reads at %v, the others try from 750 ms on", next)
		}
	})
	t.Run("the holder", func(t *testing.T) {
		play(t, config, with(leading,
			step{at: 100 * milli, in: Stop{StepDown, "c"}, want: "asked"},
			step{at: 200 * milli, in: Returned{}, want: "ended: stepped down at 200ms; undo 5 (A.1, stepped-down for c)"},
			step{at: 210 * milli, in: yes("A.2", 6), want: "released"},
			tick(835*milli, "read"), step{at: 840 * milli, in: ReadDone{}, want: ""},
			tick(1100*milli, "read"), step{at: 1110 * milli, in: ReadDone{}, want: ""},
			tick(1600*milli, "read"), step{at: 1610 * milli, in: ReadDone{}, want: ""},
			tick(1710*milli, "acquire A.3 over 6"), // nobody wanted it
		))
	})
	t.Run("the holder, once another has led", func(t *testing.T) {
		play(t, config, with(leading,
			step{at: 100 * milli, in: Stop{StepDown, "c"}, want: "asked"},
			step{at: 200 * milli, in: Returned{}, want: "ended: stepped down at 200ms; undo 5 (A.1, stepped-down for c)"},
			step{at: 210 * milli, in: yes("A.2", 6), want: "released"},
			step{at: 220 * milli, in: Seen{held(7, "X.1", 0, 3*second)}, want: ""},
			step{at: 300 * milli, in: Seen{release(8, 7, "X.1")}, want: "acquire A.3 over 8"},
		))
	})
	t.Run("an unanswered release names it again", func(t *testing.T) {
		play(t, config, with(leading,
			step{at: 100 * milli, in: Stop{StepDown, "c"}, want: "asked"},
			step{at: 200 * milli, in: Returned{}, want: "ended: stepped down at 200ms; undo 5 (A.1, stepped-down for c)"},
			step{at: 700 * milli, in: unanswered("A.2"), want: "read"},
			step{at: 800 * milli, in: found(held(5, "A.1", 0, 3*second)), want: "undo 5 (A.1, stepped-down for c)"},
		))
	})
}

// TestQueueOfRelease: L5, D2. A release says who waits, newer than the record that it replaced; who knows that nobody does tries at once.
func TestQueueOfRelease(t *testing.T) {
	late := config
	late.Jitter = 0.5 // a hundredth of the lease is 15 ms then, a tenth 150 ms
	says := func(ids ...string) Entry {
		e := release(8, 7, "X.1")
		e.Queue = append([]string{}, ids...)
		return e
	}
	rec := held(7, "X.1", 3, 3*second)
	rec.Rec.Next = []string{"b", "c"}
	waiting := []step{{at: 0, in: Campaign{}, want: "read"}, {at: 0, in: found(rec), want: ""}}
	const at = 100 * milli
	t.Run("named by the release, not yet by the record", func(t *testing.T) {
		play(t, late, with(waiting, step{at: at, in: Seen{says("a", "b")}, want: "acquire A.1 over 8"}))
	})
	t.Run("second by the release", func(t *testing.T) {
		play(t, late, with(waiting, step{at: at, in: Seen{says("b", "a")}, want: ""},
			tick(at+75*milli-1, ""), tick(at+75*milli, "acquire A.1 over 8")))
	})
	t.Run("a release that does not say: as the record says", func(t *testing.T) {
		play(t, late, with(waiting, step{at: at, in: Seen{release(8, 7, "X.1")}, want: ""},
			tick(at+300*milli-1, ""), tick(at+300*milli, "acquire A.1 over 8")))
	})
	t.Run("nobody waits, as far as the holder knew: there may be others like this one", func(t *testing.T) {
		play(t, late, with(waiting, step{at: at, in: Seen{says()}, want: ""},
			tick(at+15*milli-1, ""), tick(at+15*milli, "acquire A.1 over 8")))
	})
	t.Run("come upon: nobody waits", func(t *testing.T) {
		play(t, late, []step{{at: 0, in: Campaign{}, want: "read"}, {at: at, in: found(says()), want: "acquire A.1 over 8"}})
	})
	t.Run("come upon: somebody waits", func(t *testing.T) {
		play(t, late, []step{{at: 0, in: Campaign{}, want: "read"}, {at: at, in: found(says("b")), want: ""},
			tick(at+225*milli-1, ""), tick(at+225*milli, "acquire A.1 over 8")})
	})
	resigned := with(leading, step{at: at, in: Stop{Cause: Resigned}, want: "asked"},
		step{at: at, in: Returned{}, want: "ended: resigned at 100ms; undo 5 (A.1, resigned)"})
	t.Run("the own one, and nobody waits", func(t *testing.T) {
		play(t, late, with(resigned, step{at: at, in: WriteDone{"A.2", Yes, 6, []string{}}, want: "released; acquire A.3 over 6"}))
	})
	t.Run("the own one, and another waits", func(t *testing.T) {
		play(t, late, with(resigned, step{at: at, in: WriteDone{"A.2", Yes, 6, []string{"b"}}, want: "released"},
			tick(at+225*milli-1, ""), tick(at+225*milli, "acquire A.3 over 6")))
	})
	t.Run("the own one after a step-down", func(t *testing.T) { // D4
		play(t, late, with(leading, step{at: at, in: Stop{Cause: StepDown}, want: "asked"},
			step{at: at, in: Returned{}, want: "ended: stepped down at 100ms; undo 5 (A.1, stepped-down)"},
			step{at: at, in: WriteDone{"A.2", Yes, 6, []string{}}, want: "released"},
			tick(725*milli, "read"), step{at: 725 * milli, in: ReadDone{}, want: ""},
			tick(850*milli, "acquire A.3 over 6")))
	})
	t.Run("a refused try does not hold back after the next release", func(t *testing.T) {
		next := release(10, 9, "Y.1")
		next.Queue = []string{}
		play(t, config, with(resigned, step{at: at, in: WriteDone{"A.2", Yes, 6, []string{}}, want: "released; acquire A.3 over 6"},
			step{at: at, in: no("A.3", 0), want: "read"}, // another was faster
			step{at: at, in: found(held(9, "Y.1", 0, 3*second)), want: ""},
			step{at: at + milli, in: Seen{next}, want: "acquire A.4 over 10"}))
	})
	t.Run("one's own records name who they were written with", func(t *testing.T) {
		m := play(t, config, with(waiting, step{at: at, in: Seen{says("a", "b")}, want: "acquire A.1 over 8"},
			step{at: at, in: WriteDone{"A.1", Yes, 9, []string{"b"}}, want: "begin 9 until 2.8s"}))
		if got := m.Waiting(); !slices.Equal(got, []string{"b"}) {
			t.Errorf("waiting: %q", got)
		}
	})
}
