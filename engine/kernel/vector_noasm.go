//go:build purego || !amd64

package kernel

func scale(dst []float32, f float32)    { scaleGeneric(dst, f) }
func add(dst, a, b []float32)           { addGeneric(dst, a, b) }
func preluAll(dst, x, slopes []float32) { preluGeneric(dst, x, slopes) }
