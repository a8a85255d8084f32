package original

import (
	"fmt"

	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/nn"
)

// The prefixes of the parts of a checkpoint.
const (
	UNetPrefix     = "model.diffusion_model."
	VAEPrefix      = "first_stage_model."
	TextPrefix     = "cond_stage_model.transformer."        // Stable Diffusion 1
	OpenTextPrefix = "cond_stage_model.model."              // Stable Diffusion 2
	XLTextPrefix   = "conditioner.embedders.0.transformer." // Stable Diffusion XL
	XLText2Prefix  = "conditioner.embedders.1.model."
)

// UNet are the parameters of a U-Net, without the prefix that they have in a checkpoint.
func UNet(c unet.Config) []Param {
	return rename(declared(func(s *nn.Scope) { unet.New(s, c) }), unetBlocks(c), ResidualLayers()...)
}

// ResidualLayers are those of a residual block, whose names no transformer has, in diffusers and in the original repository.
func ResidualLayers() [][2]string {
	return [][2]string{
		{"norm1", "in_layers.0"},
		{"conv1", "in_layers.2"},
		{"time_emb_proj", "emb_layers.1"},
		{"norm2", "out_layers.0"},
		{"conv2", "out_layers.3"},
		{"conv_shortcut", "skip_connection"},
	}
}

// unetBlocks are the places of blocks: the way down is a list of residual blocks and changes of resolution, and so is the way up, where a
// change of resolution shares the place of the block before it.
func unetBlocks(c unet.Config) map[string]string {
	at := downBlocks(c)
	at["conv_norm_out"], at["conv_out"] = "out.0", "out.2"
	n, last := 0, len(c.Channels)-1
	for i := range c.Channels {
		layers := c.Layers[last-i] + 1
		for j := range layers {
			place := fmt.Sprintf("output_blocks.%d.", n)
			n++
			at[fmt.Sprintf("up_blocks.%d.resnets.%d", i, j)] = place + "0"
			next := 1
			if c.UpAttention[i] {
				at[fmt.Sprintf("up_blocks.%d.attentions.%d", i, j)] = place + "1"
				next = 2
			}
			if j == layers-1 && i < last {
				at[fmt.Sprintf("up_blocks.%d.upsamplers.0", i)] = fmt.Sprint(place, next)
			}
		}
	}
	return at
}

// downBlocks are the places of embeddings, the way down and the middle.
func downBlocks(c unet.Config) map[string]string {
	at := map[string]string{
		"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
		"add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
		"conv_in":             "input_blocks.0.0",
		"mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1", "mid_block.resnets.1": "middle_block.2",
	}
	n := 1
	for i := range c.Channels {
		for j := range c.Layers[i] {
			at[fmt.Sprintf("down_blocks.%d.resnets.%d", i, j)] = fmt.Sprintf("input_blocks.%d.0", n)
			at[fmt.Sprintf("down_blocks.%d.attentions.%d", i, j)] = fmt.Sprintf("input_blocks.%d.1", n)
			n++
		}
		if i < len(c.Channels)-1 {
			at[fmt.Sprintf("down_blocks.%d.downsamplers.0.conv", i)] = fmt.Sprintf("input_blocks.%d.0.op", n)
			n++
		}
	}
	return at
}
