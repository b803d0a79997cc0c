package fence

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/quorate/quorate/internal/wire"
)

// Header carries the token: of an HTTP request, of an HTTP answer (the highest seen), and of a record in a bucket.
const Header = wire.HeaderToken

// A Holder is what a token is taken from: a *leader.Term, a *partition.Assignment, or [Token] for a bare number.
type Holder interface {
	Token() uint64 // never changes
	Live() bool    // whether it is held now; false is final
}

// A Token is a bare fencing token, as it was read from a message or a command line: whether it is still held nobody asks.
type Token uint64

// Token is the number itself.
func (t Token) Token() uint64 { return uint64(t) }

// Live is always true: a number cannot tell.
func (t Token) Live() bool { return true }

// What a write can end with, besides nil. An error that is not [ErrUnknown] says that nothing was written.
var (
	ErrStale    = errors.New("stale fencing token")            // a newer one has been here; see [StaleError]
	ErrUnknown  = errors.New("outcome unknown")                // it may have been written, or may still be
	ErrNotLive  = errors.New("not held any more")              // the holder has lost its right: nothing was sent
	ErrNoToken  = errors.New("no fencing token")               // the holder's token is 0
	ErrConflict = errors.New("record was changed by another")  // of the same token: see [KV.Update], or too many at once
	ErrNotFound = errors.New("no such record")                 // never written, or deleted
	ErrRecord   = errors.New("record's token is not a number") // written by a foreign hand: nobody can say whether it is older
)

// A StaleError is an [ErrStale] that names both tokens.
type StaleError struct {
	What  string // the record or scope: not in the text, for what wraps this names it
	Token uint64 // that was refused
	Newer uint64 // that has been seen there; 0 when it is not known
}

func (e *StaleError) Error() string {
	if e.Newer == 0 {
		return fmt.Sprintf("%v: %d", ErrStale, e.Token)
	}
	return fmt.Sprintf("%v: %d, a later holder has used %d", ErrStale, e.Token, e.Newer)
}

func (e *StaleError) Unwrap() error { return ErrStale }

// check refuses, before anything is sent, a holder that has no token or has lost its right (F3).
func check(h Holder) error {
	switch {
	case h == nil || h.Token() == 0:
		return ErrNoToken
	case !h.Live():
		return fmt.Errorf("token %d: %w", h.Token(), ErrNotLive)
	}
	return nil
}

// parse reads a token as it is written: decimal, no sign, not 0.
func parse(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n == 0 || s[0] == '0' || s[0] == '+' {
		return 0, fmt.Errorf("%q is not a token: a decimal number above 0 is wanted", s)
	}
	return n, nil
}
