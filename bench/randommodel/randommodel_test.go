package randommodel

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/triptych-serving/triptych/bench/configs"
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/lora"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/engine/weights"
)

func narrowed(v float32) uint16 {
	var h [1]uint16
	toF16(h[:], []float32{v})
	return h[0]
}

func TestToF16(t *testing.T) {
	for v, want := range map[float32]float32{
		0: 0, 1: 1, -2.5: -2.5, 65504: 65504, 1e6: float32(math.Inf(1)), 1e-7: 0, 6.2e-5: 6.198883056640625e-05,
		1 + 1.0/2048: 1, 1 + 3.0/2048: 1 + 4.0/2048, 2047.9: 2048, // ties to even; a carry into the exponent
	} {
		if got := tensor.F16ToF32(narrowed(v)); got != want {
			t.Errorf("%v became %v, want %v", v, got, want)
		}
	}
	for h := range uint16(0x7c00) { // every number that is not denormal is itself
		if v := tensor.F16ToF32(h); h >= 0x400 && narrowed(v) != h {
			t.Fatalf("%#x became %#x", h, narrowed(v))
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
		if err := writeWeights(w, "unet", parameters(small(), false), func(int64, int64) {}); err != nil {
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

// TestManifests counts parameters: in the denoiser, the autoencoder and the text encoders. Those of Stable Diffusion XL are the 3,468,837,945 of its
// published single file but for 78, positions and a scale of similarities, which a directory does not have.
func TestManifests(t *testing.T) {
	for _, c := range []struct {
		files configs.Files
		want  map[string]int
	}{
		{configs.SD15(), map[string]int{"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}},
		{configs.SDXL(), map[string]int{"unet": 2_567_463_684, "vae": 83_653_863, "text_encoder": 123_060_480, "text_encoder_2": 694_659_840}},
	} {
		got := map[string]int{}
		for _, name := range c.files.Components() {
			m, err := c.files.Manifest(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range parameters(m, c.files.Linear(name)) {
				got[name] += p.elems()
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Error(diff)
		}
	}
}

// TestStoredShapes: the layers around the transformers of Stable Diffusion 1.5 are convolutions of 1x1, those of XL are not.
func TestStoredShapes(t *testing.T) {
	for _, c := range []struct {
		files configs.Files
		want  map[string]int // axes
	}{
		{configs.SD15(), map[string]int{"proj_in": 4, "conv_shortcut": 4, "to_q": 2}},
		{configs.SDXL(), map[string]int{"proj_in": 2, "conv_shortcut": 4, "to_q": 2}},
	} {
		m, err := c.files.Manifest("unet")
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]int{}
		for _, p := range parameters(m, c.files.Linear("unet")) {
			for layer := range c.want {
				if strings.HasSuffix(p.name, "."+layer+".weight") {
					got[layer] = len(p.shape)
				}
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Error(diff)
		}
	}
}

// TestWriteLoRA: a LoRA for a tiny Stable Diffusion XL fits it, layer by layer.
func TestWriteLoRA(t *testing.T) {
	dir, err := modeldir.Open(filepath.Join("..", "..", "testdata", "golden", "sdxl", "tiny-sdxl"), "StableDiffusionXLPipeline")
	if err != nil {
		t.Fatal(err)
	}
	c, err := modeldir.Config(dir, modeldir.UNetFolder, unet.ParseConfig)
	if err != nil {
		t.Fatal(err)
	}
	u, err := dir.Denoiser(modeldir.UNetFolder, c, modeldir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	path := filepath.Join(t.TempDir(), "lora.safetensors")
	if err := WriteLoRA(path, c, 32); err != nil {
		t.Fatal(err)
	}
	file, err := modeldir.Open(path, modeldir.ClassLoRA)
	if err != nil {
		t.Fatal(err)
	}
	l, err := file.LoRA(lora.UNet, modeldir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	adapted, err := u.Adapt(l)
	if err != nil {
		t.Fatal(err)
	}
	scales := modeldir.Scales([]modeldir.Adapted{adapted}, []float64{1})
	const blocks, around = 2 + 2*2 + 2 + 3*2 + 3, 2 + 2 + 1 + 3 + 3 // down, middle and up
	if want := 10*blocks + 2*around; len(scales) != want || scales[0].Value[0] != 0.5 {
		t.Errorf("%d layers, want %d of a factor of 0.5, got %v", len(scales), want, scales[0].Value)
	}
}

func TestConfigsAreJSON(t *testing.T) {
	for _, files := range []configs.Files{configs.SD15(), configs.SDXL()} {
		for name, value := range files {
			if _, err := json.Marshal(value); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if err := Write(Options{Dir: t.TempDir(), Files: configs.SD15(), Only: "nothing"}); err == nil {
		t.Error("a component that there is not was written")
	}
}
