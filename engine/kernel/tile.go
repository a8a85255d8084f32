package kernel

// The size of the tile: 6x16 fills 12 of AVX2's 16 registers with accumulators, the shape of BLIS's
// Haswell kernel (Van Zee and van de Geijn 2015). In AVX-512 a row of the panel is one register, and a tile takes two panels.
const (
	TileRows = 6
	TileCols = 16
)

// Product is M rows times N panels of TileCols columns:
//
//	Out[r*Stride+p*Apart+c] = sum over t < Taps, i < K of Rows[r/TileRows*TileStep+t*TileRows+r%TileRows][i] * Panels[p*Step+(t*K+i)*TileCols+c]
//
// or adds the sums to Out. With one tap it is GEMM; with a tap per filter position and a pointer per pixel and tap, padding
// pointing to a row of zeros, it is implicit-GEMM convolution (Dukhan 2019, arXiv 1907.02129).
type Product struct {
	Out           []float32
	Stride, Apart int        // from a row of Out to the next, from a panel's columns to the next one's
	Rows          []*float32 // pointers by tile, tap and row, each to at least K floats
	TileStep      int        // from a tile's pointers to the next one's
	Taps, K       int
	Panels        []float32
	Step          int // from a panel to the next
	M, N          int
	Add           bool
	// Pairs means that in the place of every float32 of Rows and Panels stand two bfloat16, the earlier one in the lower
	// half, whose products are summed: K counts pairs. See PairRow and PairPanel.
	Pairs bool
}

// Multiply forms a product. A row's sum is formed in the same order wherever the row falls, whatever M and N are.
//
// What bounds it: the FMA units, with 12 FMAs for a step of k and a tile (6 cycles where there are two), as long as the
// panels, of which a step reads 64 bytes, with AVX-512 128, lie in L2 or nearer. Below 4 rows the latency of FMA bounds it,
// 4 or 5 cycles a step. With AVX-512 and an odd N the last panel has 6 FMAs and 7 loads for a step: 3.5 cycles where there
// are two units of 512 bits and two loads a cycle.
func Multiply(p *Product) {
	if p.M <= 0 || p.N <= 0 {
		return
	}
	_ = p.Rows[:(p.M-1)/TileRows*p.TileStep+p.Taps*TileRows]
	_ = p.Panels[:(p.N-1)*p.Step+p.Taps*p.K*TileCols]
	_ = p.Out[:(p.M-1)*p.Stride+(p.N-1)*p.Apart+TileCols]
	switch {
	case p.Taps > 0 && p.K > 0:
		multiply(p)
	case !p.Add:
		for r := range p.M {
			for n := range p.N {
				clear(p.Out[r*p.Stride+n*p.Apart:][:TileCols])
			}
		}
	}
}

// TilePanels is how many panels a tile of the variant takes at once.
func TilePanels() int {
	if useAVX512 {
		return 2
	}
	return 1
}
