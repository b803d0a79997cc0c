package leader

import (
	"errors"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/lease"
)

// ErrHeld is returned by [Elector.TryCampaign] when the leadership is held, or may still be.
var ErrHeld = errors.New("held by another")

// errTurned is why a term ends that was not quorate, when there are enough members: the next one is its own.
var errTurned = errors.New("enough members: a quorate term follows")

// cause translates what ended a term.
func cause(c lease.Cause) error {
	switch c {
	case lease.Resigned:
		return quorate.ErrResigned
	case lease.StepDown:
		return quorate.ErrStepDown
	case lease.Expired:
		return quorate.ErrExpired
	case lease.NotQuorate:
		return quorate.ErrNotQuorate
	case lease.Turned:
		return errTurned
	case lease.BucketLost:
		return quorate.ErrBucketLost
	case lease.ConnClosed:
		return quorate.ErrConnClosed
	}
	return quorate.ErrLost
}

// reason is cause in a word, as event lines have it.
func reason(c lease.Cause) string {
	switch c {
	case lease.Resigned:
		return "resigned"
	case lease.StepDown:
		return "stepped-down"
	case lease.Expired:
		return "expired"
	case lease.NotQuorate:
		return "not-quorate"
	case lease.Turned:
		return "turned"
	case lease.BucketLost:
		return "bucket-lost"
	case lease.ConnClosed:
		return "conn-closed"
	}
	return "lost"
}

// began is how a term came to be, in a word.
func began(b lease.Begin) string {
	switch {
	case b.After != 0:
		return "turned"
	case b.Expired:
		return "expired"
	case b.Fresh:
		return "fresh"
	}
	return "released"
}
