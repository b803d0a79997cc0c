package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Scale is how much is measured.
type scale int

const (
	full    scale = iota // what docs/benchmarks.md shows
	quickly              // within two minutes
	tiny                 // the tests: does it work at all
)

func (s scale) String() string { return [...]string{"full", "quick", "tiny"}[s] }

// A bench is what one benchmark works with.
type bench struct {
	scale    scale
	progress io.Writer
	profiles string // directory for processor profiles; "": none
	name     string
	dir      string
	children *children
}

// say tells whoever watches how far it is.
func (b *bench) say(format string, args ...any) {
	_, _ = fmt.Fprintf(b.progress, format, args...) // nothing hangs on it
}

// pick chooses by the scale.
func pick[T any](b *bench, atFull, atQuick, atTiny T) T { return []T{atFull, atQuick, atTiny}[b.scale] }

// A series is what was measured of one thing: milliseconds, or another unit that its row names.
type series struct {
	mu     sync.Mutex
	values []float64
}

func (s *series) add(v float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values = append(s.values, v)
}

func (s *series) time(d time.Duration) { s.add(float64(d) / float64(time.Millisecond)) }

// stat sums a series up. Nil when nothing was measured.
func (s *series) stat() *Stat {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.values) == 0 {
		return nil
	}
	v := slices.Sorted(slices.Values(s.values))
	return &Stat{P50: percentile(v, 50), P99: percentile(v, 99), Max: v[len(v)-1], N: len(v)}
}

// percentile is the nearest-rank one of sorted values: always one that was measured. Of fewer than a hundred the 99th is
// the largest.
func percentile(sorted []float64, p float64) float64 {
	i := int(math.Ceil(p/100*float64(len(sorted)))) - 1
	return sorted[max(i, 0)]
}

// single is the stat of one value.
func single(v float64) *Stat { return &Stat{P50: v, P99: v, Max: v, N: 1} }

// byTurns measures both sides n times: A, B, then B, A, and so on, so that neither always follows the other. It ends sooner
// when that takes long: a side that is slow is measured less often, and its n says so.
func (b *bench) byTurns(ctx context.Context, n int, ours, theirs func(i int) error) error {
	for i, end := 0, time.Now().Add(pick(b, 20*time.Second, 5*time.Second, 20*time.Second)); i < n && time.Now().Before(end); i++ {
		first, second := ours, theirs
		if i%2 == 1 {
			first, second = theirs, ours
		}
		if err := cmp.Or(first(i), second(i), ctx.Err()); err != nil {
			return err
		}
	}
	return nil
}

// atOnce runs all at the same time, waits for all, and returns the first error; the others are told by their context.
func atOnce(ctx context.Context, fns ...func(ctx context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, fn := range fns {
		wg.Go(func() {
			if err := fn(ctx); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// each calls fn for 0..n-1, at most so many at a time.
func each(ctx context.Context, n, atATime int, fn func(ctx context.Context, i int) error) error {
	next := make(chan int)
	fns := []func(context.Context) error{func(ctx context.Context) error {
		defer close(next)
		for i := range n {
			select {
			case next <- i:
			case <-ctx.Done():
				return nil
			}
		}
		return nil
	}}
	for range min(n, atATime) {
		fns = append(fns, func(ctx context.Context) error {
			for i := range next {
				if err := fn(ctx, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return atOnce(ctx, fns...)
}

// sleep waits, unless the context ends first.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// anytime waits for a random part of d: what is measured next meets the periods of either side at any phase.
func anytime(ctx context.Context, d time.Duration) error { return sleep(ctx, rand.N(d)+1) }

// recv takes what another goroutine has measured.
func recv[T any](ctx context.Context, what string, c <-chan T) (T, error) {
	select {
	case v := <-c:
		return v, nil
	case <-ctx.Done():
		var zero T
		return zero, fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
}
