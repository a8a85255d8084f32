package residency

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/triptych-serving/triptych/stage"
)

// uses are the needs known of the future, the nearest first.
type uses []use

type use struct {
	kind      stage.Kind
	model     string
	footprint stage.Footprint
	at        *service // where the request is placed, nil while it may be anywhere
	request   *request // nil while it is announced only
}

// never is the distance of a use that is not known.
const never = math.MaxInt

// future is what will be asked of the components: by requests that are not granted yet, then by what
// jobs announced.
func (l *ledger) future() uses {
	var out uses
	for _, r := range l.requests {
		if r.phase != granted {
			out = append(out, use{r.need.Kind, r.need.Model, r.need.Footprint, r.service, r})
		}
	}
	for _, p := range l.promises() {
		out = append(out, use{kind: p.Kind, model: p.Model, footprint: p.Footprint})
	}
	return out
}

// next is how many needs come before the next one of c.
func (u uses) next(c *component) int {
	i := slices.IndexFunc(u, func(v use) bool {
		return v.kind == c.service.kind && v.model == c.model && (v.at == nil || v.at == c.service)
	})
	if i < 0 {
		return never
	}
	return i
}

// phrase says in words when c is used next.
func (u uses) phrase(c *component) string {
	switch n := u.next(c); n {
	case never:
		return fmt.Sprintf("no next use of %v is known", c)
	case 0:
		return fmt.Sprintf("%v is needed next", c)
	case 1:
		return fmt.Sprintf("next use of %v is 1 need away", c)
	default:
		return fmt.Sprintf("next use of %v is %d needs away", c, n)
	}
}

// promise is an announced need that is not asked for yet.
type promise struct {
	job JobID
	Need
}

// promises are in the order they are expected: the needs of jobs that started, which take turns, in
// rounds; then those of jobs that have not, job after job.
func (l *ledger) promises() []promise {
	var started, others []promise
	open, at := make([][]Need, len(l.jobs)), make(map[JobID]int, len(l.jobs))
	for i, j := range l.jobs {
		open[i], at[j.id] = j.needs, i
	}
	for _, r := range l.requests {
		if i, ok := at[r.job]; ok && !r.try {
			open[i] = without(open[i], r.need)
		}
	}
	for round := 0; ; round++ {
		more := false
		for i, j := range l.jobs {
			if j.started && round < len(open[i]) {
				more = true
				started = append(started, promise{j.id, open[i][round]})
			}
		}
		if !more {
			break
		}
	}
	for i, j := range l.jobs {
		if !j.started {
			for _, n := range open[i] {
				others = append(others, promise{j.id, n})
			}
		}
	}
	return append(started, others...)
}

// idle are the components of a device that neither a request nor the policy pins, and whose services answer, in order.
func (l *ledger) idle(d *device) []*component {
	var out []*component
	for c := range l.on(d) {
		if (c.state == Loading || c.state == Resident) && c.bytes > 0 && c.holder() == nil && !c.service.silent && (l.retry || !c.doubtful) && !l.policy.pinned(c) {
			out = append(out, c)
		}
	}
	return out
}

// total is the bytes of components.
func total(of []*component) (sum int64) {
	for _, c := range of {
		sum += c.bytes
	}
	return sum
}

// pickMost is pick, of all of them if they are not enough.
func (l *ledger) pickMost(idle []*component, short int64, future uses) []*component {
	victims, _ := l.pick(idle, min(short, total(idle)), future)
	return victims
}

// pick picks of idle components some of at least short bytes, none of which is in vain, and reports
// whether there are enough. Those of the least loss go first; among equals the smallest that is enough, else the
// largest; then the least recently used.
func (l *ledger) pick(idle []*component, short int64, future uses) (chosen []*component, enough bool) {
	if short <= 0 {
		return nil, true
	}
	loss := map[*component]float64{}
	for _, c := range idle {
		loss[c] = l.loss(c, future)
	}
	for short > 0 && len(idle) > 0 {
		first := slices.MinFunc(idle, func(a, b *component) int {
			if l.rival.Order != nil {
				return l.rival.Order(a.idle(), b.idle())
			}
			order := cmp.Compare(a.bytes, b.bytes)
			if min(a.bytes, b.bytes) < short { // the larger is enough, or nearer to it
				order = -order
			}
			return cmp.Or(cmp.Compare(loss[a], loss[b]), order, a.lastUsed.Compare(b.lastUsed))
		})
		chosen = append(chosen, first)
		short -= first.bytes
		idle = slices.DeleteFunc(slices.Clone(idle), func(c *component) bool { return c == first })
	}
	if short > 0 {
		return nil, false
	}
	// What came later may make what came before unnecessary; the dearest is spared first.
	for i := len(chosen) - 1; i >= 0; i-- {
		if chosen[i].bytes <= -short {
			short += chosen[i].bytes
			chosen = slices.Delete(chosen, i, i+1)
		}
	}
	return chosen, true
}

func (c *component) idle() Idle {
	return Idle{Bytes: c.bytes, Loaded: uint64(c.op), LastUsed: c.lastUsed}
}
