package cpu

import (
	"math"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/kernel"
)

// groupNorm takes the mean of each channel and the squares about it over a chunk of pixels, in one pass with sums about
// the chunk's first pixel; merges those of a group in float64 (Chan et al. 1979, Updating formulae and a pairwise
// algorithm for computing sample variances); and scales and shifts every pixel. Few pixels are one chunk, and a task is
// a range of groups, for which it does everything: no thread waits for another, and x is read again from L2. Many pixels are cut into
// chunks whose number depends on the shape only. Bound by the memory, where x is read twice, or by the activation.
type groupNorm struct {
	op              *device.GroupNorm
	images, pixels  int // of one image
	channels, width int // of a pixel, of a group
	chunks          int
	slices          int       // ranges of groups, if there is one chunk
	moments         []float64 // [images, chunks, 2, C]: means, squares about them
	scale, shift    []float32 // [images, C]
	x, out          []float32
	gamma, beta     []float32
}

const (
	// chunkElems is the size of a task that is bound by memory: long against the claim of a task.
	chunkElems = 16 << 10
	// fewPixels is where a range of groups of all pixels still fits in L2.
	fewPixels = 1024
	// sliceChannels is the least width of a range, so that the kernels find vectors enough in a pixel.
	sliceChannels = 96
	// maxChunks bounds the moments of an image, which are merged by one thread.
	maxChunks = 32
)

func newGroupNorm(o *device.GroupNorm) (*groupNorm, error) {
	if err := bothPresent("group_norm", o.Gamma, o.Beta); err != nil {
		return nil, err
	}
	n := &groupNorm{op: o, images: o.X.Shape[0], channels: lastDim(o.X)}
	n.pixels = elems(o.X) / n.images / n.channels
	n.width = n.channels / o.Groups
	if n.pixels <= fewPixels {
		n.chunks = 1
		n.slices = min(ceilDiv(n.pixels*n.channels, 2*chunkElems), max(1, n.channels/sliceChannels), ceilDiv(o.Groups, n.sliceUnit()))
	} else {
		n.chunks = min(ceilDiv(n.pixels*n.channels, 4*chunkElems), maxChunks)
	}
	return n, nil
}

// sliceUnit is the groups that hold whole vectors of channels.
func (n *groupNorm) sliceUnit() int {
	unit := 8
	for unit > 1 && n.width*unit/2%8 == 0 {
		unit /= 2
	}
	return unit
}

func bothPresent(op string, gamma, beta device.Weight) error {
	if gamma.Present() && beta.Present() {
		return nil
	}
	return &device.FieldError{Field: op, Expected: "gamma and beta", Got: "no parameter for one of them"}
}

func (n *groupNorm) carve(c *carver, _ int) {
	n.moments = take[float64](c, n.images*n.chunks*2*n.channels)
	n.scale = take[float32](c, n.images*n.channels)
	n.shift = take[float32](c, n.images*n.channels)
}

func (n *groupNorm) bind(b *binding) []*job {
	n.x, n.out = b.floats(n.op.X), b.floats(n.op.Out)
	n.gamma, n.beta = b.weights.vector(n.op.Gamma), b.weights.vector(n.op.Beta)
	if n.slices > 0 {
		units := ceilDiv(n.op.Groups, n.sliceUnit())
		return []*job{newJob(n.images*n.slices, func(_, task int) {
			image, i := task/n.slices, task%n.slices
			first, last := i*units/n.slices*n.sliceUnit(), min((i+1)*units/n.slices*n.sliceUnit(), n.op.Groups)
			n.measure(image, 0, first*n.width, last*n.width)
			n.settle(image, first, last)
			n.apply(image, 0, first*n.width, last*n.width)
		})}
	}
	tasks := n.images * n.chunks
	return []*job{
		newJob(tasks, func(_, task int) { n.measure(task/n.chunks, task%n.chunks, 0, n.channels) }),
		newJob(1, func(_, _ int) {
			for image := range n.images {
				n.settle(image, 0, n.op.Groups)
			}
		}),
		newJob(tasks, func(_, task int) {
			task = tasks - 1 - task // what was read last may still be in cache
			n.apply(task/n.chunks, task%n.chunks, 0, n.channels)
		}),
	}
}

// chunkPixels is the first pixel of a chunk and the one behind its last.
func (n *groupNorm) chunkPixels(chunk int) (first, last int) {
	return chunk * n.pixels / n.chunks, (chunk + 1) * n.pixels / n.chunks
}

// calls hands on the pixels of a chunk in parts of about chunkElems, by the place of their channel c0: assembly runs a
// call to its end before it can be preempted.
func (n *groupNorm) calls(image, chunk, c0, c1 int, do func(at, pixels int)) {
	first, last := n.chunkPixels(chunk)
	for per := max(1, chunkElems/(c1-c0)); first < last; first += per {
		do((image*n.pixels+first)*n.channels+c0, min(per, last-first))
	}
}

// chunkMoments are the means and squares of a chunk's channels.
func (n *groupNorm) chunkMoments(image, chunk int) (means, squares []float64) {
	m := n.moments[(image*n.chunks+chunk)*2*n.channels:][:2*n.channels]
	return m[:n.channels], m[n.channels:]
}

// measure takes the moments of channels c0 to c1 of a chunk.
func (n *groupNorm) measure(image, chunk, c0, c1 int) {
	means, squares := n.chunkMoments(image, chunk)
	means, squares = means[c0:c1], squares[c0:c1]
	clear(means)
	clear(squares)
	first, last := n.chunkPixels(chunk)
	about := n.x[(image*n.pixels+first)*n.channels:][c0:c1]
	n.calls(image, chunk, c0, c1, func(at, pixels int) {
		kernel.ColumnMoments(means, squares, n.x[at:], about, n.channels, pixels)
	})
	for c, sum := range means {
		mean := sum / float64(last-first)
		means[c] = float64(about[c]) + mean
		squares[c] -= mean * sum
	}
}

// settle merges the moments of groups first to last and turns them into a scale and a shift for each channel.
func (n *groupNorm) settle(image, first, last int) {
	scale, shift := n.scale[image*n.channels:][:n.channels], n.shift[image*n.channels:][:n.channels]
	for g := first; g < last; g++ {
		c0, c1, elems := g*n.width, (g+1)*n.width, float64(n.width*n.pixels)
		mean, square := 0.0, 0.0
		n.eachMoment(image, c0, c1, func(pixels, m, _ float64) { mean += pixels * m })
		mean /= elems
		n.eachMoment(image, c0, c1, func(pixels, m, sq float64) { square += sq + pixels*(m-mean)*(m-mean) })
		inverse := 1 / math.Sqrt(square/elems+float64(n.op.Eps))
		for c := c0; c < c1; c++ {
			s := inverse * float64(n.gamma[c])
			scale[c], shift[c] = float32(s), float32(float64(n.beta[c])-s*mean)
		}
	}
}

// eachMoment hands on the moments of channels c0 to c1 with the pixels they are of.
func (n *groupNorm) eachMoment(image, c0, c1 int, do func(pixels, mean, square float64)) {
	for chunk := range n.chunks {
		first, last := n.chunkPixels(chunk)
		means, squares := n.chunkMoments(image, chunk)
		for c := c0; c < c1; c++ {
			do(float64(last-first), means[c], squares[c])
		}
	}
}

// apply writes channels c0 to c1 of a chunk.
func (n *groupNorm) apply(image, chunk, c0, c1 int) {
	scale, shift := n.scale[image*n.channels:][c0:c1], n.shift[image*n.channels:][c0:c1]
	n.calls(image, chunk, c0, c1, func(at, pixels int) {
		kernel.ScaleShift(n.out[at:], n.x[at:], scale, shift, n.channels, pixels, kernel.Act(n.op.Act))
	})
}

// layerNorm is by rows. Bound by L1: a row is read three times.
type layerNorm struct {
	op *device.LayerNorm
}

func newLayerNorm(o *device.LayerNorm) (layerNorm, error) {
	return layerNorm{o}, bothPresent("layer_norm", o.Gamma, o.Beta)
}

func (n layerNorm) carve(*carver, int) {}

func (n layerNorm) bind(b *binding) []*job {
	x, out := b.floats(n.op.X), b.floats(n.op.Out)
	gamma, beta := b.weights.vector(n.op.Gamma), b.weights.vector(n.op.Beta)
	c := lastDim(n.op.X)
	return []*job{rowsJob(len(x)/c, c, func(_, r int) {
		kernel.LayerNorm(out[r*c:][:c], x[r*c:], gamma, beta, n.op.Eps)
	})}
}

// rowsJob is do for each of so many rows of c elements, in tasks of about chunkElems.
func rowsJob(rows, c int, do func(thread, row int)) *job {
	per := max(1, chunkElems/c)
	return newJob(ceilDiv(rows, per), func(thread, task int) {
		for r := task * per; r < min(rows, (task+1)*per); r++ {
			do(thread, r)
		}
	})
}
