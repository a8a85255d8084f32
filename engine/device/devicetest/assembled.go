package devicetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// Assembled adds a parameter that is made of slices, and the stored tensors that they name, each of so many rows that one follows
// the last slice. A tensor that is there already is used again.
func (n *Network) Assembled(layout device.Layout, d tensor.DType, scale float64, shape tensor.Shape, from ...device.Slice) device.Weight {
	w := n.Manifest.Add(device.Param{Name: fmt.Sprintf("param.%d", len(n.Manifest.Params)), Layout: layout, DType: d, Shape: shape, From: from})
	for _, s := range from {
		if n.data[s.Name] == nil {
			elems, _ := shape.Elems()
			n.data[s.Name] = n.values(d, scale, elems/shape[0]*(s.FirstRow+s.Rows+1))
		}
	}
	return w
}

// whole is the network with its assembled parameters stored as a whole.
func (n *Network) whole() (*device.Manifest, device.Source, error) {
	m, src := &device.Manifest{}, &Network{data: map[string][]byte{}}
	for _, p := range n.Manifest.Params {
		data, err := stored(&p, n)
		if err != nil {
			return nil, nil, err
		}
		p.From, src.data[p.Name] = nil, data
		m.Add(p)
	}
	return m, src, nil
}

// stored is the bytes of a parameter, value by value.
func stored(p *device.Param, src device.Source) ([]byte, error) {
	read := func(name string) ([]byte, error) {
		section, err := src.Section(name)
		if err != nil {
			return nil, err
		}
		return io.ReadAll(section)
	}
	if p.From == nil {
		return read(p.Name)
	}
	elems, _ := p.Shape.Elems()
	row, size := elems/p.Shape[0], p.DType.Size()
	var out bytes.Buffer
	for _, s := range p.From {
		data, err := read(s.Name)
		if err != nil {
			return nil, err
		}
		for i := range s.Rows * row {
			r, c, all := s.FirstRow+i/row, i%row, len(data)/size/row
			at := r*row + c
			if s.Transposed {
				at = c*all + r
			}
			value, v := slices.Clone(data[at*size:][:size]), make([]float32, 1)
			if s.Scale != 0 {
				if err := tensor.Widen(v, p.DType, value); err != nil {
					return nil, err
				}
				v[0] *= s.Scale
				if err := tensor.Narrow(value, p.DType, v); err != nil {
					return nil, err
				}
			}
			out.Write(value)
		}
	}
	return out.Bytes(), nil
}

// assembledNetwork has every layout made of slices in every way, of small tensors and of such as are read in pieces; matrices and
// filters are kept as resident.
func assembledNetwork(d, resident tensor.DType) *Network {
	n := NewNetwork(11)
	t := n.Tape
	tokens := n.Assembled(device.Table, d, 1, tensor.Shape{9, 24},
		device.Slice{Name: "words", Rows: 5}, device.Slice{Name: "words turned", FirstRow: 2, Rows: 3, Transposed: true, Scale: 3}, device.Slice{Name: "words", FirstRow: 1, Rows: 1, Scale: -1})
	h := t.Embed(device.Embed{IDs: n.IDs(9, 1, 4), Tokens: tokens, Positions: n.Param(device.Table, d, 1, 4, 24)})
	norm := func(name string) device.Weight { // with its halves exchanged
		return n.Assembled(device.Vector, d, 1, tensor.Shape{24}, device.Slice{Name: name, FirstRow: 12, Rows: 12}, device.Slice{Name: name, Rows: 12, Scale: 0.3})
	}
	h = t.LayerNorm(device.LayerNorm{X: h, Gamma: norm("gamma"), Beta: norm("beta"), Eps: 1e-5})
	qkv := n.Assembled(device.Matrix, d, 0.2, tensor.Shape{72, 24},
		device.Slice{Name: "q", Rows: 24, Scale: 0.2}, device.Slice{Name: "k", FirstRow: 7, Rows: 24, Transposed: true}, device.Slice{Name: "v", Rows: 23}, device.Slice{Name: "q", FirstRow: 3, Rows: 1})
	bias := n.Assembled(device.Vector, d, 1, tensor.Shape{72}, device.Slice{Name: "bias", FirstRow: 1, Rows: 72})
	h = t.Gemm(device.Gemm{X: h, W: qkv, Bias: bias})
	const wide = 2500 // a panel of it has 160 KB or half of that
	h = t.Gemm(device.Gemm{X: h, W: n.Assembled(device.Matrix, d, 0.1, tensor.Shape{wide, 72}, device.Slice{Name: "up", FirstRow: 5, Rows: 1700}, device.Slice{Name: "up", Rows: wide - 1700, Scale: 0.7})})
	h = t.Gemm(device.Gemm{X: h, W: n.Assembled(device.Matrix, d, 0.02, tensor.Shape{45, wide}, device.Slice{Name: "down", FirstRow: 1, Rows: 21, Transposed: true, Scale: 1.1}, device.Slice{Name: "across", Rows: 24})})
	t.Output("gemm", h)
	filter := n.Assembled(device.Filter, d, 0.1, tensor.Shape{40, 24, 3, 3}, device.Slice{Name: "right", FirstRow: 2, Rows: 19, Scale: 2}, device.Slice{Name: "left", Rows: 21})
	t.Output("conv", t.Conv2D(device.Conv2D{X: n.Input(0, 1, 5, 6, 24), W: filter, Stride: 1, Top: 1, Left: 1, Bottom: 1, Right: 1}))
	for i := range n.Manifest.Params {
		if p := &n.Manifest.Params[i]; p.Layout == device.Matrix || p.Layout == device.Filter {
			p.Resident = resident
		}
	}
	return n
}

// A parameter that is made of several stored tensors is what it would be if it were stored, to the bit, and takes as much.
func testAssembled(t *testing.T, d device.Device) {
	for _, dtype := range dtypes {
		for _, resident := range []tensor.DType{tensor.Invalid, tensor.F32, tensor.F16, tensor.BF16, tensor.I8, tensor.I4} {
			t.Run(fmt.Sprintf("%v kept as %v", dtype, resident), func(t *testing.T) {
				n := assembledNetwork(dtype, resident)
				got := Compute(t, d, n.Tape, n, n.Inputs)
				made := d.WeightBytes(n.Manifest, device.LoadPlan{})
				m, src, err := n.whole()
				if err != nil {
					t.Fatal(err)
				}
				want, err := Evaluate(n.Tape, n, n.Inputs)
				if err != nil {
					t.Fatal(err)
				}
				if whole := d.WeightBytes(m, device.LoadPlan{}); made != whole {
					t.Errorf("%d bytes, stored as a whole %d", made, whole)
				}
				*n.Manifest = *m
				same := Compute(t, d, n.Tape, src, n.Inputs)
				for name := range want {
					if !slices.Equal(got[name], same[name]) {
						t.Errorf("%s: other bits than of parameters that are stored as a whole", name)
					}
					compareWithin(t, name, got[name], want[name], convTolerance)
				}
			})
		}
	}
}

// What cannot be assembled is refused by name and leaves no trace, and so are weights that were assembled otherwise.
func testAssembledRefused(t *testing.T, d device.Device) {
	slice := func(first, rows int) device.Slice { return device.Slice{Name: "stored", FirstRow: first, Rows: rows} }
	scaled, turned := slice(0, 8), slice(0, 8)
	scaled.Scale, turned.Transposed = float32(math.NaN()), true
	for name, c := range map[string]struct {
		layout device.Layout
		shape  tensor.Shape
		from   []device.Slice
	}{
		"too few rows":          {device.Matrix, tensor.Shape{8, 6}, []device.Slice{slice(0, 7)}},
		"too many rows":         {device.Matrix, tensor.Shape{8, 6}, []device.Slice{slice(0, 7), slice(0, 2)}},
		"rows behind the end":   {device.Matrix, tensor.Shape{8, 6}, []device.Slice{slice(5, 8)}},
		"rows before the first": {device.Matrix, tensor.Shape{8, 6}, []device.Slice{slice(-1, 8)}},
		"no rows":               {device.Matrix, tensor.Shape{8, 6}, []device.Slice{slice(0, 8), slice(1, 0)}},
		"no slices":             {device.Matrix, tensor.Shape{8, 6}, []device.Slice{}},
		"other rows":            {device.Matrix, tensor.Shape{8, 7}, []device.Slice{slice(0, 8)}},
		"a turned filter":       {device.Filter, tensor.Shape{8, 6, 1, 1}, []device.Slice{turned}},
		"a turned vector":       {device.Vector, tensor.Shape{8}, []device.Slice{turned}},
		"a scale of NaN":        {device.Matrix, tensor.Shape{8, 6}, []device.Slice{scaled}},
	} {
		n := NewNetwork(1)
		n.data["stored"] = n.values(tensor.F32, 1, 12*6)
		n.Manifest.Add(device.Param{Name: name, Layout: c.layout, DType: tensor.F32, Shape: c.shape, From: c.from})
		_, err := d.Load(t.Context(), n.Manifest, device.LoadPlan{}, n, nil)
		wantField(t, err, "parameter "+name)
	}
	broken := errors.New("the disk is gone")
	n := assembledNetwork(tensor.F16, tensor.Invalid)
	for _, name := range []string{"q", "v", "down"} {
		if _, err := d.Load(t.Context(), n.Manifest, device.LoadPlan{}, failing{n, name, broken}, nil); !errors.Is(err, broken) {
			t.Errorf("without %s: %v, want the source's error", name, err)
		}
	}
	if used := d.Memory().UsedBytes; used != 0 {
		t.Errorf("%d bytes stay in use", used)
	}
	w := load(t, d, n)
	p := &n.Manifest.Params[0]
	p.From = slices.Clone(p.From)
	p.From[0].FirstRow++
	_, err := d.NewRun(n.Tape, w, device.RunOptions{})
	wantField(t, err, "parameter "+p.Name)
}
