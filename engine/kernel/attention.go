package kernel

import "math"

// The inner kernels of a flash attention (Dao et al. 2022, arXiv 2205.14135) for one tile of queries and one block of keys:
// Scores with keys that PackKeys packed, Weigh, which turns scores into weights and says how far earlier sums shrink, Mix,
// which shrinks the sums and adds the values, weighed; and Means behind the last block.
const (
	// AttentionRows is the queries of a tile, as in Multiply.
	AttentionRows = TileRows
	// MaxKeys is the most keys of a block.
	MaxKeys = 512
	// ScoreStride is the floats from one row of scores to the next; with a power of two the rows would meet in
	// the same sets of L1.
	ScoreStride = MaxKeys + TileCols
	// ScoreElems is the size of a tile of scores.
	ScoreElems = AttentionRows * ScoreStride
)

// Softmax is what is known of a tile of queries behind some blocks of keys.
type Softmax struct {
	Top    [AttentionRows]float32    // the largest score
	Mass   [AttentionRows][8]float32 // the sum of 2^(scale*(score-Top)), by key modulo 8
	Shrink [AttentionRows]float32    // 2^(scale*(Top before the last block - Top))
}

// Reset is the state before the first key.
func (s *Softmax) Reset() {
	*s = Softmax{}
	for r := range s.Top {
		s.Top[r] = float32(math.Inf(-1))
	}
}

// Sum is the sum of all weights of row r.
func (s *Softmax) Sum(r int) float32 {
	m := &s.Mass[r]
	return ((m[0] + m[4]) + (m[2] + m[6])) + ((m[1] + m[5]) + (m[3] + m[7]))
}

// PackKeys writes keys of d floats each, stride floats apart, to panels of TileCols keys:
//
//	dst[(i/TileCols*d + e)*TileCols + i%TileCols] = k[i*stride+e]
//
// The last panel is filled up with the last key.
// What bounds it: the memory read, and the shuffles of a transposition, some 7 cycles for 8 elements; in AVX-512, 20 for 64.
func PackKeys(dst, k []float32, stride, keys, d int) {
	for i := 0; i < keys; i += TileCols {
		n := min(keys-i, TileCols)
		packPanel(dst[i*d:][:d*TileCols], k[i*stride:][:(n-1)*stride+d], stride, n, d)
	}
}

// Scores writes the products of AttentionRows queries with so many keys, up to MaxKeys, of panels [ceil(keys/TileCols), d,
// TileCols] to dst [AttentionRows, ScoreStride]; those with the rest of the last panel stand behind them. rows points to
// at least d floats each.
// What bounds it: the FMA units, as in Multiply. With AVX-512 those of an Emerald Rapids are busy to 98 % and more, with up to 5
// panels to 85 to 95 %.
func Scores(dst *[ScoreElems]float32, rows *[AttentionRows]*float32, panels []float32, d, keys int) {
	count := (keys + TileCols - 1) / TileCols
	if keys > MaxKeys || keys < 1 || d < 1 {
		panic("kernel: scores: number of keys or dimensions")
	}
	scores(dst, rows, panels[:count*d*TileCols], d)
}

// Weigh replaces the scores of a block of keys by their weights below the largest score so far, 2^(scale*(score-Top)), and
// keeps the state: a softmax to base e has a log2(e) in its scale. The difference is taken before the product, which so
// rounds little where weights are large. Weights below 2^-127 are zero, so that
// masked scores (minus infinity) weigh nothing; the first block must hold a score of every row that is not masked. Up
// to 15 floats behind a row's last score are overwritten. NaN weighs NaN.
// What bounds it: 14 operations and a store for 8 scores, and one more for the maximum; 15 cycles on a Zen 1, and not memory. Its ports
// allow 11 and 1 if no operation waits for another: a multiply-add borrows a port from the adders, and a shift or a
// store takes the other one for 2 cycles. Neither fewer loads nor a shorter polynomial tree, six rows at once or
// other orders came below 15. With AVX-512 12 operations for 16 scores take 6 cycles on the two ports of an Emerald Rapids, which is
// what they allow.
func Weigh(scores *[ScoreElems]float32, keys int, scale float32, state *Softmax) {
	if keys > MaxKeys || keys < 1 {
		panic("kernel: weigh: number of keys")
	}
	n := (keys + TileCols - 1) / TileCols * TileCols
	for r := range AttentionRows {
		for i := keys; i < n; i++ {
			scores[r*ScoreStride+i] = float32(math.Inf(-1))
		}
	}
	weigh(scores, n, scale, state)
}

// Mix adds so many rows of values, d floats each and stride floats apart, to the sums [AttentionRows, d rounded up to 8]
// of a tile of queries, with weights as Weigh leaves them. What sums held counts shrink[row] times; with no shrink it is not read.
//
//	sums[r][c] = sums[r][c]*shrink[r] + sum over i < keys of weights[r][i] * values[i*stride+c]
//
// What bounds it: the FMA units, as in Multiply; the last 8 columns where d is an odd multiple of 8 reach half of that where there are two
// of 256 bits. AVX-512 keeps them busy to 96 % and more, to 90 % with such a d, whose 8 columns it sums by even and by odd keys: the last
// ones, or the first ones if stride is a multiple of 16 and values begin in the middle of a cache line, so that no vector lies in
// two. With 75 % the loads of those would be the bound.
func Mix(sums []float32, weights *[ScoreElems]float32, values []float32, stride, keys, d int, shrink *[AttentionRows]float32) {
	if keys > MaxKeys || keys < 1 || d < 1 {
		panic("kernel: mix: number of keys or columns")
	}
	mix(sums[:AttentionRows*MixStride(d)], weights, values[:(keys-1)*stride+d], stride, keys, d, shrink)
}

// MixStride is the floats from one row of Mix's sums to the next.
func MixStride(d int) int { return (d + 7) &^ 7 }

// Means writes the weighed means of the tile's first rows, dst[r*stride+c] = sums[r][c] / state.Sum(r).
// What bounds it: the latency of a division for each row.
func Means(dst, sums []float32, stride, d, rows int, state *Softmax) {
	if rows < 1 || rows > AttentionRows || d < 1 {
		panic("kernel: means: number of rows or columns")
	}
	means(dst[:(rows-1)*stride+d], sums[:(rows-1)*MixStride(d)+d], stride, d, rows, state)
}
