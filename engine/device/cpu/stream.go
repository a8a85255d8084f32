package cpu

import (
	"context"
	"io"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// Weights of a Streamed plan that are partly resident: their arena is the resident parameters and two buffers. A
// run cuts its ops into groups whose other parameters fit in a buffer. While the ops of a group compute, one goroutine
// reads and packs the parameters of the next group into the other buffer, as a load would: bound like a load by the
// disk or by the copy from the page cache, and hidden behind the ops where they compute for longer than that.

// notResident is the offset of a parameter that has no place of its own in the arena.
const notResident = -1

// partly leaves matrices and filters behind the first so many bytes of p, and tables, out of the arena, and adds
// two buffers for the largest of them. It is p if that is smaller, or fits in residentBytes.
func (p weightPlan) partly(m *device.Manifest, residentBytes int64) weightPlan {
	if p.bytes <= residentBytes {
		return p
	}
	sizes, vectors := p.sizes(m)
	q, left, full := weightPlan{offsets: make([]int64, len(p.offsets))}, residentBytes-vectors, false
	for i := range m.Params {
		switch param := &m.Params[i]; {
		case keptWhole(param):
		case param.Layout == device.Table:
			q.offsets[i] = notResident
			continue
		case full || sizes[i] > left:
			full = true
			q.offsets[i], q.buffer = notResident, max(q.buffer, sizes[i])
			continue
		default:
			left -= sizes[i]
		}
		q.offsets[i] = q.bytes
		q.bytes += sizes[i]
	}
	if q.bytes += 2 * q.buffer; q.bytes >= p.bytes {
		return p
	}
	return q
}

// keptWhole reports whether a parameter is resident in any case: a vector, or a table whose rows cannot be read as they
// are stored.
func keptWhole(p *device.Param) bool {
	return p.Layout == device.Vector || p.Layout == device.Table && kept(p) != p.DType
}

// sizes is what each parameter takes of the arena, and all vectors together.
func (p weightPlan) sizes(m *device.Manifest) (sizes []int64, vectors int64) {
	sizes = make([]int64, len(p.offsets))
	for i := range m.Params {
		end := p.bytes
		if i+1 < len(p.offsets) {
			end = p.offsets[i+1]
		}
		sizes[i] = end - p.offsets[i]
		if m.Params[i].Layout == device.Vector {
			vectors += sizes[i]
		}
	}
	return sizes, vectors
}

// Fit streams what is behind the longest prefix with which all that is held stays within limit bytes. It always can.
func (*Planner) Fit(m *device.Manifest, limit int64) (device.LoadPlan, error) {
	p, _ := planWeights(m, device.LoadPlan{})
	if mappedBytes(p.bytes) <= limit {
		return device.LoadPlan{}, nil
	}
	sizes, vectors := p.sizes(m)
	largest := make([]int64, len(sizes)+1) // of what is streamed if all from this parameter on is
	held := int64(0)
	for i := len(sizes) - 1; i >= 0; i-- {
		largest[i] = largest[i+1]
		switch param := &m.Params[i]; {
		case keptWhole(param):
			held += sizes[i]
		case param.Layout != device.Table:
			largest[i] = max(largest[i], sizes[i])
		}
	}
	best, least, prefix := int64(0), int64(math.MaxInt64), int64(0)
	for i := range largest {
		bytes := mappedBytes(min(held+prefix+2*largest[i], p.bytes)) // what saves nothing is not streamed
		if bytes <= limit || bytes < least {
			best, least = vectors+prefix, bytes
		}
		if i < len(sizes) && m.Params[i].Layout != device.Vector && m.Params[i].Layout != device.Table {
			prefix += sizes[i]
		}
	}
	return device.LoadPlan{Streamed: true, ResidentBytes: best}, nil
}

// streams reports whether some parameter is not resident.
func (p weightPlan) streams() bool { return slices.Contains(p.offsets, notResident) }

// group is consecutive ops and the parameters they use that are not resident, in one buffer.
type group struct {
	first   int   // op
	params  []int // by index in the manifest
	offsets []int64
}

// groups cuts a tape's ops, and gives the group of each op, -1 for an op before the first group or before the first
// one behind the prologue, which may be executed without those of the prologue.
func (p weightPlan) groups(t *device.Tape) (groups []group, of []int) {
	current, used := -1, int64(0)
	for i, op := range t.Ops() {
		if i == t.Prologue() {
			current = -1
		}
		if w := streamable(op); w.Present() && w.Index() < len(p.offsets) && p.offsets[w.Index()] == notResident {
			n, _ := packedBytes(t.Manifest().At(w)) // it was planned
			n = alignLine(n)
			there := current >= 0 && slices.Contains(groups[current].params, w.Index())
			if !there && (current < 0 || used+n > p.buffer) {
				current, used = len(groups), 0
				groups = append(groups, group{first: i})
			}
			if !there {
				g, buffer := &groups[current], p.bytes-int64(2-current%2)*p.buffer
				g.params, g.offsets = append(g.params, w.Index()), append(g.offsets, buffer+used)
				used += n
			}
		}
		of = append(of, current)
	}
	return groups, of
}

// streamable is the matrix or filter that an op uses, if it does.
func streamable(op device.Op) device.Weight {
	switch o := op.(type) {
	case *device.Gemm:
		return o.W
	case *device.Conv2D:
		return o.W
	}
	return device.Weight{}
}

// StreamedBytes adds up what the groups of a run read.
func (*Planner) StreamedBytes(t *device.Tape, l device.LoadPlan) int64 {
	plan, _ := planWeights(t.Manifests()[0], l)
	groups, _ := plan.groups(t)
	sum := int64(0)
	for _, g := range groups {
		for _, i := range g.params {
			if p := &t.Manifest().Params[i]; g.first >= t.Prologue() {
				n, _ := p.Shape.Elems()
				sum += int64(n * p.DType.Size())
			}
		}
	}
	return sum
}

// stream is how weights read what is not resident. One execution at a time has the turn, and with it the buffers.
type stream struct {
	pieces  [][]piece // by index in the manifest; nil if resident
	staging *staging
	turn    chan struct{} // holds a token while somebody has it
	failed  atomic.Pointer[device.StreamError]
}

func newStream(params int) *stream {
	return &stream{pieces: make([][]piece, params), turn: make(chan struct{}, 1)}
}

// prepare makes the memory that pieces are read into.
func (s *stream) prepare(w *weights) {
	l := &loading{weights: w}
	for i, pieces := range s.pieces {
		for _, p := range pieces {
			if w.params[i].Layout != device.Table {
				l.buffer = max(l.buffer, int(p.bytes))
			}
		}
	}
	s.staging = l.newStaging()
}

// feed is what one run over partly resident weights streams.
type feed struct {
	*weights
	groups []group
	of     []int      // by op: its group, or -1
	views  []*weights // by group: the weights as its ops find them
}

// newFeed is nil if every parameter is resident.
func newFeed(w *weights, t *device.Tape) *feed {
	if w.stream == nil {
		return nil
	}
	f := &feed{weights: w}
	f.groups, f.of = w.plan.groups(t)
	for _, g := range f.groups {
		plan := weightPlan{offsets: slices.Clone(w.plan.offsets)}
		for i, param := range g.params {
			plan.offsets[param] = g.offsets[i]
		}
		f.views = append(f.views, w.view(plan, w.further))
	}
	return f
}

// weightsOf is the weights as an op finds them.
func (f *feed) weightsOf(op int) *weights {
	if f.of[op] < 0 {
		return f.weights
	}
	return f.views[f.of[op]]
}

// execute does ops first to last, the latter not included, each when its parameters are there. The error is do's,
// the context's, a device.StreamError, or wraps device.ErrFreed or device.ErrOffloaded.
func (f *feed) execute(ctx context.Context, first, last int, do func(op int) error) error {
	if f != nil {
		return f.streamed(ctx, first, last, do)
	}
	for op := first; op < last; op++ {
		if err := do(op); err != nil {
			return err
		}
	}
	return nil
}

func (f *feed) streamed(ctx context.Context, first, last int, do func(op int) error) error {
	select {
	case f.stream.turn <- struct{}{}:
		defer func() { <-f.stream.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := f.usable(); err != nil { // since the run was asked to execute
		return err
	}
	f.stream.failed.Store(nil)
	filling, stop := context.WithCancel(ctx)
	filled := make(chan error) // one for each group, without a buffer: the next group is read when its taker has begun
	var filler sync.WaitGroup
	filler.Go(func() { f.fill(filling, first, filled) })
	defer filler.Wait()
	defer stop()
	present := -1
	for op := first; op < last; op++ {
		if group := f.of[op]; group > present {
			select {
			case err := <-filled:
				if err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
			present = group
		}
		if err := do(op); err != nil {
			return err
		}
		if err := f.stream.failed.Load(); err != nil {
			return err
		}
	}
	return nil
}

// fill reads the groups from op first on, and hands over each. It ends behind the last, an error, or when ctx does.
func (f *feed) fill(ctx context.Context, first int, filled chan<- error) {
	for i, g := range f.groups {
		if g.first < first {
			continue
		}
		err := f.read(ctx, g.params, f.views[i])
		select {
		case filled <- err:
		case <-ctx.Done():
		}
		if err != nil || ctx.Err() != nil {
			return
		}
	}
}

// read packs parameters where view has them, and ends within one piece when ctx does.
func (f *feed) read(ctx context.Context, params []int, view *weights) error {
	l, s := &loading{weights: view}, f.stream.staging
	for _, param := range params {
		for _, p := range f.stream.pieces[param] {
			if err := ctx.Err(); err != nil {
				return err
			}
			data := s.read[:p.bytes]
			_, err := p.stored.ReadAt(data, p.offset)
			if err == nil {
				err = l.pack(p, data, s)
			}
			f.dev.read.Add(1)
			if err != nil {
				return f.streamError(param, err)
			}
		}
	}
	return nil
}

func (w *weights) streamError(param int, err error) *device.StreamError {
	return &device.StreamError{Device: w.dev.name, Parameter: w.params[param].Name, Err: err}
}

// table is a Table: in memory, or read row by row.
type table struct {
	packed
	weights *weights
	param   int
	stored  *io.SectionReader // nil if it is in memory
}

func (w *weights) table(at device.Weight) table {
	own, i := w.place(at)
	if own.plan.offsets[i] != notResident {
		return table{packed: w.packed(at)}
	}
	return table{weights: own, param: i, stored: own.stream.pieces[i][0].stored}
}

// get gives a row as float32, of as many values as buf and via have: where it is, or in buf. A row that is read and
// is not float32 passes through via. A failure is the stream's, for execute to find.
func (t table) get(row int, buf, via []float32) []float32 {
	if t.stored == nil {
		return t.widen(row*len(buf), len(buf), buf)
	}
	dtype := t.weights.params[t.param].DType
	if dtype == tensor.F32 {
		via = buf
	}
	data := raw(via)[:len(buf)*dtype.Size()]
	if _, err := t.stored.ReadAt(data, int64(row*len(data))); err != nil {
		t.weights.stream.failed.Store(t.weights.streamError(t.param, err))
		clear(buf)
		return buf
	}
	return floats(dtype, data, buf)
}
