package configs

import (
	"fmt"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/clip"
	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/model/vae"
	"github.com/triptych-serving/triptych/engine/nn"
)

// Components are the folders of a model that hold weights.
func Components() []string { return []string{"text_encoder", "unet", "vae"} }

// Manifest lists the parameters of a component of SD15, whole: the autoencoder with its encoder.
func Manifest(component string) (*device.Manifest, error) {
	s := nn.NewScope(Unwritten{})
	config := SD15()[component+"/config.json"]
	switch component {
	case "text_encoder":
		c, err := parse(config, clip.ParseConfig)
		if err != nil {
			return nil, err
		}
		clip.New(s.Sub("text_model"), c) // as files of transformers before 5 have it; later ones read both
	case "unet":
		c, err := parse(config, unet.ParseConfig)
		if err != nil {
			return nil, err
		}
		unet.New(s, c)
	case "vae":
		c, err := parse(config, vae.ParseConfig)
		if err != nil {
			return nil, err
		}
		vae.NewEncoder(s, c)
		vae.NewDecoder(s, c)
	default:
		return nil, fmt.Errorf("component %q: expected one of %v", component, Components())
	}
	return s.Manifest(), nil
}
