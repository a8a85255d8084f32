package residency

import (
	"cmp"
	"slices"
)

// What a host keeps of weights that were evicted from its devices: packed, so that they are resident again at once. Its
// bytes are counted apart from those of devices, and never exceed what its services allow together.
//
// component.kept is what counts there: of a component that is warm, that loads from there, that is being evicted to there, or
// dropped from there. Weights that are evicted while others are dropped for them wait for that with their eviction.

// warmBudget is what a host may keep, in bytes: the smallest that its services say, of those that keep anything.
func (l *ledger) warmBudget(host string) (least int64) {
	for _, s := range l.services {
		if s.device.Host == host && s.warm > 0 && (least == 0 || s.warm < least) {
			least = s.warm
		}
	}
	return least
}

// warm is what a host keeps, in bytes: counted, evictions to there included, and what of it is being dropped; promised is
// what evictions wait for.
func (l *ledger) warm(host string) (counted, leaving, promised int64) {
	for c := range l.in(host) {
		switch {
		case c.pending:
			promised += c.kept
		case c.dropping() && !c.service.silent:
			counted, leaving = counted+c.kept, leaving+c.kept
		default:
			counted += c.kept
		}
	}
	return counted, leaving, promised
}

// in yields the components of a host's services, in order.
func (l *ledger) in(host string) func(yield func(*component) bool) {
	return func(yield func(*component) bool) {
		for _, d := range l.devices {
			if d.Host != host {
				continue
			}
			for c := range l.on(d) {
				if !yield(c) {
					return
				}
			}
		}
	}
}

func (l *ledger) droppable(c *component) bool {
	return c.state == Warm && !c.service.silent && (l.retry || !c.doubtful)
}

// dropping tells whether warm weights are on their way out of the host's memory.
func (c *component) dropping() bool { return c.state == Evicting && c.bytes == 0 && c.kept > 0 }

// stowed tells whether a load of c, which has begun, takes just what the host keeps; else that is dropped first.
func (c *component) stowed() bool { return c.kept > 0 && c.kept == c.bytes }

// keepable tells whether the host has room for the weights of c, or would have when those are dropped.
func (l *ledger) keepable(c *component) (drops []*component, ok bool) {
	host := c.service.device.Host
	if c.service.warm == 0 || c.bytes > l.warmBudget(host) || c.doubtful {
		return nil, false
	}
	short := l.lacking(c)
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
		drops, short = append(drops, o), short-o.kept
	}
	return drops, short <= 0
}

// roomy is keepable as it is now, for telling what a reload would cost.
func (l *ledger) roomy(c *component) bool {
	return c.service.warm > 0 && l.lacking(c) <= 0
}

// lacking is how many bytes the host is short of to keep the weights of c, once what is being dropped is gone.
func (l *ledger) lacking(c *component) int64 {
	host := c.service.device.Host
	counted, leaving, promised := l.warm(host)
	return counted - leaving + promised + c.bytes - l.warmBudget(host)
}

// keep has the eviction of c, which has just been decided, keep the weights if the host has room for them, or has it when
// others are dropped that are missed less.
func (l *ledger) keep(c *component) bool {
	drops, ok := l.keepable(c)
	if !ok {
		return false
	}
	for _, o := range drops {
		l.discard(o, OverBudget, "%v is missed less than %v, which is being evicted", o, c)
	}
	host := c.service.device.Host
	counted, _, promised := l.warm(host)
	c.kept, c.pending = c.bytes, counted+promised+c.bytes > l.warmBudget(host)
	return true
}

// hosts are those that may keep something, by name.
func (l *ledger) hosts() (out []HostUse) {
	for _, d := range l.devices { // those of a host follow each other
		budget := l.warmBudget(d.Host)
		if budget > 0 && (len(out) == 0 || out[len(out)-1].Host != d.Host) {
			used, _, _ := l.warm(d.Host)
			out = append(out, HostUse{Host: d.Host, UsedBytes: used, BudgetBytes: budget})
		}
	}
	return out
}

// stow starts evictions that waited for room in the host's memory. Where nothing is being dropped any more and there is no
// room all the same, the weights are not kept.
func (l *ledger) stow() {
	for _, s := range l.services {
		for _, c := range s.components {
			if !c.pending {
				continue
			}
			counted, leaving, _ := l.warm(s.device.Host)
			fits := counted+c.kept <= l.warmBudget(s.device.Host)
			if !fits && leaving > 0 {
				continue
			}
			if !fits {
				c.kept = 0
			}
			c.pending = false
			l.do(startEvict{op: c.op, at: s.process(), model: c.model, keep: c.kept > 0})
		}
	}
}

// shrink drops what a host keeps beyond its budget, which has become smaller or was exceeded when a stage joined.
func (l *ledger) shrink(host string) {
	budget := l.warmBudget(host)
	counted, leaving, _ := l.warm(host)
	for c := range l.in(host) {
		if counted-leaving <= budget {
			return
		}
		if l.droppable(c) {
			leaving += c.kept
			l.discard(c, OverBudget, "%s bytes are kept warm of %s", count(counted), count(budget))
		}
	}
}

// discard starts to give warm weights up.
func (l *ledger) discard(c *component, class Class, reason string, args ...any) {
	c.state, c.op, c.since = Evicting, l.nextOp(), l.now
	l.record(Drop, c, cause{}, c.kept, reason, args...).Class = class
	l.do(startEvict{op: c.op, at: c.service.process(), model: c.model})
}

// settled is what becomes of a component that is no longer on the device: warm if the host keeps it.
func (l *ledger) settled(c *component, class Class) {
	if c.state = Absent; c.kept == 0 {
		return
	}
	c.state = Warm
	l.record(Keep, c, cause{}, c.kept, "the host's memory keeps %v, which is resident again at once", c).Class = class
}
