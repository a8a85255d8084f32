// Package taesd is tiny autoencoders, adapters that other models name to have their estimates decoded for previews.
//
// The package may import families/family, stage and the engine.
package taesd

import (
	"fmt"

	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// Family is tiny autoencoders.
func Family() family.Family { return family.Family{Class: modeldir.ClassTiny, Open: open} }

func open(dir *modeldir.Dir) (*family.Model, error) {
	net, err := dir.TinyDecoder(modeldir.Options{Outline: true})
	if err != nil {
		return nil, err
	}
	if err := net.Close(); err != nil {
		return nil, err
	}
	return &family.Model{
		Class: dir.Class(), Adapter: family.TinyDecoder,
		Components: []family.Component{{
			Name: family.Name(dir, family.PreviewDecoder), Kind: stage.KindDenoiser, Class: modeldir.ClassTiny,
			Open:     func(o modeldir.Options) (family.Network, error) { return dir.TinyDecoder(o) },
			Settings: func() (string, error) { return fmt.Sprintf("%+v", net.Half), nil },
		}},
		Folders: []string{""},
	}, nil
}
