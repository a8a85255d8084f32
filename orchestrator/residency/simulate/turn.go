package simulate

import (
	"fmt"

	"github.com/triptych-serving/triptych/stage"
)

// MaxTurns is how many turns the jobs of a trace may describe together, and maxParts how many parts of models they may
// use: the sets of the oracle have 64 bits.
const (
	MaxTurns = 1_000_000
	maxParts = 3 * MaxModels
)

// Turn is one stage's work for a job that was seen elsewhere. A job's are in the order they are asked for: the encoder's
// first; then, for each image, the denoiser's when the one before has ended, and the decoder's when its own has. Of two that
// may be asked for at once the first in the list is.
type Turn struct {
	Stage        string  `json:"stage"`
	Model        string  `json:"model"` // whose part it is
	WeightsBytes int64   `json:"weights_bytes"`
	ScratchBytes int64   `json:"scratch_bytes"`
	Seconds      float64 `json:"seconds"`
}

func (t Turn) kind() stage.Kind {
	k, _ := stage.ParseKind(t.Stage)
	return k
}

// checkTurns checks a job that describes its turns.
func (j *Job) checkTurns(where string) error {
	field := func(i int, name string) string { return at(where, fmt.Sprintf("job.turns[%d].%s", i, name)) }
	switch {
	case j.Model != "" || j.Images != 0 || j.WidthPx != 0 || j.HeightPx != 0:
		return stage.Invalid(stage.InvalidField, at(where, "job.turns"), j.Model, "no turns beside model, images, width_px or height_px")
	case len(j.Turns)%2 == 0 || len(j.Turns) < 3 || len(j.Turns) > 1+2*MaxImages:
		return stage.Invalid(stage.InvalidField, at(where, "job.turns"), len(j.Turns), fmt.Sprintf("a turn of the encoder, and one of denoiser and decoder for each of 1 to %d images", MaxImages))
	}
	images := len(j.Turns) / 2
	left := map[stage.Kind]int{stage.KindEncoder: 1, stage.KindDenoiser: images, stage.KindDecoder: images}
	for i, t := range j.Turns {
		k := t.kind()
		left[k]--
		switch {
		case left[k] < 0 || (k == stage.KindEncoder) != (i == 0) || left[stage.KindDecoder] < left[stage.KindDenoiser]:
			return stage.Invalid(stage.InvalidField, field(i, "stage"), t.Stage, "the encoder first, then the denoiser and the decoder as often, the decoder never ahead")
		case t.Model == "" || len(t.Model) > maxName:
			return stage.Invalid(stage.InvalidField, field(i, "model"), t.Model, fmt.Sprintf("1 to %d bytes", maxName))
		case t.WeightsBytes < 0 || t.WeightsBytes > maxBytes:
			return stage.Invalid(stage.InvalidField, field(i, "weights_bytes"), t.WeightsBytes, fmt.Sprintf("0 to %d", int64(maxBytes)))
		case t.ScratchBytes < 0 || t.ScratchBytes > maxBytes:
			return stage.Invalid(stage.InvalidField, field(i, "scratch_bytes"), t.ScratchBytes, fmt.Sprintf("0 to %d", int64(maxBytes)))
		case !within(t.Seconds, maxSeconds):
			return stage.Invalid(stage.InvalidField, field(i, "seconds"), t.Seconds, fmt.Sprintf("0 to %g", maxSeconds))
		}
	}
	return nil
}

// turns are what a job takes, those of a model's size worked out.
func (t Trace) turns(j Job) []Turn {
	if len(j.Turns) > 0 {
		return j.Turns
	}
	m := t.model(j.Model)
	turn := func(k stage.Kind) Turn {
		p := m.turn(k, j)
		return Turn{k.String(), m.Name, p.WeightsBytes, p.ScratchBytes, p.Seconds}
	}
	turns := []Turn{turn(stage.KindEncoder), turn(stage.KindDenoiser)}
	for range j.Images - 1 { // the next image is denoised while one is decoded, and asked for first
		turns = append(turns, turn(stage.KindDenoiser), turn(stage.KindDecoder))
	}
	return append(turns, turn(stage.KindDecoder))
}

// part is a component and the bytes of its weights in the turns that keep least and most of them.
type part struct {
	Component
	least, most int64
}

// parts are all components of the trace.
func (t Trace) parts() (parts []part) {
	index := map[Component]int{}
	add := func(c Component, bytes int64) {
		i, ok := index[c]
		if !ok {
			index[c] = len(parts)
			parts = append(parts, part{c, bytes, bytes})
			return
		}
		parts[i].least, parts[i].most = min(parts[i].least, bytes), max(parts[i].most, bytes)
	}
	for i := range t.Models {
		for _, k := range stage.Kinds() {
			add(Component{k, t.Models[i].Name}, t.Models[i].part(k).WeightsBytes)
		}
	}
	for _, j := range t.Jobs {
		for _, turn := range j.Turns {
			add(Component{turn.kind(), turn.Model}, turn.WeightsBytes)
		}
	}
	return parts
}
