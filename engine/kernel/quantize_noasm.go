//go:build purego || !amd64

package kernel

func absMax(s []float32) float32 { return absMaxGeneric(s) }

func quantizeI8(dst []int8, src []float32, scale float32) { quantizeI8Generic(dst, src, scale) }
