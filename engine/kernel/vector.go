package kernel

// What bounds these: the memory read and written; their arithmetic is one to three operations for 8 to 16 bytes.

// Scale is dst *= f.
func Scale(dst []float32, f float32) {
	if len(dst) > 0 {
		scale(dst, f)
	}
}

// Add is dst = a + b.
func Add(dst, a, b []float32) {
	if len(dst) > 0 {
		add(dst, a[:len(dst)], b[:len(dst)])
	}
}

// PReLU is dst = x where x is above 0, and x*slopes elsewhere: He et al. 2015, arXiv 1502.01852. NaN gives NaN.
func PReLU(dst, x, slopes []float32) {
	if len(dst) > 0 {
		preluAll(dst, x[:len(dst)], slopes[:len(dst)])
	}
}
