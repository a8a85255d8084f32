package cpu

import (
	"fmt"
	"math"
	"runtime"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/kernel"
)

// Planner is the device.Planner of a Device of the same options. It holds nothing and starts nothing.
type Planner struct {
	name    string
	threads int
	conv    Algorithm // empty for the fastest
	emulate bool
	compute device.Compute // of the runs that it plans
}

var _ device.Planner = (*Planner)(nil)

// NewPlanner plans for a device. The error is a device.FieldError for a setting out of range or a ConvEnv that names no
// algorithm, or kernel.Check's.
func NewPlanner(o Options) (*Planner, error) {
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
	return &Planner{name: fmt.Sprintf("cpu:%d", o.Index), threads: o.Threads, conv: conv, emulate: o.Emulate}, nil
}

// computing is the planner for runs of a type. The error is a device.UnsupportedError.
func (p *Planner) computing(c device.Compute) (*Planner, error) {
	if c != device.ComputeF32 && (c != device.ComputeBF16 || !kernel.HasBF16() && !p.emulate) {
		needs := ""
		if c == device.ComputeBF16 {
			needs = "a processor with AVX512_BF16, and " + kernel.Env + " not to force other kernels than " + kernel.AVX512
		}
		return nil, &device.UnsupportedError{Device: p.name, What: fmt.Sprintf("computing in %v", c), Needs: needs}
	}
	of := *p
	of.compute = c
	return &of, nil
}

// Name is "cpu:INDEX".
func (p *Planner) Name() string { return p.name }

// Class tells the threads, each of which has a workspace, the kernels, and how convolutions are computed.
func (p *Planner) Class() string {
	return fmt.Sprintf("cpu %d %s %s", p.threads, kernel.Variant(), p.conv)
}

// Threads is how many goroutines compute.
func (p *Planner) Threads() int { return p.threads }

// OverheadBytes is 0: what the process has beside weights and scratch is the host's, like all of it.
func (p *Planner) OverheadBytes() int64 { return 0 }

// Algorithm is how the device computes a convolution of a tape over m.
func (p *Planner) Algorithm(o *device.Conv2D, m *device.Manifest) Algorithm {
	return p.conv.of(o, m, p.compute)
}

// WeightBytes is the packed parameters, each on a cache line, rounded up to whole pages. For a
// manifest that Load refuses (a parameter without a size) it counts the others.
func (p *Planner) WeightBytes(m *device.Manifest, l device.LoadPlan) int64 {
	plan, _ := planWeights(m, l)
	return mappedBytes(plan.bytes)
}

// ScratchBytes is the tape's arrays, then workspace for the op that needs most, rounded up to whole pages; for a banded
// run the windows of the op that needs most, with its kernels' workspace.
func (p *Planner) ScratchBytes(t *device.Tape, o device.RunOptions) (int64, error) {
	whole, banded, err := p.plan(t, o)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", p.name, err)
	}
	if banded != nil {
		return mappedBytes(banded.bytes), nil
	}
	return mappedBytes(whole.bytes()), nil
}

// SpillBytes is the arrays of a banded run.
func (p *Planner) SpillBytes(t *device.Tape, o device.RunOptions) (int64, error) {
	_, banded, err := p.plan(t, o)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", p.name, err)
	}
	if banded == nil {
		return 0, nil
	}
	return banded.arrays.Bytes, nil
}

// plan is what ScratchBytes and NewRun share. What does not fit whole within the limit is computed in bands, with its arrays
// in a file, to the same values but for rounding: in the largest bands up to 64x64 pixels that fit, or 16x16 if none do,
// however large its images are. banded is nil if the tape runs whole.
func (p *Planner) plan(t *device.Tape, o device.RunOptions) (whole *program, banded *bandedProgram, err error) {
	if p, err = p.computing(o.Compute); err != nil {
		return nil, nil, err
	}
	whole, err = p.program(t)
	if err != nil || o.ScratchLimit == 0 || mappedBytes(whole.bytes()) <= o.ScratchLimit {
		return whole, nil, err
	}
	if banded, err = p.planBanded(t, o.ScratchLimit); err != nil || banded.bytes >= whole.bytes() {
		return whole, nil, err
	}
	return whole, banded, nil
}
