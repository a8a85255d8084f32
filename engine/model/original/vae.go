package original

import (
	"fmt"

	"github.com/triptych-serving/triptych/engine/model/vae"
	"github.com/triptych-serving/triptych/engine/nn"
)

// VAE are the parameters of both halves of an autoencoder, without the prefix that they have in a checkpoint. The attention's matrices
// are stored as 1x1 convolutions there.
func VAE(c vae.Config) []Param {
	at := map[string]string{}
	for _, half := range []string{"encoder.", "decoder."} {
		at[half+"conv_norm_out"] = half + "norm_out"
		at[half+"mid_block.resnets.0"], at[half+"mid_block.resnets.1"] = half+"mid.block_1", half+"mid.block_2"
		at[half+"mid_block.attentions.0"] = half + "mid.attn_1"
	}
	last := len(c.Channels) - 1
	for i := range c.Channels {
		for j := range c.Layers + 1 {
			at[fmt.Sprintf("encoder.down_blocks.%d.resnets.%d", i, j)] = fmt.Sprintf("encoder.down.%d.block.%d", i, j)
			at[fmt.Sprintf("decoder.up_blocks.%d.resnets.%d", i, j)] = fmt.Sprintf("decoder.up.%d.block.%d", last-i, j) // finest first
		}
		at[fmt.Sprintf("encoder.down_blocks.%d.downsamplers.0", i)] = fmt.Sprintf("encoder.down.%d.downsample", i)
		at[fmt.Sprintf("decoder.up_blocks.%d.upsamplers.0", i)] = fmt.Sprintf("decoder.up.%d.upsample", last-i)
	}
	params := declared(func(s *nn.Scope) {
		vae.NewEncoder(s, c)
		vae.NewDecoder(s, c)
	})
	return rename(params, at, [][2]string{
		{"conv_shortcut", "nin_shortcut"},
		{"group_norm", "norm"},
		{"to_q", "q"},
		{"to_k", "k"},
		{"to_v", "v"},
		{"to_out.0", "proj_out"},
	}...)
}
