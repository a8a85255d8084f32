package recording

import (
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/triptych-serving/triptych/stage"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// Summary is what a recording has, what of it is in the trace, and what is not and why.
type Summary struct {
	Seconds  float64 `json:"seconds"` // from the first message to the last
	Messages int     `json:"messages"`
	Jobs     int     `json:"jobs"`     // heard of
	Replayed int     `json:"replayed"` // jobs
	Turns    int     `json:"turns"`    // of those

	// Jobs that are not in the trace.
	CutAtBegin int `json:"cut_at_begin"` // at work before the recording began
	CutAtEnd   int `json:"cut_at_end"`   // not over when it ended
	CutByLoss  int `json:"cut_by_loss"`  // not over when decisions were lost
	GivenUp    int `json:"given_up"`     // cancelled, failed or refused

	// Turns that are not in the trace, also of jobs that are.
	FailedTurns int `json:"failed_turns"` // failed or cut off, be it that they were taken again
	Previews    int `json:"previews"`     // that were shown because nobody else needed the stage

	Dropped       int64 `json:"dropped_decisions"`
	ResidentParts int   `json:"resident_parts"` // in memory when the recording began
	ResidentBytes int64 `json:"resident_bytes"`
	StreamedTurns int   `json:"streamed_turns"` // that kept only part of their weights in memory
	Devices       int   `json:"devices"`
	Services      int   `json:"services"`
	BudgetBytes   int64 `json:"budget_bytes"` // the largest of a device, 0 is none

	// What the orchestrator did meanwhile, for all jobs.
	Loads        int     `json:"loads"`        // begun, prefetches included
	FailedLoads  int     `json:"failed_loads"` // of those
	WarmLoads    int     `json:"warm_loads"`   // of those: of weights that the host's memory had kept
	LoadedBytes  int64   `json:"loaded_bytes"` // of the others that ended well
	LoadSeconds  float64 `json:"load_seconds"` // of the same
	Evictions    int     `json:"evictions"`
	EvictSeconds float64 `json:"evict_seconds"`
}

// count adds what a decision ends or begins.
func (s *Summary) count(e *triptychv1alpha1.ResidencyEvent) {
	s.BudgetBytes = max(s.BudgetBytes, e.GetBudgetBytes())
	took := e.GetTook().AsDuration().Seconds()
	switch e.GetAction() {
	case triptychv1alpha1.ResidencyEvent_ACTION_LOAD, triptychv1alpha1.ResidencyEvent_ACTION_PREFETCH:
		s.Loads++
	case triptychv1alpha1.ResidencyEvent_ACTION_LOADED:
		if e.GetClass() == triptychv1alpha1.ResidencyEvent_CLASS_FROM_WARM {
			s.WarmLoads++
			return
		}
		s.LoadedBytes += e.GetBytes()
		s.LoadSeconds += took
	case triptychv1alpha1.ResidencyEvent_ACTION_RELEASE:
		switch e.GetClass() {
		case triptychv1alpha1.ResidencyEvent_CLASS_EVICTED:
			if e.GetBytes() > 0 { // else the host's memory gave them up
				s.Evictions++
				s.EvictSeconds += took
			}
		case triptychv1alpha1.ResidencyEvent_CLASS_FAILED:
			s.FailedLoads++
		}
	}
}

// LoadBytesPerSecond is the pace of all loads together, 0 if none was measured.
func (s Summary) LoadBytesPerSecond() float64 {
	if s.LoadedBytes <= 0 || s.LoadSeconds == 0 {
		return 0
	}
	return float64(s.LoadedBytes) / s.LoadSeconds
}

// String tells it in a few lines, the first without its subject.
func (s Summary) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %s in %.1f s, with %s", s.Replayed, stage.Count(s.Jobs, "job"), s.Seconds, stage.Count(s.Turns, "turn"))
	fmt.Fprintf(&b, "\n  jobs left out: %d at work before the recording began, %d not over when it ended, %d cancelled, failed or refused, %d cut by lost decisions",
		s.CutAtBegin, s.CutAtEnd, s.GivenUp, s.CutByLoss)
	fmt.Fprintf(&b, "\n  turns left out: %d that failed or were cut off, %s", s.FailedTurns, stage.Count(s.Previews, "preview"))
	fmt.Fprintf(&b, "\n  recorded for all jobs: %s, prefetches included, of which %d failed; in %.2f s", stage.Count(s.Loads, "load"), s.FailedLoads, s.LoadSeconds)
	if pace := s.LoadBytesPerSecond(); pace > 0 {
		fmt.Fprintf(&b, " at %s/s", humanize.IBytes(uint64(pace)))
	}
	fmt.Fprintf(&b, ", %s", stage.Count(s.Evictions, "eviction"))
	if s.ResidentParts > 0 {
		fmt.Fprintf(&b, "\n  the replay begins with empty memory; the recording began with %s of models, %s", stage.Count(s.ResidentParts, "part"), humanize.IBytes(uint64(max(s.ResidentBytes, 0))))
	}
	if s.WarmLoads > 0 {
		fmt.Fprintf(&b, "\n  loads of weights that the host's memory had kept: %d; the replay keeps what --warm-memory says", s.WarmLoads)
	}
	if s.StreamedTurns > 0 {
		fmt.Fprintf(&b, "\n  turns that streamed part of their weights: %d; the replay keeps the part that they kept, whatever the budget", s.StreamedTurns)
	}
	if s.Devices > 1 || s.Services > 3 {
		fmt.Fprintf(&b, "\n  recorded were %s on %s; the replay has one of each stage on one device", stage.Count(s.Services, "service"), stage.Count(s.Devices, "device"))
	}
	return b.String()
}
