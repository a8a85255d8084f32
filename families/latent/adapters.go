package latent

import (
	"github.com/triptych-serving/triptych/engine/model/lora"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// adapterMembers are the slots of the denoiser's turn.
func adapterMembers() []stage.Member {
	return []stage.Member{{Component: PartControlNet, Option: OptionControlNets}, {Component: PartIPAdapter, Option: OptionIPAdapter}, {Component: PartLoRA(lora.UNet), Option: OptionLoRAs}, family.PreviewDecoderSlot()}
}

// Networks are those of a turn's members.
func Networks(s family.Session, req stage.WorkRequest) (out []family.Network) {
	for i := range req.Components {
		out = append(out, s.Network(i))
	}
	return out
}

// adapters are what a request has beside the model.
type adapters struct {
	m        *Model
	controls []control
	image    *imagePrompt // nil without one
	loras    LoRAs
}

// adapters are those among the networks of a turn. InvalidField where one does not fit.
func (m *Model) adapters(nets []family.Network, o stage.Options) (a adapters, err error) {
	a.m = m
	if a.controls, err = m.controls(nets, o); err != nil {
		return a, err
	}
	if a.image, err = m.imagePrompt(nets, o); err != nil {
		return a, err
	}
	a.loras, err = m.LoRAs(nets, nets[0], lora.UNet, o)
	return a, err
}

// unetRun is that of a guided image or another one beside them, with so many tokens of each prompt.
func (a adapters) unetRun(net family.Network, o stage.Options, tokens int) (family.Run, error) {
	h, w := a.m.latentSize(o)
	beside := modeldir.Beside{Control: len(a.controls) > 0, ImageTokens: a.image.tokens(), LoRAs: a.loras.adapted}
	tape, err := net.(*modeldir.Denoiser).TapeBeside(family.Batch(o), h, w, tokens, beside)
	return family.Run{With: a.loras.members, Tape: tape}, err
}

// runs are those that are over before the U-Net's, and those that are held beside it.
func (a adapters) runs(o stage.Options, tokens int) (once []family.Run, err error) {
	add := func(r family.Run, err2 error) {
		once = append(once, r)
		if err == nil {
			err = err2
		}
	}
	if a.image != nil {
		add(a.image.run(o))
	}
	for _, c := range a.controls {
		add(c.hintRun(o))
	}
	for _, c := range a.controls {
		add(a.m.controlRun(c, o, tokens))
	}
	return once, err
}
