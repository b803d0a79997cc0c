package vote

import "errors"

// Errors that callers branch on.
var (
	ErrNoVoters    = errors.New("nobody in the group votes")
	ErrBadProposal = errors.New("proposal refused")
	ErrNoBallot    = errors.New("no such ballot")
	ErrVotes       = errors.New("this member votes already")
	ErrNoAction    = errors.New("no action was agreed on")
)
