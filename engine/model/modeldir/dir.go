// Package modeldir opens a model in the layout of diffusers: a directory with model_index.json and
// a folder for each network. It says what a model is and what it takes, from the configs and the
// headers of the weight files, before anything is loaded, and records the tapes that run it.
//
// The package may import the engine's device, nn, weights, tokenizer and model packages.
package modeldir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/triptych-serving/triptych/engine/config"
	"github.com/triptych-serving/triptych/engine/model/clip"
	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/model/vae"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/engine/tokenizer"
)

// The folders of a model.
const (
	textEncoderFolder  = "text_encoder"
	textEncoder2Folder = "text_encoder_2"
	unetFolder         = "unet"
	transformerFolder  = "transformer"
	vaeFolder          = "vae"
	tokenizerFolder    = "tokenizer"
	schedulerFolder    = "scheduler"
)

// Error is a directory that is not a model this engine can run.
type Error struct {
	Path     string // the file or folder at fault
	Expected string
	Got      string
	Err      error // the cause, if it has one
}

// Error reads "PATH: expected a folder, got nothing".
func (e *Error) Error() string {
	return fmt.Sprintf("%s: expected %s, got %s", e.Path, e.Expected, e.Got)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Dir is an opened model: its configs, checked against each other. It holds no file open.
type Dir struct {
	path  string
	index modelIndex
	Text  clip.Config
	UNet  unet.Config
	VAE   vae.Config
	// Tokens is the length of a prompt, start, end and padding among them.
	Tokens int

	// Resident is the type in which the networks opened from now on keep the weights of their linear layers and
	// convolutions on a device, see device.Param; the zero tensor.Invalid is as stored.
	Resident tensor.DType
}

// Open reads model_index.json and the config of every network. Errors are an Error or wrap
// config.Errors, and name the file.
func Open(path string) (*Dir, error) {
	d := &Dir{path: path}
	var err error
	if d.index, err = readIndex(path, pipelines()[:1]); err != nil {
		return nil, err
	}
	for _, folder := range []string{textEncoderFolder, unetFolder, vaeFolder, tokenizerFolder, schedulerFolder} {
		p := filepath.Join(path, folder)
		if info, err := os.Stat(p); err != nil {
			return nil, &Error{Path: p, Expected: "a folder", Got: reason(err), Err: err}
		} else if !info.IsDir() {
			return nil, &Error{Path: p, Expected: "a folder", Got: "a file"}
		}
	}
	if d.Text, err = parse(path, textEncoderFolder, clip.ParseConfig); err != nil {
		return nil, err
	}
	if d.UNet, err = parse(path, unetFolder, unet.ParseConfig); err != nil {
		return nil, err
	}
	if d.VAE, err = parse(path, vaeFolder, vae.ParseConfig); err != nil {
		return nil, err
	}
	if d.Tokens, err = promptTokens(d.Tokenizer(), d.Text); err != nil {
		return nil, err
	}
	return d, d.checkFit()
}

// promptTokens is what the pipeline pads and cuts prompts to: as many tokens as the tokenizer says the model takes, but
// no more than the text encoder has positions for.
func promptTokens(tokenizerDir string, text clip.Config) (int, error) {
	most, err := tokenizer.MaxLength(tokenizerDir)
	if err != nil || most == 0 {
		return text.MaxPositions, err
	}
	return min(most, text.MaxPositions), nil
}

// TrainedSize is that of the latents the model was trained at.
func (d *Dir) TrainedSize() (height, width int) { return trainedSize(d.UNet) }

// Path is where the model is.
func (d *Dir) Path() string { return d.path }

// Tokenizer is the folder with the tokenizer's files.
func (d *Dir) Tokenizer() string { return filepath.Join(d.path, tokenizerFolder) }

// Scheduler is the class of the model's scheduler, whatever class its config is of.
func (d *Dir) Scheduler() string { return d.index.scheduler }

// SchedulerConfig reads scheduler_config.json, which a sampler takes its settings from.
func (d *Dir) SchedulerConfig() ([]byte, error) {
	return readConfig(filepath.Join(d.path, schedulerFolder, "scheduler_config.json"))
}

// PixelMultiple is what height and width of an image must be multiples of.
func (d *Dir) PixelMultiple() int { return d.VAE.Factor() * d.UNet.SizeMultiple() }

// checkFit refuses networks that do not speak to each other.
func (d *Dir) checkFit() error {
	path := filepath.Join(d.path, unetFolder, "config.json")
	switch {
	case d.UNet.ContextDim != d.Text.HiddenSize:
		return &Error{Path: path, Expected: fmt.Sprintf("cross_attention_dim %d, the text encoder's hidden_size", d.Text.HiddenSize), Got: fmt.Sprint(d.UNet.ContextDim)}
	case d.UNet.InChannels != d.VAE.LatentChannels:
		return &Error{Path: path, Expected: fmt.Sprintf("in_channels %d, the autoencoder's latent_channels", d.VAE.LatentChannels), Got: fmt.Sprint(d.UNet.InChannels)}
	case d.UNet.OutChannels != d.UNet.InChannels:
		return &Error{Path: path, Expected: fmt.Sprintf("out_channels %d, as many as in_channels", d.UNet.InChannels), Got: fmt.Sprint(d.UNet.OutChannels)}
	case d.UNet.AdditionDim != 0:
		return &Error{Path: path, Expected: "addition_embed_type null, in a " + pipelines()[0].class, Got: "text_time"}
	}
	return nil
}

func parse[C any](dir, folder string, parse func([]byte) (C, error)) (C, error) {
	var none C
	path := filepath.Join(dir, folder, "config.json")
	data, err := readConfig(path)
	if err != nil {
		return none, err
	}
	c, err := parse(data)
	if err != nil {
		return none, config.InFile(err, path)
	}
	return c, nil
}

// readConfig reads a regular file of at most config.MaxBytes.
func readConfig(path string) ([]byte, error) {
	fail := func(err error, got string) ([]byte, error) {
		return nil, &Error{Path: path, Expected: fmt.Sprintf("a JSON file of at most %d bytes", config.MaxBytes), Got: got, Err: err}
	}
	info, err := os.Stat(path)
	if err != nil {
		return fail(err, reason(err))
	}
	if !info.Mode().IsRegular() {
		return fail(nil, info.Mode().Type().String())
	}
	f, err := os.Open(path)
	if err != nil {
		return fail(err, reason(err))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, config.MaxBytes+1))
	if err != nil {
		return fail(err, reason(err))
	}
	if len(data) > config.MaxBytes {
		return fail(nil, fmt.Sprintf("%d bytes", info.Size()))
	}
	return data, nil
}

// reason is the cause without the path, which the Error already has.
func reason(err error) string {
	if errors.Is(err, fs.ErrNotExist) {
		return "nothing"
	}
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}
