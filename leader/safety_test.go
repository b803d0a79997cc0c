package leader_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/testenv"
)

// R1, L3: what a paused holder sees when it goes on.
func TestPausedHolder(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		na := open(e)
		ta := campaign(t, elector(t, na, "a"))
		won := win(t, elector(t, open(e), "b"))
		time.Sleep(short)
		e.Pause(na)
		time.Sleep(short)
		if ta.Live() {
			t.Fatal("L3: a paused holder is live a lease later")
		}
		if ta.Context().Err() != nil {
			t.Fatal("the loop of a paused process ended the term")
		}
		tb, _ := within(t, won)
		e.Resume(na)
		if ta.Live() {
			t.Fatal("L3: live at once after the pause")
		}
		<-ta.Context().Done()
		cause(t, ta, quorate.ErrExpired)
		if until := ta.Until(); !until.Before(time.Now().Add(-short/20)) || until.After(tb.Since()) {
			t.Errorf("ended at %v by its own count, the next began at %v", until, tb.Since())
		}
		time.Sleep(10 * short)
		if !tb.Live() {
			t.Error("L1: what the resumed process did ended the term of the next")
		}
	})
}

// R3: no answer, in either direction or both, ends a term by its deadline and never later.
func TestBlackhole(t *testing.T) {
	for _, d := range []testenv.Direction{testenv.ToServer, testenv.ToClient, testenv.Both} {
		testenv.Run(t, func(t *testing.T, e *testenv.Env) {
			na := open(e)
			ta := campaign(t, elector(t, na, "a"))
			won := win(t, elector(t, open(e), "b"))
			time.Sleep(3*short + short/12)
			e.Link(na).Cut(d)
			start := time.Now()
			<-ta.Context().Done()
			// The last renewal that was answered was sent lease/12 before the cut.
			between(t, "R3: the end after a cut "+d.String(), time.Since(start), 0, short-short/10-short/12+instant)
			cause(t, ta, quorate.ErrExpired)
			notYet(t, won, "L1: before the margin")
			tb, _ := within(t, won)
			e.Heal(na)
			time.Sleep(3 * short)
			if !tb.Live() {
				t.Errorf("L1: what was held back %v ended the next term: %v", d, context.Cause(tb.Context()))
			}
		})
	}
}

// R4: the holder ends by the clock that shows most, the candidate waits by the monotonic one alone.
func TestClocksJump(t *testing.T) {
	jumps := map[string]func(*testenv.Env, *quorate.Namespace){
		"wall":    func(e *testenv.Env, ns *quorate.Namespace) { e.JumpWall(ns, time.Hour) },
		"suspend": func(e *testenv.Env, ns *quorate.Namespace) { e.Suspend(ns, time.Hour) },
	}
	for name, jump := range jumps {
		testenv.Run(t, func(t *testing.T, e *testenv.Env) {
			na, nb := open(e), open(e)
			ta := campaign(t, elector(t, na, "a"))
			won := win(t, elector(t, nb, "b"))
			time.Sleep(2*short + short/12)
			jump(e, nb)
			time.Sleep(short / 2)
			jump(e, nb)
			time.Sleep(short)
			notYet(t, won, name+": the candidate's clock jumped")
			if !ta.Live() {
				t.Fatalf("%s: the candidate's jump ended the holder's term", name)
			}
			jump(e, na)
			start := time.Now()
			if ta.Live() {
				t.Fatalf("%s: live after the holder's own clock jumped", name)
			}
			e.JumpWall(na, -time.Hour)
			if ta.Live() {
				t.Fatalf("%s: live again when the clock jumped back", name)
			}
			<-ta.Context().Done()
			cause(t, ta, quorate.ErrExpired)
			jump(e, nb)
			// Nobody said that its work has returned, so it is not released.
			within(t, won)
			between(t, name+": take-over", time.Since(start), short-short/6, short+short/6)
		})
	}
}

// R5: what passes by itself ends no term.
func TestTransientErrors(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		na := open(e)
		ta := campaign(t, elector(t, na, "a"))
		won := win(t, elector(t, open(e), "b"))
		for range 20 { // a connection that is reset again and again
			e.Link(na).Kill()
			time.Sleep(short)
		}
		var writes atomic.Int32
		remove := e.Link(na).Filter(func(f *testenv.Frame) testenv.Verdict {
			if isWrite(f) && writes.Add(1)%2 == 0 {
				return testenv.Drop
			}
			return testenv.Pass
		})
		time.Sleep(20 * short)
		remove()
		if n := writes.Load(); n < 50 {
			t.Fatalf("the filter saw %d writes: no fault happened", n)
		}
		for range 20 { // everything late, for half a lease each
			remove := e.Link(na).Filter(func(f *testenv.Frame) testenv.Verdict { return testenv.Delay(short / 20) })
			time.Sleep(short / 2)
			remove()
			time.Sleep(short / 2)
		}
		notYet(t, won, "R5")
		if !ta.Live() {
			t.Fatalf("R5: the term ended: %v", context.Cause(ta.Context()))
		}
	})
}

// R5: a server that is restarted within the lease, on its files and over a real socket.
func TestServerRestart(t *testing.T) {
	s := testenv.Real(t)
	inv := testenv.Watch(t)
	ns, err := inv.Open(t.Context(), s.Connect("a"), quorate.Config{Lease: 6 * time.Second, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close(context.Background())
	ta := campaign(t, elector(t, ns, "a"))
	renewed := make(chan uint64, 100)
	stop, err := ns.Inner().Store.Hints(wire.ElectionKey("job"), func(e kv.Entry) { renewed <- e.Revision })
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	s.Stop()
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	for rev := range renewed { // after lease/6 of real time
		if rev > ta.Token() {
			break
		}
	}
	if !ta.Live() {
		t.Fatalf("R5: the term ended: %v", context.Cause(ta.Context()))
	}
	if err := ta.Resign(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// R6, L4: acknowledgements that are lost are no refusals, and never lock their owner out.
func TestAcknowledgementsEaten(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		na, nb := open(e), open(e)
		a := elector(t, na, "a")
		e.Link(na).DropAcks(1)
		start := time.Now()
		ta := campaign(t, a)
		between(t, "R6: an acquire whose answer was lost", time.Since(start), short/6, short/6+instant)
		if rev := stands(t, nb).Revision; rev != ta.Token() {
			t.Errorf("L2: token %d, acquired as %d", ta.Token(), rev)
		}
		won := win(t, elector(t, nb, "b"))
		time.Sleep(short)
		for range 10 {
			e.Link(na).DropAcks(2)
			time.Sleep(2 * short)
		}
		notYet(t, won, "R6: renewals without answers")
		if !ta.Live() {
			t.Fatalf("R6: term ended: %v", context.Cause(ta.Context()))
		}
		time.Sleep(short)
		e.Link(na).DropAcks(1)
		start = time.Now()
		if err := ta.Resign(t.Context()); err != nil {
			t.Fatal(err)
		}
		within(t, won)
		between(t, "L5: a release whose answer was lost", time.Since(start), 0, short/6+instant)
	})
}

// R8, R9: the key of an election whose processes are all dead goes by itself.
func TestKeyGoesByItself(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		na, other := open(e), open(e)
		ta := campaign(t, elector(t, na, "a"))
		time.Sleep(short) // some renewals
		if stands(t, other).Revision == ta.Token() {
			t.Fatal("not renewed")
		}
		e.Kill(na)
		time.Sleep(9 * time.Second)
		if !holds(t, other) {
			t.Error("R11: the key went within its time to live")
		}
		time.Sleep(3 * time.Second)
		if s := stands(t, other); s.Op == kv.Record {
			t.Errorf("R9: the key is there 12 s after the last process died: %+v", s)
		}
	})
}

// L2: the token is the revision of the acquiring write, for the whole term, and what others are told.
func TestToken(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		na, nb := open(e), open(e)
		a := elector(t, na, "a")
		ta := campaign(t, a)
		first := ta.Token()
		if rev := stands(t, nb).Revision; rev != first {
			t.Fatalf("L2: token %d, acquired as %d", first, rev)
		}
		for range 20 {
			time.Sleep(short)
			s, err := a.Leader(t.Context())
			if err != nil || s.Token != first || ta.Token() != first {
				t.Fatalf("L2: token %d, record says %+v (%v), was %d", ta.Token(), s, err, first)
			}
		}
		if stands(t, nb).Revision == first {
			t.Fatal("no renewal happened")
		}
	})
}

// E8: a foreign hand under the key ends the term at once, a release is told from a foreign delete by its nonce, and the
// holder whose key was taken campaigns again.
func TestForeignHand(t *testing.T) {
	hands := map[string]kv.Write{
		"purge":              {Purge: true},
		"purge with reason":  {Purge: true, Reason: wire.ReasonResign},
		"another's nonce":    {Purge: true, Reason: wire.ReasonResign, Nonce: "forged.1"},
		"garbage":            {Value: []byte("garbage")},
		"of another version": {Value: []byte(`{"v":2,"id":"x"}`)},
	}
	for name, w := range hands {
		testenv.Run(t, func(t *testing.T, e *testenv.Env) {
			na, nb, other := open(e), open(e), open(e)
			a := elector(t, na, "a")
			ta := campaign(t, a)
			won := win(t, elector(t, nb, "b"))
			time.Sleep(2 * short)
			rev := put(t, other, w)
			start := time.Now()
			<-ta.Context().Done()
			between(t, name+": end of the term", time.Since(start), 0, instant)
			cause(t, ta, quorate.ErrLost)
			tb, _ := within(t, won)
			wait := short
			if !w.Purge { // not known how long its holder may hold
				wait = 10 * time.Second
			}
			between(t, name+": take-over", time.Since(start), wait, wait+short/6)
			if tb.Token() <= rev {
				t.Errorf("L2: token %d, the foreign write was %d", tb.Token(), rev)
			}
			again := win(t, a) // says that the work has returned
			time.Sleep(short)
			if err := tb.Resign(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, d := within(t, again); d > instant {
				t.Errorf("%s: who lost its key waits %v for a released one", name, d)
			}
		})
	}
}

// E3: a candidate that never saw the record waits ten seconds for what it cannot judge, and nothing for a release.
func TestNeverSeen(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		other := open(e)
		put(t, other, kv.Write{Purge: true})
		_, d := within(t, win(t, elector(t, open(e), "a")))
		between(t, "E3: over a foreign marker", d, 10*time.Second, 10*time.Second+short/4)
	})
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		a := elector(t, open(e), "a")
		if err := campaign(t, a).Resign(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, d := within(t, win(t, elector(t, open(e), "b")))
		between(t, "E3: over a release", d, 0, short/10) // its place in a queue that nobody knows
	})
}

// R16, L5: without a single notification a dead holder is followed within two leases, and a release is noticed by the
// first in the queue at its next look.
func TestHintsDropped(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		na, nb, nc := open(e), open(e), open(e)
		first := func(wb, wc <-chan *leader.Term) *leader.Term {
			select {
			case term := <-wb:
				return term
			case term := <-wc:
				return term
			case <-time.After(time.Minute):
				t.Fatal("no term within a minute")
			}
			return nil
		}
		for i := range 12 {
			a, b, c := elector(t, na, "a"), elector(t, nb, "b"), elector(t, nc, "c")
			ta := campaign(t, a)
			wb := win(t, b)
			time.Sleep(short) // b is in the queue before c
			wc := win(t, c)
			time.Sleep(2 * short)
			e.Link(nb).DropHints(true)
			e.Link(nc).DropHints(true)
			time.Sleep(2*short + time.Duration(i)*short/72)
			start := time.Now()
			if i == 11 {
				e.Kill(na)
				first(wb, wc)
				between(t, "R16: take-over without a hint", time.Since(start), short-short/6, 2*short)
				return
			}
			if err := ta.Resign(t.Context()); err != nil {
				t.Fatal(err)
			}
			first(wb, wc)
			between(t, "L5: hand-over without a notification", time.Since(start), 0, short/6+instant)
			for _, el := range []*leader.Elector{a, b, c} {
				if err := el.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			e.Link(nb).DropHints(false)
			e.Link(nc).DropHints(false)
		}
	})
}

// R17: a candidate that was away for longer than any trace of the release stays away no longer than a lease.
func TestAwayForLong(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		na, nb := open(e), open(e)
		a := elector(t, na, "a")
		ta := campaign(t, a)
		won := win(t, elector(t, nb, "b"))
		time.Sleep(2 * short)
		e.Cut(nb)
		if err := ta.Resign(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		if s := stands(t, na); s.Op != kv.None {
			t.Fatalf("a trace is left: %+v", s)
		}
		notYet(t, won, "cut off")
		e.Link(nb).HealDropping()
		within(t, won)
	})
}

// R19: a bucket that is deleted ends the term, and the elector goes on in the new one.
func TestBucketDeleted(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		na := e.Namespace()
		a, b := elector(t, na, "a"), elector(t, e.Namespace(), "b")
		ta := campaign(t, a)
		won := win(t, b)
		time.Sleep(2 * lease)
		if _, err := e.Conn(na).Request("$JS.API.STREAM.DELETE."+wire.Stream("default"), nil, time.Second); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		<-ta.Context().Done()
		cause(t, ta, quorate.ErrBucketLost)
		between(t, "R19: the end", time.Since(start), 0, lease)
		again := win(t, a)
		var next *leader.Term
		select {
		case next = <-won:
		case next = <-again:
		case <-time.After(time.Minute):
		}
		if next == nil {
			t.Fatal("R19: nobody leads in the new bucket")
		}
		between(t, "E3: the first term in the new bucket", time.Since(start), lease, 3*lease)
		if next.Token() <= ta.Token() {
			t.Errorf("L2: token %d in the new bucket, %d in the old", next.Token(), ta.Token())
		}
		time.Sleep(3 * lease)
		if !next.Live() {
			t.Errorf("term in the new bucket ended: %v", context.Cause(next.Context()))
		}
	})
}

// R19, E5: what a candidate was told of the old bucket before it noticed the loss counts for nothing in one that was put back: there
// revisions are lower. It stood still meanwhile, so that both wait for it at once.
func TestBucketPutBack(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		na, nb := e.Namespace(), e.Namespace()
		var won []<-chan *leader.Term
		for i := range 16 { // which of the two a loop takes first is up to chance
			name := fmt.Sprintf("job%d", i)
			a, err := leader.New(na, name, leader.Config{ID: "a"})
			if err != nil {
				t.Fatal(err)
			}
			campaign(t, a)
			b, err := leader.New(nb, name, leader.Config{ID: "b"})
			if err != nil {
				t.Fatal(err)
			}
			won = append(won, win(t, b))
		}
		time.Sleep(2 * lease)
		e.Pause(nb)
		time.Sleep(lease) // renewals are heard of
		e.Kill(na)
		e.Invariants().BucketLost()
		api := func(what string, body []byte) []byte {
			m, err := e.Conn(nb).Request("$JS.API.STREAM."+what+"."+wire.Stream("default"), body, time.Second)
			if err != nil || bytes.Contains(m.Data, []byte(`"error":`)) {
				t.Fatalf("%s: %v, %v", what, m, err)
			}
			return m.Data
		}
		var info struct {
			Config map[string]any `json:"config"`
		}
		if err := json.Unmarshal(api("INFO", nil), &info); err != nil {
			t.Fatal(err)
		}
		delete(info.Config, "first_seq")
		config, err := json.Marshal(info.Config)
		if err != nil {
			t.Fatal(err)
		}
		api("DELETE", nil)
		api("CREATE", config)
		time.Sleep(20 * time.Second) // the store looks for it by itself
		e.Resume(nb)
		for _, w := range won {
			term, _ := within(t, w)
			if term.Token() > 1000 {
				t.Errorf("token %d: the bucket was not put back", term.Token())
			}
		}
	})
}

// R21, R22: an acquire that lands after its author gave up is undone within one lease.
func TestAbandonedAcquire(t *testing.T) {
	late := map[string]func(e *testenv.Env, ns *quorate.Namespace) (back func()){
		"held by the network": func(e *testenv.Env, ns *quorate.Namespace) func() {
			e.Link(ns).Cut(testenv.ToServer)
			return func() { e.Heal(ns) }
		},
		"without an answer": func(e *testenv.Env, ns *quorate.Namespace) func() {
			e.Link(ns).Cut(testenv.ToClient)
			return func() { e.Heal(ns) }
		},
		"kept by the connection": func(e *testenv.Env, ns *quorate.Namespace) func() {
			e.Link(ns).Down(true)
			e.Link(ns).Kill()
			return func() { e.Link(ns).Down(false) }
		},
	}
	for name, away := range late {
		for _, hints := range []bool{true, false} {
			testenv.Run(t, func(t *testing.T, e *testenv.Env) {
				na, nb := open(e), open(e)
				a := elector(t, na, "a")
				e.Link(na).DropHints(!hints)
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				if _, err := a.Campaign(ctx); !errors.Is(err, context.Canceled) {
					t.Fatalf("campaign with an ended context: %v", err)
				}
				if err := campaignThenResign(t, a); err != nil {
					t.Fatal(err)
				}
				back := away(e, na)
				ctx, cancel = context.WithTimeout(t.Context(), short/2)
				term, err := a.Campaign(ctx)
				cancel()
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("%s: campaign: %v, %v", name, term, err)
				}
				time.Sleep(5 * time.Second) // longer than anybody looks for it by himself
				back()
				landed := false
				for range 20 { // a twentieth of a lease each
					time.Sleep(short / 20)
					s := stands(t, nb)
					landed = landed || s.Op == kv.Record || s.Reason == wire.ReasonUndone
				}
				time.Sleep(short / 20)
				if s := stands(t, nb); s.Op == kv.Record {
					t.Errorf("R22: %s, hints %v: the key is held a lease later: %s", name, hints, s.Value)
				}
				if !landed && name != "kept by the connection" {
					t.Errorf("%s: nothing landed late: no fault happened", name)
				}
			})
		}
	}
}

func campaignThenResign(t *testing.T, e *leader.Elector) error {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		term, err := e.TryCampaign(ctx)
		switch {
		case err == nil:
			return term.Resign(ctx)
		case !errors.Is(err, leader.ErrHeld):
			return err
		}
		time.Sleep(short)
	}
}

// L4: cancelled at any moment, a campaign leaves nothing behind, and the same elector can campaign again at once.
func TestCancelAtEachStep(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		na, nb := open(e), open(e)
		slow := func(f *testenv.Frame) testenv.Verdict {
			if strings.HasPrefix(f.Verb, "H") || f.IsMessage() {
				return testenv.Delay(2 * time.Millisecond)
			}
			return testenv.Pass
		}
		e.Link(na).Filter(slow)
		a := elector(t, na, "a")
		var won, cancelled int
		for d := time.Duration(0); d < 30*time.Millisecond; d += time.Millisecond / 2 {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			term, err := a.Campaign(ctx)
			cancel()
			if err == nil {
				won++
				if err := term.Resign(t.Context()); err != nil {
					t.Fatal(err)
				}
			} else {
				cancelled++
			}
			time.Sleep(short / 2)
			if s := stands(t, nb); s.Op == kv.Record {
				t.Fatalf("cancelled after %v: the key is held half a lease later: %s", d, s.Value)
			}
		}
		if won == 0 || cancelled == 0 {
			t.Errorf("%d won, %d cancelled: both must happen", won, cancelled)
		}
		campaign(t, a)
	})
}
