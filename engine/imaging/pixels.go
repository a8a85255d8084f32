// Package imaging turns the pixels of tensors into image files and back.
//
// Pixels are float32, [height, width, 3], red, green, blue, in -1 to 1. Values are rounded exactly
// as diffusers rounds them, so that the same tensor gives the same file contents.
//
// The package imports nothing of this project but what is below it and internal/exif.
package imaging

import (
	"fmt"
	"image"
	"math"
)

// FromFloats makes an opaque image of pixels [height, width, 3] in about -1 to 1: black at -1 and
// below, white at 1 and above, halves rounded to even. NaN is black. It panics when the number of
// pixels disagrees with the size, which is a programming error.
func FromFloats(pixels []float32, height, width int) *image.RGBA {
	if height < 0 || width < 0 || (width > 0 && height > math.MaxInt/3/width) || len(pixels) != 3*height*width {
		panic(fmt.Sprintf("imaging: %d values for %d x %d pixels of 3", len(pixels), height, width))
	}
	img := image.NewRGBA(image.Rect(0, 0, width, height))
	for i, out := 0, img.Pix; i < len(pixels); i, out = i+3, out[4:] {
		for c := range 3 {
			out[c] = quantize(pixels[i+c]/2 + 0.5) // halving is exact, so a fused multiply-add changes nothing
		}
		out[3] = 0xff
	}
	return img
}

// quantize maps 0..1 to 0..255 as numpy's (x*255).round() does in float32.
func quantize(x float32) uint8 {
	if !(x > 0) { // NaN too
		return 0
	}
	return uint8(math.RoundToEven(float64(min(x, 1) * 255)))
}

// Floats are the pixels [Height, Width, 3] in -1 to 1: the inverse of FromFloats.
func (p Pixels) Floats() []float32 {
	return p.Normalized([3]float32{0.5, 0.5, 0.5}, [3]float32{0.5, 0.5, 0.5})
}

// Unit are the pixels [Height, Width, 3] in 0 to 1.
func (p Pixels) Unit() []float32 { return p.Normalized([3]float32{}, [3]float32{1, 1, 1}) }

// Normalized are the pixels [Height, Width, 3], of values v in 0 to 1, as (v - mean) / std of each channel.
func (p Pixels) Normalized(mean, std [3]float32) []float32 {
	var level [3][256]float32
	for c := range level {
		for v := range level[c] {
			level[c][v] = (float32(v)/255 - mean[c]) / std[c]
		}
	}
	out := make([]float32, 0, 3*p.Height*p.Width)
	for y := range p.Height {
		for row := p.pix[y*p.stride:][:4*p.Width]; len(row) > 0; row = row[4:] {
			out = append(out, level[0][row[0]], level[1][row[1]], level[2][row[2]])
		}
	}
	return out
}

// Grey is the luma of a pixel (ITU-R BT.601), as PIL's convert("L") rounds it.
func (p Pixels) Grey(x, y int) uint8 {
	c := p.pix[y*p.stride+4*x:][:3]
	return uint8((19595*uint32(c[0]) + 38470*uint32(c[1]) + 7471*uint32(c[2]) + 1<<15) >> 16)
}
