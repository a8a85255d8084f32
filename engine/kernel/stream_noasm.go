//go:build purego || !amd64

package kernel

func streamRead(x []float32, blocks int)      { streamReadGeneric(x, blocks) }
func streamCopy(dst, x []float32, blocks int) { streamCopyGeneric(dst, x, blocks) }
