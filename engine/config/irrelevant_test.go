package config_test

import (
	"fmt"
	"testing"

	"github.com/triptych-serving/triptych/engine/config/configtest"
	"github.com/triptych-serving/triptych/engine/model/clip"
	"github.com/triptych-serving/triptych/engine/model/controlnet"
	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/model/vae"
)

// Those of schedulers, tokenizers and model_index.json are walked where they are read.
func TestEveryKeyOfTheReference(t *testing.T) {
	walk(t, "UNet2DConditionModel", unet.ParseConfig)
	walk(t, "ControlNetModel", controlnet.ParseConfig)
	walk(t, "AutoencoderKL", vae.ParseConfig)
	walk(t, "CLIPTextModel", clip.ParseConfig)
}

func walk[C any](t *testing.T, class string, parse func([]byte) (C, error)) {
	t.Helper()
	configtest.Walk(t, class, func(key string) (string, error) {
		c, err := parse([]byte(`{"` + key + `": ` + configtest.Nonsense + `}`))
		return fmt.Sprintf("%+v", c), err
	})
}
