package modeldir

import (
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/upscale"
	"github.com/triptych-serving/triptych/engine/nn"
)

// ClassUpscaler is that of a file with the network of an upscaler.
const ClassUpscaler = "Upscaler"

// Upscaler is the network from an image to a larger one. Its tensors alone tell its config.
type Upscaler struct {
	Network
	Config upscale.Config
	model  *upscale.Model
	name   string
}

// Upscaler opens the network of an upscaler. The errors are those of Dir.Network, or an upscale.Error.
func (d *Dir) Upscaler(o Options) (u *Upscaler, err error) {
	u = &Upscaler{name: d.Name()}
	var other error
	u.Network, err = d.Network("", o, func(s *nn.Scope) {
		if u.Config, other = upscale.Of(s.Source()); other == nil {
			u.model = upscale.New(s, u.Config)
			other = u.Config.Whole(s)
		}
	}, func(string) bool { return true }) // Whole has looked
	if err == nil && other != nil {
		_ = u.Close() // read-only, and the other error says more
		err = other
	}
	return u, err
}

// Name is the model's, by which requests name it.
func (u *Upscaler) Name() string { return u.name }

// Tape maps InputImage of upscale.Config.Shape for h x w pixels to OutputImage (upscale.Config.Pixels).
func (u *Upscaler) Tape(h, w int) (*device.Tape, error) {
	shape := u.Config.Shape(h, w)
	return u.Record(Shape{shape[1], shape[2]}, func(t *device.Tape) {
		t.Output(OutputImage, u.model.Forward(t, t.Input(InputImage, shape...)))
	})
}
