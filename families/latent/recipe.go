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
	OptionStrength = "strength"
)

// Port is a tensor that turns hand on.
func Port(name string, shape ...string) stage.Port { return stage.Port{Name: name, Shape: shape} }

// StatesPort is the states that the U-Net attends to.
func (m *Model) StatesPort() stage.Port {
	return Port(ValueStates, "batch", "tokens", strconv.Itoa(m.UNet.ContextDim))
}

// Prompt is the spec of a prompt.
func (m *Model) Prompt(name string) stage.OptionSpec {
	const promptBytes = 8192
	return stage.OptionSpec{Name: name, Type: stage.Text, Max: promptBytes, Tokens: m.Tokens, Default: stage.TextOption("")}
}

// Options are the specs of what the turns behind encode read.
func (m *Model) Options() []stage.OptionSpec {
	height, width := modeldir.TrainedSize(m.UNet)
	return slices.Concat(family.Sides(width*m.VAE.Factor(), height*m.VAE.Factor(), m.PixelMultiple()), []stage.OptionSpec{
		{Name: OptionSteps, Type: stage.Int, Min: 1, Max: sampler.MaxSteps, Default: stage.IntOption(20)},
		family.GuidanceOption(),
		m.Schedule.Option(),
		{Name: OptionStrength, Type: stage.Float, Min: 1.0 / sampler.MaxSteps, Max: 1, Default: stage.FloatOption(0.8)},
	}, family.FileOptions())
}

// Inputs are the files that a request may send.
func Inputs() []stage.Port { return []stage.Port{optional(pictureInput()), maskInput()} }

func pictureInput() stage.Port { return stage.Port{Name: ValueInitImage, Media: "image/*"} }

func maskInput() stage.Port { return stage.Port{Name: ValueMask, Media: "image/*", Optional: true} }

func optional(p stage.Port) stage.Port {
	p.Optional = true
	return p
}

// Members are the components of a turn, by their parts.
func (m *Model) Members(parts ...string) (out []stage.Member) {
	for _, part := range parts {
		out = append(out, stage.Member{Component: family.Name(m.Dir, part)})
	}
	return out
}

// Following are the turns behind encode, which gives conditioning.
func (m *Model) Following(conditioning []stage.Port) []stage.Turn {
	size := func(channels int) []string {
		return []string{"1", strconv.Itoa(channels), "latent_height", "latent_width"}
	}
	moments := Port(ValueMoments, size(2*m.VAE.LatentChannels)...)
	maskLatents := optional(Port(ValueMaskLatents, size(1)...))
	latents := Port(ValueLatents, size(m.VAE.LatentChannels)...)
	return []stage.Turn{
		{
			Name: EncodeImage, Kind: stage.KindDecoder, Members: m.Members(PartVAEEncoder), Optional: true,
			Takes: []stage.Port{pictureInput(), maskInput()}, Gives: []stage.Port{moments, maskLatents}, Options: []string{family.Width, family.Height},
		},
		{
			Name: family.Denoise, Kind: stage.KindDenoiser, Members: m.Members(PartUNet), EachImage: true,
			Takes: slices.Concat(conditioning, []stage.Port{optional(moments), maskLatents}), Gives: []stage.Port{latents},
			Options: []string{family.Width, family.Height, OptionSteps, family.Guidance, OptionSampler, OptionStrength},
		},
		{
			Name: family.Decode, Kind: stage.KindDecoder, Members: m.Members(PartVAEDecoder), EachImage: true,
			Takes: []stage.Port{latents, family.ParametersPort()},
			Gives: []stage.Port{{Name: ValueImage, Media: "image/*"}}, Options: []string{family.Width, family.Height, family.Format, family.Quality},
		},
	}
}
