//go:build !purego

package kernel

//go:noescape
func scaleAVX2(dst *float32, f float32, n int)

//go:noescape
func addAVX2(dst, a, b *float32, n int)

//go:noescape
func preluAVX2(dst, x, slopes *float32, n int)

//go:noescape
func scaleAVX512(dst *float32, f float32, n int)

//go:noescape
func addAVX512(dst, a, b *float32, n int)

//go:noescape
func preluAVX512(dst, x, slopes *float32, n int)

func scale(dst []float32, f float32) {
	switch {
	case useAVX512:
		scaleAVX512(&dst[0], f, len(dst))
	case useAVX2:
		scaleAVX2(&dst[0], f, len(dst))
	default:
		scaleGeneric(dst, f)
	}
}

func add(dst, a, b []float32) {
	switch {
	case useAVX512:
		addAVX512(&dst[0], &a[0], &b[0], len(a))
	case useAVX2:
		addAVX2(&dst[0], &a[0], &b[0], len(a))
	default:
		addGeneric(dst, a, b)
	}
}

func preluAll(dst, x, slopes []float32) {
	switch {
	case useAVX512:
		preluAVX512(&dst[0], &x[0], &slopes[0], len(x))
	case useAVX2:
		preluAVX2(&dst[0], &x[0], &slopes[0], len(x))
	default:
		preluGeneric(dst, x, slopes)
	}
}
