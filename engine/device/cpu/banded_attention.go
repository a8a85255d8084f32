package cpu

import (
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/kernel"
)

// bandedAttention is attention of a band of queries at a time to blocks of keys that are read and packed
// in turn, whose size does not depend on their number. Bound by the FMA units as attention is; the keys
// are packed once for each band.
type bandedAttention struct {
	*attention
	q, k, v, out grid

	band   []float32        // [queries, C]; the result takes the place of the queries
	stored []float32        // [keyBlock, C]: keys, to be packed, then values
	panels []float32        // [heads, keyBlock/16, d, 16]
	sums   []float32        // [heads, tiles, tileElems]
	states []kernel.Softmax // [heads, tiles]
	tiles  int              // of a band
	tile   []bandedTile     // by thread
}

// bandedTile is one thread's.
type bandedTile struct {
	scores *[kernel.ScoreElems]float32
	rows   *[kernel.AttentionRows]*float32 // to queries
}

func newBandedAttention(o *device.Attention) *bandedAttention {
	a := &bandedAttention{attention: newAttention(o, 1), q: tokensGrid(o.Q), k: tokensGrid(o.K), v: tokensGrid(o.V), out: tokensGrid(o.Out)}
	a.keyBlock = panels(min(a.keys, a.mostKeys())) * kernel.TileCols // whatever the keys divide into
	return a
}

func (a *bandedAttention) carve(c *carver, threads, side int) {
	queries := min(side*side, a.queries)
	a.tiles = ceilDiv(queries, kernel.AttentionRows)
	a.band = take[float32](c, queries*a.channels)
	a.stored = take[float32](c, a.keyBlock*a.channels)
	a.panels = take[float32](c, a.keyBlock*a.channels)
	a.sums = take[float32](c, a.heads*a.tiles*a.tileElems())
	a.states = take[kernel.Softmax](c, a.heads*a.tiles)
	a.tile = make([]bandedTile, threads)
	for i := range a.tile {
		scores, rows := take[float32](c, kernel.ScoreElems), take[*float32](c, kernel.AttentionRows)
		if c.mem != nil {
			a.tile[i] = bandedTile{(*[kernel.ScoreElems]float32)(scores), (*[kernel.AttentionRows]*float32)(rows)}
		}
	}
}

func (a *bandedAttention) scratchBytes(p *Planner, side int) (int64, error) {
	var c carver
	a.carve(&c, p.threads, side)
	return c.used, nil
}

func (a *bandedAttention) execute(x *execution, side int) error {
	a.carve(&carver{mem: x.arena.mem}, x.dev.threads, side)
	for image := range a.images {
		for first := 0; first < a.queries; first += side * side {
			if err := a.attend(x, window{image, 0, first, 1, min(side*side, a.queries-first)}); err != nil {
				return err
			}
		}
	}
	return nil
}

// attend computes a band of queries.
func (a *bandedAttention) attend(x *execution, w window) error {
	band := a.band[:w.w*a.channels]
	if err := x.read(a.q, w, band); err != nil {
		return err
	}
	tiles, visible := ceilDiv(w.w, kernel.AttentionRows), a.visible(w.x+w.w-1)
	for key := 0; key < visible; key += a.keyBlock {
		keys := min(a.keyBlock, visible-key)
		if err := a.readBlock(x, window{w.image, 0, key, 1, keys}); err != nil {
			return err
		}
		if err := x.do(newJob(a.heads*tiles, func(thread, task int) {
			a.block(&a.tile[thread], w, task/tiles, task%tiles, key, keys)
		})); err != nil {
			return err
		}
	}
	if err := x.do(newJob(a.heads*tiles, func(_, task int) { a.finish(w, task/tiles, task%tiles) })); err != nil {
		return err
	}
	return x.write(a.out, w, band)
}

// readBlock packs a block of keys for every head, and leaves its values in stored.
func (a *bandedAttention) readBlock(x *execution, w window) error {
	stored := a.stored[:w.w*a.channels]
	if err := x.read(a.k, w, stored); err != nil {
		return err
	}
	if err := x.do(newJob(a.heads, func(_, head int) {
		kernel.PackKeys(a.headPanels(head), stored[head*a.d:], a.channels, w.w, a.d)
	})); err != nil {
		return err
	}
	return x.read(a.v, w, stored)
}

func (a *bandedAttention) headPanels(head int) []float32 {
	return a.panels[head*a.keyBlock*a.d:][:a.keyBlock*a.d]
}

// block adds what a block of keys gives to a tile of queries of one head.
func (a *bandedAttention) block(s *bandedTile, w window, head, tile, key, keys int) {
	row := tile * kernel.AttentionRows
	keys = min(keys, a.visible(w.x+row+kernel.AttentionRows-1)-key)
	if keys <= 0 {
		return
	}
	for r := range s.rows { // the last tile is filled up with the last query
		s.rows[r] = &a.band[min(row+r, w.w-1)*a.channels+head*a.d]
	}
	kernel.Scores(s.scores, s.rows, a.headPanels(head), a.d, keys)
	if a.op.Causal {
		mask(s.scores, w.x+row-key, keys)
	}
	state := &a.states[head*a.tiles+tile]
	shrink := &state.Shrink
	if key == 0 {
		state.Reset()
		shrink = nil
	}
	kernel.Weigh(s.scores, keys, a.scale, state)
	kernel.Mix(a.tileSums(head, tile), s.scores, a.stored[head*a.d:], a.channels, keys, a.d, shrink)
}

// finish writes a tile's weighed means where its queries were.
func (a *bandedAttention) finish(w window, head, tile int) {
	first := tile * kernel.AttentionRows
	for r := range min(kernel.AttentionRows, w.w-first) {
		dst := a.band[(first+r)*a.channels+head*a.d:][:a.d]
		copy(dst, a.tileSums(head, tile)[r*kernel.MixStride(a.d):])
		kernel.Scale(dst, 1/a.states[head*a.tiles+tile].Sum(r))
	}
}

// tileSums is what is summed up for a tile of queries of one head.
func (a *bandedAttention) tileSums(head, tile int) []float32 {
	return a.sums[(head*a.tiles+tile)*a.tileElems():][:a.tileElems()]
}
