// Package sdxl outlines Stable Diffusion XL (Podell et al. 2023, arXiv 2307.01952) for plans: it cannot be run yet.
//
// The package may import families/family, stage and the engine.
package sdxl

import (
	"github.com/triptych-serving/triptych/engine/config"
	"github.com/triptych-serving/triptych/engine/model/clip"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/model/vae"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// Family is Stable Diffusion XL.
func Family() family.Family { return family.Family{Class: "StableDiffusionXLPipeline", Open: open} }

func open(dir *modeldir.Dir) (*family.Model, error) {
	warnings, err := dir.Check(map[string][]string{
		modeldir.TextEncoderFolder: {modeldir.ClassCLIP}, modeldir.TextEncoder2Folder: {modeldir.ClassCLIPProjected},
		modeldir.UNetFolder: {modeldir.ClassUNet}, modeldir.VAEFolder: {modeldir.ClassVAE}, modeldir.SchedulerFolder: nil,
	})
	if err != nil {
		return nil, err
	}
	u, err := modeldir.Config(dir, modeldir.UNetFolder, unet.ParseConfig)
	if err != nil {
		return nil, err
	}
	v, err := modeldir.Config(dir, modeldir.VAEFolder, vae.ParseConfig)
	if err != nil {
		return nil, err
	}
	first, err := modeldir.Config(dir, modeldir.TextEncoderFolder, clip.ParseConfig)
	if err != nil {
		return nil, err
	}
	second, err := modeldir.Config(dir, modeldir.TextEncoder2Folder, clip.ParseConfig)
	if err != nil {
		return nil, err
	}
	projection, err := modeldir.Config(dir, modeldir.TextEncoder2Folder, projectionDim)
	if err != nil {
		return nil, err
	}
	tokens := min(first.MaxPositions, second.MaxPositions)
	text := func(folder, class string, c clip.Config, projection int) family.Component {
		return family.Component{
			Name: family.Name(dir, folder), Kind: stage.KindEncoder, Folder: folder, Class: class,
			Open:   func(o modeldir.Options) (family.Network, error) { return dir.TextEncoder(folder, c, projection, o) },
			Beside: family.Prompts(tokens, c.HiddenSize),
		}
	}
	components := []family.Component{
		text(modeldir.TextEncoderFolder, modeldir.ClassCLIP, first, 0),
		text(modeldir.TextEncoder2Folder, modeldir.ClassCLIPProjected, second, projection),
		{
			Name: family.Name(dir, "unet"), Kind: stage.KindDenoiser, Folder: modeldir.UNetFolder, Class: modeldir.ClassUNet,
			Open: func(o modeldir.Options) (family.Network, error) { return dir.Denoiser(modeldir.UNetFolder, u, o) },
		},
		family.VAEDecoder(dir, v),
	}
	components[0].Warnings = warnings
	height, width := modeldir.TrainedSize(u)
	f := v.Factor()
	options := append(family.Sides(width*f, height*f, f*u.SizeMultiple()), family.GuidanceOption())
	runs := map[stage.Kind]func([]family.Network, stage.Options) ([]family.Run, error){
		stage.KindEncoder: func(nets []family.Network, o stage.Options) (out []family.Run, err error) {
			for i, net := range nets {
				tape, err := net.(*modeldir.TextEncoder).Tape(family.Batch(o), tokens)
				if err != nil {
					return nil, err
				}
				out = append(out, family.Run{Member: i, Tape: tape})
			}
			return out, nil
		},
		stage.KindDenoiser: func(nets []family.Network, o stage.Options) ([]family.Run, error) {
			h, w := family.Latents(o, f)
			tape, err := nets[0].(*modeldir.Denoiser).Tape(family.Batch(o), h, w, tokens)
			return []family.Run{{Tape: tape}}, err
		},
		stage.KindDecoder: family.DecodeRuns(v),
	}
	return family.Outline(dir, options, components, runs), dir.Fits(
		modeldir.UNetFolder,
		modeldir.Fit{Key: "cross_attention_dim", Got: u.ContextDim, Want: first.HiddenSize + second.HiddenSize, Why: "the hidden_size of both text encoders"},
		modeldir.Fit{Key: "in_channels", Got: u.InChannels, Want: v.LatentChannels, Why: "the autoencoder's latent_channels"},
		modeldir.Fit{Key: "out_channels", Got: u.OutChannels, Want: u.InChannels, Why: "as many as in_channels"},
	)
}

// projectionDim reads what transformers' CLIPTextConfig calls so.
func projectionDim(data []byte) (int, error) {
	const most = 1 << 14
	r, err := config.Parse(data)
	if err != nil {
		return 0, err
	}
	return r.Int("projection_dim", 512, 1, most), r.Err()
}
