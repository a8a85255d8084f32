// Package kind tells what a checkpoint is from the names and shapes of its tensors. A checkpoint is one file with the networks of a
// model under the names of the repositories that it was trained in.
//
// The package may import engine/model/original and engine/tensor.
package kind

import (
	"fmt"
	"slices"
	"strings"

	"github.com/triptych-serving/triptych/engine/model/original"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// Source has tensors.
type Source interface {
	Info(name string) (tensor.DType, tensor.Shape, bool)
	Names() []string // sorted
}

// Base is what a checkpoint draws like.
type Base string

// The bases. Stable Diffusion 1 and 2 differ in the text encoder; a U-Net alone tells them by the width of its context.
const (
	SD1  Base = "Stable Diffusion 1"
	SD2  Base = "Stable Diffusion 2"
	SDXL Base = "Stable Diffusion XL"
)

// Checkpoint is where the parts of a file are: prefixes of names behind Root.
type Checkpoint struct {
	Base                   Base
	UNet, VAE, Text, Text2 string
	Root                   string // before every name: wrappers of torch files
	OpenText, OpenText2    bool   // these have open_clip's names
	HasVAE, HasText        bool
	HasText2               bool
	InChannels             int
	Diffusers              bool // the U-Net, which is all there is, has diffusers' names
}

// Expected is what files are that Identify accepts.
const Expected = "a checkpoint of Stable Diffusion 1, 2 or XL"

// Error is a file that is no checkpoint that can be read.
type Error struct{ Got string }

// Error says what the file is.
func (e *Error) Error() string {
	return "expected " + Expected + ", got " + e.Got
}

// foreign are names that others than checkpoints of Stable Diffusion have, and what they are.
func foreign() [][2]string {
	return [][2]string{
		{"double_blocks.", "FLUX"},
		{"joint_blocks.", "Stable Diffusion 3"},
		{"clip_txt_mapper.", "Stable Cascade"},
		{"time_stack.", "a video model (time_stack)"},
		{"motion_modules.", "a motion module of AnimateDiff"},
		{"edm_mean", "a model of another parameterization (EDM: edm_mean)"},
		{"edm_vpred.sigma_max", "a model of another parameterization (EDM: edm_vpred.sigma_max)"},
		{"scaled_fp8", "scaled fp8 weights (scaled_fp8, scale_weight), which are not read"},
	}
}

// Wrapped is what is before every name of a torch file that keeps its tensors in state_dict, which may be there twice.
func Wrapped(names []string) (root string) {
	const wrapper = "state_dict."
	for slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, root+wrapper) }) {
		root += wrapper
	}
	return root
}

// Identify tells the parts of a checkpoint; ok is false for a file that has neither a U-Net nor a text encoder. The error is an Error.
func Identify(src Source) (c Checkpoint, ok bool, err error) {
	names := src.Names()
	c.Root = Wrapped(names)
	has := func(prefix string) bool {
		i, _ := slices.BinarySearch(names, c.Root+prefix)
		return i < len(names) && strings.HasPrefix(names[i], c.Root+prefix)
	}
	shape := func(name string) tensor.Shape {
		_, s, _ := src.Info(c.Root + name)
		return s
	}
	for _, f := range foreign() {
		if slices.ContainsFunc(names, func(n string) bool { return strings.Contains(n, f[0]) }) {
			return c, true, &Error{f[1]}
		}
	}
	if has("conditioner.embedders.0.model.") && !has("conditioner.embedders.1.") {
		return c, true, &Error{"Stable Diffusion XL's refiner as one file: conditioner.embedders.0.model and no conditioner.embedders.1"}
	}
	first := "input_blocks.0.0.weight"
	switch {
	case has("down_blocks.") && has("up_blocks.") && has("time_embedding.") && !has("controlnet_"):
		c.Diffusers, first = true, "conv_in.weight"
	case has(original.UNetPrefix + "input_blocks."):
		c.UNet = original.UNetPrefix
	case has("input_blocks.") && has("output_blocks."):
	case has("model_ema.diffusion_model"):
		return c, true, &Error{"no U-Net under " + original.UNetPrefix + "*, only its moving average under joined names (model_ema)"}
	case has("cond_stage_model.") || has("conditioner.embedders."):
		return c, true, &Error{"a text encoder alone"}
	default:
		return c, false, nil
	}
	c.VAE, c.Text = original.VAEPrefix, original.TextPrefix
	in := shape(c.UNet + first)
	if len(in) != 4 {
		return c, true, &Error{"no " + c.UNet + first}
	}
	c.InChannels = in[1]
	switch c.InChannels {
	case 4, 9:
	case 8:
		return c, true, &Error{"8 input channels: instruct-pix2pix, which is not supported"}
	case 5:
		return c, true, &Error{"5 input channels: a depth model, which is not supported"}
	case 7:
		return c, true, &Error{"7 input channels: a latent upscaler, which is not supported"}
	default:
		return c, true, &Error{fmt.Sprintf("%d input channels", c.InChannels)}
	}
	c.findTexts(has)
	if c.Base == "" {
		context := contextOf(names, shape, c.Root, c.UNet)
		switch {
		case shape(c.UNet+"label_emb.0.0.weight") != nil, c.Diffusers && shape("add_embedding.linear_1.weight") != nil:
			c.Base = SDXL
		case context == 1024:
			c.Base = SD2
		default:
			c.Base = SD1
		}
	}
	for _, prefix := range []string{original.VAEPrefix, "vae.", ""} {
		if has(prefix+"decoder.mid.block_1.") && !c.HasVAE {
			c.VAE, c.HasVAE = prefix, true
		}
	}
	return c, true, nil
}

// findTexts tells where the text encoders are, which tell the base.
func (c *Checkpoint) findTexts(has func(prefix string) bool) {
	switch {
	case has("conditioner.embedders."):
		c.Base, c.Text, c.HasText = SDXL, original.XLTextPrefix, has(original.XLTextPrefix)
		c.Text2, c.OpenText2 = original.XLText2Prefix, true
		if hf := "conditioner.embedders.1.transformer."; has(hf) {
			c.Text2, c.OpenText2 = hf, false
		}
		c.HasText2 = has(c.Text2)
	case has(original.OpenTextPrefix):
		c.Base, c.Text, c.OpenText, c.HasText = SD2, original.OpenTextPrefix, true, true
	case has(original.TextPrefix):
		c.Base, c.Text, c.HasText = SD1, original.TextPrefix, true
	}
}

// contextOf is the width that a U-Net attends to.
func contextOf(names []string, shape func(string) tensor.Shape, root, prefix string) int {
	for _, n := range names {
		if rest, ok := strings.CutPrefix(n, root); ok && strings.HasPrefix(rest, prefix) && strings.HasSuffix(rest, ".attn2.to_k.weight") {
			if s := shape(rest); len(s) > 1 {
				return s[1]
			}
		}
	}
	return 0
}

// leftovers are what names of checkpoints begin or end with that belong to no part of a model.
func leftovers() (begin, end []string) {
	return []string{
		"model_ema.", "loss.", "embedding_manager.", "control_model.", "safety_checker.", "vision_model.", "lora_", "denoiser.sigmas",
		"optimizer_states.", "optimizer.", "v_pred", "ztsnr",
	}, []string{".position_ids", ".logit_scale", ".attn_mask", ".text_projection.weight", ".text_projection"}
}

// Leftover reports whether a name, without Root, is known to belong to no part: schedules, averages, losses and marks.
func Leftover(name string) bool {
	begin, end := leftovers()
	return !strings.Contains(name, ".") ||
		slices.ContainsFunc(begin, func(p string) bool { return strings.HasPrefix(name, p) }) ||
		slices.ContainsFunc(end, func(s string) bool { return strings.HasSuffix(name, s) })
}
