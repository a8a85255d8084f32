package sampler

import (
	"errors"
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

// OwnError is a model whose own scheduler cannot be used, asked for without the name of another sampler.
type OwnError struct {
	Class string   // of the scheduler
	Known []string // samplers that can be used
	Err   error    // why: *UnknownError or config.Errors
}

// Error names the class, and the samplers that would do.
func (e *OwnError) Error() string {
	return e.Problem() + "; samplers that can: " + strings.Join(e.Known, ", ")
}

// Problem names the class and why it cannot be used.
func (e *OwnError) Problem() string {
	why := e.Err.Error()
	var unknown *UnknownError
	if errors.As(e.Err, &unknown) {
		why = "the class is not known"
	}
	return fmt.Sprintf("the model's own scheduler %s cannot be used (%s)", e.Class, why)
}

// Unwrap gives the cause.
func (e *OwnError) Unwrap() error { return e.Err }

// StepsError is a number of steps that a sampler cannot take with this config.
type StepsError struct {
	Sampler  string
	Steps    int
	Min, Max int // the accepted range
}

// Error names the accepted range.
func (e *StepsError) Error() string {
	return fmt.Sprintf("sampler %s cannot take %s with this model, accepted: %d to %d", e.Sampler, count(e.Steps), e.Min, e.Max)
}

func count(steps int) string {
	if steps == 1 {
		return "1 step"
	}
	return fmt.Sprintf("%d steps", steps)
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
	return fmt.Sprintf("sampler %s with %s: %s", e.Sampler, count(e.Steps), e.Reason)
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
