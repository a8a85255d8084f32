package stageengine

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

// embeddingFile is a row of the goldens' table of embeddings.
type embeddingFile struct{ File, Group, Expect, Run, Base, Name string }

func embeddingFiles(t *testing.T) (out []embeddingFile) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(formatGoldens, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index struct{ Files []json.RawMessage }
	if err := json.Unmarshal(data, &index); err != nil {
		t.Fatal(err)
	}
	for _, raw := range index.Files {
		var f embeddingFile
		if err := json.Unmarshal(raw, &f); err == nil && f.Group == "embeddings" { // others have lists of files
			out = append(out, f)
		}
	}
	if len(out) != 21 {
		t.Fatalf("%d files", len(out))
	}
	return out
}

// withEmbeddings is a folder with a model and embeddings beside it; it gives the path of the model.
func withEmbeddings(t *testing.T, model string, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	path, err := filepath.Abs(model)
	if err == nil {
		err = os.Symlink(path, filepath.Join(dir, filepath.Base(model)))
	}
	if err == nil {
		err = os.Mkdir(filepath.Join(dir, embeddingsFolder), 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		copyFile(t, file, filepath.Join(dir, embeddingsFolder, filepath.Base(file)))
	}
	return filepath.Join(dir, filepath.Base(model))
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestEmbeddingFiles: every layout leads to the reference's picture, and what cannot be used is refused where its word is.
func TestEmbeddingFiles(t *testing.T) {
	told := ""
	for _, f := range embeddingFiles(t) {
		t.Run(f.File, func(t *testing.T) {
			files := []string{filepath.Join(formatGoldens, f.File)}
			if f.Run == "" {
				refusesWord(t, f, files[0])
				return
			}
			dir, id := formatGoldens, f.Run
			if rest, ok := strings.CutPrefix(id, "sdxl:"); ok {
				dir, id = sdxlGoldens, rest
			}
			for word, file := range map[string]string{"zoo-style": "zoo-style.pt", "<toy>": "toy.safetensors"} {
				if id == "sd-embedding" && f.Name != word {
					files = append(files, filepath.Join(sdxlGoldens, "embeddings", file))
				}
			}
			cases := readCases(t, dir, func(c goldenCase) bool { return c.ID == id })
			if len(cases) != 1 {
				t.Fatalf("%d runs %s", len(cases), id)
			}
			s := openStages(t, withEmbeddings(t, filepath.Join(sdxlGoldens, cases[0].Model), files...))
			told += cases[0].check(t, dir, s, s.recipe(cases[0].Model))
		})
	}
	t.Logf("run, latents' largest error (allowed %g), PNG values off by one and by more:\n%s", runTolerance, told)
}

// refusesWord: the word of a file that cannot be used is refused, and another one is not.
func refusesWord(t *testing.T, f embeddingFile, file string) {
	model := filepath.Base(f.Base)
	s := openStages(t, withEmbeddings(t, filepath.Join(sdxlGoldens, model), file))
	name := filepath.Base(file)
	word := strings.TrimSuffix(name, filepath.Ext(name))
	if name == "bad-two.bin" {
		word = "<b>"
	}
	for _, prompt := range []string{"a fox", "a fox, (" + word + ":1.2)"} {
		_, err := s.draw(t, s.recipe(model), stage.Options{
			"prompt": stage.TextOption(prompt), "steps": stage.IntOption(1), "width": stage.IntOption(32), "height": stage.IntOption(32),
		}, nil, 1)
		if prompt == "a fox" {
			if err != nil {
				t.Errorf("without the word: %v", err)
			}
			continue
		}
		var e *stage.Error
		if !errors.As(err, &e) || e.Reason != stage.InvalidField || e.Metadata["field"] != "prompt" || !strings.Contains(e.Message, word) || !strings.Contains(e.Message, name) || strings.Contains(e.Message, "/") {
			t.Errorf("%v, want one of the prompt that names %q and %q", err, word, name)
		} else {
			t.Log(err)
		}
	}
}

// TestChangedEmbedding: a file that is changed is read anew, and its states are not those that are remembered; the plain syntax
// knows no words.
func TestChangedEmbedding(t *testing.T) {
	style := filepath.Join(sdxlGoldens, "embeddings", "zoo-style.pt")
	path := withEmbeddings(t, filepath.Join(sdxlGoldens, "tiny-sd15"), style)
	encoder := openStages(t, path)[stage.KindEncoder]
	if err := encoder.Load(t.Context(), stage.LoadRequest{Component: "tiny-sd15/text_encoder"}, nil); err != nil {
		t.Fatal(err)
	}
	states := func(syntax string) []float32 {
		t.Helper()
		v, err := encodeAs(t.Context(), encoder, "tiny-sd15", stage.Options{"prompt_syntax": stage.TextOption(syntax)}, "zoo-style fox")
		if err != nil {
			t.Fatal(err)
		}
		return floats(t, v)
	}
	with, plain := states("a1111"), states("plain")
	if slices.Equal(with, plain) {
		t.Error("the plain syntax takes the embedding")
	}
	file := filepath.Join(filepath.Dir(path), embeddingsFolder, "zoo-style.pt")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if without := states("a1111"); !slices.Equal(without, plain) {
		t.Error("an embedding that is gone is taken")
	}
	copyFile(t, filepath.Join(formatGoldens, "embeddings", "learned_embeds.bin"), file) // two other vectors, under another word
	if other := states("a1111"); !slices.Equal(other, plain) {
		t.Error("a file is known by its name, which has the word in it")
	}
	data, err := os.ReadFile(filepath.Join(formatGoldens, "embeddings", "zoo-style.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1] ^= 0x80 // the sign of a number
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), embeddingsFolder, "zoo-style.safetensors"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if other := states("a1111"); slices.Equal(other, plain) || slices.Equal(other, with) {
		t.Error("the vectors of another file are not taken")
	}
	copyFile(t, style, filepath.Join(filepath.Dir(path), embeddingsFolder, "Zoo-Style.pt"))
	copyFile(t, style, file)
	_, err = encodeAs(t.Context(), encoder, "tiny-sd15", stage.Options{}, "zoo-style fox")
	if stage.ReasonOf(err) != stage.InvalidField || !strings.Contains(err.Error(), "with other vectors") {
		t.Errorf("two files of a word: %v", err)
	}
}

// TestLooseEmbeddings: a file that lies beside models is one of them if it can be, and nothing else.
func TestLooseEmbeddings(t *testing.T) {
	path := withEmbeddings(t, filepath.Join(sdxlGoldens, "tiny-sd15"))
	for _, file := range []string{"embeddings/learned_embeds.bin", "embeddings/bad-nan.safetensors", "lora/sd-kohya.pt"} {
		copyFile(t, filepath.Join(formatGoldens, file), filepath.Join(filepath.Dir(path), filepath.Base(file)))
	}
	s := openStages(t, path)
	var words []string
	for _, in := range s[stage.KindEncoder].Library.Embeddings() {
		words = append(words, in.Words...)
	}
	if !slices.Equal(words, []string{"<toy>"}) {
		t.Errorf("words %q", words)
	}
}

// TestEmbeddingOfRefiner: a refiner takes the vectors that an embedding has for the second text encoder.
func TestEmbeddingOfRefiner(t *testing.T) {
	path := withEmbeddings(t, filepath.Join(sdxlGoldens, "tiny-sdxl"), filepath.Join(formatGoldens, "embeddings", "xl", "zoo-style.safetensors"))
	refiner := goldenCase{Model: "tiny-refiner"}.folder(t, moreGoldens)
	s := openStages(t, path, refiner)
	recipe := s.recipe("tiny-sdxl")
	latents := func(prompt string) []float32 {
		t.Helper()
		values, err := s.draw(t, recipe, stage.Options{
			"prompt": stage.TextOption(prompt), "steps": stage.IntOption(4), "width": stage.IntOption(32), "height": stage.IntOption(32), "refiner": stage.TextOption("tiny-refiner:0.5"),
		}, nil, 1)
		if err != nil {
			t.Fatal(err)
		}
		v, _ := values.Get("refiner_hidden_states")
		return floats(t, v.Tensor)
	}
	if slices.Equal(latents("zoo-style fox"), latents("zoo fox")) {
		t.Error("the refiner's text encoder takes no embedding")
	}
}
