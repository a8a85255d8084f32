package kernel

import "runtime"

func streamReadGeneric(x []float32, blocks int) {
	var a, b, c, d float32
	for i := 0; i < blocks*StreamBlock; i += 4 {
		a, b, c, d = max(a, x[i]), max(b, x[i+1]), max(c, x[i+2]), max(d, x[i+3])
	}
	runtime.KeepAlive(a + b + c + d)
}

func streamCopyGeneric(dst, x []float32, blocks int) {
	for i := range blocks * StreamBlock {
		dst[i] = x[i]
	}
}
