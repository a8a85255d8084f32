package latent

import (
	"context"
	"fmt"
	"slices"

	"github.com/triptych-serving/triptych/engine/model/clip"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// IP-Adapters (Ye et al. 2023, arXiv 2308.06721) give a picture to the U-Net as a prompt. The encoder's service has their image
// encoder and tells what it says of the picture; the denoiser makes keys and values of that, once a request, which the
// attentions to the text look at too. Reference: diffusers' load_ip_adapter.

const (
	// OptionIPAdapter names an IP-Adapter and how much what is found in the picture counts: "style:0.7".
	OptionIPAdapter = "ip_adapter"
	// AdapterIPAdapter is the kind of adapter, see stage.Model.
	AdapterIPAdapter = "ip_adapter"
	// PartIPAdapter is the part of it that the denoiser has.
	PartIPAdapter = "ip_adapter"
	// PartImageEncoder is the other one.
	PartImageEncoder = "image_encoder"
	// EncodeImagePrompt is the turn of the image encoder.
	EncodeImagePrompt = "encode_image_prompt"

	// ValueImagePrompt is the picture.
	ValueImagePrompt = "image_prompt"
	// ValueImageStates is what the image encoder says of it.
	ValueImageStates = "image_states"
)

func imagePromptPort() stage.Port { return stage.Port{Name: ValueImagePrompt, Media: "image/*"} }

// imageStates are an embedding of the picture, or all states of it, and before them those of no picture where there is guidance.
func imageStatesPort() stage.Port {
	return optional(Port(ValueImageStates, "batch", "image_states", "image_width"), true)
}

func ipOption() stage.OptionSpec {
	return stage.OptionSpec{Name: OptionIPAdapter, Type: stage.Text, Max: maxNames, Shape: true, Adapter: AdapterIPAdapter, Inputs: []string{ValueImagePrompt}, Default: stage.TextOption("")}
}

// encodeImagePromptTurn is the turn that an image prompt takes.
func encodeImagePromptTurn() stage.Turn {
	return stage.Turn{
		Name: EncodeImagePrompt, Kind: stage.KindEncoder, Members: []stage.Member{{Component: PartImageEncoder, Option: OptionIPAdapter}}, Optional: true,
		Takes: []stage.Port{imagePromptPort()}, Gives: []stage.Port{Port(ValueImageStates, "batch", "image_states", "image_width")},
		Options: []string{family.Guidance, OptionIPAdapter},
	}
}

// ImageEncoder is that of an IP-Adapter, with what the adapter takes of it.
type ImageEncoder struct {
	*modeldir.VisionEncoder
	clip.Preprocessing
	Model  string
	States bool // the penultimate states, else the picture's embedding
}

// Name implements family.Adapter.
func (e *ImageEncoder) Name() string { return e.Model }

// oneAdapter refuses more than one IP-Adapter, and anything but a scale behind it.
func oneAdapter(o stage.Options) (scale float64, err error) {
	chosen := o.Chosen(OptionIPAdapter)
	if len(chosen) != 1 || len(chosen[0].Numbers) > 1 {
		return 0, stage.Invalid(stage.InvalidField, OptionIPAdapter, o[OptionIPAdapter], "NAME:SCALE of one IP-Adapter")
	}
	for _, scale := range chosen[0].Numbers {
		return scale, nil
	}
	return 1, nil
}

func (m *Model) encodeImagePromptRuns(nets []family.Network, o stage.Options) ([]family.Run, error) {
	if _, err := oneAdapter(o); err != nil {
		return nil, err
	}
	e, ok := nets[0].(*ImageEncoder)
	if !ok {
		return nil, fmt.Errorf("%T is no image encoder", nets[0])
	}
	pictures := 1
	if e.States { // those of no picture as well
		pictures = family.Batch(o)
	}
	tape, err := e.Tape(pictures, e.States)
	return one(family.Run{Tape: tape}, err)
}

// encodeImagePrompt tells what the image encoder says of a picture. Where there is guidance the negative prompt's
// half is first: an embedding of zeros, or the states of a picture whose normalized values are all zero.
func (m *Model) encodeImagePrompt(ctx context.Context, s family.Session, req stage.WorkRequest, _ stage.Observer) (stage.Result, error) {
	runs, err := m.encodeImagePromptRuns([]family.Network{s.Network(0)}, req.Options)
	if err != nil {
		return stage.Result{}, err
	}
	e := s.Network(0).(*ImageEncoder)
	picture, err := e.pixels(req)
	if err != nil {
		return stage.Result{}, err
	}
	c, batch := e.Config, family.Batch(req.Options)
	length, width, output := 1, c.Projection, modeldir.OutputEmbeddings
	if e.States {
		length, width, output = 1+c.Patches(), c.HiddenSize, modeldir.OutputStates
	}
	pictures := 1
	if e.States {
		picture = slices.Concat(make([]float32, (batch-1)*len(picture)), picture)
		pictures = batch
	}
	out := make([]float32, pictures*(1+c.Patches())*width)
	run, err := s.Start(runs[0])
	if err != nil {
		return stage.Result{}, err
	}
	defer run.Free()
	if err := family.First(
		func() error { return run.Write(modeldir.InputImage, picture) },
		func() error { return run.WriteIDs(modeldir.InputClass, make([]int32, pictures)) },
		func() error { return run.WriteIDs(modeldir.InputPlaces, modeldir.Places(pictures, 1, c.Patches())) },
		func() error { return run.Execute(ctx) },
		func() error { return run.Read(output, out) },
	); err != nil {
		return stage.Result{}, s.Failed(runs[0], run, err)
	}
	if !family.Finite(out) {
		return stage.Result{}, s.NotFinite(0, "states of a picture")
	}
	if !e.States {
		out = slices.Concat(make([]float32, (batch-1)*width), out[:width])
	}
	return stage.Result{Values: stage.Values{family.Tensor(ValueImageStates, out, batch, length, width)}}, nil
}

// pixels are those of the picture as CLIP's image processor makes them: the short side scaled to the encoder's, and the middle
// cut out.
func (e *ImageEncoder) pixels(req stage.WorkRequest) ([]float32, error) {
	p, err := decoded(req, ValueImagePrompt)
	if err != nil {
		return nil, err
	}
	side := e.Config.ImageSize
	width, height := side, side
	if p.Width < p.Height {
		height = side * p.Height / p.Width
	} else {
		width = side * p.Width / p.Height
	}
	if longest := max(width, height); longest > maxStretch*side {
		return nil, stage.Invalid(stage.InvalidField, ValueImagePrompt, fmt.Sprintf("%dx%d", p.Width, p.Height), fmt.Sprintf("a picture whose sides differ at most %d times", maxStretch))
	}
	p = p.Bicubic(width, height).Crop((width-side)/2, (height-side)/2, side, side)
	return p.Normalized(e.Mean, e.Std), nil
}

// maxStretch bounds what is made of a picture that is a line.
const maxStretch = 64

// imagePrompt is the IP-Adapter of a request.
type imagePrompt struct {
	member int
	net    *modeldir.IPAdapter
	scale  float32
}

// imagePrompt is that among the networks of a turn, nil if there is none. InvalidField where it does not fit the model.
func (m *Model) imagePrompt(nets []family.Network, o stage.Options) (*imagePrompt, error) {
	for member, n := range nets {
		net, ok := n.(*modeldir.IPAdapter)
		if !ok {
			continue
		}
		scale, err := oneAdapter(o)
		if err != nil {
			return nil, err
		}
		if why := net.Config.Fits(m.UNet); why != "" {
			return nil, stage.Invalid(stage.InvalidField, OptionIPAdapter, net.Name(), "an IP-Adapter for "+m.Dir.Name()+"; this one is for another model: "+why)
		}
		return &imagePrompt{member: member, net: net, scale: float32(scale)}, nil
	}
	return nil, nil
}

// run makes keys and values, once.
func (p *imagePrompt) run(o stage.Options) (family.Run, error) {
	tape, err := p.net.Tape(family.Batch(o))
	return family.Run{Member: p.member, Tape: tape}, err
}

// tokens is how many a picture has; none without a prompt.
func (p *imagePrompt) tokens() int {
	if p == nil {
		return 0
	}
	return p.net.Config.Tokens
}

// imageInputs are the keys and values of the request's picture. The scale of what is found is that of the values.
func (d *denoising) imageInputs(ctx context.Context, s family.Session, p *imagePrompt) (inputs []Input, err error) {
	v, given := d.req.Values.Get(ValueImageStates)
	switch {
	case p == nil && given:
		return nil, stage.Invalid(stage.InvalidField, ValueImageStates, v.Tensor.Shape, "none without "+OptionIPAdapter)
	case p == nil:
		return nil, nil
	case !given:
		return nil, stage.Invalid(stage.InvalidField, ValueImagePrompt, "no picture", "one, which IP-Adapter "+p.net.Name()+" takes")
	}
	c, batch := p.net.Config, family.Batch(d.req.Options)
	if want := []int{batch, p.net.States, c.ImageDim}; !slices.Equal(v.Tensor.Shape, want) {
		return nil, stage.Invalid(stage.TensorInvalid, v.Name, v.Tensor.Shape, fmt.Sprint(want))
	}
	states, err := family.Floats(v)
	if err != nil {
		return nil, err
	}
	r, err := p.run(d.req.Options)
	if err != nil {
		return nil, err
	}
	run, err := s.Start(r)
	if err != nil {
		return nil, err
	}
	defer run.Free()
	steps := []func() error{func() error { return run.Write(modeldir.InputStates, states) }}
	if c.Resampler != nil {
		steps = append(steps, func() error { return run.WriteIDs(modeldir.InputQueries, modeldir.Places(batch, 0, c.Tokens)) })
	}
	steps = append(steps, func() error { return run.Execute(ctx) })
	for i, a := range c.Attentions {
		k, v := make([]float32, batch*c.Tokens*a.Width), make([]float32, batch*c.Tokens*a.Width)
		inputs = append(inputs, Input{modeldir.InputKeys(i), k}, Input{modeldir.InputValues(i), v})
		steps = append(steps, func() error { return run.Read(modeldir.InputKeys(i), k) }, func() error { return run.Read(modeldir.InputValues(i), v) })
	}
	if err := family.First(steps...); err != nil {
		return nil, s.Failed(r, run, err)
	}
	for i, in := range inputs {
		if !family.Finite(in.Values) {
			return nil, s.NotFinite(p.member, "keys and values of a picture")
		}
		if i%2 == 1 {
			for j := range in.Values {
				in.Values[j] *= p.scale
			}
		}
	}
	return inputs, nil
}
