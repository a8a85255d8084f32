package cpu_test

import (
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/device/devicetest"
	"github.com/triptych-serving/triptych/engine/kernel"
	"github.com/triptych-serving/triptych/engine/tensor"
)

var bf16 = device.RunOptions{Compute: device.ComputeBF16}

// convolution is a network of one; its inputs lie side by side.
func convolution(w tensor.DType, size, out, filter, stride int, channels ...int) *devicetest.Network {
	n := devicetest.NewNetwork(5)
	op := device.Conv2D{Stride: stride, Top: filter / 2, Left: filter / 2, Bottom: filter / 2, Right: filter / 2}
	sum := 0
	for i, c := range channels {
		sum += c
		if x := n.Input(0, 2, size, size+1, c); i == 0 {
			op.X = x
		} else {
			op.More = append(op.More, x)
		}
	}
	op.W = n.Param(device.Filter, w, 1/math.Sqrt(float64(sum)), out, sum, filter, filter)
	n.Tape.Output("output", n.Tape.Conv2D(op))
	return n
}

// A direct convolution in bfloat16 rounds its operands and nothing else: it differs from the definition by the order of the sums.
func TestBF16Direct(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		d := open(t, cpu.Options{Threads: 3, Conv: cpu.Direct, Emulate: true})
		for i, n := range []*devicetest.Network{
			convolution(tensor.F32, 9, 33, 3, 1, 20),
			convolution(tensor.F16, 8, 16, 3, 2, 7),
			convolution(tensor.BF16, 7, 48, 3, 1, 7, 10, 3),
			convolution(tensor.F16, 6, 17, 1, 1, 24, 9),
			convolution(tensor.F32, 6, 32, 1, 2, 31),
			convolution(tensor.BF16, 4, 16, 3, 1, 2700),
		} {
			want, err := devicetest.EvaluateIn(device.ComputeBF16, n.Tape, n, n.Inputs)
			if err != nil {
				t.Fatal(err)
			}
			got := devicetest.ComputeWith(t, d, bf16, n.Tape, n, n.Inputs)["output"]
			largest, worst := 0.0, 0.0
			for j, v := range want["output"] {
				largest = max(largest, math.Abs(float64(v)))
				worst = max(worst, math.Abs(float64(got[j]-v)))
			}
			if worst > 5e-6*largest {
				t.Errorf("network %d is off by %.2g of the largest value", i, worst/largest)
			}
		}
	})
}

// Neither the threads nor where weights are is to be seen in the result.
func TestBF16GivesTheSameBits(t *testing.T) {
	n := devicetest.Block(3, 2, 24)
	want := devicetest.ComputeWith(t, open(t, cpu.Options{Threads: 1, Emulate: true}), bf16, n.Tape, n, n.Inputs)["output"]
	for _, threads := range []int{2, 3, 8} {
		d := open(t, cpu.Options{Threads: threads, Emulate: true})
		for _, load := range []device.LoadPlan{{}, {Streamed: true}} {
			if got := devicetest.Compute(t, policy{d, load, bf16}, n.Tape, n, n.Inputs)["output"]; !slices.Equal(got, want) {
				t.Errorf("%d threads, %+v: something else than with 1", threads, load)
			}
		}
	}
	if float32s := devicetest.Compute(t, open(t, cpu.Options{Threads: 1}), n.Tape, n, n.Inputs)["output"]; slices.Equal(float32s, want) {
		t.Error("the result is that of float32")
	}
}

// Kernels without the instructions do not compute in bfloat16, and the error tells what does.
func TestBF16Needs(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		err := device.Computes(open(t, cpu.Options{}), device.ComputeBF16)
		if kernel.HasBF16() {
			if err != nil {
				t.Error(err)
			}
			return
		}
		var unsupported *device.UnsupportedError
		if !errors.As(err, &unsupported) || unsupported.What != "computing in bf16" || !strings.Contains(unsupported.Needs, "AVX512_BF16") {
			t.Errorf("%v", err)
		}
	})
}

// A convolution that Winograd's algorithm saves little of is a direct sum in bfloat16.
func TestBF16Convolutions(t *testing.T) {
	d := open(t, cpu.Options{Emulate: true})
	for size, want := range map[int][2]string{7: {"winograd4", "direct"}, 64: {"winograd4", "winograd4"}} {
		n := convolution(tensor.F16, size, 16, 3, 1, 16)
		for c, algorithm := range want {
			got, err := d.Convolutions(n.Tape, device.RunOptions{Compute: device.Compute(c)})
			if err != nil || !maps.Equal(got, map[string]int{algorithm: 1}) {
				t.Errorf("%d pixels in %v: %v, %v; want %s", size, device.Compute(c), got, err, algorithm)
			}
		}
	}
}
