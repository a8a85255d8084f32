package imaging

import (
	"bytes"
	"compress/zlib"
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
	for name, bad := range map[string][]byte{"empty": nil, "a GIF": []byte("GIF89a"), "cut": data[:len(data)-13], "damaged": flipped, "chunk of 4 GB": long} {
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

// deflated is a text as zTXt and iTXt have it.
func deflated(t *testing.T, text string) string {
	t.Helper()
	var out bytes.Buffer
	w := zlib.NewWriter(&out)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestReadTextCompressed: texts that others compress are read, and what inflates without end, whole or damaged, is refused.
func TestReadTextCompressed(t *testing.T) {
	data, err := Encode(FromFloats(smooth(1, 1), 1, 1), Options{Format: PNG})
	if err != nil {
		t.Fatal(err)
	}
	with := func(chunks []byte) []byte { return slices.Concat(data[:afterHeader], chunks, data[afterHeader:]) }
	chunks := appendChunk(nil, "zTXt", []byte("k\x00\x00"+deflated(t, "gr\xfcn")))
	chunks = appendChunk(chunks, "iTXt", []byte("parameters\x00\x01\x00\x00\x00"+deflated(t, "\u2603")))
	chunks = appendChunk(chunks, "zTXt", []byte("method\x00\x01"+deflated(t, "x")))
	got, err := ReadText(with(chunks))
	if want := []Text{{"k", "grün"}, {"parameters", "\u2603"}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	most := deflated(t, strings.Repeat("v", maxValue))
	if got, err := ReadText(with(appendChunk(nil, "zTXt", []byte("k\x00\x00"+most)))); err != nil || len(got) != 1 || len(got[0].Value) != maxValue {
		t.Errorf("%d texts, %v", len(got), err)
	}
	cut := most[:len(most)-4] // without its checksum
	for name, chunk := range map[string][]byte{
		"more":    appendChunk(nil, "iTXt", []byte("k\x00\x01\x00\x00\x00"+deflated(t, strings.Repeat("v", maxValue+1)))),
		"many":    bytes.Repeat(appendChunk(nil, "zTXt", []byte("k\x00\x00"+most)), 17),
		"damaged": bytes.Repeat(appendChunk(nil, "zTXt", []byte("k\x00\x00"+cut)), 17),
	} {
		if _, err := ReadText(with(chunk)); !errors.As(err, new(*Error)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
