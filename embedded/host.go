package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// HostOptions of [OpenHost]. The zero value works.
type HostOptions struct {
	Dir string // state directory; default [DefaultDir]

	// ClientOnly never serves: for one-shot commands. With nobody serving, OpenHost gives [ErrNoServer] at once and makes no
	// file or directory.
	ClientOnly bool
	// ServeOnly serves or gives [ErrStoreInUse], at once.
	ServeOnly bool

	// OnServe is called, in a goroutine of its own, each time this process has begun to serve. Close waits for it, so it
	// must not call Close.
	OnServe func(url string)

	// Server has options for the server, where this process serves; StoreDir, Host, Port, Name, Token and Logger are
	// not used.
	Server Options

	Logger *slog.Logger // default discards
}

const (
	checkEvery = time.Second // H3

	pollIdle = 400 * time.Millisecond // without a connection that would tell; plus up to half of it
	pollLost = 5 * time.Millisecond   // for lostFor after a connection broke or a dial failed; plus up to twice that
	lostFor  = time.Second
	holdOff  = 500 * time.Millisecond // after a failed start, so that another process may try
	sayAgain = 30 * time.Second       // the same reason is logged no more often
	openPoll = 2 * time.Millisecond   // while opening; plus up to four times that
	warnWait = 2 * time.Second        // after which waiting for a server that does not answer is logged
)

// A Host is this process's share in the server of its host.
type Host struct {
	dir stateDir
	o   HostOptions
	log *slog.Logger

	dialing     context.Context // ends when Close begins: dials end
	stopDialing context.CancelFunc
	running     context.Context // ends after the connections are closed: the loop ends, and the server
	stopRunning context.CancelFunc
	wg          sync.WaitGroup
	closing     sync.Once
	done        chan struct{}

	lost chan struct{} // capacity 1: a connection broke, or a dial failed

	mu    sync.Mutex
	conns []*nats.Conn // made by Connect; nil once closing
	shut  bool

	serve *serving // owned by OpenHost until it returns, then by the loop
}

// serving is what the process that serves has.
type serving struct {
	lock *fileLock
	srv  *Server
	info ServerInfo
}

// OpenHost joins the processes of this host that share a state directory. If none of them serves, this one does, before
// OpenHost returns; else it returns when the server answers. If the serving process is stopped or hangs, OpenHost waits until
// ctx ends; ctx has no meaning afterwards.
func OpenHost(ctx context.Context, o HostOptions) (*Host, error) {
	if o.ClientOnly && o.ServeOnly {
		return nil, errors.New("embedded: ClientOnly and ServeOnly exclude each other: set one")
	}
	if o.Dir == "" {
		var err error
		if o.Dir, err = DefaultDir(); err != nil {
			return nil, err
		}
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, dirError("state directory", o.Dir, err)
	}
	h := &Host{dir: stateDir(dir), o: o, log: o.Logger, done: make(chan struct{}), lost: make(chan struct{}, 1)}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	h.dialing, h.stopDialing = context.WithCancel(context.Background())
	h.running, h.stopRunning = context.WithCancel(context.Background())
	if err := h.open(ctx); err != nil {
		h.stopDialing()
		h.stopRunning()
		return nil, err
	}
	h.wg.Go(h.run)
	return h, nil
}

// open returns when this process serves or another one's server answers.
func (h *Host) open(ctx context.Context) error {
	if h.o.ClientOnly {
		err := h.dir.check()
		if errors.Is(err, fs.ErrNotExist) {
			return h.noServer()
		}
		if err != nil {
			return err
		}
	}
	warned := time.Now().Add(warnWait)
	for try := 0; ; try++ {
		var err error
		if !h.o.ClientOnly {
			if err = h.take(ctx); err == nil {
				return nil
			}
			// ErrStoreInUse: the lock file was removed under a server, which will notice (H3).
			if !errors.Is(err, errHeld) && !errors.Is(err, ErrStoreInUse) {
				return err
			}
			// A single refusal may be a reader that just looked (see lockHeld).
			if h.o.ServeOnly && try >= 10 {
				if errors.Is(err, ErrStoreInUse) {
					return err
				}
				return fmt.Errorf("embedded: state directory %s: %w by %s: stop that, or choose another directory",
					h.dir, ErrStoreInUse, holder(h.dir.path(hostLock)))
			}
		}
		if !h.o.ServeOnly {
			c, derr := h.dial(ctx)
			if derr == nil {
				return c.Close()
			}
			// Another user's files do not become readable by waiting.
			if h.o.ClientOnly && (errors.Is(derr, ErrNoServer) || errors.Is(derr, fs.ErrPermission)) {
				return derr
			}
			if err == nil || errors.Is(err, errHeld) {
				err = derr
			}
		}
		if time.Now().After(warned) {
			warned = warned.Add(10 * time.Second)
			h.log.Warn("embedded: waiting for the server", "dir", string(h.dir), "error", err)
		}
		select {
		case <-ctx.Done():
			if errors.Is(err, ErrStoreInUse) {
				return err
			}
			return h.waited(ctx)
		case <-time.After(openPoll + rand.N(4*openPoll)):
		}
	}
}

// waited says for whom we waited in vain.
func (h *Host) waited(ctx context.Context) error {
	path := h.dir.path(hostLock)
	held, err := lockHeld(path)
	if err == nil && !held {
		return h.noServer()
	}
	return fmt.Errorf("embedded: server in %s: %s has it but does not answer: %w: end or continue that process", h.dir, holder(path), context.Cause(ctx))
}

func (h *Host) noServer() error {
	return fmt.Errorf("embedded: %w in %s", ErrNoServer, h.dir)
}

// take tries to become the one that serves. errHeld: somebody else is.
func (h *Host) take(ctx context.Context) error {
	if err := h.dir.prepare(); err != nil {
		return err
	}
	lock, err := tryLock(h.dir.path(hostLock))
	if errors.Is(err, errHeld) {
		return err
	}
	if err != nil {
		return dirError("state directory", string(h.dir), err)
	}
	s, err := h.startServing(ctx, lock)
	if err != nil {
		lock.release()
		return err
	}
	h.serve = s
	h.log.Info("embedded: serving", "dir", string(h.dir), "url", s.info.URL)
	if h.o.OnServe != nil {
		h.wg.Go(func() { h.o.OnServe(s.info.URL) })
	}
	return nil
}

// startServing starts the server, with the lock held.
func (h *Host) startServing(ctx context.Context, lock *fileLock) (*serving, error) {
	// First of all nobody shall dial the address of the server before us any more (H4).
	if err := os.Remove(h.dir.path(hostFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, dirError("state directory", string(h.dir), err)
	}
	store, err := h.dir.store()
	if err != nil {
		return nil, err
	}
	o := h.o.Server
	o.StoreDir, o.Host, o.Port, o.Name, o.Token, o.Logger = store, "", 0, "quorate-"+randomHex(8), randomHex(24), h.o.Logger
	// A new token for each server: one that was shown to an impostor at a dead server's address opens nothing.
	if err := h.dir.write(tokenFile, []byte(o.Token+"\n"), false); err != nil {
		return nil, err
	}
	srv, err := Start(ctx, o)
	if err != nil {
		return nil, err
	}
	s := &serving{lock: lock, srv: srv, info: ServerInfo{Version: 1, PID: os.Getpid(), URL: srv.URL(), Server: srv.Name(), Started: time.Now().UTC()}}
	b, err := json.Marshal(s.info)
	if err == nil {
		// Last: who reads it finds a server that is ready and a token that is its.
		err = h.dir.write(hostFile, append(b, '\n'), false)
	}
	if err != nil {
		_ = srv.Close(context.Background())
		return nil, err
	}
	return s, nil
}

// stopServing stops the server and then releases the lock: in this order, or two servers would write to one store (H1).
func (h *Host) stopServing() {
	s := h.serve
	h.serve = nil
	if s.lock.intact() == nil { // else the file is another server's
		os.Remove(h.dir.path(hostFile))
	}
	// Unbounded: a lock given up while the server still writes would destroy the store. Host.Close bounds its own wait.
	_ = s.srv.Close(context.Background())
	s.lock.release()
	h.log.Info("embedded: no longer serving", "dir", string(h.dir))
}

// check says why this process must no longer serve (H3).
func (s *serving) check() error {
	if err := s.lock.intact(); err != nil {
		return err
	}
	return s.srv.Check()
}

// run is the loop that owns the serving: it competes for the lock while another process has it, and looks after the server
// while this one has.
func (h *Host) run() {
	defer func() {
		if h.serve != nil {
			h.stopServing()
		}
	}()
	var lostUntil, notBefore, again time.Time
	told := ""
	for {
		wait := checkEvery
		if h.serve == nil {
			now := time.Now()
			wait = pollIdle + rand.N(pollIdle/2)
			if now.Before(lostUntil) {
				wait = pollLost + rand.N(2*pollLost)
			}
			wait = max(wait, notBefore.Sub(now))
		}
		timer := time.NewTimer(wait)
		select {
		case <-h.running.Done():
			timer.Stop()
			return
		case <-h.lost:
			timer.Stop()
			lostUntil = time.Now().Add(lostFor)
		case <-timer.C:
		}
		if h.serve != nil {
			if err := h.serve.check(); err != nil {
				h.log.Warn("embedded: must stop serving", "dir", string(h.dir), "error", err)
				h.stopServing()
				lostUntil = time.Now().Add(lostFor)
			}
			continue
		}
		if h.o.ClientOnly || time.Now().Before(notBefore) {
			continue
		}
		if err := h.take(h.running); err != nil && !errors.Is(err, errHeld) {
			notBefore = time.Now().Add(holdOff)
			if text := err.Error(); h.running.Err() == nil && (text != told || time.Now().After(again)) {
				told, again = text, time.Now().Add(sayAgain)
				h.log.Error("embedded: cannot serve", "dir", string(h.dir), "error", err)
			}
		}
	}
}

// lostServer tells the loop that the server may be gone. It never blocks.
func (h *Host) lostServer() {
	select {
	case h.lost <- struct{}{}:
	default:
	}
}

// Dir is the state directory, as an absolute path.
func (h *Host) Dir() string { return string(h.dir) }

// Server reads who serves at this moment. While nobody does, the error is [ErrNoServer].
func (h *Host) Server() (ServerInfo, error) {
	held, err := lockHeld(h.dir.path(hostLock))
	if err != nil {
		return ServerInfo{}, dirError("state directory", string(h.dir), err)
	}
	if !held {
		return ServerInfo{}, h.noServer()
	}
	info, err := h.dir.server()
	if errors.Is(err, fs.ErrNotExist) {
		return ServerInfo{}, h.noServer()
	}
	return info, err
}

// adopt keeps a connection, to close it with the Host; false when it is closing.
func (h *Host) adopt(nc *nats.Conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.shut {
		return false
	}
	h.conns = append(slices.DeleteFunc(h.conns, (*nats.Conn).IsClosed), nc)
	return true
}

// Close closes the connections made by Connect, and if this process serves stops the server and hands the store over. What is
// to end in order (terms, memberships) must end before.
//
// When ctx ends first the rest goes on, and another Close waits for it; the lock is kept until the server has stopped.
func (h *Host) Close(ctx context.Context) error {
	h.closing.Do(func() {
		go func() {
			h.stopDialing() // a dial would keep its connection locked
			h.mu.Lock()
			conns := h.conns
			h.conns, h.shut = nil, true
			h.mu.Unlock()
			for _, nc := range conns {
				nc.Close()
			}
			h.stopRunning()
			h.wg.Wait()
			close(h.done)
		}()
	})
	select {
	case <-h.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("embedded: leave %s: %w", h.dir, context.Cause(ctx))
	}
}
