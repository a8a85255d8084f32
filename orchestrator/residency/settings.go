package residency

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/triptych-serving/triptych/stage"
)

// Policy is how the ledger decides. The zero value is the default.
type Policy struct {
	// WaitFactor bounds what a request waits, in turns of its kind of stage, to so many times as in strict order of
	// arrival: requests that find their weights resident may overtake it until then. 1 is strict order, 0 the
	// default, 2.
	WaitFactor float64
	// Never is what is not evicted once it is loaded. AfterUse is what is evicted as soon as a request has used it
	// and no other has asked for it.
	Never, AfterUse []Selector
	// MinResidency is how long a component stays after its load, unless a request has waited for so long. 0 is not
	// at all.
	MinResidency time.Duration
	// IdleTTL is how long a component stays that nobody uses or has announced to use. 0 is without end.
	IdleTTL time.Duration
	// HighWatermark and LowWatermark are parts of a device's budget: when more than the high one is in use, idle
	// components go until no more than the low one is, but for those that a request has asked for; and nothing is
	// prefetched beyond the high one. 0 for the high one is no watermark.
	LowWatermark, HighWatermark float64
}

// maxWaitFactor is so large that overtaking has no bound in practice.
const maxWaitFactor = 1000

// Check is InvalidField if the policy makes no sense; the field is named as its flag.
func (p Policy) Check() error {
	switch {
	case p.WaitFactor != 0 && !(p.WaitFactor >= inOrder && p.WaitFactor <= maxWaitFactor):
		return stage.Invalid(stage.InvalidField, "wait-factor", p.WaitFactor, fmt.Sprintf("%d to %d", inOrder, maxWaitFactor))
	case p.MinResidency < 0:
		return stage.Invalid(stage.InvalidField, "min-residency", p.MinResidency, "0 or a positive duration, such as 10s")
	case p.IdleTTL < 0:
		return stage.Invalid(stage.InvalidField, "idle-ttl", p.IdleTTL, "0 or a positive duration, such as 5m")
	case !(p.HighWatermark >= 0 && p.HighWatermark <= 1):
		return stage.Invalid(stage.InvalidField, "high-watermark", p.HighWatermark, "a part of the budget, 0 to 1; 0 is none")
	case !(p.LowWatermark >= 0 && p.LowWatermark <= p.HighWatermark):
		return stage.Invalid(stage.InvalidField, "low-watermark", p.LowWatermark, fmt.Sprintf("a part of the budget, 0 to the high watermark, which is %v", p.HighWatermark))
	}
	for _, s := range p.Never {
		if slices.ContainsFunc(p.AfterUse, s.overlaps) {
			return stage.Invalid(stage.InvalidField, "evict-after-use", s, "no stage that --pin names")
		}
	}
	return nil
}

// Selector names a stage's components of a model, or of every model.
type Selector struct {
	Kind  stage.Kind // of the services, as users name them
	Model string     // empty is every model
}

// ParseSelector reads STAGE or STAGE:MODEL. The error is for a flag.
func ParseSelector(text string) (Selector, error) {
	name, model, one := strings.Cut(text, ":")
	kind, ok := stage.ParseKind(name)
	if !ok || one && model == "" {
		return Selector{}, fmt.Errorf("%q is not a stage, expected encoder, denoiser or decoder, or one of these with a model, such as denoiser:starter", text)
	}
	return Selector{kind, model}, nil
}

// String is what ParseSelector reads.
func (s Selector) String() string {
	if s.Model == "" {
		return s.Kind.String()
	}
	return s.Kind.String() + ":" + s.Model
}

func (s Selector) names(c *component) bool {
	return s.Kind == c.service.kind && (s.Model == "" || s.Model == stage.ModelOf(c.name))
}

func (s Selector) overlaps(t Selector) bool {
	return s.Kind == t.Kind && (s.Model == "" || t.Model == "" || s.Model == t.Model)
}
