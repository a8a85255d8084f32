//go:build !unix

package stageplugin

import "syscall"

// sysProcAttr: nothing special here; its parent's end the child learns from stdin (see
// endWithParent).
func sysProcAttr() *syscall.SysProcAttr { return nil }
