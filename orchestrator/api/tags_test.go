package api

import (
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

func TestLift(t *testing.T) {
	r := stage.Recipe{Options: []stage.OptionSpec{
		{Name: "prompt", Type: stage.Text}, {Name: "loras", Type: stage.Text, Adapter: "lora", Tag: "lora", InTexts: []string{"prompt"}},
	}}
	for prompt, want := range map[string][3]string{ // loras before, prompt and loras after
		"a cat":                      {"", "a cat", ""},
		"a cat <lora:style:0.8>":     {"", "a cat", "style:0.8"},
		"<lora:b>a <lora:a:-1> cat ": {"x:2", "a  cat", "x:2,b,a:-1"},
		"a <lyco:x> <cat>":           {"y", "a <lyco:x> <cat>", "y"},
	} {
		given := stage.Options{"prompt": stage.TextOption(prompt)}
		if want[0] != "" {
			given["loras"] = stage.TextOption(want[0])
		}
		if err := lift(r, given); err != nil || given["prompt"].Text != want[1] || given["loras"].Text != want[2] {
			t.Errorf("%q: %q with %q, %v; want %q", prompt, given["prompt"].Text, given["loras"].Text, err, want)
		}
	}
	err := lift(stage.Recipe{Options: r.Options[:1]}, stage.Options{"prompt": stage.TextOption("a cat <lora:style:0.8>")})
	if stage.ReasonOf(err) != stage.InvalidField || !strings.Contains(err.Error(), "<lora:style:0.8>") {
		t.Errorf("a LoRA of a model that takes none: %v", err)
	}
	for _, prompt := range []string{"<lora:", "<lora:>", "a <lora:x", "<lora:a,b>", "<lora:a:b>", "<lora:a:nan>"} {
		err := lift(r, stage.Options{"prompt": stage.TextOption(prompt)})
		if stage.ReasonOf(err) != stage.InvalidField || !strings.Contains(err.Error(), "expected <lora:NAME:NUMBER>") {
			t.Errorf("%q: %v", prompt, err)
		}
	}
}
