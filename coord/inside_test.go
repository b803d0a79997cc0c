package coord

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/settle"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/testenv"
)

// M1: an evicted member ends with ErrEvicted, does not come back by itself, and is told apart; its id can be joined with again.
func TestEvicted(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		in := func(id string) *Group {
			g, err := Join(t.Context(), e.Namespace(), "g", Config{ID: id})
			if err != nil {
				t.Fatal(err)
			}
			return g
		}
		a, b := in("a"), in("b")
		c, err := Open(t.Context(), e.Namespace(), "g")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		told := make(chan string, 10)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for v := range c.Watch(ctx) {
				for _, d := range v.Left {
					told <- d.Member.ID + ":" + d.Reason
				}
			}
		}()
		time.Sleep(time.Second)
		evict := func(p wire.Place) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.chair.box.Put(settle.Evict{Place: p})
		}
		evict(wire.Place{ID: "b", Incarnation: 1}) // another incarnation than there is
		evict(wire.Place{ID: "nobody"})
		time.Sleep(time.Second)
		if b.Context().Err() != nil {
			t.Error("an eviction of another incarnation was carried out")
		}
		evict(wire.Place{ID: "b"})
		<-b.Context().Done()
		if err := context.Cause(b.Context()); !errors.Is(err, ErrEvicted) {
			t.Errorf("M1: cause %v, want ErrEvicted", err)
		}
		if got := <-told; got != "b:evicted" {
			t.Errorf("M1: watch told %q", got)
		}
		start := time.Now()
		in("b")
		if d := time.Since(start); d < 5*time.Second {
			t.Errorf("M2: joined %v after the eviction: the evicted may have acted still", d)
		}
		cancel()
		<-done
	})
}

// A record that lands when its member is none any more is removed: it would tell of a member that is not there (M1).
func TestLateRecordRemoved(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		ns := e.Namespace()
		a, err := Join(t.Context(), ns, "g", Config{ID: "a"})
		if err != nil {
			t.Fatal(err)
		}
		b, err := Join(t.Context(), e.Namespace(), "g", Config{ID: "b"})
		if err != nil {
			t.Fatal(err)
		}
		late := b.m.record(b.Inner().Place().Incarnation, "", nil, takesInput{}, nil, "late", 0)
		if err := b.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		s, key := a.in.Store, wire.MemberKey("g", "b")
		en, err := s.Read(t.Context(), key)
		if err != nil || en.Op != kv.Marker || en.Reason != wire.ReasonLeft {
			t.Fatalf("after the leave: %+v, %v", en, err)
		}
		if _, out, err := s.Do(t.Context(), kv.Write{Key: key, Expected: en.Revision, Value: late, TTL: time.Minute}); out != kv.Yes {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if en, err = s.Read(t.Context(), key); err != nil || en.Op != kv.Marker || en.Reason != wire.ReasonLeft {
			t.Errorf("M1: the record of who left stands: %+v, %v", en, err)
		}
	})
}

// What a watcher makes of what it hears, in the order it may hear it.
func TestWatcher(t *testing.T) {
	rec := func(id string, rev, inc uint64) kv.Entry {
		return kv.Entry{Key: wire.MemberKey("g", id), Op: kv.Record, Revision: rev, Value: wire.Encode(&wire.Member{V: 1, ID: id, Incarnation: inc})}
	}
	gone := func(id string, rev uint64, reason string, token uint64) kv.Entry {
		return kv.Entry{Key: wire.MemberKey("g", id), Op: kv.Marker, Revision: rev, Reason: reason, Token: token}
	}
	lead := func(id string, rev, token uint64) kv.Entry {
		return kv.Entry{Key: wire.LeaderKey("g"), Op: kv.Record, Revision: rev, Value: wire.Encode(&wire.Leader{V: 1, ID: id, Token: token, Params: wire.Params{LeaseMS: 1}})}
	}
	vanished := kv.Entry{Key: wire.MemberKey("g", "a"), Op: kv.None}
	start := time.Now()
	for _, c := range []struct {
		name  string
		steps []any // an entry, a wait, or what a view is to tell
	}{
		{"came and went between two views", []any{rec("a", 1, 1), gone("a", 2, "left", 0), ""}},
		{"left", []any{rec("a", 1, 1), "+a", gone("a", 2, "left", 0), "-a:left"}},
		{"expired by the leader", []any{lead("l", 1, 0), rec("a", 2, 1), "+a", gone("a", 3, "expired", 1), "-a:expired"}},
		{"by a leader that was one then", []any{lead("l", 1, 0), rec("a", 2, 1), "+a", lead("m", 4, 0), gone("a", 3, "expired", 1), "-a:expired"}},
		{"by a former leader", []any{lead("l", 1, 0), rec("a", 2, 1), "+a", lead("m", 3, 0), gone("a", 4, "expired", 1), "", rec("a", 5, 1), time.Minute, ""}},
		{"by a former leader, and it was right", []any{rec("a", 2, 1), "+a", lead("m", 3, 0), gone("a", 4, "expired", 1), "", time.Minute, "-a:expired"}},
		{"expiry of the record", []any{rec("a", 1, 1), "+a", gone("a", 2, "MaxAge", 0), "", rec("a", 3, 1), ""}},
		{"gone without a trace", []any{rec("a", 1, 1), "+a", vanished, "", time.Minute, "-a:expired"}},
		{"gone without a trace, and restarted", []any{rec("a", 1, 1), "+a", vanished, rec("a", 3, 2), "-a:expired +a"}},
		{"left and joined between two views", []any{rec("a", 1, 1), "+a", gone("a", 2, "left", 0), rec("a", 3, 2), "-a:left +a"}},
		{"and left again", []any{rec("a", 1, 1), "+a", gone("a", 2, "left", 0), rec("a", 3, 2), gone("a", 4, "evicted", 9), "-a:left"}},
		{"nonsense", []any{rec("a", 1, 1), "+a", kv.Entry{Key: wire.MemberKey("g", "a"), Op: kv.Record, Revision: 2, Value: []byte("x")}, kv.Entry{Key: "settled.g", Op: kv.Record}, ""}},
	} {
		w := newWatcher(10 * time.Second)
		now := start
		for i, s := range c.steps {
			switch s := s.(type) {
			case kv.Entry:
				w.hear(s, now)
			case time.Duration:
				now = now.Add(s)
			case string:
				var got []string
				v, _ := w.view(false, now)
				for _, d := range v.Left {
					got = append(got, "-"+d.Member.ID+":"+d.Reason)
				}
				for _, m := range v.Joined {
					got = append(got, "+"+m.ID)
				}
				if j := strings.Join(got, " "); j != s {
					t.Errorf("%s, step %d: told %q, want %q", c.name, i, j, s)
				}
			}
		}
		if _, changed := w.view(false, now); changed {
			t.Errorf("%s: a view without a change", c.name)
		}
	}
	// M3: who cannot hear accuses nobody.
	w := newWatcher(10 * time.Second)
	w.hear(rec("a", 1, 1), start)
	w.view(false, start)
	w.hear(vanished, start)
	if v, _ := w.view(true, start.Add(time.Minute)); len(v.Left) != 0 || !v.Stale {
		t.Errorf("M3: a watcher without a connection tells of %v", v.Left)
	}
}

// A roster longer than a message comes in several.
func TestLongRoster(t *testing.T) {
	r := wire.Roster{V: 1, Group: "g", Token: 7}
	for range 100 {
		r.Members = append(r.Members, wire.RosterMember{Member: wire.Member{ID: "m", Meta: map[string]string{"k": strings.Repeat("x", 1000)}}})
	}
	n, parts := 0, split(r, 10_000)
	for i, p := range parts {
		var got wire.Roster
		if err := wire.Decode(p, &got); err != nil || len(p) > 10_000 {
			t.Fatalf("part of %d bytes: %v", len(p), err)
		}
		if n += len(got.Members); got.More != (i < len(parts)-1) || got.Token != 7 {
			t.Errorf("part %d of %d: more %v", i, len(parts), got.More)
		}
	}
	if n != 100 || len(parts) < 10 {
		t.Errorf("%d members in %d parts", n, len(parts))
	}
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		meta := map[string]string{"k": strings.Repeat("x", 4000)}
		ns := e.Namespace()
		var all []*Group
		for range 150 { // 600 KiB of metadata, at 512 KiB a message
			g, err := Join(t.Context(), e.Namespace(), "g", Config{Meta: meta})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, g)
		}
		c, err := Open(t.Context(), ns, "g")
		if err != nil {
			t.Fatal(err)
		}
		r, err := c.Roster(t.Context())
		if err != nil || len(r.Members) != 150 || r.Leader != all[0].ID() || r.Members[149].Meta["k"] != meta["k"] {
			t.Errorf("roster of %d, leader %q, first %q, %d, %v", len(r.Members), r.Leader, all[0].ID(), len(r.Members[149].Meta["k"]), err)
		}
	})
}

// A record that was written into a bucket that is lost by then proves nothing: the member begins again in the next bucket, where
// the next leader can know of it (H7, M2).
func TestStartedInLostBucket(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		e.Invariants().BucketLost()
		if _, err := Join(t.Context(), e.Namespace(), "g", Config{ID: "a"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		for range 8 { // the loop may see the loss or the new incarnation first
			ns := e.Namespace()
			in := ns.Inner()
			stored := make(chan struct{})
			stop, err := in.Store.Hints(wire.MemberKey("g", "b"), func(e kv.Entry) {
				if e.Op == kv.Record {
					select {
					case <-stored:
					default:
						close(stored)
					}
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			in.Gate.Shut() // its loop is paused until its record stands
			joined := make(chan *Group, 1)
			go func() {
				g, err := Join(context.Background(), ns, "g", Config{ID: "b"})
				if err != nil {
					t.Error(err)
				}
				joined <- g
			}()
			<-stored
			stop()
			time.Sleep(100 * time.Millisecond)
			lost := in.Store.Lost()
			js, err := e.Conn(ns).JetStream()
			if err != nil {
				t.Fatal(err)
			}
			if err := js.DeleteStream("KV_" + in.Store.Bucket()); err != nil {
				t.Fatal(err)
			}
			<-lost
			if err := in.Store.Reattach(t.Context()); err != nil { // by another loop of the process
				t.Fatal(err)
			}
			in.Gate.Open()
			g := <-joined
			en, err := in.Store.Read(t.Context(), wire.MemberKey("g", "b"))
			if err != nil {
				t.Fatal(err)
			}
			if g.Live() && en.Op != kv.Record {
				t.Fatal("H7: a member without a record in the bucket")
			}
			if err := g.Leave(t.Context()); err != nil {
				t.Error(err)
			}
			if err := ns.Close(t.Context()); err != nil {
				t.Error(err)
			}
			time.Sleep(30 * time.Second)
		}
	})
}
