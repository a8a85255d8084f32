package cpu

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/triptych-serving/triptych/engine/device"
)

// chunkBytes is what a thread reads at a time, at least one panel: small enough that what was read is still in L2 while
// it is packed (measured: 1 MiB costs a tenth more), large enough that the system reads ahead.
const chunkBytes = 256 << 10

// maxStretch is the chunks that a thread takes at a time, 4 MiB: two threads that filled one large page of the arena would
// both clear one, and the load takes a tenth longer.
const maxStretch = 16

// loading is one Load. Each thread takes the next few chunks, reads and packs them, so that together they go through a file and
// the system reads ahead. Bound by the disk, or else by the system: it copies from the page cache, and clears the
// arena's pages before they are written.
type loading struct {
	*weights
	chunks [][]piece
	buffer int // bytes of the largest chunk

	stretch int          // chunks that a thread takes at a time
	next    atomic.Int64 // chunk that nobody has taken
}

// piece is whole rows of a packed parameter: panels, rows of a table, a vector.
type piece struct {
	param         int
	first         int               // row
	stored        *io.SectionReader // of the parameter
	offset, bytes int64             // of the piece there
}

func (d *Device) load(ctx context.Context, m *device.Manifest, p device.LoadPlan, src device.Source, progress func(int64)) (*weights, error) {
	if d.closed.Load() {
		return nil, device.ErrFreed
	}
	defer d.runs()()
	plan, err := planWeights(m, p)
	if err != nil {
		return nil, err
	}
	arena, err := newArena(d.ledger, plan.bytes)
	if err != nil {
		return nil, err
	}
	l := &loading{weights: &weights{dev: d, plan: plan, arena: arena, params: slices.Clone(m.Params)}}
	if plan.streams() {
		l.stream = newStream(len(m.Params))
	}
	pieces, err := l.cut(src)
	if err == nil {
		err = l.run(ctx, pieces, progress)
	}
	if err != nil {
		arena.free()
		return nil, err
	}
	if l.stream != nil {
		l.stream.prepare(l.weights)
	}
	return l.weights, nil
}

// cut lists the pieces in the order of the files, and the chunks of them. It returns how many pieces each
// parameter has; those that are not resident have none, and their pieces are the stream's.
func (l *loading) cut(src device.Source) ([]int, error) {
	type place struct {
		file   int // by first appearance
		offset int64
		param  int
		stored *io.SectionReader
	}
	var places []place
	files := map[io.ReaderAt]int{}
	total := int64(0)
	for i := range l.params {
		p := &l.params[i]
		stored, err := p.Section(src)
		if err != nil {
			return nil, err
		}
		if l.plan.offsets[i] == notResident {
			l.stream.pieces[i] = piecesOf(p, i, stored)
			continue
		}
		first := stored
		if p.From != nil {
			if first, err = src.Section(p.From[0].Name); err != nil {
				return nil, err
			}
		}
		file, offset, _ := first.Outer()
		if _, ok := files[file]; !ok {
			files[file] = len(files)
		}
		places = append(places, place{files[file], offset, i, stored})
		total += stored.Size()
	}
	slices.SortStableFunc(places, func(a, b place) int { return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.offset, b.offset)) })
	counts := make([]int, len(l.params))
	size, most := int64(0), min(chunkBytes, total/int64(tasksPerThread*l.dev.threads))
	for _, at := range places {
		for _, p := range piecesOf(&l.params[at.param], at.param, at.stored) {
			if len(l.chunks) == 0 || size+p.bytes > most {
				l.chunks, size = append(l.chunks, nil), 0
			}
			last := &l.chunks[len(l.chunks)-1]
			*last = append(*last, p)
			size += alignLine(p.bytes)
			l.buffer = max(l.buffer, int(size))
			counts[at.param]++
		}
	}
	return counts, nil
}

// piecesOf cuts one parameter into pieces of a chunk's size at most, or of one row.
func piecesOf(p *device.Param, param int, stored *io.SectionReader) []piece {
	rows, _ := packedShape(p)
	bytes := storedRow(p)
	each := int(max(1, chunkBytes/bytes))
	var pieces []piece
	for first := 0; first < rows; first += each {
		offset := int64(first) * bytes
		pieces = append(pieces, piece{param, first, stored, offset, min(int64(each)*bytes, stored.Size()-offset)})
	}
	return pieces
}

// run packs everything on as many goroutines as the device has threads. They are not the device's own,
// which must not wait for a disk while another run computes.
func (l *loading) run(ctx context.Context, pieces []int, progress func(int64)) error {
	running, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	packed := make(chan int, 64) // the parameters of pieces that are done
	l.stretch = max(1, min(maxStretch, len(l.chunks)/(tasksPerThread*l.dev.threads)))
	var group sync.WaitGroup
	for range min(l.dev.threads, len(l.chunks)) {
		group.Go(func() {
			if err := l.work(running, packed); err != nil {
				stop(err)
			}
		})
	}
	go func() {
		group.Wait()
		close(packed)
	}()
	done, left := int64(0), len(l.params)
	tell := func(bytes int64) {
		done += bytes
		if left--; left == 0 {
			done = l.arena.bytes()
		}
		if progress != nil && running.Err() == nil {
			l.dev.running.Add(-1)
			progress(done)
			l.dev.running.Add(1)
		}
	}
	for _, n := range pieces {
		if n == 0 { // not resident
			tell(0)
		}
	}
	for param := range packed {
		if pieces[param]--; pieces[param] > 0 {
			continue
		}
		bytes, _ := packedBytes(&l.params[param]) // it was planned
		tell(alignLine(bytes))
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return context.Cause(running)
}

// work packs chunk after chunk. On cancellation it returns within one chunk.
func (l *loading) work(ctx context.Context, packed chan<- int) error {
	s := l.newStaging()
	for {
		chunk, err := l.read(ctx, s)
		if err != nil || chunk == nil {
			return err
		}
		data := s.read
		for _, p := range chunk {
			if err := l.pack(p, data[:p.bytes], s); err != nil {
				return err
			}
			data = data[alignLine(p.bytes):]
			packed <- p.param
		}
	}
}

// read reads the pieces of the next chunk, each to a cache line behind the
// one before; nil at the end.
func (l *loading) read(ctx context.Context, s *staging) ([]piece, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if l.dev.closed.Load() {
		return nil, device.ErrFreed
	}
	if s.next == s.end {
		s.end = int(l.next.Add(int64(l.stretch)))
		s.next = s.end - l.stretch
	}
	if s.next >= len(l.chunks) {
		return nil, nil
	}
	chunk, data := l.chunks[s.next], s.read
	s.next++
	for _, p := range chunk {
		if _, err := p.stored.ReadAt(data[:p.bytes], p.offset); err != nil {
			return nil, fmt.Errorf("parameter %s: %w", l.params[p.param].Name, err)
		}
		l.dev.read.Add(1)
		data = data[alignLine(p.bytes):]
	}
	return chunk, nil
}

// pack puts the stored bytes of a piece in their place.
func (l *loading) pack(at piece, data []byte, s *staging) error {
	p := &l.params[at.param]
	mem := l.arena.mem[l.plan.offsets[at.param]:]
	switch p.Layout {
	case device.Table:
		copy(mem[at.offset:], data)
		return nil
	case device.Vector:
		values := view[float32](mem, p.Shape[0])
		copy(values, floats(p.DType, data, values)) // unless they are there already
		return nil
	}
	return packPanels(p, mem, data, at.first, s)
}
