//go:build purego || !amd64

package kernel

func winogradInput(f Winograd, dst []float32, stride int, src []*float32, n int) {
	winogradInputGeneric(f, dst, stride, src, n)
}

func winogradFilter(f Winograd, dst []float32, stride int, src []*float32, n int) {
	winogradFilterGeneric(f, dst, stride, src, n)
}

func winogradOutput(f Winograd, dst []float32, row, pixel int, src []float32, stride int, bias, slopes *[TileCols]float32, residual []float32) {
	winogradOutputGeneric(f, dst, row, pixel, src, stride, bias, slopes, residual)
}
