package ballot

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/clock"
	"github.com/quorate/quorate/internal/wire"
)

// A script drives one machine by lines and compares what it does with the lines that follow:
//
//	@0s propose B KIND a,b,c left=1.5s from=p1 [round=R] [nonce=N] [topic=T] [at=10s, tol=100ms, token=T: an action]
//	    read B
//	@1ms read B none|failed|marker|VERDICT by NONCE    (with none, members of the electorate by then: those of the proposal if none are named)
//	    broadcast B R KIND of=3 left=1.125s
//	@2ms vote B R a yes [reason]         (a is incarnation 1 of a; a#2 is incarnation 2)
//	@3ms sealed B yes|no|unknown
//	@4ms cancel B from=p2 [left=1s]
//	@4ms outcome B from=p3 [left=1s]     what has been reported about a sealed action
//	@4ms clock from=p4                   what the leader's clock shows
//	@4ms report B a done                 (of a, by request r-a)
//	@5ms suspend 2s                      its boot-time clock goes on while the others stand still
//	@5ms tick                            (a moment may have nanoseconds taken off: @1.125s-1ns)
//
// Every line is a step at its moment. A script fails by itself if a verdict is told that was not confirmed (V1), if a
// seal is repeated changed, or if a request is answered twice.
type script struct {
	t         *testing.T
	m         *Machine
	confirmed map[string]bool         // ballot, nonce, verdict: shown by the bucket
	sealed    map[string]wire.Verdict // by ballot
	answers   map[any]int
	asked     map[any]bool
	voters    map[string][]wire.Place // by ballot: who votes
	boot      time.Duration           // how long the machine was suspended
}

const second = time.Second

// startAt is the first moment of all scripts: neither zero nor round, and with clocks that disagree.
var startAt = clock.Instant{Mono: 77 * second, Boot: 1077 * second, Wall: 1_700_000_000 * second}

func newScript(t *testing.T, token uint64) *script {
	return &script{t: t, m: New(token, 3*second), confirmed: map[string]bool{}, sealed: map[string]wire.Verdict{},
		answers: map[any]int{}, asked: map[any]bool{}, voters: map[string][]wire.Place{}}
}

// run plays the text and fails at the first step that does something else.
func (s *script) run(text string) {
	s.t.Helper()
	var lines []string
	for line := range strings.SplitSeq(text, "\n") {
		if line, _, _ = strings.Cut(line, " //"); strings.TrimSpace(line) != "" {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	for i := 0; i < len(lines); {
		step := lines[i]
		if !strings.HasPrefix(step, "@") {
			s.t.Fatalf("script: %q is no step", step)
		}
		var want []string
		for i++; i < len(lines) && !strings.HasPrefix(lines[i], "@"); i++ {
			want = append(want, lines[i])
		}
		at, in := s.parse(step)
		got := s.show(s.step(at, in))
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			s.t.Fatalf("at %q\ngot:\n    %s\nwant:\n    %s", step, strings.Join(got, "\n    "), strings.Join(want, "\n    "))
		}
	}
}

// step makes one step and checks what holds for every step.
func (s *script) step(at clock.Instant, in Input) []Effect {
	s.t.Helper()
	switch in := in.(type) {
	case Propose:
		s.asked[in.Handle] = true
	case Cancel:
		s.asked[in.Handle] = true
	case SealDone:
		if in.Outcome == SealYes {
			s.confirmed[key(s.sealed[in.Ballot])] = true
		}
	case ReadDone:
		if in.Found == FoundVerdict {
			s.confirmed[key(*in.Verdict)] = true
		}
	}
	effects := s.m.Step(at, in)
	for _, e := range effects {
		switch e := e.(type) {
		case Announce:
			if !s.confirmed[key(e.Verdict)] {
				s.t.Fatalf("V1: announced %s before its seal was confirmed", key(e.Verdict))
			}
		case Answer:
			if v := e.Answer.Verdict; v != nil && !s.confirmed[key(*v)] {
				s.t.Fatalf("V1: answered %s before its seal was confirmed", key(*v))
			}
			if s.answers[e.Handle]++; s.answers[e.Handle] > 1 || !s.asked[e.Handle] {
				s.t.Fatalf("V3: request %v was answered %d times", e.Handle, s.answers[e.Handle])
			}
		case Seal:
			if old, again := s.sealed[e.Ballot]; again && string(wire.Encode(old)) != string(wire.Encode(e.Verdict)) {
				s.t.Fatalf("L4: a seal was repeated changed:\nfirst %s\nthen  %s", wire.Encode(old), wire.Encode(e.Verdict))
			}
			s.sealed[e.Ballot] = e.Verdict
		}
	}
	if next := s.m.Next(); !next.IsZero() && reached(at, next) {
		s.t.Fatalf("next step is due at %v, which is not after this step", next.Mono-startAt.Mono)
	}
	return effects
}

func key(v wire.Verdict) string { return v.Ballot + " " + v.Verdict + " by " + v.Nonce }

func (s *script) parse(line string) (clock.Instant, Input) {
	s.t.Helper()
	words := strings.Fields(line)
	opts := map[string]string{}
	var args []string
	for _, w := range words[1:] {
		if k, v, ok := strings.Cut(w, "="); ok {
			opts[k] = v
		} else {
			args = append(args, w)
		}
	}
	opt := func(k, or string) string {
		if v, ok := opts[k]; ok {
			return v
		}
		return or
	}
	duration := func(text string) (sum time.Duration) {
		for i, part := range strings.Split(text, "-") {
			d, err := time.ParseDuration(part)
			if err != nil {
				s.t.Fatalf("script: %q: %v", line, err)
			}
			if i > 0 {
				d = -d
			}
			sum += d
		}
		return sum
	}
	at := startAt.Add(duration(words[0][1:]))
	at.Boot += s.boot
	switch args[0] {
	case "propose":
		p := wire.Proposal{V: 1, Ballot: args[1], Kind: args[2], Topic: opt("topic", "deploy"), LeftMS: duration(opt("left", "1.5s")).Milliseconds()}
		if d := opts["data"]; d != "" {
			p.Data = []byte(d)
		}
		if a := opts["at"]; a != "" {
			n, _ := strconv.ParseUint(opt("token", strconv.FormatUint(s.m.token, 10)), 10, 64)
			p.When = &wire.When{Token: n, AtUS: (startAt.Boot + duration(a)).Microseconds(), ToleranceMS: duration(opt("tol", "100ms")).Milliseconds(), Wall: opt("wall", "then")}
		}
		s.voters[args[1]] = places(args[3:])
		return at, Propose{Handle: opt("from", "p1"), Proposal: p, Round: opt("round", "r1"), Nonce: opt("nonce", "n1")}
	case "cancel":
		c := Cancel{Handle: opt("from", "c1"), Ballot: args[1]}
		if l := opts["left"]; l != "" {
			c.LeftMS = duration(l).Milliseconds()
		}
		return at, c
	case "outcome":
		return at, Propose{Handle: opt("from", "o1"), Proposal: wire.Proposal{V: 1, Ballot: args[1], Ask: wire.AskOutcome, LeftMS: duration(opt("left", "1s")).Milliseconds()}}
	case "clock":
		return at, Propose{Handle: opt("from", "k1"), Proposal: wire.Proposal{V: 1, Ask: wire.AskClock}}
	case "report":
		p := place(args[2])
		return at, ReportIn{Handle: "r-" + p.ID, Report: wire.Report{V: 1, Ballot: args[1], ID: p.ID, Incarnation: p.Incarnation, Status: args[3]}}
	case "suspend":
		s.boot += duration(args[1])
		return at, Tick{}
	case "vote":
		p := place(args[3])
		return at, VoteIn{wire.Vote{V: 1, Ballot: args[1], Round: args[2], ID: p.ID, Incarnation: p.Incarnation, Answer: args[4],
			Reason: strings.Join(args[5:], " ")}}
	case "read":
		switch in := (ReadDone{Ballot: args[1]}); args[2] {
		case "none":
			in.Found, in.Electorate = FoundNone, s.voters[args[1]]
			if len(args) > 3 {
				in.Electorate = places(args[3:])
			}
			return at, in
		case "failed":
			return at, in
		case "marker":
			in.Found = FoundMarker
			return at, in
		default:
			in.Found = FoundVerdict
			v := wire.Verdict{V: 1, Ballot: args[1], Topic: opt("topic", "deploy"), Kind: opt("kind", "majority"), Verdict: args[2], Nonce: args[4]}
			if a := opts["at"]; a != "" {
				v.When = &wire.When{Token: 3, AtUS: duration(a).Microseconds(), ToleranceMS: 100, Wall: "then"}
				v.Agreed, v.Electors = []string{"a", "b"}, []wire.Place{{ID: "a", Incarnation: 1}, {ID: "b", Incarnation: 1}}
			}
			if own := s.sealed[args[1]]; own.Nonce == v.Nonce && own.Verdict == v.Verdict {
				v = own
			}
			in.Verdict = &v
			return at, in
		}
	case "sealed":
		return at, SealDone{Ballot: args[1], Outcome: map[string]Outcome{"yes": SealYes, "no": SealNo, "unknown": SealUnknown}[args[2]]}
	case "tick":
		return at, Tick{}
	}
	s.t.Fatalf("script: %q is no step", line)
	return at, nil
}

// places reads a,b#2,c.
func places(words []string) (l []wire.Place) {
	for _, w := range words {
		for id := range strings.SplitSeq(w, ",") {
			l = append(l, place(id))
		}
	}
	return l
}

// place reads a or a#2.
func place(s string) wire.Place {
	id, inc, ok := strings.Cut(s, "#")
	if !ok {
		return wire.Place{ID: id, Incarnation: 1}
	}
	n, _ := strconv.ParseUint(inc, 10, 64)
	return wire.Place{ID: id, Incarnation: n}
}

func (s *script) show(effects []Effect) (lines []string) {
	for _, e := range effects {
		switch e := e.(type) {
		case Read:
			lines = append(lines, "read "+e.Ballot)
		case Broadcast:
			b := e.Ballot
			lines = append(lines, fmt.Sprintf("broadcast %s %s %s of=%d left=%v", b.Ballot, b.Round, b.Kind, len(b.Electors), wire.MS(b.LeftMS)))
		case Seal:
			v := e.Verdict
			line := fmt.Sprintf("seal %s %d-%d-%d of %d silent=%s", key(v), v.Yes, v.No, v.Abstain, v.Of, strings.Join(v.Silent, ","))
			if v.When != nil {
				line += " agreed=" + strings.Join(v.Agreed, ",")
			}
			lines = append(lines, line)
		case Stop:
			lines = append(lines, "stop "+e.Ballot)
		case Ack:
			lines = append(lines, fmt.Sprintf("ack %v", e.Handle))
		case Announce:
			lines = append(lines, "announce "+key(e.Verdict))
		case Answer:
			a := e.Answer
			switch {
			case a.Verdict != nil:
				line := fmt.Sprintf("answer %v %s", e.Handle, key(*a.Verdict))
				for _, r := range a.Reports {
					line += " " + r.ID + ":" + r.Status
				}
				lines = append(lines, line)
			case a.ClockUS > 0:
				lines = append(lines, fmt.Sprintf("answer %v clock %v", e.Handle, time.Duration(a.ClockUS)*time.Microsecond-startAt.Boot))
			case a.Unknown:
				lines = append(lines, fmt.Sprintf("answer %v unknown", e.Handle))
			default:
				lines = append(lines, fmt.Sprintf("answer %v error %s", e.Handle, a.Error))
			}
		}
	}
	return lines
}
