package kernel

// The transforms of Winograd's convolution F(m x m, 3x3), m = 2 or 4, over size = m+2 in each dimension:
// y = A^T [(G g G^T) * (B^T d B)] A (Lavin and Gray 2015, arXiv 1509.09308). For m = 4 the roots are 0, infinity,
// +-sqrt(1/2) and +-sqrt(2): of the choices with cheap transforms the one with the smallest error (Barabasz et al. 2018,
// arXiv 1803.10986; measured on normal values: 1.6 times the rms error of the direct sum, against 2.9 for 0, 1, 2).
//
// Lanes are channels: nothing is shuffled. What bounds the transforms: loads and stores, 4 for each value of the
// transformed side, as the size^2 values of eight channels do not fit in registers.

// winogradSize is the largest size squared.
const winogradSize = 36

// WinogradInput is B^T d B for each of n channels: dst[i*stride+c] for i below size*size, from src[y*size+x][c]. stride is
// at least n.
func WinogradInput(m int, dst []float32, stride int, src []*float32, n int) {
	last := (m+2)*(m+2) - 1
	if n > 0 {
		winogradInput(m, dst[:last*stride+n], stride, src[:last+1], n)
	}
}

// WinogradFilter is G g G^T for each of n pairs of an input and an output channel: dst[i*stride+c] for i below size*size,
// from src[y*3+x][c]. stride is at least n.
func WinogradFilter(m int, dst []float32, stride int, src *[9]*float32, n int) {
	last := (m+2)*(m+2) - 1
	if n > 0 {
		winogradFilter(m, dst[:last*stride+n], stride, src[:], n)
	}
}

// WinogradOutput is A^T M A + bias + residual for TileCols columns: dst[y*row+x*pixel+c] for y, x below m, from
// src[i*stride+c]. residual, which may be nil, lies as dst does.
func WinogradOutput(m int, dst []float32, row, pixel int, src []float32, stride int, bias *[TileCols]float32, residual []float32) {
	last, elems := (m+2)*(m+2)-1, (m-1)*(row+pixel)+TileCols
	winogradOutput(m, dst[:elems], row, pixel, src[:last*stride+TileCols], stride, bias[:], cut(residual, elems))
}

// Block multiplies rows of k floats that follow each other by a panel of 16 columns, as many as out has:
//
//	out[r*TileCols+c] = sum over i < k of x[r*k+i] * panel[i*TileCols+c]
//
// or adds the sums to out. A row's sum is formed in the same order wherever it stands. What bounds it is what bounds Tile.
func Block(out, x []float32, k int, panel []float32, add bool) {
	rows := len(out) / TileCols
	x, panel = x[:rows*k], panel[:k*TileCols]
	switch {
	case rows == 0:
	case k > 0:
		block(out[:rows*TileCols], x, k, panel, add)
	case !add:
		clear(out[:rows*TileCols])
	}
}
