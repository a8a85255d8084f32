package latent

import (
	"github.com/triptych-serving/triptych/engine/config"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/sampler"
	"github.com/triptych-serving/triptych/stage"
)

// Schedule is a model's scheduler, as its files tell it.
type Schedule struct {
	Config   sampler.Config
	Missing  error // why no sampler can be used; nil where some can
	settings string
	failed   error // why there are no settings
}

// ReadSchedule reads the scheduler of a directory: the class that the index names, whatever class its config is of. parse is
// sampler.ParseConfig or ParseWritten; steps are those of align_your_steps.
func ReadSchedule(dir *modeldir.Dir, parse func(data []byte, class string) (sampler.Config, error), steps sampler.Steps) (s Schedule) {
	class, data, err := dir.Scheduler()
	if s.failed = err; err != nil {
		s.Missing = err
		return s
	}
	s.settings = class + "\n" + string(data)
	s.Config, err = parse(data, class)
	s.Config = s.Config.For(steps)
	s.Missing = config.InFile(err, dir.File(modeldir.SchedulerFolder, modeldir.SchedulerFile))
	return s
}

// Option is the spec of the sampler.
func (s Schedule) Option() stage.OptionSpec {
	spec := stage.OptionSpec{Name: OptionSampler, Type: stage.Text, Refused: stage.SamplerUnsupported, Aliases: map[string]stage.Alias{}}
	for name, c := range sampler.Aliases() {
		alias := stage.Alias{Choice: c.Sampler}
		if c.Schedule != "" {
			alias.Others = map[string]string{OptionSchedule: c.Schedule}
		}
		spec.Aliases[name] = alias
	}
	if problem := s.Config.Problem(); s.Missing != nil {
		spec.Choices, spec.Problem = sampler.Names(), "the model has no scheduler that can be read"
	} else if spec.Choices = s.Config.Samplers(); problem != nil {
		spec.Problem = problem.Problem()
	} else {
		spec.Default = stage.TextOption(s.Config.Sampler())
	}
	return spec
}

// spacing is the spec of how noise levels are spaced.
func (s Schedule) spacing() stage.OptionSpec {
	spec := stage.OptionSpec{Name: OptionSchedule, Type: stage.Text, Choices: sampler.Schedules(), Aliases: map[string]stage.Alias{}}
	for name, schedule := range sampler.ScheduleAliases() {
		spec.Aliases[name] = stage.Alias{Choice: schedule}
	}
	return spec
}

// tuned is the config with what a request says of its sampler.
func (s Schedule) tuned(o stage.Options) sampler.Config {
	t := sampler.Tuning{Schedule: o[OptionSchedule].Text, OriginalSteps: int(o[OptionOriginalSteps].Int)}
	if eta, said := o[OptionEta]; said {
		t.Eta = &eta.Float
	}
	return s.Config.Tuned(t)
}

// warnings tell of keys that are ignored, and of a sampler that cannot be used.
func (s Schedule) warnings() []string {
	out := modeldir.IgnoredKeys(modeldir.SchedulerFolder+"/"+modeldir.SchedulerFile, s.Config.Unknown())
	if problem := s.Config.Problem(); problem != nil {
		out = append(out, "scheduler: "+problem.Problem()+", requests have to name another sampler")
	}
	return out
}
