package kernel

import "runtime"

func fmaPeakGeneric(n int) {
	one := float32(n / n) //nolint:staticcheck // a constant would be multiplied out by the compiler
	var a, b, c, d, e, f, g, h, i, j, k, l float32
	for range 8 * n {
		a += one * one
		b += one * one
		c += one * one
		d += one * one
		e += one * one
		f += one * one
		g += one * one
		h += one * one
		i += one * one
		j += one * one
		k += one * one
		l += one * one
	}
	runtime.KeepAlive(a + b + c + d + e + f + g + h + i + j + k + l)
}
