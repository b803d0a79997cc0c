package bloc

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/bloc/client"
	"github.com/quorate/quorate/partition"
	"github.com/quorate/quorate/testenv"
)

const (
	lease    = 2 * time.Second
	interval = time.Second
	settle   = 2 * time.Second
	timeout  = 3 * time.Second
)

// A scene is gateways, clients and native members of one group in virtual time.
type scene struct {
	t        *testing.T
	e        *testenv.Env
	lease    time.Duration
	interval time.Duration
	cfg      Config
	all      *client.Beliefs
	wg       sync.WaitGroup
	// stop ends all clients.
	ctx  context.Context
	stop context.CancelFunc
}

func run(t *testing.T, fn func(s *scene)) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		s := &scene{t: t, e: e, lease: lease, interval: interval, cfg: Config{Timeout: timeout, Settle: settle, Interval: interval}, all: newBeliefs(t)}
		s.ctx, s.stop = context.WithCancel(context.Background())
		fn(s)
		s.stop()
		s.wg.Wait()
	})
}

func (s *scene) gateway(id string) (*Gateway, *quorate.Namespace) {
	s.t.Helper()
	ns := s.e.Namespace(quorate.Config{Lease: s.lease})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cfg := s.cfg
	cfg.ID, cfg.Logger = id, slog.New(slog.DiscardHandler)
	gw, err := Open(ctx, ns, "g", cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	return gw, ns
}

func (s *scene) client(id string, hs ...http.Handler) (c *client.Client, stop func()) {
	c = newClient(s.all, id, s.interval, hs...)
	ctx, cancel := context.WithCancel(s.ctx)
	done := make(chan struct{})
	s.wg.Go(func() {
		defer close(done)
		c.Run(ctx)
	})
	return c, func() { cancel(); <-done }
}

// native is a member of its own process that works.
func (s *scene) native(id string) *coord.Group { return s.member(coord.Config{ID: id}) }

// follower is a native that never leads; it waits for a leader.
func (s *scene) follower(id string) {
	s.wg.Go(func() { s.member(coord.Config{ID: id, NoLead: true}) })
}

func (s *scene) member(cfg coord.Config) *coord.Group {
	s.t.Helper()
	id := cfg.ID
	ns := s.e.Namespace(quorate.Config{Lease: s.lease})
	g, err := coord.Join(s.ctx, ns, "g", cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	p, err := partition.Join(s.ctx, g, partition.Config{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.wg.Go(func() {
		_ = p.Run(s.ctx, func(ctx context.Context, a *partition.Assignment) error { // its error is the end of the membership
			s.all.Set(id, true, a.Index+1, a.Total)
			<-ctx.Done()
			s.all.Set(id, false, 0, 0)
			return nil
		})
	})
	return g
}

// await waits in virtual time.
func (s *scene) await(what string, most time.Duration, is func() bool) time.Duration {
	s.t.Helper()
	began := time.Now()
	for !is() {
		if time.Since(began) > most {
			s.t.Fatalf("%s: not within %v: %v", what, most, s.all)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began)
}

func (s *scene) whole(n int, most time.Duration) time.Duration {
	s.t.Helper()
	return s.await(fmt.Sprintf("%d settled", n), most, func() bool { return s.all.Whole(n) })
}

// settling is how long a change of the group may take until all clients are told the outcome: quiet, letting go, and their next questions.
const settling = settle + settle + settle/10 + 3*interval

func TestSettles(t *testing.T) {
	run(t, func(s *scene) {
		gw, _ := s.gateway("gw")
		a, stopA := s.client("a", gw)
		s.whole(1, settling)
		if i, n := a.Get(); i != 1 || n != 1 {
			t.Errorf("alone: %d of %d", i, n)
		}
		_, stopB := s.client("b", gw)
		c, _ := s.client("c-0f8fad5b-d9cb-469f-a165-70867728950e", gw)
		s.whole(3, settling)
		if i, _ := a.Get(); i != 1 {
			t.Errorf("a newcomer has moved an index to %d", i)
		}

		// B3: one that asks no more is gone after its timeout.
		stopB()
		s.all.Set("b", false, 0, 0)
		s.whole(2, timeout+settle+settling)

		// One that says so is gone at once.
		stopA()
		if code, body := a.Stop(); code != http.StatusOK || body != "{}" {
			t.Errorf("DELETE: %d %s", code, body)
		}
		s.whole(1, settling)
		if i, n := c.Get(); i != 1 || n != 1 {
			t.Errorf("alone again: %d of %d", i, n)
		}
		if code, _ := a.Stop(); code != http.StatusNotFound {
			t.Errorf("DELETE of a session that is none: %d", code)
		}
	})
}

// TestMixed: bloc's clients and native members share one group's work, whoever leads.
func TestMixed(t *testing.T) {
	run(t, func(s *scene) {
		n1 := s.native("n1")
		gw, _ := s.gateway("gw")
		s.client("a", gw)
		s.client("b", gw)
		s.native("n2")
		s.whole(4, 2*settling)
		r, err := n1.Roster(s.ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range r.Members {
			if m.ID == "a" && m.Meta[metaGateway] != "gw" {
				t.Errorf("the record of a session does not name its gateway: %v", m.Meta)
			}
			if m.ID == "gw" && m.Index != -1 {
				t.Errorf("the gateway has a share: %+v", m)
			}
		}
		if r.Total != 4 || len(r.Members) != 5 {
			t.Errorf("total %d, %d members", r.Total, len(r.Members))
		}
		if err := n1.Leave(s.ctx); err != nil {
			t.Fatal(err)
		}
		s.whole(3, 2*settling)
	})
}

// everyOther is a load balancer that gives each question to the next gateway.
type everyOther struct {
	mu  sync.Mutex
	all []http.Handler
	n   int
}

func (e *everyOther) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	h := e.all[e.n%len(e.all)]
	e.n++
	e.mu.Unlock()
	h.ServeHTTP(w, r)
}

// TestForwarded: a session lives on one gateway, and every other passes its questions on, and its end.
func TestForwarded(t *testing.T) {
	run(t, func(s *scene) {
		one, _ := s.gateway("gw1")
		two, _ := s.gateway("gw2")
		three, _ := s.gateway("gw3")
		var clients []*client.Client
		var stops []func()
		for _, id := range []string{"a", "b", "c"} {
			c, stop := s.client(id, &everyOther{all: []http.Handler{one, two, three}})
			clients, stops = append(clients, c), append(stops, stop)
		}
		s.whole(3, 2*settling)
		time.Sleep(time.Minute)
		s.whole(3, 0)
		if n := one.Sessions() + two.Sessions() + three.Sessions(); n != 3 {
			t.Errorf("3 sessions live %d times", n)
		}
		for _, c := range clients {
			if d := c.Unsettled(); d > 2*settling {
				t.Errorf("%s was unsettled for %v", c.ID(), d)
			}
		}
		stops[0]()
		for _, h := range []*Gateway{one, two, three} {
			if h.local("a") != nil {
				continue
			}
			if code, body, err := ask(s.ctx, h, http.MethodDelete, "/session", "a"); code != http.StatusOK || string(body) != "{}" {
				t.Errorf("DELETE elsewhere: %d %s %v", code, body, err)
			}
			break
		}
		s.all.Set("a", false, 0, 0)
		s.whole(2, settling)
	})
}

// TestGatewayKilled: the clients of a gateway that is killed come to another, which takes their sessions over once their leases have run out:
// a member timeout, and a lease more if it led the group. Then the group settles.
func TestGatewayKilled(t *testing.T) {
	t.Run("a member", func(t *testing.T) { killed(t, true, 2*lease) })
	t.Run("the leader", func(t *testing.T) { killed(t, false, 3*lease) })
}

func killed(t *testing.T, native bool, over time.Duration) {
	run(t, func(s *scene) {
		others := 0
		if native {
			s.native("n") // leads
			others = 1
		}
		one, ns := s.gateway("gw1")
		two, _ := s.gateway("gw2")
		door := &breaks{h: one, ns: ns, e: s.e}
		var clients []*client.Client
		for i := range 4 {
			c, _ := s.client(fmt.Sprintf("one-%d", i), door, two)
			clients = append(clients, c)
			s.client(fmt.Sprintf("two-%d", i), two)
		}
		s.whole(8+others, 2*settling)
		if _, leads := one.g.Term(); leads == native {
			t.Fatalf("the gateway leads: %v", leads)
		}
		before := map[string]int{}
		for _, c := range clients {
			before[c.ID()], _ = c.Get()
			c.Unsettled()
		}
		door.kill()
		s.await("all settled again", over+settling, func() bool { return two.Sessions() == 8 && s.all.Whole(8+others) })
		for _, c := range clients {
			d := c.Unsettled()
			t.Logf("%s: unsettled for %v", c.ID(), d)
			if d > over+settle+2*interval {
				t.Errorf("%s was unsettled for %v", c.ID(), d)
			}
			if i, _ := c.Get(); native && i != before[c.ID()] {
				t.Errorf("%s had index %d, and has %d", c.ID(), before[c.ID()], i)
			}
		}
	})
}

// breaks is a gateway that can be killed: its connections are refused from then on.
type breaks struct {
	h    http.Handler
	ns   *quorate.Namespace
	e    *testenv.Env
	dead atomic.Bool
}

func (b *breaks) kill() {
	b.dead.Store(true)
	b.e.Kill(b.ns)
}

func (b *breaks) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if b.dead.Load() {
		http.Error(w, "connection refused", http.StatusBadGateway)
		return
	}
	b.h.ServeHTTP(w, r)
}

// TestGatewayPaused: a gateway that stands still and comes back acts for nobody whom another acts for by then.
func TestGatewayPaused(t *testing.T) {
	run(t, func(s *scene) {
		s.native("n")
		one, ns := s.gateway("gw1")
		two, _ := s.gateway("gw2")
		s.client("a", one, two)
		s.client("b", one, two)
		s.client("c", two, one)
		s.whole(4, 2*settling)
		for _, long := range []time.Duration{lease / 2, 2 * lease, 10 * lease} {
			s.e.Pause(ns)
			time.Sleep(long)
			s.e.Resume(ns)
			s.whole(4, 3*lease+2*settling)
		}
		// What waited in vain on a gateway that its client has left is given up after the timeout.
		s.await("3 sessions", timeout+lease, func() bool { return one.Sessions()+two.Sessions() == 3 && s.all.Whole(3+1) })
	})
}

// TestGatewayCut: a gateway that does not reach NATS answers SETTLING before any lease of its sessions has ended.
func TestGatewayCut(t *testing.T) {
	run(t, func(s *scene) {
		s.native("n")
		one, ns := s.gateway("gw1")
		two, _ := s.gateway("gw2")
		a, _ := s.client("a", one)
		s.client("b", two)
		s.whole(3, 2*settling)
		s.e.Cut(ns)
		began := time.Now()
		s.await("SETTLING", 2*lease, func() bool { i, _ := a.Get(); return i == 0 })
		t.Logf("told SETTLING after %v", time.Since(began))
		s.whole(2, 3*lease+settling) // the others share its part
		s.e.Heal(ns)
		s.whole(3, 3*lease+2*settling)
		if a.Codes(http.StatusOK) == 0 || a.Said("SETTLING") == 0 {
			t.Errorf("answers: %v %v", a.Codes(http.StatusOK), a.Said("SETTLING"))
		}
	})
}

// TestClose: a gateway that ends says so to its clients, which find their places on another.
func TestClose(t *testing.T) {
	run(t, func(s *scene) {
		one, _ := s.gateway("gw1")
		two, _ := s.gateway("gw2")
		a, _ := s.client("a", one, two)
		s.client("b", one, two)
		_, stopC := s.client("c", one)
		s.client("d", two)
		s.whole(4, 2*settling)
		stopC() // believes what it was told last, and asks no more
		ctx, cancel := context.WithTimeout(s.ctx, 2*settle)
		defer cancel()
		began := time.Now()
		time.AfterFunc(settle, func() { s.all.Set("c", false, 0, 0) }) // two of its intervals
		if err := one.Close(ctx); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d > settle+settle/20+lease {
			t.Errorf("ended after %v", d)
		}
		s.whole(3, 2*settling)
		if a.Codes(http.StatusServiceUnavailable) == 0 {
			t.Errorf("nobody was told that the gateway ends: %d", a.Codes(http.StatusOK))
		}
		if code, body, _ := ask(s.ctx, one, http.MethodGet, "/index", "x"); code != http.StatusServiceUnavailable {
			t.Errorf("after the end: %d %s", code, body)
		}
	})
}

// TestNativeHasID: an id that a native member has is refused, until it has left.
func TestNativeHasID(t *testing.T) {
	run(t, func(s *scene) {
		n := s.native("n")
		gw, _ := s.gateway("gw")
		code, body, err := ask(s.ctx, gw, http.MethodGet, "/index", "n")
		if err != nil || code != http.StatusConflict || !strings.Contains(string(body), "not through bloc") {
			t.Errorf("%d %s %v", code, body, err)
		}
		if code, _, _ := ask(s.ctx, gw, http.MethodGet, "/index", "gw"); code != http.StatusConflict {
			t.Errorf("the gateway's own id: %d", code)
		}
		if code, _, _ := ask(s.ctx, gw, http.MethodDelete, "/session", "n"); code != http.StatusNotFound {
			t.Errorf("DELETE of a native member: %d", code)
		}
		if n.Context().Err() != nil {
			t.Errorf("the native member has ended: %v", context.Cause(n.Context()))
		}
		if err := n.Leave(s.ctx); err != nil {
			t.Fatal(err)
		}
		s.all.Set("n", false, 0, 0)
		s.client("n", gw)
		s.whole(1, 2*settling)
	})
}

// TestEvicted: who is evicted has no place any more, and gets one as a new session when it asks again.
func TestEvicted(t *testing.T) {
	run(t, func(s *scene) {
		gw, ns := s.gateway("gw")
		s.client("a", gw)
		b, _ := s.client("b", gw)
		s.whole(2, 2*settling)
		cl, err := coord.Open(s.ctx, ns, "g")
		if err != nil {
			t.Fatal(err)
		}
		if err := cl.Evict(s.ctx, "b"); err != nil {
			t.Fatal(err)
		}
		s.await("SETTLING", 2*interval, func() bool { i, _ := b.Get(); return i == 0 })
		s.whole(2, 3*lease+2*settling)
	})
}

// TestDefaults: with all defaults, clients that ask as seldom as they may, and a native leader that waits a lease for acknowledgements, each change
// takes one generation: nobody loses its place for being late.
func TestDefaults(t *testing.T) {
	run(t, func(s *scene) {
		s.lease, s.cfg = quorate.DefaultLease, Config{}
		s.interval = DefaultSettle(s.lease) / 2
		most := 4 * s.lease
		s.native("n1")
		gw, _ := s.gateway("gw")
		s.whole(1, most)
		var a *client.Client
		var stopA func()
		for i, change := range []func(){
			func() { a, stopA = s.client("a", gw) },
			func() { s.client("b", gw) },
			func() { s.client("c", gw) },
			func() { s.native("n2") },
			func() { stopA(); a.Stop() },
		} {
			before := s.e.Invariants().Counts().Generations
			change()
			s.whole([]int{2, 3, 4, 5, 4}[i], most)
			time.Sleep(4 * s.lease) // another one would have come by then
			if n := s.e.Invariants().Counts().Generations - before; n != 1 {
				t.Errorf("change %d took %d generations", i, n)
			}
		}
	})
}

// TestShortLease: a group whose leader counts with a shorter lease than the settle time needs is refused, and its lease named.
func TestShortLease(t *testing.T) {
	run(t, func(s *scene) {
		s.native("n")
		ns := s.e.Namespace(quorate.Config{Lease: 4 * time.Second})
		_, err := Open(s.ctx, ns, "g", Config{Settle: 4 * time.Second})
		if err == nil || !strings.Contains(err.Error(), `settle time 4s > 1.63 leases of 2s, which "n" leads the group with: a lease of 2.5s is needed`) {
			t.Errorf("%v", err)
		}
	})
}

func TestInequalities(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  Config
		want string // "" for none
	}{
		{"defaults", Config{}, ""},
		{"bloc's own example", Config{Timeout: 4 * time.Second, Settle: 6 * time.Second},
			"settle time 6s > 1.63 leases of 3s: SETTLED could never be said for so long: a lease of 3.7s is needed, or a shorter settle time"},
		{"at the limit", Config{Settle: 4890 * time.Millisecond}, ""},
		{"above the limit", Config{Settle: 4891 * time.Millisecond}, "settle time 4.891s > 1.63 leases"},
		{"two intervals", Config{Settle: 4 * time.Second, Interval: 2 * time.Second}, ""},
		{"not two intervals", Config{Settle: 4 * time.Second, Interval: 2001 * time.Millisecond}, "settle time 4s < 2 client intervals of 2.001s"},
		{"timeout below the interval", Config{Settle: 4 * time.Second, Interval: 2 * time.Second, Timeout: time.Second}, "session timeout 1s < client interval 2s"},
		{"a short timeout alone", Config{Settle: 4 * time.Second, Timeout: time.Second}, ""},
		{"nothing", Config{Settle: time.Millisecond}, "at least 10ms"},
		{"negative", Config{Settle: -time.Second}, "cannot be negative"},
		{"id", Config{ID: "a b"}, `"a b"`},
	} {
		err := c.cfg.Check(3 * time.Second)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
	if err := (Config{Timeout: 4 * time.Second, Settle: 6 * time.Second}).Check(3700 * time.Millisecond); err != nil {
		t.Errorf("the lease that the error names is not enough: %v", err)
	}
}

// TestRandomFaults: gateways that are cut off, stand still, are killed and begin anew, clients that come and go and that a load balancer sends
// anywhere, native members beside them. Nobody acts on an index that another has, or on another generation's.
func TestRandomFaults(t *testing.T) {
	run(t, func(s *scene) {
		seed := rand.Uint64()
		r := rand.New(rand.NewPCG(seed, 0))
		defer func() {
			if t.Failed() {
				t.Logf("seed %d", seed)
			}
		}()
		s.follower("n1") // the gateways lead
		s.follower("n2")
		doors := make([]*revolving, 3)
		for i := range doors {
			doors[i] = &revolving{s: s}
			doors[i].open(fmt.Sprintf("gw%d-0", i))
		}
		stops := map[string]func(){}
		come := func(i int) {
			id := fmt.Sprintf("client-%d", i)
			hs := []http.Handler{doors[i%3], doors[(i+1)%3], doors[(i+2)%3]}
			if i%2 == 0 {
				hs = []http.Handler{&everyOther{all: hs}}
			}
			c, stop := s.client(id, hs...)
			stops[id] = func() {
				stop()
				s.all.Set(id, false, 0, 0)
				c.Stop()
			}
		}
		for i := range 6 {
			come(i)
		}
		var settled int
		for i := range randomRounds {
			d := doors[r.IntN(3)]
			switch r.IntN(7) {
			case 0, 1:
				s.e.Cut(d.ns)
				time.Sleep(time.Duration(r.Int64N(int64(4 * lease))))
				s.e.Heal(d.ns)
			case 2, 3:
				s.e.Pause(d.ns)
				time.Sleep(time.Duration(r.Int64N(int64(4 * lease))))
				s.e.Resume(d.ns)
			case 4:
				d.kill()
				time.Sleep(time.Duration(r.Int64N(int64(3 * lease))))
				d.open(fmt.Sprintf("gw-%d", i+1))
			case 5:
				id := fmt.Sprintf("client-%d", r.IntN(6))
				if stop := stops[id]; stop != nil {
					stop()
					delete(stops, id)
				}
			case 6:
				for j := range 6 {
					if stops[fmt.Sprintf("client-%d", j)] == nil {
						come(j)
						break
					}
				}
			}
			time.Sleep(time.Duration(r.Int64N(int64(8 * lease))))
			if s.all.Whole(len(stops) + 2) {
				settled++
			}
		}
		s.whole(len(stops)+2, 10*lease+3*settling)
		t.Logf("%d of %d times all settled, %d answers, %+v", settled, randomRounds, s.all.Seen(), s.e.Invariants().Counts())
		if settled < randomRounds/3 || s.all.Seen() < 8*randomRounds {
			t.Errorf("%d times settled, %d answers: too little has happened to prove anything", settled, s.all.Seen())
		}
		for _, stop := range stops {
			stop()
		}
	})
}

// revolving is a gateway that is killed and begun anew under one address.
type revolving struct {
	s  *scene
	ns *quorate.Namespace
	mu sync.Mutex
	h  http.Handler
}

func (d *revolving) open(id string) {
	gw, ns := d.s.gateway(id)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.h, d.ns = gw, ns
}

func (d *revolving) kill() {
	d.mu.Lock()
	d.h = nil
	d.mu.Unlock()
	d.s.e.Kill(d.ns)
}

func (d *revolving) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	h := d.h
	d.mu.Unlock()
	if h == nil {
		http.Error(w, "connection refused", http.StatusBadGateway)
		return
	}
	h.ServeHTTP(w, r)
}
