package kernel

import "unsafe"

// multiplyGeneric goes row by row and half a row of a panel at a time: eight sums are what the compiler keeps in registers.
func multiplyGeneric(p *Product) {
	for r := range p.M {
		rows := p.Rows[r/TileRows*p.TileStep:][:p.Taps*TileRows]
		for n := range p.N {
			panel, out := p.Panels[n*p.Step:], p.Out[r*p.Stride+n*p.Apart:][:TileCols]
			for c := 0; c < TileCols; c += 8 {
				var s0, s1, s2, s3, s4, s5, s6, s7 float32
				at := c
				for t := r % TileRows; t < len(rows); t += TileRows {
					for _, x := range unsafe.Slice(rows[t], p.K) {
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
				for i, s := range [8]float32{s0, s1, s2, s3, s4, s5, s6, s7} {
					if p.Add {
						s += out[c+i]
					}
					out[c+i] = s
				}
			}
		}
	}
}
