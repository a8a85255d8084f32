// Package device is the one seam between networks and hardware. A network declares its
// parameters in a Manifest and records what it computes on a Tape; a Device says from both
// how many bytes that takes, before anything is loaded, and then runs it.
//
// Activations are float32, channels last: [B, H, W, C], [B, T, C] or [B, C]. Parameters stay
// in the type they are stored in (F32, F16, BF16) or become another while they are loaded
// (Param.Resident), and accumulate in float32.
//
// The package may import engine/tensor only; implementations live in folders below it.
package device

import (
	"context"
	"io"

	"github.com/triptych-serving/triptych/engine/tensor"
)

// Device is one piece of hardware that holds parameters and runs tapes. Safe for concurrent use.
type Device interface {
	Planner
	// Memory reports the bytes of parameters and scratch now allocated, and the cap.
	Memory() Memory
	// Activity tells whether loads and executions get on. It waits for nothing.
	Activity() Activity
	// Load reads every parameter of the manifest and packs it into memory of the device, a few
	// megabytes at a time: there is never a second copy of the weights. progress, which may be nil, is
	// called once for each parameter, from this goroutine, with the bytes packed so far; the last
	// call has the Bytes of the result. The caller owns the result and must Free it. src is not needed
	// behind Load, but for a Streamed plan, whose runs read from it until Free. The error wraps ErrUnsupported
	// if the plan asks for what Fit says the device cannot do.
	Load(ctx context.Context, m *Manifest, p LoadPlan, src Source, progress func(doneBytes int64)) (Weights, error)
	// NewRun allocates scratch for the tape over loaded weights, and those of its further manifests. The caller owns it and must Free it
	// before the weights. Of a Streamed plan are the first alone, else the error wraps ErrUnsupported.
	NewRun(t *Tape, w Weights, o RunOptions, further ...Weights) (Run, error)
	// CheckSpill asks the disk whether it has room now for a file of so many bytes, as SpillBytes tells them. The error
	// is a SpillError.
	CheckSpill(bytes int64) error
	// Close gives back the OverheadBytes. Loading and executing fail from then on; what was loaded must still be freed.
	// Idempotent.
	Close() error
}

// Memory is a reading of a device's allocator, in bytes. CapBytes is 0 when there is no cap; it bounds UsedBytes and the
// device's OverheadBytes together.
type Memory struct {
	UsedBytes, PeakBytes, CapBytes int64
	OffloadedBytes                 int64 // in the host's memory; not in the others
	Refused                        int64 // allocations that were ErrOutOfMemory, ever; a count
}

// Activity is a reading of the loads and executions on a device.
type Activity struct {
	Running int    // under way
	Moved   uint64 // another number whenever one of them has got on: by a task of an op, or a chunk of weights
}

// Claim is a device's memory where other processes use it too: each takes what it is about to allocate, so that
// all of them together keep to the device's budget.
type Claim interface {
	// Reserve takes bytes; the error, a BusyError if others hold them, means that nothing was taken.
	Reserve(bytes int64) error
	// Release gives bytes back.
	Release(bytes int64)
}

// Source gives the bytes of a stored tensor (see Param.Section), little-endian and row-major. Sections are read by
// several goroutines at once; those that have the same Outer reader are loaded in the order of their
// offsets there, so that a file is read from its beginning to its end. Streamed ones are read in the order of their use.
type Source interface {
	Section(name string) (*io.SectionReader, error)
}

// Allocation is memory that was taken of a device. The methods are safe for concurrent use.
type Allocation interface {
	// Bytes is what is allocated on the device, or would be if it were not offloaded.
	Bytes() int64
	// Offload takes it off the device and keeps it in the host's memory, to the bit: it is no longer in Memory's UsedBytes
	// nor in the device's claim. What would use it until Onload gets ErrOffloaded. It may take a copy: until that is there,
	// the bytes count on the device. The error is the context's, or the device's; it is then on the device as it was.
	// Idempotent, and nothing once it is freed.
	Offload(ctx context.Context) error
	// Onload makes it the device's again. The error is the context's, a MemoryError if the device has no room, or wraps
	// ErrFreed; it is still offloaded then. Idempotent.
	Onload(ctx context.Context) error
	// Free gives the memory back to the operating system, wherever it is. Idempotent.
	Free()
}

// Weights is one loaded manifest. Of Offload and Free: no Run may still use them; if they are streamed they wait for
// the execution that reads them.
type Weights interface {
	Allocation
}

// Run is one tape with its scratch memory, the Allocation; otherwise not safe for concurrent use. Inputs keep their
// values between executions, so that only what changes is written again.
type Run interface {
	Allocation
	// Write copies v into the named input. Values are in the order of the input's shape.
	Write(input string, v []float32) error
	// WriteIDs copies token ids into the named id input.
	WriteIDs(input string, ids []int32) error
	// Read copies the named output into v.
	Read(output string, v []float32) error
	// Execute runs the tape once, its prologue only if a fixed input was written since the prologue ran
	// last. Whatever the device does beside, nothing of it is under way any more when Execute returns. On cancellation it
	// returns the context's error once the section of the tape under way has ended, or sooner, and can be
	// executed again. Executions over the same streamed weights take turns, and a parameter that
	// cannot be read again is a StreamError, behind which the run can be executed again too.
	Execute(ctx context.Context) error
}

// Layout says how a parameter is used, which decides how a device stores it.
type Layout uint8

// The uses of a parameter.
const (
	Vector Layout = iota + 1 // [n]: bias, norm scale; kept as float32
	Matrix                   // [out, in]: right operand of Gemm
	Filter                   // [out, in, kh, kw]: right operand of Conv2D
	Table                    // [rows, dim]: gathered by Embed
)

// Param is one declared parameter.
type Param struct {
	Name   string // as in the file, for errors and for Source
	Layout Layout
	DType  tensor.DType // as stored
	Shape  tensor.Shape // as used; a stored shape may differ by dimensions of 1
	// From is what the parameter is made of, rows behind rows, if it is not stored under its Name: all of DType. Values are those
	// of a parameter that is stored so, to the bit.
	From []Slice

	// Resident is the type a device keeps the parameter in; zero means as stored. A Matrix or a Filter may be kept in
	// every floating point type, rounded to nearest even, and as integers q with a float32 scale for those of a group:
	// a weight is q*scale, scale = max|w|/limit over the group, q = w/scale rounded to nearest even. A group whose scale
	// would be below the smallest normal float32 is zero.
	//
	//	I8  limit 127; a group is all weights of an output
	//	I4  limit 7; a group is I4Group weights of an output, in the order [kh, kw, in]; the last one may be smaller
	Resident tensor.DType
}

// I4Group is how many weights of an output have one scale if they are kept as I4.
const I4Group = 64

// Manifest lists the parameters of a network in the order they are used.
type Manifest struct{ Params []Param }

// Weight names a parameter of a manifest. The zero Weight is "no parameter", so that optional
// fields of ops (Bias) can be left out.
type Weight struct{ n int }

// Add declares a parameter.
func (m *Manifest) Add(p Param) Weight {
	m.Params = append(m.Params, p)
	return Weight{len(m.Params)}
}

// At gives the parameter a weight names.
func (m *Manifest) At(w Weight) *Param { return &m.Params[w.n-1] }

// Weight names the i-th parameter.
func (m *Manifest) Weight(i int) Weight { return Weight{i + 1} }

// Present reports whether w names a parameter.
func (w Weight) Present() bool { return w.n != 0 }

// Index is the parameter's position in Manifest.Params; w must be Present.
func (w Weight) Index() int { return w.n - 1 }
