package sampler

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/triptych-serving/triptych/engine/config"
)

// MaxTrainSteps bounds num_train_timesteps; every known model has 1000.
const MaxTrainSteps = 100_000

// MaxSteps bounds the steps of one run.
const MaxSteps = 1000

// Config is a model's scheduler_config.json, of the class that its model_index.json names. One config serves every
// sampler, as from_config does in diffusers: each reads the keys its class knows, drops the others, and takes its class's
// default for what is not written.
//
// StableDiffusionPipeline changes two keys of the scheduler it is made with, whatever they are: steps_offset becomes 1, and
// clip_sample false. So it is in the model's own sampler. Of the config that another sampler is made of only what is written
// counts, and so has been changed; a key that is not written has the other class's default.
type Config struct {
	class   string
	sampler string // the model's own; empty if own tells why it cannot be used
	own     error
	unknown []string
	data    []byte
	written bool // no pipeline changes it
	tuning  Tuning
	steps   Steps
}

// ParseConfig reads the scheduler_config.json of a class. A class or settings that we do not have leave the model without
// a sampler of its own, see New; the error is *UnknownError or config.Errors, naming each key, if no other sampler can be
// used either.
func ParseConfig(data []byte, class string) (Config, error) {
	return Config{class: class, data: strictJSON(data)}.opened()
}

// ParseWritten is ParseConfig for a pipeline that leaves its scheduler as it is, such as StableDiffusionXLPipeline:
// steps_offset and clip_sample are what is written, or the class's default.
func ParseWritten(data []byte, class string) (Config, error) {
	return Config{class: class, data: strictJSON(data), written: true}.opened()
}

// opened is the config of a class and data, read.
func (c Config) opened() (Config, error) {
	r, err := config.ParseDiffusers(c.data)
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		return Config{}, err
	}
	if c.sampler, c.own = ownSampler(c.class, r); c.own == nil {
		c.own = r.Err()
	} else if strings.HasPrefix(c.class, "EDM") || strings.HasPrefix(c.class, "FlowMatch") {
		return Config{}, c.own // their models are told noise levels, and give what no other class makes anything of
	}
	if c.own == nil {
		c.own = c.check(c.sampler, r)
	}
	if c.own != nil {
		c.sampler = ""
	} else {
		c.unknown = r.Unknown(c.class)
	}
	if len(c.Samplers()) == 0 {
		return Config{}, c.own
	}
	return c, nil
}

// Sampler is the name of the model's own sampler, the one New takes for an empty name; empty if that cannot be used.
func (c Config) Sampler() string { return c.sampler }

// Samplers lists the samplers that can be used with the model.
func (c Config) Samplers() []string {
	return slices.DeleteFunc(Names(), func(name string) bool {
		r, err := config.ParseDiffusers(c.data)
		return err != nil || c.check(name, r) != nil
	})
}

// Problem tells why the model's own sampler cannot be used; nil if it can.
func (c Config) Problem() *OwnError {
	if c.own == nil {
		return nil
	}
	return &OwnError{Class: c.class, Known: c.Samplers(), Err: c.own}
}

// Unknown lists the keys of the config that its class does not know, and which are ignored; nil if we do not have the class.
func (c Config) Unknown() []string { return c.unknown }

// check reads the settings of a sampler from r.
func (c Config) check(name string, r *config.Reader) error {
	e, err := entryNamed(name)
	if err != nil {
		return err
	}
	_, err = c.read(e, r)
	return err
}

// ownSampler names the sampler of a class, and refuses in r the settings of that class which no
// sampler's name stands for.
func ownSampler(class string, r *config.Reader) (string, error) {
	switch class {
	case dpmSolver:
		if r.String("algorithm_type", "dpmsolver++", "sde-dpmsolver++", "deis") == "sde-dpmsolver++" {
			if r.OptionalInt("solver_order", 2, 1, 3) == 3 {
				return "dpmpp_3m_sde", nil
			}
			return "dpmpp_2m_sde", nil
		}
	case "PNDMScheduler":
		if !r.Bool("skip_prk_steps", false) {
			r.Refuse("skip_prk_steps", "true")
		}
	}
	var known []string
	for _, e := range entries() {
		if e.class == class {
			return e.name, nil
		}
		known = append(known, e.class)
	}
	return "", &UnknownError{What: "scheduler class", Name: class, Known: slices.Compact(known)}
}

// settings is a config as one sampler sees it.
type settings struct {
	sampler    string
	first      int // evaluation that is taken
	trainSteps int
	betas      betaSettings
	prediction prediction
	spacing    string // leading, trailing or linspace
	offset     int
	clip       float32 // bound of a predicted sample, 0 for none
	finalAlpha bool    // before the first timestep the latents are clean, rather than as at timestep 0
	zeroSNR    bool
	schedule   string // of the noise levels; empty is the class's own
	sigmaMin   bool   // the last sigma is that of timestep 0, rather than zero
	sde        bool

	lowerOrderFinal, eulerAtFinal bool    // DPM-Solver++
	order                         int     // of it
	timestepScaling               float64 // LCM
	originalSteps                 int     // LCM and TCD
	eta                           float32
	levels                        Steps // of align_your_steps
}

type betaSettings struct {
	schedule   string // linear, scaled_linear or squaredcos_cap_v2
	start, end float64
	trained    []float32 // if there are any, the others do not count
}

func (c Config) settings(e entry) (settings, error) {
	r, err := config.ParseDiffusers(c.data)
	if err != nil {
		return settings{}, err
	}
	return c.read(e, r)
}

// read is settings from r, of which it asks for all that the sampler's class knows.
func (c Config) read(e entry, r *config.Reader) (settings, error) {
	class, ok := classNamed(e.class)
	if !ok {
		return settings{}, fmt.Errorf("sampler %s has no class", e.name)
	}
	own := e.name == c.sampler
	s := settings{
		sampler:    e.name,
		trainSteps: r.Int("num_train_timesteps", 1000, 2, MaxTrainSteps),
		prediction: prediction(r.String("prediction_type", class.predictions...)),
		spacing:    r.String("timestep_spacing", first(class.spacing, "leading", "trailing", "linspace")...),
		zeroSNR:    class.zeroSNR && r.Bool("rescale_betas_zero_snr", false),
		finalAlpha: class.finalAlpha && r.Bool("set_alpha_to_one", class.finalAlphaDefault),
		sigmaMin:   class.finalSigma && r.String("final_sigmas_type", "zero", "sigma_min") == "sigma_min",
		sde:        e.sde,
		order:      max(2, e.order),
		levels:     c.steps,
	}
	s.schedule = e.schedule(class, r)
	// Of both keys only where they are written counts, or whose scheduler it is: see Config.
	if c.written {
		s.offset = r.Int("steps_offset", 0, 0, 1)
	} else if r.OptionalInt("steps_offset", 0, -MaxTrainSteps, MaxTrainSteps); own || r.Has("steps_offset") {
		s.offset = 1
	}
	if class.clip {
		clips := r.Bool("clip_sample", class.clipDefault)
		if !c.written {
			clips = class.clipDefault && !own && !r.Has("clip_sample")
		}
		if clips {
			s.clip = float32(r.Float("clip_sample_range", 1, 1e-6, 1e6))
		}
	}
	switch e.class {
	case dpmSolver:
		s.lowerOrderFinal = r.Bool("lower_order_final", true)
		s.eulerAtFinal = r.Bool("euler_at_final", false)
	case deisClass:
		s.lowerOrderFinal = r.Bool("lower_order_final", true)
	case lcmClass:
		s.timestepScaling = r.Float("timestep_scaling", 10, 0, 1e6)
	}
	if e.class == lcmClass || e.class == tcdClass {
		s.originalSteps = r.Int("original_inference_steps", 50, 1, MaxTrainSteps)
	}
	s.betas = readBetas(r, class, s.trainSteps)
	if s.schedule != "" {
		// The reference lets these override the ends of the schedule.
		r.Unset("sigma_min")
		r.Unset("sigma_max")
	}
	for _, key := range slices.Sorted(maps.Keys(class.unset)) {
		if key == "solver_order" && e.order > 0 {
			continue // which the name decides
		}
		if neutral := class.unset[key]; key == "solver_type" && e.class == dpmSolver && slices.Contains(replacesSolverType, c.class) {
			r.Unset(key, append(neutral, `"heun"`)...)
		} else {
			r.Unset(key, neutral...)
		}
	}
	return s, r.Err()
}

// replacesSolverType are the classes that replace any solver_type but their own, so that DPM-Solver++ never sees theirs.
var replacesSolverType = []string{"UniPCMultistepScheduler", deisClass}

func readBetas(r *config.Reader, class class, trainSteps int) betaSettings {
	b := betaSettings{
		schedule: r.String("beta_schedule", first(class.betaSchedule, "linear", "scaled_linear", "squaredcos_cap_v2")...),
		start:    r.Float("beta_start", class.betaStart, 0, 1),
		end:      r.Float("beta_end", class.betaEnd, 0, 1),
	}
	const key = "trained_betas"
	if !r.Has(key) || r.IsNull(key) {
		return b
	}
	outside := func(beta float32) bool { return beta < 0 || beta > 1 }
	if json.Unmarshal(r.Raw(key), &b.trained) != nil || len(b.trained) != trainSteps || slices.ContainsFunc(b.trained, outside) {
		b.trained = nil
		r.Refuse(key, fmt.Sprintf("null or %d numbers from 0 to 1", trainSteps))
	}
	return b
}

// first is the list with def moved to its front, where config.Reader looks for the default.
func first(def string, list ...string) []string {
	return slices.Compact(append([]string{def}, slices.DeleteFunc(list, func(s string) bool { return s == def })...))
}

// strictJSON copies a file that Python's json module wrote: that module writes infinities as bare
// words (lambda_min_clipped is one in many published configs), which become strings here.
func strictJSON(data []byte) []byte {
	if !bytes.Contains(data, []byte("Infinity")) && !bytes.Contains(data, []byte("NaN")) {
		return bytes.Clone(data)
	}
	var out []byte
	inString := false
	for i := 0; i < len(data); i++ {
		if !inString {
			if word := bareWord(data[i:]); word != "" {
				out = append(out, '"')
				out = append(out, word...)
				out = append(out, '"')
				i += len(word) - 1
				continue
			}
		}
		out = append(out, data[i])
		switch {
		case data[i] == '"':
			inString = !inString
		case data[i] == '\\' && inString && i+1 < len(data):
			i++
			out = append(out, data[i])
		}
	}
	return out
}

func bareWord(data []byte) string {
	for _, word := range []string{"-Infinity", "Infinity", "NaN"} {
		if bytes.HasPrefix(data, []byte(word)) {
			return word
		}
	}
	return ""
}
