//go:build purego || !amd64

package kernel

const hasAVX2, hasAVX512, hasBF16 = false, false, false
