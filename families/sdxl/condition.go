package sdxl

import (
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/families/latent"
	"github.com/triptych-serving/triptych/stage"
)

// negative begins the names of options of the negative prompt.
const negative = "negative_"

// sizes are the options of what the model is told of a picture, in the order it takes them, in pixels: how large it was, what
// of it was cut off above and to the left, and how large it became (section 2.2 of the paper). By default nothing was cut off
// and the size is the image's; those of the negative prompt are by default those of the prompt.
func sizes() []string {
	return []string{"original_height", "original_width", "crop_top", "crop_left", "target_height", "target_width"}
}

func sizeNames() []string {
	var names []string
	for _, prefix := range []string{"", negative} {
		for _, name := range sizes() {
			names = append(names, prefix+name)
		}
	}
	return names
}

func sizeOptions() (out []stage.OptionSpec) {
	const most = 1 << 16
	for _, name := range sizeNames() {
		out = append(out, stage.OptionSpec{Name: name, Type: stage.Int, Max: most})
	}
	return out
}

// told are the numbers of a prompt, or of the negative one.
func told(o stage.Options, prefix string) (out []float64) {
	height, width := o[family.Height].Int, o[family.Width].Int
	for i, name := range sizes() {
		v := []int64{height, width, 0, 0, height, width}[i]
		for _, prefix := range []string{"", prefix} {
			if said, ok := o[prefix+name]; ok {
				v = said.Int
			}
		}
		out = append(out, float64(v))
	}
	return out
}

// fixed is the vector that the U-Net is conditioned on for each prompt: the pooled state, and a sinusoid for each number that
// it is told.
func (m *model) fixed(req stage.WorkRequest, rows []int) ([]latent.Input, error) {
	v, _ := req.Values.Get(latent.ValuePooled)
	pooled, err := family.Floats(v)
	if err != nil {
		return nil, err
	}
	var vector []float32
	for i, prefix := range []string{negative, ""}[2-family.Batch(req.Options):] {
		vector = append(vector, latent.Rows(pooled, len(pooled)/m.pooled(), rows[i:i+1])...)
		for _, number := range told(req.Options, prefix) {
			vector = append(vector, nn.Sinusoid(number, m.UNet.AdditionTimeDim, m.UNet.CosFirst, m.UNet.FreqShift)...)
		}
	}
	return []latent.Input{{Name: modeldir.InputAddition, Values: vector}}, nil
}
