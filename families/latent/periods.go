package latent

import (
	"fmt"
	"slices"

	"github.com/triptych-serving/triptych/engine/prompt"
	"github.com/triptych-serving/triptych/engine/sampler"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// ValuePeriods is which rows of the conditioning lead which steps, where prompts change while a picture is drawn: [periods, 1 + batch], of each
// the first step, which counts from 0, and the rows. Without it the conditioning has a row for each of the batch.
const ValuePeriods = "prompt_periods"

// PeriodsPort is where turns hand it on.
func PeriodsPort() stage.Port {
	return stage.Port{Name: ValuePeriods, Shape: []string{"periods", "first_step_and_rows"}, Optional: true}
}

// period is steps that the same texts lead.
type period struct {
	first int
	rows  []int // of the conditioning, for each of the batch
}

// Conditioning is the texts that a request is conditioned on.
type Conditioning struct {
	Rows    [][]Prompt // each the text of every text encoder
	batch   [][]Prompt // those that they come from
	periods []period   // nil where there is one
}

// Conditions tells what the prompts of a batch become, each the text of every text encoder. The error is a *stage.Error.
func Conditions(o stage.Options, batch [][]Prompt) (Conditioning, error) {
	if o[OptionSyntax].Text != syntaxA1111 {
		return Conditioning{Rows: batch, batch: batch}, nil
	}
	steps := int(o[OptionSteps].Int)
	schedules := make([][][]prompt.Period, len(batch))
	changes := false
	for i, texts := range batch {
		for _, text := range texts {
			periods, err := prompt.Schedule(text.Text, steps)
			if err != nil {
				return Conditioning{}, refused(text.Option, err)
			}
			changes = changes || len(periods) > 1 || periods[0].Text != text.Text
			schedules[i] = append(schedules[i], periods)
		}
	}
	if !changes {
		return Conditioning{Rows: batch, batch: batch}, nil
	}
	out := Conditioning{batch: batch}
	for step := range steps {
		p := period{first: step}
		for i, texts := range batch {
			row := slices.Clone(texts)
			for j, periods := range schedules[i] {
				row[j].Text = periods[prompt.At(periods, step)].Text
			}
			p.rows = append(p.rows, out.row(row))
		}
		if last := len(out.periods) - 1; last < 0 || !slices.Equal(out.periods[last].rows, p.rows) {
			out.periods = append(out.periods, p)
		}
	}
	return out, nil
}

// row is the place of texts, which are added if they are new.
func (c *Conditioning) row(texts []Prompt) int {
	i := slices.IndexFunc(c.Rows, func(r []Prompt) bool { return slices.Equal(r, texts) })
	if i < 0 {
		i, c.Rows = len(c.Rows), append(c.Rows, texts)
	}
	return i
}

// textsOf are those of one of the text encoders.
func textsOf(rows [][]Prompt, encoder int) (out []Prompt) {
	for _, row := range rows {
		out = append(out, row[encoder])
	}
	return out
}

// Behind is the conditioning with a row before the others, which leads every step with the first of the batch.
func (c Conditioning) Behind() Conditioning {
	periods := c.periods
	c.periods = nil
	for _, p := range periods {
		rows := []int{0}
		for _, row := range p.rows {
			rows = append(rows, 1+row)
		}
		c.periods = append(c.periods, period{p.first, rows})
	}
	return c
}

// Values are the periods, if there are any.
func (c Conditioning) Values() stage.Values {
	if c.periods == nil {
		return nil
	}
	var out []float32
	columns := 1 + len(c.periods[0].rows)
	for _, p := range c.periods {
		out = append(out, float32(p.first))
		for _, row := range p.rows {
			out = append(out, float32(row))
		}
	}
	return stage.Values{family.Tensor(ValuePeriods, out, len(c.periods), columns)}
}

// periodsOf reads the periods of a request, of which there is one where the batch's rows do not change. rows is how many there are.
func periodsOf(req stage.WorkRequest, rows int) ([]period, error) {
	batch := family.Batch(req.Options)
	v, ok := req.Values.Get(ValuePeriods)
	if !ok {
		one := period{}
		for i := range batch {
			one.rows = append(one.rows, i)
		}
		return []period{one}, nil
	}
	refuse := func(got any) error {
		return stage.Invalid(stage.TensorInvalid, v.Name, got, fmt.Sprintf("first steps that rise from 0, each with %d of the %d rows of %s", batch, rows, ValueStates))
	}
	shape := v.Tensor.Shape
	if shape[1] != 1+batch || shape[0] > sampler.MaxSteps {
		return nil, refuse(shape)
	}
	numbers, err := family.Floats(v)
	if err != nil {
		return nil, err
	}
	var out []period
	for i := range shape[0] {
		p := period{first: int(numbers[i*shape[1]])}
		if i == 0 && p.first != 0 || i > 0 && p.first <= out[i-1].first {
			return nil, refuse(numbers)
		}
		for _, n := range numbers[i*shape[1]+1:][:batch] {
			if n < 0 || n >= float32(rows) {
				return nil, refuse(numbers)
			}
			p.rows = append(p.rows, int(n))
		}
		out = append(out, p)
	}
	if len(out) == 0 {
		return nil, refuse(shape)
	}
	return out, nil
}

// rowsAt are the rows that lead a step.
func rowsAt(periods []period, step int) (rows []int) {
	for _, p := range periods {
		if p.first <= step {
			rows = p.rows
		}
	}
	return rows
}
