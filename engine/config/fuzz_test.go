package config_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/triptych-serving/triptych/engine/model/clip"
	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/model/vae"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// empty is a model file without tensors.
type empty struct{}

func (empty) Info(string) (tensor.DType, tensor.Shape, bool) { return tensor.Invalid, nil, false }
func (empty) TypeName(string) string                         { return "" }
func (empty) Where(string) string                            { return "empty" }
func (empty) Names() []string                                { return nil }

// FuzzParseConfig feeds any bytes to the config of every network. What is accepted must also be
// declarable: a manifest of bounded size, without a panic.
func FuzzParseConfig(f *testing.F) {
	files, err := filepath.Glob("../../testdata/golden/tiny-*/*/config.json")
	if err != nil || len(files) == 0 {
		f.Fatal("no configs to start from: ", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"block_out_channels":[32,64],"attention_head_dim":[1e9,null],"layers_per_block":"2"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		const most = 100_000 // parameters; Stable Diffusion has 686
		check := func(s *nn.Scope) {
			if n := len(s.Manifest().Params); n > most {
				t.Errorf("a manifest of %d parameters", n)
			}
		}
		if c, err := clip.ParseConfig(data); err == nil {
			s := nn.NewScope(empty{})
			clip.New(s, c)
			check(s)
		}
		if c, err := unet.ParseConfig(data); err == nil {
			s := nn.NewScope(empty{})
			unet.New(s, c)
			check(s)
		}
		if c, err := vae.ParseConfig(data); err == nil {
			s := nn.NewScope(empty{})
			vae.NewDecoder(s, c)
			vae.NewEncoder(s, c)
			check(s)
		}
	})
}
