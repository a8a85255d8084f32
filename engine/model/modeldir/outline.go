package modeldir

import (
	"cmp"
	"fmt"
	"path/filepath"

	"github.com/triptych-serving/triptych/engine/config"
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/clip"
	"github.com/triptych-serving/triptych/engine/model/shapes"
	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/model/vae"
	"github.com/triptych-serving/triptych/engine/nn"
)

// Outline is a model as far as its configs and, where there are any, the headers of its weights tell: enough to plan
// for it. The weights may be absent, and the engine may be unable to run it.
type Outline struct {
	Path     string
	Pipeline string // class
	Runs     bool   // the engine has this pipeline
	Text     []*Part
	Denoiser *Part
	Decoder  *Part

	Tokens         int // of a prompt, to the denoiser
	ContextDim     int // of its states
	LatentChannels int
	LatentMultiple int // of a latent's sides
	LatentHeight   int // the model was trained at
	LatentWidth    int
	SpatialFactor  int  // pixels of a side for each latent
	Guided         bool // guidance evaluates the denoiser twice
}

// Part is one network of an outline.
type Part struct {
	Folder   string
	Class    string
	Manifest *device.Manifest
	Complete bool     // its weights are there
	Warnings []string // of those, see Network, and of its config

	// Record is the tape for a batch of latents of h x w or, in a text encoder, of prompts. It is nil for a network
	// that the engine cannot run, of which AtLeast tells a lower bound of scratch, and Formula how.
	Record  func(batch, h, w int) (*device.Tape, error)
	AtLeast func(batch, h, w int) int64
	Formula string

	dir string
}

// fluxTokens is the longest text that FLUX.1 is asked with (diffusers' FluxPipeline: max_sequence_length).
const fluxTokens = 512

// defaultLatents is the side of a latent where no config tells.
const defaultLatents = 64

// trainedSize is that of the latents that a U-Net was trained at.
func trainedSize(c unet.Config) (height, width int) {
	return cmp.Or(c.SampleHeight, defaultLatents), cmp.Or(c.SampleWidth, defaultLatents)
}

// Complete reports whether the weights of every network are there.
func (o *Outline) Complete() bool {
	for _, p := range o.Parts() {
		if !p.Complete {
			return false
		}
	}
	return true
}

// Parts lists the networks in the order they are used.
func (o *Outline) Parts() []*Part {
	return append(o.Text[:len(o.Text):len(o.Text)], o.Denoiser, o.Decoder)
}

// OpenSource opens the weights of a complete part, for Device.Load. The caller closes them.
func (p *Part) OpenSource() (interface {
	device.Source
	Close() error
}, error,
) {
	return openWeights(p.dir)
}

// OpenOutline reads model_index.json, the config of every network and the headers of what weights there are. The
// networks keep their weights as keep says, see Dir.Resident. Errors are an Error, nn.TensorErrors, those of the
// weight files, or wrap config.Errors.
func OpenOutline(path string, keep Keep) (*Outline, error) {
	index, err := readIndex(path, pipelines())
	if err != nil {
		return nil, err
	}
	o := &Outline{Path: path, Pipeline: pipelines()[index.which].class, Runs: index.which == 0, Guided: true}
	read := []func(Keep) error{o.openStableDiffusion, o.openXL, o.openFlux}
	if err := read[index.which](keep); err != nil {
		return o, err
	}
	o.Text[0].Warnings = append(o.Text[0].Warnings, index.warnings...)
	return o, nil
}

func (o *Outline) openStableDiffusion(keep Keep) error {
	d := &Dir{path: o.Path}
	var err error
	if d.UNet, err = o.openUNet(keep); err != nil {
		return err
	}
	if d.VAE, err = o.openVAE(keep); err != nil {
		return err
	}
	if d.Text, err = o.openCLIP(textEncoderFolder, false, keep); err != nil {
		return err
	}
	if o.Tokens, err = promptTokens(d.Tokenizer(), d.Text); err != nil {
		return err
	}
	o.ContextDim = d.Text.HiddenSize
	return d.checkFit()
}

func (o *Outline) openXL(keep Keep) error {
	u, err := o.openUNet(keep)
	if err != nil {
		return err
	}
	v, err := o.openVAE(keep)
	if err != nil {
		return err
	}
	first, err := o.openCLIP(textEncoderFolder, false, keep)
	if err != nil {
		return err
	}
	second, err := o.openCLIP(textEncoder2Folder, true, keep)
	if err != nil {
		return err
	}
	o.Tokens, o.ContextDim = min(first.MaxPositions, second.MaxPositions), first.HiddenSize+second.HiddenSize
	return o.fit(unetFolder, []fit{
		{"cross_attention_dim", u.ContextDim, o.ContextDim, "the hidden_size of both text encoders"},
		{"in_channels", u.InChannels, v.LatentChannels, "the autoencoder's latent_channels"},
		{"out_channels", u.OutChannels, u.InChannels, "as many as in_channels"},
	})
}

func (o *Outline) openFlux(keep Keep) error {
	c, err := parse(o.Path, transformerFolder, shapes.ParseFlux)
	if err != nil {
		return err
	}
	o.Denoiser = &Part{Class: "FluxTransformer2DModel", Formula: shapes.FluxScratch}
	o.Denoiser.AtLeast = func(batch, h, w int) int64 { return c.ScratchBytes(batch, h, w, fluxTokens) }
	if err := o.declare(o.Denoiser, transformerFolder, c.Declare, nil, keep.Denoiser); err != nil {
		return err
	}
	v, err := o.openVAE(keep)
	if err != nil {
		return err
	}
	pooled, err := o.openCLIP(textEncoderFolder, false, keep)
	if err != nil {
		return err
	}
	t5, err := parse(o.Path, textEncoder2Folder, shapes.ParseT5)
	if err != nil {
		return err
	}
	text := &Part{Class: "T5EncoderModel", Formula: shapes.T5Scratch}
	text.AtLeast = func(batch, _, _ int) int64 { return t5.ScratchBytes(batch, fluxTokens) }
	if err := o.declare(text, textEncoder2Folder, t5.Declare, shapes.IgnoreT5, keep.Encoder); err != nil {
		return err
	}
	o.Text = append(o.Text, text)
	o.Guided, o.Tokens, o.ContextDim = false, fluxTokens, t5.Dim // guidance is a number that the network is told
	o.LatentMultiple, o.LatentHeight = shapes.FluxPatch, max(defaultLatents, v.SampleSize/v.Factor())
	o.LatentWidth = o.LatentHeight
	return o.fit(transformerFolder, []fit{
		{"joint_attention_dim", c.ContextDim, t5.Dim, "the d_model of T5"},
		{"pooled_projection_dim", c.PooledDim, pooled.HiddenSize, "the text encoder's hidden_size"},
		{"in_channels", c.InChannels, v.LatentChannels * shapes.FluxPatch * shapes.FluxPatch, "four times the autoencoder's latent_channels"},
		{"out_channels", c.OutChannels, c.InChannels, "as many as in_channels"},
	})
}

// fit is a number of a denoiser's config that another network's decides.
type fit struct {
	key       string
	got, want int
	why       string
}

func (o *Outline) fit(folder string, all []fit) error {
	for _, f := range all {
		if f.got != f.want {
			return &Error{Path: filepath.Join(o.Path, folder, "config.json"), Expected: fmt.Sprintf("%s %d, %s", f.key, f.want, f.why), Got: fmt.Sprint(f.got)}
		}
	}
	return nil
}

func (o *Outline) openUNet(keep Keep) (unet.Config, error) {
	c, err := parse(o.Path, unetFolder, unet.ParseConfig)
	if err != nil {
		return c, err
	}
	var m *unet.Model
	o.Denoiser = &Part{Class: "UNet2DConditionModel", Warnings: keyWarnings(o.Path, unetFolder, unet.UnknownKeys)}
	o.Denoiser.Record = func(batch, h, w int) (*device.Tape, error) {
		return record(o.Denoiser.Manifest, func(t *device.Tape) {
			latents := t.Input(InputLatents, batch, h, w, c.InChannels)
			context := t.FixedInput(InputContext, batch, o.Tokens, c.ContextDim)
			var out device.Array
			if c.AdditionDim == 0 {
				out = m.Forward(t, latents, t.Input(InputTime, 1, c.Channels[0]), context)
			} else {
				time := t.Input(InputTime, batch, c.Channels[0])
				out = m.ForwardAdded(t, latents, time, context, t.FixedInput("addition", batch, c.AdditionDim))
			}
			t.Output(OutputPrediction, out)
		})
	}
	o.LatentChannels, o.LatentMultiple = c.InChannels, c.SizeMultiple()
	o.LatentHeight, o.LatentWidth = trainedSize(c)
	return c, o.declare(o.Denoiser, unetFolder, func(s *nn.Scope) { m = unet.New(s, c) }, nil, keep.Denoiser)
}

func (o *Outline) openVAE(keep Keep) (vae.Config, error) {
	c, err := parse(o.Path, vaeFolder, vae.ParseConfig)
	if err != nil {
		return c, err
	}
	var m *vae.Decoder
	o.Decoder = &Part{Class: "AutoencoderKL", Warnings: keyWarnings(o.Path, vaeFolder, vae.UnknownKeys)}
	o.Decoder.Record = func(batch, h, w int) (*device.Tape, error) {
		return record(o.Decoder.Manifest, func(t *device.Tape) {
			t.Output(OutputImage, m.Forward(t, t.Input(InputLatents, batch, h, w, c.LatentChannels)))
		})
	}
	o.LatentChannels, o.SpatialFactor = c.LatentChannels, c.Factor()
	return c, o.declare(o.Decoder, vaeFolder, func(s *nn.Scope) { m = vae.NewDecoder(s, c) }, vae.IgnoreForDecoder, keep.Decoder)
}

// openCLIP outlines a text encoder. With projected, the vector of the whole prompt is projected too, which is one
// matrix more; its product is as small as nothing beside the states and not recorded.
func (o *Outline) openCLIP(folder string, projected bool, keep Keep) (clip.Config, error) {
	c, err := parse(o.Path, folder, clip.ParseConfig)
	if err != nil {
		return c, err
	}
	width := c.HiddenSize
	p := &Part{Class: "CLIPTextModel"}
	if projected {
		p.Class = "CLIPTextModelWithProjection"
		if width, err = parse(o.Path, folder, projectionDim); err != nil {
			return c, err
		}
	}
	var m *clip.Model
	p.Record = func(batch, _, _ int) (*device.Tape, error) {
		return record(p.Manifest, func(t *device.Tape) {
			t.Output(OutputStates, m.Forward(t, t.IDs(InputIDs, batch, min(o.Tokens, c.MaxPositions))))
		})
	}
	o.Text = append(o.Text, p)
	return c, o.declare(p, folder, func(s *nn.Scope) {
		m = clip.New(s, c)
		if projected {
			s.Matrix("text_projection.weight", width, c.HiddenSize)
		}
	}, clip.Ignore, keep.Encoder)
}

// projectionDim reads what transformers' CLIPTextConfig calls so.
func projectionDim(data []byte) (int, error) {
	const most = 1 << 14
	r, err := config.Parse(data)
	if err != nil {
		return 0, err
	}
	return r.Int("projection_dim", 512, 1, most), r.Err()
}
