package device

import "context"

// Planned is a Device that is only planned for, so that it need not be there: all that it cannot tell in advance is an
// UnsupportedError.
type Planned struct {
	Planner
	CapBytes int64
}

var _ Device = Planned{}

func (p Planned) unsupported(what string) error {
	return &UnsupportedError{Device: p.Name(), What: what, Needs: "the device to be opened"}
}

// Memory has the cap alone.
func (p Planned) Memory() Memory { return Memory{CapBytes: p.CapBytes} }

// Activity is none.
func (Planned) Activity() Activity { return Activity{} }

// Load fails.
func (p Planned) Load(context.Context, *Manifest, LoadPlan, Source, func(int64)) (Weights, error) {
	return nil, p.unsupported("loading")
}

// NewRun fails.
func (p Planned) NewRun(*Tape, Weights, RunOptions, ...Weights) (Run, error) {
	return nil, p.unsupported("running")
}

// CheckSpill fails.
func (p Planned) CheckSpill(int64) error { return p.unsupported("asking its disk") }

// Close does nothing.
func (Planned) Close() error { return nil }
