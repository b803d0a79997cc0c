package partition_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/partition"
	"github.com/quorate/quorate/testenv"
)

// A keeper is a member that works on buckets, and what it has and had.
type keeper struct {
	ns     *quorate.Namespace
	g      *coord.Group
	p      *partition.Partition
	mu     sync.Mutex
	has    map[int]*partition.Bucket
	began  map[int]int // how often the work of each bucket has begun
	cancel context.CancelFunc
	done   chan error
}

// keep starts a member whose calls take so long to return.
func keep(t *testing.T, ns *quorate.Namespace, id string, cfg partition.Config, lag time.Duration) *keeper {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	g, err := coord.Join(ctx, ns, "g", coord.Config{ID: id})
	if err != nil {
		t.Fatal(err)
	}
	p, err := partition.Join(ctx, g, cfg)
	if err != nil {
		t.Fatal(err)
	}
	k := &keeper{ns: ns, g: g, p: p, has: map[int]*partition.Bucket{}, began: map[int]int{}, done: make(chan error, 1)}
	ctx, k.cancel = context.WithCancel(context.Background())
	go func() {
		k.done <- p.RunBuckets(ctx, func(ctx context.Context, b *partition.Bucket) error {
			k.mu.Lock()
			if _, twice := k.has[b.N]; twice {
				t.Errorf("%s works on bucket %d twice at once", id, b.N)
			}
			k.has[b.N] = b
			k.began[b.N]++
			k.mu.Unlock()
			<-ctx.Done()
			time.Sleep(lag)
			k.mu.Lock()
			delete(k.has, b.N)
			k.mu.Unlock()
			return nil
		})
	}()
	return k
}

// held gives the live buckets.
func (k *keeper) held() map[int]*partition.Bucket {
	k.mu.Lock()
	defer k.mu.Unlock()
	m := map[int]*partition.Bucket{}
	for n, b := range k.has {
		if b.Live() {
			m[n] = b
		}
	}
	return m
}

func (k *keeper) beginnings() map[int]int {
	k.mu.Lock()
	defer k.mu.Unlock()
	m := map[int]int{}
	for n, c := range k.began {
		m[n] = c
	}
	return m
}

// dealt demands that each of n buckets is held once, and that all hold as many, within one.
func dealt(t *testing.T, n int, ks ...*keeper) {
	t.Helper()
	owner := map[int]string{}
	for _, k := range ks {
		h := k.held()
		if len(h) < n/len(ks) || len(h) > (n+len(ks)-1)/len(ks) {
			t.Errorf("%s has %d of %d buckets among %d", k.g.ID(), len(h), n, len(ks))
		}
		for b := range h {
			if o, both := owner[b]; both {
				t.Errorf("P2: %s and %s both have bucket %d", o, k.g.ID(), b)
			}
			owner[b] = k.g.ID()
		}
	}
	if len(owner) != n {
		t.Fatalf("%d of %d buckets have an owner", len(owner), n)
	}
}

// kept counts the buckets whose work has not been interrupted, and demands that their tokens have not changed.
func kept(t *testing.T, k *keeper, before map[int]*partition.Bucket, began map[int]int) (n int) {
	t.Helper()
	now, calls := k.held(), k.beginnings()
	for b, was := range before {
		if now[b] != was {
			continue
		}
		n++
		if calls[b] != began[b] {
			t.Errorf("the work of bucket %d, which %s keeps, has begun again", b, k.g.ID())
		}
	}
	return n
}

// TestBuckets: a change of the members moves, and interrupts, only the buckets that change hands; those have a new, higher token.
func TestBuckets(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		const n = 32
		cfg := partition.Config{Buckets: n}
		var ks []*keeper
		for i := range 4 {
			ks = append(ks, keep(t, e.Namespace(), fmt.Sprintf("w%d", i), cfg, 0))
		}
		time.Sleep(lease)
		dealt(t, n, ks...)
		type was struct {
			held  map[int]*partition.Bucket
			began map[int]int
		}
		look := func() (all []was, tokens map[int]uint64) {
			tokens = map[int]uint64{}
			for _, k := range ks {
				h := k.held()
				all = append(all, was{h, k.beginnings()})
				for b, x := range h {
					tokens[b] = x.Token()
				}
			}
			return all, tokens
		}

		before, tokens := look()
		ks = append(ks, keep(t, e.Namespace(), "late", cfg, 0))
		time.Sleep(lease)
		dealt(t, n, ks...)
		stayed := 0
		for i, b := range before {
			stayed += kept(t, ks[i], b.held, b.began)
		}
		if moved := len(ks[4].held()); stayed != n-moved {
			t.Errorf("a join took %d buckets, and %d of the %d others were let go of", moved, n-moved-stayed, n-moved)
		}
		for b, x := range ks[4].held() {
			if x.Token() <= tokens[b] {
				t.Errorf("P3: bucket %d has token %d, after %d", b, x.Token(), tokens[b])
			}
		}

		// A leave moves what the leaver had.
		before, _ = look()
		if err := ks[1].g.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-ks[1].done; !errors.Is(err, quorate.ErrLeft) {
			t.Errorf("RunBuckets after Leave: got %v, want ErrLeft", err)
		}
		time.Sleep(lease)
		stayed = 0
		for _, i := range []int{0, 2, 3, 4} {
			stayed += kept(t, ks[i], before[i].held, before[i].began)
		}
		ks = slices.Delete(ks, 1, 2)
		dealt(t, n, ks...)
		if moved := n - stayed; moved != len(before[1].held) {
			t.Errorf("the leave of one with %d buckets moved %d", len(before[1].held), moved)
		}

		// So does the end of the leader, whoever it is; a change of leader as such moves none (P4).
		var lead int
		for i, k := range ks {
			if _, ok := k.g.Term(); ok {
				lead = i
			}
		}
		before, _ = look()
		e.Kill(ks[lead].ns)
		time.Sleep(5 * lease)
		stayed = 0
		for i, k := range ks {
			if i != lead {
				stayed += kept(t, k, before[i].held, before[i].began)
			}
		}
		lost := len(before[lead].held)
		ks = slices.Delete(ks, lead, lead+1)
		dealt(t, n, ks...)
		if stayed != n-lost {
			t.Errorf("the end of a leader with %d buckets moved %d", lost, n-stayed)
		}
	})
}

// TestBucketsPause: while one member takes its time to let go, what the others keep goes on, and what moves waits for it (P2).
func TestBucketsPause(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		const n = 12
		cfg := partition.Config{Buckets: n}
		a, b := keep(t, e.Namespace(), "a", cfg, lease/2), keep(t, e.Namespace(), "b", cfg, 0)
		time.Sleep(lease)
		dealt(t, n, a, b)
		was, began := a.held(), a.beginnings()
		c := keep(t, e.Namespace(), "c", cfg, 0)
		time.Sleep(lease/2 + lease/4) // asked, and not yet returned
		if got := len(c.held()); got != 0 {
			t.Errorf("P2: %d buckets granted before their owner let go", got)
		}
		if got := len(b.held()); got != 4 {
			t.Errorf("b keeps %d buckets meanwhile, want 4", got)
		}
		if got := kept(t, a, was, began); got < 4 {
			t.Errorf("a works on %d of its buckets meanwhile, want 4 at least", got)
		}
		time.Sleep(lease)
		dealt(t, n, a, b, c)
	})
}

// TestBucketsWhole: who works on whole assignments lives with those who work on buckets, and with those who know nothing of them.
func TestBucketsWhole(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		const n = 9
		a := keep(t, e.Namespace(), "a", partition.Config{Buckets: n}, 0)
		b := start(t, e.Namespace(), "b", 0) // says nothing about buckets
		c := start(t, e.Namespace(), "c", lease/4)
		time.Sleep(lease)
		whole := func(ws ...*worker) {
			t.Helper()
			seen := map[int]bool{}
			for n := range a.held() {
				seen[n] = true
			}
			for _, w := range ws {
				x := w.assignment()
				if x == nil {
					t.Fatalf("%s has no share", w.g.ID())
				}
				for _, b := range x.Buckets {
					if seen[b] {
						t.Errorf("P2: bucket %d has two owners", b)
					}
					seen[b] = true
				}
			}
			if len(seen) != n {
				t.Errorf("%d of %d buckets have an owner", len(seen), n)
			}
			for i := range 200 {
				key, owners := fmt.Sprint("key", i), 0
				if _, ok := a.p.Bucket(key); ok {
					owners++
				}
				for _, w := range ws {
					if w.assignment().Owns(key) {
						owners++
					}
				}
				if owners != 1 {
					t.Fatalf("%s has %d owners", key, owners)
				}
			}
		}
		whole(b, c)
		d := start(t, e.Namespace(), "d", 0)
		time.Sleep(2 * lease)
		whole(b, c, d)
		if _, ok := b.g.Term(); ok {
			t.Fatal("b leads: the test means one that has not asked for buckets to lead next")
		}
		// A leader that has not asked for buckets goes on with those that there are (P4).
		e.Kill(a.ns)
		time.Sleep(5 * lease)
		a = &keeper{p: a.p}
		seen := 0
		for _, w := range []*worker{b, c, d} {
			seen += len(w.assignment().Buckets)
		}
		if seen != n {
			t.Errorf("%d of %d buckets have an owner after a change of leader", seen, n)
		}
	})
}

// TestBucketsCut: another number of buckets, or none, has everybody let go of all, once.
func TestBucketsCut(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		a := keep(t, e.Namespace(), "a", partition.Config{Buckets: 4}, 0)
		b := keep(t, e.Namespace(), "b", partition.Config{Buckets: 6, Hash: partition.HashNATS}, 0)
		time.Sleep(lease)
		dealt(t, 4, a, b)
		if err := a.g.Leave(t.Context()); err != nil { // it led
			t.Fatal(err)
		}
		time.Sleep(2 * lease)
		dealt(t, 6, b)
		for n, x := range b.held() {
			if x.Of != 6 || !x.Owns(keyOf(t, n, 6, partition.HashNATS)) {
				t.Errorf("bucket %d of %d does not own its keys", n, x.Of)
			}
		}
		c := start(t, e.Namespace(), "c", 0)
		time.Sleep(2 * lease)
		if x := c.assignment(); x == nil || len(x.Buckets) != 3 {
			t.Errorf("c has %+v, want 3 buckets", x)
		}
		d := keep(t, e.Namespace(), "d", partition.Config{Buckets: -1}, 0)
		if err := b.g.StepDown(t.Context(), "d"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * lease)
		if x := c.assignment(); x == nil || x.Of != 0 || x.Total != 3 {
			t.Errorf("c has %+v, want a share by index", x)
		}
		if len(b.held())+len(d.held()) != 0 {
			t.Error("buckets are held where there are none")
		}
	})
}

// keyOf finds a key of a bucket.
func keyOf(t *testing.T, n, of int, hash string) string {
	for i := range 10000 {
		if key := fmt.Sprint("k", i); partition.BucketOf(key, of, hash) == n {
			return key
		}
	}
	t.Fatalf("no key of bucket %d of %d", n, of)
	return ""
}

// TestWeightsAndZones: buckets go by weight, and over the zones evenly; a change of them moves some.
func TestWeightsAndZones(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		const n = 24
		var ks []*keeper
		for i, c := range []partition.Config{{Weight: 3, Zone: "east"}, {Weight: 1, Zone: "east"}, {Zone: "west"}, {Weight: 1, Zone: "west"}} {
			c.Buckets = n
			ks = append(ks, keep(t, e.Namespace(), fmt.Sprintf("w%d", i), c, 0))
		}
		time.Sleep(lease)
		for i, want := range []int{12, 4, 4, 4} {
			if got := len(ks[i].held()); got != want {
				t.Errorf("%s has %d buckets, want %d", ks[i].g.ID(), got, want)
			}
		}
		for _, b := range ks[0].p.Buckets() {
			if b.N+1 < n && ks[1].held()[b.N+1] != nil && len(ks[2].held()) == 0 {
				t.Errorf("neighbours %d and %d are in one zone", b.N, b.N+1)
			}
		}
	})
}

// TestRunBucketsEnds: an error ends all, nil only the call.
func TestRunBucketsEnds(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		g, err := coord.Join(t.Context(), e.Namespace(), "g", coord.Config{ID: "a"})
		if err != nil {
			t.Fatal(err)
		}
		p, err := partition.Join(t.Context(), g, partition.Config{Buckets: 4})
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		calls := map[int]int{}
		bad, boom := make(chan struct{}), errors.New("boom")
		done := make(chan error, 1)
		go func() {
			done <- p.RunBuckets(context.Background(), func(ctx context.Context, b *partition.Bucket) error {
				mu.Lock()
				calls[b.N]++
				mu.Unlock()
				switch b.N {
				case 0:
					return nil
				case 1:
					select {
					case <-bad:
						return boom
					case <-ctx.Done():
						return nil
					}
				}
				<-ctx.Done()
				return errors.New("too late to be told")
			})
		}()
		time.Sleep(4 * lease)
		mu.Lock()
		if calls[0] != 1 || len(calls) != 4 {
			t.Errorf("calls %v, want one of each", calls)
		}
		mu.Unlock()
		if len(p.Buckets()) != 4 {
			t.Errorf("%d buckets are held, want 4: one whose call has returned is held on", len(p.Buckets()))
		}
		close(bad)
		if err := <-done; !errors.Is(err, boom) {
			t.Errorf("RunBuckets: got %v, want the error of its call", err)
		}
		if len(p.Buckets()) != 0 {
			t.Error("buckets are still held after RunBuckets has returned")
		}
		// It can begin again.
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			done <- p.RunBuckets(ctx, func(ctx context.Context, _ *partition.Bucket) error {
				<-ctx.Done()
				return nil
			})
		}()
		time.Sleep(2 * lease)
		if len(p.Buckets()) != 4 {
			t.Error("no buckets when it begins again")
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("RunBuckets: %v", err)
		}
	})
}

// TestWatchBuckets: one worker for all buckets hears what is gained and lost, and acknowledges by asking for more.
func TestWatchBuckets(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		const n = 8
		g, err := coord.Join(t.Context(), e.Namespace(), "g", coord.Config{ID: "a"})
		if err != nil {
			t.Fatal(err)
		}
		p, err := partition.Join(t.Context(), g, partition.Config{Buckets: n})
		if err != nil {
			t.Fatal(err)
		}
		more, told, ended := make(chan bool), make(chan partition.Holding), make(chan error, 1)
		go func() {
			var last error
			for h, err := range p.WatchBuckets(context.Background()) {
				if last = err; err != nil {
					continue
				}
				told <- h
				<-more
			}
			ended <- last
		}()
		asked := true
		next := func() partition.Holding {
			t.Helper()
			if !asked {
				more <- true
			}
			asked = false
			select {
			case h := <-told:
				return h
			case <-time.After(time.Minute):
				t.Fatal("nothing is told")
				return partition.Holding{}
			}
		}
		if h := next(); len(h.Buckets) != 0 || h.Assignment != nil {
			t.Errorf("at first %+v, want nothing", h)
		}
		h := next()
		for h.Assignment == nil {
			h = next()
		}
		if len(h.Buckets) != n || len(h.Lost) != 0 || len(h.Assignment.Buckets) != n {
			t.Errorf("got %+v; want all", h)
		}
		first := h.Assignment
		b := keep(t, e.Namespace(), "b", partition.Config{Buckets: n}, 0)
		h = next()
		if len(h.Buckets) != n/2 || len(h.Lost) != n/2 || h.Assignment != nil || !errors.Is(h.Cause, quorate.ErrRevoked) {
			t.Errorf("got %+v; want half of the buckets, and half lost", h)
		}
		time.Sleep(lease / 2)
		if len(b.held()) != 0 || !h.Lost[0].Live() || !first.Live() {
			t.Error("P2: given away before the loop body has asked for more")
		}
		more <- true
		asked = true
		time.Sleep(lease)
		if len(b.held()) != n/2 || h.Lost[0].Live() || h.Lost[0].Until().IsZero() || first.Live() {
			t.Error("not given away after that")
		}
		lost := h.Lost
		if h = next(); h.Assignment == nil || len(h.Buckets) != n/2 || slices.Contains(h.Buckets, lost[0]) {
			t.Errorf("after that %+v, want half of the buckets in a new assignment", h)
		}
		left := make(chan error, 1)
		go func() { left <- g.Leave(context.Background()) }()
		for len(h.Lost) == 0 {
			h = next()
		}
		if len(h.Lost) != n/2 || len(h.Buckets) != 0 || !errors.Is(h.Cause, quorate.ErrLeft) {
			t.Errorf("at the end %+v", h)
		}
		more <- true
		if err := <-left; err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, quorate.ErrLeft) {
			t.Errorf("WatchBuckets ended with %v, want ErrLeft", err)
		}
	})
}

// TestBucketConfigs: what cannot work is refused.
func TestBucketConfigs(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		g, err := coord.Join(t.Context(), e.Namespace(), "g", coord.Config{ID: "a"})
		if err != nil {
			t.Fatal(err)
		}
		for _, cfg := range []partition.Config{{Buckets: -2}, {Buckets: 1 << 20}, {Hash: "nats"}, {Buckets: 4, Hash: "md5"}, {Weight: -1}, {Weight: 1 << 30}, {Zone: string(make([]byte, 65))}, {Zone: "\xff"}} {
			if _, err := partition.Join(t.Context(), g, cfg); err == nil {
				t.Errorf("%+v is taken", cfg)
			}
		}
	})
}

// TestBucketsRandomFaults lets members with buckets be cut off, paused, killed and restarted, leave and come back, under the invariant watchers; then
// everything heals, and all buckets must have an owner again.
func TestBucketsRandomFaults(t *testing.T) {
	seed := *flagSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("repeat with -seed %d (interleavings stay random)", seed)
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		const n, buckets = 5, 12
		cfg := partition.Config{Buckets: buckets}
		ks := make([]*keeper, n)
		hours := *flagHours / 2
		end := time.Now().Add(time.Duration(hours * float64(time.Hour)))
		var all sync.WaitGroup
		for i := range ks {
			r := rand.New(rand.NewPCG(seed, uint64(100+i)))
			id := fmt.Sprintf("w%d", i)
			cfg := cfg
			if i == n-1 {
				cfg.Buckets = 0 // it says nothing, and may lead
			}
			ks[i] = keep(t, e.Namespace(), id, cfg, time.Duration(r.IntN(int(lease/2))))
			all.Go(func() {
				for time.Now().Before(end) && !t.Failed() {
					k := ks[i]
					time.Sleep(time.Duration(r.IntN(int(6 * lease))))
					d := time.Duration(r.IntN(int(4 * lease)))
					if r.IntN(2) == 0 {
						d = time.Duration(r.IntN(int(lease)))
					}
					switch x := r.IntN(20); {
					case x < 5:
						e.Link(k.ns).Cut([]testenv.Direction{testenv.Both, testenv.ToServer, testenv.ToClient}[r.IntN(3)])
						time.Sleep(d)
						e.Heal(k.ns)
					case x < 10:
						e.Pause(k.ns)
						time.Sleep(d)
						e.Resume(k.ns)
					case x < 12:
						e.Kill(k.ns)
						k.cancel()
						time.Sleep(d)
						ks[i] = keep(t, e.Namespace(), id, cfg, time.Duration(r.IntN(int(lease/2))))
					case x < 14:
						ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
						if err := k.g.Leave(ctx); err != nil {
							t.Error(err)
						}
						cancel()
						time.Sleep(d)
						ks[i] = keep(t, e.Namespace(), id, cfg, 0)
					case x < 16:
						e.Link(k.ns).DropHints(true)
						time.Sleep(d)
						e.Link(k.ns).DropHints(false)
					case x < 18:
						e.JumpWall(k.ns, time.Duration(r.Int64N(int64(20*lease)))-10*lease)
					case x < 19:
						e.Suspend(k.ns, d)
					default:
						e.Link(k.ns).DropAcks(1 + r.IntN(5))
					}
				}
			})
		}
		all.Wait()
		for _, k := range ks {
			e.Heal(k.ns)
		}
		time.Sleep(calm)
		dealt(t, buckets, ks...)
		c := e.Invariants().Counts()
		t.Logf("seen %+v", c)
		if float64(c.Generations) < 100*hours || float64(c.Terms) < 40*hours || float64(c.Buckets) < 600*hours {
			t.Errorf("too little happened: %+v", c)
		}
	})
}
