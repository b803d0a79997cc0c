package kv

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

// A bucket can be deleted and made again, restored from a backup, or lose its last writes with the power (R19). The store
// then ends its attachment: [Store.Lost] is closed, every operation returns ErrBucketLost, watches stand still. The layers
// above end their terms and assignments, and whoever wants to go on calls [Store.Reattach].

// Lost is closed when the present attachment is lost: the bucket was made again, went away, or went back in its sequence.
// After [Store.Reattach] a new channel is returned, so keep the one that belongs to what you hold.
func (s *Store) Lost() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost
}

// Epoch counts the store's attachments to a bucket, from 1. A [Write] can name the one it was decided in.
func (s *Store) Epoch() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.epoch
}

// Reattach attaches to the bucket again after a loss, and makes it when it is gone, with revisions above all that this store
// has ever seen. It does nothing while the present attachment is good. Any number of callers may call it at once.
func (s *Store) Reattach(ctx context.Context) error { return s.attachAgain(ctx, s.o.AttachOnly) }

// healMost is how long one attempt of a store to attach again by itself may take.
const healMost = 2 * time.Second

// heal attaches to the bucket that somebody has made in the place of a lost one, for who only reads and would not call Reattach. It makes none: that is for who
// takes part.
func (s *Store) heal() {
	ctx, cancel := context.WithTimeout(s.ctx, healMost)
	defer cancel()
	_ = s.attachAgain(ctx, true) // reads and writes say what is the matter until it works
}

func (s *Store) attachAgain(ctx context.Context, only bool) error {
	select {
	case s.reattach <- struct{}{}:
		defer func() { <-s.reattach }()
	case <-ctx.Done():
		return fmt.Errorf("kv: attach to %s again: %w", s.bucket, ctx.Err())
	}
	if _, err := s.ready(0); err == nil || errors.Is(err, ErrClosed) {
		return err
	}
	info, err := s.attach(ctx, only)
	if err != nil {
		return fmt.Errorf("kv: attach to %s again: %w", s.bucket, err)
	}
	if err := s.attached(info); err != nil {
		return err
	}
	s.hub.call(s.hub.wakes)
	return nil
}

// attached begins a new attachment.
func (s *Store) attached(info *streamInfo) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if info.State.LastSeq < s.ever.Load() {
		// Only by a foreign hand, a restore or lost data: quorate's own creators choose a higher first sequence (L2, exception).
		s.log.Warn("bucket counts below what was seen before: tokens may repeat", "bucket", s.bucket,
			"last", info.State.LastSeq, "seen", s.ever.Load())
	}
	s.created, s.cause, s.lost = info.Created, nil, make(chan struct{})
	s.epoch++
	s.seen.Store(info.State.LastSeq)
	raise(&s.ever, info.State.LastSeq)
	s.log.Info("attached to the bucket again", "bucket", s.bucket, "created", info.Created, "last", info.State.LastSeq)
	return nil
}

// wasReborn reports whether this store has seen more than one bucket under its name.
func (s *Store) wasReborn() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reborn
}

// lose ends the present attachment.
func (s *Store) lose(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause != nil || s.closed {
		return
	}
	s.cause = fmt.Errorf("%w: bucket %s %s", ErrBucketLost, s.bucket, why)
	s.reborn = true
	s.log.Error("bucket lost", "bucket", s.bucket, "why", why)
	close(s.lost)
}

// observe compares what the stream's leader says with what is known; before is the highest sequence seen before it was asked.
// It reports whether the answer is of the known bucket and no older than that. Another creation time ends the attachment at once; a lower
// sequence only when it is seen twice, since an outdated stream leader shows the same for a moment.
func (s *Store) observe(info *streamInfo, before uint64) bool {
	s.mu.Lock()
	created := s.created
	s.mu.Unlock()
	if !info.Created.Equal(created) {
		s.lose(fmt.Sprintf("was made again: created %s, before %s", info.Created.Format(time.RFC3339Nano), created.Format(time.RFC3339Nano)))
		return false
	}
	if info.State.LastSeq < before {
		s.check()
		return false
	}
	s.note(info.State.LastSeq)
	return true
}

// suspect asks for a check when an error may mean that the bucket is gone.
func (s *Store) suspect(err error) {
	if hasCode(err, codeStreamNotFound) || errors.Is(err, nats.ErrNoResponders) {
		s.check()
	}
}

// check asks for a rebirth check soon.
func (s *Store) check() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// confirm is the time between two looks that must agree before a bucket is given up.
const confirm = 250 * time.Millisecond

// run is the store's own loop: rebirth checks, attaching again after a loss, and telling of reconnects. It ends with the store.
func (s *Store) run(connected, closed chan nats.Status) {
	reconnects := connected
	defer s.nc.RemoveStatusListener(connected)
	defer s.nc.RemoveStatusListener(closed)
	period := min(10*s.o.Reconcile, 10*time.Second)
	timer := time.NewTimer(jitter(period, 4))
	defer timer.Stop()
	gone := closed
	if s.nc.IsClosed() { // before anybody listened
		close(s.connClosed)
		gone = nil
	}
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-gone:
			close(s.connClosed)
			gone = nil
			continue
		case _, ok := <-reconnects:
			if !ok {
				reconnects = nil // the listener was removed: reconciling goes on by the timers
				continue
			}
			s.hub.reconnected()
		case <-s.kick:
		case <-timer.C:
		}
		if _, err := s.ready(0); err != nil {
			s.heal()
		} else {
			s.checkReborn()
		}
		wait := period
		if _, err := s.ready(0); err != nil {
			wait = s.o.Reconcile
		}
		timer.Reset(jitter(wait, 4))
	}
}

// checkReborn looks at the bucket, twice if the first look says that it is gone or has gone back.
func (s *Store) checkReborn() {
	for try := range 2 {
		if _, err := s.ready(0); err != nil {
			return
		}
		before := s.seen.Load()
		ctx, cancel := context.WithTimeout(s.ctx, max(s.o.Timeout, apiTimeout)) // a patient store would not come back
		info, err := s.info(ctx, "")
		cancel()
		var why string
		switch {
		case err == nil && s.observe(info, before):
			return
		case err == nil:
			why = fmt.Sprintf("went back to %d, %d was seen", info.State.LastSeq, before)
		case hasCode(err, codeStreamNotFound):
			why = "is gone"
		default:
			return // no answer, no verdict
		}
		if try == 1 {
			s.lose(why)
			return
		}
		if sleep(s.ctx, confirm) != nil {
			return
		}
		// What asked for this check has its answer with the second look.
		select {
		case <-s.kick:
		default:
		}
	}
}

// Check proves by a real round trip that everything quorate does in the bucket works with this connection: create, read,
// update, hear, purge, on a key of its own that expires by itself. The error names what is missing.
func (s *Store) Check(ctx context.Context) error {
	if err := s.checkServer(ctx); err != nil {
		return fmt.Errorf("kv: check: %w", err)
	}
	if err := s.roundTrip(ctx); err != nil {
		return fmt.Errorf("kv: check of bucket %s: %w", s.bucket, err)
	}
	return nil
}
