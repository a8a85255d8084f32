package cpu

import (
	"unsafe"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/kernel"
)

// winograd is Conv2D with a 3x3 filter and stride 1 as F(m x m, 3x3) (Lavin and Gray 2015, arXiv 1509.09308): the image
// is cut into tiles of m x m pixels, each read with its border, V = B^T d B of every tile is multiplied with U = G g G^T of
// every pair of channels, value by value and summed over channels, and the sums M transform back. That is (m+2)^2
// multiply-adds for m^2 pixels in place of 9 m^2: 2.25 times fewer for m = 2, 4 times for m = 4, 5.8 for an enlarged image.
//
// Tiles are taken in chunks whose V fits in the workspace. For a chunk one job makes V; in the next a task is a few panels
// of output channels: it transforms their weights in parts of channels, adds up the products in M, and writes its columns
// of the image. U of all panels exists nowhere: it is four times the weights in float32 (m = 4), and making it costs as
// much as 6 to 8 tiles more. Bound by the FMA units; V, U and M come from L2 and L3.
type winograd struct {
	x                       []device.Array // side by side
	perImage, residual, out device.Array
	w, bias                 device.Weight
	act                     kernel.Act
	rectifier               rectifier
	scale                   float32 // 0 is 1
	conv                    *geometry

	kind             kernel.Winograd
	k, n             int
	tilesX, tilesY   int       // of an image
	tiles, chunk     int       // of all images; of a V
	groups, splits   int       // of panels; of a group's tiles in a chunk: a task is one of both
	part             int       // channels of a part
	vStride          int       // between values
	uStride, mStride int       // between products
	v                []float32 // [parts][values][chunk][part]
	scratch          []winogradScratch
}

// winogradScratch is one thread's.
type winogradScratch struct {
	u       []float32  // [panels of a group][products][part][TileCols]
	m       []float32  // [panels of a group][products][tiles of a task][TileCols]
	taps    []float32  // widened weights, [9][tapChannels][TileCols]
	edge    []float32  // [m][m][TileCols]
	rows    []*float32 // of a task's tiles, into V
	sources []*float32 // of a tile, [reads][reads]
}

const (
	// A chunk's V and a thread's M are of nearBytes, to lie in L3, but not of fewer than enoughTiles, which pay for U, as
	// long as they are below mostBytes. Measured with 8 MiB of L3: 1x256x256x128 is 8 % slower with a V of 16 MiB than with
	// one of 4, 2x32x32x1920 17 % faster.
	nearBytes, mostBytes = 4 << 20, 16 << 20
	enoughTiles          = 96
	// maxPart bounds the channels of a part, and so U of a panel: 2304 bytes for each channel (m = 4), to be read from L2.
	maxPart = 96
	// maxGroup panels share what is read of V: up to 20 % faster than one.
	maxGroup = 4
	// tapChannels are widened and transformed in one go, in L1.
	tapChannels = 32
	// skew in floats keeps the values of a tile out of the same set of a cache.
	skew = 16
)

func newWinograd(o *device.Conv2D, m *device.Manifest, threads int, kind kernel.Winograd) *winograd {
	s := o.Out.Shape
	g := &winograd{
		x: o.Inputs(), perImage: o.PerImage, residual: o.Residual, out: o.Out, w: o.W, bias: o.Bias, scale: o.Scale,
		conv: newGeometry(o, 3, 3), kind: kind,
	}
	g.act, g.rectifier = activationOf(o)
	g.n, g.k = m.At(o.W).Shape[0], m.At(o.W).Shape[1]
	g.tilesY, g.tilesX = ceilDiv(s[1], kind.Tile()), ceilDiv(s[2], kind.Tile())
	g.tiles = s[0] * g.tilesY * g.tilesX
	return g.split(threads)
}

// split cuts the work. Parts and chunks depend on the shape only, and the cut into tasks does not change results.
func (g *winograd) split(threads int) *winograd {
	g.part = ceilDiv(ceilDiv(g.k, ceilDiv(g.k, maxPart)), 8) * 8
	g.part = min(g.part, g.k)
	tileBytes := 4 * (g.kind.Values()*g.k + g.kind.Products()*maxGroup*kernel.TileCols)
	chunks := ceilDiv(g.tiles, max(kernel.TileRows, min(mostBytes/tileBytes, max(nearBytes/tileBytes, enoughTiles))))
	g.chunk = min(g.tiles, ceilDiv(ceilDiv(g.tiles, chunks), kernel.TileRows)*kernel.TileRows)
	// As many groups of panels for each thread, two or more. If there are too few panels a group's tiles are split, and its
	// U is made more than once.
	g.groups = min(panels(g.n), threads*max(2, ceilDiv(panels(g.n), maxGroup*threads)))
	g.splits = min(ceilDiv(2*threads, g.groups), ceilDiv(g.chunk, kernel.TileRows))
	g.vStride = g.chunk*g.part + skew
	g.uStride = g.part*kernel.TileCols + skew
	g.mStride = g.taskTiles()*kernel.TileCols + skew
	return g
}

func (g *winograd) taskTiles() int {
	return ceilDiv(ceilDiv(g.chunk, g.splits), kernel.TileRows) * kernel.TileRows
}

// panelsOf is the first panel of a group and how many there are; the larger groups come first.
func (g *winograd) panelsOf(group int) (first, n int) {
	n, more := panels(g.n)/g.groups, panels(g.n)%g.groups
	first = group*n + min(group, more)
	if group < more {
		n++
	}
	return first, n
}

func (g *winograd) carve(c *carver, threads int) {
	g.v = take[float32](c, ceilDiv(g.k, g.part)*g.kind.Values()*g.vStride)
	g.scratch = make([]winogradScratch, threads)
	for i := range g.scratch {
		s := &g.scratch[i]
		s.u = take[float32](c, ceilDiv(panels(g.n), g.groups)*g.kind.Products()*g.uStride)
		s.m = take[float32](c, ceilDiv(panels(g.n), g.groups)*g.kind.Products()*g.mStride)
		s.taps = take[float32](c, 9*tapChannels*kernel.TileCols)
		s.edge = take[float32](c, g.kind.Tile()*g.kind.Tile()*kernel.TileCols)
		s.rows = take[*float32](c, g.taskTiles())
		s.sources = take[*float32](c, g.kind.Reads()*g.kind.Reads())
	}
}

func (g *winograd) bind(b *binding) []*job {
	x, zeros, w := b.all(g.x), b.zeroRow(), b.weights.packed(g.w)
	e := &epilogue{out: b.floats(g.out), bias: b.weights.vector(g.bias), residual: b.floats(g.residual), shift: b.floats(g.perImage)}
	e.slopes, e.scale = g.rectifier.slopes(b.weights), g.scale
	var jobs []*job
	for first := 0; first < g.tiles; first += g.chunk {
		tiles := min(g.chunk, g.tiles-first)
		per := max(1, chunkElems/(g.kind.Values()*g.k))
		jobs = append(jobs, newJob(ceilDiv(tiles, per), func(thread, task int) {
			for t := task * per; t < min(tiles, (task+1)*per); t++ {
				g.input(&g.scratch[thread], x, zeros, first+t, t)
			}
		}))
		taskTiles := g.taskTiles()
		splits := ceilDiv(tiles, taskTiles)
		jobs = append(jobs, newJob(g.groups*splits, func(thread, task int) {
			s, t0 := &g.scratch[thread], task%splits*taskTiles
			panel, group := g.panelsOf(task / splits)
			n := min(taskTiles, tiles-t0)
			g.multiply(s, w, panel, group, t0, n)
			for p := range group {
				g.output(s.m[p*g.kind.Products()*g.mStride:], s.edge, e, panel+p, first+t0, n)
			}
		}))
	}
	return jobs
}

// input writes V of a tile, as number t of the chunk.
func (g *winograd) input(s *winogradScratch, x [][]float32, zeros []float32, tile, t int) {
	for i, k := 0, 0; i < len(x); i++ {
		channels := lastDim(g.x[i])
		g.point(s, x[i], zeros, channels, tile)
		for end := k + channels; k < end; {
			part := k / g.part
			width, all := min(end, (part+1)*g.part)-k, min(g.part, g.k-part*g.part)
			kernel.WinogradInput(g.kind, g.v[part*g.kind.Values()*g.vStride+t*all+k-part*g.part:], g.vStride, s.sources, width)
			if k += width; k < end {
				for i, p := range s.sources {
					s.sources[i] = (*float32)(unsafe.Add(unsafe.Pointer(p), 4*width)) // zeros has so many floats too
				}
			}
		}
	}
}

// point points to the pixels of x, which has so many channels, that a tile is made of.
func (g *winograd) point(s *winogradScratch, x, zeros []float32, channels, tile int) {
	c, m, reads, up := g.conv, g.kind.Tile(), g.kind.Reads(), g.conv.up
	image, ty, tx := tile/(g.tilesX*g.tilesY), tile/g.tilesX%g.tilesY, tile%g.tilesX
	y0, x0, h, w := ty*m-c.top, tx*m-c.left, c.rh, c.rw
	if g.kind == kernel.F4Up { // it reads the image as it is
		y0, x0, h, w, up = y0>>1, x0>>1, c.h, c.w, 0
	}
	zero, i := unsafe.SliceData(zeros), 0
	for y := y0; y < y0+reads; y++ {
		inside, row := uint(y) < uint(h), (image*c.h+y>>up)*c.w
		for px := x0; px < x0+reads; px++ {
			if inside && uint(px) < uint(w) {
				s.sources[i] = &x[(row+px>>up)*channels]
			} else {
				s.sources[i] = zero
			}
			i++
		}
	}
}

// multiply makes M of n tiles of the chunk from t on and a group of panels, which share what they read of V.
func (g *winograd) multiply(s *winogradScratch, w packed, panel, group, t, n int) {
	products := g.kind.Products()
	for k := 0; k < g.k; k += g.part {
		width := min(g.part, g.k-k)
		for p := range group {
			g.filter(s.u[p*products*g.uStride:], s.taps, w, panel+p, k, width)
		}
		v := g.v[k/g.part*g.kind.Values()*g.vStride+t*width:]
		product := kernel.Product{
			Stride: kernel.TileCols, Apart: products * g.mStride, Rows: s.rows, TileStep: kernel.TileRows, Taps: 1, K: width,
			Step: products * g.uStride, M: n, N: group, Add: k > 0,
		}
		for i := range products {
			pointRows(s.rows, v[g.kind.Value(i)*g.vStride:], n, width)
			product.Out, product.Panels = s.m[i*g.mStride:], s.u[i*g.uStride:]
			kernel.Multiply(&product)
		}
	}
}

// filter writes U of a panel and width channels from k on.
func (g *winograd) filter(u, taps []float32, w packed, panel, k, width int) {
	var sources [9]*float32
	for c := 0; c < width; c += tapChannels {
		n := min(tapChannels, width-c) * kernel.TileCols
		for tap := range sources {
			buf := taps[tap*tapChannels*kernel.TileCols:][:n]
			values := w.widen(panel*w.row+(tap*g.k+k+c)*kernel.TileCols, n, buf)
			if g.scale != 0 {
				copy(buf, values) // unless they are there
				kernel.Scale(buf, g.scale)
				values = buf
			}
			sources[tap] = unsafe.SliceData(values)
		}
		kernel.WinogradFilter(g.kind, u[c*kernel.TileCols:], g.uStride, &sources, n)
	}
}

// output writes a panel's columns of n tiles from M, with the epilogue.
func (g *winograd) output(m, edge []float32, e *epilogue, panel, first, n int) {
	size, oh, ow, c0 := g.kind.Tile(), g.conv.oh, g.conv.ow, panel*kernel.TileCols
	cols := min(kernel.TileCols, g.n-c0)
	var bias, column [kernel.TileCols]float32
	var slopes *[kernel.TileCols]float32
	if e.slopes != nil {
		copy(column[:], e.slopes[c0:])
		slopes = &column
	}
	image := -1
	for t := range n {
		tile := first + t
		ty, tx := tile/g.tilesX%g.tilesY*size, tile%g.tilesX*size
		if i := tile / (g.tilesX * g.tilesY); i != image {
			image = i
			e.constants(bias[:cols], g.n, c0, image)
		}
		at := ((image*oh+ty)*ow+tx)*g.n + c0
		m := m[t*kernel.TileCols:]
		h, w := min(size, oh-ty), min(size, ow-tx)
		if h == size && w == size && cols == kernel.TileCols && g.act == kernel.None {
			var residual []float32
			if e.residual != nil {
				residual = e.residual[at:]
			}
			kernel.WinogradOutput(g.kind, e.out[at:], ow*g.n, g.n, m, g.mStride, &bias, slopes, residual)
			continue
		}
		kernel.WinogradOutput(g.kind, edge, size*kernel.TileCols, kernel.TileCols, m, g.mStride, &bias, slopes, nil)
		for y := range h {
			for x := range w {
				at := at + (y*ow+x)*g.n
				var residual []float32
				if e.residual != nil {
					residual = e.residual[at:]
				}
				kernel.Finish(e.out[at:][:cols], edge[(y*size+x)*kernel.TileCols:], nil, nil, residual, g.act)
			}
		}
	}
}

// constants is what the epilogue adds to columns from c0 on of every pixel of an image, before the activation; the sums are scaled.
func (e *epilogue) constants(dst []float32, n, c0, image int) {
	clear(dst)
	if e.bias != nil {
		copy(dst, e.bias[c0:])
	}
	if len(e.shift) == n {
		image = 0
	}
	if e.shift != nil {
		kernel.Add(dst, dst, e.shift[image*n+c0:])
	}
	if e.scale != 0 {
		kernel.Scale(dst, e.scale)
	}
}
