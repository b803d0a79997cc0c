package partition

import (
	"context"
	"testing"
	"time"

	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/testenv"
)

// One Run ends, as the last, and another begins before the first has given the share up: the second goes on having work.
func TestRunBeginsWhileTheLastEnds(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		const lease = 3 * time.Second
		g, err := coord.Join(t.Context(), e.Namespace(), "g", coord.Config{ID: "w"})
		if err != nil {
			t.Fatal(err)
		}
		p, err := Join(t.Context(), g, Config{})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * lease)
		first := p.enter()
		if p.take(first) == nil {
			t.Fatal("no share")
		}
		if !p.exit(first) {
			t.Fatal("not the last")
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() {
			done <- p.Run(ctx, func(ctx context.Context, _ *Assignment) error {
				<-ctx.Done()
				return nil
			})
		}()
		time.Sleep(time.Millisecond)
		bounded, stop := context.WithTimeout(t.Context(), lease)
		defer stop()
		if err := p.giveUp(bounded); err != nil { // of the first
			t.Error(err)
		}
		time.Sleep(4 * lease)
		if _, ok := p.Assignment(); !ok {
			t.Error("the Run that began has no share, and never gets one")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A group that maps keys in a way this version does not know: the member stays unassigned, leaves its share to those who know, and takes it
// again when it is known once more.
func TestUnknownMap(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		const lease = 3 * time.Second
		var ps []*Partition
		for _, id := range []string{"a", "b"} {
			g, err := coord.Join(t.Context(), e.Namespace(), "g", coord.Config{ID: id})
			if err != nil {
				t.Fatal(err)
			}
			p, err := Join(t.Context(), g, Config{Buckets: 4})
			if err != nil {
				t.Fatal(err)
			}
			ps = append(ps, p)
		}
		held := func() (n int) {
			for _, p := range ps {
				n += len(p.Buckets())
			}
			return n
		}
		time.Sleep(lease)
		if held() != 4 {
			t.Fatalf("%d buckets held, want 4", held())
		}
		set := func(name string) {
			for _, p := range ps {
				p.h.SetParams(func(w *wire.Params) { w.Map = name })
			}
		}
		set("mod-md5") // as a later version might
		time.Sleep(2 * lease)
		if held() != 0 {
			t.Errorf("%d buckets held by who cannot tell whose a key is", held())
		}
		for _, p := range ps {
			if _, ok := p.Assignment(); ok || p.working {
				t.Errorf("%s has a share, or wants one", p.g.ID())
			}
		}
		set(MapFNV1a)
		time.Sleep(4 * lease)
		if held() != 4 {
			t.Errorf("%d buckets held once the map is known again, want 4", held())
		}
	})
}
