package quorate

import (
	"errors"

	"github.com/quorate/quorate/internal/kv"
)

// Why a right ended: the causes of the contexts of terms, assignments and groups (see [context.Cause]).
var (
	ErrResigned   = errors.New("resigned")
	ErrStepDown   = errors.New("asked to step down")
	ErrRevoked    = errors.New("revoked: the group settles again")
	ErrExpired    = errors.New("lease ran out before a renewal was confirmed")
	ErrLost       = errors.New("lost: another's write stands under the key")
	ErrNotQuorate = errors.New("fewer members than the minimum size")
	ErrLeft       = errors.New("left the group")
	ErrEvicted    = errors.New("evicted from the group")
	ErrIDInUse    = errors.New("member id is in use by another process")
	ErrConnClosed = errors.New("NATS connection is closed")
	ErrClosed     = errors.New("closed")
)

// What [Open] refuses a NATS or a bucket for; the errors returned say what was found and what is needed.
var (
	ErrBucketLost    = kv.ErrBucketLost
	ErrBucketMissing = kv.ErrBucketMissing
	ErrBucket        = kv.ErrBucket
	ErrNoJetStream   = kv.ErrNoJetStream
	ErrOldServer     = kv.ErrOldServer
	ErrPermission    = kv.ErrPermission
)
