// Package unet is the denoiser of Stable Diffusion: the text-conditioned U-Net of Rombach et al.
// 2022 (arXiv 2112.10752) as diffusers' UNet2DConditionModel has it.
//
// The package may import engine/device, engine/nn and engine/config.
package unet

import (
	"fmt"
	"strconv"

	"github.com/triptych-serving/triptych/engine/config"
)

// Config is what config.json of a UNet decides. Lists have one entry per resolution, finest first;
// UpAttention alone is in the order of up_block_types, coarsest first.
type Config struct {
	InChannels, OutChannels int
	Channels                []int
	DownAttention           []bool // CrossAttnDownBlock2D, else DownBlock2D
	UpAttention             []bool // CrossAttnUpBlock2D, else UpBlock2D
	Layers                  []int  // residual blocks on the way down; one more on the way up
	TransformerLayers       []int
	Heads                   []int
	ContextDim              int // width of the states attended to
	Groups                  int
	NormEps                 float32
	TimeDim                 int // width of the time embedding
	CosFirst                bool
	FreqShift               float64
	DownsamplePadding       int
	ConvInKernel            int
	ConvOutKernel           int
	SampleHeight            int // latents the model was trained at, 0 when the file does not say
	SampleWidth             int

	// AdditionDim is the width of the vector that Stable Diffusion XL is conditioned on as well (addition_embed_type
	// text_time): a pooled text state, then AdditionTimes sinusoids of AdditionTimeDim. 0 for a network without it.
	AdditionDim, AdditionTimeDim int
}

// AdditionTimes is how many numbers Stable Diffusion XL is told beside the text: the original size, the crop's corner
// and the target size.
const AdditionTimes = 6

// The bounds of a config, well above the largest published U-Net of this kind, so that a hostile
// file cannot declare a manifest that is costly to hold.
const (
	maxBlocks            = 8
	maxChannels          = 1 << 14
	maxLayers            = 8
	maxTransformerLayers = 16
	maxSampleSize        = 1 << 16
)

// ParseConfig reads config.json of a UNet2DConditionModel, with the defaults of diffusers. The
// error is a config.Errors.
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
	return r.Unknown("UNet2DConditionModel")
}

func read(r *config.Reader) (Config, error) {
	c := ReadTrunk(r)
	n := len(c.Channels)
	const crossUp, plainUp = "CrossAttnUpBlock2D", "UpBlock2D"
	up := r.Strings("up_block_types", []string{plainUp, crossUp, crossUp, crossUp}, maxBlocks, crossUp, plainUp)
	if len(up) != n {
		r.Refuse("up_block_types", fmt.Sprintf("%d entries, as many as block_out_channels", n))
	}
	for _, name := range up {
		c.UpAttention = append(c.UpAttention, name == crossUp)
	}
	c.OutChannels = r.Int("out_channels", 4, 1, maxChannels)
	c.TimeDim = r.OptionalInt("time_embedding_dim", c.TimeDim, 1, 4*maxChannels)
	c.ConvInKernel = r.Int("conv_in_kernel", c.ConvInKernel, 1, 7)
	c.ConvOutKernel = r.Int("conv_out_kernel", 3, 1, 7)
	c.SampleHeight, c.SampleWidth = sampleSize(r)
	if c.ConvInKernel%2 == 0 {
		r.Refuse("conv_in_kernel", "an odd number")
	}
	if c.ConvOutKernel%2 == 0 {
		r.Refuse("conv_out_kernel", "an odd number")
	}
	refuseVariants(r)
	if err := r.Err(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// ReadTrunk reads what a U-Net and a ControlNet have in common, with the defaults of both. What is wrong is told by r.
func ReadTrunk(r *config.Reader) Config {
	var c Config
	c.Channels = r.Ints("block_out_channels", []int{320, 640, 1280, 1280}, maxBlocks, 1, maxChannels)
	n := len(c.Channels)
	const crossDown, plainDown = "CrossAttnDownBlock2D", "DownBlock2D"
	down := r.Strings("down_block_types", []string{crossDown, crossDown, crossDown, plainDown}, maxBlocks, crossDown, plainDown)
	if len(down) != n {
		r.Refuse("down_block_types", fmt.Sprintf("%d entries, as many as block_out_channels", n))
	}
	for _, name := range down {
		c.DownAttention = append(c.DownAttention, name == crossDown)
	}
	c.InChannels = r.Int("in_channels", 4, 1, maxChannels)
	c.Layers = r.PerBlock("layers_per_block", 2, n, 1, maxLayers)
	c.TransformerLayers = r.PerBlock("transformer_layers_per_block", 1, n, 1, maxTransformerLayers)
	// attention_head_dim is the number of heads: a misnomer that diffusers keeps for its files
	// (huggingface/diffusers issue 2011). num_attention_heads must stay null there too.
	c.Heads = r.PerBlock("attention_head_dim", 8, n, 1, maxChannels)
	r.Unset("num_attention_heads")
	context := r.PerBlock("cross_attention_dim", 1280, n, 1, maxChannels)
	c.ContextDim = context[0]
	c.Groups = r.Int("norm_num_groups", 32, 1, maxChannels)
	c.NormEps = float32(r.Float("norm_eps", 1e-5, 1e-12, 1))
	c.TimeDim = 4 * c.Channels[0]
	c.CosFirst = r.Bool("flip_sin_to_cos", true)
	c.FreqShift = r.Float("freq_shift", 0, 0, 1)
	c.DownsamplePadding = r.Int("downsample_padding", 1, 0, 1)
	c.ConvInKernel = 3
	c.readAddition(r)

	for i, channels := range c.Channels {
		if channels%c.Groups != 0 {
			r.Refuse("norm_num_groups", "a divisor of every block_out_channels")
			break
		}
		if channels%c.Heads[i] != 0 {
			r.Refuse("attention_head_dim", "numbers of heads that divide block_out_channels")
			break
		}
	}
	for _, d := range context {
		if d != c.ContextDim {
			r.Refuse("cross_attention_dim", "the same number for every block")
			break
		}
	}
	if c.Channels[0] < 4 {
		r.Refuse("block_out_channels", "a first entry of at least 4, the sinusoid of the timestep")
	}
	refuseTrunkVariants(r)
	return c
}

// readAddition reads what the network is conditioned on beside states and time.
func (c *Config) readAddition(r *config.Reader) {
	const key, timeText, width = "addition_embed_type", "text_time", "projection_class_embeddings_input_dim"
	if !r.Has(key) || r.IsNull(key) {
		return
	}
	if r.String(key, "", timeText) != timeText {
		r.Refuse(key, "null or \""+timeText+"\"")
		return
	}
	for _, needed := range []string{width, "addition_time_embed_dim"} {
		if !r.Has(needed) {
			r.Refuse(needed, "an integer, which "+key+" "+timeText+" needs")
		}
	}
	c.AdditionDim = r.Int(width, 1, 1, 2*maxChannels)
	c.AdditionTimeDim = r.Int("addition_time_embed_dim", 1, 1, maxChannels)
	if r.Has(width) && c.AdditionDim <= AdditionTimes*c.AdditionTimeDim {
		r.Refuse(width, fmt.Sprintf("more than %d times addition_time_embed_dim", AdditionTimes))
	}
}

// refuseTrunkVariants refuses every setting that makes a trunk another network than that of Stable Diffusion 1, 2 and
// XL. Settings without an effect on inference (upcast_attention in float32, use_linear_projection, whose two cases compute the
// same) pass.
func refuseTrunkVariants(r *config.Reader) {
	r.String("act_fn", "silu", "swish")
	r.String("mid_block_type", "UNetMidBlock2DCrossAttn")
	r.String("resnet_time_scale_shift", "default")
	for _, key := range []string{"class_embed_type", "encoder_hid_dim", "encoder_hid_dim_type", "num_class_embeds", "quantization_config"} {
		r.Unset(key)
	}
	r.Unset("only_cross_attention", "false")
	r.Unset("mid_block_scale_factor", "1")
}

// refuseVariants refuses what else makes UNet2DConditionModel another network. dropout is of training.
func refuseVariants(r *config.Reader) {
	r.String("time_embedding_type", "positional")
	r.String("attention_type", "default")
	for _, key := range []string{"cross_attention_norm", "reverse_transformer_layers_per_block", "time_cond_proj_dim", "time_embedding_act_fn", "timestep_post_act"} {
		r.Unset(key)
	}
	for _, key := range []string{"center_input_sample", "class_embeddings_concat", "dual_cross_attention", "mid_block_only_cross_attention", "resnet_skip_time_act"} {
		r.Unset(key, "false")
	}
	r.Unset("resnet_out_scale_factor", "1")
}

// sampleSize reads the trained latent size, a number or [height, width]. Files older than diffusers 0.9.0 say 32 where
// Stable Diffusion was trained at 64, which its pipeline takes for a number below 64.
func sampleSize(r *config.Reader) (height, width int) {
	const key, version, trained = "sample_size", "_diffusers_version", 64
	old := r.Before(version, 0, 9, 0)
	if r.IsNull(key) {
		return 0, 0
	}
	size := r.PerBlock(key, 0, 2, 0, maxSampleSize)
	if old && r.Has(key) && r.IsNumber(key) && size[0] < trained {
		return trained, trained
	}
	return size[0], size[1]
}

// SizeMultiple is what height and width of the latents must be multiples of. Every level but the last halves them, rounded
// up, and the way up enlarges them to the size of the skips. Without padding halves are rounded down, and the way up cannot
// get back what is lost.
func (c Config) SizeMultiple() int {
	if c.DownsamplePadding == 1 {
		return 1
	}
	return 1 << (len(c.Channels) - 1)
}

// SizeError is a latent size the network cannot take.
type SizeError struct {
	Height, Width, Multiple int
}

// Error names the size and what it must be a multiple of.
func (e *SizeError) Error() string {
	return "unet: latents of " + strconv.Itoa(e.Height) + "x" + strconv.Itoa(e.Width) + ", expected positive multiples of " + strconv.Itoa(e.Multiple)
}

// CheckSize returns a SizeError unless the network takes latents of h x w.
func (c Config) CheckSize(h, w int) error {
	if m := c.SizeMultiple(); h <= 0 || w <= 0 || h%m != 0 || w%m != 0 {
		return &SizeError{Height: h, Width: w, Multiple: m}
	}
	return nil
}
