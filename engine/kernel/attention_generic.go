package kernel

import "math"

// packKeysGeneric begins with dimension from.
func packKeysGeneric(dst, k []float32, stride, last, from, d int, scale float32) {
	for i := range 8 {
		for e, v := range k[min(i, last)*stride:][from:d] {
			dst[(from+e)*TileCols+i] = v * scale
		}
	}
}

func scoresGeneric(dst *[ScoreElems]float32, rows *[AttentionRows]*float32, panels []float32, d int) {
	var tile [TileRows * TileCols]float32
	for p := range len(panels) / (d * TileCols) {
		tileGeneric(tile[:], rows[:], d, panels[p*d*TileCols:])
		for r := range AttentionRows {
			copy(dst[r*ScoreStride+p*TileCols:], tile[r*TileCols:][:TileCols])
		}
	}
}

func weighGeneric(scores *[ScoreElems]float32, n int, state *Softmax) {
	for r := range AttentionRows {
		row, before := scores[r*ScoreStride:][:n], state.Top[r]
		top := before
		for _, s := range row {
			if s > top {
				top = s
			}
		}
		shrink, mass := power2(before-top), &state.Mass[r]
		state.Top[r], state.Shrink[r] = top, shrink
		for i := range mass {
			mass[i] *= shrink
		}
		for i, s := range row {
			w := power2(s - top)
			row[i] = w
			mass[i%8] += w
		}
	}
}

// power2 is 2^x for x <= 0, within 2 units in the last place, and zero from -127 down: x = n + r with |r| <= 1/2, 2^r by a
// polynomial, our own minimax fit (power2_fit.py in _asm: 1.05 units), and n added to its exponent's bits. -127 gives the bits of zero; between -126 and -127 the result is some denormal.
func power2(x float32) float32 {
	const shifter = 0x1.8p23 // adding it rounds to an integer, left in the lowest bits
	if x < -127 {
		x = -127
	}
	t := x + shifter
	r := x - (t - shifter)
	p := float32(0.00132257250192)
	p = p*r + 0.00967177328973
	p = p*r + 0.055508915201
	p = p*r + 0.240222368787
	p = p*r + 0.693146829102
	p = p*r + 1
	return math.Float32frombits(math.Float32bits(p) + math.Float32bits(t)<<23)
}

// mixGeneric goes row by row and eight columns at a time: eight sums are what the compiler keeps in registers.
func mixGeneric(sums []float32, weights *[ScoreElems]float32, values []float32, stride, keys, d int, shrink *[AttentionRows]float32) {
	sumStride := MixStride(d)
	for r := range AttentionRows {
		for c := 0; c < d; c += 8 {
			sum := sums[r*sumStride+c:][:8]
			if shrink == nil {
				clear(sum)
			} else {
				scaleGeneric(sum, shrink[r])
			}
			w := weights[r*ScoreStride:][:keys]
			if d-c < 8 {
				for i, x := range w {
					axpyGeneric(sum, x, values[i*stride+c:][:d-c])
				}
				continue
			}
			s0, s1, s2, s3, s4, s5, s6, s7 := sum[0], sum[1], sum[2], sum[3], sum[4], sum[5], sum[6], sum[7]
			for i, x := range w {
				v := values[i*stride+c:][:8:8]
				s0 += x * v[0]
				s1 += x * v[1]
				s2 += x * v[2]
				s3 += x * v[3]
				s4 += x * v[4]
				s5 += x * v[5]
				s6 += x * v[6]
				s7 += x * v[7]
			}
			copy(sum, []float32{s0, s1, s2, s3, s4, s5, s6, s7})
		}
	}
}
