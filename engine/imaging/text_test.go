package imaging

import (
	"bytes"
	"errors"
	"image/png"
	"slices"
	"strings"
	"testing"
)

func TestTextRoundTrip(t *testing.T) {
	texts := []Text{
		{"parameters", "a café at dusk\nSteps: 20, Sampler: Euler a, Seed: 1"}, // Latin-1
		{"parameters", "夕暮れの喫茶店 🌆"},
		{"Schlüssel", ""},
		{strings.Repeat("k", 79), strings.Repeat("v", 1<<20)},
	}
	img := FromFloats(smooth(3, 4), 3, 4)
	data, err := Encode(img, Options{Format: PNG, Text: texts})
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReadText(data)
	if err != nil || !slices.Equal(got, texts) {
		t.Errorf("%.300v, %v", got, err)
	}
	if n := bytes.Count(data, []byte("tEXt")); n != 3 {
		t.Errorf("%d tEXt chunks, want 3", n)
	}
	if n := bytes.Count(data, []byte("iTXt")); n != 1 {
		t.Errorf("%d iTXt chunks, want 1", n)
	}
	if !bytes.Contains(data, []byte("parameters\x00a caf\xe9 at dusk")) {
		t.Error("tEXt is not Latin-1")
	}
	if _, err := png.Decode(bytes.NewReader(data)); err != nil {
		t.Errorf("the PNG with text is not readable: %v", err)
	}
	plain, err := Encode(img, Options{Format: PNG})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ReadText(plain); err != nil || len(got) != 0 {
		t.Errorf("texts of a PNG without: %v, %v", got, err)
	}
}

func TestReadTextRefuses(t *testing.T) {
	data, err := Encode(FromFloats(smooth(3, 4), 3, 4), Options{Format: PNG, Text: []Text{{"key", "value"}}})
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(data)
	flipped[bytes.Index(data, []byte("value"))] ^= 1
	long := bytes.Clone(data)
	copy(long[bytes.Index(data, []byte("tEXt"))-4:], "\xff\xff\xff\xff")
	for name, bad := range map[string][]byte{"empty": nil, "a JPEG": []byte("\xff\xd8\xff\xe0"), "cut": data[:len(data)-13], "damaged": flipped, "chunk of 4 GB": long} {
		_, err := ReadText(bad)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%s: %v, want an Error", name, err)
		}
	}
}

func TestReadTextSkipsWhatItCannotRead(t *testing.T) {
	data, err := Encode(FromFloats(smooth(1, 1), 1, 1), Options{Format: PNG})
	if err != nil {
		t.Fatal(err)
	}
	var chunks []byte
	for kind, bodies := range map[string][]string{
		"zTXt": {"k\x00\x00compressed"},
		"iTXt": {"", "k", "k\x00", "k\x00\x01\x00\x00\x00compressed", "k\x00\x00\x00en", "k\x00\x00\x00en\x00", "k\x00\x00\x00\x00\x00\xff"},
		"tEXt": {"no separator"},
	} {
		for _, body := range bodies {
			chunks = appendChunk(chunks, kind, []byte(body))
		}
	}
	chunks = appendChunk(chunks, "iTXt", []byte("k\x00\x00\x00de\x00Schl\xc3\xbcssel\x00gr\xc3\xbcn"))
	got, err := ReadText(slices.Concat(data[:afterHeader], chunks, data[afterHeader:]))
	if err != nil || len(got) != 1 || got[0] != (Text{"k", "grün"}) {
		t.Errorf("%v, %v", got, err)
	}
}
