package cpu

import (
	"math"
	"slices"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/kernel"
)

// groupNorm takes the statistics in two passes, sums and then squares about the mean, each by chunks of
// pixels whose number depends on the shape only; then it scales and shifts every pixel. Bound by the
// memory: x is read three times.
type groupNorm struct {
	op               *device.GroupNorm
	images, pixels   int // of one image
	channels, chunks int

	partial             []float64 // [images, chunks, C]
	mean, scale, shift  []float32 // [images, C]
	x, out, gamma, beta []float32
}

const (
	// chunkElems is the size of a task that is bound by memory: long against the claim of a task.
	chunkElems = 16 << 10
	// maxChunks bounds the partial sums of an image.
	maxChunks = 64
)

func newGroupNorm(o *device.GroupNorm) (*groupNorm, error) {
	if err := bothPresent("group_norm", o.Gamma, o.Beta); err != nil {
		return nil, err
	}
	n := &groupNorm{op: o, images: o.X.Shape[0], channels: lastDim(o.X)}
	n.pixels = elems(o.X) / n.images / n.channels
	n.chunks = min(ceilDiv(n.pixels*n.channels, chunkElems), n.pixels, maxChunks)
	return n, nil
}

func bothPresent(op string, gamma, beta device.Weight) error {
	if gamma.Present() && beta.Present() {
		return nil
	}
	return &device.FieldError{Field: op, Expected: "gamma and beta", Got: "no parameter for one of them"}
}

func (n *groupNorm) carve(c *carver, _ int) {
	n.partial = take[float64](c, n.images*n.chunks*n.channels)
	n.mean = take[float32](c, n.images*n.channels)
	n.scale = take[float32](c, n.images*n.channels)
	n.shift = take[float32](c, n.images*n.channels)
}

func (n *groupNorm) bind(b *binding) []*job {
	n.x, n.out = b.floats(n.op.X), b.floats(n.op.Out)
	n.gamma, n.beta = b.weights.vector(n.op.Gamma), b.weights.vector(n.op.Beta)
	tasks := n.images * n.chunks
	return []*job{
		newJob(tasks, func(_, task int) {
			sums := n.cleared(task)
			for x := range slices.Chunk(n.chunk(n.x, task), n.callElems()) {
				kernel.ColumnSums(sums, x)
			}
		}),
		newJob(1, func(_, _ int) { n.eachGroup(n.setMean) }),
		newJob(tasks, func(_, task int) {
			squares, mean := n.cleared(task), n.channelsOf(n.mean, task/n.chunks)
			for x := range slices.Chunk(n.chunk(n.x, task), n.callElems()) {
				kernel.ColumnSquares(squares, x, mean)
			}
		}),
		newJob(1, func(_, _ int) { n.eachGroup(n.setScale) }),
		newJob(tasks, func(_, task int) {
			image := task / n.chunks
			scale, shift := n.channelsOf(n.scale, image), n.channelsOf(n.shift, image)
			x, out := n.chunk(n.x, task), n.chunk(n.out, task)
			for i := 0; i < len(x); i += n.channels {
				kernel.ScaleShift(out[i:i+n.channels], x[i:], scale, shift, kernel.Act(n.op.Act))
			}
		}),
	}
}

// chunk is the task's pixels of v.
func (n *groupNorm) chunk(v []float32, task int) []float32 {
	image, i := task/n.chunks, task%n.chunks
	first, last := i*n.pixels/n.chunks, (i+1)*n.pixels/n.chunks
	return v[(image*n.pixels+first)*n.channels : (image*n.pixels+last)*n.channels]
}

// callElems is whole pixels of about chunkElems: assembly runs a call to its end before it can be preempted.
func (n *groupNorm) callElems() int { return max(1, chunkElems/n.channels) * n.channels }

func (n *groupNorm) cleared(task int) []float64 {
	p := n.partial[task*n.channels:][:n.channels]
	clear(p)
	return p
}

func (n *groupNorm) channelsOf(v []float32, image int) []float32 {
	return v[image*n.channels:][:n.channels]
}

// eachGroup adds up the partial sums of every group's channels and hands on their average per element.
func (n *groupNorm) eachGroup(set func(first, last int, average float64)) {
	width := n.channels / n.op.Groups
	for image := range n.images {
		for g := range n.op.Groups {
			sum := 0.0
			for i := range n.chunks {
				for _, v := range n.partial[(image*n.chunks+i)*n.channels+g*width:][:width] {
					sum += v
				}
			}
			first := image*n.channels + g*width
			set(first, first+width, sum/float64(width*n.pixels))
		}
	}
}

func (n *groupNorm) setMean(first, last int, mean float64) {
	for i := first; i < last; i++ {
		n.mean[i] = float32(mean)
	}
}

func (n *groupNorm) setScale(first, last int, variance float64) {
	inverse := 1 / math.Sqrt(variance+float64(n.op.Eps))
	for i := first; i < last; i++ {
		c := i % n.channels
		scale := inverse * float64(n.gamma[c])
		n.scale[i] = float32(scale)
		n.shift[i] = float32(float64(n.beta[c]) - scale*float64(n.mean[i]))
	}
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
