package simulate

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/triptych-serving/triptych/stage"
)

// MaxTurns is how many turns the jobs of a trace may describe together, maxJobTurns one of them, and maxParts how many components
// they may use: the sets of the oracle have 64 bits.
const (
	MaxTurns    = 1_000_000
	maxJobTurns = 16 * MaxImages
	maxParts    = 3 * MaxModels
)

// Turn is one stage's work for a job that was seen elsewhere. A job's are in the order they are asked for; of two that may be
// asked for at once the first in the list is. Turns with the same stage, set and name are one turn of the job's recipe, taken
// again and again, each when the one before has ended, but for those of the last one. They wait for those that come before them in
// the recipe, which is the order in which the list has them first: where one turn is taken as often as another, for the one of
// the same image.
type Turn struct {
	Name         string    `json:"turn,omitempty"` // in the recipe; needed only where two turns of it hold the same set
	Stage        string    `json:"stage"`
	Model        string    `json:"model,omitempty"` // whose part of the stage it is
	WeightsBytes int64     `json:"weights_bytes,omitempty"`
	Components   []Weights `json:"components,omitempty"` // held together, instead of model and weights_bytes
	ScratchBytes int64     `json:"scratch_bytes"`
	Seconds      float64   `json:"seconds"`
}

// Weights are those of a component that a turn keeps, in bytes.
type Weights struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
}

func (t Turn) kind() stage.Kind {
	k, _ := stage.ParseKind(t.Stage)
	return k
}

// set is what the turn holds.
func (t Turn) set() []Weights {
	if len(t.Components) > 0 {
		return t.Components
	}
	return []Weights{{t.Model + "/" + t.Stage, t.WeightsBytes}}
}

// same tells whether two turns are one of the recipe.
func (t Turn) same(o Turn) bool {
	return t.Name == o.Name && t.Stage == o.Stage && slices.EqualFunc(t.set(), o.set(), func(a, b Weights) bool { return a.Name == b.Name })
}

// checkTurns checks a job that describes its turns.
func (j *Job) checkTurns(where string) error {
	switch {
	case j.Model != "" || j.Images != 0 || j.WidthPx != 0 || j.HeightPx != 0:
		return stage.Invalid(stage.InvalidField, at(where, "job.turns"), j.Model, "no turns beside model, images, width_px or height_px")
	case len(j.Turns) > maxJobTurns:
		return stage.Invalid(stage.InvalidField, at(where, "job.turns"), len(j.Turns), fmt.Sprintf("1 to %d turns", maxJobTurns))
	}
	for i, t := range j.Turns {
		field := func(name string) string { return at(where, fmt.Sprintf("job.turns[%d].%s", i, name)) }
		switch {
		case t.kind() == 0:
			return stage.Invalid(stage.InvalidField, field("stage"), t.Stage, "encoder, denoiser or decoder")
		case len(t.Name) > maxName:
			return stage.Invalid(stage.InvalidField, field("turn"), t.Name, fmt.Sprintf("at most %d bytes", maxName))
		case len(t.Components) == 0 && (t.Model == "" || len(t.Model) > maxName):
			return stage.Invalid(stage.InvalidField, field("model"), t.Model, fmt.Sprintf("1 to %d bytes", maxName))
		case len(t.Components) > maxParts || len(t.Components) > 0 && (t.Model != "" || t.WeightsBytes != 0):
			return stage.Invalid(stage.InvalidField, field("components"), len(t.Components), fmt.Sprintf("at most %d, without model or weights_bytes", maxParts))
		case t.ScratchBytes < 0 || t.ScratchBytes > maxBytes:
			return stage.Invalid(stage.InvalidField, field("scratch_bytes"), t.ScratchBytes, fmt.Sprintf("0 to %d", int64(maxBytes)))
		case !within(t.Seconds, maxSeconds):
			return stage.Invalid(stage.InvalidField, field("seconds"), t.Seconds, fmt.Sprintf("0 to %g", maxSeconds))
		}
		for k, w := range t.set() {
			if w.Bytes < 0 || w.Bytes > maxBytes {
				return stage.Invalid(stage.InvalidField, field("weights_bytes"), w.Bytes, fmt.Sprintf("0 to %d", int64(maxBytes)))
			}
			if again := func(o Weights) bool { return o.Name == w.Name }; w.Name == "" || len(w.Name) > 2*maxName || slices.ContainsFunc(t.set()[:k], again) {
				return stage.Invalid(stage.InvalidField, field("components"), w.Name, fmt.Sprintf("names of 1 to %d bytes, each once", 2*maxName))
			}
		}
	}
	return nil
}

// recipe is that of a described model, whose three parts are three turns.
var recipe = stage.Recipe{Task: "generate", Turns: []stage.Turn{
	{Name: "encode", Kind: stage.KindEncoder, Gives: []stage.Port{{Name: "hidden_states"}}},
	{Name: "denoise", Kind: stage.KindDenoiser, EachImage: true, Takes: []stage.Port{{Name: "hidden_states"}}, Gives: []stage.Port{{Name: "latents"}}},
	{Name: "decode", Kind: stage.KindDecoder, EachImage: true, Takes: []stage.Port{{Name: "latents"}}, Gives: []stage.Port{{Name: "image"}}},
}}

// Turns are what a job takes, those of a model's size worked out: in the order in which they can begin, if all take as long.
func (t Trace) Turns(j Job) (turns []Turn) {
	if len(j.Turns) > 0 {
		return j.Turns
	}
	m, steps := t.model(j.Model), recipe.Steps(j.Images, nil, func(string) bool { return false })
	place := func(s stage.Step) int {
		return slices.IndexFunc(recipe.Turns, func(t stage.Turn) bool { return t.Name == s.Turn.Name })
	}
	slices.SortStableFunc(steps, func(a, b stage.Step) int {
		return cmp.Or(cmp.Compare(a.Image+place(a), b.Image+place(b)), cmp.Compare(place(a), place(b)))
	})
	for _, s := range steps {
		p := m.turn(s.Turn.Kind, j)
		turns = append(turns, Turn{Stage: s.Turn.Kind.String(), Model: m.Name, WeightsBytes: p.WeightsBytes, ScratchBytes: p.ScratchBytes, Seconds: p.Seconds})
	}
	return turns
}

// step is a turn as a job takes it.
type step struct {
	turn  int   // of the recipe
	after []int // steps that end before it can begin: the nearest last
}

// stepsOf tells which turns of a job wait for which.
func stepsOf(turns []Turn) []step {
	steps := make([]step, len(turns))
	var taken [][]int // steps, by turn of the recipe
	for i, t := range turns {
		k := slices.IndexFunc(taken, func(of []int) bool { return turns[of[0]].same(t) })
		if k < 0 {
			k = len(taken)
			taken = append(taken, nil)
		}
		steps[i].turn = k
		taken[k] = append(taken[k], i)
	}
	for k, of := range taken {
		for i, s := range of {
			for _, before := range taken[:k] {
				steps[s].after = append(steps[s].after, before[((i+1)*len(before)+len(of)-1)/len(of)-1])
			}
			if i > 0 && k < len(taken)-1 {
				steps[s].after = append(steps[s].after, of[i-1])
			}
		}
	}
	return steps
}

// ending is the order in which a job ends its steps, one image after another.
func ending(steps []step) (order []int) {
	done := make([]bool, len(steps))
	var end func(i int)
	end = func(i int) {
		if done[i] {
			return
		}
		done[i] = true
		for _, k := range slices.Backward(steps[i].after) {
			end(k)
		}
		order = append(order, i)
	}
	last := 0
	for _, s := range steps {
		last = max(last, s.turn)
	}
	for i, s := range steps {
		if s.turn == last {
			end(i)
		}
	}
	return order
}

// Component is a component of a stage, and the bytes of its weights in the turns that keep least and most of them.
type Component struct {
	Stage, Name           string
	LeastBytes, MostBytes int64
}

// Use is a grant: from then on so much scratch is pinned, and all of these components, whose bits are those of Trace.Components.
type Use struct {
	Pinned       uint64
	ScratchBytes int64
}

// bits are those of the trace's components, by name.
func (t Trace) bits() map[string]uint64 {
	bits := map[string]uint64{}
	for i, c := range t.Components() {
		bits[c.Name] = 1 << i
	}
	return bits
}

// Components are all of the trace.
func (t Trace) Components() (parts []Component) {
	index := map[[2]string]int{}
	add := func(of Turn) {
		for _, w := range of.set() {
			key := [2]string{of.Stage, w.Name}
			i, ok := index[key]
			if !ok {
				index[key] = len(parts)
				parts = append(parts, Component{of.Stage, w.Name, w.Bytes, w.Bytes})
				continue
			}
			parts[i].LeastBytes, parts[i].MostBytes = min(parts[i].LeastBytes, w.Bytes), max(parts[i].MostBytes, w.Bytes)
		}
	}
	for i := range t.Models {
		m := &t.Models[i]
		for _, k := range stage.Kinds() {
			add(Turn{Stage: k.String(), Model: m.Name, WeightsBytes: m.part(k).WeightsBytes})
		}
	}
	for _, j := range t.Jobs {
		for _, turn := range j.Turns {
			add(turn)
		}
	}
	return parts
}

// Uses are the turns of each job, one after another. Further images take no further loads: their turns either have room
// together, or work off all images in turn.
func (t Trace) Uses(o Options) [][]Use {
	all, bits := make([][]Use, len(t.Jobs)), t.bits()
	for k, j := range t.Jobs {
		turns := t.Turns(j)
		var of [][]int // turns, by turn of the recipe
		for i, s := range stepsOf(turns) {
			of = append(of, make([][]int, max(0, s.turn+1-len(of)))...)
			of[s.turn] = append(of[s.turn], i)
		}
		for _, i := range slices.Concat(of...) {
			u := Use{ScratchBytes: turns[i].ScratchBytes}
			for _, w := range turns[i].set() {
				u.Pinned |= bits[cmp.Or(o.Parts[w.Name], w.Name)]
			}
			if !slices.Contains(all[k], u) {
				all[k] = append(all[k], u)
			}
		}
	}
	return all
}
