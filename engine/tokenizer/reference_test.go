package tokenizer

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// files is a tokenizer folder in memory.
type files map[string]string

func (f files) open() (*CLIP, error) {
	m := fstest.MapFS{}
	for name, content := range f {
		m[name] = &fstest.MapFile{Data: []byte(content)}
	}
	return OpenFS(m)
}

// starter is the folder of the starter model, its vocabulary and merges alone.
func starter(t testing.TB) files {
	t.Helper()
	f := files{}
	for _, name := range []string{vocabFile, mergesFile} {
		data, err := os.ReadFile(filepath.Join(repo, "models/starter/tokenizer", name))
		if err != nil {
			t.Fatal(err)
		}
		f[name] = string(data)
	}
	return f
}

// whole is the same vocabulary in a tokenizer.json, of which outline is the rest.
func whole(t testing.TB, f files, outline string) string {
	t.Helper()
	var j map[string]any
	if err := json.Unmarshal([]byte(outline), &j); err != nil {
		t.Fatal(err)
	}
	merges := [][]string{}
	for line := range strings.Lines(f[mergesFile]) {
		if !strings.HasPrefix(line, "#version") {
			merges = append(merges, strings.Fields(line))
		}
	}
	model := j["model"].(map[string]any)
	model["merges"], model["vocab"] = merges, json.RawMessage(f[vocabFile])
	return marshal(t, j)
}

func marshal(t testing.TB, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Every way to write the settings that models in the wild use, in the reference: which tokens a text
// holds, which of them are found before and which after normalization, what pads, which file counts
// when two differ. The first folder also has strings chosen against the normalizer and 100 random ones.
func TestReference(t *testing.T) {
	var golden struct {
		Folders []struct {
			Name            string
			Files           map[string]json.RawMessage
			Start, End, Pad int32
			Size            int
			Cases           []struct {
				Text string
				IDs  []int32
			}
		}
	}
	readJSON(t, "testdata/reference.json", &golden)
	if len(golden.Folders) < 12 {
		t.Fatalf("%d folders, want at least 12", len(golden.Folders))
	}
	for _, g := range golden.Folders {
		t.Run(g.Name, func(t *testing.T) {
			f := starter(t)
			for name, content := range g.Files {
				f[name] = string(content)
				if name == tokenizerFile {
					f[name] = whole(t, f, f[name])
					delete(f, vocabFile)
					delete(f, mergesFile)
				}
			}
			c, err := f.open()
			if err != nil {
				t.Fatal(err)
			}
			if c.Start() != g.Start || c.End() != g.End || c.Pad() != g.Pad || c.VocabSize() != g.Size {
				t.Errorf("start %d, end %d, pad %d, size %d; want %d, %d, %d, %d", c.Start(), c.End(), c.Pad(), c.VocabSize(), g.Start, g.End, g.Pad, g.Size)
			}
			for _, g := range g.Cases {
				check(t, c, g.Text, g.IDs)
			}
		})
	}
}

// sweep is what the reference does with every character there is.
type sweep struct {
	Letters, Spaces, Numbers, Marks [][2]rune
	Normal                          map[string]string
}

// table is which characters are in the ranges.
func table(ranges [][2]rune) []bool {
	t := make([]bool, utf8.MaxRune+1)
	for _, in := range ranges {
		for r := in[0]; r <= in[1]; r++ {
			t[r] = true
		}
	}
	return t
}

// The class, the combining class and the normal form of every character, with the reference's
// versions of Unicode. It fails when the tables in unicode.go do not fit those of Go any more.
func TestEveryCharacter(t *testing.T) {
	var s sweep
	readJSON(t, "testdata/unicode.json", &s)
	normal := map[rune]string{}
	for key, want := range s.Normal {
		r, err := strconv.ParseInt(key, 16, 32)
		if err != nil {
			t.Fatal(err)
		}
		normal[rune(r)] = want
	}
	letters, numbers, spaces, marks := table(s.Letters), table(s.Numbers), table(s.Spaces), table(s.Marks)
	wrong := 0
	for r := rune(0); r <= utf8.MaxRune; r++ {
		if !utf8.ValidRune(r) {
			continue
		}
		want, ok := normal[r]
		if !ok {
			want = string(r)
		}
		class := other
		switch {
		case letters[r]:
			class = letter
		case numbers[r]:
			class = number
		case spaces[r]:
			class = space
		}
		marked := decompose(string(r))[0].class != 0
		got := normalize(string(r))
		if got != want || kindOf(string(r)) != class || marked != marks[r] {
			if wrong++; wrong < 20 {
				t.Errorf("%U: %+q, kind %d, a mark %t; want %+q, kind %d, a mark %t", r, got, kindOf(string(r)), marked, want, class, marks[r])
			}
		}
	}
	if len(normal) < 2000 || wrong > 0 {
		t.Errorf("%d wrong, %d characters with another normal form", wrong, len(normal))
	}
}

// Our NFC against that of x/text, where the two must agree: texts of characters whose classes both
// know, without long runs of marks.
func FuzzNFC(f *testing.F) {
	for _, s := range []string{"e\u0301", "a\u0323\u0301", "\u1100\u1161\u11a8", "\uac00\u11a8", "\u0958\u0344\u212b", "a\u0301\u0323", "\u0915\u093c\u0301", "\u0b47\u0b3e"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		marks := 0
		for _, r := range s {
			if r == utf8.RuneError || r == newComposite || strings.ContainsRune("\U00011935\U00011930", r) {
				t.Skip()
			}
			if norm.NFD.PropertiesString(string(r)).CCC() != 0 {
				marks++
			}
			if unicode.Is(newMarks, r) {
				t.Skip()
			}
		}
		if marks > 10 {
			t.Skip()
		}
		if got, want := string(compose(decompose(s))), norm.NFC.String(s); got != want {
			t.Errorf("%+q: got %+q, want %+q", s, got, want)
		}
		if got, want := nfc(s), norm.NFC.String(s); got != want {
			t.Errorf("%+q: got %+q, want %+q", s, got, want)
		}
	})
}
