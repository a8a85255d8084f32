package imaging

import (
	"image"
	"image/color"
	"slices"
	"testing"
)

// TestRows: pixels that are read as floats and written by rows are those that they were.
func TestRows(t *testing.T) {
	img := image.NewRGBA(image.Rect(0, 0, 7, 5))
	for i := range 35 {
		img.SetRGBA(i%7, i/7, color.RGBA{R: uint8(7 * i), G: uint8(i), B: uint8(255 - i), A: 255})
	}
	p := FromImage(img)
	out := image.NewRGBA(img.Rect)
	y := SetRows(out, 0, p.Window(0, 0, 2, 7))
	if y = SetRows(out, y, p.Window(2, 0, 3, 7)); y != 5 || !slices.Equal(out.Pix, img.Pix) || !slices.Equal(p.Image().Pix, img.Pix) {
		t.Errorf("row %d, %v, want %v", y, out.Pix, img.Pix)
	}
	c := img.RGBAAt(3, 2)
	if got, want := p.Window(2, 3, 1, 1), []float32{float32(c.R) / 255, float32(c.G) / 255, float32(c.B) / 255}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
