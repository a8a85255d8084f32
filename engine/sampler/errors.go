package sampler

import (
	"fmt"
	"strings"
)

// UnknownError is a name that is not in a closed list.
type UnknownError struct {
	What  string // "sampler" or "scheduler class"
	Name  string
	Known []string
}

// Error reads: unknown sampler "eulr", known: ddim, ddpm, ...
func (e *UnknownError) Error() string {
	return fmt.Sprintf("unknown %s %q, known: %s", e.What, e.Name, strings.Join(e.Known, ", "))
}

// StepsError is a number of steps that a sampler cannot take with this config.
type StepsError struct {
	Sampler  string
	Steps    int
	Min, Max int // the accepted range
}

// Error names the accepted range.
func (e *StepsError) Error() string {
	return fmt.Sprintf("sampler %s cannot take %d steps with this model, accepted: %d to %d", e.Sampler, e.Steps, e.Min, e.Max)
}

// ScheduleError is a combination of config, sampler and steps that has no usable schedule: the
// reference fails on it too, or gives numbers that are not finite.
type ScheduleError struct {
	Sampler string
	Steps   int
	Reason  string
}

// Error gives the reason.
func (e *ScheduleError) Error() string {
	return fmt.Sprintf("sampler %s with %d steps: %s", e.Sampler, e.Steps, e.Reason)
}

// RestoreError is a stored state that this sampler cannot continue from.
type RestoreError struct {
	Sampler string
	Step    int
	Reason  string
}

// Error gives the reason.
func (e *RestoreError) Error() string {
	return fmt.Sprintf("state of sampler %s before step %d: %s", e.Sampler, e.Step, e.Reason)
}
