package kernel

import (
	"math"
	"unsafe"
)

// root and inverseRoot are the roots of F(4x4,3x3) but for sign, 0 and infinity.
const (
	root        = math.Sqrt2
	inverseRoot = 1 / math.Sqrt2
)

func winogradInputGeneric(f Winograd, dst []float32, stride int, src []*float32, n int) {
	forward(dst, stride, src, n, winogradShapes[f].values, [...]func(line) line{F2: input2, F4: input4, F4Up: input4Up}[f])
}

func winogradFilterGeneric(f Winograd, dst []float32, stride int, src []*float32, n int) {
	forward(dst, stride, src, n, winogradShapes[f].products, [...]func(line) line{F2: filter2, F4: filter4, F4Up: filter4Up}[f])
}

// line is a row or a column in a transform; what it has room for and a transform does not use is zero.
type line [6]float32

// forward applies f to the columns of the square of values that src points to, then to the rows, for each of n channels.
func forward(dst []float32, stride int, src []*float32, n, to int, f func(line) line) {
	from := int(math.Sqrt(float64(len(src))))
	for c := range n {
		var columns, rows [6]line
		for x := range from {
			for y := range from {
				columns[x][y] = *(*float32)(unsafe.Add(unsafe.Pointer(src[y*from+x]), 4*c))
			}
			for y, v := range f(columns[x]) {
				rows[y][x] = v
			}
		}
		for y := range to {
			row := f(rows[y])
			for x := range to {
				dst[(y*to+x)*stride+c] = row[x]
			}
		}
	}
}

func winogradOutputGeneric(w Winograd, dst []float32, row, pixel int, src []float32, stride int, bias, slopes *[TileCols]float32, residual []float32) {
	size, m, f := winogradShapes[w].products, w.Tile(), [...]func(line) line{F2: output2, F4: output4, F4Up: output4Up}[w]
	for c := range TileCols {
		var rows [6]line
		for x := range size {
			var column line
			for y := range size {
				column[y] = src[(y*size+x)*stride+c]
			}
			for y, v := range f(column) {
				rows[y][x] = v
			}
		}
		for y := range m {
			values := f(rows[y])
			for x := range m {
				at := y*row + x*pixel + c
				v := values[x] + bias[c]
				if slopes != nil {
					v = prelu(v, slopes[c])
				}
				if residual != nil {
					v += residual[at]
				}
				dst[at] = v
			}
		}
	}
}

func input2(d line) line {
	return line{d[0] - d[2], d[1] + d[2], d[2] - d[1], d[3] - d[1]}
}

func filter2(w line) line {
	even, odd := 0.5*(w[0]+w[2]), 0.5*w[1]
	return line{w[0], even + odd, even - odd, w[2]}
}

func output2(m line) line {
	return line{m[0] + m[1] + m[2], m[1] - m[2] + m[3]}
}

func input4(d line) line {
	smallEven, smallOdd := d[4]-2*d[2], inverseRoot*(d[3]-2*d[1])
	largeEven, largeOdd := d[4]-0.5*d[2], root*(d[3]-0.5*d[1])
	return line{
		d[0] - 2.5*d[2] + d[4],
		smallEven + smallOdd, smallEven - smallOdd,
		largeEven + largeOdd, largeEven - largeOdd,
		d[1] - 2.5*d[3] + d[5],
	}
}

func filter4(w line) line {
	smallEven, smallOdd := -2.0/3*w[0]-1.0/3*w[2], -2*inverseRoot/3*w[1]
	largeEven, largeOdd := 1.0/6*w[0]+1.0/3*w[2], root/6*w[1]
	return line{w[0], smallEven + smallOdd, smallEven - smallOdd, largeEven + largeOdd, largeEven - largeOdd, w[2]}
}

func output4(m line) line {
	smallSum, smallDiff, largeSum, largeDiff := m[1]+m[2], m[1]-m[2], m[3]+m[4], m[3]-m[4]
	return line{
		m[0] + smallSum + largeSum,
		inverseRoot*smallDiff + root*largeDiff,
		0.5*smallSum + 2*largeSum,
		inverseRoot/2*smallDiff + 2*root*largeDiff + m[5],
	}
}

func input4Up(d line) line {
	return line{4*d[0] - 5*d[1] + d[2], d[2] - 4*d[1], d[2] - d[1], 4*d[1] - 5*d[2] + d[3]}
}

func filter4Up(w line) line {
	even, odd := w[0]+4*w[2], 2*w[1]
	return line{0.25 * w[0], -1.0 / 3 * (w[0] + w[1] + w[2]), 0.125 * (even + odd), -1.0 / 24 * (even - odd), w[2]}
}

func output4Up(m line) line {
	sum, difference := m[2]+m[3], m[2]-m[3]
	return line{m[0] + m[1] + sum, m[1] + 2*difference, m[1] + 4*sum, m[1] + 8*difference + m[4]}
}
