package stagetest

import (
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/stage"
)

// Prompts are valid for the fake encoder.
func Prompts() []string { return []string{"a small red boat", "a house by the sea"} }

// DenoiseRequest is valid for the fake denoiser, with guidance.
func DenoiseRequest() stage.DenoiseRequest {
	return stage.DenoiseRequest{
		Model:        Model,
		Conditioning: stage.Conditioning{States: numbers(2, maxTokens, contextDim)},
		LatentHeight: 4, LatentWidth: 6, Steps: 5, GuidanceScale: 4, Seed: 42,
	}
}

// Latent is valid for the fake decoder.
func Latent() stage.Latent { return stage.Latent{Tensor: numbers(1, channels, 4, 6)} }

func numbers(shape ...int) tensor.Tensor {
	n, _ := tensor.Shape(shape).Elems()
	values := make([]float32, n)
	for i := range values {
		values[i] = noise(1, 0, i)
	}
	return tensor.FromF32(values, shape...)
}
