package kernel

// Act is a pointwise function; order and values are those of device.Activation.
type Act uint8

// The activations by their names in the field.
const (
	None      Act = iota
	SiLU          // x * sigmoid(x): Hendrycks and Gimpel 2016, arXiv 1606.08415
	GELU          // x * Phi(x), the exact form with erf: the same paper
	QuickGELU     // x * sigmoid(1.702 x), CLIP's
)

// What bounds these three: with None the memory; with an activation the arithmetic, 14 operations for 8 elements and a
// division for the sigmoids, 23 for GELU. A Zen 1 takes 18 cycles for SiLU and 27 for GELU where the same operations take 14 and 23
// if none waits for another, which is what its ports allow: a multiply-add borrows one from the adders, and the divider
// holds up both for 8 cycles. With AVX-512 an Emerald Rapids takes 10 cycles for the division of 16 elements, which is all of
// SiLU, and 11.5 for GELU, whose 20 operations take 10 on its two ports.
//
// Precision: GELU is within 2e-7 of the larger of |result| and 1. The sigmoids are within 3e-7 of |result| plus what
// rounding their exponent costs, 1.2e-7 |x| of |result|. +Inf gives +Inf; -Inf gives NaN for the sigmoids, as in PyTorch,
// and 0 within rounding for GELU. NaN gives NaN.

// Finish is the epilogue of a matrix product: dst[i] = act(acc[i] + bias[i] + shift[i]) + residual[i].
// Each of bias, shift and residual may be nil.
func Finish(dst, acc, bias, shift, residual []float32, act Act) {
	n := len(dst)
	if n == 0 {
		return
	}
	finish(dst, acc[:n], cut(bias, n), cut(shift, n), cut(residual, n), act)
}

// Activate is dst = act(x).
func Activate(dst, x []float32, act Act) {
	if len(dst) > 0 {
		activate(dst, x[:len(dst)], act)
	}
}

// GEGLU is dst = x * GELU(gate): Shazeer 2020, arXiv 2002.05202.
func GEGLU(dst, x, gate []float32) {
	if len(dst) > 0 {
		geglu(dst, x[:len(dst)], gate[:len(dst)])
	}
}

// cut returns the first n elements of an optional operand.
func cut(s []float32, n int) []float32 {
	if s == nil {
		return nil
	}
	return s[:n]
}
