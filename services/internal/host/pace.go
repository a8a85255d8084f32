package host

import "time"

// A child that dies before it is oldAge is one of a row; each such death doubles the wait before
// the next start, from firstDelay up to maxDelay.
const (
	oldAge     = 10 * time.Second
	firstDelay = 250 * time.Millisecond
	maxDelay   = 30 * time.Second
)

// pace decides how long to wait before a child is started again. The zero value has seen no deaths.
type pace struct {
	next time.Duration
}

// afterLife is the wait after a child that lived so long. The first death of a row costs nothing.
func (p *pace) afterLife(lived time.Duration) time.Duration {
	if lived >= oldAge {
		p.next = 0
	}
	delay := p.next
	p.next = min(max(2*delay, firstDelay), maxDelay)
	return delay
}
