package device

// Planner tells what a device takes, before anything is loaded. It needs no hardware: one can be asked of a card that is
// not there. What the device cannot do at all is an error that wraps ErrUnsupported. Safe for concurrent use.
type Planner interface {
	// Name is the device's address, "cpu:0".
	Name() string
	// Class is equal for devices that plan alike, but for a cap: it tells the kind, and what else the answers below depend on.
	Class() string
	// OverheadBytes is what the process takes of the device beside weights and scratch, from its opening to its Close: a
	// context, a library's workspace. It is not in Memory's UsedBytes, but under the cap and in the device's claim.
	OverheadBytes() int64
	LoadPlanner
	RunPlanner
}

// LoadPlanner tells what weights take.
type LoadPlanner interface {
	// WeightBytes is what Load of the manifest will allocate, to the byte.
	WeightBytes(m *Manifest, p LoadPlan) int64
	// Fit is the plan with which as much as can be is resident while weights stay within so many bytes or, where no plan
	// keeps to them, with which they take the least. The error wraps ErrUnsupported if the device streams nothing.
	Fit(m *Manifest, limitBytes int64) (LoadPlan, error)
	// StreamedBytes is what one execution of the tape behind its prologue reads of matrices and filters, as stored; 0 if
	// the plan keeps all of them.
	StreamedBytes(t *Tape, p LoadPlan) int64
}

// RunPlanner tells what a run of a tape takes. The errors are the tape's, or name an op the device cannot run.
type RunPlanner interface {
	// ScratchBytes is what NewRun will allocate, to the byte: activations laid out by PlanScratch plus the kernels' own
	// workspace.
	ScratchBytes(t *Tape, o RunOptions) (int64, error)
	// SpillBytes is the size of the temporary file that NewRun will make, 0 for none.
	SpillBytes(t *Tape, o RunOptions) (int64, error)
	// Convolutions counts the convolutions of the tape by the name of the algorithm that computes them. The error wraps
	// ErrUnsupported if the device does not tell.
	Convolutions(t *Tape, o RunOptions) (map[string]int, error)
}

// LoadPlan is how the parameters of a manifest are held. The zero value holds all of them on the device.
type LoadPlan struct {
	// Streamed lets a device keep only ResidentBytes of the parameters, the first ones, and in any case every Vector.
	// Others stay in the Source: what an execution is about to use is read into one of two buffers, each as large as
	// the largest of them, while the ops on the other one compute; of a Table only the rows that are asked for are
	// read. Values are the same to the bit. Where buffers would save nothing, all parameters are kept.
	Streamed      bool
	ResidentBytes int64
}

// RunOptions is how a tape is run. The zero value runs it whole.
type RunOptions struct {
	// ScratchLimit is the most bytes that the run's scratch takes, where the device can keep to it; else it comes as near
	// as it can. 0 is none. A limit costs time and a temporary file, values are equal but for rounding; one that the tape's
	// scratch does not exceed changes nothing.
	ScratchLimit int64
	// Compute is the type of the factors of products. A device that does not have it fails with an error that wraps
	// ErrUnsupported.
	Compute Compute
}
