package original

import (
	"fmt"
	"strings"

	"github.com/triptych-serving/triptych/engine/tensor"
)

// Shapes tells the shapes of tensors by their original names, without prefixes; nil for what is not there.
type Shapes func(name string) tensor.Shape

// most bounds what is counted: blocks, layers, transformers.
const most = 128

// at is a side of a tensor; 0 where it is not there.
func (s Shapes) at(name string, side int) int {
	if shape := s(name); side < len(shape) {
		return shape[side]
	}
	return 0
}

// count is how many tensors of a numbered name there are, from 0 on.
func (s Shapes) count(format string) int {
	for n := range most {
		if s(fmt.Sprintf(format, n)) == nil {
			return n
		}
	}
	return most
}

// UNetConfig is all of a U-Net's config that shapes tell, by diffusers' keys. Heads and groups are not among it.
func UNetConfig(s Shapes) map[string]any {
	var channels, layers, depths []int
	var down, up []string
	const transformers = ".1.transformer_blocks.%d.norm1.weight"
	level := func() {
		channels, layers, depths, down = append(channels, 0), append(layers, 0), append(depths, 1), append(down, "DownBlock2D")
	}
	context := s.at("middle_block.1.transformer_blocks.0.attn2.to_k.weight", 1)
	level()
	for n := 1; n < most; n++ {
		block, last := fmt.Sprintf("input_blocks.%d", n), len(channels)-1
		if s(block+".0.op.weight") != nil {
			level()
			continue
		}
		out := s.at(block+".0.in_layers.2.weight", 0)
		if out == 0 {
			break
		}
		channels[last] = out
		layers[last]++
		if depth := s.count(block + transformers); depth > 0 {
			down[last], depths[last] = "CrossAttnDownBlock2D", depth
		}
	}
	if depth := s.count("middle_block" + transformers); depth > 0 { // it has that of the last level
		depths[len(depths)-1] = depth
	}
	n := 0
	for i := len(layers) - 1; i >= 0; i-- {
		kind := "UpBlock2D"
		if s(fmt.Sprintf("output_blocks.%d.1.norm.weight", n)) != nil {
			kind = "CrossAttnUpBlock2D"
		}
		up = append(up, kind)
		n += layers[i] + 1
	}
	c := map[string]any{
		"_class_name": "UNet2DConditionModel", "in_channels": s.at("input_blocks.0.0.weight", 1), "out_channels": s.at("out.2.weight", 0),
		"block_out_channels": channels, "layers_per_block": layers, "transformer_layers_per_block": depths,
		"down_block_types": down, "up_block_types": up, "cross_attention_dim": context,
		"conv_in_kernel": s.at("input_blocks.0.0.weight", 2), "conv_out_kernel": s.at("out.2.weight", 2),
		"time_embedding_dim": s.at("time_embed.0.weight", 0),
	}
	if width := s.at("label_emb.0.0.weight", 1); width > 0 {
		c["addition_embed_type"], c["projection_class_embeddings_input_dim"] = "text_time", width
	}
	return c
}

// VAEConfig is all of an autoencoder's config that shapes tell, by diffusers' keys.
func VAEConfig(s Shapes) map[string]any {
	return vaeConfig(s, "encoder.down.%d.block.%d.conv1.weight", "decoder.mid.attn_1.norm.weight")
}

// DiffusersVAEConfig is VAEConfig of tensors that diffusers has named.
func DiffusersVAEConfig(s Shapes) map[string]any {
	return vaeConfig(s, "encoder.down_blocks.%d.resnets.%d.conv1.weight", "decoder.mid_block.attentions.0.group_norm.weight")
}

// vaeConfig is VAEConfig by the names of a block's convolutions and of the attention's norm.
func vaeConfig(s Shapes, block, attention string) map[string]any {
	var channels []int
	var down, up []string
	for i := range most {
		width := s.at(fmt.Sprintf(block, i, 0), 0)
		if width == 0 {
			break
		}
		channels, down, up = append(channels, width), append(down, "DownEncoderBlock2D"), append(up, "UpDecoderBlock2D")
	}
	return map[string]any{
		"_class_name": "AutoencoderKL", "block_out_channels": channels, "down_block_types": down, "up_block_types": up,
		"layers_per_block": s.count(strings.Replace(block, "%d", "0", 1)), "latent_channels": s.at("decoder.conv_in.weight", 1),
		"mid_block_add_attention": s(attention) != nil,
		"use_quant_conv":          s("quant_conv.weight") != nil, "use_post_quant_conv": s("post_quant_conv.weight") != nil,
	}
}

// TextConfig is all of a text encoder's config that shapes tell, by transformers' keys; open has open_clip's names, bare CLIP's without
// text_model.
func TextConfig(s Shapes, open, bare bool) map[string]any {
	tokens, positions, layers, mlp := "embeddings.token_embedding.weight", "embeddings.position_embedding.weight", "encoder.layers.%d.mlp.fc1.weight", "encoder.layers.0.mlp.fc1.weight"
	projection := s.at(projectionWeight, 0)
	switch {
	case open:
		tokens, positions, layers, mlp = "token_embedding.weight", "positional_embedding", "transformer.resblocks.%d.mlp.c_fc.weight", "transformer.resblocks.0.mlp.c_fc.weight"
		projection = s.at("text_projection", 1)
	case !bare:
		tokens, positions, layers, mlp = textModel+tokens, textModel+positions, textModel+layers, textModel+mlp
	}
	c := map[string]any{
		"vocab_size": s.at(tokens, 0), "hidden_size": s.at(tokens, 1), "max_position_embeddings": s.at(positions, 0),
		"num_hidden_layers": s.count(layers), "intermediate_size": s.at(mlp, 0),
	}
	if projection > 0 {
		c["projection_dim"] = projection
	}
	return c
}
