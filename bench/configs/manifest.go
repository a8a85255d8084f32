package configs

import (
	"fmt"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/clip"
	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/model/vae"
	"github.com/triptych-serving/triptych/engine/nn"
)

// Files are the config files of a model by their place in its folder.
type Files map[string]any

// The folders of a model that may hold weights.
const (
	text  = "text_encoder"
	text2 = "text_encoder_2"
	unets = "unet"
	vaes  = "vae"
)

// Components are the folders of the model that hold weights.
func (f Files) Components() (out []string) {
	for _, name := range []string{text, text2, unets, vaes} {
		if f[name+"/config.json"] != nil {
			out = append(out, name)
		}
	}
	return out
}

// Tokenizers are the folders of the model's tokenizers, one for each text encoder.
func (f Files) Tokenizers() []string {
	if f[text2+"/config.json"] != nil {
		return []string{"tokenizer", "tokenizer_2"}
	}
	return []string{"tokenizer"}
}

// Manifest lists the parameters of a component, whole: the autoencoder with its encoder. Names of text encoders are as files of
// transformers before 5 have them, which later ones read too.
func (f Files) Manifest(component string) (*device.Manifest, error) {
	s := nn.NewScope(Unwritten{})
	config := f[component+"/config.json"]
	switch component {
	case text, text2:
		c, err := parse(config, clip.ParseConfig)
		if err != nil {
			return nil, err
		}
		clip.New(s.Sub("text_model"), c)
		if component == text2 {
			nn.NewLinearNoBias(s.Sub("text_projection"), c.HiddenSize, c.Projection)
		}
	case unets:
		c, err := parse(config, unet.ParseConfig)
		if err != nil {
			return nil, err
		}
		unet.New(s, c)
	case vaes:
		c, err := parse(config, vae.ParseConfig)
		if err != nil {
			return nil, err
		}
		vae.NewEncoder(s, c)
		vae.NewDecoder(s, c)
	default:
		return nil, fmt.Errorf("component %q: expected one of %v", component, f.Components())
	}
	return s.Manifest(), nil
}

// Linear reports whether a component's transformers are stored with linear layers around them, where others have convolutions of
// 1x1 that compute the same.
func (f Files) Linear(component string) bool {
	config, _ := f[component+"/config.json"].(object)
	linear, _ := config["use_linear_projection"].(bool)
	return linear
}
