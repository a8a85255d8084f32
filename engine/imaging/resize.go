package imaging

import "math"

// filter weighs pixels by their distance from the new one, in pixels of the smaller image.
type filter struct {
	radius float64
	weight func(x float64) float64
}

// lanczosLobes is the radius of Lanczos' filter.
const lanczosLobes = 3

// weightBits is the precision of weights, which are integers: 8 bits of a value and 2 of overshoot leave so many.
const weightBits = 32 - 8 - 2

// Resize is the image in another size, by Lanczos' filter to the bit as PIL's resize does it: along rows and then along
// columns, with integer weights, and values rounded to 8 bits between. One of the size that it has is itself.
func (p Pixels) Resize(width, height int) Pixels {
	return p.resize(width, height, filter{lanczosLobes, lobe})
}

// Bicubic is Resize by a cubic filter (Keys 1981, with a = -1/2), to the bit as PIL's.
func (p Pixels) Bicubic(width, height int) Pixels { return p.resize(width, height, filter{2, cubic}) }

// Crop is the part of an image whose first pixel is x, y and which lies within it.
func (p Pixels) Crop(x, y, width, height int) Pixels {
	return Pixels{Width: width, Height: height, pix: p.pix[y*p.stride+4*x:], stride: p.stride}
}

func (p Pixels) resize(width, height int, f filter) Pixels {
	if width != p.Width {
		out := Pixels{Width: width, Height: p.Height, pix: make([]uint8, 4*width*p.Height), stride: 4 * width}
		for x, t := range f.taps(p.Width, width) {
			for y := range p.Height {
				t.sum(out.pix[y*out.stride+4*x:], p.pix[y*p.stride+4*t.first:], 4)
			}
		}
		p = out
	}
	if height != p.Height {
		out := Pixels{Width: p.Width, Height: height, pix: make([]uint8, 4*p.Width*height), stride: 4 * p.Width}
		for y, t := range f.taps(p.Height, height) {
			for x := range p.Width {
				t.sum(out.pix[y*out.stride+4*x:], p.pix[t.first*p.stride+4*x:], p.stride)
			}
		}
		p = out
	}
	return p
}

// taps are the weights of the pixels, from the first, that make one.
type taps struct {
	first   int
	weights []int
}

// sum writes a colour of the pixels that lie a stride apart.
func (t taps) sum(dst, src []uint8, stride int) {
	for c := range 3 {
		v := 1 << (weightBits - 1)
		for i, w := range t.weights {
			v += w * int(src[i*stride+c])
		}
		dst[c] = uint8(min(max(v>>weightBits, 0), 255))
	}
}

// taps are those of every pixel of a line of n made of one of old.
func (f filter) taps(old, n int) []taps {
	scale := float64(old) / float64(n)
	widened := max(scale, 1)
	support := f.radius * widened
	out := make([]taps, n)
	for i := range out {
		centre := float64((float64(i) + 0.5) * scale) // not fused with what follows
		first, end := max(int(centre-support+0.5), 0), min(int(centre+support+0.5), old)
		weights, sum := make([]float64, end-first), 0.0
		for j := range weights {
			weights[j] = f.weight((float64(j+first) - centre + 0.5) / widened)
			sum += weights[j]
		}
		out[i] = taps{first: first, weights: make([]int, len(weights))}
		for j, w := range weights {
			out[i].weights[j] = int(math.Round(w / sum * (1 << weightBits)))
		}
	}
	return out
}

// lobe is sinc(x) within the window sinc(x/3).
func lobe(x float64) float64 {
	sinc := func(x float64) float64 {
		if x == 0 {
			return 1
		}
		return math.Sin(math.Pi*x) / (math.Pi * x)
	}
	if x < -lanczosLobes || x >= lanczosLobes {
		return 0
	}
	return sinc(x) * sinc(x/lanczosLobes)
}

// cubic is the kernel of bicubic interpolation.
func cubic(x float64) float64 {
	const a = -0.5
	switch x = math.Abs(x); {
	case x < 1:
		return ((a+2)*x-(a+3))*x*x + 1
	case x < 2:
		return (((x-5)*x+8)*x - 4) * a
	}
	return 0
}
