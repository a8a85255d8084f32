package stageengine

import (
	"bytes"
	"context"
	"errors"
	"image/png"
	"io/fs"
	"math"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/stage"
)

// starterDecoder is the decoder of the starter model on a device of its own.
func starterDecoder(t *testing.T, o cpu.Options) *Stage {
	t.Helper()
	library, err := OpenLibrary(filepath.Join(repo, "models/starter"))
	if err != nil {
		t.Fatal(err)
	}
	dev, err := cpu.New(o)
	if err != nil {
		t.Fatal(err)
	}
	d := newStage(stage.KindDecoder, Options{Library: library, Device: dev, Host: "test", Version: "test"})
	if err := d.Load(t.Context(), stage.LoadRequest{Component: partOf(d, "starter")}, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := d.Evict(context.Background(), stage.EvictRequest{Component: partOf(d, "starter")}); err != nil {
			t.Error(err)
		}
		if used := dev.Memory().UsedBytes; used != 0 {
			t.Errorf("%d bytes are left on the device", used)
		}
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// shapes are latents of the starter model that show something.
func shapes(h, w int) tensor.Tensor {
	z := make([]float32, 8*h*w)
	for i := range z {
		z[i] = float32(math.Sin(float64(i%w)/3) + math.Cos(float64(i/w)/5))
	}
	return tensor.FromF32(z, 1, 8, h, w)
}

func plan(t *testing.T, d *Stage, h, w int) (f stage.Footprint, weights int64) {
	t.Helper()
	f, err := footprint(t.Context(), d, "starter", h, w, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f, f.WeightsBytes()
}

// A budget that is short makes a large image take longer and look the same, and is kept.
func TestDecodeWithinBudget(t *testing.T) {
	const h, w = 41, 48
	free := starterDecoder(t, cpu.Options{})
	whole, weights := plan(t, free, h, w)
	want, err := decode(t.Context(), free, "starter", shapes(h, w), "png", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, budget := range []int64{weights + whole.ScratchBytes, weights + whole.ScratchBytes - 1, weights + 3<<20} {
		d := starterDecoder(t, cpu.Options{MemoryCapBytes: budget})
		f, _ := plan(t, d, h, w)
		if need := weights + f.ScratchBytes; need > budget || cmp.Equal(f, whole) != (budget == weights+whole.ScratchBytes) {
			t.Fatalf("budget %d: planned %+v, whole is %+v", budget, f, whole)
		}
		got, err := decode(t.Context(), d, "starter", shapes(h, w), "png", "")
		if err != nil {
			t.Fatal(err)
		}
		if peak := d.Device.Memory().PeakBytes; peak != weights+f.ScratchBytes {
			t.Errorf("budget %d: %d bytes planned, a peak of %d", budget, weights+f.ScratchBytes, peak)
		}
		off, values := differences(t, want.Data, got.Data)
		if off[0] > values/1000 || off[1] > 0 { // by one where a value lies between two; required is 99.9 % within one
			t.Errorf("budget %d: of %d values %v differ by 1 and by more", budget, values, off)
		}
		t.Logf("budget %d: scratch %d of %d, values off by 1 and by more %v of %d", budget, f.ScratchBytes, whole.ScratchBytes, off, values)
	}
	// What is too little for bands too is for the ledger to refuse.
	d := starterDecoder(t, cpu.Options{MemoryCapBytes: weights + 4096})
	f, _ := plan(t, d, h, w)
	if f.ScratchBytes <= 4096 || f.ScratchBytes > 3<<20 {
		t.Errorf("planned %+v, want the least there is", f)
	}
	if _, err := decode(t.Context(), d, "starter", shapes(h, w), "png", ""); stage.ReasonOf(err) != stage.EngineOOMUnplanned {
		t.Errorf("decoding without enough memory: %v", err)
	}
}

// Without a budget, too, a large image does not take scratch for every pixel.
func TestDecodeBounded(t *testing.T) {
	d := starterDecoder(t, cpu.Options{})
	large, _ := plan(t, d, 128, 128)
	larger, _ := plan(t, d, 192, 256)
	if 3*large.SpillBytes != larger.SpillBytes || large.SpillBytes == 0 { // the disk is another matter
		t.Errorf("planned files of %d bytes for 1024x1024 and %d for 2048x1536", large.SpillBytes, larger.SpillBytes)
	}
	large.SpillBytes, larger.SpillBytes = 0, 0
	if !cmp.Equal(large, larger) || large.ScratchBytes > MaxImageScratch/8 {
		t.Errorf("planned %+v for 1024x1024 and %+v for 2048x1536", large, larger)
	}
}

// differences counts the values of two PNG files that differ by one, and by more.
func differences(t *testing.T, a, b []byte) (off [2]int, values int) {
	t.Helper()
	x, err := png.Decode(bytes.NewReader(a))
	if err != nil {
		t.Fatal(err)
	}
	y, err := png.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if x.Bounds() != y.Bounds() {
		t.Fatalf("%v and %v", x.Bounds(), y.Bounds())
	}
	for py := range x.Bounds().Dy() {
		for px := range x.Bounds().Dx() {
			r, g, b, _ := x.At(px, py).RGBA()
			r2, g2, b2, _ := y.At(px, py).RGBA()
			for _, d := range []int{int(r>>8) - int(r2>>8), int(g>>8) - int(g2>>8), int(b>>8) - int(b2>>8)} {
				values++
				switch {
				case d == 1 || d == -1:
					off[0]++
				case d != 0:
					off[1]++
				}
			}
		}
	}
	return off, values
}

// A disk that has no room for the temporary file is told before the work, and in it, without where it is.
func TestDecodeWithoutDisk(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	d := starterDecoder(t, cpu.Options{MemoryCapBytes: 8 << 20, SpillDir: missing})
	_, planned := footprint(t.Context(), d, "starter", 32, 32, 1, 0)
	_, decoded := decode(t.Context(), d, "starter", shapes(32, 32), "png", "")
	filled := d.runError(&device.SpillError{Bytes: 1000, AvailableBytes: 7, Err: &fs.PathError{Op: "write", Path: missing, Err: syscall.ENOSPC}}, nil, 0)
	for name, err := range map[string]error{"Plan": planned, "Decode": decoded, "a disk that fills up": filled} {
		var e *stage.Error
		var spill *device.SpillError
		if !errors.As(err, &e) || e.Reason != stage.DiskFull || !errors.As(err, &spill) || e.Metadata["needed_bytes"] == "" || e.Metadata["available_bytes"] == "" ||
			e.RetryAfter == 0 || !strings.Contains(e.Message, "temporary file") || strings.Contains(e.Message, missing) {
			t.Errorf("%s: error %v (%+v)", name, err, e)
		}
	}
	if want := "file of 1000 B to keep to its memory, its disk has 7 B: "; !strings.Contains(filled.Error(), want) {
		t.Errorf("%v does not tell sizes with their units, %q", filled, want)
	}
	if err := d.runError(&device.SpillError{Err: syscall.EIO}, nil, 0); stage.ReasonOf(err) != stage.EngineFault {
		t.Errorf("a broken disk: %v", err)
	}
	if f, _ := plan(t, d, 4, 4); f.SpillBytes != 0 {
		t.Errorf("a small image needs no disk: %+v", f)
	}
}

// What an image file cannot carry is refused; every character that a prompt may have is carried by every format.
func TestTextOfPrompts(t *testing.T) {
	text := []rune{}
	for r := rune(1); r < 0x3000; r++ {
		text = append(text, r)
	}
	text = append(text, 0xfffd, 0xfffe, 0xffff, 0x1f98a, 0x10ffff)
	d := starterDecoder(t, cpu.Options{})
	for _, format := range stage.ImageFormats() {
		if _, err := decode(t.Context(), d, "starter", shapes(4, 4), format, string(text)); err != nil {
			t.Errorf("%v: %v", format, err)
		}
		if _, err := decode(t.Context(), d, "starter", shapes(4, 4), format, "fox\x00"); stage.ReasonOf(err) != stage.InvalidField {
			t.Errorf("%v with NUL: %v", format, err)
		}
	}
}
