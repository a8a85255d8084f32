package fleet

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
)

func TestJoin(t *testing.T) {
	const e, d, v = stage.KindEncoder, stage.KindDenoiser, stage.KindDecoder
	type parts = map[stage.Kind]*stage.Component
	for name, c := range map[string]struct {
		spoil func(parts)
		says  string
	}{
		"good":               {func(parts) {}, ""},
		"no decoder":         {func(p parts) { delete(p, v) }, "no decoder"},
		"a problem":          {func(p parts) { p[d].Problem = "unet: cut off" }, "unet: cut off"},
		"the first problem":  {func(p parts) { p[v].Problem = "vae"; p[e].Problem = "text_encoder" }, "text_encoder"},
		"other states":       {func(p parts) { p[e].ContextDim = 7 }, "width 7, the denoiser takes 6"},
		"other latents":      {func(p parts) { p[v].LatentChannels = 16 }, "4 channels, the decoder takes 16"},
		"no spatial factor":  {func(p parts) { p[v].SpatialFactor = 0 }, "no usable size"},
		"no latent multiple": {func(p parts) { p[d].LatentMultiple = 0 }, "no usable size"},
		"negative sizes":     {func(p parts) { p[d].LatentMultiple, p[v].SpatialFactor = -1, -1 }, "no usable size"},
		"huge default":       {func(p parts) { p[d].LatentDefaultWidth = math.MaxInt32 }, "no usable size"},
	} {
		p := parts{
			e: {MaxTokens: 8, ContextDim: 6, WeightsBytes: 1},
			d: {ContextDim: 6, LatentChannels: 4, LatentMultiple: 2, LatentDefaultHeight: 6, LatentDefaultWidth: 8, WeightsBytes: 2, Samplers: []string{"euler"}, DefaultSampler: "euler"},
			v: {LatentChannels: 4, SpatialFactor: 8, WeightsBytes: 3, Warnings: []string{"vae: odd"}},
		}
		c.spoil(p)
		given := map[stage.Kind]stage.Component{}
		for kind, component := range p {
			given[kind] = *component
		}
		m := join("tiny", given)
		switch {
		case c.says == "" && (m.Problem != nil || m.SizeMultiple != 16 || m.DefaultHeightPx != 48 || m.DefaultWidthPx != 64 || m.MaxTokens != 8 || !slices.Equal(m.Warnings, []string{"vae: odd"})):
			t.Errorf("%s: %+v", name, m)
		case c.says != "" && (m.Problem == nil || m.Problem.Reason != stage.ModelInvalid || !strings.Contains(m.Problem.Message, c.says)):
			t.Errorf("%s: problem %v, want one that says %q", name, m.Problem, c.says)
		}
	}
}

func TestByDefault(t *testing.T) {
	broken := stage.Errorf(stage.ModelInvalid, "cut off")
	starter, a, b := Model{Name: DefaultModel}, Model{Name: "a"}, Model{Name: "b"}
	for _, c := range []struct {
		models []Model
		want   string
	}{
		{nil, ""},
		{[]Model{a}, "a"},
		{[]Model{a, b}, ""},
		{[]Model{a, starter}, DefaultModel},
		{[]Model{a, {Name: "b", Problem: broken}}, "a"},
		{[]Model{{Name: "a", Problem: broken}}, "a"},
		{[]Model{{Name: "a", Problem: broken}, {Name: "b", Problem: broken}}, ""},
		{[]Model{a, {Name: DefaultModel, Problem: broken}}, DefaultModel}, // whoever expects it is told what is wrong with it
	} {
		if got := byDefault(c.models); got != c.want {
			t.Errorf("%v: %q, want %q", c.models, got, c.want)
		}
	}
}

// TestDiffering: services that have read other files of a model than others of their kind are told of.
func TestDiffering(t *testing.T) {
	f := &Fleet{members: map[residency.StageID]*member{}}
	for id, identity := range map[residency.StageID]string{"d1": "aaaaaaaaaaaaaaaa", "d2": "bbbbbbbbbbbbbbbb", "d3": "", "e1": "cccc", "e2": "cccc"} {
		kind := map[byte]stage.Kind{'d': stage.KindDenoiser, 'e': stage.KindEncoder}[id[0]]
		f.members[id] = &member{id: id, kind: kind, info: &stage.Info{Models: []stage.Component{{Model: "m", Edition: stage.Edition{Identity: identity}}}}}
	}
	want := []string{"the denoiser services have different files of it: d1 has aaaaaaaaaaaa, d2 has bbbbbbbbbbbb"}
	if got := f.Models(); len(got) != 1 || !slices.Equal(got[0].Warnings, want) {
		t.Errorf("%+v, want one model with the warnings %q", got, want)
	}
}
