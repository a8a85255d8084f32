//go:build !purego

package kernel

//go:noescape
func fmaPeakAVX2(n int)

//go:noescape
func fmaPeakAVX512(n int)

func fmaPeak(n int) {
	switch {
	case useAVX512:
		fmaPeakAVX512(n)
	case useAVX2:
		fmaPeakAVX2(n)
	default:
		fmaPeakGeneric(n)
	}
}
