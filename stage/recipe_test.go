package stage_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

// recipe has an optional turn, an optional member, and a value in units.
func recipe() stage.Recipe {
	member := func(name, with string) stage.Member { return stage.Member{Component: "m/" + name, With: with} }
	return stage.Recipe{
		Family: "toy", Task: "generate",
		Inputs:  []stage.Port{{Name: "photo", Media: "image/*", Optional: true}, {Name: "control", Media: "image/*", Optional: true}},
		Options: []stage.OptionSpec{{Name: "width", Type: stage.Int, Shape: true}, {Name: "frames", Type: stage.Int}},
		Turns: []stage.Turn{
			{Name: "encode", Kind: stage.KindEncoder, Members: []stage.Member{member("text", "")}, Gives: []stage.Port{{Name: "states"}}},
			{Name: "look", Kind: stage.KindDecoder, Members: []stage.Member{member("eye", "")}, Takes: []stage.Port{{Name: "photo"}}, Gives: []stage.Port{{Name: "moments"}}, Optional: true},
			{
				Name: "denoise", Kind: stage.KindDenoiser, Members: []stage.Member{member("net", ""), member("control", "control")},
				Takes: []stage.Port{{Name: "states"}, {Name: "moments", Optional: true}, {Name: "control", Optional: true}},
				Gives: []stage.Port{{Name: "latents", Units: "frames"}}, Options: []string{"width", "frames"}, EachImage: true,
			},
			{Name: "decode", Kind: stage.KindDecoder, Members: []stage.Member{member("vae", "")}, Takes: []stage.Port{{Name: "latents"}}, Gives: []stage.Port{{Name: "image", Media: "image/*"}}, EachImage: true},
		},
	}
}

func TestSteps(t *testing.T) {
	for _, test := range []struct {
		has    []string
		images int
		want   string
	}{
		{nil, 1, "encode[text]0.0 denoise[net]0.0 decode[vae]0.0 decode[vae]0.1"},
		{nil, 2, "encode[text]0.0 denoise[net]0.0 decode[vae]0.0 decode[vae]0.1 denoise[net]1.0 decode[vae]1.0 decode[vae]1.1"},
		{[]string{"photo", "control"}, 1, "encode[text]0.0 look[eye]0.0 denoise[net,control]0.0 decode[vae]0.0 decode[vae]0.1"},
	} {
		var got []string
		steps := recipe().Steps(test.images, func(string) int { return 2 }, func(v string) bool { return slices.Contains(test.has, v) })
		for _, s := range steps {
			var members []string
			for _, c := range s.Turn.Components() {
				members = append(members, strings.TrimPrefix(c, "m/"))
			}
			got = append(got, fmt.Sprintf("%s[%s]%d.%d", s.Turn.Name, strings.Join(members, ","), s.Image, s.Unit))
		}
		if got := strings.Join(got, " "); got != test.want {
			t.Errorf("%d images with %v:\n%s, want\n%s", test.images, test.has, got, test.want)
		}
	}
}

func TestShape(t *testing.T) {
	r := recipe()
	got := r.Shape(r.Turns[2], stage.Options{"width": stage.IntOption(64), "frames": stage.IntOption(2), "prompt": stage.TextOption("x")})
	if len(got) != 1 || got["width"].Int != 64 {
		t.Errorf("the shape of a turn is %v, want the width", got)
	}
}

func TestWorksWith(t *testing.T) {
	turn := stage.Turn{Members: []stage.Member{{Component: "m/net"}, {Component: "m/control", With: "picture"}, {Component: "m/style"}}}
	like := func(component, member string) bool {
		return component == member || component == "other/style" && member == "m/style"
	}
	for name, c := range map[string]struct {
		components     []string
		given, without bool // with the picture, and without; a plan accepts what either does
	}{
		"all":           {[]string{"m/net", "m/control", "m/style"}, true, false},
		"no control":    {[]string{"m/net", "m/style"}, false, true},
		"an equal one":  {[]string{"m/net", "other/style"}, false, true},
		"another order": {[]string{"m/control", "m/net", "m/style"}, false, false},
		"one missing":   {[]string{"m/net", "m/control"}, false, false},
		"one twice":     {[]string{"m/net", "m/net", "m/style"}, false, false},
		"one more":      {[]string{"m/net", "m/style", "m/style"}, false, false},
		"another":       {[]string{"other/net", "m/style"}, false, false},
		"none":          {nil, false, false},
	} {
		given := turn.WorksWith(c.components, func(string) bool { return true }, like)
		without := turn.WorksWith(c.components, func(string) bool { return false }, like)
		plan := turn.WorksWith(c.components, nil, like)
		if given != c.given || without != c.without || plan != (given || without) {
			t.Errorf("%s: accepted with the picture %v, without %v, by a plan %v", name, given, without, plan)
		}
	}
}

// An optional turn of slots alone is taken where somebody is in them, and nobody else's is ever left out for that.
func TestOptionalSlots(t *testing.T) {
	r := recipe()
	slot := []stage.Member{{Component: "net", Option: "helper"}}
	r.Turns = append(r.Turns, stage.Turn{Name: "help", Kind: stage.KindDenoiser, Members: slot, Optional: true}, stage.Turn{Name: "must", Kind: stage.KindDenoiser, Members: slot})
	for text, want := range map[string]string{"": "encode denoise decode must", "friend": "encode denoise decode help must"} {
		chosen := r.Choose(stage.Options{"helper": stage.TextOption(text)}, func(string, string) bool { return true })
		for _, r := range []stage.Recipe{chosen, r} {
			var names []string
			for _, t := range r.For(func(string) bool { return false }) {
				names = append(names, t.Name)
			}
			if got := strings.Join(names, " "); got != want {
				t.Errorf("with %q: %s, want %s", text, got, want)
			}
			want = "encode denoise decode must" // before anybody is chosen
		}
	}
}
