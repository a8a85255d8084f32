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
