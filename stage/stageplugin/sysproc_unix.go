//go:build unix && !linux

package stageplugin

import "syscall"

// sysProcAttr: its own process group keeps a terminal's ctrl-C away from the child. Its parent's
// end it learns from stdin (see endWithParent).
func sysProcAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
