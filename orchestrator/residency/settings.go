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

// Selector names a stage's part of a model, or of every model.
type Selector struct {
	Kind  stage.Kind
	Model string // empty is every model
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
	return s.Kind == c.service.kind && (s.Model == "" || s.Model == c.model)
}

func (s Selector) overlaps(t Selector) bool {
	return s.Kind == t.Kind && (s.Model == "" || t.Model == "" || s.Model == t.Model)
}

// pinned tells whether c is never to be evicted.
func (p Policy) pinned(c *component) bool {
	return slices.ContainsFunc(p.Never, func(s Selector) bool { return s.names(c) })
}

// pinnedBeside is the bytes that never leave the device of s, but for those that n takes there itself.
func (l *ledger) pinnedBeside(s *service, n Need) (sum int64) {
	for c := range l.on(s.device) {
		if l.policy.pinned(c) && (c.service != s || c.model != n.Model) {
			sum += c.bytes
		}
	}
	return sum
}

// fits tells whether n could be served at s beside so many bytes and what never leaves.
func (l *ledger) fits(s *service, n Need, beside int64) bool {
	return s.device.holds(s.whole(n) + beside + l.pinnedBeside(s, n))
}

// young tells whether c is to stay because it was loaded only just, for one that has waited since then, and asks for a
// step when that ends.
func (l *ledger) young(c *component, since time.Time) bool {
	until := c.loaded.Add(l.policy.MinResidency)
	if c.state != Resident || !l.now.Before(until) || since.Add(l.policy.MinResidency).Compare(l.now) <= 0 {
		return false
	}
	l.by(until)
	l.by(since.Add(l.policy.MinResidency))
	return true
}

// sweep evicts what the policy does not let stay, though nobody needs its room.
func (l *ledger) sweep(d *device) {
	if p := l.policy; len(p.AfterUse) == 0 && p.IdleTTL == 0 && p.HighWatermark == 0 {
		return
	}
	future := l.future()
	asked := slices.IndexFunc(future, func(u use) bool { return u.request == nil })
	if asked < 0 {
		asked = len(future)
	}
	spare := func(c *component) bool {
		x := c.service.expected
		coming := x.need.Model == c.model && l.now.Before(x.until)
		if coming {
			l.by(x.until)
		}
		return coming || future.next(c) < asked
	}
	for _, c := range l.idle(d) {
		p := l.policy
		left := c.lastUsed.Add(p.IdleTTL)
		switch {
		case c.state != Resident || spare(c):
		case c.spent && slices.ContainsFunc(p.AfterUse, func(s Selector) bool { return s.names(c) }):
			l.evict(c, cause{}, AfterUse, "%v was used, and is not to stay after that", c)
		case p.IdleTTL == 0 || future.next(c) != never:
		case l.now.Before(left):
			l.by(left)
		default:
			l.evict(c, cause{}, TooLongIdle, "nobody has used %v for %v", c, p.IdleTTL)
		}
	}
	for c := range l.on(d) {
		left := c.lastUsed.Add(l.policy.IdleTTL)
		switch {
		case l.policy.IdleTTL == 0 || !l.droppable(c) || future.next(c) != never:
		case l.now.Before(left):
			l.by(left)
		default:
			l.discard(c, TooLongIdle, "nobody has used %v for %v", c, l.policy.IdleTTL)
		}
	}
	budget, inUse := float64(d.BudgetBytes), l.used(d)-l.evicting(d)
	if high := l.policy.HighWatermark; high == 0 || d.BudgetBytes == 0 || float64(inUse) <= high*budget {
		return
	}
	excess := inUse - int64(l.policy.LowWatermark*budget)
	idle := slices.DeleteFunc(l.idle(d), func(c *component) bool { return spare(c) || l.young(c, l.now) })
	for _, c := range l.pickMost(idle, excess, future) {
		l.evict(c, cause{}, AboveWatermark, "%s; %s bytes are in use, more than %v of %s", future.phrase(c), count(inUse), l.policy.HighWatermark, count(d.BudgetBytes))
	}
}
