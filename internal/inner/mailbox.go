package inner

import "sync"

// A Mailbox hands inputs to the one goroutine that owns a machine. Put never blocks and never reorders; who fills it
// without end is bounded by dropping the newest beyond Limit, so only what can be lost (hints, heartbeats) is put with
// [Mailbox.Offer].
type Mailbox[T any] struct {
	mu     sync.Mutex
	items  []T
	signal chan struct{}
	limit  int
}

// NewMailbox makes one; Offer drops beyond limit items.
func NewMailbox[T any](limit int) *Mailbox[T] {
	return &Mailbox[T]{signal: make(chan struct{}, 1), limit: limit}
}

// Put adds an item.
func (b *Mailbox[T]) Put(v T) {
	b.mu.Lock()
	b.items = append(b.items, v)
	b.mu.Unlock()
	b.wake()
}

// Offer adds an item unless the box is full; it reports whether it did.
func (b *Mailbox[T]) Offer(v T) bool {
	b.mu.Lock()
	full := len(b.items) >= b.limit
	if !full {
		b.items = append(b.items, v)
	}
	b.mu.Unlock()
	if !full {
		b.wake()
	}
	return !full
}

func (b *Mailbox[T]) wake() {
	select {
	case b.signal <- struct{}{}:
	default:
	}
}

// C signals that there may be items to [Mailbox.Take].
func (b *Mailbox[T]) C() <-chan struct{} { return b.signal }

// Take returns all items, oldest first.
func (b *Mailbox[T]) Take() []T {
	b.mu.Lock()
	defer b.mu.Unlock()
	items := b.items
	b.items = nil
	return items
}
