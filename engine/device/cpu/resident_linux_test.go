package cpu_test

import (
	"fmt"
	"os"
	"runtime/debug"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/device/devicetest"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// resident is the process's memory that is in RAM, in bytes.
func resident(t *testing.T) int64 {
	t.Helper()
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var size, pages int64
	if _, err := fmt.Sscan(string(data), &size, &pages); err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// Free gives memory back to the operating system at once, not to the garbage collector.
func TestFreeGivesMemoryBack(t *testing.T) {
	const mib = 1 << 20
	const slack = 4 * mib // what the Go runtime may do meanwhile
	n := devicetest.NewNetwork(1)
	x := n.Input(0, 8, 2048)
	for range 4 {
		x = n.Tape.Gemm(device.Gemm{X: x, W: n.Param(device.Matrix, tensor.F32, 0.02, 2048, 2048)}) // 16 MiB
	}
	n.Tape.Output("small", x)
	n.Tape.Output("large", n.Tape.Activate(device.Activate{X: n.Input(0, 2048, 2048), Act: device.SiLU})) // twice 16 MiB
	d := open(t, cpu.Options{})

	debug.FreeOSMemory() // so that the heap does not shrink meanwhile
	start := resident(t)
	w, err := d.Load(t.Context(), n.Manifest, n, nil)
	if err != nil {
		t.Fatal(err)
	}
	loaded := resident(t)
	if grown := loaded - start; grown < w.Bytes()-slack || grown > w.Bytes()+slack {
		t.Errorf("loading %d bytes grew the process by %d", w.Bytes(), grown)
	}
	r, err := d.NewRun(n.Tape, w)
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range n.Tape.Inputs() {
		if err := r.Write(in.Name, n.Inputs[in.Name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Execute(t.Context()); err != nil {
		t.Fatal(err)
	}
	if grown := resident(t) - loaded; grown < 32*mib-slack || grown > r.Bytes()+slack {
		t.Errorf("a run with %d bytes grew the process by %d", r.Bytes(), grown)
	}
	r.Free()
	if over := resident(t) - loaded; over > slack {
		t.Errorf("%d bytes stay resident behind Free of the run", over)
	}
	w.Free()
	if over := resident(t) - start; over > slack {
		t.Errorf("%d bytes stay resident behind Free of the weights", over)
	}
}
