//go:build purego || !amd64

package kernel

func tile(out []float32, rows []*float32, k int, panel []float32) { tileGeneric(out, rows, k, panel) }
