package residency

import (
	"cmp"
	"time"
)

// nominal is what a stage loads in a second, in bytes, as long as no load on its device was measured; of what is
// warm as well.
const (
	nominal       = 500_000_000
	nominalStowed = 10_000_000_000
)

// fame is how many runs of jobs the ledger remembers in telling which components are popular.
const fame = 512

// pace is what loads have moved, the latest counting most.
type pace struct{ bytes, seconds float64 }

// add takes up a load.
func (p *pace) add(bytes int64, took time.Duration) {
	if took > 0 {
		p.bytes, p.seconds = p.bytes/2+float64(bytes), p.seconds/2+took.Seconds()
	}
}

// pace is that of one kind of loads.
func (s *service) pace(stowed bool) *pace {
	if stowed {
		return &s.unstow
	}
	return &s.read
}

// perByte is how many seconds s takes to load a byte, or to have one back that the host kept: as long as was measured
// there, else at the others of the device, else at a nominal pace.
func (l *ledger) perByte(s *service, stowed bool) float64 {
	p := *s.pace(stowed)
	if p.seconds == 0 {
		for _, t := range l.services {
			if t.device == s.device {
				q := t.pace(stowed)
				p.bytes, p.seconds = p.bytes+q.bytes, p.seconds+q.seconds
			}
		}
	}
	switch {
	case p.bytes > 0:
		return p.seconds / p.bytes
	case stowed:
		return 1. / nominalStowed
	}
	return 1. / nominal
}

// reload is how many seconds a load of the component takes, once it is evicted.
func (l *ledger) reload(c *component) float64 { return float64(c.bytes) * l.reloadByte(c) }

func (l *ledger) reloadByte(c *component) float64 {
	return l.perByte(c.service, c.kept > 0 || c.state != Absent && l.roomy(c))
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

// came counts a grant: further ones of the same job in a row are one run.
func (l *ledger) came(r *request) {
	c := r.component()
	if c.visitor == r.job && r.job != "" {
		return
	}
	c.visitor = r.job
	c.runs++
	if l.runs++; l.runs < fame {
		return
	}
	l.runs = 0
	for _, s := range l.services {
		for _, c := range s.components {
			c.runs /= 2
			l.runs += c.runs
		}
	}
}
