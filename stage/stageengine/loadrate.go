package stageengine

import (
	"context"
	"errors"
	"time"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/stage"
)

// LoadRate is how fast weights are loaded.
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

// The bounds of a measurement: enough for a rate within some percent, and what a caller may wait.
const (
	rateSample    = 64 << 20
	rateParameter = rateSample / 2
	rateReading   = 400 * time.Millisecond
	rateLoads     = 3
	rateLoading   = 300 * time.Millisecond // no load begins later
	rateChunk     = 1 << 20
)

// MeasureLoad reads some of the denoiser's weights, and then loads them on d, which has room for 64 MiB and more. The
// model's weights are Present.
func (e Estimate) MeasureLoad(ctx context.Context, d device.Device) (rate LoadRate, err error) {
	part := e.outline.Denoiser
	src, err := part.OpenSource()
	if err != nil {
		return rate, modelError(err, stage.KindDenoiser, e.outline.Pipeline, e.outline.Path)
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	sample := &device.Manifest{}
	left := int64(rateSample)
	for _, p := range part.Manifest.Params {
		n, _ := p.Shape.Elems()
		if bytes := int64(n * p.DType.Size()); bytes <= min(left, rateParameter) {
			left -= bytes
			sample.Add(p)
		}
	}
	whole := &device.Manifest{}
	stored := int64(0)
	chunk := make([]byte, rateChunk)
	begin := time.Now()
	for _, p := range sample.Params {
		section, err := src.Section(p.Name)
		if err != nil {
			return rate, err
		}
		at := int64(0)
		for at < section.Size() && time.Since(begin) < rateReading {
			n := min(rateChunk, section.Size()-at)
			if _, err := section.ReadAt(chunk[:n], at); err != nil {
				return rate, err
			}
			at += n
		}
		if rate.SampleBytes += at; at < section.Size() {
			break
		}
		whole.Add(p)
		stored += at
	}
	rate.ReadBytesPerSecond = float64(rate.SampleBytes) / time.Since(begin).Seconds()
	if stored == 0 {
		return rate, nil
	}
	for begin, tries := time.Now(), 0; tries < rateLoads && (tries == 0 || time.Since(begin) < rateLoading); tries++ {
		start := time.Now()
		weights, err := d.Load(ctx, whole, src, nil)
		if err != nil {
			return rate, err
		}
		// The fastest: what else the machine does can only slow a load.
		rate.PackBytesPerSecond = max(rate.PackBytesPerSecond, float64(stored)/time.Since(start).Seconds())
		weights.Free()
	}
	return rate, nil
}
