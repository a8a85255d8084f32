package sdxl

import (
	"fmt"

	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/families/latent"
	"github.com/triptych-serving/triptych/stage"
)

// negative begins the names of options of the negative prompt.
const negative = "negative_"

// number is one that the model is told of a picture for each prompt.
type number struct {
	option string
	spec   stage.OptionSpec // without a name
	usual  func(o stage.Options, negative bool) float64
}

// numbers are those that the model is told, in the order it takes them: how large a picture was, what of it was cut off above
// and to the left, and how large it became, in pixels (section 2.2 of the paper), by default nothing and the image's size; a
// refiner is told how beautiful it is instead of the last. Those of the negative prompt are by default those of the prompt, but
// for the beauty.
func numbers(refines bool) []number {
	const most = 1 << 16
	size := func(option, of string) number {
		return number{option, stage.OptionSpec{Type: stage.Int, Max: most}, func(o stage.Options, _ bool) float64 { return float64(o[of].Int) }}
	}
	of := []number{size("original_height", family.Height), size("original_width", family.Width), size("crop_top", ""), size("crop_left", "")}
	if !refines {
		return append(of, size("target_height", family.Height), size("target_width", family.Width))
	}
	return append(of, number{"aesthetic_score", stage.OptionSpec{Type: stage.Float, Max: 10}, func(_ stage.Options, negative bool) float64 {
		if negative {
			return 2.5
		}
		return 6
	}})
}

// numberOptions are the specs of the numbers, of the prompt and of the negative one.
func numberOptions(refines bool) (out []stage.OptionSpec) {
	for _, prefix := range []string{"", negative} {
		for _, n := range numbers(refines) {
			spec := n.spec
			spec.Name = prefix + n.option
			out = append(out, spec)
		}
	}
	return out
}

// told are the numbers of a prompt, or of the negative one.
func (m *model) told(o stage.Options, negates bool) (out []float64) {
	for _, n := range numbers(m.Refines) {
		v := n.usual(o, negates)
		said, ok := o[n.option]
		if negates {
			if own, also := o[negative+n.option]; also || n.spec.Type == stage.Float {
				said, ok = own, also
			}
		}
		if ok {
			v = float64(said.Int) + said.Float // one of which is 0
		}
		out = append(out, v)
	}
	return out
}

// fixed is the vector that the U-Net is conditioned on for each prompt: the pooled state, and a sinusoid for each number that
// it is told.
func (m *model) fixed(req stage.WorkRequest, rows []int) ([]latent.Input, error) {
	v, _ := req.Values.Get(latent.ValuePooled)
	if shape := v.Tensor.Shape; shape[1] != m.pooled() {
		return nil, stage.Invalid(stage.TensorInvalid, v.Name, shape, fmt.Sprintf("rows of %d values", m.pooled()))
	}
	pooled, err := family.Floats(v)
	if err != nil {
		return nil, err
	}
	var vector []float32
	for i, negates := range []bool{true, false}[2-family.Batch(req.Options):] {
		vector = append(vector, latent.Rows(pooled, len(pooled)/m.pooled(), rows[i:i+1])...)
		for _, number := range m.told(req.Options, negates) {
			vector = append(vector, nn.Sinusoid(number, m.UNet.AdditionTimeDim, m.UNet.CosFirst, m.UNet.FreqShift)...)
		}
	}
	return []latent.Input{{Name: modeldir.InputAddition, Values: vector}}, nil
}
