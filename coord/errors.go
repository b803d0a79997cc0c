package coord

import (
	"errors"
	"fmt"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/leader"
)

// Errors that callers branch on.
var (
	ErrNoLeader  = errors.New("no leader")
	ErrNoMember  = errors.New("no such member")
	ErrNoGroup   = errors.New("no such group")
	ErrIDInUse   = quorate.ErrIDInUse
	ErrEvicted   = quorate.ErrEvicted
	ErrLeft      = quorate.ErrLeft
	ErrUntold    = errors.New("left, but the group could not be told: it finds out when the lease has run out")
	ErrGone      = leader.ErrGone // the term or incarnation that was meant
	ErrSuccessor = errors.New("it cannot take over")
	ErrNoHandler = errors.New("nobody handles this topic there")
	ErrNoAnswer  = errors.New("no answer: it may have been handled")
	ErrBusy      = errors.New("not handled: too many messages wait there already")
)

// reason is why a right has ended in a word, as event lines have it.
func reason(cause error) string {
	for _, c := range []struct {
		err  error
		text string
	}{
		{quorate.ErrRevoked, "settling"}, {quorate.ErrLeft, "left"}, {quorate.ErrEvicted, "evicted"}, {quorate.ErrExpired, "expired"}, {quorate.ErrNotQuorate, "not-quorate"},
		{quorate.ErrBucketLost, "bucket-lost"}, {quorate.ErrIDInUse, "superseded"}, {quorate.ErrConnClosed, "conn-closed"},
	} {
		if errors.Is(cause, c.err) {
			return c.text
		}
	}
	return "lost"
}

// A RemoteError is what a member's handler returned for an [Client.Ask].
type RemoteError struct {
	Member string
	Text   string
}

func (e *RemoteError) Error() string { return fmt.Sprintf("member %q: %s", e.Member, e.Text) }
