// Package family has the parts that a family of models is made of: components that are loaded and evicted as wholes, and
// turns that work with them. Each family is a folder beside this one.
//
// The package may import stage and the engine.
package family

import (
	"context"
	"slices"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/inversion"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/stage"
)

// Family knows the models of one class of pipeline.
type Family struct {
	Class string // as model_index.json names it
	// Open reads the configs of a model; weights may be absent. The errors are those of modeldir.
	Open func(*modeldir.Dir) (*Model, error)
}

// Model is what the configs of a model tell.
type Model struct {
	Class      string // of the pipeline
	Adapter    string // see stage.Model; an adapter that is never used by itself has no Recipes and no Turns
	Recipes    []stage.Recipe
	Turns      map[string]Turn // of the recipes, by name
	Components []Component     // in the order they are used
	Folders    []string        // whose files the model is made of
	Problem    error           // why it can be planned and not run
}

// Needs reports whether a component works in every job of the model's first recipe. An adapter needs all that it has.
func (m *Model) Needs(component string) bool {
	if len(m.Recipes) == 0 {
		return true
	}
	for _, t := range m.Recipes[0].For(func(string) bool { return false }) {
		if slices.Contains(t.Components(), component) {
			return true
		}
	}
	return false
}

// Component is one set of weights. Opened again, it is of the same configs.
type Component struct {
	Name   string // "starter/unet", see Name
	Kind   stage.Kind
	Folder string
	Class  string // of its network
	// Open declares the network over its weight files and reads no others.
	Open func(modeldir.Options) (Network, error)
	// Settings is all that results depend on beside the weights.
	Settings func() (string, error)
	Beside   Room     // held with the weights
	Whole    bool     // runs have the weights beside those of another one, so that they cannot be streamed
	Warnings []string // beside those of the network
	Problem  error    // why it cannot be loaded, although it can be planned
}

// Name is that of a model's component.
func Name(dir *modeldir.Dir, part string) string { return dir.Name() + "/" + part }

// Network is an opened network, which embeds a modeldir.Network.
type Network interface{ Files() *modeldir.Network }

// Adapter is the network of a model that others name in an option: its numbers there are found by the model's name.
type Adapter interface {
	Network
	Name() string
}

// Turn is what a turn of a recipe does.
type Turn struct {
	// Runs are those of a request, one after another. Networks are in the order of the turn's members that take part, with
	// those of the models that options name in the place of slots; options are all that Recipe.Shape tells. An adapter that
	// does not fit is a *stage.Error.
	Runs func(nets []Network, o stage.Options) ([]Run, error)
	// Work takes the turn; nil while the engine cannot. Options and values have been checked against the recipe. Errors are
	// a *stage.Error, those of a Session or a context's; others are a fault of ours.
	Work func(ctx context.Context, s Session, req stage.WorkRequest, o stage.Observer) (stage.Result, error)
}

// Run is a tape that a turn runs with the weights of a member.
type Run struct {
	Member int
	With   []int // further members, whose manifests the tape has beside that of Member, in order
	Tape   *device.Tape
	// Image runs keep to a limit of scratch, in bands: see stageengine.MaxImageScratch.
	Image bool
	// Held runs are there while those that follow are, which take turns with it: a control beside the network that it leads.
	Held bool
	// AtLeast is a lower bound of the scratch of a network that the engine cannot run, in bytes, and Formula how it is found;
	// there is no Tape then.
	AtLeast int64
	Formula string
}

// AtOnce is what runs take together at most, in bytes, of what each takes.
func AtOnce(runs []Run, bytes []int64) (most int64) {
	held := int64(0)
	for i, r := range runs {
		most = max(most, held+bytes[i])
		if r.Held {
			held += bytes[i]
		}
	}
	return most
}

// Session is a turn's hold on the components it works with, which are resident.
type Session interface {
	// Network is that of a member.
	Network(member int) Network
	// Beside is what is held with its weights.
	Beside(member int) *Store
	// Start allocates a run, which the caller frees. The error is a *stage.Error.
	Start(Run) (device.Run, error)
	// Failed is the error of a run that was started.
	Failed(r Run, run device.Run, err error) error
	// Embeddings are the textual inversions there are, whatever model they are for, and files that would be ones and cannot be used.
	Embeddings() []*inversion.Inversion
	// NotFinite is an error about what a member gave; its weights are not used again.
	NotFinite(member int, what string) error
}

// Evaluate runs a tape with one input and one output once.
func Evaluate(ctx context.Context, s Session, r Run, input string, in []float32, output string, out []float32) error {
	run, err := s.Start(r)
	if err != nil {
		return err
	}
	defer run.Free()
	if err := First(
		func() error { return run.Write(input, in) },
		func() error { return run.Execute(ctx) },
		func() error { return run.Read(output, out) },
	); err != nil {
		return s.Failed(r, run, err)
	}
	return nil
}

// First runs steps until one fails.
func First(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// Open opens a model that is of one of the families; vae is the file of an autoencoder that takes the place of its own, empty without. The
// errors are those of modeldir.
func Open(families []Family, path, vae string) (*Model, error) {
	var classes []string
	for _, f := range families {
		classes = append(classes, f.Class)
	}
	dir, err := modeldir.OpenWith(path, vae, classes...)
	if err != nil {
		return nil, err
	}
	for _, f := range families {
		if f.Class == dir.Class() {
			return f.Open(dir)
		}
	}
	return nil, dir.Refuse("_class_name", "a class that is known")
}

// Floats are the values of a tensor that a request has, in order. The error names it.
func Floats(v stage.Value) ([]float32, error) {
	f, err := v.Tensor.Float32s()
	if err != nil || !Finite(f) {
		return nil, stage.Invalid(stage.TensorInvalid, v.Name, v.Tensor.DType, "finite F32, F16 or BF16 values of the size the shape needs")
	}
	return f, nil
}

// Tensor is a named value of floats.
func Tensor(name string, v []float32, shape ...int) stage.Value {
	return stage.Value{Name: name, Tensor: tensor.FromF32(v, shape...)}
}

// Finite reports whether no value is NaN or infinite.
func Finite(v []float32) bool {
	for _, x := range v {
		if x-x != 0 {
			return false
		}
	}
	return true
}
