package latent

import (
	"context"
	"image"

	"github.com/triptych-serving/triptych/engine/imaging"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/model/vae"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// decodeRuns are those of the decoder, and of an upscaler behind it.
func (m *Model) decodeRuns(nets []family.Network, o stage.Options) ([]family.Run, error) {
	runs, err := family.DecodeRuns(m.VAE)(nets[:1], o)
	if err == nil {
		err = family.OneUpscaler(family.Upscaler, o)
	}
	if err != nil || len(nets) == 1 {
		return runs, err
	}
	more, err := family.UpscaleRuns(nets[1], 1, o, int(o[family.Height].Int), int(o[family.Width].Int))
	return append(runs, more...), err
}

// decode makes an image file of latents, enlarged if the request says so.
func (m *Model) decode(ctx context.Context, s family.Session, req stage.WorkRequest, o stage.Observer) (stage.Result, error) {
	format, err := family.FileFormat(req)
	if err == nil {
		err = family.OneUpscaler(family.Upscaler, req.Options)
	}
	if err != nil {
		return stage.Result{}, err
	}
	img, err := m.image(ctx, s, req)
	if err == nil {
		img, err = enlarged(ctx, s, req, img, o)
	}
	if err != nil {
		return stage.Result{}, err
	}
	file, err := family.File(img, format)
	if err != nil { // not of the format, which was checked
		return stage.Result{}, err
	}
	return stage.Result{Values: stage.Values{{Name: ValueImage, File: file}}}, nil
}

// image decodes the latents of a request by the network of the first member.
func (m *Model) image(ctx context.Context, s family.Session, req stage.WorkRequest) (*image.RGBA, error) {
	v, refined := req.Values.Get(ValueRefined)
	if !refined {
		v, _ = req.Values.Get(ValueLatents)
	}
	h, w := m.latentSize(req.Options)
	z, err := m.sized(v, req.Options)
	if err != nil {
		return nil, err
	}
	runs, err := family.DecodeRuns(m.VAE)([]family.Network{s.Network(0)}, req.Options)
	if err != nil {
		return nil, err
	}
	last := make([]float32, len(z))
	nn.ToChannelsLast(last, z, 1, m.VAE.LatentChannels, h*w)
	m.VAE.Unscale(last)
	height, width := h*m.VAE.Factor(), w*m.VAE.Factor()
	pixels := make([]float32, height*width*vae.ImageChannels)
	if err := family.Evaluate(ctx, s, runs[0], modeldir.InputLatents, last, modeldir.OutputImage, pixels); err != nil {
		return nil, err
	}
	if !family.Finite(pixels) {
		return nil, s.NotFinite(0, "pixels")
	}
	return imaging.FromFloats(pixels, height, width), nil
}

// enlarged is an image as the request wants it: by the upscaler behind the decoder, if there is one, or else by Lanczos' filter.
func enlarged(ctx context.Context, s family.Session, req stage.WorkRequest, img *image.RGBA, o stage.Observer) (*image.RGBA, error) {
	if len(req.Components) > 1 {
		p, err := family.Upscale(ctx, s, 1, req.Options, imaging.FromImage(img), o.Progress)
		return p.Image(), err
	}
	if _, said := req.Options[family.Scale]; !said {
		return img, nil
	}
	height, width, err := family.Enlarged(req.Options, 1, img.Rect.Dy(), img.Rect.Dx())
	if err != nil {
		return nil, err
	}
	return imaging.FromImage(img).Resize(width, height).Image(), nil
}
