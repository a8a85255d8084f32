package cpu

import (
	"github.com/triptych-serving/triptych/engine/kernel"
)

// pairedRows are widened and paired in one go, in L1.
const pairedRows = 32

// words is how many of 32 bits hold so many factors.
func words(pairs bool, n int) int {
	if pairs {
		return kernel.Pairs(n)
	}
	return n
}

// carveImages takes room for the images of a convolution in pairs: its taps point to pixels.
func (g *matmul) carveImages(c *carver) {
	g.paired = nil
	if !g.pairs || g.conv == nil {
		return
	}
	for _, x := range g.x {
		channels := lastDim(x)
		g.paired = append(g.paired, take[float32](c, elems(x)/channels*kernel.Pairs(channels)))
	}
}

// pairImages are the jobs that write them; none if rows are rounded where they are multiplied.
func (g *matmul) pairImages(x [][]float32) (jobs []*job) {
	for i, dst := range g.paired {
		channels, src := lastDim(g.x[i]), x[i]
		pixels, per := len(src)/channels, max(1, chunkElems/channels)
		stride := kernel.Pairs(channels)
		jobs = append(jobs, newJob(ceilDiv(pixels, per), func(_, task int) {
			for p := task * per; p < min(pixels, (task+1)*per); p++ {
				kernel.PairRow(dst[p*stride:], src[p*channels:][:channels])
			}
		}))
	}
	return jobs
}

// pairs gives the pairs of k values from at on of so many taps of n panels from a panel on, whose taps have all values each, and
// the step from a panel to the next.
func (p packed) pairs(panel, n, all, tap, taps, at, k int, s *matmulScratch) (values []float32, step int) {
	size := kernel.Pairs(k) * kernel.TileCols
	for i := range n {
		for t := range taps {
			p.pair(s.panels[(i*taps+t)*size:][:size], (panel+i)*p.row+((tap+t)*all+at)*kernel.TileCols, k, s.widen)
		}
	}
	return s.panels[:n*taps*size], taps * size
}

// pair writes the pairs of k rows of a panel, which begin with element at.
func (p packed) pair(dst []float32, at, k int, buf []float32) {
	if p.bf16 != nil {
		kernel.PairPanelBF16(dst, p.bf16[at:], k)
		return
	}
	for row := 0; row < k; row += pairedRows {
		n := min(pairedRows, k-row)
		kernel.PairPanel(dst[row/2*kernel.TileCols:], p.widen(at+row*kernel.TileCols, n*kernel.TileCols, buf), kernel.TileCols, n)
	}
}

// pointwise tells whether output pixels are those of x, one tap each.
func (g *geometry) pointwise() bool {
	return g.kh == 1 && g.kw == 1 && g.stride == 1 && g.up == 0 && g.oh == g.h && g.ow == g.w && g.top == 0 && g.left == 0
}
