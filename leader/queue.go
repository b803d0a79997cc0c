package leader

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate/internal/inner"
	"github.com/quorate/quorate/internal/wire"
)

// waiter is what a candidate of a plain election tells the holder, every half lease while it waits.
type waiter struct {
	V        int    `json:"v"`
	ID       string `json:"id"`
	Priority int    `json:"priority,omitempty"`
	WaitedMS int64  `json:"waited_ms"` // for how long it has waited: so the order is the same for each next holder
}

// queue puts the candidates of a plain election into a stable order, without a write: each tells the holder that it
// waits, and the holder names the first ones in its record (L5). All of it is a hint: it decides who tries first, never
// who wins.
type queue struct {
	r    *runner
	d    *desk
	gone atomic.Bool // the elector is closed

	waiters, operators *nats.Subscription // the desk's: who hears of those who wait, and of those who want it to step down

	mu    sync.Mutex
	known map[string]*queued
}

type queued struct {
	waiter
	since time.Time // when it began to wait, as far as known from the first message
	seen  time.Time
}

// queueLimit bounds what is remembered: whoever comes later finds its place by its jitter.
const queueLimit = 4096

func newQueue(r *runner) *queue {
	q := &queue{r: r, d: openDesk(r.in)}
	q.d.join(q)
	return q
}

func (q *queue) subject() string { return wire.ElectionSubject(q.r.in.Name, q.r.name, wire.SubQueue) }

// attend tells the holder that this candidate waits, and listens while it holds itself. It runs on the desk's goroutine.
func (q *queue) attend() {
	nc := q.r.in.Store.Conn()
	hearing, waiting := q.r.hearing.Load(), q.r.waiting.Load()
	holding := q.r.current.Load() != nil // before that a term cannot be told from one that is gone
	if q.gone.Load() {
		hearing, holding, waiting = false, false, false
	}
	q.d.subbing.Lock()
	q.listen(nc, &q.waiters, hearing, wire.SubQueue, q.heard)
	q.listen(nc, &q.operators, holding, wire.SubStepDown, q.askedToStepDown)
	q.d.subbing.Unlock()
	if !hearing {
		q.mu.Lock()
		q.known = nil
		q.mu.Unlock()
	}
	if waiting {
		publish(nc, q.subject(), waiter{V: wire.Version, ID: q.r.cfg.ID, Priority: q.r.cfg.Priority,
			WaitedMS: wire.ToMS(q.r.in.Now().Mono - time.Duration(q.r.since.Load()))})
	}
}

// hear listens to those who wait before an acquire is sent: they tell the new holder as soon as they see its record, and by then it must hear
// them. It may block, as the write after it may.
func (q *queue) hear() {
	q.d.subbing.Lock()
	defer q.d.subbing.Unlock()
	if q.r.hearing.Load() && !q.gone.Load() {
		q.listen(q.r.in.Store.Conn(), &q.waiters, true, wire.SubQueue, q.heard)
	}
}

// listen begins or ends to hear what is for the holder; on an error the next tick tries again.
func (q *queue) listen(nc *nats.Conn, sub **nats.Subscription, on bool, subject string, fn nats.MsgHandler) {
	switch {
	case on && *sub == nil:
		s, err := nc.ChanSubscribe(wire.ElectionSubject(q.r.in.Name, q.r.name, subject), q.d.msgs)
		if err == nil {
			*sub, q.d.subs[s] = s, fn
		}
	case !on && *sub != nil:
		_ = (*sub).Unsubscribe()
		delete(q.d.subs, *sub)
		*sub = nil
	}
}

// wake has a queue, if there is one, attend to what has changed.
func (q *queue) wake() {
	if q != nil {
		q.d.box.Put(q)
	}
}

func (q *queue) heard(m *nats.Msg) {
	var w waiter
	if len(m.Data) > 256 || wire.Decode(m.Data, &w) != nil || wire.CheckID(w.ID) != nil || w.ID == q.r.cfg.ID {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	k := q.known[w.ID]
	if k == nil {
		if len(q.known) >= queueLimit {
			return
		}
		if q.known == nil { // most elections have one candidate
			q.known = map[string]*queued{}
		}
		k = &queued{since: time.Now().Add(-max(0, wire.MS(w.WaitedMS)))}
		q.known[w.ID] = k
	}
	k.waiter, k.seen = w, time.Now()
}

// order lists the candidates that were heard of lately: higher priority first, then who has waited longest.
func (q *queue) order() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	var l []*queued
	for id, k := range q.known {
		if time.Since(k.seen) > 2*q.r.in.Lease {
			delete(q.known, id)
		} else if id != q.r.cfg.ID {
			l = append(l, k)
		}
	}
	slices.SortFunc(l, func(a, b *queued) int {
		return cmp.Or(-cmp.Compare(a.Priority, b.Priority), a.since.Compare(b.since), cmp.Compare(a.ID, b.ID))
	})
	ids := make([]string, len(l))
	for i, k := range l {
		ids[i] = k.ID
	}
	return ids
}

// waits says that a candidate with the id was heard of lately.
func (q *queue) waits(id string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	k := q.known[id]
	return k != nil && time.Since(k.seen) <= 2*q.r.in.Lease
}

func (q *queue) close() {
	q.gone.Store(true)
	q.d.leave(q)
}

// A desk serves the queues of all electors of a namespace in one goroutine and over one channel: ten thousand elections held by one
// process must not take three goroutines each. What it does not get to, as a connection is stuck that it publishes on, may be lost.
type desk struct {
	in    *inner.Namespace
	box   *inner.Mailbox[*queue] // whose state has changed
	msgs  chan *nats.Msg
	stop  chan struct{}
	done  chan struct{}
	users int // under the namespace's lock

	subbing sync.Mutex // held while the connection is asked for a subscription: never taken by an elector's loop
	subs    map[*nats.Subscription]nats.MsgHandler

	mu  sync.Mutex
	all map[*queue]struct{}
}

const deskShare = "leader:desk"

// openDesk is the namespace's desk; whoever has it leaves it.
func openDesk(in *inner.Namespace) (d *desk) {
	in.Share(deskShare, func(old any) any {
		if old != nil {
			d = old.(*desk)
		} else {
			d = &desk{in: in, box: inner.NewMailbox[*queue](0), msgs: make(chan *nats.Msg, 1024), subs: map[*nats.Subscription]nats.MsgHandler{},
				stop: make(chan struct{}), done: make(chan struct{}), all: map[*queue]struct{}{}}
			go d.run()
		}
		d.users++
		return d
	})
	return d
}

func (d *desk) join(q *queue) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all[q] = struct{}{}
}

// leave has the queue's subscriptions ended. With the last one the desk's goroutine ends too, and is waited for.
func (d *desk) leave(q *queue) {
	d.mu.Lock()
	delete(d.all, q)
	d.mu.Unlock()
	d.box.Put(q)
	d.in.Share(deskShare, func(old any) any {
		if d.users--; d.users > 0 {
			return old
		}
		close(d.stop)
		return nil
	})
	select {
	case <-d.stop:
		<-d.done
	default:
	}
}

func (d *desk) run() {
	defer close(d.done)
	tick := time.NewTicker(d.in.Lease / 2)
	defer tick.Stop()
	for {
		select {
		case m := <-d.msgs:
			d.subbing.Lock()
			fn := d.subs[m.Sub]
			d.subbing.Unlock()
			if fn != nil {
				fn(m)
			}
		case <-d.box.C():
			d.attend(d.box.Take())
		case <-tick.C:
			d.mu.Lock()
			all := slices.Collect(maps.Keys(d.all))
			d.mu.Unlock()
			d.attend(all)
		case <-d.stop:
			d.attend(d.box.Take()) // all of them gone
			return
		}
	}
}

func (d *desk) attend(qs []*queue) {
	for _, q := range qs {
		q.attend()
	}
}
