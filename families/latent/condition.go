package latent

import (
	"fmt"
	"slices"

	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// maxTokens bounds the states of a prompt that a request may bring.
const maxTokens = 4096

// conditioning is what a request is conditioned on.
type conditioning struct {
	states  []float32 // [rows, tokens, width]
	rows    int
	tokens  int
	periods []period
	now     []int // rows that are written
}

// condition reads the states of the prompts, checked and widened.
func (d *denoising) condition() error {
	v, _ := d.req.Values.Get(ValueStates)
	shape := v.Tensor.Shape
	c := conditioning{rows: shape[0], tokens: shape[1]}
	want, most := family.Batch(d.req.Options), family.Batch(d.req.Options)
	if d.req.Values.Has(ValuePeriods) {
		want, most = 1, maxChunks+1
	}
	if c.rows < want || c.rows > most || c.tokens > maxTokens || shape[2] != d.UNet.ContextDim {
		return stage.Invalid(stage.TensorInvalid, v.Name, shape, fmt.Sprintf("[%d, at most %d tokens, %d]", most, maxTokens, d.UNet.ContextDim))
	}
	var err error
	if c.periods, err = periodsOf(d.req, c.rows); err != nil {
		return err
	}
	c.states, err = family.Floats(v)
	d.conditioning = c
	return err
}

// conditions gives what is to be written before an evaluation, where it is not what was written before: the states of the prompts, and
// what the family has beside them. Evaluations count from the first one that is made.
func (d *denoising) conditions(evaluation int) (inputs []Input, err error) {
	c := &d.conditioning
	step := evaluation * int(d.req.Options[OptionSteps].Int) / d.steps.Evaluations() // some samplers evaluate more than once a step
	rows := rowsAt(c.periods, step)
	if slices.Equal(rows, c.now) {
		return nil, nil
	}
	c.now = rows
	if d.Fixed != nil {
		if inputs, err = d.Fixed(d.req, rows); err != nil {
			return nil, err
		}
	}
	return append(inputs, Input{modeldir.InputContext, Rows(c.states, c.rows, rows)}), nil
}

// Rows picks some of the rows of an array.
func Rows(v []float32, of int, rows []int) (out []float32) {
	n := len(v) / of
	for _, row := range rows {
		out = append(out, v[row*n:][:n]...)
	}
	return out
}
