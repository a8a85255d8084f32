package nn

// ToChannelsLast copies images from channels first, [batch, channels, pixels], the order of files
// and of the wire, to channels last, [batch, pixels, channels], the order of activations. dst and
// src have batch*channels*pixels elements and do not overlap.
func ToChannelsLast(dst, src []float32, batch, channels, pixels int) {
	transpose(dst, src, batch, channels, pixels)
}

// ToChannelsFirst is the inverse of ToChannelsLast, with the same meaning of the numbers.
func ToChannelsFirst(dst, src []float32, batch, channels, pixels int) {
	transpose(dst, src, batch, pixels, channels)
}

// transpose swaps the two inner dimensions of src [batch, rows, cols].
func transpose(dst, src []float32, batch, rows, cols int) {
	for b := range batch {
		s, d := src[b*rows*cols:][:rows*cols], dst[b*rows*cols:][:rows*cols]
		for r := range rows {
			for c, v := range s[r*cols:][:cols] {
				d[c*rows+r] = v
			}
		}
	}
}

// PixelUnshuffle makes the pixels of squares of n x n the channels of one: src [h*n, w*n, channels] becomes dst
// [h, w, channels*n*n], channel by channel and within each row by row (torch.nn.PixelUnshuffle, channels last).
func PixelUnshuffle(dst, src []float32, h, w, channels, n int) {
	squares(h, w, channels, n, func(square, pixel int) { dst[square] = src[pixel] })
}

// PixelShuffle is the inverse of PixelUnshuffle, with the same meaning of the numbers: src [h, w, channels*n*n] becomes dst
// [h*n, w*n, channels] (Shi et al. 2016, arXiv 1609.05158).
func PixelShuffle(dst, src []float32, h, w, channels, n int) {
	squares(h, w, channels, n, func(square, pixel int) { dst[pixel] = src[square] })
}

// squares does f for each value, with its places among squares and among pixels.
func squares(h, w, channels, n int, f func(square, pixel int)) {
	for y := range h * n {
		for x := range w * n {
			at := (y/n*w+x/n)*channels*n*n + y%n*n + x%n
			for c := range channels {
				f(at+c*n*n, (y*w*n+x)*channels+c)
			}
		}
	}
}
