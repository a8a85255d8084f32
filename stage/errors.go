package stage

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// Reason says what kind of error an Error is. Reasons survive every hop; the canonical gRPC code
// follows from the reason (see stagerpc).
type Reason string

// The reasons, as on the wire (proto enum ErrorReason without its prefix).
const (
	InvalidField             Reason = "INVALID_FIELD"
	SamplerUnsupported       Reason = "SAMPLER_UNSUPPORTED"
	SizeUnsupported          Reason = "SIZE_UNSUPPORTED"
	TensorInvalid            Reason = "TENSOR_INVALID"
	ModelNotFound            Reason = "MODEL_NOT_FOUND"
	ModelInvalid             Reason = "MODEL_INVALID"
	ModelDoesNotFit          Reason = "MODEL_DOES_NOT_FIT"
	StageProtocolUnsupported Reason = "STAGE_PROTOCOL_UNSUPPORTED"
	QueueFull                Reason = "QUEUE_FULL"
	SlowConsumer             Reason = "SLOW_CONSUMER"
	StageUnreachable         Reason = "STAGE_UNREACHABLE"
	StageDraining            Reason = "STAGE_DRAINING"
	StageEvicted             Reason = "STAGE_EVICTED"
	ChecksumMismatch         Reason = "CHECKSUM_MISMATCH"
	RuntimeDied              Reason = "RUNTIME_DIED"
	EngineFault              Reason = "ENGINE_FAULT"
	EngineOOMUnplanned       Reason = "ENGINE_OOM_UNPLANNED"
	StageOwned               Reason = "STAGE_OWNED"
	DeviceBusy               Reason = "DEVICE_BUSY"
	NotFinite                Reason = "NOT_FINITE"
	ModelChanged             Reason = "MODEL_CHANGED"
	DiskFull                 Reason = "DISK_FULL"
	ShuttingDown             Reason = "SHUTTING_DOWN"
)

// Error is every error that a caller of a stage or of the public API can see. Message and Metadata
// go over the wire; Cause stays where it is and may hold what callers must not see (paths).
type Error struct {
	Reason   Reason
	Message  string
	Metadata map[string]string // e.g. field, value, accepted; stage; needed_bytes, available_bytes
	// RetryAfter is when trying again makes sense, of an error that passes by itself; 0 leaves it to the reason.
	RetryAfter time.Duration
	Cause      error
}

// Error is the message.
func (e *Error) Error() string { return e.Message }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Is makes errors.Is(err, &Error{Reason: r}) true for every Error of that reason.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Reason == e.Reason && t.Message == "" && t.Metadata == nil && t.Cause == nil
}

// Errorf makes an Error without metadata. %w sets the cause.
func Errorf(reason Reason, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Reason: reason, Message: err.Error(), Cause: errors.Unwrap(err)}
}

// With returns a copy of e with a metadata entry added.
func (e *Error) With(key, value string) *Error {
	c := *e
	c.Metadata = maps.Clone(e.Metadata)
	if c.Metadata == nil {
		c.Metadata = map[string]string{}
	}
	c.Metadata[key] = value
	return &c
}

// Invalid is a field of a request that cannot be accepted. accepted says in words what would be.
func Invalid(reason Reason, field string, value any, accepted string) *Error {
	text := Excerpt(fmt.Sprint(value), 80)
	return &Error{
		Reason:   reason,
		Message:  fmt.Sprintf("%s = %q is not accepted, expected %s", field, text, accepted),
		Metadata: map[string]string{"field": field, "value": text, "accepted": accepted},
	}
}

// Excerpt is what an error tells of a text of any length: its first bytes, at most so many, and dots for the others.
func Excerpt(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "..."
}

// DoesNotFit is a request for more memory than can be had.
func DoesNotFit(kind Kind, model string, needed, available, budget int64) *Error {
	return &Error{
		Reason: ModelDoesNotFit,
		Message: fmt.Sprintf("the %v of model %q needs %s, available are %s of a budget of %s",
			kind, model, SizeUp(needed), size(available, math.Floor), Size(budget)),
		Metadata: map[string]string{
			"stage": kind.String(), "model": model, "needed_bytes": fmt.Sprint(needed),
			"available_bytes": fmt.Sprint(available), "budget_bytes": fmt.Sprint(budget),
		},
	}
}

// Busy is a request for memory that other processes on the device hold, or have waited for longer.
func Busy(kind Kind, model string, needed, available, budget, others, awaited int64) *Error {
	e := DoesNotFit(kind, model, needed, available, budget).With("others_bytes", fmt.Sprint(others)).With("awaited_bytes", fmt.Sprint(awaited))
	e.Reason = DeviceBusy
	e.Message += fmt.Sprintf(": other processes on the device hold %s and %s are awaited, of which %s would have to go", Size(others), Size(awaited), SizeUp(needed-available))
	return e
}

// NoSuchModel is a model name that nobody has; known are those there are.
func NoSuchModel(model string, known []string) *Error {
	known = slices.Sorted(slices.Values(known))
	return Invalid(ModelNotFound, "model", model, "one of "+strings.Join(known, ", "))
}

// ReasonOf is the reason of the first Error in err's chain, "" if there is none.
func ReasonOf(err error) Reason {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}
