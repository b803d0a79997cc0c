package proof_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/fence"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/testenv"
)

var (
	proofFor  = flag.Duration("proof.for", defaultFor, "virtual time of each random test; ten minutes take a second or two")
	proofSeed = flag.Uint64("proof.seed", 0, "seed of the first world; 0: a new one, which is printed")
)

// each is how long one world lives, in virtual time. Longer histories show no more, and take longer to check.
const each = 5 * time.Minute

const lease = time.Second

// A process is a candidate, and after a kill the next one under the same id.
type process struct {
	id     string
	ns     *quorate.Namespace
	el     *leader.Elector
	g      *fence.KV // nil when nothing is written
	busy   atomic.Bool
	killed bool           // under the history's lock: nothing is heard of it any more
	done   sync.WaitGroup // what runs of it
}

// A world is one run.
type world struct {
	t      *testing.T
	e      *testenv.Env              // nil in real time
	open   func() *quorate.Namespace // a process of its own
	h      *history
	r      *rand.Rand // of the faults
	writes bool       // with a register
	lease  time.Duration

	over   context.Context
	slots  []*process
	faults map[string]int
	later  sync.WaitGroup
	values atomic.Int64
	seeds  atomic.Uint64
	seed   uint64
}

// own gives a goroutine its own source.
func (w *world) own() *rand.Rand { return rand.New(rand.NewPCG(w.seed, w.seeds.Add(1))) }

func upTo(r *rand.Rand, d time.Duration) time.Duration { return time.Duration(r.Int64N(int64(d))) }

// sleep waits, unless the world ends.
func (w *world) sleep(d time.Duration) {
	select {
	case <-time.After(d):
	case <-w.over.Done():
	}
}

func (w *world) start(id string) *process {
	p := &process{id: id, ns: w.open()}
	var err error
	if p.el, err = leader.New(p.ns, "job", leader.Config{ID: id}); err != nil {
		w.t.Fatal(err)
	}
	if w.writes {
		p.g = w.guard(p.ns)
	}
	if w.e != nil {
		w.slow(w.e.Link(p.ns))
	}
	p.done.Go(func() { w.campaign(p) })
	return p
}

// slow makes some of what goes to and from buckets late, and of the register's lost: in virtual time nothing takes any, so that without it no
// two writes would ever meet, and nobody would die between a write and its answer.
func (w *world) slow(link *testenv.Link) {
	var n atomic.Uint64
	salt := w.own().Uint64() | 1
	bucket := func(subject string) bool {
		return strings.HasPrefix(subject, "$KV.") || strings.Contains(subject, ".STREAM.MSG.GET.KV_")
	}
	link.Filter(func(f *testenv.Frame) testenv.Verdict {
		subject := f.Subject
		if f.Answers != "" {
			subject = f.Answers
		}
		if !bucket(subject) {
			return testenv.Pass
		}
		k := n.Add(1) * 0x9e3779b97f4a7c15 * salt
		part := func(of time.Duration) testenv.Verdict { return testenv.Delay(time.Duration(k<<4>>44) * of >> 20) }
		switch register := strings.Contains(subject, "register"); {
		case register && k>>60 == 0:
			return testenv.Drop
		case register && k>>60 == 1:
			return part(4 * w.lease) // longer than its author waits
		case register && k>>63 == 1:
			return part(w.lease / 4)
		case k>>62 == 1:
			return part(w.lease / 12)
		}
		return testenv.Pass
	})
}

func (w *world) guard(ns *quorate.Namespace) *fence.KV {
	js, err := jetstream.New(w.e.Conn(ns))
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	g, err := fence.NewKV(ctx, js, "register", fence.KVConfig{Timeout: w.lease, Attempt: w.lease / 4})
	if err != nil {
		w.t.Fatal(err)
	}
	return g
}

// campaign is a process's life: it wants to lead, leads for a while, and lets go, in one way or another.
func (w *world) campaign(p *process) {
	r := w.own()
	for w.over.Err() == nil {
		w.sleep(upTo(r, 2*w.lease))
		ctx, cancel := context.WithTimeout(w.over, w.lease/10+upTo(r, 10*w.lease))
		a := w.h.campaigns(p)
		lt, err := p.el.Campaign(ctx)
		t := w.h.campaigned(p, a, lt, err)
		cancel()
		if t == nil {
			continue
		}
		p.done.Go(func() { w.observe(p, t, lt) })
		if w.writes {
			for range 2 {
				p.done.Go(func() { w.write(p, t, lt) })
			}
		}
		stay := time.After(upTo(r, 6*w.lease))
		select {
		case <-stay:
		case <-lt.Context().Done():
		case <-w.over.Done():
		}
		if w.over.Err() == nil {
			ctx, cancel := context.WithTimeout(w.over, upTo(r, 3*w.lease))
			call, began := w.h.now(), time.Now()
			err := lt.Resign(ctx)
			// Who could not remove its record for two leases leaves it to run out.
			removed := err == nil && time.Since(began) < 2*w.lease
			w.h.resigns(p, t, call, removed && errors.Is(context.Cause(lt.Context()), quorate.ErrResigned))
			cancel()
		}
	}
}

func (h *history) campaigns(p *process) *attempt {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := &attempt{by: p, holder: p.id, call: h.tick()}
	if !p.killed {
		h.attempts = append(h.attempts, a)
	}
	return a
}

func (h *history) campaigned(p *process, a *attempt, lt *leader.Term, err error) *term {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := h.tick()
	if p.killed {
		return nil
	}
	a.over = at
	if err != nil {
		return nil
	}
	a.won = &term{by: p, token: lt.Token(), call: a.call, ret: at, live: a.call}
	h.terms = append(h.terms, a.won)
	return a.won
}

func (h *history) resigns(p *process, t *term, call int64, confirmed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if at := h.tick(); !p.killed && confirmed {
		t.resign, t.resigned = call, at
		t.ends(at)
	}
}

// ends notes that the term was not live any more at a time.
func (t *term) ends(at int64) {
	if t.end == 0 {
		t.end = at
	}
}

// observe asks a term whether it is live until it is not, and now and then who leads, over the process's own connection.
func (w *world) observe(p *process, t *term, lt *leader.Term) {
	r := w.own()
	for last := false; ; w.sleep(upTo(r, w.lease/2)) {
		// When the world ends it is asked once more: another may have followed it just before.
		if last && w.over.Err() != nil {
			return
		}
		last = w.over.Err() != nil
		call := w.h.now()
		live := lt.Live()
		w.h.mu.Lock()
		at := w.h.tick()
		switch {
		case p.killed:
		case live:
			w.h.seen = append(w.h.seen, seen{token: t.token, call: call, ret: at})
			t.live = call
		default:
			t.ends(at)
		}
		gone := p.killed || !live
		w.h.mu.Unlock()
		if gone {
			return
		}
		if r.IntN(4) == 0 && !last {
			w.read(p)
		}
	}
}

// read reads who leads.
func (w *world) read(p *process) {
	ctx, cancel := context.WithTimeout(w.over, 2*w.lease)
	defer cancel()
	call := w.h.now()
	s, err := p.el.Leader(ctx)
	w.h.mu.Lock()
	defer w.h.mu.Unlock()
	if at := w.h.tick(); err == nil && !p.killed {
		w.h.reads = append(w.h.reads, seen{token: s.Token, holder: s.Holder, call: call, ret: at})
	}
}

// write writes with the term's token as long as the term is live, and once more when it is not.
func (w *world) write(p *process, t *term, lt *leader.Term) {
	r := w.own()
	for w.over.Err() == nil {
		w.sleep(upTo(r, w.lease))
		live := lt.Live()
		if live && r.IntN(4) == 0 {
			w.sleep(upTo(r, 3*w.lease)) // it has asked, and stands still before it writes: what Live cannot help against
		}
		o := &written{by: p, token: t.token, late: !lt.Live()}
		deletes := r.IntN(8) == 0
		if !deletes {
			o.value = fmt.Sprintf("%s %d", p.id, w.values.Add(1))
		}
		w.h.mu.Lock()
		o.call = w.h.tick()
		if !p.killed {
			w.h.writes = append(w.h.writes, o)
		}
		w.h.mu.Unlock()
		var err error
		if deletes {
			_, err = p.g.Delete(w.over, "k", fence.Token(t.token))
		} else {
			_, err = p.g.Put(w.over, "k", []byte(o.value), fence.Token(t.token))
		}
		w.h.mu.Lock()
		var stale *fence.StaleError
		if at := w.h.tick(); !p.killed {
			o.ret, o.err, o.out = at, err, nothing
			switch {
			case err == nil:
				o.out = accepted
			case errors.Is(err, fence.ErrUnknown):
				o.out = unknown
			case errors.As(err, &stale):
				o.out, o.newer = refused, stale.Newer
			}
		}
		w.h.mu.Unlock()
		if !live {
			return
		}
	}
}

// kill ends a process: what it had under way stays open, its terms are over.
func (w *world) kill(p *process) {
	w.h.mu.Lock()
	p.killed = true
	w.h.mu.Unlock()
	w.e.Kill(p.ns)
	w.h.mu.Lock()
	defer w.h.mu.Unlock()
	at := w.h.tick()
	for _, a := range w.h.attempts {
		if a.by == p && a.over == 0 {
			a.over = at
		}
	}
	for _, t := range w.h.terms {
		if t.by == p {
			t.ends(at)
		}
	}
	for _, o := range w.h.writes {
		if o.by == p && o.ret == 0 {
			o.ret, o.out = at, unknown
		}
	}
}

// fault does something to a process and undoes it after a while.
func (w *world) fault() {
	i := w.r.IntN(len(w.slots))
	p := w.slots[i]
	if p.busy.Load() {
		return
	}
	link, d := w.e.Link(p.ns), upTo(w.r, 3*w.lease)
	later := func(fn func()) {
		p.busy.Store(true)
		w.later.Go(func() {
			w.sleep(d)
			fn()
			p.busy.Store(false)
		})
	}
	heal := link.Heal
	if w.r.IntN(2) == 0 {
		heal = link.HealDropping
	}
	name := ""
	switch w.r.IntN(12) {
	case 0:
		name = "cut to server"
		link.Cut(testenv.ToServer)
		later(heal)
	case 1:
		name = "cut to client"
		link.Cut(testenv.ToClient)
		later(heal)
	case 2:
		name = "cut"
		w.e.Cut(p.ns)
		later(heal)
	case 3:
		name = "reset"
		link.Kill()
	case 4:
		name = "pause"
		w.e.Pause(p.ns)
		later(func() { w.e.Resume(p.ns) })
	case 5, 6:
		name = "acks dropped"
		link.DropAcks(1 + w.r.IntN(4))
	case 7:
		name = "hints dropped"
		link.DropHints(true)
		d *= 3
		later(func() { link.DropHints(false) })
	case 8:
		name = "wall clock"
		w.e.JumpWall(p.ns, upTo(w.r, 2*time.Hour)-time.Hour)
	case 9:
		name = "suspend"
		w.e.Suspend(p.ns, upTo(w.r, 5*w.lease))
	case 10:
		name = "late and out of order"
		var n atomic.Uint64
		later(link.Filter(func(f *testenv.Frame) testenv.Verdict {
			if k := n.Add(1) * 0x9e3779b97f4a7c15; f.IsMessage() && k>>62 == 0 {
				return testenv.Delay(time.Duration(k>>40) * w.lease / (1 << 22) / 4)
			}
			return testenv.Pass
		}))
	case 11:
		if w.r.IntN(2) == 0 {
			return
		}
		name = "killed"
		if w.r.IntN(3) > 0 {
			name = "killed at a write"
			w.atWrite(link)
		}
		w.kill(p)
		w.sleep(upTo(w.r, w.lease))
		w.slots[i] = w.start(p.id)
	}
	w.faults[name]++
}

// atWrite waits, for some leases at most, until the process has sent a write to quorate's bucket, whose answer it does not get.
func (w *world) atWrite(link *testenv.Link) {
	sent := make(chan struct{})
	var once atomic.Bool
	defer link.Filter(func(f *testenv.Frame) testenv.Verdict {
		switch {
		case f.Dir == testenv.ToServer && f.Verb == "HPUB" && strings.HasPrefix(f.Subject, "$KV.QUORATE_"):
			if once.CompareAndSwap(false, true) {
				close(sent)
			}
		case f.Dir == testenv.ToClient && once.Load():
			return testenv.Drop
		}
		return testenv.Pass
	})()
	select {
	case <-sent:
		w.sleep(time.Millisecond)
	case <-time.After(4 * w.lease):
	}
}

// run makes a world, lets it live, and then hands over its history, also when a watcher of testenv has failed the test meanwhile: what the
// history says of that is worth knowing.
func run(t *testing.T, seed uint64, writes bool, then func(h *history, faults map[string]int, stream []got)) {
	t.Helper()
	h, faults, stream := &history{}, map[string]int{}, []got(nil)
	defer func() { then(h, faults, stream) }()
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		w := &world{t: t, e: e, h: h, r: rand.New(rand.NewPCG(seed, 0)), seed: seed, writes: writes, lease: lease, faults: faults}
		w.open = func() *quorate.Namespace { return e.Namespace(quorate.Config{Lease: w.lease}) }
		var end context.CancelFunc
		w.over, end = context.WithCancel(t.Context())
		defer end()
		observer := &process{id: "observer", ns: w.open()}
		var err error
		if observer.el, err = leader.New(observer.ns, "job", leader.Config{ID: observer.id}); err != nil {
			t.Fatal(err)
		}
		js, err := jetstream.New(e.Conn(observer.ns))
		if err != nil {
			t.Fatal(err)
		}
		if writes {
			// The server tells of each write that it stores, in their order.
			if _, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "register", History: uint8(1 + 9*w.r.IntN(2)), Storage: jetstream.MemoryStorage,
				RePublish: &jetstream.RePublish{Source: "$KV.register.>", Destination: "stored.>"}}); err != nil {
				t.Fatal(err)
			}
			if _, err := e.Conn(observer.ns).Subscribe("stored.>", func(m *nats.Msg) {
				var at got
				if _, err := fmt.Sscan(m.Header.Get(fence.Header), &at.token); err != nil {
					t.Errorf("F1: a message without a token was stored: %v", m.Header)
				}
				at.value = string(m.Data)
				stream = append(stream, at)
			}); err != nil {
				t.Fatal(err)
			}
			observer.g = w.guard(observer.ns)
		}
		for i := range 4 {
			w.slots = append(w.slots, w.start(fmt.Sprintf("c%d", i)))
		}
		observer.done.Go(func() {
			r := w.own()
			for w.over.Err() == nil {
				w.sleep(upTo(r, w.lease))
				w.read(observer)
				if !writes {
					continue
				}
				call := w.h.now()
				rec, err := observer.g.Get(w.over, "k")
				if at := w.h.now(); err == nil || errors.Is(err, fence.ErrNotFound) {
					w.h.mu.Lock()
					w.h.gets = append(w.h.gets, got{token: rec.Token, value: string(rec.Value), call: call, ret: at})
					w.h.mu.Unlock()
				}
			}
		})
		for begin := time.Now(); time.Since(begin) < each; {
			w.sleep(upTo(w.r, 4*w.lease))
			w.fault()
		}
		end()
		w.later.Wait()
		for _, p := range append(slices.Clone(w.slots), observer) {
			e.Link(p.ns).Heal()
			e.Resume(p.ns)
			p.done.Wait()
		}
		if writes {
			time.Sleep(time.Minute) // what is on its way
			if err := e.Conn(observer.ns).Drain(); err != nil {
				t.Fatal(err)
			}
			for !e.Conn(observer.ns).IsClosed() {
				time.Sleep(w.lease)
			}
		}
	})
}

// worlds runs fn over as many worlds as -proof.for holds, with a seed for each.
func worlds(t *testing.T, fn func(seed uint64)) {
	t.Helper()
	seed := *proofSeed
	if seed == 0 {
		seed = rand.Uint64() >> 32
	}
	for n := max(1, int(*proofFor/each)); n > 0 && !t.Failed(); n-- {
		t.Logf("go test ./proof -run '%s$' -proof.for %v -proof.seed %d", t.Name(), each, seed)
		fn(seed)
		seed++
	}
}

func told(m map[string]int) string {
	var l []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		l = append(l, fmt.Sprintf("%d %s", m[k], k))
	}
	return strings.Join(l, ", ")
}
