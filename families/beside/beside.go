// Package beside is files that are no models and no adapters, and that lie among them: textual inversions, which prompts name by their
// words, and autoencoders, which take the place of a model's own.
//
// The package may import families/family, stage and the engine.
package beside

import (
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/families/family"
)

// What such files are called in the place of adapters.
const (
	Embedding = "embedding"
	VAE       = "vae"
)

// Families are those of such files. They have no components: nothing is loaded for them.
func Families() []family.Family {
	return []family.Family{{Class: modeldir.ClassInversion, Open: as(Embedding)}, {Class: modeldir.ClassVAE, Open: as(VAE)}}
}

func as(adapter string) func(*modeldir.Dir) (*family.Model, error) {
	return func(dir *modeldir.Dir) (*family.Model, error) {
		return &family.Model{Class: dir.Class(), Adapter: adapter, Folders: []string{""}}, nil
	}
}
