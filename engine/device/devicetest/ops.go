package devicetest

import (
	"fmt"
	"math"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// tolerance is the largest error of an op allowed, as a share of the definition's largest value: some
// ten roundings of float32, for sums that grow with the square root of their length.
const tolerance = 5e-6

// convTolerance is that of convolutions. By Winograd's algorithm an element is a sum of 36 sums of the same length,
// whose weights reach 8 for enlarged images: up to four times the error of the plain sum (the same seen at 2,560
// channels, 6e-6). The product asks for 1e-4.
const convTolerance = 4 * tolerance

func compare(t *testing.T, name string, got, want []float32) {
	t.Helper()
	compareWithin(t, name, got, want, tolerance)
}

func compareWithin(t *testing.T, name string, got, want []float32, tolerance float64) {
	t.Helper()
	var diff, largest float64
	for i := range want {
		d := math.Abs(float64(got[i]) - float64(want[i]))
		if math.IsNaN(d) {
			d = math.Inf(1)
		}
		diff, largest = max(diff, d), max(largest, math.Abs(float64(want[i])))
	}
	if diff > tolerance*largest {
		t.Errorf("%s: largest error %.2e of the largest value %.4g, allowed %g", name, diff/largest, largest, tolerance)
	}
}

var (
	activations = []device.Activation{device.None, device.SiLU, device.GELU, device.QuickGELU}
	dtypes      = []tensor.DType{tensor.F32, tensor.F16, tensor.BF16}
)

// testOps compares every op with its definition, over shapes with and without tails.
func testOps(t *testing.T, d device.Device) {
	groups := []opGroup{
		{"Gemm", gemms, tolerance},
		{"Conv2D", convs, convTolerance},
		{"Rectified", rectified, convTolerance},
		{"GroupNorm", groupNorms, tolerance},
		{"LayerNorm", layerNorms, tolerance},
		{"Attention", attentions, tolerance},
		{"Pointwise", pointwise, tolerance},
		{"Embed", embeds, tolerance},
		{"InPlace", inPlace, tolerance},
	}
	for _, resident := range []tensor.DType{tensor.F32, tensor.F16, tensor.BF16, tensor.I8, tensor.I4} {
		groups = append(groups, opGroup{"Gemm" + resident.String(), keptAs(resident, gemms), tolerance})
		if !resident.IsFloat() { // with groups of their own order
			groups = append(groups, opGroup{"Conv2D" + resident.String(), keptAs(resident, convs), convTolerance})
		}
	}
	testGroups(t, d, device.RunOptions{}, groups)
}

// opGroup is cases of an op, which add gives one by one.
type opGroup struct {
	name      string
	add       func(n *Network, yield func(device.Array))
	tolerance float64
}

func testGroups(t *testing.T, d device.Device, o device.RunOptions, groups []opGroup) {
	for _, group := range groups {
		t.Run(group.name, func(t *testing.T) {
			n := NewNetwork(7)
			cases := 0
			group.add(n, func(a device.Array) {
				if err := n.Tape.Err(); err != nil {
					t.Fatalf("case %d: %v", cases, err)
				}
				n.Tape.Output(fmt.Sprintf("case %d %v", cases, a.Shape), a)
				cases++
			})
			want, err := EvaluateIn(o.Compute, n.Tape, n, n.Inputs)
			if err != nil {
				t.Fatal(err)
			}
			for name, got := range ComputeWith(t, d, o, n.Tape, n, n.Inputs) {
				compareWithin(t, name, got, want[name], group.tolerance)
			}
		})
	}
}

// keptAs is the cases of add with every matrix and filter kept in a type.
func keptAs(resident tensor.DType, add func(*Network, func(device.Array))) func(*Network, func(device.Array)) {
	return func(n *Network, yield func(device.Array)) {
		add(n, yield)
		for i := range n.Manifest.Params {
			if p := &n.Manifest.Params[i]; p.Layout == device.Matrix || p.Layout == device.Filter {
				p.Resident = resident
			}
		}
	}
}

func gemms(n *Network, yield func(device.Array)) {
	for i, c := range []struct {
		x   []int
		out int
	}{
		{[]int{1, 1}, 1},
		{[]int{1, 5}, 3},
		{[]int{2, 64}, 256},
		{[]int{2, 7, 16}, 16},
		{[]int{13, 33}, 40},
		{[]int{1, 12, 48}, 17},
		{[]int{300, 20}, 33},
		{[]int{7, 700}, 31},
		{[]int{2, 6, 6, 24}, 48},
	} {
		k := c.x[len(c.x)-1]
		for j, act := range activations {
			op := device.Gemm{X: n.Input(0, c.x...), Act: act}
			op.W = n.Param(device.Matrix, dtypes[(i+j)%3], 1/math.Sqrt(float64(k)), c.out, k)
			if j%2 == 0 {
				op.Bias = n.Param(device.Vector, dtypes[j%3], 1, c.out)
			}
			if j >= 1 {
				op.Residual = n.Input(0, append(append([]int(nil), c.x[:len(c.x)-1]...), c.out)...)
			}
			yield(n.Tape.Gemm(op))
		}
	}
}

func convs(n *Network, yield func(device.Array)) {
	for i, c := range []struct {
		x                        [4]int
		out, kernel, stride      int
		top, left, bottom, right int
		upsample                 bool
	}{
		{[4]int{1, 1, 1, 3}, 5, 3, 1, 1, 1, 1, 1, false},
		{[4]int{2, 7, 5, 4}, 16, 3, 1, 1, 1, 1, 1, false},
		{[4]int{1, 16, 16, 20}, 33, 3, 1, 1, 1, 1, 1, false},
		{[4]int{2, 6, 9, 16}, 24, 1, 1, 0, 0, 0, 0, false},
		{[4]int{2, 8, 10, 8}, 17, 3, 2, 0, 0, 1, 1, false}, // as the autoencoder's encoder pads
		{[4]int{1, 9, 7, 8}, 3, 3, 2, 1, 1, 1, 1, false},
		{[4]int{1, 6, 6, 5}, 4, 5, 3, 2, 0, 1, 3, false},
		{[4]int{2, 5, 3, 12}, 18, 3, 1, 1, 1, 1, 1, true},
		{[4]int{1, 4, 4, 7}, 16, 3, 2, 1, 0, 0, 1, true},
		{[4]int{1, 37, 50, 6}, 9, 3, 1, 1, 1, 1, 1, false}, // more pixels than a device may want to take at once
		{[4]int{2, 34, 21, 5}, 7, 3, 2, 0, 0, 1, 1, false},
		{[4]int{2, 19, 11, 6}, 4, 3, 1, 1, 1, 1, 1, true},
		{[4]int{1, 3, 2, 1200}, 17, 3, 1, 1, 1, 1, 1, false}, // more weights for 16 channels than caches hold
		{[4]int{2, 9, 11, 40}, 20, 3, 1, 1, 1, 1, 1, false},
		{[4]int{2, 8, 12, 48}, 32, 3, 1, 1, 1, 1, 1, false},
		{[4]int{1, 10, 7, 17}, 48, 3, 1, 0, 0, 0, 0, false},
		{[4]int{2, 6, 8, 31}, 16, 3, 1, 2, 0, 1, 3, false},
		{[4]int{2, 4, 6, 32}, 40, 3, 1, 1, 1, 1, 1, true},
		{[4]int{1, 3, 5, 24}, 16, 3, 1, 0, 1, 2, 1, true}, // a tile begins in the first of two equal pixels
		{[4]int{2, 5, 4, 24}, 16, 3, 1, 1, 0, 0, 2, true},
		{[4]int{1, 43, 36, 300}, 3, 3, 1, 1, 1, 1, 1, false}, // more pixels than fit in a cache with their channels
		{[4]int{1, 1, 1, 8}, 5, 3, 1, 1, 1, 1, 1, true},
		{[4]int{1, 40, 36, 5}, 4, 3, 1, 1, 1, 1, 1, true}, // more pixels than a band has
	} {
		for j, act := range activations {
			op := device.Conv2D{
				X: n.Input(0, c.x[:]...), Stride: c.stride, Top: c.top, Left: c.left, Bottom: c.bottom, Right: c.right,
				Upsample: c.upsample, Act: act,
			}
			scale := 1 / math.Sqrt(float64(c.x[3]*c.kernel*c.kernel))
			op.W = n.Param(device.Filter, dtypes[(i+j)%3], scale, c.out, c.x[3], c.kernel, c.kernel)
			if j != 1 {
				op.Bias = n.Param(device.Vector, dtypes[j%3], 1, c.out)
			}
			switch j {
			case 1:
				op.PerImage = n.Input(0, 1, c.out)
			case 2:
				op.PerImage = n.Input(0, c.x[0], c.out)
			}
			plain := n.Tape.Conv2D(op)
			yield(plain)
			op.Residual = n.Input(0, plain.Shape...)
			yield(n.Tape.Conv2D(op))
			if c.upsample {
				op.Residual, op.CropBottom, op.CropRight = device.Array{}, 1-j%2, min(j, 1)
				yield(n.Tape.Conv2D(op))
			}
		}
	}
}

// rectified are convolutions of several inputs, with slopes and scales.
func rectified(n *Network, yield func(device.Array)) {
	for i, c := range []struct {
		size     [3]int
		inputs   []int
		out      int
		kernel   int
		upsample bool
	}{
		{[3]int{1, 3, 2}, []int{5}, 3, 3, false},
		{[3]int{2, 7, 9}, []int{8, 3, 5}, 16, 3, false},
		{[3]int{1, 16, 17}, []int{64, 32, 32, 32}, 32, 3, false},
		{[3]int{1, 20, 13}, []int{64, 32, 32, 32, 32}, 64, 3, false}, // more channels than are transformed at once
		{[3]int{1, 12, 12}, []int{20, 70, 40}, 33, 3, false},
		{[3]int{2, 6, 5}, []int{3, 4}, 18, 1, false},
		{[3]int{1, 5, 6}, []int{2, 7}, 8, 5, false},
		{[3]int{1, 3, 4}, []int{3000, 500}, 16, 3, false}, // more weights of an input than caches hold
		{[3]int{1, 37, 50}, []int{6, 2}, 9, 3, false},
		{[3]int{1, 17, 14}, []int{24, 8}, 20, 3, true},
	} {
		op := device.Conv2D{Stride: 1, Top: c.kernel / 2, Left: c.kernel / 2, Bottom: c.kernel / 2, Right: c.kernel / 2, Upsample: c.upsample}
		channels := 0
		for j, in := range c.inputs {
			x := n.Input(0, append(c.size[:], in)...)
			if channels += in; j == 0 {
				op.X = x
			} else {
				op.More = append(op.More, x)
			}
		}
		for j, act := range []device.Activation{device.None, device.ReLU, device.LeakyReLU, device.PReLU, device.SiLU} {
			op := op
			op.W = n.Param(device.Filter, dtypes[(i+j)%3], 1/math.Sqrt(float64(channels*c.kernel*c.kernel)), c.out, channels, c.kernel, c.kernel)
			op.Bias = n.Param(device.Vector, dtypes[j%3], 1, c.out)
			switch op.Act = act; act {
			case device.PReLU:
				op.Slopes = n.Param(device.Vector, dtypes[i%3], 1, c.out)
			case device.None:
				op.Scale, op.PerImage = 0.2, n.Input(0, 1, c.out)
			}
			plain := n.Tape.Conv2D(op)
			yield(plain)
			op.Residual = n.Input(0, plain.Shape...)
			yield(n.Tape.Conv2D(op))
		}
	}
}

func groupNorms(n *Network, yield func(device.Array)) {
	for i, c := range []struct {
		x      []int
		groups int
		mean   float64
	}{
		{[]int{1, 1, 1, 4}, 2, 0},
		{[]int{2, 3, 5, 12}, 4, 0},
		{[]int{1, 16, 16, 64}, 32, 0},
		{[]int{2, 77, 40}, 1, 3},
		{[]int{1, 64, 48, 24}, 8, 0},
		{[]int{3, 9, 7, 33}, 11, 10},
		{[]int{2, 20, 20, 200}, 20, 0},
		{[]int{1, 40, 60, 33}, 11, 10},
	} {
		width := c.x[len(c.x)-1]
		for _, act := range activations {
			yield(n.Tape.GroupNorm(device.GroupNorm{
				X: n.Input(c.mean, c.x...), Gamma: n.Param(device.Vector, dtypes[i%3], 1, width), Beta: n.Param(device.Vector, dtypes[i%3], 1, width),
				Groups: c.groups, Eps: []float32{1e-5, 1e-6}[i%2], Act: act,
			}))
		}
	}
}

func layerNorms(n *Network, yield func(device.Array)) {
	for i, x := range [][]int{{1, 3}, {2, 77, 128}, {1, 5, 40}, {7, 33}, {1, 1000}} {
		c := x[len(x)-1]
		yield(n.Tape.LayerNorm(device.LayerNorm{
			X: n.Input(float64(i), x...), Gamma: n.Param(device.Vector, dtypes[i%3], 1, c), Beta: n.Param(device.Vector, dtypes[i%3], 1, c), Eps: 1e-5,
		}))
	}
}

func attentions(n *Network, yield func(device.Array)) {
	for _, c := range []struct {
		batch, queries, keys, heads, d int
		causal                         bool
	}{
		{1, 1, 1, 1, 1, false},
		{2, 5, 1, 3, 8, false},
		{1, 60, 77, 4, 40, false},
		{2, 77, 77, 2, 32, true},
		{1, 300, 300, 1, 24, false},
		{1, 300, 300, 2, 16, true},
		{1, 13, 1100, 1, 48, false},
		{1, 1100, 1100, 1, 5, true},
		{1, 49, 16, 2, 96, false},
		{1, 16, 15, 8, 20, false},
		{1, 50, 200, 1, 512, false},
	} {
		q := n.Input(0, c.batch, c.queries, c.heads*c.d)
		k, v := n.Input(0, c.batch, c.keys, c.heads*c.d), n.Input(0, c.batch, c.keys, c.heads*c.d)
		yield(n.Tape.Attention(device.Attention{Q: q, K: k, V: v, Heads: c.heads, Causal: c.causal}))
	}
	// Scores up to 600 that rise with the keys, all exact: a sum must be rescaled, and none may overflow.
	const keys, c = 1200, 4
	q := n.valued(func(int) float32 { return 16 }, 1, 7, c)
	k := n.valued(func(i int) float32 { return float32(i/c) / 64 }, 1, keys, c)
	yield(n.Tape.Attention(device.Attention{Q: q, K: k, V: n.Input(0, 1, keys, c), Heads: 1}))
}

func pointwise(n *Network, yield func(device.Array)) {
	for _, x := range [][]int{{1, 2}, {3, 5, 34}, {2, 9, 9, 48}, {1, 20001, 2}, {2, 6000}} {
		for _, act := range activations {
			yield(n.Tape.Activate(device.Activate{X: n.Input(0, x...), Act: act}))
		}
		for _, act := range []device.Activation{device.ReLU, device.LeakyReLU} {
			yield(n.Tape.Activate(device.Activate{X: n.Input(0, x...), Act: act}))
		}
		yield(n.Tape.Axpy(device.Axpy{A: 0.2, X: n.Input(0, x...), Y: n.Input(0, x...)}))
		channels := x[len(x)-1]
		yield(n.Tape.Affine(device.Affine{X: n.Input(0, x...), Mul: n.Input(0, 1)}))
		yield(n.Tape.Affine(device.Affine{X: n.Input(0, x...), Add: n.Input(0, 1, channels)}))
		yield(n.Tape.Affine(device.Affine{X: n.Input(0, x...), Mul: n.Input(0, 1, 1), Add: n.Input(0, channels)}))
		yield(n.Tape.GEGLU(device.GEGLU{X: n.Input(0, x...)}))
		wide := append([]int(nil), x...)
		wide[len(wide)-1] += 7
		yield(n.Tape.Concat(device.Concat{A: n.Input(0, x...), B: n.Input(0, wide...)}))
	}
}

func embeds(n *Network, yield func(device.Array)) {
	for i, c := range []struct{ rows, positions, batch, tokens, dim int }{{5, 1, 1, 1, 1}, {49, 77, 2, 77, 33}, {300, 20, 3, 16, 128}} {
		for j := range dtypes {
			yield(n.Tape.Embed(device.Embed{
				IDs:    n.IDs(c.rows, c.batch, c.tokens),
				Tokens: n.Param(device.Table, dtypes[j], 1, c.rows, c.dim), Positions: n.Param(device.Table, dtypes[(i+j)%3], 1, c.positions, c.dim),
			}))
			yield(n.Tape.Embed(device.Embed{IDs: n.IDs(c.rows, c.batch, c.tokens), Tokens: n.Param(device.Table, dtypes[j], 1, c.rows, c.dim)}))
			yield(n.Tape.Embed(device.Embed{
				IDs: n.IDs(c.rows+i+1, c.batch, c.tokens), Extra: n.Input(0, i+1, c.dim),
				Tokens: n.Param(device.Table, dtypes[j], 1, c.rows, c.dim), Positions: n.Param(device.Table, dtypes[(i+j)%3], 1, c.positions, c.dim),
			}))
		}
	}
}

// inPlace has chains of ops that may overwrite their operand, and operands that are read again.
func inPlace(n *Network, yield func(device.Array)) {
	for _, x := range [][]int{{2, 3, 5, 6}, {1, 64, 48, 12}, {2, 300, 36}} {
		c := 2 * x[len(x)-1]
		vector := func() device.Weight { return n.Param(device.Vector, tensor.F32, 1, c) }
		h := n.Tape.Concat(device.Concat{A: n.Input(0, x...), B: n.Input(1, x...)})
		h = n.Tape.GroupNorm(device.GroupNorm{X: h, Gamma: vector(), Beta: vector(), Groups: 4, Eps: 1e-5, Act: device.SiLU})
		again := n.Tape.LayerNorm(device.LayerNorm{X: h, Gamma: vector(), Beta: vector(), Eps: 1e-5})
		yield(n.Tape.Concat(device.Concat{A: again, B: n.Tape.Activate(device.Activate{X: h, Act: device.GELU})}))
	}
}
