package cpu_test

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/device/devicetest"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
)

// A device that has next to no scratch to give is a device like any other.
func TestBandedConformance(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		devicetest.Run(t, func(t *testing.T, capBytes int64) device.Device {
			return banded(open(t, cpu.Options{Threads: 2, MemoryCapBytes: capBytes}))
		})
	})
}

// banded has every run computed in the smallest bands.
func banded(d device.Device) device.Device {
	return policy{Device: d, run: device.RunOptions{ScratchLimit: 1}}
}

// starterDecoder loads the starter model's decoder on a device.
func starterDecoder(t testing.TB, d *cpu.Device) (*modeldir.ImageDecoder, device.Weights) {
	t.Helper()
	dir, err := modeldir.OpenStableDiffusion(filepath.Join("..", "..", "..", "models", "starter"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := dir.ImageDecoder()
	if err != nil {
		t.Fatal(err)
	}
	w, err := d.Load(t.Context(), v.Manifest(), device.LoadPlan{}, v.Source(), nil)
	if err := errors.Join(err, v.Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Free)
	return v, w
}

func decoderTape(t testing.TB, v *modeldir.ImageDecoder, h, w int) *device.Tape {
	t.Helper()
	tape, err := v.Tape(1, h, w)
	if err != nil {
		t.Fatal(err)
	}
	return tape
}

// latents are smooth with an edge, so that neighbouring bands differ in mean.
func latents(n, width int) []float32 {
	z := make([]float32, n)
	for i := range z {
		x := float64(i % width)
		z[i] = float32(2*math.Sin(x/7+float64(i%8)) + math.Cos(float64(i/width)/5))
		if i > n/2 {
			z[i] -= 1.5
		}
	}
	return z
}

// newRun is a run whose scratch keeps to a limit; 0 is none.
func newRun(t testing.TB, d device.Device, tape *device.Tape, w device.Weights, limit int64) device.Run {
	t.Helper()
	r, err := d.NewRun(tape, w, device.RunOptions{ScratchLimit: limit})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Free)
	return r
}

// decode runs a tape of the decoder on latents.
func decode(t testing.TB, r device.Run, tape *device.Tape) []float32 {
	t.Helper()
	in, out := tape.Inputs()[0].Array.Shape, tape.Outputs()[0].Array.Shape
	n, _ := in.Elems()
	if err := r.Write(modeldir.InputLatents, latents(n, in[2]*in[3])); err != nil {
		t.Fatal(err)
	}
	if err := r.Execute(t.Context()); err != nil {
		t.Fatal(err)
	}
	n, _ = out.Elems()
	image := make([]float32, n)
	if err := r.Read(modeldir.OutputImage, image); err != nil {
		t.Fatal(err)
	}
	return image
}

// The picture decoded in bands is the picture decoded whole. What differs is rounding of group norms'
// means, whose pixels are added up in other groups of four, and its consequences: measured 1.2e-6 of
// values up to 1.
func TestBandedDecodeEqualsWhole(t *testing.T) {
	const tolerance = 1e-5 // 1/255 is 0.8 % of the range of a picture
	d := open(t, cpu.Options{Threads: 2})
	v, w := starterDecoder(t, d)
	for _, size := range [][2]int{{17, 29}, {32, 32}, {1, 70}} { // bands of 16 and 64 pixels that do and do not divide
		tape := decoderTape(t, v, size[0], size[1])
		want := decode(t, newRun(t, d, tape, w, 0), tape)
		last := int64(math.MaxInt64)
		for _, limit := range []int64{last, 8 << 20, 1500 << 10, 1} {
			r := newRun(t, d, tape, w, limit)
			_, banded := cpu.Scratch(r)
			if r.Bytes() > last || banded != (limit < scratchBytes(t, d, tape, 0)) {
				t.Errorf("%v within %d: %d bytes, in bands %v", size, limit, r.Bytes(), banded)
			}
			last = r.Bytes()
			var worst float64
			for i, x := range decode(t, r, tape) {
				worst = max(worst, math.Abs(float64(x-want[i])))
			}
			t.Logf("%v within %d: %d bytes, largest difference %.1e", size, limit, r.Bytes(), worst)
			if !(worst <= tolerance) || !banded && worst != 0 {
				t.Errorf("%v within %d: largest difference %g, allowed %g", size, limit, worst, tolerance)
			}
		}
	}
}

// scratchBytes is the scratch of a run that keeps to a limit; 0 is none.
func scratchBytes(t *testing.T, d device.Device, tape *device.Tape, limit int64) int64 {
	t.Helper()
	bytes, err := d.ScratchBytes(tape, device.RunOptions{ScratchLimit: limit})
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

// What a banded run takes does not grow with the image, and keeps to any limit that it keeps to once.
func TestBandedPeakIsIndependentOfSize(t *testing.T) {
	d := open(t, cpu.Options{Threads: 2})
	v, w := starterDecoder(t, d)
	for _, limit := range []int64{1, 2 << 20, 8 << 20} {
		var first int64
		for _, side := range []int{32, 64, 128} {
			tape := decoderTape(t, v, side, side)
			planned := scratchBytes(t, d, tape, limit)
			if side == 32 {
				first = planned
			}
			if planned > max(first, limit) || limit == 1 && planned != first {
				t.Errorf("within %d: %d bytes for %d pixels, %d for 256", limit, planned, 8*side, first)
			}
			if r := newRun(t, d, tape, w, limit); r.Bytes() != planned {
				t.Errorf("within %d: %d bytes planned, %d taken", limit, planned, r.Bytes())
			} else {
				if side == 32 || limit == 1 && side == 64 {
					decode(t, r, tape)
				}
				r.Free()
			}
		}
		t.Logf("within %d: %d bytes", limit, first)
	}
	if most := int64(8<<20) + w.Bytes(); d.Memory().PeakBytes > most {
		t.Errorf("a peak of %d bytes, want at most %d", d.Memory().PeakBytes, most)
	}
}

// countdown is a context that is cancelled when it has been asked so many times.
type countdown struct {
	context.Context
	left atomic.Int64
}

func (c *countdown) Err() error {
	if c.left.Add(-1) < 0 {
		return context.Canceled
	}
	return nil
}

// Cancellation is seen in every band, and the run can be executed again.
func TestBandedCancel(t *testing.T) {
	d := open(t, cpu.Options{Threads: 2})
	v, w := starterDecoder(t, d)
	tape := decoderTape(t, v, 16, 16)
	want := decode(t, newRun(t, d, tape, w, 0), tape)
	r := newRun(t, d, tape, w, 1)
	all := &countdown{Context: t.Context()}
	all.left.Store(math.MaxInt64)
	if err := r.Execute(all); err != nil {
		t.Fatal(err)
	}
	asked := math.MaxInt64 - all.left.Load()
	// The last stage has 14 ops over 128x128 pixels, each 64 bands of 16x16 that are read, computed and
	// written.
	if asked < 14*64*3 {
		t.Errorf("the context was asked %d times", asked)
	}
	for _, after := range []int64{0, 1, asked / 3, asked / 2, asked - 1} {
		ctx := &countdown{Context: t.Context()}
		ctx.left.Store(after)
		if err := r.Execute(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled at %d of %d: %v", after, asked, err)
		}
		if left := ctx.left.Load(); left != -1 {
			t.Errorf("cancelled at %d of %d: asked %d times more", after, asked, -left-1)
		}
	}
	for i, x := range decode(t, r, tape) {
		if math.Abs(float64(x-want[i])) > 1e-5 {
			t.Fatalf("value %d is %g behind a cancellation, want %g", i, x, want[i])
		}
	}
}

// A disk that does not take the file is an error with its size, and nothing is left of run or file.
func TestSpillFails(t *testing.T) {
	dir := t.TempDir()
	d := open(t, cpu.Options{Threads: 2, SpillDir: dir})
	v, w := starterDecoder(t, d)
	tape := decoderTape(t, v, 16, 16)
	wantSpill := func(err, cause error) {
		t.Helper()
		var s *device.SpillError
		if !errors.As(err, &s) || s.Device != "cpu:0" || s.Bytes < 4*128*128*3 || !errors.Is(err, cause) {
			t.Errorf("error %v, want a SpillError of %v", err, cause)
		}
		if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
			t.Errorf("left in the directory: %v (%v)", files, err)
		}
	}
	inUse := d.Memory().UsedBytes

	missing := open(t, cpu.Options{Threads: 1, SpillDir: filepath.Join(dir, "missing")})
	_, other := starterDecoder(t, missing)
	_, err := missing.NewRun(tape, other, device.RunOptions{ScratchLimit: 1})
	wantSpill(err, os.ErrNotExist)

	// A limit on the size of files stands for a disk that is full.
	limitFiles := func(bytes uint64, f func()) {
		t.Helper()
		var old unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
			t.Fatal(err)
		}
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: bytes, Max: old.Max}); err != nil {
			t.Fatal(err)
		}
		f()
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
			t.Fatal(err)
		}
	}
	limitFiles(1<<10, func() { _, err = d.NewRun(tape, w, device.RunOptions{ScratchLimit: 1}) })
	wantSpill(err, unix.EFBIG)
	if used := d.Memory().UsedBytes; used != inUse {
		t.Errorf("%d bytes in use, %d before", used, inUse)
	}
	r := newRun(t, d, tape, w, 1)
	limitFiles(1<<10, func() { err = r.Execute(t.Context()) })
	wantSpill(err, unix.EFBIG)
	decode(t, r, tape)
}

// The file's size is told before anything is computed, and whether the disk has room for it.
func TestSpillBytes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spill")
	d := open(t, cpu.Options{Threads: 2, SpillDir: dir})
	v, _ := starterDecoder(t, d)
	tape := decoderTape(t, v, 16, 16)
	ask := func(limit int64) (int64, *device.SpillError) {
		t.Helper()
		bytes, err := d.SpillBytes(tape, device.RunOptions{ScratchLimit: limit})
		if err != nil {
			t.Fatal(err)
		}
		if bytes == 0 {
			return 0, nil
		}
		var s *device.SpillError
		if err := d.CheckSpill(bytes); err != nil && !errors.As(err, &s) {
			t.Fatal(err)
		}
		return bytes, s
	}
	if bytes, err := ask(math.MaxInt64); bytes != 0 || err != nil {
		t.Errorf("a whole run: %d bytes, %v", bytes, err)
	}
	need, err := ask(1)
	if need < 4*128*128*3 || err == nil || !err.NoRoom() || err.AvailableBytes != 0 || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a directory: %d bytes, %v", need, err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if bytes, err := ask(1); bytes != need || err != nil {
		t.Errorf("with a directory: %d bytes of %d, %v", bytes, need, err)
	}
	cpu.SetDiskRoom(d, need-1)
	if _, err := ask(1); err == nil || !err.NoRoom() || err.Bytes != need || err.AvailableBytes != need-1 {
		t.Errorf("a byte too few: %v", err)
	}
	cpu.SetDiskRoom(d, need)
	if _, err := ask(1); err != nil {
		t.Errorf("just enough: %v", err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("left in the directory: %v (%v)", files, err)
	}
}

// Bands do not depend on the threads that compute them.
func TestBandedThreadsGiveTheSameBits(t *testing.T) {
	n := devicetest.Block(3, 2, 40)
	want := devicetest.Compute(t, banded(open(t, cpu.Options{Threads: 1})), n.Tape, n, n.Inputs)["output"]
	for _, threads := range []int{2, 5} {
		got := devicetest.Compute(t, banded(open(t, cpu.Options{Threads: threads})), n.Tape, n, n.Inputs)["output"]
		if !slices.Equal(got, want) {
			t.Errorf("%d threads give something else than 1", threads)
		}
	}
}

// BenchmarkBandedDecode decodes to 512x512 with the starter model: whole, in bands of up to 64x64 pixels
// and of 16x16.
func BenchmarkBandedDecode(b *testing.B) {
	d := open(b, cpu.Options{})
	v, w := starterDecoder(b, d)
	tape := decoderTape(b, v, 64, 64)
	for _, c := range []struct {
		name  string
		limit int64
	}{{"Whole", math.MaxInt64}, {"Bands64", 16 << 20}, {"Bands16", 1}} {
		b.Run(c.name, func(b *testing.B) {
			r := newRun(b, d, tape, w, c.limit)
			for b.Loop() {
				if err := r.Execute(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(r.Bytes())/1e6, "scratch-MB")
		})
	}
}
