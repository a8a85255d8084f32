// Package upscaler is networks that enlarge images: ESRGAN, Real-ESRGAN and its compact network. A model of them has a task of
// its own, and is an adapter that other models name to have their images enlarged.
//
// The package may import families/family, stage and the engine.
package upscaler

import (
	"context"
	"errors"

	"github.com/triptych-serving/triptych/engine/imaging"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// Family is upscalers.
func Family() family.Family { return family.Family{Class: modeldir.ClassUpscaler, Open: open} }

// upscale is the task and its only turn.
const upscale = "upscale"

// The values of the turn.
const (
	valuePicture = "init_image"
	valueImage   = "image"
)

func open(dir *modeldir.Dir) (*family.Model, error) {
	net, err := dir.Upscaler(modeldir.Options{Outline: true})
	if err != nil {
		return nil, err
	}
	if err := net.Close(); err != nil {
		return nil, err
	}
	name := family.Name(dir, family.Upscaler)
	return &family.Model{
		Class: dir.Class(), Adapter: family.Upscaler,
		Recipes: []stage.Recipe{recipe(name)},
		Turns:   map[string]family.Turn{upscale: {Runs: runs, Work: work}},
		Components: []family.Component{{
			Name: name, Kind: stage.KindDecoder, Class: modeldir.ClassUpscaler,
			Open:     func(o modeldir.Options) (family.Network, error) { return dir.Upscaler(o) },
			Settings: func() (string, error) { return net.Config.String(), nil },
		}},
		Folders: []string{""},
	}, nil
}

func recipe(component string) stage.Recipe {
	const usual = 512
	picture := stage.Port{Name: valuePicture, Media: "image/*"}
	options := append(append(family.Sides(usual, usual, 1), family.UpscaleOptions()...), family.FileOptions()...)
	var names []string
	for _, o := range options {
		names = append(names, o.Name)
	}
	return stage.Recipe{
		Family: "upscaler", Task: upscale, Inputs: []stage.Port{picture}, Options: options,
		Turns: []stage.Turn{{
			Name: upscale, Kind: stage.KindDecoder, Members: []stage.Member{{Component: component}}, EachImage: true,
			Takes: []stage.Port{picture, family.ParametersPort()}, Gives: []stage.Port{{Name: valueImage, Media: "image/*"}}, Options: names,
		}},
	}
}

func runs(nets []family.Network, o stage.Options) ([]family.Run, error) {
	return family.UpscaleRuns(nets[0], 0, o, int(o[family.Height].Int), int(o[family.Width].Int))
}

// work enlarges a picture, which is scaled to the width and height of the request before.
func work(ctx context.Context, s family.Session, req stage.WorkRequest, o stage.Observer) (stage.Result, error) {
	format, err := family.FileFormat(req)
	if err != nil {
		return stage.Result{}, err
	}
	v, _ := req.Values.Get(valuePicture)
	p, err := imaging.Decode(v.File.Data)
	var refused *imaging.Error
	if errors.As(err, &refused) {
		return stage.Result{}, stage.Invalid(stage.InvalidField, valuePicture, refused.Got, refused.Expected)
	} else if err != nil {
		return stage.Result{}, err
	}
	p = p.Resize(int(req.Options[family.Width].Int), int(req.Options[family.Height].Int))
	begun := false
	p, err = family.Upscale(ctx, s, 0, req.Options, p, func(done, all int) {
		if o.Ready != nil && !begun {
			o.Ready(all)
		}
		begun = true
		if o.Progress != nil {
			o.Progress(done, all)
		}
	})
	if err != nil {
		return stage.Result{}, err
	}
	file, err := family.File(p.Image(), format)
	if err != nil { // not of the format, which was checked
		return stage.Result{}, err
	}
	return stage.Result{Values: stage.Values{{Name: valueImage, File: file}}}, nil
}
