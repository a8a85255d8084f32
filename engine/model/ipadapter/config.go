// Package ipadapter is what gives a U-Net a picture as a prompt (Ye et al. 2023, arXiv 2308.06721): it makes tokens of what
// CLIP's image encoder says of the picture, and keys and values of them for each attention to the text.
//
// The package may import engine/device, engine/nn, engine/tensor and engine/model/unet.
package ipadapter

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/nn"
)

// Config is what the shapes of an IP-Adapter's tensors tell.
type Config struct {
	ImageDim   int // of the picture's embedding, or of its states
	Tokens     int // that a picture becomes
	ContextDim int // of a token
	Attentions []Attention
	// Resampler makes the tokens of all states of the image encoder (the adapters called plus); nil of those that make them of
	// the picture's embedding.
	Resampler *Resampler
}

// Attention is one to the text, which has keys and values of its own for the picture.
type Attention struct {
	Number int // among all attentions, to itself and to the text, down, up, middle: odd
	Width  int
}

// Resampler is a Perceiver's (Jaegle et al. 2021, arXiv 2103.03206), as Flamingo has it (arXiv 2204.14198).
type Resampler struct {
	Width, Inner, Layers int // of the latents, of all heads together
	FeedForward          int
}

// HeadSize is that of a resampler, in every published file.
const HeadSize = 64

// The bounds of what shapes may tell, well above published files.
const (
	maxWidth      = 1 << 16
	maxTokens     = 1 << 10
	maxLayers     = 64
	maxAttentions = 1 << 10
)

const (
	projection = "image_proj"
	attentions = "ip_adapter"
)

// Error is a file that is no IP-Adapter that can be used.
type Error struct {
	File, Got string
}

// Error reads "FILE: expected an IP-Adapter, plain or plus, got FaceID, which ...".
func (e *Error) Error() string {
	return e.File + ": expected an IP-Adapter, plain or plus, got " + e.Got
}

// Infer tells the config of a file by the names and shapes of its tensors. Shapes that do not fit each other are told by the
// declaration. The error is an Error.
func Infer(src nn.Source) (Config, error) {
	refuse := func(format string, args ...any) (Config, error) {
		return Config{}, &Error{src.Where(""), fmt.Sprintf(format, args...)}
	}
	names := src.Names()
	if why := other(names); why != "" {
		return refuse("%s", why)
	}
	side := func(name string, i int) int {
		_, shape, _ := src.Info(name)
		if i >= len(shape) {
			return 0
		}
		return shape[i]
	}
	var c Config
	if p := projection + ".latents"; slices.Contains(names, p) {
		const layer = projection + ".layers."
		r := &Resampler{Width: side(p, 2), Inner: side(layer+"0.0.to_q.weight", 0), FeedForward: side(layer+"0.1.1.weight", 0)}
		for r.Layers < maxLayers && slices.Contains(names, layer+strconv.Itoa(r.Layers)+".0.to_q.weight") {
			r.Layers++
		}
		c = Config{ImageDim: side(projection+".proj_in.weight", 1), Tokens: side(p, 1), ContextDim: side(projection+".proj_out.weight", 0), Resampler: r}
		if r.Inner%HeadSize != 0 || r.Layers == 0 || min(r.Width, r.Inner, r.FeedForward) < 1 || max(r.Width, r.Inner, r.FeedForward) > maxWidth {
			return refuse("a resampler of %d layers, of width %d, %d and %d", r.Layers, r.Width, r.Inner, r.FeedForward)
		}
	} else {
		c = Config{ImageDim: side(projection+".proj.weight", 1), ContextDim: side(projection+".norm.weight", 0)}
		if rows := side(projection+".proj.weight", 0); c.ContextDim > 0 && rows%c.ContextDim == 0 {
			c.Tokens = rows / c.ContextDim
		}
	}
	if min(c.ImageDim, c.Tokens, c.ContextDim) < 1 || max(c.ImageDim, c.ContextDim) > maxWidth || c.Tokens > maxTokens {
		return refuse("%s of %d values to %d tokens of %d", projection, c.ImageDim, c.Tokens, c.ContextDim)
	}
	for _, name := range names {
		number, ok := strings.CutSuffix(strings.TrimPrefix(name, attentions+"."), ".to_k_ip.weight")
		if !ok {
			continue
		}
		n, err := strconv.Atoi(number)
		if err != nil || strconv.Itoa(n) != number || len(c.Attentions) == maxAttentions {
			return refuse("%.80q", name)
		}
		if width := side(name, 0); width >= 1 && width <= maxWidth {
			c.Attentions = append(c.Attentions, Attention{n, width})
		}
	}
	slices.SortFunc(c.Attentions, func(a, b Attention) int { return a.Number - b.Number })
	if len(c.Attentions) == 0 {
		return refuse("no %s.N.to_k_ip.weight", attentions)
	}
	for i, a := range c.Attentions {
		if want := 2*i + 1; a.Number != want {
			return refuse("one with %s.%d where %s.%d is missing", attentions, a.Number, attentions, want)
		}
	}
	return c, nil
}

// Is reports whether a file is an IP-Adapter by the names of its tensors, be it one that cannot be used.
func Is(names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool {
		return strings.HasPrefix(n, attentions+".") || strings.HasPrefix(n, projection+".") || strings.HasPrefix(n, projection+"_model.") || strings.Contains(n, "ip_adapter_double_stream")
	})
}

// other is what a file is whose layout is near to that of an IP-Adapter.
func other(names []string) string {
	has := func(part string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return strings.Contains(n, part) })
	}
	switch {
	case has("ip_adapter_double_stream") || has("double_blocks."):
		return "one of FLUX"
	case has("perceiver_resampler"):
		return "FaceID Plus, which wants a face's embedding and that of a picture"
	case has("_lora."):
		return "FaceID, which wants a face's embedding and adds LoRAs to the U-Net"
	case has("image_proj_model.") || has("adapter_modules."):
		return "a checkpoint of training, which is not converted yet (image_proj_model, adapter_modules)"
	case has(projection + ".proj.2."):
		return "one of full faces, whose tokens are made of all patches by an MLP"
	case has("_ip.bias"):
		return "one whose keys and values have a bias"
	}
	return ""
}

// Fits reports how an adapter differs from what a U-Net takes, for an error. Empty is that it fits.
func (c Config) Fits(base unet.Config) string {
	want := base.CrossAttentions()
	if len(c.Attentions) > len(want) {
		return fmt.Sprintf("%d attentions to the text, where the model has %d", len(c.Attentions), len(want))
	}
	if c.ContextDim != base.ContextDim {
		return fmt.Sprintf("tokens of width %d, where the model has cross_attention_dim %d", c.ContextDim, base.ContextDim)
	}
	at := map[int]int{}
	for _, a := range c.Attentions {
		at[a.Number] = a.Width
	}
	for i, width := range want {
		switch got, ok := at[2*i+1]; {
		case !ok:
			return fmt.Sprintf("%s.%d is missing, one of the %d attentions of the model", attentions, 2*i+1, len(want))
		case got != width:
			return fmt.Sprintf("%s.%d is of width %d, where the model has %d", attentions, 2*i+1, got, width)
		}
	}
	return ""
}
