package vae

import "math"

// Unscale turns latents as the denoiser has them, channels last, into what the decoder takes, in place: z / ScalingFactor, or
// z * Std / ScalingFactor + Mean.
func (c Config) Unscale(z []float32) {
	for i := range z {
		if c.Std == nil {
			z[i] /= c.ScalingFactor
			continue
		}
		k := i % c.LatentChannels
		z[i] = float32(z[i]*c.Std[k]/c.ScalingFactor) + c.Mean[k]
	}
}

// Scale is the inverse: what the encoder gives, channels last, becomes latents for the denoiser, in place.
func (c Config) Scale(z []float32) {
	for i := range z {
		if c.Std == nil {
			z[i] *= c.ScalingFactor
			continue
		}
		k := i % c.LatentChannels
		z[i] = (z[i] - c.Mean[k]) * c.ScalingFactor / c.Std[k]
	}
}

// The logarithm of a variance is kept in this range (diffusers DiagonalGaussianDistribution).
const minLogVar, maxLogVar = -30, 20

// Sample draws latents z = mean + std * noise from the encoder's moments. moments is channels last,
// [h*w, 2 LatentChannels], means before logarithms of variances; noise and the result are
// [h*w, LatentChannels]. A nil noise gives the mean.
func (c Config) Sample(moments, noise []float32) []float32 {
	n := c.LatentChannels
	z := make([]float32, len(moments)/2)
	for p := 0; p < len(z)/n; p++ {
		for k := range n {
			mean, logVar := moments[2*n*p+k], moments[2*n*p+n+k]
			z[n*p+k] = mean
			if noise != nil {
				logVar = min(max(logVar, minLogVar), maxLogVar)
				z[n*p+k] += float32(math.Exp(float64(0.5*logVar))) * noise[n*p+k]
			}
		}
	}
	return z
}
