package kv

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate/internal/wire"
)

// hub holds the plain subscriptions to the bucket's republish subject and hands what they hear to hints and watches.
//
// There is one subscription for each pattern in use, not one for the whole bucket: a process that campaigns in one
// group is not sent the thousand member keys of another, and a user who may see one group only needs no more permissions
// than that. All of them share one channel and one goroutine.
type hub struct {
	s    *Store
	msgs chan *nats.Msg

	mu        sync.Mutex
	patterns  map[string]*listeners
	subs      map[*nats.Subscription]*listeners
	reconnect map[int]func()
	wakes     map[int]func()
	nextID    int
	closed    bool
}

// listeners are the hints on one pattern.
type listeners struct {
	sub *nats.Subscription
	all []listener // replaced, never changed; most have one
}

type listener struct {
	id int
	fn func(Entry)
}

// hintBuffer is how many messages may wait for the store's goroutine. Beyond it they are dropped, as hints may be: the gap
// shows in the next one, or the next look finds it.
const hintBuffer = 4096

func (h *hub) start(s *Store) {
	h.s = s
	h.msgs = make(chan *nats.Msg, hintBuffer)
	h.patterns = map[string]*listeners{}
	h.subs = map[*nats.Subscription]*listeners{}
	h.reconnect = map[int]func(){}
	h.wakes = map[int]func(){}
	s.wg.Go(h.run)
}

func (h *hub) run() {
	for {
		select {
		case <-h.s.ctx.Done():
			h.mu.Lock()
			h.closed = true
			for sub := range h.subs {
				_ = sub.Unsubscribe() // the connection may be closed already
			}
			h.mu.Unlock()
			return
		case m := <-h.msgs:
			h.dispatch(m)
		}
	}
}

func (h *hub) dispatch(m *nats.Msg) {
	e, ok := h.s.hint(m)
	if !ok {
		return
	}
	h.mu.Lock()
	var all []listener
	if l := h.subs[m.Sub]; l != nil {
		all = l.all
	}
	h.mu.Unlock()
	for _, l := range all {
		l.fn(e)
	}
}

// hint reads a republished message. Without the server's own headers, or from another stream, it is nothing (R18): anybody
// may be able to publish on the subject, only the server knows what it stored.
func (s *Store) hint(m *nats.Msg) (Entry, bool) {
	if last(m.Header["Nats-Stream"]) != s.stream {
		return Entry{}, false
	}
	key, ok := strings.CutPrefix(last(m.Header["Nats-Subject"]), s.subject)
	if !ok || m.Subject != wire.KVHint(s.o.Namespace, key) {
		return Entry{}, false
	}
	rev := number(m.Header["Nats-Sequence"])
	if rev == 0 || rev >= wire.MaxToken {
		return Entry{}, false
	}
	epoch, err := s.ready(0)
	if err != nil {
		return Entry{}, false
	}
	s.note(rev)
	e := s.entry(key, rev, m.Header, m.Data)
	e.previous = number(m.Header["Nats-Last-Sequence"])
	e.Stored, _ = time.Parse(time.RFC3339Nano, last(m.Header["Nats-Time-Stamp"])) // for display only
	e.Epoch = epoch
	return e, true
}

func last(vs []string) string {
	if len(vs) == 0 {
		return ""
	}
	return vs[len(vs)-1]
}

// Hints calls fn for each change of a key that matches a subject pattern ("leader.workers", "member.workers.*"), as the server
// republishes it: no snapshot, no repeat, losses and late ones possible. fn runs on the store's goroutine and must not block.
// After stop has returned at most one call of fn is still under way.
func (s *Store) Hints(pattern string, fn func(Entry)) (stop func(), err error) {
	h := &s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, fmt.Errorf("kv: hints on %s: %w", pattern, ErrClosed)
	}
	l := h.patterns[pattern]
	if l == nil {
		l = &listeners{}
		if l.sub, err = s.nc.ChanSubscribe(wire.KVHint(s.o.Namespace, pattern), h.msgs); err != nil {
			return nil, fmt.Errorf("kv: hints on %s: %w", pattern, err)
		}
		h.patterns[pattern] = l
		h.subs[l.sub] = l
	}
	id := h.id()
	l.all = append(slices.Clip(l.all), listener{id, fn})
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		i := slices.IndexFunc(l.all, func(l listener) bool { return l.id == id })
		if i < 0 {
			return
		}
		l.all = slices.Concat(l.all[:i], l.all[i+1:])
		if len(l.all) == 0 {
			delete(h.patterns, pattern)
			delete(h.subs, l.sub)
			_ = l.sub.Unsubscribe()
		}
	}, nil
}

func (h *hub) id() int {
	h.nextID++
	return h.nextID
}

// OnReconnect calls fn after each (re)connect of the connection. fn runs on a goroutine of the store and must not block. After
// stop has returned at most one call of fn is still under way.
func (s *Store) OnReconnect(fn func()) (stop func()) {
	return s.hub.on(s.hub.reconnect, fn)
}

func (h *hub) on(set map[int]func(), fn func()) (stop func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	id := h.id()
	set[id] = fn
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(set, id)
	}
}

func (h *hub) call(set map[int]func()) {
	h.mu.Lock()
	fns := make([]func(), 0, len(set))
	for _, fn := range set {
		fns = append(fns, fn)
	}
	h.mu.Unlock()
	for _, fn := range fns {
		fn()
	}
}

func (h *hub) reconnected() { h.call(h.reconnect) }
