package vote

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/inner"
	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/wire"
)

// record reads a verdict's record; what cannot be one is reported by name and never told.
func (c client) record(e kv.Entry) (wire.Verdict, bool) {
	if e.Op != kv.Record {
		return wire.Verdict{}, false
	}
	var w wire.Verdict
	err := wire.Decode(e.Value, &w)
	if err == nil && !sound(w, strings.TrimPrefix(e.Key, wire.VerdictPrefix(c.group))) {
		err = fmt.Errorf("verdict %q of ballot %q", w.Verdict, w.Ballot)
	}
	if err != nil {
		c.log.Warn("verdict cannot be read", "key", e.Key, "revision", e.Revision, "error", err)
		return wire.Verdict{}, false
	}
	return w, true
}

// Sealed reads a verdict's record, for quorate's own packages that hear the records of many groups by one watch; false if it is none.
func Sealed(c *coord.Client, e kv.Entry) (Verdict, bool) {
	cl := of(c)
	w, ok := cl.record(e)
	if !ok {
		return Verdict{}, false
	}
	cl.tell(w)
	return verdict(cl, w), true
}

// Lookup reads the verdict of a ballot: the sealed one, for an hour, else unknown.
func Lookup(ctx context.Context, c *coord.Client, id string) (Verdict, error) {
	cl := of(c)
	if err := wire.CheckBallot(id); err != nil {
		return Verdict{}, fmt.Errorf("vote: %w", err)
	}
	w, ok, err := cl.readVerdict(ctx, id)
	if err != nil {
		return Verdict{Ballot: id, Verdict: Unknown, Why: err.Error()}, fmt.Errorf("vote: look up ballot %s of group %q: %w", id, cl.group, err)
	}
	if !ok {
		return Verdict{Ballot: id, Verdict: Unknown, Why: "nothing is sealed"}, nil
	}
	cl.tell(w)
	return verdict(cl, w), nil
}

// Recent lists the verdicts of the last hour, oldest first.
func Recent(ctx context.Context, c *coord.Client) ([]Verdict, error) {
	cl := of(c)
	l, err := cl.in.Store.List(ctx, wire.VerdictPrefix(cl.group)+"*")
	if err != nil {
		return nil, fmt.Errorf("vote: verdicts of group %q: %w", cl.group, err)
	}
	slices.SortFunc(l, func(a, b kv.Entry) int { return cmp.Compare(a.Revision, b.Revision) }) // the order of the seals
	out := []Verdict{}
	for _, e := range l {
		if w, ok := cl.record(e); ok {
			cl.tell(w)
			out = append(out, verdict(cl, w))
		}
	}
	return out, nil
}

// maxWaiting is how many verdicts may wait for a slow reader of [Watch]; further ones are not told to it.
const maxWaiting = 1 << 16

// Watch yields each verdict that is sealed from now on, once, in the order of the seals. It ends silently with ctx, with one
// error when the client is closed or the membership has ended, and goes on across reconnects: what was sealed meanwhile
// follows.
func Watch(ctx context.Context, c *coord.Client) iter.Seq2[Verdict, error] {
	return func(yield func(Verdict, error) bool) {
		cl := of(c)
		fail := func(err error) { yield(Verdict{}, fmt.Errorf("vote: watch group %q: %w", cl.group, err)) }
		// What was sealed before is not news, however late this process hears of it.
		var before uint64
		epoch := cl.in.Store.Epoch()
		if st, err := cl.in.Store.State(ctx); err == nil {
			before = st.LastSeq
		}
		box := inner.NewMailbox[kv.Entry](maxWaiting)
		w, err := cl.in.Store.Watch(wire.VerdictPrefix(cl.group)+"*", kv.WatchOptions{NoSnapshot: true, Reconcile: cl.in.Lease}, func(e kv.Event) {
			if e.Op != kv.Record || e.Epoch == epoch && e.Revision <= before {
				return
			}
			if !box.Offer(e.Entry) {
				cl.log.Warn("verdict not told: the reader is slow", "key", e.Key)
			}
		})
		if err != nil {
			fail(err)
			return
		}
		defer w.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-cl.ended:
				fail(cl.cause())
				return
			case <-box.C():
			}
			for _, e := range box.Take() {
				v, ok := cl.record(e)
				if !ok {
					continue
				}
				if ctx.Err() != nil {
					return
				}
				cl.tell(v)
				if !yield(verdict(cl, v), nil) {
					return
				}
			}
		}
	}
}
