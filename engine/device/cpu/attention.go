package cpu

import (
	"math"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/kernel"
)

// attention is a flash attention (Dao et al. 2022, arXiv 2205.14135): scores exist for one tile of queries and one block
// of keys at a time, and sums shrink when a larger score turns up. A task is a block of queries of one head; it packs a
// block of keys for itself, which costs little as its queries are many, and needs no other memory that grows with the
// tokens. Bound by the FMA units, and by the exponential where heads are narrow: a score costs d/4 vector
// multiply-adds of 8 lanes and an eighth of a vector's exponential, which takes 15 cycles on a Zen 1. With AVX-512 an Emerald Rapids
// reaches 79 % of the FMA peak with heads of 40, 88 % with 64 and 80, 93 % with 512: the exponential of 16 lanes takes 6 cycles.
type attention struct {
	op            *device.Attention
	images, heads int
	queries, keys int
	channels, d   int // of a row of Q, of a head
	keyBlock      int // whole panels
	queryBlock    int // whole tiles
	scale         float32

	scratch []attentionScratch // by thread
}

// attentionScratch is one thread's.
type attentionScratch struct {
	panels []float32                       // a block of keys
	scores *[kernel.ScoreElems]float32     // of a tile
	sums   []float32                       // of a block of queries, by tile
	states []kernel.Softmax                // by tile
	rows   *[kernel.AttentionRows]*float32 // to queries
}

const (
	// blockElems bounds a block's keys and values, which all tiles of a task read from L2: half of 512 KiB and a bit.
	blockElems = 80 << 10
	// maxQueryBlock is the queries that share the packing of a block of keys, which then costs 1 % of their products.
	maxQueryBlock = 64 * kernel.AttentionRows
	// minQueryBlock is where packing costs so much that more tasks for the threads do not pay.
	minQueryBlock = 8 * kernel.AttentionRows
)

func newAttention(o *device.Attention, threads int) *attention {
	a := &attention{
		op: o, images: o.Q.Shape[0], heads: o.Heads, queries: o.Q.Shape[1], keys: o.K.Shape[1],
		channels: o.Q.Shape[2], d: o.Q.Shape[2] / o.Heads,
	}
	a.scale = float32(math.Log2E / math.Sqrt(float64(a.d)))
	// The blocks of keys decide on roundings, so they must not depend on the threads; those of queries may.
	a.keyBlock = panels(ceilDiv(a.keys, ceilDiv(a.keys, a.mostKeys()))) * kernel.TileCols
	a.queryBlock = min(maxQueryBlock, ceilDiv(a.queries, kernel.AttentionRows)*kernel.AttentionRows)
	for a.queryBlock >= 2*minQueryBlock && a.tasks() < tasksPerThread*threads {
		a.queryBlock = ceilDiv(a.queryBlock/2, kernel.AttentionRows) * kernel.AttentionRows
	}
	return a
}

// mostKeys bounds a block of keys.
func (a *attention) mostKeys() int {
	return max(kernel.TileCols, min(kernel.MaxKeys, blockElems/(2*a.d)))
}

func (a *attention) tasks() int { return a.images * a.heads * ceilDiv(a.queries, a.queryBlock) }

func (a *attention) carve(c *carver, threads int) {
	tiles := a.queryBlock / kernel.AttentionRows
	a.scratch = make([]attentionScratch, threads)
	for i := range a.scratch {
		s := &a.scratch[i]
		s.panels = take[float32](c, a.keyBlock*a.d)
		s.sums = take[float32](c, tiles*a.tileElems())
		s.states = take[kernel.Softmax](c, tiles)
		scores, rows := take[float32](c, kernel.ScoreElems), take[*float32](c, kernel.AttentionRows)
		if c.mem != nil {
			s.scores, s.rows = (*[kernel.ScoreElems]float32)(scores), (*[kernel.AttentionRows]*float32)(rows)
		}
	}
}

// tileElems is the size of a tile's sums.
func (a *attention) tileElems() int { return kernel.AttentionRows * kernel.MixStride(a.d) }

func (a *attention) bind(b *binding) []*job {
	q, k, v, out := b.floats(a.op.Q), b.floats(a.op.K), b.floats(a.op.V), b.floats(a.op.Out)
	return []*job{newJob(a.tasks(), func(thread, task int) {
		image, first, h := a.task(task)
		s, atQuery := &a.scratch[thread], (image*a.queries+first)*a.channels+h*a.d
		atKey := image*a.keys*a.channels + h*a.d
		a.attend(s, q[atQuery:], k[atKey:], v[atKey:], first)
		for rows, row := min(a.queryBlock, a.queries-first), 0; row < rows; row += kernel.AttentionRows {
			t := row / kernel.AttentionRows
			kernel.Means(out[atQuery+row*a.channels:], s.sums[t*a.tileElems():], a.channels, a.d, min(kernel.AttentionRows, rows-row), &s.states[t])
		}
	})}
}

// task tells the image, the first query and the head of a task. The heads of a block of queries follow each other: their
// parts of a row share cache lines.
func (a *attention) task(n int) (image, first, head int) {
	blocks := ceilDiv(a.queries, a.queryBlock)
	return n / (blocks * a.heads), n / a.heads % blocks * a.queryBlock, n % a.heads
}

// attend leaves the sums and states of a block of queries in s. The slices begin with the head's part of the
// block's first query, first, and of key 0.
func (a *attention) attend(s *attentionScratch, q, k, v []float32, first int) {
	rows := min(a.queryBlock, a.queries-first)
	tiles := ceilDiv(rows, kernel.AttentionRows)
	for t := range tiles {
		s.states[t].Reset()
	}
	for key := 0; key < a.visible(first+rows-1); key += a.keyBlock {
		keys := min(a.keyBlock, a.visible(first+rows-1)-key)
		kernel.PackKeys(s.panels, k[key*a.channels:], a.channels, keys, a.d)
		for t := range tiles {
			row := t * kernel.AttentionRows
			keys := min(keys, a.visible(first+row+kernel.AttentionRows-1)-key)
			if keys <= 0 {
				continue
			}
			for r := range s.rows { // the last tile is filled up with the last query
				s.rows[r] = &q[min(row+r, rows-1)*a.channels]
			}
			kernel.Scores(s.scores, s.rows, s.panels, a.d, keys)
			if a.op.Causal {
				mask(s.scores, first+row-key, keys)
			}
			state, shrink := &s.states[t], &s.states[t].Shrink
			kernel.Weigh(s.scores, keys, a.scale, state)
			if key == 0 {
				shrink = nil
			}
			kernel.Mix(s.sums[t*a.tileElems():], s.scores, v[key*a.channels:], a.channels, keys, a.d, shrink)
		}
	}
}

// visible is how many keys the query may see.
func (a *attention) visible(query int) int {
	if a.op.Causal {
		return min(a.keys, query+1)
	}
	return a.keys
}

// mask takes the scores of later keys from a tile whose first query stands at the given place of the block of keys.
func mask(scores *[kernel.ScoreElems]float32, first, keys int) {
	for r := range kernel.AttentionRows {
		for i := max(0, first+r+1); i < keys; i++ {
			scores[r*kernel.ScoreStride+i] = float32(math.Inf(-1))
		}
	}
}
