//go:build purego || !amd64

package kernel

const hasAVX2 = false
