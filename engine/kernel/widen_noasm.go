//go:build purego || !amd64

package kernel

func widenF16(dst []float32, src []uint16)  { widenF16Generic(dst, src) }
func widenBF16(dst []float32, src []uint16) { widenBF16Generic(dst, src) }
