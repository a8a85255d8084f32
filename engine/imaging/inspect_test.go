package imaging

import (
	"errors"
	"image"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestInspect: every format gives back size and parameters, and no shorter file or one with a damaged part of a PNG passes.
func TestInspect(t *testing.T) {
	img := image.NewRGBA(image.Rect(0, 0, 24, 16))
	random := rand.New(rand.NewPCG(1, 2))
	for i := range img.Pix {
		img.Pix[i] = uint8(random.Uint32())
		if i%4 == 3 {
			img.Pix[i] = 0xff
		}
	}
	for _, format := range []Format{PNG, JPEG, WEBP} {
		for _, text := range []string{"", "a fox\nSteps: 2, Size: 24x16", "a \u2603 and \U0001f600"} {
			o := Options{Format: format}
			if text != "" {
				o.Text = []Text{{"other", "x"}, {"parameters", text}}
			}
			data, err := Encode(img, o)
			if err != nil {
				t.Fatal(err)
			}
			want := Info{format, 24, 16, text}
			if got, err := Inspect(data); err != nil || got != want {
				t.Errorf("%v: %+v, %v, want %+v", format, got, err, want)
			}
			if texts, err := ReadText(data); err != nil || text != "" && texts[len(texts)-1] != (Text{"parameters", text}) || text == "" && len(texts) > 0 {
				t.Errorf("%v: texts %v, %v, want %q", format, texts, err, text)
			}
			for n := range len(data) {
				if _, err := Inspect(data[:n]); err == nil {
					t.Errorf("%v: %d bytes of %d pass", format, n, len(data))
				} else if wrong := (*Error)(nil); !errors.As(err, &wrong) {
					t.Errorf("%v: %d bytes of %d: %v is no Error", format, n, len(data), err)
				} else if n > 40 && !strings.Contains(err.Error(), "too early") {
					t.Errorf("%v: %d bytes of %d: %v, want that it ends too early", format, n, len(data), err)
				}
			}
			if format != PNG {
				continue
			}
			for n := range data {
				damaged := append([]byte(nil), data...)
				damaged[n] ^= 0x10
				if _, err := Inspect(damaged); err == nil {
					t.Errorf("a PNG whose byte %d is wrong passes", n)
				}
			}
		}
	}
}
