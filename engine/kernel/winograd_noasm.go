//go:build purego || !amd64

package kernel

func winogradInput(m int, dst []float32, stride int, src []*float32, n int) {
	winogradInputGeneric(m, dst, stride, src, n)
}

func winogradFilter(m int, dst []float32, stride int, src []*float32, n int) {
	winogradFilterGeneric(m, dst, stride, src, n)
}

func winogradOutput(m int, dst []float32, row, pixel int, src []float32, stride int, bias, residual []float32) {
	winogradOutputGeneric(m, dst, row, pixel, src, stride, bias, residual)
}

func block(out, x []float32, k int, panel []float32, add bool) { blockGeneric(out, x, k, panel, add) }
