// Package latent is what families of latent diffusion share (Rombach et al. 2022, arXiv 2112.10752): text encoders' states
// of prompts guide a U-Net through the latents of an autoencoder, from noise or from a picture. A family gives its configs,
// its schedule, its encode turn and what it conditions on beside the states; the loop and all behind it is here.
//
// What others add has a file of its own here, and is called in one place:
//   - prompts with weights, chunks and embeddings in Text.Read and Text.Encode (prompt.go), and those that change by steps in Conditions
//     (periods.go), which every encode turn goes through;
//   - ControlNets (control.go), IP-Adapters (ip.go) and tiny autoencoders (tiny.go) are opened by denoising.run (denoise.go), whose loop
//     asks them: what conditions a U-Net is written to ControlNets as well, and these lead each evaluation.
//
// The package may import families/family, stage and the engine.
package latent

import (
	"fmt"

	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/model/vae"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// Model is an opened model of latent diffusion: what its turns know of it, but for encode.
type Model struct {
	Dir      *modeldir.Dir
	UNet     unet.Config
	VAE      vae.Config
	Tokens   int // of a prompt, start, end and padding among them
	Schedule Schedule
	Refines  bool // it draws from pictures alone, near to their end
	// Fixed gives, of a request, what the U-Net's tape has of fixed inputs beside the states; nil of a family without any. rows are those
	// of the conditioning that lead the next steps, one for each of the batch. Errors are a *stage.Error.
	Fixed func(req stage.WorkRequest, rows []int) ([]Input, error)
}

// Input is an input of a tape and what is written to it.
type Input struct {
	Name   string
	Values []float32
}

// EncodeImage is the turn that a picture to draw from takes.
const EncodeImage = "encode_image"

// The parts of a model.
const (
	PartTextEncoder = "text_encoder"
	PartUNet        = "unet"
	PartVAEDecoder  = "vae.decoder"
	PartVAEEncoder  = "vae.encoder"
)

// The values that turns hand on.
const (
	ValueInitImage   = "init_image"
	ValueMask        = "mask"
	ValueStates      = "hidden_states"
	ValuePooled      = "pooled"
	ValueMoments     = "moments"
	ValueMaskLatents = "mask_latents"
	ValueLatents     = "latents"
	ValueImage       = "image"

	ValueMaskedMoments = "masked_moments" // of the picture without what is masked, for a model that Inpaints
)

// Turns are those of a model whose encode turn is given.
func (m *Model) Turns(encode family.Turn) map[string]family.Turn {
	return map[string]family.Turn{
		family.Encode: encode, EncodeImagePrompt: {Runs: m.encodeImagePromptRuns, Work: m.encodeImagePrompt}, EncodeImage: {Runs: m.encodeImageRuns, Work: m.encodeImage},
		family.Denoise: {Runs: m.denoiseRuns, Work: m.denoise}, family.Decode: {Runs: m.decodeRuns, Work: m.decode},
		Refine:  {Runs: m.refineRuns, Work: m.refine},
		Enlarge: {Runs: m.enlargeRuns, Work: m.enlarge}, Hires: {Runs: m.inHires(m.denoiseRuns), Work: m.hiresDenoise}, HiresDecode: {Runs: m.inHires(m.decodeRuns), Work: m.hiresDecode},
	}
}

// PixelMultiple is what height and width of an image must be multiples of.
func (m *Model) PixelMultiple() int { return m.VAE.Factor() * m.UNet.SizeMultiple() }

// Inpaints reports whether the U-Net sees a mask and the masked picture beside the latents.
func (m *Model) Inpaints() bool {
	return m.UNet.InChannels == modeldir.InpaintChannels(m.VAE.LatentChannels)
}

// latentSize is that of the options' width and height.
func (m *Model) latentSize(o stage.Options) (height, width int) {
	return family.Latents(o, m.VAE.Factor())
}

// sized are the floats of a value by place, which has the size that options tell.
func (m *Model) sized(v stage.Value, o stage.Options) ([]float32, error) {
	h, w := m.latentSize(o)
	if s := v.Tensor.Shape; s[2] != h || s[3] != w {
		return nil, stage.Invalid(stage.TensorInvalid, v.Name, s, fmt.Sprintf("[1, %d, %d, %d], as %s and %s are", s[1], h, w, family.Height, family.Width))
	}
	return family.Floats(v)
}

// one is the only run of a turn.
func one(r family.Run, err error) ([]family.Run, error) { return []family.Run{r}, err }
