package modeldir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/triptych-serving/triptych/engine/config"
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/clip"
	"github.com/triptych-serving/triptych/engine/model/kind"
	"github.com/triptych-serving/triptych/engine/model/original"
	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/engine/weights"
)

// A checkpoint is one file with the networks of a model. What a file does not tell is looked for in a folder beside it that has its name
// without the extension, in diffusers' layout; for the widths that were published it is known (facts.go). A tokenizer may also
// be that of another model in the same folder, and the autoencoder a file NAME.vae.safetensors.

// part is what a checkpoint has in the place of a folder: tensors of a file, or a folder elsewhere.
type part struct {
	config []byte            // of the network; nil if its folder has it
	file   string            // with the tensors
	params []original.Param  // which these are, by the names of the file
	stored map[string]string // instead of params, of tensors that are as the network has them: the names in the file by its own
	folder string            // instead of a file; a tokenizer's has no tensors
}

// checkpoint is a file that is being opened.
type checkpoint struct {
	kind.Checkpoint
	path, beside string // the file, and the folder of its name
	replacement  string // the file of another autoencoder; empty without
	set          *weights.Set
	dir          *Dir
}

// openCheckpoint opens a file with a U-Net. ok is false of a file without one. Errors are an Error, wrap config.Errors or are those of the weights.
func openCheckpoint(path, replacement string, set *weights.Set) (d *Dir, ok bool, err error) {
	found, ok, err := kind.Identify(set)
	if of := (*kind.Error)(nil); errors.As(err, &of) {
		return nil, ok, &Error{Path: path, Expected: kind.Expected, Got: of.Got, Err: err}
	}
	if !ok {
		return nil, false, nil
	}
	if scaled := set.Scaled(); scaled != "" {
		return nil, true, &Error{Path: path, Expected: "weights as they are", Got: "scaled fp8 (" + scaled + ")"}
	}
	c := &checkpoint{Checkpoint: found, path: path, beside: strings.TrimSuffix(path, filepath.Ext(path)), replacement: replacement, set: set}
	c.dir = &Dir{path: path, file: true, parts: map[string]part{}}
	for _, step := range []func() error{c.unet, c.vae, c.texts, c.scheduler, c.index} {
		if err := step(); err != nil {
			return nil, true, err
		}
	}
	c.leftovers()
	return c.dir, true, nil
}

// xl reports whether the model has two text encoders.
func (c *checkpoint) xl() bool { return c.Base == kind.SDXL }

func (c *checkpoint) fail(expected, got string) error {
	return &Error{Path: c.path, Expected: expected, Got: got}
}

// shapesOf are those of tensors below a prefix.
func shapesOf(set *weights.Set, prefix string) original.Shapes {
	return func(name string) tensor.Shape {
		_, s, _ := set.Info(prefix + name)
		return s
	}
}

// config joins what is known of a network: facts, the config of the folder beside the file, and what shapes tell, which counts most. keep
// are keys of the folder's config that count more than shapes.
func (c *checkpoint) config(folder string, facts, told map[string]any, keep ...string) ([]byte, error) {
	file := filepath.Join(c.beside, folder, configFile)
	all, data := maps.Clone(facts), []byte(nil)
	if _, err := os.Stat(file); err == nil {
		if data, err = readConfig(file); err != nil {
			return nil, err
		}
		all = map[string]any{}
		if err := json.Unmarshal(data, &all); err != nil {
			return nil, &Error{Path: file, Expected: "a JSON object", Got: err.Error(), Err: err}
		}
	} else if facts == nil {
		return nil, c.fail(fmt.Sprintf("%s, since widths are those of no published model and the file does not tell heads and groups", file), "nothing")
	}
	for key, value := range told {
		if _, there := all[key]; !there || !slices.Contains(keep, key) {
			all[key] = value
		}
	}
	return json.Marshal(all)
}

// take has the parameters of a network be those of the file; each has to be there.
func (c *checkpoint) take(folder, prefix string, config []byte, params []original.Param) error {
	c.dir.parts[folder] = part{config: config, file: c.path, params: params}
	return locate(c.path, prefix, c.set, params)
}

// locate puts a prefix before the original names of parameters, each of which has to be in a file.
func locate(file, prefix string, set *weights.Set, params []original.Param) error {
	for i := range params {
		p := &params[i]
		p.Original = prefix + p.Original
		if _, _, there := set.Info(p.Original); !there {
			return &nn.TensorError{File: file, Tensor: p.Original, Fault: nn.Missing, Expected: p.Shape.String(), Got: "no such tensor"}
		}
	}
	return nil
}

func (c *checkpoint) unet() error {
	if c.Diffusers {
		data, err := readConfig(filepath.Join(c.beside, UNetFolder, configFile)) // of which shapes tell too little
		c.dir.parts[UNetFolder] = part{config: data, file: c.path, stored: behind(c.set, c.Root)}
		return err
	}
	told := original.UNetConfig(shapesOf(c.set, c.Root+c.UNet))
	data, err := c.config(UNetFolder, unetFacts(c.Base, told), told)
	if err != nil {
		return err
	}
	parsed, err := unet.ParseConfig(data)
	if err != nil {
		return config.InFile(err, c.path)
	}
	return c.take(UNetFolder, c.Root+c.UNet, data, original.UNet(parsed))
}

// vaeExtensions are what the file of an autoencoder has in the place of its checkpoint's extension.
func vaeExtensions() []string { return []string{".vae.safetensors", ".vae.pt", ".vae.ckpt"} }

// IsWeights reports whether a file of a folder of models may be one: by its extension, and not as the autoencoder of another one.
func IsWeights(path string) bool {
	for _, ext := range vaeExtensions() {
		if strings.HasSuffix(path, ext) {
			return false
		}
	}
	return slices.Contains([]string{".safetensors", ".ckpt", ".pt", ".pth", ".bin"}, filepath.Ext(path))
}

// vae takes the autoencoder of the file that replaces it, else of one beside the checkpoint, else the checkpoint's, else that of the folder.
func (c *checkpoint) vae() error {
	files := []string{c.replacement}
	for _, ext := range vaeExtensions() {
		files = append(files, c.beside+ext)
	}
	for _, file := range files {
		if file != "" && (file == c.replacement || IsFile(file)) {
			set, err := weights.OpenFile(file)
			if err != nil {
				return err
			}
			defer func() { _ = set.Close() }() // read-only
			return c.vaeOf(file, set)
		}
	}
	if c.HasVAE {
		return c.vaeOf(c.path, c.set)
	}
	return c.elsewhere(VAEFolder, "an autoencoder: "+original.VAEPrefix+"* in the file, "+c.beside+".vae.safetensors or a folder "+filepath.Join(c.beside, VAEFolder))
}

// vaeOf takes the autoencoder of a file.
func (c *checkpoint) vaeOf(file string, set *weights.Set) (err error) {
	c.dir.parts[VAEFolder], err = vaePart(file, set, func(told map[string]any) ([]byte, error) {
		return c.config(VAEFolder, vaeFacts(c.Base, told), told)
	})
	return err
}

func (c *checkpoint) texts() error {
	if err := c.text(TextEncoderFolder, c.Text, c.HasText, c.OpenText); err != nil || !c.xl() {
		return err
	}
	return c.text(TextEncoder2Folder, c.Text2, c.HasText2, c.OpenText2)
}

// text takes a text encoder and finds its tokenizer.
func (c *checkpoint) text(folder, prefix string, there, open bool) error {
	if err := c.tokenizer(folder); err != nil {
		return err
	}
	if !there {
		return c.elsewhere(folder, "a text encoder: "+prefix+"* in the file or a folder "+filepath.Join(c.beside, folder))
	}
	of := shapesOf(c.set, c.Root+prefix)
	bare := !open && of("embeddings.token_embedding.weight") != nil
	told := original.TextConfig(of, open, bare)
	if folder == TextEncoderFolder {
		delete(told, "projection_dim") // which nobody reads
	}
	data, err := c.config(folder, textFacts(c.Base, folder, told), told, "num_hidden_layers") // files have layers that are not used
	if err != nil {
		return err
	}
	parsed, err := clip.ParseConfig(data)
	if err != nil {
		return config.InFile(err, c.path)
	}
	projection, _ := told["projection_dim"].(int)
	params := original.CLIP(parsed, projection, bare)
	if open {
		params = original.OpenCLIP(parsed, projection)
	}
	return c.take(folder, c.Root+prefix, data, params)
}

// tokenizer finds that of a text encoder: beside the file, or of a model in the same folder.
func (c *checkpoint) tokenizer(of string) error {
	folder := TokenizerFolder + strings.TrimPrefix(of, TextEncoderFolder)
	has := func(model string) bool {
		for _, file := range []string{"vocab.json", "tokenizer.json"} {
			if IsFile(filepath.Join(model, folder, file)) {
				c.dir.parts[folder] = part{folder: filepath.Join(model, folder)}
				return true
			}
		}
		return false
	}
	if has(c.beside) {
		return nil
	}
	parent := filepath.Dir(c.path)
	entries, _ := os.ReadDir(parent) // what cannot be listed has none
	for _, e := range entries {
		if model := filepath.Join(parent, e.Name()); IsModel(model) {
			if model, err := Snapshot(model); err == nil && has(model) {
				return nil
			}
		}
	}
	return c.fail(fmt.Sprintf("CLIP's tokenizer, vocab.json and merges.txt, in %s or in %s of a model in the same folder", filepath.Join(c.beside, folder), folder), "nothing")
}

// elsewhere takes a network that the file lacks from the folder beside it.
func (c *checkpoint) elsewhere(folder, expected string) error {
	dir := filepath.Join(c.beside, folder)
	h, err := weights.OpenHeaders(dir, namingOf(folder))
	if err != nil || h.Set == nil {
		return &Error{Path: c.path, Expected: expected, Got: "none of them", Err: err}
	}
	c.dir.parts[folder] = part{folder: dir}
	return nil
}

// scheduler is the folder's or that of the published model, with what the file says of its prediction.
func (c *checkpoint) scheduler() error {
	told := map[string]any{}
	switch of := c.set.Metadata()["modelspec.prediction_type"]; of {
	case "v", "v_prediction":
		told["prediction_type"] = "v_prediction"
	case "epsilon", "sample":
		told["prediction_type"] = of
	}
	if _, _, v := c.set.Info(c.Root + "v_pred"); v {
		told["prediction_type"] = "v_prediction"
	}
	if _, _, zero := c.set.Info(c.Root + "ztsnr"); zero {
		told["rescale_betas_zero_snr"] = true
	}
	file := filepath.Join(c.beside, SchedulerFolder, SchedulerFile)
	all := schedulerFacts(c.Base)
	if data, err := readConfig(file); err == nil {
		all = map[string]any{}
		if err := json.Unmarshal(data, &all); err != nil {
			return &Error{Path: file, Expected: "a JSON object", Got: err.Error(), Err: err}
		}
	} else if c.Base == kind.SD2 && told["prediction_type"] == nil {
		return c.fail(file+", since nothing in the file tells whether the model predicts noise or velocity (prediction_type epsilon or v_prediction)", "nothing")
	}
	maps.Copy(all, told)
	data, err := json.Marshal(all)
	c.dir.parts[SchedulerFolder] = part{config: data}
	return err
}

// index makes model_index.json.
func (c *checkpoint) index() error {
	class := ClassStableDiffusion
	if c.xl() {
		class = "StableDiffusionXLPipeline"
	}
	if c.InChannels == 9 {
		class = strings.Replace(class, "Pipeline", "InpaintPipeline", 1)
	}
	var scheduler struct {
		Class string `json:"_class_name"`
	}
	if err := json.Unmarshal(c.dir.parts[SchedulerFolder].config, &scheduler); err != nil {
		return err
	}
	all := map[string]any{
		"_class_name": class, UNetFolder: []string{"diffusers", ClassUNet}, VAEFolder: []string{"diffusers", ClassVAE},
		TextEncoderFolder: []string{"transformers", ClassCLIP}, TokenizerFolder: []string{"transformers", "CLIPTokenizer"},
		SchedulerFolder: []string{"diffusers", scheduler.Class},
	}
	if c.xl() {
		all[TextEncoder2Folder], all[TokenizerFolder+"_2"] = []string{"transformers", ClassCLIPProjected}, []string{"transformers", "CLIPTokenizer"}
		all["force_zeros_for_empty_prompt"] = true
	}
	c.dir.class = class
	var err error
	c.dir.index, err = json.Marshal(all)
	return err
}

// leftovers has the U-Net warn of tensors that belong to no part, but for those that many files have.
func (c *checkpoint) leftovers() {
	used := map[string]bool{}
	for _, p := range c.dir.parts {
		for _, param := range p.params {
			used[param.Original] = p.file == c.path
		}
		for _, name := range p.stored {
			used[name] = used[name] || p.file == c.path
		}
	}
	var surplus []string
	for _, name := range c.set.Names() {
		own := strings.TrimPrefix(name, c.Root)
		if known := kind.Leftover(own); !used[name] && !known && (c.Root == "" || own != name) && !c.replaced(own) {
			surplus = append(surplus, name)
		}
	}
	if len(surplus) > 0 {
		c.dir.surplus = []string{"ignores tensors that belong to no part of the model: " + someOf(surplus)}
	}
}

// replaced reports whether a tensor is of a part that is taken from elsewhere, or of a layer that is not used.
func (c *checkpoint) replaced(own string) bool {
	return c.HasVAE && c.VAE != "" && strings.HasPrefix(own, c.VAE) || c.OpenText && strings.HasPrefix(own, c.Text)
}

// assembled are the tensors of a part, some of which are rows of others, or transposed.
type assembled struct {
	renamed
	params map[string]original.Param // those that are
}

// source are the tensors of a part in an open file.
func (p part) source(set weightFile) assembled {
	if p.stored != nil {
		return assembled{renamed{set, p.stored}, nil}
	}
	a := assembled{renamed{set, map[string]string{}}, map[string]original.Param{}}
	for _, param := range p.params {
		a.stored[param.Name] = param.Original
		if param.Parts > 0 || param.Transposed {
			a.params[param.Name] = param
		}
	}
	return a
}

// Info implements nn.Source.
func (a assembled) Info(name string) (tensor.DType, tensor.Shape, bool) {
	dtype, shape, ok := a.renamed.Info(name)
	p, made := a.params[name]
	if !ok || !made || len(shape) != len(p.Shape) {
		return dtype, shape, ok
	}
	shape = slices.Clone(shape)
	if p.Transposed {
		slices.Reverse(shape)
	}
	if p.Parts > 0 && shape[0]%p.Parts == 0 {
		shape[0] /= p.Parts
	}
	return dtype, shape, ok
}

// Section implements device.Source.
func (a assembled) Section(name string) (*io.SectionReader, error) {
	p, made := a.params[name]
	if !made {
		return a.renamed.Section(name)
	}
	dtype, _, _ := a.Info(name)
	rows := p.Shape[0]
	whole := device.Param{
		Name: name, Layout: device.Matrix, DType: dtype, Shape: p.Shape,
		From: []device.Slice{{Name: p.Original, FirstRow: p.Part * rows, Rows: rows, Transposed: p.Transposed}},
	}
	return whole.Section(a.weightFile)
}
