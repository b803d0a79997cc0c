package coord

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/leader"
)

func sorted(set map[string]bool) []string {
	return append([]string{}, slices.Sorted(maps.Keys(set))...)
}

// A View is a group at one moment, and what has changed since this reader's view before: in the first view everybody has joined.
type View struct {
	Members []Member // in the order of their ids; Status is unknown: ask [Client.Members] for it
	Leader  leader.State
	Joined  []Member    // a new incarnation of an id is a new member
	Left    []Departure // of those who were in the view before
	Stale   bool        // the connection is away: this may be out of date
}

// A Departure is a member that is none any more.
type Departure struct {
	Member Member
	Reason string // left, evicted, expired
}

// Watch yields the group, now and at each change. A slow reader misses steps, never the latest view. It ends silently with
// ctx, with one error when the client is closed or the membership has ended, and goes on across reconnects (View.Stale meanwhile).
//
// A member whose record is removed by a hand that has no say in it, or is gone without a trace, is kept in the view for two
// member timeouts: if it lives, it writes its record again as soon as the leader has noticed (M1).
func (c *Client) Watch(ctx context.Context) iter.Seq2[View, error] {
	return func(yield func(View, error) bool) {
		fail := func(err error) { yield(View{}, fmt.Errorf("coord: watch group %q: %w", c.group, err)) }
		w := newWatcher(2 * c.in.Timings.MemberTimeout)
		hear := func(e kv.Event) { w.hear(e.Entry, time.Now()) }
		members, err := c.in.Store.Watch(wire.MemberPrefix(c.group)+"*", kv.WatchOptions{}, hear)
		if err != nil {
			fail(err)
			return
		}
		defer members.Stop()
		lead, err := c.in.Store.Watch(wire.LeaderKey(c.group), kv.WatchOptions{}, hear)
		if err != nil {
			fail(err)
			return
		}
		defer lead.Stop()
		var ended <-chan struct{} = c.closed
		if c.self != nil {
			ended = c.self.ctx.Done()
		}
		tick := time.NewTicker(c.in.Lease / 6)
		defer tick.Stop()
		synced, leadSynced := members.Synced(), lead.Synced()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ended:
				if ctx.Err() != nil {
					return
				}
				if c.self != nil {
					fail(context.Cause(c.self.ctx))
				} else {
					fail(quorate.ErrClosed)
				}
				return
			case <-w.wake:
			case <-synced:
				synced = nil
			case <-leadSynced:
				leadSynced = nil
			case <-tick.C:
			}
			if synced != nil || leadSynced != nil {
				continue // the first view is the whole group
			}
			v, changed := w.view(!c.nc.IsConnected(), time.Now())
			if changed && !yield(v, nil) {
				return
			}
		}
	}
}

// watcher keeps what is there and what its reader was shown: a slow reader costs no more than that.
type watcher struct {
	timeout time.Duration // of doubt
	wake    chan struct{}

	mu      sync.Mutex
	known   map[string]*line
	lead    leader.State
	token   uint64 // highest of a leader
	changed bool
	reasons map[wire.Place]string // why those who were shown are gone

	shown map[string]Member // in the reader's view before
	first bool
	stale bool
}

type line struct {
	Member
	doubt time.Time // its record is gone, but that does not end it: until then
}

func newWatcher(timeout time.Duration) *watcher {
	return &watcher{timeout: timeout, wake: make(chan struct{}, 1), known: map[string]*line{}, reasons: map[wire.Place]string{},
		shown: map[string]Member{}, first: true}
}

// hear takes what stands under a key.
func (w *watcher) hear(e kv.Entry, now time.Time) {
	w.mu.Lock()
	w.take(e, now)
	changed := w.changed
	w.mu.Unlock()
	if changed {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

func (w *watcher) take(e kv.Entry, now time.Time) {
	if _, ok := wire.GroupOfLeaderKey(e.Key); ok {
		if s := leader.StateOf(e); s != w.lead {
			w.lead, w.changed = s, true
		}
		w.leader(e)
		return
	}
	_, id, ok := wire.GroupOfMemberKey(e.Key)
	if !ok {
		return
	}
	old := w.known[id]
	if e.Op != kv.Record {
		switch {
		case old == nil:
		case e.Reason == wire.ReasonLeft:
			w.drop(old.Member, wire.ReasonLeft)
		case w.byLeader(e):
			w.drop(old.Member, e.Reason)
		case old.doubt.IsZero():
			old.doubt = now.Add(w.timeout)
		}
		return
	}
	var rec wire.Member
	if wire.Decode(e.Value, &rec) != nil || rec.ID != id {
		return
	}
	m := member(rec)
	if old != nil && old.Incarnation != rec.Incarnation {
		// Had the one before left or been evicted, its removal would have come first, as far as it was heard.
		w.drop(old.Member, wire.ReasonExpired)
		old = nil
	}
	if old == nil || !reflect.DeepEqual(old.Member, m) {
		w.changed = true
	}
	w.known[id] = &line{Member: m}
}

// leader takes what a leader's record says beside who leads: also one that has too few members keeps them, and removes whom it does not hear. A
// watcher with a shorter lease than the group's doubts as long as the group does.
func (w *watcher) leader(e kv.Entry) {
	var rec wire.Leader
	if e.Op != kv.Record || wire.Decode(e.Value, &rec) != nil {
		return
	}
	if rec.Token == 0 {
		rec.Token = e.Revision
	}
	w.token = max(w.token, rec.Token)
	w.timeout = max(w.timeout, 2*wire.MS(rec.Params.MemberTimeoutMS))
}

// byLeader says that a removal was made by who led the group then: a former leader's, come late, does not count (design 4.2).
func (w *watcher) byLeader(e kv.Entry) bool {
	if e.Reason != wire.ReasonEvicted && e.Reason != wire.ReasonExpired || e.Token == 0 {
		return false
	}
	return w.token <= e.Token || w.token > e.Revision // the present leader's, or a later one has come since
}

func (w *watcher) drop(m Member, reason string) {
	delete(w.known, m.ID)
	w.changed = true
	if was, ok := w.shown[m.ID]; ok && was.Incarnation == m.Incarnation {
		w.reasons[wire.Place{ID: m.ID, Incarnation: m.Incarnation}] = reason
	}
}

// view is what there is now, and what has changed since the view before.
func (w *watcher) view(stale bool, now time.Time) (v View, changed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.known {
		if !l.doubt.IsZero() && !now.Before(l.doubt) {
			if stale {
				l.doubt = now.Add(w.timeout) // M3: who cannot hear accuses nobody
			} else {
				w.drop(l.Member, wire.ReasonExpired)
			}
		}
	}
	changed = w.changed || w.first || stale != w.stale
	if !changed {
		return v, false
	}
	v = View{Leader: w.lead, Stale: stale, Members: make([]Member, 0, len(w.known))}
	for _, id := range slices.Sorted(maps.Keys(w.shown)) {
		was := w.shown[id]
		if l := w.known[id]; l == nil || l.Incarnation != was.Incarnation {
			v.Left = append(v.Left, Departure{was, w.reasons[wire.Place{ID: id, Incarnation: was.Incarnation}]})
		}
	}
	shown := make(map[string]Member, len(w.known))
	for _, id := range slices.Sorted(maps.Keys(w.known)) {
		m := w.known[id].Member
		m.Leader = id == w.lead.Holder
		v.Members = append(v.Members, m)
		if was, ok := w.shown[id]; !ok || was.Incarnation != m.Incarnation {
			v.Joined = append(v.Joined, m)
		}
		shown[id] = m
	}
	w.shown, w.first, w.stale, w.changed = shown, false, stale, false
	clear(w.reasons)
	return v, true
}
