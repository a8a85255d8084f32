package imaging

import "image"

// SetRows writes pixels [rows, width, 3] in about 0 to 1 into an image, rounded as FromFloats does it, from row y on, and returns
// the row behind them.
func SetRows(img *image.RGBA, y int, pixels []float32) int {
	out := img.Pix[y*img.Stride:]
	for i := 0; i < len(pixels); i, out = i+3, out[4:] {
		for c := range 3 {
			out[c] = quantize(pixels[i+c])
		}
		out[3] = 0xff
	}
	return y + len(pixels)/3/img.Rect.Dx()
}

// FromImage are the pixels of an opaque image, which are shared.
func FromImage(img *image.RGBA) Pixels {
	return Pixels{Width: img.Rect.Dx(), Height: img.Rect.Dy(), pix: img.Pix, stride: img.Stride}
}

// Image is an opaque image of the pixels.
func (p Pixels) Image() *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, p.Width, p.Height))
	for y := range p.Height {
		row := img.Pix[y*img.Stride:][:4*p.Width]
		copy(row, p.pix[y*p.stride:])
		for x := 3; x < len(row); x += 4 {
			row[x] = 0xff
		}
	}
	return img
}

// Window are the pixels [h, w, 3] of a part of an image in 0 to 1, as Unit has them.
func (p Pixels) Window(y, x, h, w int) []float32 {
	out := make([]float32, 0, 3*h*w)
	for row := y; row < y+h; row++ {
		for line := p.pix[row*p.stride+4*x:][:4*w]; len(line) > 0; line = line[4:] {
			out = append(out, float32(line[0])/255, float32(line[1])/255, float32(line[2])/255)
		}
	}
	return out
}
