package fleet

import (
	"cmp"
	"context"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
)

// Model is what the three stages together can do with a model.
type Model struct {
	Name           string
	WeightsBytes   map[stage.Kind]int64
	MaxTokens      int
	LatentChannels int
	SpatialFactor  int // pixels per latent cell
	SizeMultiple   int // pixels
	// DefaultHeightPx and DefaultWidthPx are of the images that the model was trained for.
	DefaultHeightPx, DefaultWidthPx int

	Samplers       []string
	DefaultSampler string                // empty if the model's own cannot be used
	SamplerProblem string                // why there is no DefaultSampler
	Problem        *stage.Error          // why it cannot be used, nil when it can
	Warnings       []string              // see stage.Component
	Identities     map[stage.Kind]string // see stage.Edition

	parts    map[stage.Kind]string // see Part
	editions map[residency.StageID]stage.Edition
	own      map[residency.StageID]stage.Edition
}

// Models lists every model that some stage knows, by name, from what the services last said.
func (f *Fleet) Models() []Model {
	parts := map[string]map[stage.Kind]stage.Component{}
	for _, id := range slices.Sorted(maps.Keys(f.members)) {
		m := f.members[id]
		info, _ := m.last()
		if info == nil {
			continue
		}
		for _, c := range info.Models {
			if parts[c.Model] == nil {
				parts[c.Model] = map[stage.Kind]stage.Component{}
			}
			if had, ok := parts[c.Model][m.kind]; !ok || had.Problem != "" {
				parts[c.Model][m.kind] = c
			}
		}
	}
	var out []Model
	for name, p := range parts {
		m := join(name, p)
		m.Warnings = append(m.Warnings, f.differing(name)...)
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b Model) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// join makes one model of its three parts.
func join(name string, parts map[stage.Kind]stage.Component) Model {
	m := Model{Name: name, WeightsBytes: map[stage.Kind]int64{}, Identities: map[stage.Kind]string{}}
	invalid := func(format string, args ...any) {
		if m.Problem == nil {
			m.Problem = stage.Errorf(stage.ModelInvalid, format, args...).With("model", name)
		}
	}
	for _, kind := range stage.Kinds() {
		c, ok := parts[kind]
		switch {
		case !ok:
			invalid("no %v service has model %q", kind, name)
		case c.Problem != "":
			invalid("%s", c.Problem)
		}
		m.WeightsBytes[kind], m.Identities[kind] = c.WeightsBytes, c.Identity
		m.Warnings = append(m.Warnings, c.Warnings...)
	}
	if m.Problem != nil {
		return m
	}
	e, d, v := parts[stage.KindEncoder], parts[stage.KindDenoiser], parts[stage.KindDecoder]
	if e.ContextDim != d.ContextDim {
		invalid("the parts of model %q do not fit: the encoder's states have width %d, the denoiser takes %d", name, e.ContextDim, d.ContextDim)
	}
	if d.LatentChannels != v.LatentChannels {
		invalid("the parts of model %q do not fit: the denoiser's latents have %d channels, the decoder takes %d", name, d.LatentChannels, v.LatentChannels)
	}
	m.MaxTokens, m.LatentChannels, m.SpatialFactor = e.MaxTokens, d.LatentChannels, v.SpatialFactor
	m.SizeMultiple = d.LatentMultiple * v.SpatialFactor
	m.DefaultHeightPx, m.DefaultWidthPx = d.LatentDefaultHeight*v.SpatialFactor, d.LatentDefaultWidth*v.SpatialFactor
	usable := func(n int) bool { return n >= 1 && n <= math.MaxInt32 }
	if v.SpatialFactor < 1 || !usable(m.SizeMultiple) || !usable(m.DefaultHeightPx) || !usable(m.DefaultWidthPx) {
		invalid("model %q has no usable size: latents of %dx%d, multiples of %d, %d pixels each", name, d.LatentDefaultWidth, d.LatentDefaultHeight, d.LatentMultiple, v.SpatialFactor)
	}
	m.Samplers, m.DefaultSampler, m.SamplerProblem = d.Samplers, d.DefaultSampler, d.SamplerProblem
	return m
}

// DefaultModel is what a request that names no model gets where there are several.
const DefaultModel = "starter"

// byDefault is the model of a request that names none: DefaultModel, or else the only one that can be used, or the only
// one at all, whose problem is then told. It is empty where nothing says which.
func byDefault(models []Model) string {
	if len(models) == 1 {
		return models[0].Name
	}
	only := ""
	for _, m := range models {
		switch {
		case m.Name == DefaultModel:
			return m.Name
		case m.Problem != nil:
		case only != "":
			return ""
		default:
			only = m.Name
		}
	}
	return only
}

// Model gives a model that can be used; of no name, the one that is the default. It waits for stages that have not answered yet; when
// patience or ctx ends first, the error is StageUnreachable and names the first that is missing.
// ModelNotFound, ModelInvalid.
func (f *Fleet) Model(ctx context.Context, name string, patience time.Duration) (Model, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		changed := f.next()
		missing, known := f.missing()
		if !known {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return Model{}, f.Ended(ctx, missing, true)
			}
		}
		models := f.Models()
		name := cmp.Or(name, byDefault(models))
		i := slices.IndexFunc(models, func(m Model) bool { return m.Name == name })
		if i < 0 {
			var names []string
			for _, m := range models {
				names = append(names, m.Name)
			}
			return Model{}, stage.NoSuchModel(name, names)
		}
		if p := models[i].Problem; p != nil {
			return Model{}, p
		}
		models[i].parts = f.sharing(name)
		m := &models[i]
		m.editions = f.editions(m.Part)
		m.own = f.editions(func(k stage.Kind) string {
			if m.Part(k) == name {
				return ""
			}
			return name
		})
		return models[i], nil
	}
}

// missing gives the first stage of which no service has ever answered.
func (f *Fleet) missing() (kind stage.Kind, known bool) {
	heard := map[stage.Kind]bool{}
	for _, m := range f.members {
		if info, _ := m.last(); info != nil {
			heard[m.kind] = true
		}
	}
	for _, kind := range stage.Kinds() {
		if !heard[kind] {
			return kind, false
		}
	}
	return 0, true
}
