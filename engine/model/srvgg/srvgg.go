// Package srvgg is the compact network of Real-ESRGAN, SRVGGNetCompact: convolutions with parametric ReLUs at the size of the
// image, and one that gives the pixels of each square (Wang et al. 2021, arXiv 2107.10833; files realesr-general-x4v3,
// realesr-animevideov3).
//
// The package may import engine/device and engine/nn.
package srvgg

import (
	"fmt"
	"strings"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/nn"
)

// ImageChannels of what goes in and comes out: RGB.
const ImageChannels = 3

// Config is what names and shapes of a file's tensors tell.
type Config struct {
	Features int
	Convs    int // between the first and the last one
	Scale    int // how much larger sides become
}

// Bounds of a config.
const (
	maxChannels = 1024
	maxConvs    = 256
	maxScale    = 8
)

// Of finds the config of a file whose tensors are called so below a prefix; ok is whether it is of this network at all. Whether all
// tensors are there is not looked at. The error tells a number that is out of bounds.
func Of(src nn.Source, prefix string) (c Config, ok bool, err error) {
	shape := func(i int) []int {
		_, s, _ := src.Info(fmt.Sprintf("%sbody.%d.weight", prefix, i))
		return s
	}
	first := shape(0)
	if len(first) != 4 || len(shape(1)) != 1 {
		return c, false, nil
	}
	last := 0
	for _, name := range src.Names() {
		var i int
		if rest, below := strings.CutPrefix(name, prefix); below {
			if n, _ := fmt.Sscanf(rest, "body.%d.weight", &i); n == 1 && i >= 0 && len(shape(i)) == 4 {
				last = max(last, i)
			}
		}
	}
	c.Features, c.Convs = first[0], last/2-1
	out := shape(last)[0]
	for c.Scale = 1; c.Scale < maxScale && ImageChannels*c.Scale*c.Scale < out; c.Scale++ {
	}
	if first[1] != ImageChannels || ImageChannels*c.Scale*c.Scale != out {
		return c, true, fmt.Errorf("its first convolution has %d input channels and its last %d output channels; expected 3, and 3 for each pixel of a square of at most %d", first[1], out, maxScale)
	}
	if c.Features > maxChannels || c.Convs < 0 || c.Convs > maxConvs {
		return c, true, fmt.Errorf("it has %d features and %d convolutions; expected at most %d and 2 to %d", c.Features, c.Convs+2, maxChannels, maxConvs+2)
	}
	return c, true, nil
}

// Model is the declared network.
type Model struct {
	convs  []nn.Conv2D
	slopes []device.Weight // of all convolutions but the last
}

// New declares the network.
func New(s *nn.Scope, c Config) *Model {
	m := &Model{}
	in := ImageChannels
	for i := range c.Convs + 2 {
		out := c.Features
		if i == c.Convs+1 {
			out = ImageChannels * c.Scale * c.Scale
		}
		m.convs = append(m.convs, nn.NewConv2D(s.Index("body", 2*i), in, out, 3))
		if i <= c.Convs {
			m.slopes = append(m.slopes, s.Index("body", 2*i+1).Vector("weight", out))
		}
		in = out
	}
	return m
}

// Forward maps an image in 0 to 1, [B, h, w, 3], to what is added to the pixels of each square, [B, h, w, 3 Scale^2]
// (nn.PixelShuffle).
func (m *Model) Forward(t *device.Tape, h device.Array) device.Array {
	for i, conv := range m.convs {
		op := conv.Op(h)
		if i < len(m.slopes) {
			op.Act, op.Slopes = device.PReLU, m.slopes[i]
		}
		h = t.Conv2D(op)
	}
	return h
}
