//go:build unix

package cli

import (
	"os/exec"
	"syscall"
)

// ownGroup gives the command a process group of its own, which is killed as one when its context ends. An interrupt typed at the
// terminal is so this command's alone: it ends the hooks.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
