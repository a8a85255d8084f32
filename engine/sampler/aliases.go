package sampler

import (
	"maps"
	"slices"
	"strings"
)

// Choice is a sampler and a schedule by our names; an empty schedule is the sampler's own, or the model's.
type Choice struct{ Sampler, Schedule string }

// Parse finds what people and other programs mean by the names of a sampler and a schedule, whatever the case of their letters: ours, those
// of A1111's web UI, SD.Next and ComfyUI, and the classes of diffusers. "Automatic" is the schedule that A1111 takes by itself for the sampler.
// A sampler that has the schedule in its name is named so, as euler_karras. Errors are *UnknownError, and *TuningError for a name
// with a schedule in it beside another one.
func Parse(name, schedule string) (Choice, error) {
	c, ok := aliases()[strings.ToLower(strings.TrimSpace(name))]
	if !ok {
		return Choice{}, &UnknownError{What: "sampler", Name: name, Known: Names()}
	}
	other := strings.ToLower(strings.TrimSpace(schedule))
	named, ok := scheduleAliases()[other]
	switch {
	case !ok:
		return Choice{}, &UnknownError{What: "schedule", Name: schedule, Known: Schedules()}
	case other == automatic && c.Schedule == "":
		c.Schedule = map[string]string{"dpmpp_2m": Karras, "dpmpp_sde": Karras, "dpmpp_2m_sde": Exponential, "dpmpp_3m_sde": Exponential}[c.Sampler]
	case c.Schedule != "" && named != "" && named != c.Schedule:
		return Choice{}, &TuningError{Sampler: name, Field: "schedule", Got: schedule, Expected: c.Schedule + ", as its name says"}
	case named == Normal && !c.spaceable(): // what other programs call the levels of all timesteps
	case named != "":
		c.Schedule = named
	}
	return c.joined(), nil
}

func (c Choice) spaceable() bool {
	e, err := entryNamed(c.Sampler)
	return err == nil && e.spaceable()
}

// joined has the schedule in the sampler's name where there is such a one.
func (c Choice) joined() Choice {
	if e, err := entryNamed(c.Sampler); err == nil && e.karras {
		return Choice{Sampler: c.Sampler}
	}
	if joined := c.Sampler + "_" + c.Schedule; slices.Contains(Names(), joined) {
		return Choice{Sampler: joined}
	}
	return c
}

// Aliases are the names, in small letters, that samplers have elsewhere, and what Parse makes of them.
func Aliases() map[string]Choice {
	out := aliases()
	for name, c := range out {
		out[name] = c.joined()
	}
	maps.DeleteFunc(out, func(name string, c Choice) bool { return name == c.Sampler })
	return out
}

// ScheduleAliases are the names, in small letters, that schedules have elsewhere, by ours.
func ScheduleAliases() map[string]string {
	out := scheduleAliases()
	maps.DeleteFunc(out, func(name, schedule string) bool { return schedule == "" || name == schedule })
	return out
}

// automatic is what A1111's web UI calls its own choice of a schedule.
const automatic = "automatic"

// aliases are all names of samplers, and all with a schedule behind them as A1111 had it before schedules had names.
func aliases() map[string]Choice {
	all := map[string]string{
		"euler a": "euler_a", "euler ancestral": "euler_a", "euler_ancestral": "euler_a", "k_euler": "euler", "k_euler_a": "euler_a",
		"dpm++ 2m": "dpmpp_2m", "dpm++ 2m sde": "dpmpp_2m_sde", "dpmpp_2m_sde_gpu": "dpmpp_2m_sde", "dpm++ 3m sde": "dpmpp_3m_sde",
		"dpmpp_3m_sde_gpu": "dpmpp_3m_sde", "dpm++ sde": "dpmpp_sde", "dpmpp_sde_gpu": "dpmpp_sde", "k_dpmpp_2m": "dpmpp_2m", "k_dpmpp_sde": "dpmpp_sde",
		"k_heun": "heun", "k_lms": "lms", "plms": "pndm", "uni_pc": "unipc", "uni_pc_bh2": "unipc",
	}
	for _, e := range entries() {
		all[e.name] = e.name
		if class := strings.ToLower(e.class); all[class] == "" { // the plain sampler of a class comes first
			all[class] = e.name
		}
	}
	out := map[string]Choice{}
	for name, sampler := range all {
		out[name] = Choice{Sampler: sampler}
		for _, schedule := range []string{Karras, Exponential} {
			if e, err := entryNamed(sampler); err == nil && e.spaceable() && !e.karras && !strings.HasSuffix(name, "scheduler") {
				out[name+" "+schedule] = Choice{sampler, schedule}
				out[name+"_"+schedule] = Choice{sampler, schedule}
			}
		}
	}
	for _, e := range entries() {
		out[e.name] = Choice{Sampler: e.name}
	}
	return out
}

// scheduleAliases are all names of schedules; those of the model's own are empty.
func scheduleAliases() map[string]string {
	all := map[string]string{"": "", automatic: "", "default": "", "ddim_uniform": "", "sgm uniform": SGMUniform, "uniform": Normal, "align your steps": AlignYourSteps, "ays": AlignYourSteps}
	for _, name := range Schedules() {
		all[name] = name
	}
	return all
}
