package rrdb

import (
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/nn"
)

const (
	densePerBlock = 3
	convsPerDense = 5
	residualScale = 0.2
)

// Model is the declared network.
type Model struct {
	first, trunk nn.Conv2D
	blocks       [][densePerBlock]dense
	up           []nn.Conv2D
	hr, last     nn.Conv2D
}

// New declares the network.
func New(s *nn.Scope, c Config) *Model {
	conv := func(name string, in, out int) nn.Conv2D { return nn.NewConv2D(s.Sub(name), in, out, 3) }
	m := &Model{first: conv(c.Naming.first(), ImageChannels*c.Unshuffle*c.Unshuffle, c.Features)}
	for b := range c.Blocks {
		var block [densePerBlock]dense
		for r := range block {
			for k := range convsPerDense {
				out := c.Growth
				if k == convsPerDense-1 {
					out = c.Features
				}
				block[r][k] = conv(c.Naming.dense(b, r+1, k+1), c.Features+k*c.Growth, out)
			}
		}
		m.blocks = append(m.blocks, block)
	}
	m.trunk = conv(c.trunk(), c.Features, c.Features)
	for i := range c.Upsamples {
		m.up = append(m.up, conv(c.Naming.up(i+1), c.Features, c.Features))
	}
	hr, last := c.last()
	m.hr, m.last = conv(hr, c.Features, c.Features), conv(last, c.Features, ImageChannels)
	return m
}

// Forward maps an image in 0 to 1, [B, h, w, 3 Unshuffle^2] (nn.PixelUnshuffle), to [B, h, w, 3], whose sides are
// Unshuffle*Scale times as large.
func (m *Model) Forward(t *device.Tape, image device.Array) device.Array {
	first := m.first.Forward(t, image)
	t.Mark("conv_first", first)
	h := first
	for i, block := range m.blocks {
		y := h
		for r, d := range block {
			if y = d.forward(t, y); i == 0 && r == 0 {
				t.Mark("rdb1", y)
			}
		}
		h = t.Axpy(device.Axpy{A: residualScale, X: y, Y: h})
	}
	h = m.trunk.Add(t, h, first)
	t.Mark("body", h)
	for _, up := range m.up {
		op := up.Op(h)
		op.Upsample, op.Act = true, device.LeakyReLU
		h = t.Conv2D(op)
	}
	op := m.hr.Op(h)
	op.Act = device.LeakyReLU
	return m.last.Forward(t, t.Conv2D(op))
}

// dense is convolutions each of which sees what all before it gave, around a residual.
type dense [convsPerDense]nn.Conv2D

func (d dense) forward(t *device.Tape, x device.Array) device.Array {
	var made []device.Array
	for k, conv := range d {
		op := conv.Op(x)
		op.More = made
		if k == convsPerDense-1 {
			op.Scale, op.Residual = residualScale, x
			return t.Conv2D(op)
		}
		op.Act = device.LeakyReLU
		made = append(made[:k:k], t.Conv2D(op))
	}
	return device.Array{}
}
