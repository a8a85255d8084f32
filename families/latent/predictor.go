package latent

import (
	"context"
	"math"
	"slices"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// predictor evaluates the network for one image, guided or not. Samplers work channels first, the
// order of torch's noise; the network channels last.
type predictor struct {
	run              device.Run
	net              *modeldir.Denoiser
	batch            int
	guidance         float32
	rescale          float32   // guidance_rescale
	inputs, channels int       // channels of input and prediction
	pixels           int       // places of the latents
	input            []float32 // [inputs, h, w]: the latents, and what is beside them
	prediction       []float32 // [C, h, w]
	last             []float32 // [batch, h, w, inputs]
}

// newPredictor is for n latents, and values of other channels that the network sees beside them.
func newPredictor(run device.Run, net *modeldir.Denoiser, o stage.Options, n int, beside []float32) *predictor {
	p := &predictor{
		run: run, net: net, batch: family.Batch(o), guidance: float32(o[family.Guidance].Float), rescale: float32(o[OptionRescale].Float),
		inputs: net.Config.InChannels, channels: net.Config.OutChannels,
	}
	p.pixels = n / p.channels
	p.input, p.prediction = slices.Concat(make([]float32, n), beside), make([]float32, n)
	p.last = make([]float32, p.batch*len(p.input))
	return p
}

// predict evaluates input at a timestep into prediction. Two images are [negative, positive], and
// the prediction is negative + guidance_scale * (positive - negative): classifier-free guidance, Ho
// and Salimans 2022, arXiv 2207.12598.
func (p *predictor) predict(ctx context.Context, timestep float64) error {
	seen := len(p.input)
	for i := range p.batch {
		nn.ToChannelsLast(p.last[i*seen:][:seen], p.input, 1, p.inputs, p.pixels)
	}
	n := len(p.prediction)
	output := p.last[:p.batch*n]
	if err := family.First(
		func() error { return p.run.Write(modeldir.InputLatents, p.last) },
		func() error { return p.run.Write(modeldir.InputTime, p.time(timestep)) },
		func() error { return p.run.Execute(ctx) },
		func() error { return p.run.Read(modeldir.OutputPrediction, output) },
	); err != nil {
		return err
	}
	if p.batch == 2 {
		negative, positive := output[:n], output[n:]
		for i, v := range negative {
			negative[i] = v + p.guidance*(positive[i]-v)
		}
		if p.rescale > 0 {
			rescale(negative, positive, p.rescale)
		}
	}
	nn.ToChannelsFirst(p.prediction, output[:n], 1, p.channels, p.pixels)
	return nil
}

// time is a timestep as the network takes it: once, or of each image where it has an addition.
func (p *predictor) time(timestep float64) []float32 {
	one := p.net.Config.TimeInput(timestep)
	if p.net.Config.AdditionDim == 0 {
		return one
	}
	return slices.Repeat(one, p.batch)
}

// rescale brings a guided prediction nearer to the standard deviation of the positive one, by a share of 0 to 1: section 3.4 of
// Lin et al. 2023, arXiv 2305.08891.
func rescale(guided, positive []float32, share float32) {
	scale := float32(deviation(positive) / deviation(guided))
	for i, v := range guided {
		guided[i] = share*(v*scale) + (1-share)*v
	}
}

// deviation is the standard deviation of values, two or more, of a sample.
func deviation(v []float32) float64 {
	mean, squares := 0.0, 0.0
	for _, x := range v {
		mean += float64(x) / float64(len(v))
	}
	for _, x := range v {
		squares += (float64(x) - mean) * (float64(x) - mean)
	}
	return math.Sqrt(squares / float64(len(v)-1))
}
