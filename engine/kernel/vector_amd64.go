//go:build !purego

package kernel

//go:noescape
func scaleAVX2(dst *float32, f float32, n int)

//go:noescape
func axpyAVX2(dst *float32, a float32, x *float32, n int)

//go:noescape
func addAVX2(dst, a, b *float32, n int)

func scale(dst []float32, f float32) {
	if useAVX2 {
		scaleAVX2(&dst[0], f, len(dst))
	} else {
		scaleGeneric(dst, f)
	}
}

func axpy(dst []float32, a float32, x []float32) {
	if useAVX2 {
		axpyAVX2(&dst[0], a, &x[0], len(x))
	} else {
		axpyGeneric(dst, a, x)
	}
}

func add(dst, a, b []float32) {
	if useAVX2 {
		addAVX2(&dst[0], &a[0], &b[0], len(a))
	} else {
		addGeneric(dst, a, b)
	}
}
