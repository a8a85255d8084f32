package imaging

import (
	"bytes"
	"errors"
	"image"
	"math"
	"strings"
	"testing"
)

// smooth is a picture without hard edges, [height, width, 3] in -1..1, that uses the whole range.
func smooth(height, width int) []float32 {
	var out []float32
	for y := range height {
		for x := range width {
			u, v := float64(x)/float64(max(width-1, 1)), float64(y)/float64(max(height-1, 1))
			out = append(out, float32(2*u-1), float32(1-2*v), float32(math.Sin(5*u*v)))
		}
	}
	return out
}

// meanError compares pixels in steps of 8 bits.
func meanError(a, b []float32) float64 {
	sum := 0.0
	for i := range a {
		sum += math.Abs(float64(a[i])-float64(b[i])) * 127.5
	}
	return sum / float64(len(a))
}

func TestRoundTrips(t *testing.T) {
	for _, size := range [][2]int{{64, 96}, {33, 47}, {1, 1}, {1, 40}, {512, 24}} {
		want := smooth(size[0], size[1])
		img := FromFloats(want, size[0], size[1])
		for format, allowed := range map[Format]float64{PNG: 0.3, JPEG: 4, WEBP: 0.3} {
			data, err := Encode(img, Options{Format: format})
			if err != nil {
				t.Fatal(err)
			}
			got, height, width, err := floatsOf(data)
			if err != nil || height != size[0] || width != size[1] || len(got) != len(want) {
				t.Errorf("%v of %v: %d x %d, %v", format, size, height, width, err)
				continue
			}
			if e := meanError(got, want); e > allowed {
				t.Errorf("%v of %v: mean error %.2f of 255, allowed %.2f", format, size, e, allowed)
			}
			if format != JPEG && !bytes.Equal(FromFloats(got, height, width).Pix, img.Pix) {
				t.Errorf("%v of %v is not exact", format, size)
			}
		}
	}
}

// Flat colours show a confusion of JPEG's colour range with WebP's, or of channels.
func TestFlatColours(t *testing.T) {
	for _, c := range [][3]float32{{-1, -1, -1}, {1, 1, 1}, {1, -1, -1}, {-1, 1, -1}, {-1, -1, 1}, {0.5, 0, -0.5}} {
		var pixels []float32
		for range 32 * 32 {
			pixels = append(pixels, c[:]...)
		}
		for _, format := range []Format{PNG, JPEG, WEBP} {
			data, err := Encode(FromFloats(pixels, 32, 32), Options{Format: format, Quality: 100})
			if err != nil {
				t.Fatal(err)
			}
			got, _, _, err := floatsOf(data)
			if err != nil {
				t.Fatal(err)
			}
			if e := meanError(got, pixels); e > 2.5 {
				t.Errorf("%v as %v: mean error %.2f of 255: %v", c, format, e, got[:3])
			}
		}
	}
}

func TestQuality(t *testing.T) {
	img := FromFloats(smooth(128, 128), 128, 128)
	size := func(f Format, quality int) int {
		data, err := Encode(img, Options{Format: f, Quality: quality})
		if err != nil {
			t.Fatal(err)
		}
		return len(data)
	}
	if low, high := size(JPEG, 10), size(JPEG, 95); low >= high {
		t.Errorf("%d bytes at quality 10, %d at 95", low, high)
	}
	if size(JPEG, 0) != size(JPEG, DefaultQuality) {
		t.Error("quality 0 is not the default")
	}
}

func TestEncodeIsDeterministicAndIgnoresStride(t *testing.T) {
	whole := FromFloats(smooth(40, 40), 40, 40)
	part := whole.SubImage(image.Rect(8, 4, 31, 37)).(*image.RGBA)
	alone := image.NewRGBA(image.Rect(0, 0, 23, 33))
	for y := range 33 {
		copy(alone.Pix[y*alone.Stride:], part.Pix[y*part.Stride:][:alone.Stride])
	}
	for _, f := range []Format{PNG, JPEG, WEBP} {
		a, err := Encode(part, Options{Format: f})
		if err != nil {
			t.Fatal(err)
		}
		b, err := Encode(alone, Options{Format: f})
		if err != nil || !bytes.Equal(a, b) {
			t.Errorf("%v: a part of an image differs from the same image alone (%v)", f, err)
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	img := FromFloats(smooth(2, 2), 2, 2)
	for name, c := range map[string]struct {
		img     *image.RGBA
		options Options
		subject string
	}{
		"no format":         {img, Options{}, "format"},
		"another format":    {img, Options{Format: 9}, "format"},
		"quality -1":        {img, Options{Format: JPEG, Quality: -1}, "quality"},
		"quality 101":       {img, Options{Format: PNG, Quality: 101}, "quality"},
		"empty PNG":         {FromFloats(nil, 0, 0), Options{Format: PNG}, "png"},
		"empty JPEG":        {FromFloats(nil, 0, 3), Options{Format: JPEG}, "jpeg"},
		"empty WebP":        {FromFloats(nil, 3, 0), Options{Format: WEBP}, "webp"},
		"wide JPEG":         {FromFloats(make([]float32, 3*65536), 1, 65536), Options{Format: JPEG}, "jpeg"},
		"wide WebP":         {FromFloats(make([]float32, 3*16385), 1, 16385), Options{Format: WEBP}, "webp"},
		"text without key":  {img, Options{Format: PNG, Text: []Text{{Value: "x"}}}, "text keyword"},
		"text on a JPEG":    {img, Options{Format: JPEG, Text: []Text{{Key: " x"}}}, "text keyword"},
		"text with NUL":     {img, Options{Format: PNG, Text: []Text{{"k", "a\x00b"}}}, `text of "k"`},
		"text not UTF-8":    {img, Options{Format: PNG, Text: []Text{{"k", "a\xff"}}}, `text of "k"`},
		"text above 1 MiB":  {img, Options{Format: PNG, Text: []Text{{"k", strings.Repeat("a", 1<<20+1)}}}, `text of "k"`},
		"key of 80":         {img, Options{Format: PNG, Text: []Text{{strings.Repeat("k", 80), ""}}}, "text keyword"},
		"key with newline":  {img, Options{Format: PNG, Text: []Text{{"a\nb", ""}}}, "text keyword"},
		"key not Latin-1":   {img, Options{Format: PNG, Text: []Text{{"ключ", ""}}}, "text keyword"},
		"key with 2 spaces": {img, Options{Format: PNG, Text: []Text{{"a  b", ""}}}, "text keyword"},
		"key ends in space": {img, Options{Format: PNG, Text: []Text{{"a ", ""}}}, "text keyword"},
	} {
		_, err := Encode(c.img, c.options)
		var e *Error
		if !errors.As(err, &e) || e.Subject != c.subject || len(err.Error()) > 1000 {
			t.Errorf("%s: %v, want an Error about %s", name, err, c.subject)
		}
	}
}

func TestParseFormat(t *testing.T) {
	for name, want := range map[string]struct {
		format    Format
		mime, ext string
	}{
		"png": {PNG, "image/png", ".png"}, "jpeg": {JPEG, "image/jpeg", ".jpg"}, "JPG": {JPEG, "image/jpeg", ".jpg"}, "webp": {WEBP, "image/webp", ".webp"},
	} {
		f, err := ParseFormat(name)
		if err != nil || f != want.format || f.MIME() != want.mime || f.Ext() != want.ext {
			t.Errorf("%s: %v %s %s, %v", name, f, f.MIME(), f.Ext(), err)
		}
		if again, err := ParseFormat(f.String()); err != nil || again != f {
			t.Errorf("%v does not parse: %v", f, err)
		}
	}
	var e *Error
	if _, err := ParseFormat("gif"); !errors.As(err, &e) || !strings.Contains(err.Error(), "png, jpeg, jpg or webp") {
		t.Errorf("gif: %v", err)
	}
	if Format(0).MIME() != "" || Format(77).Ext() != "" || Format(0).String() != "Format(0)" {
		t.Error("a Format that is none has a name")
	}
}

func BenchmarkEncode512(b *testing.B) {
	img := FromFloats(smooth(512, 512), 512, 512)
	for _, f := range []Format{PNG, JPEG, WEBP} {
		b.Run(f.String(), func(b *testing.B) {
			for b.Loop() {
				if _, err := Encode(img, Options{Format: f}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
