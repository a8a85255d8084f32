package kernel

// packPanelGeneric begins with dimension from.
func packPanelGeneric(dst, k []float32, stride, keys, from, d int) {
	for i := range TileCols {
		for e, v := range k[min(i, keys-1)*stride:][from:d] {
			dst[(from+e)*TileCols+i] = v
		}
	}
}

func scoresGeneric(dst *[ScoreElems]float32, rows *[AttentionRows]*float32, panels []float32, d int) {
	multiplyGeneric(&Product{
		Out: dst[:], Stride: ScoreStride, Apart: TileCols, Rows: rows[:], Taps: 1, K: d,
		Panels: panels, Step: d * TileCols, M: AttentionRows, N: len(panels) / (d * TileCols),
	})
}

func weighGeneric(scores *[ScoreElems]float32, n int, scale float32, state *Softmax) {
	for r := range AttentionRows {
		row, before := scores[r*ScoreStride:][:n], state.Top[r]
		top := before
		for _, s := range row {
			if s > top {
				top = s
			}
		}
		shrink, mass := weightOf((before-top)*scale), &state.Mass[r]
		state.Top[r], state.Shrink[r] = top, shrink
		for i := range mass {
			mass[i] *= shrink
		}
		for i, s := range row {
			w := weightOf((s - top) * scale)
			row[i] = w
			mass[i%8] += w
		}
	}
}

// weightOf is 2^x for x <= 0.
func weightOf(x float32) float32 {
	if x < -127 {
		x = -127
	}
	return power2(x)
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

func meansGeneric(dst, sums []float32, stride, d, rows int, state *Softmax) {
	for r := range rows {
		row, inverse := dst[r*stride:][:d], 1/state.Sum(r)
		for c, v := range sums[r*MixStride(d):][:d] {
			row[c] = v * inverse
		}
	}
}
