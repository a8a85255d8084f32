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
	firstRounds = 8
	countRounds = 12
)

// nominalRate is in bytes a second: what is loaded again is planned before it is known how fast.
const nominalRate = 500_000_000

// reload is what a stage loads again, in stored bytes of an image on average.
type reload struct {
	stage *planStage
	bytes float64
}

// planMemory is what there is: a device's budget, 0 for no limit, and the host's memory for evicted weights.
type planMemory struct{ budget, warm int64 }

// newCycle plans models in turn; some use parts of others. What takes time is priced later.
func newCycle(models []*modelPlan, memory planMemory, parts sharing) (cyclePlan, error) {
	var p cyclePlan
	var streamed []string
	for _, m := range models {
		for i := range m.Stages {
			s := &m.Stages[i]
			if s.Mode == modeRefused {
				return cyclePlan{Mode: modeRefused}, nil
			}
			if s.kind == stage.KindDenoiser && s.StreamedBytes > 0 && len(models) == 1 { // of many, each tells its own
				p.streamed = s
			}
		}
		for _, s := range m.streamed() {
			streamed = append(streamed, m.prefix(models)+s)
		}
	}
	all, err := inTurn(models, memory, parts, firstRounds+countRounds)
	if err != nil {
		return p, err
	}
	first, err := inTurn(models, memory, parts, firstRounds)
	if err != nil {
		return p, err
	}
	p.PeakBytes = all.PeakBytes
	loads, uses := 0, 0
	for _, m := range models {
		for i := range m.Stages {
			s := &m.Stages[i]
			uses++
			if parts.of(m.Model, s.kind) != m.Model {
				continue
			}
			of := simulate.Component{Kind: s.kind, Model: m.Model}
			n, warm := all.LoadsOf[of]-first.LoadsOf[of], all.FromWarmOf[of]-first.FromWarmOf[of]
			loads += n + warm
			name := m.prefix(models) + s.Stage
			if warm > 0 {
				p.Warm = append(p.Warm, name)
			}
			if n == 0 {
				if warm == 0 {
					p.Resident = append(p.Resident, name)
				}
				continue
			}
			p.Reloaded = append(p.Reloaded, name)
			bytes := float64(s.LoadedBytes) * float64(n) / float64(countRounds*len(models))
			p.ReloadedBytes += int64(bytes)
			p.reloads = append(p.reloads, reload{s, bytes})
		}
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

// price tells what takes time, as far as it is known how fast stages are loaded.
func (p *cyclePlan) price() {
	if s := p.streamed; s != nil && s.LoadBytesPerSecond > 0 {
		seconds := float64(s.StreamedBytes) / float64(s.LoadBytesPerSecond)
		p.StreamSecondStep = &seconds
	}
	seconds := 0.0
	for _, r := range p.reloads {
		if r.stage.LoadBytesPerSecond == 0 {
			return
		}
		seconds += r.bytes / float64(r.stage.LoadBytesPerSecond)
	}
	if p.Mode != modeRefused {
		p.ReloadSeconds = &seconds
	}
}

// prefix tells a model's stages apart from others'.
func (p *modelPlan) prefix(all []*modelPlan) string {
	if len(all) == 1 {
		return ""
	}
	return p.Model + " "
}

// inTurn makes images one after another, of each model in turn, on the clock of a simulation: what is loaded again is
// then for the orchestrator's own ledger to decide.
func inTurn(models []*modelPlan, memory planMemory, parts sharing, rounds int) (simulate.Result, error) {
	const side, turnSeconds = 8, 1
	var trace simulate.Trace
	weights := int64(0)
	for _, m := range models {
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
	o := simulate.Options{BudgetBytes: memory.budget, WarmBytes: memory.warm, LoadBytesPerSecond: nominalRate, OracleWidth: 1, Parts: parts}
	apart := 10*turnSeconds + float64(weights)/o.LoadBytesPerSecond // until an image is surely there
	for i := range rounds * len(models) {
		trace.Jobs = append(trace.Jobs, simulate.Job{AtSeconds: float64(i) * apart, Model: models[i%len(models)].Model, Images: 1, WidthPx: side, HeightPx: side})
	}
	return simulate.Run(trace, simulate.Policies()[0], o)
}
