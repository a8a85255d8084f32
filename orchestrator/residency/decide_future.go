package residency

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// uses are the needs known of the future, the nearest first.
type uses []use

type use struct {
	need    Need
	at      *service // where the request is placed, nil while it may be anywhere
	request *request // nil while it is announced only
}

// never is the distance of a use that is not known.
const never = math.MaxInt

// future is what will be asked of the components: by requests that are not granted yet, then by what
// jobs announced.
func (l *ledger) future() uses {
	var out uses
	for _, r := range l.requests {
		if r.phase != granted {
			out = append(out, use{r.need, r.service, r})
		}
	}
	for _, p := range l.promises() {
		out = append(out, use{need: p.Need})
	}
	return out
}

// next is how many needs come before the next one of c.
func (u uses) next(c *component) int {
	i := slices.IndexFunc(u, func(v use) bool { return v.need.has(c.name) && (v.at == nil || v.at == c.service) })
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

// NominalBytesPerSecond is how fast weights are taken to load where no load was measured.
const NominalBytesPerSecond = 500_000_000

// nominalWarm is likewise of weights that are warm.
const nominalWarm = 10_000_000_000

// perByte is how many seconds s takes to load a byte, or to have back one that is warm: as long as was measured
// there, else at the others of the device, else at a nominal pace.
func (l *ledger) perByte(s *service, warm bool) float64 {
	p := *s.pace(warm)
	if p.seconds == 0 {
		for _, t := range l.services {
			if t.device == s.device {
				q := t.pace(warm)
				p.bytes, p.seconds = p.bytes+q.bytes, p.seconds+q.seconds
			}
		}
	}
	switch {
	case p.bytes > 0:
		return p.seconds / p.bytes
	case warm:
		return 1. / nominalWarm
	}
	return 1. / NominalBytesPerSecond
}

// reload is how many seconds a load of the component takes, once it is evicted.
func (l *ledger) reload(c *component) float64 { return float64(c.bytes) * l.reloadByte(c) }

func (l *ledger) reloadByte(c *component) float64 {
	return l.perByte(c.service, c.warm > 0 || c.state != Absent && l.warmRoom(c))
}

// away is how many needs come before the next one of c: known from the future, or expected behind all that is
// known, by how often jobs came back to it.
func (l *ledger) away(c *component, future uses) float64 {
	if n := future.next(c); n != never {
		return float64(1 + n)
	}
	return float64(1+len(future)) + float64(1+l.runs)/float64(cmp.Or(c.runs, 1))
}

// loss is what evicting c costs for a byte that it frees: the seconds of its reload, the less the farther its next
// use is, because whatever comes in its place has the room for so long.
func (l *ledger) loss(c *component, future uses) float64 {
	return l.reloadByte(c) / l.away(c, future)
}

// reloads is the seconds that loading all of them again would take.
func (l *ledger) reloads(of []*component) (sum float64) {
	for _, c := range of {
		sum += l.reload(c)
	}
	return sum
}
