package cpu

import (
	"fmt"
	"os"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/kernel"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// Algorithm is a way to compute Conv2D.
type Algorithm string

// The algorithms. Winograd's are for 3x3 filters with stride 1; other convolutions are always Direct.
const (
	Direct    Algorithm = "direct"    // implicit GEMM: 9 multiply-adds for a pixel and pair of channels
	Winograd2 Algorithm = "winograd2" // F(2x2,3x3): 4
	Winograd4 Algorithm = "winograd4" // F(4x4,3x3): 2.25, and 1.56 on an enlarged image
)

// ConvEnv is the environment variable that forces an algorithm where Options.Conv is empty.
const ConvEnv = "TRIPTYCH_CONV"

// forcedConv is the option's algorithm, or the environment's, or empty. The error is a device.FieldError.
func forcedConv(option Algorithm) (Algorithm, error) {
	field := "option Conv"
	if option == "" {
		field, option = ConvEnv, Algorithm(os.Getenv(ConvEnv))
	}
	switch option {
	case "", Direct, Winograd2, Winograd4:
		return option, nil
	}
	return "", &device.FieldError{Field: field, Expected: "direct, winograd2, winograd4 or nothing", Got: string(option)}
}

// of is how a device with this setting computes a convolution in a run of a type.
func (a Algorithm) of(o *device.Conv2D, m *device.Manifest, c device.Compute) Algorithm {
	w := m.At(o.W).Shape
	switch {
	case o.Stride != 1 || w[2] != 3 || w[3] != 3:
		return Direct
	case a != "":
		return a
	}
	s := o.Out.Shape
	return fastest(s[0], s[1], s[2], c)
}

// fastest chooses for an output of images of h x w pixels. It counts multiply-adds for a pair of channels: those of the
// tiles, and what making U takes, which is as much as so many tiles more. The other transforms and the channels do not
// change the order of the algorithms, nor does an image that is no multiple of a tile but for the tiles it takes.
//
// Measured with float16 weights on two threads of an AMD EPYC (AVX2, 512 KiB of L2 a core, 8 MiB of L3): the direct sum's
// multiply-adds a second of processor time, as a share of the peak of the FMA units.
//
//	images, size, channels           direct  winograd2  winograd4
//	2  64x64, 320 to 320               90 %      166 %      266 %
//	2  32x32, 640 to 640               89        159        268
//	2  32x32, 1920 to 640              91        156        256
//	2  16x16, 1280 to 1280             91        161        258
//	2  16x16, 2560 to 1280             83        149        243
//	2  8x8, 1280 to 1280               81        134        173
//	2  64x64, 4 to 320                 51         35         67
//	2  64x64, 320 to 4                 22         23         30
//	2  64x64, 640 to 640, enlarged     81        147        388
//	1  64x64, 512 to 512               91        168        284
//	1  128x128, 512 to 512, enlarged   82        148        389
//	2  16x16, 64 to 64                 86        150        229
//	2  8x8, 128 to 128                 82        145        179
//	2  4x4, 192 to 192                 82         92         82
//	1  8x8, 128 to 128                 84        121        129
//	1  6x6, 128 to 128                 82         98         75
//	1  4x4, 128 to 128                 71         64         42
//	1  32x32, 96 to 96                 89        162        254
//	1  128x128, 16 to 16               55         76        112
//
// Winograd's algorithms have factors of float32 whatever the run's type: with transformed images and filters in bfloat16
// winograd4 was off by 1.2e-2 of the largest value, and by 6e-2 on enlarged images, where a rounding is 2e-3. In bfloat16 the
// direct sum takes half its time, and so as long as winograd4 where that has many tiles.
func fastest(images, h, w int, c device.Compute) Algorithm {
	best, least := Direct, 9*images*h*w
	if c == device.ComputeBF16 {
		least /= 2
	}
	for _, c := range []struct {
		algorithm Algorithm
		kind      kernel.Winograd
		making    int
	}{{Winograd2, kernel.F2, 8}, {Winograd4, kernel.F4, 6}} {
		tiles := images * ceilDiv(h, c.kind.Tile()) * ceilDiv(w, c.kind.Tile())
		if cost := c.kind.Products() * (tiles + c.making); cost < least {
			best, least = c.algorithm, cost
		}
	}
	return best
}

// Convolutions counts those of a whole run, or of bands, which choose for their own size; of each op the largest counts.
func (p *Planner) Convolutions(t *device.Tape, o device.RunOptions) (map[string]int, error) {
	_, banded, err := p.plan(t, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	return p.conv.count(t, o.Compute, func(op int, out tensor.Shape) tensor.Shape {
		if banded == nil {
			return out
		}
		side := banded.sides[op]
		return tensor.Shape{1, min(side, out[1]), min(side, out[2]), out[3]}
	}), nil
}

// count counts the convolutions of a tape, each as if its output had the shape that as gives.
func (a Algorithm) count(t *device.Tape, compute device.Compute, as func(op int, out tensor.Shape) tensor.Shape) map[string]int {
	counts := map[string]int{}
	for i, op := range t.Ops() {
		if o, ok := op.(*device.Conv2D); ok {
			c := *o
			c.Out.Shape = as(i, o.Out.Shape)
			counts[string(a.of(&c, t.Manifest(), compute))]++
		}
	}
	return counts
}

// winograd is the kernel for a convolution; not of Direct.
func (a Algorithm) winograd(o *device.Conv2D) kernel.Winograd {
	switch {
	case a == Winograd2:
		return kernel.F2
	case o.Upsample && o.Top%2 == 1 && o.Left%2 == 1 && o.CropBottom == 0 && o.CropRight == 0:
		return kernel.F4Up
	}
	return kernel.F4
}
