package main

import (
	"cmp"
	"slices"
	"strings"

	"github.com/triptych-serving/triptych/orchestrator/residency/simulate"
	"github.com/triptych-serving/triptych/stage"
)

// The rounds of a cycle: what is loaded for the first time is over after a few, and then everything repeats itself
// within a few.
const (
	warmRounds  = 8
	countRounds = 12
)

// nominalRate is in bytes a second, where nobody knows what is loaded in a second.
const nominalRate = 500_000_000

// newCycle plans models in turn under a budget, 0 for none; some use parts of others.
func newCycle(models []*modelPlan, budget int64, parts sharing) (cyclePlan, error) {
	var p cyclePlan
	var streamed []string
	for _, m := range models {
		for _, s := range m.Stages {
			if s.Mode == modeRefused {
				p.Mode = modeRefused
				return p, nil
			}
		}
		for _, s := range m.streamed() {
			streamed = append(streamed, m.prefix(models)+s)
		}
		p.StreamSecondStep = m.streamSeconds(len(models))
	}
	all, err := inTurn(models, budget, parts, warmRounds+countRounds)
	if err != nil {
		return p, err
	}
	warm, err := inTurn(models, budget, parts, warmRounds)
	if err != nil {
		return p, err
	}
	p.PeakBytes = all.PeakBytes
	seconds, known, loads, uses := 0.0, true, 0, 0
	for _, m := range models {
		for _, s := range m.Stages {
			uses++
			if parts.of(m.Model, s.kind) != m.Model {
				continue
			}
			of := simulate.Component{Kind: s.kind, Model: m.Model}
			n := all.LoadsOf[of] - warm.LoadsOf[of]
			loads += n
			name := m.prefix(models) + s.Stage
			if n == 0 {
				p.Resident = append(p.Resident, name)
				continue
			}
			p.Reloaded = append(p.Reloaded, name)
			bytes := float64(s.LoadedBytes) * float64(n) / float64(countRounds*len(models))
			p.ReloadedBytes += int64(bytes)
			known = known && m.LoadBytesPerSecond > 0
			if known {
				seconds += bytes / float64(m.LoadBytesPerSecond)
			}
		}
	}
	if known {
		p.ReloadSeconds = &seconds
	}
	switch {
	case len(streamed) > 0:
		p.Mode = modeStreamed + " " + strings.Join(streamed, ", ")
	case loads == 0:
		p.Mode = modeAll
	case loads == countRounds*uses:
		p.Mode = modeOne
	default:
		p.Mode = modePartly
	}
	return p, nil
}

// prefix tells a model's stages apart from others'.
func (p *modelPlan) prefix(all []*modelPlan) string {
	if len(all) == 1 {
		return ""
	}
	return p.Model + " "
}

// streamSeconds is what reading a streamed denoiser takes in each step; nil if it is not streamed, nobody knows, or
// models are many, each of which tells its own.
func (p *modelPlan) streamSeconds(models int) *float64 {
	for _, s := range p.Stages {
		if s.kind == stage.KindDenoiser && s.StreamedBytes > 0 && p.LoadBytesPerSecond > 0 && models == 1 {
			seconds := float64(s.StreamedBytes) / float64(p.LoadBytesPerSecond)
			return &seconds
		}
	}
	return nil
}

// inTurn makes images one after another, of each model in turn, on the clock of a simulation: what is loaded again is
// then for the orchestrator's own ledger to decide.
func inTurn(models []*modelPlan, budget int64, parts sharing, rounds int) (simulate.Result, error) {
	const side, turnSeconds = 8, 1
	var trace simulate.Trace
	rate, weights := int64(0), int64(0)
	for _, m := range models {
		rate = cmp.Or(rate, m.LoadBytesPerSecond)
		of := map[stage.Kind]simulate.Part{}
		for _, s := range m.Stages {
			of[s.kind] = simulate.Part{WeightsBytes: s.footprint.WeightsBytes, ScratchBytes: s.footprint.ScratchBytes, Seconds: turnSeconds}
			weights += s.footprint.WeightsBytes
		}
		trace.Models = append(trace.Models, simulate.Model{
			Name: m.Model, SidePx: side, Encoder: of[stage.KindEncoder], Denoiser: of[stage.KindDenoiser], Decoder: of[stage.KindDecoder],
		})
	}
	slices.SortFunc(trace.Models, func(a, b simulate.Model) int { return cmp.Compare(a.Name, b.Name) })
	o := simulate.Options{BudgetBytes: budget, LoadBytesPerSecond: float64(cmp.Or(rate, nominalRate)), OracleWidth: 1, Parts: parts}
	apart := 10*turnSeconds + float64(weights)/o.LoadBytesPerSecond // until an image is surely there
	for i := range rounds * len(models) {
		trace.Jobs = append(trace.Jobs, simulate.Job{AtSeconds: float64(i) * apart, Model: models[i%len(models)].Model, Images: 1, WidthPx: side, HeightPx: side})
	}
	return simulate.Run(trace, simulate.Policies()[0], o)
}
