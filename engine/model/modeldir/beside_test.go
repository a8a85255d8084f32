package modeldir

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/model/unet"
)

// openDenoiser opens the U-Net of a golden model.
func openDenoiser(t *testing.T, model string) *Denoiser {
	t.Helper()
	d := &Dir{path: filepath.Join(sdxlGoldens, model)}
	c, err := Config(d, UNetFolder, unet.ParseConfig)
	if err != nil {
		t.Fatal(err)
	}
	u, err := d.Denoiser(UNetFolder, c, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	return u
}

// The first step of a run under a ControlNet, with the reference's residuals: they go to the skips and to the middle.
func TestDenoiserControlGolden(t *testing.T) {
	forEachEvaluator(t, func(t *testing.T, run evaluator, tolerance float64) {
		g := goldenSet(t, "runs/sd-control-0.safetensors", tolerance)
		states, s := goldenSet(t, "tensors/tiny-sd15.safetensors", tolerance).tensor(t, "text.last_hidden_state")
		u := openDenoiser(t, "tiny-sd15")
		latents, size := g.tensor(t, "first.unet.in")
		prompt := s[1] * s[2]
		inputs := map[string][]float32{
			InputLatents: latents, InputTime: u.Config.TimeInput(751), InputContext: join(states[prompt:2*prompt], states[:prompt]),
		}
		residuals := g.cases("first.control.", "")
		if len(residuals) != len(u.Config.Skips())+1 {
			t.Fatalf("%d residuals", len(residuals))
		}
		for _, c := range residuals {
			v, shape := g.tensor(t, c)
			inputs[strings.TrimPrefix(c, "first.")] = v
			want := u.Config.MiddleSize(size[2], size[3])
			if i := 0; !strings.HasSuffix(c, "mid") {
				if _, err := fmt.Sscanf(c, "first.control.%d", &i); err != nil {
					t.Fatal(err)
				}
				want = u.Config.SkipSizes(size[2], size[3])[i]
			}
			if got := (unet.Size{Height: shape[2], Width: shape[3], Channels: shape[1]}); got != want {
				t.Errorf("%s is of %v, want %v", c, got, want)
			}
		}
		tape, err := u.TapeBeside(2, size[2], size[3], s[1], Beside{Control: true})
		if err != nil {
			t.Fatal(err)
		}
		g.compare(t, "first.unet.out", run(t, &u.Network, tape, inputs)[OutputPrediction])
		t.Log(g.rows)
	})
}

// The first step of a run under an image prompt: keys and values of its tokens go to each attention to the text, in the order
// of the reference's processors.
func TestDenoiserImagePromptGolden(t *testing.T) {
	const scale = 0.7
	forEachEvaluator(t, func(t *testing.T, run evaluator, tolerance float64) {
		g := goldenSet(t, "runs/sd-ip-0.safetensors", tolerance)
		states, s := goldenSet(t, "tensors/tiny-sd15.safetensors", tolerance).tensor(t, "text.last_hidden_state")
		u := openDenoiser(t, "tiny-sd15")
		adapter := openAdapter(t, filepath.Join(sdxlGoldens, "ip-adapter", "ip-adapter_tiny.safetensors"))
		embeddings, _ := g.tensor(t, "first.image_embeds")
		tape, err := adapter.Tape(2)
		if err != nil {
			t.Fatal(err)
		}
		latents, size := g.tensor(t, "first.unet.in")
		prompt := s[1] * s[2]
		inputs := map[string][]float32{
			InputLatents: latents, InputTime: u.Config.TimeInput(751), InputContext: join(states[prompt:2*prompt], states[:prompt]),
		}
		for name, v := range run(t, &adapter.Network, tape, map[string][]float32{InputStates: embeddings}) {
			if strings.HasSuffix(name, ".v") { // the scale of what is attended to is that of the values
				for i := range v {
					v[i] *= scale
				}
			}
			if name != OutputTokens {
				inputs[name] = v
			}
		}
		if tape, err = u.TapeBeside(2, size[2], size[3], s[1], Beside{ImageTokens: adapter.Config.Tokens}); err != nil {
			t.Fatal(err)
		}
		g.compare(t, "first.unet.out", run(t, &u.Network, tape, inputs)[OutputPrediction])
		t.Log(g.rows)
	})
}

// A tape without adapters is that of before, and those with them are others.
func TestDenoiserTapesBeside(t *testing.T) {
	u := openDenoiser(t, "tiny-sd15")
	plain, err := u.Tape(2, 12, 16, 77)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(plain.Inputs()); n != 3 {
		t.Errorf("%d inputs, want latents, time and context", n)
	}
	for _, b := range []Beside{{Control: true}, {ImageTokens: 4}, {Control: true, ImageTokens: 4}, {ImageTokens: 16}} {
		tape, err := u.TapeBeside(2, 12, 16, 77, b)
		if err != nil {
			t.Fatal(err)
		}
		want := 3
		if b.Control {
			want += len(u.Config.Skips()) + 1
		}
		if b.ImageTokens > 0 {
			want += 2 * len(u.Config.CrossAttentions())
		}
		if tape == plain || len(tape.Inputs()) != want {
			t.Errorf("%+v: %d inputs, want %d", b, len(tape.Inputs()), want)
		}
	}
	if again, _ := u.TapeBeside(2, 12, 16, 77, Beside{}); again != plain {
		t.Error("the tape without adapters is recorded twice")
	}
}

// Residuals of a ControlNet have the sizes that the U-Net's inputs have, also where halves are rounded up.
func TestControlSizes(t *testing.T) {
	for model, folder := range map[string]string{"tiny-sd15": "control-sd-a", "tiny-sdxl": "control-xl-a"} {
		u, d := openDenoiser(t, model), &Dir{path: sdxlGoldens}
		net, err := d.ControlNet(folder, nil, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range [][2]int{{1, 1}, {9, 7}, {10, 14}, {12, 16}} {
			to, err := u.TapeBeside(1, size[0], size[1], 77, Beside{Control: true})
			if err != nil {
				t.Fatal(err)
			}
			from, err := net.Tape(u.Config, 1, size[0], size[1], 77)
			if err != nil {
				t.Fatal(err)
			}
			for _, out := range from.Outputs() {
				n, _ := out.Array.Shape.Elems()
				if in, err := to.FindInput(out.Name, n); err != nil || !in.Array.Shape.Equal(out.Array.Shape) {
					t.Errorf("%s at %v: %s %v is given to %v, %v", model, size, out.Name, out.Array.Shape, in.Array.Shape, err)
				}
			}
		}
		if err := net.Close(); err != nil {
			t.Error(err)
		}
	}
}
