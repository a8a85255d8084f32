package imaging

import "math"

// lanczosLobes is the radius of the filter, in pixels of the smaller image.
const lanczosLobes = 3

// weightBits is the precision of weights, which are integers: 8 bits of a value and 2 of overshoot leave so many.
const weightBits = 32 - 8 - 2

// Resize is the image in another size, by Lanczos' filter to the bit as PIL's resize does it: along rows and then along
// columns, with integer weights, and values rounded to 8 bits between. One of the size that it has is itself.
func (p Pixels) Resize(width, height int) Pixels {
	if width != p.Width {
		out := Pixels{Width: width, Height: p.Height, pix: make([]uint8, 4*width*p.Height), stride: 4 * width}
		for x, t := range lanczos(p.Width, width) {
			for y := range p.Height {
				t.sum(out.pix[y*out.stride+4*x:], p.pix[y*p.stride+4*t.first:], 4)
			}
		}
		p = out
	}
	if height != p.Height {
		out := Pixels{Width: p.Width, Height: height, pix: make([]uint8, 4*p.Width*height), stride: 4 * p.Width}
		for y, t := range lanczos(p.Height, height) {
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

// lanczos are the taps of every pixel of a line of n made of one of old.
func lanczos(old, n int) []taps {
	scale := float64(old) / float64(n)
	widened := max(scale, 1)
	support := lanczosLobes * widened
	out := make([]taps, n)
	for i := range out {
		centre := float64((float64(i) + 0.5) * scale) // not fused with what follows
		first, end := max(int(centre-support+0.5), 0), min(int(centre+support+0.5), old)
		weights, sum := make([]float64, end-first), 0.0
		for j := range weights {
			weights[j] = lobe((float64(j+first) - centre + 0.5) / widened)
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
