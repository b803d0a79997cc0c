package guardian

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// findsAll: on Linux nothing that a command has started is out of reach, wherever it has gone.
const findsAll = true

// self is this very program file, also when another has taken its place meanwhile: both ends of the pipe are of one version.
func self() string { return "/proc/self/exe" }

// startProcess starts the command in a process group of its own. The kernel kills it when this thread ends, and so when the guardian is killed.
func startProcess(path string, args, env []string) (int, error) {
	p, err := os.StartProcess(path, args, &os.ProcAttr{Env: env, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}})
	if err != nil {
		return 0, err
	}
	pid := p.Pid
	_ = p.Release() // it is waited for with all others
	return pid, nil
}

var adoption struct {
	mu sync.Mutex
	n  int
}

// adopt has orphans among our descendants handed to us, from the first caller that says so until the last one has said no.
func adopt(on bool) {
	adoption.mu.Lock()
	defer adoption.mu.Unlock()
	if on {
		adoption.n++
	} else {
		adoption.n--
	}
	if adoption.n == 0 || on && adoption.n == 1 {
		var v uintptr
		if on {
			v = 1
		}
		_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, v, 0, 0, 0) // known since Linux 3.4
	}
}

// rename is for who looks at the processes: `killall quorate` must not mean the guardian.
func rename(name string) { _ = os.WriteFile("/proc/self/comm", []byte(name), 0) }

type proc struct {
	pid, parent, group, session int
	zombie                      bool
}

// processes are all that there are, by their numbers.
func processes() map[int]proc {
	d, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil
	}
	all := map[int]proc{}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue // it has ended meanwhile
		}
		p := proc{pid: pid}
		var state string
		// The name in brackets can have anything in it.
		if _, err := fmt.Sscan(string(stat[bytes.LastIndexByte(stat, ')')+1:]), &state, &p.parent, &p.group, &p.session); err != nil {
			continue
		}
		p.zombie = state == "Z" || state == "X"
		all[pid] = p
	}
	return all
}

// descendants are the living processes below one.
func descendants(of int) []proc {
	return below(processes(), func(p proc) bool { return p.parent == of })
}

// below are the living processes that is says yes to, and all of their descendants.
func below(all map[int]proc, is func(proc) bool) []proc {
	found := map[int]bool{}
	for pid, p := range all {
		if is(p) {
			found[pid] = true
		}
	}
	for more := true; more; {
		more = false
		for pid, p := range all {
			if !found[pid] && found[p.parent] {
				found[pid], more = true, true
			}
		}
	}
	var l []proc
	for pid := range found {
		if p := all[pid]; !p.zombie {
			l = append(l, p)
		}
	}
	return l
}

// endLeftBehind kills what is left of a command whose guardian is dead, but not reaped, and returns when nothing is. It goes by the guardian's session, and by the
// mark in the environment of what has left that; the dead guardian's children are ours by now.
func endLeftBehind(guardian, _ int, mark string) {
	variable := []byte(markEnv + "=" + mark)
	reap := map[int]bool{}
	for clean := 0; clean < 2; { // twice: what forks while it is looked for can be missed once
		all := processes()
		left := below(all, func(p proc) bool {
			return p.pid != guardian && (p.session == guardian || marked(p.pid, variable))
		})
		for _, p := range left {
			reap[p.pid] = true
			_ = syscall.Kill(p.pid, syscall.SIGKILL)
		}
		clean++
		if len(left) > 0 {
			clean = 0
		}
		for pid, p := range all {
			if p.zombie && p.parent == os.Getpid() && pid != guardian && (p.session == guardian || reap[pid]) {
				_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
			}
		}
		pause(5 * time.Millisecond)
	}
}

func pause(d time.Duration) {
	t := time.NewTimer(d)
	<-t.C
}

func marked(pid int, variable []byte) bool {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return false // another user's, or it has ended
	}
	for v := range bytes.SplitSeq(env, []byte{0}) {
		if bytes.Equal(v, variable) {
			return true
		}
	}
	return false
}

// signalBelow sends a signal to all of a guardian's command, in its stead. A KILL is sent again until nothing lives, or for a while: a guardian
// that is not stopped does the same at the same time.
func signalBelow(guardian, _ int, s syscall.Signal) {
	for range 20 {
		left := descendants(guardian)
		for _, p := range left {
			_ = syscall.Kill(p.pid, s)
			if s != syscall.SIGKILL {
				_ = syscall.Kill(p.pid, syscall.SIGCONT)
			}
		}
		if s != syscall.SIGKILL || len(left) == 0 {
			return
		}
	}
}

// livesBelow tells whether anything lives of a guardian's command.
func livesBelow(guardian, _ int) bool { return len(descendants(guardian)) > 0 }

func groupLives(int) bool { return false } // nobody asks: findsAll
