package exif

import (
	"encoding/binary"
	"testing"
)

// tiff is an Exif block that holds an orientation behind another tag.
func tiff(order binary.AppendByteOrder, kind uint16, orientation uint32) string {
	out := []byte("MM\x00*")
	if order.String() == "LittleEndian" {
		out = []byte("II*\x00")
	}
	out = order.AppendUint32(out, 8)
	out = order.AppendUint16(out, 2)
	out = append(order.AppendUint32(order.AppendUint16(order.AppendUint16(out, 0x0100), typeLong), 1), 0, 0, 0, 9)
	out = order.AppendUint32(order.AppendUint16(order.AppendUint16(out, tagOrientation), kind), 1)
	if kind == typeLong {
		out = order.AppendUint32(out, orientation)
	} else {
		out = append(order.AppendUint16(out, uint16(orientation)), 0, 0)
	}
	return string(append(out, 0, 0, 0, 0))
}

func jpeg(exif string) string {
	size := 2 + len("Exif\x00\x00") + len(exif)
	return "\xff\xd8\xff\xe0\x00\x04JF\xff\xe1" + string([]byte{byte(size >> 8), byte(size)}) + "Exif\x00\x00" + exif + "\xff\xda"
}

func png(exif string) string {
	return "\x89PNG\r\n\x1a\n\x00\x00\x00\x01IHDR.CRC." + string(binary.BigEndian.AppendUint32(nil, uint32(len(exif)))) + "eXIf" + exif + "CRC."
}

func webp(exif string) string {
	return "RIFF....WEBPVP8X\x01\x00\x00\x00.\x00EXIF" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(exif)))) + exif
}

func TestOrientation(t *testing.T) {
	const short = 3
	six := tiff(binary.BigEndian, short, 6)
	for name, c := range map[string]struct {
		file string
		want int
	}{
		"JPEG":                    {jpeg(six), 6},
		"JPEG, little-endian":     {jpeg(tiff(binary.LittleEndian, short, 8)), 8},
		"LONG":                    {jpeg(tiff(binary.LittleEndian, typeLong, 3)), 3},
		"PNG":                     {png(six), 6},
		"WebP":                    {webp(six), 6},
		"WebP with JPEG's prefix": {webp("Exif\x00\x00" + six), 6},
		"unknown orientation":     {jpeg(tiff(binary.BigEndian, short, 9)), Upright},
		"no Exif":                 {"\xff\xd8\xff\xda", Upright},
		"another format":          {"GIF89a", Upright},
		"nothing":                 {"", Upright},
	} {
		if got := Orientation([]byte(c.file)); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// TestUserComment reads comments as cameras and other programs write them; those of Triptych are read in engine/imaging.
func TestUserComment(t *testing.T) {
	const undefined = 7
	comment := func(order binary.AppendByteOrder, body string, size int) string {
		out := []byte("MM\x00*")
		if order.String() == "LittleEndian" {
			out = []byte("II*\x00")
		}
		directory := func(tag, kind uint16, count, value uint32) {
			out = order.AppendUint16(order.AppendUint16(order.AppendUint16(out, 1), tag), kind)
			out = order.AppendUint32(order.AppendUint32(order.AppendUint32(out, count), value), 0)
		}
		out = order.AppendUint32(out, 8)
		directory(tagExif, typeLong, 1, 26)
		directory(tagUserComment, undefined, uint32(size), 44)
		return string(out) + body
	}
	ascii := "ASCII\x00\x00\x00a fox"
	for name, c := range map[string]struct {
		file, want string
		ok         bool
	}{
		"ASCII":                  {jpeg(comment(binary.BigEndian, ascii, len(ascii))), "a fox", true},
		"UNICODE, little-endian": {webp(comment(binary.LittleEndian, "UNICODE\x00f\x00\x03\x26", 12)), "f\u2603", true},
		"UNICODE, as piexif":     {webp(comment(binary.LittleEndian, "UNICODE\x00\x00f\x00o\x00x\x26\x03", 16)), "fox\u2603", true},
		"no name":                {jpeg(comment(binary.BigEndian, "\x00\x00\x00\x00\x00\x00\x00\x00a f\xc3\xb6x", 14)), "a f\u00f6x", true},
		"UNICODE in a PNG":       {png(comment(binary.BigEndian, "UNICODE\x00\x00f", 10)), "f", true},
		"beyond the end":         {jpeg(comment(binary.BigEndian, ascii, len(ascii)+1)), "", false},
		"another encoding":       {jpeg(comment(binary.BigEndian, "JIS\x00\x00\x00\x00\x00x", 9)), "", false},
		"another tag":            {jpeg(tiff(binary.BigEndian, 3, 6)), "", false},
		"no Exif":                {"\xff\xd8\xff\xda", "", false},
	} {
		got, ok := UserComment([]byte(c.file))
		if ok != c.ok || ok && got != c.want {
			t.Errorf("%s: %q, %v, want %q, %v", name, got, ok, c.want, c.ok)
		}
	}
}

// FuzzExif: no file makes it panic or go on for ever.
func FuzzExif(f *testing.F) {
	for _, add := range []func(string) string{jpeg, png, webp} {
		f.Add([]byte(add(tiff(binary.BigEndian, 3, 6))))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		if o := Orientation(file); o < 1 || o > 8 {
			t.Errorf("orientation %d", o)
		}
		if text, ok := UserComment(file); ok && len(text) > 2*len(file) {
			t.Errorf("a comment of %d bytes in a file of %d", len(text), len(file))
		}
	})
}
