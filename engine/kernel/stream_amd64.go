//go:build !purego

package kernel

//go:noescape
func streamReadAVX2(x *float32, blocks int)

//go:noescape
func streamCopyAVX2(dst, x *float32, blocks int)

func streamRead(x []float32, blocks int) {
	if useAVX2 {
		streamReadAVX2(&x[0], blocks)
	} else {
		streamReadGeneric(x, blocks)
	}
}

func streamCopy(dst, x []float32, blocks int) {
	if useAVX2 {
		streamCopyAVX2(&dst[0], &x[0], blocks)
	} else {
		streamCopyGeneric(dst, x, blocks)
	}
}
