package residency

import (
	"cmp"
	"slices"
)

// Weights that were evicted from a host's devices may be warm: packed in the host's memory, so that they are resident again at
// once. Its bytes are counted apart from those of devices, and never exceed what its services allow together.
//
// component.warm is what counts there: of a component that is warm, that loads from there, that is being evicted to there, or
// dropped from there. Weights that are evicted while others are dropped for them wait for that with their eviction.

func (l *ledger) droppable(c *component) bool {
	return c.state == Warm && !c.service.silent && (l.retry || !c.doubtful)
}

// dropping tells whether warm weights are on their way out of the host's memory.
func (c *component) dropping() bool { return c.state == Evicting && c.bytes == 0 && c.warm > 0 }

// fromWarm tells whether a load of c, which has begun, takes just what is warm; else that is dropped first.
func (c *component) fromWarm() bool { return c.warm > 0 && c.warm == c.bytes }

// fitsWarm tells whether the host has room for the weights of c, or would have when those are dropped.
func (l *ledger) fitsWarm(c *component) (drops []*component, ok bool) {
	host := c.service.device.Host
	if c.service.warmBudget == 0 || c.bytes > l.warmBudget(host) || c.doubtful {
		return nil, false
	}
	short := l.lacksWarm(c)
	if short <= 0 {
		return nil, true
	}
	future := l.future()
	missed := func(c *component) float64 { return l.perByte(c.service, false) / l.away(c, future) }
	own := missed(c)
	var others []*component
	for o := range l.in(host) {
		if l.droppable(o) && missed(o) < own {
			others = append(others, o)
		}
	}
	slices.SortStableFunc(others, func(a, b *component) int {
		return cmp.Or(cmp.Compare(missed(a), missed(b)), a.lastUsed.Compare(b.lastUsed))
	})
	for _, o := range others {
		if short <= 0 {
			break
		}
		drops, short = append(drops, o), short-o.warm
	}
	return drops, short <= 0
}

// warmRoom is fitsWarm as it is now, for telling what a reload would cost.
func (l *ledger) warmRoom(c *component) bool {
	return c.service.warmBudget > 0 && l.lacksWarm(c) <= 0
}

// lacksWarm is how many bytes the host is short of for the weights of c, once what is being dropped is gone.
func (l *ledger) lacksWarm(c *component) int64 {
	host := c.service.device.Host
	counted, leaving, promised := l.warm(host)
	return counted - leaving + promised + c.bytes - l.warmBudget(host)
}

// toWarm has the eviction of c, which has just been decided, leave the weights warm if the host has room for them, or has it when
// others are dropped that are missed less.
func (l *ledger) toWarm(c *component) bool {
	drops, ok := l.fitsWarm(c)
	if !ok {
		return false
	}
	for _, o := range drops {
		l.discard(o, OverBudget, "%v is missed less than %v, which is being evicted", o, c)
	}
	host := c.service.device.Host
	counted, _, promised := l.warm(host)
	c.warm, c.pending = c.bytes, counted+promised+c.bytes > l.warmBudget(host)
	return true
}

// startWarming starts evictions that waited for room in the host's memory. Where nothing is being dropped any more and there is no
// room all the same, the weights do not stay warm.
func (l *ledger) startWarming() {
	for _, s := range l.services {
		for _, c := range s.components {
			if !c.pending {
				continue
			}
			counted, leaving, _ := l.warm(s.device.Host)
			fits := counted+c.warm <= l.warmBudget(s.device.Host)
			if !fits && leaving > 0 {
				continue
			}
			if !fits {
				c.warm = 0
			}
			c.pending = false
			l.do(startEvict{op: c.op, at: s.process(), name: c.name, warm: c.warm > 0})
		}
	}
}

// shrink drops what is warm beyond a host's budget, which has become smaller or was exceeded when a stage joined.
func (l *ledger) shrink(host string) {
	budget := l.warmBudget(host)
	counted, leaving, _ := l.warm(host)
	for c := range l.in(host) {
		if counted-leaving <= budget {
			return
		}
		if l.droppable(c) {
			leaving += c.warm
			l.discard(c, OverBudget, "%s bytes are warm of %s", count(counted), count(budget))
		}
	}
}
