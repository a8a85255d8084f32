package modeldir

import (
	"cmp"
	"fmt"

	"github.com/triptych-serving/triptych/engine/model/clip"
	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/model/vae"
	"github.com/triptych-serving/triptych/engine/tokenizer"
)

// The folders of a model.
const (
	TextEncoderFolder  = "text_encoder"
	TextEncoder2Folder = "text_encoder_2"
	UNetFolder         = "unet"
	VAEFolder          = "vae"
	TokenizerFolder    = "tokenizer"
	SchedulerFolder    = "scheduler"
)

// The classes of parts.
const (
	ClassCLIP          = "CLIPTextModel"
	ClassCLIPProjected = "CLIPTextModelWithProjection"
	ClassUNet          = "UNet2DConditionModel"
	ClassVAE           = "AutoencoderKL"
)

// ClassStableDiffusion is that of the pipeline of Stable Diffusion 1 and 2.
const ClassStableDiffusion = "StableDiffusionPipeline"

// ClassesStableDiffusion are the names that it has where it draws from pictures too.
func ClassesStableDiffusion() []string {
	return []string{ClassStableDiffusion, "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"}
}

// InpaintChannels are those of a U-Net that sees a mask and the masked picture beside the latents.
func InpaintChannels(latents int) int { return 2*latents + 1 }

// FitInputs is the number of a U-Net's input channels, which are latents alone or those of inpainting.
func FitInputs(u unet.Config, v vae.Config) Fit {
	fit := Fit{"in_channels", u.InChannels, v.LatentChannels, "the autoencoder's latent_channels"}
	if inpaint := InpaintChannels(v.LatentChannels); u.InChannels == inpaint {
		fit.Want = inpaint
	} else {
		fit.Why += fmt.Sprintf(", or %d for inpainting", inpaint)
	}
	return fit
}

// StableDiffusion is a model of Stable Diffusion 1 or 2: its configs, checked against each other.
type StableDiffusion struct {
	*Dir
	Text clip.Config
	UNet unet.Config
	VAE  vae.Config
	// Tokens is the length of a prompt, start, end and padding among them.
	Tokens   int
	Warnings []string // of model_index.json
	Options           // of the networks that are opened from now on
}

// OpenStableDiffusion opens a directory that is such a model, see StableDiffusion.
func OpenStableDiffusion(path string) (*StableDiffusion, error) {
	d, err := Open(path, ClassesStableDiffusion()...)
	if err != nil {
		return nil, err
	}
	return d.StableDiffusion()
}

// StableDiffusion reads the config of every network. Errors are an Error, one of the tokenizer or wrap config.Errors, and
// name the file.
func (d *Dir) StableDiffusion() (*StableDiffusion, error) {
	m := &StableDiffusion{Dir: d}
	var err error
	if m.Warnings, err = d.Check(map[string][]string{
		TextEncoderFolder: {ClassCLIP, ClassCLIPProjected}, UNetFolder: {ClassUNet}, VAEFolder: {ClassVAE},
		TokenizerFolder: {"CLIPTokenizer", "CLIPTokenizerFast"}, SchedulerFolder: nil,
	}); err != nil {
		return nil, err
	}
	if m.Text, err = Config(d, TextEncoderFolder, clip.ParseConfig); err != nil {
		return nil, err
	}
	if m.UNet, err = Config(d, UNetFolder, unet.ParseConfig); err != nil {
		return nil, err
	}
	if m.VAE, err = Config(d, VAEFolder, vae.ParseConfig); err != nil {
		return nil, err
	}
	if m.Tokens, err = PromptTokens(m.Tokenizer(), m.Text); err != nil {
		return nil, err
	}
	if m.UNet.AdditionDim != 0 {
		return nil, &Error{Path: d.File(UNetFolder, configFile), Expected: "addition_embed_type null, in a " + ClassStableDiffusion, Got: "text_time"}
	}
	return m, d.Fits(
		UNetFolder,
		Fit{"cross_attention_dim", m.UNet.ContextDim, m.Text.HiddenSize, "the text encoder's hidden_size"},
		FitInputs(m.UNet, m.VAE),
		Fit{"out_channels", m.UNet.OutChannels, m.VAE.LatentChannels, "the autoencoder's latent_channels"},
	)
}

// PromptTokens is what a pipeline pads and cuts prompts to: as many tokens as the tokenizer in a folder says the model takes,
// but no more than the text encoder has positions for.
func PromptTokens(tokenizerDir string, text clip.Config) (int, error) {
	most, err := tokenizer.MaxLength(tokenizerDir)
	if err != nil || most == 0 {
		return text.MaxPositions, err
	}
	return min(most, text.MaxPositions), nil
}

// TrainedSize is that of the latents that a U-Net was trained at.
func TrainedSize(c unet.Config) (height, width int) {
	const usual = 64
	return cmp.Or(c.SampleHeight, usual), cmp.Or(c.SampleWidth, usual)
}

// Tokenizer is the folder with the tokenizer's files.
func (m *StableDiffusion) Tokenizer() string { return m.File(TokenizerFolder) }

// Scheduler is the class of the model's scheduler, whatever class its config is of, and that config. Errors name the file.
func (d *Dir) Scheduler() (class string, config []byte, err error) {
	if class = d.Part(SchedulerFolder); class == "" {
		return "", nil, d.Refuse(SchedulerFolder, "a library and the class of a scheduler")
	}
	config, err = d.Read(SchedulerFolder, SchedulerFile)
	return class, config, err
}

// SchedulerFile is the config's name in its folder.
const SchedulerFile = "scheduler_config.json"

// PixelMultiple is what height and width of an image must be multiples of.
func (m *StableDiffusion) PixelMultiple() int { return m.VAE.Factor() * m.UNet.SizeMultiple() }

// TextEncoder opens the text encoder.
func (m *StableDiffusion) TextEncoder() (*TextEncoder, error) {
	return m.Dir.TextEncoder(TextEncoderFolder, m.Text, 0, m.Options)
}

// Denoiser opens the U-Net.
func (m *StableDiffusion) Denoiser() (*Denoiser, error) {
	return m.Dir.Denoiser(UNetFolder, m.UNet, m.Options)
}

// ImageDecoder opens the autoencoder's half from latents to images.
func (m *StableDiffusion) ImageDecoder() (*ImageDecoder, error) {
	return m.Dir.ImageDecoder(VAEFolder, m.VAE, m.Options)
}

// ImageEncoder opens the autoencoder's half from images to latents.
func (m *StableDiffusion) ImageEncoder() (*ImageEncoder, error) {
	return m.Dir.ImageEncoder(VAEFolder, m.VAE, m.Options)
}
