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
	Reserve  Action = iota + 1 // bytes were reserved for a request, or found held by a stage that joined
	Load                       // weights are being loaded for a request
	Prefetch                   // weights are reserved and loaded before they are asked for
	Evict                      // weights are being evicted and count until their Release; 0 bytes when that failed
	Wait                       // the request waits, for a stage or for bytes
	Refuse                     // the bytes can never be had
	Lost                       // the runtime process or the service ended, and its bytes with it
	Release                    // bytes are back: scratch, evicted weights, or those of a failed load
)

// String is the action's name.
func (a Action) String() string {
	names := [...]string{"unspecified", "reserve", "load", "prefetch", "evict", "wait", "refuse", "lost", "release"}
	if int(a) >= len(names) {
		return names[0]
	}
	return names[a]
}

// Event is one decision about memory, recorded once. Logs, metrics and tests read this record.
type Event struct {
	Time    time.Time
	Action  Action
	Request RequestID // who caused it, 0 if no request did
	Job     JobID     // whose request that is; of a prefetch, the job it is for
	Stage   StageID   // empty while no stage is chosen
	Kind    stage.Kind
	Model   string
	Device  string // host/device, empty while none is chosen
	Bytes   int64  // that the decision is about
	// UsedBytes are reserved on the device after the decision, of BudgetBytes (0 is no limit).
	UsedBytes, BudgetBytes int64
	Reason                 string // in words
}

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
