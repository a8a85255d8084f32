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

// The dimensions beyond the last four are left to plain Go: networks have multiples of 4.
func packKeys(dst, k []float32, stride, last, d int) {
	whole := 0
	if useAVX2 && d >= 4 {
		whole = d &^ 3
		packKeysAVX2(&dst[0], &k[0], stride, last, whole)
	}
	packKeysGeneric(dst, k, stride, last, whole, d)
}

func scores(dst *[ScoreElems]float32, rows *[AttentionRows]*float32, panels []float32, d int) {
	if useAVX2 {
		scoresAVX2(&dst[0], &rows[0], &panels[0], d, len(panels)/(d*TileCols))
	} else {
		scoresGeneric(dst, rows, panels, d)
	}
}

func weigh(scores *[ScoreElems]float32, n int, scale float32, s *Softmax) {
	if useAVX2 {
		weighAVX2(&scores[0], &s.Top[0], &s.Mass[0][0], &s.Shrink[0], n, scale)
	} else {
		weighGeneric(scores, n, scale, s)
	}
}

func mix(sums []float32, weights *[ScoreElems]float32, values []float32, stride, keys, d int, shrink *[AttentionRows]float32) {
	if useAVX2 {
		mixAVX2(&sums[0], &weights[0], &values[0], MixStride(d), stride, keys, d, (*float32)(unsafe.Pointer(shrink)))
	} else {
		mixGeneric(sums, weights, values, stride, keys, d, shrink)
	}
}

func means(dst, sums []float32, stride, d, rows int, state *Softmax) {
	if useAVX2 {
		meansAVX2(&dst[0], &sums[0], &state.Mass[0][0], stride, MixStride(d), d, rows)
	} else {
		meansGeneric(dst, sums, stride, d, rows, state)
	}
}
