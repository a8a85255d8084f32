package devicetest

import (
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
)

// Compute loads the tape's parameters on d, runs the tape once on inputs and returns its outputs, all
// by name (ids as whole numbers). Every error is fatal, and so is memory that stays in use.
func Compute(t *testing.T, d device.Device, tape *device.Tape, src device.Source, inputs map[string][]float32) map[string][]float32 {
	t.Helper()
	return ComputeWith(t, d, device.RunOptions{}, tape, src, inputs)
}

// ComputeWith is Compute with options, of which the device keeps its promise of scratch.
func ComputeWith(t *testing.T, d device.Device, o device.RunOptions, tape *device.Tape, src device.Source, inputs map[string][]float32) map[string][]float32 {
	t.Helper()
	before := d.Memory().UsedBytes
	w, err := d.Load(t.Context(), tape.Manifest(), device.LoadPlan{}, src, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := d.NewRun(tape, w, o)
	if err != nil {
		t.Fatal(err)
	}
	if planned, err := d.ScratchBytes(tape, o); err != nil || planned != r.Bytes() {
		t.Errorf("scratch: %d bytes, promised %d, %v", r.Bytes(), planned, err)
	}
	write(t, r, tape, inputs)
	if err := r.Execute(t.Context()); err != nil {
		t.Fatal(err)
	}
	out := read(t, r, tape)
	r.Free()
	w.Free()
	if used := d.Memory().UsedBytes; used != before {
		t.Fatalf("%d bytes in use after Free, %d before Load", used, before)
	}
	return out
}

func write(t *testing.T, r device.Run, tape *device.Tape, inputs map[string][]float32) {
	t.Helper()
	for _, in := range tape.Inputs() {
		v := inputs[in.Name]
		if !in.IDs {
			if err := r.Write(in.Name, v); err != nil {
				t.Fatal(err)
			}
			continue
		}
		ids := make([]int32, len(v))
		for i, id := range v {
			ids[i] = int32(id)
		}
		if err := r.WriteIDs(in.Name, ids); err != nil {
			t.Fatal(err)
		}
	}
}

func read(t *testing.T, r device.Run, tape *device.Tape) map[string][]float32 {
	t.Helper()
	out := map[string][]float32{}
	for _, o := range tape.Outputs() {
		n, _ := o.Array.Shape.Elems()
		out[o.Name] = make([]float32, n)
		if err := r.Read(o.Name, out[o.Name]); err != nil {
			t.Fatal(err)
		}
	}
	return out
}
