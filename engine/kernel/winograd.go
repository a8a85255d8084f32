package kernel

// Winograd names a convolution with 3x3 filters by way of transforms: y = A^T [(G g G^T) * (B^T d B)] A (Lavin and Gray
// 2015, arXiv 1509.09308). Lanes are channels: nothing is shuffled. What bounds the transforms: loads and stores, four for
// each value of the transformed side, as those of a vector of channels do not fit in registers; two with the 32 registers of
// AVX-512, except for input and output of F4.
type Winograd uint8

// The convolutions. The errors are measured on normal values, relative to that of the direct sum.
const (
	// F2 is F(2x2,3x3): tiles of 2x2 pixels from 4x4 by 16 products. Roots 0, 1, -1, infinity; 1.0 times the rms error.
	F2 Winograd = iota
	// F4 is F(4x4,3x3): 4x4 pixels from 6x6 by 36 products. Roots 0, +-sqrt(1/2), +-sqrt(2), infinity: of the choices with
	// cheap transforms the one with the smallest error (Barabasz et al. 2018, arXiv 1803.10986), 1.4 to 1.6 times.
	F4
	// F4Up is F(4x4,3x3) on an image that is enlarged twice by nearest neighbour, for tiles that begin in the second of
	// two equal pixels: 4x4 pixels from 4x4 of the image as it is, by 25 products. Roots 0, +-1, +-2, infinity: as the
	// others come in pairs, the value of -1 is a sum of differences of equal pixels, 0, and those of 2 and -2 are the same
	// but for a factor. 2.2 times.
	F4Up
)

// winogradShapes is what the methods of Winograd give.
var winogradShapes = [...]struct {
	tile, reads, values, products int
}{F2: {2, 4, 4, 4}, F4: {4, 6, 6, 6}, F4Up: {4, 4, 4, 5}}

// Tile is the side of the square of pixels that is written.
func (f Winograd) Tile() int { return winogradShapes[f].tile }

// Reads is the side of the square of pixels that is read.
func (f Winograd) Reads() int { return winogradShapes[f].reads }

// Values is how many a transformed tile has for each channel.
func (f Winograd) Values() int { return winogradShapes[f].values * winogradShapes[f].values }

// Products is how many a transformed filter has for each pair of channels.
func (f Winograd) Products() int { return winogradShapes[f].products * winogradShapes[f].products }

// Value is which value of a tile product i multiplies.
func (f Winograd) Value(i int) int {
	if f != F4Up {
		return i
	}
	at := [5]int{0, 1, 2, 2, 3}
	return at[i/5]*4 + at[i%5]
}

// WinogradInput is B^T d B for each of n channels: dst[i*stride+c] for i below f.Values, from src[y*f.Reads+x][c]. stride
// is at least n.
func WinogradInput(f Winograd, dst []float32, stride int, src []*float32, n int) {
	if n > 0 {
		winogradInput(f, dst[:(f.Values()-1)*stride+n], stride, src[:f.Reads()*f.Reads()], n)
	}
}

// WinogradFilter is G g G^T for each of n pairs of an input and an output channel: dst[i*stride+c] for i below
// f.Products, from src[y*3+x][c]. stride is at least n.
func WinogradFilter(f Winograd, dst []float32, stride int, src *[9]*float32, n int) {
	if n > 0 {
		winogradFilter(f, dst[:(f.Products()-1)*stride+n], stride, src[:], n)
	}
}

// WinogradOutput is prelu(A^T M A + bias) + residual for TileCols columns: dst[y*row+x*pixel+c] for y, x below f.Tile, from
// src[i*stride+c] for i below f.Products. Without slopes nothing is activated. residual, which may be nil, lies as dst does.
func WinogradOutput(f Winograd, dst []float32, row, pixel int, src []float32, stride int, bias, slopes *[TileCols]float32, residual []float32) {
	elems := (f.Tile()-1)*(row+pixel) + TileCols
	winogradOutput(f, dst[:elems], row, pixel, src[:(f.Products()-1)*stride+TileCols], stride, bias, slopes, cut(residual, elems))
}
