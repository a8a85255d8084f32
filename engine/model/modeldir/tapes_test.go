package modeldir

import (
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
)

// A shape that is asked for again is the same tape, whoever asks, and every side of it counts.
func TestTapeOfAShape(t *testing.T) {
	d, err := OpenStableDiffusion("../../../testdata/golden/tiny-sd15")
	if err != nil {
		t.Fatal(err)
	}
	text, err := d.TextEncoder()
	if err != nil {
		t.Fatal(err)
	}
	defer text.Close()
	unet, err := d.Denoiser()
	if err != nil {
		t.Fatal(err)
	}
	defer unet.Close()
	decoder, err := d.ImageDecoder()
	if err != nil {
		t.Fatal(err)
	}
	defer decoder.Close()
	encoder, err := d.ImageEncoder()
	if err != nil {
		t.Fatal(err)
	}
	defer encoder.Close()
	for name, shapes := range map[string][]func() (*device.Tape, error){
		"text encoder": {
			func() (*device.Tape, error) { return text.Tape(1, 77) },
			func() (*device.Tape, error) { return text.Tape(2, 77) },
			func() (*device.Tape, error) { return text.Tape(1, 76) },
		},
		"denoiser": {
			func() (*device.Tape, error) { return unet.Tape(1, 8, 16, 77) },
			func() (*device.Tape, error) { return unet.Tape(2, 8, 16, 77) },
			func() (*device.Tape, error) { return unet.Tape(1, 16, 8, 77) },
			func() (*device.Tape, error) { return unet.Tape(1, 8, 16, 7) },
		},
		"decoder": {
			func() (*device.Tape, error) { return decoder.Tape(1, 8, 16) },
			func() (*device.Tape, error) { return decoder.Tape(1, 16, 8) },
			func() (*device.Tape, error) { return decoder.Tape(2, 8, 16) },
		},
		"image encoder": {
			func() (*device.Tape, error) { return encoder.Tape(1, 32, 64) },
			func() (*device.Tape, error) { return encoder.Tape(1, 64, 32) },
		},
	} {
		seen := map[*device.Tape]int{}
		for range 2 {
			for i, tape := range shapes {
				got, err := tape()
				if err != nil {
					t.Fatal(err)
				}
				if of, ok := seen[got]; ok && of != i {
					t.Errorf("%s: shapes %d and %d have one tape", name, of, i)
				}
				seen[got] = i
			}
		}
		if len(seen) != len(shapes) {
			t.Errorf("%s: %d tapes for %d shapes", name, len(seen), len(shapes))
		}
	}
	if _, err := unet.Tape(1, 0, 8, 77); err == nil {
		t.Error("an image without pixels gave a tape")
	}
}
