//go:build purego || !amd64

package kernel

func pairRow(dst, src []float32)                       { pairRowGeneric(dst, src) }
func pairRows(dst, src []float32, stride, rows int)    { pairRowsGeneric(dst, src, stride, rows) }
func pairNarrow(dst []float32, src []uint16, rows int) { pairNarrowGeneric(dst, src, rows) }
