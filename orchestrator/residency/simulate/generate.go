package simulate

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/triptych-serving/triptych/stage"
)

// catalog has models by the sizes of their published weights: starter and sd15 in the form of their files
// (sd15 float16), sdxl float16 with both text encoders, pyramid (Pyramid Flow's text encoders, transformer
// and decoder) bfloat16. Scratch of starter and sd15 is what plan tells, that of the others is rounded.
// Seconds are those of an accelerator that makes an image of sd15 in 2 s: only their order matters, which
// leaves loads in the same order as computing.
func catalog() map[string]Model {
	const mib, mb = 1 << 20, 1_000_000
	return map[string]Model{
		"starter": {
			SidePx:  128,
			Encoder: Part{2 * mib, mib / 2, 0.01}, Denoiser: Part{17 * mib, 4 * mib, 0.6}, Decoder: Part{2 * mib, 6 * mib, 0.05},
		},
		"sd15": {
			SidePx:  512,
			Encoder: Part{246 * mb, 4 * mib, 0.05}, Denoiser: Part{1719 * mb, 130 * mib, 2}, Decoder: Part{99 * mb, 256 * mib, 0.3},
		},
		"sdxl": {
			SidePx:  1024,
			Encoder: Part{1636 * mb, 16 * mib, 0.1}, Denoiser: Part{5135 * mb, 500 * mib, 6}, Decoder: Part{99 * mb, 256 * mib, 0.8},
		},
		"pyramid": {
			SidePx:  512,
			Encoder: Part{9770 * mb, 64 * mib, 0.3}, Denoiser: Part{3944 * mb, 500 * mib, 5}, Decoder: Part{452 * mb, 256 * mib, 0.8},
		},
	}
}

// CatalogModel is a model of known size: starter, sd15, sdxl or pyramid, or another model of one of these
// sizes, as in sd15:anime. ModelNotFound.
func CatalogModel(name string) (Model, error) {
	size, _, _ := strings.Cut(name, ":")
	m, ok := catalog()[size]
	if !ok || len(name) > maxName {
		known := strings.Join(slices.Sorted(maps.Keys(catalog())), ", ")
		return Model{}, stage.Invalid(stage.ModelNotFound, "model", name, "a model that a line of the trace describes, or one of "+known+", as in sd15 or sd15:anime")
	}
	m.Name = name
	return m, nil
}

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
	Jobs     int // 1 to MaxJobs
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
			if weight, err = strconv.ParseFloat(number, 64); err != nil || !within(weight, 1e6) || weight == 0 {
				return nil, stage.Invalid(stage.InvalidField, "models-mix", item, accepted)
			}
		}
		if name == "" || slices.ContainsFunc(out, func(s Share) bool { return s.Model == name }) {
			return nil, stage.Invalid(stage.InvalidField, "models-mix", text, accepted+", each once")
		}
		if _, err := CatalogModel(name); err != nil {
			return nil, err
		}
		out = append(out, Share{name, weight})
	}
	if len(out) > MaxModels {
		return nil, stage.Invalid(stage.InvalidField, "models-mix", len(out), fmt.Sprintf("at most %d models", MaxModels))
	}
	return out, nil
}

// Trace generates. INVALID_FIELD, MODEL_NOT_FOUND.
func (g Generate) Trace() (Trace, error) {
	switch {
	case g.Jobs < 1 || g.Jobs > MaxJobs:
		return Trace{}, stage.Invalid(stage.InvalidField, "jobs", g.Jobs, fmt.Sprintf("1 to %d", MaxJobs))
	case !within(g.Load, 100) || g.Load == 0:
		return Trace{}, stage.Invalid(stage.InvalidField, "load", g.Load, "a positive number up to 100")
	case g.Arrivals != Poisson && g.Arrivals != Bursty:
		return Trace{}, stage.Invalid(stage.InvalidField, "arrivals", g.Arrivals, "poisson or bursty")
	case len(g.Mix) == 0 || len(g.Mix) > MaxModels:
		return Trace{}, stage.Invalid(stage.InvalidField, "models-mix", g.Mix, fmt.Sprintf("1 to %d models", MaxModels))
	}
	random := rand.New(rand.NewPCG(g.Seed, 0)) //nolint:gosec // traces are to be the same again
	var t Trace
	for range g.Jobs {
		t.Jobs = append(t.Jobs, g.job(random))
	}
	t, err := t.Complete()
	if err != nil {
		return Trace{}, err
	}
	t.arrive(g.Arrivals, g.Load, random)
	return t, nil
}

// job draws a job: most want one image of the model's own size.
func (g Generate) job(random *rand.Rand) Job {
	var sum float64
	for _, s := range g.Mix {
		sum += s.Weight
	}
	pick := random.Float64() * sum
	j := Job{Model: g.Mix[len(g.Mix)-1].Model, Images: []int{1, 1, 1, 2, 4}[random.IntN(5)]}
	for _, s := range g.Mix {
		if pick -= s.Weight; pick < 0 {
			j.Model = s.Model
			break
		}
	}
	if m, err := CatalogModel(j.Model); err == nil {
		eighths := []int{8, 8, 8, 6, 10} // of the side, in one direction
		j.WidthPx, j.HeightPx = m.SidePx*eighths[random.IntN(5)]/8, m.SidePx
	}
	return j
}

// arrive spreads the jobs, in their order.
func (t Trace) arrive(a Arrivals, load float64, random *rand.Rand) {
	var busiest float64
	for _, k := range stage.Kinds() {
		var busy float64
		for _, j := range t.Jobs {
			turns := j.Images
			if k == stage.KindEncoder {
				turns = 1
			}
			busy += float64(turns) * t.model(j.Model).turn(k, j).Seconds
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
