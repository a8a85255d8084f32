// Package upscale finds which network an upscaler's file has, from the names and shapes of its tensors alone.
//
// The package may import engine/device, engine/nn and the networks.
package upscale

import (
	"fmt"
	"slices"
	"strings"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/rrdb"
	"github.com/triptych-serving/triptych/engine/model/srvgg"
	"github.com/triptych-serving/triptych/engine/nn"
)

// ImageChannels of what goes in and comes out: RGB.
const ImageChannels = 3

// Config is a network, as a file's tensors tell it. One of RRDB and SRVGG is set.
type Config struct {
	Prefix string // of its tensors, without a dot at the end
	RRDB   *rrdb.Config
	SRVGG  *srvgg.Config
}

// Error is a file that has no network that is known.
type Error struct {
	File, Expected, Got string
	Akin                bool // it is near to an upscaler, and Got tells what it is
}

// Error reads "FILE: expected an upscaler of ..., got ...".
func (e *Error) Error() string {
	return fmt.Sprintf("%s: expected %s, got %s", e.File, e.Expected, e.Got)
}

// accepted is what an Error expects.
const accepted = "an upscaler of ESRGAN, Real-ESRGAN (RRDBNet) or of its compact network (SRVGGNetCompact)"

// wrappers are what trainers put the tensors into, the first found counts: spandrel's order, which takes params_ema before params.
var wrappers = []string{"model_state_dict.", "state_dict.", "params_ema.", "params-ema.", "params.", "net.", ""}

// Of finds the network of a file. The error is an Error that says what else it is.
func Of(src nn.Source) (Config, error) {
	names := src.Names()
	for _, prefix := range wrappers {
		for more := true; more; {
			more = false
			for _, parallel := range []string{"module.", "netG."} {
				if all(names, prefix, prefix+parallel) {
					prefix, more = prefix+parallel, true
				}
			}
		}
		if !slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(name, prefix) }) {
			continue
		}
		if what := other(names, prefix); what != "" {
			return Config{}, refuse(src, what)
		}
		c := Config{Prefix: strings.TrimSuffix(prefix, ".")}
		if of, ok, err := rrdb.Of(src, prefix); err != nil {
			return c, refuse(src, "an RRDBNet that is another one: "+err.Error())
		} else if ok {
			c.RRDB = &of
			return c, nil
		}
		if of, ok, err := srvgg.Of(src, prefix); err != nil {
			return c, refuse(src, "an SRVGGNetCompact that is another one: "+err.Error())
		} else if ok {
			c.SRVGG = &of
			return c, nil
		}
	}
	return Config{}, &Error{File: src.Where(""), Expected: accepted, Got: "none of their tensors"}
}

func refuse(src nn.Source, what string) error {
	return &Error{File: src.Where(""), Expected: accepted, Got: what, Akin: true}
}

// all reports whether every name below a prefix has a longer one too.
func all(names []string, prefix, longer string) bool {
	found := false
	for _, name := range names {
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		if !strings.HasPrefix(name, longer) {
			return false
		}
		found = true
	}
	return found
}

// others are networks that are told apart by a part of a name.
var others = []struct{ part, what string }{
	{"f_HR_conv1.", "SPSR: an ESRGAN with a gradient branch"},
	{"conv1x1.", "ESRGAN+: an ESRGAN with 1x1 convolutions inside its dense blocks"},
	{"conv_block.cab.", "HAT"},
	{"residual_group.blocks.", "SwinIR"},
	{"attn.attns.", "DAT"},
	{"c1_r.sk.", "SPAN"},
	{"conv9.weight", "a discriminator of Real-ESRGAN (net_d), which is for training"},
	{"classifier.", "a discriminator (net_d), which is for training"},
}

// other is which of the networks it is that cannot be run; empty if it is none that is known.
func other(names []string, prefix string) string {
	for _, o := range others {
		if slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(name, prefix) && strings.Contains(name, o.part) }) {
			return o.what
		}
	}
	return ""
}

// Scale is how much larger sides become.
func (c Config) Scale() int {
	if c.RRDB != nil {
		return c.RRDB.Scale()
	}
	return c.SRVGG.Scale
}

// Multiple is what the sides of an image have to be multiples of.
func (c Config) Multiple() int {
	if c.RRDB != nil {
		return c.RRDB.Unshuffle
	}
	return 1
}

// String tells all that results depend on beside the weights.
func (c Config) String() string {
	if c.RRDB != nil {
		return fmt.Sprintf("RRDBNet %+v", *c.RRDB)
	}
	return fmt.Sprintf("SRVGGNetCompact %+v", *c.SRVGG)
}

// Whole refuses a file that has more tensors beside the network's than other wrappers': they may change what it gives. The scope is
// that of New. The error is an Error.
func (c Config) Whole(s *nn.Scope) error {
	used := map[string]bool{}
	for _, t := range s.Manifest().Tensors() {
		used[t.Name] = true
	}
	for _, name := range s.Source().Names() {
		if (c.Prefix == "" || strings.HasPrefix(name, c.Prefix+".")) && !used[name] {
			return refuse(s.Source(), fmt.Sprintf("one with a tensor %.200q more", name))
		}
	}
	return nil
}

// Radius is how many pixels away from a pixel the network sees at most.
func (c Config) Radius() int {
	if c.RRDB != nil {
		const perBlock, others = 3 * 5, 5
		return (perBlock*c.RRDB.Blocks + others) * c.RRDB.Unshuffle
	}
	return c.SRVGG.Convs + 2
}

// PixelBytes is about what the arrays take at once for a pixel of the image that goes in.
func (c Config) PixelBytes() int64 {
	const float = 4
	if c.RRDB == nil {
		return float * int64(2*c.SRVGG.Features+ImageChannels*c.SRVGG.Scale*c.SRVGG.Scale)
	}
	n := c.RRDB
	body := 4*n.Features + 4*n.Growth               // what network, block and dense block add to, its result, and what its convolutions gave
	enlarged := 2 * n.Features << (2 * n.Upsamples) // of the last but one convolution
	return float * int64(max(body, enlarged)) / int64(n.Unshuffle*n.Unshuffle)
}

// Model is a declared network.
type Model struct {
	Config
	forward func(*device.Tape, device.Array) device.Array
}

// New declares the network.
func New(s *nn.Scope, c Config) *Model {
	if c.Prefix != "" {
		s = s.Sub(c.Prefix)
	}
	if c.RRDB != nil {
		return &Model{c, rrdb.New(s, *c.RRDB).Forward}
	}
	return &Model{c, srvgg.New(s, *c.SRVGG).Forward}
}

// Shape is that of the tape's input for an image of h x w pixels.
func (c Config) Shape(h, w int) []int {
	m := c.Multiple()
	return []int{1, (h + m - 1) / m, (w + m - 1) / m, ImageChannels * m * m}
}

// Forward maps an input of Shape to the network's output.
func (m *Model) Forward(t *device.Tape, image device.Array) device.Array { return m.forward(t, image) }

// Input is the values of the tape's input for pixels [h, w, 3] in 0 to 1. Sides that are no multiples are filled up with the pixels
// before the edge, the nearest first.
func (c Config) Input(pixels []float32, h, w int) []float32 {
	m, shape := c.Multiple(), c.Shape(h, w)
	if m == 1 {
		return pixels
	}
	full := make([]float32, 0, shape[1]*shape[2]*shape[3])
	mirrored := func(i, n int) int {
		if i >= n {
			i = 2*(n-1) - i
		}
		return max(i, 0)
	}
	for y := range shape[1] * m {
		for x := range shape[2] * m {
			full = append(full, pixels[(mirrored(y, h)*w+mirrored(x, w))*ImageChannels:][:ImageChannels]...)
		}
	}
	out := make([]float32, len(full))
	nn.PixelUnshuffle(out, full, shape[1], shape[2], ImageChannels, m)
	return out
}

// Pixels makes pixels [h*Scale, w*Scale, 3] of the tape's output for pixels [h, w, 3].
func (c Config) Pixels(output, pixels []float32, h, w int) []float32 {
	if c.SRVGG != nil {
		return added(output, pixels, h, w, c.SRVGG.Scale)
	}
	shape, m := c.Shape(h, w), c.Multiple()
	if shape[1]*m == h && shape[2]*m == w {
		return output
	}
	out, stride, row := []float32(nil), shape[2]*m*c.Scale()*ImageChannels, w*c.Scale()*ImageChannels
	for y := range h * c.Scale() {
		out = append(out, output[y*stride:][:row]...)
	}
	return out
}

// added are the pixels of squares, [h, w, 3 n^2], added to those of an image, [h, w, 3], that is enlarged by nearest neighbour.
func added(squares, pixels []float32, h, w, n int) []float32 {
	out := make([]float32, len(squares))
	nn.PixelShuffle(out, squares, h, w, ImageChannels, n)
	for y := range h * n {
		for x := range w * n {
			for k := range ImageChannels {
				out[(y*w*n+x)*ImageChannels+k] += pixels[(y/n*w+x/n)*ImageChannels+k]
			}
		}
	}
	return out
}
