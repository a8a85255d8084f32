package residency

import (
	"strconv"
	"time"

	"github.com/triptych-serving/triptych/stage"
)

// Action is what was decided. The values are those of ResidencyEvent.Action on the wire.
type Action uint8

// The actions. Reserve and Prefetch add their bytes to the device, Release and Lost take them off;
// the others move nothing, so that a reader who adds events up always has the ledger.
const (
	Reserve  Action = iota + 1 // bytes were reserved for a request, whose absent and warm components load from then on, one after another; or found held by a stage
	Load                       // weights are being loaded for a request
	Prefetch                   // weights are reserved and loaded before they are asked for
	Evict                      // weights are being evicted and count until their Release; 0 bytes when that failed
	Wait                       // the request waits, for a stage or for bytes
	Refuse                     // the bytes can never be had
	Lost                       // the runtime process or the service ended, and its bytes with it
	Release                    // bytes are back: scratch, evicted weights, or those of a failed load
	Loaded                     // the load of a request or a prefetch has ended well
	Grant                      // the request has its stage and works there from now on
	Withdraw                   // the request's caller gave up before bytes were reserved
	Foreign                    // other processes on the device hold or want other bytes than before, as a stage there tells
	Keep                       // weights are warm that are not, or no longer, on the device
	Drop                       // warm weights are being given up, and count in the host's memory until their Release
)

// String is the action's name.
func (a Action) String() string {
	names := [...]string{"unspecified", "reserve", "load", "prefetch", "evict", "wait", "refuse", "lost", "release", "loaded", "grant", "withdraw", "foreign", "keep", "drop"}
	if int(a) >= len(names) {
		return names[0]
	}
	return names[a]
}

// Class tells apart decisions of one action, where Reason does in words. The values are those of
// ResidencyEvent.Class on the wire.
type Class uint8

// The classes, with their actions.
const (
	ForRequest     Class = iota + 1 // Evict: a request needs the bytes
	ForPrefetch                     // Evict: a prefetch needs them
	OverBudget                      // Evict: a stage joined with more than the budget, the budget shrank, or other processes are first. Drop: likewise, or for weights that are missed more
	Unneeded                        // Evict: what is being prefetched will not be used. Release: nor what was to be loaded for a request next
	OutOfMemory                     // Evict: the device ran out of memory in a load or in work
	Failed                          // Evict: the eviction failed; Release: the load failed; Keep: that load, or the drop, failed
	WorkDone                        // Release: scratch of a granted request
	WorkWithdrawn                   // Release: scratch of a request whose caller gave up, or whose service fell silent, while its weights loaded
	Evicted                         // Release: weights are evicted
	Found                           // Reserve, Keep: a stage holds the weights and it was not known, as when it has joined
	Grouped                         // Wait: others go first, whose weights are resident
	_                               // was of a rule that is gone
	AfterUse                        // Evict: the policy has the stage evicted after each use
	TooLongIdle                     // Evict, Drop: nobody has used it for as long as the policy allows
	AboveWatermark                  // Evict: more is in use than the policy's high watermark
	FromWarm                        // Loaded: the weights were warm
	Stale                           // Evict, Drop: the weights are not to be used again; their files have changed, or what they gave is not finite
	Changed                         // Loaded: what was read is not what had been read of the model before
)

// String is the class's name, empty for 0.
func (c Class) String() string {
	names := [...]string{
		"", "for_request", "for_prefetch", "over_budget", "unneeded", "out_of_memory", "failed", "work_done", "work_withdrawn", "evicted", "found", "grouped", "", "after_use", "idle", "watermark", "from_warm", "stale", "changed",
	}
	if int(c) >= len(names) {
		return names[0]
	}
	return names[c]
}

// Event is one decision about memory, recorded once. Logs, metrics and tests read this record.
type Event struct {
	Time    time.Time
	Action  Action
	Class   Class     // 0 where the action says it all
	Request RequestID // who caused it, 0 if no request did
	Job     JobID     // whose request that is; of a prefetch, the job it is for
	Stage   StageID   // empty while no stage is chosen
	Kind    stage.Kind
	// Component is the one that the decision is about: of a set, the first, which does the work. Components are all of the set, of
	// what a request waits for, has reserved, is granted and gives back; nil where the decision is about one component alone.
	Component  string
	Components []string
	Device     string // host/device, empty while none is chosen
	Bytes      int64  // that the decision is about
	// UsedBytes are reserved on the device after the decision, of BudgetBytes (0 is no limit).
	UsedBytes, BudgetBytes int64
	// Took is how long that lasted which the event ends: of Reserve and Withdraw, the waiting; of Loaded and
	// a failed load's Release, the load; of Grant, the time since the Reserve; of the Release of scratch, the
	// work; of evicted weights, the eviction. 0 elsewhere.
	Took time.Duration
	// Turns, of a Grant, are those that the job has announced and not taken, this one included; 0 if this one is none of
	// them and may be left out, as that of a preview. Taken are those that it has taken.
	Turns, Taken int
	// WholeBytes, of a Grant, are all weights of the set, of which the rest is streamed.
	WholeBytes int64
	// Unfinished, of the Release of scratch: the work failed or was cut off, and the job's turn is still to be taken.
	Unfinished bool
	// Work, of the Release of scratch, is what was done of the turn; no evaluations are told of what is Unfinished and does not count them.
	Work   Workload
	Reason string // in words
}

// Model is that of the component.
func (e Event) Model() string { return stage.ModelOf(e.Component) }

// count writes n with thousands separated.
func count(n int64) string {
	s := strconv.FormatInt(n, 10)
	digits := len(s)
	if n < 0 {
		digits--
	}
	for i := 3; i < digits; i += 4 {
		s = s[:len(s)-i] + "," + s[len(s)-i:]
		digits++
	}
	return s
}
