package cpu

import (
	"unsafe"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/kernel"
)

// matmul is Gemm and Conv2D: rows of out are sums over taps and k of rows of x, times panels of
// weights. For Gemm a row has one tap, a row of x; for Conv2D a row is a pixel and its taps are the
// pixels under the filter (implicit GEMM, Dukhan 2019, arXiv 1907.02129).
//
// A task is a chunk of rows and a range of panels. It points to its rows, then widens the panels of a tile once, by
// parts that fit in L2, and multiplies every tile of the chunk with them; the epilogue runs over whole rows of the
// range at the end, while they are in L2. Bound by the FMA units, and below about 10 rows by the memory that
// the weights come from.
type matmul struct {
	x                       []device.Array // side by side
	perImage, residual, out device.Array
	w, bias                 device.Weight
	terms                   []device.Term // whose x are behind those of x
	act                     kernel.Act
	rectifier               rectifier
	scale                   float32   // 0 is 1
	conv                    *geometry // nil for Gemm
	pairs                   bool      // factors are pairs of bfloat16

	rows, taps, k, n int
	partTaps, partK  int // a part of a panel: whole taps, or a range of k of one
	spans            []span
	copied           bool // rows are multiplied from a copy
	copyStride       int
	rowsPerImage     int
	chunkRows        int // a multiple of TileRows
	groupPanels      int
	scratch          []matmulScratch // by thread
	paired           [][]float32     // x in pairs, of a convolution
}

// span is a range of k in one of x.
type span struct {
	x, first, k int
	at          int // of all k of its weight
	weight      int // 0 is w, others are those of terms
	all         int // k of the weight
}

// matmulScratch is one thread's.
type matmulScratch struct {
	panels []float32  // a widened part of a tile's panels
	widen  []float32  // values on their way into pairs, pairedRows of a panel
	rows   []*float32 // of a chunk, by tile, tap and row
	copy   []float32  // [chunkRows, copyStride], if rows are copied
	edge   []float32  // [chunkRows, TileCols], if the last panel is wider than out
}

const (
	// maxChunkTiles bounds the rows of a chunk: enough that widening a panel (a third of one tile's
	// time) and reading it from afar do not count, few enough that the chunk's rows stay in L2 or near it. Measured with
	// 512 KiB; twice as many are up to 6 % faster where L2 has 2 MiB.
	maxChunkTiles, largeChunkTiles = 24, 48
	largeL2                        = 1 << 20
	// minChunkTiles is where it starts to count.
	minChunkTiles = 4
	// partBytes bounds a widened part of a panel, to be read from L2 by every tile.
	partBytes = 192 << 10
	// aliasFloats is a distance of rows, 4 KiB or a multiple, at which they all fall into one set of the L1 cache: a
	// tile of 6 rows then runs at 80 % of the rate of others. Such rows are copied, by parts of copyK, to rows
	// that much and copyGap apart. Rows of pairs are rounded and so always copied, by parts of copyPairedK.
	aliasFloats = 1024
	copyK       = 512
	copyPairedK = 1280
	copyGap     = 16
	// tasksPerThread evens out threads that are slower or start late.
	tasksPerThread = 4
)

func newGemm(o *device.Gemm, m *device.Manifest, threads int, pairs bool) *matmul {
	g := &matmul{x: []device.Array{o.X}, residual: o.Residual, out: o.Out, w: o.W, bias: o.Bias, act: kernel.Act(o.Act), taps: 1, pairs: pairs}
	g.n, g.k = m.At(o.W).Shape[0], m.At(o.W).Shape[1]
	if g.terms = o.Terms; g.terms != nil {
		for _, term := range g.terms {
			g.x = append(g.x, term.X)
		}
	}
	g.rows = elems(o.X) / g.k
	g.rowsPerImage = g.rows
	return g.split(threads)
}

func newConv(o *device.Conv2D, m *device.Manifest, threads int, pairs bool) *matmul {
	w, s := m.At(o.W).Shape, o.Out.Shape
	g := &matmul{x: o.Inputs(), perImage: o.PerImage, residual: o.Residual, out: o.Out, w: o.W, bias: o.Bias, scale: o.Scale, pairs: pairs}
	g.act, g.rectifier = activationOf(o)
	g.n, g.k, g.taps = w[0], w[1], w[2]*w[3]
	g.rowsPerImage = s[1] * s[2]
	g.rows = s[0] * g.rowsPerImage
	if g.conv = newGeometry(o, w[2], w[3]); pairs && g.conv.pointwise() {
		g.conv = nil
	}
	return g.split(threads)
}

// split cuts the work into tasks. The cut does not change results: a row's sum is formed in the
// same order wherever it falls.
func (g *matmul) split(threads int) *matmul {
	tiles := ceilDiv(g.rows, kernel.TileRows)
	most := maxChunkTiles
	if l2() >= largeL2 {
		most = largeChunkTiles
	}
	chunks := ceilDiv(tiles, most)
	if tiles >= threads*minChunkTiles { // as much for every thread
		chunks = ceilDiv(chunks, threads) * threads
	}
	g.chunkRows = ceilDiv(tiles, chunks) * kernel.TileRows
	tapBytes := 4 * words(g.pairs, g.k) * kernel.TileCols
	parts := ceilDiv(g.taps, max(1, partBytes/tapBytes))
	g.partTaps = ceilDiv(g.taps, parts)
	g.partK = ceilDiv(g.k, ceilDiv(tapBytes, partBytes))
	switch g.copied = g.conv == nil && (g.pairs || g.k%aliasFloats == 0); {
	case g.pairs && g.copied:
		g.partK = ceilDiv(g.k, ceilDiv(g.k, copyPairedK))
	case g.copied:
		g.partK = copyK
	}
	if g.pairs && g.partK%2 == 1 { // an odd part is the last one of its x
		g.partK++
	}
	g.copyStride = words(g.pairs, g.partK) + copyGap
	if len(g.x) > 1 { // their weights do not lie together
		g.partTaps = 1
	}
	for i, at := 0, 0; i < len(g.x); i++ {
		channels, weight, all := lastDim(g.x[i]), max(0, i+1+len(g.terms)-len(g.x)), g.k
		if weight > 0 {
			at, all = 0, channels
		}
		for k := 0; k < channels; k += g.partK {
			g.spans = append(g.spans, span{x: i, first: k, k: min(g.partK, channels-k), at: at + k, weight: weight, all: all})
		}
		at += channels
	}
	groups := min(panels(g.n), ceilDiv(tasksPerThread*threads, chunks))
	g.groupPanels = ceilDiv(panels(g.n), groups)
	return g
}

func (g *matmul) carve(c *carver, threads int) {
	g.carveImages(c)
	g.scratch = make([]matmulScratch, threads)
	for i := range g.scratch {
		s := &g.scratch[i]
		s.panels = take[float32](c, min(kernel.TilePanels(), panels(g.n))*g.partTaps*words(g.pairs, g.partK)*kernel.TileCols)
		if g.pairs {
			s.widen = take[float32](c, pairedRows*kernel.TileCols)
		}
		s.rows = take[*float32](c, g.chunkRows*g.taps)
		if g.copied {
			s.copy = take[float32](c, g.chunkRows*g.copyStride)
		}
		if g.n%kernel.TileCols > 0 {
			s.edge = take[float32](c, g.chunkRows*kernel.TileCols)
		}
	}
}

func (g *matmul) bind(b *binding) []*job {
	e := &epilogue{out: b.floats(g.out), bias: b.weights.vector(g.bias), residual: b.floats(g.residual), shift: b.floats(g.perImage)}
	e.slopes, e.scale = g.rectifier.slopes(b.weights), g.scale
	x, zeros, weights := b.all(g.x), b.zeroRow(), []packed{b.weights.packed(g.w)}
	for _, term := range g.terms {
		weights = append(weights, b.weights.packed(term.W))
	}
	groups := ceilDiv(panels(g.n), g.groupPanels)
	jobs := g.pairImages(x)
	if jobs != nil {
		x = g.paired
	}
	return append(jobs, newJob(ceilDiv(g.rows, g.chunkRows)*groups, func(thread, task int) {
		s, first := &g.scratch[thread], task/groups*g.chunkRows
		rows := min(g.chunkRows, g.rows-first)
		p0 := task % groups * g.groupPanels
		p1 := min(p0+g.groupPanels, panels(g.n))
		for i, part := range g.spans {
			k, w := part.k, weights[part.weight]
			g.point(s, x[part.x], zeros, part, first, rows)
			for p := p0; p < p1; p += kernel.TilePanels() {
				n := min(kernel.TilePanels(), p1-p)
				for tap := 0; tap < g.taps; tap += g.partTaps {
					taps := min(g.partTaps, g.taps-tap)
					product := kernel.Product{
						Stride: g.n, Apart: kernel.TileCols, Rows: s.rows[tap*kernel.TileRows:], TileStep: g.taps * kernel.TileRows, Taps: taps, K: words(g.pairs, k),
						M: rows, N: n, Add: i > 0 || tap > 0, Pairs: g.pairs,
					}
					if g.pairs {
						product.Panels, product.Step = w.pairs(p, n, part.all, tap, taps, part.at, k, s)
						g.multiply(&product, e.out[first*g.n:], p, s.edge)
						continue
					}
					product.Panels, product.Step = w.panels(p, n, (tap*part.all+part.at)*kernel.TileCols, taps*k*kernel.TileCols, s.panels)
					g.multiply(&product, e.out[first*g.n:], p, s.edge)
				}
			}
		}
		e.finish(g, first, rows, p0*kernel.TileCols, min(p1*kernel.TileCols, g.n))
	}))
}

// multiply forms a product, the columns of panel p and the next ones, in rows of out. The last panel may be wider than out,
// and then goes through edge.
func (g *matmul) multiply(m *kernel.Product, out []float32, p int, edge []float32) {
	cols := g.n - (p+m.N-1)*kernel.TileCols // of the last panel
	if cols >= kernel.TileCols {
		m.Out = out[p*kernel.TileCols:]
		kernel.Multiply(m)
		return
	}
	last := *m
	if m.N--; m.N > 0 {
		m.Out = out[p*kernel.TileCols:]
		kernel.Multiply(m)
	}
	last.Out, last.Stride, last.Panels, last.N, last.Add = edge, kernel.TileCols, m.Panels[m.N*m.Step:], 1, false
	kernel.Multiply(&last)
	for r := range m.M {
		dst, src := out[r*g.n+g.n-cols:][:cols], edge[r*kernel.TileCols:]
		if m.Add {
			kernel.Add(dst, dst, src)
		} else {
			copy(dst, src)
		}
	}
}

// point points to the taps of rows of a part of x, by tile, tap and row. The last tile is filled up with its last row.
func (g *matmul) point(s *matmulScratch, x, zeros []float32, part span, first, rows int) {
	channels := lastDim(g.x[part.x])
	switch {
	case g.conv != nil:
		g.conv.point(s.rows, x[words(g.pairs, part.first):], zeros, words(g.pairs, channels), first, rows)
	case g.copied:
		for r := range rows {
			dst, src := s.copy[r*g.copyStride:], x[(first+r)*channels+part.first:][:part.k]
			if g.pairs {
				kernel.PairRow(dst, src)
			} else {
				copy(dst, src)
			}
		}
		pointRows(s.rows, s.copy, rows, g.copyStride)
	default:
		pointRows(s.rows, x[first*channels+part.first:], rows, channels)
	}
}

// pointRows points to rows of x, one tap each.
func pointRows(dst []*float32, x []float32, rows, stride int) {
	for i := range ceilDiv(rows, kernel.TileRows) * kernel.TileRows {
		dst[i] = &x[min(i, rows-1)*stride]
	}
}

// epilogue is what follows a sum: bias, per-image shift, activation, scale, residual.
type epilogue struct {
	out, bias, residual, shift []float32
	slopes                     []float32 // of a rectifier; nil without one
	scale                      float32   // 0 is 1
}

// finish applies it in place to columns c0 to c1 of rows.
func (e *epilogue) finish(g *matmul, first, rows, c0, c1 int) {
	if e.bias == nil && e.residual == nil && e.shift == nil && g.act == kernel.None && e.slopes == nil && e.scale == 0 {
		return
	}
	cut := func(v []float32, row int) []float32 {
		if v == nil {
			return nil
		}
		return v[row*g.n+c0 : row*g.n+c1]
	}
	bias := cut(e.bias, 0)
	for r := first; r < first+rows; r++ {
		image := r / g.rowsPerImage
		if len(e.shift) == g.n {
			image = 0
		}
		dst := cut(e.out, r)
		if e.slopes == nil && e.scale == 0 {
			kernel.Finish(dst, dst, bias, cut(e.shift, image), cut(e.residual, r), g.act)
			continue
		}
		kernel.Finish(dst, dst, bias, cut(e.shift, image), nil, g.act)
		if e.slopes != nil {
			kernel.PReLU(dst, dst, cut(e.slopes, 0))
		} else {
			kernel.Scale(dst, e.scale)
		}
		if e.residual != nil {
			kernel.Add(dst, dst, cut(e.residual, r))
		}
	}
}

// geometry is where the taps of a Conv2D's pixels lie.
type geometry struct {
	h, w              int // of x
	rh, rw            int // of x as it is read
	oh, ow            int
	kh, kw            int
	stride, top, left int
	up                uint // 1 if x is read as if enlarged
}

func newGeometry(o *device.Conv2D, kh, kw int) *geometry {
	g := &geometry{
		h: o.X.Shape[1], w: o.X.Shape[2], oh: o.Out.Shape[1], ow: o.Out.Shape[2],
		kh: kh, kw: kw, stride: o.Stride, top: o.Top, left: o.Left,
	}
	if o.Upsample {
		g.up = 1
	}
	g.rh, g.rw = o.Read()
	return g
}

// point points to the taps of pixels first to first+rows of x, which has so many channels, by tile, tap and pixel; taps outside of
// the image point to zeros. Bound by 3 to 4 cycles a pointer; a chunk's panels share them.
func (g *geometry) point(dst []*float32, x, zeros []float32, channels, first, rows int) {
	zero, taps := unsafe.SliceData(zeros), g.kh*g.kw
	ox, oy, image := first%g.ow, first/g.ow%g.oh, first/g.ow/g.oh
	for i := range ceilDiv(rows, kernel.TileRows) * kernel.TileRows {
		at := i/kernel.TileRows*kernel.TileRows*taps + i%kernel.TileRows
		for ky := range g.kh {
			y := oy*g.stride + ky - g.top
			inside := uint(y) < uint(g.rh)
			row := (image*g.h + y>>g.up) * g.w
			for kx := range g.kw {
				xx := ox*g.stride + kx - g.left
				if inside && uint(xx) < uint(g.rw) {
					dst[at] = &x[(row+xx>>g.up)*channels]
				} else {
					dst[at] = zero
				}
				at += kernel.TileRows
			}
		}
		if i+1 >= rows { // the last tile is filled up with the last pixel
			continue
		}
		if ox++; ox == g.ow {
			ox = 0
			if oy++; oy == g.oh {
				oy = 0
				image++
			}
		}
	}
}
