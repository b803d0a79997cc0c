//go:build linux || darwin || freebsd || openbsd || dragonfly

package guardian

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/quorate/quorate/internal/clock"
	"github.com/quorate/quorate/internal/guardian/deadline"
)

// glance is how often the guardian looks at the clocks: its timers do not know of a suspend.
const glance = 100 * time.Millisecond

// The pipes, as Start hands them over.
const (
	ordersFD  = 3
	reportsFD = 4
)

// A keeper is the guardian.
type keeper struct {
	m       *deadline.Machine
	run     *runOrder
	reports *json.Encoder
	stderr  io.Writer
	pid     int // of the command's own process, and of its group; 0: not started
	reaped  bool
	over    bool
	told    bool // a remark was made
}

// Main is the whole life of a guardian; see [Called]. It returns the exit code of its process, which nobody looks at.
func Main(stderr io.Writer) int {
	// The command is killed with the thread that starts it (see startProcess).
	runtime.LockOSThread()
	in, out := os.NewFile(ordersFD, "orders"), os.NewFile(reportsFD, "reports")
	for _, fd := range []int{ordersFD, reportsFD} {
		syscall.CloseOnExec(fd) // a command that had the pipe would hide the end of quorate
	}
	orders := make(chan order)
	go func() {
		defer close(orders)
		d := json.NewDecoder(bufio.NewReader(in))
		for {
			var o order
			if d.Decode(&o) != nil {
				return // quorate is gone
			}
			orders <- o
		}
	}()
	first, ok := <-orders
	if !ok || first.Run == nil {
		return 1
	}
	// Whoever asks the guardian to end means the command. (Reset: nobody but this function is to hear of it.)
	asked := make(chan os.Signal, 8)
	signal.Reset(syscall.SIGINT, syscall.SIGTERM)
	signal.Notify(asked, syscall.SIGINT, syscall.SIGTERM)
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	adopt(true)
	rename("guardian")

	k := &keeper{m: deadline.New(first.Run.Rules, first.Run.Deadline), run: first.Run, reports: json.NewEncoder(out), stderr: stderr}
	k.step(deadline.Begin{})
	timer := time.NewTimer(glance)
	defer timer.Stop()
	for !k.over {
		wait := glance
		if next, ok := k.m.Next(); ok {
			now, _ := clock.Shared()
			wait = max(min(wait, now.Left(next)), 0)
		}
		timer.Reset(wait)
		select {
		case o, ok := <-orders:
			if !ok {
				orders = nil
				k.step(deadline.End{Why: deadline.Alone})
				break
			}
			k.obey(o)
		case <-asked:
			k.step(deadline.End{Why: deadline.Asked})
		case <-children:
		case <-timer.C:
		}
		k.collect()
		k.step(deadline.Tick{})
	}
	return 0
}

func (k *keeper) obey(o order) {
	switch {
	case o.Deadline != nil:
		k.step(deadline.Renewed{Deadline: *o.Deadline})
	case o.End:
		k.step(deadline.End{Why: deadline.Asked})
	case o.Lost:
		k.step(deadline.End{Why: deadline.Lost})
	case o.Signal != 0 && k.pid != 0 && !k.reaped:
		_ = syscall.Kill(k.pid, o.Signal) // it may have changed its user; then it hears nothing
	}
}

func (k *keeper) step(in deadline.Input) {
	now, _ := clock.Shared()
	for _, fx := range k.m.Step(now, in) {
		switch fx := fx.(type) {
		case deadline.Start:
			k.start()
		case deadline.Term:
			k.report(report{Ending: &fx.Why})
			k.signal(syscall.SIGTERM)
			k.remark(fx.Why)
		case deadline.Kill:
			k.report(report{Ending: &fx.Why})
			k.signal(syscall.SIGKILL)
			switch {
			case k.told:
			case fx.Why == deadline.Lost:
				k.say("it is lost: the command is killed")
			case fx.Unrenewed:
				k.say("its lease is about to run out: what has not ended is killed")
			default:
				k.say("the grace is over: what has not ended is killed")
			}
			k.told = true
		case deadline.Over:
			if k.pid == 0 {
				k.report(report{Ending: &fx.Why})
			}
			k.report(report{Gone: true})
			k.over = true
		}
	}
}

func (k *keeper) start() {
	pid, err := startProcess(string(k.run.Path), fromBytes(k.run.Args), fromBytes(k.run.Env))
	if err != nil {
		var why error = err
		var p *fs.PathError
		if errors.As(err, &p) {
			why = p.Err
		}
		k.report(report{Failed: why.Error(), Missing: errors.Is(err, fs.ErrNotExist)})
		k.step(deadline.Exited{})
		k.step(deadline.Gone{})
		return
	}
	k.pid = pid
	k.report(report{Started: pid})
}

// signal sends a signal to all that is there of the command.
func (k *keeper) signal(s syscall.Signal) {
	if k.pid == 0 {
		return
	}
	if !k.reaped || !findsAll { // once it is reaped its number may be another's
		_ = syscall.Kill(-k.pid, s) // there may be none left in the group
		if s != syscall.SIGKILL {
			_ = syscall.Kill(-k.pid, syscall.SIGCONT) // what is stopped hears nothing
		}
	}
	for _, p := range descendants(os.Getpid()) {
		if p.group == k.pid && !k.reaped {
			continue
		}
		_ = syscall.Kill(p.pid, s)
		if s != syscall.SIGKILL {
			_ = syscall.Kill(p.pid, syscall.SIGCONT)
		}
	}
}

// collect reaps what has ended, orphans that were handed to us too.
func (k *keeper) collect() {
	for k.pid != 0 && !k.over {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil: // no child is left
			if findsAll || !groupLives(k.pid) {
				k.step(deadline.Gone{})
			}
			return
		case pid == 0:
			return
		case pid == k.pid:
			k.reaped = true
			code := status.ExitStatus()
			if status.Signaled() {
				code = 128 + int(status.Signal())
			}
			k.report(report{Exited: &code})
			k.exited()
		}
	}
}

// exited lets the machine know, unless nothing is left anyway: then nobody needs to be told to end.
func (k *keeper) exited() {
	var status syscall.WaitStatus
	for {
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.EINTR), pid > 0:
			continue
		case err != nil && (findsAll || !groupLives(k.pid)):
			k.told = true // nothing is worth a remark
		}
		break
	}
	k.step(deadline.Exited{})
}

func (k *keeper) report(r report) {
	_ = k.reports.Encode(r) // without quorate nobody needs it
}

// remark says on standard error what nobody else may be there to say.
func (k *keeper) remark(why deadline.Why) {
	if k.told {
		return
	}
	switch why {
	case deadline.Unrenewed:
		k.say("its lease is not renewed: the command is told to end")
	case deadline.Alone:
		k.say("quorate was killed: the command is told to end")
	case deadline.Itself:
		k.say("the command has ended and left processes behind: they are told to end")
	case deadline.Lost, deadline.Asked:
	}
}

func (k *keeper) say(text string) {
	io.WriteString(k.stderr, fmt.Sprintf("quorate: run: %s: %s\n", strings.ToValidUTF8(k.run.Name, "?"), text))
}
