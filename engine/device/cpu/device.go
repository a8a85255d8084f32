// Package cpu runs tapes on the host's processor. Weights and scratch live in memory mapped
// outside the Go heap, counted to the byte against a cap and given back to the operating system
// by Free; the arithmetic is engine/kernel's.
//
// The package may import engine/tensor, engine/device and engine/kernel.
package cpu

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"os"
	"runtime"
	"sync/atomic"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/kernel"
)

// Options are a device's settings; the zero value is a device on all processors without a cap.
type Options struct {
	Index          int          // the number in the name
	Threads        int          // goroutines that compute; 0 is runtime.GOMAXPROCS(0)
	MemoryCapBytes int64        // most bytes of weights and scratch at once; 0 is no cap
	Lease          device.Lease // asked before memory is taken; nil where no other process uses the device
	Conv           Algorithm    // of every convolution that it fits; empty is ConvEnv's, or else the fastest for the shape
	// SpillDir is where the arrays of banded runs go, in files without a name; empty is $TMPDIR, or
	// /var/tmp without that.
	SpillDir string
	// Refuse, which is for tests, is asked before memory is mapped: its error refuses it as the operating system's
	// would. Calls come one at a time. nil refuses nothing.
	Refuse func(bytes int64) error
}

// MaxThreads is more than any machine has, and few enough to start.
const MaxThreads = 4096

// Device is a device.Device with one pool of threads. Runs on it may execute concurrently and
// take turns op by op. Close it when no Run follows; what was loaded must still be freed.
type Device struct {
	name     string
	spillDir string
	room     func(*os.File) (bytes int64, known bool) // of a file's disk
	ledger   *ledger
	pool     *pool
	conv     Algorithm // empty for the fastest
	closed   atomic.Bool
	running  atomic.Int64  // loads and executions under way
	read     atomic.Uint64 // chunks of weights, and pieces of streamed ones
}

var (
	_ device.Device = (*Device)(nil)
	_ device.Active = (*Device)(nil)
)

// New starts a device. The error is a device.FieldError for a setting out of range or a ConvEnv that names no
// algorithm, or kernel.Check's.
func New(o Options) (*Device, error) {
	for _, f := range []struct {
		name       string
		value, top int64
	}{{"Index", int64(o.Index), math.MaxInt32}, {"Threads", int64(o.Threads), MaxThreads}, {"MemoryCapBytes", o.MemoryCapBytes, math.MaxInt64}} {
		if f.value < 0 || f.value > f.top {
			return nil, &device.FieldError{Field: "option " + f.name, Expected: fmt.Sprintf("0 to %d", f.top), Got: fmt.Sprint(f.value)}
		}
	}
	if err := kernel.Check(); err != nil {
		return nil, err
	}
	if o.Threads == 0 {
		o.Threads = runtime.GOMAXPROCS(0)
	}
	conv, err := forcedConv(o.Conv)
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("cpu:%d", o.Index)
	ledger := &ledger{device: name, limit: o.MemoryCapBytes, lease: o.Lease, refuse: o.Refuse}
	return &Device{name: name, spillDir: cmp.Or(o.SpillDir, spillDir()), room: diskRoom, ledger: ledger, pool: newPool(o.Threads), conv: conv}, nil
}

// Name is "cpu:INDEX".
func (d *Device) Name() string { return d.name }

// Threads is how many goroutines compute.
func (d *Device) Threads() int { return d.pool.threads }

// Algorithm is how the device computes a convolution of a tape over m.
func (d *Device) Algorithm(o *device.Conv2D, m *device.Manifest) Algorithm { return d.conv.of(o, m) }

// Memory reads the ledger.
func (d *Device) Memory() device.Memory { return d.ledger.reading() }

// Activity counts tasks of the threads and chunks of weights. A load whose caller is being told of its progress is not
// running: how long that takes is the caller's.
func (d *Device) Activity() device.Activity {
	return device.Activity{Running: int(d.running.Load()), Moved: d.pool.moved() + d.read.Load()}
}

// runs counts a load or an execution until its end.
func (d *Device) runs() (end func()) {
	d.running.Add(1)
	return func() { d.running.Add(-1) }
}

// WeightBytes is the packed parameters, each on a cache line, rounded up to whole pages. For a
// manifest that Load refuses (a parameter without a size) it counts the others.
func (d *Device) WeightBytes(m *device.Manifest) int64 {
	plan, _ := planWeights(m)
	return mappedBytes(plan.bytes)
}

// ScratchBytes is the tape's arrays, then workspace for the op that needs most, rounded up to whole
// pages. The error is that of the tape, or names an op this device cannot run.
func (d *Device) ScratchBytes(t *device.Tape) (int64, error) {
	p, err := planTape(t, d.pool.threads, d.conv)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", d.name, err)
	}
	return mappedBytes(p.bytes()), nil
}

// Load packs the manifest's parameters. progress, which may be nil, is called behind each parameter
// and last with the Bytes of the result. The error is the context's, a device.MemoryError, a
// device.FieldError that names the parameter, or the source's.
func (d *Device) Load(ctx context.Context, m *device.Manifest, src device.Source, progress func(doneBytes int64)) (device.Weights, error) {
	w, err := d.load(ctx, m, src, progress)
	if err != nil {
		return nil, fmt.Errorf("%s: load: %w", d.name, err)
	}
	return w, nil
}

// NewRun places the tape's arrays over weights that Load of an equal manifest gave.
// The error is a device.MemoryError, a device.FieldError, or wraps device.ErrFreed.
func (d *Device) NewRun(t *device.Tape, w device.Weights) (device.Run, error) {
	r, err := d.newRun(t, w)
	if err != nil {
		return nil, fmt.Errorf("%s: new run: %w", d.name, err)
	}
	return r, nil
}

// Close ends the device's threads, behind the op that computes. Executing and loading fail from then
// on; freeing does not. Idempotent.
func (d *Device) Close() error {
	if d.closed.CompareAndSwap(false, true) {
		d.pool.close()
	}
	return nil
}
