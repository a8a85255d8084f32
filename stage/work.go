package stage

// WorkRequest is one turn to take.
type WorkRequest struct {
	Turn       string
	Components []string // resident, all of them; the first one's family does the work
	Options    Options  // that the turn reads
	Values     Values   // that it takes; their bytes are shared, and written by nobody
	// Seed decides all noise: it is a pure function of the seed and the number of the draw.
	Seed                  uint64
	PreviewEveryNSteps    int         // 0 is none
	CheckpointEveryNSteps int         // 0 is none
	Resume                *Checkpoint // continue from here, nil starts
}

// Result is what a turn made.
type Result struct {
	Values   Values // those of Turn.Gives, but for what Observer.Unit was given
	Warnings []Warning
}

// Warning is something the caller should know of work that was done all the same.
type Warning struct{ Code, Message string }

// Observer hears what work does, from one goroutine; a slow one slows the work. A nil func is not called.
type Observer struct {
	// Ready: memory is reserved and the work will take this many steps, evaluations of the network in a denoiser.
	Ready func(steps int)
	// Progress: so many steps are done. The last is always told, others may be left out where they follow each other fast.
	Progress func(done, steps int)
	// Preview: an estimate, after so many steps, of the values that the turn will give.
	Preview func(done int, estimate Values)
	// Checkpoint: what it takes to resume.
	Checkpoint func(Checkpoint)
	// Unit: a unit of a value is finished. Work that was resumed may tell of units again.
	Unit func(Value)
}

// Checkpoint is the whole state of work after Step steps: enough to resume bit for bit, on any replica that has the same
// components.
type Checkpoint struct {
	Step   int
	Values Values
}
