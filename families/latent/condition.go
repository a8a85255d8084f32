package latent

import (
	"fmt"

	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// maxTokens bounds the states that a request may bring.
const maxTokens = 4096

// condition gives what is written once for all evaluations: the states of the prompts, checked and widened, and what the
// family has beside them.
func (d *denoising) condition() (inputs []Input, tokens int, err error) {
	v, _ := d.req.Values.Get(ValueStates)
	shape, want := v.Tensor.Shape, family.Batch(d.req.Options)
	if shape[0] != want || shape[1] > maxTokens {
		return nil, 0, stage.Invalid(stage.TensorInvalid, v.Name, shape, fmt.Sprintf("[%d, at most %d tokens, %d]", want, maxTokens, d.UNet.ContextDim))
	}
	states, err := family.Floats(v)
	if err != nil {
		return nil, 0, err
	}
	if d.Fixed != nil {
		if inputs, err = d.Fixed(d.req); err != nil {
			return nil, 0, err
		}
	}
	return append(inputs, Input{modeldir.InputContext, states}), shape[1], nil
}
