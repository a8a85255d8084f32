// Package taesd is tiny autoencoders for previews, distilled from those of latent diffusion: TAESD and TAESDXL (Ollin Boer Bohan
// 2023), diffusers' AutoencoderTiny. Its two halves are in one file of diffusers, or each in one of the author's, and their
// tensors alone tell how they are built.
//
// The package may import engine/device and engine/nn.
package taesd

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/nn"
)

// ImageChannels of what is encoded and decoded: RGB.
const ImageChannels = 3

// Half is the decoder or the encoder, as a file's tensors tell it.
type Half struct {
	Decodes       bool
	prefix        string
	Latents       int // channels
	layers        []layer
	Halves, Pixel int // how often sides are halved or doubled, and 2 to the power of it
}

// layer is a convolution or a block of three around a residual.
type layer struct {
	place   int // in the sequence
	in, out int
	block   bool
	skips   bool // the block's residual has a convolution
	biased  bool // a convolution without bias changes the size
}

// The prefixes of the halves in files of diffusers; the author's have none.
const (
	decoderPrefix = "decoder.layers."
	encoderPrefix = "encoder.layers."
)

// maxLayers bounds a half.
const maxLayers = 128

// Of finds the half that decodes or encodes; ok is whether the file has it.
func Of(src nn.Source, decodes bool) (h Half, ok bool, err error) {
	prefix := encoderPrefix
	if decodes {
		prefix = decoderPrefix
	}
	for _, p := range []string{prefix, ""} {
		if h, ok, err = of(src, p); ok && h.Decodes == decodes {
			return h, true, err
		}
	}
	return Half{}, false, nil
}

func of(src nn.Source, prefix string) (h Half, ok bool, err error) {
	shape := func(name string) []int {
		_, s, _ := src.Info(prefix + name)
		return s
	}
	for place := range maxLayers {
		at := strconv.Itoa(place)
		if s := shape(at + ".conv.0.weight"); len(s) == 4 {
			h.layers = append(h.layers, layer{place: place, in: s[1], out: s[0], block: true, skips: shape(at+".skip.weight") != nil})
		} else if s := shape(at + ".weight"); len(s) == 4 {
			h.layers = append(h.layers, layer{place: place, in: s[1], out: s[0], biased: shape(at+".bias") != nil})
		}
	}
	n := len(h.layers)
	if n < 2 || h.layers[0].block || h.layers[n-1].block || !h.layers[0].biased || !h.layers[n-1].biased {
		return h, false, nil
	}
	first, last := h.layers[0], h.layers[n-1]
	switch {
	case last.out == ImageChannels:
		h.Decodes, h.Latents = true, first.in
	case first.in == ImageChannels:
		h.Latents = last.out
	default:
		return h, false, nil
	}
	h.prefix = strings.TrimSuffix(prefix, ".")
	for _, l := range h.layers {
		if !l.block && !l.biased {
			h.Halves++
		}
	}
	const maxHalves, maxChannels = 5, 1024
	for i, l := range h.layers {
		if l.in > maxChannels || l.out > maxChannels || i > 0 && l.in != h.layers[i-1].out {
			return h, true, fmt.Errorf("layer %d of a tiny autoencoder takes %d channels and gives %d: expected as many as the layer before gives, and at most %d", l.place, l.in, l.out, maxChannels)
		}
	}
	if h.Halves > maxHalves {
		return h, true, fmt.Errorf("a tiny autoencoder changes its size %d times, expected at most %d", h.Halves, maxHalves)
	}
	h.Pixel = 1 << h.Halves
	return h, true, nil
}

// Model is a declared half.
type Model struct {
	Half
	layers []declared
}

type declared struct {
	layer
	conv    nn.Conv2D     // of a convolution
	weight  device.Weight // of one without bias
	block   [3]nn.Conv2D
	shorten device.Weight // of a block's residual
}

// New declares a half.
func New(s *nn.Scope, h Half) *Model {
	m := &Model{Half: h}
	if h.prefix != "" {
		s = s.Sub(h.prefix)
	}
	for _, l := range h.layers {
		at := s.Sub(strconv.Itoa(l.place))
		d := declared{layer: l}
		switch {
		case l.block:
			in := l.in
			for i := range d.block {
				d.block[i] = nn.NewConv2D(at.Index("conv", 2*i), in, l.out, 3)
				in = l.out
			}
			if l.skips {
				d.shorten = at.Sub("skip").Filter("weight", l.out, l.in, 1, 1)
			}
		case l.biased:
			d.conv = nn.NewConv2D(at, l.in, l.out, 3)
		default:
			d.weight = at.Filter("weight", l.out, l.in, 3, 3)
		}
		m.layers = append(m.layers, d)
	}
	return m
}

// Forward maps the values of Input to an image in 0 to 1, [B, h*Pixel, w*Pixel, 3], or to latents [B, h/Pixel, w/Pixel, Latents].
func (m *Model) Forward(t *device.Tape, x device.Array) device.Array {
	for i, l := range m.layers {
		switch {
		case l.layer.block:
			x = l.forward(t, x)
		case l.biased:
			op := l.conv.Op(x)
			if i == 0 && m.Decodes {
				op.Act = device.ReLU
			}
			x = t.Conv2D(op)
		case m.Decodes:
			x = t.Conv2D(device.Conv2D{X: x, W: l.weight, Stride: 1, Top: 1, Left: 1, Bottom: 1, Right: 1, Upsample: true})
		default:
			x = t.Conv2D(device.Conv2D{X: x, W: l.weight, Stride: 2, Top: 1, Left: 1, Bottom: 1, Right: 1})
		}
	}
	return x
}

func (l declared) forward(t *device.Tape, x device.Array) device.Array {
	residual := x
	if l.shorten.Present() {
		residual = t.Conv2D(device.Conv2D{X: x, W: l.shorten, Stride: 1})
	}
	for i, conv := range l.block {
		op := conv.Op(x)
		if i < len(l.block)-1 {
			op.Act = device.ReLU
		} else {
			op.Residual = residual
		}
		x = t.Conv2D(op)
	}
	return t.Activate(device.Activate{X: x, Act: device.ReLU})
}

// Clamp bounds scaled latents smoothly, as the decoder wants them, in place.
func Clamp(z []float32) {
	const most = 3
	for i, v := range z {
		z[i] = float32(math.Tanh(float64(v)/most) * most)
	}
}

// Signed makes pixels in 0 to 1 those of -1 to 1, in place.
func Signed(pixels []float32) {
	for i, v := range pixels {
		pixels[i] = 2*v - 1
	}
}
