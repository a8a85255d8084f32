package toy

import (
	"context"
	"fmt"
	"math"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/imaging"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/sampler"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// denoiseRuns are those of the denoiser and of the control, if it takes part; the two take turns.
func (m *model) denoiseRuns(nets []family.Network, o stage.Options) ([]family.Run, error) {
	h, w := family.Latents(o, patch)
	var runs []family.Run
	if len(nets) > 1 {
		tape, err := nets[1].(*hinter).Tape(h * w)
		if err != nil {
			return nil, err
		}
		runs = append(runs, family.Run{Member: 1, Tape: tape, Held: true})
	}
	tape, err := nets[0].(*predictor).Tape(h*w, m.text[0].Tokens, len(nets) > 1)
	return append(runs, family.Run{Tape: tape}), err
}

// denoising is one request. Frames are made one after another, each with a look at the one before.
type denoising struct {
	*model
	s         family.Session
	req       stage.WorkRequest
	o         stage.Observer
	steps     *sampler.Sampler
	source    *sampler.Source
	h, w      int
	runs      []family.Run
	running   []device.Run // of runs, the denoiser's last
	finished  []float32    // the frames there are, [frames, h, w, channels]
	state     sampler.State
	input     []float32 // [h, w, features]
	hint      []float32 // [h, w, width]
	noisy     []float32 // [h, w, channels]
	predicted []float32 // likewise
}

// denoise leads noise to the latents of frames, and gives each as soon as it is finished.
func (m *model) denoise(ctx context.Context, s family.Session, req stage.WorkRequest, o stage.Observer) (stage.Result, error) {
	d := &denoising{model: m, s: s, req: req, o: o, source: sampler.NewSource(req.Seed)}
	defer func() {
		for _, run := range d.running {
			run.Free()
		}
	}()
	if err := family.First(d.open, d.start); err != nil {
		return stage.Result{}, err
	}
	all := d.frames() * d.steps.Evaluations()
	if o.Ready != nil {
		o.Ready(all)
	}
	d.tell(0)
	for d.done() < all {
		if err := d.step(ctx); err != nil {
			return stage.Result{}, err
		}
		if o.Progress != nil {
			o.Progress(d.done(), all)
		}
		d.report()
	}
	if o.Unit != nil {
		return stage.Result{}, nil
	}
	return stage.Result{Values: d.units()}, nil
}

func (d *denoising) frames() int { return int(d.req.Options[optionFrames].Int) }

// size is that of a frame's latents.
func (d *denoising) size() int { return d.h * d.w * channels }

// frame is the one that is being made.
func (d *denoising) frame() int { return len(d.finished) / d.size() }

// done counts the evaluations that have been made.
func (d *denoising) done() int { return d.frame()*d.steps.Evaluations() + d.state.Step }

// open makes the schedule, and the runs with what they are told once.
func (d *denoising) open() (err error) {
	o := d.req.Options
	d.h, d.w = family.Latents(o, patch)
	if d.steps, err = sampler.New("", d.schedule, int(o[optionSteps].Int)); err != nil {
		return stage.Invalid(stage.InvalidField, optionSteps, o[optionSteps], err.Error())
	}
	n := d.h * d.w
	d.input, d.hint, d.noisy, d.predicted = make([]float32, n*features), make([]float32, n*d.denoiser.Width), make([]float32, d.size()), make([]float32, d.size())
	v, _ := d.req.Values.Get(valueStates)
	states, err := family.Floats(v)
	if err != nil {
		return err
	}
	nets := []family.Network{d.s.Network(0)}
	var picture []float32
	if v, ok := d.req.Values.Get(valueControl); ok {
		nets = append(nets, d.s.Network(1))
		p, err := imaging.Decode(v.File.Data)
		if err != nil {
			return stage.Invalid(stage.InvalidField, v.Name, fmt.Sprintf("%d bytes", len(v.File.Data)), err.Error())
		}
		picture = p.Resize(d.w, d.h).Floats()
	}
	if d.runs, err = d.denoiseRuns(nets, o); err != nil {
		return err
	}
	for i, r := range d.runs {
		run, err := d.s.Start(r)
		if err != nil {
			return err
		}
		d.running = append(d.running, run)
		fixed, values := modeldir.InputContext, states
		if r.Held {
			fixed, values = inputPicture, picture
		}
		if err := run.Write(fixed, values); err != nil {
			return d.s.Failed(d.runs[i], run, err)
		}
	}
	return nil
}

// draw is the noise of a step, of its own for each frame.
func (d *denoising) draw(draw int, dst []float32) {
	d.source.Draw(d.frame()*(1+d.steps.Evaluations())+draw, dst)
}

// begin is the start of a frame.
func (d *denoising) begin() {
	noise := make([]float32, d.size())
	d.draw(0, noise)
	d.state = d.steps.Start(noise)
}

// valueFinished are the frames that a checkpoint has.
const valueFinished = "finished"

// start is the start of the first frame, or the checkpoint.
func (d *denoising) start() error {
	c := d.req.Resume
	if c == nil {
		d.begin()
		return nil
	}
	frame, step := c.Step/d.steps.Evaluations(), c.Step%d.steps.Evaluations()
	var arrays []sampler.NamedArray
	for _, v := range c.Values {
		f, err := family.Floats(v)
		if err != nil {
			return err
		}
		if v.Name == valueFinished {
			d.finished = f
		} else {
			arrays = append(arrays, sampler.NamedArray{Name: v.Name, Data: f})
		}
	}
	err := error(nil)
	if c.Step < 0 || frame > d.frames() || len(d.finished) != frame*d.size() || frame == d.frames() && step > 0 {
		err = fmt.Errorf("step %d with %d values of frames", c.Step, len(d.finished))
	} else if d.begin(); step > 0 {
		if d.state, err = d.steps.Restore(step, arrays); err == nil && len(d.state.Latents) != d.size() {
			err = fmt.Errorf("%d latents", len(d.state.Latents))
		}
	}
	if err != nil {
		return stage.Invalid(stage.TensorInvalid, "checkpoint", err, fmt.Sprintf("the state of %d frames of %d latents", d.frames(), d.size()))
	}
	return nil
}

// step makes one evaluation, and finishes the frame with the last of it.
func (d *denoising) step(ctx context.Context) error {
	d.steps.ModelInput(d.state, d.noisy)
	d.fill()
	inputs := map[string][]float32{inputFeatures: d.input}
	for i, r := range d.runs {
		output, values := modeldir.OutputPrediction, d.predicted
		if r.Held {
			output, values = outputHint, d.hint
		}
		if err := evaluate(ctx, d.running[i], inputs, output, values); err != nil {
			return d.s.Failed(r, d.running[i], err)
		}
		if !family.Finite(values) {
			return d.s.NotFinite(r.Member, fmt.Sprintf("values in evaluation %d", d.done()+1))
		}
		inputs[inputHint] = d.hint
	}
	d.state = d.steps.Step(d.state, d.predicted, d.draw)
	if d.state.Step == d.steps.Evaluations() {
		d.finished = append(d.finished, d.state.Latents...)
		d.tell(d.frame() - 1)
		d.begin()
	}
	return nil
}

// evaluate runs a tape that was started.
func evaluate(ctx context.Context, run device.Run, inputs map[string][]float32, output string, values []float32) error {
	for name, v := range inputs {
		if err := run.Write(name, v); err != nil {
			return err
		}
	}
	if err := run.Execute(ctx); err != nil {
		return err
	}
	return run.Read(output, values)
}

// fill writes the features of each place.
func (d *denoising) fill() {
	time := nn.Sinusoid(d.steps.Timestep(d.state.Step), timeDim, true, 0)
	wobble := float32(d.req.Options[optionWobble].Float * math.Sin(float64(d.done())))
	before := make([]float32, d.size())
	if n := len(d.finished); n > 0 {
		before = d.finished[n-d.size():]
	}
	place := d.input[:0]
	for i := 0; i < d.size(); i += channels {
		place = append(append(append(place, d.noisy[i:][:channels]...), before[i:][:channels]...), time...)
		place = append(place, wobble)
	}
}

// latents is a frame as the wire has it.
func (d *denoising) latents(frame int, v []float32) stage.Value {
	out := family.Tensor(valueLatents, v, 1, d.h, d.w, channels)
	out.Unit, out.Units = frame, d.frames()
	return out
}

// units are the frames that are finished.
func (d *denoising) units() (out stage.Values) {
	for i := range d.frame() {
		out = append(out, d.latents(i, d.finished[i*d.size():][:d.size()]))
	}
	return out
}

// tell gives the observer the frames that are finished, from one on.
func (d *denoising) tell(from int) {
	if d.o.Unit == nil {
		return
	}
	for _, v := range d.units()[from:] {
		d.o.Unit(v)
	}
}

// report shows the observer how far the work has come, as often as the request asks for.
func (d *denoising) report() {
	done := d.done()
	if n := d.req.PreviewEveryNSteps; n > 0 && done%n == 0 && d.o.Preview != nil && d.state.Step > 0 {
		d.o.Preview(done, stage.Values{d.latents(d.frame(), append([]float32(nil), d.state.Latents...))})
	}
	if n := d.req.CheckpointEveryNSteps; n > 0 && done%n == 0 && d.o.Checkpoint != nil {
		c := stage.Checkpoint{Step: done}
		if len(d.finished) > 0 {
			c.Values = append(c.Values, family.Tensor(valueFinished, d.finished, d.frame(), d.h, d.w, channels))
		}
		if d.state.Step > 0 {
			for _, a := range d.state.Tensors() {
				c.Values = append(c.Values, family.Tensor(a.Name, a.Data, len(a.Data)))
			}
		}
		d.o.Checkpoint(c)
	}
}
