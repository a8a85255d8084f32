package stage_test

import (
	"maps"
	"math"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

func TestOptionSpecCheck(t *testing.T) {
	side := stage.OptionSpec{Name: "width", Type: stage.Int, Max: 4096, Multiple: 64, Unit: "pixels", Refused: stage.SizeUnsupported}
	steps := stage.OptionSpec{Name: "steps", Type: stage.Int, Min: 1, Max: 1000}
	scale := stage.OptionSpec{Name: "guidance_scale", Type: stage.Float, Max: 100}
	sampler := stage.OptionSpec{Name: "sampler", Type: stage.Text, Choices: []string{"ddim", "euler"}, Refused: stage.SamplerUnsupported, Problem: "its own is unknown"}
	prompt := stage.OptionSpec{Name: "prompt", Type: stage.Text, Max: 8}
	loras := stage.OptionSpec{Name: "loras", Type: stage.Text, Max: 32, Adapter: "lora"}
	for _, test := range []struct {
		spec   stage.OptionSpec
		value  stage.Option
		reason stage.Reason // empty is accepted
		says   string
	}{
		{side, stage.IntOption(512), "", ""},
		{side, stage.IntOption(500), stage.SizeUnsupported, "448 or 512"},
		{side, stage.FloatOption(512), stage.SizeUnsupported, "type int"},
		{steps, stage.IntOption(1), "", ""},
		{steps, stage.IntOption(0), stage.InvalidField, "1 to 1000"},
		{scale, stage.FloatOption(0), "", ""},
		{scale, stage.FloatOption(math.NaN()), stage.InvalidField, "a number from 0 to 100"},
		{scale, stage.FloatOption(101), stage.InvalidField, "a number from 0 to 100"},
		{sampler, stage.TextOption("euler"), "", ""},
		{sampler, stage.TextOption("k"), stage.SamplerUnsupported, "one of ddim, euler"},
		{prompt, stage.TextOption("12345678"), "", ""},
		{prompt, stage.TextOption("123456789"), stage.InvalidField, "at most 8 bytes"},
		{prompt, stage.TextOption("\xff"), stage.InvalidField, "UTF-8"},
		{prompt, stage.TextOption("a\x00"), stage.InvalidField, "NUL"},
		{loras, stage.TextOption(""), "", ""},
		{loras, stage.TextOption("style:0.8, detail"), "", ""},
		{loras, stage.TextOption("style:much"), stage.InvalidField, `names of models of kind lora, such as name:0.8,other, but "much" behind "style" is no number`},
	} {
		err := test.spec.Check("field", test.value)
		if stage.ReasonOf(err) != test.reason || err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s = %v: %v, want %q that says %q", test.spec.Name, test.value, err, test.reason, test.says)
		}
	}
	if err := sampler.Missing("sampler"); err.Reason != stage.SamplerUnsupported || !strings.Contains(err.Message, "one of ddim, euler, since its own is unknown") {
		t.Errorf("an option that is missing: %v", err)
	}
}

// TestNamed: choices are found by other names, and by their own in capitals, where there are other names at all.
func TestNamed(t *testing.T) {
	sampler := stage.OptionSpec{Name: "sampler", Type: stage.Text, Choices: []string{"euler", "dpmpp_sde"}, Aliases: map[string]stage.Alias{
		"k_euler": {Choice: "euler"}, "dpm++ sde karras": {Choice: "dpmpp_sde", Others: map[string]string{"schedule": "karras"}}, "gone": {Choice: "not here"},
	}}
	format := stage.OptionSpec{Name: "format", Type: stage.Text, Choices: []string{"png"}}
	for _, c := range []struct {
		spec        stage.OptionSpec
		said, named string
		others      map[string]string
	}{
		{sampler, "euler", "euler", nil},
		{sampler, "Euler", "euler", nil},
		{sampler, " K_Euler ", "euler", nil},
		{sampler, "DPM++ SDE Karras", "dpmpp_sde", map[string]string{"schedule": "karras"}},
		{sampler, "gone", "gone", nil},
		{sampler, "Turbo", "Turbo", nil},
		{format, "PNG", "PNG", nil},
	} {
		if named, others := c.spec.Named(stage.TextOption(c.said)); named != stage.TextOption(c.named) || !maps.Equal(others, c.others) {
			t.Errorf("%s %q: %v, %v, want %s, %v", c.spec.Name, c.said, named, others, c.named, c.others)
		}
	}
	if named, _ := sampler.Named(stage.IntOption(3)); named != stage.IntOption(3) {
		t.Errorf("a number became %v", named)
	}
}
