package imaging

import "image"

// blend is the chroma of pixel x, y: of the nearest sample, the next one beside it, the next above or below it, and the one between
// those two.
type blend func(near, beside, over, across, x, y int) int

// fromJPEG is the image of a JPEG to the bit as libjpeg makes it of the same samples: "fancy upsampling" (jdsample.c of
// libjpeg-turbo), and the conversion of jdcolor.c.
func fromJPEG(img *image.YCbCr) *image.NRGBA {
	mix := func(near, _, _, _, _, _ int) int { return near }
	wide := img.Rect.Dx() > 4 // libjpeg interpolates across more than two samples
	switch {
	case img.SubsampleRatio == image.YCbCrSubsampleRatio420 && wide:
		mix = func(near, beside, over, across, x, _ int) int {
			return (3*(3*near+over) + 3*beside + across + 8 - x&1) >> 4
		}
	case img.SubsampleRatio == image.YCbCrSubsampleRatio422 && wide:
		mix = func(near, beside, _, _, x, _ int) int { return (3*near + beside + 1 + x&1) >> 2 }
	case img.SubsampleRatio == image.YCbCrSubsampleRatio440:
		mix = func(near, _, over, _, _, y int) int { return (3*near + over + 1 + y&1) >> 2 }
	}
	return fromYCbCr(img, mix, func(luma, cb, cr int) (r, g, b int) {
		const half = 1 << 15 // of 16 fractional bits, as 1.402, 0.34414, 0.71414 and 1.772 below
		cb, cr = cb-128, cr-128
		return luma + (91881*cr+half)>>16, luma + (half-22554*cb-46802*cr)>>16, luma + (116130*cb+half)>>16
	})
}

// fromWebP is the image of a lossy WebP to the bit as libwebp makes it of the same samples: its "fancy upsampling"
// (src/dsp/upsampling.c), and the conversion of luma of 16 to 235 and chroma of 16 to 240 (ITU-R BT.601) of src/dsp/yuv.h.
func fromWebP(img *image.YCbCr) *image.NRGBA {
	mix := func(near, beside, over, across, _, _ int) int {
		return ((near+3*(beside+over)+across+8)>>3 + near) >> 1
	}
	return fromYCbCr(img, mix, func(luma, u, v int) (r, g, b int) {
		luma = luma * 19077 >> 8
		return (luma + v*26149>>8 - 14234) >> 6, (luma - u*6419>>8 - v*13320>>8 + 8708) >> 6, (luma + u*33050>>8 - 17685) >> 6
	})
}

// fromYCbCr converts an image whose bounds begin at 0, 0. The samples beyond an edge are those at it.
func fromYCbCr(img *image.YCbCr, mix blend, rgb func(luma, cb, cr int) (r, g, b int)) *image.NRGBA {
	out := image.NewNRGBA(img.Rect)
	width, height := img.Rect.Dx(), img.Rect.Dy()
	rest := out.Pix
	for y := range height {
		over := img.COffset(0, neighbour(y, height)) - img.COffset(0, y)
		for x := range width {
			near, beside := img.COffset(x, y), img.COffset(neighbour(x, width), y)
			chroma := func(plane []uint8) int {
				return mix(int(plane[near]), int(plane[beside]), int(plane[near+over]), int(plane[beside+over]), x, y)
			}
			r, g, b := rgb(int(img.Y[img.YOffset(x, y)]), chroma(img.Cb), chroma(img.Cr))
			rest[0], rest[1], rest[2], rest[3] = clip(r), clip(g), clip(b), 0xff
			rest = rest[4:]
		}
	}
	return out
}

// neighbour is the pixel beside i of n that is not of its pair: where pairs share a sample, it has the next nearest one.
func neighbour(i, n int) int {
	return min(max(i-1+2*(i&1), 0), n-1)
}

// fromCMYK converts the inks of a JPEG in place, rounded as by PIL's convert("RGB").
func fromCMYK(img *image.CMYK) *image.NRGBA {
	for rest := img.Pix; len(rest) > 0; rest = rest[4:] {
		white := 255 - int(rest[3])
		for c := range 3 {
			rest[c] = uint8(white - (2*int(rest[c])*white+255)/510)
		}
		rest[3] = 0xff
	}
	return &image.NRGBA{Pix: img.Pix, Stride: img.Stride, Rect: img.Rect}
}

// clip is the nearest value of a byte.
func clip(v int) uint8 { return uint8(min(max(v, 0), 255)) }
