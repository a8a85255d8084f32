package latent

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/triptych-serving/triptych/engine/sampler"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// A second model that was trained for the end of denoising goes on with the latents of the first, by the same schedule:
// section 2.5 of Podell et al. 2023, arXiv 2307.01952. Its turns are its own, with its own encoder, U-Net and scheduler.
const (
	Refiner      = "refiner" // the option that names it, with the share of denoising behind which it goes on, and its kind
	RefineEncode = "refine_encode"
	Refine       = "refine"

	ValueRefined = "refined_latents"
	// refinerValues begin the names of what its encode turn gives.
	refinerValues = "refiner_"
)

// refinerStart is where a refiner begins if a request does not say.
const refinerStart = 0.8

// refinerDraws is more than the draws of noise that come before those of the steps, so that a refiner never draws what was drawn.
const refinerDraws = 3

// RefinerOption is the spec of the option Refiner.
func RefinerOption() stage.OptionSpec {
	return stage.OptionSpec{Name: Refiner, Type: stage.Text, Max: 256, Shape: true, Adapter: Refiner, Default: stage.TextOption("")}
}

// RefinerSlot is the part of the refiner in a turn.
func RefinerSlot(part string) []stage.Member {
	return []stage.Member{{Component: part, Option: Refiner}}
}

// RefinerPort is a port of an encode turn as a refiner's has it, whose widths are the refiner's.
func RefinerPort(p stage.Port) stage.Port {
	p.Name = refinerValues + p.Name
	if n := len(p.Shape) - 1; !p.Optional {
		p.Shape = append(p.Shape[:n:n], p.Name)
	}
	return p
}

// ForRefiner are the values of an encode turn as a refiner takes them.
func ForRefiner(values stage.Values) (out stage.Values) {
	for _, v := range values {
		v.Name = refinerValues + v.Name
		out = append(out, v)
	}
	return out
}

// refinerOf is where a request's refiner goes on, if it names one. The error is a *stage.Error.
func refinerOf(o stage.Options) (share float64, named bool, err error) {
	const accepted = "one refiner, and the share of denoising behind which it goes on, such as name:0.8"
	chosen := o.Chosen(Refiner)
	if len(chosen) == 0 {
		return 0, false, nil
	}
	share = refinerStart
	if n := chosen[0].Numbers; len(n) > 0 {
		share = n[0]
	}
	if len(chosen) > 1 || len(chosen[0].Numbers) > 1 || share <= 0 || share >= 1 {
		return 0, false, stage.Invalid(stage.InvalidField, Refiner, o[Refiner], accepted)
	}
	return share, true, nil
}

func (m *Model) refineRuns(nets []family.Network, o stage.Options) ([]family.Run, error) {
	if _, _, err := refinerOf(o); err != nil {
		return nil, err
	}
	return m.denoiseRuns(nets, o)
}

// refine goes on with the latents of another model.
func (m *Model) refine(ctx context.Context, s family.Session, req stage.WorkRequest, o stage.Observer) (stage.Result, error) {
	var values stage.Values
	for _, v := range req.Values {
		v.Name = strings.TrimPrefix(v.Name, refinerValues)
		values = append(values, v)
	}
	req.Values = values
	d := &denoising{Model: m, req: req, refines: true}
	out, err := d.run(ctx, s, o)
	for i := range out.Values {
		out.Values[i].Name = ValueRefined
	}
	return out, err
}

// openRefine makes the step machine from where the refiner goes on.
func (d *denoising) openRefine() error {
	o := d.req.Options
	share, _, err := refinerOf(o)
	if err != nil {
		return err
	}
	name, steps := o[OptionSampler].Text, int(o[OptionSteps].Int)
	if d.steps, err = sampler.NewBehind(name, d.Schedule.tuned(o), steps, share); err != nil {
		var wrong *sampler.StepsError
		if errors.As(err, &wrong) {
			return stage.Invalid(stage.InvalidField, Refiner, o[Refiner], fmt.Sprintf("a share of denoising behind which there is one of %d steps", steps))
		}
		return unsteppable(name, steps, err)
	}
	v, _ := d.req.Values.Get(ValueLatents)
	if d.picture, err = d.sized(v, o); err != nil {
		return err
	}
	d.last, d.draws = d.steps.Evaluations(), refinerDraws+d.steps.First()
	d.source, d.noise = sampler.NewSource(d.req.Seed), make([]float32, len(d.picture))
	return nil
}
