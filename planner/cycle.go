package planner

import (
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/orchestrator/residency/simulate"
	"github.com/triptych-serving/triptych/stage"
)

// Cycle is what happens again and again while one image after another is made.
type Cycle struct {
	Mode             string   `json:"mode"`
	Resident         []string `json:"resident,omitempty"` // stages that are never evicted
	Warm             []string `json:"warm,omitempty"`     // those that are, and which the host's memory keeps
	Reloaded         []string `json:"reloaded,omitempty"` // those that are loaded again
	ReloadedBytes    int64    `json:"reload_bytes_per_image"`
	ReloadSeconds    *float64 `json:"reload_seconds_per_image"` // null if nobody knows the bandwidth
	PeakBytes        int64    `json:"peak_bytes,omitempty"`
	StreamSecondStep *float64 `json:"stream_seconds_per_step,omitempty"` // of the denoiser, while it computes

	reloads  []reload
	streamed *Stage // the denoiser, of a single model, if it is streamed
}

// The rounds of a cycle: what is loaded for the first time is over after a few, and then everything repeats itself
// within a few.
const (
	firstRounds = 8
	countRounds = 12
)

// reload is what a stage loads again, in stored bytes of an image on average.
type reload struct {
	stage *Stage
	bytes float64
}

// room is what there is: a device's budget, 0 for no limit, and the host's memory for evicted weights.
type room struct{ budget, warm int64 }

// newCycle plans models in turn; some use components of others. What takes time is priced later.
func newCycle(models []Model, room room, parts map[string]string) (Cycle, error) {
	var p Cycle
	var streamed []string
	name := func(m *Model, s *Stage) string {
		if len(models) == 1 {
			return s.Name()
		}
		return m.Model + " " + s.Name()
	}
	for i := range models {
		m := &models[i]
		for i := range m.Stages {
			s := &m.Stages[i]
			if s.Mode == ModeRefused {
				return Cycle{Mode: ModeRefused}, nil
			}
			if s.kind == stage.KindDenoiser && s.StreamedBytes > 0 && len(models) == 1 { // of many, each tells its own
				p.streamed = s
			}
			if s.ResidentBytes != nil {
				streamed = append(streamed, fmt.Sprintf("%s (%s resident)", name(m, s), humanize.IBytes(uint64(*s.ResidentBytes))))
			}
		}
	}
	all, err := inTurn(models, room, parts, firstRounds+countRounds)
	if err != nil {
		return p, err
	}
	first, err := inTurn(models, room, parts, firstRounds)
	if err != nil {
		return p, err
	}
	p.PeakBytes = all.PeakBytes
	loads, uses := 0, 0
	for i := range models {
		m := &models[i]
		for i := range m.Stages {
			s := &m.Stages[i]
			own, cold, warm, bytes := false, 0, 0, 0.0
			for k, w := range s.footprint.Weights {
				uses++
				if parts[w.Component] != "" {
					continue
				}
				own = true
				n := all.LoadsOf[w.Component] - first.LoadsOf[w.Component]
				cold += n
				warm += all.FromWarmOf[w.Component] - first.FromWarmOf[w.Component]
				bytes += s.loadedBytes(k) * float64(n) / float64(countRounds*len(models))
			}
			loads += cold + warm
			if warm > 0 {
				p.Warm = append(p.Warm, name(m, s))
			}
			switch {
			case cold > 0:
				p.Reloaded = append(p.Reloaded, name(m, s))
				p.ReloadedBytes += int64(bytes)
				p.reloads = append(p.reloads, reload{s, bytes})
			case own && warm == 0:
				p.Resident = append(p.Resident, name(m, s))
			}
		}
	}
	switch {
	case len(streamed) > 0:
		p.Mode = ModeStreamed + " " + strings.Join(streamed, ", ")
	case loads == 0:
		p.Mode = ModeAll
	case loads == countRounds*uses:
		p.Mode = ModeOne
	default:
		p.Mode = ModePartly
	}
	return p, nil
}

// loadedBytes is what a load of its k-th component reads.
func (s *Stage) loadedBytes(k int) float64 {
	if len(s.footprint.Weights) == 1 {
		return float64(s.LoadedBytes)
	}
	stored := int64(0)
	for _, n := range s.Networks {
		stored += n.StoredBytes
	}
	return float64(s.LoadedBytes) * float64(s.Networks[k].StoredBytes) / float64(stored)
}

// price tells what takes time, as far as it is known how fast stages are loaded.
func (c *Cycle) price() {
	if s := c.streamed; s != nil && s.LoadBytesPerSecond > 0 {
		seconds := float64(s.StreamedBytes) / float64(s.LoadBytesPerSecond)
		c.StreamSecondStep = &seconds
	}
	seconds := 0.0
	for _, r := range c.reloads {
		if r.stage.LoadBytesPerSecond == 0 {
			return
		}
		seconds += r.bytes / float64(r.stage.LoadBytesPerSecond)
	}
	if c.Mode != ModeRefused {
		c.ReloadSeconds = &seconds
	}
}

// inTurn makes images one after another, of each model in turn, on the clock of a simulation: what is loaded again is
// then for the orchestrator's own ledger to decide.
func inTurn(models []Model, room room, parts map[string]string, rounds int) (simulate.Result, error) {
	const turnSeconds = 1
	var turns [][]simulate.Turn
	longest, weights := 0, int64(0)
	for _, m := range models {
		var of []simulate.Turn
		for _, s := range m.Stages {
			t := simulate.Turn{Name: s.Turn, Stage: s.Stage, ScratchBytes: s.footprint.ScratchBytes, Seconds: turnSeconds}
			for _, w := range s.footprint.Weights {
				t.Components = append(t.Components, simulate.Weights{Name: w.Component, Bytes: w.Bytes})
			}
			of = append(of, t)
			weights += s.footprint.WeightsBytes()
		}
		turns, longest = append(turns, of), max(longest, len(of))
	}
	apart := float64(1+3*longest)*turnSeconds + float64(weights)/residency.NominalBytesPerSecond // until an image is surely there
	var trace simulate.Trace
	for i := range rounds * len(models) {
		trace.Jobs = append(trace.Jobs, simulate.Job{AtSeconds: float64(i) * apart, Turns: turns[i%len(models)]})
	}
	return simulate.Run(trace, simulate.Policy{}, simulate.Options{
		BudgetBytes: room.budget, WarmBytes: room.warm, LoadBytesPerSecond: residency.NominalBytesPerSecond, Parts: parts,
	})
}
