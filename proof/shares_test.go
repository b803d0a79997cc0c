package proof_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/eventcheck"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/partition"
	"github.com/quorate/quorate/testenv"
)

var sharesHours = flag.Float64("proof.hours", defaultHours, "virtual hours of TestTwoHundred, with a lease of half a minute; one takes a quarter of a minute or more")

const (
	// What happens is counted in leases: with a shorter one as much would happen, in fewer hours.
	sharesLease = 30 * time.Second
	sharesIDs   = 200
	sharesLive  = 110 // as many of them are members, more or less
	// sharesLag is how long the work of some takes to return at most. The others wait for it.
	sharesLag = sharesLease / 12
)

// P1, P2, P3, P5: two hundred members join and leave at random, are killed, stand still and are cut off, the leader changes and dies, NATS goes away, and loses
// all that it had. By the intervals in which the work was somebody's: never twice at one time, and never nobody's for longer than what Explain says.
func TestTwoHundred(t *testing.T) {
	seed := *proofSeed
	if seed == 0 {
		seed = rand.Uint64() >> 32
	}
	t.Logf("go test ./proof -run 'TestTwoHundred$' -proof.hours %v -proof.seed %d (interleavings stay random)", *sharesHours, seed)
	var w *shares
	defer func() {
		if w != nil {
			w.t = t   // the bubble's is over
			w.check() // also when a watcher of testenv has failed the test
		}
	}()
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		w = &shares{t: t, e: e, r: rand.New(rand.NewPCG(seed, 0)), cfg: quorate.Config{Lease: sharesLease, Logger: slog.New(slog.DiscardHandler)},
			slots: make([]*sharer, sharesIDs), counts: map[string]int{}}
		var err error
		if w.bound, err = quorate.Explain(quorate.Timings{Lease: sharesLease}, quorate.Situation{Members: sharesIDs, ReconnectWait: sharesLease / 12}); err != nil {
			t.Fatal(err)
		}
		for i := range 64 {
			w.items = append(w.items, fmt.Sprintf("item %d", i))
		}
		w.look = w.open()
		if _, err := e.Conn(w.look).Subscribe("quorate.default.kv."+wire.SettledKey("g"), w.planned); err != nil {
			t.Fatal(err)
		}
		for i := range sharesLive {
			w.join(i)
		}
		time.Sleep(2*w.bound.JoinSettled + w.bound.Churn)
		w.from = time.Now()
		w.live(w.from.Add(time.Duration(*sharesHours * float64(time.Hour))))
		time.Sleep(w.bound.ReassignmentLeader + w.bound.Churn) // what happened last counts too
		w.to = time.Now()
		w.end()
	})
}

// A sharer is a member in a process of its own.
type sharer struct {
	id     string
	ns     *quorate.Namespace
	ctx    context.Context
	cancel context.CancelFunc

	// Under the world's lock.
	g       *coord.Group
	a       *partition.Assignment
	witness eventcheck.Witness
	busy    bool // something is done to it
}

// shares is a world of members.
type shares struct {
	t      *testing.T
	e      *testenv.Env
	r      *rand.Rand
	cfg    quorate.Config
	bound  quorate.Explanation
	look   *quorate.Namespace
	items  []string
	slots  []*sharer // by id; nil: nobody
	deck   []string
	counts map[string]int
	others sync.WaitGroup
	from   time.Time
	to     time.Time

	mu       sync.Mutex
	all      []*sharer
	troubles []eventcheck.Trouble
	plans    []eventcheck.Plan
}

// planned notes who is to have which share: the leader has written it, and nobody has heard of it yet.
func (w *shares) planned(m *nats.Msg) {
	var r wire.Settled
	if len(m.Data) == 0 || wire.Decode(m.Data, &r) != nil || r.Phase != wire.SettledDone {
		return
	}
	p := eventcheck.Plan{At: time.Now()}
	for _, place := range r.Places {
		p.Owners = append(p.Owners, place.ID)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.plans = append(w.plans, p)
}

// open makes a process. It tries to reconnect as seldom as Explain was told: in an outage that is most of the work.
func (w *shares) open() *quorate.Namespace {
	wait := w.bound.Situation.ReconnectWait
	return w.e.NamespaceOver(w.cfg, append(quorate.Options(sharesLease), nats.CustomReconnectDelay(func(int) time.Duration { return wait/2 + rand.N(wait/2) }))...)
}

func (w *shares) join(slot int) {
	m := &sharer{id: fmt.Sprintf("m%03d", slot), ns: w.open()}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.witness.Name = fmt.Sprintf("%s#%d", m.id, len(w.all))
	w.mu.Lock()
	w.slots[slot] = m
	w.all = append(w.all, m)
	w.mu.Unlock()
	w.others.Go(func() {
		g, err := coord.Join(m.ctx, m.ns, "g", coord.Config{ID: m.id}) // waits for a process of the same id that was killed
		if err != nil {
			return
		}
		p, err := partition.Join(m.ctx, g, partition.Config{})
		w.mu.Lock()
		m.g = g
		w.mu.Unlock()
		if err == nil {
			err = p.Run(m.ctx, func(ctx context.Context, a *partition.Assignment) error { return w.work(ctx, m, a) })
		}
		w.mu.Lock()
		killed := !m.witness.Ended.IsZero()
		w.mu.Unlock()
		if err != nil && !killed && context.Cause(g.Context()) != quorate.ErrLeft {
			w.t.Errorf("%s: %v", m.witness.Name, err)
		}
	})
}

// work notes from when to when the member has had a share.
func (w *shares) work(ctx context.Context, m *sharer, a *partition.Assignment) error {
	l := eventcheck.Line{Type: "assigned", Group: "g", Self: m.id, Member: m.id, Generation: a.Generation, Index: a.Index, Total: a.Total, LeaseMS: a.Lease().Milliseconds()}
	for _, item := range w.items {
		if a.Owns(item) {
			l.Items = append(l.Items, item)
		}
	}
	w.mu.Lock()
	l.Time = time.Now()
	if m.a = a; m.witness.Ended.IsZero() {
		m.witness.Lines = append(m.witness.Lines, l)
	}
	w.mu.Unlock()
	<-ctx.Done()
	// Who is asked to return, and not told that it is over, goes on for a moment and does not look again.
	asked := a.Left() > sharesLag
	if a.Index%8 == 0 {
		time.Sleep(sharesLag)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	m.a = nil
	if m.witness.Ended.IsZero() { // nothing more is heard of who was killed
		until := a.Until()
		if asked || until.IsZero() {
			until = time.Now()
		}
		m.ends(a, until)
	}
	return nil
}

// ends notes that a share has ended: now, or before, when it ran out. The lock is held.
func (m *sharer) ends(a *partition.Assignment, until time.Time) {
	m.witness.Lines = append(m.witness.Lines, eventcheck.Line{Type: "revoked", Time: time.Now(), Group: "g", Self: m.id, Member: m.id, Generation: a.Generation, Until: until})
}

// trouble notes what holds others up.
func (w *shares) trouble(t eventcheck.Trouble) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t.Allow += sharesLag // who is waited for before it is another's
	w.troubles = append(w.troubles, t)
}

// leads says whether a member leads, or nobody does: then it may be the next.
func (w *shares) leads(m *sharer) bool { l := w.leader(); return l == nil || l == m }

func (w *shares) leader() *sharer {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.slots {
		if m == nil || m.g == nil {
			continue
		}
		if term, ok := m.g.Term(); ok && term.Live() {
			return m
		}
	}
	return nil
}

// lost is how long the share of a member may be nobody's that is not heard any more: one that leads takes the whole group with it.
func (w *shares) lost(m *sharer) time.Duration {
	if w.leads(m) {
		return w.bound.ReassignmentLeader + w.bound.Churn
	}
	return w.bound.Reassignment + w.bound.Churn
}

// pick chooses somebody that nothing is done to, or the leader.
func (w *shares) pick(leader bool) (int, *sharer) {
	lead := w.leader()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, i := range w.r.Perm(len(w.slots)) {
		if m := w.slots[i]; m != nil && m.g != nil && !m.busy && leader == (m == lead) {
			return i, m
		}
	}
	return -1, nil
}

var sharesFaults = []string{"kill", "kill leader", "pause", "pause leader", "cut", "cut leader", "step-down", "outage", "restart"}

// live lets them come, go and suffer until the end.
func (w *shares) live(end time.Time) {
	for step := 1; time.Now().Before(end) && !w.t.Failed(); step++ {
		time.Sleep(upTo(w.r, sharesLease/2))
		here := 0
		for _, m := range w.slots {
			if m != nil {
				here++
			}
		}
		switch {
		case step%20 == 0: // seldom enough that most is over before the next
			if len(w.deck) == 0 {
				w.deck = slices.Clone(sharesFaults)
				w.r.Shuffle(len(w.deck), func(i, j int) { w.deck[i], w.deck[j] = w.deck[j], w.deck[i] })
			}
			kind := w.deck[0]
			w.deck = w.deck[1:]
			if w.fault(kind) {
				w.counts[kind]++
			}
		case w.r.IntN(sharesLive) >= here-sharesLive/2:
			for i := w.r.IntN(len(w.slots)); ; i = w.r.IntN(len(w.slots)) {
				if w.slots[i] == nil {
					w.counts["join"]++
					w.join(i)
					break
				}
			}
		default:
			w.leave()
		}
	}
}

func (w *shares) leave() {
	i, m := w.pick(w.r.IntN(50) == 0)
	if m == nil {
		return
	}
	w.counts["leave"]++
	t := eventcheck.Trouble{What: m.id + " leaves", Who: m.id, From: time.Now(), Allow: w.bound.LeaveSettled + w.bound.Churn}
	if w.leads(m) {
		t.What, t.Who, t.Allow = t.What+", and led", "", w.bound.HandOver+w.bound.Reassignment+w.bound.Churn
	}
	w.slots[i] = nil
	w.others.Go(func() {
		if err := m.g.Leave(context.Background()); err != nil {
			w.t.Errorf("%s leaves: %v", m.id, err)
		}
		t.To = time.Now()
		w.trouble(t)
		m.cancel()
		w.e.Remove(m.ns)
	})
}

func (w *shares) fault(kind string) bool {
	now := time.Now()
	d := upTo(w.r, 4*sharesLease)
	switch kind {
	case "kill", "kill leader":
		i, m := w.pick(kind != "kill")
		if m == nil {
			return false
		}
		w.trouble(eventcheck.Trouble{What: m.id + ": " + kind, From: now, Allow: w.lost(m)})
		w.slots[i] = nil
		w.kill(m)
		w.others.Go(func() { w.e.Remove(m.ns) })
	case "pause", "pause leader":
		_, m := w.pick(kind != "pause")
		if m == nil {
			return false
		}
		led := w.leads(m)
		w.trouble(eventcheck.Trouble{What: m.id + ": " + kind, From: now, Allow: w.lost(m)})
		w.e.Pause(m.ns)
		w.until(m, d, led, func() { w.e.Resume(m.ns) })
	case "cut", "cut leader":
		_, m := w.pick(kind != "cut")
		if m == nil {
			return false
		}
		led := w.leads(m)
		// What it sends may arrive still while it hears nothing, until it notices that its connection is dead.
		w.trouble(eventcheck.Trouble{What: m.id + ": " + kind, From: now, Allow: w.bound.TermStops + w.lost(m)})
		link := w.e.Link(m.ns)
		link.Cut([]testenv.Direction{testenv.ToServer, testenv.ToClient, testenv.Both}[w.r.IntN(3)])
		w.until(m, d, led, link.Heal)
	case "step-down":
		_, m := w.pick(false) // a client that is no member has to be opened anew when the bucket was lost
		if m == nil {
			return false
		}
		if err := m.g.StepDown(w.t.Context()); err != nil {
			return false // nobody leads
		}
		w.trouble(eventcheck.Trouble{What: kind, From: now, To: time.Now(), Allow: w.bound.HandOver + w.bound.Reassignment + w.bound.Churn})
	case "outage": // all connections break, and none can be made for a while
		links := w.links()
		for _, l := range links {
			l.Down(true)
			l.Kill()
		}
		time.Sleep(d)
		for _, l := range links {
			l.Down(false)
		}
		w.trouble(eventcheck.Trouble{What: kind, From: now, To: time.Now(), Allow: w.bound.Situation.ReconnectWait + w.bound.ReassignmentLeader + w.bound.Churn})
	case "restart": // in virtual time it loses all that it had: nothing is granted for a member timeout then (S10)
		w.e.Server().Stop()
		time.Sleep(d / 2)
		w.e.Invariants().BucketLost()
		if err := w.e.Server().Start(); err != nil {
			w.t.Fatal(err)
		}
		w.trouble(eventcheck.Trouble{What: kind, From: now, To: time.Now(),
			Allow: w.bound.Situation.ReconnectWait + w.bound.Timings.MemberTimeout + w.bound.ReassignmentLeader + w.bound.Churn})
		time.Sleep(w.bound.Situation.ReconnectWait) // whoever comes next finds a server
	}
	return true
}

// until ends what is done to a member after a while. Of a leader this is another trouble: it begins anew to count who was heard (S9).
func (w *shares) until(m *sharer, d time.Duration, led bool, undo func()) {
	w.mu.Lock()
	m.busy = true
	w.mu.Unlock()
	w.others.Go(func() {
		time.Sleep(d)
		if led {
			w.trouble(eventcheck.Trouble{What: m.id + " goes on, and led", From: time.Now(), Allow: w.bound.Reassignment + w.bound.Churn})
		}
		undo()
		w.mu.Lock()
		defer w.mu.Unlock()
		m.busy = false
	})
}

func (w *shares) links() (l []*testenv.Link) {
	for _, m := range w.slots {
		if m != nil {
			l = append(l, w.e.Link(m.ns))
		}
	}
	return append(l, w.e.Link(w.look))
}

// kill ends a process: what it held it holds to now, or has not for a while.
func (w *shares) kill(m *sharer) {
	w.mu.Lock()
	if m.a != nil && !m.a.Live() {
		m.ends(m.a, m.a.Until())
	}
	m.witness.Ended = time.Now()
	w.mu.Unlock()
	w.e.Kill(m.ns)
	m.cancel()
}

func (w *shares) end() {
	for _, m := range w.slots {
		if m != nil {
			w.kill(m)
			w.others.Go(func() { w.e.Remove(m.ns) })
		}
	}
	w.others.Wait()
}

// check proves from what was noted that the work was never somebody's twice, and never nobody's for too long.
func (w *shares) check() {
	var all []eventcheck.Witness
	generations := map[uint64]bool{}
	for _, m := range w.all {
		all = append(all, m.witness)
		for _, l := range m.witness.Lines {
			generations[l.Generation] = true
		}
	}
	for i, wrong := range eventcheck.Check(all) {
		if i < 10 {
			w.t.Error(wrong)
		}
	}
	if w.to.IsZero() {
		return // it was given up
	}
	const answers = 10 * time.Millisecond // of virtual time
	work := eventcheck.Work{Group: "g", Items: w.items, From: w.from, To: w.to, Pause: w.bound.Pause + sharesLag + answers, Troubles: w.troubles, Plans: w.plans, Index: partition.Index}
	idle, wrong := work.CheckOrphans(all)
	for i, o := range wrong {
		if i < 10 {
			w.t.Errorf("P5: %s", o)
		}
	}
	w.t.Logf("%d processes, %d generations in %v; %s; an item had no owner %d times; longest: %v; nearest to its bound: %v", len(all), len(generations),
		w.to.Sub(w.from).Round(time.Second), told(w.counts), idle.Times, idle.Longest, idle.Nearest)
	h := *sharesHours
	kinds := 0
	for _, kind := range sharesFaults {
		if w.counts[kind] > 0 {
			kinds++
		}
	}
	if float64(len(generations)) < 30*h || float64(w.counts["join"]) < 80*h || float64(w.counts["leave"]) < 80*h || float64(idle.Times) < 500*h || kinds < min(len(sharesFaults), int(9*h)) {
		w.t.Errorf("too little has happened: %d generations, %s", len(generations), told(w.counts))
	}
}
