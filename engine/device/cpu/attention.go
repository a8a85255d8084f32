package cpu

import (
	"math"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/kernel"
)

// attention is a flash attention (Dao et al. 2022, arXiv 2205.14135): scores exist for one tile of
// queries and one block of keys at a time, and sums are rescaled when a larger score turns up.
// First K and V of every head are packed into panels; then a task is a block of queries of one
// head. Bound by the FMA units, and for heads narrower than 64 as much by the exponential.
type attention struct {
	op                   *device.Attention
	images, heads        int
	queries, keys        int
	channels, d          int // of a row of Q, of a head
	keyPanels, valPanels int // panels of keys and of a head's values

	kPack   []float32          // [images, heads, keyPanels, d, 16]
	vPack   []float32          // [images, heads, valPanels, keys, 16]
	scratch []attentionScratch // by thread
}

// attentionScratch is one thread's: the scores of a tile of queries, and for a block of queries
// what has been summed up, the largest scaled score and the sum of exponentials.
type attentionScratch struct {
	scores     []float32 // [TileRows, keyBlock]
	sums       []float32 // [queryBlock/TileRows, valPanels, TileRows, 16]
	tops, mass []float32 // [queryBlock]
	tile       *attentionTile
	rows       []*float32 // [TileRows] to queries, then [TileRows] to scores
}

type attentionTile = [kernel.TileRows * kernel.TileCols]float32

const (
	// keyBlock is the keys scored at a time: few rescalings, and scores in L1 with the panels in L2.
	keyBlock = 512
	// queryBlock is the queries of a task, which share the panels in L2.
	queryBlock = 8 * kernel.TileRows
)

func newAttention(o *device.Attention) *attention {
	a := &attention{
		op: o, images: o.Q.Shape[0], heads: o.Heads, queries: o.Q.Shape[1], keys: o.K.Shape[1],
		channels: o.Q.Shape[2], d: o.Q.Shape[2] / o.Heads,
	}
	a.keyPanels, a.valPanels = panels(a.keys), panels(a.d)
	return a
}

func (a *attention) carve(c *carver, threads int) {
	heads := a.images * a.heads
	a.kPack = take[float32](c, heads*a.keyPanels*a.d*kernel.TileCols)
	a.vPack = take[float32](c, heads*a.valPanels*a.keys*kernel.TileCols)
	a.scratch = make([]attentionScratch, threads)
	for i := range a.scratch {
		s := &a.scratch[i]
		s.scores = take[float32](c, kernel.TileRows*keyBlock)
		s.sums = take[float32](c, queryBlock*a.valPanels*kernel.TileCols)
		s.tops = take[float32](c, queryBlock)
		s.mass = take[float32](c, queryBlock)
		if tile := take[float32](c, len(attentionTile{})); tile != nil {
			s.tile = (*attentionTile)(tile)
		}
		s.rows = take[*float32](c, 2*kernel.TileRows)
	}
}

func (a *attention) bind(b *binding) []*job {
	q, k, v, out := b.floats(a.op.Q), b.floats(a.op.K), b.floats(a.op.V), b.floats(a.op.Out)
	keyBlocks, queryBlocks := ceilDiv(a.keys, keyBlock), ceilDiv(a.queries, queryBlock)
	return []*job{
		newJob(a.images*a.heads*keyBlocks, func(_, task int) {
			a.pack(k, v, task/keyBlocks, task%keyBlocks*keyBlock)
		}),
		newJob(a.images*a.heads*queryBlocks, func(thread, task int) {
			a.attend(&a.scratch[thread], q, out, task/queryBlocks, task%queryBlocks*queryBlock)
		}),
	}
}

// pack copies a block of keys and values of one head of one image into panels, with zeros behind the
// last key and value: what they give is not read, and denormals left there by another op would take
// long. Bound by the memory.
func (a *attention) pack(k, v []float32, head, first int) {
	const w = kernel.TileCols
	at := (head/a.heads*a.keys)*a.channels + head%a.heads*a.d // of the head in key 0
	kDst := a.kPack[head*a.keyPanels*a.d*w:]
	vDst := a.vPack[head*a.valPanels*a.keys*w:]
	last := min(first+keyBlock, a.keys)
	for key := first; key < last; key++ {
		panel := kDst[key/w*a.d*w+key%w:]
		for e, x := range k[at+key*a.channels:][:a.d] {
			panel[e*w] = x
		}
		for p := range a.valPanels {
			dst := vDst[(p*a.keys+key)*w:][:w]
			n := copy(dst, v[at+key*a.channels:][p*w:a.d])
			clear(dst[n:])
		}
	}
	for key := last; key < ceilDiv(last, w)*w; key++ {
		for e := range a.d {
			kDst[key/w*a.d*w+key%w+e*w] = 0
		}
	}
}

// attend computes a block of queries of one head of one image.
func (a *attention) attend(s *attentionScratch, q, out []float32, head, first int) {
	at := (head/a.heads*a.queries)*a.channels + head%a.heads*a.d // of the head in query 0
	rows := min(queryBlock, a.queries-first)
	for r := range kernel.TileRows {
		s.rows[kernel.TileRows+r] = &s.scores[r*keyBlock]
	}
	for r := range rows {
		s.tops[r], s.mass[r] = float32(math.Inf(-1)), 0
	}
	visible := a.keys
	if a.op.Causal {
		visible = min(a.keys, first+rows)
	}
	for key := 0; key < visible; key += keyBlock {
		keys := min(keyBlock, visible-key)
		for t := 0; t < rows; t += kernel.TileRows {
			m := min(kernel.TileRows, rows-t)
			for r := range kernel.TileRows {
				s.rows[r] = &q[at+(first+t+min(r, m-1))*a.channels]
			}
			a.score(s, head, key, keys, m)
			for r := range m {
				a.weigh(s, first+t+r, t+r, key, keys)
			}
			a.sum(s, head, key, keys, t, m)
		}
	}
	const w = kernel.TileCols
	for r := range rows {
		dst := out[at+(first+r)*a.channels:][:a.d]
		for p := range a.valPanels {
			copy(dst[p*w:], a.sums(s, r, p))
		}
		kernel.Scale(dst, 1/s.mass[r])
	}
}

// sums is what is summed up for row r of the block in value panel p.
func (a *attention) sums(s *attentionScratch, r, p int) []float32 {
	tile := r/kernel.TileRows*a.valPanels + p
	return s.sums[(tile*kernel.TileRows+r%kernel.TileRows)*kernel.TileCols:][:kernel.TileCols]
}

// score writes the products of m queries and a block of keys.
func (a *attention) score(s *attentionScratch, head, key, keys, m int) {
	const w = kernel.TileCols
	for p := range panels(keys) {
		panel := a.kPack[(head*a.keyPanels+key/w+p)*a.d*w:][:a.d*w]
		kernel.Tile(s.tile, s.rows[:kernel.TileRows], 1, a.d, panel, m)
		for r := range m {
			*(*[w]float32)(s.scores[r*keyBlock+p*w:]) = *(*[w]float32)(s.tile[r*w:])
		}
	}
}

// weigh turns the scores of a query into exponentials below its largest so far, and rescales what is
// summed up if that has grown. Scores the query may not see become zero.
func (a *attention) weigh(s *attentionScratch, query, r, key, keys int) {
	scores := s.scores[r%kernel.TileRows*keyBlock:][:keys]
	if a.op.Causal {
		seen := max(0, min(keys, query+1-key))
		clear(scores[seen:])
		if scores = scores[:seen]; seen == 0 {
			return
		}
	}
	scale := float32(1 / math.Sqrt(float64(a.d)))
	top := max(s.tops[r], scale*kernel.MaxRow(scores))
	if key > 0 && top > s.tops[r] {
		shrink := float32(math.Exp(float64(s.tops[r] - top)))
		s.mass[r] *= shrink
		for p := range a.valPanels {
			kernel.Scale(a.sums(s, r, p), shrink)
		}
	}
	s.tops[r] = top
	s.mass[r] += kernel.ExpRow(scores, scale, top)
}

// sum adds the values of a block of keys, weighed, to a tile of queries.
func (a *attention) sum(s *attentionScratch, head, key, keys, t, m int) {
	const w = kernel.TileCols
	for p := range a.valPanels {
		panel := a.vPack[((head*a.valPanels+p)*a.keys+key)*w:][:keys*w]
		kernel.Tile(s.tile, s.rows[kernel.TileRows:], 1, keys, panel, m)
		dst := s.sums[(t/kernel.TileRows*a.valPanels+p)*len(s.tile):][:m*w]
		if key == 0 {
			copy(dst, s.tile[:])
		} else {
			kernel.Add(dst, dst, s.tile[:])
		}
	}
}
