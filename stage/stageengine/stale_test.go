package stageengine

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/engine/weights"
	"github.com/triptych-serving/triptych/stage"
)

const staleModel = "tiny-sd15"

// weightFiles are those of a model, by the stage that reads them.
var weightFiles = map[stage.Kind]string{
	stage.KindEncoder:  "text_encoder/model.safetensors",
	stage.KindDenoiser: "unet/diffusion_pytorch_model.safetensors",
	stage.KindDecoder:  "vae/diffusion_pytorch_model.safetensors",
}

// copied is a copy of a small model, which a test may spoil.
func copied(t testing.TB) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), staleModel)
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(repo, "testdata/golden", staleModel))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// overwrite puts a value in the place of the first of a tensor's, in a file that keeps its size. It returns how to take it back.
func overwrite(t testing.TB, file, name string, value float32) (restore func()) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	set, err := weights.OpenFile(file)
	if err != nil {
		t.Fatal(err)
	}
	section, err := set.Section(name)
	if err != nil {
		t.Fatal(err)
	}
	_, at, _ := section.Outer()
	if err := set.Close(); err != nil {
		t.Fatal(err)
	}
	spoilt := append([]byte(nil), data...)
	binary.LittleEndian.PutUint32(spoilt[at:], math.Float32bits(value))
	write := func(data []byte) {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(spoilt)
	return func() { write(data) }
}

// clipping has a model's samplers clip, which makes a number of infinity.
func clipping(t testing.TB, dir string) {
	t.Helper()
	path := filepath.Join(dir, "scheduler/scheduler_config.json")
	settings := map[string]any{}
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &settings)
	}
	if err == nil {
		settings["clip_sample"] = true
		data, err = json.Marshal(settings)
	}
	if err = errors.Join(err, os.WriteFile(path, data, 0o600)); err != nil {
		t.Fatal(err)
	}
}

// Values that are not finite are an error that names the stage, whatever else was asked of it, and the weights are not used
// again: neither resident nor warm, nor what was remembered of them.
func TestNotFinite(t *testing.T) {
	const huge = 3e38 // finite, and more than sums and squares can be
	const latent = 8
	picture, err := os.ReadFile(filepath.Join(repo, "testdata/golden/starter/run00.png")) // of any size
	if err != nil {
		t.Fatal(err)
	}
	states := tensor.FromF32(make([]float32, 77*32), 1, 77, 32)
	for name, c := range map[string]struct {
		kind   stage.Kind
		tensor string
		stream bool
		band   bool
		what   string
	}{
		"encoder":  {kind: stage.KindEncoder, tensor: "text_model.encoder.layers.0.layer_norm1.weight", what: "states"},
		"denoiser": {kind: stage.KindDenoiser, tensor: "conv_in.bias", what: "latents after evaluation 1"},
		"infinite": {kind: stage.KindDenoiser, tensor: "conv_out.weight", what: "latents after evaluation 1"},
		"decoder":  {kind: stage.KindDecoder, tensor: "decoder.conv_in.bias", what: "pixels"},
		"white":    {kind: stage.KindDecoder, tensor: "decoder.conv_out.weight", what: "pixels"},
		"streamed": {kind: stage.KindDecoder, tensor: "decoder.conv_in.weight", what: "pixels", stream: true},
		"picture":  {kind: stage.KindDecoder, tensor: "encoder.conv_in.bias", what: "moments"},
		"banded":   {kind: stage.KindDecoder, tensor: "decoder.conv_in.bias", what: "pixels", band: true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := copied(t)
			clipping(t, dir)
			restore := overwrite(t, filepath.Join(dir, weightFiles[c.kind]), c.tensor, huge)
			library, err := OpenLibrary(dir)
			if err != nil {
				t.Fatal(err)
			}
			dev, err := cpu.New(cpu.Options{})
			if err != nil {
				t.Fatal(err)
			}
			o := Options{Library: library, Device: dev, WarmBytes: 1 << 30}
			if c.stream {
				o.ResidentBytes = map[stage.Kind]int64{c.kind: 0}
			}
			s := newStage(c.kind, o)
			if c.band {
				s.Device = narrow{dev}
			}
			part := partOf(s, staleModel)
			if c.what == "moments" {
				part = staleModel + "/vae.encoder"
			}
			work := func() (err error) {
				switch c.kind {
				case stage.KindEncoder:
					_, err = encode(t.Context(), s, staleModel, "a fox")
				case stage.KindDenoiser:
					_, err = denoise(t.Context(), s, denoising{Model: staleModel, States: states, H: latent, W: latent, Steps: 2, Guidance: 1, Sampler: "ddpm"}, stage.Observer{})
				case stage.KindDecoder:
					if c.what == "moments" {
						_, err = encodeImage(t, s, staleModel, sides(s, staleModel, latent, latent), picture, nil)
						return err
					}
					_, err = decode(t.Context(), s, staleModel, tensor.FromF32(make([]float32, 4*latent*latent), 1, 4, latent, latent), "png", "")
				}
				return err
			}
			load := func() {
				t.Helper()
				if err := s.Load(t.Context(), stage.LoadRequest{Component: part}, nil); err != nil {
					t.Fatal(err)
				}
			}
			load()
			err = work()
			if stage.ReasonOf(err) != stage.NotFinite || !strings.Contains(err.Error(), c.kind.String()) || !strings.Contains(err.Error(), c.what) {
				t.Fatalf("%v, want NotFinite of the %v's %s", err, c.kind, c.what)
			}
			if err := work(); stage.ReasonOf(err) != stage.StageEvicted {
				t.Errorf("the second time %v, want StageEvicted", err)
			}
			info, err := s.Info(t.Context())
			if err != nil || len(info.Resident) != 1 || !strings.Contains(info.Resident[0].Stale, "not finite") {
				t.Errorf("it tells %+v, %v", info.Resident, err)
			}
			if e, err := s.Evict(t.Context(), stage.EvictRequest{Component: part, Keep: true}); err != nil || e.WarmBytes != 0 || e.FreedBytes == 0 {
				t.Errorf("evicted %+v, %v; want nothing warm", e, err)
			}
			restore()
			load()
			if err := work(); err != nil {
				t.Errorf("with good files: %v", err)
			}
			if _, err := s.Evict(t.Context(), stage.EvictRequest{Component: part}); err != nil {
				t.Error(err)
			}
		})
	}
}

// narrow is a device that computes every image in bands.
type narrow struct{ device.Device }

func (n narrow) NewRun(t *device.Tape, w device.Weights, _ device.RunOptions, further ...device.Weights) (device.Run, error) {
	return n.Device.NewRun(t, w, device.RunOptions{ScratchLimit: 1}, further...)
}
