package testenv

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/clock"
	"github.com/quorate/quorate/internal/inner"
)

// process is what stands behind one namespace of an Env: a process with a connection, clocks and loops of its own.
type process struct {
	e    *Env
	name string
	ns   *quorate.Namespace
	nc   *nats.Conn
	link *Link
	gate *inner.Gate
	wall atomic.Int64 // what its wall clock is off
	boot atomic.Int64 // how long it was suspended
	dead atomic.Bool
}

// Namespace opens a namespace as a new "process" would: over a connection of its own that can be cut, healed and killed,
// with loops that can be paused and clocks that can jump. At most one Config is taken. All are watched by [Env.Invariants].
func (e *Env) Namespace(cfg ...quorate.Config) *quorate.Namespace {
	e.t.Helper()
	var c quorate.Config
	if len(cfg) > 0 {
		c = cfg[0]
	}
	return e.NamespaceOver(c)
}

// NamespaceOver is [Env.Namespace] over a connection with options of its own: see [Env.Connect].
func (e *Env) NamespaceOver(c quorate.Config, opts ...nats.Option) *quorate.Namespace {
	e.t.Helper()
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	p := &process{e: e, name: fmt.Sprintf("process %d", e.started.Add(1)), gate: &inner.Gate{}}
	p.nc, p.link = e.Connect(p.name, opts...)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ns, err := quorate.OpenWith(ctx, p.nc, c, inner.Options{Memory: true, Clock: p.now, Gate: p.gate, Probe: e.Invariants().hear})
	if err != nil {
		e.t.Fatalf("%s: %v", p.name, err)
	}
	p.ns = ns
	e.hurry(ns.Timings().Lease)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.processes == nil {
		e.processes = map[*quorate.Namespace]*process{}
		e.closers = append([]func(){e.endProcesses}, e.closers...) // runs last of all
	}
	e.processes[ns] = p
	return ns
}

// Invariants are the watchers over all namespaces of the environment.
func (e *Env) Invariants() *Invariants {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.invariants == nil {
		e.invariants = Watch(e.t)
		stop, done := make(chan struct{}), make(chan struct{})
		go func() { // between events too: a right that is extended wrongly makes none
			defer close(done)
			for {
				timer := time.NewTimer(max(100*time.Millisecond, time.Duration(e.lease.Load())/30))
				select {
				case <-timer.C:
					e.invariants.Look()
				case <-e.look: // more often from now on
					timer.Stop()
				case <-stop:
					timer.Stop()
					return
				}
			}
		}()
		e.closers = append([]func(){func() { close(stop); <-done }}, e.closers...)
	}
	return e.invariants
}

// hurry has the watchers look as often as a lease asks for.
func (e *Env) hurry(lease time.Duration) {
	for {
		old := e.lease.Load()
		if old != 0 && old <= int64(lease) {
			return
		}
		if e.lease.CompareAndSwap(old, int64(lease)) {
			break
		}
	}
	select {
	case e.look <- struct{}{}:
	default:
	}
}

func (e *Env) process(ns *quorate.Namespace) *process {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.processes[ns]
	if p == nil {
		e.t.Fatal("testenv: namespace was not opened by this environment")
	}
	return p
}

// Link is the link of the namespace's connection.
func (e *Env) Link(ns *quorate.Namespace) *Link { return e.process(ns).link }

// Conn is the namespace's connection.
func (e *Env) Conn(ns *quorate.Namespace) *nats.Conn { return e.process(ns).nc }

// Cut lets nothing through between the namespace's process and the server, in both directions, and closes nothing.
func (e *Env) Cut(ns *quorate.Namespace) { e.process(ns).link.Cut(Both) }

// Heal ends a Cut; what was held back goes on.
func (e *Env) Heal(ns *quorate.Namespace) { e.process(ns).link.Heal() }

// Pause holds the process: its loops stand still while its clocks run, as under SIGSTOP. What asks Live goes on.
func (e *Env) Pause(ns *quorate.Namespace) { e.process(ns).gate.Shut() }

// Resume lets a paused process go on.
func (e *Env) Resume(ns *quorate.Namespace) { e.process(ns).gate.Open() }

// Kill ends the process as kill -9 would: it does nothing any more, says goodbye to nobody, and holds nothing.
func (e *Env) Kill(ns *quorate.Namespace) {
	p := e.process(ns)
	e.Invariants().Killed(ns)
	p.gate.Shut()
	p.link.Down(true)
	p.link.Kill() // the kernel closes what the process had open
	p.nc.Close()  // and nobody tries to open it again
	p.nc.Close()
	p.dead.Store(true)
}

// JumpWall lets the process's wall clock jump.
func (e *Env) JumpWall(ns *quorate.Namespace, by time.Duration) { e.process(ns).wall.Add(int64(by)) }

// Suspend lets the process's boot-time and wall clocks jump ahead while its monotonic clock stands still, as a suspend of
// the machine does.
func (e *Env) Suspend(ns *quorate.Namespace, by time.Duration) {
	p := e.process(ns)
	p.boot.Add(int64(by))
	p.wall.Add(int64(by))
}

func (p *process) now() clock.Instant {
	t := p.e.began.Add(time.Since(p.e.at))
	t.Boot += time.Duration(p.boot.Load())
	t.Wall += time.Duration(p.wall.Load())
	return t
}

// Remove closes the namespace and its connection, of a process that is alive or dead, and forgets the process: for long tests, in
// which many come and go. The namespace must not be used after it.
func (e *Env) Remove(ns *quorate.Namespace) {
	e.t.Helper()
	p := e.process(ns)
	p.close(e.t)
	p.nc.Close()
	p.link.Close()
	e.mu.Lock()
	delete(e.processes, ns)
	e.conns = slices.DeleteFunc(e.conns, func(nc *nats.Conn) bool { return nc == p.nc })
	e.links = slices.DeleteFunc(e.links, func(l *Link) bool { return l == p.link })
	e.mu.Unlock()
	e.Invariants().forget(ns)
}

// endProcesses closes what is left, so that the test sees every goroutine gone.
func (e *Env) endProcesses() {
	e.mu.Lock()
	all := make([]*process, 0, len(e.processes))
	for _, p := range e.processes {
		all = append(all, p)
	}
	e.mu.Unlock()
	done := make(chan struct{}, len(all))
	for _, p := range all {
		go func() {
			defer func() { done <- struct{}{} }()
			p.close(e.t)
		}()
	}
	for range all {
		<-done
	}
}

func (p *process) close(t testing.TB) {
	if p.dead.Load() {
		p.nc.Close()
		p.link.Close()
	} else {
		p.link.Heal()
	}
	p.gate.Open()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	if err := p.ns.Close(ctx); err != nil && !p.dead.Load() {
		t.Errorf("%s: close: %v", p.name, err)
	}
}
