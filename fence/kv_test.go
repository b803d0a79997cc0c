package fence_test

import (
	"context"
	"errors"
	"fmt"
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
	"github.com/quorate/quorate/partition"
	"github.com/quorate/quorate/testenv"
)

// What a token can be taken from.
var _, _ fence.Holder = (*leader.Term)(nil), (*partition.Assignment)(nil)

func TestMain(m *testing.M) { testenv.Main(m) }

// bucket makes a user's bucket, as users make them: AllowDirect is on.
func bucket(t *testing.T, nc *nats.Conn, history uint8) jetstream.KeyValue {
	t.Helper()
	b, err := stream(t, nc).CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "b", History: history, Storage: jetstream.MemoryStorage})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func stream(t *testing.T, nc *nats.Conn) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func guard(t *testing.T, nc *nats.Conn, cfg fence.KVConfig) *fence.KV {
	t.Helper()
	g, err := fence.NewKV(t.Context(), stream(t, nc), "b", cfg)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// world is two writers of one bucket, each over a connection of its own.
type world struct {
	plain jetstream.KeyValue
	a, b  *fence.KV
	link  *testenv.Link // of a
	nb    *nats.Conn    // of b
}

func inWorld(t *testing.T, history uint8, fn func(t *testing.T, w *world)) {
	t.Helper()
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		na, link := e.Connect("a")
		nb, _ := e.Connect("b")
		w := &world{plain: bucket(t, nb, history), link: link, nb: nb}
		w.a, w.b = guard(t, na, fence.KVConfig{}), guard(t, nb, fence.KVConfig{})
		fn(t, w)
	})
}

func put(t *testing.T, g *fence.KV, value string, token fence.Token) uint64 {
	t.Helper()
	rev, err := g.Put(t.Context(), "k", []byte(value), token)
	if err != nil {
		t.Fatalf("put %q with token %d: %v", value, token, err)
	}
	return rev
}

// stale fails unless err is a refusal that names both tokens.
func stale(t *testing.T, err error, token, newer uint64) {
	t.Helper()
	var s *fence.StaleError
	if !errors.As(err, &s) || !errors.Is(err, fence.ErrStale) || s.Token != token || s.Newer != newer || errors.Is(err, fence.ErrUnknown) {
		t.Errorf("F1: token %d after %d: got %v, want a StaleError of both", token, newer, err)
	}
}

// stands fails unless the record is as given.
func stands(t *testing.T, g *fence.KV, value string, token uint64) {
	t.Helper()
	r, err := g.Get(t.Context(), "k")
	if err != nil || string(r.Value) != value || r.Token != token {
		t.Errorf("record: got %q of token %d, %v; want %q of %d", r.Value, r.Token, err, value, token)
	}
}

func TestKVRefusesOlder(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		put(t, w.a, "one", 5)
		_, err := w.b.Put(t.Context(), "k", []byte("late"), fence.Token(4))
		stale(t, err, 4, 5)
		_, err = w.b.Delete(t.Context(), "k", fence.Token(4))
		stale(t, err, 4, 5)
		if !strings.Contains(fmt.Sprint(err), "delete k of bucket b") || strings.Contains(fmt.Sprint(err), "\n") {
			t.Errorf("error does not say what was refused: %v", err)
		}
		stands(t, w.b, "one", 5)
		put(t, w.b, "two", 5) // the same term
		rev := put(t, w.b, "three", 6)
		if r, err := w.a.Get(t.Context(), "k"); err != nil || r.Revision != rev || r.Deleted || r.Stored.IsZero() {
			t.Errorf("get: %+v, %v", r, err)
		}
		// Ordinary readers see an ordinary record.
		if e, err := w.plain.Get(t.Context(), "k"); err != nil || string(e.Value()) != "three" || e.Operation() != jetstream.KeyValuePut || e.Revision() != rev {
			t.Errorf("a plain get: %+v, %v", e, err)
		}
	})
}

func TestKVDeleteKeepsToken(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		put(t, w.a, "one", 5)
		rev, err := w.a.Delete(t.Context(), "k", fence.Token(6))
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.b.Put(t.Context(), "k", []byte("late"), fence.Token(5))
		stale(t, err, 5, 6)
		r, err := w.b.Get(t.Context(), "k")
		if !errors.Is(err, fence.ErrNotFound) || r.Token != 6 || r.Revision != rev || !r.Deleted || r.Value != nil {
			t.Errorf("get of a deleted record: %+v, %v", r, err)
		}
		if _, err := w.plain.Get(t.Context(), "k"); !errors.Is(err, jetstream.ErrKeyNotFound) {
			t.Errorf("a plain get of a deleted record: %v", err)
		}
		put(t, w.b, "two", 6)
		// Also of what was never there.
		if _, err := w.a.Delete(t.Context(), "other", fence.Token(9)); err != nil {
			t.Fatal(err)
		}
		_, err = w.b.Put(t.Context(), "other", nil, fence.Token(8))
		stale(t, err, 8, 9)
	})
}

// What others write has no token, or one that nobody can read.
func TestKVForeignRecords(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		if r, err := w.a.Get(t.Context(), "k"); !errors.Is(err, fence.ErrNotFound) || r.Revision != 0 || r.Deleted {
			t.Errorf("get of nothing: %+v, %v", r, err)
		}
		if _, err := w.plain.Put(t.Context(), "k", []byte("plain")); err != nil {
			t.Fatal(err)
		}
		stands(t, w.a, "plain", 0)
		put(t, w.a, "one", 1)
		if err := w.plain.Purge(t.Context(), "k"); err != nil {
			t.Fatal(err)
		}
		if r, err := w.a.Get(t.Context(), "k"); !errors.Is(err, fence.ErrNotFound) || r.Token != 0 || !r.Deleted {
			t.Errorf("get of a purged record: %+v, %v", r, err)
		}
		for _, bad := range []string{"x", "", "-1", "0", "007", "18446744073709551616", "1.5"} {
			m := nats.NewMsg("$KV.b.bad")
			m.Header.Set(fence.Header, bad)
			if _, err := stream(t, w.nb).PublishMsg(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			if _, err := w.a.Put(t.Context(), "bad", nil, fence.Token(1<<63)); !errors.Is(err, fence.ErrRecord) {
				t.Errorf("put over a record with the token %q: got %v, want ErrRecord", bad, err)
			}
		}
		for _, key := range []string{"", ".a", "a.", "a..b", "a b", "*", "a.>", "ä", "a\"b"} {
			if _, err := w.a.Put(t.Context(), key, nil, fence.Token(1)); !errors.Is(err, jetstream.ErrInvalidKey) {
				t.Errorf("put of key %q: got %v", key, err)
			}
			if _, err := w.a.Get(t.Context(), key); !errors.Is(err, jetstream.ErrInvalidKey) {
				t.Errorf("get of key %q: got %v", key, err)
			}
		}
	})
}

func TestKVUpdate(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		first, err := w.a.Update(t.Context(), "k", []byte("1"), 0, fence.Token(3))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.b.Update(t.Context(), "k", []byte("x"), 0, fence.Token(3)); !errors.Is(err, fence.ErrConflict) {
			t.Errorf("update of an old revision: got %v, want ErrConflict", err)
		}
		if _, err := w.b.Update(t.Context(), "k", []byte("2"), first, fence.Token(3)); err != nil {
			t.Fatal(err)
		}
		_, err = w.a.Update(t.Context(), "k", []byte("x"), first, fence.Token(2))
		stale(t, err, 2, 3)
		stands(t, w.a, "2", 3)
	})
}

// lose makes the next write of w.a vanish (landed: only its acknowledgement), and what it reads then, until see is called. The
// channel is closed when that has begun.
func (w *world) lose(landed bool) (lost <-chan struct{}, see func()) {
	var state atomic.Int32 // 1: blind, 2: over
	ch := make(chan struct{})
	w.link.Filter(func(f *testenv.Frame) testenv.Verdict {
		write := f.Verb == "HPUB" && f.Dir == testenv.ToServer && strings.HasPrefix(f.Subject, "$KV.")
		switch state.Load() {
		case 0:
			if landed && f.IsAck() || !landed && write {
				state.Store(1)
				close(ch)
				return testenv.Drop
			}
		case 1:
			if write || strings.HasPrefix(f.Answers, "$JS.API.STREAM.MSG.GET.") {
				return testenv.Drop
			}
		}
		return testenv.Pass
	})
	return ch, func() { state.Store(2) }
}

// L4, F2: what becomes of a write whose answer is lost, or that is lost itself, by what else is written meanwhile.
func TestKVUnanswered(t *testing.T) {
	for _, c := range []struct {
		name    string
		landed  bool
		history uint8
		first   bool // there is nothing before
		other   fence.Token
		want    error
		value   string
		writes  int // of the key, by the history
	}{
		{name: "landed", landed: true, history: 10, value: "a", writes: 2},
		{name: "lost", history: 10, value: "a", writes: 2},
		{name: "landed, the first", landed: true, first: true, history: 10, value: "a", writes: 1},
		{name: "landed, overwritten by its own term", landed: true, history: 10, other: 5, value: "b", writes: 3},
		{name: "landed, overwritten by the next term", landed: true, history: 10, other: 6, value: "b", writes: 3},
		{name: "landed, overwritten, no history", landed: true, history: 1, other: 5, want: fence.ErrUnknown, value: "b", writes: 1},
		{name: "landed, overwritten by the next term, no history", landed: true, history: 1, other: 6, want: fence.ErrUnknown, value: "b", writes: 1},
		{name: "lost, another of its own term came first", history: 10, other: 5, value: "a", writes: 3},
		{name: "lost, another of its own term came first, no history", history: 1, other: 5, value: "a", writes: 1},
		{name: "lost, the next term came first", history: 1, other: 6, want: fence.ErrStale, value: "b", writes: 1},
		{name: "lost, the first, the next term came first", history: 1, first: true, other: 6, want: fence.ErrUnknown, value: "b", writes: 1},
	} {
		inWorld(t, c.history, func(t *testing.T, w *world) {
			if !c.first {
				put(t, w.b, "before", 4)
			}
			lost, see := w.lose(c.landed)
			done := make(chan error, 1)
			go func() {
				_, err := w.a.Put(t.Context(), "k", []byte("a"), fence.Token(5))
				done <- err
			}()
			<-lost
			if c.other != 0 {
				put(t, w.b, "b", c.other)
			}
			see()
			err := <-done
			if !errors.Is(err, c.want) || errors.Is(err, fence.ErrUnknown) != (c.want == fence.ErrUnknown) {
				t.Errorf("F2: %s: got %v, want %v", c.name, err, c.want)
			}
			time.Sleep(time.Minute) // what is still under way
			token := uint64(5)
			if c.value == "b" {
				token = uint64(c.other)
			}
			stands(t, w.b, c.value, token)
			if h, err := w.plain.History(t.Context(), "k"); err != nil || len(h) != c.writes {
				t.Errorf("L4: %s: the key was written %d times (%v), want %d", c.name, len(h), err, c.writes)
			}
		})
	}
}

// L4, F2: a connection that is closed with a write on its way says the same as one that was closed before.
func TestKVClosed(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		na, link := e.Connect("a")
		nb, _ := e.Connect("b")
		bucket(t, nb, 1)
		a, b := guard(t, na, fence.KVConfig{}), guard(t, nb, fence.KVConfig{})
		w := &world{link: link}
		lost, _ := w.lose(true)
		done := make(chan error, 1)
		go func() {
			_, err := a.Put(t.Context(), "k", []byte("a"), fence.Token(5))
			done <- err
		}()
		<-lost
		na.Close()
		if err := <-done; !errors.Is(err, fence.ErrUnknown) {
			t.Errorf("F2: closed with a write on its way: got %v, want ErrUnknown", err)
		}
		stands(t, b, "a", 5)
		if _, err := a.Put(t.Context(), "k", []byte("a"), fence.Token(5)); !errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, fence.ErrUnknown) {
			t.Errorf("F2: closed before: got %v, want ErrConnectionClosed", err)
		}
	})
}

// R22: a write that lands after its author gave up is compared too.
func TestKVLateWrite(t *testing.T) {
	for _, next := range []fence.Token{0, 5, 6} {
		inWorld(t, 1, func(t *testing.T, w *world) {
			put(t, w.b, "before", 4)
			var late atomic.Int64
			w.link.Filter(func(f *testenv.Frame) testenv.Verdict {
				if f.Verb == "HPUB" && strings.HasPrefix(f.Subject, "$KV.") {
					late.Add(1)
					return testenv.Delay(time.Minute)
				}
				return testenv.Pass
			})
			start := time.Now()
			if _, err := w.a.Put(t.Context(), "k", []byte("late"), fence.Token(5)); !errors.Is(err, fence.ErrUnknown) || errors.Is(err, fence.ErrStale) {
				t.Errorf("F2: a write without an answer: got %v, want ErrUnknown", err)
			}
			if d := time.Since(start); d > 5*time.Second+time.Millisecond {
				t.Errorf("took %v, longer than its timeout", d)
			}
			if late.Load() < 2 {
				t.Errorf("%d tries: an unanswered write is not repeated", late.Load())
			}
			want, token := "late", uint64(5)
			if next != 0 {
				put(t, w.b, "next", next)
				want, token = "next", uint64(next)
			}
			time.Sleep(5 * time.Minute)
			stands(t, w.b, want, token)
		})
	}
}

// fickle is a holder that loses its right when it is asked the n-th time.
type fickle struct{ left atomic.Int64 }

func (f *fickle) Token() uint64 { return 5 }
func (f *fickle) Live() bool    { return f.left.Add(-1) >= 0 }

// F3: who has lost its right sends nothing.
func TestKVNotLive(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		var reads, writes atomic.Int64
		var lose atomic.Bool
		w.link.Filter(func(f *testenv.Frame) testenv.Verdict {
			switch {
			case f.Dir == testenv.ToServer && strings.HasPrefix(f.Subject, "$KV."):
				writes.Add(1)
				if lose.Load() {
					return testenv.Drop
				}
			case f.Dir == testenv.ToServer && strings.Contains(f.Subject, ".MSG.GET."):
				reads.Add(1)
			}
			return testenv.Pass
		})
		for _, asks := range []int64{0, 1} { // not live at first; not live any more when the read has been answered
			h := &fickle{}
			h.left.Store(asks)
			if _, err := w.a.Put(t.Context(), "k", nil, h); !errors.Is(err, fence.ErrNotLive) || errors.Is(err, fence.ErrUnknown) {
				t.Errorf("F3: live %d times: got %v, want ErrNotLive", asks, err)
			}
			if reads.Load() != asks || writes.Load() != 0 {
				t.Errorf("F3: live %d times: %d reads, %d writes", asks, reads.Load(), writes.Load())
			}
		}
		for _, h := range []fence.Holder{nil, fence.Token(0)} {
			if _, err := w.a.Delete(t.Context(), "k", h); !errors.Is(err, fence.ErrNoToken) {
				t.Errorf("holder %v: got %v, want ErrNoToken", h, err)
			}
		}
		// A write that is under way when the right is lost is not repeated, and not said to have failed.
		lose.Store(true)
		h := &fickle{}
		h.left.Store(2)
		if _, err := w.a.Put(t.Context(), "k", nil, h); !errors.Is(err, fence.ErrNotLive) || !errors.Is(err, fence.ErrUnknown) {
			t.Errorf("F3: lost while a write was under way: got %v, want ErrUnknown and ErrNotLive", err)
		}
		if writes.Load() != 1 {
			t.Errorf("F3: %d writes sent, want 1", writes.Load())
		}
	})
}

// R1: the holder of a term stands still, another takes over and writes, the first goes on: each of its late writes is refused.
func TestKVPausedLeader(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		ns := []*quorate.Namespace{e.Namespace(), e.Namespace()}
		bucket(t, e.Conn(ns[0]), 1)
		var terms []*leader.Term
		for i, n := range ns {
			el, err := leader.New(n, "job", leader.Config{})
			if err != nil {
				t.Fatal(err)
			}
			term, err := el.Campaign(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			terms = append(terms, term)
			if _, err := guard(t, e.Conn(n), fence.KVConfig{}).Put(t.Context(), "k", []byte("by its leader"), term); err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				e.Pause(n)
			}
		}
		old := guard(t, e.Conn(ns[0]), fence.KVConfig{})
		e.Resume(ns[0])
		if _, err := old.Put(t.Context(), "k", []byte("late"), terms[0]); !errors.Is(err, fence.ErrNotLive) {
			t.Errorf("F3: got %v, want ErrNotLive", err)
		}
		// The write that had asked Live before the pause.
		_, err := old.Put(t.Context(), "k", []byte("late"), fence.Token(terms[0].Token()))
		stale(t, err, terms[0].Token(), terms[1].Token())
		_, err = old.Delete(t.Context(), "k", fence.Token(terms[0].Token()))
		stale(t, err, terms[0].Token(), terms[1].Token())
		stands(t, old, "by its leader", terms[1].Token())
	})
}

// R15: buckets have direct gets on; no decision rests on one.
func TestKVNoDirectGet(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		var direct, gets atomic.Int64
		w.link.Filter(func(f *testenv.Frame) testenv.Verdict {
			if strings.Contains(f.Subject, ".DIRECT.") {
				direct.Add(1)
			} else if strings.Contains(f.Subject, ".STREAM.MSG.GET.") {
				gets.Add(1)
			}
			return testenv.Pass
		})
		put(t, w.a, "one", 1)
		stands(t, w.a, "one", 1)
		if _, err := w.a.Delete(t.Context(), "k", fence.Token(2)); err != nil {
			t.Fatal(err)
		}
		if direct.Load() != 0 || gets.Load() < 3 {
			t.Errorf("%d direct gets, %d from the stream's leader", direct.Load(), gets.Load())
		}
	})
}

// Many writers at once: each record's tokens only grow, and every write that was confirmed is there, once.
func TestKVContention(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nc, _ := e.Connect("plain")
		plain := bucket(t, nc, 64)
		var mu sync.Mutex
		confirmed := map[uint64]string{}
		refused := 0
		var wg sync.WaitGroup
		for i := range 6 {
			c, _ := e.Connect(fmt.Sprint(i))
			g := guard(t, c, fence.KVConfig{Conflicts: 1000})
			wg.Go(func() {
				for n := range 8 {
					value := fmt.Sprintf("%d.%d", i, n)
					rev, err := g.Put(t.Context(), "k", []byte(value), fence.Token(1+(i+n)/4))
					mu.Lock()
					if err == nil {
						confirmed[rev] = value
					} else if errors.Is(err, fence.ErrStale) {
						refused++
					} else {
						t.Error(err)
					}
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		h, err := plain.History(t.Context(), "k")
		if err != nil || len(h) != len(confirmed) {
			t.Fatalf("L4: %d writes (%v), %d confirmed", len(h), err, len(confirmed))
		}
		var last uint64
		for _, en := range h {
			if confirmed[en.Revision()] != string(en.Value()) {
				t.Errorf("L4: revision %d has %q, confirmed was %q", en.Revision(), en.Value(), confirmed[en.Revision()])
			}
			var i, n uint64
			fmt.Sscanf(string(en.Value()), "%d.%d", &i, &n)
			if token := 1 + (i+n)/4; token < last {
				t.Errorf("F1: token %d after %d", token, last)
			} else {
				last = token
			}
		}
		if refused == 0 || len(h) < 8 {
			t.Errorf("%d refused, %d confirmed: too few to show anything", refused, len(h))
		}
	})
}

// A stream of others' writes does not make a writer try for ever.
func TestKVConflictsAreBounded(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		na, link := e.Connect("a")
		nb, _ := e.Connect("b")
		bucket(t, nb, 1)
		a, b := guard(t, na, fence.KVConfig{Conflicts: 3, Timeout: time.Minute}), guard(t, nb, fence.KVConfig{})
		// Each read of a's is answered late, and b is faster.
		link.Filter(func(f *testenv.Frame) testenv.Verdict {
			if strings.Contains(f.Answers, ".MSG.GET.") {
				return testenv.Delay(100 * time.Millisecond)
			}
			return testenv.Pass
		})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			for ctx.Err() == nil {
				put(t, b, "b", 5)
				time.Sleep(10 * time.Millisecond)
			}
		})
		if _, err := a.Put(t.Context(), "k", []byte("a"), fence.Token(5)); !errors.Is(err, fence.ErrConflict) {
			t.Errorf("got %v, want ErrConflict", err)
		}
		cancel()
		wg.Wait()
	})
}

// What ends a call before anything was sent is not unknown; while the server is away nothing hangs.
func TestKVAway(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := w.a.Put(gone, "k", nil, fence.Token(1)); !errors.Is(err, context.Canceled) || errors.Is(err, fence.ErrUnknown) {
			t.Errorf("put with a context that has ended: %v", err)
		}
		w.link.Cut(testenv.Both)
		start := time.Now()
		if _, err := w.a.Put(t.Context(), "k", nil, fence.Token(1)); err == nil || errors.Is(err, fence.ErrUnknown) {
			t.Errorf("put that could not even read: %v", err)
		}
		if _, err := w.a.Get(t.Context(), "k"); err == nil || errors.Is(err, fence.ErrNotFound) {
			t.Errorf("get without a server: %v", err)
		}
		if d := time.Since(start); d > 10*time.Second+time.Millisecond {
			t.Errorf("two calls took %v", d)
		}
		done := make(chan error, 1)
		go func() {
			_, err := w.a.Put(t.Context(), "k", []byte("a"), fence.Token(1))
			done <- err
		}()
		time.Sleep(2 * time.Second)
		w.link.Heal()
		if err := <-done; err != nil {
			t.Errorf("put over an outage shorter than its timeout: %v", err)
		}
		if _, err := w.a.Put(t.Context(), "k", make([]byte, 2<<20), fence.Token(1)); !errors.Is(err, nats.ErrMaxPayload) || errors.Is(err, fence.ErrUnknown) {
			t.Errorf("put of too much: %v", err)
		}
		if err := stream(t, w.nb).DeleteKeyValue(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
		if _, err := w.a.Put(t.Context(), "k", nil, fence.Token(1)); err == nil || errors.Is(err, fence.ErrUnknown) {
			t.Errorf("put into a bucket that was deleted: %v", err)
		}
	})
}

// R37: the domain is that of the JetStream context, for reads and writes.
func TestKVDomain(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		s, err := testenv.NewServer(t.TempDir(), testenv.WithDomain("hub"))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Stop()
		link := testenv.NewLink(s)
		defer link.Close()
		nc, err := nats.Connect("", nats.InProcessServer(link))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		bucket(t, nc, 1)
		var mu sync.Mutex
		var sent []string
		link.Filter(func(f *testenv.Frame) testenv.Verdict {
			if f.Dir == testenv.ToServer && f.IsMessage() {
				mu.Lock()
				sent = append(sent, f.Subject)
				mu.Unlock()
			}
			return testenv.Pass
		})
		domain, err := jetstream.NewWithDomain(nc, "hub")
		if err != nil {
			t.Fatal(err)
		}
		prefix, err := jetstream.NewWithAPIPrefix(nc, "$JS.hub.API")
		if err != nil {
			t.Fatal(err)
		}
		for i, js := range []jetstream.JetStream{domain, prefix} {
			g, err := fence.NewKV(t.Context(), js, "b", fence.KVConfig{})
			if err != nil {
				t.Fatal(err)
			}
			put(t, g, "one", fence.Token(2+i))
			_, err = g.Put(t.Context(), "k", nil, fence.Token(1))
			stale(t, err, 1, uint64(2+i))
		}
		mu.Lock()
		defer mu.Unlock()
		if i := slices.IndexFunc(sent, func(s string) bool { return !strings.HasPrefix(s, "$JS.hub.API.") }); i >= 0 || len(sent) < 6 {
			t.Errorf("not all requests go to the domain: %q", sent)
		}
	})
}

func TestKVRefusesBuckets(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nc, _ := e.Connect("a")
		js := stream(t, nc)
		memory := jetstream.MemoryStorage
		for _, c := range []jetstream.KeyValueConfig{{Bucket: "b", Storage: memory}, {Bucket: "short", TTL: time.Hour, Storage: memory},
			{Bucket: "copy", Mirror: &jetstream.StreamSource{Name: "b"}, Storage: memory}} {
			if _, err := js.CreateKeyValue(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range []jetstream.StreamConfig{{Name: "KV_none", Subjects: []string{"x"}, Storage: memory},
			{Name: "KV_full", Subjects: []string{"$KV.full.>"}, MaxMsgsPerSubject: 1, MaxBytes: 1 << 20, Discard: jetstream.DiscardOld, Storage: memory}} {
			if _, err := js.CreateStream(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
		for name, want := range map[string]string{"b": "", "short": "TTL", "copy": "mirror", "none": "not a key-value bucket", "full": "drops old",
			"missing": "not found", "a.b": "invalid"} {
			_, err := fence.NewKV(t.Context(), js, name, fence.KVConfig{})
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("bucket %s: got %v, want %q", name, err, want)
			}
		}
		if _, err := fence.NewKV(t.Context(), js, "short", fence.KVConfig{Forgets: true}); err != nil {
			t.Error(err)
		}
		if _, err := fence.NewKV(t.Context(), js, "missing", fence.KVConfig{}); !errors.Is(err, jetstream.ErrBucketNotFound) {
			t.Errorf("got %v, want ErrBucketNotFound", err)
		}
		if _, err := fence.NewKV(t.Context(), js, "b", fence.KVConfig{Timeout: -1}); err == nil {
			t.Error("a negative timeout is taken")
		}
	})
}
