package kv_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/testenv"
)

// view is what a watch has told, and checks that revisions of a key only grow.
type view struct {
	mu     sync.Mutex
	now    map[string]string
	rev    map[string]uint64
	events []kv.Event
	bad    string
}

func (v *view) take(e kv.Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.now == nil {
		v.now, v.rev = map[string]string{}, map[string]uint64{}
	}
	v.events = append(v.events, e)
	switch e.Op {
	case kv.None:
		delete(v.now, e.Key)
		delete(v.rev, e.Key) // gone, as all keys are told to be with a bucket that is lost: what comes next is a new beginning
		return
	case kv.Marker:
		v.now[e.Key] = "(" + e.Reason + ")"
	case kv.Record:
		v.now[e.Key] = string(e.Value)
	}
	if e.Revision <= v.rev[e.Key] {
		v.bad = fmt.Sprintf("%s told at %d after %d", e.Key, e.Revision, v.rev[e.Key])
	}
	v.rev[e.Key] = e.Revision
}

func (v *view) String() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(v.now)) {
		parts = append(parts, k+"="+v.now[k])
	}
	if v.bad != "" {
		parts = append(parts, "BAD: "+v.bad)
	}
	return strings.Join(parts, " ")
}

func (v *view) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.events)
}

func watch(t *testing.T, s *kv.Store, pattern string, o kv.WatchOptions) (*view, *kv.Watch) {
	t.Helper()
	v := &view{}
	w, err := s.Watch(pattern, o, v.take)
	if err != nil {
		t.Fatal(err)
	}
	<-w.Synced()
	return v, w
}

// at checks what a view shows once everything that goes by hints alone has come to rest.
func (v *view) at(t *testing.T, when, want string) {
	t.Helper()
	if got := v.String(); got != want {
		t.Fatalf("%s the watch sees %q, want %q", when, got, want)
	}
}

func TestWatchTellsSnapshotThenChangesAtOnce(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nc, _ := e.Connect("a")
		other, _ := e.Connect("b")
		s, o := open(t, e, nc), open(t, e, other)
		a := must(t, o, kv.Write{Key: "member.g.a", Value: []byte("1"), TTL: time.Hour})
		must(t, o, kv.Write{Key: "member.h.a", Value: []byte("no"), TTL: time.Hour})
		v, w := watch(t, s, "member.g.*", kv.WatchOptions{})
		v.at(t, "after the snapshot", "member.g.a=1")

		must(t, o, kv.Write{Key: "member.g.a", Expected: a, Value: []byte("2"), TTL: time.Hour})
		b := must(t, o, kv.Write{Key: "member.g.b", Value: []byte("1"), TTL: time.Hour})
		must(t, o, kv.Write{Key: "member.g.b", Expected: b, Purge: true, Reason: wire.ReasonLeft, TTL: time.Hour})
		synctest.Wait() // no time passes: by hints alone
		v.at(t, "after three writes", "member.g.a=2 member.g.b=(left)")

		w.Stop()
		must(t, o, kv.Write{Key: "member.g.c", Value: []byte("1"), TTL: time.Hour})
		time.Sleep(time.Minute)
		v.at(t, "after Stop", "member.g.a=2 member.g.b=(left)")
	})
}

func TestWatchWithoutSnapshot(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nc, _ := e.Connect("a")
		s := open(t, e, nc)
		must(t, s, kv.Write{Key: "leader.a", Value: []byte("1"), TTL: time.Hour})
		v, w := watch(t, s, "leader.*", kv.WatchOptions{NoSnapshot: true})
		defer w.Stop()
		time.Sleep(time.Minute)
		v.at(t, "with nothing new", "")
		must(t, s, kv.Write{Key: "leader.b", Value: []byte("1"), TTL: time.Hour})
		synctest.Wait()
		v.at(t, "after a write", "leader.b=1")
	})
}

// R16: with every hint lost, changes are told within a reconcile.
func TestWatchSeesChangesWithoutHints(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nc, link := e.Connect("a")
		other, _ := e.Connect("b")
		s, o := open(t, e, nc), open(t, e, other)
		v, w := watch(t, s, "leader.*", kv.WatchOptions{Reconcile: time.Second})
		defer w.Stop()
		link.DropHints(true)
		rev := uint64(0)
		for i := range 20 {
			rev = must(t, o, kv.Write{Key: "leader.g", Expected: rev, Value: fmt.Append(nil, i), TTL: time.Hour})
			time.Sleep(1200 * time.Millisecond)
			v.at(t, "one period and its jitter after a write", fmt.Sprintf("leader.g=%d", i))
		}
		must(t, o, kv.Write{Key: "leader.g", Expected: rev, Purge: true, Reason: wire.ReasonResign, TTL: time.Hour})
		time.Sleep(1200 * time.Millisecond)
		v.at(t, "after the purge", "leader.g=(resigned)")
	})
}

// A watch without a timer of its own learns what it missed from the gap in the next hint.
func TestWatchClosesGap(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nc, link := e.Connect("a")
		other, _ := e.Connect("b")
		s, o := open(t, e, nc), open(t, e, other)
		rev := must(t, o, kv.Write{Key: "leader.g", Value: []byte("1"), TTL: time.Hour})
		v, w := watch(t, s, "leader.*", kv.WatchOptions{Reconcile: -1})
		defer w.Stop()
		link.DropHints(true)
		rev = must(t, o, kv.Write{Key: "leader.g", Expected: rev, Value: []byte("2"), TTL: time.Hour})
		must(t, o, kv.Write{Key: "leader.h", Value: []byte("1"), TTL: time.Hour})
		time.Sleep(time.Minute)
		v.at(t, "with hints lost and no timer", "leader.g=1")
		link.DropHints(false)
		must(t, o, kv.Write{Key: "leader.g", Expected: rev, Value: []byte("3"), TTL: time.Hour})
		time.Sleep(200 * time.Millisecond)
		v.at(t, "after the gap", "leader.g=3 leader.h=1")
	})
}

func TestWatchLooksAfterReconnect(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nc, link := e.Connect("a")
		other, _ := e.Connect("b")
		s, o := open(t, e, nc), open(t, e, other)
		a := must(t, o, kv.Write{Key: "leader.a", Value: []byte("1"), TTL: 10 * time.Second})
		must(t, o, kv.Write{Key: "leader.b", Value: []byte("1"), TTL: 10 * time.Second})
		v, w := watch(t, s, "leader.*", kv.WatchOptions{Reconcile: -1})
		defer w.Stop()
		reconnects := 0
		stop := s.OnReconnect(func() { reconnects++ })
		defer stop()

		link.Down(true)
		link.Kill()
		must(t, o, kv.Write{Key: "leader.a", Expected: a, Value: []byte("2"), TTL: time.Hour})
		must(t, o, kv.Write{Key: "leader.c", Value: []byte("1"), TTL: time.Hour})
		// R17: leader.b expires and its marker expires too: nothing is left that could be told.
		time.Sleep(kv.MarkerTTL + time.Minute)
		v.at(t, "while disconnected", "leader.a=1 leader.b=1")
		link.Down(false)
		time.Sleep(time.Second)
		synctest.Wait()
		if reconnects != 1 {
			t.Fatalf("%d reconnects were told, want 1", reconnects)
		}
		v.at(t, "after the reconnect", "leader.a=2 leader.c=1")
	})
}

// R17: a key that is gone without a trace is told to be gone, also on a connection that never broke.
func TestWatchFindsVanishedKeys(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nc, _ := e.Connect("a")
		s := open(t, e, nc)
		must(t, s, kv.Write{Key: "leader.a", Value: []byte("1"), TTL: time.Hour})
		must(t, s, kv.Write{Key: "leader.b", Value: []byte("1"), TTL: time.Hour})
		v, w := watch(t, s, "leader.*", kv.WatchOptions{})
		defer w.Stop()
		_, st := stream(t, nc)
		if err := st.Purge(t.Context()); err != nil { // leaves no marker and no hint
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		v.at(t, "after a stream purge", "")
		must(t, s, kv.Write{Key: "leader.a", Value: []byte("2"), TTL: time.Hour})
		synctest.Wait()
		v.at(t, "after a new write", "leader.a=2")
	})
}

// R18: what anybody publishes on the republish subject is nothing without the server's headers.
func TestForgedHintsAreDropped(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nc, _ := e.Connect("a")
		s := open(t, e, nc)
		rev := must(t, s, kv.Write{Key: "leader.g", Value: []byte("1"), TTL: time.Hour})
		v, w := watch(t, s, "leader.*", kv.WatchOptions{})
		defer w.Stop()
		heard := 0
		stop, err := s.Hints("leader.*", func(kv.Entry) { heard++ })
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		subject, next := wire.KVHint("default", "leader.g"), fmt.Sprint(rev+1)
		for name, h := range map[string]nats.Header{
			"no headers":     nil,
			"no stream":      {"Nats-Subject": {wire.KVSubject("default", "leader.g")}, "Nats-Sequence": {next}},
			"another stream": {"Nats-Stream": {"KV_QUORATE_other"}, "Nats-Subject": {wire.KVSubject("default", "leader.g")}, "Nats-Sequence": {next}},
			"another key":    {"Nats-Stream": {wire.Stream("default")}, "Nats-Subject": {wire.KVSubject("default", "leader.h")}, "Nats-Sequence": {next}},
			"no sequence":    {"Nats-Stream": {wire.Stream("default")}, "Nats-Subject": {wire.KVSubject("default", "leader.g")}},
			"huge sequence":  {"Nats-Stream": {wire.Stream("default")}, "Nats-Subject": {wire.KVSubject("default", "leader.g")}, "Nats-Sequence": {"18446744073709551615"}},
		} {
			if err := nc.PublishMsg(&nats.Msg{Subject: subject, Header: h, Data: []byte("forged")}); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		synctest.Wait()
		v.at(t, "after forged hints", "leader.g=1")
		if heard != 0 {
			t.Fatalf("%d forged hints were told", heard)
		}
		if s.Seen() > rev {
			t.Fatalf("highest sequence is %d after forged hints, want %d", s.Seen(), rev)
		}
		stop()
		stop()
	})
}

// A hint carries what the server says of the write: this is what the design builds on.
func TestRepublishedHeaders(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nc, _ := e.Connect("a")
		s := open(t, e, nc)
		sub, err := nc.SubscribeSync(wire.KVHint("default", ">"))
		if err != nil {
			t.Fatal(err)
		}
		var hints []kv.Entry
		stop, err := s.Hints("leader.g", func(e kv.Entry) { hints = append(hints, e) })
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		first := must(t, s, kv.Write{Key: "leader.g", Value: []byte("1"), TTL: 10 * time.Second})
		mark := must(t, s, kv.Write{Key: "leader.g", Expected: first, Purge: true, Reason: wire.ReasonStep, Nonce: "n", TTL: 10 * time.Second})
		again := must(t, s, kv.Write{Key: "leader.g", Expected: mark, Value: []byte("2"), TTL: 10 * time.Second})
		time.Sleep(11 * time.Second)

		for i, want := range []map[string]string{
			{"Nats-Sequence": fmt.Sprint(first), "Nats-Last-Sequence": "0"},
			{"Nats-Sequence": fmt.Sprint(mark), "Nats-Last-Sequence": fmt.Sprint(first), wire.HeaderReason: wire.ReasonStep, wire.HeaderNonce: "n"},
			{"Nats-Sequence": fmt.Sprint(again), "Nats-Last-Sequence": fmt.Sprint(mark)},
			{"Nats-Last-Sequence": fmt.Sprint(again), "Nats-Marker-Reason": kv.ReasonMaxAge},
		} {
			m, err := sub.NextMsg(time.Second)
			if err != nil {
				t.Fatalf("hint %d: %v", i, err)
			}
			want["Nats-Stream"], want["Nats-Subject"] = wire.Stream("default"), wire.KVSubject("default", "leader.g")
			for k, v := range want {
				if got := m.Header.Get(k); got != v {
					t.Errorf("hint %d: header %s is %q, want %q", i, k, got, v)
				}
			}
		}
		synctest.Wait()
		if len(hints) != 4 || hints[0].Op != kv.Record || hints[1].Op != kv.Marker || hints[1].Reason != wire.ReasonStep || hints[1].Nonce != "n" ||
			hints[2].Replaced != mark || hints[3].Op != kv.Marker || hints[3].Reason != kv.ReasonMaxAge || hints[3].Stored.IsZero() {
			t.Fatalf("hints: %+v", hints)
		}
	})
}

// Random writes under random loss, cuts and reconnects: whatever happened, the watch ends up with what is there.
func TestWatchConverges(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nc, link := e.Connect("a")
		other, _ := e.Connect("b")
		s, o := open(t, e, nc), open(t, e, other)
		v, w := watch(t, s, "member.g.*", kv.WatchOptions{})
		defer w.Stop()
		n := 0 // hints go one way only: one goroutine counts
		remove := link.Filter(func(f *testenv.Frame) testenv.Verdict {
			if f.IsHint() {
				n++
				switch n % 5 {
				case 0, 1:
					return testenv.Drop
				case 2:
					return testenv.Delay(700 * time.Millisecond)
				}
			}
			return testenv.Pass
		})
		revs := map[string]uint64{}
		for i := range 300 {
			key := fmt.Sprintf("member.g.m%d", i*7%13)
			wr := kv.Write{Key: key, Expected: revs[key], Value: fmt.Append(nil, i), TTL: 24 * time.Hour}
			if i%4 == 3 && revs[key] != 0 {
				wr.Value, wr.Purge, wr.Reason = nil, true, wire.ReasonLeft
			}
			revs[key] = must(t, o, wr)
			switch i % 50 {
			case 20:
				link.Cut(testenv.ToClient)
			case 30:
				link.Heal()
			case 40:
				link.Kill()
			}
			time.Sleep(300 * time.Millisecond)
		}
		remove()
		link.Heal()
		time.Sleep(10 * time.Second)
		want := &view{}
		entries, err := o.List(t.Context(), "member.g.*")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			want.take(kv.Event{Entry: e})
		}
		v.at(t, "in the end", want.String())
	})
}

// An idle bucket costs a watch one request a period, however many keys it has.
func TestWatchIsCheapWhenIdle(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nc, link := e.Connect("a")
		s := open(t, e, nc)
		for i := range 200 {
			must(t, s, kv.Write{Key: fmt.Sprintf("member.g.m%d", i), Value: []byte("x"), TTL: 24 * time.Hour})
		}
		v, w := watch(t, s, "member.g.*", kv.WatchOptions{Reconcile: time.Second})
		defer w.Stop()
		var mu sync.Mutex
		requests := 0
		link.Filter(func(f *testenv.Frame) testenv.Verdict {
			if f.Dir == testenv.ToServer && f.IsMessage() {
				mu.Lock()
				requests++
				mu.Unlock()
			}
			return testenv.Pass
		})
		before := v.count()
		time.Sleep(100 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		// 100 looks, 10 of them for vanished keys too, and 20 checks of the store; jitter for each.
		if requests > 150 {
			t.Errorf("%d requests in 100 idle periods, want at most 150", requests)
		}
		if v.count() != before {
			t.Errorf("%d events while nothing happened", v.count()-before)
		}
	})
}
