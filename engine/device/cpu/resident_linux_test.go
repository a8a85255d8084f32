package cpu_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/device/devicetest"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/engine/weights"
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

// touched is how much of mem is in RAM, in bytes.
func touched(t *testing.T, mem []byte) int64 {
	t.Helper()
	page := os.Getpagesize()
	pages := make([]byte, len(mem)/page)
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&mem[0])), uintptr(len(mem)), uintptr(unsafe.Pointer(&pages[0]))); errno != 0 {
		t.Fatal(errno)
	}
	var sum int64
	for _, p := range pages {
		sum += int64(p&1) * int64(page)
	}
	return sum
}

// What is planned is what a run touches. With one thread: a second that comes late to the op with the most
// workspace would not touch its share.
func TestRunsTouchWhatIsPlanned(t *testing.T) {
	dir, err := modeldir.OpenStableDiffusion(filepath.Join("..", "..", "..", "models", "starter"))
	if err != nil {
		t.Fatal(err)
	}
	d := open(t, cpu.Options{Threads: 1})
	check := func(name string, limit int64, n *modeldir.Network, tape *device.Tape, err error) {
		if err != nil {
			t.Fatal(err)
		}
		w, err := d.Load(t.Context(), n.Manifest(), device.LoadPlan{}, n.Source(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Free()
		r := newRun(t, d, tape, w, limit)
		defer r.Free()
		mem, _ := cpu.Scratch(r)
		if err := unix.Madvise(mem, unix.MADV_NOHUGEPAGE); err != nil { // which touch more than is written
			t.Fatal(err)
		}
		if got := touched(t, mem); got > r.Bytes()/100 {
			t.Errorf("%s: %d bytes are in memory before the run", name, got)
		}
		for _, in := range tape.Inputs() {
			n, _ := in.Array.Shape.Elems()
			if err := r.Write(in.Name, make([]float32, n)); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Execute(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := touched(t, mem)
		// What may stay untouched are gaps that lifetimes leave between arrays, and workspace that no op
		// of this network needs whole; measured none.
		if got < r.Bytes()*97/100 {
			t.Errorf("%s: %d bytes planned, %d touched", name, r.Bytes(), got)
		}
		t.Logf("%s: %d of %d planned bytes touched (%.2f %%)", name, got, r.Bytes(), 100*float64(got)/float64(r.Bytes()))
	}
	u, err := dir.Denoiser()
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	tape, err := u.Tape(2, 16, 16, 77)
	check("denoiser", 0, &u.Network, tape, err)
	v, err := dir.ImageDecoder()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	tape, err = v.Tape(1, 16, 16)
	check("decoder", 0, &v.Network, tape, err)
	tape, err = v.Tape(1, 32, 32)
	check("decoder within 4 MiB", 4<<20, &v.Network, tape, err)
	check("decoder within 1", 1, &v.Network, tape, err)
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
	w, err := d.Load(t.Context(), n.Manifest, device.LoadPlan{}, n, nil)
	if err != nil {
		t.Fatal(err)
	}
	loaded := resident(t)
	if grown := loaded - start; grown < w.Bytes()-slack || grown > w.Bytes()+slack {
		t.Errorf("loading %d bytes grew the process by %d", w.Bytes(), grown)
	}
	r, err := d.NewRun(n.Tape, w, device.RunOptions{})
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

// Loading holds the weights once: beside the arena only what the threads read next.
func TestLoadHoldsNoSecondCopy(t *testing.T) {
	const mib = 1 << 20
	path, m, bytes := stored(t, 2) // 100 MB
	set, err := weights.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	d := open(t, cpu.Options{})
	debug.FreeOSMemory()
	const resetPeak = "5"
	if err := os.WriteFile("/proc/self/clear_refs", []byte(resetPeak), 0); err != nil {
		t.Fatal(err)
	}
	start := resident(t)
	w, err := d.Load(t.Context(), m, device.LoadPlan{}, set, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Free()
	over := peakResident(t) - start - w.Bytes()
	if bytes < 64*mib || over < -4*mib || over > 8*mib {
		t.Errorf("loading %d bytes took %d more than the weights at most", bytes, over)
	}
	t.Logf("%d bytes of weights, at most %d beside them", w.Bytes(), over)
}

// peakResident is the most memory that was in RAM since the peak was reset, in bytes.
func peakResident(t *testing.T) int64 {
	t.Helper()
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	var kib int64
	_, after, _ := strings.Cut(string(data), "VmHWM:")
	if _, err := fmt.Sscan(after, &kib); err != nil {
		t.Fatal(err)
	}
	return kib << 10
}
