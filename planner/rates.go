package planner

import (
	"cmp"
	"context"
	"slices"

	"github.com/triptych-serving/triptych/engine/device"
)

// Rates fills in how fast stages are loaded, and what each cycle takes with it: as told, in bytes a second, or where that is 0
// as is measured of each stage that is read again, on its own weights, if they are there. Stages of equal components are measured
// once, on a device that open gives.
func (p *Plan) Rates(ctx context.Context, told int64, open func() (device.Device, error)) error {
	cycles := []*Cycle{}
	for i := range p.Models {
		cycles = append(cycles, &p.Models[i].Cycle)
	}
	if p.Together != nil {
		cycles = append(cycles, &p.Together.Cycle)
	}
	wanted := map[*Stage]bool{}
	for _, c := range cycles {
		wanted[c.streamed] = true
		for _, r := range c.reloads {
			wanted[r.stage] = true
		}
	}
	asked, known := map[string]bool{}, map[string]*Measured{} // by what is held
	for s := range p.stages {
		s.LoadBytesPerSecond = told
		if absent := func(n Network) bool { return !n.Present }; wanted[s] && !slices.ContainsFunc(s.Networks, absent) {
			asked[p.held(s)] = true
		}
	}
	if told == 0 && len(asked) > 0 {
		d, err := open()
		if err != nil {
			return err
		}
		defer d.Close() //nolint:errcheck // what was loaded is freed
		for s, e := range p.stages {
			held := p.held(s)
			if asked[held] && known[held] == nil {
				r, err := e.MeasureLoad(ctx, d, len(asked))
				if err != nil {
					return err
				}
				known[held] = &Measured{int64(r.ReadBytesPerSecond), int64(r.PackBytesPerSecond), r.SampleBytes, int64(r.BytesPerSecond())}
			}
			if s.Measured = known[held]; s.Measured != nil {
				s.LoadBytesPerSecond = s.Measured.rate
			}
		}
	}
	for _, c := range cycles {
		c.price()
	}
	return nil
}

// stages yields the stages of all models, with their estimates.
func (p *Plan) stages(yield func(*Stage, *StageEstimate) bool) {
	for i := range p.Models {
		for j := range p.Models[i].Stages {
			if !yield(&p.Models[i].Stages[j], &p.estimates[i].Stages[j]) {
				return
			}
		}
	}
}

// held names the components that a stage holds, equal ones alike.
func (p *Plan) held(s *Stage) (names string) {
	for _, w := range s.footprint.Weights {
		names += cmp.Or(p.parts[w.Component], w.Component) + " "
	}
	return names
}
