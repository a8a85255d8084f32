package modeldir

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"

	"github.com/triptych-serving/triptych/engine/model/config"
)

// pipeline is a class that model_index.json may name, and the classes of its parts, by their key there, which is their
// folder too.
type pipeline struct {
	class      string
	components map[string][]string
}

// pipelines are those this engine runs, which is the first, and those it can outline.
func pipelines() []pipeline {
	const clipText, clipProjected, unet, vae, tokens = "CLIPTextModel", "CLIPTextModelWithProjection", "UNet2DConditionModel", "AutoencoderKL", "CLIPTokenizer"
	return []pipeline{
		{"StableDiffusionPipeline", map[string][]string{
			textEncoderFolder: {clipText, clipProjected}, unetFolder: {unet}, vaeFolder: {vae}, tokenizerFolder: {tokens, tokens + "Fast"},
		}},
		{"StableDiffusionXLPipeline", map[string][]string{
			textEncoderFolder: {clipText}, textEncoder2Folder: {clipProjected}, unetFolder: {unet}, vaeFolder: {vae},
		}},
		{"FluxPipeline", map[string][]string{
			textEncoderFolder: {clipText}, textEncoder2Folder: {"T5EncoderModel"}, transformerFolder: {"FluxTransformer2DModel"}, vaeFolder: {vae},
		}},
	}
}

// readIndex reads model_index.json in a model's folder and tells which of the accepted pipelines it is, by index.
func readIndex(dir string, accepted []pipeline) (int, error) {
	path := filepath.Join(dir, "model_index.json")
	data, err := readConfig(path)
	if err != nil {
		return 0, err
	}
	r, err := config.Parse(data)
	if err != nil {
		return 0, config.InFile(err, path)
	}
	var classes []string
	for _, p := range accepted {
		classes = append(classes, p.class)
	}
	if !r.Has("_class_name") {
		r.Refuse("_class_name", `"`+strings.Join(classes, `" or "`)+`"`)
	}
	which := slices.Index(classes, r.String("_class_name", classes...))
	if err := r.Err(); err != nil && len(accepted) > 1 {
		return 0, config.InFile(err, path) // its parts are those of another
	}
	index := map[string]json.RawMessage{}
	if err := json.Unmarshal(data, &index); err != nil {
		return 0, &Error{Path: path, Expected: "a JSON object", Got: err.Error(), Err: err}
	}
	components := accepted[which].components
	for _, key := range []string{textEncoderFolder, textEncoder2Folder, unetFolder, transformerFolder, vaeFolder, tokenizerFolder} {
		var pair [2]string
		if known := components[key]; known != nil && (json.Unmarshal(index[key], &pair) != nil || !slices.Contains(known, pair[1])) {
			r.Refuse(key, "a library and "+strings.Join(known, " or "))
		}
	}
	return which, config.InFile(r.Err(), path)
}
