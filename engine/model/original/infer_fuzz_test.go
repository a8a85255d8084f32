package original

import (
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/tensor"
)

// FuzzInfer: whatever names and shapes a file has, configs are made of them in bounds.
func FuzzInfer(f *testing.F) {
	f.Add("input_blocks.0.0.weight input_blocks.1.0.in_layers.2.weight input_blocks.2.0.op.weight output_blocks.0.1.norm.weight", byte(4), byte(4))
	f.Add("encoder.down.0.block.0.conv1.weight encoder.down.1.block.0.conv1.weight decoder.conv_in.weight quant_conv.weight", byte(8), byte(4))
	f.Add("encoder.down_blocks.0.resnets.0.conv1.weight encoder.down_blocks.0.resnets.1.conv1.weight", byte(8), byte(1))
	f.Add("text_model.encoder.layers.0.mlp.fc1.weight token_embedding.weight transformer.resblocks.0.mlp.c_fc.weight text_projection", byte(8), byte(2))
	f.Fuzz(func(t *testing.T, text string, side, rank byte) {
		shape := make(tensor.Shape, rank%6)
		for i := range shape {
			shape[i] = int(side)
		}
		names := map[string]bool{}
		for _, name := range strings.Fields(text) {
			names[name] = true
		}
		s := func(name string) tensor.Shape {
			if names[name] {
				return shape
			}
			return nil
		}
		for _, config := range []map[string]any{UNetConfig(s), VAEConfig(s), DiffusersVAEConfig(s), TextConfig(s, true, false), TextConfig(s, false, true), TextConfig(s, false, false)} {
			for key, value := range config {
				if list, ok := value.([]int); ok && len(list) > most {
					t.Fatalf("%s has %d numbers", key, len(list))
				} else if n, ok := value.(int); ok && (n < 0 || n > 255) {
					t.Fatalf("%s is %d", key, n)
				}
			}
		}
	})
}
