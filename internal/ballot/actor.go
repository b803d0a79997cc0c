package ballot

import (
	"fmt"
	"slices"
	"time"

	"github.com/quorate/quorate/internal/clock"
	"github.com/quorate/quorate/internal/offset"
	"github.com/quorate/quorate/internal/wire"
)

// Bounds on what one voter carries.
const (
	MaxDeeds     = 4096     // actions that wait or are remembered; a further one is answered no
	MaxDeedBytes = 64 << 20 // bytes of their data
)

// An ActorInput is something that happened to a voter's actions.
type ActorInput interface{ actorInput() }

// Asked says that the user's function is asked about the ballot of an action.
type Asked struct {
	Ballot wire.Ballot
	Place  wire.Place
}

// Say is the vote on an action that the voter wants to send (also again).
type Say struct{ SendVote }

// VerdictIn is a sealed verdict: announced by a leader, which has sealed it, or read from its key.
type VerdictIn struct{ Verdict wire.Verdict }

// StopIn is a leader's word that an action is not to begin where it has not.
type StopIn struct{ Ballot string }

// LookDone answers Look.
type LookDone struct {
	Ballot  string
	Found   Found
	Verdict *wire.Verdict // with FoundVerdict
}

// ClockIn is an exchange of clocks with a leader.
type ClockIn struct{ offset.Sample }

// Acted says that the user's function has returned. It answers Act.
type Acted struct {
	Ballot string
	Missed bool   // it was not called: Act.Latest had passed before it could be
	Failed string // why it failed; "": it did not
}

// Acked says that a leader has got the report.
type Acked struct{ Ballot string }

// Resign says that the member has none of it any more: it has left, or its voting was closed.
type Resign struct{}

// ActorTick says that time has passed.
type ActorTick struct{}

func (Asked) actorInput()     {}
func (Say) actorInput()       {}
func (VerdictIn) actorInput() {}
func (StopIn) actorInput()    {}
func (LookDone) actorInput()  {}
func (ClockIn) actorInput()   {}
func (Acted) actorInput()     {}
func (Acked) actorInput()     {}
func (Resign) actorInput()    {}
func (ActorTick) actorInput() {}

// An ActorEffect is something for the voter's shell to do, in the order given.
type ActorEffect interface{ actorEffect() }

// Send sends the vote.
type Send struct {
	Reply string
	Vote  wire.Vote
}

// Exchange asks for an exchange of clocks with the leader now.
type Exchange struct{}

// Look asks for an authoritative read of the ballot's verdict key; exactly one LookDone answers it.
type Look struct{ Ballot string }

// Act calls the user's function, unless Latest has passed by then; exactly one Acted answers it.
type Act struct {
	Ballot wire.Ballot
	Place  wire.Place
	When   wire.When     // as it was sealed
	Target clock.Instant // the instant, on one's own clocks
	Latest clock.Instant
	Bound  time.Duration
}

// Tell sends the report to the leader, and to who else listens; Acked answers it, perhaps.
type Tell struct {
	Report wire.Report
	First  bool // the first time
}

func (Send) actorEffect()     {}
func (Exchange) actorEffect() {}
func (Look) actorEffect()     {}
func (Act) actorEffect()      {}
func (Tell) actorEffect()     {}

// An Actor keeps a voter's part in actions, from the question to the report (A1, rules T1 to T8 of docs/protocol.md). It
// outlives incarnations: what one said yes to, it does, in the process that said it.
type Actor struct {
	lease  time.Duration
	clocks offset.Clocks
	deeds  []*deed // in the order in which they were asked
	bytes  int
	now    clock.Instant // of the last step
	out    []ActorEffect
}

// stage of a deed.
type stage int

const (
	waiting stage = iota // for a vote, a verdict, the instant
	acting               // the user's function is called
	over                 // reported, or nothing to report
)

// deed is one action.
type deed struct {
	ballot  wire.Ballot
	place   wire.Place // that was asked last
	stage   stage
	said    []*said // one for each round in which it was asked
	held    *SendVote
	holdEnd clock.Instant // when the held yes becomes a no

	verdict  *wire.Verdict
	stopped  bool
	resigned bool
	probed   bool          // the exchange just before the instant was asked for
	bound    time.Duration // when it began

	looking bool
	lookAt  clock.Instant // zero: not
	every   time.Duration

	report  *wire.Report
	again   clock.Instant // when it is sent again; zero: never
	pace    time.Duration
	expires clock.Instant
}

// said is the vote of one round, and its instant.
type said struct {
	vote   wire.Vote
	when   wire.When
	clock  offset.Conversion
	target clock.Instant
}

// NewActor makes one. The lease paces repeats.
func NewActor(lease time.Duration) *Actor { return &Actor{lease: max(lease, 24*time.Millisecond)} }

// Deeds is how many actions it remembers.
func (a *Actor) Deeds() int { return len(a.deeds) }

// Knows reports whether it remembers an action.
func (a *Actor) Knows(id string) bool { return a.find(id) != nil }

// Next is when to Step with a tick at the latest, by the monotonic reading; the zero Instant when nothing is waited for. An instant is waited
// for by the boot-time clock, and a suspend in between does not wake who sleeps by the monotonic one: hence a look at the clocks each lease/6.
func (a *Actor) Next() clock.Instant {
	var next clock.Instant
	at := func(t clock.Instant) {
		if !t.IsZero() && (next.IsZero() || t.Mono < next.Mono) {
			next = t
		}
	}
	instant := func(t clock.Instant) {
		if !t.IsZero() {
			at(a.now.Add(min(t.Boot-a.now.Boot, a.lease/6)))
		}
	}
	for _, d := range a.deeds {
		if d.stage != acting && !d.looking { // else it is kept, however long that takes
			at(d.expires)
		}
		at(d.again)
		if d.stage != waiting {
			continue
		}
		instant(d.lookAt)
		if d.held != nil {
			at(d.holdEnd)
		}
		if s := d.agreed(); s != nil {
			instant(s.target)
			if !d.probed {
				instant(a.probe(s))
			}
		}
	}
	return next
}

// Step takes one input at its moment. What is due comes first: what is heard at the instant is heard too late to stop it.
func (a *Actor) Step(now clock.Instant, in ActorInput) []ActorEffect {
	a.out, a.now = nil, now
	if c, ok := in.(ClockIn); ok {
		a.sample(c.Sample) // before anything fires: the newest conversion counts (T4)
	}
	a.due(now)
	switch in := in.(type) {
	case Asked:
		a.asked(now, in)
	case Say:
		a.say(now, in.SendVote)
	case VerdictIn:
		if d := a.find(in.Verdict.Ballot); d != nil {
			a.sealed(now, d, in.Verdict)
		}
	case StopIn:
		if d := a.find(in.Ballot); d != nil && d.stage == waiting {
			d.stopped = true
			a.settle(now, d)
		}
	case LookDone:
		a.looked(now, in)
	case ClockIn:
		a.release(now)
	case Acted:
		a.acted(now, in)
	case Acked:
		if d := a.find(in.Ballot); d != nil {
			d.again = clock.Instant{}
		}
	case Resign:
		for _, d := range a.deeds {
			if d.stage == waiting {
				d.resigned, d.held = true, nil
				a.settle(now, d)
			}
		}
	case ActorTick:
	default:
		panic(fmt.Sprintf("ballot: actor input %T", in))
	}
	return a.out
}

func (a *Actor) emit(e ActorEffect) { a.out = append(a.out, e) }

func (a *Actor) find(id string) *deed {
	for _, d := range a.deeds {
		if d.ballot.Ballot == id {
			return d
		}
	}
	return nil
}

// asked begins a deed.
func (a *Actor) asked(now clock.Instant, in Asked) {
	b := in.Ballot
	if b.When == nil || len(a.deeds) >= MaxDeeds || a.bytes+len(b.Data) > MaxDeedBytes {
		return // Say answers for one too many
	}
	if d := a.find(b.Ballot); d != nil {
		d.place = in.Place // another incarnation in this process: which of its votes counts, the sealed round says
		return
	}
	d := &deed{ballot: b, place: in.Place, pace: a.lease / 6}
	d.expires = now.Add(Retention + wire.MS(min(b.LeftMS, MaxLeft.Milliseconds())) + MaxAhead)
	a.deeds = append(a.deeds, d)
	a.bytes += len(b.Data)
	if !a.good(now, *b.When) {
		a.emit(Exchange{}) // while the user's function is at it
	}
}

// good reports whether the clock of an instant is known well enough to say yes (T2).
func (a *Actor) good(now clock.Instant, w wire.When) bool {
	c, ok := a.clocks.Of(w.Token)
	return ok && c.Bound(now) <= w.Tolerance()
}

// say sends a vote, if it is one that this voter can stand by.
func (a *Actor) say(now clock.Instant, v SendVote) {
	d := a.find(v.Vote.Ballot)
	no := func(reason string) {
		v.Vote.Answer, v.Vote.Reason = wire.No, reason
		a.emit(Send{v.Reply, v.Vote})
	}
	w := v.When
	switch {
	case w == nil || w.AtUS <= 0 || w.AtUS > maxClock || w.ToleranceMS <= 0 || w.ToleranceMS > MaxTolerance.Milliseconds():
		no("the instant of the action is none")
		return
	case d == nil && v.Vote.Answer == wire.Yes:
		no("too many actions wait here already")
		return
	case d == nil:
		a.emit(Send{v.Reply, v.Vote})
		return
	}
	if s := d.in(v.Vote.Round); s != nil {
		if s.place() == (wire.Place{ID: v.Vote.ID, Incarnation: v.Vote.Incarnation}) {
			a.emit(Send{v.Reply, s.vote}) // a broadcast that was repeated: the answer is the same
		}
		return
	}
	if d.stage != waiting {
		return // sealed, and reported about: a yes would be one that is not kept
	}
	if c, ok := a.clocks.Of(w.Token); ok && v.Vote.Answer == wire.Yes && w.At()-c.There(now.Boot) > MaxAhead+time.Minute {
		v.Vote.Answer, v.Vote.Reason = wire.No, "its instant is too far ahead" // no leader of ours puts that: it would be remembered for as long
	}
	if v.Vote.Answer == wire.Yes && !a.good(now, *w) {
		if d.held == nil || d.held.Vote.Round != v.Vote.Round {
			d.holdEnd = now.Add(a.lease / 6)
			a.emit(Exchange{})
		}
		d.held = &v
		return
	}
	d.held = nil
	a.cast(now, d, v)
}

// cast sends the vote of a round for the first time. What it commits to is noted before that (T1).
func (a *Actor) cast(now clock.Instant, d *deed, v SendVote) {
	s := &said{vote: v.Vote, when: *v.When}
	if c, ok := a.clocks.Of(s.when.Token); ok {
		s.convert(now, c)
	}
	d.said, d.place = append(d.said, s), wire.Place{ID: v.Vote.ID, Incarnation: v.Vote.Incarnation}
	if s.vote.Answer == wire.Yes && d.verdict == nil {
		// T5: it looks for the verdict itself, if it has heard nothing by then.
		d.lookAt, d.every = s.target.Add(-a.lease/6), a.lease/24
		d.expires = s.target.Add(Retention)
	}
	a.emit(Send{v.Reply, s.vote})
	a.settle(now, d)
}

// sample takes in an exchange of clocks, and converts again what is on that leader's (T4).
func (a *Actor) sample(s offset.Sample) {
	if !a.clocks.Add(s) {
		return
	}
	c, _ := a.clocks.Of(s.Token)
	for _, d := range a.deeds {
		for _, v := range d.said {
			if v.when.Token == s.Token && d.stage == waiting {
				v.convert(s.Received, c)
			}
		}
	}
}

// release sends what was held until the clock was known better.
func (a *Actor) release(now clock.Instant) {
	for _, d := range a.deeds {
		if d.held != nil && a.good(now, *d.held.When) {
			v := *d.held
			d.held = nil
			a.cast(now, d, v)
		}
	}
}

// sealed notes the verdict.
func (a *Actor) sealed(now clock.Instant, d *deed, v wire.Verdict) {
	if !sound(&v, d.ballot.Ballot) {
		return
	}
	if d.verdict == nil {
		d.verdict = &v
		a.settle(now, d)
		return
	}
	if d.report != nil && d.stage == over {
		a.tell(now, d, false) // somebody asks
	}
}

// settle does what follows from what is known by now, short of acting.
func (a *Actor) settle(now clock.Instant, d *deed) {
	v := d.verdict
	switch {
	case d.stage != waiting || v == nil:
		return
	case v.Verdict != wire.Yes || v.When == nil:
		d.stage, d.expires = over, now.Add(a.lease) // nothing is done, and nothing to be reported
		a.shed(d)
		return
	}
	d.lookAt = clock.Instant{}
	switch s := d.in(v.Round); {
	case s != nil && s.vote.Answer == wire.Yes && d.resigned:
		a.finish(now, d, wire.ReportLate, "it left before the instant")
	case s != nil && s.vote.Answer == wire.Yes && d.stopped:
		a.finish(now, d, wire.ReportCancelled, "")
	case s != nil && s.vote.Answer == wire.Yes:
		a.fire(now, d)
	case s != nil:
		a.none(now, d)
	case len(d.said) > 0 && d.said[len(d.said)-1].vote.Answer == wire.Yes:
		a.finish(now, d, wire.ReportLate, "its yes came in another round of the ballot")
	case len(d.said) > 0:
		a.none(now, d)
	}
	// Else it has not answered yet; a yes may still come in time.
}

// none reports that there is nothing to wait for, to who could think so.
func (a *Actor) none(now clock.Instant, d *deed) {
	if slices.Contains(d.verdict.Silent, d.place.ID) {
		a.finish(now, d, wire.ReportNone, "")
		return
	}
	d.stage = over
	a.shed(d)
}

// due does what the clock has brought about.
func (a *Actor) due(now clock.Instant) {
	keep := a.deeds[:0]
	for _, d := range a.deeds {
		if d.stage == waiting {
			if d.held != nil && reached(now, d.holdEnd) {
				a.doubt(now, d)
			}
			a.fire(now, d)
		}
		if s := d.agreed(); d.stage == waiting && s != nil && !d.probed && now.Boot >= a.probe(s).Boot {
			d.probed = true
			a.emit(Exchange{})
		}
		if d.stage == waiting && !d.lookAt.IsZero() && !d.looking && now.Boot >= d.lookAt.Boot {
			d.looking, d.lookAt = true, clock.Instant{}
			a.emit(Look{d.ballot.Ballot})
		}
		if !d.again.IsZero() && reached(now, d.again) {
			a.tell(now, d, false)
		}
		if reached(now, d.expires) && d.stage != acting && !d.looking {
			a.shed(d)
			continue
		}
		keep = append(keep, d)
	}
	clear(a.deeds[len(keep):])
	a.deeds = keep
}

// probe is when to exchange clocks once more before an instant: the nearer, the better the clock is known then.
func (a *Actor) probe(s *said) clock.Instant {
	return s.target.Add(-max(a.lease/48, min(2*s.when.Tolerance(), a.lease/12)))
}

// doubt turns the held yes into a no (T2).
func (a *Actor) doubt(now clock.Instant, d *deed) {
	v := *d.held
	d.held = nil
	reason := "the leader's clock is not known here"
	if c, ok := a.clocks.Of(v.When.Token); ok {
		reason = fmt.Sprintf("the leader's clock is known here to %s, the tolerance is %s", c.Bound(now).Round(10*time.Microsecond), v.When.Tolerance())
	}
	v.Vote.Answer, v.Vote.Reason = wire.No, reason
	a.cast(now, d, v)
}

// fire begins an action whose instant has come, if all is as it must be (T3): its yes is sealed, in a round in which it said yes; by
// its own boot-time clock, which nothing stops, the instant has come; and no clock shows that it is long over.
func (a *Actor) fire(now clock.Instant, d *deed) {
	s := d.agreed()
	if s == nil || now.Boot < s.target.Boot {
		return
	}
	latest := s.target.Add(s.when.Tolerance())
	if late(now, latest) {
		a.finish(now, d, wire.ReportLate, "")
		return
	}
	d.stage, d.bound = acting, s.clock.Bound(now) // T6: whatever comes, never again
	a.emit(Act{Ballot: d.ballot, Place: s.place(), When: s.when, Target: s.target, Latest: latest, Bound: d.bound})
}

// late reports whether any clock shows more than the latest moment: a suspend, a pause or a jump.
func late(now, latest clock.Instant) bool {
	return now.Mono > latest.Mono || now.Boot > latest.Boot || now.Wall > latest.Wall
}

// Late reports whether it is too late for the action right now.
func (e Act) Late(now clock.Instant) bool { return late(now, e.Latest) }

// agreed is the vote of the round that was sealed with yes, if it was a yes and is to be done.
func (d *deed) agreed() *said {
	if d.verdict == nil || d.verdict.Verdict != wire.Yes || d.verdict.When == nil || d.stopped || d.resigned {
		return nil
	}
	if s := d.in(d.verdict.Round); s != nil && s.vote.Answer == wire.Yes {
		return s
	}
	return nil
}

// convert takes the instant for the moment that it is by what is known now (T2, T4).
func (s *said) convert(now clock.Instant, c offset.Clock) {
	s.clock = c.Within(now, s.when.Tolerance())
	s.target = s.clock.Here(s.when.At())
}

func (s *said) place() wire.Place { return wire.Place{ID: s.vote.ID, Incarnation: s.vote.Incarnation} }

func (d *deed) in(round string) *said {
	for _, s := range d.said {
		if s.vote.Round == round {
			return s
		}
	}
	return nil
}

func (a *Actor) looked(now clock.Instant, in LookDone) {
	d := a.find(in.Ballot)
	if d == nil || !d.looking {
		panic(fmt.Sprintf("ballot: LookDone for %q, which was not asked for", in.Ballot))
	}
	d.looking = false
	if d.stage != waiting || d.verdict != nil {
		return
	}
	if in.Found == FoundVerdict && sound(in.Verdict, in.Ballot) {
		a.sealed(now, d, *in.Verdict)
		return
	}
	if in.Found == FoundVerdict || in.Found == FoundMarker {
		d.stage = over // B1: unknown for ever
		a.shed(d)
		return
	}
	// The seal may be on its way, or the read was not answered: again and again up to the instant, then ever more slowly.
	d.lookAt = now.Add(d.every)
	if s := d.said[len(d.said)-1]; late(now, s.target) {
		d.every = min(2*d.every, 4*a.lease)
	}
}

func (a *Actor) acted(now clock.Instant, in Acted) {
	d := a.find(in.Ballot)
	if d == nil || d.stage != acting {
		panic(fmt.Sprintf("ballot: Acted for %q, which is not acting", in.Ballot))
	}
	switch {
	case in.Missed:
		a.finish(now, d, wire.ReportLate, "")
	case in.Failed != "":
		a.finish(now, d, wire.ReportFailed, in.Failed)
	default:
		a.finish(now, d, wire.ReportDone, "")
	}
}

// finish reports.
func (a *Actor) finish(now clock.Instant, d *deed, status, text string) {
	r := &wire.Report{V: wire.Version, Ballot: d.ballot.Ballot, ID: d.place.ID, Incarnation: d.place.Incarnation, Status: status, Text: cut(text, MaxReason)}
	if s := d.in(d.verdict.Round); s != nil {
		r.ID, r.Incarnation = s.vote.ID, s.vote.Incarnation
		switch status {
		case wire.ReportDone, wire.ReportFailed:
			r.BoundUS = d.bound.Microseconds()
		case wire.ReportLate:
			r.BoundUS, r.LateUS = s.clock.Bound(now).Microseconds(), max(now.Boot-s.target.Boot, 0).Microseconds()
		}
	}
	d.stage, d.report, d.lookAt, d.held = over, r, clock.Instant{}, nil
	d.expires = now.Add(Retention)
	a.shed(d)
	a.tell(now, d, true)
}

// shed forgets the data of what is over.
func (a *Actor) shed(d *deed) {
	a.bytes -= len(d.ballot.Data)
	d.ballot.Data = nil
}

// tell sends the report, and sees to its repeat.
func (a *Actor) tell(now clock.Instant, d *deed, first bool) {
	a.emit(Tell{*d.report, first})
	d.again = now.Add(d.pace)
	d.pace = min(2*d.pace, 4*a.lease)
}
