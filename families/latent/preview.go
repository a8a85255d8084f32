package latent

import (
	"context"
	"fmt"

	"github.com/triptych-serving/triptych/engine/imaging"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// OptionPreviews says how estimates become previews.
const OptionPreviews = "preview_method"

// The methods.
const (
	previewDecoder = "decoder"    // the turn that decodes, which is asked if its stage is free
	previewLinear  = "latent_rgb" // a linear function of each place's latents, in the denoiser: a pixel for a place
)

// valuePreview is an image that a turn gives as a preview by itself.
const valuePreview = "preview"

// linear is a latent space in which colours are about a linear function of the latents, -1 to 1: factors [channel][colour].
type linear struct {
	scaling float32 // of the autoencoders that have the space
	factors [][3]float32
	bias    [3]float32
}

// linears are those that are known: of Stable Diffusion 1 and 2 by keturn 2022 (discuss.huggingface.co, 23204), of Stable Diffusion XL
// by Vass 2023 (Explaining the SDXL latent space, huggingface.co/blog), from levels of 0 to 255.
var linears = []linear{
	{0.18215, [][3]float32{{0.298, 0.207, 0.208}, {0.187, 0.286, 0.173}, {-0.158, 0.189, 0.264}, {-0.184, -0.271, -0.473}}, [3]float32{}},
	{0.13025, [][3]float32{{level(60), level(60), level(60)}, {level(-60), level(-5), level(10)}, {level(25), level(15), level(-5)}, {level(-70), level(-50), level(-35)}}, [3]float32{level(150) - 1, level(140) - 1, level(130) - 1}},
}

// level is what a difference of levels is between -1 and 1.
func level(v float32) float32 { return v / 127.5 }

// linear is that of the model's latent space, nil if none is known.
func (m *Model) linear() *linear {
	for i := range linears {
		if l := &linears[i]; l.scaling == m.VAE.ScalingFactor && len(l.factors) == m.VAE.LatentChannels {
			return l
		}
	}
	return nil
}

// previews is the spec of how estimates become previews; without a default it is the decoder's turn.
func (m *Model) previews() stage.OptionSpec {
	choices := []string{previewDecoder}
	if m.linear() != nil {
		choices = append(choices, previewLinear)
	}
	return stage.OptionSpec{Name: OptionPreviews, Type: stage.Text, Choices: choices}
}

// preview is what the observer sees of latents: them, or an image.
func (d *denoising) preview(ctx context.Context, latents []float32) (stage.Value, error) {
	if h, w := d.latentSize(d.req.Options); d.tiny != nil {
		return d.tiny.image(ctx, latents, d.VAE.LatentChannels, h, w)
	}
	if d.req.Options[OptionPreviews].Text != previewLinear {
		return d.latents(latents), nil
	}
	l := d.linear()
	if l == nil {
		return stage.Value{}, fmt.Errorf("no colours are known of latents with %d channels scaled by %v", d.VAE.LatentChannels, d.VAE.ScalingFactor)
	}
	h, w := d.latentSize(d.req.Options)
	file, err := family.ImageFile(l.colours(latents, h*w), h, w, imaging.Options{Format: imaging.PNG})
	return stage.Value{Name: valuePreview, File: file}, err
}

// colours are those of latents [channels, pixels], [pixels, 3].
func (l *linear) colours(latents []float32, pixels int) []float32 {
	out := make([]float32, 0, 3*pixels)
	for i := range pixels {
		rgb := l.bias
		for c, factors := range l.factors {
			for k := range rgb {
				rgb[k] += factors[k] * latents[c*pixels+i]
			}
		}
		out = append(out, rgb[:]...)
	}
	return out
}
