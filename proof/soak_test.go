package proof_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/partition"
	"github.com/quorate/quorate/testenv"
	"github.com/quorate/quorate/vote"
)

var (
	soakTerms = flag.Int("soak.terms", 2000, "how many terms the soak has")
	soakSeed  = flag.Uint64("soak.seed", 0, "seed of the soak; 0: a random one, which is printed")
)

const soakLease = 10 * time.Second // virtual time costs nothing, heartbeats do

// A soak is processes that come and go, lead, work and vote.
type soak struct {
	t   *testing.T
	e   *testenv.Env
	r   *rand.Rand
	all []*soaked

	mu   sync.Mutex
	term *leader.Term // the latest
	of   *soaked      // whose it is
	wins int
}

// A soaked is one process: a candidate of an election and a member of a group.
type soaked struct {
	s     *soak
	id    string
	ns    *quorate.Namespace
	ctx   context.Context
	end   context.CancelFunc
	wg    sync.WaitGroup
	e     *leader.Elector
	group *coord.Group
}

func (s *soak) start(id string) *soaked {
	p := &soaked{s: s, id: id, ns: s.e.Namespace(quorate.Config{Lease: soakLease})}
	p.ctx, p.end = context.WithCancel(context.Background())
	p.elect()
	p.join()
	return p
}

// elect campaigns again and again.
func (p *soaked) elect() {
	e, err := leader.New(p.ns, "job", leader.Config{ID: p.id})
	if err != nil {
		p.s.t.Fatal(err)
	}
	p.e = e
	p.wg.Go(func() {
		for {
			t, err := e.Campaign(p.ctx)
			if err != nil {
				return // closed, or killed
			}
			p.s.mu.Lock()
			p.s.term, p.s.of = t, p
			p.s.wins++
			p.s.mu.Unlock()
			<-t.Work().Done()
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			_ = t.Resign(ctx) // a term that ran out has nothing to release
			cancel()
		}
	})
}

// join becomes a member that works and votes, in the background: another process may have to expire first.
func (p *soaked) join() {
	p.wg.Go(func() {
		g, err := coord.Join(p.ctx, p.ns, "g", coord.Config{ID: p.id})
		if err != nil {
			return // ended meanwhile
		}
		w, err := partition.Join(p.ctx, g, partition.Config{})
		if err != nil {
			p.s.t.Errorf("%s: %v", p.id, err)
			return
		}
		p.wg.Go(func() {
			_ = w.Run(p.ctx, func(ctx context.Context, _ *partition.Assignment) error { <-ctx.Done(); return nil }) // until the member leaves
		})
		if _, err := vote.Join(p.ctx, g, vote.Config{Decide: func(context.Context, vote.Ballot) vote.Answer { return vote.Yes() }}); err != nil && p.ctx.Err() == nil && g.Context().Err() == nil {
			p.s.t.Errorf("%s: %v", p.id, err)
		}
		p.s.mu.Lock()
		p.group = g
		p.s.mu.Unlock()
	})
}

func (p *soaked) member() *coord.Group {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	return p.group
}

// gone ends the process, dead or alive.
func (p *soaked) gone() {
	p.end()
	p.s.e.Remove(p.ns)
	p.wg.Wait()
}

// await waits, in virtual time, until what is true.
func (s *soak) await(what string, is func() bool) {
	s.t.Helper()
	for range 3000 {
		if is() {
			return
		}
		time.Sleep(soakLease / 50)
	}
	s.t.Fatalf("not within ten minutes: %s", what)
}

func (s *soak) holder() (*leader.Term, *soaked) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.term == nil || !s.term.Live() {
		return nil, nil
	}
	return s.term, s.of
}

// next has the present term end in one way or another, and waits for the next one.
func (s *soak) next(kind string) {
	var t *leader.Term
	var p *soaked
	s.await("somebody leads", func() bool { t, p = s.holder(); return t != nil })
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	i := 0
	for s.all[i] != p {
		i++
	}
	if i == 0 && (kind == "kill" || kind == "shutdown") {
		kind = "resign" // the first process stays: with the others goes what they may have leaked
	}
	switch kind {
	case "resign":
		if err := t.Resign(ctx); err != nil {
			s.t.Error(err)
		}
		time.Sleep(soakLease / 4)
	case "step-down":
		t.StepDown()
	case "kill":
		s.e.Kill(p.ns)
		p.gone()
		s.all[i] = s.start(p.id)
	case "shutdown":
		p.gone()
		s.all[i] = s.start(p.id)
	case "cut":
		s.e.Cut(p.ns)
		time.Sleep(3 * soakLease)
		s.e.Heal(p.ns)
	case "close": // and another elector in its place
		for _, p := range s.and(p) {
			if err := p.e.Close(ctx); err != nil {
				s.t.Error(err)
			}
			p.elect()
		}
	case "leave": // and join again; whoever leads hands over
		for _, p := range s.and(p) {
			s.mu.Lock()
			g := p.group
			p.group = nil // until it is a member again: who joins twice leaves twice
			s.mu.Unlock()
			if g == nil {
				continue
			}
			if err := g.Leave(ctx); err != nil {
				s.t.Error(err)
			}
			p.join()
		}
		t.StepDown()
	case "vote":
		s.ask(p)
		t.StepDown()
	}
	s.await("the next one leads", func() bool { n, _ := s.holder(); return n != nil && n != t })
}

// and is the process and the first one.
func (s *soak) and(p *soaked) []*soaked {
	if p == s.all[0] {
		return s.all[:1]
	}
	return []*soaked{p, s.all[0]}
}

func (s *soak) ask(p *soaked) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*soakLease)
	defer cancel()
	c, err := coord.Open(ctx, p.ns, "g")
	if err != nil {
		s.t.Error(err)
		return
	}
	defer c.Close()
	if _, err := vote.Propose(ctx, c, vote.Proposal{Topic: "soak"}); err != nil && !errors.Is(err, vote.ErrNoVoters) {
		s.t.Error(err)
	}
}

// A use is what must not grow.
type use struct {
	goroutines    int
	subscriptions uint32
	heap          uint64
	messages      uint64
	bytes         uint64
}

func (u use) String() string {
	return fmt.Sprintf("%d goroutines, %d subscriptions, %d KiB of heap, bucket of %d messages and %d bytes", u.goroutines, u.subscriptions, u.heap>>10, u.messages, u.bytes)
}

// measure waits until all is at rest and what expires has expired (verdicts stay for an hour), and counts.
func (s *soak) measure() (u use) {
	s.t.Helper()
	s.await("all are members and share the work", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		for _, p := range s.all {
			g := p.member()
			if g == nil || g.Context().Err() != nil {
				return false
			}
			if all, err := g.Members(ctx); err != nil || len(all) != len(s.all) {
				return false
			}
		}
		return true
	})
	time.Sleep(65 * time.Minute)
	st, _, err := kv.Inspect(s.t.Context(), s.e.Conn(s.all[0].ns), kv.Options{Memory: true})
	if err != nil {
		s.t.Fatal(err)
	}
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return use{goroutines: runtime.NumGoroutine(), subscriptions: s.e.Server().Server().NumSubscriptions(), heap: m.HeapAlloc, messages: st.Messages, bytes: st.Bytes}
}

// grown tells what has grown by more than it may. Goroutines and subscriptions come one by one, so that a leak of one in each hundred terms
// shows; the heap has buffers in it that come and go.
func grown(before, after use) (what []string) {
	check := func(name string, a, b, slack uint64) {
		if b > a+slack {
			what = append(what, fmt.Sprintf("%s: %d, before %d, %d more are allowed", name, b, a, slack))
		}
	}
	check("goroutines", uint64(before.goroutines), uint64(after.goroutines), 5)
	check("subscriptions", uint64(before.subscriptions), uint64(after.subscriptions), 5)
	check("heap", before.heap, after.heap, 1<<20)
	check("messages", before.messages, after.messages, 5)
	check("bytes", before.bytes, after.bytes, 1<<10)
	return what
}

var soakKinds = []string{"resign", "resign", "step-down", "step-down", "close", "close", "leave", "vote", "kill", "shutdown", "cut"}

// soaking has terms end in every way there is, and returns what was in use after the first of them, the warm-up, and at the end. Each is called
// once for each term after the warm-up.
func soaking(t *testing.T, e *testenv.Env, warmUp, terms int, each func(s *soak)) (before, after use, s *soak) {
	first := *soakSeed
	if first == 0 {
		first = rand.Uint64()
	}
	t.Logf("go test ./proof -run %s -soak.seed %d -soak.terms %d", t.Name(), first, terms)
	s = &soak{t: t, e: e, r: rand.New(rand.NewPCG(first, 1))}
	for i := range 4 {
		s.all = append(s.all, s.start(fmt.Sprintf("p%d", i)))
	}
	defer func() {
		for _, p := range s.all {
			p.gone()
		}
	}()
	for i := range warmUp { // each kind many times: what is made once has been made, and what is kept for a while has come and gone
		s.next(soakKinds[i%len(soakKinds)])
	}
	before = s.measure()
	for range terms {
		s.next(soakKinds[s.r.IntN(len(soakKinds))])
		each(s)
	}
	return before, s.measure(), s
}

// Thousands of terms, members and ballots later nothing has grown: no goroutine, no subscription, no memory, no key.
func TestSoak(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		before, after, s := soaking(t, e, 400, *soakTerms, func(*soak) {})
		for _, w := range grown(before, after) {
			t.Errorf("after %d terms: %s", s.wins, w)
		}
		n := e.Invariants().Counts()
		if n.Terms < *soakTerms || n.Generations < *soakTerms/20 || n.Verdicts == 0 {
			t.Errorf("too little has happened: %+v", n)
		}
		t.Logf("%+v\nbefore: %v\nafter:  %v", n, before, after)
	})
}

// The soak sees what leaks: planted here are one goroutine, subscription, piece of memory and key for each term.
func TestSoakSeesLeaks(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		stop := make(chan struct{})
		defer close(stop)
		nc, _ := e.Connect("leak")
		var kept [][]byte
		n := 0
		before, after, _ := soaking(t, e, 50, 30, func(s *soak) {
			n++
			go func() { <-stop }()
			if _, err := nc.Subscribe(fmt.Sprintf("leak.%d", n), func(*nats.Msg) {}); err != nil {
				t.Fatal(err)
			}
			kept = append(kept, make([]byte, 128<<10))
			if _, err := nc.Request(fmt.Sprintf("$KV.QUORATE_default.leak.%d", n), []byte("x"), time.Minute); err != nil {
				t.Fatal(err)
			}
		})
		if what := grown(before, after); len(what) != 5 {
			t.Errorf("leaks seen: %q, want goroutines, subscriptions, heap, messages, bytes", what)
		}
		runtime.KeepAlive(kept)
	})
}
