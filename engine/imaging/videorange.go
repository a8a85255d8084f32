package imaging

import "image"

// fromVideoRange converts the colours of a lossy WebP, with luma of 16 to 235 and chroma of 16 to
// 240 (ITU-R BT.601), in the fixed point arithmetic of libwebp. Each chroma sample serves its four
// pixels, without interpolation.
func fromVideoRange(img *image.YCbCr) *image.NRGBA {
	out := image.NewNRGBA(img.Rect)
	rest := out.Pix
	for y := img.Rect.Min.Y; y < img.Rect.Max.Y; y++ {
		for x := img.Rect.Min.X; x < img.Rect.Max.X; x++ {
			luma := int(img.Y[img.YOffset(x, y)]) * 19077 >> 8
			c := img.COffset(x, y)
			u, v := int(img.Cb[c]), int(img.Cr[c])
			rest[0] = clip6(luma + v*26149>>8 - 14234)
			rest[1] = clip6(luma - u*6419>>8 - v*13320>>8 + 8708)
			rest[2] = clip6(luma + u*33050>>8 - 17685)
			rest[3] = 0xff
			rest = rest[4:]
		}
	}
	return out
}

// clip6 rounds a number with 6 fractional bits down and clips it to a byte.
func clip6(v int) uint8 { return uint8(min(max(v>>6, 0), 255)) }
