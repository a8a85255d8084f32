package modeldir

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/kernel"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/engine/weights"
)

// The starter's U-Net with int8 weights against the reference's float32 prediction. A weight moves by a uniform
// error of at most scale/2, in the mean scale/sqrt(12); with max|w| some 4 standard deviations that is 0.9 % of an
// output of one layer. Errors of layers are independent and add up along the residual path as
// the root of their number: some 15 blocks give at most 3.5 %, less where outputs have more of their weights small.
func TestDenoiserInt8(t *testing.T) {
	const allowed = 0.035
	d, err := Open(filepath.Join(repo, "models/starter"))
	if err != nil {
		t.Fatal(err)
	}
	d.Resident = tensor.I8
	u, err := d.Denoiser()
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	file, err := weights.OpenFile(filepath.Join(repo, "testdata/golden/starter/tensors.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	g := &golden{file: file}
	states, c := g.tensor(t, "text.last_hidden_state")
	for _, key := range g.cases("unet.", ".sample") {
		sample, s := g.tensor(t, key+".sample")
		var timestep float64
		if _, err := fmt.Sscanf(key, "unet.%dx%d.t%g", new(int), new(int), &timestep); err != nil {
			t.Fatal(err)
		}
		tape, err := u.Tape(1, s[2], s[3], c[1])
		if err != nil {
			t.Fatal(err)
		}
		for _, variant := range kernel.Variants() {
			got := onCPU(variant)(t, &u.Network, tape, map[string][]float32{
				InputLatents: sample, InputTime: u.Config.TimeInput(timestep), InputContext: states[:c[1]*c[2]],
			})[OutputPrediction]
			want, _ := g.tensor(t, key+".out")
			relative, psnr := distance(got, want)
			t.Logf("%s %s: root mean square error %.2f %% of the prediction, PSNR %.1f dB", key, variant, 100*relative, psnr)
			if !(relative <= allowed) {
				t.Errorf("%s %s: root mean square error %.3g of the prediction, allowed %g", key, variant, relative, allowed)
			}
			if relative < 1e-4 {
				t.Errorf("%s %s: error %.3g: the weights are not kept as int8", key, variant, relative)
			}
		}
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
	dir, err := Open(filepath.Join(repo, "models/starter"))
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
	if got := dev.WeightBytes(int8s.manifest); got != (want+page-1)/page*page {
		t.Errorf("%d bytes, want %d in pages", got, want)
	}
	t.Logf("%d bytes as stored, %d with int8", dev.WeightBytes(stored.manifest), dev.WeightBytes(int8s.manifest))
}
