package lora

import (
	"slices"
	"strings"
)

// Part is a network of a model of latent diffusion that a LoRA has something for.
type Part string

// The parts, by the folders of the networks.
const (
	UNet         Part = "unet"
	TextEncoder  Part = "text_encoder"
	TextEncoder2 Part = "text_encoder_2"
)

// role is what a tensor is to its layer.
type role uint8

const (
	alpha role = iota + 1
	down
	mid
	up
	diff
	diffBias
	normScale
	normShift
	hadaFirst // of what both factors of LoHa have, and hadaSecond of the second: [a, b, t]
	_
	_
	hadaSecond
	_
	_
	kronFirst // of LoKr: [whole, a, b, t]
	_
	_
	_
	kronSecond
	_
	_
	_
	roles
)

// endings are how the names of tensors end, by what trainers and programs write: kohya's sd-scripts, peft, diffusers before 0.16, before 0.20 and
// before 0.23, and LyCORIS.
var endings = map[string]role{
	".alpha":            alpha,
	".lora_down.weight": down, ".lora_up.weight": up, ".lora_mid.weight": mid,
	".lora_A.weight": down, ".lora_B.weight": up, ".lora_A.default.weight": down, ".lora_B.default.weight": up,
	"_lora.down.weight": down, "_lora.up.weight": up, ".lora.down.weight": down, ".lora.up.weight": up,
	".lora_linear_layer.down.weight": down, ".lora_linear_layer.up.weight": up,
	".diff": diff, ".diff_b": diffBias, ".w_norm": normScale, ".b_norm": normShift,
	".hada_w1_a": hadaFirst, ".hada_w1_b": hadaFirst + 1, ".hada_t1": hadaFirst + 2,
	".hada_w2_a": hadaSecond, ".hada_w2_b": hadaSecond + 1, ".hada_t2": hadaSecond + 2,
	".lokr_w1": kronFirst, ".lokr_w1_a": kronFirst + 1, ".lokr_w1_b": kronFirst + 2, ".lokr_t1": kronFirst + 3,
	".lokr_w2": kronSecond, ".lokr_w2_a": kronSecond + 1, ".lokr_w2_b": kronSecond + 2, ".lokr_t2": kronSecond + 3,
}

// strangerDoRA is why DoRA (Liu et al. 2024, arXiv 2402.09353) is not read.
const strangerDoRA = "DoRA, which scales the weights that it is beside and so cannot be added to them"

// strangers are parts of the names of what is not read, and what it is.
var strangers = []struct{ has, is string }{
	{"lllite_", "a ControlNet-LLLite"},
	{".dora_scale", strangerDoRA},
	{".lora_magnitude_vector", strangerDoRA},
	{".oft_blocks", "OFT or BOFT, which multiplies weights"},
	{".oft_diag", "OFT or BOFT, which multiplies weights"},
	{".on_input", "IA3, which multiplies weights"},
	{".a1.weight", "GLoRA, which multiplies weights"},
	{".lora_B.bias", "biases of peft (lora_bias)"},
	{".lora_up.bias", "biases of a LoRA"},
}

// prefixes are before the names of layers, the longer ones first.
var prefixes = []struct {
	name string
	part Part
}{
	{"lora_unet_", UNet},
	{"lora_te1_", TextEncoder},
	{"lora_te2_", TextEncoder2},
	{"lora_te_", TextEncoder},
	{"unet.", UNet},
	{"text_encoder_2.", TextEncoder2},
	{"text_encoder.", TextEncoder},
	{"clip_l.", TextEncoder},
	{"clip_g.", TextEncoder2},
	{"model.diffusion_model.", UNet},
	{"diffusion_model.", UNet},
}

// peftPrefix is before all that peft saves by itself.
const peftPrefix = "base_model.model."

// Bundled begins the names of textual inversions that a LoRA brings along.
const Bundled = "bundle_emb."

// ending is what the name of a tensor ends with, and its role; 0 of another tensor.
func ending(name string) (end string, r role) {
	for e, of := range endings {
		if len(e) > len(end) && strings.HasSuffix(name, e) {
			end, r = e, of
		}
	}
	return end, r
}

// stranger is what a tensor belongs to that is not read; empty of others.
func stranger(name string) string {
	for _, s := range strangers {
		if strings.Contains(name, s.has) {
			return s.is
		}
	}
	return ""
}

// Is tells by the names of its tensors whether a file is a LoRA, or what people take for one.
func Is(names []string) bool {
	ours := 0
	for _, name := range names {
		if _, r := ending(name); r != 0 || stranger(name) != "" || strings.HasPrefix(name, Bundled) || strings.HasPrefix(name, "lora_") {
			ours++
		}
	}
	return 2*ours > len(names)
}

// split tells the part and the layer that a tensor is for. A file that is of one part alone need not say so: it is then as whole tells, or else
// the U-Net's.
func split(name string, whole Part) (part Part, layer string) {
	name = strings.TrimPrefix(name, peftPrefix)
	for _, p := range prefixes {
		if rest, ok := strings.CutPrefix(name, p.name); ok {
			return p.part, rest
		}
	}
	if whole != "" {
		return whole, name
	}
	return UNet, name
}

// Key is how a layer is compared, however it is written: names cannot be inverted by splitting them at underscores.
func Key(layer string) string {
	layer = strings.ReplaceAll(layer, ".processor.", ".")
	return strings.TrimPrefix(strings.ReplaceAll(layer, ".", "_"), "text_model_")
}

// square reports whether a layer has filters of 3x3, which flattened factors do not tell.
func square(key string) bool {
	return slices.ContainsFunc([]string{"_conv", "conv1", "conv2", "conv_in", "conv_out", "_in_layers_2", "_out_layers_3", "_op", "input_blocks_0_0"}, func(end string) bool {
		return strings.HasSuffix(key, end)
	}) || key == "out_2"
}
