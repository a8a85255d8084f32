package fleet

import (
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

// adapted are a model with slots for LoRAs, and models beside it; where are the kinds of services that know the LoRA style.
func adapted(where ...stage.Kind) []Model {
	known := func(model string, parts ...string) (out []stage.Component) {
		for _, part := range parts {
			out = append(out, stage.Component{Name: model + "/" + part, Model: model})
		}
		return out
	}
	slot := func(part string) stage.Member { return stage.Member{Component: part, Option: "loras"} }
	recipe := stage.Recipe{
		Task:    "generate",
		Options: []stage.OptionSpec{{Name: "loras", Type: stage.Text, Adapter: "lora", Shape: true}},
		Turns: []stage.Turn{
			{Name: "encode", Kind: stage.KindEncoder, Members: []stage.Member{{Component: "tiny/text"}, slot("text_encoder_lora")}, Options: []string{"loras"}},
			{Name: "denoise", Kind: stage.KindDenoiser, Members: []stage.Member{{Component: "tiny/unet"}, slot("unet_lora")}, Options: []string{"loras"}},
		},
	}
	parts := map[stage.Kind]map[string][]string{
		stage.KindEncoder:  {"tiny": {"text"}, "style": {"text_encoder_lora"}},
		stage.KindDenoiser: {"tiny": {"unet"}, "style": {"unet_lora"}, "detail": {"unet_lora"}, "canny": {"controlnet"}},
	}
	var told []stage.Info
	for _, kind := range stage.Kinds() {
		info := stage.Info{Kind: kind}
		for _, m := range []stage.Model{{Name: "canny", Adapter: "controlnet"}, {Name: "detail", Adapter: "lora"}, {Name: "empty", Adapter: "lora"}, {Name: "style", Adapter: "lora"}, {Name: "tiny", Recipes: []stage.Recipe{recipe}}} {
			if m.Name == "style" && !slices.Contains(where, kind) {
				continue
			}
			info.Models = append(info.Models, m)
			info.Components = append(info.Components, known(m.Name, parts[kind][m.Name]...)...)
		}
		told = append(told, info)
	}
	return Catalog(told)
}

func TestChoose(t *testing.T) {
	for name, c := range map[string]struct {
		loras   string
		where   []stage.Kind
		want    string // members of both turns
		reason  stage.Reason
		says    string
		missing stage.Kind
	}{
		"none":                {"", stage.Kinds(), "tiny/text tiny/unet", "", "", 0},
		"one":                 {"style:0.5", stage.Kinds(), "tiny/text style/text_encoder_lora tiny/unet style/unet_lora", "", "", 0},
		"in order":            {"style,detail", stage.Kinds(), "tiny/text style/text_encoder_lora tiny/unet style/unet_lora detail/unet_lora", "", "", 0},
		"unknown":             {"detail,styl", stage.Kinds(), "", stage.InvalidField, `loras = "styl" is not accepted, expected one of detail, empty, style`, stage.KindEncoder},
		"of another kind":     {"canny", stage.Kinds(), "", stage.InvalidField, "it is a controlnet", 0},
		"a model":             {"tiny", stage.Kinds(), "", stage.InvalidField, "it is a model to draw with", 0},
		"nothing for a model": {"empty", stage.Kinds(), "", stage.InvalidField, "a lora with text_encoder_lora or unet_lora", 0},
		"not in the encoders": {"style", []stage.Kind{stage.KindDenoiser}, "", stage.ModelInvalid, `no encoder service has model "style"`, stage.KindEncoder},
	} {
		models := adapted(c.where...)
		tiny := models[len(models)-1]
		got, missing, err := choose(models, tiny, stage.Options{"loras": stage.TextOption(c.loras)})
		if c.reason != "" {
			if stage.ReasonOf(err) != c.reason || !strings.Contains(err.Error(), c.says) || missing != c.missing {
				t.Errorf("%s: %v, missing %v, want %s that says %q, missing %v", name, err, missing, c.reason, c.says, c.missing)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		turns := got.Recipes[0].Turns
		if members := strings.Join(slices.Concat(turns[0].Components(), turns[1].Components()), " "); members != c.want {
			t.Errorf("%s: %s, want %s", name, members, c.want)
		}
		if err := got.Able(turns); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if len(tiny.Components) != 2 || len(tiny.Recipes[0].Turns[1].Members) != 2 {
			t.Errorf("%s: the model itself was changed", name)
		}
	}
}

// Adapters are listed without a problem, though no service draws with them, and are no model by default.
func TestAdaptersAreNoModels(t *testing.T) {
	models := adapted(stage.KindDenoiser)
	for _, m := range models {
		if m.Problem != nil {
			t.Errorf("%s: %v", m.Name, m.Problem)
		}
	}
	if name := byDefault(models); name != "tiny" {
		t.Errorf("by default it is %q", name)
	}
}

// An adapter of which a part cannot be loaded has that for its problem, since it is of no use without.
func TestBrokenAdapterHasItsProblem(t *testing.T) {
	models := Catalog([]stage.Info{{
		Kind: stage.KindDenoiser, Models: []stage.Model{{Name: "canny", Adapter: "controlnet"}, {Name: "depth", Adapter: "controlnet"}},
		Components: []stage.Component{{Name: "canny/controlnet", Model: "canny", Problem: "a tensor is missing"}, {Name: "depth/controlnet", Model: "depth"}},
	}})
	if p := models[0].Problem; p == nil || p.Message != "a tensor is missing" || p.Reason != stage.ModelInvalid {
		t.Errorf("canny: %v", p)
	}
	if p := models[1].Problem; p != nil {
		t.Errorf("depth: %v", p)
	}
}
