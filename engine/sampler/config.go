package sampler

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/triptych-serving/triptych/engine/model/config"
)

// MaxTrainSteps bounds num_train_timesteps; every known model has 1000.
const MaxTrainSteps = 100_000

// MaxSteps bounds the steps of one run.
const MaxSteps = 1000

// Config is a model's scheduler_config.json. One config serves every sampler, as from_config does in
// diffusers: each reads the keys its class knows, drops the others, and takes its class's default
// for what is absent.
type Config struct {
	sampler string // of the config's own class
	data    []byte
}

// ParseConfig reads a scheduler_config.json and checks it for its own class. The error is an
// *UnknownError for a scheduler class we do not have, or config.Errors, naming each key.
func ParseConfig(data []byte) (Config, error) {
	c := Config{data: strictJSON(data)}
	r, err := config.Parse(c.data)
	if err != nil {
		return Config{}, err
	}
	var file struct {
		Class string `json:"_class_name"`
	}
	if err := json.Unmarshal(c.data, &file); err != nil {
		file.Class = ""
	}
	if c.sampler, err = ownSampler(file.Class, r); err != nil {
		return Config{}, err
	}
	e, err := entryNamed(c.sampler)
	if err != nil {
		return Config{}, err
	}
	if _, err := c.settings(e); err != nil {
		return Config{}, err
	}
	return c, r.Err()
}

// Sampler is the name of the config's own sampler, the one New takes for an empty name.
func (c Config) Sampler() string { return c.sampler }

// ownSampler names the sampler of a class, and refuses in r the settings of that class which no
// sampler's name stands for.
func ownSampler(class string, r *config.Reader) (string, error) {
	switch class {
	case "DPMSolverMultistepScheduler":
		if r.String("algorithm_type", "dpmsolver++", "sde-dpmsolver++", "deis") == "sde-dpmsolver++" {
			return "dpmpp_2m_sde", nil
		}
	case "PNDMScheduler":
		if !r.Bool("skip_prk_steps", false) {
			r.Refuse("skip_prk_steps", "true")
		}
	case "LCMScheduler":
		r.Int("original_inference_steps", lcmOriginalSteps, lcmOriginalSteps, lcmOriginalSteps)
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
	trainSteps int
	betas      betaSettings
	prediction prediction
	spacing    string // leading, trailing or linspace
	offset     int
	clip       float32 // bound of a predicted sample, 0 for none
	finalAlpha bool    // before the first timestep the latents are clean, rather than as at timestep 0
	zeroSNR    bool
	karras     bool
	sigmaMin   bool // the last sigma is that of timestep 0, rather than zero
	sde        bool

	lowerOrderFinal, eulerAtFinal bool    // DPM-Solver++
	timestepScaling               float64 // LCM
}

type betaSettings struct {
	schedule   string // linear, scaled_linear or squaredcos_cap_v2
	start, end float64
	trained    []float32 // if there are any, the others do not count
}

func (c Config) settings(e entry) (settings, error) {
	class, ok := classNamed(e.class)
	if !ok {
		return settings{}, fmt.Errorf("sampler %s has no class", e.name)
	}
	r, err := config.Parse(c.data)
	if err != nil {
		return settings{}, err
	}
	s := settings{
		sampler:    e.name,
		trainSteps: r.Int("num_train_timesteps", 1000, 2, MaxTrainSteps),
		prediction: prediction(r.String("prediction_type", class.predictions...)),
		spacing:    r.String("timestep_spacing", first(class.spacing, "leading", "trailing", "linspace")...),
		offset:     r.Int("steps_offset", 0, 0, MaxTrainSteps),
		karras:     e.karras || class.karras && r.Bool("use_karras_sigmas", false),
		zeroSNR:    class.zeroSNR && r.Bool("rescale_betas_zero_snr", false),
		finalAlpha: class.finalAlpha && r.Bool("set_alpha_to_one", class.finalAlphaDefault),
		sigmaMin:   class.finalSigma && r.String("final_sigmas_type", "zero", "sigma_min") == "sigma_min",
		sde:        e.sde,
	}
	switch e.class {
	case "DPMSolverMultistepScheduler":
		s.lowerOrderFinal = r.Bool("lower_order_final", true)
		s.eulerAtFinal = r.Bool("euler_at_final", false)
	case "LCMScheduler":
		s.timestepScaling = r.Float("timestep_scaling", 10, 0, 1e6)
	}
	if class.clip && r.Bool("clip_sample", class.clipDefault) {
		s.clip = float32(r.Float("clip_sample_range", 1, 1e-6, 1e6))
	}
	s.betas = c.betas(r, class, s.trainSteps)
	if s.karras {
		// The reference lets these override the ends of the Karras schedule.
		r.Unset("sigma_min")
		r.Unset("sigma_max")
	}
	for _, key := range slices.Sorted(maps.Keys(class.unset)) {
		r.Unset(key, class.unset[key]...)
	}
	return s, r.Err()
}

func (c Config) betas(r *config.Reader, class class, trainSteps int) betaSettings {
	b := betaSettings{
		schedule: r.String("beta_schedule", first(class.betaSchedule, "linear", "scaled_linear", "squaredcos_cap_v2")...),
		start:    r.Float("beta_start", class.betaStart, 0, 1),
		end:      r.Float("beta_end", class.betaEnd, 0, 1),
	}
	if !r.Has("trained_betas") || r.IsNull("trained_betas") {
		return b
	}
	var file struct {
		Betas []float32 `json:"trained_betas"`
	}
	outside := func(beta float32) bool { return beta < 0 || beta > 1 }
	if json.Unmarshal(c.data, &file) != nil || len(file.Betas) != trainSteps || slices.ContainsFunc(file.Betas, outside) {
		r.Refuse("trained_betas", fmt.Sprintf("null or %d numbers from 0 to 1", trainSteps))
		return b
	}
	b.trained = file.Betas
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
