package stageengine

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

// weightedCase is the run of an id, with its prompts as the goldens have them: edits are text there.
func weightedCase(t *testing.T, id string) goldenCase {
	t.Helper()
	cases := readCases(t, sdxlGoldens, func(c goldenCase) bool { return c.ID == id })
	if len(cases) != 1 {
		t.Fatalf("%d runs %s", len(cases), id)
	}
	return cases[0]
}

// TestWeightedRuns draws with weighted prompts, also ones of several chunks.
func TestWeightedRuns(t *testing.T) {
	told := ""
	for _, id := range []string{"sd-weights-0", "sd-weights-1", "xl-weights-0"} {
		c := weightedCase(t, id)
		dir := c.folder(t, sdxlGoldens)
		s := openStages(t, dir)
		told += c.check(t, sdxlGoldens, s, s.recipe(filepath.Base(dir)))
	}
	t.Logf("run, latents' largest error (allowed %g), PNG values off by one and by more:\n%s", runTolerance, told)
}

// TestScheduledPrompt: every step is led by the text that its prompt is then, in every syntax by what it says.
func TestScheduledPrompt(t *testing.T) {
	for _, id := range []string{"sd-weights-1", "xl-weights-0"} {
		t.Run(id, func(t *testing.T) {
			c := weightedCase(t, id)
			s := openStages(t, filepath.Join(sdxlGoldens, c.Model))
			latents := func(syntax, prompt, negative string) []float32 {
				t.Helper()
				o := c.options(0)
				o["prompt"], o["prompt_syntax"] = stage.TextOption(prompt), stage.TextOption(syntax)
				if delete(o, "negative_prompt"); negative != "" {
					o["negative_prompt"] = stage.TextOption(negative)
				}
				values, err := s.draw(t, s.recipe(c.Model), o, nil, c.Seed)
				if err != nil {
					t.Fatal(err)
				}
				v, _ := values.Get("latents")
				return floats(t, v.Tensor)
			}
			fox, owl, both := latents("a1111", "a fox", "dark"), latents("a1111", "an owl", "dark"), latents("a1111", "[a fox:an owl:2]", "dark")
			if slices.Equal(fox, both) || slices.Equal(owl, both) {
				t.Error("a prompt that changes leads to what one of its texts does")
			}
			for what, c := range map[string]struct{ a, b []float32 }{
				"one that changes behind the last of four steps":      {fox, latents("a1111", "[a fox:an owl:3]", "dark")},
				"one that changes at once":                            {owl, latents("a1111", "[a fox:an owl:0]", "[x:dark:0]")},
				"a fraction":                                          {both, latents("a1111", "[a fox:an owl:0.5]", "dark")},
				"no negative prompt":                                  {latents("a1111", "a fox", ""), latents("a1111", "[a fox:an owl:3]", "")},
				"a longer text":                                       {latents("a1111", "[a fox:an owl BREAK x:0]", "dark"), latents("a1111", "an owl BREAK x", "dark")},
				"what changes is text where weights are all there is": {latents("weights", "[a fox:an owl:2]", "dark"), latents("a1111", "[a fox\\:an owl\\:2]", "dark")},
				"brackets are text where everything is":               {latents("plain", "(a fox)", "dark"), latents("a1111", "\\(a fox\\)", "dark")},
				"a negative prompt that changes behind the last step": {fox, latents("a1111", "a fox", "[dark:night:3]")},
				"alternatives that are the same":                      {fox, latents("a1111", "[a fox|a fox]", "dark")},
			} {
				if !slices.Equal(c.a, c.b) {
					t.Errorf("%s: other latents", what)
				}
			}
		})
	}
}

// TestPromptsRefused: what a prompt has too much of is told by the option that it is in.
func TestPromptsRefused(t *testing.T) {
	s := openStages(t, filepath.Join(sdxlGoldens, "tiny-sd15"))
	encoder := s[stage.KindEncoder]
	if err := encoder.Load(t.Context(), stage.LoadRequest{Component: "tiny-sd15/text_encoder"}, nil); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct{ option, text, accepted string }{
		"chunks":  {"prompt", manyBreaks(33), "at most 32 chunks of 75 tokens"},
		"weights": {"negative_prompt", "(a:2000)", "weights from -1000 to 1000"},
		"number":  {"prompt", "(a:1.2.3)", "a number between the colon and the bracket, or \\) for a bracket that is text"},
		"texts":   {"prompt", "[" + manyBreaks(30) + "|b|c|d|e]", "at most 128 chunks of all texts, as many of each as the longest one has"},
	} {
		o := stage.Options{"guidance_scale": stage.FloatOption(2), c.option: stage.TextOption(c.text)}
		_, err := encoder.Work(t.Context(), stage.WorkRequest{Turn: "encode", Components: []string{"tiny-sd15/text_encoder"}, Options: o}, stage.Observer{})
		wantInvalid(t, what, err, c.option, c.accepted)
	}
}

func manyBreaks(chunks int) string { return strings.Repeat("x BREAK ", chunks-1) + "x" }

// wantInvalid is an error that names a field, and what would be accepted.
func wantInvalid(t *testing.T, what string, err error, field, accepted string) {
	t.Helper()
	var e *stage.Error
	if !errors.As(err, &e) || e.Reason != stage.InvalidField || e.Metadata["field"] != field || e.Metadata["accepted"] != accepted {
		t.Errorf("%s: %v, want one of %s that accepts %s", what, err, field, accepted)
	}
}
