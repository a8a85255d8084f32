// Package simulate replays traces of jobs through the ledger of package residency on a virtual clock.
//
// The package may import stage, orchestrator/residency and the standard library; it starts no goroutine and
// reads no clock.
package simulate

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/triptych-serving/triptych/stage"
)

// The bounds of a trace: beyond them it is refused. Three components of each model must fit into the sets
// of the oracle, which have 64 bits.
const (
	MaxModels    = 21
	MaxJobs      = 100_000
	MaxImages    = 64
	MaxSidePx    = 16_384
	maxLineBytes = 64 << 10
	maxName      = 200
	maxBytes     = 1 << 44 // of weights or scratch
	maxSeconds   = 1e6     // of a turn, and of an arrival a thousand times it
)

// Trace is what is asked of a stack: jobs, and the models they name. On disk it is JSON lines, each with one
// of two fields:
//
//	{"model": {"name": "sd15", "side_px": 512, "encoder": {"weights_bytes": 1, "scratch_bytes": 1, "seconds": 1}, "denoiser": {...}, "decoder": {...}}}
//	{"job": {"at_seconds": 0.25, "model": "sd15", "images": 2, "width_px": 512, "height_px": 512}}
//
// A job may say what it takes instead, as recorded ones do: {"job": {"at_seconds": 0.25, "turns": [...]}}, see Turn. A model that no line describes is looked up with CatalogModel. images is 1 and the sides are the model's
// unless given. Lines may come in any order; jobs are sorted by arrival.
type Trace struct {
	Models    []Model // by name, all that jobs name
	Jobs      []Job   // by arrival
	described int     // turns, by jobs
}

// Model is what a model of three components takes in each stage, for one image of SidePx x SidePx. Scratch and seconds of the
// denoiser and the decoder grow as the pixels do.
type Model struct {
	Name     string `json:"name"`
	SidePx   int    `json:"side_px"`
	Encoder  Part   `json:"encoder"`
	Denoiser Part   `json:"denoiser"`
	Decoder  Part   `json:"decoder"`
}

// Part is a model's part in one stage.
type Part struct {
	WeightsBytes int64   `json:"weights_bytes"`
	ScratchBytes int64   `json:"scratch_bytes"` // of one turn
	Seconds      float64 `json:"seconds"`       // of computing, of one turn
}

// Job is a request: a turn of the encoder, and one of denoiser and decoder for each image.
type Job struct {
	AtSeconds float64 `json:"at_seconds"` // since the trace began
	Model     string  `json:"model,omitempty"`
	Images    int     `json:"images,omitempty"`
	WidthPx   int     `json:"width_px,omitempty"`
	HeightPx  int     `json:"height_px,omitempty"`
	Turns     []Turn  `json:"turns,omitempty"` // instead of all but the time
}

// part is the model's part in a stage of a kind.
func (m *Model) part(k stage.Kind) *Part {
	switch k {
	case stage.KindEncoder:
		return &m.Encoder
	case stage.KindDenoiser:
		return &m.Denoiser
	}
	return &m.Decoder
}

// turn is what one turn of a job takes in a stage.
func (m *Model) turn(k stage.Kind, j Job) Part {
	p := *m.part(k)
	if k != stage.KindEncoder {
		scale := float64(j.WidthPx) * float64(j.HeightPx) / (float64(m.SidePx) * float64(m.SidePx))
		p.ScratchBytes = int64(float64(p.ScratchBytes) * scale)
		p.Seconds *= scale
	}
	return p
}

// WeightsBytes is all weights of all models: what it takes never to load twice, but for scratch.
func (t Trace) WeightsBytes() (sum int64) {
	for _, p := range t.Components() {
		sum += p.MostBytes
	}
	return sum
}

// model is the one of that name, nil if there is none.
func (t Trace) model(name string) *Model {
	i, ok := slices.BinarySearchFunc(t.Models, name, func(m Model, n string) int { return cmp.Compare(m.Name, n) })
	if !ok {
		return nil
	}
	return &t.Models[i]
}

// line is a line of a trace on disk.
type line struct {
	Model *Model `json:"model,omitempty"`
	Job   *Job   `json:"job,omitempty"`
}

// ReadTrace reads JSON lines; see Trace. What is wrong is INVALID_FIELD and names line and field; what
// cannot be read is the reader's error.
func ReadTrace(r io.Reader) (Trace, error) {
	var t Trace
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLineBytes)
	n := 0
	for lines.Scan() {
		n++
		where := fmt.Sprintf("line %d", n)
		text := bytes.TrimSpace(lines.Bytes())
		if len(text) == 0 {
			continue
		}
		var l line
		in := json.NewDecoder(bytes.NewReader(text))
		in.DisallowUnknownFields()
		if err := in.Decode(&l); err != nil {
			return Trace{}, stage.Invalid(stage.InvalidField, at(where, "object"), string(text), fmt.Sprintf("a model or a job in JSON (%s)", stage.Excerpt(err.Error(), 300)))
		}
		if (l.Model == nil) == (l.Job == nil) || in.More() {
			return Trace{}, stage.Invalid(stage.InvalidField, at(where, "object"), string(text), `one object with either "model" or "job"`)
		}
		if err := t.add(where, l); err != nil {
			return Trace{}, err
		}
	}
	if err := lines.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			return Trace{}, stage.Invalid(stage.InvalidField, at(fmt.Sprintf("line %d", n+1), "length"), "more", fmt.Sprintf("lines of less than %d bytes", maxLineBytes))
		}
		return Trace{}, err
	}
	return t.Complete()
}

// at names a field in errors.
func at(where, field string) string { return where + ": " + field }

func (t *Trace) add(where string, l line) error {
	if m := l.Model; m != nil {
		if slices.ContainsFunc(t.Models, func(o Model) bool { return o.Name == m.Name }) {
			return stage.Invalid(stage.InvalidField, at(where, "model.name"), m.Name, "each model described once")
		}
		if err := m.check(where); err != nil {
			return err
		}
		t.Models = append(t.Models, *m)
		return t.few(where)
	}
	return t.Add(where, *l.Job)
}

// Add adds a job, which errors name by where it was found. INVALID_FIELD. Complete follows the last.
func (t *Trace) Add(where string, j Job) error {
	if len(t.Jobs) == MaxJobs {
		return stage.Invalid(stage.InvalidField, at(where, "job"), len(t.Jobs)+1, fmt.Sprintf("at most %d jobs", MaxJobs))
	}
	if t.described += len(j.Turns); t.described > MaxTurns {
		return stage.Invalid(stage.InvalidField, at(where, "job.turns"), t.described, fmt.Sprintf("at most %d turns of all jobs", MaxTurns))
	}
	if len(j.Turns) == 0 && j.Images == 0 {
		j.Images = 1
	}
	if err := j.check(where); err != nil {
		return err
	}
	t.Jobs = append(t.Jobs, j)
	return nil
}

func (t *Trace) few(where string) error {
	if len(t.Models) > MaxModels {
		return stage.Invalid(stage.InvalidField, at(where, "model"), len(t.Models), fmt.Sprintf("at most %d models", MaxModels))
	}
	return nil
}

func (m *Model) check(where string) error {
	switch {
	case m.Name == "" || len(m.Name) > maxName:
		return stage.Invalid(stage.InvalidField, at(where, "model.name"), m.Name, fmt.Sprintf("1 to %d bytes", maxName))
	case m.SidePx < 1 || m.SidePx > MaxSidePx:
		return stage.Invalid(stage.InvalidField, at(where, "model.side_px"), m.SidePx, fmt.Sprintf("1 to %d", MaxSidePx))
	}
	for _, k := range stage.Kinds() {
		p := m.part(k)
		field := func(name string) string { return at(where, fmt.Sprintf("model.%v.%s", k, name)) }
		switch {
		case p.WeightsBytes < 1 || p.WeightsBytes > maxBytes:
			return stage.Invalid(stage.InvalidField, field("weights_bytes"), p.WeightsBytes, fmt.Sprintf("1 to %d", int64(maxBytes)))
		case p.ScratchBytes < 0 || p.ScratchBytes > maxBytes:
			return stage.Invalid(stage.InvalidField, field("scratch_bytes"), p.ScratchBytes, fmt.Sprintf("0 to %d", int64(maxBytes)))
		case !within(p.Seconds, maxSeconds):
			return stage.Invalid(stage.InvalidField, field("seconds"), p.Seconds, fmt.Sprintf("0 to %g", maxSeconds))
		}
	}
	return nil
}

func (j *Job) check(where string) error {
	switch {
	case !within(j.AtSeconds, 1000*maxSeconds):
		return stage.Invalid(stage.InvalidField, at(where, "job.at_seconds"), j.AtSeconds, fmt.Sprintf("0 to %g", 1000*maxSeconds))
	case len(j.Turns) > 0:
		return j.checkTurns(where)
	case j.Model == "" || len(j.Model) > maxName:
		return stage.Invalid(stage.InvalidField, at(where, "job.model"), j.Model, fmt.Sprintf("1 to %d bytes", maxName))
	case j.Images < 1 || j.Images > MaxImages:
		return stage.Invalid(stage.InvalidField, at(where, "job.images"), j.Images, fmt.Sprintf("1 to %d", MaxImages))
	case j.WidthPx < 0 || j.WidthPx > MaxSidePx:
		return stage.Invalid(stage.InvalidField, at(where, "job.width_px"), j.WidthPx, fmt.Sprintf("1 to %d, or nothing", MaxSidePx))
	case j.HeightPx < 0 || j.HeightPx > MaxSidePx:
		return stage.Invalid(stage.InvalidField, at(where, "job.height_px"), j.HeightPx, fmt.Sprintf("1 to %d, or nothing", MaxSidePx))
	}
	return nil
}

func within(x, limit float64) bool { return !math.IsNaN(x) && x >= 0 && x <= limit }

// Complete looks up models that jobs name, drops those that none names, and sorts. INVALID_FIELD, MODEL_NOT_FOUND.
func (t Trace) Complete() (Trace, error) {
	described := map[string]Model{}
	for _, m := range t.Models {
		described[m.Name] = m
	}
	named := map[string]bool{}
	t.Models = nil
	for i := range t.Jobs {
		j := &t.Jobs[i]
		if len(j.Turns) > 0 {
			continue
		}
		m, ok := described[j.Model]
		if !ok {
			var err error
			if m, err = CatalogModel(j.Model); err != nil {
				return Trace{}, err
			}
			described[j.Model] = m
		}
		if !named[j.Model] {
			named[j.Model] = true
			t.Models = append(t.Models, m)
			if err := t.few(fmt.Sprintf("line %d", i+1)); err != nil {
				return Trace{}, err
			}
		}
		if j.WidthPx == 0 {
			j.WidthPx = m.SidePx
		}
		if j.HeightPx == 0 {
			j.HeightPx = m.SidePx
		}
	}
	if n := len(t.Components()); n > maxParts {
		return Trace{}, stage.Invalid(stage.InvalidField, "models", n, fmt.Sprintf("jobs that use at most %d components together", maxParts))
	}
	slices.SortFunc(t.Models, func(a, b Model) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortStableFunc(t.Jobs, func(a, b Job) int { return cmp.Compare(a.AtSeconds, b.AtSeconds) })
	return t, nil
}

// Write writes the trace as ReadTrace reads it, with every model.
func (t Trace) Write(w io.Writer) error {
	out := json.NewEncoder(w)
	for i := range t.Models {
		if err := out.Encode(line{Model: &t.Models[i]}); err != nil {
			return err
		}
	}
	for i := range t.Jobs {
		if err := out.Encode(line{Job: &t.Jobs[i]}); err != nil {
			return err
		}
	}
	return nil
}
