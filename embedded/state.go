package embedded

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The files of a state directory.
const (
	hostLock  = "host.lock" // flock: who holds it may serve
	hostFile  = "host.json" // who serves: a ServerInfo
	tokenFile = "token"     // the secret of the server that serves
	storeFile = "store"     // the name of the store below dataDir
	dataDir   = "data"

	maxFile = 64 << 10 // bytes read of any of them
)

// A ServerInfo says who serves; it is what host.json holds.
type ServerInfo struct {
	Version int       `json:"v"` // 1
	PID     int       `json:"pid"`
	URL     string    `json:"url"`     // nats://127.0.0.1:port
	Server  string    `json:"server"`  // the server's random name, as its INFO line has it
	Started time.Time `json:"started"` // for display
}

// DefaultDir is the state directory used when none is given: quorate below XDG_STATE_HOME, or below ~/.local/state.
func DefaultDir() (string, error) {
	// The XDG specification has relative values ignored.
	if state := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return filepath.Join(state, "quorate"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("embedded: no state directory: %w: set XDG_STATE_HOME, or name a directory", err)
	}
	return filepath.Join(home, ".local", "state", "quorate"), nil
}

// A stateDir is the path of a state directory.
type stateDir string

func (d stateDir) path(name string) string { return filepath.Join(string(d), name) }

// prepare makes the directory if it does not exist, and refuses one that others could write to.
func (d stateDir) prepare() error {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return dirError("state directory", string(d), err)
	}
	return d.check()
}

// check refuses what is not a directory of our own.
func (d stateDir) check() error {
	fi, err := os.Stat(string(d))
	if err != nil {
		return dirError("state directory", string(d), err)
	}
	if !fi.IsDir() {
		return fmt.Errorf("embedded: state directory %s: is not a directory: choose another", d)
	}
	return checkOwner(string(d), fi)
}

// server reads who serves. An error that is fs.ErrNotExist: nobody does, or a server is just starting.
func (d stateDir) server() (ServerInfo, error) {
	var info ServerInfo
	b, err := d.read(hostFile)
	if err != nil {
		return info, err
	}
	if err := json.Unmarshal(b, &info); err != nil {
		return info, fmt.Errorf("embedded: %s: %w: stop the quorate processes that use it and remove it", d.path(hostFile), err)
	}
	if info.Version != 1 || info.Server == "" || !strings.HasPrefix(info.URL, "nats://") {
		return info, fmt.Errorf("embedded: %s: not written by this version of quorate: use one version on one host", d.path(hostFile))
	}
	return info, nil
}

func (d stateDir) token() (string, error) {
	b, err := d.read(tokenFile)
	return strings.TrimSpace(string(b)), err
}

// store is the directory of the store; it is named on the first use.
//
// Its name is random so that a server whose state directory was removed and made again cannot write into the store of
// the next one: JetStream opens files by their paths, also at its end.
func (d stateDir) store() (string, error) {
	b, err := d.read(storeFile)
	name := strings.TrimSpace(string(b))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		name = randomHex(8)
		// Synced: with the name the data would be lost.
		if err := d.write(storeFile, []byte(name+"\n"), true); err != nil {
			return "", err
		}
	case err != nil:
		return "", dirError("state directory", string(d), err)
	case name == "" || !filepath.IsLocal(name) || strings.ContainsAny(name, `/\.`):
		return "", fmt.Errorf("embedded: %s: holds no name of a store: write the name of the directory below %s into it",
			d.path(storeFile), d.path(dataDir))
	}
	return filepath.Join(d.path(dataDir), name), nil
}

func (d stateDir) read(name string) ([]byte, error) {
	f, err := os.Open(d.path(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile))
}

// write replaces a file in one step: readers see the old one or the new one. Only the holder of the lock writes, so one
// temporary name is enough, and nothing piles up when writers are killed.
func (d stateDir) write(name string, data []byte, synced bool) error {
	tmp := d.path("." + name + ".tmp")
	err := func() error {
		f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		_, err = f.Write(data)
		if err == nil && synced {
			err = f.Sync()
		}
		return errors.Join(err, f.Close())
	}()
	if err == nil {
		err = os.Rename(tmp, d.path(name))
	}
	if err == nil && synced {
		err = syncDir(string(d))
	}
	if err != nil {
		return dirError("state directory", string(d), err)
	}
	return nil
}

// syncDir makes a rename in the directory last.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// randomHex is n random bytes in hexadecimal.
func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
