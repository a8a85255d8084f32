package sampler

import "math"

// Functions of one float32, rounded once.

func sqrt32(x float32) float32  { return float32(math.Sqrt(float64(x))) }
func exp32(x float32) float32   { return float32(math.Exp(float64(x))) }
func expm132(x float32) float32 { return float32(math.Expm1(float64(x))) }
func ln32(x float32) float32    { return float32(math.Log(float64(x))) }
