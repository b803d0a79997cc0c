package inner_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/inner"
)

// Attempts run at most limit at once, in the order of their arrival, and are told that they waited.
func TestAttempts(t *testing.T) {
	a := inner.NewAttempts(2)
	var mu sync.Mutex
	var order []int
	running, most := 0, 0
	started := make(chan struct{}, 10)
	goOn := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Add(1)
		a.Go(func(late time.Duration) {
			defer wg.Done()
			mu.Lock()
			order = append(order, i)
			running++
			most = max(most, running)
			if late < 0 || i > 1 && late == 0 {
				t.Errorf("attempt %d waited %v", i, late)
			}
			mu.Unlock()
			started <- struct{}{}
			<-goOn
			mu.Lock()
			running--
			mu.Unlock()
		})
	}
	<-started
	<-started
	if len(started) > 0 {
		t.Error("a third attempt began")
	}
	close(goOn)
	wg.Wait()
	slices.Sort(order[:2])
	if most > 2 || len(order) != 10 || order[0] != 0 || order[1] != 1 {
		t.Errorf("at most %d at once, order %v", most, order)
	}
	done := make(chan struct{})
	a.Go(func(time.Duration) { close(done) }) // afterwards too
	<-done
}
