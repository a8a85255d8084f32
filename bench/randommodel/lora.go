package randommodel

import (
	"math"
	"strings"

	"github.com/triptych-serving/triptych/bench/configs"
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/original"
	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/nn"
)

// WriteLoRA writes a LoRA of a rank for every linear layer of a U-Net's transformers, which is what kohya's sd-scripts train unless
// told otherwise, under their names. alpha is half of the rank, and what it adds a twentieth of what the layers give.
func WriteLoRA(path string, c unet.Config, rank int) error {
	s := nn.NewScope(configs.Unwritten{})
	unet.New(s, c)
	originals := map[string]string{}
	for _, m := range original.Modules(original.UNet(c)) {
		originals[m.Name] = m.Original
	}
	var list []random
	for _, p := range s.Manifest().Params {
		module, isWeight := strings.CutSuffix(p.Name, ".weight")
		if p.Layout != device.Matrix || !isWeight || !strings.Contains(module, ".attentions.") {
			continue
		}
		name := "lora_unet_" + strings.ReplaceAll(originals[module], ".", "_")
		out, in := p.Shape[0], p.Shape[1]
		list = append(
			list,
			random{name: name + ".alpha", shape: []int{}, mean: float64(rank) / 2},
			random{name: name + ".lora_down.weight", shape: []int{rank, in}, deviation: 1 / math.Sqrt(float64(in))},
			random{name: name + ".lora_up.weight", shape: []int{out, rank}, deviation: 0.1 / math.Sqrt(float64(rank))},
		)
	}
	return writeFile(path, "lora", list, func(int64, int64) {})
}
