package coord_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/testenv"
)

var (
	seed  = flag.Uint64("coord.seed", 0, "seed of the faults; 0: a random one, which is printed")
	hours = flag.Float64("coord.hours", defaultHours, "how long the random run takes, in virtual hours")
)

// slot is one id of the random run: a process after the other.
type slot struct {
	id   string
	ns   *quorate.Namespace
	stop context.CancelFunc // gives a join up that still waits

	mu sync.Mutex
	g  *coord.Group
}

// run keeps the slot's process a member until it ends for good.
func (s *slot) run(wg *sync.WaitGroup, ns *quorate.Namespace) {
	if s.stop != nil {
		s.stop() // of a process that was killed: nobody is there to wait
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.ns, s.stop = ns, cancel
	s.set(nil)
	wg.Go(func() {
		g, err := coord.Join(ctx, ns, "g", coord.Config{ID: s.id})
		if err == nil {
			s.set(g)
		}
	})
}

func (s *slot) set(g *coord.Group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.g = g
}

func (s *slot) group() *coord.Group {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.g
}

// Hours of faults of every kind under the watchers of L1, L2 and M2; at rest the roster is what is there (M1), and what a
// watch has told adds up to it.
func TestRandomFaults(t *testing.T) {
	first := *seed
	if first == 0 {
		first = rand.Uint64()
	}
	t.Logf("go test ./coord -run TestRandomFaults -coord.seed %d", first)
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		r := rand.New(rand.NewPCG(first, 1))
		var wg sync.WaitGroup
		var slots []*slot
		for i := range 7 {
			s := &slot{id: fmt.Sprintf("m%d", i%6)} // two of them share one id
			s.run(&wg, e.Namespace())
			slots = append(slots, s)
		}
		look := e.Namespace()
		ctx, cancel := context.WithCancel(t.Context())
		c := client(t, look)
		book := map[string]uint64{}
		var mu sync.Mutex
		watching := make(chan struct{})
		go func() {
			defer close(watching)
			for v := range c.Watch(ctx) {
				mu.Lock()
				for _, d := range v.Left {
					if book[d.Member.ID] != d.Member.Incarnation || d.Reason == "" {
						t.Errorf("M1: %s.%d is told to be gone (%q), %d was there", d.Member.ID, d.Member.Incarnation, d.Reason, book[d.Member.ID])
					}
					delete(book, d.Member.ID)
				}
				for _, m := range v.Joined {
					if book[m.ID] != 0 {
						t.Errorf("M1: %s joins, and is there", m.ID)
					}
					book[m.ID] = m.Incarnation
				}
				if len(v.Members) != len(book) {
					t.Errorf("M1: %d members in the view, %d by what was told", len(v.Members), len(book))
				}
				mu.Unlock()
			}
		}()
		counts := map[string]int{}
		heal := func(s *slot) {
			e.Link(s.ns).DropHints(false)
			e.Link(s.ns).Down(false)
			e.Heal(s.ns)
			e.Resume(s.ns)
		}
		kinds := []string{"cut", "pause", "reset", "kill", "leave", "heal", "heal", "acks", "hints", "wall", "suspend", "outage"}
		var deal []int // each once, in a random order, and again: a short run has all of them
		end := time.Now().Add(time.Duration(*hours * float64(time.Hour)))
		for round := 1; time.Now().Before(end); round++ {
			for range 1 + r.IntN(6) {
				s := slots[r.IntN(len(slots))]
				if len(deal) == 0 {
					deal = r.Perm(len(kinds))
				}
				kind := kinds[deal[0]]
				deal = deal[1:]
				counts[kind]++
				switch kind {
				case "cut":
					e.Link(s.ns).Cut([]testenv.Direction{testenv.ToServer, testenv.ToClient, testenv.Both}[r.IntN(3)])
				case "pause":
					e.Pause(s.ns)
				case "reset":
					e.Link(s.ns).Kill()
				case "kill":
					e.Kill(s.ns)
					s.run(&wg, e.Namespace())
				case "leave":
					heal(s)
					if g := s.group(); g != nil {
						if err := g.Leave(t.Context()); err != nil {
							t.Errorf("leave: %v", err)
						}
						s.run(&wg, e.Namespace())
					}
				case "heal":
					heal(s)
				case "acks":
					e.Link(s.ns).DropAcks(1 + r.IntN(3))
				case "hints":
					e.Link(s.ns).DropHints(true)
				case "wall":
					e.JumpWall(s.ns, time.Duration(r.IntN(120)-60)*time.Minute)
				case "suspend":
					e.Suspend(s.ns, time.Duration(r.IntN(20))*time.Second)
				case "outage":
					for _, s := range slots {
						e.Cut(s.ns)
					}
					time.Sleep(time.Duration(r.IntN(4000)) * lease / 1000)
					for _, s := range slots {
						e.Heal(s.ns)
					}
				}
				time.Sleep(time.Duration(r.IntN(2000)) * lease / 1000)
			}
			if round%3 > 0 {
				continue
			}
			// At rest.
			counts["rest"]++
			for _, s := range slots {
				heal(s)
				if g := s.group(); g != nil && errors.Is(context.Cause(g.Context()), coord.ErrIDInUse) {
					counts["id in use"]++
					s.run(&wg, e.Namespace())
				}
			}
			time.Sleep(8 * lease)
			alive := map[string]uint64{}
			for _, s := range slots {
				if g := s.group(); g != nil && g.Live() {
					if alive[s.id] != 0 {
						t.Errorf("M2: two live members %s", s.id)
					}
					alive[s.id] = g.Inner().Place().Incarnation
				}
			}
			ms, err := c.Members(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			if len(ms) != 6 || len(alive) != 6 || len(book) != 6 {
				t.Errorf("M1: at rest: roster %s, live %v, watch %v", ids(ms), alive, book)
			}
			for _, m := range ms {
				if m.Status != coord.Alive || alive[m.ID] != m.Incarnation || book[m.ID] != m.Incarnation {
					t.Errorf("M1: at rest: %s.%d is %s, live is %d, watch has %d", m.ID, m.Incarnation, m.Status, alive[m.ID], book[m.ID])
				}
			}
			mu.Unlock()
			l, err := look.Inner().Store.List(t.Context(), wire.MemberPrefix("g")+"*")
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, en := range l {
				if len(en.Value) > 0 {
					n++
				}
			}
			if n != 6 {
				t.Errorf("M1: %d member records, want 6", n)
			}
			if t.Failed() {
				break
			}
		}
		seen := e.Invariants().Counts()
		t.Logf("faults %v, seen %+v", counts, seen)
		for _, k := range []string{"cut", "pause", "kill", "leave", "acks", "hints", "wall", "suspend", "outage", "rest"} {
			if float64(counts[k]) < 2**hours {
				t.Errorf("only %d of %s", counts[k], k)
			}
		}
		if float64(seen.Terms) < 20**hours || float64(seen.Members) < 50**hours {
			t.Errorf("little has happened: %+v", seen)
		}
		for _, s := range slots {
			heal(s)
			e.Kill(s.ns)
			e.Conn(s.ns).Close()
			s.stop()
		}
		cancel()
		<-watching
		for _, s := range slots {
			e.Resume(s.ns)
		}
		wg.Wait()
	})
}
