// Package lora is the family of LoRAs and their relatives (engine/model/lora), which are added to the weights of models of latent
// diffusion: adapters, named in the option of a model that draws, or in its prompts.
//
// The package may import families/family, families/latent, stage and the engine.
package lora

import (
	"github.com/triptych-serving/triptych/engine/model/lora"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/families/latent"
	"github.com/triptych-serving/triptych/stage"
)

// Family is LoRAs.
func Family() family.Family { return family.Family{Class: modeldir.ClassLoRA, Open: open} }

// open reads the names of tensors, which tell what there is for which part of a model.
func open(dir *modeldir.Dir) (*family.Model, error) {
	parts, err := dir.LoRAParts()
	if err != nil {
		return nil, err
	}
	m := &family.Model{Class: dir.Class(), Adapter: latent.AdapterLoRA, Folders: dir.LoRAFolders()}
	for _, part := range parts {
		kind := stage.KindEncoder
		if part.Part == lora.UNet {
			kind = stage.KindDenoiser
		}
		m.Components = append(m.Components, family.Component{
			Name: family.Name(dir, latent.PartLoRA(part.Part)), Kind: kind, Class: modeldir.ClassLoRA, Whole: true,
			Open:     func(o modeldir.Options) (family.Network, error) { return dir.LoRA(part.Part, o) },
			Settings: func() (string, error) { return part.Settings, nil },
		})
	}
	return m, nil
}
