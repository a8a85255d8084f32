package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
)

// report is what is written.
type report struct {
	Date       string `json:"date"`
	Jobs       int    `json:"jobs"`
	Clients    int    `json:"clients"`
	Steps      int    `json:"steps"`
	Seed       uint64 `json:"seed"`
	AllBytes   int64  `json:"all_bytes"`   // all weights and the largest scratch
	LeastBytes int64  `json:"least_bytes"` // the largest stage of a job
	Rows       []row  `json:"rows"`
}

// row is one budget.
type row struct {
	Percent     float64 `json:"percent"`
	BudgetBytes int64   `json:"budget_bytes"`
	Seconds     float64 `json:"seconds"`
	Loads       int     `json:"loads"` // for requests
	Prefetches  int     `json:"prefetches"`
	Evictions   int     `json:"evictions"`
	LoadedBytes int64   `json:"loaded_bytes"`

	// WarmBytes may be kept in the host's memory; FromWarm loads and prefetches were from there. The most that was kept, as the
	// ledger says, and as was resident.
	WarmBytes      int64 `json:"warm_budget_bytes,omitempty"`
	FromWarm       int   `json:"from_warm,omitempty"`
	WarmLedgerPeak int64 `json:"warm_ledger_peak_bytes,omitempty"`
	WarmPeak       int64 `json:"warm_rss_peak_bytes,omitempty"`

	LedgerPeak int64 `json:"ledger_peak_bytes"`
	OverBudget int   `json:"decisions_over_budget"`
	// Stages are the peaks of each stage, as its part of the ledger and as the allocator of its process say.
	Stages []stagePeak `json:"stages"`

	Samples     int   `json:"samples"`
	ArenaPeak   int64 `json:"arena_rss_peak_bytes"` // of the three processes together
	SamplesOver int   `json:"samples_over_budget"`
	Settled     int   `json:"settled_samples"`
	// At settled moments: the most that was resident beyond the ledger, and the most of its weights that was not,
	// both in percent of the ledger.
	AboveMost     float64 `json:"settled_above_most_percent"`
	BelowMost     float64 `json:"settled_below_most_percent"`
	BelowMean     float64 `json:"settled_below_mean_percent"`
	OtherBaseline int64   `json:"other_baseline_bytes"` // Go's heap and the like, before the first job
	OtherPeak     int64   `json:"other_peak_bytes"`
	AllPeak       int64   `json:"anonymous_rss_peak_bytes"` // arenas and the rest together, less the baseline

	// Idle is after the last job: what stays resident.
	Idle struct {
		Ledger    int64 `json:"ledger_bytes"`
		Allocator int64 `json:"allocator_bytes"`
	} `json:"idle"`
}

// stagePeak has the peak of the ledger, which reserves before something is there and until it is surely gone; the most that must
// have been there at once, by its record; and the allocator's peak, which is to lie between the two.
type stagePeak struct {
	Stage     string `json:"stage"`
	Ledger    int64  `json:"ledger_peak_bytes"`
	Sure      int64  `json:"ledger_sure_peak_bytes"`
	Allocator int64  `json:"allocator_peak_bytes"`
}

// off is how far the allocator was from the ledger.
func (s stagePeak) off() int64 { return max(0, s.Allocator-s.Ledger, s.Sure-s.Allocator) }

// percent is part of whole, 0 without one.
func percent(part, whole int64) float64 {
	if whole == 0 {
		return 0
	}
	return 100 * float64(part) / float64(whole)
}

func newRow(share float64, budget int64, took time.Duration, base sample, samples []sample, l *ledger, margin time.Duration) row {
	r := row{
		Percent: share, BudgetBytes: budget, Seconds: took.Seconds(), Loads: l.loads, Prefetches: l.prefetched, Evictions: l.evictions,
		LoadedBytes: l.loaded, FromWarm: l.fromWarm, WarmLedgerPeak: l.keptPeak, LedgerPeak: l.peak, OverBudget: l.over, Samples: len(samples), OtherBaseline: base.other,
	}
	for _, s := range samples {
		r.WarmPeak = max(r.WarmPeak, s.warm)
		r.ArenaPeak, r.OtherPeak = max(r.ArenaPeak, s.arena), max(r.OtherPeak, s.other)
		r.AllPeak = max(r.AllPeak, s.arena+s.other-base.other)
		if s.arena > budget {
			r.SamplesOver++
		}
	}
	for s, c := range l.settled(samples, margin) {
		r.Settled++
		below := max(0, percent(c.used-c.scratch-s.arena, c.used))
		r.BelowMean += below
		r.BelowMost, r.AboveMost = max(r.BelowMost, below), max(r.AboveMost, percent(s.arena-c.used, c.used))
	}
	if r.Settled > 0 {
		r.BelowMean /= float64(r.Settled)
	}
	return r
}

func (r *report) markdown() string {
	var b strings.Builder
	mib := func(n int64) string { return fmt.Sprintf("%.2f", float64(n)/(1<<20)) }
	fmt.Fprintf(&b, "%d jobs, %d at once, %d steps, seed %d; all weights and the largest scratch %s MiB, the largest stage %s MiB. Sizes in MiB.\n\n",
		r.Jobs, r.Clients, r.Steps, r.Seed, mib(r.AllBytes), mib(r.LeastBytes))
	b.WriteString("| budget | loads | prefetches | loaded | ledger's peak | allocators' peaks, off by | arenas' RSS, peak | off by | settled: below / above, most | Go's heap, before / peak | over budget |\n")
	b.WriteString("| --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |\n")
	for _, w := range r.Rows {
		var off []string
		for _, s := range w.Stages {
			off = append(off, fmt.Sprintf("%.2f %%", percent(s.off(), s.Ledger)))
		}
		fmt.Fprintf(&b, "| %g %%: %s | %d | %d | %s | %s | %s | %s | %.2f %% | %.2f / %.2f %% | %s / %s | %d of %d |\n", w.Percent, mib(w.BudgetBytes), w.Loads, w.Prefetches,
			mib(w.LoadedBytes), mib(w.LedgerPeak), strings.Join(off, ", "), mib(w.ArenaPeak), percent(w.LedgerPeak-w.ArenaPeak, w.LedgerPeak),
			w.BelowMost, w.AboveMost, mib(w.OtherBaseline), mib(w.OtherPeak), w.OverBudget+w.SamplesOver, w.Samples)
	}
	for _, w := range r.Rows {
		if w.WarmBytes > 0 {
			fmt.Fprintf(&b, "\n%g %% with %s MiB of warm memory: %d loads from there; at most %s MiB kept, %s MiB of them resident.\n",
				w.Percent, mib(w.WarmBytes), w.FromWarm, mib(w.WarmLedgerPeak), mib(w.WarmPeak))
		}
		if w.Idle.Ledger != w.Idle.Allocator {
			fmt.Fprintf(&b, "\n**%g %%: after the last job the ledger has %d bytes, the allocators %d.**\n", w.Percent, w.Idle.Ledger, w.Idle.Allocator)
		}
	}
	return b.String()
}

func (r *report) write(path string) error {
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644) //nolint:gosec // for everybody to read
}
