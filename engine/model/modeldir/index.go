package modeldir

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"

	"github.com/triptych-serving/triptych/engine/config"
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

// modelIndex is a model_index.json.
type modelIndex struct {
	which     int      // of the accepted pipelines
	scheduler string   // its class, which may be any
	warnings  []string // of keys that the pipeline does not know
}

const indexFile = "model_index.json"

// readIndex reads model_index.json in a model's folder, which must be of one of the accepted pipelines. A model that is
// not to be outlined only must have a scheduler.
func readIndex(dir string, accepted []pipeline) (modelIndex, error) {
	path := filepath.Join(dir, indexFile)
	data, err := readConfig(path)
	if err != nil {
		return modelIndex{}, err
	}
	r, err := config.ParseDiffusers(data)
	if err != nil {
		return modelIndex{}, config.InFile(err, path)
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
		return modelIndex{}, config.InFile(err, path) // its parts are those of another
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
	scheduler := class(schedulerFolder)
	if scheduler == "" && len(accepted) == 1 {
		r.Refuse(schedulerFolder, "a library and the class of a scheduler")
	}
	return modelIndex{which, scheduler, IgnoredKeys(indexFile, r.Unknown(classes[which]))}, config.InFile(r.Err(), path)
}
