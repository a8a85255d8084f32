package cpu

import (
	"fmt"
	"syscall"

	"github.com/triptych-serving/triptych/engine/device"
)

var _ device.Spiller = within{}

// within is a device whose runs keep to a limit of scratch.
type within struct {
	*Device
	limit int64
}

// Within is the same device, whose runs take at most so many bytes of scratch where they can: what does
// not fit whole is computed in bands, with its arrays in a file, to the same values but for rounding.
// Such a run takes the largest bands up to 64x64 pixels that fit, or 16x16 if none do, however large
// its images are.
func (d *Device) Within(scratchBytes int64) device.Device { return within{d, scratchBytes} }

// ScratchBytes is what NewRun will allocate: for a banded run the windows of the op that needs most,
// with its kernels' workspace.
func (w within) ScratchBytes(t *device.Tape) (int64, error) {
	whole, banded, err := w.plan(t)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", w.name, err)
	}
	if banded != nil {
		return mappedBytes(banded.bytes), nil
	}
	return mappedBytes(whole.bytes()), nil
}

// SpillBytes is the arrays of a banded run.
func (w within) SpillBytes(t *device.Tape) (int64, error) {
	_, banded, err := w.plan(t)
	if err != nil || banded == nil {
		return 0, err
	}
	return banded.arrays.Bytes, nil
}

// CheckSpill makes such a file and takes it away again.
func (w within) CheckSpill(bytes int64) error {
	file, err := newSpill(w.name, w.spillDir, bytes)
	if err != nil {
		return err
	}
	defer file.close()
	if room, known := w.room(file.file); known && room < bytes {
		return &device.SpillError{Device: w.name, Bytes: bytes, AvailableBytes: room, Err: syscall.ENOSPC}
	}
	return nil
}

// NewRun is whole or banded. Beside what Device.NewRun gives, the error may be a device.SpillError.
func (w within) NewRun(t *device.Tape, lw device.Weights) (device.Run, error) {
	r, err := w.newRun(t, lw)
	if err != nil {
		return nil, fmt.Errorf("%s: new run: %w", w.name, err)
	}
	return r, nil
}

func (w within) newRun(t *device.Tape, lw device.Weights) (device.Run, error) {
	_, banded, err := w.plan(t)
	if err != nil {
		return nil, err
	}
	if banded == nil {
		return w.Device.newRun(t, lw)
	}
	return w.newBandedRun(t, lw, banded)
}

// plan is what ScratchBytes and NewRun share: banded is nil if the tape runs whole.
func (w within) plan(t *device.Tape) (whole *program, banded *bandedProgram, err error) {
	if whole, err = w.program(t); err != nil || mappedBytes(whole.bytes()) <= w.limit {
		return whole, nil, err
	}
	if banded, err = w.planBanded(t, w.limit); err != nil || banded.bytes >= whole.bytes() {
		return whole, nil, err
	}
	return whole, banded, nil
}

// program plans a tape as the device runs it.
func (d *Device) program(t *device.Tape) (*program, error) {
	return planTape(t, d.pool.threads, d.conv)
}
