package pipeline

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/triptych-serving/triptych/internal/infotext"
	"github.com/triptych-serving/triptych/stage"
)

// Spec is a request with every default filled in.
type Spec struct {
	Model              string
	Recipe             stage.Recipe
	Options            stage.Options
	Inputs             []string // values that the job has at its start, by name
	ImageCount         int
	Seed               uint64 // of image 0; see seed
	OmitMetadata       bool
	PreviewEveryNSteps int
}

// Job is a request and how far it has come. It can be written down as JSON at any time, also while it runs, and goes on from
// there in any pipeline.
type Job struct {
	Spec        Spec
	Values      []Value                   // that steps still take
	Done        []bool                    // of each step: images overlap, so that none is the next
	Checkpoints map[int]*stage.Checkpoint // of steps that have begun
	Identities  map[string]string         // of the weights that something was made with, by component
	Computes    map[string]string         // the types it was computed in, see stage.Info.Compute, by component

	mu sync.Mutex
}

// Value is a value of a job.
type Value struct {
	Image int // ofJob if all images share it
	stage.Value
}

// ofJob is the image of what all images share.
const ofJob = -1

// NewJob is a request that has files at its start.
func NewJob(spec Spec, inputs stage.Values) *Job {
	j := &Job{Spec: spec, Checkpoints: map[int]*stage.Checkpoint{}, Identities: map[string]string{}, Computes: map[string]string{}}
	for _, v := range inputs {
		j.Spec.Inputs = append(j.Spec.Inputs, v.Name)
		j.Values = append(j.Values, Value{ofJob, v})
	}
	j.Done = make([]bool, len(j.Spec.steps()))
	return j
}

// MarshalJSON writes the job down as it is at one moment.
func (j *Job) MarshalJSON() ([]byte, error) {
	type plain Job
	j.mu.Lock()
	defer j.mu.Unlock()
	return json.Marshal((*plain)(j))
}

// parameters is the value that tells how an image was made. The pipeline makes it.
const parameters = "parameters"

// has tells whether the job has a value at its start.
func (s Spec) has(name string) bool {
	return slices.Contains(s.Inputs, name) || name == parameters && !s.OmitMetadata
}

// Turns are those that the job takes.
func (s Spec) Turns() []stage.Turn { return s.Recipe.For(s.has) }

func (s Spec) steps() []stage.Step {
	return s.Recipe.Steps(s.ImageCount, func(option string) int { return int(s.Options[option].Int) }, s.has)
}

// seed is what image i is made with. Behind the largest seed comes 0.
func (s Spec) seed(i int) uint64 { return s.Seed + uint64(i) }

// text is the parameters of image i in the form that most tools read from PNG files. Of the options that these do not have, it tells
// those that are not as the model has them by default, and so with the task. computes are types, if others than float32.
func (s Spec) text(i int, computes string) string {
	said := map[string]bool{"prompt": true, "negative_prompt": true, "width": true, "height": true, "format": true, "quality": true, "strength": true}
	p := infotext.Parameters{Prompt: s.Options["prompt"].Text, Negative: s.Options["negative_prompt"].Text}
	tell := func(key, value string) { p.Fields = append(p.Fields, infotext.Field{Key: key, Value: value}) }
	add := func(option, label string) {
		if o, ok := s.Options[option]; ok {
			tell(label, written(o))
		}
		said[option] = true
	}
	add("steps", "Steps")
	add("sampler", "Sampler")
	add("schedule", "Schedule type")
	add("guidance_scale", "CFG scale")
	tell("Seed", strconv.FormatUint(s.seed(i), 10))
	if width, height := s.Options["width"], s.Options["height"]; width.Int > 0 && height.Int > 0 {
		tell("Size", fmt.Sprintf("%dx%d", width.Int, height.Int))
	}
	tell("Model", s.Model)
	if len(s.Inputs) > 0 {
		add("strength", "Denoising strength")
	}
	for _, o := range s.Recipe.Options {
		switch {
		case said[o.Name] || s.Options[o.Name] == o.Default:
		case o.Tag != "" && slices.Contains(o.InTexts, "prompt"):
			for _, c := range s.Options.Chosen(o.Name) {
				p.Prompt += " <" + o.Tag + ":" + c.String() + ">"
			}
		default:
			add(o.Name, o.Name)
		}
	}
	if s.Recipe.Task != usualTask {
		tell("task", s.Recipe.Task)
	}
	if computes != "" {
		tell("Compute", computes)
	}
	return p.String()
}

// computes tells the types that the turns so far were computed in: that of all, or by stage as flags give them; nothing if it is
// float32. mu is held.
func (j *Job) computes() string {
	var types, parts []string
	for _, t := range j.Spec.Turns() {
		for _, own := range t.Components() {
			c := cmp.Or(j.Computes[own], usualCompute)
			types = append(types, c)
			if part := t.Kind.String() + "=" + c; c != usualCompute && !slices.Contains(parts, part) {
				parts = append(parts, part)
			}
		}
	}
	if slices.Sort(types); len(parts) > 0 && types[0] == types[len(types)-1] {
		return types[0]
	}
	return strings.Join(parts, ",")
}

// usualCompute is the type of which no picture tells.
const usualCompute = "f32"

// usualTask is the task of pictures of which no other is told.
const usualTask = "generate"

// written is an option as a text tells it. Numbers that callers gave in 32 bits, or that these have room for, have no more digits than
// it takes to tell them.
func written(o stage.Option) string {
	if o.Type != stage.Float {
		return o.String()
	}
	short := strconv.FormatFloat(o.Float, 'g', -1, 32)
	if back, err := strconv.ParseFloat(short, 64); err == nil && (back == o.Float || float64(float32(o.Float)) == o.Float) {
		return short
	}
	return o.String()
}
