package prompt_test

import (
	"encoding/json"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/triptych-serving/triptych/engine/prompt"
	"github.com/triptych-serving/triptych/engine/tokenizer"
)

const goldens = "../../testdata/golden/sdxl/"

// golden is a prompt as the reference reads it.
type golden struct {
	Prompt string
	Parsed [][2]any
	Chunks []goldenChunk
	XL     []goldenChunk `json:"chunks_xl2"`
}

type goldenChunk struct {
	IDs        []int32
	Weights    []float64
	Embeddings [][2]any
}

// TestGoldens: parts, weights and ids are those of the reference.
func TestGoldens(t *testing.T) {
	data, err := os.ReadFile(goldens + "prompts.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []golden
	if err := json.Unmarshal(data, &all); err != nil || len(all) == 0 {
		t.Fatalf("%d prompts: %v", len(all), err)
	}
	sd, xl := open(t, "tiny-sd15/tokenizer"), open(t, "tiny-sdxl/tokenizer_2")
	for _, g := range all {
		parts, err := prompt.Parse(g.Prompt)
		if err != nil {
			t.Errorf("%q: %v", g.Prompt, err)
			continue
		}
		var parsed [][2]any
		for _, p := range parts {
			parsed = append(parsed, [2]any{p.Text, p.Weight})
		}
		if diff := cmp.Diff(g.Parsed, parsed); diff != "" {
			t.Errorf("%q: parts (-want +got)\n%s", g.Prompt, diff)
		}
		compare(t, "SD of "+g.Prompt, g.Chunks, parts, sd, map[string]int{"zoo-style": 3, "<toy>": 2})
		compare(t, "SDXL of "+g.Prompt, g.XL, parts, xl, map[string]int{"zoo-style": 2})
	}
}

func open(t testing.TB, dir string) *tokenizer.CLIP {
	t.Helper()
	c, err := tokenizer.Open(goldens + dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func compare(t *testing.T, what string, want []goldenChunk, parts []prompt.Part, c *tokenizer.CLIP, vectors map[string]int) {
	t.Helper()
	var embeddings []prompt.Embedding
	for name, n := range vectors {
		tokens, err := c.Words(name)
		if err != nil {
			t.Fatal(err)
		}
		embeddings = append(embeddings, prompt.Embedding{Name: name, Tokens: tokens, Vectors: n})
	}
	chunks, err := prompt.Split(parts, c, embeddings, 77)
	if err != nil || len(chunks) != len(want) {
		t.Errorf("%s: %d chunks, %v, want %d", what, len(chunks), err, len(want))
		return
	}
	for i, w := range want {
		var placed []prompt.Placed
		for _, e := range w.Embeddings {
			placed = append(placed, prompt.Placed{At: 1 + int(e[0].(float64)), Name: e[1].(string)})
		}
		if got := chunks[i]; !slices.Equal(got.IDs, w.IDs) || !slices.Equal(got.Weights, w.Weights) || !slices.Equal(got.Embeddings, placed) {
			t.Errorf("%s: chunk %d (-want +got)\n%s", what, i, cmp.Diff(prompt.Chunk{IDs: w.IDs, Weights: w.Weights, Embeddings: placed}, got))
		}
	}
}
