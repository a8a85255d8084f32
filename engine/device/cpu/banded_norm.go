package cpu

import (
	"math"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/kernel"
)

// bandedNorm is a group norm in bands of pixels: one pass for the statistics of every channel, taken by
// chunks and merged in float64 (Chan et al. 1979, Stanford STAN-CS-79-773), one to scale and shift.
type bandedNorm struct {
	op   *device.GroupNorm
	x, y grid // one row of pixels for each image

	band         []float32 // [pixels, C]
	chunks       []moments // of a band
	total        moments
	scale, shift []float32 // [C]
}

// moments are the statistics of n pixels by channel: means, and sums of squared distances from them.
type moments struct {
	n             int
	mean, squares []float64 // [C]
}

func newBandedNorm(o *device.GroupNorm) *bandedNorm {
	pixels := func(a device.Array) grid {
		c := lastDim(a)
		return grid{array: a, images: a.Shape[0], h: 1, w: elems(a) / a.Shape[0] / c, c: c}
	}
	return &bandedNorm{op: o, x: pixels(o.X), y: pixels(o.Out)}
}

func (n *bandedNorm) carve(c *carver, side int) {
	pixels := min(side*side, n.x.w)
	n.band = take[float32](c, pixels*n.x.c)
	n.chunks = make([]moments, ceilDiv(pixels, n.chunkPixels()))
	for i := range n.chunks {
		n.chunks[i].carve(c, n.x.c)
	}
	n.total.carve(c, n.x.c)
	n.scale, n.shift = take[float32](c, n.x.c), take[float32](c, n.x.c)
}

func (m *moments) carve(c *carver, channels int) {
	m.mean, m.squares = take[float64](c, channels), take[float64](c, channels)
}

func (n *bandedNorm) chunkPixels() int { return max(1, chunkElems/n.x.c) }

func (n *bandedNorm) scratchBytes(_ *Planner, side int) (int64, error) {
	var c carver
	n.carve(&c, side)
	return c.used, nil
}

func (n *bandedNorm) execute(x *execution, side int) error {
	n.carve(&carver{mem: x.arena.mem}, side)
	gamma, beta := x.weights.vector(n.op.Gamma), x.weights.vector(n.op.Beta)
	for image := range n.x.images {
		n.total.clear()
		if err := n.eachBand(x, image, side, n.measure); err != nil {
			return err
		}
		n.setScale(gamma, beta)
		if err := n.eachBand(x, image, side, n.apply); err != nil {
			return err
		}
	}
	return nil
}

// eachBand reads the bands of an image in turn and does f with each.
func (n *bandedNorm) eachBand(x *execution, image, side int, f func(*execution, window, []float32) error) error {
	for px := 0; px < n.x.w; px += side * side {
		w := window{image, 0, px, 1, min(side*side, n.x.w-px)}
		band := n.band[:w.w*n.x.c]
		if err := x.read(n.x, w, band); err != nil {
			return err
		}
		if err := f(x, w, band); err != nil {
			return err
		}
	}
	return nil
}

// measure adds a band to the statistics of its image.
func (n *bandedNorm) measure(x *execution, w window, band []float32) error {
	chunks := ceilDiv(w.w, n.chunkPixels())
	err := x.do(newJob(chunks, func(_, task int) { n.chunks[task].measure(n.chunk(band, task)) }))
	if err != nil {
		return err
	}
	for i := range chunks {
		n.total.merge(&n.chunks[i])
	}
	return nil
}

// apply scales and shifts a band and writes it.
func (n *bandedNorm) apply(x *execution, w window, band []float32) error {
	err := x.do(newJob(ceilDiv(w.w, n.chunkPixels()), func(_, task int) {
		chunk := n.chunk(band, task)
		kernel.ScaleShift(chunk, chunk, n.scale, n.shift, n.x.c, len(chunk)/n.x.c, kernel.Act(n.op.Act))
	}))
	if err != nil {
		return err
	}
	return x.write(n.y, w, band)
}

func (n *bandedNorm) chunk(band []float32, task int) []float32 {
	size := n.chunkPixels() * n.x.c
	return band[task*size : min((task+1)*size, len(band))]
}

// setScale makes of the channels' statistics those of their groups, and of these what apply needs.
func (n *bandedNorm) setScale(gamma, beta []float32) {
	width := n.x.c / n.op.Groups
	for first := 0; first < n.x.c; first += width {
		mean, squares := 0.0, 0.0
		for _, m := range n.total.mean[first:][:width] {
			mean += m / float64(width)
		}
		for c := first; c < first+width; c++ {
			d := n.total.mean[c] - mean
			squares += n.total.squares[c] + float64(n.total.n)*d*d
		}
		inverse := 1 / math.Sqrt(squares/float64(width*n.total.n)+float64(n.op.Eps))
		for c := first; c < first+width; c++ {
			scale := inverse * float64(gamma[c])
			n.scale[c] = float32(scale)
			n.shift[c] = float32(float64(beta[c]) - scale*mean)
		}
	}
}

func (m *moments) clear() {
	m.n = 0
	clear(m.mean)
	clear(m.squares)
}

// measure takes the statistics of pixels, about the first of them.
func (m *moments) measure(x []float32) {
	m.clear()
	about := x[:len(m.mean)]
	m.n = len(x) / len(about)
	kernel.ColumnMoments(m.mean, m.squares, x, about, len(about), m.n)
	for c, sum := range m.mean {
		mean := sum / float64(m.n)
		m.mean[c] = float64(about[c]) + mean
		m.squares[c] -= mean * sum
	}
}

// merge adds the pixels of o.
func (m *moments) merge(o *moments) {
	n := m.n + o.n
	share, weight := float64(o.n)/float64(n), float64(m.n)*float64(o.n)/float64(n)
	for c := range m.mean {
		d := o.mean[c] - m.mean[c]
		m.mean[c] += d * share
		m.squares[c] += o.squares[c] + d*d*weight
	}
	m.n = n
}
