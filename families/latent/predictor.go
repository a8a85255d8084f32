package latent

import (
	"context"

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
	channels, pixels int
	input            []float32 // [C, h, w]
	prediction       []float32 // [C, h, w]
	last             []float32 // [batch, h, w, C]
}

func newPredictor(run device.Run, net *modeldir.Denoiser, o stage.Options, n int) *predictor {
	p := &predictor{run: run, net: net, batch: family.Batch(o), guidance: float32(o[family.Guidance].Float), channels: net.Config.InChannels}
	p.pixels = n / p.channels
	p.input, p.prediction, p.last = make([]float32, n), make([]float32, n), make([]float32, p.batch*n)
	return p
}

// predict evaluates input at a timestep into prediction. Two images are [negative, positive], and
// the prediction is negative + guidance_scale * (positive - negative): classifier-free guidance, Ho
// and Salimans 2022, arXiv 2207.12598.
func (p *predictor) predict(ctx context.Context, timestep float64) error {
	n := len(p.input)
	for i := range p.batch {
		nn.ToChannelsLast(p.last[i*n:][:n], p.input, 1, p.channels, p.pixels)
	}
	if err := family.First(
		func() error { return p.run.Write(modeldir.InputLatents, p.last) },
		func() error { return p.run.Write(modeldir.InputTime, p.net.Config.TimeInput(timestep)) },
		func() error { return p.run.Execute(ctx) },
		func() error { return p.run.Read(modeldir.OutputPrediction, p.last) },
	); err != nil {
		return err
	}
	if p.batch == 2 {
		negative, positive := p.last[:n], p.last[n:]
		for i, v := range negative {
			negative[i] = v + p.guidance*(positive[i]-v)
		}
	}
	nn.ToChannelsFirst(p.prediction, p.last[:n], 1, p.channels, p.pixels)
	return nil
}
