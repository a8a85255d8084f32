package planner

import (
	"context"
	"errors"
	"time"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stageengine"
)

// LoadRate is how fast weights of a stage are loaded.
type LoadRate struct {
	ReadBytesPerSecond float64 // of stored weights, from the disk, or from the page cache where they are there
	PackBytesPerSecond float64 // of stored weights that are in the page cache; 0 if the reading took all the time
	SampleBytes        int64   // that were measured
}

// BytesPerSecond is how fast stored weights become ready: threads read while others pack.
func (r LoadRate) BytesPerSecond() float64 {
	if r.PackBytesPerSecond == 0 {
		return r.ReadBytesPerSecond
	}
	return min(r.ReadBytesPerSecond, r.PackBytesPerSecond)
}

// The bounds of all measurements together but for the sample, which is each one's: enough for a rate within some percent, and what
// a caller may wait.
const (
	rateSample  = 64 << 20
	rateReading = 400 * time.Millisecond
	rateLoading = 400 * time.Millisecond
	rateLoads   = 3
	rateChunk   = 1 << 20
)

// MeasureLoad reads some of a stage's weights, which are Present, and then loads them on d, which has room for 64 MiB and more. It
// is one of so many measurements that share their time.
func (s *StageEstimate) MeasureLoad(ctx context.Context, d device.Device, of int) (LoadRate, error) {
	var m measurement
	for _, c := range s.components {
		switch err := m.measure(ctx, d, c, s.options, of*len(s.components)); {
		case ctx.Err() != nil:
			return LoadRate{}, ctx.Err()
		case err != nil:
			return LoadRate{}, stageengine.ModelError(err, s.Kind, stage.ModelOf(c.Name), s.paths[stage.ModelOf(c.Name)])
		}
	}
	rate := LoadRate{ReadBytesPerSecond: float64(m.read) / m.reading.Seconds(), SampleBytes: m.read}
	if m.packing > 0 {
		rate.PackBytesPerSecond = m.packed / m.packing.Seconds()
	}
	return rate, nil
}

// measurement adds up what was measured of the networks of a stage.
type measurement struct {
	read             int64   // bytes
	packed           float64 // stored bytes
	reading, packing time.Duration
}

// measure adds a network, in its part of the time.
func (m *measurement) measure(ctx context.Context, d device.Device, part family.Component, o modeldir.Options, of int) (err error) {
	net, err := part.Open(o)
	if err != nil {
		return err
	}
	files := net.Files()
	defer func() { err = errors.Join(err, files.Close()) }()
	sample := &device.Manifest{}
	left := int64(rateSample)
	for _, p := range files.Manifest().Params {
		n, _ := p.Shape.Elems()
		if bytes := int64(n * p.DType.Size()); bytes <= min(left, rateSample/2) {
			left -= bytes
			sample.Add(p)
		}
	}
	whole, stored, err := m.readAll(ctx, sample, files.Source(), rateReading/time.Duration(of))
	if err != nil || stored == 0 {
		return err
	}
	return m.packAll(ctx, d, whole, files.Source(), stored, rateLoading/time.Duration(of))
}

// readAll reads for some time and gives the parameters that were read whole, with their bytes.
func (m *measurement) readAll(ctx context.Context, sample *device.Manifest, src device.Source, span time.Duration) (whole *device.Manifest, stored int64, err error) {
	whole = &device.Manifest{}
	chunk := make([]byte, rateChunk)
	begin := time.Now()
	defer func() { m.reading += time.Since(begin) }()
	for _, p := range sample.Params {
		section, err := p.Section(src)
		if err != nil {
			return nil, 0, err
		}
		at := int64(0)
		for at < section.Size() && time.Since(begin) < span && ctx.Err() == nil {
			n := min(rateChunk, section.Size()-at)
			if _, err := section.ReadAt(chunk[:n], at); err != nil {
				return nil, 0, err
			}
			at += n
		}
		if m.read += at; at < section.Size() {
			break
		}
		whole.Add(p)
		stored += at
	}
	return whole, stored, ctx.Err()
}

// packAll loads parameters of so many stored bytes for some time, if need be not to their end.
func (m *measurement) packAll(ctx context.Context, d device.Device, whole *device.Manifest, src device.Source, stored int64, span time.Duration) error {
	begin := time.Now() // before the time begins that a load may be cut off by
	short, cancel := context.WithTimeout(ctx, span)
	defer cancel()
	best, least := 0.0, time.Duration(0) // stored bytes, and the time they took
	for try := 0; try < rateLoads && short.Err() == nil; try++ {
		done := int64(0)
		if try > 0 {
			begin = time.Now()
		}
		weights, err := d.Load(short, whole, device.LoadPlan{}, src, func(bytes int64) { done = bytes })
		took := time.Since(begin)
		share := 1.0
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			weights.Free()
		case !errors.Is(err, context.DeadlineExceeded):
			return err
		case try > 0:
			continue
		default:
			share = min(1, float64(done)/float64(d.WeightBytes(whole, device.LoadPlan{})))
		}
		// The fastest: what else the machine does can only slow a load.
		if n := share * float64(stored); n > 0 && (least == 0 || n/took.Seconds() > best/least.Seconds()) {
			best, least = n, took
		}
	}
	m.packed += best
	m.packing += least
	return nil
}
