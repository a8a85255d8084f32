// Package controlnet is the family of ControlNets (Zhang et al. 2023, arXiv 2302.05543), which lead models of latent diffusion by
// pictures: adapters, named in the option of a model that draws.
//
// The package may import families/family, families/latent, stage and the engine.
package controlnet

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/triptych-serving/triptych/engine/model/controlnet"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/families/latent"
	"github.com/triptych-serving/triptych/stage"
)

// Family is ControlNets.
func Family() family.Family { return family.Family{Class: controlnet.Class, Open: open} }

// open reads the config; a file without one has it by its shapes.
func open(dir *modeldir.Dir) (*family.Model, error) {
	config, err := readConfig(dir)
	if err != nil {
		return nil, err
	}
	return &family.Model{
		Class: dir.Class(), Adapter: latent.AdapterControlNet, Folders: []string{""},
		Components: []family.Component{{
			Name: family.Name(dir, latent.PartControlNet), Kind: stage.KindDenoiser, Class: controlnet.Class,
			Open: func(o modeldir.Options) (family.Network, error) { return dir.ControlNet("", config, o) },
			Settings: func() (string, error) {
				if config == nil {
					return "inferred\n", nil
				}
				return fmt.Sprintf("%+v\n", *config), nil
			},
		}},
	}, nil
}

func readConfig(dir *modeldir.Dir) (*controlnet.Config, error) {
	c, err := modeldir.Config(dir, "", controlnet.ParseConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &c, nil
}
