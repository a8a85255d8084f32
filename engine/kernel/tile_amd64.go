//go:build !purego

package kernel

//go:noescape
func tile1x16AVX2(out *float32, stride, apart int, rows **float32, taps, k int, panels *float32, step, add int)

//go:noescape
func tile2x16AVX2(out *float32, stride, apart int, rows **float32, taps, k int, panels *float32, step, add int)

//go:noescape
func tile3x16AVX2(out *float32, stride, apart int, rows **float32, taps, k int, panels *float32, step, add int)

//go:noescape
func tile4x16AVX2(out *float32, stride, apart int, rows **float32, taps, k int, panels *float32, step, add int)

//go:noescape
func tile5x16AVX2(out *float32, stride, apart int, rows **float32, taps, k int, panels *float32, step, add int)

//go:noescape
func tile6x16AVX2(out *float32, stride, apart int, rows **float32, taps, k int, panels *float32, step, add int)

//go:noescape
func tile1x16AVX512(out *float32, stride, apart int, rows **float32, taps, k int, panels *float32, step, add int)

//go:noescape
func tile2x16AVX512(out *float32, stride, apart int, rows **float32, taps, k int, panels *float32, step, add int)

//go:noescape
func tile3x16AVX512(out *float32, stride, apart int, rows **float32, taps, k int, panels *float32, step, add int)

//go:noescape
func tile4x16AVX512(out *float32, stride, apart int, rows **float32, taps, k int, panels *float32, step, add int)

//go:noescape
func tile5x16AVX512(out *float32, stride, apart int, rows **float32, taps, k int, panels *float32, step, add int)

//go:noescape
func tile6x16AVX512(out *float32, stride, apart int, rows **float32, taps, k int, panels *float32, step, add int)

//go:noescape
func tile1x32AVX512(out *float32, stride, apart int, rows **float32, taps, k int, panels *float32, step, add int)

//go:noescape
func tile2x32AVX512(out *float32, stride, apart int, rows **float32, taps, k int, panels *float32, step, add int)

//go:noescape
func tile3x32AVX512(out *float32, stride, apart int, rows **float32, taps, k int, panels *float32, step, add int)

//go:noescape
func tile4x32AVX512(out *float32, stride, apart int, rows **float32, taps, k int, panels *float32, step, add int)

//go:noescape
func tile5x32AVX512(out *float32, stride, apart int, rows **float32, taps, k int, panels *float32, step, add int)

//go:noescape
func tile6x32AVX512(out *float32, stride, apart int, rows **float32, taps, k int, panels *float32, step, add int)

func multiply(p *Product) {
	switch {
	case p.Pairs && !HasBF16():
		multiplyPairsGeneric(p)
		return
	case !useAVX2:
		multiplyGeneric(p)
		return
	}
	width := TilePanels()
	for r := 0; r < p.M; r += TileRows {
		m, rows := min(TileRows, p.M-r), &p.Rows[r/TileRows*p.TileStep]
		for n := 0; n < p.N; n += width {
			tile(p, m, min(width, p.N-n), &p.Out[r*p.Stride+n*p.Apart], rows, &p.Panels[n*p.Step])
		}
	}
}

// tile is multiply for m rows and one panel or two.
func tile(p *Product, m, n int, out *float32, rows **float32, panels *float32) {
	stride, apart, taps, k, step, add := p.Stride, p.Apart, p.Taps, p.K, p.Step, 0
	if p.Add {
		add = 1
	}
	switch {
	case p.Pairs:
		tileBF16(m, n, out, stride, apart, rows, taps, k, panels, step, add)
	case !useAVX512:
		switch m {
		case 1:
			tile1x16AVX2(out, stride, apart, rows, taps, k, panels, step, add)
		case 2:
			tile2x16AVX2(out, stride, apart, rows, taps, k, panels, step, add)
		case 3:
			tile3x16AVX2(out, stride, apart, rows, taps, k, panels, step, add)
		case 4:
			tile4x16AVX2(out, stride, apart, rows, taps, k, panels, step, add)
		case 5:
			tile5x16AVX2(out, stride, apart, rows, taps, k, panels, step, add)
		case 6:
			tile6x16AVX2(out, stride, apart, rows, taps, k, panels, step, add)
		}
	case n == 1:
		switch m {
		case 1:
			tile1x16AVX512(out, stride, apart, rows, taps, k, panels, step, add)
		case 2:
			tile2x16AVX512(out, stride, apart, rows, taps, k, panels, step, add)
		case 3:
			tile3x16AVX512(out, stride, apart, rows, taps, k, panels, step, add)
		case 4:
			tile4x16AVX512(out, stride, apart, rows, taps, k, panels, step, add)
		case 5:
			tile5x16AVX512(out, stride, apart, rows, taps, k, panels, step, add)
		case 6:
			tile6x16AVX512(out, stride, apart, rows, taps, k, panels, step, add)
		}
	default:
		switch m {
		case 1:
			tile1x32AVX512(out, stride, apart, rows, taps, k, panels, step, add)
		case 2:
			tile2x32AVX512(out, stride, apart, rows, taps, k, panels, step, add)
		case 3:
			tile3x32AVX512(out, stride, apart, rows, taps, k, panels, step, add)
		case 4:
			tile4x32AVX512(out, stride, apart, rows, taps, k, panels, step, add)
		case 5:
			tile5x32AVX512(out, stride, apart, rows, taps, k, panels, step, add)
		case 6:
			tile6x32AVX512(out, stride, apart, rows, taps, k, panels, step, add)
		}
	}
}
