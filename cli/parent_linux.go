package cli

import (
	"os/exec"
	"syscall"
)

// dieWithParent lets the kernel kill the process when the thread that starts it ends, however that happens. The caller keeps to
// one thread.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
