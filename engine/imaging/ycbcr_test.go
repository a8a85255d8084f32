package imaging

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDecodePhotos: JPEG and lossy WebP have the colours that PIL reads: the same where an inverse DCT has nothing to round, and
// elsewhere within its rounding, which the conversion to RGB widens to 3 in some values.
func TestDecodePhotos(t *testing.T) {
	const golden = "../../testdata/golden/photos/"
	paths, err := filepath.Glob(golden + "*.[jw]*p*")
	if err != nil || len(paths) != 20 {
		t.Fatalf("%d photos, %v", len(paths), err)
	}
	read := func(path string) Pixels {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Decode(data)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		return p
	}
	for _, path := range paths {
		name := filepath.Base(path)
		got, want := read(path), read(strings.TrimSuffix(path, filepath.Ext(path))+".png")
		if got.Width != want.Width || got.Height != want.Height {
			t.Errorf("%s: %d x %d, want %d x %d", name, got.Width, got.Height, want.Width, want.Height)
			continue
		}
		allowed := 0
		if strings.HasSuffix(name, ".jpg") && !strings.HasPrefix(name, "cells") {
			allowed = 3
		}
		largest, different := 0, 0
		for y := range got.Height {
			for x := range got.Width {
				for c := range 3 {
					a, b := int(got.pix[y*got.stride+4*x+c]), int(want.pix[y*want.stride+4*x+c])
					largest = max(largest, a-b, b-a)
					if a != b {
						different++
					}
				}
			}
		}
		if most := 3 * got.Width * got.Height / 10; largest > allowed || different > most {
			t.Errorf("%s: %d values differ, by up to %d; want at most %d, by %d", name, different, largest, most, allowed)
		}
	}
}
