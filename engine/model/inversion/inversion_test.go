package inversion_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/triptych-serving/triptych/engine/model/inversion"
)

const (
	sdxl    = "../../../testdata/golden/sdxl/embeddings/"
	formats = "../../../testdata/golden/formats/embeddings/"
)

// TestLayouts: words, vectors and widths of every layout.
func TestLayouts(t *testing.T) {
	for file, want := range map[string]struct {
		words  []string
		n      int
		widths []int // nil of a file that is refused
	}{
		sdxl + "zoo-style.pt":                                     {[]string{"zoo-style"}, 3, []int{32}},
		sdxl + "toy.bin":                                          {[]string{"<toy>"}, 2, []int{32}},
		sdxl + "zoo-style-xl.safetensors":                         {[]string{"zoo-style-xl"}, 2, []int{32, 48}},
		formats + "paramdict/zoo-style.pt":                        {[]string{"zoo-style"}, 3, []int{32}},
		formats + "zoo-style.safetensors":                         {[]string{"zoo-style"}, 3, []int{32}},
		formats + "one-vector.bin":                                {[]string{"<one>"}, 1, []int{32}},
		formats + "xl/zoo-style.safetensors":                      {[]string{"zoo-style"}, 2, []int{32, 48}},
		formats + "xl-text_encoders/zoo-style.safetensors":        {[]string{"zoo-style"}, 2, []int{32, 48}},
		formats + "bad-76.safetensors":                            {[]string{"bad-76"}, 76, []int{32}},
		formats + "bad-two.bin":                                   {[]string{"<a>", "<b>", "bad-two"}, 0, nil},
		formats + "bad-nan.safetensors":                           {[]string{"bad-nan"}, 0, nil},
		formats + "../lora/sd-bundle-emb.safetensors":             {[]string{"sd-bundle-emb"}, 0, nil},
		formats + "../../sdxl/tiny-sd15/unet/missing.safetensors": {[]string{"missing"}, 0, nil},
	} {
		in := inversion.Read(file)
		var widths []int
		for _, v := range in.Encoders {
			widths = append(widths, v.Width)
			if v.N != want.n || len(v.Values) != v.N*v.Width {
				t.Errorf("%s: %d vectors with %d values", file, v.N, len(v.Values))
			}
		}
		var e *inversion.Error
		if !slices.Equal(in.Words, want.words) || !slices.Equal(widths, want.widths) || (want.widths == nil) != errors.As(in.Err, &e) {
			t.Errorf("%s: words %q, widths %v, %v", file, in.Words, widths, in.Err)
		}
		if e != nil && (e.File != filepath.Base(file) || e.Expected == "" || e.Got == "") {
			t.Errorf("%s: %v", file, e)
		}
	}
}

// TestWords: a word is that of a file that fits, however it is written.
func TestWords(t *testing.T) {
	one, two := inversion.Vectors{N: 1, Width: 1, Values: []float32{1}}, inversion.Vectors{N: 1, Width: 1, Values: []float32{2}}
	file := func(name, word string, v ...inversion.Vectors) *inversion.Inversion {
		return &inversion.Inversion{File: name, Words: []string{word}, Encoders: v}
	}
	got := inversion.Words([]*inversion.Inversion{
		file("a", "Style", one, one), file("b", "style", one), file("c", "style", one), file("d", "toy", one), file("e", "toy", two), file("f", "xl", one, one),
	}, func(in *inversion.Inversion) error {
		if len(in.Encoders) != 1 {
			return &inversion.Error{File: in.File}
		}
		return nil
	})
	for word, want := range map[string]struct {
		file    string
		refused bool
	}{"style": {"b", false}, "toy": {"d", true}, "xl": {"f", true}} {
		if in := got[word]; in.File != want.file || (in.Refused != nil) != want.refused {
			t.Errorf("%s: file %s, %v", word, in.File, in.Refused)
		}
	}
	if len(got) != 3 {
		t.Errorf("%d words", len(got))
	}
}

func FuzzRead(f *testing.F) {
	for _, file := range []string{sdxl + "zoo-style.pt", sdxl + "toy.safetensors", formats + "xl/zoo-style.safetensors", formats + "bad-two.bin", formats + "bad-lengths.safetensors"} {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "word.bin")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		in := inversion.Read(path)
		if in.Err != nil {
			if len(in.Words) == 0 || in.Encoders != nil {
				t.Errorf("refused with %d words and %d encoders", len(in.Words), len(in.Encoders))
			}
			return
		}
		if len(in.Words) != 1 || len(in.Encoders) < 1 || len(in.Encoders) > 2 {
			t.Errorf("%d words, %d encoders", len(in.Words), len(in.Encoders))
		}
		for _, v := range in.Encoders {
			for _, x := range v.Values {
				if x-x != 0 {
					t.Errorf("values %v", x)
				}
			}
		}
	})
}
