package latent

import (
	"context"

	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/model/vae"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// decode makes an image file of latents.
func (m *Model) decode(ctx context.Context, s family.Session, req stage.WorkRequest, _ stage.Observer) (stage.Result, error) {
	format, err := family.FileFormat(req)
	if err != nil {
		return stage.Result{}, err
	}
	v, refined := req.Values.Get(ValueRefined)
	if !refined {
		v, _ = req.Values.Get(ValueLatents)
	}
	h, w := m.latentSize(req.Options)
	z, err := m.sized(v, req.Options)
	if err != nil {
		return stage.Result{}, err
	}
	runs, err := family.DecodeRuns(m.VAE)([]family.Network{s.Network(0)}, req.Options)
	if err != nil {
		return stage.Result{}, err
	}
	last := make([]float32, len(z))
	nn.ToChannelsLast(last, z, 1, m.VAE.LatentChannels, h*w)
	m.VAE.Unscale(last)
	height, width := h*m.VAE.Factor(), w*m.VAE.Factor()
	pixels := make([]float32, height*width*vae.ImageChannels)
	if err := family.Evaluate(ctx, s, runs[0], modeldir.InputLatents, last, modeldir.OutputImage, pixels); err != nil {
		return stage.Result{}, err
	}
	if !family.Finite(pixels) {
		return stage.Result{}, s.NotFinite(0, "pixels")
	}
	file, err := family.ImageFile(pixels, height, width, format)
	if err != nil { // not of the format, which was checked
		return stage.Result{}, err
	}
	return stage.Result{Values: stage.Values{{Name: ValueImage, File: file}}}, nil
}
