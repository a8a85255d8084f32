// Package controlnet is the network that leads Stable Diffusion's U-Net by a picture (Zhang et al. 2023, arXiv 2302.05543), as
// diffusers' ControlNetModel has it: a copy of the U-Net's trunk, which gives residuals for its skips and its middle.
//
// The package may import engine/device, engine/nn, engine/config, engine/tensor and engine/model/{kind,original,unet}.
package controlnet

import (
	"github.com/triptych-serving/triptych/engine/config"
	"github.com/triptych-serving/triptych/engine/model/unet"
)

// Config is what config.json of a ControlNet decides, or what the shapes of its tensors tell.
type Config struct {
	Trunk         unet.Config // without what only the way up has
	ImageChannels int
	HintChannels  []int // of the hint network, which halves the sides at each but the first
	BGR           bool  // the picture's channels are blue, green, red
	// Pooled nets give the mean of each residual over all places, and lead the positive prompt alone: those that take the style
	// of a picture (global_pool_conditions).
	Pooled bool
	// Inferred configs are of shapes, which tell nothing of heads, groups, epsilons, sinusoids and padding: see For.
	Inferred bool
}

// Class is that of the network in diffusers.
const Class = "ControlNetModel"

// The bounds of a config, well above those of published files.
const (
	maxHints    = 8
	maxChannels = 1 << 14
)

// ParseConfig reads config.json of a ControlNetModel, with the defaults of diffusers. The error is a config.Errors.
func ParseConfig(data []byte) (Config, error) {
	r, err := config.ParseDiffusers(data)
	if err != nil {
		return Config{}, err
	}
	return read(r)
}

// UnknownKeys lists the keys of such a file that the class does not know, and which are ignored.
func UnknownKeys(data []byte) []string {
	r, err := config.ParseDiffusers(data)
	if err != nil {
		return nil
	}
	_, _ = read(r) // it asks for all that it knows, whatever is wrong
	return r.Unknown(Class)
}

func read(r *config.Reader) (Config, error) {
	c := Config{
		Trunk:         unet.ReadTrunk(r),
		ImageChannels: r.Int("conditioning_channels", 3, 3, 3),
		HintChannels:  r.Ints("conditioning_embedding_out_channels", []int{16, 32, 96, 256}, maxHints, 1, maxChannels),
		BGR:           r.String("controlnet_conditioning_channel_order", "rgb", "bgr") == "bgr",
		Pooled:        r.Bool("global_pool_conditions", false),
	}
	return c, r.Err()
}

// Factor is how many pixels of the picture a place of the latents has in each direction.
func (c Config) Factor() int { return 1 << (len(c.HintChannels) - 1) }

// For is the config beside a U-Net. A trunk is a copy of the U-Net's, so that this has what shapes do not tell.
func (c Config) For(base unet.Config) Config {
	if !c.Inferred {
		return c
	}
	t := &c.Trunk
	t.Heads, t.Groups, t.NormEps = base.Heads, base.Groups, base.NormEps
	t.CosFirst, t.FreqShift, t.DownsamplePadding, t.AdditionTimeDim = base.CosFirst, base.FreqShift, base.DownsamplePadding, base.AdditionTimeDim
	return c
}
