// Package release decides when a stage's process gives back memory that it keeps for later, and does it: the garbage of
// Go's heap, and the heap's pages that are free. What a device holds is not its business: arenas of weights and scratch go
// back to the system the moment they are freed.
//
// Events, formula and log line are those of SD.Next's torch_gc as of June 2024 (vladmandic/sdnext, commit b036c2fc3, issue
// 3267), where the cache is that of torch's allocator.
//
// The package may import internal/cgroup, the stages' proto and grpc/stats, by which it sees calls begin and end.
package release

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Trigger is what happened in a stage.
type Trigger string

// The triggers. A job is what a stage computes from the first call that finds it idle to the end of the last one. Beside these there are those
// of turns without a name of old, and of kinds of adapters: see wire.go.
const (
	PromptEncoded Trigger = "prompt_encoded"
	DenoiseDone   Trigger = "denoise_done"
	VAEEncoded    Trigger = "vae_encoded"
	VAEDecoded    Trigger = "vae_decoded"
	UpscaleDone   Trigger = "upscale_done"
	ModelChanged  Trigger = "model_changed" // weights of a model to draw with were loaded, evicted or dropped
	JobBegin      Trigger = "job_begin"
	JobEnd        Trigger = "job_end"
	OutOfMemory   Trigger = "out_of_memory" // more allocations were refused
)

// Event asks once whether to collect.
type Event struct {
	Trigger Trigger
	Force   bool // whatever is in use
}

// Reading is memory at one moment, in bytes; 0 is not known, or no limit.
type Reading struct {
	LedgerUsed, LedgerCap int64 // what is allocated on the device, of its budget
	Process               int64 // what the process has in memory: on a CPU, its part of the device
	HostUsed, HostTotal   int64 // of the machine, or of the control group that limits the process
	Refused               int64 // allocations that the device refused so far; a count
}

// Policy is when to collect.
type Policy struct {
	// ThresholdPercent is how full the device or its host must be for an event to collect; at 0 every one does.
	ThresholdPercent int
	// LowMemory has every event collect, as a threshold of 0.
	LowMemory Override
}

// DefaultThreshold is ThresholdPercent where nobody chose.
const DefaultThreshold = 80

// ParseThreshold reads a percentage, with or without its sign.
func ParseThreshold(text string) (percent int, err error) {
	percent, err = strconv.Atoi(strings.TrimSuffix(text, "%"))
	if err != nil || percent < 0 || percent > 100 {
		return 0, fmt.Errorf("%q is not a threshold, expected a percentage from 0 to 100", text)
	}
	return percent, nil
}

// Override says whether a device counts as small.
type Override string

// Auto goes by the device's size: smallBytes or less is small.
const (
	Auto Override = "auto"
	On   Override = "on"
	Off  Override = "off"
)

// smallBytes is the size of a card up to which SD.Next chooses its mode "lowvram" by itself.
const smallBytes = 4 << 30

// ParseOverride reads auto, on or off.
func ParseOverride(text string) (Override, error) {
	if o := Override(text); slices.Contains([]Override{Auto, On, Off}, o) {
		return o, nil
	}
	return "", fmt.Errorf("%q is not a choice, expected auto, on or off", text)
}

// holds tells whether the device of a reading is small; its size is its budget or its host's memory, whichever is less.
func (o Override) holds(r Reading) bool {
	for _, size := range []int64{r.LedgerCap, r.HostTotal} {
		if o == Auto && size > 0 && size <= smallBytes {
			return true
		}
	}
	return o == On
}

// Reason is why an event collects.
type Reason uint8

// The reasons, the weightier later: of several that hold, the last one is told.
const (
	BelowThreshold Reason = iota // it does not collect
	Threshold
	LowMemory
	Refused
	Forced
)

func (r Reason) String() string {
	return [...]string{"below threshold", "threshold", "low memory", "out of memory", "forced"}[r]
}

// Decision is the answer to an event.
type Decision struct {
	Reason                     Reason
	DevicePercent, HostPercent int // in use
	Threshold                  int // in percent, the one that held
}

// Collect reports whether memory is to be given back.
func (d Decision) Collect() bool { return d.Reason != BelowThreshold }

// Decide answers an event; refusedBefore is Reading.Refused as of the last event.
//
//	collect = force, or refused grew, or used >= threshold; threshold = 0 with low memory
//
// used is the larger of three shares, rounded to whole percents: of the ledger in its cap and of the process in the host's
// memory, which are the device's, and of everything in the host's memory.
func (p Policy) Decide(e Event, r Reading, refusedBefore int64) Decision {
	d := Decision{
		DevicePercent: max(percent(r.LedgerUsed, r.LedgerCap), percent(r.Process, r.HostTotal)),
		HostPercent:   percent(r.HostUsed, r.HostTotal),
		Threshold:     p.ThresholdPercent,
	}
	low := p.LowMemory.holds(r)
	if low {
		d.Threshold = 0
	}
	switch {
	case e.Force:
		d.Reason = Forced
	case r.Refused > refusedBefore:
		d.Reason = Refused
	case low:
		d.Reason = LowMemory
	case max(d.DevicePercent, d.HostPercent) >= d.Threshold:
		d.Reason = Threshold
	}
	return d
}

// percent is Python's round(100*used/total), which takes a half to the even side.
func percent(used, total int64) int {
	if total <= 0 {
		return 0
	}
	return int(math.RoundToEven(100 * float64(used) / float64(total)))
}
