package sampler

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/mathext"

	"github.com/triptych-serving/triptych/engine/config"
)

// The schedules: how noise levels are spaced.
const (
	Karras         = "karras"           // equation 5 of Karras et al. 2022, arXiv 2206.00364
	Exponential    = "exponential"      // evenly by their logarithms
	Beta           = "beta"             // Lee et al. 2024, arXiv 2407.12173, by levels as diffusers and A1111 have it
	SGMUniform     = "sgm_uniform"      // evenly by timesteps, the last of which is left out, as Stability AI's repository has it
	Normal         = "normal"           // evenly by timesteps, to the last one, as k-diffusion has it
	Simple         = "simple"           // every so many of the model's levels, as ComfyUI has it
	AlignYourSteps = "align_your_steps" // Sabour et al. 2024, arXiv 2404.14507
)

// Schedules are the schedules that a request may ask for.
func Schedules() []string {
	return []string{Karras, Exponential, Beta, SGMUniform, Normal, Simple, AlignYourSteps}
}

// Steps are the noise levels of align_your_steps, which were found for a model.
type Steps struct{ levels []float64 }

// StepsOfSD are those of Stable Diffusion 1.5, StepsOfXL of Stable Diffusion XL; the last level before 0 as published with ten steps.
func StepsOfSD() Steps {
	return Steps{[]float64{14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029}}
}

// StepsOfXL are those of Stable Diffusion XL.
func StepsOfXL() Steps {
	return Steps{[]float64{14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029}}
}

// Tuning is what a request may say of how a sampler works; what it does not say is as the model's config and the sampler have it.
type Tuning struct {
	Schedule      string   // one of Schedules
	Eta           *float64 // how much of the noise is drawn anew at each step, 0 to 1: of ddim, tcd, euler_a
	OriginalSteps int      // of what a model was distilled from: of lcm and tcd
}

// Tuned is the config with what a request says.
func (c Config) Tuned(t Tuning) Config {
	c.tuning = t
	return c
}

// For is the config of a model that align_your_steps has levels for.
func (c Config) For(s Steps) Config {
	c.steps = s
	return c
}

// schedule is that of a sampler's name, or else of a config of its class.
func (e entry) schedule(class class, r *config.Reader) (named string) {
	if e.karras {
		named = Karras
	}
	if class.karras {
		for _, s := range []string{Karras, Exponential, Beta} {
			switch key := "use_" + s + "_sigmas"; {
			case !r.Bool(key, false) || e.karras:
			case named != "":
				r.Refuse(key, "false beside use_"+named+"_sigmas")
			default:
				named = s
			}
		}
	}
	return named
}

// spaceable reports whether a sampler is one over noise levels, which a schedule may space.
func (e entry) spaceable() bool {
	class, _ := classNamed(e.class)
	return class.karras || e.name == "euler_a"
}

// TuningError is a Tuning that a sampler does not take.
type TuningError struct {
	Sampler  string
	Field    string // of Tuning, as requests name it: "schedule", "eta", "original_steps"
	Got      string
	Expected string
}

// Error reads: sampler ddim with eta 3: expected a number from 0 to 1.
func (e *TuningError) Error() string {
	return fmt.Sprintf("sampler %s with %s %s: expected %s", e.Sampler, e.Field, e.Got, e.Expected)
}

// etas are the samplers that take one, and what it is if nobody says.
var etas = map[string]float32{"ddim": 0, "tcd": 0.3, "euler_a": 1}

// apply has a sampler's settings as a request wants them. The error is a TuningError.
func (t Tuning) apply(e entry, s *settings) error {
	refuse := func(field string, got any, expected string) error {
		return &TuningError{Sampler: e.name, Field: field, Got: fmt.Sprint(got), Expected: expected}
	}
	s.eta = etas[e.name]
	if t.Eta != nil {
		if _, takes := etas[e.name]; !takes {
			return refuse("eta", *t.Eta, "none: it is of ddim, tcd and euler_a")
		} else if !(*t.Eta >= 0 && *t.Eta <= 1) {
			return refuse("eta", *t.Eta, "a number from 0 to 1")
		}
		s.eta = float32(*t.Eta)
	}
	if n := t.OriginalSteps; n != 0 {
		if e.class != lcmClass && e.class != tcdClass {
			return refuse("original_steps", n, "none: they are of lcm and tcd")
		} else if n < 1 || n > s.trainSteps {
			return refuse("original_steps", n, fmt.Sprintf("a number from 1 to %d", s.trainSteps))
		}
		s.originalSteps = n
	}
	if t.Schedule == "" {
		return nil
	}
	switch {
	case !slices.Contains(Schedules(), t.Schedule):
		return refuse("schedule", t.Schedule, fmt.Sprintf("one of %q", Schedules()))
	case !e.spaceable():
		return refuse("schedule", t.Schedule, "none: its noise levels are those of its timesteps")
	case e.karras && t.Schedule != Karras:
		return refuse("schedule", t.Schedule, Karras+", as its name says, or the sampler without it in its name")
	case t.Schedule == AlignYourSteps && len(s.levels.levels) == 0:
		return refuse("schedule", t.Schedule, "a model of the families that it was made for, Stable Diffusion 1 and XL")
	}
	s.schedule = t.Schedule
	return nil
}

// spaced are noise levels of a schedule from high to low, and the timesteps, with fractions, that a model of a table of them has.
func (c settings) spaced(table []float32, high, low float64, n int) (sigmas, timesteps []float64) {
	switch c.schedule {
	case Karras:
		sigmas = karras(high, low, n)
	case Exponential:
		sigmas = levelsAt(linspace(1, n), []float64{high, low})
	case Beta:
		for _, ramp := range linspace(1, n) {
			const shape = 0.6
			sigmas = append(sigmas, low+float64(mathext.InvRegIncBeta(shape, shape, 1-ramp)*(high-low)))
		}
	case SGMUniform, Normal, Simple:
		last := len(table) - 1
		for i := range n {
			t := float64(last)
			switch {
			case c.schedule == SGMUniform:
				t -= float64(i) * t / float64(n)
			case c.schedule == Normal && n > 1:
				t -= float64(i) * t / float64(n-1)
			case c.schedule == Simple:
				t = float64(last - int(float64(i)*float64(last+1)/float64(n)))
			}
			j := min(int(t), last-1)
			from, to := math.Log(float64(table[j])), math.Log(float64(table[j+1]))
			sigmas = append(sigmas, math.Exp(from+(t-float64(j))*(to-from)))
		}
	case AlignYourSteps:
		sigmas = levelsAt(linspace(1, n+1)[:n], c.levels.levels)
	}
	return sigmas, timestepsOf(sigmas, table)
}

// levelsAt are levels at places from 0 to 1, between those that are known by their logarithms.
func levelsAt(places, known []float64) (out []float64) {
	for _, p := range places {
		at := p * float64(len(known)-1)
		j := min(int(at), len(known)-2)
		from, to := math.Log(known[j]), math.Log(known[j+1])
		out = append(out, math.Exp(from+(at-float64(j))*(to-from)))
	}
	return out
}
