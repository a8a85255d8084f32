//go:build !purego

package kernel

//go:noescape
func fmaPeakAVX2(n int)

func fmaPeak(n int) {
	if useAVX2 {
		fmaPeakAVX2(n)
	} else {
		fmaPeakGeneric(n)
	}
}
