//go:build purego || !amd64

package kernel

func finish(dst, acc, bias, shift, residual []float32, act Act) {
	finishGeneric(dst, acc, bias, shift, residual, act)
}
func activate(dst, x []float32, act Act) { activateGeneric(dst, x, act) }
func geglu(dst, x, gate []float32)       { gegluGeneric(dst, x, gate) }
