package ballot

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/clock"
	"github.com/quorate/quorate/internal/wire"
)

// TestRandomRuns lets several leaders, one after the other and some side by side (an old one that was paused), run the
// same few ballots over one simulated bucket: writes without an answer that landed, never land, or land late; reads that
// fail or are old; lost, late and doubled broadcasts and votes; restarted voters; pauses; cancels; a foreign hand that
// purges. What has to hold:
//
//	V1  whatever is told about a ballot, by whomever, is what the bucket stored for it, at that moment already
//	L4  one leader's seal of a ballot is the same each time
//	V2  a verdict follows from its tally, counts nobody twice, and nobody who did not say so
//	V3  each request is answered once, and by its deadline unless its leader was paused or killed
func TestRandomRuns(t *testing.T) {
	runs := 600
	if testing.Short() {
		runs = 50
	}
	var sum world
	for seed := range runs {
		w := newWorld(t, uint64(seed))
		w.run()
		sum.told += w.told
		sum.adopted += w.adopted
		sum.resealed += w.resealed
		sum.rounds += w.rounds
		sum.unknown += w.unknown
	}
	t.Logf("%d runs: %d rounds, %d told, %d adopted, %d resealed, %d unknown", runs, sum.rounds, sum.told, sum.adopted, sum.resealed, sum.unknown)
	// A run in which nothing difficult happens proves nothing.
	for what, n := range map[string]int{"told": sum.told, "adopted": sum.adopted, "resealed": sum.resealed, "unknown": sum.unknown} {
		if n < runs/10 {
			t.Errorf("only %d %s in %d runs: the faults are not reached", n, what, runs)
		}
	}
}

// event is something that will happen.
type event struct {
	at  time.Duration
	seq int
	do  func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// stored is one key of the simulated bucket.
type stored struct {
	value  *wire.Verdict
	marker bool
}

// host is one leader's process.
type host struct {
	m      *Machine
	token  uint64
	killed bool
	until  time.Duration // paused until then
	seals  map[string]wire.Verdict
}

// elector is one voter's process.
type elector struct {
	id    string
	inc   uint64
	v     *Voter
	asked map[string]int
}

type world struct {
	t    *testing.T
	seed uint64
	rng  *rand.Rand
	now  time.Duration
	q    events
	seq  int

	bucket map[string]stored
	ever   map[string][]string // all that was ever stored under a key
	said   map[string]string   // ballot/id/incarnation: what that voter's user said
	cancel map[string]bool
	hosts  []*host
	voters []*elector
	names  int // for fresh rounds, nonces and handles

	told, adopted, resealed, rounds, unknown int
}

const horizon = 30 * time.Second

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 44)), bucket: map[string]stored{}, ever: map[string][]string{},
		said: map[string]string{}, cancel: map[string]bool{}}
	for i := range 1 + w.rng.IntN(5) {
		id := string(rune('a' + i))
		w.voters = append(w.voters, &elector{id: id, inc: 1, v: NewVoter(id, 1), asked: map[string]int{}})
	}
	w.elect()
	return w
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("seed %d at %v: %s", w.seed, w.now, fmt.Sprintf(format, args...))
}

func (w *world) instant() clock.Instant { return startAt.Add(w.now) }

func (w *world) chance(percent int) bool { return w.rng.IntN(100) < percent }

// soon is a network delay: mostly short, at times long.
func (w *world) soon() time.Duration {
	if w.chance(10) {
		return time.Duration(w.rng.Int64N(int64(2 * time.Second)))
	}
	return time.Duration(w.rng.Int64N(int64(5 * time.Millisecond)))
}

func (w *world) after(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.q, event{w.now + d, w.seq, do})
}

func (w *world) fresh(prefix string) string {
	w.names++
	return fmt.Sprintf("%s%d", prefix, w.names)
}

func (w *world) run() {
	for at := time.Duration(0); at < horizon; at += time.Duration(w.rng.Int64N(int64(600 * time.Millisecond))) {
		w.after(at, w.happening)
	}
	for len(w.q) > 0 && w.now < 3*horizon {
		e := heap.Pop(&w.q).(event)
		w.now = e.at
		e.do()
	}
	for _, h := range w.hosts {
		st := h.m.Stats()
		w.adopted += int(st.Adopted)
		w.resealed += int(st.Resealed)
		w.rounds += int(st.Rounds)
		w.unknown += int(st.Unknown)
	}
}

// happening is what comes from outside.
func (w *world) happening() {
	switch n := w.rng.IntN(100); {
	case n < 60:
		w.propose()
	case n < 66:
		id := w.ballot()
		w.cancel[id] = true
		w.request(func(handle any) (Input, time.Duration) {
			return Cancel{Handle: handle, Ballot: id, LeftMS: 1000}, time.Second
		})
	case n < 74:
		w.elect()
	case n < 82: // a pause of a leader, maybe across the next election
		h := w.hosts[w.rng.IntN(len(w.hosts))]
		h.until = w.now + time.Duration(w.rng.Int64N(int64(6*time.Second)))
	case n < 86:
		w.hosts[w.rng.IntN(len(w.hosts))].killed = true
	case n < 94: // a voter starts anew and remembers nothing
		e := w.voters[w.rng.IntN(len(w.voters))]
		e.inc++
		e.v, e.asked = NewVoter(e.id, e.inc), map[string]int{}
	default: // a foreign hand
		id := w.ballot()
		if w.bucket[id].value != nil || w.chance(20) {
			w.bucket[id] = stored{marker: true}
		}
	}
}

func (w *world) ballot() string { return fmt.Sprintf("b%d", w.rng.IntN(12)) }

func (w *world) elect() {
	w.hosts = append(w.hosts, &host{m: New(uint64(40+len(w.hosts)), 3*time.Second), token: uint64(40 + len(w.hosts)), seals: map[string]wire.Verdict{}})
}

// leader is whom a request reaches: mostly the newest.
func (w *world) leader() *host {
	if w.chance(80) {
		return w.hosts[len(w.hosts)-1]
	}
	return w.hosts[w.rng.IntN(len(w.hosts))]
}

func (w *world) propose() {
	id := w.ballot()
	kinds := []string{"majority", "two-thirds", "consensus", "1", "2", "6"}
	left := time.Duration(50+w.rng.IntN(4000)) * time.Millisecond
	w.request(func(handle any) (Input, time.Duration) {
		return Propose{Handle: handle, Round: w.fresh("r"), Nonce: w.fresh("n"), Proposal: wire.Proposal{V: 1,
			Ballot: id, Topic: "topic of " + id, Kind: kinds[int(id[1]-'0')%len(kinds)], LeftMS: left.Milliseconds()}}, left
	})
}

// request sends one request to a leader and checks V3 for it.
func (w *world) request(make func(handle any) (Input, time.Duration)) {
	handle := &reply{}
	in, left := make(handle)
	h := w.leader()
	if h.killed || h.until > w.now {
		return
	}
	w.step(h, in)
	w.after(left, func() {
		if !handle.answered && !h.killed && h.until == 0 {
			w.fail("V3: %+v was not answered within %v", in, left)
		}
	})
}

type reply struct{ answered bool }

// deliver hands an input to a leader once it is not paused.
func (w *world) deliver(h *host, in Input) {
	if h.until > w.now {
		w.after(h.until-w.now, func() { w.deliver(h, in) })
		return
	}
	if !h.killed {
		w.step(h, in)
	}
}

func (w *world) step(h *host, in Input) {
	for _, e := range h.m.Step(w.instant(), in) {
		switch e := e.(type) {
		case Read:
			w.read(h, e.Ballot)
		case Seal:
			w.seal(h, e)
		case Broadcast:
			for _, v := range w.voters {
				for range []int{0, 1, 1, 1, 2}[w.rng.IntN(5)] { // lost, once, doubled
					w.after(w.soon(), func() { w.hear(v, e.Ballot) })
				}
			}
		case Announce:
			w.tell(e.Verdict)
		case Answer:
			r := e.Handle.(*reply)
			if r.answered {
				w.fail("V3: a request was answered twice")
			}
			r.answered = true
			if e.Answer.Verdict != nil {
				w.tell(*e.Answer.Verdict)
			}
		}
	}
	if next := h.m.Next(); !next.IsZero() {
		w.after(max(next.Sub(w.instant()), 0), func() {
			if n := h.m.Next(); !n.IsZero() && reached(w.instant(), n) {
				w.deliver(h, Tick{})
			}
		})
	}
}

// tell is V1's watcher.
func (w *world) tell(v wire.Verdict) {
	w.told++
	text := string(wire.Encode(v))
	if ever := w.ever[v.Ballot]; len(ever) != 1 || ever[0] != text {
		w.fail("V1: told\n%s\nwhile the bucket stored\n%v", text, ever)
	}
}

func (w *world) read(h *host, id string) {
	var in ReadDone
	in.Ballot = id
	delay := w.soon()
	w.after(delay/2, func() {
		switch s := w.bucket[id]; {
		case w.chance(15): // failed
		case w.chance(10): // by a server that is behind
			in.Found = FoundNone
		case s.marker:
			in.Found = FoundMarker
		case s.value != nil:
			v := *s.value
			in.Found, in.Verdict = FoundVerdict, &v
		default:
			in.Found = FoundNone
		}
	})
	w.after(delay, func() {
		for _, e := range w.voters {
			in.Electorate = append(in.Electorate, wire.Place{ID: e.id, Incarnation: e.inc})
		}
		w.deliver(h, in)
	})
}

func (w *world) seal(h *host, e Seal) {
	text := string(wire.Encode(e.Verdict))
	if old, again := h.seals[e.Ballot]; again && text != string(wire.Encode(old)) {
		// A leader runs a ballot a second time only when its first seal was refused and nothing can be read of why.
		if s := w.bucket[e.Ballot]; old.Round == e.Verdict.Round || s.value == nil && !s.marker {
			w.fail("L4: leader %d seals\n%s\nafter\n%s", h.token, text, wire.Encode(old))
		}
	}
	h.seals[e.Ballot] = e.Verdict
	w.check(e.Verdict)
	outcome := SealUnknown
	land := func() {
		outcome = SealNo
		if s := w.bucket[e.Ballot]; s.value == nil && !s.marker { // expects sequence 0
			v := e.Verdict
			w.bucket[e.Ballot] = stored{value: &v}
			w.ever[e.Ballot] = append(w.ever[e.Ballot], text)
			outcome = SealYes
		}
	}
	delay := w.soon()
	switch n := w.rng.IntN(100); {
	case n < 50:
		w.after(delay/2, land)
		w.after(delay, func() { w.deliver(h, SealDone{e.Ballot, outcome}) })
		return
	case n < 65: // landed, but the answer is lost
		w.after(delay/2, land)
	case n < 80: // lands after its author gave up
		w.after(time.Duration(w.rng.Int64N(int64(8*time.Second))), land)
	}
	w.after(500*time.Millisecond, func() { w.deliver(h, SealDone{e.Ballot, SealUnknown}) })
}

// check is V2's watcher: the verdict follows from the tally, and the tally from what voters said.
func (w *world) check(v wire.Verdict) {
	if v.Yes+v.No+v.Abstain+len(v.Silent) != v.Of || v.Of != len(v.Electors) {
		w.fail("V2: %s does not add up", wire.Encode(v))
	}
	var said [3]int
	for _, p := range v.Electors {
		if i := slices.Index([]string{wire.Yes, wire.No, wire.Abstain}, w.said[fmt.Sprint(v.Ballot, p)]); i >= 0 {
			said[i]++
		}
	}
	if v.Yes > said[0] || v.No > said[1] || v.Abstain > said[2] {
		w.fail("V2: %s, but only %v said yes, no, abstain", wire.Encode(v), said)
	}
	kind, err := ParseKind(v.Kind)
	if err != nil {
		w.fail("%v", err)
	}
	want := map[Result]string{Yes: wire.Yes, No: wire.No, Pending: wire.TimedOut}[slowTally(kind, v.Of, v.Yes, v.No, v.Abstain)]
	if v.Verdict != want && !(v.Verdict == wire.TimedOut && w.cancel[v.Ballot]) {
		w.fail("V2: %s, want %s", wire.Encode(v), want)
	}
}

// hear lets a voter's process take a broadcast.
func (w *world) hear(e *elector, b wire.Ballot) {
	for _, out := range e.v.Step(w.instant(), BallotIn{b, fmt.Sprint(b.Token)}) {
		w.voted(e, out)
	}
}

func (w *world) voted(e *elector, out VoterEffect) {
	switch out := out.(type) {
	case Decide:
		id := out.Ballot.Ballot
		if e.asked[id]++; e.asked[id] > 1 {
			w.fail("voter %s#%d was asked %d times about %s", e.id, e.inc, e.asked[id], id)
		}
		if w.chance(10) {
			return // its user never says
		}
		v, inc, answer := e.v, e.inc, []string{wire.Yes, wire.Yes, wire.Yes, wire.No, wire.Abstain}[w.rng.IntN(5)]
		w.after(w.soon(), func() {
			if e.v != v {
				return // restarted meanwhile
			}
			w.said[fmt.Sprint(id, wire.Place{ID: e.id, Incarnation: inc})] = answer
			for _, out := range e.v.Step(w.instant(), Decided{id, answer, "because"}) {
				w.voted(e, out)
			}
		})
	case SendVote:
		// The inbox is named after the token of the leader that listens there.
		i := slices.IndexFunc(w.hosts, func(h *host) bool { return fmt.Sprint(h.token) == out.Reply })
		for range []int{0, 1, 1, 1, 2, 3}[w.rng.IntN(6)] {
			w.after(w.soon(), func() { w.deliver(w.hosts[i], VoteIn{out.Vote}) })
		}
	}
}
