package networks

import (
	"bytes"
	"fmt"
	"image/png"
	"math"
)

// Check is how far apart the results of two sides are.
type Check struct {
	// Relative is the largest difference, of tensors relative to the other side's largest value.
	Relative float64 `json:"max_relative_difference,omitempty"`
	// Levels is the largest difference between images, of 255; Unequal the share of values that differ at all.
	Levels  int     `json:"max_level_difference,omitempty"`
	Unequal float64 `json:"unequal_share,omitempty"`
	Image   bool    `json:"image,omitempty"`
}

// String is the check's cell of a table.
func (c *Check) String() string {
	switch {
	case c == nil:
		return "-"
	case c.Image:
		return fmt.Sprintf("%d/255 in %.2f %%", c.Levels, 100*c.Unequal)
	}
	return fmt.Sprintf("%.1e", c.Relative)
}

// result is what a side made: values, or a PNG file.
type result struct {
	values []float32
	png    []byte
}

// compare checks our result against theirs.
func compare(ours, theirs result) (*Check, error) {
	if ours.png != nil {
		return compareImages(ours.png, theirs.png)
	}
	a, b := ours.values, theirs.values
	if len(a) != len(b) || len(a) == 0 {
		return nil, fmt.Errorf("results of %d and %d values", len(a), len(b))
	}
	var difference, largest float64
	for i, v := range b {
		d := math.Abs(float64(a[i]) - float64(v))
		if math.IsNaN(d) || math.IsInf(d, 0) {
			return nil, fmt.Errorf("value %d is %v on our side and %v on the other", i, a[i], v)
		}
		difference, largest = max(difference, d), max(largest, math.Abs(float64(v)))
	}
	if largest == 0 {
		return nil, fmt.Errorf("all %d values are 0 on the other side", len(b))
	}
	return &Check{Relative: difference / largest}, nil
}

func compareImages(ours, theirs []byte) (*Check, error) {
	a, err := pixels(ours)
	if err != nil {
		return nil, fmt.Errorf("our image: %w", err)
	}
	b, err := pixels(theirs)
	if err != nil {
		return nil, fmt.Errorf("the other image: %w", err)
	}
	if len(a) != len(b) {
		return nil, fmt.Errorf("images of %d and %d values", len(a), len(b))
	}
	c := &Check{Image: true}
	for i := range a {
		if a[i] != b[i] {
			c.Levels = max(c.Levels, int(max(a[i], b[i])-min(a[i], b[i])))
			c.Unequal++
		}
	}
	c.Unequal /= float64(len(a))
	return c, nil
}

// pixels are the colours of a PNG file.
func pixels(file []byte) ([]uint8, error) {
	img, err := png.Decode(bytes.NewReader(file))
	if err != nil {
		return nil, err
	}
	b := img.Bounds()
	out := make([]uint8, 0, 3*b.Dx()*b.Dy())
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			r, g, bl, _ := img.At(x, y).RGBA()
			out = append(out, uint8(r>>8), uint8(g>>8), uint8(bl>>8))
		}
	}
	return out, nil
}
