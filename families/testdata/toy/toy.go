// Package toy is a whole family in small, to be copied by whoever adds one: two text encoders that work together, a denoiser
// with an optional control beside it, latents in units, each decoded by itself, and an option that no other family has.
//
// A model draws frames of a few places each. Its networks are some linear layers; weights that mean anything do not exist.
//
// The package may import families/family, stage and the engine.
package toy

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/triptych-serving/triptych/engine/config"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/sampler"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// Family is the toy.
func Family() family.Family { return family.Family{Class: "ToyPipeline", Open: open} }

// The parts of a model, which are its folders too.
const (
	textEncoder  = "text_encoder"
	textEncoder2 = "text_encoder_2"
	denoiser     = "denoiser"
	control      = "control"
	decoder      = "decoder"
)

// The classes of networks, as model_index.json has them.
const (
	classText     = "ToyTextEncoder"
	classDenoiser = "ToyDenoiser"
	classControl  = "ToyControl"
	classDecoder  = "ToyDecoder"
)

// The options of requests, beside those that families have in common.
const (
	optionPrompt = "prompt"
	optionSteps  = "steps"
	optionFrames = "frames"
	optionWobble = "wobble"
)

// The values that turns hand on.
const (
	valueControl = "control"
	valueStates  = "states"
	valueLatents = "latents"
	valueImage   = "image"
)

// Config is the config.json of a network: all have the same few numbers.
type Config struct {
	Width  int // of the hidden layer
	Tokens int // of a text encoder: the longest prompt
}

func parseConfig(data []byte) (Config, error) {
	r, err := config.Parse(data)
	if err != nil {
		return Config{}, err
	}
	c := Config{Width: r.Int("hidden_size", 16, 1, 1024), Tokens: r.Int("max_tokens", 8, 1, 64)}
	return c, r.Err()
}

// model is an opened model: what its turns know of it.
type model struct {
	*modeldir.Dir
	text     [2]Config
	denoiser Config
	control  Config
	decoder  Config
	schedule sampler.Config
}

// open reads the configs, of all networks, and no weights.
func open(dir *modeldir.Dir) (*family.Model, error) {
	warnings, err := dir.Check(map[string][]string{
		textEncoder: {classText}, textEncoder2: {classText}, denoiser: {classDenoiser}, control: {classControl}, decoder: {classDecoder},
	})
	if err != nil {
		return nil, err
	}
	m := &model{Dir: dir}
	for folder, c := range map[string]*Config{
		textEncoder: &m.text[0], textEncoder2: &m.text[1], denoiser: &m.denoiser, control: &m.control, decoder: &m.decoder,
	} {
		if *c, err = modeldir.Config(dir, folder, parseConfig); err != nil {
			return nil, err
		}
	}
	if err := dir.Fits(textEncoder2, modeldir.Fit{Key: "max_tokens", Got: m.text[1].Tokens, Want: m.text[0].Tokens, Why: "as that of " + textEncoder}); err != nil {
		return nil, err
	}
	if err := dir.Fits(control, modeldir.Fit{Key: "hidden_size", Got: m.control.Width, Want: m.denoiser.Width, Why: "as that of " + denoiser}); err != nil {
		return nil, err
	}
	if m.schedule, err = sampler.ParseConfig([]byte("{}"), "EulerAncestralDiscreteScheduler"); err != nil {
		return nil, err
	}
	return &family.Model{
		Class:   dir.Class(),
		Recipes: []stage.Recipe{m.recipe()},
		Turns: map[string]family.Turn{
			family.Encode: {Runs: m.encodeRuns, Work: m.encode}, family.Denoise: {Runs: m.denoiseRuns, Work: m.denoise},
			family.Decode: {Runs: m.decodeRuns, Work: m.decode},
		},
		Components: m.components(warnings),
		Folders:    []string{textEncoder, textEncoder2, denoiser, control, decoder},
	}, nil
}

// recipe is how the model draws.
func (m *model) recipe() stage.Recipe {
	member := func(part string) stage.Member { return stage.Member{Component: family.Name(m.Dir, part)} }
	states := stage.Port{Name: valueStates, Shape: []string{"1", strconv.Itoa(m.text[0].Tokens), strconv.Itoa(m.context())}}
	picture := stage.Port{Name: valueControl, Media: "image/*", Optional: true}
	latents := stage.Port{Name: valueLatents, Shape: []string{"1", "latent_height", "latent_width", strconv.Itoa(channels)}}
	units := latents
	units.Units = optionFrames
	controlled := member(control)
	controlled.With = picture.Name
	return stage.Recipe{
		Family: "toy", Task: "generate", Inputs: []stage.Port{picture},
		Options: slices.Concat([]stage.OptionSpec{
			{Name: optionPrompt, Type: stage.Text, Max: 1024, Tokens: m.text[0].Tokens, Default: stage.TextOption("")},
		}, family.Sides(32, 32, patch), []stage.OptionSpec{
			{Name: optionSteps, Type: stage.Int, Min: 1, Max: 100, Default: stage.IntOption(4)},
			{Name: optionFrames, Type: stage.Int, Min: 1, Max: 8, Default: stage.IntOption(2)},
			{Name: optionWobble, Type: stage.Float, Max: 1, Default: stage.FloatOption(0)},
		}, family.FileOptions()),
		Turns: []stage.Turn{
			{
				Name: family.Encode, Kind: stage.KindEncoder, Members: []stage.Member{member(textEncoder), member(textEncoder2)},
				Gives: []stage.Port{states}, Options: []string{optionPrompt},
			},
			{
				Name: family.Denoise, Kind: stage.KindDenoiser, Members: []stage.Member{member(denoiser), controlled}, EachImage: true,
				Takes: []stage.Port{states, picture}, Gives: []stage.Port{units},
				Options: []string{family.Width, family.Height, optionSteps, optionFrames, optionWobble},
			},
			{
				Name: family.Decode, Kind: stage.KindDecoder, Members: []stage.Member{member(decoder)}, EachImage: true,
				Takes: []stage.Port{latents, family.ParametersPort()}, Gives: []stage.Port{{Name: valueImage, Media: "image/*"}},
				Options: []string{family.Width, family.Height, family.Format, family.Quality},
			},
		},
	}
}

// components are those of the recipe's turns.
func (m *model) components(warnings []string) []family.Component {
	component := func(kind stage.Kind, part string, c Config, open func(modeldir.Options) (family.Network, error)) family.Component {
		return family.Component{
			Name: family.Name(m.Dir, part), Kind: kind, Folder: part, Class: m.Part(part), Open: open,
			Settings: func() (string, error) { return fmt.Sprintf("%+v %d\n", c, m.context()), nil },
		}
	}
	all := []family.Component{
		component(stage.KindEncoder, textEncoder, m.text[0], func(o modeldir.Options) (family.Network, error) { return m.openText(textEncoder, m.text[0], o) }),
		component(stage.KindEncoder, textEncoder2, m.text[1], func(o modeldir.Options) (family.Network, error) { return m.openText(textEncoder2, m.text[1], o) }),
		component(stage.KindDenoiser, denoiser, m.denoiser, m.openDenoiser),
		component(stage.KindDenoiser, control, m.control, m.openControl),
		component(stage.KindDecoder, decoder, m.decoder, m.openDecoder),
	}
	all[0].Warnings = warnings
	return all
}

// context is the width of the states of a prompt: both encoders' side by side.
func (m *model) context() int { return m.text[0].Width + m.text[1].Width }
