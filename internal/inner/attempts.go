package inner

import (
	"sync"
	"time"
)

// Attempts carries out attempts, at most limit at once, in order of arrival: ten thousand renewals that are sent together, after an
// outage, would each wait for all the others and run out of time, and their goroutines take more memory than what they renew.
type Attempts struct {
	mu      sync.Mutex
	limit   int
	running int
	waiting []attempt
}

type attempt struct {
	since time.Time
	fn    func(late time.Duration)
}

// NewAttempts makes one.
func NewAttempts(limit int) *Attempts { return &Attempts{limit: limit} }

// Go has fn called soon, on a goroutine of its own or of an attempt before it, and told how long it has waited for that.
func (a *Attempts) Go(fn func(late time.Duration)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.running == a.limit {
		a.waiting = append(a.waiting, attempt{time.Now(), fn})
		return
	}
	a.running++
	go a.run(attempt{time.Now(), fn})
}

func (a *Attempts) run(t attempt) {
	for {
		t.fn(time.Since(t.since))
		a.mu.Lock()
		if len(a.waiting) == 0 {
			a.waiting = nil
			a.running--
			a.mu.Unlock()
			return
		}
		t, a.waiting[0] = a.waiting[0], attempt{}
		a.waiting = a.waiting[1:]
		a.mu.Unlock()
	}
}
