package kernel

// The size of the tile: 6x16 fills 12 of AVX2's 16 registers with accumulators, the shape of BLIS's
// Haswell kernel (Van Zee and van de Geijn 2015). In AVX-512 a row of the panel is one register.
const (
	TileRows = 6
	TileCols = 16
)

// Tile multiplies up to 6 rows by a panel of 16 columns:
//
//	out[r*TileCols+c] = sum over t < taps, i < k of rows[t*TileRows+r][i] * panel[(t*k+i)*TileCols+c], for r < m
//
// With one tap it is the inner kernel of GEMM; with a tap per filter position and a pointer per pixel and tap, padding
// pointing to a row of zeros, it is implicit-GEMM convolution (Dukhan 2019, arXiv 1907.02129).
//
// rows holds taps*TileRows pointers to at least k floats each; those of rows r >= m must be valid too. m is 1 to 6; rows
// of out from m on are left alone. A row's sum is formed in the same order for every m, so a row's result does not
// depend on the tile it falls into.
//
// What bounds it: the FMA units, with 12 FMAs a step (6 cycles where there are two of 256 bits), as long as the panel, of
// which a step reads 64 bytes, lies in L2 or nearer. Below m = 4 the latency of FMA bounds it, 4 or 5 cycles a step.
// With AVX-512 a step is 6 FMAs, each with a broadcast from memory, and 7 loads: where there are two units of 512 bits and
// two loads a cycle, the loads bound it, 3.5 cycles instead of 3; with one unit the FMAs do, 6 cycles.
func Tile(out *[TileRows * TileCols]float32, rows []*float32, taps, k int, panel []float32, m int) {
	live := out[:m*TileCols]
	if taps <= 0 || k <= 0 {
		clear(live)
		return
	}
	tile(live, rows[:taps*TileRows], k, panel[:taps*k*TileCols])
}
