package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/ballot"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/vote"
)

// answers that --vote takes.
const answerAsk = "ask"

func voteFlag() flagSpec {
	return flagSpec{name: "vote", value: "ANSWER", choices: []string{wire.Yes, wire.No, wire.Abstain, answerAsk},
		usage: "have a vote, and answer every ballot so: yes, no, abstain, or ask on standard input (default: no vote)"}
}

// votes makes the member one that votes, if a flag says so, and tells of ballots, verdicts and actions.
func (m *member) votes(ctx context.Context) {
	m.tasks.Go(func() { m.watchVerdicts(ctx) })
	m.watchActions(ctx)
	answer, onBallot := m.c.str("vote"), m.c.str("on-ballot")
	if answer == "" && onBallot == "" {
		m.watchBallots(ctx)
		return
	}
	var ask *asker
	if answer == answerAsk {
		ask = newAsker(m.c)
	}
	decide := func(ctx context.Context, b vote.Ballot) vote.Answer {
		if ctx.Err() != nil {
			return vote.Abstain() // decided already: its line would stand behind the verdict's
		}
		e := &ballotEvent{Ballot: b.ID, Topic: b.Topic, Kind: string(b.Kind), Deadline: wire.Time(b.Deadline), Of: b.Of, timing: newTiming(b.At, b.Tolerance)}
		m.j.emit(e)
		switch {
		case onBallot != "":
			return m.askHook(ctx, onBallot, e, b)
		case answer == wire.Yes:
			return vote.Yes()
		case answer == wire.No:
			return vote.No("")
		case answer == answerAsk:
			return ask.answer(ctx, b)
		}
		return vote.Abstain()
	}
	m.tasks.Go(func() {
		v, err := vote.Join(ctx, m.g, vote.Config{Decide: decide, Act: m.act, Reported: func(b vote.Ballot, r vote.Report) { m.j.emit(newActionEvent(b.ID, r)) }})
		if err != nil {
			if ctx.Err() == nil && m.g.Context().Err() == nil {
				m.fail(m.c.failed(ctx, err))
			}
			return
		}
		<-ctx.Done()
		bounded, cancel := context.WithTimeout(context.Background(), m.c.g.timeout)
		defer cancel()
		_ = v.Close(bounded) // the membership has ended, and the voting with it
	})
}

// ballotEnv tells a hook in its environment what a shell cannot easily take from the line.
func ballotEnv(b vote.Ballot) []string {
	return []string{"QUORATE_BALLOT=" + b.ID, "QUORATE_TOPIC=" + b.Topic}
}

// ballotsAtOnce is how many commands of --on-ballot run at a time: any client can put thousands of ballots, and the machine is needed for other things.
const ballotsAtOnce = 64

// askHook has the command of --on-ballot answer. It has until the ballot's deadline.
func (m *member) askHook(ctx context.Context, command string, e *ballotEvent, b vote.Ballot) vote.Answer {
	full := *e
	full.hookData = newHookData(b.Data)
	line, err := m.j.w.hookLine(&full)
	if err != nil {
		m.c.note("join: --on-ballot: %s", err)
		return vote.Abstain()
	}
	select {
	case m.asking <- struct{}{}:
		defer func() { <-m.asking }()
	case <-ctx.Done():
		return vote.Abstain() // others took all of the time
	}
	out, err := m.hook(ctx, command, line, ballotEnv(b)...)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return vote.Yes()
	case ctx.Err() != nil:
		return vote.Abstain() // it is over
	case errors.As(err, &exit) && exit.ExitCode() == 1:
		return vote.No(firstLine(out))
	}
	m.c.note("join: --on-ballot: %s: abstaining", err)
	return vote.Abstain()
}

// longestAction is how long the command of --on-action may take.
const longestAction = 10 * time.Minute

// act has the command of --on-action do what was agreed on.
func (m *member) act(ctx context.Context, b vote.Ballot) error {
	command := m.c.str("on-action")
	if command == "" {
		return nil
	}
	line, err := m.j.w.hookLine(&actionEvent{Ballot: b.ID, Member: m.cfg.ID, Topic: b.Topic, Kind: string(b.Kind), timing: newTiming(b.At, b.Tolerance), hookData: newHookData(b.Data)})
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeoutCause(ctx, longestAction, fmt.Errorf("killed: it took longer than %s", longestAction))
	defer cancel()
	out, err := m.hook(bounded, command, line, ballotEnv(b)...)
	if err != nil {
		m.c.note("join: --on-action: %s", err)
		if text := firstLine(out); text != "" {
			return errors.New(text)
		}
	}
	return err
}

// firstLine is the first line of what a hook has printed.
func firstLine(out []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return strings.TrimSpace(line)
}

func newActionEvent(ballot string, r vote.Report) *actionEvent {
	e := &actionEvent{Ballot: ballot, Member: r.Member, Status: r.Status}
	if r.Status == vote.Late && r.Late > 0 {
		ms := r.Late.Milliseconds()
		e.LateMS = &ms
	}
	return e
}

// watchActions tells what the others report. Reports are repeated.
func (m *member) watchActions(ctx context.Context) {
	ns := m.g.Namespace()
	var mu sync.Mutex
	var told []string // the last ones
	sub, err := ns.Store.Conn().Subscribe(wire.GroupSubject(ns.Name, m.group, wire.SubReport), func(msg *nats.Msg) {
		var r wire.Report
		if len(msg.Data) > 4096 || wire.Decode(msg.Data, &r) != nil || wire.CheckBallot(r.Ballot) != nil || wire.CheckID(r.ID) != nil || r.ID == m.cfg.ID {
			return // one's own are told by the voting itself
		}
		switch r.Status {
		case wire.ReportDone, wire.ReportFailed, wire.ReportLate, wire.ReportCancelled:
		default:
			return
		}
		mu.Lock()
		defer mu.Unlock()
		key := fmt.Sprintf("%s %s %d", r.Ballot, r.ID, r.Incarnation)
		if slices.Contains(told, key) {
			return
		}
		if told = append(told, key); len(told) > 1024 {
			told = told[1:]
		}
		m.j.emit(newActionEvent(r.Ballot, vote.Report{Member: r.ID, Status: r.Status, Late: time.Duration(r.LateUS) * time.Microsecond}))
	})
	if err != nil {
		m.fail(m.c.failed(ctx, err))
		return
	}
	context.AfterFunc(ctx, func() { _ = sub.Unsubscribe() }) // a closed connection has ended it already
}

// watchVerdicts tells what is sealed.
func (m *member) watchVerdicts(ctx context.Context) {
	for v, err := range vote.Watch(ctx, m.g.Client) {
		if err != nil {
			return // the membership has ended
		}
		m.j.emit(newVerdictEvent(v))
	}
}

func newVerdictEvent(v vote.Verdict) *verdictEvent {
	return &verdictEvent{Ballot: v.Ballot, Topic: v.Topic, Kind: string(v.Kind), Verdict: v.Verdict, Yes: v.Yes, No: v.No, Abstain: v.Abstain,
		Of: v.Of, Silent: v.Silent, timing: newTiming(v.At, v.Tolerance)}
}

// watchBallots tells a member without a vote what the others are asked. A ballot is sent to all, and again to the silent.
func (m *member) watchBallots(ctx context.Context) {
	ns := m.g.Namespace()
	var mu sync.Mutex
	var told []string // the last ones
	sub, err := ns.Store.Conn().Subscribe(wire.GroupSubject(ns.Name, m.group, wire.SubBallot), func(msg *nats.Msg) {
		var b wire.Ballot
		if wire.Decode(msg.Data, &b) != nil || wire.CheckBallot(b.Ballot) != nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if slices.Contains(told, b.Ballot) {
			return
		}
		if told = append(told, b.Ballot); len(told) > 256 {
			told = told[1:]
		}
		e := &ballotEvent{Ballot: b.Ballot, Topic: b.Topic, Kind: b.Kind, Deadline: wire.Time(time.Now().Add(wire.MS(b.LeftMS))), Of: max(b.Of, len(b.Electors))}
		if w := b.When; w != nil {
			if at, err := time.Parse(time.RFC3339Nano, w.Wall); err == nil {
				e.timing = newTiming(at, w.Tolerance())
			}
		}
		m.j.emit(e)
	})
	if err != nil {
		m.fail(m.c.failed(ctx, err))
		return
	}
	context.AfterFunc(ctx, func() { _ = sub.Unsubscribe() }) // a closed connection has ended it already
}

// An asker asks on standard error and reads the answers from standard input, one ballot at a time.
//
// Its reader is the one goroutine of a command that nobody waits for: a read of standard input cannot be interrupted.
type asker struct {
	c        *call
	terminal bool
	turn     chan struct{}
	lines    chan string // closed at the end of the input
}

func newAsker(c *call) *asker {
	out, _ := c.stdin.(io.Writer) // a file is both
	a := &asker{c: c, terminal: terminal(out), turn: make(chan struct{}, 1), lines: make(chan string)}
	go func() {
		defer close(a.lines)
		for in := bufio.NewScanner(c.stdin); in.Scan(); {
			a.lines <- in.Text()
		}
	}()
	return a
}

// answer asks until there is an answer, or until the ballot is over.
func (a *asker) answer(ctx context.Context, b vote.Ballot) vote.Answer {
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return vote.Abstain()
	}
	if a.terminal {
		select { // typed before the question was seen: no answer to it
		case <-a.lines:
		default:
		}
	}
	if ctx.Err() != nil {
		return vote.Abstain() // over before it could be asked
	}
	for {
		a.c.note("ballot: %s (%s of %d, %s left): yes, no [REASON] or abstain (y, n, a)?", b.Topic, kindText(string(b.Kind)), b.Of, max(time.Until(b.Deadline), 0).Round(time.Second))
		select {
		case <-ctx.Done():
			a.c.note("ballot: %s: it is over", b.Topic)
			return vote.Abstain()
		case line, ok := <-a.lines:
			if !ok {
				a.c.note("ballot: %s: standard input has ended: abstaining", b.Topic)
				return vote.Abstain()
			}
			word, reason, _ := strings.Cut(strings.TrimSpace(line), " ")
			switch strings.ToLower(word) {
			case "y", wire.Yes:
				return vote.Yes()
			case "n", wire.No:
				return vote.No(strings.TrimSpace(reason))
			case "a", wire.Abstain:
				return vote.Abstain()
			}
		}
	}
}

// A verdictLine is a verdict as `vote -o json` shows it: the fields of the event (design section 7), then more.
type verdictLine struct {
	Group     string       `json:"group" doc:"the group"`
	Ballot    string       `json:"ballot" doc:"the ballot's id"`
	Topic     string       `json:"topic" doc:"what was asked"`
	Kind      string       `json:"kind" doc:"majority, two-thirds, consensus, or the number of yes that is needed"`
	Verdict   string       `json:"verdict" doc:"yes, no, timed-out, or unknown"`
	Yes       int          `json:"yes" doc:"how many said yes"`
	No        int          `json:"no" doc:"how many said no"`
	Abstain   int          `json:"abstain" doc:"how many abstained"`
	Of        int          `json:"of" doc:"how many could vote"`
	Silent    []string     `json:"silent" doc:"who could, and was not heard"`
	Reasons   []reasonLine `json:"reasons" doc:"of those who said no"`
	DecidedAt *string      `json:"decided_at" doc:"when it was sealed, by the leader's clock; null for unknown"`
	timing
	Agreed  []string     `json:"agreed,omitempty" doc:"of an action: who had said yes when it was decided"`
	Outcome []actionLine `json:"outcome,omitempty" doc:"of an action: what became of it at each who had said yes, with --at"` // of an action that was agreed on
}

// An actionLine is one member's part in an action: the fields of the event, then more.
type actionLine struct {
	Member  string `json:"member" doc:"who"`
	Status  string `json:"status" doc:"done, failed, late, cancelled, unheard or none"`
	LateMS  *int64 `json:"late_ms,omitempty" doc:"how late it would have begun, or did"`
	BoundMS *int64 `json:"bound_ms,omitempty" doc:"how far off the instant it may have begun because of its clock"`
	Text    string `json:"text,omitempty" doc:"what it says about it"`
}

func newActionLines(o vote.Outcome) []actionLine {
	l := make([]actionLine, 0, len(o.Reports))
	for _, r := range o.Reports {
		a := actionLine{Member: r.Member, Status: r.Status, Text: r.Text, LateMS: newActionEvent("", r).LateMS}
		if r.Bound > 0 {
			ms := wire.ToMS(r.Bound)
			a.BoundMS = &ms
		}
		l = append(l, a)
	}
	return l
}

type reasonLine struct {
	Member string `json:"member" doc:"who"`
	Text   string `json:"text" doc:"why"`
}

func newVerdictLine(group string, v vote.Verdict) verdictLine {
	l := verdictLine{Group: group, Ballot: v.Ballot, Topic: v.Topic, Kind: string(v.Kind), Verdict: v.Verdict, Yes: v.Yes, No: v.No, Abstain: v.Abstain,
		Of: v.Of, Silent: append([]string{}, v.Silent...), Reasons: []reasonLine{}, DecidedAt: wireTime(v.DecidedAt), timing: newTiming(v.At, v.Tolerance), Agreed: v.Agreed}
	for _, r := range v.Reasons {
		l.Reasons = append(l.Reasons, reasonLine(r))
	}
	return l
}

const longestVote = 10 * time.Minute // what a leader gives a ballot at most

func voteCommand() *command {
	return &command{
		name:    "vote",
		section: sectionAct,
		summary: "put a question to the members of a group that vote",
		about: "Puts TOPIC to the members that vote (those that joined with --vote or --on-ballot) and prints the verdict with the tally. It is decided as soon as no " +
			"further answer can change it, and at the latest after --timeout; there is one verdict, whoever crashes meanwhile.\n\n" +
			"Kinds, of n members that vote: majority (more than n/2 say yes), two-thirds (at least two thirds), consensus (all), or a number " +
			"(at least so many). Who abstains or is silent counts in n.\n\n" +
			"With --at it is about an action: each member that says yes runs what its --on-action names, at that moment (within the tolerance, by clocks that are " +
			"compared with the leader's). The verdict is followed by what came of it at each: done, failed, late, cancelled, or unheard. The exit code is the verdict's.",
		args: []argSpec{{name: "GROUP"}, {name: "TOPIC", unless: "cancel"}},
		flags: []flagSpec{
			{name: "kind", value: "KIND", def: string(vote.Majority), usage: "majority, consensus, two-thirds, or how many must say yes"},
			{name: "at", value: "TIME", usage: "act on it: who says yes does, at that moment (RFC 3339, or +10s from now; at most 30m ahead)"},
			{name: "tolerance", kind: kindDuration, value: "D", usage: "with --at: how far from that moment a member may begin (default: lease/30, at least 100ms)"},
			{name: "cancel", value: "BALLOT", usage: "in place of TOPIC: stop that ballot, or the action that was agreed on, where it has not begun"},
		},
		needs: needClient,
		json:  []shape{{of: verdictLine{}}},
		examples: []example{
			{"quorate vote workers 'switch over?'", "more than half must say yes"},
			{"quorate vote workers deploy --kind consensus --timeout 30s && ./deploy", "go on only if all say yes"},
			{"quorate vote valves open --kind consensus --at +10s -j", "open them together ten seconds from now, if all agree, and tell who has"},
			{"quorate vote valves --cancel BALLOT", "do not open them after all"},
		},
		exits: []exitSpec{{ExitDone, "yes, whatever came of an action; with --cancel: it is stopped, or was decided already"}, {ExitFailed, "failed; also: no such group, no such ballot to cancel"},
			{ExitNo, "no"}, {ExitUnanswered, "timed out, verdict unknown, no leader, or nobody votes"}},
		run: runVote,
	}
}

// instant reads the value of --at.
func instant(s string, now time.Time) (time.Time, error) {
	var at time.Time
	if plus, ok := strings.CutPrefix(s, "+"); ok {
		d, err := time.ParseDuration(plus)
		if err != nil || d <= 0 {
			return at, usageError("--at %q: want a time ahead, as in +10s or +1m30s", s)
		}
		at = now.Add(d)
	} else {
		var err error
		if at, err = time.Parse(time.RFC3339Nano, s); err != nil {
			return at, usageError("--at %q: want a time as in %s, or +10s for ten seconds from now", s, now.UTC().Add(time.Minute).Format(time.RFC3339))
		}
	}
	switch ahead := at.Sub(now); {
	case ahead <= 0:
		return at, usageError("--at %s: that is %s ago", s, (-ahead).Round(time.Second))
	case ahead > ballot.MaxAhead:
		return at, usageError("--at %s: that is %s ahead, at most %s are allowed: propose it nearer to it", s, ahead.Round(time.Second), ballot.MaxAhead)
	}
	return at, nil
}

// proposal reads the flags and arguments.
func (c *call) proposal() (vote.Proposal, error) {
	p := vote.Proposal{Topic: c.arg(1), Kind: vote.Kind(c.str("kind"))}
	if _, err := ballot.ParseKind(string(p.Kind)); err != nil {
		return p, usageError("--%w", err)
	}
	switch {
	case p.Topic == "":
		return p, usageError("vote: TOPIC is empty: say what is voted on")
	case len(p.Topic) > wire.MaxTopic:
		return p, usageError("vote: TOPIC is %d bytes long, at most %d are allowed", len(p.Topic), wire.MaxTopic)
	case c.g.timeout > longestVote:
		return p, usageError("vote: --timeout %s: a vote takes at most %s", c.g.timeout, longestVote)
	case c.isSet("tolerance") && !c.isSet("at"):
		return p, usageError("--tolerance: of what? give --at too")
	}
	if c.isSet("at") {
		var err error
		if p.At, err = instant(c.str("at"), time.Now()); err != nil {
			return p, err
		}
		if p.Tolerance = c.duration("tolerance"); c.isSet("tolerance") && (p.Tolerance < time.Millisecond || p.Tolerance > ballot.MaxTolerance) {
			return p, usageError("--tolerance %s: want from 1ms to %s", p.Tolerance, ballot.MaxTolerance)
		}
	}
	return p, nil
}

func runVote(ctx context.Context, c *call) error {
	if c.isSet("cancel") {
		return c.cancelVote(ctx, c.str("cancel"))
	}
	p, err := c.proposal()
	if err != nil {
		return err
	}
	return c.inGroup(ctx, func(bounded context.Context, cl *coord.Client, _ coord.Roster) error {
		v, err := vote.Propose(bounded, cl, p)
		switch {
		case errors.Is(err, vote.ErrNoVoters):
			return failure(ExitUnanswered, "vote: nobody in group %q votes: members join with --vote or --on-ballot", cl.Name())
		case errors.Is(err, vote.ErrBadProposal):
			return failure(ExitUsage, "vote: %s", strings.TrimPrefix(c.failed(bounded, err).Error(), "vote: "))
		case err != nil:
			return c.failed(bounded, err)
		}
		return c.tellVerdict(ctx, cl, v, max(time.Until(v.At), 0)+c.g.timeout)
	})
}

// cancelVote stops a ballot.
func (c *call) cancelVote(ctx context.Context, id string) error {
	if err := wire.CheckBallot(id); err != nil {
		return err
	}
	for _, f := range []string{"kind", "at", "tolerance"} {
		if c.isSet(f) {
			return usageError("--cancel and --%s: leave one out", f)
		}
	}
	return c.inGroup(ctx, func(bounded context.Context, cl *coord.Client, _ coord.Roster) error {
		v, err := vote.Cancel(bounded, cl, id)
		if errors.Is(err, vote.ErrNoBallot) {
			return failure(ExitFailed, "vote: group %q has no ballot %s that could be cancelled: 'quorate votes %s' lists what was decided", cl.Name(), id, cl.Name())
		} else if err != nil {
			return c.failed(bounded, err)
		}
		err = c.tellVerdict(ctx, cl, v, c.g.timeout)
		var exit *exitError
		if errors.As(err, &exit) && exit.text == "" {
			return nil // stopped, or decided before: either is what was to be known
		}
		return err
	})
}

// tellVerdict prints a verdict, and what came of it if it is that of an action; ctx is not bounded by --timeout, the outcome by most.
func (c *call) tellVerdict(ctx context.Context, cl *coord.Client, v vote.Verdict, most time.Duration) error {
	line := newVerdictLine(cl.Name(), v)
	text := verdictText(v)
	var err error
	if v.Won() && !v.At.IsZero() {
		if !c.g.json {
			c.note("vote: ballot %s: agreed, at %s", v.Ballot, wire.Time(v.At))
		}
		bounded, cancel := context.WithTimeout(ctx, most)
		defer cancel()
		o, oerr := v.Outcome(bounded)
		err = oerr // what is known is shown all the same
		line.Outcome = newActionLines(o)
		text += outcomeText(o)
	}
	if v.Verdict == vote.TimedOut && !v.At.IsZero() && len(v.Silent) > 0 && !c.g.json {
		c.note("vote: not agreed on in time, which is a sixth of the group's lease before the instant at the latest")
	}
	perr := error(nil)
	if c.g.json {
		perr = c.printJSON(line)
	} else if v.Verdict != vote.Unknown {
		perr = c.print(text)
	}
	switch {
	case perr != nil:
		return perr
	case err != nil:
		return c.failed(ctx, err)
	case v.Verdict == vote.Passed:
		return nil
	case v.Verdict == vote.Failed:
		return silent(ExitNo)
	case v.Verdict == vote.Unknown:
		return failure(ExitUnanswered, "vote: group %q: the verdict is unknown: %s", cl.Name(), v.Why)
	}
	return silent(ExitUnanswered)
}

// outcomeText is an outcome for people, a line for each member.
func outcomeText(o vote.Outcome) string {
	var b strings.Builder
	for _, r := range o.Reports {
		s := r.Member + ": " + r.Status
		if r.Status == vote.Late && r.Late > 0 {
			s += fmt.Sprintf(" (%s)", r.Late.Round(time.Millisecond))
		}
		if r.Text != "" {
			s += ": " + r.Text
		}
		b.WriteString("  " + oneLine(s) + "\n")
	}
	return b.String()
}

func votesCommand() *command {
	return &command{
		name:    "votes",
		section: sectionShow,
		summary: "list a group's verdicts of the last hour",
		about:   "Lists what was decided in the last hour, oldest first, also while nobody leads. Every ballot has one verdict: this one.",
		args:    []argSpec{{name: "GROUP"}},
		needs:   needClient,
		json:    []shape{{of: verdictLine{}, list: true, note: "each as of 'quorate vote'"}},
		examples: []example{
			{"quorate votes workers", "a line for each"},
			{"quorate votes workers -j", "a JSON array, each with the fields of 'quorate vote -j'"},
		},
		exits: []exitSpec{{ExitFailed, "failed; also: no such group"}},
		run: func(ctx context.Context, c *call) error {
			return c.onRecord(ctx, func(ctx context.Context, cl *coord.Client, gone bool) error {
				all, err := vote.Recent(ctx, cl)
				if err != nil {
					return c.failed(ctx, err)
				}
				if gone && len(all) == 0 {
					return c.noGroup(cl.Name())
				}
				if c.g.json {
					lines := make([]verdictLine, 0, len(all))
					for _, v := range all {
						lines = append(lines, newVerdictLine(cl.Name(), v))
					}
					return c.printJSON(lines)
				}
				if len(all) == 0 {
					return c.print("no votes\n")
				}
				t := newTable("DECIDED", "BALLOT", "VERDICT", "YES", "NO", "ABSTAIN", "OF", "KIND", "TOPIC")
				t.right, t.shrink = []int{3, 4, 5, 6}, 8
				for _, v := range all {
					t.add(ago(time.Now(), v.DecidedAt), v.Ballot, v.Verdict, strconv.Itoa(v.Yes), strconv.Itoa(v.No), strconv.Itoa(v.Abstain),
						strconv.Itoa(v.Of), kindText(string(v.Kind)), v.Topic)
				}
				return c.printTable(t)
			})
		},
	}
}

// kindText is a kind for people: a bare number says nothing.
func kindText(kind string) string {
	if _, err := strconv.Atoi(kind); err == nil {
		return "at least " + kind
	}
	return kind
}

// verdictText is a verdict for people.
func verdictText(v vote.Verdict) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d yes, %d no, %d abstain of %d (%s)", v.Verdict, v.Yes, v.No, v.Abstain, v.Of, kindText(string(v.Kind)))
	if len(v.Silent) > 0 {
		b.WriteString(", silent: " + strings.Join(v.Silent, " "))
	}
	text := oneLine(b.String()) + "\n"
	for _, r := range v.Reasons {
		if r.Text != "" {
			text += "  " + oneLine(r.Member+": "+r.Text) + "\n"
		}
	}
	return text
}
