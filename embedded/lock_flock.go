//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// openLock opens (and with create makes) the lock file and tries to get the lock, without waiting. It gives errHeld
// when another open file has it.
//
// The kernel drops the lock when the last copy of the descriptor is closed, which a kill does too; the flag that closes
// it on exec keeps it out of child processes, which could otherwise hold it on after our death.
func openLock(path string, create, shared bool) (*os.File, error) {
	flags, how := os.O_RDWR, unix.LOCK_EX|unix.LOCK_NB
	if create {
		flags |= os.O_CREATE
	}
	if shared {
		flags, how = os.O_RDONLY, unix.LOCK_SH|unix.LOCK_NB
	}
	f, err := os.OpenFile(path, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, errHeld
	}
	return nil, &fs.PathError{Op: "flock", Path: path, Err: err}
}

// checkOwner refuses a directory that another user could put files in: the processes believe what is written there.
func checkOwner(dir string, fi fs.FileInfo) error {
	if fi.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("embedded: state directory %s: other users may write to it: chmod 700 it, or choose another directory", dir)
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	if me := os.Geteuid(); me != 0 && int(st.Uid) != me && st.Uid != 0 {
		return fmt.Errorf("embedded: state directory %s: belongs to another user (uid %d): choose another directory", dir, st.Uid)
	}
	return nil
}
