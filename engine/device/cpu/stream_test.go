package cpu_test

import (
	"errors"
	"io"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/device/devicetest"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// A device that streams is a device.
func TestConformanceStreamed(t *testing.T) {
	for name, residentBytes := range map[string]int64{"all streamed": 0, "half": 20_000, "all resident": 1 << 40} {
		t.Run(name, func(t *testing.T) {
			devicetest.Run(t, func(t *testing.T, capBytes int64) device.Device {
				return policy{Device: open(t, cpu.Options{Threads: 2, MemoryCapBytes: capBytes}), load: device.LoadPlan{Streamed: true, ResidentBytes: residentBytes}}
			})
		})
	}
}

// networks are those of a model with tapes of a small image.
func networks(t testing.TB, dir string) map[string]struct {
	*modeldir.Network
	tape *device.Tape
} {
	t.Helper()
	d, err := modeldir.OpenStableDiffusion(filepath.Join("..", "..", "..", dir))
	if err != nil {
		t.Fatal(err)
	}
	text, err := d.TextEncoder()
	if err != nil {
		t.Fatal(err)
	}
	unet, err := d.Denoiser()
	if err != nil {
		t.Fatal(err)
	}
	vae, err := d.ImageDecoder()
	if err != nil {
		t.Fatal(err)
	}
	encode, err1 := text.Tape(2, 77)
	denoise, err2 := unet.Tape(2, 16, 16, 77)
	decode, err3 := vae.Tape(1, 16, 16)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	all := map[string]struct {
		*modeldir.Network
		tape *device.Tape
	}{"encoder": {&text.Network, encode}, "denoiser": {&unet.Network, denoise}, "decoder": {&vae.Network, decode}}
	t.Cleanup(func() {
		for _, n := range all {
			_ = n.Close() // it was only read
		}
	})
	return all
}

// fillInputs writes values that differ from seed to seed.
func fillInputs(t testing.TB, r device.Run, tape *device.Tape, seed int) {
	t.Helper()
	for _, in := range tape.Inputs() {
		n, _ := in.Array.Shape.Elems()
		values, ids := make([]float32, n), make([]int32, n)
		for i := range values {
			values[i], ids[i] = float32((i*7919+seed)%1000)/500-1, int32((i*31+seed)%400)
		}
		err := r.Write(in.Name, values)
		if in.IDs {
			err = r.WriteIDs(in.Name, ids)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func output(t testing.TB, r device.Run, tape *device.Tape) []float32 {
	t.Helper()
	out := tape.Outputs()[0]
	n, _ := out.Array.Shape.Elems()
	v := make([]float32, n)
	if err := r.Read(out.Name, v); err != nil {
		t.Fatal(err)
	}
	return v
}

// Whatever is resident, and in bands or not, networks give the same bits, in memory that was told before.
func TestStreamedNetworksGiveTheSameBits(t *testing.T) {
	for name, n := range networks(t, "models/starter") {
		for kind, scratch := range map[string]int64{"whole": 1 << 40, "in bands": 1 << 20} {
			if kind == "in bands" && name != "decoder" {
				continue
			}
			t.Run(name+" "+kind, func(t *testing.T) {
				var want [][]float32
				all := int64(0)
				for _, part := range []float64{-1, 0, 0.3, 0.8, 0.99, 1} {
					d := open(t, cpu.Options{Threads: 2})
					m, plan := n.Manifest(), device.LoadPlan{Streamed: part >= 0, ResidentBytes: int64(part * float64(all))}
					planned := d.WeightBytes(m, plan)
					if part < 0 {
						all = planned
					}
					w, err := d.Load(t.Context(), m, plan, n.Source(), nil)
					if err != nil {
						t.Fatal(err)
					}
					r, err := d.NewRun(n.tape, w, device.RunOptions{ScratchLimit: scratch})
					if err != nil {
						t.Fatal(err)
					}
					var got [][]float32
					for round := range 3 {
						if round != 1 { // which has no prologue
							fillInputs(t, r, n.tape, round)
						}
						if err := r.Execute(t.Context()); err != nil {
							t.Fatal(err)
						}
						got = append(got, output(t, r, n.tape))
					}
					if want == nil {
						want = got
					}
					if !slices.EqualFunc(got, want, slices.Equal) {
						t.Errorf("%.2f resident: other bits", part)
					}
					peak := d.Memory().PeakBytes
					if peak != planned+r.Bytes() || w.Bytes() != planned || planned > all {
						t.Errorf("%.2f resident: a peak of %d bytes beside %d of scratch, %d of weights; %d were told, %d is all of them", part, peak, r.Bytes(), w.Bytes(), planned, all)
					}
					if part == 0 && planned > all/2 || part == 1 && planned != all {
						t.Errorf("%.2f resident: %d of %d bytes are held", part, planned, all)
					}
					t.Logf("%.2f resident: %d of %d bytes held", part, planned, all)
					r.Free()
					w.Free()
					if used := d.Memory().UsedBytes; used != 0 {
						t.Errorf("%d bytes stay in use", used)
					}
				}
			})
		}
	}
}

// A parameter that ops far apart use is read for each of them, and int8 is quantised as in a load.
func TestStreamSharedAndInt8(t *testing.T) {
	n := devicetest.NewNetwork(4)
	shared := n.Param(device.Matrix, tensor.F16, 0.1, 64, 64)
	h := n.Input(0, 3, 64)
	for range 3 {
		h = n.Tape.Gemm(device.Gemm{X: h, W: shared, Act: device.SiLU})
		h = n.Tape.Gemm(device.Gemm{X: h, W: shared, Residual: h})
		h = n.Tape.Gemm(device.Gemm{X: h, W: n.Param(device.Matrix, tensor.BF16, 0.1, 64, 64)})
		eight := n.Param(device.Matrix, tensor.F32, 0.1, 60, 64)
		n.Manifest.At(eight).Resident = tensor.I8
		h = n.Tape.Gemm(device.Gemm{X: h, W: eight})
		h = n.Tape.Gemm(device.Gemm{X: h, W: n.Param(device.Matrix, tensor.F32, 0.1, 64, 60)})
	}
	n.Tape.Output("output", h)
	d := open(t, cpu.Options{Threads: 2})
	want := devicetest.Compute(t, d, n.Tape, n, n.Inputs)["output"]
	whole := d.WeightBytes(n.Manifest, device.LoadPlan{})
	plan := device.LoadPlan{Streamed: true}
	if part, streamed := d.WeightBytes(n.Manifest, plan), d.StreamedBytes(n.Tape, plan); part >= whole || streamed < 3*(2*64*64+2*64*64+4*60*64+4*64*60) {
		t.Errorf("%d of %d bytes, %d streamed", part, whole, streamed)
	}
	if got := devicetest.Compute(t, policy{Device: d, load: plan}, n.Tape, n, n.Inputs)["output"]; !slices.Equal(got, want) {
		t.Error("other bits")
	}
}

// What is told to be streamed is what an execution reads.
func TestStreamedBytes(t *testing.T) {
	for name, n := range networks(t, "models/starter") {
		d := open(t, cpu.Options{Threads: 1})
		m := n.Manifest()
		plan := device.LoadPlan{Streamed: true, ResidentBytes: d.WeightBytes(m, device.LoadPlan{}) / 4}
		var read atomic.Int64
		w, err := d.Load(t.Context(), m, plan, counting{n.Source(), &read}, nil)
		if err != nil {
			t.Fatal(err)
		}
		r := newRun(t, d, n.tape, w, 0)
		for range 2 {
			read.Store(0)
			if err := r.Execute(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		told, rows := d.StreamedBytes(n.tape, plan), int64(0)
		if name == "encoder" {
			rows = 2 * 2 * 77 * int64(len(output(t, r, n.tape))/2/77) * 2 // float16 rows of tokens and positions
		}
		if got := read.Load(); got != told+rows || told == 0 {
			t.Errorf("%s: %d bytes were read, %d and %d of rows told", name, got, told, rows)
		}
		t.Logf("%s: %d bytes for each evaluation, %d held, %d stored", name, told, w.Bytes(), n.StoredBytes())
		r.Free()
		w.Free()
	}
}

type counting struct {
	device.Source
	read *atomic.Int64
}

type countingReader struct {
	io.ReaderAt
	read *atomic.Int64
}

func (c counting) Section(name string) (*io.SectionReader, error) {
	s, err := c.Source.Section(name)
	if err != nil {
		return nil, err
	}
	return io.NewSectionReader(countingReader{s, c.read}, 0, s.Size()), nil
}

func (r countingReader) ReadAt(p []byte, off int64) (int, error) {
	r.read.Add(int64(len(p)))
	return r.ReaderAt.ReadAt(p, off)
}

// Within a limit, no other prefix that keeps to it streams less; where none does, none takes less.
func TestFit(t *testing.T) {
	for name, n := range networks(t, "models/starter") {
		d := open(t, cpu.Options{Threads: 1})
		m := n.Manifest()
		whole := d.WeightBytes(m, device.LoadPlan{})
		with := func(plan device.LoadPlan) (held, streamed int64) {
			return d.WeightBytes(m, plan), d.StreamedBytes(n.tape, plan)
		}
		fit := func(limit int64) (held, streamed int64) {
			t.Helper()
			plan, err := d.Fit(m, limit)
			if err != nil {
				t.Fatal(err)
			}
			return with(plan)
		}
		const parts = 60
		least := whole
		for part := range int64(parts + 1) {
			limit := whole * part / parts
			held, streamed := fit(limit)
			least = min(least, held)
			if again, _ := fit(held); again != held {
				t.Errorf("%s: within %d bytes %d are held, within those %d", name, limit, held, again)
			}
			for i := range int64(parts + 1) {
				resident := whole * i / parts
				h, s := with(device.LoadPlan{Streamed: true, ResidentBytes: resident})
				if h <= limit && (held > limit || streamed > s) || held > limit && h < held {
					t.Errorf("%s: within %d bytes %d are held and %d streamed; with the first %d resident %d and %d", name, limit, held, streamed, resident, h, s)
				}
			}
		}
		if held, streamed := fit(whole); held != whole || streamed != 0 {
			t.Errorf("%s: within all of its %d bytes %d are held and %d streamed", name, whole, held, streamed)
		}
		t.Logf("%s: from %d to %d bytes", name, least, whole)
	}
}
