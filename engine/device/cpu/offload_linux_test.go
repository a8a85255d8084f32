package cpu_test

import (
	"bufio"
	"fmt"
	"os"
	"testing"
	"unsafe"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/device/devicetest"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// access is what the process may do with the mapping that mem begins in, as proc_pid_maps(5) has it.
func access(t *testing.T, mem []byte) (perms string) {
	t.Helper()
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	at := uint64(uintptr(unsafe.Pointer(&mem[0])))
	for s := bufio.NewScanner(f); s.Scan(); {
		var from, to uint64
		if _, err := fmt.Sscanf(s.Text(), "%x-%x %s", &from, &to, &perms); err != nil {
			t.Fatal(err)
		}
		if from <= at && at < to {
			return perms
		}
	}
	t.Fatal("the weights are not mapped")
	return ""
}

// Offloaded weights stay in memory where they are, and nobody can touch them.
func TestOffloadProtects(t *testing.T) {
	n := devicetest.NewNetwork(1)
	n.Tape.Output("output", n.Tape.Gemm(device.Gemm{X: n.Input(0, 1, 1024), W: n.Param(device.Matrix, tensor.F32, 0.02, 2048, 1024)})) // 8 MiB
	d := open(t, cpu.Options{Threads: 2})
	w, err := d.Load(t.Context(), n.Manifest, device.LoadPlan{}, n, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Free()
	mem := cpu.Packed(w)
	for range 2 {
		if got := access(t, mem); got != "rw-p" {
			t.Errorf("resident weights are %s", got)
		}
		offload(t, w)
		if got := access(t, mem); got != "---p" {
			t.Errorf("offloaded weights are %s", got)
		}
		if got := touched(t, mem); got != w.Bytes() {
			t.Errorf("%d of %d offloaded bytes are in memory", got, w.Bytes())
		}
		before := resident(t)
		if err := w.Onload(t.Context()); err != nil {
			t.Fatal(err)
		}
		if grown := resident(t) - before; grown > 1<<20 {
			t.Errorf("onload of %d bytes took %d more", w.Bytes(), grown)
		}
		if &cpu.Packed(w)[0] != &mem[0] {
			t.Error("the weights have moved")
		}
	}
}
