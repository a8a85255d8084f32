package modeldir

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/device/devicetest"
	"github.com/triptych-serving/triptych/engine/kernel"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/engine/weights"
)

// The networks with weights in every type against the reference's float32 results. A weight is off by a uniform error of
// at most half a step, in the mean step/sqrt(12). Where the largest of them is some 4 standard deviations, that is 0.9 %
// of an output of one layer for int8 (a step is max/127), and 10 % for int4, where the largest of a group of 64 is some
// 2.4 deviations (a step is max/7); for bfloat16 at most 2^-9, in the mean 0.11 %, and an eighth of it for float16. Errors
// of layers are independent and add up along the residual path as the root of their number: some 15 blocks give at
// most four times as much, less where outputs have more of their weights small. Computed in bfloat16, both factors are off
// as weights in bfloat16 are. The table stands in docs/residency.md.
func TestPrecision(t *testing.T) {
	type kept struct {
		in tensor.DType
		as device.Compute
	}
	layer := map[kept]float64{
		{in: tensor.F32}: 1e-5, {in: tensor.F16}: 1.5e-4, {in: tensor.BF16}: 1.1e-3, {in: tensor.I8}: 0.009, {in: tensor.I4}: 0.10,
		{tensor.F16, device.ComputeBF16}: 1.6e-3, {tensor.I8, device.ComputeBF16}: 0.0092,
	}
	file, err := weights.OpenFile(filepath.Join(repo, "testdata/golden/starter/tensors.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	g := &golden{file: file}
	d, err := OpenStableDiffusion(filepath.Join(repo, "models/starter"))
	if err != nil {
		t.Fatal(err)
	}
	for precision, allowed := range layer {
		d.Resident = precision.in
		check := func(name, key string, got []float32) {
			t.Helper()
			want, _ := g.tensor(t, key)
			relative, psnr := distance(got, want)
			t.Logf("%-12s %-4v in %-4v root mean square error %.4f %% of the result, PSNR %.1f dB", name, precision.in, precision.as, 100*relative, psnr)
			if !(relative <= 4*allowed) {
				t.Errorf("%s %v: root mean square error %.3g of the result, allowed %g", name, precision, relative, 4*allowed)
			}
			if (!precision.in.IsFloat() || precision.as != device.ComputeF32) && relative < allowed/50 {
				t.Errorf("%s %v: error %.3g: the weights are not kept so, or not multiplied", name, precision, relative)
			}
		}
		compute := computing(precision.as)
		precisionText(t, d, g, compute, check)
		precisionUNet(t, d, g, compute, check)
		precisionVAE(t, d, g, compute, check)
	}
}

// computing evaluates networks in a type.
func computing(c device.Compute) evaluator {
	return func(t *testing.T, n *Network, tape *device.Tape, inputs map[string][]float32) map[string][]float32 {
		t.Helper()
		d, err := cpu.New(cpu.Options{Emulate: true})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		return devicetest.ComputeWith(t, d, device.RunOptions{Compute: c}, tape, n.Source(), inputs)
	}
}

func precisionText(t *testing.T, d *StableDiffusion, g *golden, compute evaluator, check func(name, key string, got []float32)) {
	e, err := d.TextEncoder()
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ids, s := g.tensor(t, "text.ids")
	tape, err := e.Tape(s[0], s[1])
	if err != nil {
		t.Fatal(err)
	}
	check("text encoder", "text.last_hidden_state", compute(t, &e.Network, tape, map[string][]float32{InputIDs: ids})[OutputStates])
}

func precisionUNet(t *testing.T, d *StableDiffusion, g *golden, compute evaluator, check func(name, key string, got []float32)) {
	u, err := d.Denoiser()
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	states, c := g.tensor(t, "text.last_hidden_state")
	for _, key := range g.cases("unet.", ".sample")[:3] { // the others are of another size
		sample, s := g.tensor(t, key+".sample")
		var timestep float64
		if _, err := fmt.Sscanf(key, "unet.%dx%d.t%g", new(int), new(int), &timestep); err != nil {
			t.Fatal(err)
		}
		tape, err := u.Tape(1, s[2], s[3], c[1])
		if err != nil {
			t.Fatal(err)
		}
		check("U-Net", key+".out", compute(t, &u.Network, tape, map[string][]float32{
			InputLatents: sample, InputTime: u.Config.TimeInput(timestep), InputContext: states[:c[1]*c[2]],
		})[OutputPrediction])
	}
}

func precisionVAE(t *testing.T, d *StableDiffusion, g *golden, compute evaluator, check func(name, key string, got []float32)) {
	v, err := d.ImageDecoder()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for _, key := range g.cases("vae.", ".z")[:1] {
		z, s := g.tensor(t, key+".z")
		tape, err := v.Tape(1, s[2], s[3])
		if err != nil {
			t.Fatal(err)
		}
		check("VAE decoder", key+".decoded", compute(t, &v.Network, tape, map[string][]float32{InputLatents: z})[OutputImage])
	}
}

// distance gives the root mean square error as a share of that of want, and the peak signal to noise ratio, the peak
// being the range of want.
func distance(got, want []float32) (relative, psnr float64) {
	var noise, signal float64
	low, high := math.Inf(1), math.Inf(-1)
	for i, v := range want {
		e := float64(got[i]) - float64(v)
		noise, signal = noise+e*e, signal+float64(v)*float64(v)
		low, high = min(low, float64(v)), max(high, float64(v))
	}
	return math.Sqrt(noise / signal), 10 * math.Log10((high-low)*(high-low)*float64(len(want))/noise)
}

// Weights kept as int8 take a byte each and a float32 for each output; whatever else there is stays.
func TestInt8Bytes(t *testing.T) {
	dir, err := OpenStableDiffusion(filepath.Join(repo, "models/starter"))
	if err != nil {
		t.Fatal(err)
	}
	dev, err := cpu.New(cpu.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	stored, err := dir.Denoiser()
	if err != nil {
		t.Fatal(err)
	}
	defer stored.Close()
	dir.Resident = tensor.I8
	int8s, err := dir.Denoiser()
	if err != nil {
		t.Fatal(err)
	}
	defer int8s.Close()
	if stored.StoredBytes() != int8s.StoredBytes() {
		t.Errorf("%d bytes stored, or %d: what is in the file does not depend on what is kept", stored.StoredBytes(), int8s.StoredBytes())
	}
	line := func(bytes int) int64 {
		return (int64(bytes) + device.ScratchAlign - 1) / device.ScratchAlign * device.ScratchAlign
	}
	want := int64(0)
	for _, p := range int8s.manifest.Params {
		n, _ := p.Shape.Elems()
		if p.Layout == device.Vector {
			want += line(4 * n)
			continue
		}
		panels := (p.Shape[0] + kernel.TileCols - 1) / kernel.TileCols
		want += line(panels*kernel.TileCols*n/p.Shape[0]) + line(panels*kernel.TileCols*4)
	}
	page := int64(os.Getpagesize())
	if got := dev.WeightBytes(int8s.manifest, device.LoadPlan{}); got != (want+page-1)/page*page {
		t.Errorf("%d bytes, want %d in pages", got, want)
	}
	t.Logf("%d bytes as stored, %d with int8", dev.WeightBytes(stored.manifest, device.LoadPlan{}), dev.WeightBytes(int8s.manifest, device.LoadPlan{}))
}
