//go:build purego || !amd64

package kernel

func packPanel(dst, k []float32, stride, keys, d int) {
	packPanelGeneric(dst, k, stride, keys, 0, d)
}

func scores(dst *[ScoreElems]float32, rows *[AttentionRows]*float32, panels []float32, d int) {
	scoresGeneric(dst, rows, panels, d)
}

func weigh(scores *[ScoreElems]float32, n int, scale float32, state *Softmax) {
	weighGeneric(scores, n, scale, state)
}

func mix(sums []float32, weights *[ScoreElems]float32, values []float32, stride, keys, d int, shrink *[AttentionRows]float32) {
	mixGeneric(sums, weights, values, stride, keys, d, shrink)
}

func means(dst, sums []float32, stride, d, rows int, state *Softmax) {
	meansGeneric(dst, sums, stride, d, rows, state)
}
