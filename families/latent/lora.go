package latent

import (
	"fmt"
	"slices"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/lora"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// LoRAs (Hu et al. 2021, arXiv 2106.09685) are added to the weights of the U-Net and of text encoders, beside which their own are
// held: ops that have an adapted weight compute with both, so that a request decides by how much, and nothing is loaded anew.

const (
	// OptionLoRAs names LoRAs and how much of each is added, "style:0.8,detail:0.5:1": one number for all, or one for text encoders and one for
	// the U-Net, as A1111 has them.
	OptionLoRAs = "loras"
	// AdapterLoRA is the kind of adapter, see stage.Model, and the tag in prompts.
	AdapterLoRA = "lora"
)

// PartLoRA is what a LoRA has for a part of a model.
func PartLoRA(part lora.Part) string { return "lora." + string(part) }

// loraParts are the parts of models that have text encoders, by Text.Place.
func loraParts() []lora.Part { return []lora.Part{lora.TextEncoder, lora.TextEncoder2} }

func loraOption() stage.OptionSpec {
	return stage.OptionSpec{Name: OptionLoRAs, Type: stage.Text, Max: maxNames, Shape: true, Adapter: AdapterLoRA, Tag: AdapterLoRA, InTexts: []string{OptionPrompt}, Default: stage.TextOption("")}
}

// LoRASlots are those of LoRAs in a turn with text encoders. There is one for each part that LoRAs have, so that none is left out
// without a word.
func LoRASlots() (out []stage.Member) {
	for _, part := range loraParts() {
		out = append(out, stage.Member{Component: PartLoRA(part), Option: OptionLoRAs})
	}
	return out
}

// LoRAs are those of one network of a turn.
type LoRAs struct {
	members []int
	adapted []modeldir.Adapted
	weights []float64
}

// adaptable is a network that LoRAs are for.
type adaptable interface {
	Adapt(*modeldir.LoRA) (modeldir.Adapted, error)
}

// LoRAs are those for a part among the networks of a turn, which net is. InvalidField where one does not fit.
func (m *Model) LoRAs(nets []family.Network, net family.Network, part lora.Part, o stage.Options) (out LoRAs, err error) {
	chosen := o.Chosen(OptionLoRAs)
	for _, c := range chosen {
		if len(c.Numbers) > 2 {
			return out, stage.Invalid(stage.InvalidField, OptionLoRAs, c, "NAME:SCALE, or NAME:SCALE:SCALE of text encoders and of the U-Net")
		}
	}
	for member, n := range nets {
		l, ok := n.(*modeldir.LoRA)
		if !ok || l.Part != part {
			continue
		}
		i := slices.IndexFunc(chosen, func(c stage.Choice) bool { return c.Name == l.Name() })
		if i < 0 {
			return out, stage.Invalid(stage.InvalidField, OptionLoRAs, o[OptionLoRAs], "one that names "+l.Name())
		}
		adapted, err := net.(adaptable).Adapt(l)
		if err != nil {
			return out, m.misfit(l, err)
		}
		weight := 1.0
		if n := chosen[i].Numbers; len(n) > 0 {
			weight = n[0]
			if part == lora.UNet {
				weight = n[len(n)-1]
			}
		}
		out.members, out.adapted, out.weights = append(out.members, member), append(out.adapted, adapted), append(out.weights, weight)
	}
	return out, nil
}

// misfit is the error of a LoRA that is for another model.
func (m *Model) misfit(l *modeldir.LoRA, err error) error {
	return stage.Invalid(stage.InvalidField, OptionLoRAs, l.Name(), "a LoRA for "+m.Dir.Name()+"; this one is for another model: "+err.Error())
}

// ForTexts are those of each text encoder of a turn, whose networks are the first of it.
func (m *Model) ForTexts(nets []family.Network, o stage.Options, texts int) (out []LoRAs, err error) {
	for i, part := range loraParts() {
		if i >= texts {
			for _, n := range nets {
				if l, ok := n.(*modeldir.LoRA); ok && l.Part == part {
					return nil, m.misfit(l, fmt.Errorf("it has layers for %d text encoders", i+1))
				}
			}
			continue
		}
		l, err := m.LoRAs(nets, nets[i], part, o)
		if err != nil {
			return nil, err
		}
		out = append(out, l)
	}
	return out, nil
}

// Key tells them and their weights from all others.
func (l LoRAs) Key() string {
	if len(l.adapted) == 0 {
		return ""
	}
	return fmt.Sprint(modeldir.Numbers(l.adapted), l.weights)
}

// write writes their weights to a run.
func (l LoRAs) write(run device.Run) error {
	for _, s := range modeldir.Scales(l.adapted, l.weights) {
		if err := run.Write(s.Input, s.Value); err != nil {
			return err
		}
	}
	return nil
}
