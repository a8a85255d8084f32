package host

import (
	"context"

	"github.com/triptych-serving/triptych/stage"
)

// Encoder is a host of an encoder's child.
type Encoder struct{ *Host }

var _ stage.Encoder = Encoder{}

// Encode is the child's.
func (e Encoder) Encode(ctx context.Context, req stage.EncodeRequest) (stage.Conditioning, error) {
	defer e.underway.begin(req.Model)()
	return forward(ctx, e.Host, work, func(g *generation) (stage.Conditioning, error) {
		return g.child.Stage().(stage.Encoder).Encode(ctx, req)
	})
}
