package randommodel

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/triptych-serving/triptych/bench/configs"
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/engine/weights"
)

func TestToF16(t *testing.T) {
	for v, want := range map[float32]float32{
		0: 0, 1: 1, -2.5: -2.5, 65504: 65504, 1e6: float32(math.Inf(1)), 1e-7: 0, 6.2e-5: 6.198883056640625e-05,
		1 + 1.0/2048: 1, 1 + 3.0/2048: 1 + 4.0/2048, 2047.9: 2048, // ties to even; a carry into the exponent
	} {
		if got := tensor.F16ToF32(toF16(v)); got != want {
			t.Errorf("%v became %v, want %v", v, got, want)
		}
	}
	for h := range uint16(0x7c00) { // every number that is not denormal is itself
		if v := tensor.F16ToF32(h); h >= 0x400 && toF16(v) != h {
			t.Fatalf("%#x became %#x", h, toF16(v))
		}
	}
}

func small() *device.Manifest {
	m := &device.Manifest{}
	m.Add(device.Param{Name: "a.conv_shortcut.weight", Layout: device.Matrix, Shape: tensor.Shape{40, 100}})
	m.Add(device.Param{Name: "a.norm1.weight", Layout: device.Vector, Shape: tensor.Shape{64}})
	m.Add(device.Param{Name: "a.conv1.weight", Layout: device.Filter, Shape: tensor.Shape{16, 20, 3, 3}})
	m.Add(device.Param{Name: "a.to_q.weight", Layout: device.Matrix, Shape: tensor.Shape{8, 8}})
	return m
}

// TestWeights reads back what is written, through the reader of real models.
func TestWeights(t *testing.T) {
	var file, again bytes.Buffer
	for _, w := range []*bytes.Buffer{&file, &again} {
		if err := writeWeights(w, "unet", small(), func(int64, int64) {}); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(file.Bytes(), again.Bytes()) {
		t.Error("the weights differ from one time to another")
	}
	path := filepath.Join(t.TempDir(), "x.safetensors")
	if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := weights.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	for name, want := range map[string]struct {
		shape           tensor.Shape
		mean, deviation float64
	}{
		"a.conv_shortcut.weight": {tensor.Shape{40, 100, 1, 1}, 0, 0.1},
		"a.norm1.weight":         {tensor.Shape{64}, 1, 0.1},
		"a.conv1.weight":         {tensor.Shape{16, 20, 3, 3}, 0, 1 / math.Sqrt(180)},
		"a.to_q.weight":          {tensor.Shape{8, 8}, 0, 1 / math.Sqrt(8)},
	} {
		dtype, shape, _ := set.Info(name)
		if dtype != tensor.F16 || !shape.Equal(want.shape) {
			t.Errorf("%s is %v %v, want F16 %v", name, dtype, shape, want.shape)
		}
		data, err := set.Data(name)
		if err != nil {
			t.Fatal(err)
		}
		var sum, squares float64
		n := float64(len(data) / 2)
		for i := 0; i < len(data); i += 2 {
			v := float64(tensor.F16ToF32(binary.LittleEndian.Uint16(data[i:])))
			sum, squares = sum+v, squares+v*v
		}
		mean := sum / n
		deviation := math.Sqrt(squares/n - mean*mean)
		if math.Abs(mean-want.mean) > 4*want.deviation/math.Sqrt(n) || math.Abs(deviation/want.deviation-1) > 4/math.Sqrt(2*n) {
			t.Errorf("%s: mean %v, deviation %v, want %v, %v", name, mean, deviation, want.mean, want.deviation)
		}
	}
}

// TestManifests counts parameters: 859.5 million in the denoiser, 83.7 in the autoencoder, 123.1 in the text encoder.
func TestManifests(t *testing.T) {
	got := map[string]int{}
	for _, c := range configs.Components() {
		m, err := configs.Manifest(c)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range m.Params {
			n, _ := p.Shape.Elems()
			got[c] += n
		}
	}
	want := map[string]int{"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestConfigsAreJSON(t *testing.T) {
	for name, value := range configs.SD15() {
		if _, err := json.Marshal(value); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Write(Options{Dir: t.TempDir(), Only: "nothing"}); err == nil {
		t.Error("a component that there is not was written")
	}
}
