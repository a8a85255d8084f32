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
	"os"
	"sync/atomic"
	"syscall"

	"github.com/triptych-serving/triptych/engine/device"
)

// Options are a device's settings; the zero value is a device on all processors without a cap.
type Options struct {
	Index          int          // the number in the name
	Threads        int          // goroutines that compute; 0 is runtime.GOMAXPROCS(0)
	MemoryCapBytes int64        // most bytes of weights and scratch at once; 0 is no cap
	Claim          device.Claim // asked before memory is taken; nil where no other process uses the device
	Conv           Algorithm    // of every convolution that it fits; empty is ConvEnv's, or else the fastest for the shape
	// SpillDir is where the arrays of banded runs go, in files without a name; empty is $TMPDIR, or
	// /var/tmp without that.
	SpillDir string
	// Emulate, which is for tests, has types in plain Go that the processor does not multiply.
	Emulate bool
	// Refuse, which is for tests, is asked before memory is mapped: its error refuses it as the operating system's
	// would. Calls come one at a time. nil refuses nothing.
	Refuse func(bytes int64) error
}

// MaxThreads is more than any machine has, and few enough to start.
const MaxThreads = 4096

// Device is a device.Device with one pool of threads. Runs on it may execute concurrently and
// take turns op by op. Close it when no Run follows; what was loaded must still be freed.
type Device struct {
	*Planner
	spillDir string
	room     func(*os.File) (bytes int64, known bool) // of a file's disk
	ledger   *device.Ledger
	pool     *pool
	closed   atomic.Bool
	running  atomic.Int64  // loads and executions under way
	read     atomic.Uint64 // chunks of weights, and pieces of streamed ones
}

var _ device.Device = (*Device)(nil)

// New starts a device. The error is NewPlanner's.
func New(o Options) (*Device, error) {
	p, err := NewPlanner(o)
	if err != nil {
		return nil, err
	}
	ledger := &device.Ledger{Device: p.name, CapBytes: o.MemoryCapBytes, Claim: o.Claim, Refuse: o.Refuse}
	return &Device{Planner: p, spillDir: cmp.Or(o.SpillDir, spillDir()), room: diskRoom, ledger: ledger, pool: newPool(p.threads)}, nil
}

// Memory reads the ledger.
func (d *Device) Memory() device.Memory { return d.ledger.Memory() }

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

// Load packs the manifest's parameters. progress, which may be nil, is called behind each parameter
// and last with the Bytes of the result. The error is the context's, a device.MemoryError, a
// device.FieldError that names the parameter, or the source's.
func (d *Device) Load(ctx context.Context, m *device.Manifest, p device.LoadPlan, src device.Source, progress func(doneBytes int64)) (device.Weights, error) {
	w, err := d.load(ctx, m, p, src, progress)
	if err != nil {
		return nil, fmt.Errorf("%s: load: %w", d.name, err)
	}
	return w, nil
}

// NewRun places the tape's arrays over weights that Load of an equal manifest gave, whole or in bands. The error is a
// device.MemoryError, a device.FieldError, a device.SpillError, or wraps device.ErrFreed.
func (d *Device) NewRun(t *device.Tape, w device.Weights, o device.RunOptions, further ...device.Weights) (device.Run, error) {
	r, err := d.newRun(t, append([]device.Weights{w}, further...), o)
	if err != nil {
		return nil, fmt.Errorf("%s: new run: %w", d.name, err)
	}
	return r, nil
}

// CheckSpill makes such a file and takes it away again.
func (d *Device) CheckSpill(bytes int64) error {
	file, err := newSpill(d.name, d.spillDir, bytes)
	if err != nil {
		return err
	}
	defer file.close()
	if room, known := d.room(file.file); known && room < bytes {
		return &device.SpillError{Device: d.name, Bytes: bytes, AvailableBytes: room, Err: syscall.ENOSPC}
	}
	return nil
}

// Close ends the device's threads, behind the op that computes. Executing and loading fail from then
// on; freeing does not. Idempotent.
func (d *Device) Close() error {
	if d.closed.CompareAndSwap(false, true) {
		d.pool.close()
	}
	return nil
}
