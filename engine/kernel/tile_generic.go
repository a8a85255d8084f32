package kernel

import "unsafe"

// tileGeneric goes row by row and half a row of out at a time: eight sums are what the compiler keeps in registers.
func tileGeneric(out []float32, rows []*float32, k int, panel []float32) {
	for r := range len(out) / TileCols {
		for c := 0; c < TileCols; c += 8 {
			var s0, s1, s2, s3, s4, s5, s6, s7 float32
			at := c
			for t := r; t < len(rows); t += TileRows {
				for _, x := range unsafe.Slice(rows[t], k) {
					w := panel[at : at+8 : at+8]
					at += TileCols
					s0 += x * w[0]
					s1 += x * w[1]
					s2 += x * w[2]
					s3 += x * w[3]
					s4 += x * w[4]
					s5 += x * w[5]
					s6 += x * w[6]
					s7 += x * w[7]
				}
			}
			copy(out[r*TileCols+c:], []float32{s0, s1, s2, s3, s4, s5, s6, s7})
		}
	}
}
