// Package sd is the family of Stable Diffusion 1 and 2 (Rombach et al. 2022, arXiv 2112.10752): CLIP's states of a prompt
// guide a U-Net through the latents of an autoencoder, from noise or from a picture.
//
// The package may import families/family, stage and the engine.
package sd

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/triptych-serving/triptych/engine/config"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/sampler"
	"github.com/triptych-serving/triptych/engine/tokenizer"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// Family is Stable Diffusion 1 and 2.
func Family() family.Family { return family.Family{Class: modeldir.ClassStableDiffusion, Open: open} }

// encodeImage is the turn that a picture to draw from takes.
const encodeImage = "encode_image"

// The parts of a model.
const (
	textEncoder = "text_encoder"
	unetPart    = "unet"
	vaeDecoder  = "vae.decoder"
	vaeEncoder  = "vae.encoder"
)

// model is an opened model: what its turns know of it.
type model struct {
	*modeldir.StableDiffusion
	schedule  sampler.Config
	tokenizer func() (*tokenizer.CLIP, error)
}

func open(dir *modeldir.Dir) (*family.Model, error) {
	configs, err := dir.StableDiffusion()
	if err != nil {
		return nil, err
	}
	m := &model{StableDiffusion: configs}
	m.tokenizer = sync.OnceValues(m.openTokenizer)
	unscheduled := m.readSchedule()
	return &family.Model{
		Class:   dir.Class(),
		Recipes: []stage.Recipe{m.recipe(unscheduled)},
		Turns: map[string]family.Turn{
			family.Encode: {Runs: m.encodeRuns, Work: m.encode}, encodeImage: {Runs: m.encodeImageRuns, Work: m.encodeImage},
			family.Denoise: {Runs: m.denoiseRuns, Work: m.denoise}, family.Decode: {Runs: family.DecodeRuns(m.VAE), Work: m.decode},
		},
		Components: m.components(unscheduled),
		Folders:    []string{modeldir.TextEncoderFolder, modeldir.TokenizerFolder, modeldir.UNetFolder, modeldir.SchedulerFolder, modeldir.VAEFolder},
	}, nil
}

// with is the model whose networks are opened in a way.
func (m *model) with(o modeldir.Options) *modeldir.StableDiffusion {
	configs := *m.StableDiffusion
	configs.Options = o
	return &configs
}

func (m *model) components(unscheduled error) []family.Component {
	decoder := family.VAEDecoder(m.Dir, m.VAE)
	schedulerWarnings := modeldir.IgnoredKeys(modeldir.SchedulerFolder+"/"+modeldir.SchedulerFile, m.schedule.Unknown())
	if problem := m.schedule.Problem(); problem != nil {
		schedulerWarnings = append(schedulerWarnings, "scheduler: "+problem.Problem()+", requests have to name another sampler")
	}
	return []family.Component{
		{
			Name: family.Name(m.Dir, textEncoder), Kind: stage.KindEncoder, Folder: modeldir.TextEncoderFolder, Class: modeldir.ClassCLIP,
			Open: func(o modeldir.Options) (family.Network, error) {
				if !o.Outline {
					if _, err := m.tokenizer(); err != nil {
						return nil, err
					}
				}
				return m.with(o).TextEncoder()
			},
			Settings: m.textSettings, Beside: family.Prompts(m.Tokens, m.Text.HiddenSize), Warnings: m.Warnings,
		},
		{
			Name: family.Name(m.Dir, unetPart), Kind: stage.KindDenoiser, Folder: modeldir.UNetFolder, Class: modeldir.ClassUNet,
			Open:     func(o modeldir.Options) (family.Network, error) { return m.with(o).Denoiser() },
			Settings: m.unetSettings, Warnings: schedulerWarnings, Problem: unscheduled,
		},
		decoder,
		{
			Name: family.Name(m.Dir, vaeEncoder), Kind: stage.KindDecoder, Folder: modeldir.VAEFolder, Class: modeldir.ClassVAE,
			Open:     func(o modeldir.Options) (family.Network, error) { return m.with(o).ImageEncoder() },
			Settings: decoder.Settings,
		},
	}
}

// readSchedule reads the scheduler's config; the error is why no sampler can be used.
func (m *model) readSchedule() error {
	class, data, err := m.Scheduler()
	if err != nil {
		return err
	}
	m.schedule, err = sampler.ParseConfig(data, class)
	return config.InFile(err, m.File(modeldir.SchedulerFolder, modeldir.SchedulerFile))
}

func (m *model) openTokenizer() (*tokenizer.CLIP, error) {
	t, err := tokenizer.Open(m.Tokenizer())
	if err == nil && t.VocabSize() > m.Text.VocabSize {
		err = &modeldir.Error{
			Path: m.Tokenizer(), Expected: fmt.Sprintf("ids below vocab_size %d of the text encoder", m.Text.VocabSize),
			Got: fmt.Sprintf("ids up to %d", t.VocabSize()-1),
		}
	}
	return t, err
}

// textSettings are those of the text encoder: whatever its tokenizer may read is part of them.
func (m *model) textSettings() (string, error) {
	out := fmt.Sprintf("%+v\n", m.Text)
	files, err := os.ReadDir(m.Tokenizer())
	if err != nil {
		return "", err
	}
	for _, f := range files {
		path := filepath.Join(m.Tokenizer(), f.Name())
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() { // a link's file
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		out += fmt.Sprintf("%q %x\n", f.Name(), sha256.Sum256(data))
	}
	return out, nil
}

func (m *model) unetSettings() (string, error) {
	class, schedule, err := m.Scheduler()
	return fmt.Sprintf("%+v %d %s\n%s\n", m.UNet, m.Tokens, class, schedule), err
}

// recipe is how the model draws: from a prompt, and from a picture where one is sent.
func (m *model) recipe(unscheduled error) stage.Recipe {
	member := func(part string) []stage.Member { return []stage.Member{{Component: family.Name(m.Dir, part)}} }
	values := func(n int) string { return strconv.Itoa(n) }
	size := func(channels int) []string { return []string{"1", values(channels), "latent_height", "latent_width"} }
	states := stage.Port{Name: valueStates, Shape: []string{"batch", "tokens", values(m.Text.HiddenSize)}}
	picture := stage.Port{Name: valueInitImage, Media: "image/*"}
	mask := stage.Port{Name: valueMask, Media: "image/*", Optional: true}
	moments := stage.Port{Name: valueMoments, Shape: size(2 * m.VAE.LatentChannels)}
	maskLatents := stage.Port{Name: valueMaskLatents, Shape: size(1), Optional: true}
	latents := stage.Port{Name: valueLatents, Shape: size(m.VAE.LatentChannels)}
	optional := func(p stage.Port) stage.Port {
		p.Optional = true
		return p
	}
	return stage.Recipe{
		Family: "sd", Task: "generate", Options: m.options(unscheduled),
		Inputs: []stage.Port{optional(picture), mask},
		Turns: []stage.Turn{
			{
				Name: family.Encode, Kind: stage.KindEncoder, Members: member(textEncoder), Gives: []stage.Port{states},
				Options: []string{optionPrompt, optionNegative, family.Guidance},
			},
			{
				Name: encodeImage, Kind: stage.KindDecoder, Members: member(vaeEncoder), Optional: true,
				Takes: []stage.Port{picture, mask}, Gives: []stage.Port{moments, maskLatents}, Options: []string{family.Width, family.Height},
			},
			{
				Name: family.Denoise, Kind: stage.KindDenoiser, Members: member(unetPart), EachImage: true,
				Takes: []stage.Port{states, optional(moments), maskLatents}, Gives: []stage.Port{latents},
				Options: []string{family.Width, family.Height, optionSteps, family.Guidance, optionSampler, optionStrength},
			},
			{
				Name: family.Decode, Kind: stage.KindDecoder, Members: member(vaeDecoder), EachImage: true,
				Takes: []stage.Port{latents, family.ParametersPort()},
				Gives: []stage.Port{{Name: valueImage, Media: "image/*"}}, Options: []string{family.Width, family.Height, family.Format, family.Quality},
			},
		},
	}
}

// The values that turns hand on.
const (
	valueInitImage   = "init_image"
	valueMask        = "mask"
	valueStates      = "hidden_states"
	valueMoments     = "moments"
	valueMaskLatents = "mask_latents"
	valueLatents     = "latents"
	valueImage       = "image"
)

// The options of requests.
const (
	optionPrompt   = "prompt"
	optionNegative = "negative_prompt"
	optionSteps    = "steps"
	optionSampler  = "sampler"
	optionStrength = "strength"
)

func (m *model) options(unscheduled error) []stage.OptionSpec {
	const promptBytes = 8192
	height, width := modeldir.TrainedSize(m.UNet)
	prompt := func(name string) stage.OptionSpec {
		return stage.OptionSpec{Name: name, Type: stage.Text, Max: promptBytes, Tokens: m.Tokens, Default: stage.TextOption("")}
	}
	samplers := stage.OptionSpec{Name: optionSampler, Type: stage.Text, Refused: stage.SamplerUnsupported}
	if problem := m.schedule.Problem(); unscheduled != nil {
		samplers.Choices, samplers.Problem = sampler.Names(), "the model has no scheduler that can be read"
	} else if samplers.Choices = m.schedule.Samplers(); problem != nil {
		samplers.Problem = problem.Problem()
	} else {
		samplers.Default = stage.TextOption(m.schedule.Sampler())
	}
	return slices.Concat([]stage.OptionSpec{prompt(optionPrompt), prompt(optionNegative)}, family.Sides(width*m.VAE.Factor(), height*m.VAE.Factor(), m.PixelMultiple()), []stage.OptionSpec{
		{Name: optionSteps, Type: stage.Int, Min: 1, Max: sampler.MaxSteps, Default: stage.IntOption(20)},
		family.GuidanceOption(),
		samplers,
		{Name: optionStrength, Type: stage.Float, Min: 1.0 / sampler.MaxSteps, Max: 1, Default: stage.FloatOption(0.8)},
	}, family.FileOptions())
}

// latentSize is that of the options' width and height.
func (m *model) latentSize(o stage.Options) (height, width int) {
	return family.Latents(o, m.VAE.Factor())
}

// sized are the floats of a value by place, which has the size that options tell.
func (m *model) sized(v stage.Value, o stage.Options) ([]float32, error) {
	h, w := m.latentSize(o)
	if s := v.Tensor.Shape; s[2] != h || s[3] != w {
		return nil, stage.Invalid(stage.TensorInvalid, v.Name, s, fmt.Sprintf("[1, %d, %d, %d], as %s and %s are", s[1], h, w, family.Height, family.Width))
	}
	return family.Floats(v)
}

// one is the only run of a turn.
func one(r family.Run, err error) ([]family.Run, error) { return []family.Run{r}, err }
