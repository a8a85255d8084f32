//go:build purego || !amd64

package kernel

func maxRow(s []float32) float32                     { return maxRowGeneric(s) }
func expRow(s []float32, scale, max float32) float32 { return expRowGeneric(s, scale, max) }
