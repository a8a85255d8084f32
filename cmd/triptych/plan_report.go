package main

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stageengine"
)

// plan is what `triptych plan` prints, in bytes.
type plan struct {
	BudgetBytes int64         `json:"budget_bytes,omitempty"`
	Models      []modelPlan   `json:"models"`
	Together    *togetherPlan `json:"together,omitempty"` // of several models
}

// modelPlan is one model's part, as if it were served alone.
type modelPlan struct {
	Model          string      `json:"model"`
	Pipeline       string      `json:"pipeline"`
	Runs           bool        `json:"runs"`            // Triptych can run it
	WeightsPresent bool        `json:"weights_present"` // all of them
	WidthPx        int         `json:"width_px"`
	HeightPx       int         `json:"height_px"`
	Stages         []planStage `json:"stages"`
	// LeastBudgetBytes is the smallest budget in which no stage streams weights but as it is told to, LeastStreamedBudgetBytes
	// the smallest the image can be made in, and AllBytes what keeps every stage in memory.
	LeastBudgetBytes         int64    `json:"least_budget_bytes"`
	LeastStreamedBudgetBytes int64    `json:"least_streamed_budget_bytes"`
	AllBytes                 int64    `json:"all_bytes"`
	Flags                    []string `json:"flags,omitempty"` // to run it so
	cyclePlan
}

// cyclePlan is what happens again and again while one image after another is made.
type cyclePlan struct {
	Mode             string   `json:"mode"`
	Resident         []string `json:"resident,omitempty"` // stages that are never evicted
	Warm             []string `json:"warm,omitempty"`     // those that are, and which the host's memory keeps
	Reloaded         []string `json:"reloaded,omitempty"` // those that are loaded again
	ReloadedBytes    int64    `json:"reload_bytes_per_image"`
	ReloadSeconds    *float64 `json:"reload_seconds_per_image"` // null if nobody knows the bandwidth
	PeakBytes        int64    `json:"peak_bytes,omitempty"`
	StreamSecondStep *float64 `json:"stream_seconds_per_step,omitempty"` // of the denoiser, while it computes

	reloads  []reload
	streamed *planStage // the denoiser, of a single model, if it is streamed
}

// togetherPlan is the models asked for in turn.
type togetherPlan struct {
	LeastBudgetBytes         int64 `json:"least_budget_bytes"`
	LeastStreamedBudgetBytes int64 `json:"least_streamed_budget_bytes"`
	AllBytes                 int64 `json:"all_bytes"`
	// Shared are the parts that several models have in common, NotCompared the models of which that is not known.
	Shared      []sharedPart `json:"shared,omitempty"`
	NotCompared []string     `json:"not_compared,omitempty"`
	cyclePlan
}

type planStage struct {
	Stage             string        `json:"stage"`
	Networks          []planNetwork `json:"networks"`
	WeightsBytes      int64         `json:"weights_bytes"`
	MostScratchBytes  int64         `json:"most_scratch_bytes"`
	LeastScratchBytes int64         `json:"least_scratch_bytes"`
	ScratchBytes      int64         `json:"scratch_bytes"` // under the budget
	Estimated         bool          `json:"scratch_estimated,omitempty"`
	ScratchAtLeast    string        `json:"scratch_formula,omitempty"` // in values a token
	PeakBytes         int64         `json:"peak_bytes"`
	SpillBytes        int64         `json:"spill_bytes,omitempty"`
	StreamedBytes     int64         `json:"streamed_bytes,omitempty"` // read for each evaluation
	ResidentBytes     *int64        `json:"resident_bytes,omitempty"` // of the weights, if others are streamed
	LoadedBytes       int64         `json:"loaded_bytes"`             // read by a load
	Convolutions      planConvs     `json:"convolutions,omitempty"`   // by algorithm
	Mode              string        `json:"mode"`
	// LoadBytesPerSecond is of stored weights, to ready, told or measured; a stage that nothing is read for again is not measured.
	LoadBytesPerSecond int64     `json:"load_bytes_per_second,omitempty"`
	Measured           *measured `json:"measured,omitempty"`

	kind      stage.Kind
	footprint stage.Footprint
}

type planNetwork struct {
	Network     string `json:"network"`
	Class       string `json:"class"`
	Parameters  int64  `json:"parameters"`
	DType       string `json:"dtype"`
	StoredBytes int64  `json:"stored_bytes"`
	Present     bool   `json:"present"`
	Runs        bool   `json:"runs"`

	Warnings []string `json:"warnings,omitempty"`
}

// planConvs is convolutions by algorithm.
type planConvs map[string]int

// String reads "winograd4 41, direct 12", the most first.
func (c planConvs) String() string {
	names := slices.SortedFunc(maps.Keys(c), func(a, b string) int { return 2*(c[b]-c[a]) + strings.Compare(a, b) })
	var out []string
	for _, name := range names {
		out = append(out, fmt.Sprintf("%s %d", name, c[name]))
	}
	if len(out) == 0 {
		return "-"
	}
	return strings.Join(out, ", ")
}

// The ways a stage runs under a budget.
const (
	modeWhole    = "whole"
	modeBands    = "in bands"
	modeStreamed = "streamed" // or "streamed, in bands"
	modeRefused  = "does not fit"
)

// The ways a model is served; with streamed stages it is "streamed STAGE (SIZE resident)".
const (
	modeAll    = "all resident"
	modePartly = "partly resident"
	modeOne    = "one stage at a time"
)

// newModelPlan judges an estimate by a budget, 0 for none; refused is about the first stage that exceeds it.
func newModelPlan(model string, e stageengine.Estimate, budget int64) (p modelPlan, refused error) {
	p = modelPlan{Model: model, Pipeline: e.Pipeline, Runs: e.Runs, WeightsPresent: e.Present, WidthPx: e.WidthPx, HeightPx: e.HeightPx}
	for _, s := range e.Stages {
		needed := s.Footprint.WeightsBytes + s.Footprint.ScratchBytes
		row := planStage{
			Stage: s.Kind.String(), WeightsBytes: s.Footprint.WeightsBytes, MostScratchBytes: s.MostScratch, LeastScratchBytes: s.LeastScratch,
			ScratchBytes: s.Footprint.ScratchBytes, Estimated: s.AtLeast != "", ScratchAtLeast: s.AtLeast, PeakBytes: needed, SpillBytes: s.SpillBytes,
			StreamedBytes: s.StreamedBytes, Convolutions: s.Convolutions, Mode: modeWhole, kind: s.Kind, footprint: s.Footprint,
		}
		for _, n := range s.Networks {
			row.Networks = append(row.Networks, planNetwork{n.Folder, n.Class, n.Parameters, n.DType, n.StoredBytes, n.Present, n.Runs, n.Warnings})
			row.LoadedBytes += n.StoredBytes
		}
		if bytes := s.ResidentBytes; s.StreamedBytes > 0 {
			row.ResidentBytes = &bytes
			row.LoadedBytes = int64(float64(row.LoadedBytes) * min(1, float64(bytes)/float64(s.MostWeights)))
		}
		switch {
		case budget > 0 && needed > budget:
			row.Mode = modeRefused
			if refused == nil {
				refused = stage.DoesNotFit(s.Kind, model, needed, budget, budget)
			}
		case s.StreamedBytes > 0 && s.InBands:
			row.Mode = modeStreamed + ", " + modeBands
		case s.StreamedBytes > 0:
			row.Mode = modeStreamed
		case s.InBands:
			row.Mode = modeBands
		}
		p.Stages = append(p.Stages, row)
		p.LeastBudgetBytes = max(p.LeastBudgetBytes, s.Footprint.WholeBytes+s.LeastScratch)
		p.LeastStreamedBudgetBytes = max(p.LeastStreamedBudgetBytes, s.LeastWeights+s.LeastScratch)
		p.AllBytes += s.Footprint.WholeBytes + s.MostScratch
	}
	return p, refused
}

// streamed names the stages that stream their weights, with what stays.
func (p *modelPlan) streamed() []string {
	var out []string
	for _, s := range p.Stages {
		if s.ResidentBytes != nil {
			out = append(out, fmt.Sprintf("%s (%s resident)", s.Stage, size(*s.ResidentBytes)))
		}
	}
	return out
}

// cycle fills in how the model is served alone under a budget.
func (p *modelPlan) cycle(memory planMemory) error {
	c, err := newCycle([]*modelPlan{p}, memory, nil)
	p.cyclePlan = c
	return err
}

// together sums up several models, some of which use parts of others.
func together(models []modelPlan, memory planMemory, parts sharing) (*togetherPlan, error) {
	t := &togetherPlan{}
	scratch := map[stage.Kind]int64{} // a stage works on one image at a time
	var all []*modelPlan
	for i := range models {
		m := &models[i]
		all = append(all, m)
		t.LeastBudgetBytes = max(t.LeastBudgetBytes, m.LeastBudgetBytes)
		t.LeastStreamedBudgetBytes = max(t.LeastStreamedBudgetBytes, m.LeastStreamedBudgetBytes)
		t.AllBytes += m.AllBytes
		for _, s := range m.Stages {
			t.AllBytes -= min(scratch[s.kind], s.MostScratchBytes)
			scratch[s.kind] = max(scratch[s.kind], s.MostScratchBytes)
			if parts.of(m.Model, s.kind) != m.Model {
				t.AllBytes -= s.footprint.WholeBytes
			}
		}
	}
	var err error
	t.cyclePlan, err = newCycle(all, memory, parts)
	return t, err
}

// flagSize writes bytes as a flag, exactly.
func flagSize(n int64) string {
	const kib, mib = 1 << 10, 1 << 20
	switch {
	case n%mib == 0:
		return fmt.Sprintf("%dMiB", n/mib)
	case n%kib == 0:
		return fmt.Sprintf("%dKiB", n/kib)
	}
	return fmt.Sprint(n)
}

// size writes bytes for people.
func size(n int64) string { return humanize.IBytes(uint64(n)) }

// secondsText writes seconds to three digits.
func secondsText(s float64) string {
	switch {
	case s == 0:
		return "0 s"
	case s < 0.001:
		return "less than 0.001 s"
	}
	digits := max(0, 2-int(math.Floor(math.Log10(s))))
	return fmt.Sprintf("%.*f s", min(digits, 3), s)
}
