// Package flux outlines FLUX.1 (Black Forest Labs 2024) for plans: it cannot be run yet.
//
// The package may import families/family, stage and the engine.
package flux

import (
	"github.com/triptych-serving/triptych/engine/model/clip"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/model/shapes"
	"github.com/triptych-serving/triptych/engine/model/vae"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// Family is FLUX.1.
func Family() family.Family { return family.Family{Class: "FluxPipeline", Open: open} }

const (
	transformer = "transformer"

	classT5          = "T5EncoderModel"
	classTransformer = "FluxTransformer2DModel"
)

const (
	// maxTokens is the longest text that FLUX.1 is asked with (diffusers' FluxPipeline: max_sequence_length).
	maxTokens = 512
	// trained is the side of a latent where no config tells.
	trained = 64
)

func open(dir *modeldir.Dir) (*family.Model, error) {
	warnings, err := dir.Check(map[string][]string{
		modeldir.TextEncoderFolder: {modeldir.ClassCLIP}, modeldir.TextEncoder2Folder: {classT5}, transformer: {classTransformer}, modeldir.VAEFolder: {modeldir.ClassVAE}, modeldir.SchedulerFolder: nil,
	})
	if err != nil {
		return nil, err
	}
	c, err := modeldir.Config(dir, transformer, shapes.ParseFlux)
	if err != nil {
		return nil, err
	}
	v, err := modeldir.Config(dir, modeldir.VAEFolder, vae.ParseConfig)
	if err != nil {
		return nil, err
	}
	pooled, err := modeldir.Config(dir, modeldir.TextEncoderFolder, clip.ParseConfig)
	if err != nil {
		return nil, err
	}
	t5, err := modeldir.Config(dir, modeldir.TextEncoder2Folder, shapes.ParseT5)
	if err != nil {
		return nil, err
	}
	components := []family.Component{
		{
			Name: family.Name(dir, modeldir.TextEncoderFolder), Kind: stage.KindEncoder, Folder: modeldir.TextEncoderFolder, Class: modeldir.ClassCLIP, Warnings: warnings,
			Open: func(o modeldir.Options) (family.Network, error) {
				return dir.TextEncoder(modeldir.TextEncoderFolder, pooled, 0, o)
			},
		},
		{
			Name: family.Name(dir, modeldir.TextEncoder2Folder), Kind: stage.KindEncoder, Folder: modeldir.TextEncoder2Folder, Class: classT5,
			Open: func(o modeldir.Options) (family.Network, error) {
				n, err := dir.Network(modeldir.TextEncoder2Folder, o, t5.Declare, shapes.IgnoreT5)
				return &n, err
			},
			Beside: family.Prompts(maxTokens, t5.Dim),
		},
		{
			Name: family.Name(dir, transformer), Kind: stage.KindDenoiser, Folder: transformer, Class: classTransformer,
			Open: func(o modeldir.Options) (family.Network, error) {
				n, err := dir.Network(transformer, o, c.Declare, nil)
				return &n, err
			},
		},
		family.VAEDecoder(dir, v),
	}
	f := v.Factor()
	side := max(trained, v.SampleSize/f) * f
	options := family.Sides(side, side, f*shapes.FluxPatch) // guidance is a number that the network is told
	runs := map[stage.Kind]func([]family.Network, stage.Options) ([]family.Run, error){
		stage.KindEncoder: func(nets []family.Network, _ stage.Options) ([]family.Run, error) {
			tape, err := nets[0].(*modeldir.TextEncoder).Tape(1, min(maxTokens, pooled.MaxPositions))
			return []family.Run{{Tape: tape}, {Member: 1, AtLeast: t5.ScratchBytes(1, maxTokens), Formula: shapes.T5Scratch}}, err
		},
		stage.KindDenoiser: func(_ []family.Network, o stage.Options) ([]family.Run, error) {
			h, w := family.Latents(o, f)
			return []family.Run{{AtLeast: c.ScratchBytes(1, h, w, maxTokens), Formula: shapes.FluxScratch}}, nil
		},
		stage.KindDecoder: family.DecodeRuns(v),
	}
	return family.Outline(dir, options, components, runs), dir.Fits(
		transformer,
		modeldir.Fit{Key: "joint_attention_dim", Got: c.ContextDim, Want: t5.Dim, Why: "the d_model of T5"},
		modeldir.Fit{Key: "pooled_projection_dim", Got: c.PooledDim, Want: pooled.HiddenSize, Why: "the text encoder's hidden_size"},
		modeldir.Fit{Key: "in_channels", Got: c.InChannels, Want: v.LatentChannels * shapes.FluxPatch * shapes.FluxPatch, Why: "four times the autoencoder's latent_channels"},
		modeldir.Fit{Key: "out_channels", Got: c.OutChannels, Want: c.InChannels, Why: "as many as in_channels"},
	)
}
