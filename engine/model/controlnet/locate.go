package controlnet

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/triptych-serving/triptych/engine/model/kind"
	"github.com/triptych-serving/triptych/engine/model/original"
)

// Error is a file that is no ControlNet that can be used.
type Error struct{ Got string }

// Error reads "expected a ControlNet, got a T2I-Adapter".
func (e *Error) Error() string { return "expected a ControlNet, got " + e.Got }

// kin are names by which files that lead a model by pictures are known, and what they are if they are no ControlNet.
var kin = []struct{ part, is string }{
	{"lora_controlnet", "a control-LoRA: low-rank differences from a U-Net"},
	{"task_embedding", "a ControlNet union, which needs the type of each picture"},
	{"lllite_unet_", "a ControlNet-LLLite"},
	{"adapter.body.0.", "a T2I-Adapter"},
	{"body.0.block1.", "a T2I-Adapter"},
	{"moduleVggOne.", "a preprocessor (HED), which makes pictures for a ControlNet"},
	{"netNetwork.moduleVgg", "a preprocessor (HED), which makes pictures for a ControlNet"},
	{"difference", "differences from a U-Net's weights, which are not added yet"},
	{"controlnet_x_embedder.", "a ControlNet of FLUX"},
	{"controlnet_cond_embedding.", ""},
	{"input_hint_block.", ""},
}

// ofModel is before every name of a ControlNet in some files.
const ofModel = "control_model."

// Locate finds the tensors of a ControlNet in a file: by diffusers' names, those that the file has. Published files have
// diffusers' names or those of the original repository, where places are numbers, and may have a whole Stable Diffusion
// beside it. A name of the file stands for a tensor that is missing too. ok is false of a file of something else; the
// error, an Error, is that it is akin and cannot be used.
func Locate(names []string) (stored map[string]string, ok bool, err error) {
	prefix := kind.Wrapped(names)
	has := func(part string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, prefix+part) })
	}
	bare := prefix
	for _, k := range kin {
		if has(k.part) || has(ofModel+k.part) {
			if ok = true; k.is != "" {
				return nil, true, &Error{k.is}
			}
		}
	}
	if has(ofModel) {
		prefix = bare + ofModel
	}
	if !ok {
		return nil, false, nil
	}
	in := map[string]bool{}
	for _, name := range names {
		if rest, below := strings.CutPrefix(name, prefix); below {
			in[rest] = true
		}
	}
	stored = map[string]string{}
	if in[hintNetwork+".conv_in.weight"] {
		for name := range in {
			stored[name] = prefix + name
		}
		return stored, true, nil
	}
	paths := modules(in)
	for name := range in {
		stored[renamed(paths, name)] = prefix + name
	}
	for own, path := range paths { // what is missing has its name as well
		for _, of := range []string{".weight", ".bias"} {
			if strings.HasPrefix(own, "zero_convs.") {
				stored[path+of] = prefix + own + of
			}
		}
	}
	return stored, true, nil
}

// renamed is diffusers' name of a parameter: that of the module that it is in, and within a residual block its layer's.
func renamed(paths map[string]string, name string) string {
	for head := name; head != ""; head = head[:max(0, strings.LastIndexByte(head, '.'))] {
		path, ok := paths[head]
		if !ok {
			continue
		}
		tail := name[len(head):]
		for _, layer := range original.ResidualLayers() {
			if rest, within := strings.CutPrefix(tail, "."+layer[1]+"."); within {
				return path + "." + layer[0] + "." + rest
			}
		}
		return path + tail
	}
	return name
}

// maxPlaces is more than a trunk of the largest config has.
const maxPlaces = 128

// modules are diffusers' paths by those of the original repository, where the way down is one list: a residual block, with a transformer
// behind it or not, or a downsampling between levels.
func modules(in map[string]bool) map[string]string {
	paths := map[string]string{
		"time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2",
		"label_emb.0.0": "add_embedding.linear_1", "label_emb.0.2": "add_embedding.linear_2",
		"input_blocks.0.0": "conv_in", "middle_block_out.0": "controlnet_mid_block",
		"middle_block.0": "mid_block.resnets.0", "middle_block.1": "mid_block.attentions.0", "middle_block.2": "mid_block.resnets.1",
	}
	level, resnets, place := 0, 0, 1
	for ; place < maxPlaces; place++ {
		at, down := "input_blocks."+strconv.Itoa(place), "down_blocks."+strconv.Itoa(level)
		if in[at+".0.op.weight"] {
			paths[at+".0.op"] = down + ".downsamplers.0.conv"
			level, resnets = level+1, 0
		} else if in[at+".0.in_layers.2.weight"] {
			paths[at+".0"], paths[at+".1"] = fmt.Sprint(down, ".resnets.", resnets), fmt.Sprint(down, ".attentions.", resnets)
			resnets++
		} else {
			break
		}
	}
	for i := range place {
		paths[fmt.Sprint("zero_convs.", i, ".0")] = fmt.Sprint("controlnet_down_blocks.", i)
	}
	hints := hintPlaces(in)
	for i, p := range hints {
		path := hintNetwork + ".blocks." + strconv.Itoa(i-1)
		switch i {
		case 0:
			path = hintNetwork + ".conv_in"
		case len(hints) - 1:
			path = hintNetwork + ".conv_out"
		}
		paths["input_hint_block."+strconv.Itoa(p)] = path
	}
	return paths
}

// hintPlaces are the places of convolutions in the hint network, between which activations have theirs.
func hintPlaces(in map[string]bool) []int {
	places := map[int]bool{}
	for name := range in {
		place, ok := strings.CutPrefix(name, "input_hint_block.")
		place, _, _ = strings.Cut(place, ".")
		if n, err := strconv.Atoi(place); ok && err == nil && n >= 0 && n < maxPlaces {
			places[n] = true
		}
	}
	return slices.Sorted(maps.Keys(places))
}
