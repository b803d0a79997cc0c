package kv

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// A Watch tells what is stored under the keys of a pattern, and goes on telling until it is stopped. It is level-triggered: a
// key's events have growing revisions and the latest always comes, the ones between may be missed.
//
// Hints make it fast, and looks at the bucket make it true (R16). A look steps from where everything is known to be seen through
// all that is newer, so one that finds nothing costs one request. It is taken on a gap, after each reconnect, after a
// new attachment and every Reconcile; from time to time, and at each reconnect, it also finds keys that are gone without a
// trace (R17).
type Watch struct {
	s       *Store
	pattern string
	o       WatchOptions
	fn      func(Event)
	synced  chan struct{}
	done    chan struct{}
	cancel  context.CancelFunc
	wake    chan struct{}

	mu     sync.Mutex
	inbox  []Entry
	look   bool // a look is wanted soon
	absent bool // and one for vanished keys
	missed bool // the inbox overflowed

	// Below: owned by the watch's goroutine.
	epoch uint64
	first bool              // the snapshot has been told
	known map[string]uint64 // revision of each key that is there
	base  uint64            // all of the pattern up to this sequence has been seen: a hint up to it of a key not known is old
	looks int
}

const (
	inboxSize  = 8192                   // hints that may wait for fn; beyond it they are dropped and looked for
	lookSteps  = 64                     // changes that one periodic look goes through
	absentLook = 10                     // every how many periodic looks vanished keys are looked for
	soon       = 100 * time.Millisecond // the most that a look after a gap or reconnect waits, so that watchers spread
)

// Watch calls fn on a goroutine of its own, never under a lock: first for each key there is (unless NoSnapshot), then for each
// change. While the bucket is lost nothing is told; after [Store.Reattach] every key is told to be gone and then what there is.
func (s *Store) Watch(pattern string, o WatchOptions, fn func(Event)) (*Watch, error) {
	if o.Reconcile == 0 {
		o.Reconcile = s.o.Reconcile
	}
	w := &Watch{s: s, pattern: pattern, o: o, fn: fn, synced: make(chan struct{}), done: make(chan struct{}), wake: make(chan struct{}, 1),
		known: map[string]uint64{}}
	var err error
	if w.epoch, err = s.ready(0); err != nil {
		return nil, fmt.Errorf("kv: watch %s: %w", pattern, err)
	}
	if o.NoSnapshot {
		w.base, w.first = s.seen.Load(), true
		close(w.synced)
	}
	// The subscription stands before the snapshot is taken: what is written after it is heard.
	stopHints, err := s.Hints(pattern, w.put)
	if err != nil {
		return nil, fmt.Errorf("kv: watch %s: %w", pattern, err)
	}
	stopReconnect := s.OnReconnect(func() { w.want(true) })
	stopWake := s.hub.on(s.hub.wakes, func() { w.want(true) })
	var ctx context.Context
	ctx, w.cancel = context.WithCancel(s.ctx)
	undo := func() {
		stopWake()
		stopReconnect()
		stopHints()
		close(w.done)
	}
	if !s.start(func() {
		defer undo()
		w.run(ctx)
	}) {
		w.cancel()
		undo()
		return nil, fmt.Errorf("kv: watch %s: %w", pattern, ErrClosed)
	}
	return w, nil
}

// Synced is closed when everything that was there at the start has been told.
func (w *Watch) Synced() <-chan struct{} { return w.synced }

// Resync asks for a look at the bucket soon.
func (w *Watch) Resync() { w.want(true) }

// Stop ends the watch and returns when fn has returned and will not be called again. It must not be called from fn.
func (w *Watch) Stop() {
	w.cancel()
	<-w.done
}

// put takes a hint; it runs on the store's goroutine.
func (w *Watch) put(e Entry) {
	w.mu.Lock()
	if len(w.inbox) < inboxSize {
		w.inbox = append(w.inbox, e)
	} else {
		w.inbox, w.missed = nil, true
	}
	w.mu.Unlock()
	w.poke()
}

func (w *Watch) want(absent bool) {
	w.mu.Lock()
	w.look = true
	w.absent = w.absent || absent
	w.mu.Unlock()
	w.poke()
}

func (w *Watch) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *Watch) run(ctx context.Context) {
	// An idle timer for a watch that never looks by itself; both are reset below.
	timer := time.NewTimer(0)
	defer timer.Stop()
	hurried := false // the timer is set for a look that was asked for
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
			gap := w.drain(ctx)
			w.mu.Lock()
			w.look = w.look || gap || w.missed
			w.missed = false
			look := w.look
			w.mu.Unlock()
			if look && !hurried {
				hurried = true
				timer.Reset(jitter(soon/2, 1))
			}
		case <-timer.C:
			hurried = false
			w.mu.Lock()
			asked, absent := w.look, w.absent
			w.look, w.absent = false, false
			w.mu.Unlock()
			if w.o.Reconcile < 0 && !asked && w.first {
				continue
			}
			err := w.inspect(ctx, asked, absent)
			if err != nil && asked {
				// What was asked for is still wanted; the next period tries again.
				w.mu.Lock()
				w.look, w.absent = true, w.absent || absent
				w.mu.Unlock()
			}
			switch {
			case w.o.Reconcile > 0:
				timer.Reset(jitter(w.o.Reconcile, 10))
			case err != nil && !errors.Is(err, ErrClosed):
				timer.Reset(jitter(w.s.o.Reconcile, 10))
			}
		}
	}
}

// drain tells the hints that wait; it reports whether one of them shows that another was missed.
func (w *Watch) drain(ctx context.Context) (gap bool) {
	for ctx.Err() == nil && w.first { // before the snapshot hints wait
		w.mu.Lock()
		batch := w.inbox
		w.inbox = nil
		w.mu.Unlock()
		if len(batch) == 0 {
			return gap
		}
		for _, e := range batch {
			if e.Epoch != w.epoch {
				gap = true // of another attachment: a look finds what is there
				continue
			}
			known, ok := w.known[e.Key]
			if e.Revision <= known || !ok && e.Revision <= w.base {
				continue
			}
			// Nats-Last-Sequence is the revision this one replaced. A key that is not known may have had one that expired since.
			if ok && e.previous != known || !ok && e.previous > w.base {
				gap = true
			}
			w.tell(e, false)
			if ctx.Err() != nil {
				return gap
			}
		}
	}
	return gap
}

func (w *Watch) tell(e Entry, replay bool) {
	if e.Op == None {
		delete(w.known, e.Key)
	} else {
		w.known[e.Key] = e.Revision
	}
	w.fn(Event{Entry: e, Replay: replay})
}

// inspect looks at the bucket. asked: it goes through all that is new, else through a bounded part; absent: it also looks for keys
// that are gone.
func (w *Watch) inspect(ctx context.Context, asked, absent bool) error {
	epoch, err := w.s.ready(0)
	if err != nil {
		return err // lost: after Reattach a look is asked for
	}
	if epoch != w.epoch {
		for key := range w.known {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			w.tell(Entry{Key: key, Op: None, Seen: w.s.clock(), Epoch: epoch}, true)
		}
		w.epoch, w.base, w.first = epoch, 0, false
	}
	if !w.first {
		return w.snapshot(ctx)
	}
	w.looks++
	if absent || w.looks%absentLook == 0 {
		if err := w.vanished(ctx); err != nil {
			return err
		}
	}
	// What is written while the look goes on is not waited for.
	upTo := w.s.seen.Load()
	for step := 0; step < lookSteps || asked && w.base < upTo; step++ {
		e, ok, err := w.s.next(ctx, w.pattern, w.base+1)
		if err != nil {
			return err
		}
		if !ok {
			return nil
		}
		if e.Epoch != w.epoch {
			return ErrBucketLost
		}
		w.apply(ctx, e)
		// Nothing of the pattern lies between: a stream leader that is behind shows a past, but a whole one.
		w.base = e.Revision
	}
	return nil
}

// apply tells an entry that a look found, if it is news.
func (w *Watch) apply(ctx context.Context, e Entry) {
	if known, ok := w.known[e.Key]; ctx.Err() != nil || e.Revision <= known || !ok && e.Revision <= w.base {
		return
	}
	w.tell(e, true)
}

// snapshot tells everything there is, once in each attachment.
func (w *Watch) snapshot(ctx context.Context) error {
	snap, err := w.s.list(ctx, w.pattern)
	if err != nil {
		return err
	}
	for _, e := range snap.entries {
		if e.Epoch != w.epoch {
			return ErrBucketLost
		}
		w.apply(ctx, e)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	w.base, w.first = snap.last, true
	select {
	case <-w.synced:
	default:
		close(w.synced)
	}
	w.poke() // for the hints that came meanwhile
	return nil
}

// vanished tells the keys that are gone without a marker.
func (w *Watch) vanished(ctx context.Context) error {
	keys, snap, err := w.s.keys(ctx, w.pattern)
	if err != nil || !snap.fresh {
		return err // an old answer proves no absence
	}
	there := make(map[string]bool, len(keys))
	for _, k := range keys {
		there[k] = true
	}
	for key, rev := range w.known {
		if there[key] || rev > snap.last {
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		w.tell(Entry{Key: key, Op: None, Seen: w.s.clock(), Epoch: w.epoch}, true)
	}
	return nil
}
