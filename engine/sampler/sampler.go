package sampler

import (
	"fmt"
	"math"
)

// Sampler is one schedule: a sampler, a model's config and a number of steps. It does not change
// after New and may be shared.
type Sampler struct {
	name      string
	train     int       // training timesteps of the model
	first     int       // evaluation, of those below
	timesteps []float64 // of each evaluation
	sigmas    []float32 // noise level of each evaluation and after the last, or nil
	initSigma float32
	divisors  []float32 // what the network's input is divided by, or nil
	levels    []level   // of each evaluation
	rule      rule
}

// rule is the part in which samplers differ. Each is in a file of its own.
type rule interface {
	// history names the arrays that a state carries i evaluations behind the first, beside its latents.
	history(i int) []string
	// step gives the latents and the history after evaluation s.Step, the latter in the order of
	// the next one's. It writes to no array of s, but may pass them on.
	step(s State, prediction []float32, noise NoiseFunc) (latents []float32, history [][]float32)
}

// New makes the named sampler for a model, or the model's own when name is empty. Errors are
// *UnknownError, *OwnError, *StepsError, *ScheduleError, or config.Errors for settings of the model that this
// sampler honours and we do not implement.
func New(name string, c Config, steps int) (*Sampler, error) { return NewPart(name, c, steps, steps) }

// NewPart is New of which only so many of the last steps are taken, 1 to all of them: the way from latents that have as
// much of a picture in them as there, see Noised.
func NewPart(name string, c Config, steps, taken int) (*Sampler, error) {
	e, err := c.entry(name)
	if err != nil {
		return nil, err
	}
	set, err := c.settings(e)
	if err == nil {
		err = c.tuning.apply(e, &set)
	}
	if err != nil {
		return nil, err
	}
	if limit := set.maxSteps(e.class); steps < 1 || steps > limit {
		return nil, &StepsError{Sampler: e.name, Steps: steps, Min: 1, Max: limit}
	}
	if taken < 1 || taken > steps {
		return nil, &StepsError{Sampler: e.name, Steps: taken, Min: 1, Max: steps}
	}
	if set.first = steps - taken; e.twice() {
		set.first *= 2
	}
	s, err := e.make(set, steps)
	if err != nil {
		return nil, err
	}
	s.name, s.train, s.first = e.name, set.trainSteps, set.first
	if i, finite := s.probe(); !finite {
		return nil, set.refuse(steps, "the latents are not finite after evaluation %d of %d", i, s.Evaluations())
	}
	return s, nil
}

// NewBehind is NewPart of the way behind a share of all denoising, 0 to 1, as diffusers' denoising_start cuts it. A *StepsError
// tells that no step is left.
func NewBehind(name string, c Config, steps int, share float64) (*Sampler, error) {
	whole, err := New(name, c, steps)
	if err != nil {
		return nil, err
	}
	first := whole.Until(share)
	if e, err := entryNamed(whole.name); err == nil && e.twice() {
		first /= 2 // the evaluations of a step belong together
	}
	return NewPart(name, c, steps, steps-first)
}

// MaxSteps is the largest number of steps that New accepts for a sampler of this model. In rare
// combinations (noise levels that do not fall) a smaller number is refused too.
func (c Config) MaxSteps(name string) (int, error) {
	e, err := c.entry(name)
	if err != nil {
		return 0, err
	}
	set, err := c.settings(e)
	if err != nil {
		return 0, err
	}
	return set.maxSteps(e.class), nil
}

// entry is the named sampler's, or the model's own.
func (c Config) entry(name string) (entry, error) {
	if name == "" {
		if err := c.Problem(); err != nil {
			return entry{}, err
		}
		name = c.sampler
	}
	return entryNamed(name)
}

func (c settings) maxSteps(class string) int {
	limit := min(MaxSteps, c.trainSteps)
	switch class {
	case lcmClass, tcdClass:
		limit = min(limit, c.originalSteps)
	case "DDIMScheduler", "DDPMScheduler", "PNDMScheduler":
		if c.spacing == "leading" && c.offset > 0 { // the last timestep has no next one
			limit = min(limit, c.trainSteps-1)
		}
	case dpmSolver, deisClass, "UniPCMultistepScheduler":
		if c.spacing != "trailing" && c.schedule == "" { // these place one point more than they use
			limit = min(limit, c.trainSteps-1)
		}
	}
	return limit
}

func (c settings) refuse(steps int, reason string, args ...any) error {
	return &ScheduleError{Sampler: c.sampler, Steps: steps, Reason: fmt.Sprintf(reason, args...)}
}

// probe runs the schedule on one number: every coefficient that is not finite shows.
func (s *Sampler) probe() (int, bool) {
	prediction, in := []float32{0.5}, make([]float32, 1)
	st := s.Start([]float32{1})
	for i := s.first; i < s.Evaluations(); i++ {
		s.ModelInput(st, in)
		st = s.Step(st, prediction, func(_ int, dst []float32) { dst[0] = 0.5 })
		if sum := float64(in[0] + st.Latents[0]); math.IsNaN(sum) || math.IsInf(sum, 0) {
			return i, false
		}
	}
	return 0, true
}

// Name is the sampler's name, never empty.
func (s *Sampler) Name() string { return s.name }

// Evaluations is how often the network is asked: the length of the reference's timesteps, which for
// heun and pndm is more than the number of steps.
func (s *Sampler) Evaluations() int { return len(s.timesteps) }

// First is the evaluation that a run begins with: 0 but for a part.
func (s *Sampler) First() int { return s.first }

// Until is how many evaluations come before a share of all denoising is done, 0 to 1: those at training timesteps from
// that of 1 - share on, rounded as diffusers' denoising_end is.
func (s *Sampler) Until(share float64) int {
	cutoff := math.RoundToEven(float64(s.train) - float64(share*float64(s.train)))
	n := 0
	for n < len(s.timesteps) && s.timesteps[n] >= cutoff {
		n++
	}
	return n
}

// Timestep is what the network is told before evaluation i. It may have a fraction.
func (s *Sampler) Timestep(i int) float64 { return s.timesteps[i] }

// Start is the state before the first evaluation, from noise of unit variance (draw 0).
func (s *Sampler) Start(noise []float32) State {
	latents := make([]float32, len(noise))
	for i, n := range noise {
		latents[i] = n * s.initSigma
	}
	return State{Step: s.first, Latents: latents}
}

// Noised writes clean latents with as much noise of unit variance as there is before evaluation i to dst, without any behind
// the last one: the state that a part begins with.
func (s *Sampler) Noised(i int, clean, noise, dst []float32) {
	if i >= len(s.levels) {
		copy(dst, clean)
		return
	}
	l := s.levels[i]
	if l.unscaled {
		l.alpha = 1
	}
	for j, z := range clean {
		dst[j] = float32(l.alpha*z) + float32(l.sigma*noise[j])
	}
}

// From is the state before the first evaluation with latents of one's own.
func (s *Sampler) From(latents []float32) State { return State{Step: s.first, Latents: latents} }

// With is the state with other latents.
func (st State) With(latents []float32) State {
	st.Latents = latents
	return st
}

// ModelInput writes what the network sees before evaluation st.Step to dst, which is as long as the
// latents.
func (s *Sampler) ModelInput(st State, dst []float32) {
	dst = dst[:len(st.Latents)]
	if s.divisors == nil {
		copy(dst, st.Latents)
		return
	}
	d := s.divisors[st.Step]
	for i, v := range st.Latents {
		dst[i] = v / d
	}
}

// Step is the state after the network's prediction for evaluation st.Step. It leaves st as it is and
// keeps no reference to prediction. noise is asked for at most one draw, the number of which is
// st.Step+1. A finished state or a prediction of another length is a mistake of the caller, and
// panics.
func (s *Sampler) Step(st State, prediction []float32, noise NoiseFunc) State {
	s.check(st, prediction)
	latents, arrays := s.rule.step(st, prediction, noise)
	next := State{Step: st.Step + 1, Latents: latents}
	for i, name := range s.history(next.Step) {
		next.history = append(next.history, NamedArray{Name: name, Data: arrays[i]})
	}
	return next
}

// Denoised writes the clean latents that the prediction for evaluation st.Step stands for to dst: a
// preview of the end.
func (s *Sampler) Denoised(st State, prediction, dst []float32) {
	s.check(st, prediction)
	s.levels[st.Step].clean(dst[:len(prediction)], st.Latents, prediction)
}

func (s *Sampler) check(st State, prediction []float32) {
	if st.Step >= s.Evaluations() || len(prediction) != len(st.Latents) {
		panic(fmt.Sprintf("sampler: step %d of %d with %d latents and a prediction of %d", st.Step, s.Evaluations(), len(st.Latents), len(prediction)))
	}
}

// history is that of the rule; a finished state needs none.
func (s *Sampler) history(i int) []string {
	if i >= s.Evaluations() {
		return nil
	}
	return s.rule.history(i - s.first)
}
