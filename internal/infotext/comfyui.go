package infotext

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// maxHops bounds how far the links of a graph are followed, which may lead in a circle.
const maxHops = 64

// graph is what ComfyUI runs, in the form of its API: nodes by their ids.
type graph struct {
	nodes map[string]node
	notes []string
	out   Parameters
	loras []string // tags, the last one first
}

type node struct {
	Class  string                     `json:"class_type"`
	Inputs map[string]json.RawMessage `json:"inputs"`
}

// ParseComfyUI reads the graph that ComfyUI keeps under "prompt": of one KSampler, and the nodes that everybody has around it. It is
// told in the words of A1111; notes are what the graph does that those do not tell. Errors are an Error.
func ParseComfyUI(text string) (p Parameters, notes []string, err error) {
	if len(text) > maxBytes {
		return p, nil, &Error{"a graph of at most 1 MiB", fmt.Sprintf("%d bytes", len(text))}
	}
	g := &graph{}
	if err := json.Unmarshal(withoutNaN(text), &g.nodes); err != nil {
		return p, nil, &Error{"a graph of ComfyUI as JSON", fmt.Sprintf("%.80q: %v", text, err)}
	}
	err = g.read()
	return g.out, g.notes, err
}

// withoutNaN is what Python writes as JSON with null in the place of numbers that JSON does not have.
func withoutNaN(text string) []byte {
	out, quoted := []byte(nil), false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\' && i+1 < len(text):
			out = append(out, c)
			i++
		case c == '"':
			quoted = !quoted
		}
		if !quoted && strings.HasPrefix(text[i:], "NaN") {
			out, i = append(out, "null"...), i+2
			continue
		}
		out = append(out, text[i])
	}
	return out
}

// read fills in the parameters.
func (g *graph) read() error {
	var samplers []string
	for _, id := range slices.Sorted(maps.Keys(g.nodes)) {
		switch class := g.nodes[id].Class; {
		case class == "KSampler" || class == "KSamplerAdvanced":
			samplers = append(samplers, id)
		case strings.HasPrefix(class, "SamplerCustom"):
			return &Error{"a graph with one KSampler", "one with a " + class}
		}
	}
	if len(samplers) != 1 {
		return &Error{"a graph with one KSampler", fmt.Sprintf("one with %d", len(samplers))}
	}
	s := g.nodes[samplers[0]]
	add := func(key, value string) { g.out.Fields = append(g.out.Fields, Field{key, value}) }
	seed := "seed"
	if s.Class == "KSamplerAdvanced" {
		seed = "noise_seed"
		start, _ := g.value(s, "start_at_step", 0)
		if noise, _ := g.value(s, "add_noise", 0); noise != "enable" || start != "0" {
			return &Error{"a KSampler that begins with noise", fmt.Sprintf("add_noise %q, start_at_step %q", noise, start)}
		}
	}
	for _, in := range []struct{ input, key string }{{"steps", "Steps"}, {"sampler_name", "Sampler"}, {"scheduler", "Schedule type"}, {"cfg", "CFG scale"}, {seed, "Seed"}} {
		v, err := g.value(s, in.input, 0)
		if err != nil {
			return err
		}
		add(in.key, v)
	}
	if err := g.latents(s, add); err != nil {
		return err
	}
	if err := g.model(s, add); err != nil {
		return err
	}
	var err error
	if g.out.Prompt, err = g.conditioning(s, "positive", add); err != nil {
		return err
	}
	g.out.Negative, err = g.conditioning(s, "negative", nil)
	add("Version", "ComfyUI") // as those write who save pictures of it with A1111's settings
	for _, tag := range slices.Backward(g.loras) {
		g.out.Prompt += " " + tag
	}
	return err
}

// behind is the node that an input of a node is linked to.
func (g *graph) behind(n node, input string) (node, bool) {
	var link []any
	if json.Unmarshal(n.Inputs[input], &link) != nil || len(link) != 2 {
		return node{}, false
	}
	id, ok := link[0].(string)
	to, there := g.nodes[id]
	return to, ok && there
}

// value is a number or text that an input has, or a node that does nothing but give it.
func (g *graph) value(n node, input string, hops int) (string, error) {
	raw := n.Inputs[input]
	var text string
	if json.Unmarshal(raw, &text) == nil && raw != nil {
		return text, nil
	}
	var number json.Number
	if json.Unmarshal(raw, &number) == nil && number != "" {
		return number.String(), nil
	}
	to, linked := g.behind(n, input)
	for _, name := range []string{input, "value", "text", "string", "seed"} {
		if linked && to.Inputs[name] != nil && hops < maxHops {
			return g.value(to, name, hops+1)
		}
	}
	return "", &Error{fmt.Sprintf("%s of the %.40q as a value", input, n.Class), fmt.Sprintf("%.80q of %.40q", raw, to.Class)}
}

// latents tells what denoising begins with.
func (g *graph) latents(s node, add func(key, value string)) error {
	denoise := "1"
	if s.Inputs["denoise"] != nil {
		var err error
		if denoise, err = g.value(s, "denoise", 0); err != nil {
			return err
		}
	}
	from, _ := g.behind(s, "latent_image")
	switch from.Class {
	case "EmptyLatentImage", "EmptySD3LatentImage":
		width, err := g.value(from, "width", 0)
		if err != nil {
			return err
		}
		height, err := g.value(from, "height", 0)
		if err != nil {
			return err
		}
		add("Size", width+"x"+height)
		if x, err := strconv.ParseFloat(denoise, 64); err == nil && x < 1 {
			g.notes = append(g.notes, fmt.Sprintf("denoise %s of latents without a picture is not honoured", denoise))
		}
	case "VAEEncode", "VAEEncodeForInpaint":
		add("Denoising strength", denoise)
	default:
		return &Error{"latents of an EmptyLatentImage or VAEEncode", fmt.Sprintf("those of a %.40q", from.Class)}
	}
	return nil
}

// model follows the U-Net to the checkpoint.
func (g *graph) model(s node, add func(key, value string)) error {
	for range maxHops {
		next, ok := g.behind(s, "model")
		if !ok {
			break
		}
		switch s = next; s.Class {
		case "CheckpointLoaderSimple", "CheckpointLoader":
			name, err := g.value(s, "ckpt_name", 0)
			if err == nil {
				add("Model", name)
			}
			return err
		case "LoraLoader", "LoraLoaderModelOnly":
			name, err := g.value(s, "lora_name", 0)
			if err != nil {
				return err
			}
			weight, err := g.value(s, "strength_model", 0)
			if err != nil {
				return err
			}
			if clip, err := g.value(s, "strength_clip", 0); err == nil && clip != weight {
				g.notes = append(g.notes, fmt.Sprintf("LoRA %.80q: its weight for the text encoder, %s, is taken as %s", name, clip, weight))
			}
			if at := strings.LastIndexByte(name, '.'); at > 0 {
				name = name[:at]
			}
			g.loras = append(g.loras, "<lora:"+name[strings.LastIndexAny(name, `/\`)+1:]+":"+weight+">")
		default:
			g.notes = append(g.notes, fmt.Sprintf("a node %.40q on the model is not honoured", s.Class))
		}
	}
	return &Error{"a model of a CheckpointLoaderSimple", fmt.Sprintf("one of a %.40q", s.Class)}
}

// conditioning follows a prompt to its text, which has brackets as A1111 reads them: to ComfyUI square ones are letters.
func (g *graph) conditioning(s node, input string, add func(key, value string)) (string, error) {
	for range maxHops {
		next, ok := g.behind(s, input)
		if !ok {
			break
		}
		switch s = next; s.Class {
		case "CLIPTextEncode":
			g.clipSkip(s, add)
			text, err := g.value(s, "text", 0)
			return strings.NewReplacer(`\[`, `\[`, `\]`, `\]`, "[", `\[`, "]", `\]`).Replace(text), err
		case "ControlNetApply", "ControlNetApplyAdvanced":
			if add != nil {
				g.notes = append(g.notes, "a ControlNet is not honoured; --controlnet and --control-image name one")
			}
			if s.Inputs["conditioning"] != nil {
				input = "conditioning"
			}
		default:
			return "", &Error{"a prompt of a CLIPTextEncode", fmt.Sprintf("one of a %.40q", s.Class)}
		}
	}
	return "", &Error{"a prompt of a CLIPTextEncode", "no such node"}
}

// clipSkip tells how many layers of the text encoder are taken, as A1111 counts them.
func (g *graph) clipSkip(s node, add func(key, value string)) {
	for range maxHops {
		next, ok := g.behind(s, "clip")
		if s = next; !ok {
			return
		}
		layer, err := g.value(s, "stop_at_clip_layer", 0)
		if n, wrong := strconv.Atoi(layer); err == nil && wrong == nil && add != nil {
			add("Clip skip", strconv.Itoa(-n))
			return
		}
	}
}
