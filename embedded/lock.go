package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// errHeld: somebody else has the lock.
var errHeld = errors.New("locked")

// A fileLock is an exclusive lock on a file that holds the process id of its holder.
type fileLock struct {
	path string
	file *os.File
}

// tryLock takes the lock of the file, which it makes if needed, without waiting; errHeld when somebody else has it.
func tryLock(path string) (*fileLock, error) {
	for range 10 {
		f, err := openLock(path, true, false)
		if err != nil {
			return nil, err
		}
		l := &fileLock{path: path, file: f}
		// Between the open and the lock the file may have been removed and made again: then the lock is worth nothing.
		if l.intact() != nil {
			l.release()
			continue
		}
		if err := l.stamp(); err != nil {
			l.release()
			return nil, err
		}
		return l, nil
	}
	return nil, &fs.PathError{Op: "lock", Path: path, Err: errors.New("the file is replaced again and again")}
}

// stamp writes our process id, for the error messages of others: nobody decides by it.
func (l *fileLock) stamp() error {
	if err := l.file.Truncate(0); err != nil {
		return err
	}
	_, err := l.file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// intact says whether the path still is the file that is locked (H3).
func (l *fileLock) intact() error {
	mine, err := l.file.Stat()
	if err != nil {
		return err
	}
	there, err := os.Lstat(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s was removed", l.path)
	}
	if err != nil {
		return err
	}
	if !os.SameFile(mine, there) {
		return fmt.Errorf("%s was replaced", l.path)
	}
	return nil
}

// release gives the lock up. The file stays: removing it would let two processes lock two files of one name.
func (l *fileLock) release() { l.file.Close() }

// lockHeld tells whether somebody holds the lock, without taking it: a shared lock for a few microseconds, which makes
// another process's attempt fail in that time (they all try again). A file that is not there is held by nobody.
func lockHeld(path string) (bool, error) {
	f, err := openLock(path, false, true)
	switch {
	case errors.Is(err, errHeld):
		return true, nil
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	}
	f.Close()
	return false, nil
}

// holder names who has the lock, for messages.
func holder(path string) string {
	b, err := os.ReadFile(path)
	pid, bad := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || bad != nil {
		return "another process"
	}
	if pid == os.Getpid() {
		return fmt.Sprintf("this process (pid %d)", pid)
	}
	return fmt.Sprintf("process %d", pid)
}
