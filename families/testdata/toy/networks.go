package toy

import (
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/families/family"
)

const (
	vocabulary = 64
	channels   = 4 // of latents
	patch      = 4 // pixels of a place of latents, in each direction
	timeDim    = 4 // of the code of a timestep
	rgb        = 3
	// features of a place: its latents, those of the frame before, the timestep and the wobble.
	features = 2*channels + timeDim + 1
)

// The names of inputs and outputs on the tapes below.
const (
	inputFeatures = "features"
	inputPicture  = "picture"
	inputHint     = "hint"
	outputHint    = "hint"
)

// text is the network from token ids to states.
type text struct {
	modeldir.Network
	tokens, positions device.Weight
	out               nn.Linear
}

func (m *model) openText(folder string, c Config, o modeldir.Options) (family.Network, error) {
	n := &text{}
	var err error
	n.Network, err = m.Network(folder, o, func(s *nn.Scope) {
		n.tokens, n.positions = s.Table("tokens.weight", vocabulary, c.Width), s.Table("positions.weight", c.Tokens, c.Width)
		n.out = nn.NewLinear(s.Sub("out"), c.Width, c.Width)
	}, nil)
	return n, err
}

// Tape maps modeldir.InputIDs [1, tokens] to modeldir.OutputStates [1, tokens, Width].
func (n *text) Tape(tokens int) (*device.Tape, error) {
	return n.Record(modeldir.Shape{tokens}, func(t *device.Tape) {
		x := t.Embed(device.Embed{IDs: t.IDs(modeldir.InputIDs, 1, tokens), Tokens: n.tokens, Positions: n.positions})
		t.Output(modeldir.OutputStates, n.out.Forward(t, x))
	})
}

// predictor is the network that predicts noise in the latents of a frame.
type predictor struct {
	modeldir.Network
	width, context int
	in, out        nn.Linear
	attention      nn.Attention
}

func (m *model) openDenoiser(o modeldir.Options) (family.Network, error) {
	n := &predictor{width: m.denoiser.Width, context: m.context()}
	var err error
	n.Network, err = m.Network(denoiser, o, func(s *nn.Scope) {
		n.in, n.out = nn.NewLinear(s.Sub("in"), features, n.width), nn.NewLinear(s.Sub("out"), n.width, channels)
		n.attention = nn.NewAttention(s.Sub("attention"), n.width, n.context, 1)
	}, nil)
	return n, err
}

// Tape maps inputFeatures [1, places, features], modeldir.InputContext [1, tokens, context], a fixed input, and, where there is a
// control, its inputHint [1, places, width] to modeldir.OutputPrediction [1, places, channels].
func (n *predictor) Tape(places, tokens int, controlled bool) (*device.Tape, error) {
	shape := modeldir.Shape{places, tokens}
	if controlled {
		shape[2] = 1
	}
	return n.Record(shape, func(t *device.Tape) {
		x, context := t.Input(inputFeatures, 1, places, features), t.FixedInput(modeldir.InputContext, 1, tokens, n.context)
		if controlled {
			x = n.in.Add(t, x, t.Input(inputHint, 1, places, n.width))
		} else {
			x = n.in.Forward(t, x)
		}
		t.Output(modeldir.OutputPrediction, n.out.Forward(t, n.attention.Forward(t, x, context, x)))
	})
}

// hinter is the control: it adds to the first layer of the denoiser what follows from a picture, anew at each step.
type hinter struct {
	modeldir.Network
	in, out nn.Linear
}

func (m *model) openControl(o modeldir.Options) (family.Network, error) {
	n := &hinter{}
	var err error
	n.Network, err = m.Network(control, o, func(s *nn.Scope) {
		n.in, n.out = nn.NewLinear(s.Sub("in"), features+rgb, m.control.Width), nn.NewLinear(s.Sub("out"), m.control.Width, m.control.Width)
	}, nil)
	return n, err
}

// Tape maps inputFeatures [1, places, features] and inputPicture [1, places, 3], a fixed input, to outputHint [1, places, width].
func (n *hinter) Tape(places int) (*device.Tape, error) {
	return n.Record(modeldir.Shape{places}, func(t *device.Tape) {
		x := t.Concat(device.Concat{A: t.Input(inputFeatures, 1, places, features), B: t.FixedInput(inputPicture, 1, places, rgb)})
		t.Output(outputHint, n.out.Forward(t, n.in.Act(t, x, device.SiLU)))
	})
}

// painter is the network from latents to pixels.
type painter struct {
	modeldir.Network
	in, out nn.Linear
	middle  [4]nn.Linear
}

func (m *model) openDecoder(o modeldir.Options) (family.Network, error) {
	n := &painter{}
	var err error
	n.Network, err = m.Network(decoder, o, func(s *nn.Scope) {
		n.in, n.out = nn.NewLinear(s.Sub("in"), channels, m.decoder.Width), nn.NewLinear(s.Sub("out"), m.decoder.Width, patch*patch*rgb)
		for i := range n.middle {
			n.middle[i] = nn.NewLinear(s.Index("middle", i), m.decoder.Width, m.decoder.Width)
		}
	}, nil)
	return n, err
}

// Tape maps modeldir.InputLatents [1, places, channels] to modeldir.OutputImage [1, places, patch * patch * 3].
func (n *painter) Tape(places int) (*device.Tape, error) {
	return n.Record(modeldir.Shape{places}, func(t *device.Tape) {
		x := n.in.Act(t, t.Input(modeldir.InputLatents, 1, places, channels), device.SiLU)
		for _, l := range n.middle {
			x = l.Act(t, x, device.SiLU)
		}
		t.Output(modeldir.OutputImage, n.out.Forward(t, x))
	})
}
