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

// A RemoteError is what a member's handler returned for an [Client.Ask].
type RemoteError struct {
	Member string
	Text   string
}

func (e *RemoteError) Error() string { return fmt.Sprintf("member %q: %s", e.Member, e.Text) }
