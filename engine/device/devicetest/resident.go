package devicetest

import (
	"encoding/binary"
	"fmt"
	"math"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// Weights kept as integers are off by at most half a scale, each: products with the unit matrix show them.
func testIntegers(t *testing.T, d device.Device) {
	const in, out = 80, 37
	for _, kept := range []struct {
		resident tensor.DType
		limit    float64
		group    int
	}{{tensor.I8, 127, in}, {tensor.I4, 7, device.I4Group}} {
		t.Run(kept.resident.String(), func(t *testing.T) { testInteger(t, d, kept.resident, kept.limit, kept.group) })
	}
}

func testInteger(t *testing.T, d device.Device, resident tensor.DType, limit float64, group int) {
	const in, out = 80, 37
	n := NewNetwork(3)
	unit := n.valued(func(i int) float32 {
		if i/in == i%in {
			return 1
		}
		return 0
	}, in, in)
	var params []device.Weight
	for _, dtype := range dtypes {
		w := n.Param(device.Matrix, dtype, 0.1, out, in)
		f := n.Param(device.Filter, dtype, 0.1, out, in, 1, 1)
		params = append(params, w, f)
		n.Tape.Output(fmt.Sprint(w.Index()), n.Tape.Gemm(device.Gemm{X: unit, W: w}))
		n.Tape.Output(fmt.Sprint(f.Index()), n.Tape.Conv2D(device.Conv2D{X: n.Tape.Reshape(unit, 1, 1, in, in), W: f, Stride: 1}))
	}
	for _, w := range params {
		p := n.Manifest.At(w)
		p.Resident = resident
		clear(n.data[p.Name][2*in*p.DType.Size() : 3*in*p.DType.Size()]) // an output without weights
	}
	got := Compute(t, d, n.Tape, n, n.Inputs)
	for _, w := range params {
		p := n.Manifest.At(w)
		stored := make([]float32, out*in)
		if err := tensor.Widen(stored, p.DType, n.data[p.Name]); err != nil {
			t.Fatal(err)
		}
		for o := range out {
			row := stored[o*in:][:in]
			for i, v := range row {
				most := 0.0
				for _, v := range row[i/group*group : min((i/group+1)*group, in)] {
					most = max(most, math.Abs(float64(v)))
				}
				half := most / limit / 2 * (1 + 1e-5) // scale, quotient and product are rounded to float32
				kept := got[fmt.Sprint(w.Index())][i*out+o]
				if e := math.Abs(float64(kept) - float64(v)); !(e <= half) {
					t.Errorf("%s, %v: weight %d of output %d is %v, kept as %v: off by %.3g, allowed %.3g", p.Name, p.DType, i, o, v, kept, e, half)
				}
			}
		}
	}
}

// What cannot be kept in a type is refused by name, and weights kept in another way do not fit.
func testResidentRefused(t *testing.T, d device.Device) {
	for layout, shape := range map[device.Layout][]int{device.Vector: {8}, device.Table: {8, 8}} {
		n := NewNetwork(1)
		p := n.Manifest.At(n.Param(layout, tensor.F32, 1, shape...))
		p.Resident = tensor.I8
		_, err := d.Load(t.Context(), n.Manifest, device.LoadPlan{}, n, nil)
		wantField(t, err, "parameter "+p.Name)
	}
	for _, c := range []struct {
		resident tensor.DType
		bad      float64
	}{{tensor.I8, math.Inf(-1)}, {tensor.I8, math.NaN()}, {tensor.I4, math.NaN()}, {tensor.BF16, math.NaN()}, {tensor.F16, 65505}} {
		n := NewNetwork(1)
		p := n.Manifest.At(n.Param(device.Matrix, tensor.F32, 1, 20, 40))
		p.Resident = c.resident
		binary.LittleEndian.PutUint32(n.data[p.Name][4*777:], math.Float32bits(float32(c.bad)))
		_, err := d.Load(t.Context(), n.Manifest, device.LoadPlan{}, n, nil)
		wantField(t, err, "parameter "+p.Name)
	}
	n := NewNetwork(1)
	p := n.Manifest.At(n.Param(device.Matrix, tensor.F32, 1, 20, 40))
	n.Tape.Output("output", n.Tape.Activate(device.Activate{X: n.Input(0, 1, 1)}))
	p.Resident = tensor.I64
	_, err := d.Load(t.Context(), n.Manifest, device.LoadPlan{}, n, nil)
	wantField(t, err, "parameter "+p.Name)
	p.Resident = tensor.Invalid
	w := load(t, d, n)
	p.Resident = tensor.I8
	_, err = d.NewRun(n.Tape, w, device.RunOptions{})
	wantField(t, err, "parameter "+p.Name)
	if used := d.Memory().UsedBytes; used != w.Bytes() {
		t.Errorf("%d bytes in use, %d of them weights", used, w.Bytes())
	}
}
