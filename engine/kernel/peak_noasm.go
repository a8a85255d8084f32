//go:build purego || !amd64

package kernel

func fmaPeak(n int) { fmaPeakGeneric(n) }
