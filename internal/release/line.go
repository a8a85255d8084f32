package release

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Record is one collection.
type Record struct {
	Decision
	Triggers      []Trigger // that asked for it
	Device        string
	Objects       int64 // that were garbage
	Before, After Reading
	Took          time.Duration
}

// ReleasedBytes is by how much the process shrank; below 0 if it grew meanwhile.
func (r Record) ReleasedBytes() int64 { return r.Before.Process - r.After.Process }

// String is the line of the log, in the format that SD.Next's had: "gpu" is the process's part of the device, "ram" the
// host's memory in use, in GiB; "saved" is the difference of the rounded numbers, and time is in seconds. An allocation is
// never retried here.
func (r Record) String() string {
	before, after := gib(r.Before.Process), gib(r.After.Process)
	var triggers []string
	for _, t := range r.Triggers {
		triggers = append(triggers, string(t))
	}
	return fmt.Sprintf("GC: utilization={'gpu': %d, 'ram': %d, 'threshold': %d} gc={'collected': %d, 'saved': %s} before={'gpu': %s, 'ram': %s} "+
		"after={'gpu': %s, 'ram': %s, 'retries': 0, 'oom': %d} device=%s fn=%s time=%s",
		r.DevicePercent, r.HostPercent, r.Threshold, r.Objects, float(before-after), float(before), float(gib(r.Before.HostUsed)),
		float(after), float(gib(r.After.HostUsed)), r.After.Refused, r.Device, strings.Join(triggers, ":"), float(r.Took.Seconds()))
}

func gib(bytes int64) float64 { return hundredths(float64(bytes) / (1 << 30)) }

func hundredths(v float64) float64 { return math.RoundToEven(100*v) / 100 }

// float is Python's repr of a number rounded to hundredths.
func float(v float64) string {
	text := strconv.FormatFloat(hundredths(v)+0, 'f', -1, 64) // 0 is added for -0
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return text
}
