// Package vae is the autoencoder of Stable Diffusion, which maps images to latents and back
// (Rombach et al. 2022, arXiv 2112.10752), as diffusers' AutoencoderKL has it. Decoder and encoder
// are two networks under one config and in one file.
//
// The package may import engine/device, engine/nn and engine/config.
package vae

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/triptych-serving/triptych/engine/config"
)

// ImageChannels is red, green and blue.
const ImageChannels = 3

// normEps is fixed in diffusers; no config changes it.
const normEps = 1e-6

// Config is what config.json of an AutoencoderKL decides.
type Config struct {
	LatentChannels int
	Channels       []int // per resolution, finest first
	Layers         int   // residual blocks per resolution in the encoder; the decoder has one more
	Groups         int
	MidAttention   bool
	QuantConv      bool // a 1x1 convolution behind the encoder
	PostQuantConv  bool // and one before the decoder
	ScalingFactor  float32
	// Mean and Std are those of each channel of latents, which a denoiser may have been trained to see taken off; both or none.
	// Pipelines of Stable Diffusion 1 and 2 do not know them.
	Mean, Std  []float32
	SampleSize int // image size the model was trained at, 0 when the file does not say
}

// The bounds of a config, well above the largest published autoencoder of this kind, so that a
// hostile file cannot declare a manifest that is costly to hold.
const (
	maxBlocks     = 8
	maxChannels   = 1 << 13
	maxLayers     = 16
	maxSampleSize = 1 << 16
)

// ParseConfig reads config.json of an AutoencoderKL, with the defaults of diffusers. The error is a
// config.Errors.
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
	return r.Unknown("AutoencoderKL")
}

func read(r *config.Reader) (Config, error) {
	c := Config{
		LatentChannels: r.Int("latent_channels", 4, 1, maxChannels),
		Channels:       r.Ints("block_out_channels", []int{64}, maxBlocks, 1, maxChannels),
		Layers:         r.Int("layers_per_block", 1, 1, maxLayers),
		Groups:         r.Int("norm_num_groups", 32, 1, maxChannels),
		MidAttention:   r.Bool("mid_block_add_attention", true),
		QuantConv:      r.Bool("use_quant_conv", true),
		PostQuantConv:  r.Bool("use_post_quant_conv", true),
		ScalingFactor:  float32(r.Float("scaling_factor", 0.18215, 1e-6, 1e6)),
	}
	c.Mean, c.Std = perChannel(r, "latents_mean", c.LatentChannels, -maxLatent), perChannel(r, "latents_std", c.LatentChannels, minDeviation)
	if c.Mean == nil || c.Std == nil {
		c.Mean, c.Std = nil, nil
	}
	if !r.IsNull("sample_size") {
		size := r.PerBlock("sample_size", 0, 2, 0, maxSampleSize)
		c.SampleSize = max(size[0], size[1])
	}
	n := len(c.Channels)
	const downBlock, upBlock = "DownEncoderBlock2D", "UpDecoderBlock2D"
	if types := r.Strings("down_block_types", []string{downBlock}, maxBlocks, downBlock); len(types) != n {
		r.Refuse("down_block_types", fmt.Sprintf("%d entries, as many as block_out_channels", n))
	}
	if types := r.Strings("up_block_types", []string{upBlock}, maxBlocks, upBlock); len(types) != n {
		r.Refuse("up_block_types", fmt.Sprintf("%d entries, as many as block_out_channels", n))
	}
	for _, channels := range c.Channels {
		if channels%c.Groups != 0 {
			r.Refuse("norm_num_groups", "a divisor of every block_out_channels")
			break
		}
	}
	r.Int("in_channels", ImageChannels, ImageChannels, ImageChannels)
	r.Int("out_channels", ImageChannels, ImageChannels, ImageChannels)
	r.String("act_fn", "silu", "swish")
	r.Unset("quantization_config")
	if err := r.Err(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// maxLatent and minDeviation bound what a config says of latents.
const maxLatent, minDeviation = 1e6, 1e-6

// perChannel is null or a number for each channel.
func perChannel(r *config.Reader, key string, channels int, least float64) []float32 {
	if !r.Has(key) || r.IsNull(key) {
		return nil
	}
	var out []float32
	outside := func(v float32) bool { return !(float64(v) >= least && v <= maxLatent) }
	if json.Unmarshal(r.Raw(key), &out) != nil || len(out) != channels || slices.ContainsFunc(out, outside) {
		r.Refuse(key, fmt.Sprintf("null or %d numbers from %g to %g", channels, least, maxLatent))
		return nil
	}
	return out
}

// Factor is the pixels of an image side per latent: image sides are multiples of it.
func (c Config) Factor() int { return 1 << (len(c.Channels) - 1) }

// SizeError is an image size the encoder cannot take.
type SizeError struct {
	Height, Width, Multiple int
}

// Error names the size and what it must be a multiple of.
func (e *SizeError) Error() string {
	return "vae: image of " + strconv.Itoa(e.Height) + "x" + strconv.Itoa(e.Width) + ", expected positive multiples of " + strconv.Itoa(e.Multiple)
}
