package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// Errors that callers branch on; each is returned wrapped with where and what to do.
var (
	ErrStoreInUse  = errors.New("in use")                  // another server has this directory
	ErrNoServer    = errors.New("no server")               // ClientOnly, and nobody serves
	ErrWrongServer = errors.New("not the expected server") // something else answers at the address
	ErrClosed      = errors.New("closed")
)

// dirError says in one line what is wrong with a directory and what to do about it.
func dirError(what, dir string, err error) error {
	var path *fs.PathError
	cause := err
	if errors.As(err, &path) {
		cause = path.Err // its path is usually the directory again, or a file of ours that means nothing to the user
	}
	advice := "choose another directory"
	switch {
	case errors.Is(cause, syscall.ENOSPC), errors.Is(cause, syscall.EDQUOT):
		advice = "make room on the disk"
	case errors.Is(cause, fs.ErrPermission):
		advice = "make it writable for this user, or choose another directory"
	case errors.Is(cause, syscall.ENOTDIR), errors.Is(cause, syscall.EISDIR), errors.Is(cause, fs.ErrExist):
		advice = "remove what stands in its place, or choose another directory"
	}
	return fmt.Errorf("embedded: %s %s: %w: %s", what, dir, cause, advice)
}
