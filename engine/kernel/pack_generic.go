package kernel

// packGeneric packs the inputs from first on.
func packGeneric[T uint8 | uint16 | uint32](dst, src []T, rows, in, taps, first int) {
	for t := range taps {
		for i := first; i < in; i++ {
			panel := dst[(t*in+i)*TileCols:][:TileCols]
			for r := range rows {
				panel[r] = src[(r*in+i)*taps+t]
			}
			clear(panel[rows:])
		}
	}
}
