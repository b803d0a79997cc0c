//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package embedded

import (
	"errors"
	"io/fs"
	"os"
)

func openLock(string, bool, bool) (*os.File, error) {
	return nil, errors.New("this system has no flock, without which two servers could destroy one store: use an existing NATS server")
}

func checkOwner(string, fs.FileInfo) error { return nil }
