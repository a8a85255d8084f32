package kernel

import (
	"math"
	"unsafe"
)

// multiplyPairsGeneric is Multiply for Pairs. It sums in float32, of a pair the later product first, as the instructions do.
func multiplyPairsGeneric(p *Product) {
	for r := range p.M {
		rows := p.Rows[r/TileRows*p.TileStep:][:p.Taps*TileRows]
		for n := range p.N {
			panel, out := p.Panels[n*p.Step:], p.Out[r*p.Stride+n*p.Apart:][:TileCols]
			var sums [TileCols]float32
			for t := r % TileRows; t < len(rows); t += TileRows {
				for _, x := range unsafe.Slice(rows[t], p.K) {
					x0, x1 := unpair(x)
					for c, w := range panel[:TileCols] {
						w0, w1 := unpair(w)
						sums[c] += x1 * w1
						sums[c] += x0 * w0
					}
					panel = panel[TileCols:]
				}
			}
			for c, sum := range sums {
				if p.Add {
					sum += out[c]
				}
				out[c] = sum
			}
		}
	}
}

func unpair(v float32) (lower, upper float32) {
	bits := math.Float32bits(v)
	return math.Float32frombits(bits << 16), math.Float32frombits(bits &^ 0xffff)
}

func pair(lower, upper float32) float32 {
	return math.Float32frombits(uint32(nearestBF16(lower)) | uint32(nearestBF16(upper))<<16)
}

// nearestBF16 is NarrowBF16 for all that an activation can be: denormal numbers are zero, and NaN stays NaN.
func nearestBF16(v float32) uint16 {
	bits := math.Float32bits(v)
	switch magnitude := bits & 0x7fffffff; {
	case magnitude < 0x00800000:
		return uint16(bits >> 16 & 0x8000)
	case magnitude > 0x7f800000:
		return uint16(bits>>16) | 0x40
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

func pairRowGeneric(dst, src []float32) {
	for i := range dst {
		upper := float32(0)
		if 2*i+1 < len(src) {
			upper = src[2*i+1]
		}
		dst[i] = pair(src[2*i], upper)
	}
}

func pairRowsGeneric(dst, src []float32, stride, rows int) {
	for i := range rows / 2 * TileCols {
		at := i/TileCols*2*stride + i%TileCols
		dst[i] = pair(src[at], src[at+stride])
	}
}

func pairNarrowGeneric(dst []float32, src []uint16, rows int) {
	for i := range rows / 2 * TileCols {
		at := i/TileCols*2*TileCols + i%TileCols
		dst[i] = math.Float32frombits(uint32(src[at]) | uint32(src[at+TileCols])<<16)
	}
}
