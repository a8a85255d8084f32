package fleettest

import (
	"context"

	"github.com/triptych-serving/triptych/stage"
)

// The fakes with a service's hooks in front.
type (
	encoder struct {
		stage.Encoder
		s *Service
	}
	denoiser struct {
		stage.Denoiser
		s *Service
	}
	decoder struct {
		stage.Decoder
		s *Service
	}
)

func (e encoder) Info(ctx context.Context) (stage.Info, error)  { return e.s.info(ctx, e.Encoder) }
func (d denoiser) Info(ctx context.Context) (stage.Info, error) { return d.s.info(ctx, d.Denoiser) }
func (d decoder) Info(ctx context.Context) (stage.Info, error)  { return d.s.info(ctx, d.Decoder) }

func (s *Service) plan(ctx context.Context, r stage.Resident, req stage.PlanRequest) (stage.Footprint, error) {
	if err := s.before(ctx, "plan"); err != nil {
		return stage.Footprint{}, err
	}
	f, err := r.Plan(ctx, req)
	if err == nil && s.Planned != nil {
		s.Planned(&f)
	}
	return f, err
}

func (e encoder) Plan(ctx context.Context, req stage.PlanRequest) (stage.Footprint, error) {
	return e.s.plan(ctx, e.Encoder, req)
}

func (d denoiser) Plan(ctx context.Context, req stage.PlanRequest) (stage.Footprint, error) {
	return d.s.plan(ctx, d.Denoiser, req)
}

func (d decoder) Plan(ctx context.Context, req stage.PlanRequest) (stage.Footprint, error) {
	return d.s.plan(ctx, d.Decoder, req)
}

func (e encoder) Encode(ctx context.Context, req stage.EncodeRequest) (stage.Conditioning, error) {
	e.s.mu.Lock()
	e.s.encodes = append(e.s.encodes, req)
	e.s.mu.Unlock()
	if err := e.s.before(ctx, "encode"); err != nil {
		return stage.Conditioning{}, err
	}
	return e.Encoder.Encode(ctx, req)
}

func (d denoiser) Denoise(ctx context.Context, req stage.DenoiseRequest, observer stage.DenoiseObserver) (stage.Latent, error) {
	d.s.mu.Lock()
	d.s.denoises = append(d.s.denoises, req)
	d.s.mu.Unlock()
	if err := d.s.before(ctx, "denoise"); err != nil {
		return stage.Latent{}, err
	}
	return d.Denoiser.Denoise(ctx, req, observer)
}

func (d decoder) Decode(ctx context.Context, req stage.DecodeRequest) (stage.Image, error) {
	if err := d.s.before(ctx, "decode"); err != nil {
		return stage.Image{}, err
	}
	image, err := d.Decoder.Decode(ctx, req)
	if err == nil && d.s.Decoded != nil {
		d.s.Decoded(&image)
	}
	return image, err
}
