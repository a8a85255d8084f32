package upscale

// Tiling is how an image is cut into tiles that are enlarged one by one. Sizes are in pixels of the image that goes in.
type Tiling struct {
	Tile int // side of a square; 0 is one tile
	// Overlap, at most half of a tile, is how far a tile begins before the one beside it ends, at least: there one fades into the other linearly, so that no
	// seam is seen. Tiles are spread evenly. Without overlap they lie side by side, the last ones smaller.
	Overlap int
	Pad     int // pixels around a tile that are computed with it and cut off
	Step    int // tiles are computed from multiples of it on, so that squares of pixels are those of the whole image; 0 is 1
}

// Whole is a tiling of one tile.
var Whole Tiling

// span is the pixels of a line that a tile covers, from first, and those it is computed from, from low.
type span struct{ first, end, low, high int }

// spans cuts a line of n pixels.
func (t Tiling) spans(n int) (out []span) {
	step := max(1, t.Step)
	size := n
	if t.Tile > 0 {
		size = min((t.Tile+step-1)/step*step, n)
	}
	count, start := (n+size-1)/size, func(i int) int { return i * size }
	if t.Overlap > 0 && size < n {
		overlap := t.Overlap + step - 1 // some of it is lost where starts are rounded
		count = (n - overlap + size - overlap - 1) / (size - overlap)
		start = func(i int) int { return i * (n - size) / (count - 1) / step * step }
	}
	for i := range count {
		s := span{first: start(i), end: min(start(i)+size, n)}
		if i == count-1 {
			s.end = n
		}
		s.low, s.high = max(s.first-t.Pad, 0)/step*step, min(s.end+t.Pad, n)
		out = append(out, s)
	}
	return out
}

// Tiles is how many there are of an image.
func (t Tiling) Tiles(h, w int) int { return len(t.spans(h)) * len(t.spans(w)) }

// Window is a part of an image.
type Window struct{ Y, X, H, W int }

// Sizes are those of the windows that the tiles of an image are computed from, each once. Y and X are 0.
func (t Tiling) Sizes(h, w int) (out []Window) {
	seen := map[Window]bool{}
	for _, y := range t.spans(h) {
		for _, x := range t.spans(w) {
			size := Window{H: y.high - y.low, W: x.high - x.low}
			if !seen[size] {
				seen[size] = true
				out = append(out, size)
			}
		}
	}
	return out
}

// Join enlarges an image of h x w pixels so many times. enlarge gives the pixels [window.H*scale, window.W*scale, 3] of a window. rows
// takes the rows of the result from the top down, [n, w*scale, 3], which it may not keep. The errors are enlarge's.
func (t Tiling) Join(h, w, scale int, enlarge func(Window) ([]float32, error), rows func([]float32)) error {
	width, fade := w*scale*ImageChannels, t.Overlap*scale
	var strip []float32 // of the tiles above, what is not given to rows
	for i, y := range t.spans(h) {
		next := make([]float32, (y.end-y.first)*scale*width)
		for j, x := range t.spans(w) {
			tile, err := enlarge(Window{Y: y.low, X: x.low, H: y.high - y.low, W: x.high - x.low})
			if err != nil {
				return err
			}
			stride, n := (x.high-x.low)*scale*ImageChannels, (x.end-x.first)*scale*ImageChannels
			for row := range (y.end - y.first) * scale {
				from := tile[((y.first-y.low)*scale+row)*stride+(x.first-x.low)*scale*ImageChannels:][:n]
				to := next[row*width+x.first*scale*ImageChannels:][:n]
				mixed := 0
				if j > 0 {
					for mixed < fade {
						mix(to[mixed*ImageChannels:], from[mixed*ImageChannels:], mixed, fade, ImageChannels)
						mixed++
					}
				}
				copy(to[mixed*ImageChannels:], from[mixed*ImageChannels:])
			}
		}
		if i > 0 {
			above := len(strip) - (t.spans(h)[i-1].end-y.first)*scale*width
			for row := range fade {
				mix(next[row*width:], strip[above+row*width:], fade-row, fade, width)
			}
			strip = strip[:above]
		}
		if len(strip) > 0 {
			rows(strip)
		}
		strip = next
	}
	rows(strip)
	return nil
}

// mix fades n values of dst into those of src, of which there are at of all parts.
func mix(dst, src []float32, at, all, n int) {
	weight := float32(at) / float32(all)
	for i := range n {
		dst[i] = dst[i]*(1-weight) + src[i]*weight
	}
}

// maxArrays is what the arrays of one tile take at most, whether in memory or in a device's file.
const maxArrays = 2 << 30

const (
	fade     = 16
	tileStep = 16
	// A network that sees no farther than exactPad is computed with all that it sees around a tile, others with usualPad: what lies
	// farther away hardly counts. Both are in the network's pixels.
	exactPad, usualPad = 40, 24
)

// Tiles is the tiling in tiles of a side, whose seams are not seen: of networks that see little it is exact.
func (c Config) Tiles(side int) Tiling {
	pad := c.Radius()
	if pad > exactPad*c.Multiple() {
		pad = usualPad * c.Multiple()
	}
	return Tiling{Tile: side, Overlap: min(fade, side/4), Pad: pad, Step: c.Multiple()}
}

// Usual is the tiling of an image for which nothing is said: one tile if its arrays take no more than 2 GiB, else the largest tiles
// whose do.
func (c Config) Usual(h, w int) Tiling {
	if int64(h)*int64(w)*c.PixelBytes() <= maxArrays {
		return Whole
	}
	t := c.Tiles(tileStep)
	for {
		next := c.Tiles(t.Tile + tileStep)
		if side := int64(next.Tile + 2*next.Pad); side*side*c.PixelBytes() > maxArrays {
			return t
		}
		t = next
	}
}
