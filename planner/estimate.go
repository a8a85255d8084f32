// Package planner tells what an image takes in each stage before anything is loaded, what a budget costs, how fast weights load and
// which parts of models are equal. It reads a model's recipe and asks the stages that would serve it.
//
// The package may import stage, stage/stageengine, families/family, the engine and orchestrator/residency/simulate.
package planner

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stageengine"
)

// EstimateRequest is one image of a model. Sides of 0 are the model's own.
type EstimateRequest struct {
	Model             string
	WidthPx, HeightPx int
	Guided            bool     // with a negative prompt, which doubles encoder and denoiser
	Inputs            []string // files that the request has, by the name of the model's input
	// Options are those of the model but for its sides, by name, as people write them. Those that name adapters have these among the
	// turns' members, and stand for the files that these take.
	Options map[string]string
}

// Estimate is what making the image takes.
type Estimate struct {
	WidthPx, HeightPx int
	Pipeline          string          // the model's class
	Runs              bool            // the stages can run it
	Present           bool            // all of its weights are there
	Stages            []StageEstimate // of the turns that the image takes, in their order
}

// StageEstimate is one turn's part, in bytes.
type StageEstimate struct {
	Kind         stage.Kind
	Turn         string
	Networks     []NetworkEstimate // in the order they are used
	Footprint    stage.Footprint   // what the stage's Plan says on this device
	MostScratch  int64             // scratch however large the budget is
	LeastScratch int64             // scratch with the smallest budget that the stage runs in
	InBands      bool
	SpillBytes   int64 // of a temporary file, if the stage runs in bands

	MostWeights   int64 // held if the stage streams nothing
	LeastWeights  int64 // held if it streams all that helps
	ResidentBytes int64 // of the weights, if it streams the others
	StreamedBytes int64 // read from the model's files for each evaluation of the network
	// Convolutions are how many each algorithm computes, by its name, in one evaluation; nil if the device does not tell.
	Convolutions map[string]int
	Compute      device.Compute // of the stage
	// AtLeast is the formula by which scratch is estimated from below, for want of a network that the engine can run;
	// empty if scratch is exact.
	AtLeast string

	components []family.Component
	options    modeldir.Options  // in which their networks are opened
	paths      map[string]string // of the models
}

// NetworkEstimate is one network of a stage. The folder of an adapter is its component's name.
type NetworkEstimate struct {
	Folder, Class string
	Parameters    int64
	StoredBytes   int64
	DType         string   // as stored, of most parameters
	Present       bool     // its weights are there; else their type may be assumed
	Runs          bool     // the engine has the network
	Warnings      []string // see stage.Component
}

// NewEstimate plans an image in the stages on o.Device, as services on it would whose orchestrator has what does not fit
// streamed. Nothing is loaded. A model whose weights are absent, or whose networks the stages cannot run yet, is planned from its
// configs and headers.
// SizeUnsupported, InvalidField, ModelNotFound, ModelInvalid.
func NewEstimate(ctx context.Context, o stageengine.Options, req EstimateRequest) (Estimate, error) {
	path, err := o.Library.Path(req.Model)
	if err != nil {
		return Estimate{}, err
	}
	vae := o.Library.VAE(req.Model)
	files, err := family.Open(o.Families, path, vae)
	if err != nil {
		return Estimate{}, stageengine.ModelError(err, stage.KindEncoder, req.Model, path, vae)
	}
	if len(files.Recipes) == 0 {
		return Estimate{}, stage.Invalid(stage.InvalidField, "model", req.Model, "a model to draw with, which one of the kind "+files.Adapter+" is not")
	}
	e := Estimate{WidthPx: req.WidthPx, HeightPx: req.HeightPx, Pipeline: files.Class, Runs: files.Problem == nil, Present: true}
	recipe := files.Recipes[0]
	options, err := e.sides(recipe)
	if err == nil {
		err = takes(recipe, req.Inputs)
	}
	if err == nil {
		err = parse(recipe, req.Options, options)
	}
	if err != nil {
		return Estimate{}, err
	}
	if _, guided := recipe.Option(family.Guidance); guided && !req.Guided {
		options[family.Guidance] = stage.FloatOption(1)
	}
	named, err := adaptersOf(o, recipe, options)
	if err != nil {
		return Estimate{}, err
	}
	paths := map[string]string{req.Model: path}
	for name := range named {
		paths[name], _ = o.Library.Path(name) // it was opened
	}
	o.Library, o.Outline = o.Library.Only(slices.Collect(maps.Keys(paths))...), true
	has := func(value string) bool {
		return slices.Contains(req.Inputs, value) || slices.ContainsFunc(recipe.Options, func(s stage.OptionSpec) bool {
			return slices.Contains(s.Inputs[:min(len(s.Inputs), len(options.Chosen(s.Name)))], value)
		})
	}
	if err := recipe.CheckInputs(options, has); err != nil {
		return Estimate{}, err
	}
	stages := map[stage.Kind]*stageengine.Stage{}
	for _, t := range recipe.Choose(options, named.has).For(has) {
		if stages[t.Kind] == nil {
			stages[t.Kind] = stageengine.New(t.Kind, o)
		}
		row := StageEstimate{Kind: t.Kind, Turn: t.Name, paths: paths, Compute: o.Compute[t.Kind], options: modeldir.Options{Resident: o.Precision[t.Kind]}}
		if err := row.plan(stages[t.Kind], o.Device, stage.PlanRequest{Turn: t.Name, Components: t.Components(), Options: recipe.Shape(t, options)}); err != nil {
			return Estimate{}, err
		}
		for i, n := range row.Networks {
			if c := row.components[i].Name; stage.ModelOf(c) != req.Model {
				row.Networks[i].Folder = c
			}
			e.Present = e.Present && n.Present
		}
		e.Stages = append(e.Stages, row)
	}
	return e, ctx.Err()
}

// sides fills in the image's size and gives it as options.
func (e *Estimate) sides(recipe stage.Recipe) (stage.Options, error) {
	out := stage.Options{}
	for _, side := range []struct {
		name  string
		value *int
	}{{family.Width, &e.WidthPx}, {family.Height, &e.HeightPx}} {
		spec, known := recipe.Option(side.name)
		if !known {
			continue
		}
		if *side.value == 0 {
			*side.value = int(spec.Default.Int)
		}
		out[side.name] = stage.IntOption(int64(*side.value))
		if err := spec.Check(side.name, out[side.name]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// takes refuses files that a model has no input for.
func takes(recipe stage.Recipe, inputs []string) error {
	var known []string
	for _, in := range recipe.Inputs {
		known = append(known, in.Name)
	}
	for _, name := range inputs {
		if !slices.Contains(known, name) {
			return stage.Invalid(stage.InvalidField, "inputs", name, "one of the model's inputs: "+strings.Join(known, ", "))
		}
	}
	return nil
}

// plan fills in a turn, streamed if the device's budget does not hold it.
func (s *StageEstimate) plan(by *stageengine.Stage, d device.Device, req stage.PlanRequest) error {
	o, err := by.Outlook(req)
	if err != nil {
		return err
	}
	budget := d.Memory().CapBytes
	if left := budget - d.OverheadBytes(); budget > 0 && o.Footprint.WeightsBytes()+o.Footprint.ScratchBytes > left {
		req.LimitBytes = o.Footprint.LimitWithin(left)
		if o, err = by.Outlook(req); err != nil {
			return err
		}
	}
	s.Footprint = o.Footprint
	for _, m := range o.Members {
		s.ofMember(d, m)
	}
	most, least := make([]int64, len(o.Runs)), make([]int64, len(o.Runs))
	for i, r := range o.Runs {
		if r.Tape == nil {
			s.AtLeast = r.Formula
		}
		if most[i], least[i], err = s.ofRun(d, r, o.Limits[i]); err != nil {
			return err
		}
	}
	s.MostScratch, s.LeastScratch = family.AtOnce(o.Runs, most), family.AtOnce(o.Runs, least)
	return nil
}

// ofMember adds what depends on the weights of a component alone.
func (s *StageEstimate) ofMember(d device.Planner, m stageengine.Member) {
	manifest := m.Network.Files().Manifest()
	most := d.WeightBytes(manifest, device.LoadPlan{})
	least := most
	if plan, err := d.Fit(manifest, 1); err == nil && !m.Whole { // else it streams nothing
		least = d.WeightBytes(manifest, plan)
	}
	s.MostWeights += m.Beside + most
	s.LeastWeights += m.Beside + least
	if m.Held.Streamed {
		tape := uses(manifest)
		for _, r := range m.Runs {
			if r.Tape != nil {
				tape = r.Tape
			}
		}
		s.ResidentBytes += m.Held.ResidentBytes
		s.StreamedBytes += d.StreamedBytes(tape, m.Held)
	}
	s.components = append(s.components, m.Component)
	s.Networks = append(s.Networks, newNetworkEstimate(m))
}

func newNetworkEstimate(m stageengine.Member) NetworkEstimate {
	n := NetworkEstimate{Folder: m.Folder, Class: m.Class, Present: m.Network.Files().Complete(), Runs: true, Warnings: m.Told}
	for _, r := range m.Runs {
		n.Runs = n.Runs && r.Tape != nil
	}
	byType := map[string]int64{}
	for _, param := range m.Network.Files().Manifest().Params {
		elems, _ := param.Shape.Elems()
		n.Parameters += int64(elems)
		n.StoredBytes += int64(elems * param.DType.Size())
		name := param.DType.String()
		if byType[name] += int64(elems); byType[name] > byType[n.DType] {
			n.DType = name
		}
	}
	return n
}

// ofRun adds what a run takes under its limits, and gives its scratch without a budget, and in the smallest bands.
func (s *StageEstimate) ofRun(d device.Planner, r family.Run, limits device.RunOptions) (most, least int64, err error) {
	if r.Tape == nil {
		return r.AtLeast, r.AtLeast, nil
	}
	counts, err := d.Convolutions(r.Tape, limits)
	if err != nil && !errors.Is(err, device.ErrUnsupported) {
		return 0, 0, err
	}
	if s.Convolutions == nil && err == nil {
		s.Convolutions = map[string]int{}
	}
	for name, n := range counts {
		s.Convolutions[name] += n
	}
	as := func(limit int64) device.RunOptions {
		o := limits
		o.ScratchLimit = limit
		return o
	}
	all, err := d.ScratchBytes(r.Tape, as(0))
	if err != nil || !r.Image {
		return all, all, err
	}
	if most, err = d.ScratchBytes(r.Tape, as(stageengine.MaxImageScratch)); err != nil {
		return 0, 0, err
	}
	if least, err = d.ScratchBytes(r.Tape, as(1)); err != nil {
		return 0, 0, err
	}
	if s.Footprint.ScratchBytes < all {
		arrays, err := device.PlanScratch(r.Tape)
		if err != nil {
			return 0, 0, err
		}
		s.InBands, s.SpillBytes = true, arrays.Bytes
	}
	return most, least, nil
}

// uses is a tape that multiplies by every matrix once, in the order of the manifest: enough for a device to tell what an
// evaluation reads of them.
func uses(m *device.Manifest) *device.Tape {
	c := &device.Manifest{}
	t := device.NewTape(c)
	for _, p := range m.Params {
		if w := c.Add(p); p.Layout == device.Matrix {
			t.Gemm(device.Gemm{X: t.Input(p.Name, 1, p.Shape[1]), W: w})
		}
	}
	return t
}
