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

// readIndex reads model_index.json in a model's folder and tells which of the accepted pipelines it is, by index, and
// the class of its scheduler, which may be any. A model that is not to be outlined only must have one.
func readIndex(dir string, accepted []pipeline) (which int, scheduler string, err error) {
	path := filepath.Join(dir, "model_index.json")
	data, err := readConfig(path)
	if err != nil {
		return 0, "", err
	}
	r, err := config.ParseDiffusers(data)
	if err != nil {
		return 0, "", config.InFile(err, path)
	}
	var classes []string
	for _, p := range accepted {
		classes = append(classes, p.class)
	}
	if !r.Has("_class_name") {
		r.Refuse("_class_name", `"`+strings.Join(classes, `" or "`)+`"`)
	}
	which = slices.Index(classes, r.String("_class_name", classes...))
	if err := r.Err(); err != nil && len(accepted) > 1 {
		return 0, "", config.InFile(err, path) // its parts are those of another
	}
	class := func(key string) string {
		var pair []string // a library and a class
		if json.Unmarshal(r.Raw(key), &pair) != nil || len(pair) != 2 {
			return ""
		}
		return pair[1]
	}
	components := accepted[which].components
	for _, key := range []string{textEncoderFolder, textEncoder2Folder, unetFolder, transformerFolder, vaeFolder, tokenizerFolder} {
		if known := components[key]; known != nil && !slices.Contains(known, class(key)) {
			r.Refuse(key, "a library and "+strings.Join(known, " or "))
		}
	}
	if scheduler = class(schedulerFolder); scheduler == "" && len(accepted) == 1 {
		r.Refuse(schedulerFolder, "a library and the class of a scheduler")
	}
	return which, scheduler, config.InFile(r.Err(), path)
}
