package latent

import (
	"slices"
	"strconv"

	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/sampler"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// The options of requests.
const (
	OptionPrompt   = "prompt"
	OptionNegative = "negative_prompt"
	OptionSteps    = "steps"
	OptionSampler  = "sampler"
	OptionSchedule = "schedule" // of noise levels; what is not said is the model's or the sampler's own
	// OptionEta and OptionOriginalSteps are of some samplers, see sampler.Tuning.
	OptionEta           = "eta"
	OptionOriginalSteps = "original_steps"

	OptionStrength = "strength"

	OptionClipSkip         = "clip_skip"
	OptionNegativeClipSkip = "negative_clip_skip"
	// OptionTokens is the length of the conditioning that memory is planned for before prompts are encoded, which tells it.
	OptionTokens       = "prompt_tokens"
	OptionRescale      = "guidance_rescale"
	OptionDenoisingEnd = "denoising_end"
	OptionBatchSize    = "batch_size"
	OptionBatchIndex   = "batch_index"
)

// Port is a tensor that turns hand on.
func Port(name string, shape ...string) stage.Port { return stage.Port{Name: name, Shape: shape} }

// StatesPort is the states that the U-Net attends to.
func (m *Model) StatesPort() stage.Port {
	return Port(ValueStates, "batch", OptionTokens, strconv.Itoa(m.UNet.ContextDim))
}

// Prompt is the spec of a prompt.
func (m *Model) Prompt(name string) stage.OptionSpec {
	const promptBytes = 8192
	return stage.OptionSpec{Name: name, Type: stage.Text, Max: promptBytes, Tokens: m.Tokens, Default: stage.TextOption("")}
}

// Options are the specs of what the turns behind encode read.
func (m *Model) Options() []stage.OptionSpec {
	height, width := modeldir.TrainedSize(m.UNet)
	strength := 0.8
	if m.Inpaints() {
		strength = 1
	} else if m.Refines {
		strength = 0.3
	}
	return slices.Concat(family.Sides(width*m.VAE.Factor(), height*m.VAE.Factor(), m.PixelMultiple()), []stage.OptionSpec{
		{Name: OptionSteps, Type: stage.Int, Min: 1, Max: sampler.MaxSteps, Default: stage.IntOption(20)},
		family.GuidanceOption(),
		m.Schedule.Option(), m.Schedule.spacing(),
		{Name: OptionEta, Type: stage.Float, Max: 1},
		{Name: OptionOriginalSteps, Type: stage.Int, Min: 1, Max: sampler.MaxTrainSteps},
		{Name: OptionStrength, Type: stage.Float, Min: 1.0 / sampler.MaxSteps, Max: 1, Default: stage.FloatOption(strength)},
		{Name: OptionTokens, Type: stage.Int, Min: 1, Max: maxTokens, Shape: true, Default: stage.IntOption(int64(m.Tokens))},
		{Name: OptionRescale, Type: stage.Float, Max: 1, Default: stage.FloatOption(0)},
		{Name: OptionDenoisingEnd, Type: stage.Float, Max: 1, Default: stage.FloatOption(1)},
		{Name: OptionBatchSize, Type: stage.Int, Min: 1, Max: maxBatch, Default: stage.IntOption(1)},
		controlOption(), ipOption(), loraOption(),
		{Name: OptionBatchIndex, Type: stage.Int, Max: maxBatch - 1, Default: stage.IntOption(0)},
	}, family.FileOptions(), []stage.OptionSpec{m.previews(), family.PreviewDecoderOption(), family.UpscalerOption(family.Upscaler)}, family.UpscaleOptions())
}

// ClipSkips are the specs of how many layers of text encoders prompt and negative prompt skip, behind those that are anyway;
// none where none can be. Of diffusers' pipelines clip_skip is the prompt's alone.
func ClipSkips(encoders ...*Text) (specs []stage.OptionSpec) {
	most := encoders[0].Skips()
	for _, t := range encoders {
		most = min(most, t.Skips())
	}
	for _, name := range []string{OptionClipSkip, OptionNegativeClipSkip} {
		if most > 0 {
			specs = append(specs, stage.OptionSpec{Name: name, Type: stage.Int, Max: float64(most), Shape: true, Default: stage.IntOption(0)})
		}
	}
	return specs
}

// Inputs are the files that a request may send, or has to: a model that Refines needs a picture, and one that Inpaints a mask
// too.
func (m *Model) Inputs() []stage.Port {
	return slices.Concat([]stage.Port{
		optional(pictureInput(), !m.fromPictures()), optional(maskInput(), !m.Inpaints()), optional(imagePromptPort(), true),
	}, controlPorts())
}

// fromPictures reports whether the model draws from pictures alone.
func (m *Model) fromPictures() bool { return m.Refines || m.Inpaints() }

func pictureInput() stage.Port { return stage.Port{Name: ValueInitImage, Media: "image/*"} }

func maskInput() stage.Port { return stage.Port{Name: ValueMask, Media: "image/*"} }

func optional(p stage.Port, may bool) stage.Port {
	p.Optional = may
	return p
}

// Members are the components of a turn, by their parts.
func (m *Model) Members(parts ...string) (out []stage.Member) {
	for _, part := range parts {
		out = append(out, stage.Member{Component: family.Name(m.Dir, part)})
	}
	return out
}

// Following are the turns behind encode, which gives conditioning; options are those of the family that Model.Fixed reads.
func (m *Model) Following(conditioning []stage.Port, options ...string) []stage.Turn {
	size := func(channels int) []string {
		return []string{"1", strconv.Itoa(channels), "latent_height", "latent_width"}
	}
	moments := Port(ValueMoments, size(2*m.VAE.LatentChannels)...)
	maskLatents := optional(Port(ValueMaskLatents, size(1)...), !m.Inpaints())
	encoded := []stage.Port{optional(moments, !m.fromPictures()), maskLatents} // as denoise takes them
	given := []stage.Port{moments, maskLatents}
	if m.Inpaints() {
		port := Port(ValueMaskedMoments, size(2*m.VAE.LatentChannels)...)
		encoded, given = append(encoded, port), append(given, port)
	}
	latents := Port(ValueLatents, size(m.VAE.LatentChannels)...)
	return []stage.Turn{
		encodeImagePromptTurn(),
		{
			Name: EncodeImage, Kind: stage.KindDecoder, Members: m.Members(PartVAEEncoder), Optional: !m.fromPictures(),
			Takes: []stage.Port{pictureInput(), optional(maskInput(), !m.Inpaints())}, Gives: given, Options: []string{family.Width, family.Height},
		},
		{
			Name: family.Denoise, Kind: stage.KindDenoiser, Members: append(m.Members(PartUNet), adapterMembers()...), EachImage: true,
			Takes: slices.Concat(conditioning, encoded, []stage.Port{imageStatesPort()}, controlPorts()), Gives: []stage.Port{latents},
			Options: slices.Concat([]string{
				family.Width, family.Height, OptionSteps, family.Guidance, OptionSampler, OptionSchedule, OptionEta, OptionOriginalSteps, OptionStrength, OptionRescale, OptionDenoisingEnd, OptionBatchSize, OptionBatchIndex,
				OptionTokens, OptionControlNets, OptionIPAdapter, OptionLoRAs, OptionPreviews, family.PreviewDecoder,
			}, options),
		},
		{
			Name: family.Decode, Kind: stage.KindDecoder, Members: append(m.Members(PartVAEDecoder), family.UpscalerSlot(family.Upscaler)), EachImage: true,
			Takes: []stage.Port{latents, family.ParametersPort()}, Gives: []stage.Port{{Name: ValueImage, Media: "image/*"}},
			Options: slices.Concat([]string{family.Width, family.Height, family.Format, family.Quality, family.Upscaler}, family.UpscaleNames()),
		},
	}
}
