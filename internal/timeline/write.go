package timeline

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/triptych-serving/triptych/stage"
)

// The phases of events that are written.
const (
	phaseSlice   = "X"
	phaseInstant = "i"
	phaseCounter = "C"
	phaseName    = "M"
)

// event is an event of the format. Times are microseconds since the start.
type event struct {
	Name     string         `json:"name"`
	Category string         `json:"cat,omitempty"`
	Phase    string         `json:"ph"`
	Scope    string         `json:"s,omitempty"`
	Time     float64        `json:"ts"`
	Duration *float64       `json:"dur,omitempty"` // of slices
	Process  int            `json:"pid"`
	Thread   int            `json:"tid"`
	Args     map[string]any `json:"args,omitempty"`
}

// file is the object form of the format.
type file struct {
	Unit   string         `json:"displayTimeUnit"`
	Other  map[string]any `json:"otherData"`
	Events []event        `json:"traceEvents"`
}

// Write writes the timeline until end, where what has not ended is cut. It may go on afterwards. The
// errors are those of w.
func (t *Timeline) Write(w io.Writer, end time.Time) error {
	if end.Before(t.last) {
		end = t.last
	}
	events := slices.Clone(t.events)
	for _, s := range t.opened() {
		cut := t.complete(end, s)
		cut.Args = map[string]any{"end": "after the trace"}
		for k, v := range s.args {
			cut.Args[k] = v
		}
		events = append(events, cut)
	}
	for c := range t.counters { // a counter lasts as long as it is told
		events = append(events, t.counter(end, c))
	}
	slices.SortStableFunc(events, func(a, b event) int {
		return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.Process, b.Process), cmp.Compare(a.Thread, b.Thread), cmp.Compare(a.Name, b.Name))
	})
	return json.NewEncoder(w).Encode(file{
		Unit:   "ms",
		Other:  map[string]any{"start": t.start.UTC().Format(time.RFC3339Nano), "dropped_decisions": t.dropped},
		Events: append(t.names(), events...),
	})
}

// names are the events that name processes and threads, and put the threads in pipeline order.
func (t *Timeline) names() []event {
	out := []event{}
	name := func(what string, process, thread int, key string, value any) {
		out = append(out, event{Name: what, Phase: phaseName, Process: process, Thread: thread, Args: map[string]any{key: value}})
	}
	for i, device := range t.tracks.processes {
		name("process_name", i+1, 0, "name", cmp.Or(device, "no device yet"))
	}
	for i, k := range t.tracks.threads {
		process := t.tracks.process(k.device)
		name("thread_name", process, i+1, "name", k.name)
		name("thread_sort_index", process, i+1, "sort_index", order(k.name))
	}
	return out
}

// order is the place of a track: services in pipeline order, then who waits.
func order(name string) int {
	for i, kind := range stage.Kinds() {
		if strings.HasPrefix(name, kind.String()) {
			return i
		}
	}
	return len(stage.Kinds())
}

func (t *Timeline) at(now time.Time) float64 { return microseconds(now.Sub(t.start)) }

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// String tells how much there is.
func (t *Timeline) String() string {
	s := stage.Count(t.Slices(), "slice")
	if t.dropped > 0 {
		s += fmt.Sprintf(", lost decisions: %d", t.dropped)
	}
	return s
}
