//go:build !purego

package kernel

import "unsafe"

//go:noescape
func packKeysAVX2(dst, k *float32, stride, last, d int)

//go:noescape
func scoresAVX2(dst *float32, rows **float32, panels *float32, d, count int)

//go:noescape
func weighAVX2(scores, top, mass, shrink *float32, n int, scale float32)

//go:noescape
func mixAVX2(sums, weights, values *float32, sumStride, stride, keys, d int, shrink *float32)

//go:noescape
func meansAVX2(dst, sums, mass *float32, stride, sumStride, d, rows int)

//go:noescape
func packPanelAVX512(dst, k *float32, stride, d int)

//go:noescape
func scoresAVX512(dst *float32, rows **float32, panels *float32, d, count int)

//go:noescape
func weighAVX512(scores, top, mass, shrink *float32, n int, scale float32)

//go:noescape
func mixAVX512(sums, weights, values *float32, sumStride, stride, keys, d int, shrink *float32)

//go:noescape
func meansAVX512(dst, sums, mass *float32, stride, sumStride, d, rows int)

// The dimensions beyond the last four are left to plain Go: networks have multiples of 4.
func packPanel(dst, k []float32, stride, keys, d int) {
	whole := 0
	if useAVX2 && d >= 4 {
		whole = d &^ 3
		if useAVX512 && keys == TileCols {
			packPanelAVX512(&dst[0], &k[0], stride, whole)
		} else {
			for i := 0; i < TileCols; i += 8 {
				first := min(i, keys-1)
				packKeysAVX2(&dst[i], &k[first*stride], stride, min(keys-1-first, 7), whole)
			}
		}
	}
	packPanelGeneric(dst, k, stride, keys, whole, d)
}

func scores(dst *[ScoreElems]float32, rows *[AttentionRows]*float32, panels []float32, d int) {
	count := len(panels) / (d * TileCols)
	switch {
	case useAVX512:
		scoresAVX512(&dst[0], &rows[0], &panels[0], d, count)
	case useAVX2:
		scoresAVX2(&dst[0], &rows[0], &panels[0], d, count)
	default:
		scoresGeneric(dst, rows, panels, d)
	}
}

func weigh(scores *[ScoreElems]float32, n int, scale float32, s *Softmax) {
	switch {
	case useAVX512:
		weighAVX512(&scores[0], &s.Top[0], &s.Mass[0][0], &s.Shrink[0], n, scale)
	case useAVX2:
		weighAVX2(&scores[0], &s.Top[0], &s.Mass[0][0], &s.Shrink[0], n, scale)
	default:
		weighGeneric(scores, n, scale, s)
	}
}

func mix(sums []float32, weights *[ScoreElems]float32, values []float32, stride, keys, d int, shrink *[AttentionRows]float32) {
	switch {
	case useAVX512:
		mixAVX512(&sums[0], &weights[0], &values[0], MixStride(d), stride, keys, d, (*float32)(unsafe.Pointer(shrink)))
	case useAVX2:
		mixAVX2(&sums[0], &weights[0], &values[0], MixStride(d), stride, keys, d, (*float32)(unsafe.Pointer(shrink)))
	default:
		mixGeneric(sums, weights, values, stride, keys, d, shrink)
	}
}

func means(dst, sums []float32, stride, d, rows int, state *Softmax) {
	switch {
	case useAVX512:
		meansAVX512(&dst[0], &sums[0], &state.Mass[0][0], stride, MixStride(d), d, rows)
	case useAVX2:
		meansAVX2(&dst[0], &sums[0], &state.Mass[0][0], stride, MixStride(d), d, rows)
	default:
		meansGeneric(dst, sums, stride, d, rows, state)
	}
}
