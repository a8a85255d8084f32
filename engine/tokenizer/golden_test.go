package tokenizer

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

const repo = "../.."

// open opens a folder that the repository has.
func open(t testing.TB, dir string) *CLIP {
	t.Helper()
	c, err := Open(filepath.Join(repo, dir))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func readJSON(t testing.TB, path string, to any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, to)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// The reference's ids of 37 difficult strings, without padding and as the 77 a pipeline uses, with the
// starter's vocabulary and, where it is at hand, the real one. A wrong order of merges, a character
// class, the normalizer or the cut would show here.
func TestGoldenTokens(t *testing.T) {
	for name, dir := range map[string]string{"starter": "models/starter/tokenizer", "clip": "../shared/assets/tokenizers/clip"} {
		t.Run(name, func(t *testing.T) {
			if _, err := os.Stat(filepath.Join(repo, dir)); name == "clip" && err != nil {
				t.Skip("the real vocabulary is not part of the repository: ", err)
			}
			c := open(t, dir)
			var golden struct {
				Cases []struct {
					Text        string
					IDs, Padded []int32
				}
			}
			readJSON(t, filepath.Join(repo, "testdata/golden/tokens", name+".json"), &golden)
			if len(golden.Cases) < 37 {
				t.Fatalf("%d cases, want at least 37", len(golden.Cases))
			}
			for _, g := range golden.Cases {
				check(t, c, g.Text, g.IDs)
				padded, dropped, err := c.Encode(g.Text, len(g.Padded))
				if err != nil || !slices.Equal(padded, g.Padded) || dropped != max(0, len(g.IDs)-len(g.Padded)) {
					t.Errorf("Encode(%+q) = %v, dropped %d, %v; want %v", g.Text, padded, dropped, err, g.Padded)
				}
			}
		})
	}
}

func check(t *testing.T, c *CLIP, text string, want []int32) {
	t.Helper()
	got, err := c.Tokenize(text)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("Tokenize(%+q) = %v, %v; want %v", text, got, err, want)
	}
}

// The ids the tiny pipelines gave their text encoders: tiny-sd15 is in the layout of vocab.json and
// merges.txt, tiny-v has tokenizer.json alone.
func TestGoldenPipelines(t *testing.T) {
	for _, name := range []string{"tiny-sd15", "tiny-v"} {
		dir := filepath.Join("testdata/golden", name)
		c := open(t, filepath.Join(dir, "tokenizer"))
		var index struct{ Prompts []string }
		readJSON(t, filepath.Join(repo, dir, "golden/index.json"), &index)
		want := readIDs(t, filepath.Join(repo, dir, "golden/tensors.safetensors"), "text.ids")
		if len(index.Prompts) == 0 || len(want) != 77*len(index.Prompts) {
			t.Fatalf("%s: %d ids of %d prompts", name, len(want), len(index.Prompts))
		}
		for i, prompt := range index.Prompts {
			got, _, err := c.Encode(prompt, 77)
			if err != nil || !slices.Equal(got, want[77*i:77*(i+1)]) {
				t.Errorf("%s: Encode(%q) = %v, %v; want %v", name, prompt, got, err, want[77*i:77*(i+1)])
			}
		}
	}
}

// readIDs reads an int64 tensor of a safetensors file.
func readIDs(t *testing.T, path, name string) []int32 {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	header := data[8 : 8+binary.LittleEndian.Uint64(data)]
	var tensors map[string]struct {
		DType   string
		Offsets [2]int `json:"data_offsets"`
	}
	if err := json.NewDecoder(bytes.NewReader(header)).Decode(&tensors); err != nil || tensors[name].DType != "I64" {
		t.Fatalf("%s: %v, %s is %q", path, err, name, tensors[name].DType)
	}
	raw := data[8+len(header):][tensors[name].Offsets[0]:tensors[name].Offsets[1]]
	ids := make([]int32, len(raw)/8)
	for i := range ids {
		ids[i] = int32(binary.LittleEndian.Uint64(raw[8*i:]))
	}
	return ids
}
