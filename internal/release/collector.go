package release

import (
	"context"
	"log/slog"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"sync"
	"time"
)

// Options are what a Collector works with.
type Options struct {
	Policy Policy
	Device string
	Read   func() Reading // safe for concurrent use
	Logger *slog.Logger   // gets a line for every collection, and for every event that does not collect if it is for debugging
	// Adapter tells of what kind of adapter a component is, such as "lora"; empty of a model to draw with. Nil tells of none.
	Adapter func(component string) (kind string)
}

// Collector collects in one process. It sees calls begin and end (see wire.go) and evaluates the policy once for each
// event of theirs. A collection is made when the last call has been answered, never beside one that it was asked for by,
// so that it slows nothing down; one serves every event that asked for it until then.
type Collector struct {
	Options
	free func() // gives back what Go keeps, but what a sync.Pool holds: that goes with the second collection

	mu         sync.Mutex
	calls      int   // that have not been answered
	jobs       int   // those of them that compute
	refused    int64 // allocations, as of the last event
	pending    Record
	collecting bool // by a call's goroutine, which holds no lock

	times, bytes int64 // of collections that have ended
}

// New makes the collector of a process.
func New(o Options) *Collector { return &Collector{Options: o, free: debug.FreeOSMemory} }

// call is what a call to a stage means here.
type call struct {
	done []Event
	job  bool // the call computes
	// Work follows the call at once: what is asked for by then is collected behind that.
	workFollows bool
}

// begin is a call's beginning.
func (c *Collector) begin(k call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls++
	if !k.job {
		return
	}
	c.jobs++
	if c.jobs == 1 {
		c.evaluate(c.Read(), Event{Trigger: JobBegin})
	}
}

// end is a call's end, behind its answer. It collects if that was asked for and no call is left.
func (c *Collector) end(k call, succeeded bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls--
	now := c.Read()
	if now.Refused > c.refused {
		c.evaluate(now, Event{Trigger: OutOfMemory})
	}
	if succeeded {
		for _, e := range k.done {
			c.evaluate(now, e)
		}
	}
	if k.job {
		c.jobs--
		if c.jobs == 0 {
			c.evaluate(now, Event{Trigger: JobEnd})
		}
	}
	if k.workFollows && succeeded {
		return
	}
	for c.calls == 0 && c.pending.Collect() && !c.collecting {
		r := c.pending
		c.pending, c.collecting = Record{}, true
		c.mu.Unlock()
		r = c.collect(r)
		c.mu.Lock()
		c.collecting = false
		c.times, c.bytes = c.times+1, c.bytes+max(0, r.ReleasedBytes())
	}
}

// evaluate decides about an event; c.mu is held.
func (c *Collector) evaluate(now Reading, e Event) {
	d := c.Policy.Decide(e, now, c.refused)
	c.refused = now.Refused
	if !d.Collect() {
		c.Logger.Debug("nothing is released", "trigger", e.Trigger, "reason", d.Reason.String(),
			"device_percent", d.DevicePercent, "host_percent", d.HostPercent, "threshold_percent", d.Threshold)
		return
	}
	if d.Reason > c.pending.Reason {
		c.pending.Decision = d
	}
	c.pending.Triggers = append(c.pending.Triggers, e.Trigger)
}

// Released is how many collections there were, and the bytes by which the process shrank.
func (c *Collector) Released() (times, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.times, c.bytes
}

// worthTelling is from how many bytes on a collection has freed something.
const worthTelling = 1 << 20

// collect fills in the record of a collection and tells it.
func (c *Collector) collect(r Record) Record {
	r.Device, r.Before = c.Device, c.Read()
	freed, start := freedObjects(), time.Now()
	c.free()
	r.Took, r.Objects, r.After = time.Since(start), freedObjects()-freed, c.Read()
	level := slog.LevelInfo
	if r.ReleasedBytes() < worthTelling {
		level = slog.LevelDebug
	}
	c.Logger.LogAttrs(context.Background(), level, r.String(), slog.String("reason", r.Reason.String()),
		slog.String("released_bytes", strconv.FormatInt(r.ReleasedBytes(), 10)), // a number would come out as 1.8e+06 behind the process line
		slog.Float64("seconds", r.Took.Seconds()))
	return r
}

// freedObjects is how many objects of the heap were ever freed.
func freedObjects() int64 {
	sample := []metrics.Sample{{Name: "/gc/heap/frees:objects"}}
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64())
}
