package modeldir

import (
	"fmt"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/taesd"
	"github.com/triptych-serving/triptych/engine/nn"
)

// ClassTiny is that of a tiny autoencoder for previews.
const ClassTiny = "AutoencoderTiny"

// TinyDecoder is the half of a tiny autoencoder from latents to images. Its tensors alone tell how it is built.
type TinyDecoder struct {
	Network
	Half  taesd.Half
	model *taesd.Model
	name  string
}

// TinyDecoder opens the decoder of a tiny autoencoder. The errors are those of Dir.Network, or an Error about a file without one.
func (d *Dir) TinyDecoder(o Options) (v *TinyDecoder, err error) {
	v = &TinyDecoder{name: d.Name()}
	v.Network, err = d.lone(o, func(s *nn.Scope) error {
		half, ok, err := taesd.Of(s.Source(), true)
		if err != nil {
			return fmt.Errorf("%s: %w", s.Source().Where(""), err)
		}
		if !ok {
			return &Error{Path: s.Source().Where(""), Expected: "the decoder of a tiny autoencoder (taesd_decoder, AutoencoderTiny)", Got: "other tensors"}
		}
		v.Half, v.model = half, taesd.New(s, half)
		return nil
	})
	return v, err
}

// Name is the model's, by which requests name it.
func (v *TinyDecoder) Name() string { return v.name }

// Tape maps InputLatents [1, h, w, Latents], scaled and clamped (taesd.Clamp), to OutputImage [1, h*Pixel, w*Pixel, 3] in 0 to 1.
func (v *TinyDecoder) Tape(h, w int) (*device.Tape, error) {
	return v.Record(Shape{1, h, w}, func(t *device.Tape) {
		t.Output(OutputImage, v.model.Forward(t, t.Input(InputLatents, 1, h, w, v.Half.Latents)))
	})
}
