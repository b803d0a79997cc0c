package coord

import (
	"bytes"
	"strconv"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate/internal/wire"
)

// An intake holds what waits for a leader's loop: its own results and what the bucket tells, heartbeats, votes, and what is asked. Who floods it with one kind
// stands in the way of nobody who sends another, and a member that floods it with heartbeats in nobody's way at all: of each
// incarnation one heartbeat waits, the newest, for an older one would not be heard any more (S8).
type intake struct {
	signal chan struct{}

	mu        sync.Mutex
	own       []any
	beats     map[wire.Place]*beatInput
	order     []*beatInput // of beats, oldest first
	known     map[wire.Place]bool
	strangers int // of beats: from who is no member yet
	votes     []any
	requests  []any
}

// Bounds on what waits. What is more is dropped: it is sent again.
const (
	maxStrangers = 1 << 12 // heartbeats of incarnations that are no members
	maxVotes     = 1 << 17
	maxRequests  = 1 << 14

	votesAtOnce    = 1 << 10 // taken between two looks at the heartbeats
	requestsAtOnce = 1 << 8
)

// beatInput is a heartbeat.
type beatInput struct {
	m   *nats.Msg
	hb  wire.Heartbeat
	raw bool // not decoded: it came while another of its incarnation waited
}

func newIntake() *intake {
	return &intake{signal: make(chan struct{}, 1), beats: map[wire.Place]*beatInput{}}
}

// C signals that there may be something to [intake.Take].
func (q *intake) C() <-chan struct{} { return q.signal }

func (q *intake) wake() {
	select {
	case q.signal <- struct{}{}:
	default:
	}
}

// Put adds what is never dropped.
func (q *intake) Put(v any) {
	q.mu.Lock()
	q.own = append(q.own, v)
	q.mu.Unlock()
	q.wake()
}

// Vote adds a vote, or a voter's report, unless too many wait.
func (q *intake) Vote(v any) { q.add(&q.votes, maxVotes, v) }

// Request adds what somebody asks, unless too much waits.
func (q *intake) Request(v any) { q.add(&q.requests, maxRequests, v) }

func (q *intake) add(to *[]any, most int, v any) {
	q.mu.Lock()
	if len(*to) < most {
		*to = append(*to, v)
	}
	q.mu.Unlock()
	q.wake()
}

// Beat adds a heartbeat, in place of an older one of the same incarnation. Of those that come while one waits only the first bytes are looked at.
func (q *intake) Beat(m *nats.Msg) {
	if !wire.Answerable(m.Reply) || len(m.Data) > maxBeat {
		return
	}
	p, ok := placeOf(m.Data)
	if ok && q.replace(p, m) {
		return
	}
	b := &beatInput{m: m}
	if !b.decode() {
		return
	}
	p = wire.Place{ID: b.hb.ID, Incarnation: b.hb.Incarnation}
	if !ok && q.replace(p, m) {
		return
	}
	q.mu.Lock()
	if stranger := !q.known[p]; !stranger || q.strangers < maxStrangers {
		if stranger {
			q.strangers++
		}
		q.beats[p] = b
		q.order = append(q.order, b)
	}
	q.mu.Unlock()
	q.wake()
}

// maxBeat is how long a heartbeat may be, in bytes.
const maxBeat = 4096

func (q *intake) replace(p wire.Place, m *nats.Msg) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	b := q.beats[p]
	if b != nil {
		b.m, b.raw = m, true
	}
	return b != nil
}

// decode reads the heartbeat; false if it is none.
func (b *beatInput) decode() bool {
	b.raw, b.hb = false, wire.Heartbeat{}
	return wire.Decode(b.m.Data, &b.hb) == nil && wire.CheckID(b.hb.ID) == nil && b.hb.Incarnation != 0 && b.hb.Incarnation < wire.MaxToken
}

// placeOf reads whose heartbeat it is, if it begins as ours do.
func placeOf(data []byte) (wire.Place, bool) {
	rest, ok := bytes.CutPrefix(data, []byte(`{"v":1,"id":"`))
	if !ok {
		return wire.Place{}, false
	}
	id, rest, ok := bytes.Cut(rest, []byte(`","inc":`))
	if !ok || len(id) > wire.MaxName {
		return wire.Place{}, false
	}
	end := bytes.IndexByte(rest, ',')
	if end < 0 {
		return wire.Place{}, false
	}
	inc, err := strconv.ParseUint(string(rest[:end]), 10, 64)
	p := wire.Place{ID: string(id), Incarnation: inc}
	return p, err == nil && wire.CheckID(p.ID) == nil
}

// Know tells who is a member: the heartbeats of all others have a bound together.
func (q *intake) Know(members map[wire.Place]bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.known = members
}

// Take gives what is to be done next: all that is its own, all heartbeats, and a part of the rest.
func (q *intake) Take() []any {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := q.own
	q.own = nil
	for _, b := range q.order {
		all = append(all, b)
	}
	clear(q.beats)
	q.order, q.strangers = nil, 0
	all = append(all, first(&q.votes, votesAtOnce)...)
	all = append(all, first(&q.requests, requestsAtOnce)...)
	if len(q.votes)+len(q.requests) > 0 {
		q.wake()
	}
	return all
}

// first takes at most n from the front.
func first(from *[]any, n int) []any {
	l := *from
	if len(l) <= n {
		*from = nil
		return l
	}
	*from = l[n:]
	return l[:n:n]
}
