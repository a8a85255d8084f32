package controlnet

import (
	"fmt"
	"slices"
	"strings"

	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/nn"
)

// The most that are counted of each, as configs are bounded.
const (
	maxBlocks       = 8
	maxLayers       = 8
	maxTransformers = 16
)

// Infer is the config of a file without one, by its tensors of diffusers' names. What the names and shapes do not add up to,
// the declaration of the network tells; the error is that there is no ControlNet at all.
func Infer(src nn.Source) (Config, error) {
	in := inference{src}
	c := Config{Inferred: true, ImageChannels: in.side(1, hintNetwork, "conv_in.weight")}
	for i := 0; i < 2*maxHints-2 && in.has(hintNetwork, "blocks", i, "weight"); i += 2 {
		c.HintChannels = append(c.HintChannels, in.side(0, hintNetwork, "blocks", i, "weight"))
	}
	c.HintChannels = append(c.HintChannels, in.side(1, hintNetwork, "conv_out.weight"))
	t := &c.Trunk
	t.InChannels, t.ConvInKernel = in.side(1, "conv_in.weight"), 3
	t.TimeDim, t.AdditionDim = in.side(0, "time_embedding.linear_1.weight"), in.side(1, "add_embedding.linear_1.weight")
	for i := 0; i < maxBlocks && in.has("down_blocks", i, "resnets.0.conv1.weight"); i++ {
		layers := in.count(maxLayers, "down_blocks", i, "resnets", "conv1.weight")
		attends := in.has("down_blocks", i, "attentions.0.proj_in.weight")
		transformers := in.count(maxTransformers, "down_blocks", i, "attentions.0.transformer_blocks", "norm1.weight")
		t.Channels, t.Layers = append(t.Channels, in.side(0, "down_blocks", i, "resnets.0.conv1.weight")), append(t.Layers, layers)
		t.DownAttention, t.TransformerLayers = append(t.DownAttention, attends), append(t.TransformerLayers, max(1, transformers))
	}
	if len(t.Channels) == 0 || t.InChannels == 0 || t.TimeDim == 0 || c.ImageChannels == 0 {
		return Config{}, fmt.Errorf("%s: no ControlNet: it lacks down_blocks, conv_in, time_embedding or %s", src.Where(""), hintNetwork)
	}
	last := len(t.Channels) - 1
	t.TransformerLayers[last] = max(1, in.count(maxTransformers, "mid_block.attentions.0.transformer_blocks", "norm1.weight"))
	t.ContextDim = max(1, in.side(1, "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"))
	for i := range t.Channels { // any that divide the channels: the base's take their place
		t.Heads = append(t.Heads, 1)
		t.Channels[i] = max(1, t.Channels[i])
	}
	t.Groups, t.NormEps, t.CosFirst, t.DownsamplePadding = 1, 1e-5, true, 1
	return c, c.check(src)
}

// check refuses sizes that no config may have.
func (c Config) check(src nn.Source) error {
	t := c.Trunk
	sizes := append([]int{c.ImageChannels, t.InChannels, t.ContextDim, t.TimeDim / 4, t.AdditionDim / 2}, c.HintChannels...)
	for _, n := range append(sizes, t.Channels...) {
		if n < 0 || n > maxChannels {
			return fmt.Errorf("%s: no ControlNet: %d channels, expected at most %d", src.Where(""), n, maxChannels)
		}
	}
	if least := min(t.Channels[0]/4, slices.Min(c.HintChannels)); least < 1 { // four are the sinusoid of the timestep
		return fmt.Errorf("%s: no ControlNet: convolutions without channels", src.Where(""))
	}
	return nil
}

// inference looks at tensors by the parts of their names.
type inference struct{ src nn.Source }

func (in inference) name(parts []any) string {
	return strings.Join(strings.Fields(fmt.Sprintln(parts...)), ".")
}

func (in inference) has(parts ...any) bool {
	_, _, ok := in.src.Info(in.name(parts))
	return ok
}

// side is a side of a tensor's shape, 0 if it has none.
func (in inference) side(i int, parts ...any) int {
	_, shape, _ := in.src.Info(in.name(parts))
	if i >= len(shape) {
		return 0
	}
	return shape[i]
}

// count is how many elements a list has, of which the last part is the name of a tensor.
func (in inference) count(most int, parts ...any) (n int) {
	list, tensor := parts[:len(parts)-1], parts[len(parts)-1]
	for n < most && in.has(in.name(list), n, tensor) {
		n++
	}
	return n
}

// Fits reports how a ControlNet differs from what leads a U-Net, for an error: "cross_attention_dim 768, expected 2048". Empty
// is that it fits.
func (c Config) Fits(base unet.Config) string {
	t := c.For(base).Trunk
	for _, f := range []struct {
		what      string
		got, want any
	}{
		{"cross_attention_dim", t.ContextDim, base.ContextDim},
		{"block_out_channels", t.Channels, base.Channels},
		{"layers_per_block", t.Layers, base.Layers},
		{"projection_class_embeddings_input_dim", t.AdditionDim, base.AdditionDim},
		{"downsample_padding", t.DownsamplePadding, base.DownsamplePadding},
		{"flip_sin_to_cos", t.CosFirst, base.CosFirst},
		{"freq_shift", t.FreqShift, base.FreqShift},
	} {
		if got, want := fmt.Sprint(f.got), fmt.Sprint(f.want); got != want {
			return fmt.Sprintf("%s %s, where the model has %s", f.what, got, want)
		}
	}
	return ""
}
