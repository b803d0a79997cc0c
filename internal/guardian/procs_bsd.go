//go:build darwin || freebsd || openbsd || dragonfly

package guardian

import (
	"os"
	"syscall"
	"time"
)

// findsAll: nobody hands us orphans here; a command is its process group.
const findsAll = false

func self() string {
	path, err := os.Executable()
	if err != nil {
		return os.Args[0]
	}
	return path
}

func startProcess(path string, args, env []string) (int, error) {
	p, err := os.StartProcess(path, args, &os.ProcAttr{Env: env, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys: &syscall.SysProcAttr{Setpgid: true}})
	if err != nil {
		return 0, err
	}
	pid := p.Pid
	_ = p.Release() // it is waited for with all others
	return pid, nil
}

func adopt(bool) {}

func rename(string) {}

type proc struct{ pid, group int }

func descendants(int) []proc { return nil }

// endLeftBehind kills the command's process group, and returns when nothing of it is left.
func endLeftBehind(_, group int, _ string) {
	for group != 0 && groupLives(group) {
		signalBelow(0, group, syscall.SIGKILL)
		t := time.NewTimer(5 * time.Millisecond)
		<-t.C
	}
}

// signalBelow sends a signal to the command's process group.
func signalBelow(_, group int, s syscall.Signal) {
	if group != 0 {
		_ = syscall.Kill(-group, s)
	}
}

func groupLives(group int) bool { return syscall.Kill(-group, 0) == nil }

// livesBelow tells whether anything lives of the command's process group.
func livesBelow(_, group int) bool { return group != 0 && groupLives(group) }
