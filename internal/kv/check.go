package kv

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nuid"

	"github.com/quorate/quorate/internal/wire"
)

// checkTTL is how long a check's key lives when the check dies half way.
const checkTTL = 10 * time.Second

// roundTrip does what every election does. A lookup alone proves little: over a leaf node reads can work while writes fail
// (R37).
func (s *Store) roundTrip(ctx context.Context) error {
	nonce := nuid.Next()
	key := wire.CheckKey(nonce)
	heard := make(chan struct{}, 8)
	stop, err := s.Hints(key, func(Entry) {
		select {
		case heard <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return fmt.Errorf("subscribe to %s: %w", wire.KVHint(s.o.Namespace, key), err)
	}
	defer stop()

	value := []byte(`{"v":1,"nonce":"` + nonce + `"}`)
	first, err := s.must(ctx, Write{Key: key, Value: value, TTL: checkTTL})
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	var e Entry
	err = s.patiently(ctx, s.api+"STREAM.MSG.GET."+s.stream, func(ctx context.Context) (err error) {
		e, err = s.read(ctx, key, false)
		return err
	})
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if e.Op != Record || e.Revision < first || string(e.Value) != string(value) {
		return fmt.Errorf("read: found %+v, wrote revision %d", e, first)
	}
	second, err := s.must(ctx, Write{Key: key, Expected: first, Value: value, TTL: checkTTL})
	if err != nil {
		return fmt.Errorf("update: %w", err)
	}
	if _, out, err := s.do(ctx, Write{Key: key, Expected: first, Value: value, TTL: checkTTL}); out == Yes {
		return errors.New("update: a write on an old revision was accepted")
	} else if out == Unknown {
		return fmt.Errorf("update: %w", err)
	}
	if _, err := s.must(ctx, Write{Key: key, Expected: second, Purge: true, Nonce: nonce, TTL: checkTTL}); err != nil {
		return fmt.Errorf("purge: %w", err)
	}
	t := time.NewTimer(s.o.Timeout)
	defer t.Stop()
	select {
	case <-heard:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("hear: %w", ctx.Err())
	case <-t.C:
		subject := wire.KVHint(s.o.Namespace, key)
		if err := s.denied(subject, context.DeadlineExceeded); errors.Is(err, ErrPermission) {
			return fmt.Errorf("hear: %w", err)
		}
		return fmt.Errorf("hear: nothing came on %s: is it imported and permitted for this account?", subject)
	}
}

// must repeats an unanswered write until it is settled: the key is this check's own, so a refused repeat means it had landed.
func (s *Store) must(ctx context.Context, w Write) (uint64, error) {
	for try := 0; ; try++ {
		var rev uint64
		var out Outcome
		err := s.patiently(ctx, s.put+s.subject+w.Key, func(ctx context.Context) (err error) {
			rev, out, err = s.do(ctx, w)
			return err
		})
		switch {
		case out == Yes:
			return rev, nil
		case out == No && try > 0:
			e, rerr := s.read(ctx, w.Key, false)
			if rerr == nil && e.Revision > w.Expected {
				return e.Revision, nil
			}
			return 0, err
		case out == No, errors.Is(err, ErrPermission), errors.Is(err, ErrBucketLost), errors.Is(err, ErrClosed), ctx.Err() != nil, try >= 3:
			return 0, err
		}
		if sleep(ctx, backoff(try)) != nil {
			return 0, err
		}
	}
}
