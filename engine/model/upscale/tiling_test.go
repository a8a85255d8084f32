package upscale_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/model/rrdb"
	"github.com/triptych-serving/triptych/engine/model/upscale"
	"github.com/triptych-serving/triptych/engine/nn"
	tensorpkg "github.com/triptych-serving/triptych/engine/tensor"
)

// join enlarges pixels by tiles.
func (n *network) join(t *testing.T, tiling upscale.Tiling, pixels []float32, h, w int) (out []float32) {
	t.Helper()
	windows := 0
	if err := tiling.Join(h, w, n.Scale(), func(at upscale.Window) ([]float32, error) {
		windows++
		if step := max(1, tiling.Step); at.X%step != 0 || at.Y%step != 0 {
			t.Errorf("a window at %d, %d, not at multiples of %d", at.X, at.Y, step)
		}
		got, _ := n.upscale(t, cut(pixels, w, at), at.H, at.W)
		return got, nil
	}, func(rows []float32) { out = append(out, rows...) }); err != nil {
		t.Fatal(err)
	}
	if windows != tiling.Tiles(h, w) {
		t.Errorf("%d tiles, promised %d", windows, tiling.Tiles(h, w))
	}
	return out
}

func cut(pixels []float32, w int, at upscale.Window) (out []float32) {
	for y := range at.H {
		out = append(out, pixels[((at.Y+y)*w+at.X)*3:][:at.W*3]...)
	}
	return out
}

// TestTiled: tiles joined as the reference joins them, with a ramp or side by side.
func TestTiled(t *testing.T) {
	golden := filepath.Join(goldens, "sdxl", "esrgan", "tensors.safetensors")
	pixels, h, w := tensor(t, golden, "in")
	for file, name := range map[string]string{"x2-old.pth": "x2", "x2-unshuffle.pth": "x2-unshuffle"} {
		n := load(t, open(t, filepath.Join(goldens, "sdxl", "esrgan", file)))
		for kind, tiling := range map[string]upscale.Tiling{"blend": {Tile: 12, Overlap: 4}, "crop": {Tile: 12, Pad: 4}} {
			want, _, _ := tensor(t, golden, name+"."+kind)
			within(t, name+" "+kind, n.join(t, tiling, pixels, h, w), want, 0)
		}
	}
}

// TestOddSides: an image whose sides the network cannot take is enlarged like one that is filled up by its mirrored pixels.
func TestOddSides(t *testing.T) {
	n := load(t, open(t, filepath.Join(goldens, "sdxl", "esrgan", "x2-unshuffle.pth")))
	r := rand.New(rand.NewPCG(1, 2))
	for _, size := range [][2]int{{7, 9}, {1, 1}, {2, 5}} {
		h, w := size[0], size[1]
		pixels := make([]float32, h*w*3)
		for i := range pixels {
			pixels[i] = r.Float32()
		}
		H, W := h+h%2, w+w%2
		full := make([]float32, 0, H*W*3)
		for y := range H {
			for x := range W {
				fy, fx := y, x
				if y == h {
					fy = max(h-2, 0)
				}
				if x == w {
					fx = max(w-2, 0)
				}
				full = append(full, pixels[(fy*w+fx)*3:][:3]...)
			}
		}
		all, _ := n.upscale(t, full, H, W)
		got, _ := n.upscale(t, pixels, h, w)
		if want := cut(all, 2*W, upscale.Window{H: 2 * h, W: 2 * w}); !slices.Equal(got, want) {
			t.Errorf("%dx%d: not what the filled up image gives", w, h)
		}
	}
}

// TestJoin: whatever the tiles, those of a network that sees one pixel give what the whole image gives, every row once.
func TestJoin(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		h, w, scale := 1+r.IntN(40), 1+r.IntN(40), 1+r.IntN(4)
		tiling := upscale.Tiling{Tile: r.IntN(30), Pad: r.IntN(5)}
		if tiling.Tile > 1 && r.IntN(2) == 0 {
			tiling.Overlap = r.IntN(tiling.Tile/2 + 1)
		}
		if tiling.Tile >= 16 {
			tiling.Step = r.IntN(5)
		}
		value := func(y, x, k int) float32 { return float32((y*w*scale+x)*3 + k) }
		var got []float32
		sizes := tiling.Sizes(h, w)
		err := tiling.Join(h, w, scale, func(at upscale.Window) (out []float32, err error) {
			if !slices.Contains(sizes, upscale.Window{H: at.H, W: at.W}) {
				t.Errorf("a window %+v that was not told", at)
			}
			for y := range at.H * scale {
				for x := range at.W * scale {
					for k := range 3 {
						out = append(out, value(at.Y*scale+y, at.X*scale+x, k))
					}
				}
			}
			return out, nil
		}, func(rows []float32) { got = append(got, rows...) })
		if err != nil || len(got) != h*w*scale*scale*3 {
			t.Fatalf("%+v of %dx%d: %d values, %v", tiling, w, h, len(got), err)
		}
		for i, v := range got {
			if want := float32(i); math.Abs(float64(v-want)) > 1e-3+1e-6*float64(want) {
				t.Fatalf("%+v of %dx%d by %d: value %d is %v", tiling, w, h, scale, i, v)
			}
		}
	}
	failed := errors.New("no")
	if err := upscale.Whole.Join(2, 2, 1, func(upscale.Window) ([]float32, error) { return nil, failed }, nil); !errors.Is(err, failed) {
		t.Error(err)
	}
}

// TestUsual: tiles are as large as memory allows.
func TestUsual(t *testing.T) {
	c := upscale.Config{RRDB: &rrdb.Config{Features: 64, Growth: 32, Blocks: 23, Upsamples: 2, Unshuffle: 1, Naming: rrdb.NewNames}}
	if tiling := c.Usual(512, 512); tiling != upscale.Whole {
		t.Errorf("%+v", tiling)
	}
	tiling := c.Usual(4096, 4096)
	if want := (upscale.Tiling{Tile: 464, Overlap: 16, Pad: 24, Step: 1}); tiling != want {
		t.Errorf("%+v, want %+v", tiling, want)
	}
}

// deep is a source of an RRDBNet that sees farther than what is computed around tiles, with weights as ESRGAN begins its training.
type deep struct {
	tensors map[string][]int
	r       *rand.Rand
}

func (d *deep) Info(name string) (tensorpkg.DType, tensorpkg.Shape, bool) {
	s, ok := d.tensors[name]
	return tensorpkg.F32, s, ok
}
func (d *deep) TypeName(string) string { return "F32" }
func (d *deep) Where(string) string    { return "deep" }
func (d *deep) Names() []string        { return slices.Sorted(maps.Keys(d.tensors)) }

func (d *deep) Section(name string) (*io.SectionReader, error) {
	shape := d.tensors[name]
	elems, fan := 1, 1
	for i, n := range shape {
		elems *= n
		if i > 0 {
			fan *= n
		}
	}
	scale := 0.0
	if len(shape) > 1 {
		scale = math.Sqrt(2 / float64(fan))
		if strings.HasPrefix(name, "body.") {
			scale /= 10
		}
	}
	data := make([]byte, 0, 4*elems)
	for range elems {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(float32(scale*d.r.NormFloat64())))
	}
	return io.NewSectionReader(bytes.NewReader(data), 0, int64(len(data))), nil
}

// TestSeams: of a network of 8 blocks, which sees 125 pixels far, tiles are within two grey levels of the whole image.
func TestSeams(t *testing.T) {
	c := rrdb.Config{Features: 16, Growth: 8, Blocks: 8, Upsamples: 1, Unshuffle: 1, Naming: rrdb.NewNames}
	d := &deep{map[string][]int{}, rand.New(rand.NewPCG(7, 8))}
	missing := nn.NewScope(d)
	rrdb.New(missing, c)
	for _, p := range missing.Manifest().Params {
		d.tensors[p.Name] = p.Shape
	}
	n := loadFrom(t, d)
	const h, w = 90, 150
	pixels := make([]float32, h*w*3)
	for i := range pixels {
		x, y := i/3%w, i/3/w
		pixels[i] = 0.5 + 0.3*float32(math.Sin(float64(x)/5)*math.Cos(float64(y)/7)) + 0.2*d.r.Float32()
		if (x/20+y/15)%2 == 0 {
			pixels[i] = 1 - pixels[i]
		}
	}
	want, _ := n.upscale(t, pixels, h, w)
	got := n.join(t, n.Tiles(40), pixels, h, w)
	least, most := slices.Min(want), slices.Max(want)
	within(t, "tiles of 40", got, want, 2.0/255*float64(most-least))
	worse := n.join(t, upscale.Tiling{Tile: 40}, pixels, h, w)
	off := 0.0
	for i := range want {
		off = max(off, math.Abs(float64(worse[i]-want[i])))
	}
	if off < 8.0/255*float64(most-least) {
		t.Errorf("tiles side by side are off by %.3g of %.3g: the test does not see seams", off, most-least)
	}
}
