package residency

import (
	"math"
	"slices"
	"time"

	"github.com/triptych-serving/triptych/stage"
)

// holds tells whether so many bytes fit into the empty device.
func (d *device) holds(bytes int64) bool { return d.BudgetBytes == 0 || bytes <= d.BudgetBytes }

// used is what counts on a device: weights in any state but absent, and scratch of reserved requests.
func (l *ledger) used(d *device) int64 {
	var sum int64
	for c := range l.on(d) {
		sum += c.bytes
	}
	for _, r := range l.requests {
		if r.phase >= reserved && r.service.device == d {
			sum += r.footprint().ScratchBytes
		}
	}
	return sum
}

// free is what placed requests have not yet been promised, once the evictions under way are done.
// It is negative when a stage joined with more than the budget allows, or other processes want what is held here.
func (l *ledger) free(d *device) int64 {
	if d.BudgetBytes == 0 {
		return math.MaxInt64 / 2
	}
	free := d.BudgetBytes - l.others(d) - l.used(d) + l.evicting(d)
	for _, r := range l.requests {
		if r.phase == placed && r.service.device == d {
			free -= r.service.missing(r.need)
		}
	}
	return free
}

// evicting is the bytes on their way back.
func (l *ledger) evicting(d *device) int64 {
	var sum int64
	for c := range l.on(d) {
		if c.state == Evicting {
			sum += c.bytes
		}
	}
	return sum
}

// takes is what n takes at s.
func (s *service) takes(n Need) stage.Footprint { return n.Footprints[s.planning] }

// missing is what is yet to be reserved to serve n at s.
func (s *service) missing(n Need) int64 {
	missing, _ := s.sum(n)
	return missing
}

// whole is all that is pinned while s serves n.
func (s *service) whole(n Need) int64 {
	_, whole := s.sum(n)
	return whole
}

func (s *service) sum(n Need) (missing, whole int64) {
	f, out := s.takes(n), s.outgrown(n)
	missing, whole = f.ScratchBytes, f.ScratchBytes
	for i, w := range f.Weights {
		if c := s.present(n.Components[i]); c != nil && !slices.Contains(out, c) {
			whole += c.bytes
			continue
		}
		missing, whole = missing+w.Bytes, whole+w.Bytes
	}
	return missing, whole
}

// outgrown are the components of n that s holds and that leave no room for n's scratch: they have to be evicted, to be loaded
// within less. As long as there is room, n is served by as much of its weights as is held, be it more or less than n would load.
func (s *service) outgrown(n Need) (out []*component) {
	f := s.takes(n)
	whole := f.ScratchBytes
	for i, w := range f.Weights {
		c := s.present(n.Components[i])
		if c == nil {
			whole += w.Bytes
			continue
		}
		if whole += c.bytes; c.bytes > w.Bytes {
			out = append(out, c)
		}
	}
	if s.device.holds(whole) {
		return nil
	}
	return out
}

// present is a component that is resident or will be, nil if it is not.
func (s *service) present(name string) *component {
	if c := s.find(name); c != nil && (c.state == Loading || c.state == Resident) {
		return c
	}
	return nil
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

// mark keeps the peak.
func (l *ledger) mark(d *device) { d.peak = max(d.peak, l.used(d)) }

// warmBudget is what a host may have of warm weights, in bytes: the smallest that its services say, of those that allow any.
func (l *ledger) warmBudget(host string) (least int64) {
	for _, s := range l.services {
		if s.device.Host == host && s.warmBudget > 0 && (least == 0 || s.warmBudget < least) {
			least = s.warmBudget
		}
	}
	return least
}

// warm is what a host has of them, in bytes: counted, evictions to there included, and what of it is being dropped; promised is
// what evictions wait for.
func (l *ledger) warm(host string) (counted, leaving, promised int64) {
	for c := range l.in(host) {
		switch {
		case c.pending:
			promised += c.warm
		case c.dropping() && !c.service.silent:
			counted, leaving = counted+c.warm, leaving+c.warm
		default:
			counted += c.warm
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

// hosts are those that may have warm weights, by name.
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
