package sampler

// entry is one sampler: its name, the scheduler class it is in diffusers, the table that makes it and
// what the name adds to the model's config.
type entry struct {
	name   string
	class  string
	make   func(c settings, steps int) (*Sampler, error)
	karras bool // use_karras_sigmas = true
	sde    bool // algorithm_type = sde-dpmsolver++
	order  int  // solver_order, of DPM-Solver++ above 2
}

// twice reports whether a step asks the network twice, but for the last.
func (e entry) twice() bool { return e.class == heunClass || e.class == sdeClass }

const (
	dpmSolver = "DPMSolverMultistepScheduler"
	heunClass = "HeunDiscreteScheduler"
	sdeClass  = "DPMSolverSDEScheduler"
	deisClass = "DEISMultistepScheduler"
	tcdClass  = "TCDScheduler"
	lcmClass  = "LCMScheduler"
)

// entries is every sampler, in the order users see.
func entries() []entry {
	return []entry{
		{name: "ddim", class: "DDIMScheduler", make: newDDIM},
		{name: "ddpm", class: "DDPMScheduler", make: newDDPM},
		{name: "pndm", class: "PNDMScheduler", make: newPNDM},
		{name: "lms", class: "LMSDiscreteScheduler", make: newLMS},
		{name: "heun", class: heunClass, make: newHeun},
		{name: "euler", class: "EulerDiscreteScheduler", make: newEuler},
		{name: "euler_karras", class: "EulerDiscreteScheduler", make: newEuler, karras: true},
		{name: "euler_a", class: "EulerAncestralDiscreteScheduler", make: newEulerAncestral},
		{name: "dpmpp_2m", class: dpmSolver, make: newDPMPP},
		{name: "dpmpp_2m_karras", class: dpmSolver, make: newDPMPP, karras: true},
		{name: "dpmpp_2m_sde", class: dpmSolver, make: newDPMPP, sde: true},
		{name: "dpmpp_3m_sde", class: dpmSolver, make: newDPMPP, sde: true, order: 3},
		{name: "dpmpp_sde", class: sdeClass, make: newDPMPPSDE},
		{name: "deis", class: deisClass, make: newDEIS},
		{name: "unipc", class: "UniPCMultistepScheduler", make: newUniPC},
		{name: "lcm", class: lcmClass, make: newLCM},
		{name: "tcd", class: tcdClass, make: newTCD},
	}
}

// Names lists the samplers that New knows.
func Names() []string {
	var names []string
	for _, e := range entries() {
		names = append(names, e.name)
	}
	return names
}

func entryNamed(name string) (entry, error) {
	for _, e := range entries() {
		if e.name == name {
			return e, nil
		}
	}
	return entry{}, &UnknownError{What: "sampler", Name: name, Known: Names()}
}

// class is what a scheduler class of diffusers knows of a config: the defaults of keys that are
// absent, and which keys it drops because it has no use for them.
type class struct {
	name         string
	betaStart    float64
	betaEnd      float64
	betaSchedule string
	spacing      string
	predictions  []string

	clip, clipDefault             bool // has clip_sample
	finalAlpha, finalAlphaDefault bool // has set_alpha_to_one
	zeroSNR                       bool // has rescale_betas_zero_snr
	karras                        bool // has use_karras_sigmas, and the like of exponential and beta
	finalSigma                    bool // has final_sigmas_type

	unset map[string][]string // keys that change the computation in ways we do not have, with their neutral values as JSON
}

func classNamed(name string) (class, bool) {
	for _, c := range classes() {
		if c.name == name {
			return c, true
		}
	}
	return class{}, false
}

func classes() []class {
	all := []string{"epsilon", "v_prediction", "sample"}
	noSample := all[:2]
	notFalse := []string{"false"}
	threshold := map[string][]string{"thresholding": notFalse}
	return []class{
		{
			name: "DDIMScheduler", betaStart: 0.0001, betaEnd: 0.02, betaSchedule: "linear", spacing: "leading", predictions: all,
			clip: true, clipDefault: true, finalAlpha: true, finalAlphaDefault: true, zeroSNR: true, unset: threshold,
		},
		{
			name: "DDPMScheduler", betaStart: 0.0001, betaEnd: 0.02, betaSchedule: "linear", spacing: "leading", predictions: all,
			clip: true, clipDefault: true, zeroSNR: true,
			unset: map[string][]string{"thresholding": notFalse, "variance_type": {`"fixed_small"`}},
		},
		{
			name: "PNDMScheduler", betaStart: 0.0001, betaEnd: 0.02, betaSchedule: "linear", spacing: "leading", predictions: noSample,
			finalAlpha: true,
		},
		{
			name: "LMSDiscreteScheduler", betaStart: 0.0001, betaEnd: 0.02, betaSchedule: "linear", spacing: "linspace", predictions: all,
			karras: true,
		},
		{
			name: heunClass, betaStart: 0.00085, betaEnd: 0.012, betaSchedule: "linear", spacing: "linspace", predictions: all,
			clip: true, karras: true,
		},
		{
			name: "EulerDiscreteScheduler", betaStart: 0.0001, betaEnd: 0.02, betaSchedule: "linear", spacing: "linspace", predictions: all,
			zeroSNR: true, karras: true, finalSigma: true,
			unset: map[string][]string{"interpolation_type": {`"linear"`}, "timestep_type": {`"discrete"`}},
		},
		{
			name: "EulerAncestralDiscreteScheduler", betaStart: 0.0001, betaEnd: 0.02, betaSchedule: "linear", spacing: "linspace", predictions: noSample,
			zeroSNR: true,
		},
		{
			name: dpmSolver, betaStart: 0.0001, betaEnd: 0.02, betaSchedule: "linear", spacing: "linspace", predictions: all,
			zeroSNR: true, karras: true, finalSigma: true,
			// A config of another multistep class may say bh1, bh2 or logrho; the reference reads all of them as midpoint.
			unset: map[string][]string{
				"thresholding": notFalse, "solver_order": {"2"}, "solver_type": {`"midpoint"`, `"bh1"`, `"bh2"`, `"logrho"`},
				"use_lu_lambdas": notFalse, "use_flow_sigmas": notFalse, "use_dynamic_shifting": notFalse,
				"lambda_min_clipped": {`"-Infinity"`}, "variance_type": {`"fixed_small"`, `"fixed_small_log"`, `"fixed_large"`, `"fixed_large_log"`},
			},
		},
		{
			name: "UniPCMultistepScheduler", betaStart: 0.0001, betaEnd: 0.02, betaSchedule: "linear", spacing: "linspace", predictions: all,
			zeroSNR: true, karras: true, finalSigma: true,
			// As above, the reference reads midpoint, heun and logrho as bh2.
			unset: map[string][]string{
				"thresholding": notFalse, "solver_order": {"2"}, "solver_type": {`"bh2"`, `"midpoint"`, `"heun"`, `"logrho"`},
				"predict_x0": {"true"}, "lower_order_final": {"true"}, "disable_corrector": {"[]"}, "solver_p": nil,
				"use_flow_sigmas": notFalse, "use_dynamic_shifting": notFalse, "shift_terminal": nil,
			},
		},
		{
			name: sdeClass, betaStart: 0.00085, betaEnd: 0.012, betaSchedule: "linear", spacing: "linspace", predictions: noSample,
			karras: true,
		},
		{
			name: deisClass, betaStart: 0.0001, betaEnd: 0.02, betaSchedule: "linear", spacing: "linspace", predictions: all,
			karras: true,
			// The reference reads all of these as logrho.
			unset: map[string][]string{
				"thresholding": notFalse, "solver_order": {"2"}, "solver_type": {`"logrho"`, `"midpoint"`, `"heun"`, `"bh1"`, `"bh2"`},
				"algorithm_type": {`"deis"`, `"dpmsolver"`, `"dpmsolver++"`}, "use_flow_sigmas": notFalse, "use_dynamic_shifting": notFalse,
			},
		},
		{
			name: tcdClass, betaStart: 0.00085, betaEnd: 0.012, betaSchedule: "scaled_linear", spacing: "leading", predictions: all,
			clip: true, finalAlpha: true, finalAlphaDefault: true, zeroSNR: true, unset: threshold,
		},
		{
			name: lcmClass, betaStart: 0.00085, betaEnd: 0.012, betaSchedule: "scaled_linear", spacing: "leading", predictions: all,
			clip: true, finalAlpha: true, finalAlphaDefault: true, zeroSNR: true, unset: threshold,
		},
	}
}
