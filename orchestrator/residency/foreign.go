package residency

import (
	"fmt"
	"slices"
	"time"

	"github.com/triptych-serving/triptych/stage"
)

// share is what the services of a device tell of its other processes, which work for other orchestrators.
type share struct {
	foreign int64        // bytes that they hold
	wants   []stage.Want // bytes that they wait for, the oldest first
	crowded bool         // they hold more than that: nothing is reserved until it is told how much
}

func (in measured) apply(l *ledger) {
	s := l.service(in.stage)
	if s == nil {
		return
	}
	d := s.device
	s.budget = in.share.BudgetBytes
	l.resize(d)
	same := d.foreign == in.share.ForeignBytes && slices.EqualFunc(d.wants, in.share.ForeignWants, func(a, b stage.Want) bool {
		return a.Bytes == b.Bytes && a.Since.Equal(b.Since)
	})
	d.share = share{foreign: in.share.ForeignBytes, wants: in.share.ForeignWants}
	if !same {
		var wanted int64
		for _, w := range d.wants {
			wanted += w.Bytes
		}
		l.note(Event{Action: Foreign, Stage: s.id, Kind: s.kind, Bytes: d.foreign}, d, "other processes on the device hold %s bytes and wait for %s", count(d.foreign), count(wanted))
	}
}

func (in crowded) apply(l *ledger) {
	if r := l.request(in.request); r != nil && r.phase == granted {
		r.service.device.crowded = true
	}
}

// others is what is not to be had on a device: bytes that other processes hold, and those that they have waited for longer
// than anybody here. So whoever came first is served first, wherever it came.
func (l *ledger) others(d *device) int64 {
	sum := d.foreign
	if len(d.wants) == 0 {
		return sum
	}
	first := l.first(d)
	for _, w := range d.wants {
		if first.IsZero() || w.Since.Before(first) {
			sum += w.Bytes
		}
	}
	return sum
}

// first is when the oldest request was made that works on a device or waits for it, zero if there is none.
func (l *ledger) first(d *device) time.Time {
	for _, r := range l.requests { // by arrival
		if r.service != nil && r.service.device == d || r.service == nil && slices.ContainsFunc(l.candidates(r.need), func(s *service) bool { return s.device == d }) {
			return r.asked
		}
	}
	return time.Time{}
}

// want is what a service is to tell the other processes of its device: since when the oldest request here is there, and, if
// the first that waits would run at the service, what it lacks when all that is idle here has made room.
func (l *ledger) want(id StageID) stage.Want {
	s := l.service(id)
	if s == nil {
		return stage.Want{}
	}
	w := stage.Want{Since: l.first(s.device)}
	for _, r := range l.requests {
		if r.phase != waiting {
			continue
		}
		i := slices.IndexFunc(l.candidates(r.need), func(s *service) bool { return s.holder == nil })
		if i < 0 || l.candidates(r.need)[i] != s {
			break
		}
		w.Bytes = s.missing(r.need)
		for _, c := range l.idle(s.device) {
			if c.service != s || c.model != r.need.Model {
				w.Bytes -= c.bytes
			}
		}
		w.Bytes = max(0, w.Bytes)
		break
	}
	return w
}

// obstructed says in words that the bytes a request needs are other processes'; empty if they are not.
func (l *ledger) obstructed(r *request, s *service) string {
	d, missing := s.device, s.missing(r.need)
	others := l.others(d)
	switch {
	case d.crowded:
		return fmt.Sprintf("%v needs %s bytes, which other processes on the device took before it; how many they hold is being asked", r.need, count(missing))
	case others == 0:
		return ""
	}
	return fmt.Sprintf("%v needs %s bytes, and other processes on the device hold %s of its budget of %s and are first to have %s more: %s would have to go",
		r.need, count(missing), count(d.foreign), count(d.BudgetBytes), count(others-d.foreign), count(max(0, missing-max(0, l.free(d)))))
}

// besides says in words what others have of a budget.
func besides(others int64) string {
	if others == 0 {
		return ""
	}
	return fmt.Sprintf(", and %s are other processes' or theirs to have", count(others))
}

// Want is what a stage is to tell other processes on its device that this Keeper lacks there.
func (k *Keeper) Want(id StageID) (w stage.Want) {
	k.do(func() { w = k.ledger.want(id) })
	return w
}

func shareOf(info stage.Info) stage.DeviceShare {
	return stage.DeviceShare{BudgetBytes: info.MemoryBudgetBytes, ForeignBytes: info.ForeignBytes, ForeignWants: info.ForeignWants}
}

// Crowded tells that the work under the lease found the device's bytes taken by other processes. Nothing is reserved on the
// device until it is measured.
func (l *Lease) Crowded() { l.keeper.tell(crowded{l.claim.id}) }
