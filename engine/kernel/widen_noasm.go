//go:build purego || !amd64

package kernel

func widenF16(dst []float32, src []uint16)  { widenF16Generic(dst, src) }
func widenBF16(dst []float32, src []uint16) { widenBF16Generic(dst, src) }

func widenI4(dst []float32, src []uint8, scales *[TileCols]float32) { widenI4Generic(dst, src, scales) }
func widenI8(dst []float32, src []int8, scales *[TileCols]float32)  { widenI8Generic(dst, src, scales) }
