package leader

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/lease"
	"github.com/quorate/quorate/internal/wire"
)

// State is who leads, as the bucket shows it.
type State struct {
	Holder string        // id of the leader; "" when there is none
	Keeper string        // id of who holds the key: the leader, or a process that is none, for want of members (design 4.1)
	Value  string        // what it says about itself
	Token  uint64        // of its term
	Since  time.Time     // when it acquired the leadership, by its own wall clock
	Host   string        // where it runs
	Lease  time.Duration // it counts with
	Stale  bool          // the connection or the bucket is away: this may be out of date
}

// StateOf tells what a record or marker of a leader's key shows.
func StateOf(e kv.Entry) State {
	if e.Op != kv.Record {
		return State{}
	}
	rec := &wire.Leader{}
	if wire.Decode(e.Value, rec) != nil {
		return State{}
	}
	return stateOf(lease.Entry{Kind: lease.Held, Rev: e.Revision, Rec: rec})
}

func stateOf(e lease.Entry) State {
	if e.Kind != lease.Held || e.Rec == nil {
		return State{}
	}
	if e.Rec.Quorate != nil && !*e.Rec.Quorate {
		return State{Keeper: e.Rec.ID, Lease: e.Rec.Lease()} // announced as no leader: no term of it is told
	}
	s := State{Holder: e.Rec.ID, Keeper: e.Rec.ID, Value: e.Rec.Value, Token: e.Rec.Token, Host: e.Rec.Host, Lease: e.Rec.Lease()}
	if s.Token == 0 {
		s.Token = e.Rev // the acquiring write: its revision is the token
	}
	s.Since, _ = time.Parse(time.RFC3339Nano, e.Rec.Since) // display only
	return s
}

// Leader reads who leads, from the stream's leader. A holder that has died is named until another takes over.
func (e *Elector) Leader(ctx context.Context) (State, error) {
	en, err := e.in.Store.Read(ctx, e.key)
	if err != nil {
		return State{}, fmt.Errorf("leader: read %s %q: %w", e.own.Label, e.name, err)
	}
	return StateOf(en), nil
}

// freshness tells, asked each sixth of a lease, whether what is heard of the bucket can be up to date. A connection that lets
// nothing through is noticed by the pings minutes later; but the watch's own look at the bucket has an answer each sixth of
// a lease, so half a lease without a single message is silence.
func (e *Elector) freshness() func() bool {
	nc := e.in.Store.Conn()
	var heard uint64
	at := e.in.Now()
	return func() bool {
		now := e.in.Now()
		if n := nc.Stats().InMsgs; n != heard {
			heard, at = n, now
		}
		select {
		case <-e.in.Store.Lost():
			return false
		default:
		}
		return nc.IsConnected() && !now.Waited(at, e.in.Lease/2)
	}
}

// Watch yields who leads, now and at each change. A slow reader misses changes, never the latest. It ends silently with
// ctx, with one error when the elector is closed, and goes on across reconnects (State.Stale meanwhile).
func (e *Elector) Watch(ctx context.Context) iter.Seq2[State, error] {
	return func(yield func(State, error) bool) {
		box := make(chan State, 1)
		put := func(s State) {
			select {
			case <-box:
			default:
			}
			box <- s
		}
		w, err := e.in.Store.Watch(e.key, kv.WatchOptions{}, func(ev kv.Event) { put(StateOf(ev.Entry)) })
		if err != nil {
			yield(State{}, fmt.Errorf("leader: watch %s %q: %w", e.own.Label, e.name, err))
			return
		}
		defer w.Stop()
		tick := time.NewTicker(e.in.Lease / 6)
		defer tick.Stop()
		var last State
		first := true
		fresh := e.freshness()
		show := func(s State) bool {
			s.Stale = !fresh()
			if !first && s == last {
				return true
			}
			first, last = false, s
			return yield(s, nil)
		}
		synced := w.Synced()
		cur := State{}
		for {
			select {
			case <-ctx.Done():
				return
			case <-e.done:
				yield(State{}, fmt.Errorf("leader: watch %s %q: %w", e.own.Label, e.name, e.closedBy()))
				return
			case cur = <-box:
				if !show(cur) {
					return
				}
			case <-synced:
				synced = nil
				select {
				case cur = <-box:
				default:
				}
				if !show(cur) {
					return
				}
			case <-tick.C:
				if synced == nil && !show(cur) {
					return
				}
			}
		}
	}
}
