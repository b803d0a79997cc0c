package session

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/clock"
)

const (
	timeout = 3 * time.Second
	cache   = 4 * time.Second
	began   = time.Hour
)

// at is the moment d after the beginning, on all clocks.
func at(d time.Duration) clock.Instant {
	return clock.Instant{Mono: began + d, Boot: 2*began + d, Wall: 3*began + d}
}

// A line is one input, and what must come of it.
type line struct {
	at   time.Duration
	in   Input
	want string
}

func say(l []Effect) string {
	var out []string
	for _, fx := range l {
		switch fx := fx.(type) {
		case Answer:
			switch {
			case fx.Settled:
				out = append(out, fmt.Sprintf("SETTLED %d/%d", fx.Index, fx.Total))
			case fx.Draining:
				out = append(out, "DRAINING")
			default:
				out = append(out, "SETTLING")
			}
		case LetGo:
			out = append(out, fmt.Sprintf("let go %d", fx.Gen))
		case Leave:
			out = append(out, "leave: "+fx.Reason)
		case Seldom:
			out = append(out, "seldom "+fx.Gap.String())
		}
	}
	return strings.Join(out, ", ")
}

func TestRules(t *testing.T) {
	const ms = time.Millisecond
	poll := func(seq uint64, hold time.Duration) Poll { return Poll{Seq: seq, Live: true, Deadline: at(hold)} }
	grant := Granted{Gen: 7, Index: 0, Total: 3}
	// settled is a session that was told SETTLED at 1 s.
	settled := []line{{0, Poll{Seq: 1}, "SETTLING"}, {0, Told{1}, ""}, {500 * ms, grant, ""}, {1000 * ms, poll(2, 9*time.Second), "SETTLED 1/3"}}
	for name, script := range map[string][]line{
		"B1: not without an assignment":             {{0, Poll{Seq: 1}, "SETTLING"}, {time.Second, Poll{Seq: 2}, "SETTLING"}},
		"B1: not with less than the cache time":     {{0, Poll{Seq: 1}, "SETTLING"}, {1, grant, ""}, {time.Second, poll(2, 5*time.Second-1), "SETTLING"}},
		"B1: with the cache time":                   {{0, Poll{Seq: 1}, "SETTLING"}, {1, grant, ""}, {time.Second, poll(2, 5*time.Second), "SETTLED 1/3"}},
		"B1: not once the right says that it ended": {{0, Poll{Seq: 1}, "SETTLING"}, {1, grant, ""}, {time.Second, Poll{Seq: 2, Deadline: at(time.Minute)}, "SETTLING"}},
		"B1: not once it was revoked": append(slices.Clone(settled), line{1500 * ms, Revoke{}, ""},
			line{2000 * ms, poll(3, time.Minute), "SETTLING"}),
		"B1: not once it has ended": append(slices.Clone(settled), line{1500 * ms, Ended{}, ""}, line{2000 * ms, poll(3, time.Minute), "SETTLING"}),
		"B2: told otherwise, and time to arrive": append(slices.Clone(settled), line{1500 * ms, Revoke{}, ""}, line{2000 * ms, poll(3, time.Minute), "SETTLING"},
			line{2000 * ms, Told{3}, ""}, line{2500*ms - 1, Tick{}, ""}, line{2500 * ms, Tick{}, "let go 7"}),
		"B2: not by an answer that was not written": append(slices.Clone(settled), line{1500 * ms, Revoke{}, ""}, line{2000 * ms, poll(3, time.Minute), "SETTLING"},
			line{2500 * ms, Tick{}, ""}),
		"B2: not by an answer that was overtaken": append(slices.Clone(settled), line{1500 * ms, Told{1}, ""}, line{1600 * ms, Revoke{}, ""}, line{2500 * ms, Tick{}, ""}),
		"B2: the cache time, and a twentieth": append(slices.Clone(settled), line{1500 * ms, Revoke{}, ""}, line{2000 * ms, poll(3, time.Minute), "SETTLING"},
			line{4500 * ms, poll(4, time.Minute), "SETTLING"}, line{5200*ms - 1, Tick{}, ""}, line{5200 * ms, Tick{}, "let go 7"}),
		"B2: at once for one that never heard SETTLED": {{0, Poll{Seq: 1}, "SETTLING"}, {1, grant, ""}, {2, Revoke{}, "let go 7"}},
		"B2: also when the lease ran out": append(slices.Clone(settled), line{1500 * ms, Ended{}, ""}, line{2 * time.Second, Poll{Seq: 3}, "SETTLING"},
			line{2 * time.Second, Told{3}, ""}, line{2500 * ms, Tick{}, "let go 7"}),
		"B2: once": append(slices.Clone(settled), line{1500 * ms, Revoke{}, ""}, line{2 * time.Second, Poll{Seq: 3}, "SETTLING"},
			line{2 * time.Second, Told{3}, ""}, line{2500 * ms, Tick{}, "let go 7"}, line{2501 * ms, Ended{}, ""}, line{2502 * ms, Revoke{}, ""}),
		"B2: the same generation, granted again": append(slices.Clone(settled), line{1500 * ms, Ended{}, ""}, line{2 * time.Second, Poll{Seq: 3}, "SETTLING"},
			line{2 * time.Second, Told{3}, ""}, line{2500 * ms, Tick{}, "let go 7"}, line{2600 * ms, grant, ""}, line{3 * time.Second, poll(4, time.Minute), "SETTLED 1/3"},
			line{3100 * ms, Revoke{}, ""}, line{4 * time.Second, poll(5, time.Minute), "SETTLING"}, line{4 * time.Second, Told{5}, ""}, line{4500 * ms, Tick{}, "let go 7"}),
		"B3: silent for its timeout": {{0, Poll{Seq: 1}, "SETTLING"}, {timeout - 1, Tick{}, ""}, {timeout, Tick{}, "leave: silent"}},
		"B3: waited for as long as it may believe": append(slices.Clone(settled), line{4 * time.Second, Tick{}, ""}, line{5200*ms - 1, Tick{}, ""},
			line{5200 * ms, Tick{}, "leave: silent"}, line{5200 * ms, Revoke{}, "let go 7"}),
		"B3: back before it has left": append(slices.Clone(settled), line{4 * time.Second, Tick{}, ""}, line{5 * time.Second, poll(3, time.Minute), "SETTLED 1/3"},
			line{5200 * ms, Tick{}, ""}),
		"B3: a late gateway accuses nobody": {{0, Poll{Seq: 1}, "SETTLING"}, {time.Minute, Tick{}, ""}, {time.Minute + timeout/2 - 1, Tick{}, ""},
			{time.Minute + timeout/2, Tick{}, "leave: silent"}},
		"B4: a client that asks too seldom": {{0, Poll{Seq: 1}, "SETTLING"}, {1, grant, ""}, {2600 * ms, poll(2, time.Minute), "SETTLING"},
			{5200 * ms, poll(3, time.Minute), "SETTLING"}, {7800 * ms, poll(4, time.Minute), "SETTLING"}, {10400 * ms, poll(5, time.Minute), "seldom 2.6s, SETTLING"},
			{13 * time.Second, poll(6, time.Minute), "SETTLING"}, {15 * time.Second, poll(7, time.Minute), "SETTLED 1/3"}},
		"delete: it says so itself": append(slices.Clone(settled), line{1100 * ms, Delete{}, "leave: deleted"}, line{1100 * ms, Revoke{}, "let go 7"},
			line{1200 * ms, poll(3, time.Minute), "SETTLING"}),
		"drain: as soon as the client knows": append(slices.Clone(settled), line{1100 * ms, Drain{}, ""}, line{2 * time.Second, poll(3, time.Minute), "DRAINING"},
			line{2 * time.Second, Told{3}, ""}, line{2500 * ms, Tick{}, "leave: drained"}, line{2500 * ms, Revoke{}, "let go 7"}),
		"drain: or believes it no more":                   append(slices.Clone(settled), line{1100 * ms, Drain{}, ""}, line{5200*ms - 1, Tick{}, ""}, line{5200 * ms, Tick{}, "leave: drained"}),
		"drain: at once for one that never heard SETTLED": {{0, Poll{Seq: 1}, "SETTLING"}, {1, Drain{}, "leave: drained"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := New(Config{Timeout: timeout, Cache: cache}, at(0))
			for _, l := range script {
				if next := m.Next(); next > m.now.Mono && l.at > next-began && l.at < time.Minute {
					// Whoever owns the machine comes at its time.
					if got := say(m.Step(at(next-began), Tick{})); got != "" {
						t.Fatalf("at %v: a tick in between: %s", next-began, got)
					}
				}
				if got := say(m.Step(at(l.at), l.in)); got != l.want {
					t.Fatalf("at %v, %T%+v: got %q, want %q", l.at, l.in, l.in, got, l.want)
				}
				if m.Next() <= at(l.at).Mono {
					t.Fatalf("at %v, %T%+v: the next tick is wanted at %v: that never ends", l.at, l.in, l.in, m.Next()-began)
				}
			}
		})
	}
}

// TestClocks: the lease ends by the clock that shows most, a wait only on the monotonic one (R4).
func TestClocks(t *testing.T) {
	for name, jump := range map[string]clock.Instant{"wall": {Wall: 5 * time.Second}, "suspend": {Boot: 5 * time.Second, Wall: 5 * time.Second}} {
		jumped := func(d time.Duration) clock.Instant {
			t := at(d)
			return clock.Instant{Mono: t.Mono, Boot: t.Boot + jump.Boot, Wall: t.Wall + jump.Wall}
		}
		m := New(Config{Timeout: time.Minute, Cache: cache}, at(0))
		m.Step(at(0), Poll{Seq: 1})
		m.Step(at(0), Granted{Gen: 1, Total: 1})
		if got := say(m.Step(at(time.Second), Poll{Seq: 2, Live: true, Deadline: at(8 * time.Second)})); got != "SETTLED 1/1" {
			t.Errorf("%s: %s", name, got)
		}
		if got := say(m.Step(jumped(2*time.Second), Poll{Seq: 3, Live: true, Deadline: at(8 * time.Second)})); got != "SETTLING" {
			t.Errorf("%s: with a lease that has less than the cache time left by that clock: %s", name, got)
		}
		m.Step(jumped(2*time.Second), Revoke{})
		if got := say(m.Step(jumped(3*time.Second), Tick{})); got != "" {
			t.Errorf("%s: let go early: %s", name, got)
		}
	}
}

// TestNobodyOverlaps: a group of sessions with a leader that keeps to P2, and clients as bloc's are: they ask every interval, give an answer
// one interval to come, and believe the last one meanwhile. Answers are late or lost, gateways are cut off from the leader, clocks of
// clients differ by a twentieth. No two clients ever believe in different generations.
func TestNobodyOverlaps(t *testing.T) {
	var settled, generations int
	for seed := range uint64(150) {
		w := newWorld(rand.New(rand.NewPCG(seed, 1)))
		for range 12000 {
			if err := w.step(); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		settled, generations = settled+w.settled, generations+int(w.gen)
	}
	t.Logf("%d times SETTLED, %d generations", settled, generations)
	if settled < 10000 || generations < 1000 {
		t.Errorf("%d times SETTLED in %d generations: too little has happened to prove anything", settled, generations)
	}
}

const (
	tick  = 5 * time.Millisecond
	lease = time.Second
)

// A world is one leader, and sessions with a client each.
type world struct {
	r        *rand.Rand
	now      time.Duration
	cache    time.Duration
	all      []*party
	gen      uint64
	settling uint64 // the generation that begins, 0: none
	since    time.Duration
	settled  int
}

type party struct {
	m        *Machine
	cut      bool          // the gateway does not reach the leader
	holds    uint64        // the member's generation
	deadline time.Duration // of its assignment
	engaged  bool          // granted, and not let go
	acked    uint64        // told the leader
	letGo    bool
	leader   time.Duration // the leader's count
	revoked  uint64
	beat     time.Duration

	interval time.Duration // of the client, in the gateway's time
	asks     time.Duration // when it asks next
	asked    time.Duration // when it asked last; 0: it waits for no answer
	arrives  time.Duration // when the answer comes; 0: it is lost
	answer   Answer
	seq      uint64
	believes uint64 // generation; 0: unsettled
}

func newWorld(r *rand.Rand) *world {
	w := &world{r: r, now: time.Second, cache: lease*3/10 + time.Duration(r.Int64N(int64(lease*133/100)))}
	for range 4 {
		p := &party{m: New(Config{Timeout: time.Hour, Cache: w.cache}, at(w.now))}
		p.interval = time.Duration(float64(w.cache/2) * (0.4 + 0.6*r.Float64()))
		if r.IntN(2) == 0 {
			p.interval = w.cache / 2
		}
		p.interval += time.Duration(float64(p.interval) * 0.05 * (2*r.Float64() - 1))
		p.asks = w.now + time.Duration(r.Int64N(int64(p.interval)))
		w.all = append(w.all, p)
	}
	return w
}

// effects performs what a machine asks for.
func (w *world) effects(p *party, l []Effect) {
	for _, fx := range l {
		switch fx := fx.(type) {
		case Answer:
			p.answer = fx
			if !fx.Settled && p.arrives != 0 {
				w.effects(p, p.m.Step(at(w.now), Told{fx.Seq}))
			}
		case LetGo:
			p.engaged = false
			p.letGo = true
			if p.holds != 0 {
				p.holds = 0
				w.effects(p, p.m.Step(at(w.now), Ended{}))
			}
		}
	}
}

func (w *world) step() error {
	w.now += tick
	for i, p := range w.all {
		w.client(p)
		if w.now+began >= p.m.Next() {
			w.effects(p, p.m.Step(at(w.now), Tick{}))
		}
		if p.m.Next() <= at(w.now).Mono {
			return fmt.Errorf("at %v client %d: the next tick is wanted at %v: that never ends", w.now, i, p.m.Next()-began)
		}
		w.member(p)
	}
	w.lead()
	var gen uint64
	for i, p := range w.all {
		if p.believes == 0 {
			continue
		}
		if gen != 0 && gen != p.believes {
			return fmt.Errorf("at %v client %d believes in generation %d, another in %d (settle time %v, its interval %v)", w.now, i, p.believes, gen, w.cache, p.interval)
		}
		gen = p.believes
	}
	return nil
}

// client is bloc's: a question each interval, at most one at a time.
func (w *world) client(p *party) {
	if p.asked != 0 && p.arrives != 0 && w.now >= p.arrives {
		p.asked = 0
		if p.believes = 0; p.answer.Settled {
			p.believes = p.answer.Gen
			w.settled++
		}
	}
	if p.asked != 0 && w.now >= p.asked+p.interval {
		p.asked, p.believes = 0, 0 // no answer in time
	}
	if w.now < p.asks || p.asked != 0 {
		return
	}
	p.asked = w.now
	p.asks += p.interval
	if w.r.IntN(12) == 0 {
		p.arrives = 0 // the question is lost
		return
	}
	p.arrives = w.now + tick + time.Duration(w.r.Int64N(int64(w.cache/8)))
	if w.r.IntN(12) == 0 {
		p.arrives = 0 // the answer is lost, and the gateway sees it fail
	}
	p.seq++
	w.effects(p, p.m.Step(at(w.now), Poll{Seq: p.seq, Live: p.holds != 0 && w.now < p.deadline, Deadline: at(p.deadline)}))
}

// member is coord's: a heartbeat each sixth of a lease, and a hold until its deadline.
func (w *world) member(p *party) {
	if p.holds != 0 && w.now >= p.deadline {
		p.holds = 0
		w.effects(p, p.m.Step(at(w.now), Ended{}))
	}
	if w.r.IntN(800) == 0 {
		p.cut = !p.cut
	}
	if p.cut && w.r.IntN(200) == 0 {
		p.cut = false
	}
	if p.cut || w.now < p.beat && !p.letGo {
		return
	}
	p.beat, p.letGo = w.now+lease/6, false
	if w.settling != 0 {
		if !p.engaged {
			p.acked = w.settling
		} else if p.holds != 0 && p.revoked != w.settling {
			p.revoked = w.settling
			w.effects(p, p.m.Step(at(w.now), Revoke{}))
		}
		if p.holds != 0 && w.now < p.leader && w.now-w.since < lease {
			p.deadline, p.leader = w.now+lease*18/10, w.now+2*lease // still granted the one before
		}
		return
	}
	switch {
	case w.gen == 0:
	case p.holds == w.gen:
		p.deadline, p.leader = w.now+lease*18/10, w.now+2*lease
	case p.holds == 0 && !p.engaged:
		p.holds, p.engaged, p.deadline, p.leader = w.gen, true, w.now+lease*18/10, w.now+2*lease
		w.effects(p, p.m.Step(at(w.now), Granted{Gen: w.gen, Total: len(w.all)}))
	}
}

// lead settles again now and then, when everyone has let go.
func (w *world) lead() {
	if w.settling == 0 {
		if w.r.IntN(300) == 0 {
			w.settling, w.since = w.gen+1, w.now
			for _, p := range w.all {
				p.beat = w.now // the poke
			}
		}
		return
	}
	for _, p := range w.all {
		if p.acked < w.settling && w.now < p.leader {
			return
		}
	}
	w.gen, w.settling = w.settling, 0
}
