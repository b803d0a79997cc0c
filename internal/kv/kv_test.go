package kv_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// open opens a store of the default namespace that is closed when the test ends.
func open(t *testing.T, e *testenv.Env, nc *nats.Conn) *kv.Store {
	t.Helper()
	s, err := kv.Open(t.Context(), nc, kv.Options{Memory: true})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	e.Defer(s.Close)
	return s
}

func must(t *testing.T, s *kv.Store, w kv.Write) uint64 {
	t.Helper()
	rev, out, err := s.Do(t.Context(), w)
	if out != kv.Yes || err != nil {
		t.Fatalf("write %s: %v, %v; want yes", w.Key, out, err)
	}
	return rev
}

func read(t *testing.T, s *kv.Store, key string) kv.Entry {
	t.Helper()
	e, err := s.Read(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func stream(t *testing.T, nc *nats.Conn) (jetstream.JetStream, jetstream.Stream) {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	st, err := js.Stream(t.Context(), wire.Stream("default"))
	if err != nil {
		t.Fatal(err)
	}
	return js, st
}

func TestWriteOutcomes(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nc, _ := e.Connect("a")
		s := open(t, e, nc)

		if got := read(t, s, "leader.g"); got.Op != kv.None || got.Revision != 0 || !got.Vacant {
			t.Fatalf("read of a key that never was: %+v; want none, vacant", got)
		}
		first := must(t, s, kv.Write{Key: "leader.g", Value: []byte("one"), TTL: 20 * time.Second})
		if first >= wire.MaxToken {
			t.Fatalf("first revision is %d, want below 2^53", first)
		}
		if us := uint64(time.Now().UnixMicro()); first > us || first < us-uint64(time.Minute/time.Microsecond) {
			t.Fatalf("first revision is %d, want the time in microseconds at the creation, about %d", first, us)
		}
		if rev, out, err := s.Do(t.Context(), kv.Write{Key: "leader.g", Value: []byte("two"), TTL: 20 * time.Second}); out != kv.No || err == nil || rev != 0 {
			t.Fatalf("create of a key that is there: %d, %v, %v; want no", rev, out, err)
		}
		second := must(t, s, kv.Write{Key: "leader.g", Expected: first, Value: []byte("two"), TTL: 20 * time.Second})
		if second <= first {
			t.Fatalf("revisions %d, %d do not grow", first, second)
		}
		if _, out, _ := s.Do(t.Context(), kv.Write{Key: "leader.g", Expected: first, Purge: true, TTL: 20 * time.Second}); out != kv.No {
			t.Fatalf("purge of an old revision: %v, want no", out)
		}
		got := read(t, s, "leader.g")
		if got.Op != kv.Record || got.Revision != second || got.Replaced != first || string(got.Value) != "two" || got.Seen.IsZero() || got.Epoch != 1 {
			t.Fatalf("read: %+v; want record 'two' at %d over %d", got, second, first)
		}
		if s.Seen() < second {
			t.Fatalf("highest sequence seen is %d, want at least %d", s.Seen(), second)
		}
	})
}

// N concurrent creates and N concurrent updates: exactly one says yes, all others no.
func TestExactlyOneWins(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		const n = 20
		stores := make([]*kv.Store, n)
		var opened sync.WaitGroup
		for i := range stores {
			nc, _ := e.Connect(fmt.Sprint(i))
			// All at once: the bucket is made by one of them.
			opened.Go(func() {
				s, err := kv.Open(t.Context(), nc, kv.Options{Memory: true})
				if err != nil {
					t.Errorf("open: %v", err)
					return
				}
				stores[i] = s
			})
		}
		opened.Wait()
		if t.Failed() {
			t.FailNow()
		}
		defer func() {
			for _, s := range stores {
				s.Close()
			}
		}()
		var expected uint64
		for round := range 10 {
			var wg sync.WaitGroup
			var mu sync.Mutex
			count := map[kv.Outcome]int{}
			var next uint64
			for i, s := range stores {
				wg.Go(func() {
					rev, out, _ := s.Do(t.Context(), kv.Write{Key: "election.x", Expected: expected, Value: fmt.Append(nil, i), TTL: 10 * time.Second})
					mu.Lock()
					defer mu.Unlock()
					count[out]++
					next = max(next, rev)
				})
			}
			wg.Wait()
			if count[kv.Yes] != 1 || count[kv.No] != n-1 {
				t.Fatalf("round %d: %v, want one yes and %d no", round, count, n-1)
			}
			expected = next
		}
	})
}

// R9: the TTL outlives renewals, and the key goes by itself when they stop, leaving an expiry marker and then nothing.
func TestKeyExpiresAfterRenewals(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nc, _ := e.Connect("a")
		s := open(t, e, nc)
		var rev uint64
		for range 4 {
			rev = must(t, s, kv.Write{Key: "leader.g", Expected: rev, Value: []byte("x"), TTL: 9500 * time.Millisecond})
			time.Sleep(9 * time.Second)
		}
		if got := read(t, s, "leader.g"); got.Op != kv.Record {
			t.Fatalf("9 s after a renewal with a TTL of 9.5 s (rounded up to 10): %+v, want the record", got)
		}
		time.Sleep(2 * time.Second)
		got := read(t, s, "leader.g")
		if got.Op != kv.Marker || got.Reason != kv.ReasonMaxAge || got.Revision <= rev || got.Nonce != "" || got.Value != nil {
			t.Fatalf("after the TTL: %+v; want a MaxAge marker", got)
		}
		time.Sleep(kv.MarkerTTL + time.Second)
		if got = read(t, s, "leader.g"); got.Op != kv.None || !got.Vacant {
			t.Fatalf("after the marker's TTL: %+v; want none, vacant", got)
		}
	})
}

func TestPurgeTellsWhyAndGoes(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nc, _ := e.Connect("a")
		s := open(t, e, nc)
		rev := must(t, s, kv.Write{Key: "leader.g", Value: []byte("x"), TTL: 10 * time.Second})
		mark := must(t, s, kv.Write{Key: "leader.g", Expected: rev, Purge: true, Reason: wire.ReasonResign, Nonce: "n1", Token: 42, TTL: 10 * time.Second})
		got := read(t, s, "leader.g")
		if got.Op != kv.Marker || got.Revision != mark || got.Replaced != rev || got.Reason != wire.ReasonResign || got.Nonce != "n1" || got.Token != 42 {
			t.Fatalf("read: %+v; want a marker at %d with reason, nonce and token", got, mark)
		}
		if _, out, _ := s.Do(t.Context(), kv.Write{Key: "leader.g", Value: []byte("y"), TTL: 10 * time.Second}); out != kv.No {
			t.Fatalf("create over a marker: %v, want no: expected 0 means not even a marker", out)
		}
		time.Sleep(11 * time.Second)
		if got = read(t, s, "leader.g"); got.Op != kv.None || got.Revision != 0 {
			t.Fatalf("after the purge's TTL: %+v; want nothing, no MaxAge marker", got)
		}
	})
}

// R6: a write whose acknowledgement is lost is unknown; a read shows what became of it.
func TestLostAcknowledgementIsUnknown(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nc, link := e.Connect("a")
		s := open(t, e, nc)
		link.DropAcks(1)
		w := kv.Write{Key: "leader.g", Value: []byte("nonce-1"), TTL: 10 * time.Second}
		if _, out, err := s.Do(t.Context(), w); out != kv.Unknown || err == nil || errors.Is(err, kv.ErrNotSent) {
			t.Fatalf("write without an answer: %v, %v; want unknown", out, err)
		}
		if got := read(t, s, "leader.g"); string(got.Value) != "nonce-1" {
			t.Fatalf("read: %+v, want the nonce", got)
		}
		// A repeat unchanged on the same revision is safe: it is refused by the one that landed.
		if _, out, _ := s.Do(t.Context(), w); out != kv.No {
			t.Fatalf("repeat: %v, want no", out)
		}

		link.Cut(testenv.Both)
		if _, out, _ := s.Do(t.Context(), kv.Write{Key: "leader.h", Value: []byte("x"), TTL: 10 * time.Second}); out != kv.Unknown {
			t.Fatalf("write over a cut link: %v, want unknown", out)
		}
		if _, err := s.Read(t.Context(), "leader.h"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("read over a cut link: %v, want a timeout", err)
		}
	})
}

// A connection says that it is closed to a write on its way as well as to one that it does not take any more.
func TestClosedIsUnknown(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nc, link := e.Connect("a")
		s := open(t, e, nc)
		link.DropAcks(1)
		link.Filter(func(f *testenv.Frame) testenv.Verdict {
			if f.Verb == "HPUB" && f.Dir == testenv.ToServer {
				time.AfterFunc(time.Millisecond, nc.Close)
			}
			return testenv.Pass
		})
		w := kv.Write{Key: "leader.g", Value: []byte("nonce-1"), TTL: 10 * time.Second}
		if _, out, err := s.Do(t.Context(), w); out != kv.Unknown || !errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, kv.ErrNotSent) {
			t.Errorf("closed with a write on its way: %v, %v; want unknown, and not that it was not sent", out, err)
		}
		if _, out, err := s.Do(t.Context(), w); out != kv.Unknown || !errors.Is(err, kv.ErrNotSent) {
			t.Errorf("closed before: %v, %v; want that it was not sent", out, err)
		}
		other, _ := e.Connect("b")
		if got := read(t, open(t, e, other), "leader.g"); string(got.Value) != "nonce-1" {
			t.Errorf("read: %+v, want what was on its way", got)
		}
	})
}

// The end of a connection is told, also when it has come and gone more often before than anybody has looked.
func TestConnClosed(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nc, link := e.Connect("a")
		s := open(t, e, nc)
		link.Filter(func(f *testenv.Frame) testenv.Verdict {
			if strings.Contains(f.Answers, ".STREAM.INFO.") { // who looks at the bucket is kept waiting
				return testenv.Drop
			}
			return testenv.Pass
		})
		for range 15 {
			link.Kill()
			for time.Sleep(time.Millisecond); !nc.IsConnected(); {
				time.Sleep(time.Millisecond)
			}
		}
		nc.Close()
		select {
		case <-s.ConnClosed():
		case <-time.After(time.Minute):
			t.Error("not told that the connection is closed")
		}
	})
}

func TestNobodyThereIsNotSent(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nc, _ := e.Connect("a")
		s := open(t, e, nc)
		js, _ := stream(t, nc)
		if err := js.DeleteStream(t.Context(), wire.Stream("default")); err != nil {
			t.Fatal(err)
		}
		_, out, err := s.Do(t.Context(), kv.Write{Key: "leader.g", Value: []byte("x"), TTL: 10 * time.Second})
		if out != kv.Unknown || !errors.Is(err, kv.ErrNotSent) || !errors.Is(err, nats.ErrNoResponders) {
			t.Fatalf("write with nobody there: %v, %v; want unknown, not sent, no responders", out, err)
		}
		s.Close()
		if _, out, err := s.Do(t.Context(), kv.Write{Key: "leader.g"}); out != kv.Unknown || !errors.Is(err, kv.ErrClosed) {
			t.Fatalf("write on a closed store: %v, %v", out, err)
		}
	})
}

func TestListIsASnapshot(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nc, _ := e.Connect("a")
		s := open(t, e, nc)
		for i := range 30 {
			must(t, s, kv.Write{Key: fmt.Sprintf("member.g.m%02d", i), Value: fmt.Append(nil, i), TTL: time.Hour})
		}
		must(t, s, kv.Write{Key: "member.other.x", Value: []byte("x"), TTL: time.Hour})
		gone := read(t, s, "member.g.m03")
		must(t, s, kv.Write{Key: gone.Key, Expected: gone.Revision, Purge: true, Reason: wire.ReasonLeft, TTL: time.Hour})
		got, err := s.List(t.Context(), "member.g.*")
		if err != nil || len(got) != 30 {
			t.Fatalf("list: %d entries, %v; want 30", len(got), err)
		}
		for i, e := range got {
			want := kv.Record
			if i == 3 {
				want = kv.Marker
			}
			if e.Key != fmt.Sprintf("member.g.m%02d", i) || e.Op != want {
				t.Fatalf("entry %d is %+v", i, e)
			}
		}
		if got, err := s.List(t.Context(), "verdict.*.*"); err != nil || len(got) != 0 {
			t.Fatalf("list of nothing: %v, %v", got, err)
		}
	})
}

func TestBucketOfAnotherConfigurationIsRefused(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nc, _ := e.Connect("a")
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		// What nats.go makes of a bucket: direct reads on, no markers, no republish.
		if _, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: wire.Bucket("default"), History: 5, Storage: jetstream.MemoryStorage}); err != nil {
			t.Fatal(err)
		}
		_, err = kv.Open(t.Context(), nc, kv.Options{Memory: true})
		if !errors.Is(err, kv.ErrBucket) {
			t.Fatalf("open: %v, want ErrBucket", err)
		}
		for _, want := range []string{"max_msgs_per_subject is 5, must be 1", "allow_direct is true, must be false",
			"allow_msg_ttl is false, must be true", "subject_delete_marker_ttl is 0s, must be 1m0s",
			"republish is none, must be $KV.QUORATE_default.> to quorate.default.kv.>"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("error does not say %q: %v", want, err)
			}
		}
		for _, not := range []string{"replicas", "first_seq", "storage is"} {
			if strings.Contains(err.Error(), not) {
				t.Errorf("error names %q, which is no difference: %v", not, err)
			}
		}
		_, ds, err := kv.Inspect(t.Context(), nc, kv.Options{Memory: true})
		if err != nil || len(ds) < 5 {
			t.Fatalf("inspect: %v, %v", ds, err)
		}
		if mended, err := kv.Repair(t.Context(), nc, kv.Options{Memory: true}); err != nil || len(mended) != len(ds) {
			t.Fatalf("repair: %v, %v; want %d differences mended", mended, err, len(ds))
		}
		open(t, e, nc)
		if _, err := kv.Open(t.Context(), nc, kv.Options{}); !errors.Is(err, kv.ErrBucket) || !strings.Contains(err.Error(), "storage is memory, must be file") {
			t.Fatalf("open of a memory bucket for real use: %v, want ErrBucket naming the storage", err)
		}
	})
}

func TestMissingBucketIsOnlyAttachedTo(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nc, _ := e.Connect("a")
		if _, err := kv.Open(t.Context(), nc, kv.Options{Memory: true, AttachOnly: true}); !errors.Is(err, kv.ErrBucketMissing) {
			t.Fatalf("open: %v, want ErrBucketMissing", err)
		}
		if _, _, err := kv.Inspect(t.Context(), nc, kv.Options{}); !errors.Is(err, kv.ErrBucketMissing) {
			t.Fatalf("inspect: %v, want ErrBucketMissing", err)
		}
		for _, o := range []kv.Options{{Namespace: "a b"}, {Domain: "a.b"}, {Replicas: -1}} {
			if _, err := kv.Open(t.Context(), nc, o); err == nil {
				t.Errorf("open with %+v: no error", o)
			}
		}
	})
}

func TestBucketLostAndMadeAgain(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nc, _ := e.Connect("a")
		other, _ := e.Connect("b")
		s := open(t, e, nc)
		rev := must(t, s, kv.Write{Key: "leader.g", Value: []byte("x"), TTL: time.Hour})
		var seen view
		w, err := s.Watch("leader.*", kv.WatchOptions{}, seen.take)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Stop()
		lost, epoch := s.Lost(), s.Epoch()
		time.Sleep(time.Second) // made again in the same nanosecond it would be the same bucket

		js, _ := stream(t, other)
		if err := js.DeleteStream(t.Context(), wire.Stream("default")); err != nil {
			t.Fatal(err)
		}
		again := open(t, e, other) // made again, by somebody who knows nothing
		must(t, again, kv.Write{Key: "leader.h", Value: []byte("y"), TTL: time.Hour})

		select {
		case <-lost:
		case <-time.After(time.Minute):
			t.Fatal("the loss was not noticed within a minute")
		}
		for name, err := range map[string]error{
			"read":  second(s.Read(t.Context(), "leader.g")),
			"list":  second(s.List(t.Context(), "leader.*")),
			"state": second(s.State(t.Context())),
		} {
			if !errors.Is(err, kv.ErrBucketLost) {
				t.Errorf("%s: %v, want ErrBucketLost", name, err)
			}
		}
		if _, out, err := s.Do(t.Context(), kv.Write{Key: "leader.g", Expected: rev, TTL: time.Hour}); out != kv.Unknown || !errors.Is(err, kv.ErrBucketLost) {
			t.Errorf("write: %v, %v; want unknown, ErrBucketLost", out, err)
		}

		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				if err := s.Reattach(t.Context()); err != nil {
					t.Errorf("attach again: %v", err)
				}
			})
		}
		wg.Wait()
		if s.Epoch() != epoch+1 {
			t.Errorf("epoch is %d, want %d", s.Epoch(), epoch+1)
		}
		if _, _, err := s.Do(t.Context(), kv.Write{Key: "leader.g", Epoch: epoch, TTL: time.Hour}); !errors.Is(err, kv.ErrBucketLost) {
			t.Errorf("write decided in the attachment before: %v, want ErrBucketLost", err)
		}
		// Design 4.1: this process has seen another bucket, so absence proves nothing.
		if got := read(t, s, "leader.g"); got.Op != kv.None || got.Vacant {
			t.Errorf("read: %+v; want none, not vacant", got)
		}
		if next := must(t, s, kv.Write{Key: "leader.g", Value: []byte("z"), TTL: time.Hour}); next <= rev {
			t.Errorf("revision %d in the new bucket, want above %d", next, rev)
		}
		time.Sleep(2 * time.Second)
		if got := seen.String(); got != "leader.g=z leader.h=y" {
			t.Errorf("the watch sees %q", got)
		}
	})
}

func second[T any](_ T, err error) error { return err }

// R2: whoever makes the bucket again starts above every revision it has seen, even if its wall clock went back.
func TestBucketGoneIsMadeAbove(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nc, _ := e.Connect("a")
		s := open(t, e, nc)
		rev := must(t, s, kv.Write{Key: "leader.g", Value: []byte("x"), TTL: time.Hour})
		lost := s.Lost()
		e.Server().Stop() // memory streams are gone with it
		time.Sleep(time.Second)
		if err := e.Server().Start(); err != nil {
			t.Fatal(err)
		}
		<-lost
		if err := s.Reattach(t.Context()); err != nil {
			t.Fatal(err)
		}
		if next := must(t, s, kv.Write{Key: "leader.g", Value: []byte("y"), TTL: time.Hour}); next <= rev {
			t.Fatalf("revision %d after the loss, want above %d", next, rev)
		}
	})
}

func TestServerWithoutJetStreamIsRefused(t *testing.T) {
	dir := t.TempDir()
	testenv.Bubble(t, func(t *testing.T) {
		srv, err := testenv.NewServer(dir, testenv.WithoutJetStream())
		if err != nil {
			t.Fatal(err)
		}
		defer srv.Stop()
		nc, err := nats.Connect("", nats.InProcessServer(srv))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		_, err = kv.Open(t.Context(), nc, kv.Options{})
		if !errors.Is(err, kv.ErrNoJetStream) || !strings.Contains(err.Error(), "-js") {
			t.Fatalf("open: %v, want ErrNoJetStream and what to do", err)
		}
	})
}

func TestDomain(t *testing.T) {
	dir := t.TempDir()
	testenv.Bubble(t, func(t *testing.T) {
		srv, err := testenv.NewServer(dir, testenv.WithDomain("hub"))
		if err != nil {
			t.Fatal(err)
		}
		defer srv.Stop()
		nc, err := nats.Connect("", nats.InProcessServer(srv))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		s, err := kv.Open(t.Context(), nc, kv.Options{Domain: "hub", Memory: true})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err = kv.Open(t.Context(), nc, kv.Options{Domain: "elsewhere", Memory: true}); !errors.Is(err, kv.ErrNoJetStream) || !strings.Contains(err.Error(), `"elsewhere"`) {
			t.Fatalf("open with a wrong domain: %v, want ErrNoJetStream naming it", err)
		}
	})
}

func TestCheck(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nc, link := e.Connect("a")
		s := open(t, e, nc)
		if err := s.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(11 * time.Second)
		if got, err := s.List(t.Context(), "check.*"); err != nil || len(got) != 0 {
			t.Fatalf("after a check: %v, %v; want nothing left", got, err)
		}
		link.DropAcks(1)
		if err := s.Check(t.Context()); err != nil {
			t.Fatalf("check with one acknowledgement lost: %v", err)
		}
		link.DropHints(true)
		if err := s.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "quorate.default.kv.check.") {
			t.Fatalf("check without hints: %v, want an error that names the subject", err)
		}
	})
}

// R5: only a refusal by the expected sequence is a no. Everything else proves nothing, whatever it looks like.
func TestAnswersThatProveNothing(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nc, _ := e.Connect("a")
		s := open(t, e, nc)
		js, _ := stream(t, nc)
		if err := js.DeleteStream(t.Context(), wire.Stream("default")); err != nil {
			t.Fatal(err)
		}
		// A responder in the stream's place.
		answer := ""
		other, _ := e.Connect("b")
		if _, err := other.Subscribe(wire.KVSubject("default", ">"), func(m *nats.Msg) { _ = m.Respond([]byte(answer)) }); err != nil {
			t.Fatal(err)
		}
		if err := other.Flush(); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			answer string
			want   kv.Outcome
		}{
			{`{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 7"},"stream":"KV_QUORATE_default","seq":0}`, kv.No},
			{`{"error":{"code":400,"err_code":10164,"description":"wrong last sequence"},"stream":"KV_QUORATE_default","seq":0}`, kv.Unknown},
			{`{"error":{"code":503,"err_code":10008,"description":"JetStream system temporarily unavailable"}}`, kv.Unknown},
			{`{"error":{"code":503,"err_code":10023,"description":"insufficient resources"}}`, kv.Unknown},
			{`{"error":{"code":404,"err_code":10059,"description":"stream not found"}}`, kv.Unknown},
			{`{"stream":"KV_QUORATE_default","seq":5}`, kv.Yes},
			{`{"stream":"KV_QUORATE_default"}`, kv.Unknown},
			{`{"stream":"ANOTHER","seq":5}`, kv.Unknown},
			{`{}`, kv.Unknown},
			{`hello`, kv.Unknown},
			{``, kv.Unknown},
		} {
			synctest.Wait()
			answer = tt.answer
			rev, out, err := s.Do(t.Context(), kv.Write{Key: "leader.g", Value: []byte("x"), TTL: 10 * time.Second})
			if out != tt.want || (err == nil) != (out == kv.Yes) || (rev != 0) != (out == kv.Yes) || errors.Is(err, kv.ErrNotSent) {
				t.Errorf("answer %q: %d, %v, %v; want %v", tt.answer, rev, out, err, tt.want)
			}
		}
		for _, bad := range []kv.Write{{}, {Key: "a", Purge: true, Value: []byte("x")}, {Key: "a", TTL: -1}, {Key: "a b", TTL: time.Second}} {
			if _, out, err := s.Do(t.Context(), bad); out != kv.Unknown || !errors.Is(err, kv.ErrNotSent) {
				t.Errorf("write %+v: %v, %v; want not sent", bad, out, err)
			}
		}
	})
}

// BenchmarkWrite is one renewal, with the server's answer: on loopback, synced.
func BenchmarkWrite(b *testing.B) {
	srv := testenv.Real(b)
	s, err := kv.Open(b.Context(), srv.Connect("a"), kv.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	b.ReportAllocs()
	var rev uint64
	for b.Loop() {
		var out kv.Outcome
		if rev, out, err = s.Do(b.Context(), kv.Write{Key: "leader.g", Expected: rev, Value: make([]byte, 200), TTL: time.Hour}); out != kv.Yes {
			b.Fatal(err)
		}
	}
}

// Peek shows what Read shows, by one request whatever there is; an absence that it shows is no proof.
func TestPeek(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nc, link := e.Connect("a")
		s := open(t, e, nc)
		var requests atomic.Int64
		defer link.Filter(func(f *testenv.Frame) testenv.Verdict {
			if f.Dir == testenv.ToServer && strings.Contains(f.Subject, "$JS.API.") {
				requests.Add(1)
			}
			return testenv.Pass
		})()
		peek := func(want kv.Op) kv.Entry {
			t.Helper()
			before := requests.Load()
			got, err := s.Peek(t.Context(), "verdict.g.b")
			if err != nil || got.Op != want || got.Vacant || got.Epoch != s.Epoch() {
				t.Errorf("got %+v, %v; want %v, not vacant", got, err, want)
			}
			if n := requests.Load() - before; n != 1 {
				t.Errorf("%v: %d requests, want 1", want, n)
			}
			return got
		}
		peek(kv.None)
		rev := must(t, s, kv.Write{Key: "verdict.g.b", Value: []byte("x"), TTL: time.Hour})
		if got := peek(kv.Record); got.Revision != rev || string(got.Value) != "x" {
			t.Errorf("got %+v", got)
		}
		must(t, s, kv.Write{Key: "verdict.g.b", Expected: rev, Purge: true, Reason: "undone", Nonce: "n", TTL: time.Hour})
		if got := peek(kv.Marker); got.Reason != "undone" || got.Nonce != "n" {
			t.Errorf("got %+v", got)
		}
	})
}

// ReadNew shows what Read shows, and an absence in one round trip.
func TestReadNew(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nc, link := e.Connect("a")
		s := open(t, e, nc)
		const delay = 10 * time.Millisecond
		var unproven atomic.Bool
		defer link.Filter(func(f *testenv.Frame) testenv.Verdict {
			if unproven.Load() && strings.Contains(f.Answers, "STREAM.INFO") {
				return testenv.Drop
			}
			if f.Answers != "" {
				return testenv.Delay(delay)
			}
			return testenv.Pass
		})()
		readNew := func(want kv.Op, took time.Duration) kv.Entry {
			t.Helper()
			start := time.Now()
			got, err := s.ReadNew(t.Context(), "leader.g")
			if err != nil || got.Op != want {
				t.Fatalf("got %+v, %v; want %v", got, err, want)
			}
			if d := time.Since(start); d != took {
				t.Errorf("%v: took %v, want %v", want, d, took)
			}
			return got
		}
		if got := readNew(kv.None, delay); !got.Vacant || got.Epoch != s.Epoch() {
			t.Errorf("nothing was ever there: %+v; want vacant", got)
		}
		rev := must(t, s, kv.Write{Key: "leader.g", Value: []byte("x"), TTL: time.Hour})
		if got := readNew(kv.Record, 2*delay); got.Revision != rev || string(got.Value) != "x" || got.Vacant {
			t.Errorf("got %+v", got)
		}

		// An absence rests on the answer that shows the bucket too: while there is none, nothing is known.
		unproven.Store(true)
		if got, err := s.ReadNew(t.Context(), "leader.new"); err == nil {
			t.Errorf("without that answer: %+v", got)
		}
	})
}

// Who holds nothing asks again when a read is not answered, for as long as its context goes on.
func TestPatient(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nc, link := e.Connect("a")
		rev := must(t, open(t, e, nc), kv.Write{Key: "leader.g", Value: []byte("x"), TTL: time.Hour})
		const timeout = 200 * time.Millisecond
		s, err := kv.Open(t.Context(), nc, kv.Options{Memory: true, Patient: true, Timeout: timeout})
		if err != nil {
			t.Fatal(err)
		}
		e.Defer(s.Close)
		var eaten atomic.Int64
		eaten.Store(-1 << 60)
		defer link.Filter(func(f *testenv.Frame) testenv.Verdict {
			if f.Answers != "" && eaten.Add(-1) >= 0 {
				return testenv.Drop
			}
			return testenv.Pass
		})()
		for what, read := range map[string]func(ctx context.Context) (uint64, error){
			"read": func(ctx context.Context) (uint64, error) { e, err := s.Read(ctx, "leader.g"); return e.Revision, err },
			"peek": func(ctx context.Context) (uint64, error) { e, err := s.Peek(ctx, "leader.g"); return e.Revision, err },
			"list": func(ctx context.Context) (uint64, error) {
				l, err := s.List(ctx, "leader.*")
				if err != nil || len(l) != 1 {
					return 0, err
				}
				return l[0].Revision, nil
			},
		} {
			eaten.Store(3)
			if got, err := read(t.Context()); err != nil || got != rev {
				t.Errorf("%s: got %d, %v, want %d", what, got, err, rev)
			}
			if left := eaten.Load(); left >= 0 {
				t.Errorf("%s: %d answers were not asked for", what, left)
			}
			eaten.Store(1 << 60)
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			if _, err := read(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s, never answered: %v", what, err)
			}
			cancel()
			if d := time.Since(start); d != 5*time.Second {
				t.Errorf("%s, never answered: gave up after %v", what, d)
			}
		}
	})
}

// Where another creator is faster, and a server of a cluster has not heard of the stream yet, Open asks again.
func TestCreatedByAnother(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		other, _ := e.Connect("b")
		nc, link := e.Connect("a")
		js, err := jetstream.New(other)
		if err != nil {
			t.Fatal(err)
		}
		created, deleted := false, false
		defer link.Filter(func(f *testenv.Frame) testenv.Verdict {
			switch {
			case f.Dir != testenv.ToServer:
			case strings.Contains(f.Subject, ".STREAM.CREATE.") && !created:
				created = true
				time.Sleep(time.Millisecond) // so with another first sequence
				open(t, e, other).Close()
			case strings.Contains(f.Subject, ".STREAM.INFO.") && created && !deleted:
				deleted = true // as that server sees it
				if err := js.DeleteStream(t.Context(), wire.Stream("default")); err != nil {
					t.Error(err)
				}
			}
			return testenv.Pass
		})()
		open(t, e, nc)
		if !created || !deleted {
			t.Errorf("another was faster: %v, and its stream unknown: %v", created, deleted)
		}
	})
}

// Who only reads attaches again by itself, once somebody has made the bucket again; it makes none.
func TestHeals(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nc, _ := e.Connect("a")
		other, _ := e.Connect("b")
		s := open(t, e, nc)
		var seen view
		w, err := s.Watch("leader.*", kv.WatchOptions{}, seen.take)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Stop()
		lost := s.Lost()
		js, _ := stream(t, other)
		if err := js.DeleteStream(t.Context(), wire.Stream("default")); err != nil {
			t.Fatal(err)
		}
		<-lost
		time.Sleep(time.Minute)
		if _, err := s.Read(t.Context(), "leader.g"); !errors.Is(err, kv.ErrBucketLost) {
			t.Errorf("nobody has made the bucket: %v, want ErrBucketLost", err)
		}
		if _, err := js.Stream(t.Context(), wire.Stream("default")); !errors.Is(err, jetstream.ErrStreamNotFound) {
			t.Errorf("who only reads has made the bucket: %v", err)
		}
		again := open(t, e, other)
		must(t, again, kv.Write{Key: "leader.h", Value: []byte("y"), TTL: time.Hour})
		time.Sleep(5 * time.Second)
		if got := read(t, s, "leader.h"); string(got.Value) != "y" {
			t.Errorf("read %+v", got)
		}
		seen.mu.Lock()
		defer seen.mu.Unlock()
		if seen.now["leader.h"] != "y" {
			t.Errorf("its watch has told %v", seen.now)
		}
	})
}
