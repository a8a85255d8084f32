package imaging

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"unicode/utf16"
)

// userComment reads the one UserComment of a JPEG or WebP as other programs do; found is false where there is none.
func userComment(t *testing.T, file []byte) (text string, found bool) {
	t.Helper()
	var tiff []byte
	switch {
	case bytes.HasPrefix(file, []byte("\xff\xd8")):
		for rest := file[2:]; rest[1] != 0xda; { // until the scan
			n := int(binary.BigEndian.Uint16(rest[2:]))
			if body, ok := bytes.CutPrefix(rest[4:2+n], []byte("Exif\x00\x00")); ok && rest[1] == 0xe1 {
				tiff = body
			}
			rest = rest[2+n:]
		}
	case bytes.HasPrefix(file, []byte("RIFF")):
		if n := int(binary.LittleEndian.Uint32(file[4:])); n != len(file)-8 || n%2 != 0 {
			t.Fatalf("RIFF of %d bytes in a file of %d", n, len(file))
		}
		for rest := file[12:]; len(rest) > 0; {
			n := int(binary.LittleEndian.Uint32(rest[4:]))
			if string(rest[:4]) == "EXIF" {
				tiff = rest[8 : 8+n]
			}
			rest = rest[8+n+n%2:]
		}
	}
	if tiff == nil {
		return "", false
	}
	long := binary.BigEndian.Uint32
	entry := func(at, tag uint32) []byte {
		for i := range uint32(binary.BigEndian.Uint16(tiff[at:])) {
			if e := tiff[at+2+12*i:][:12]; uint32(binary.BigEndian.Uint16(e)) == tag {
				return e
			}
		}
		t.Fatalf("no entry %#x in % x", tag, tiff)
		return nil
	}
	comment := entry(long(entry(long(tiff[4:]), 0x8769)[8:]), 0x9286)
	value, ok := bytes.CutPrefix(tiff[long(comment[8:]):][:long(comment[4:])], []byte("UNICODE\x00"))
	if !ok || string(tiff[:4]) != "MM\x00*" {
		t.Fatalf("comment % x", tiff)
	}
	var units []uint16
	for ; len(value) > 0; value = value[2:] {
		units = append(units, binary.BigEndian.Uint16(value))
	}
	return string(utf16.Decode(units)), true
}

func TestParametersOfJPEGAndWebP(t *testing.T) {
	img := FromFloats(smooth(9, 7), 9, 7)
	for _, format := range []Format{JPEG, WEBP} {
		for name, text := range map[string]string{
			"usual":     "a café at dusk\nNegative prompt: rain\nSteps: 20, Sampler: euler, Seed: 1",
			"astral":    "夕暮れの喫茶店 🌆",
			"odd bytes": "abc", "empty": "",
			"longest": strings.Repeat("é", maxComment/2),
		} {
			data, err := Encode(img, Options{Format: format, Text: []Text{{"software", "x"}, {commentKey, text}}})
			if err != nil {
				t.Fatalf("%s of %v: %v", name, format, err)
			}
			if got, ok := userComment(t, data); !ok || got != text {
				t.Errorf("%s of %v: %.100q, %v", name, format, got, ok)
			}
			plain, err := Encode(img, Options{Format: format, Text: []Text{{"software", "x"}}})
			if err != nil {
				t.Fatal(err)
			}
			if got, ok := userComment(t, plain); ok {
				t.Errorf("%v without parameters has %q", format, got)
			}
			want, _, _, err := floatsOf(plain)
			if err != nil {
				t.Fatal(err)
			}
			got, height, width, err := floatsOf(data)
			if err != nil || height != 9 || width != 7 || !bytes.Equal(FromFloats(got, 9, 7).Pix, FromFloats(want, 9, 7).Pix) {
				t.Errorf("%s of %v: the picture is another beside its text: %v", name, format, err)
			}
		}
		_, err := Encode(img, Options{Format: format, Text: []Text{{commentKey, strings.Repeat("a", maxComment/2+1)}}})
		if e := (*Error)(nil); !errors.As(err, &e) || e.Subject != `text of "parameters"` {
			t.Errorf("%v with too much text: %v", format, err)
		}
	}
}
