package main

import (
	"context"

	"github.com/triptych-serving/triptych/engine/device/devices"
	"github.com/triptych-serving/triptych/orchestrator/residency/simulate"
	"github.com/triptych-serving/triptych/stage/stageengine"
)

// measured is how fast some of a stage's weights were loaded.
type measured struct {
	ReadBytesPerSecond int64 `json:"read_bytes_per_second"`
	PackBytesPerSecond int64 `json:"pack_bytes_per_second,omitempty"`
	SampleBytes        int64 `json:"sample_bytes"`

	rate float64
}

// cycles are those of each model, and of all together.
func (p *plan) cycles() (out []*cyclePlan) {
	for i := range p.Models {
		out = append(out, &p.Models[i].cyclePlan)
	}
	if p.Together != nil {
		out = append(out, &p.Together.cyclePlan)
	}
	return out
}

// rates fills in how fast stages are loaded: as the flag says, or else as is measured, on its own weights, of each that is read
// again. Parts that are equal are measured once.
func (f *planFlags) rates(ctx context.Context, hardware devices.Options, p *plan, estimates []stageengine.Estimate, parts sharing) error {
	wanted := map[*planStage]bool{}
	for _, c := range p.cycles() {
		if c.streamed != nil {
			wanted[c.streamed] = true
		}
		for _, r := range c.reloads {
			wanted[r.stage] = true
		}
	}
	asked := map[simulate.Component]bool{}
	component := func(m *modelPlan, s *planStage) simulate.Component {
		return simulate.Component{Kind: s.kind, Model: parts.of(m.Model, s.kind)}
	}
	for i := range p.Models {
		m := &p.Models[i]
		for j := range m.Stages {
			s := &m.Stages[j]
			s.LoadBytesPerSecond = int64(f.load)
			if wanted[s] && s.present() {
				asked[component(m, s)] = true
			}
		}
	}
	if f.load != 0 || len(asked) == 0 {
		return nil
	}
	hardware.MemoryCapBytes = 0
	d, err := devices.Open(f.stack.device, hardware)
	if err != nil {
		return usageError{err}
	}
	defer d.Close() //nolint:errcheck // what was loaded is freed
	known := map[simulate.Component]*measured{}
	for i := range p.Models {
		m := &p.Models[i]
		for j := range m.Stages {
			s := &m.Stages[j]
			of := component(m, s)
			if !asked[of] {
				continue
			}
			if known[of] == nil {
				r, err := estimates[i].MeasureLoad(ctx, d, s.kind, len(asked))
				if err != nil {
					return err
				}
				known[of] = &measured{
					ReadBytesPerSecond: int64(r.ReadBytesPerSecond), PackBytesPerSecond: int64(r.PackBytesPerSecond), SampleBytes: r.SampleBytes, rate: r.BytesPerSecond(),
				}
			}
			s.Measured = known[of]
			s.LoadBytesPerSecond = int64(s.Measured.rate)
		}
	}
	return nil
}

// present tells whether the weights of all networks of the stage are there.
func (s *planStage) present() bool {
	for _, n := range s.Networks {
		if !n.Present {
			return false
		}
	}
	return true
}
