package stageplugin

import "syscall"

// sysProcAttr: the kernel kills the child when the thread that started it ends (see process.run),
// and its own process group keeps a terminal's ctrl-C away from it.
func sysProcAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
