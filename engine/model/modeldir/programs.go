package modeldir

import (
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/clip"
	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/model/vae"
	"github.com/triptych-serving/triptych/engine/nn"
)

// The names of inputs and outputs on the tapes below.
const (
	InputIDs         = "ids"
	InputLatents     = "latents"
	InputTime        = "time"
	InputContext     = "context"
	InputImage       = "image"
	OutputStates     = "states"
	OutputPrediction = "prediction"
	OutputImage      = "image"
	OutputMoments    = "moments"
)

// TextEncoder is the network from token ids to the states a denoiser is conditioned on.
type TextEncoder struct {
	Network
	Config clip.Config
	model  *clip.Model
}

// TextEncoder opens the text encoder. The error is nn.TensorErrors or one of the weight files.
func (d *Dir) TextEncoder() (*TextEncoder, error) {
	e := &TextEncoder{Config: d.Text}
	var err error
	e.Network, err = d.open(textEncoderFolder, func(s *nn.Scope) { e.model = clip.New(s, d.Text) }, clip.Ignore)
	if err != nil {
		return nil, err
	}
	e.warnings = append(e.warnings, d.index.warnings...)
	return e, nil
}

// Tape maps InputIDs [batch, tokens] to OutputStates [batch, tokens, HiddenSize].
func (e *TextEncoder) Tape(batch, tokens int) (*device.Tape, error) {
	return e.tape(shape{batch, tokens}, func(t *device.Tape) {
		t.Output(OutputStates, e.model.Forward(t, t.IDs(InputIDs, batch, tokens)))
	})
}

// Denoiser is the network that predicts noise (or velocity) in latents.
type Denoiser struct {
	Network
	Config unet.Config
	model  *unet.Model
}

// Denoiser opens the U-Net. The error is nn.TensorErrors or one of the weight files.
func (d *Dir) Denoiser() (*Denoiser, error) {
	u := &Denoiser{Config: d.UNet}
	var err error
	u.Network, err = d.open(unetFolder, func(s *nn.Scope) { u.model = unet.New(s, d.UNet) }, nil)
	if err != nil {
		return nil, err
	}
	u.warnings = append(u.warnings, keyWarnings(d.path, unetFolder, unet.UnknownKeys)...)
	return u, nil
}

// Tape maps InputLatents [batch, h, w, C], InputTime [1, Channels[0]] (Config.TimeInput) and
// InputContext [batch, tokens, ContextDim], a fixed input, to OutputPrediction [batch, h, w, C]. The error is a
// unet.SizeError unless h and w are multiples of Config.SizeMultiple.
func (u *Denoiser) Tape(batch, h, w, tokens int) (*device.Tape, error) {
	return u.tape(shape{batch, h, w, tokens}, func(t *device.Tape) {
		latents := t.Input(InputLatents, batch, h, w, u.Config.InChannels)
		time := t.Input(InputTime, 1, u.Config.Channels[0])
		context := t.FixedInput(InputContext, batch, tokens, u.Config.ContextDim)
		t.Output(OutputPrediction, u.model.Forward(t, latents, time, context))
	})
}

// ImageDecoder is the autoencoder's half from latents to images.
type ImageDecoder struct {
	Network
	Config vae.Config
	model  *vae.Decoder
}

// ImageDecoder opens the decoder. The error is nn.TensorErrors or one of the weight files.
func (d *Dir) ImageDecoder() (*ImageDecoder, error) {
	v := &ImageDecoder{Config: d.VAE}
	var err error
	v.Network, err = d.open(vaeFolder, func(s *nn.Scope) { v.model = vae.NewDecoder(s, d.VAE) }, vae.IgnoreForDecoder)
	if err != nil {
		return nil, err
	}
	v.warnings = append(v.warnings, keyWarnings(d.path, vaeFolder, vae.UnknownKeys)...)
	return v, nil
}

// Tape maps InputLatents [batch, h, w, LatentChannels], unscaled (Config.Unscale), to OutputImage
// [batch, h*Factor, w*Factor, 3] in about -1 to 1.
func (v *ImageDecoder) Tape(batch, h, w int) (*device.Tape, error) {
	return v.tape(shape{batch, h, w}, func(t *device.Tape) {
		t.Output(OutputImage, v.model.Forward(t, t.Input(InputLatents, batch, h, w, v.Config.LatentChannels)))
	})
}

// ImageEncoder is the autoencoder's half from images to the moments of their latents.
type ImageEncoder struct {
	Network
	Config vae.Config
	model  *vae.Encoder
}

// ImageEncoder opens the encoder. The error is nn.TensorErrors or one of the weight files.
func (d *Dir) ImageEncoder() (*ImageEncoder, error) {
	v := &ImageEncoder{Config: d.VAE}
	var err error
	v.Network, err = d.open(vaeFolder, func(s *nn.Scope) { v.model = vae.NewEncoder(s, d.VAE) }, vae.IgnoreForEncoder)
	if err != nil {
		return nil, err
	}
	return v, nil
}

// Tape maps InputImage [batch, height, width, 3] in -1 to 1 to OutputMoments
// [batch, height/Factor, width/Factor, 2 LatentChannels] (Config.Sample). The error is a
// vae.SizeError unless both sides are multiples of Config.Factor.
func (v *ImageEncoder) Tape(batch, height, width int) (*device.Tape, error) {
	return v.tape(shape{batch, height, width}, func(t *device.Tape) {
		t.Output(OutputMoments, v.model.Forward(t, t.Input(InputImage, batch, height, width, vae.ImageChannels)))
	})
}

// shape is what a tape is recorded for.
type shape [4]int

// tape records what forward does, unless a tape of that shape is remembered. It is not to be written to.
func (n *Network) tape(s shape, forward func(*device.Tape)) (*device.Tape, error) {
	return n.tapes.Of(s, func() (*device.Tape, error) { return record(n.manifest, forward) })
}

func record(m *device.Manifest, forward func(*device.Tape)) (*device.Tape, error) {
	t := device.NewTape(m)
	forward(t)
	if err := t.Err(); err != nil {
		return nil, err
	}
	return t, nil
}
