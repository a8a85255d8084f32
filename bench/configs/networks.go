package configs

import (
	"encoding/json"
	"fmt"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/clip"
	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/model/vae"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// tokens is the length of a prompt.
const tokens = 77

// Network is the tape of a network of known config at the size it was trained at.
type Network struct {
	Name string // "sd15 unet"
	Tape *device.Tape
}

// Networks records the networks of Stable Diffusion 1.5 (latents of 64x64) and XL (128x128): the denoisers for a batch
// of two, as guidance runs them, the text encoders for two prompts, the decoders for one image. Nothing is loaded.
// Of XL's denoiser the vector of the image's size, one product of [2, 2816] by [1280, 2816] and one of [2, 1280] by
// [1280, 1280], is left out: it is done once for an image.
func Networks() ([]Network, error) {
	sd15, sdxl := SD15(), SDXL()
	text, err := parse(sd15["text_encoder/config.json"], clip.ParseConfig)
	if err != nil {
		return nil, err
	}
	denoiser, err := parse(sd15["unet/config.json"], unet.ParseConfig)
	if err != nil {
		return nil, err
	}
	decoder, err := parse(sd15["vae/config.json"], vae.ParseConfig)
	if err != nil {
		return nil, err
	}
	bigText, err := parse(sdxl["text_encoder_2/config.json"], clip.ParseConfig)
	if err != nil {
		return nil, err
	}
	bigDenoiser, err := parse(sdxl["unet/config.json"], unet.ParseConfig)
	if err != nil {
		return nil, err
	}
	bigDenoiser.AdditionDim, bigDenoiser.AdditionTimeDim = 0, 0
	bigDecoder, err := parse(sdxl["vae/config.json"], vae.ParseConfig)
	if err != nil {
		return nil, err
	}
	list := []struct {
		name   string
		record func(*nn.Scope) *device.Tape
	}{
		{"sd15 text_encoder", textEncoder(text)},
		{"sd15 unet", unetStep(denoiser, 64)},
		{"sd15 vae_decoder", vaeDecoder(decoder, 64)},
		{"sdxl text_encoder", textEncoder(text)},
		{"sdxl text_encoder_2", textEncoder(bigText)},
		{"sdxl unet", unetStep(bigDenoiser, 128)},
		{"sdxl vae_decoder", vaeDecoder(bigDecoder, 128)},
	}
	var out []Network
	for _, n := range list {
		t := n.record(nn.NewScope(Unwritten{}))
		if err := t.Err(); err != nil {
			return nil, fmt.Errorf("%s: %w", n.name, err)
		}
		out = append(out, Network{n.name, t})
	}
	return out, nil
}

func textEncoder(c clip.Config) func(*nn.Scope) *device.Tape {
	return func(s *nn.Scope) *device.Tape {
		m := clip.New(s, c)
		t := device.NewTape(s.Manifest())
		t.Output("states", m.Forward(t, t.IDs("ids", 2, tokens)))
		return t
	}
}

func unetStep(c unet.Config, side int) func(*nn.Scope) *device.Tape {
	return func(s *nn.Scope) *device.Tape {
		m := unet.New(s, c)
		t := device.NewTape(s.Manifest())
		t.Output("prediction", m.Forward(t, unet.Inputs{
			Latents: t.Input("latents", 2, side, side, c.InChannels), Time: t.Input("time", 1, c.Channels[0]), Context: t.Input("context", 2, tokens, c.ContextDim),
		}))
		return t
	}
}

func vaeDecoder(c vae.Config, side int) func(*nn.Scope) *device.Tape {
	return func(s *nn.Scope) *device.Tape {
		m := vae.NewDecoder(s, c)
		t := device.NewTape(s.Manifest())
		t.Output("image", m.Forward(t, t.Input("latents", 1, side, side, c.LatentChannels)))
		return t
	}
}

// Unwritten is the source of a network that has no file yet: it has no tensors, and a scope over it lists the
// parameters all the same.
type Unwritten struct{}

// Info implements nn.Source.
func (Unwritten) Info(string) (tensor.DType, tensor.Shape, bool) { return tensor.Invalid, nil, false }

// TypeName implements nn.Source.
func (Unwritten) TypeName(string) string { return "" }

// Where implements nn.Source.
func (Unwritten) Where(string) string { return "" }

// Names implements nn.Source.
func (Unwritten) Names() []string { return nil }

// parse reads a config through the reader of real files, so that it is checked as they are.
func parse[C any](config any, read func([]byte) (C, error)) (C, error) {
	data, err := json.Marshal(config)
	if err != nil {
		var none C
		return none, err
	}
	return read(data)
}
