package cpu_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/device/devicetest"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// convShape is a convolution 3x3 with stride 1 of [batch, side, side, in] to out channels; x is half that side with up.
type convShape struct {
	batch, side, in, out int
	up                   bool
}

func (c convShape) String() string {
	up := ""
	if c.up {
		up = "up"
	}
	return fmt.Sprintf("%dx%dx%d%s_%d-%d", c.batch, c.side, c.side, up, c.in, c.out)
}

// convShapes are those of Stable Diffusion 1.5 for 512x512 with guidance, and of models/starter for 128x128.
var convShapes = []convShape{
	// The U-Net.
	{2, 64, 320, 320, false},
	{2, 64, 640, 320, false},
	{2, 64, 960, 320, false},
	{2, 64, 640, 640, true},
	{2, 32, 320, 640, false},
	{2, 32, 640, 640, false},
	{2, 32, 960, 640, false},
	{2, 32, 1280, 640, false},
	{2, 32, 1920, 640, false},
	{2, 32, 1280, 1280, true},
	{2, 16, 640, 1280, false},
	{2, 16, 1280, 1280, false},
	{2, 16, 1920, 1280, false},
	{2, 16, 2560, 1280, false},
	{2, 16, 1280, 1280, true},
	{2, 8, 1280, 1280, false},
	{2, 8, 2560, 1280, false},
	{2, 64, 4, 320, false},
	{2, 64, 320, 4, false},
	// The decoder.
	{1, 64, 4, 512, false},
	{1, 64, 512, 512, false},
	{1, 128, 512, 512, true},
	{1, 128, 512, 512, false},
	{1, 256, 512, 512, true},
	{1, 256, 512, 256, false},
	{1, 256, 256, 256, false},
	{1, 512, 256, 256, true},
	{1, 512, 256, 128, false},
	{1, 512, 128, 128, false},
	{1, 512, 128, 3, false},
	// The starter model's U-Net.
	{2, 16, 8, 64, false},
	{2, 16, 64, 64, false},
	{2, 16, 128, 64, false},
	{2, 16, 192, 64, false},
	{2, 8, 64, 128, false},
	{2, 8, 128, 128, false},
	{2, 8, 256, 128, false},
	{2, 8, 320, 128, false},
	{2, 4, 192, 192, false},
	{2, 4, 384, 192, false},
	// The starter model's decoder.
	{1, 16, 96, 96, false},
	{1, 32, 96, 96, true},
	{1, 32, 96, 96, false},
	{1, 64, 64, 64, false},
	{1, 128, 32, 32, false},
	{1, 128, 16, 16, false},
	{1, 128, 16, 3, false},
}

// BenchmarkConv computes every shape by every algorithm. Its share of the peak counts the multiply-adds of the direct
// sum: more than 100 % for Winograd.
func BenchmarkConv(b *testing.B) {
	for _, c := range convShapes {
		side := c.side
		if c.up {
			side /= 2
		}
		flops := 2 * float64(c.batch*c.side*c.side*c.out) * float64(9*c.in)
		for _, algorithm := range []cpu.Algorithm{cpu.Direct, cpu.Winograd2, cpu.Winograd4} {
			benchmarkOp(b, fmt.Sprintf("%v/%s", c, algorithm), algorithm, func(n *devicetest.Network) device.Array {
				w := n.Param(device.Filter, tensor.F16, 1/math.Sqrt(float64(9*c.in)), c.out, c.in, 3, 3)
				return n.Tape.Conv2D(device.Conv2D{
					X: n.Input(0, c.batch, side, side, c.in), W: w, Bias: n.Param(device.Vector, tensor.F32, 1, c.out),
					Stride: 1, Top: 1, Left: 1, Bottom: 1, Right: 1, Upsample: c.up,
				})
			}, fmaLimit, peakReport(flops))
		}
	}
}
