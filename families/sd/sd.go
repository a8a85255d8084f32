// Package sd is the family of Stable Diffusion 1 and 2 (Rombach et al. 2022, arXiv 2112.10752): latent diffusion under the
// states of one CLIP.
//
// The package may import families/family, families/latent, stage and the engine.
package sd

import (
	"slices"

	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/sampler"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/families/latent"
	"github.com/triptych-serving/triptych/stage"
)

// Families are Stable Diffusion 1 and 2, by all names that their pipelines have: what a request sends decides what is done.
func Families() (out []family.Family) {
	for _, class := range modeldir.ClassesStableDiffusion() {
		out = append(out, family.Family{Class: class, Open: open})
	}
	return out
}

// model is an opened model: what its turns know of it.
type model struct {
	latent.Model
	text *latent.Text
}

func open(dir *modeldir.Dir) (*family.Model, error) {
	configs, err := dir.StableDiffusion()
	if err != nil {
		return nil, err
	}
	configs.VAE.Mean, configs.VAE.Std = nil, nil // which the reference does not look at
	m := &model{
		Model: latent.Model{Dir: dir, UNet: configs.UNet, VAE: configs.VAE, Tokens: configs.Tokens, Schedule: latent.ReadSchedule(dir, sampler.ParseConfig, sampler.StepsOfSD())},
		text: latent.NewText(latent.Text{
			Dir: dir, Folder: modeldir.TextEncoderFolder, Class: modeldir.ClassCLIP, Tokenizer: modeldir.TokenizerFolder, Config: configs.Text,
			Tokens: configs.Tokens, Warnings: configs.Warnings, Vectors: 1,
		}),
	}
	return &family.Model{
		Class:      dir.Class(),
		Recipes:    m.Recipes(m.recipe()),
		Turns:      m.Turns(family.Turn{Runs: m.encodeRuns, Work: m.encode}),
		Components: slices.Concat([]family.Component{m.text.Component()}, m.Components()),
		Folders:    []string{modeldir.TextEncoderFolder, modeldir.TokenizerFolder, modeldir.UNetFolder, modeldir.SchedulerFolder, modeldir.VAEFolder},
	}, nil
}

// recipe is how the model draws: from a prompt, and from a picture where one is sent.
func (m *model) recipe() stage.Recipe {
	conditioning := []stage.Port{m.StatesPort(), latent.PeriodsPort()}
	encode := stage.Turn{
		Name: family.Encode, Kind: stage.KindEncoder, Members: append(m.Members(latent.PartTextEncoder), latent.LoRASlots()...), Gives: conditioning,
		Options: latent.Reads(latent.OptionPrompt, latent.OptionNegative),
	}
	return stage.Recipe{
		Family: "sd", Task: "generate", Inputs: m.Inputs(),
		Options: slices.Concat([]stage.OptionSpec{m.Prompt(latent.OptionPrompt), m.Prompt(latent.OptionNegative)}, latent.PromptOptions(), m.Options(), latent.ClipSkips(m.text)),
		Turns:   slices.Concat([]stage.Turn{encode}, m.Following(conditioning)),
	}
}
