package family

import (
	"fmt"

	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/model/vae"
	"github.com/triptych-serving/triptych/stage"
)

// The turns that every family has.
const (
	Encode  = "encode"
	Denoise = "denoise"
	Decode  = "decode"
)

// Outline is a model that can be planned and not run: its components are used by kind, one turn for each, and runs tells
// what with.
func Outline(dir *modeldir.Dir, options []stage.OptionSpec, components []Component, runs map[stage.Kind]func([]Network, stage.Options) ([]Run, error)) *Model {
	m := &Model{Class: dir.Class(), Turns: map[string]Turn{}, Components: components}
	m.Problem = &modeldir.Error{Path: dir.File(modeldir.IndexFile), Expected: "a pipeline that can be run", Got: dir.Class()}
	recipe := stage.Recipe{Family: dir.Class(), Task: "generate", Options: options}
	var names []string
	for _, o := range options {
		names = append(names, o.Name)
	}
	for kind, name := range map[stage.Kind]string{stage.KindEncoder: Encode, stage.KindDenoiser: Denoise, stage.KindDecoder: Decode} {
		m.Turns[name] = Turn{Runs: runs[kind]}
	}
	for i, name := range []string{Encode, Denoise, Decode} {
		t := stage.Turn{Name: name, Kind: stage.Kinds()[i], Options: names, EachImage: i > 0}
		for _, c := range components {
			if c.Kind == t.Kind {
				t.Members = append(t.Members, stage.Member{Component: c.Name})
				m.Folders = append(m.Folders, c.Folder)
			}
		}
		recipe.Turns = append(recipe.Turns, t)
	}
	m.Recipes = []stage.Recipe{recipe}
	return m
}

// VAEDecoder is the autoencoder's half from latents to images.
func VAEDecoder(dir *modeldir.Dir, c vae.Config) Component {
	return Component{
		Name: Name(dir, "vae.decoder"), Kind: stage.KindDecoder, Folder: modeldir.VAEFolder, Class: modeldir.ClassVAE,
		Open:     func(o modeldir.Options) (Network, error) { return dir.ImageDecoder(modeldir.VAEFolder, c, o) },
		Settings: func() (string, error) { return fmt.Sprintf("%+v\n", c), nil },
	}
}

// DecodeRuns are those of a turn that makes an image with it.
func DecodeRuns(c vae.Config) func([]Network, stage.Options) ([]Run, error) {
	return func(nets []Network, o stage.Options) ([]Run, error) {
		h, w := Latents(o, c.Factor())
		tape, err := nets[0].(*modeldir.ImageDecoder).Tape(1, h, w)
		return []Run{{Tape: tape, Image: true}}, err
	}
}
