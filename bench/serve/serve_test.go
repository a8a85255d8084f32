package serve

import (
	"bytes"
	"encoding/json"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/bench/peer"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/engine/weights"
)

var starter = filepath.Join("..", "..", "models", "starter")

// ask runs the child in this process and gives its answers behind the first line.
func ask(t *testing.T, network string, requests ...peer.Request) []peer.Reply {
	t.Helper()
	var in, out bytes.Buffer
	for _, r := range requests {
		if err := json.NewEncoder(&in).Encode(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := Main(t.Context(), Options{Model: starter, Network: network, Threads: 2}, &in, &out); err != nil {
		t.Fatal(err)
	}
	answers := json.NewDecoder(&out)
	var hello peer.Hello
	if err := answers.Decode(&hello); err != nil || hello.Engine != Name || hello.Threads != 2 || hello.LoadSeconds <= 0 {
		t.Fatalf("%+v, %v", hello, err)
	}
	replies := make([]peer.Reply, len(requests))
	for i := range replies {
		if err := answers.Decode(&replies[i]); err != nil {
			t.Fatal(err)
		}
		if o := replies[i].Output; o != nil {
			t.Cleanup(func() { _ = os.Remove(o.File) })
		}
	}
	return replies
}

// TestImage draws run 0 of the goldens: what diffusers drew, within the tolerance of whole runs.
func TestImage(t *testing.T) {
	r := ask(t, peer.Image, peer.Request{Op: "image", ImageRequest: &peer.ImageRequest{
		Prompt: "fox on a blue background", Steps: 20, GuidanceScale: 4, Height: 128, Width: 128, Seed: 42,
	}})[0]
	if r.Error != "" || r.Seconds <= 0 {
		t.Fatalf("%+v", r)
	}
	got, want := decode(t, r.Output.File), decode(t, filepath.Join("..", "..", "testdata", "golden", "starter", "run00.png"))
	if len(got) != len(want) {
		t.Fatalf("%d values, want %d", len(got), len(want))
	}
	for i := range got {
		if d := int(got[i]) - int(want[i]); d > 1 || d < -1 {
			t.Fatalf("value %d is %d, want %d", i, got[i], want[i])
		}
	}
}

func decode(t *testing.T, path string) (out []uint8) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	for y := range img.Bounds().Dy() {
		for x := range img.Bounds().Dx() {
			r, g, b, _ := img.At(x, y).RGBA()
			out = append(out, uint8(r>>8), uint8(g>>8), uint8(b>>8))
		}
	}
	return out
}

// TestDecoder compares a network, and with it the order of channels, with the reference's numbers: the final latents
// of run 0, unscaled, must become its picture.
func TestDecoder(t *testing.T) {
	set, err := weights.OpenFile(filepath.Join("..", "..", "testdata", "golden", "starter", "run00.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	const name = "latents.20"
	dtype, shape, ok := set.Info(name)
	if !ok {
		t.Fatalf("no %s among %v", name, set.Names())
	}
	data, err := set.Data(name)
	if err != nil {
		t.Fatal(err)
	}
	n, _ := shape.Elems()
	latents := make([]float32, n)
	if err := tensor.Widen(latents, dtype, data); err != nil {
		t.Fatal(err)
	}
	const scalingFactor = 0.3314 // of the starter's autoencoder
	for i := range latents {
		latents[i] /= scalingFactor
	}
	in, err := peer.WriteF32(filepath.Join(t.TempDir(), "latents"), latents, shape...)
	if err != nil {
		t.Fatal(err)
	}
	request := peer.Request{Op: "run", Inputs: map[string]peer.Tensor{peer.InputLatents: in}}
	replies := ask(t, peer.VAEDecoder, request, request)
	got, err := replies[1].Output.Floats()
	if err != nil {
		t.Fatal(err)
	}
	want := decode(t, filepath.Join("..", "..", "testdata", "golden", "starter", "run00.png"))
	for i, v := range got { // [1, 3, 128, 128] against [128, 128, 3]
		colour, pixel := i/(128*128), i%(128*128)
		level := math.Round(255 * math.Min(1, math.Max(0, float64(v)/2+0.5)))
		if d := level - float64(want[3*pixel+colour]); d > 1 || d < -1 {
			t.Fatalf("value %d is %v, want %d", i, level, want[3*pixel+colour])
		}
	}
}

func TestNetworkErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	flat, err := peer.WriteF32(path, []float32{1, 2}, 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		network, want string
		request       peer.Request
	}{
		{peer.VAEDecoder, `no input "latents"`, peer.Request{Op: "run", Inputs: map[string]peer.Tensor{"x": flat}}},
		{peer.VAEDecoder, "latents has shape [2]", peer.Request{Op: "run", Inputs: map[string]peer.Tensor{peer.InputLatents: flat}}},
		{peer.UNet, "sample [2] and states [2]", peer.Request{Op: "run", Inputs: map[string]peer.Tensor{peer.InputSample: flat, peer.InputTimestep: flat, peer.InputStates: flat}}},
		{peer.TextEncoder, "input_ids has shape [2]", peer.Request{Op: "run", Inputs: map[string]peer.Tensor{peer.InputIDs: flat}}},
		{peer.TextEncoder, "one network cannot draw", peer.Request{Op: "image", ImageRequest: &peer.ImageRequest{}}},
		{peer.Image, "the stages draw images", peer.Request{Op: "run", Inputs: map[string]peer.Tensor{"x": flat}}},
	} {
		if r := ask(t, c.network, c.request)[0]; !strings.Contains(r.Error, c.want) {
			t.Errorf("%s: %q, want %q", c.network, r.Error, c.want)
		}
	}
	var out bytes.Buffer
	if err := Main(t.Context(), Options{Model: starter, Network: "nothing", Threads: 1}, &bytes.Buffer{}, &out); err == nil || !strings.Contains(out.String(), `{"error":"no network \"nothing\"`) {
		t.Errorf("%v, %s", err, out.String())
	}
}
