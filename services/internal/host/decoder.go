package host

import (
	"context"

	"github.com/triptych-serving/triptych/stage"
)

// Decoder is a host of a decoder's child.
type Decoder struct{ *Host }

var _ stage.Decoder = Decoder{}

// Decode is the child's.
func (d Decoder) Decode(ctx context.Context, req stage.DecodeRequest) (stage.Image, error) {
	defer d.underway.begin(req.Model)()
	return forward(ctx, d.Host, work, func(g *generation) (stage.Image, error) {
		return g.child.Stage().(stage.Decoder).Decode(ctx, req)
	})
}

// EncodeImage is the child's.
func (d Decoder) EncodeImage(ctx context.Context, req stage.EncodeImageRequest) (stage.Latent, error) {
	return forward(ctx, d.Host, work, func(g *generation) (stage.Latent, error) {
		return g.child.Stage().(stage.Decoder).EncodeImage(ctx, req)
	})
}
