package leader_test

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

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/testenv"
)

var (
	randomSeed = flag.Uint64("leader.seed", 0, "seed of the random run; 0: a new one, which is printed")
	randomTime = flag.Duration("leader.time", defaultTime, "virtual time of the random run; an hour takes a few seconds")
)

// slot is one of the candidates: a process, and after a kill the next one under the same id.
type slot struct {
	id   string
	ns   *quorate.Namespace
	done chan struct{}
	busy atomic.Bool // a fault of its own is under way
}

type chaos struct {
	t      *testing.T
	e      *testenv.Env
	r      *rand.Rand
	slots  []*slot
	lease  time.Duration
	faults map[string]int

	wg     sync.WaitGroup
	ended  context.Context
	terms  atomic.Int64
	over   atomic.Int64 // callbacks that overran their grace
	mu     sync.Mutex
	causes map[string]int
	turns  atomic.Int64
	work   *rand.Rand // of the callbacks; under mu
}

func (c *chaos) upTo(d time.Duration) time.Duration { return time.Duration(c.r.Int64N(int64(d))) }

// start begins a process for the slot, with a lease of its own: everybody waits by the larger one.
func (c *chaos) start(s *slot) {
	lease := c.lease
	if c.r.IntN(4) == 0 {
		lease *= 2
	}
	s.ns = c.e.Namespace(quorate.Config{Lease: lease})
	at := place(s.ns, nil)
	at.Quorum = c.r.IntN(2) == 0
	el, err := leader.NewAt(s.ns.Inner(), at, leader.Config{ID: s.id, Priority: c.r.IntN(3)})
	if err != nil {
		c.t.Fatal(err)
	}
	s.done = make(chan struct{})
	go func() {
		defer close(s.done) // not before the end of the test if it is killed
		for c.ended.Err() == nil {
			err := el.Run(c.ended, c.lead)
			if errors.Is(err, quorate.ErrClosed) || errors.Is(err, quorate.ErrConnClosed) {
				return
			}
		}
	}()
}

// lead is the guarded work: it goes on for a while, and returns more or less soon when it is asked to.
func (c *chaos) lead(ctx context.Context, term *leader.Term) error {
	c.terms.Add(1)
	c.mu.Lock()
	stay, linger := time.Duration(c.work.Int64N(int64(20*c.lease))), time.Duration(c.work.Int64N(int64(c.lease/8)))
	if c.work.IntN(20) == 0 {
		linger *= 20
	}
	turn := make(<-chan time.Time)
	if !term.Quorate() || c.work.IntN(2) == 0 {
		turn = time.After(time.Duration(c.work.Int64N(int64(5 * c.lease))))
	}
	c.mu.Unlock()
	if term.After() != 0 {
		c.turns.Add(1)
	}
	go func() { // E10: terms turn to quorate and back
		select {
		case <-turn:
			term.Turn(!term.Quorate())
		case <-ctx.Done():
		}
	}()
	select {
	case <-time.After(stay):
		return nil // of its own accord: released
	case <-ctx.Done():
	}
	time.Sleep(linger)
	if linger > 2*c.lease {
		c.over.Add(1)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.causes[context.Cause(ctx).Error()]++
	return nil
}

// fault does something to a slot and undoes it after a while.
func (c *chaos) fault() {
	s := c.slots[c.r.IntN(len(c.slots))]
	if s.busy.Load() {
		return
	}
	ns, e, link := s.ns, c.e, c.e.Link(s.ns)
	d := c.upTo(3 * c.lease)
	later := func(fn func()) {
		s.busy.Store(true)
		c.wg.Go(func() {
			time.Sleep(d)
			fn()
			s.busy.Store(false)
		})
	}
	heal := link.Heal
	if c.r.IntN(2) == 0 {
		heal = link.HealDropping
	}
	name := ""
	switch c.r.IntN(14) {
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
		e.Cut(ns)
		later(heal)
	case 3:
		name = "reset"
		link.Kill()
	case 4:
		name = "refused"
		link.Down(true)
		link.Kill()
		later(func() { link.Down(false) })
	case 5, 6:
		name = "pause"
		e.Pause(ns)
		later(func() { e.Resume(ns) })
	case 7:
		name = "acks dropped"
		link.DropAcks(1 + c.r.IntN(4))
	case 8:
		name = "hints dropped"
		link.DropHints(true)
		d *= 5
		later(func() { link.DropHints(false) })
	case 9:
		name = "wall clock"
		e.JumpWall(ns, c.upTo(2*time.Hour)-time.Hour)
	case 10:
		name = "suspend"
		e.Suspend(ns, c.upTo(10*c.lease))
	case 11:
		name = "late and out of order"
		var n atomic.Uint64
		remove := link.Filter(func(f *testenv.Frame) testenv.Verdict {
			if k := n.Add(1) * 0x9e3779b97f4a7c15; f.IsMessage() && k>>62 == 0 {
				return testenv.Delay(time.Duration(k>>40) * c.lease / (1 << 22) / 4)
			}
			return testenv.Pass
		})
		later(remove)
	case 12:
		if c.r.IntN(3) > 0 {
			return
		}
		name = "killed"
		e.Kill(ns)
		d = c.upTo(4 * c.lease)
		s.busy.Store(true)
		time.Sleep(d / 8)
		c.start(s)
		s.busy.Store(false)
	case 13:
		if c.r.IntN(40) > 0 {
			return
		}
		name = "server restarted, memory lost"
		e.Invariants().BucketLost()
		e.Server().Stop()
		time.Sleep(d / 8)
		if err := e.Server().Start(); err != nil {
			c.t.Fatal(err)
		}
	}
	c.faults[name]++
}

// L1, L2: five candidates under every fault there is, for hours, with the invariant watchers on.
func TestRandom(t *testing.T) {
	seed := *randomSeed
	if seed == 0 {
		seed = rand.Uint64() >> 32
	}
	t.Logf("go test ./leader -run TestRandom -leader.seed %d -leader.time %v", seed, *randomTime)
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		c := &chaos{t: t, e: e, r: rand.New(rand.NewPCG(seed, 1)), work: rand.New(rand.NewPCG(seed, 2)), lease: 2 * time.Second,
			faults: map[string]int{}, causes: map[string]int{}}
		var end context.CancelFunc
		c.ended, end = context.WithCancel(t.Context())
		for i := range 5 {
			s := &slot{id: fmt.Sprintf("c%d", i)}
			c.slots = append(c.slots, s)
			c.start(s)
		}
		for begin := time.Now(); time.Since(begin) < *randomTime && !t.Failed(); {
			c.fault()
			time.Sleep(c.upTo(4 * c.lease))
		}
		// When the faults have stopped somebody leads.
		time.Sleep(30 * c.lease)
		before := c.terms.Load()
		time.Sleep(100 * c.lease)
		if got := c.terms.Load() - before; got < 3 {
			t.Errorf("%d terms in a hundred leases without faults", got)
		}
		if holder, err := leading(t, c.slots[0].ns); err != nil {
			t.Errorf("leader: %+v, %v", holder, err)
		}
		end()
		c.wg.Wait()
		for _, s := range c.slots {
			<-s.done
		}

		var total int
		var told []string
		for _, name := range slices.Sorted(maps.Keys(c.faults)) {
			total += c.faults[name]
			told = append(told, fmt.Sprintf("%d %s", c.faults[name], name))
		}
		t.Logf("%d terms, %d of them turned, %d overran their grace; ended: %v; faults: %s", c.terms.Load(), c.turns.Load(), c.over.Load(), c.causes, strings.Join(told, ", "))
		hours := randomTime.Hours()
		if float64(total) < 200*hours || len(c.faults) < 11 {
			t.Errorf("%d faults of %d kinds: too few to show anything", total, len(c.faults))
		}
		if float64(c.turns.Load()) < 50*hours {
			t.Errorf("%d terms were turned: too few to show anything", c.turns.Load())
		}
		if n := e.Invariants().Counts().Terms; float64(n) < 100*hours || c.causes[quorate.ErrExpired.Error()] == 0 {
			t.Errorf("%d terms, ended %v: too few to show anything", n, c.causes)
		}
	})
}

func leading(t *testing.T, ns *quorate.Namespace) (leader.State, error) {
	e, err := leader.New(ns, "job", leader.Config{ID: "observer"})
	if err != nil {
		return leader.State{}, err
	}
	s, err := e.Leader(t.Context())
	return s, errors.Join(err, e.Close(t.Context()))
}
