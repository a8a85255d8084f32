package fleet

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// told is what the services of all kinds tell of a model, each with a recipe of its own.
type told struct {
	models     map[stage.Kind]stage.Model
	components map[string]Component
}

// turn is a turn of the recipe that the service of a kind tells.
func (m told) turn(kind stage.Kind, name string) *stage.Turn {
	for i := range m.models[kind].Recipes[0].Turns {
		if t := &m.models[kind].Recipes[0].Turns[i]; t.Name == name {
			return t
		}
	}
	panic("no turn " + name)
}

// spoil changes a component.
func (m told) spoil(name string, change func(*Component)) {
	c := m.components[name]
	change(&c)
	m.components[name] = c
}

func TestJoin(t *testing.T) {
	const e, d, v = stage.KindEncoder, stage.KindDenoiser, stage.KindDecoder
	option := func(m told, name string) *stage.OptionSpec {
		i := slices.IndexFunc(m.models[d].Recipes[0].Options, func(o stage.OptionSpec) bool { return o.Name == name })
		return &m.models[d].Recipes[0].Options[i]
	}
	for name, c := range map[string]struct {
		spoil func(told)
		says  string
	}{
		"good":         {func(told) {}, ""},
		"no decoder":   {func(m told) { delete(m.models, v); delete(m.components, "tiny/vae.decoder") }, `no decoder service has model "tiny" with its vae.decoder`},
		"no denoiser":  {func(m told) { delete(m.models, d) }, `no denoiser service has model "tiny"`},
		"a problem":    {func(m told) { m.spoil("tiny/unet", func(c *Component) { c.Problem = "unet: cut off" }) }, "unet: cut off"},
		"of the model": {func(m told) { m.models[e] = stage.Model{Problem: "no such family"} }, "no such family"},
		"of what is optional": {func(m told) {
			m.spoil("tiny/vae.encoder", func(c *Component) { c.Problem = "cut off" })
			delete(m.components, "tiny/controlnet")
		}, ""},
		"the first problem": {func(m told) {
			m.spoil("tiny/vae.decoder", func(c *Component) { c.Problem = "vae" })
			m.spoil("tiny/text_encoder", func(c *Component) { c.Problem = "text_encoder" })
		}, "text_encoder"},
		"other states": {func(m told) { m.turn(d, "denoise").Takes[0].Shape[2] = "7" }, "do not fit: the encoder gives hidden_states [batch, 8, 6], the denoiser takes hidden_states [batch, 8, 7]"},
		"other states in the encoder": {
			func(m told) { m.turn(e, "encode").Gives[0].Shape[2] = "7" },
			"do not fit: in turn encode the encoder gives hidden_states [batch, 8, 7], the denoiser expects that it gives hidden_states [batch, 8, 6]",
		},
		"other latents": {func(m told) { m.turn(v, "decode").Takes[0].Shape[1] = "16" }, "the decoder takes latents [1, 16, latent_height, latent_width]"},
		"other members": {func(m told) { m.turn(v, "decode").Members[0].Component = "tiny/vae" }, "the decoder needs tiny/vae, the denoiser expects that it needs tiny/vae.decoder"},
		"other media": {func(m told) {
			m.turn(d, "encode").Gives[0].Media, m.turn(e, "encode").Gives[0].Media = "text/plain", "text/plain"
		}, "the encoder gives hidden_states text/plain, the denoiser takes hidden_states [batch, 8, 6]"},
		"another turn":     {func(m told) { m.turn(v, "decode").Name = "paint" }, "in turn decode the decoder needs , the denoiser expects that it needs tiny/vae.decoder"},
		"no multiple size": {func(m told) { option(m, "width").Default.Int = 30 }, `no usable width`},
		"huge default":     {func(m told) { option(m, "height").Default.Int = math.MaxInt32 }, `no usable height`},
		"no such sampler":  {func(m told) { option(m, "sampler").Default.Text = "elsewhere" }, `no usable sampler`},
	} {
		m := told{map[stage.Kind]stage.Model{}, map[string]Component{}}
		for _, kind := range stage.Kinds() {
			m.models[kind] = stage.Model{Name: "tiny", Recipes: []stage.Recipe{stagetest.Recipe("tiny")}}
			for _, turn := range stagetest.Recipe("tiny").Turns {
				for _, name := range turn.Components() {
					m.components[name] = Component{stage.Component{Name: name, Model: "tiny"}, turn.Kind}
				}
			}
		}
		m.spoil("tiny/vae.decoder", func(c *Component) { c.Warnings = []string{"vae: odd"} })
		c.spoil(m)
		got := join("tiny", m.models, m.components)
		switch {
		case c.says == "" && (got.Problem != nil || !slices.Equal(got.Warnings, []string{"vae: odd"})):
			t.Errorf("%s: %v, warnings %q", name, got.Problem, got.Warnings)
		case c.says != "" && (got.Problem == nil || got.Problem.Reason != stage.ModelInvalid || !strings.Contains(got.Problem.Message, c.says)):
			t.Errorf("%s: problem %v, want one that says %q", name, got.Problem, c.says)
		}
	}
}

// TestAble: a job that needs a component which cannot be loaded is told why, others are not.
func TestAble(t *testing.T) {
	r := stagetest.Recipe("tiny")
	m := Model{Name: "tiny", Recipes: []stage.Recipe{r}}
	for _, name := range []string{"text_encoder", "unet", "vae.decoder", "vae.encoder"} {
		m.Components = append(m.Components, Component{Component: stage.Component{Name: "tiny/" + name}})
	}
	m.Components[3].Problem = "the encoder is cut off"
	for with, says := range map[string]string{
		"": "", "init_image": "the encoder is cut off", "control": `no denoiser service has model "tiny" with its controlnet`,
	} {
		err := m.Able(r.For(func(name string) bool { return name == with }))
		if (err == nil) != (says == "") || err != nil && (stage.ReasonOf(err) != stage.ModelInvalid || err.Error() != says) {
			t.Errorf("with %q: %v, want %q", with, err, says)
		}
	}
	if _, err := m.Recipe("paint"); stage.ReasonOf(err) != stage.InvalidField {
		t.Errorf("another task: %v", err)
	}
}

func TestByDefault(t *testing.T) {
	broken := stage.Errorf(stage.ModelInvalid, "cut off")
	a, b := Model{Name: "a"}, Model{Name: "b"}
	for _, c := range []struct {
		models []Model
		want   string
	}{
		{nil, ""},
		{[]Model{a}, "a"},
		{[]Model{a, b}, ""},
		{[]Model{a, {Name: "b", Problem: broken}}, "a"},
		{[]Model{{Name: "a", Problem: broken}}, "a"},
		{[]Model{{Name: "a", Problem: broken}, {Name: "b", Problem: broken}}, ""},
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
		f.members[id] = &member{id: id, kind: kind, info: &stage.Info{
			Kind:       kind,
			Models:     []stage.Model{{Name: "m"}},
			Components: []stage.Component{{Name: "m/" + kind.String(), Model: "m", Edition: stage.Edition{Identity: identity}}},
		}}
	}
	want := []string{"the denoiser services have different files of m/denoiser: d1 has aaaaaaaaaaaa, d2 has bbbbbbbbbbbb"}
	if got := f.Models(); len(got) != 1 || !slices.Equal(got[0].Warnings, want) {
		t.Errorf("%+v, want one model with the warnings %q", got, want)
	}
}

// TestBrokenAdapter: an adapter of which a component cannot be loaded cannot be used, and says why before it is named.
func TestBrokenAdapter(t *testing.T) {
	info := stage.Info{
		Kind: stage.KindDenoiser, Models: []stage.Model{{Name: "canny", Adapter: "controlnet"}, {Name: "cut", Adapter: "controlnet"}},
		Components: []stage.Component{{Name: "canny/controlnet", Model: "canny"}, {Name: "cut/controlnet", Model: "cut", Problem: "data is missing"}},
	}
	for _, m := range Catalog([]stage.Info{info}) {
		if broken := m.Name == "cut"; broken != (m.Problem != nil) || broken && m.Problem.Message != "data is missing" {
			t.Errorf("%s: %v", m.Name, m.Problem)
		}
	}
}
