package coord

import (
	"maps"
	"slices"

	"github.com/quorate/quorate/internal/clock"
	"github.com/quorate/quorate/internal/inner"
	"github.com/quorate/quorate/internal/seat"
	"github.com/quorate/quorate/internal/wire"
)

// What a member holds: an assignment, its buckets, and their common deadline. All of it belongs to the member's loop.

// toldMap tells the worker how keys go to shares, before anything is granted by it.
func (l *memberLoop) toldMap(name string) {
	if name == "" || name == l.mapped {
		return
	}
	l.mapped = name
	if l.worker != nil && l.worker.Mapped != nil {
		l.worker.Mapped(name)
	}
}

// holds begins a holding, if nothing is held, and moves the deadline of it.
func (l *memberLoop) holds(d clock.Instant) {
	if l.hold == nil {
		l.hold = &hold{now: l.g.in.Now}
		l.buckets = map[int]*BucketGrant{}
	}
	l.stamp++
	l.hold.deadline.Store(&d)
}

func (l *memberLoop) heldOn() {
	l.stamp++
	if l.worker != nil && l.worker.Kept != nil {
		l.worker.Kept(l.stamp)
	}
}

func (l *memberLoop) gained(fx seat.Gained) {
	l.holds(fx.Deadline)
	all := make([]BucketGrant, 0, len(fx.Buckets))
	for _, b := range fx.Buckets {
		gr := &BucketGrant{N: b.N, Of: fx.Of, Map: fx.Map, Token: b.Token, Lease: fx.Lease, Right: &Right{hold: l.hold}}
		l.buckets[b.N] = gr
		all = append(all, *gr)
		l.tellBucket(inner.BucketBegan, gr)
	}
	l.noteBuckets()
	if l.worker != nil && l.worker.Gained != nil {
		l.engaged = true
		l.worker.Gained(l.stamp, all)
	}
}

func (l *memberLoop) granted(fx seat.Granted) {
	l.holds(fx.Deadline)
	gr := &Grant{Stamp: l.stamp, Generation: fx.Gen, Index: fx.Index, Total: fx.Total, Map: fx.Map, Of: fx.Of, Lease: fx.Lease, Right: &Right{hold: l.hold}}
	for _, b := range fx.Buckets {
		gr.Buckets = append(gr.Buckets, b.N)
	}
	l.grant = gr
	p := *l.g.place.Load()
	l.g.in.Tell(inner.Event{Kind: inner.AssignmentBegan, Key: wire.SettledKey(l.g.group), Member: p.ID, Incarnation: p.Incarnation,
		Token: fx.Gen, Index: fx.Index, Total: fx.Total, Live: gr.Right.Live})
	l.g.known.Generation(fx.Gen)
	l.g.note(inner.Note{Kind: inner.NoteShareBegan, Generation: fx.Gen, Index: fx.Index, Total: fx.Total, Count: len(fx.Buckets)})
	if l.worker != nil {
		l.engaged = true
		l.worker.Granted(*gr)
	}
}

func (l *memberLoop) noteBuckets() {
	l.g.note(inner.Note{Kind: inner.NoteBuckets, Count: len(l.buckets)})
}

// handOver gives a worker that comes late what is held already.
func (l *memberLoop) handOver(w *Worker) {
	if l.mapped != "" && w.Mapped != nil {
		w.Mapped(l.mapped)
	}
	if l.hold == nil || l.engaged {
		return
	}
	if len(l.buckets) > 0 && w.Gained != nil {
		l.engaged = true
		var all []BucketGrant
		for _, n := range slices.Sorted(maps.Keys(l.buckets)) {
			all = append(all, *l.buckets[n])
		}
		w.Gained(l.stamp, all)
	}
	if l.grant != nil {
		l.engaged = true
		w.Granted(*l.grant)
	}
}

// gaveUp ends some buckets, before that is acknowledged.
func (l *memberLoop) gaveUp(buckets []seat.Bucket, cause error, at clock.Instant) {
	var all []BucketGrant
	for _, b := range buckets {
		if gr := l.buckets[b.N]; gr != nil {
			all = append(all, *l.endBucket(gr))
		}
	}
	l.noteBuckets()
	if l.worker != nil && l.worker.Lost != nil {
		l.worker.Lost(all, cause, at)
	}
}

func (l *memberLoop) endBucket(gr *BucketGrant) *BucketGrant {
	delete(l.buckets, gr.N)
	gr.Right.ended.Store(true)
	l.tellBucket(inner.BucketEnded, gr)
	return gr
}

// ended tells the worker that the assignment is over, and all buckets with it unless they are kept.
func (l *memberLoop) ended(cause error, until clock.Instant, kept bool) {
	if l.hold == nil {
		return
	}
	if d := l.hold.over.Load(); d != nil {
		until = *d
	}
	gr := l.grant
	if gr != nil {
		l.grant = nil
		gr.Right.ended.Store(true)
		p := *l.g.place.Load()
		l.g.in.Tell(inner.Event{Kind: inner.AssignmentEnded, Key: wire.SettledKey(l.g.group), Member: p.ID, Incarnation: p.Incarnation,
			Token: gr.Generation, Index: gr.Index, Total: gr.Total, Live: gr.Right.Live})
		l.g.note(inner.Note{Kind: inner.NoteShareEnded, Generation: gr.Generation, Index: gr.Index, Total: gr.Total, Reason: reason(cause), Cause: cause})
	}
	if !kept {
		had := len(l.buckets) > 0
		for _, gr := range l.buckets {
			l.endBucket(gr)
		}
		l.hold, l.buckets = nil, nil
		if had {
			l.noteBuckets()
		}
	}
	if l.worker != nil && (gr != nil || l.worker.Gained != nil) {
		l.worker.Ended(cause, until, kept)
	}
}

func (l *memberLoop) tellBucket(kind inner.EventKind, gr *BucketGrant) {
	p := *l.g.place.Load()
	l.g.in.Tell(inner.Event{Kind: kind, Key: wire.SettledKey(l.g.group), Member: p.ID, Incarnation: p.Incarnation,
		Token: gr.Token, Bucket: gr.N, Live: gr.Right.Live})
}
