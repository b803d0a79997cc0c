package partition_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/partition"
	"github.com/quorate/quorate/testenv"
)

// Each way in which a share ends says so by its cause (design 2.1): what its work hears first, what its context ends with, and when, by its own clock. So do
// the membership, and work that only the leader does, where they end with it.
func TestCauses(t *testing.T) {
	type ends struct {
		work, share error // of the share's Work and Context
		member      error // of the membership; nil: it goes on, or joins again by itself
		lead        error // of the leader's work, if the member leads; nil: it goes on
		past        bool  // it ran out: until is before it was noticed
	}
	for name, c := range map[string]struct {
		leads   bool // the member leads the group
		minimum int
		do      func(t *testing.T, e *testenv.Env, w, other *worker)
		want    ends
	}{
		"another joins": {do: func(t *testing.T, e *testenv.Env, w, _ *worker) { start(t, e.Namespace(), "third", 0) },
			want: ends{work: quorate.ErrRevoked, share: quorate.ErrRevoked}},
		"it gives up its share": {do: func(t *testing.T, _ *testenv.Env, w, _ *worker) {
			go func() { _ = w.p.Leave(t.Context()) }()
		}, want: ends{work: quorate.ErrRevoked, share: quorate.ErrRevoked}},
		"it leaves": {do: func(t *testing.T, _ *testenv.Env, w, _ *worker) {
			go func() { _ = w.g.Leave(t.Context()) }()
		}, want: ends{work: quorate.ErrLeft, share: quorate.ErrLeft, member: quorate.ErrLeft}},
		"it leaves, and leads": {leads: true, do: func(t *testing.T, _ *testenv.Env, w, _ *worker) {
			go func() { _ = w.g.Leave(t.Context()) }()
		}, want: ends{work: quorate.ErrLeft, share: quorate.ErrLeft, member: quorate.ErrLeft, lead: quorate.ErrResigned}},
		"it is cut off": {do: func(_ *testing.T, e *testenv.Env, w, _ *worker) { e.Cut(w.ns) },
			want: ends{work: quorate.ErrExpired, share: quorate.ErrExpired, past: true}},
		"it is cut off, and leads": {leads: true, do: func(_ *testing.T, e *testenv.Env, w, _ *worker) { e.Cut(w.ns) },
			want: ends{work: quorate.ErrExpired, share: quorate.ErrExpired, lead: quorate.ErrExpired, past: true}},
		"it stands still": {do: func(_ *testing.T, e *testenv.Env, w, _ *worker) {
			e.Pause(w.ns)
			time.AfterFunc(4*lease, func() { e.Resume(w.ns) })
		}, want: ends{work: quorate.ErrExpired, share: quorate.ErrExpired, past: true}},
		"it is evicted": {do: func(t *testing.T, _ *testenv.Env, w, other *worker) {
			if err := other.g.Evict(t.Context(), "w"); err != nil {
				t.Error(err)
			}
		}, want: ends{work: quorate.ErrEvicted, share: quorate.ErrEvicted, member: quorate.ErrEvicted}},
		"it is evicted, and leads": {leads: true, do: func(t *testing.T, _ *testenv.Env, w, other *worker) {
			if err := other.g.Evict(t.Context(), "w"); err != nil {
				t.Error(err)
			}
		}, want: ends{work: quorate.ErrEvicted, share: quorate.ErrEvicted, member: quorate.ErrEvicted, lead: quorate.ErrEvicted}},
		"its leader steps down": {leads: true, do: func(t *testing.T, _ *testenv.Env, w, other *worker) {
			if err := other.g.StepDown(t.Context()); err != nil {
				t.Error(err)
			}
		}, want: ends{lead: quorate.ErrStepDown}}, // P4: shares stay
		"the group is too small": {minimum: 2, do: func(t *testing.T, _ *testenv.Env, _, other *worker) {
			go func() { _ = other.g.Leave(t.Context()) }()
		}, want: ends{work: quorate.ErrNotQuorate, share: quorate.ErrNotQuorate}},
		"the group is too small, and it leads": {leads: true, minimum: 2, do: func(t *testing.T, _ *testenv.Env, _, other *worker) {
			go func() { _ = other.g.Leave(t.Context()) }()
		}, want: ends{work: quorate.ErrNotQuorate, share: quorate.ErrNotQuorate, lead: quorate.ErrNotQuorate}},
		"the bucket is lost": {leads: true, do: func(t *testing.T, e *testenv.Env, w, _ *worker) {
			e.Invariants().BucketLost()
			if _, err := e.Conn(w.ns).Request("$JS.API.STREAM.DELETE."+wire.Stream("default"), nil, time.Second); err != nil {
				t.Error(err)
			}
		}, want: ends{work: quorate.ErrBucketLost, share: quorate.ErrBucketLost, lead: quorate.ErrBucketLost}},
		"its connection is closed": {leads: true, do: func(_ *testing.T, e *testenv.Env, w, _ *worker) { e.Conn(w.ns).Close() },
			want: ends{work: quorate.ErrConnClosed, share: quorate.ErrConnClosed, member: quorate.ErrConnClosed, lead: quorate.ErrConnClosed}},
		"another process takes its id": {do: func(_ *testing.T, e *testenv.Env, w, _ *worker) {
			e.Cut(w.ns)
			ns := e.Namespace()
			go func() { _, _ = coord.Join(context.Background(), ns, "g", coord.Config{ID: "w"}) }()
			time.AfterFunc(6*lease, func() { e.Heal(w.ns) })
		}, want: ends{work: quorate.ErrExpired, share: quorate.ErrExpired, member: quorate.ErrIDInUse, past: true}},
	} {
		testenv.Run(t, func(t *testing.T, e *testenv.Env) {
			member := func(id string) *worker {
				w := &worker{ns: e.Namespace(), done: make(chan error, 1)}
				var err error
				if w.g, err = coord.Join(t.Context(), w.ns, "g", coord.Config{ID: id, MinSize: c.minimum}); err != nil {
					t.Fatal(err)
				}
				if w.p, err = partition.Join(t.Context(), w.g, partition.Config{}); err != nil {
					t.Fatal(err)
				}
				return w
			}
			var w, other *worker
			if c.leads {
				w, other = member("w"), member("other")
			} else {
				other, w = member("other"), member("w")
			}
			ctx, cancel := context.WithCancel(context.Background())
			shares, terms := make(chan *partition.Assignment, 9), make(chan context.Context, 9)
			done := make(chan error, 3)
			run := func(w *worker, told chan *partition.Assignment) {
				done <- w.p.Run(ctx, func(ctx context.Context, a *partition.Assignment) error {
					told <- a
					<-ctx.Done()
					time.Sleep(lease / 50) // the work takes a moment to end: the soft end comes before the hard one
					return nil
				})
			}
			go run(w, shares)
			go run(other, make(chan *partition.Assignment, 9))
			go func() {
				done <- w.g.Lead(ctx, func(ctx context.Context, _ *leader.Term) error { terms <- ctx; <-ctx.Done(); return nil })
			}()
			time.Sleep(2 * lease)
			a, led := latest(shares), latest(terms)
			if a == nil || !a.Live() || a.Total != 2 || (led != nil) != c.leads || led != nil && led.Err() != nil {
				t.Fatalf("%s: before it share %+v, leads %t", name, a, led != nil)
			}
			cause := func(what string, ctx context.Context, want error) {
				t.Helper()
				if got := context.Cause(ctx); !errors.Is(got, want) || want == nil && got != nil {
					t.Errorf("%s: %s ended with %v, want %v", name, what, got, want)
				}
			}
			c.do(t, e, w, other)
			if c.want.share == nil {
				time.Sleep(2 * lease)
				if !a.Live() {
					t.Errorf("%s: the share has ended: %v", name, context.Cause(a.Context()))
				}
			} else {
				select {
				case <-a.Work().Done():
				case <-time.After(10 * lease):
					t.Fatalf("%s: nothing happened", name)
				}
				cause("work", a.Work(), c.want.work)
				<-a.Context().Done()
				noticed := time.Now()
				cause("share", a.Context(), c.want.share)
				if a.Live() {
					t.Errorf("%s: live after its end", name)
				}
				// What was let go of ended as it was said; what ran out had ended a moment before that was noticed, or long before by one that stood still.
				if late := noticed.Sub(a.Until()); late < 0 || !c.want.past && late > 0 || late > 4*lease {
					t.Errorf("%s: held until %v before it was noticed", name, late)
				}
			}
			if led != nil && c.want.lead != nil {
				<-led.Done()
				cause("leader's work", led, c.want.lead)
			}
			time.Sleep(10 * lease)
			cause("membership", w.g.Context(), c.want.member)
			cancel()
			for range 3 {
				<-done
			}
		})
	}
}

// latest is the last of what has been told, the zero value if nothing has.
func latest[T any](told chan T) (last T) {
	for len(told) > 0 {
		last = <-told
	}
	return last
}
