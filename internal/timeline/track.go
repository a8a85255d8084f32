package timeline

import (
	"strings"
	"time"
)

// tracks are the processes and threads of the trace.
type tracks struct {
	processes []string // devices; their number is the index + 1
	threads   []*track // their number is the index + 1
}

// track is a thread of the trace, which shows one slice at a time.
type track struct {
	device, name string
	busy         bool
}

// process is the number of a device.
func (t *tracks) process(device string) int {
	for i, d := range t.processes {
		if d == device {
			return i + 1
		}
	}
	t.processes = append(t.processes, device)
	return len(t.processes)
}

// thread is the number of a track of that name with no slice open, or a new one.
func (t *tracks) thread(device, name string) int {
	for i, k := range t.threads {
		if k.device == device && k.name == name && !k.busy {
			return i + 1
		}
	}
	t.threads = append(t.threads, &track{device: device, name: name})
	return len(t.threads)
}

// name makes the track of a service, so that one that never works is seen too.
func (t *tracks) name(device, stage, service string) {
	t.process(device)
	for _, k := range t.threads {
		if k.device == device && k.name == serviceTrack(stage, service) {
			return
		}
	}
	t.thread(device, serviceTrack(stage, service))
}

func serviceTrack(stage, service string) string { return strings.TrimSpace(stage + " " + service) }

// where is a track by its device and name.
type where struct{ device, name string }

func (t *Timeline) service(stage, service string) where {
	return where{t.devices[service], serviceTrack(stage, service)}
}

// line is where those are who wait for a stage, of no device while none is chosen.
func (t *Timeline) line(device, stage string) where { return where{device, "waiting for " + stage} }

// slice is one that has not ended.
type slice struct {
	start           time.Time
	process, thread int
	name, category  string
	args            map[string]any
}

func (t *Timeline) open(now time.Time, at where, category, what string, args map[string]any) *slice {
	s := &slice{start: now, process: t.tracks.process(at.device), thread: t.tracks.thread(at.device, at.name), category: category, args: args}
	s.name = strings.TrimSpace(category + " " + what)
	t.tracks.threads[s.thread-1].busy = true
	return s
}

// close ends a slice; end says how, if not as it should. s may be nil.
func (t *Timeline) close(now time.Time, s *slice, end string) {
	if s == nil {
		return
	}
	if end != "" {
		s.args["end"] = end
	}
	t.tracks.threads[s.thread-1].busy = false
	t.events = append(t.events, t.complete(now, s))
}

// complete is a slice as one event.
func (t *Timeline) complete(now time.Time, s *slice) event {
	duration := max(0, microseconds(now.Sub(s.start)))
	return event{
		Name: s.name, Category: s.category, Phase: phaseSlice, Time: t.at(s.start), Duration: &duration,
		Process: s.process, Thread: s.thread, Args: s.args,
	}
}

func (t *Timeline) closeWeights(now time.Time, at place, end string) {
	t.close(now, t.weights[at], end)
	delete(t.weights, at)
}

func (t *Timeline) closeCompute(now time.Time, service, end string) {
	t.close(now, t.computes[service], end)
	delete(t.computes, service)
}

func (t *Timeline) closeWait(now time.Time, request uint64, end string) {
	t.close(now, t.waits[request], end)
	delete(t.waits, request)
}

// opened are the slices that have not ended.
func (t *Timeline) opened() (all []*slice) {
	for _, s := range t.weights {
		all = append(all, s)
	}
	for _, s := range t.computes {
		all = append(all, s)
	}
	for _, s := range t.waits {
		all = append(all, s)
	}
	return all
}

func (t *Timeline) closeAll(now time.Time, end string) {
	for _, s := range t.opened() {
		t.close(now, s, end)
	}
}

// instant marks a moment on a service's track, a device's, or, without either, everywhere.
func (t *Timeline) instant(now time.Time, device, service, name string, args map[string]any) {
	e := event{Name: name, Phase: phaseInstant, Scope: "g", Time: t.at(now), Args: args}
	if device != "" {
		e.Scope, e.Process = "p", t.tracks.process(device)
	}
	if service != "" {
		args["service"] = service
	}
	t.events = append(t.events, e)
}

// The counters of a device.
const (
	usedBytes   = "used bytes"
	budgetBytes = "budget bytes"
)

// count moves a device's counters, where they changed. A budget of 0 is none.
func (t *Timeline) count(now time.Time, device string, used, budget int64) {
	move := func(name string, value int64) {
		c := counter{device, name}
		if was, ok := t.counters[c]; !ok || was != value {
			t.counters[c] = value
			t.events = append(t.events, t.counter(now, c))
		}
	}
	move(usedBytes, used)
	if budget > 0 {
		move(budgetBytes, budget)
	}
}

func (t *Timeline) counter(now time.Time, c counter) event {
	return event{Name: c.name, Phase: phaseCounter, Time: t.at(now), Process: t.tracks.process(c.device), Args: map[string]any{"bytes": t.counters[c]}}
}
