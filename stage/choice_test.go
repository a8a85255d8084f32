package stage_test

import (
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

func TestParseChoices(t *testing.T) {
	for text, want := range map[string][]stage.Choice{
		"":                                 nil,
		" ":                                nil,
		"style":                            {{Name: "style"}},
		"style:0.8,detail":                 {{Name: "style", Numbers: []float64{0.8}}, {Name: "detail"}},
		" canny : 0.8 : 0 :0.6 , depth v2": {{Name: "canny", Numbers: []float64{0.8, 0, 0.6}}, {Name: "depth v2"}},
		"a:-1e-3":                          {{Name: "a", Numbers: []float64{-0.001}}},
	} {
		if got, err := stage.ParseChoices(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for text, says := range map[string]string{
		",":                   "name 1 is empty",
		"a,":                  "name 2 is empty",
		":1":                  "name 1 is empty",
		"a:":                  `"" behind "a" is no number`,
		"a:x":                 `"x" behind "a" is no number`,
		"a:NaN":               "no number",
		"a:inf":               "no number",
		"a:1e999":             "no number",
		"a,b, a:2":            `"a" is named twice`,
		"a:1:2:3:4:5:6:7:8:9": `more than 8 numbers behind "a"`,
		"a" + strings.Repeat(",b", stage.MaxChoices): "named twice",
		"0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16":   "more than 16 names",
	} {
		if got, err := stage.ParseChoices(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, %v, want an error that says %q", text, got, err, says)
		}
	}
}

// What is read has the bounds that are promised, and is read the same again once it has been written.
func FuzzParseChoices(f *testing.F) {
	for _, text := range []string{"", "style:0.8,detail", "canny:0.8:0:0.6,depth", "a:1e999", "a:0x1p-2", "a,a", "a: 1_000"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := stage.ParseChoices(text)
		if err != nil {
			if len(err.Error()) > 1000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		var written []string
		seen := map[string]bool{}
		for _, c := range got {
			if c.Name == "" || seen[c.Name] {
				t.Errorf("%q: the name %q, again %v", text, c.Name, seen[c.Name])
			}
			seen[c.Name] = true
			for _, n := range c.Numbers {
				if n-n != 0 || math.IsNaN(n) {
					t.Errorf("%q: the number %v", text, n)
				}
			}
			written = append(written, c.String())
		}
		again, err := stage.ParseChoices(strings.Join(written, ","))
		if err != nil || !reflect.DeepEqual(got, again) || len(got) > stage.MaxChoices {
			t.Errorf("%q was read as %v, then %v: %v", text, got, again, err)
		}
	})
}

func TestChoose(t *testing.T) {
	r := recipe()
	r.Turns[0].Members = append(r.Turns[0].Members, stage.Member{Component: "text_lora", Option: "loras"})
	r.Turns[2].Members = slices.Insert(r.Turns[2].Members, 1,
		stage.Member{Component: "net_lora", Option: "loras"}, stage.Member{Component: "hint", With: "control", Option: "hints"})
	parts := []string{"style/net_lora", "style/text_lora", "detail/net_lora", "canny/hint"}
	has := func(model, part string) bool { return slices.Contains(parts, model+"/"+part) }
	for text, test := range map[string]struct {
		options stage.Options
		want    []string // of encode and denoise
	}{
		"nothing":  {nil, []string{"m/text", "m/net,m/control"}},
		"one":      {stage.Options{"loras": stage.TextOption("detail:0.5")}, []string{"m/text", "m/net,detail/net_lora,m/control"}},
		"both":     {stage.Options{"loras": stage.TextOption("style,detail:2")}, []string{"m/text,style/text_lora", "m/net,style/net_lora,detail/net_lora,m/control"}},
		"in order": {stage.Options{"loras": stage.TextOption("detail,style"), "hints": stage.TextOption("canny")}, []string{"m/text,style/text_lora", "m/net,detail/net_lora,style/net_lora,canny/hint,m/control"}},
		"unknown":  {stage.Options{"loras": stage.TextOption("other")}, []string{"m/text", "m/net,m/control"}},
	} {
		chosen := r.Choose(test.options, has)
		for i, turn := range []stage.Turn{chosen.Turns[0], chosen.Turns[2]} {
			if got := strings.Join(turn.Components(), ","); got != test.want[i] {
				t.Errorf("%s: %s works with %s, want %s", text, turn.Name, got, test.want[i])
			}
			if slices.ContainsFunc(turn.Members, func(m stage.Member) bool { return m.Option != "" }) {
				t.Errorf("%s: a slot is left in %v", text, turn.Members)
			}
		}
	}
	without := r.Choose(stage.Options{"hints": stage.TextOption("canny")}, has).For(func(v string) bool { return v == "photo" })
	if got := strings.Join(without[2].Components(), ","); got != "m/net" {
		t.Errorf("without its value, a slot has %s", got)
	}
	if n := len(r.Turns[2].Members); n != 4 {
		t.Errorf("the recipe itself was changed: %d members", n)
	}
}

// Each model that an option names has its input, and no input is for none.
func TestCheckInputs(t *testing.T) {
	r := stage.Recipe{Options: []stage.OptionSpec{{Name: "steps", Type: stage.Int}, {Name: "nets", Type: stage.Text, Adapter: "net", Inputs: []string{"photo", "photo_2"}}}}
	for _, c := range []struct{ nets, has, field string }{
		{"", "", ""},
		{"a", "photo", ""},
		{"a:0.5,b", "photo photo_2", ""},
		{"a", "", "photo"},
		{"a,b", "photo", "photo_2"},
		{"", "photo", "photo"},
		{"a", "photo photo_2", "photo_2"},
		{"a,b,c", "photo photo_2", "nets"},
	} {
		has := func(input string) bool { return slices.Contains(strings.Fields(c.has), input) }
		err := r.CheckInputs(stage.Options{"nets": stage.TextOption(c.nets)}, has)
		var refused *stage.Error
		if got := errors.As(err, &refused); got != (c.field != "") || got && refused.Metadata["field"] != c.field {
			t.Errorf("%q with %q: %v, want %q to be refused", c.nets, c.has, err, c.field)
		}
	}
}
