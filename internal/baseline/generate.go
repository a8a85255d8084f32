package baseline

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/triptych-serving/triptych/orchestrator/residency/simulate"
	"github.com/triptych-serving/triptych/stage"
)

// Arrivals is when generated jobs come.
type Arrivals string

// The arrivals.
const (
	Poisson Arrivals = "poisson" // each by itself
	Bursty  Arrivals = "bursty"  // burstJobs of them at once on average, as often as gives the same load
)

const burstJobs = 8

// Generate makes traces. Equal values make equal traces.
type Generate struct {
	Mix      []Share
	Jobs     int // 1 to simulate.MaxJobs
	Arrivals Arrivals
	// Load is the part of the time the busiest stage computes, loads not counted: above 1 the queue grows
	// for as long as the trace lasts.
	Load float64
	Seed uint64
}

// Share is a model and how often it is asked for beside the others.
type Share struct {
	Model  string
	Weight float64
}

// ParseMix reads models with weights, as in "sd15:a=3,sd15:b,sdxl=0.5"; 1 is left out. INVALID_FIELD,
// MODEL_NOT_FOUND.
func ParseMix(text string) ([]Share, error) {
	const accepted = "models separated by commas, each with a positive weight or without, as in sd15=3,sdxl"
	var out []Share
	for item := range strings.SplitSeq(text, ",") {
		name, number, weighed := strings.Cut(strings.TrimSpace(item), "=")
		weight := 1.0
		if weighed {
			var err error
			if weight, err = strconv.ParseFloat(number, 64); err != nil || !(weight > 0 && weight <= 1e6) {
				return nil, stage.Invalid(stage.InvalidField, "models-mix", item, accepted)
			}
		}
		if name == "" || slices.ContainsFunc(out, func(s Share) bool { return s.Model == name }) {
			return nil, stage.Invalid(stage.InvalidField, "models-mix", text, accepted+", each once")
		}
		if _, err := simulate.CatalogModel(name); err != nil {
			return nil, err
		}
		out = append(out, Share{name, weight})
	}
	if len(out) > simulate.MaxModels {
		return nil, stage.Invalid(stage.InvalidField, "models-mix", len(out), fmt.Sprintf("at most %d models", simulate.MaxModels))
	}
	return out, nil
}

// Trace generates. INVALID_FIELD, MODEL_NOT_FOUND.
func (g Generate) Trace() (simulate.Trace, error) {
	switch {
	case g.Jobs < 1 || g.Jobs > simulate.MaxJobs:
		return simulate.Trace{}, stage.Invalid(stage.InvalidField, "jobs", g.Jobs, fmt.Sprintf("1 to %d", simulate.MaxJobs))
	case !(g.Load > 0 && g.Load <= 100):
		return simulate.Trace{}, stage.Invalid(stage.InvalidField, "load", g.Load, "a positive number up to 100")
	case g.Arrivals != Poisson && g.Arrivals != Bursty:
		return simulate.Trace{}, stage.Invalid(stage.InvalidField, "arrivals", g.Arrivals, "poisson or bursty")
	case len(g.Mix) == 0 || len(g.Mix) > simulate.MaxModels:
		return simulate.Trace{}, stage.Invalid(stage.InvalidField, "models-mix", g.Mix, fmt.Sprintf("1 to %d models", simulate.MaxModels))
	}
	random := rand.New(rand.NewPCG(g.Seed, 0)) //nolint:gosec // traces are to be the same again
	var t simulate.Trace
	for range g.Jobs {
		t.Jobs = append(t.Jobs, g.job(random))
	}
	t, err := t.Complete()
	if err != nil {
		return simulate.Trace{}, err
	}
	arrive(t, g.Arrivals, g.Load, random)
	return t, nil
}

// job draws a job: most want one image of the model's own size.
func (g Generate) job(random *rand.Rand) simulate.Job {
	var sum float64
	for _, s := range g.Mix {
		sum += s.Weight
	}
	pick := random.Float64() * sum
	j := simulate.Job{Model: g.Mix[len(g.Mix)-1].Model, Images: []int{1, 1, 1, 2, 4}[random.IntN(5)]}
	for _, s := range g.Mix {
		if pick -= s.Weight; pick < 0 {
			j.Model = s.Model
			break
		}
	}
	if m, err := simulate.CatalogModel(j.Model); err == nil {
		eighths := []int{8, 8, 8, 6, 10} // of the side, in one direction
		j.WidthPx, j.HeightPx = m.SidePx*eighths[random.IntN(5)]/8, m.SidePx
	}
	return j
}

// arrive spreads the jobs, in their order.
func arrive(t simulate.Trace, a Arrivals, load float64, random *rand.Rand) {
	var busiest float64
	for _, k := range stage.Kinds() {
		var busy float64
		for _, j := range t.Jobs {
			turns, seconds := 0, 0.0 // of each of them
			for _, turn := range t.Turns(j) {
				if turn.Stage == k.String() {
					turns, seconds = turns+1, turn.Seconds
				}
			}
			busy += float64(turns) * seconds
		}
		busiest = max(busiest, busy)
	}
	gap := busiest / float64(len(t.Jobs)) / load // seconds between jobs, on average
	var now float64
	for i := range t.Jobs {
		switch {
		case i == 0:
		case a == Poisson:
			now += random.ExpFloat64() * gap
		case random.IntN(burstJobs) == 0:
			now += random.ExpFloat64() * gap * burstJobs
		}
		t.Jobs[i].AtSeconds = now
	}
}
