package host

import (
	"context"

	"github.com/triptych-serving/triptych/stage"
)

// Denoiser is a host of a denoiser's child.
type Denoiser struct{ *Host }

var _ stage.Denoiser = Denoiser{}

// Denoise is the child's. It is not made again when the child dies: what the observer has seen is
// for the caller to resume from.
func (d Denoiser) Denoise(ctx context.Context, req stage.DenoiseRequest, observer stage.DenoiseObserver) (stage.Latent, error) {
	defer d.underway.begin(req.Model)()
	return forward(ctx, d.Host, work, func(g *generation) (stage.Latent, error) {
		return g.child.Stage().(stage.Denoiser).Denoise(ctx, req, observer)
	})
}
