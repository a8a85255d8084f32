package cpu

import (
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/kernel"
)

// pairedAttention is attention whose two products have factors of bfloat16: queries and keys, and weights below the largest
// score so far and values. The softmax and its sums are float32, of weights that are not rounded.
type pairedAttention struct {
	*attention
	scratch []pairedScratch // by thread
}

// pairedScratch is one thread's. All but key and edge are pairs.
type pairedScratch struct {
	queries []float32 // of a block, [queryBlock, pairs of d]
	key     []float32 // a panel of keys, [d, TileCols]
	keys    []float32 // panels of a block, [keyBlock/TileCols, pairs of d, TileCols]
	edge    []float32 // values of the last columns of a head, if they fill no panel, [keyBlock, TileCols]
	values  []float32 // panels of a block, [columns/TileCols, pairs of keyBlock, TileCols]
	scores  *[kernel.ScoreElems]float32
	weights []float32        // of a tile, [AttentionRows, weightStride]
	sums    []float32        // of a block of queries, [tiles, AttentionRows, columns]
	states  []kernel.Softmax // by tile
	rows    []*float32       // to queries, or to weights
}

// weightStride is the floats from one row of weights to the next.
const weightStride = kernel.ScoreStride / 2

func newPairedAttention(o *device.Attention, threads int) *pairedAttention {
	return &pairedAttention{attention: newAttention(o, threads)}
}

// columns are those of a head, in whole panels.
func (a *pairedAttention) columns() int { return panels(a.d) * kernel.TileCols }

func (a *pairedAttention) carve(c *carver, threads int) {
	tiles := a.queryBlock / kernel.AttentionRows
	a.scratch = make([]pairedScratch, threads)
	for i := range a.scratch {
		s := &a.scratch[i]
		s.queries = take[float32](c, a.queryBlock*kernel.Pairs(a.d))
		s.key = take[float32](c, a.d*kernel.TileCols)
		s.keys = take[float32](c, a.keyBlock*kernel.Pairs(a.d))
		if a.d%kernel.TileCols > 0 {
			s.edge = take[float32](c, a.keyBlock*kernel.TileCols)
		}
		s.values = take[float32](c, a.columns()*kernel.Pairs(a.keyBlock))
		scores := take[float32](c, kernel.ScoreElems)
		s.weights = take[float32](c, kernel.AttentionRows*weightStride)
		s.sums = take[float32](c, a.queryBlock*a.columns())
		s.states = take[kernel.Softmax](c, tiles)
		s.rows = take[*float32](c, kernel.AttentionRows)
		if c.mem != nil {
			s.scores = (*[kernel.ScoreElems]float32)(scores)
		}
	}
}

func (a *pairedAttention) bind(b *binding) []*job {
	q, k, v, out := b.floats(a.op.Q), b.floats(a.op.K), b.floats(a.op.V), b.floats(a.op.Out)
	return []*job{newJob(a.tasks(), func(thread, task int) {
		image, first, h := a.task(task)
		s, atQuery := &a.scratch[thread], (image*a.queries+first)*a.channels+h*a.d
		atKey := image*a.keys*a.channels + h*a.d
		a.attend(s, q[atQuery:], k[atKey:], v[atKey:], first)
		for rows, row := min(a.queryBlock, a.queries-first), 0; row < rows; row += kernel.AttentionRows {
			sums := s.sums[row*a.columns():][:kernel.AttentionRows*a.columns()]
			for r := 1; r < kernel.AttentionRows; r++ { // as Means takes them
				copy(sums[r*kernel.MixStride(a.d):], sums[r*a.columns():][:a.d])
			}
			kernel.Means(out[atQuery+row*a.channels:], sums, a.channels, a.d, min(kernel.AttentionRows, rows-row), &s.states[row/kernel.AttentionRows])
		}
	})}
}

// attend leaves the sums and states of a block of queries in s, as attention's does.
func (a *pairedAttention) attend(s *pairedScratch, q, k, v []float32, first int) {
	rows, width := min(a.queryBlock, a.queries-first), kernel.Pairs(a.d)
	tiles := ceilDiv(rows, kernel.AttentionRows)
	for t := range tiles {
		s.states[t].Reset()
	}
	for r := range rows {
		kernel.PairRow(s.queries[r*width:], q[r*a.channels:][:a.d])
	}
	for key := 0; key < a.visible(first+rows-1); key += a.keyBlock {
		block := min(a.keyBlock, a.visible(first+rows-1)-key)
		a.pack(s, k[key*a.channels:], v[key*a.channels:], block)
		for t := range tiles {
			row := t * kernel.AttentionRows
			keys := min(block, a.visible(first+row+kernel.AttentionRows-1)-key)
			if keys <= 0 {
				continue
			}
			pointRows(s.rows, s.queries[row*width:], min(kernel.AttentionRows, rows-row), width)
			kernel.Multiply(&kernel.Product{
				Out: s.scores[:], Stride: kernel.ScoreStride, Apart: kernel.TileCols, Rows: s.rows, Taps: 1, K: width,
				Panels: s.keys, Step: width * kernel.TileCols, M: kernel.AttentionRows, N: panels(keys), Pairs: true,
			})
			if a.op.Causal {
				mask(s.scores, first+row-key, keys)
			}
			kernel.Weigh(s.scores, keys, a.scale, &s.states[t])
			a.mix(s, t, block, keys, key == 0)
		}
	}
}

// pack makes panels of a block of keys and their values.
func (a *pairedAttention) pack(s *pairedScratch, k, v []float32, keys int) {
	width := kernel.Pairs(a.d)
	for i := 0; i < keys; i += kernel.TileCols {
		kernel.PackKeys(s.key, k[i*a.channels:], a.channels, min(kernel.TileCols, keys-i), a.d)
		kernel.PairPanel(s.keys[i*width:], s.key, kernel.TileCols, a.d)
	}
	for c := 0; c < a.d; c += kernel.TileCols {
		values, stride := v[c:], a.channels
		if n := a.d - c; n < kernel.TileCols {
			for i := range keys {
				clear(s.edge[i*kernel.TileCols+n : (i+1)*kernel.TileCols])
				copy(s.edge[i*kernel.TileCols:], v[i*a.channels+c:][:n])
			}
			values, stride = s.edge, kernel.TileCols
		}
		kernel.PairPanel(s.values[c*kernel.Pairs(keys):], values, stride, keys)
	}
}

// mix adds the values of the first keys of a block, weighed, to the sums of a tile.
func (a *pairedAttention) mix(s *pairedScratch, tile, block, keys int, first bool) {
	sums := s.sums[tile*kernel.AttentionRows*a.columns():]
	for r := range kernel.AttentionRows {
		kernel.PairRow(s.weights[r*weightStride:], s.scores[r*kernel.ScoreStride:][:keys])
		if !first {
			kernel.Scale(sums[r*a.columns():][:a.columns()], s.states[tile].Shrink[r])
		}
	}
	pointRows(s.rows, s.weights, kernel.AttentionRows, weightStride)
	kernel.Multiply(&kernel.Product{
		Out: sums, Stride: a.columns(), Apart: kernel.TileCols, Rows: s.rows, Taps: 1, K: kernel.Pairs(keys),
		Panels: s.values, Step: kernel.Pairs(block) * kernel.TileCols, M: kernel.AttentionRows, N: panels(a.d), Add: !first, Pairs: true,
	})
}
