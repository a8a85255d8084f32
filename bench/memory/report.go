package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// report is what is written.
type report struct {
	Date  string `json:"date"`
	Steps int    `json:"steps"`
	Rows  []row  `json:"rows"`
}

// row is a scenario, in bytes.
type row struct {
	Name        string   `json:"name"`
	BudgetBytes int64    `json:"budget_bytes"`
	Flags       []string `json:"flags,omitempty"`
	SidePx      int      `json:"side_px"`
	Upscale     bool     `json:"upscale,omitempty"`

	// What `triptych plan` tells before: the largest turn, what keeps everything in memory, the smallest budgets, what is loaded again for the
	// next picture, and what the denoiser reads of its files for each evaluation.
	Mode            string `json:"planned_mode"`
	PlannedPeak     int64  `json:"planned_largest_turn_bytes"`
	PlannedAll      int64  `json:"planned_all_bytes"`
	PlannedLeast    int64  `json:"planned_least_bytes"`
	PlannedStreamed int64  `json:"planned_least_streamed_bytes"`
	ReloadBytes     int64  `json:"planned_reload_bytes,omitempty"`
	StreamedBytes   int64  `json:"planned_streamed_bytes_per_evaluation,omitempty"`

	Seconds     float64 `json:"seconds"`
	Loads       int     `json:"loads"`
	LoadedBytes int64   `json:"loaded_bytes"`
	Evictions   int     `json:"evictions"`
	LedgerPeak  int64   `json:"ledger_peak_bytes"`
	Allocators  []int64 `json:"allocator_peak_bytes"`     // of the runtimes of encoder, denoiser and decoder
	ProcessPeak int64   `json:"anonymous_rss_peak_bytes"` // of all processes together, the programs' heaps included
	Refused     string  `json:"refused,omitempty"`        // why there is no picture
	Picture     string  `json:"picture_sha256,omitempty"` // of the file
}

// plan fills in what was planned.
func (r *row) plan(p planned) {
	m := p.Models[0]
	r.Mode, r.PlannedAll, r.PlannedLeast, r.PlannedStreamed, r.ReloadBytes = m.Mode, m.AllBytes, m.LeastBudgetBytes, m.LeastStreamedBudgetBytes, m.ReloadBytes
	for _, s := range m.Stages {
		r.PlannedPeak = max(r.PlannedPeak, s.WeightsBytes+s.ScratchBytes)
		r.StreamedBytes += s.StreamedBytes
	}
}

// ledger fills in what was decided.
func (r *row) ledger(l ledger) {
	r.LedgerPeak, r.Loads, r.LoadedBytes, r.Evictions = l.peak, l.loads, l.loaded, l.evictions
}

// check holds a row to what its scenario is to show.
func (r *report) check(s scenario, now row) error {
	pictures := map[string]string{}
	for _, row := range r.Rows {
		pictures[row.Name] = row.Picture
	}
	switch {
	case s.pinned && (now.Refused != "MODEL_DOES_NOT_FIT" || now.PlannedAll <= s.budget):
		return fmt.Errorf("it ended with %q, and the plan takes %d bytes for all of it: it was to be refused", now.Refused, now.PlannedAll)
	case !s.pinned && now.Refused != "":
		return fmt.Errorf("it was refused: %s", now.Refused)
	case now.LedgerPeak > s.budget:
		return fmt.Errorf("%d bytes were taken at most, of a budget of %d", now.LedgerPeak, s.budget)
	case now.PlannedPeak > s.budget:
		return fmt.Errorf("the plan takes %d bytes, of a budget of %d", now.PlannedPeak, s.budget)
	case s.evicts && now.Evictions == 0, s.streams && now.StreamedBytes == 0:
		return fmt.Errorf("nothing was evicted, or streamed: the scenario shows nothing")
	case pictures[s.as] != "" && pictures[s.as] != now.Picture:
		return fmt.Errorf("the picture is another than that of %s", s.as)
	}
	return nil
}

// write replaces the file.
func (r *report) write(path string) error {
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o600)
}

func mib(bytes int64) string { return fmt.Sprintf("%d MiB", (bytes+1<<20-1)>>20) }

// markdown is the table of the rows.
func (r *report) markdown() string {
	var b strings.Builder
	b.WriteString("| scenario | side | budget | planned: mode | largest turn | all | loads | evictions | ledger's peak | processes' peak | s | picture |\n")
	b.WriteString("| --- | --: | --: | --- | --: | --: | --: | --: | --: | --: | --: | --- |\n")
	for _, row := range r.Rows {
		picture := row.Refused
		if picture == "" {
			picture = row.Picture[:12]
		}
		side := fmt.Sprint(row.SidePx)
		if row.Upscale {
			side += " x 2"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %d | %d | %s | %s | %.0f | %s |\n", row.Name, side, mib(row.BudgetBytes), row.Mode, mib(row.PlannedPeak), mib(row.PlannedAll),
			row.Loads, row.Evictions, mib(row.LedgerPeak), mib(row.ProcessPeak), row.Seconds, picture)
	}
	return b.String()
}
