package taesd_test

import (
	"errors"
	"math"
	"path/filepath"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/model/taesd"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/weights"
)

const goldens = "../../../testdata/golden/formats"

func open(t *testing.T, path string) *weights.Set {
	t.Helper()
	set, err := weights.OpenFile(filepath.Join(goldens, path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = set.Close() })
	return set
}

// golden reads a tensor [1, C, h, w] as [h, w, C].
func golden(t *testing.T, name string) (v []float32, h, w int) {
	t.Helper()
	set := open(t, "tensors/taesd.safetensors")
	_, shape, _ := set.Info(name)
	data, err := set.Data(name)
	if err != nil {
		t.Fatal(err)
	}
	first := make([]float32, len(data)/4)
	for i := range first {
		first[i] = math.Float32frombits(uint32(data[4*i]) | uint32(data[4*i+1])<<8 | uint32(data[4*i+2])<<16 | uint32(data[4*i+3])<<24)
	}
	v = make([]float32, len(first))
	nn.ToChannelsLast(v, first, 1, shape[1], shape[2]*shape[3])
	return v, shape[2], shape[3]
}

func run(t *testing.T, set *weights.Set, half taesd.Half, in []float32, shape ...int) []float32 {
	t.Helper()
	s := nn.NewScope(set)
	m := taesd.New(s, half)
	if _, err := s.Finish(nil); err != nil {
		t.Fatal(err)
	}
	d, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	w, err := d.Load(t.Context(), s.Manifest(), device.LoadPlan{}, set, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Free()
	tape := device.NewTape(s.Manifest())
	out := m.Forward(tape, tape.Input("in", shape...))
	tape.Output("out", out)
	r, err := d.NewRun(tape, w, device.RunOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Free()
	elems, _ := out.Shape.Elems()
	v := make([]float32, elems)
	if err := errors.Join(r.Write("in", in), r.Execute(t.Context()), r.Read("out", v)); err != nil {
		t.Fatal(err)
	}
	return v
}

func within(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	most, largest := 0.0, 0.0
	for i, v := range want {
		most, largest = max(most, math.Abs(float64(got[i]-v))), max(largest, math.Abs(float64(v)))
	}
	if !(most <= 5e-5*largest) {
		t.Errorf("%s: off by %.2g of %.2g", what, most, largest)
	}
}

// TestTAESD: both halves give the reference's numbers, from diffusers' file and the author's, a half of which is not the other one.
func TestTAESD(t *testing.T) {
	for file, halves := range map[string][2]bool{ // decodes, encodes
		"taesd/diffusion_pytorch_model.safetensors": {true, true}, "checkpoints/taesd_diffusers.safetensors": {true, true},
		"checkpoints/taesd_decoder.safetensors": {true, false}, "checkpoints/taesd_decoder.pth": {true, false}, "checkpoints/taesd_encoder.safetensors": {false, true},
	} {
		set := open(t, file)
		for i, decodes := range []bool{true, false} {
			half, ok, err := taesd.Of(set, decodes)
			if err != nil || ok != halves[i] {
				t.Errorf("%s: decodes %v: %v, %v", file, decodes, ok, err)
			}
			if !ok {
				continue
			}
			if half.Pixel != 8 || half.Latents != 4 {
				t.Errorf("%s: %+v", file, half)
			}
			in, result := "z", "decoded"
			if !decodes {
				in, result = "image", "encoded"
			}
			v, h, w := golden(t, in)
			want, _, _ := golden(t, result)
			if decodes {
				taesd.Clamp(v)
				got := run(t, set, half, v, 1, h, w, 4)
				taesd.Signed(got)
				within(t, file+" "+result, got, want)
			} else {
				for i, x := range v { // the inverse of Signed
					v[i] = (x + 1) / 2
				}
				within(t, file+" "+result, run(t, set, half, v, 1, h, w, 3), want)
			}
		}
	}
	for _, file := range []string{"upscalers/compact-4x.safetensors", "upscalers/4x-realsr.safetensors"} {
		if _, ok, _ := taesd.Of(open(t, file), true); ok {
			t.Errorf("%s is one", file)
		}
	}
}
