package partition

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/wire"
)

// ErrNoOwner is returned when nobody has the share that was asked for, and nobody is about to: nobody works in the group.
var ErrNoOwner = errors.New("nobody owns it: no member of the group works")

// A Table says whose each share is, as the settled record shows it: for routers, whether they are members or not. It is what was settled last, not what is
// held right now: an owner may have let go, or died, since. Who must not be wrong gives the share's token along, and has the owner compare it.
type Table struct {
	Generation uint64 // the last that has settled; 0: none
	Settling   bool   // the next one has begun: what changes hands in it is nobody's for a moment
	Total      int    // members that share the work
	Buckets    int    // 0: shares are by index
	Map        string // how keys go to shares
	Stale      bool   // of [Tables]: the connection is away, this may be out of date

	rec    wire.Settled
	moving map[int]bool
}

// A Share is one index, or one bucket, of a [Table].
type Share struct {
	Member      string // its owner; "": nobody has it
	Incarnation uint64 // of the owner
	Index       int    // of the owner
	Bucket      int    // -1 without buckets
	Token       uint64 // the owner's fencing token: the generation, or the bucket's
	Moving      bool   // it is to change hands, or may: the owner named has been asked to let go of it
}

// Owner is the share of a key. It reports false if keys go to shares in a way that this version does not know.
func (t Table) Owner(key string) (Share, bool) {
	switch {
	case !known(t.Map, t.Buckets):
		return Share{Index: -1, Bucket: -1}, false
	case t.Buckets > 0:
		return t.Share(bucketBy(t.Map, key, t.Buckets)), true
	}
	return t.Share(Index(key, t.Total)), true
}

// Share is the one with that number: a bucket, or without buckets an index. One that does not exist is nobody's.
func (t Table) Share(n int) Share {
	s := Share{Index: -1, Bucket: -1}
	i := n
	if t.Buckets > 0 {
		s.Bucket, i = n, -1
		if n >= 0 && n < t.Buckets {
			i, s.Token = t.rec.Owners[n], t.rec.Tokens[n]
		}
		s.Moving = t.moving[n]
	} else {
		s.Token, s.Moving = t.Generation, t.Settling
	}
	if i < 0 || i >= len(t.rec.Places) {
		s.Token = 0
		return s
	}
	p := t.rec.Places[i]
	s.Member, s.Incarnation, s.Index = p.ID, p.Incarnation, i
	return s
}

func tableOf(e kv.Entry) (Table, error) {
	if e.Op != kv.Record {
		return Table{Map: MapJump}, nil
	}
	var t Table
	err := wire.Decode(e.Value, &t.rec)
	if err == nil {
		err = t.rec.Check()
	}
	if err != nil {
		return Table{}, fmt.Errorf("the settled record cannot be read: %w", err)
	}
	t.Generation, t.Total, t.Buckets, t.Map = t.rec.Generation, len(t.rec.Places), t.rec.Buckets, t.rec.Map
	if t.rec.Phase == wire.Settling {
		t.Generation, t.Settling = t.rec.Previous, true
		t.moving = make(map[int]bool, len(t.rec.Moving))
		for _, b := range t.rec.Moving {
			t.moving[b] = true
		}
	}
	return t, nil
}

// Lookup reads whose each share is, by one request to the bucket's leader.
func Lookup(ctx context.Context, c *coord.Client) (Table, error) {
	e, err := c.Namespace().Store.Read(ctx, wire.SettledKey(c.Name()))
	var t Table
	if err == nil {
		t, err = tableOf(e)
	}
	if err != nil {
		return Table{}, fmt.Errorf("partition: look up the shares of group %q: %w", c.Name(), err)
	}
	return t, nil
}

// Owner finds the member that a key belongs to, also for who is no member: the one that holds its share, with its metadata. While the share
// changes hands it waits, until ctx ends. It takes two requests; who asks often keeps a [Table] with [Tables].
func Owner(ctx context.Context, c *coord.Client, key string) (coord.Member, error) {
	fail := func(err error) (coord.Member, error) {
		return coord.Member{}, fmt.Errorf("partition: owner of %.80q in group %q: %w", key, c.Name(), err)
	}
	for {
		t, err := Lookup(ctx, c)
		if err != nil {
			return fail(err)
		}
		s, ok := t.Owner(key)
		switch {
		case !ok:
			return fail(fmt.Errorf("the group maps keys by %q, which this version does not know", t.Map))
		case s.Member == "" && !t.Settling:
			members, err := c.Members(ctx)
			if err != nil {
				return fail(err)
			}
			if !slices.ContainsFunc(members, func(m coord.Member) bool { return slices.Contains(m.Roles, coord.RoleWork) }) {
				return fail(ErrNoOwner)
			}
		case s.Member != "" && !s.Moving:
			members, err := c.Members(ctx)
			if err != nil {
				return fail(err)
			}
			for _, m := range members {
				if m.ID == s.Member && m.Incarnation == s.Incarnation {
					return m, nil
				}
			}
		}
		// In between, or its owner is gone and the next generation about to begin.
		select {
		case <-ctx.Done():
			return fail(context.Cause(ctx))
		case <-time.After(c.Namespace().Lease / 60):
		}
	}
}

// Tables yields whose each share is, now and at each change. A slow reader misses steps, never the latest. It ends silently with ctx, with one error when
// the client is closed or the membership has ended, and goes on across reconnects (Table.Stale meanwhile). A record that cannot be read is passed over.
func Tables(ctx context.Context, c *coord.Client) iter.Seq2[Table, error] {
	return func(yield func(Table, error) bool) {
		in := c.Namespace()
		var mu sync.Mutex
		var latest Table
		news, wake := false, make(chan struct{}, 1)
		w, err := in.Store.Watch(wire.SettledKey(c.Name()), kv.WatchOptions{}, func(e kv.Event) {
			t, err := tableOf(e.Entry)
			if err != nil {
				in.Log.Warn("settled record cannot be read", "group", c.Name(), "revision", e.Revision, "error", err)
				return
			}
			mu.Lock()
			latest, news = t, true
			mu.Unlock()
			select {
			case wake <- struct{}{}:
			default:
			}
		})
		fail := func(err error) {
			yield(Table{}, fmt.Errorf("partition: watch the shares of group %q: %w", c.Name(), err))
		}
		if err != nil {
			fail(err)
			return
		}
		defer w.Stop()
		tick := time.NewTicker(in.Lease / 6)
		defer tick.Stop()
		ended, cause := c.Ended()
		synced, first, stale := w.Synced(), true, false
		for {
			select {
			case <-ctx.Done():
				return
			case <-ended:
				if ctx.Err() == nil {
					fail(cause())
				}
				return
			case <-synced:
				synced = nil
			case <-wake:
			case <-tick.C:
			}
			if synced != nil {
				continue // the first is what there is
			}
			away := !in.Store.Conn().IsConnected()
			mu.Lock()
			t, tell := latest, news || first || away != stale
			news = false
			mu.Unlock()
			if t.Map == "" {
				t.Map = MapJump
			}
			if first, stale, t.Stale = false, away, away; tell && !yield(t, nil) {
				return
			}
		}
	}
}
