package device

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// ErrOutOfMemory is wrapped by every error that means an allocation would exceed the
// device's memory cap. Nothing was allocated.
var ErrOutOfMemory = errors.New("device out of memory")

// ErrUnsupported is wrapped by every error that means a device cannot do what another one could.
var ErrUnsupported = errors.New("not supported")

// ErrFreed is wrapped by every error that means memory was used after its Free, or a device after
// it was closed.
var ErrFreed = errors.New("used after it was freed")

// ErrOffloaded is wrapped by every error that means memory was used between its Offload and its Onload.
var ErrOffloaded = errors.New("used while it is offloaded")

// MemoryError is an allocation that did not happen. It wraps ErrOutOfMemory.
type MemoryError struct {
	Device         string
	NeededBytes    int64
	AvailableBytes int64 // what was left under the cap; -1 when there is no cap
	CapBytes       int64 // 0 when there is no cap
	Err            error // what the operating system said, nil when the cap refused
}

// Error reads "cpu:0: out of memory: needs 4096 bytes, 1024 of 8192 are available".
func (e *MemoryError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: out of memory: needs %d bytes: %v", e.Device, e.NeededBytes, e.Err)
	}
	return fmt.Sprintf("%s: out of memory: needs %d bytes, %d of %d are available", e.Device, e.NeededBytes, e.AvailableBytes, e.CapBytes)
}

// Unwrap gives ErrOutOfMemory and the cause.
func (e *MemoryError) Unwrap() []error {
	if e.Err != nil {
		return []error{ErrOutOfMemory, e.Err}
	}
	return []error{ErrOutOfMemory}
}

// UnsupportedError is something a device cannot do. It wraps ErrUnsupported.
type UnsupportedError struct {
	Device string
	What   string // "streaming weights", "a CUDA device"
	Needs  string // what it would take; may be empty
}

// Error reads "cuda:0: a CUDA device is not supported: needs a build with engine/device/cuda".
func (e *UnsupportedError) Error() string {
	text := fmt.Sprintf("%s: %s is %v", e.Device, e.What, ErrUnsupported)
	if e.Needs != "" {
		text += ": needs " + e.Needs
	}
	return text
}

// Unwrap gives ErrUnsupported.
func (e *UnsupportedError) Unwrap() error { return ErrUnsupported }

// BusyError is memory that other processes on the device hold or have waited for longer; a MemoryError wraps it.
type BusyError struct {
	NeededBytes, AvailableBytes int64
	OthersBytes                 int64 // held by other processes
	AwaitedBytes                int64 // that others wait for and will have first
	BudgetBytes                 int64
}

// Error reads "needs 4096 bytes, available are 1024 of a budget of 8192: other processes hold 7168 and 0 are awaited".
func (e *BusyError) Error() string {
	return fmt.Sprintf("needs %d bytes, available are %d of a budget of %d: other processes hold %d and %d are awaited",
		e.NeededBytes, e.AvailableBytes, e.BudgetBytes, e.OthersBytes, e.AwaitedBytes)
}

// FieldError is an argument that does not fit: the name of an input, output or parameter, or its
// values.
type FieldError struct {
	Field    string // "input ids", "parameter conv_in.weight"
	Expected string
	Got      string
}

// Error reads "input ids: expected ids from 0 to 99, got 100 at 3".
func (e *FieldError) Error() string {
	return fmt.Sprintf("%s: expected %s, got %s", e.Field, e.Expected, e.Got)
}

// SpillError is a temporary file for the arrays of a run that could not be made, written or read: the
// disk is full, say. Nothing is left of the file.
type SpillError struct {
	Device         string
	Bytes          int64 // of the file
	AvailableBytes int64 // that the disk has; 0 where there is no disk to ask
	Err            error // what the operating system said
}

// NoRoom tells whether there is no place for such a file, rather than a fault of the disk.
func (e *SpillError) NoRoom() bool {
	for _, why := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, syscall.EROFS, syscall.ENOTDIR, fs.ErrNotExist, fs.ErrPermission} {
		if errors.Is(e.Err, why) {
			return true
		}
	}
	return false
}

// Error reads "cpu:0: 4096 bytes in a temporary file: no space left on device".
func (e *SpillError) Error() string {
	return fmt.Sprintf("%s: %d bytes in a temporary file: %v", e.Device, e.Bytes, e.Err)
}

// Unwrap gives the cause.
func (e *SpillError) Unwrap() error { return e.Err }

// StreamError is a parameter that could not be read again while a run was executed: its file was cut, or the
// disk is gone.
type StreamError struct {
	Device    string
	Parameter string
	Err       error // the source's
}

// Error reads "cpu:0: stream parameter conv_in.weight: FILE: expected 8 bytes, got 4".
func (e *StreamError) Error() string {
	return fmt.Sprintf("%s: stream parameter %s: %v", e.Device, e.Parameter, e.Err)
}

// Unwrap gives the cause.
func (e *StreamError) Unwrap() error { return e.Err }
