package modeldir

import (
	"fmt"
	"slices"
	"sync"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/controlnet"
	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/nn"
)

// ControlNet is a network that leads a U-Net by a picture.
type ControlNet struct {
	Network
	Config controlnet.Config
	model  *controlnet.Model
	name   string

	mu    sync.Mutex
	bases []string // settings of the U-Nets that tapes have been made for, if the config is inferred
}

// ControlNet opens a ControlNet by its config, or without one by its shapes. The errors are those of Dir.Network and of
// controlnet.Infer.
func (d *Dir) ControlNet(folder string, c *controlnet.Config, o Options) (n *ControlNet, err error) {
	n = &ControlNet{name: d.Name()}
	var unknown error
	n.Network, err = d.Network(folder, o, func(s *nn.Scope) {
		if c != nil {
			n.Config = *c
		} else if n.Config, unknown = controlnet.Infer(s.Source()); unknown != nil {
			return
		}
		n.model = controlnet.New(s, n.Config)
	}, nil)
	if unknown != nil {
		_ = n.Close() // read-only
		return nil, unknown
	}
	if c != nil {
		n.warnings = append(n.warnings, d.keyWarnings(folder, controlnet.UnknownKeys)...)
	}
	return n, err
}

// Name is the model's.
func (n *ControlNet) Name() string { return n.name }

// HintTape maps InputImage [1, height, width, 3] in 0 to 1 to OutputHint, features [1, height/Factor, width/Factor, Channels[0]].
func (n *ControlNet) HintTape(height, width int) (*device.Tape, error) {
	return n.Record(Shape{height, width}, func(t *device.Tape) {
		t.Output(OutputHint, n.model.Hint(t, t.Input(InputImage, 1, height, width, n.Config.ImageChannels)))
	})
}

// Tape maps what a U-Net's tape takes, and InputHint [batch, h, w, Channels[0]], fixed, to the residuals that it takes under
// the same names, see Beside. base is the U-Net's config, which Config.Fits.
func (n *ControlNet) Tape(base unet.Config, batch, h, w, tokens int) (*device.Tape, error) {
	c := n.Config.For(base)
	return n.Record(Shape{batch, h, w, tokens, 1 + n.base(c)}, func(t *device.Tape) {
		model := n.model
		if c.Inferred { // declared again, for the heads and the like: parameters are the same
			model = controlnet.New(nn.NewScope(n.weights), c)
		}
		in := unetInputs(t, c.Trunk, batch, h, w, tokens)
		skips, mid := model.Forward(t, in, t.FixedInput(InputHint, batch, h, w, c.Trunk.Channels[0]))
		for i, s := range skips {
			t.Output(InputControl(i), s)
		}
		t.Output(InputMiddle, mid)
	})
}

// base numbers the settings that an inferred config has from a U-Net.
func (n *ControlNet) base(c controlnet.Config) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	settings := fmt.Sprintf("%+v", c)
	at := slices.Index(n.bases, settings)
	if at < 0 {
		at = len(n.bases)
		n.bases = append(n.bases, settings)
	}
	return at
}
