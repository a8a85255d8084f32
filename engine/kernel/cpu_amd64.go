//go:build !purego

package kernel

import "golang.org/x/sys/cpu"

// hasAVX2 is checked once. x/sys/cpu reports AVX2 only if the operating system saves the registers too.
var hasAVX2 = cpu.X86.HasAVX2 && cpu.X86.HasFMA && cpu.X86.HasF16C
