package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// matrices are a Winograd transform by definition, in float64.
type matrices struct {
	kind                  Winograd
	input, filter, output [][]float64
}

// winogradMatrices builds F(m,3) from its finite roots: the rows of B^T are the coefficients of the product of (x - root)
// over the other roots, those of G and A the powers of a root, G's over the product of its differences to the others.
func winogradMatrices(kind Winograd, roots []float64) matrices {
	m := kind.Tile()
	product := func(skip int) []float64 {
		p := make([]float64, m+2)
		p[0] = 1
		for i, r := range roots {
			if i == skip {
				continue
			}
			for j := len(p) - 1; j >= 0; j-- {
				p[j] *= -r
				if j > 0 {
					p[j] += p[j-1]
				}
			}
		}
		return p
	}
	w := matrices{kind: kind, output: make([][]float64, m)}
	for i, r := range roots {
		scale := 1.0
		for j, other := range roots {
			if j != i {
				scale *= r - other
			}
		}
		row := product(i)
		if r == 0 && scale < 0 { // the sign is free
			scale = -scale
			for j := range row {
				row[j] = -row[j]
			}
		}
		w.input = append(w.input, row)
		w.filter = append(w.filter, []float64{1 / scale, r / scale, r * r / scale})
		for k := range m {
			w.output[k] = append(w.output[k], math.Pow(r, float64(k)))
		}
	}
	w.input = append(w.input, product(-1))
	w.filter = append(w.filter, []float64{0, 0, 1})
	for k := range m {
		w.output[k] = append(w.output[k], float64((k+1)/m))
	}
	return w
}

var winograds = []matrices{
	winogradMatrices(F2, []float64{0, 1, -1}),
	winogradMatrices(F4, []float64{0, 1 / math.Sqrt2, -1 / math.Sqrt2, math.Sqrt2, -math.Sqrt2}),
	{
		F4Up,
		[][]float64{{4, -5, 1, 0}, {0, -4, 1, 0}, {0, -1, 1, 0}, {0, 4, -5, 1}},
		[][]float64{{1. / 4, 0, 0}, {-1. / 3, -1. / 3, -1. / 3}, {1. / 8, 1. / 4, 1. / 2}, {-1. / 24, 1. / 12, -1. / 6}, {0, 0, 1}},
		[][]float64{{1, 1, 1, 1, 0}, {0, 1, 2, -2, 0}, {0, 1, 4, 4, 0}, {0, 1, 8, -8, 1}},
	},
}

// apply is a * v * a^T for a square v.
func apply(a [][]float64, v []float64) []float64 {
	n := len(a[0])
	var out []float64
	for _, left := range a {
		for _, right := range a {
			sum := 0.0
			for y := range n {
				for x := range n {
					sum += left[y] * v[y*n+x] * right[x]
				}
			}
			out = append(out, sum)
		}
	}
	return out
}

// pointers returns count rows of n random floats, and pointers to them.
func pointers(r *rand.Rand, count, n int) ([]*float32, [][]float32) {
	p, rows := make([]*float32, count), make([][]float32, count)
	for i := range rows {
		rows[i] = normal(r, max(n, 1), 1)
		p[i] = &rows[i][0]
	}
	return p, rows
}

func column(rows [][]float32, c int) []float64 {
	v := make([]float64, len(rows))
	for i := range v {
		v[i] = float64(rows[i][c])
	}
	return v
}

func TestWinogradInputAndFilter(t *testing.T) {
	eachVariant(t, func(t *testing.T, r *rand.Rand) {
		for _, w := range winograds {
			for _, n := range lengths() {
				stride := n + n%3
				check := func(what string, got []float32, a [][]float64, rows [][]float32) {
					for c := range n {
						for i, want := range apply(a, column(rows, c)) {
							// Each of two dimensions rounds some 5 times, values of up to 10 or 40.
							near(t, fmt.Sprintf("%s of %d n %d", what, w.kind, n), i*stride+c, got[i*stride+c], want, 1e-6, 10)
						}
					}
				}
				src, rows := pointers(r, w.kind.Reads()*w.kind.Reads(), n)
				dst := guarded(t, (w.kind.Values()-1)*stride+n)
				WinogradInput(w.kind, dst, stride, src, n)
				check("input", dst, w.input, rows)
				src, rows = pointers(r, 9, n)
				dst = guarded(t, (w.kind.Products()-1)*stride+n)
				WinogradFilter(w.kind, dst, stride, (*[9]*float32)(src), n)
				check("filter", dst, w.filter, rows)
			}
		}
	})
}

func TestWinogradOutput(t *testing.T) {
	eachVariant(t, func(t *testing.T, r *rand.Rand) {
		for _, w := range winograds {
			tile := w.kind.Tile()
			for _, pad := range []int{0, 16, 19} {
				stride, pixel := TileCols+pad, TileCols+pad
				row := tile*pixel + pad
				src, bias := normal(r, w.kind.Products()*stride, 1), (*[TileCols]float32)(normal(r, TileCols, 1))
				dst := guarded(t, (tile-1)*(row+pixel)+TileCols)
				slopes := (*[TileCols]float32)(normal(r, TileCols, 1))
				for i, residual := range [][]float32{nil, normal(r, len(dst), 1), nil, normal(r, len(dst), 1)} {
					slopes := slopes
					if i < 2 {
						slopes = nil
					}
					for i := range dst {
						dst[i] = -7
					}
					WinogradOutput(w.kind, dst, row, pixel, src, stride, bias, slopes, residual)
					written := map[int]bool{}
					for c := range TileCols {
						v := make([]float64, w.kind.Products())
						for i := range v {
							v[i] = float64(src[i*stride+c])
						}
						for i, want := range apply(w.output, v) {
							at := i/tile*row + i%tile*pixel + c
							written[at] = true
							if want += float64(bias[c]); slopes != nil && want < 0 {
								want *= float64(slopes[c])
							}
							if residual != nil {
								want += float64(residual[at])
							}
							near(t, fmt.Sprintf("%d pad %d", w.kind, pad), at, dst[at], want, 1e-6, 10)
						}
					}
					for i, v := range dst {
						if !written[i] && v != -7 {
							t.Fatalf("m %d pad %d: wrote at %d", w.kind, pad, i)
						}
					}
				}
			}
		}
	})
}

// A convolution by way of the transforms is the convolution: the matrices of the test are checked by it too.
func TestWinogradConvolves(t *testing.T) {
	eachVariant(t, func(t *testing.T, r *rand.Rand) {
		for _, w := range winograds {
			reads, tile := w.kind.Reads(), w.kind.Tile()
			x, xs := pointers(r, reads*reads, TileCols)
			f, fs := pointers(r, 9, TileCols)
			v, u := make([]float32, w.kind.Values()*TileCols), make([]float32, w.kind.Products()*TileCols)
			WinogradInput(w.kind, v, TileCols, x, TileCols)
			WinogradFilter(w.kind, u, TileCols, (*[9]*float32)(f), TileCols)
			for i := range u {
				u[i] *= v[w.kind.Value(i/TileCols)*TileCols+i%TileCols]
			}
			out := make([]float32, tile*tile*TileCols)
			WinogradOutput(w.kind, out, tile*TileCols, TileCols, u, TileCols, new([TileCols]float32), nil, nil)
			for i, got := range out {
				y, px, c := i/TileCols/tile, i/TileCols%tile, i%TileCols
				want := 0.0
				for tap := range 9 {
					y, px := y+tap/3, px+tap%3
					if w.kind == F4Up {
						y, px = (y+1)/2, (px+1)/2
					}
					want += float64(xs[y*reads+px][c]) * float64(fs[tap][c])
				}
				near(t, fmt.Sprint(w.kind), i, got, want, 2e-6, 10)
			}
		}
	})
}

func TestWinogradTooShortPanics(t *testing.T) {
	eachVariant(t, func(t *testing.T, r *rand.Rand) {
		src, _ := pointers(r, 36, 8)
		short, bias := make([]float32, 35*8+7), new([TileCols]float32)
		for name, f := range map[string]func(){
			"input dst":  func() { WinogradInput(F4, short, 8, src, 8) },
			"input src":  func() { WinogradInput(F4, make([]float32, 36*8), 8, src[:35:35], 8) },
			"filter dst": func() { WinogradFilter(F4, short, 8, (*[9]*float32)(src), 8) },
			"output dst": func() { WinogradOutput(F2, make([]float32, 63), 32, 16, make([]float32, 256), 16, bias, nil, nil) },
			"output src": func() { WinogradOutput(F2, make([]float32, 64), 32, 16, make([]float32, 255), 16, bias, nil, nil) },
			"residual": func() {
				WinogradOutput(F2, make([]float32, 64), 32, 16, make([]float32, 256), 16, bias, nil, make([]float32, 63))
			},
		} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%s: no panic", name)
					}
				}()
				f()
			}()
		}
	})
}
