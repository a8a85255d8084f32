package planner

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stageengine"
)

// Plan is what images of some models take, and what a budget costs, in bytes.
type Plan struct {
	BudgetBytes int64     `json:"budget_bytes,omitempty"`
	Models      []Model   `json:"models"`
	Together    *Together `json:"together,omitempty"` // of several models

	estimates []Estimate // of the models
	parts     map[string]string
}

// Model is one model's part, as if it were served alone.
type Model struct {
	Model          string  `json:"model"`
	Pipeline       string  `json:"pipeline"`
	Runs           bool    `json:"runs"`            // Triptych can run it
	WeightsPresent bool    `json:"weights_present"` // all of them
	WidthPx        int     `json:"width_px"`
	HeightPx       int     `json:"height_px"`
	Stages         []Stage `json:"stages"`
	// LeastBudgetBytes is the smallest budget in which no stage streams weights but as it is told to, LeastStreamedBudgetBytes
	// the smallest the image can be made in, and AllBytes what keeps every stage in memory.
	LeastBudgetBytes         int64    `json:"least_budget_bytes"`
	LeastStreamedBudgetBytes int64    `json:"least_streamed_budget_bytes"`
	AllBytes                 int64    `json:"all_bytes"`
	Flags                    []string `json:"flags,omitempty"` // to run it so, if somebody fills them in
	Cycle

	// Refused is about the first stage that exceeds the budget, nil if none does.
	Refused error `json:"-"`
}

// Together is the models asked for in turn.
type Together struct {
	LeastBudgetBytes         int64 `json:"least_budget_bytes"`
	LeastStreamedBudgetBytes int64 `json:"least_streamed_budget_bytes"`
	AllBytes                 int64 `json:"all_bytes"`
	// Shared are the parts that several models have in common, NotCompared the models of which that is not known.
	Shared      []Shared `json:"shared,omitempty"`
	NotCompared []string `json:"not_compared,omitempty"`
	Cycle
}

// Shared is a component that models have in common, which is loaded once for all of them, in the name of the first.
type Shared struct {
	Stage  string   `json:"stage"`
	Models []string `json:"models"`
}

// Stage is one turn of a stage.
type Stage struct {
	Stage             string         `json:"stage"`
	Turn              string         `json:"turn,omitempty"` // where the stage takes several for an image
	Networks          []Network      `json:"networks"`
	WeightsBytes      int64          `json:"weights_bytes"`
	MostScratchBytes  int64          `json:"most_scratch_bytes"`
	LeastScratchBytes int64          `json:"least_scratch_bytes"`
	ScratchBytes      int64          `json:"scratch_bytes"` // under the budget
	Estimated         bool           `json:"scratch_estimated,omitempty"`
	ScratchAtLeast    string         `json:"scratch_formula,omitempty"` // in values a token
	PeakBytes         int64          `json:"peak_bytes"`
	SpillBytes        int64          `json:"spill_bytes,omitempty"`
	StreamedBytes     int64          `json:"streamed_bytes,omitempty"` // read for each evaluation
	ResidentBytes     *int64         `json:"resident_bytes,omitempty"` // of the weights, if others are streamed
	LoadedBytes       int64          `json:"loaded_bytes"`             // read by a load
	Convolutions      map[string]int `json:"convolutions,omitempty"`   // by algorithm
	Compute           string         `json:"compute"`                  // the type of the factors of products
	Mode              string         `json:"mode"`
	// LoadBytesPerSecond is of stored weights, to ready, told or measured; a stage that nothing is read for again is not measured.
	LoadBytesPerSecond int64     `json:"load_bytes_per_second,omitempty"`
	Measured           *Measured `json:"measured,omitempty"`

	kind      stage.Kind
	footprint stage.Footprint
}

// Name tells the stage from the others of its model.
func (s *Stage) Name() string {
	if s.Turn == "" {
		return s.Stage
	}
	return s.Stage + " " + s.Turn
}

// Network is one network of a stage.
type Network struct {
	Network     string `json:"network"`
	Class       string `json:"class"`
	Parameters  int64  `json:"parameters"`
	DType       string `json:"dtype"`
	StoredBytes int64  `json:"stored_bytes"`
	Present     bool   `json:"present"`
	Runs        bool   `json:"runs"`

	Warnings []string `json:"warnings,omitempty"`
}

// Measured is how fast some of a stage's weights were loaded.
type Measured struct {
	ReadBytesPerSecond int64 `json:"read_bytes_per_second"`
	PackBytesPerSecond int64 `json:"pack_bytes_per_second,omitempty"`
	SampleBytes        int64 `json:"sample_bytes"`

	rate int64 // bytes per second, from storage to ready
}

// The ways a stage runs under a budget.
const (
	ModeWhole    = "whole"
	ModeBands    = "in bands"
	ModeStreamed = "streamed" // or "streamed, in bands"
	ModeRefused  = "does not fit"
)

// The ways a model is served; with streamed stages it is "streamed STAGE (SIZE resident)".
const (
	ModeAll    = "all resident"
	ModePartly = "partly resident"
	ModeOne    = "one stage at a time"
)

// New plans models, each as if it were served alone, and together. The device's budget holds for them, and warmBytes are the
// host's memory for evicted weights. What takes a while is told to w.
// SizeUnsupported, InvalidField, ModelNotFound, ModelInvalid.
func New(ctx context.Context, o stageengine.Options, models []string, req EstimateRequest, w io.Writer) (Plan, error) {
	p := Plan{BudgetBytes: o.Device.Memory().CapBytes}
	room := room{p.BudgetBytes, o.WarmBytes}
	for _, name := range models {
		req.Model = name
		e, err := NewEstimate(ctx, o, req)
		if err != nil {
			return p, err
		}
		p.estimates, p.Models = append(p.estimates, e), append(p.Models, newModel(name, e, room.budget))
	}
	for i := range p.Models {
		var err error
		if p.Models[i].Cycle, err = newCycle(p.Models[i:i+1], room, nil); err != nil {
			return p, err
		}
	}
	if len(models) == 1 {
		return p, nil
	}
	shared, others, err := p.compare(ctx, o, w)
	if err != nil {
		return p, err
	}
	p.Together, err = together(p.Models, room, p.parts)
	if err == nil {
		p.Together.Shared, p.Together.NotCompared = shared, others
	}
	return p, err
}

// newModel judges an estimate by a budget, 0 for none.
func newModel(name string, e Estimate, budget int64) Model {
	m := Model{Model: name, Pipeline: e.Pipeline, Runs: e.Runs, WeightsPresent: e.Present, WidthPx: e.WidthPx, HeightPx: e.HeightPx}
	turns := map[stage.Kind]int{}
	for _, s := range e.Stages {
		turns[s.Kind]++
	}
	for _, s := range e.Stages {
		needed := s.Footprint.WeightsBytes() + s.Footprint.ScratchBytes
		row := Stage{
			Stage: s.Kind.String(), WeightsBytes: s.Footprint.WeightsBytes(), MostScratchBytes: s.MostScratch, LeastScratchBytes: s.LeastScratch,
			ScratchBytes: s.Footprint.ScratchBytes, Estimated: s.AtLeast != "", ScratchAtLeast: s.AtLeast, PeakBytes: needed, SpillBytes: s.SpillBytes,
			StreamedBytes: s.StreamedBytes, Convolutions: s.Convolutions, Compute: s.Compute.String(), Mode: ModeWhole, kind: s.Kind, footprint: s.Footprint,
		}
		if turns[s.Kind] > 1 {
			row.Turn = s.Turn
		}
		for _, n := range s.Networks {
			row.Networks = append(row.Networks, Network{n.Folder, n.Class, n.Parameters, n.DType, n.StoredBytes, n.Present, n.Runs, n.Warnings})
			row.LoadedBytes += n.StoredBytes
		}
		if bytes := s.ResidentBytes; s.StreamedBytes > 0 {
			row.ResidentBytes = &bytes
			row.LoadedBytes = int64(float64(row.LoadedBytes) * min(1, float64(bytes)/float64(s.MostWeights)))
		}
		switch {
		case budget > 0 && needed > budget:
			row.Mode = ModeRefused
			if m.Refused == nil {
				m.Refused = stage.DoesNotFit(s.Kind, name, needed, budget, budget)
			}
		case s.StreamedBytes > 0 && s.InBands:
			row.Mode = ModeStreamed + ", " + ModeBands
		case s.StreamedBytes > 0:
			row.Mode = ModeStreamed
		case s.InBands:
			row.Mode = ModeBands
		}
		m.Stages = append(m.Stages, row)
		m.LeastBudgetBytes = max(m.LeastBudgetBytes, s.Footprint.WholeBytes()+s.LeastScratch)
		m.LeastStreamedBudgetBytes = max(m.LeastStreamedBudgetBytes, s.LeastWeights+s.LeastScratch)
	}
	m.AllBytes = allBytes([]Model{m}, nil)
	return m
}

// allBytes keep every component of models in memory, beside the scratch of each stage, which works on one image at a time.
// parts name the components that serve others.
func allBytes(models []Model, parts map[string]string) (sum int64) {
	whole, scratch := map[string]int64{}, map[stage.Kind]int64{}
	for _, m := range models {
		for _, s := range m.Stages {
			for _, w := range s.footprint.Weights {
				if parts[w.Component] == "" {
					whole[w.Component] = w.WholeBytes
				}
			}
			scratch[s.kind] = max(scratch[s.kind], s.MostScratchBytes)
		}
	}
	for _, bytes := range whole {
		sum += bytes
	}
	for _, bytes := range scratch {
		sum += bytes
	}
	return sum
}

// together sums up several models, some of which use components of others.
func together(models []Model, room room, parts map[string]string) (*Together, error) {
	t := &Together{AllBytes: allBytes(models, parts)}
	for _, m := range models {
		t.LeastBudgetBytes = max(t.LeastBudgetBytes, m.LeastBudgetBytes)
		t.LeastStreamedBudgetBytes = max(t.LeastStreamedBudgetBytes, m.LeastStreamedBudgetBytes)
	}
	var err error
	t.Cycle, err = newCycle(models, room, parts)
	return t, err
}

// compare finds the equal components of the models whose weights are there, and names the other models.
func (p *Plan) compare(ctx context.Context, o stageengine.Options, w io.Writer) (shared []Shared, others []string, err error) {
	var there []string
	for _, m := range p.Models {
		if m.Runs && m.WeightsPresent {
			for _, s := range m.Stages {
				for _, w := range s.footprint.Weights {
					if !slices.Contains(there, w.Component) { // else another model has the same adapter
						there = append(there, w.Component)
					}
				}
			}
		} else {
			others = append(others, m.Model)
		}
	}
	told := time.Now()
	equal, err := EqualParts(ctx, o, there, func(read, all int64) {
		if now := time.Now(); now.Sub(told) >= time.Second {
			told = now
			fmt.Fprintf(w, "comparing the models' parts: %s of %s read\n", humanize.IBytes(uint64(read)), humanize.IBytes(uint64(all)))
		}
	})
	p.parts = map[string]string{}
	for _, e := range equal {
		row := Shared{Stage: e.Kind.String()}
		for _, name := range e.Components {
			row.Models = append(row.Models, stage.ModelOf(name))
			if name != e.Components[0] {
				p.parts[name] = e.Components[0]
			}
		}
		shared = append(shared, row)
	}
	return shared, others, err
}
