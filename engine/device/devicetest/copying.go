package devicetest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/triptych-serving/triptych/engine/device"
)

// CopyingOptions are the settings of a Copying device.
type CopyingOptions struct {
	CapBytes      int64        // most bytes of weights, scratch and overhead; 0 is no cap
	OverheadBytes int64        // see device.Planner
	Claim         device.Claim // asked before memory is taken; nil where no other process uses the device
	Unstreamed    bool         // it holds all weights or none
	// Refuse is asked before memory is taken, and Fail before something is copied to the host: their errors make that fail.
	// nil lets all be.
	Refuse, Fail func(bytes int64) error
}

// Copying is a device with an address space of its own, as a graphics card has one, for machines without:
//
//   - What it holds is reached by copies alone. Inputs and outputs of a run are in buffers of its own.
//   - One goroutine does what it is told, in that order. Write returns before the device has the values. An execution
//     that has begun goes on to its end, however early it is cancelled.
//   - Offload may fail. What is brought back is copied from the host to another place.
//   - It takes memory in pages of 16 KiB, and some for itself.
//   - It does not tell how it computes.
//
// Another device computes, on memory that nobody else has. Its own cap and claim are not asked.
type Copying struct {
	device.Device // computes
	options       CopyingOptions
	ledger        device.Ledger

	mu     sync.Mutex // orders what is told
	queue  chan func()
	closed bool
	ended  sync.WaitGroup
}

const (
	copyingName  = "copying:0"
	copyingPage  = 16 << 10
	copyingBytes = 1 << 40 // that the device has
)

// NewCopying makes a device over inner, which is its own from then on. The error is a device.MemoryError if the overhead
// does not fit.
func NewCopying(inner device.Device, o CopyingOptions) (*Copying, error) {
	c := &Copying{
		Device: inner, options: o, queue: make(chan func(), 16),
		ledger: device.Ledger{Device: copyingName, CapBytes: o.CapBytes, OverheadBytes: o.OverheadBytes, Claim: o.Claim, Refuse: o.Refuse},
	}
	if err := c.ledger.Open(); err != nil {
		return nil, err
	}
	c.ended.Go(func() {
		for do := range c.queue {
			do()
		}
	})
	return c, nil
}

// Name is "copying:0".
func (c *Copying) Name() string { return copyingName }

// Class tells pages, and whether it streams, beside that of the device that computes.
func (c *Copying) Class() string {
	return fmt.Sprintf("copying %d %v over %s", copyingPage, c.options.Unstreamed, c.Device.Class())
}

// OverheadBytes is the option's.
func (c *Copying) OverheadBytes() int64 { return c.options.OverheadBytes }

// Memory is the device's own.
func (c *Copying) Memory() device.Memory { return c.ledger.Memory() }

// WeightBytes is whole pages.
func (c *Copying) WeightBytes(m *device.Manifest, p device.LoadPlan) int64 {
	if c.options.Unstreamed {
		p = device.LoadPlan{}
	}
	return pages(c.Device.WeightBytes(m, p))
}

// Fit is unsupported if the device is Unstreamed.
func (c *Copying) Fit(m *device.Manifest, limit int64) (device.LoadPlan, error) {
	if c.options.Unstreamed {
		return device.LoadPlan{}, c.unsupported("streaming weights")
	}
	return c.Device.Fit(m, limit/copyingPage*copyingPage)
}

// ScratchBytes is whole pages.
func (c *Copying) ScratchBytes(t *device.Tape, o device.RunOptions) (int64, error) {
	bytes, err := c.Device.ScratchBytes(t, whole(o))
	return pages(bytes), err
}

// SpillBytes is that of the device that computes.
func (c *Copying) SpillBytes(t *device.Tape, o device.RunOptions) (int64, error) {
	return c.Device.SpillBytes(t, whole(o))
}

// Convolutions is unsupported.
func (c *Copying) Convolutions(*device.Tape, device.RunOptions) (map[string]int, error) {
	return nil, c.unsupported("telling its algorithms")
}

func (c *Copying) unsupported(what string) error {
	return &device.UnsupportedError{Device: copyingName, What: what}
}

// Load copies what the device reads to the host's memory as well.
func (c *Copying) Load(ctx context.Context, m *device.Manifest, p device.LoadPlan, src device.Source, progress func(int64)) (device.Weights, error) {
	if p.Streamed && c.options.Unstreamed {
		return nil, c.unsupported("streaming weights")
	}
	w := &copiedWeights{device: c, manifest: &device.Manifest{Params: append([]device.Param(nil), m.Params...)}, plan: p, bytes: c.WeightBytes(m, p), host: &mirror{source: src}, turn: make(chan struct{}, 1)}
	if err := c.take(w.bytes); err != nil {
		return nil, err
	}
	tell := progress
	if all := c.Device.WeightBytes(m, p); tell != nil {
		tell = func(done int64) {
			if done == all {
				done = w.bytes
			}
			progress(done)
		}
	}
	loaded, err := c.Device.Load(ctx, w.manifest, p, w.host, tell)
	if err != nil {
		c.ledger.Release(w.bytes)
		return nil, fmt.Errorf("%s: load: %w", copyingName, err)
	}
	w.host.loaded()
	w.loaded = loaded
	return w, nil
}

// NewRun takes buffers for inputs and outputs.
func (c *Copying) NewRun(t *device.Tape, lw device.Weights, o device.RunOptions, further ...device.Weights) (device.Run, error) {
	r := &copiedRun{device: c, tape: t, options: whole(o)}
	for _, lw := range append([]device.Weights{lw}, further...) {
		w, ok := lw.(*copiedWeights)
		if !ok || w.device != c {
			return nil, &device.FieldError{Field: "weights", Expected: "weights loaded on " + copyingName, Got: "another device's"}
		}
		r.weights = append(r.weights, w)
	}
	if err := r.use(func(loaded []device.Weights) error {
		trial, err := c.Device.NewRun(t, loaded[0], r.options, loaded[1:]...)
		if err == nil {
			trial.Free()
		}
		return err
	}); err != nil {
		return nil, fmt.Errorf("%s: new run: %w", copyingName, err)
	}
	var err error
	if r.bytes, err = c.ScratchBytes(t, o); err != nil {
		return nil, err
	}
	if err := c.take(r.bytes); err != nil {
		return nil, err
	}
	r.memory = newBuffers(t)
	return r, nil
}

// Close ends the goroutine behind all that it was told.
func (c *Copying) Close() error {
	c.mu.Lock()
	closed := c.closed
	if !closed {
		close(c.queue)
	}
	c.closed = true
	c.mu.Unlock()
	c.ended.Wait()
	c.ledger.Close()
	return c.Device.Close()
}

// tell has the device do something later, or now once it is closed.
func (c *Copying) tell(do func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		do()
		return
	}
	c.queue <- do
}

// wait has the device do something behind all that it was told, and waits for that.
func (c *Copying) wait(do func()) {
	done := make(chan struct{})
	c.tell(func() {
		defer close(done)
		do()
	})
	<-done
}

// take counts bytes of a new allocation.
func (c *Copying) take(bytes int64) error {
	return c.ledger.Take(bytes, func() error {
		if bytes > copyingBytes {
			return errors.New("more than the device has")
		}
		return nil
	})
}

func pages(bytes int64) int64 { return (bytes + copyingPage - 1) / copyingPage * copyingPage }

// whole has a limit end with a page.
func whole(o device.RunOptions) device.RunOptions {
	if o.ScratchLimit > 0 {
		o.ScratchLimit = max(1, o.ScratchLimit/copyingPage*copyingPage)
	}
	return o
}
