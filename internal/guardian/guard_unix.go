//go:build linux || darwin || freebsd || openbsd || dragonfly

package guardian

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nuid"

	"github.com/quorate/quorate/internal/clock"
	"github.com/quorate/quorate/internal/guardian/deadline"
)

const (
	renewals = 24               // of a lease: how often the guardian is told the deadline
	share    = 50               // of a lease: what is left when it kills
	patience = 10               // of a lease: how long it may take to say that it tells CMD to end; and what is left when quorate kills in its stead, which takes longer
	slack    = time.Second      // after the grace: until quorate kills by itself
	hush     = 10 * time.Second // most that a guardian may take to listen to its first order
)

// A Guard is one guarded command, as quorate sees it. Make it with [Start].
type Guard struct {
	c       Config
	cmd     *exec.Cmd
	mark    string
	orders  *os.File // to the guardian
	reports chan report
	m       *deadline.Machine // what the guardian is to do; and once it is deaf, what quorate does
	told    clock.Instant     // the deadline that the guardian was told last

	wants chan order // of the methods
	once  sync.Once  // End
	done  chan struct{}

	// Of the loop, and once it is done of everybody.
	result Result
	pid    int       // of the command's own process; 0: not started
	reaped bool      // by the guardian
	ending bool      // the guardian has said that it tells the command to end
	empty  time.Time // ending: since when nothing lives of the command, and the guardian has not said so
	over   bool      // and that nothing is left
	deaf   bool      // it does not say so in time: it is stopped
	killed bool      // quorate has killed it
	due    time.Time
	why    deadline.Why // with due: why it is to end
}

// Start starts the command. It returns once there is a guardian, and an error if there cannot be one.
func Start(c Config) (*Guard, error) {
	fail := func(err error) (*Guard, error) { return nil, fmt.Errorf("guardian: %w", err) }
	now, ok := clock.Shared()
	if !ok {
		return fail(errors.New("the clocks of this system cannot be read"))
	}
	orders, toGuardian, err := os.Pipe()
	if err != nil {
		return fail(err)
	}
	defer orders.Close()
	fromGuardian, reports, err := os.Pipe()
	if err != nil {
		toGuardian.Close()
		return fail(err)
	}
	defer reports.Close()
	g := &Guard{c: c, mark: nuid.Next(), orders: toGuardian, reports: make(chan report, 8), wants: make(chan order, 64), done: make(chan struct{})}
	until := now.Add(c.Left())
	rules := deadline.Config{Grace: c.Grace, Term: c.Term, Kill: c.Lease / share}
	g.m = deadline.New(deadline.Config{Grace: c.Grace + slack, Term: c.Term, Kill: rules.Kill / 2}, until)
	g.told = until

	g.cmd = exec.Command(self(), word, c.Name)
	g.cmd.Args[0] = "guardian"
	g.cmd.Env = append(c.Env[:len(c.Env):len(c.Env)], pipeEnv+"=1")
	g.cmd.Stdin, g.cmd.Stdout, g.cmd.Stderr = c.Stdin, c.Stdout, c.Stderr
	g.cmd.ExtraFiles = []*os.File{orders, reports}
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // what is typed at the terminal is not for it
	g.cmd.WaitDelay = time.Second                          // for a reader or writer of ours that hangs
	adopt(true)
	if err := g.cmd.Start(); err != nil {
		adopt(false)
		toGuardian.Close()
		fromGuardian.Close()
		return fail(err)
	}
	go func() {
		defer close(g.reports)
		defer fromGuardian.Close()
		in := json.NewDecoder(bufio.NewReader(fromGuardian))
		for {
			var r report
			if in.Decode(&r) != nil {
				return // it has ended: only it writes here
			}
			g.reports <- r
		}
	}()
	go g.loop(&runOrder{Path: []byte(c.Path), Args: toBytes(c.Args), Env: toBytes(append(c.Env[:len(c.Env):len(c.Env)], markEnv+"="+g.mark)),
		Rules: rules, Deadline: until, Name: c.Name})
	return g, nil
}

// End tells the command to end: TERM, and KILL after the grace.
func (g *Guard) End() {
	g.once.Do(func() { g.want(order{End: true}) })
}

// Signal hands a signal to the command's own process. What it has started does not get it.
func (g *Guard) Signal(s syscall.Signal) { g.want(order{Signal: s}) }

func (g *Guard) want(o order) {
	select {
	case g.wants <- o:
	case <-g.done:
	}
}

// Done is closed when nothing of the command is left.
func (g *Guard) Done() <-chan struct{} { return g.done }

// Result is how the command ended; not before Done.
func (g *Guard) Result() Result { return g.result }

func (g *Guard) loop(run *runOrder) {
	defer close(g.done)
	defer adopt(false)
	defer g.orders.Close()
	g.step(deadline.Begin{})
	g.tell(order{Run: run}, min(max(g.c.Left(), 0), hush))
	lost := g.c.Lost
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case r, ok := <-g.reports:
			if !ok {
				g.finish()
				return
			}
			g.heard(r)
		case o := <-g.wants:
			if o.End {
				g.step(deadline.End{Why: deadline.Asked})
			}
			g.tell(o, 0)
		case <-lost:
			lost = nil
			g.lose()
		case <-timer.C:
			g.renew()
		}
		if !g.due.IsZero() && !g.ending && !g.deaf && !g.over && time.Now().After(g.due) {
			g.stand()
		}
		if (g.deaf || g.ending) && g.silent() {
			g.kill() // it will not say that nothing is left
		}
		wait := g.c.Lease / renewals
		if next, ok := g.m.Next(); ok {
			now, _ := clock.Shared()
			wait = min(wait, now.Left(next))
		}
		timer.Reset(max(wait, time.Millisecond))
	}
}

// renew tells the guardian how long the right holds by now.
func (g *Guard) renew() {
	// The clocks are read before the right is asked: a pause in between makes the deadline earlier, not later.
	now, ok := clock.Shared()
	left := g.c.Left()
	if !ok || left <= 0 {
		g.lose()
		return
	}
	until := now.Add(left)
	g.step(deadline.Renewed{Deadline: until})
	if until.Mono > g.told.Mono+time.Millisecond && g.tell(order{Deadline: &until}, 0) {
		g.told = until
	}
}

func (g *Guard) lose() {
	g.step(deadline.End{Why: deadline.Lost})
	g.tell(order{Lost: true}, 0)
}

// step lets quorate's own machine decide, which is there for a guardian that is not.
func (g *Guard) step(in deadline.Input) {
	now, _ := clock.Shared()
	for _, fx := range g.m.Step(now, in) {
		switch fx := fx.(type) {
		case deadline.Term:
			if g.deaf {
				signalBelow(g.cmd.Process.Pid, g.pid, syscall.SIGTERM)
			} else if fx.Why != deadline.Itself {
				g.due, g.why = time.Now().Add(g.c.Lease/patience), fx.Why
			}
		case deadline.Kill:
			if !g.over {
				g.blame(fx.Why)
				g.kill()
			}
		case deadline.Over:
			g.blame(fx.Why)
		}
	}
}

// stand takes the place of a guardian that does not do its part.
func (g *Guard) stand() {
	g.deaf = true
	g.blame(g.why)
	if now, ok := clock.Shared(); !ok || now.Reached(g.told.Add(-g.c.Lease/patience)) {
		g.kill()
		return
	}
	g.m = deadline.New(deadline.Config{Grace: g.c.Grace, Term: 0, Kill: g.c.Lease / patience}, g.told)
	g.step(deadline.Begin{})
	g.step(deadline.End{Why: g.why})
}

// silent tells whether nothing is left of the command and the guardian does not say so: at once of one that is known to be stopped, of one that has told the
// command to end, and may have been stopped since, once it has been so for a lease.
func (g *Guard) silent() bool {
	switch {
	case g.killed || g.over:
		return false
	case livesBelow(g.cmd.Process.Pid, g.pid):
		g.empty = time.Time{}
		return false
	case g.deaf:
		return true
	case g.empty.IsZero():
		g.empty = time.Now()
	}
	return time.Since(g.empty) >= g.c.Lease
}

// blame notes what ended the command, unless that is known.
func (g *Guard) blame(why deadline.Why) {
	if g.result.Why == deadline.Itself {
		g.result.Why = why
	}
}

// kill kills all that the guardian was to end, and the guardian, also a stopped one; finish does what is left.
func (g *Guard) kill() {
	if !g.reaped {
		signalBelow(g.cmd.Process.Pid, g.pid, syscall.SIGKILL)
	}
	g.killed = true
	_ = g.cmd.Process.Kill() // it may have ended already
}

func (g *Guard) heard(r report) {
	switch {
	case r.Started != 0:
		g.pid, g.result.Started = r.Started, true
	case r.Failed != "":
		g.result.Err = fmt.Errorf("%w: %s", ErrCannotRun, r.Failed)
		if r.Missing {
			g.result.Err = fmt.Errorf("%w: %s", ErrNotFound, r.Failed)
		}
	case r.Ending != nil:
		g.ending = true
		g.blame(*r.Ending)
	case r.Exited != nil:
		g.reaped, g.result.Code = true, *r.Exited
		g.step(deadline.Exited{})
	case r.Gone:
		g.over = true
		g.step(deadline.Gone{})
	}
}

// tell sends an order, and says whether it went. It waits no longer than given: who does not read is stopped, and what it does not know ends the command
// earlier, not later.
func (g *Guard) tell(o order, most time.Duration) bool {
	if g.over || g.killed {
		return false
	}
	line, err := json.Marshal(o)
	if err != nil {
		return false // bytes and numbers always can be encoded
	}
	if err := g.orders.SetWriteDeadline(time.Now().Add(max(most, 5*time.Millisecond))); err != nil {
		return false
	}
	_, err = g.orders.Write(append(line, '\n'))
	if err != nil && o.Run != nil {
		g.kill() // it may have half of it
	}
	return err == nil
}

// finish waits until nothing is left, once the guardian has ended.
func (g *Guard) finish() {
	if !g.over {
		// Nobody waits for the guardian before: until then nobody else can have its number, which is that of its session.
		endLeftBehind(g.cmd.Process.Pid, g.pid, g.mark)
		if g.result.Err == nil {
			if g.result.Started && !g.reaped {
				g.result.Code = 128 + int(syscall.SIGKILL)
			}
			if !g.killed {
				g.result.Err = ErrGuardian
			}
		}
	}
	_ = g.cmd.Wait() // how the guardian ended says nothing
}
