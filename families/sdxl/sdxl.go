// Package sdxl is the family of Stable Diffusion XL (Podell et al. 2023, arXiv 2307.01952): latent diffusion under the states of
// two text encoders, the pooled state of the second and the sizes that the model was told of pictures in training. Its refiner
// has the second text encoder alone and draws from pictures.
//
// The package may import families/family, families/latent, stage and the engine.
package sdxl

import (
	"fmt"
	"slices"

	"github.com/triptych-serving/triptych/engine/model/clip"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/model/vae"
	"github.com/triptych-serving/triptych/engine/sampler"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/families/latent"
	"github.com/triptych-serving/triptych/stage"
)

// Families are Stable Diffusion XL, by all names that its pipelines have: what a request sends decides what is done.
func Families() (out []family.Family) {
	for _, class := range []string{"StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline"} {
		out = append(out, family.Family{Class: class, Open: open})
	}
	return out
}

const (
	tokenizer2 = "tokenizer_2" // folder
	forceZeros = "force_zeros_for_empty_prompt"
	aesthetics = "requires_aesthetics_score" // a refiner's index has it
)

// model is an opened model: what its turns know of it.
type model struct {
	latent.Model
	texts      []*latent.Text // in the order in which their states are joined
	forceZeros bool           // where a request does not say
}

func open(dir *modeldir.Dir) (*family.Model, error) {
	tokenizers := []string{"CLIPTokenizer", "CLIPTokenizerFast"}
	parts := map[string][]string{
		modeldir.TextEncoderFolder: {modeldir.ClassCLIP, modeldir.ClassCLIPProjected}, modeldir.TextEncoder2Folder: {modeldir.ClassCLIPProjected},
		modeldir.TokenizerFolder: tokenizers, tokenizer2: tokenizers,
		modeldir.UNetFolder: {modeldir.ClassUNet}, modeldir.VAEFolder: {modeldir.ClassVAE}, modeldir.SchedulerFolder: nil,
		forceZeros: nil, aesthetics: nil, "add_watermarker": nil, "feature_extractor": nil, "image_encoder": nil,
	}
	refines, err := dir.Flag(aesthetics, false)
	if err != nil {
		return nil, err
	}
	if refines {
		parts[modeldir.TextEncoderFolder], parts[modeldir.TokenizerFolder] = nil, nil
	}
	warnings, err := dir.Check(parts)
	if err != nil {
		return nil, err
	}
	m := &model{Model: latent.Model{Dir: dir, Refines: refines}}
	if m.UNet, err = modeldir.Config(dir, modeldir.UNetFolder, unet.ParseConfig); err != nil {
		return nil, err
	}
	if m.VAE, err = modeldir.Config(dir, modeldir.VAEFolder, vae.ParseConfig); err != nil {
		return nil, err
	}
	if m.forceZeros, err = dir.Flag(forceZeros, true); err != nil {
		return nil, err
	}
	if err := m.openTexts(warnings); err != nil {
		return nil, err
	}
	m.Schedule, m.Fixed = latent.ReadSchedule(dir, sampler.ParseWritten, sampler.StepsOfXL()), m.fixed
	var texts []family.Component
	folders := []string{modeldir.UNetFolder, modeldir.SchedulerFolder, modeldir.VAEFolder}
	for _, t := range m.texts {
		texts, folders = append(texts, t.Component()), append(folders, t.Folder, t.Tokenizer)
	}
	turns := m.Turns(family.Turn{Runs: m.encodeRuns, Work: m.encode})
	turns[latent.RefineEncode] = family.Turn{Runs: m.refineEncodeRuns, Work: m.refineEncode}
	adapter := ""
	if refines {
		adapter = latent.Refiner
	}
	return &family.Model{
		Class:      dir.Class(),
		Adapter:    adapter,
		Recipes:    m.Recipes(refined(m.recipe())),
		Turns:      turns,
		Components: slices.Concat(texts, m.Components()),
		Folders:    folders,
	}, m.fits()
}

// openTexts reads the configs of the text encoders.
func (m *model) openTexts(warnings []string) error {
	texts := []latent.Text{
		{Folder: modeldir.TextEncoderFolder, Class: modeldir.ClassCLIP, Tokenizer: modeldir.TokenizerFolder, Vectors: 2},
		{Folder: modeldir.TextEncoder2Folder, Class: modeldir.ClassCLIPProjected, Tokenizer: tokenizer2, Vectors: 2, Place: 1},
	}
	if m.Refines {
		texts = texts[1:]
	}
	for i := range texts {
		t := &texts[i]
		var err error
		if t.Config, err = modeldir.Config(m.Dir, t.Folder, clip.ParseConfig); err != nil {
			return err
		}
		if t.Tokens, err = modeldir.PromptTokens(m.Dir.File(t.Tokenizer), t.Config); err != nil {
			return err
		}
		if m.Tokens == 0 || t.Tokens < m.Tokens { // states are joined token by token
			m.Tokens = t.Tokens
		}
	}
	last := &texts[len(texts)-1]
	last.Projection = last.Config.Projection
	texts[0].Warnings = warnings
	for _, t := range texts {
		t.Dir, t.Tokens, t.Penultimate = m.Dir, m.Tokens, true
		m.texts = append(m.texts, latent.NewText(t))
	}
	return nil
}

// fits checks the configs against each other.
func (m *model) fits() error {
	width, of := 0, "both text encoders"
	if m.Refines {
		of = "the text encoder"
	}
	for _, t := range m.texts {
		width += t.Config.HiddenSize
		if t.Config.Layers < 2 {
			return &modeldir.Error{Path: m.Dir.File(t.Folder, "config.json"), Expected: "num_hidden_layers of 2 or more, the last but one of which is used", Got: fmt.Sprint(t.Config.Layers)}
		}
	}
	told := len(numbers(m.Refines))
	vector := m.pooled() + told*m.UNet.AdditionTimeDim
	return m.Dir.Fits(
		modeldir.UNetFolder,
		modeldir.Fit{Key: "cross_attention_dim", Got: m.UNet.ContextDim, Want: width, Why: "the hidden_size of " + of},
		modeldir.FitInputs(m.UNet, m.VAE),
		modeldir.Fit{Key: "out_channels", Got: m.UNet.OutChannels, Want: m.VAE.LatentChannels, Why: "the autoencoder's latent_channels"},
		modeldir.Fit{Key: "projection_class_embeddings_input_dim", Got: m.UNet.AdditionDim, Want: vector, Why: fmt.Sprintf("the pooled state and %d numbers of addition_time_embed_dim values, since %s is %v", told, aesthetics, m.Refines)},
	)
}

// pooled is the width of the pooled state.
func (m *model) pooled() int { return m.texts[len(m.texts)-1].Projection }

// recipe is how the model draws: from a prompt, and from a picture where one is sent.
func (m *model) recipe() stage.Recipe {
	conditioning := []stage.Port{m.StatesPort(), latent.Port(latent.ValuePooled, "batch", fmt.Sprint(m.pooled())), latent.PeriodsPort()}
	var parts, names []string
	for _, t := range m.texts {
		parts = append(parts, t.Folder)
	}
	told := numberOptions(m.Refines)
	for _, n := range told {
		names = append(names, n.Name)
	}
	prompts := []string{latent.OptionPrompt, latent.OptionNegative}
	if len(m.texts) == 2 {
		prompts = append(prompts, optionPrompt2, optionNegative2)
	}
	encode := stage.Turn{
		Name: family.Encode, Kind: stage.KindEncoder, Members: append(m.Members(parts...), latent.LoRASlots()...), Gives: conditioning,
		Options: append(latent.Reads(prompts...), forceZeros),
	}
	options := []stage.OptionSpec{m.Prompt(latent.OptionPrompt)}
	for _, name := range prompts[1:] { // one that nobody says is not an empty one
		spec := m.Prompt(name)
		spec.Default = stage.Option{}
		options = append(options, spec)
	}
	return stage.Recipe{
		Family: "sdxl", Task: "generate", Inputs: m.Inputs(),
		Options: slices.Concat(options, latent.PromptOptions(), m.Options(), latent.ClipSkips(m.texts...), told, []stage.OptionSpec{
			{Name: forceZeros, Type: stage.Bool, Default: stage.BoolOption(m.forceZeros)},
		}),
		Turns: slices.Concat([]stage.Turn{encode}, m.Following(conditioning, names...)),
	}
}
