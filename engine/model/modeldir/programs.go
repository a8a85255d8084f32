package modeldir

import (
	"fmt"
	"strconv"
	"sync"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/clip"
	"github.com/triptych-serving/triptych/engine/model/lora"
	"github.com/triptych-serving/triptych/engine/model/original"
	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/model/vae"
	"github.com/triptych-serving/triptych/engine/nn"
)

// The names of inputs and outputs on the tapes below.
const (
	InputIDs         = "ids"
	InputExtra       = "extra"
	InputLatents     = "latents"
	InputTime        = "time"
	InputContext     = "context"
	InputAddition    = "addition"
	InputImage       = "image"
	InputHint        = "hint"
	OutputHint       = "hint"
	InputMiddle      = "control.mid"
	OutputStates     = "states"
	OutputPooled     = "pooled"
	OutputPrediction = "prediction"
	OutputImage      = "image"
	OutputMoments    = "moments"
)

// InputControl names the residual for a skip of unet.Config.Skips, see Beside.
func InputControl(i int) string { return "control." + strconv.Itoa(i) }

// InputKeys names the keys of an image prompt for an attention.
func InputKeys(i int) string { return "ip." + strconv.Itoa(i) + ".k" }

// InputValues names the values of an image prompt for an attention.
func InputValues(i int) string { return "ip." + strconv.Itoa(i) + ".v" }

// TextEncoder is the network from token ids to the states a denoiser is conditioned on.
type TextEncoder struct {
	Network
	Config     clip.Config
	model      *clip.Model
	projection *nn.Linear // of the pooled state; nil without one
	table      func() *lora.Table
}

// TextEncoder opens a text encoder. A projection of the pooled state to so many values is one matrix more; 0 is none. The
// errors are those of Dir.Network.
func (d *Dir) TextEncoder(folder string, c clip.Config, projection int, o Options) (e *TextEncoder, err error) {
	e = &TextEncoder{Config: c}
	e.Network, err = d.Network(folder, o, func(s *nn.Scope) {
		if e.model = clip.New(s, c); projection > 0 {
			l := nn.NewLinearNoBias(s.Sub("text_projection"), c.HiddenSize, projection)
			e.projection = &l
		}
	}, clip.Ignore)
	e.table = sync.OnceValue(func() *lora.Table { return lora.NewTable(e.manifest, nil) })
	return e, err
}

// Adapt fits a LoRA on the encoder. The error is a lora.Misfit.
func (e *TextEncoder) Adapt(l *LoRA) (Adapted, error) { return adapt(e.table(), l) }

// Depth is which states of a text encoder are taken: those behind all layers but some at the end, through the final norm or
// not.
type Depth struct {
	Skipped int // 0 to Layers - 1
	Normed  bool
}

// Tape maps InputIDs [batch, tokens] to OutputStates [batch, tokens, HiddenSize], the last through the final norm.
func (e *TextEncoder) Tape(batch, tokens int) (*device.Tape, error) {
	return e.TapeWith(batch, tokens, Depth{Normed: true}, 0)
}

// TapeWith is Tape to states of any depth, with InputExtra [extra, HiddenSize], tokens behind those of the vocabulary; 0 is none. Of an
// encoder with a projection it gives OutputPooled [batch, tokens, width] too: what the pooled state would be at each place,
// which is Config.Pooled in fact. LoRAs are those that fit it.
func (e *TextEncoder) TapeWith(batch, tokens int, d Depth, extra int, loras ...Adapted) (*device.Tape, error) {
	shape := Shape{batch, tokens, d.Skipped, 0, extra}
	if d.Normed {
		shape[3] = 1
	}
	return e.RecordAdapted(shape, loras, func(t *device.Tape) {
		layers := e.Config.Layers
		if d.Skipped < 0 || d.Skipped >= layers {
			t.Fail(fmt.Errorf("clip: %d layers skipped, expected 0 to %d", d.Skipped, layers-1))
			return
		}
		ids, rows := t.IDs(InputIDs, batch, tokens), device.Array{}
		if extra > 0 {
			rows = t.Input(InputExtra, extra, e.Config.HiddenSize)
		}
		x := e.model.Layers(t, e.model.Embed(t, ids, rows), 0, layers-d.Skipped)
		states := x
		if d.Normed {
			states = e.model.Norm(t, x)
		}
		t.Output(OutputStates, states)
		if e.projection != nil {
			last := e.model.Norm(t, e.model.Layers(t, x, layers-d.Skipped, layers))
			t.Output(OutputPooled, e.projection.Forward(t, last))
		}
	})
}

// Denoiser is the network that predicts noise (or velocity) in latents.
type Denoiser struct {
	Network
	Config unet.Config
	model  *unet.Model
	table  func() *lora.Table
}

// Denoiser opens a U-Net. The errors are those of Dir.Network.
func (d *Dir) Denoiser(folder string, c unet.Config, o Options) (u *Denoiser, err error) {
	u = &Denoiser{Config: c}
	u.Network, err = d.Network(folder, o, func(s *nn.Scope) { u.model = unet.New(s, c) }, nil)
	u.warnings = append(u.warnings, d.keyWarnings(folder, unet.UnknownKeys)...)
	u.table = sync.OnceValue(func() *lora.Table { return lora.NewTable(u.manifest, original.Modules(original.UNet(c))) })
	return u, err
}

// Adapt fits a LoRA on the U-Net. The error is a lora.Misfit.
func (u *Denoiser) Adapt(l *LoRA) (Adapted, error) { return adapt(u.table(), l) }

// Tape maps InputLatents [batch, h, w, C], InputTime [1, Channels[0]] (Config.TimeInput) and
// InputContext [batch, tokens, ContextDim], a fixed input, to OutputPrediction [batch, h, w, C]. A network with
// Config.AdditionDim has InputTime [batch, Channels[0]], and InputAddition [batch, AdditionDim], fixed, too. The error is a
// unet.SizeError unless h and w are multiples of Config.SizeMultiple.
func (u *Denoiser) Tape(batch, h, w, tokens int) (*device.Tape, error) {
	return u.TapeBeside(batch, h, w, tokens, Beside{})
}

// Beside is what a U-Net's tape takes of adapters.
type Beside struct {
	// Control has it take residuals on the way down, InputControl of each of Config.Skips, and InputMiddle of the middle, in
	// the sizes of what they are added to.
	Control bool
	// ImageTokens is the length of an image prompt, of which it takes InputKeys and InputValues [batch, ImageTokens, width] for
	// each of Config.CrossAttentions, fixed inputs. 0 is none.
	ImageTokens int
	LoRAs       []Adapted // those that fit it
}

// TapeBeside is Tape with inputs for adapters.
func (u *Denoiser) TapeBeside(batch, h, w, tokens int, b Beside) (*device.Tape, error) {
	shape := Shape{batch, h, w, tokens, b.ImageTokens, 0}
	if b.Control {
		shape[5] = 1
	}
	return u.RecordAdapted(shape, b.LoRAs, func(t *device.Tape) {
		in := unetInputs(t, u.Config, batch, h, w, tokens)
		for i, width := range u.Config.CrossAttentions() {
			if n := b.ImageTokens; n > 0 {
				in.Image = append(in.Image, nn.KeyValues{K: t.FixedInput(InputKeys(i), batch, n, width), V: t.FixedInput(InputValues(i), batch, n, width)})
			}
		}
		if b.Control {
			for i, s := range u.Config.SkipSizes(h, w) {
				in.Control = append(in.Control, t.Input(InputControl(i), batch, s.Height, s.Width, s.Channels))
			}
			s := u.Config.MiddleSize(h, w)
			in.Middle = t.Input(InputMiddle, batch, s.Height, s.Width, s.Channels)
		}
		t.Output(OutputPrediction, u.model.Forward(t, in))
	})
}

// unetInputs declares the inputs that a U-Net and a ControlNet have in common.
func unetInputs(t *device.Tape, c unet.Config, batch, h, w, tokens int) unet.Inputs {
	in := unet.Inputs{Latents: t.Input(InputLatents, batch, h, w, c.InChannels), Context: t.FixedInput(InputContext, batch, tokens, c.ContextDim)}
	if c.AdditionDim == 0 {
		in.Time = t.Input(InputTime, 1, c.Channels[0])
		return in
	}
	in.Time, in.Addition = t.Input(InputTime, batch, c.Channels[0]), t.FixedInput(InputAddition, batch, c.AdditionDim)
	return in
}

// ImageDecoder is the autoencoder's half from latents to images.
type ImageDecoder struct {
	Network
	Config vae.Config
	model  *vae.Decoder
}

// ImageDecoder opens the decoder of an autoencoder. The errors are those of Dir.Network.
func (d *Dir) ImageDecoder(folder string, c vae.Config, o Options) (v *ImageDecoder, err error) {
	v = &ImageDecoder{Config: c}
	v.Network, err = d.Network(folder, o, func(s *nn.Scope) { v.model = vae.NewDecoder(s, c) }, vae.IgnoreForDecoder)
	v.warnings = append(v.warnings, d.keyWarnings(folder, vae.UnknownKeys)...)
	return v, err
}

// Tape maps InputLatents [batch, h, w, LatentChannels], unscaled (Config.Unscale), to OutputImage
// [batch, h*Factor, w*Factor, 3] in about -1 to 1.
func (v *ImageDecoder) Tape(batch, h, w int) (*device.Tape, error) {
	return v.Record(Shape{batch, h, w}, func(t *device.Tape) {
		t.Output(OutputImage, v.model.Forward(t, t.Input(InputLatents, batch, h, w, v.Config.LatentChannels)))
	})
}

// ImageEncoder is the autoencoder's half from images to the moments of their latents.
type ImageEncoder struct {
	Network
	Config vae.Config
	model  *vae.Encoder
}

// ImageEncoder opens the encoder of an autoencoder. The errors are those of Dir.Network.
func (d *Dir) ImageEncoder(folder string, c vae.Config, o Options) (v *ImageEncoder, err error) {
	v = &ImageEncoder{Config: c}
	v.Network, err = d.Network(folder, o, func(s *nn.Scope) { v.model = vae.NewEncoder(s, c) }, vae.IgnoreForEncoder)
	return v, err
}

// Tape maps InputImage [batch, height, width, 3] in -1 to 1 to OutputMoments
// [batch, height/Factor, width/Factor, 2 LatentChannels] (Config.Sample). The error is a
// vae.SizeError unless both sides are multiples of Config.Factor.
func (v *ImageEncoder) Tape(batch, height, width int) (*device.Tape, error) {
	return v.Record(Shape{batch, height, width}, func(t *device.Tape) {
		t.Output(OutputMoments, v.model.Forward(t, t.Input(InputImage, batch, height, width, vae.ImageChannels)))
	})
}

// Shape is what a tape is recorded for.
type Shape [6]int

// tapeOf is what a tape is recorded for.
type tapeOf struct {
	Shape
	loras string // their Numbers
}

// Record gives the tape of what forward does, unless one of that shape is remembered. It is not to be written to.
func (n *Network) Record(s Shape, forward func(*device.Tape)) (*device.Tape, error) {
	return n.RecordAdapted(s, nil, forward)
}

// RecordAdapted is Record with LoRAs, whose manifests are the tape's further ones, in order. It has the fixed inputs of Scales.
func (n *Network) RecordAdapted(s Shape, loras []Adapted, forward func(*device.Tape)) (*device.Tape, error) {
	return n.tapes.Of(tapeOf{s, Numbers(loras)}, func() (*device.Tape, error) {
		var further []*device.Manifest
		for _, l := range loras {
			further = append(further, l.manifest)
		}
		t := device.NewTape(n.manifest, further...)
		for i, l := range loras {
			l.fit.Adapt(t, i, func(layer int) device.Array { return t.FixedInput(inputScale(i, layer), 1) })
		}
		forward(t)
		if err := t.Err(); err != nil {
			return nil, err
		}
		return t, nil
	})
}
