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
	u.Network, err = d.lone(o, func(s *nn.Scope) (err error) {
		if u.Config, err = upscale.Of(s.Source()); err != nil {
			return err
		}
		u.model = upscale.New(s, u.Config)
		return u.Config.Whole(s)
	})
	return u, err
}

// lone is Network of a file with no other, whose tensors alone tell its config: what find declares, unless it tells why the file is
// something else. What find leaves out may be there.
func (d *Dir) lone(o Options, find func(*nn.Scope) error) (n Network, err error) {
	var other error
	n, err = d.Network("", o, func(s *nn.Scope) { other = find(s) }, func(string) bool { return true })
	if err == nil && other != nil {
		_ = n.Close() // read-only, and the other error says more
		return Network{}, other
	}
	return n, err
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
