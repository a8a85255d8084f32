package imaging

import (
	"bytes"
	"image"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/engine/weights"
)

func TestFromFloatsRounds(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, c := range []struct {
		x    float32
		want uint8
	}{
		{-1, 0}, {1, 255}, {-1.5, 0}, {3, 255}, {-inf, 0}, {inf, 255}, {nan, 0}, {0, 128}, // 127.5 is rounded to even
		{2.0/255 - 1, 1}, {253.0/255*2 - 1, 253}, {math.SmallestNonzeroFloat32, 128}, {float32(math.Copysign(0, -1)), 128},
	} {
		img := FromFloats([]float32{c.x, -1, 1}, 1, 1)
		if got := img.RGBAAt(0, 0); got.R != c.want || got.G != 0 || got.B != 255 || got.A != 255 {
			t.Errorf("%g becomes %v, want %d", c.x, got, c.want)
		}
	}
	for n := range 255 { // halves go to the even neighbour where float32 hits them
		if x := (float32(n) + 0.5) / 255; x*255 == float32(n)+0.5 && quantize(x)%2 != 0 {
			t.Errorf("%d.5 becomes %d", n, quantize(x))
		}
	}
}

func TestFromFloatsRefusesOtherSizes(t *testing.T) {
	for _, c := range [][3]int{{11, 2, 2}, {3, -1, -1}, {0, 1, 1}, {0, 1 << 62, 4}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%v did not panic", c)
				}
			}()
			FromFloats(make([]float32, c[0]), c[1], c[2])
		}()
	}
	if img := FromFloats(nil, 0, 5); img.Rect.Dx() != 5 || img.Rect.Dy() != 0 {
		t.Errorf("%v", img.Rect)
	}
}

func TestFloatsRoundTrip(t *testing.T) {
	img := image.NewRGBA(image.Rect(0, 0, 16, 16))
	for i := range img.Pix {
		if img.Pix[i] = uint8(i / 4); i%4 == 3 {
			img.Pix[i] = 0xff
		}
	}
	if got := FromFloats(Pixels{16, 16, img.Pix, img.Stride}.Floats(), 16, 16); !bytes.Equal(got.Pix, img.Pix) {
		t.Error("not every value survives")
	}
}

// The reference wrote each PNG from the tensor "image" [1, 3, H, W] in 0..1 beside it.
func TestGoldenImages(t *testing.T) {
	paths, err := filepath.Glob("../../testdata/golden/*/run*.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("../../testdata/golden/*/golden/run*.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	if paths = append(paths, more...); len(paths) < 20 {
		t.Errorf("only %d runs found", len(paths))
	}
	values, off := 0, 0
	for _, path := range paths {
		unit, shape := goldenImage(t, path)
		height, width := shape[2], shape[3]
		want := goldenPNG(t, strings.TrimSuffix(path, ".safetensors")+".png")
		if want.Rect != image.Rect(0, 0, width, height) {
			t.Fatalf("%s: a PNG of %v for %v", path, want.Rect, shape)
		}
		signed := make([]float32, len(unit)) // channels last
		for i, x := range unit {
			c, p := i/(height*width), i%(height*width)
			signed[3*p+c] = 2*x - 1
			if got, want := quantize(x), want.Pix[4*p+c]; got != want {
				t.Errorf("%s: pixel %d channel %d: %g becomes %d, want %d", path, p, c, x, got, want)
			}
		}
		for i, got := range FromFloats(signed, height, width).Pix {
			values++
			if d := int(got) - int(want.Pix[i]); d != 0 {
				if off++; d < -1 || d > 1 {
					t.Errorf("%s: byte %d is %d, want %d", path, i, got, want.Pix[i])
				}
			}
		}
	}
	t.Logf("from 2x-1: %d of %d values differ, by 1", off, values)
	if off > values/10000 {
		t.Errorf("%d of %d values differ", off, values)
	}
}

func goldenImage(t *testing.T, path string) ([]float32, tensor.Shape) {
	t.Helper()
	s, err := weights.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	dtype, shape, ok := s.Info("image")
	data, err := s.Data("image")
	if !ok || err != nil || len(shape) != 4 || shape[0] != 1 || shape[1] != 3 {
		t.Fatalf("%s: image %v, %v", path, shape, err)
	}
	v, err := tensor.Tensor{DType: dtype, Shape: shape, Data: data}.Float32s()
	if err != nil {
		t.Fatal(err)
	}
	return v, shape
}

func goldenPNG(t *testing.T, path string) *image.RGBA {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	rgba, ok := img.(*image.RGBA)
	if !ok {
		t.Fatalf("%s is a %T", path, img)
	}
	return rgba
}
