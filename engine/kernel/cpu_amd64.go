//go:build !purego

package kernel

import "golang.org/x/sys/cpu"

// The CPU is checked once. x/sys/cpu reports an extension only if the operating system saves its registers too.
var (
	hasAVX2   = cpu.X86.HasAVX2 && cpu.X86.HasFMA && cpu.X86.HasF16C
	hasAVX512 = hasAVX2 && cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL
	hasBF16   = hasAVX512 && cpu.X86.HasAVX512BF16
)
