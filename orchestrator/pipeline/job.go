package pipeline

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

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
	j := &Job{Spec: spec, Checkpoints: map[int]*stage.Checkpoint{}, Identities: map[string]string{}}
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
// those that are not as the model has them by default.
func (s Spec) text(i int) string {
	said := map[string]bool{"prompt": true, "negative_prompt": true, "width": true, "height": true, "format": true, "quality": true, "strength": true}
	var parts []string
	add := func(option, label string) {
		if o, ok := s.Options[option]; ok {
			value := o.String()
			if o.Type == stage.Float {
				value = fmt.Sprintf("%g", float32(o.Float))
			}
			parts = append(parts, label+": "+value)
		}
		said[option] = true
	}
	add("steps", "Steps")
	add("sampler", "Sampler")
	add("guidance_scale", "CFG scale")
	parts = append(parts, fmt.Sprintf("Seed: %d", s.seed(i)))
	if width, height := s.Options["width"], s.Options["height"]; width.Int > 0 && height.Int > 0 {
		parts = append(parts, fmt.Sprintf("Size: %dx%d", width.Int, height.Int))
	}
	parts = append(parts, "Model: "+s.Model)
	if len(s.Inputs) > 0 {
		add("strength", "Denoising strength")
	}
	text := s.Options["prompt"].Text
	for _, o := range s.Recipe.Options {
		switch {
		case said[o.Name] || s.Options[o.Name] == o.Default:
		case o.Tag != "" && slices.Contains(o.InTexts, "prompt"):
			for _, c := range s.Options.Chosen(o.Name) {
				text += " <" + o.Tag + ":" + c.String() + ">"
			}
		default:
			add(o.Name, o.Name)
		}
	}
	if negative := s.Options["negative_prompt"].Text; negative != "" {
		text += "\nNegative prompt: " + negative
	}
	return text + "\n" + strings.Join(parts, ", ")
}
