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
