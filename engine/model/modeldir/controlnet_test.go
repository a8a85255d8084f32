package modeldir

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/imaging"
	"github.com/triptych-serving/triptych/engine/model/controlnet"
	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/engine/weights"
)

const sdxlGoldens = repo + "/testdata/golden/sdxl"

// goldenSet opens a file of reference tensors.
func goldenSet(t *testing.T, name string, tolerance float64) *golden {
	t.Helper()
	file, err := weights.OpenFile(filepath.Join(sdxlGoldens, name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return &golden{file: file, tolerance: tolerance}
}

// join puts two arrays behind one another.
func join(parts ...[]float32) (out []float32) {
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// The first step of a run: the residuals of the reference, from its latents, prompt and picture. An inferred config has the
// U-Net's heads and comes to the same.
func TestControlNetGolden(t *testing.T) {
	for name, run := range evaluators() {
		for _, kind := range []string{"sd", "xl"} {
			for _, inferred := range []bool{false, true} {
				t.Run(kind+"/"+name+"/"+map[bool]string{true: "inferred", false: "config"}[inferred], func(t *testing.T) {
					of := tolerance
					if name == definition {
						of = definitionTolerance
					}
					model := map[string]string{"sd": "tiny-sd15", "xl": "tiny-sdxl"}[kind]
					g := goldenSet(t, "runs/"+kind+"-control-0.safetensors", of)
					text := goldenSet(t, "tensors/"+model+".safetensors", of)
					hints := goldenSet(t, "tensors/control.safetensors", of)
					d := &Dir{path: sdxlGoldens}
					folder := "control-" + kind + "-a"
					c, err := Config(d, folder, controlnet.ParseConfig)
					if err != nil {
						t.Fatal(err)
					}
					base, err := Config(&Dir{path: filepath.Join(sdxlGoldens, model)}, "unet", unet.ParseConfig)
					if err != nil {
						t.Fatal(err)
					}
					if inferred {
						set, err := weights.OpenDir(d.File(folder), weights.Diffusers())
						if err != nil {
							t.Fatal(err)
						}
						want := c.Trunk
						if c, err = controlnet.Infer(set); err != nil {
							t.Fatal(err)
						}
						set.Close()
						if got := c.For(base).Trunk; got.TimeDim != want.TimeDim || c.Factor() != 4 {
							t.Errorf("inferred %+v, want %+v", got, want)
						}
					}
					if why := c.Fits(base); why != "" {
						t.Error(why)
					}
					var config *controlnet.Config
					if !inferred {
						config = &c
					}
					net, err := d.ControlNet(folder, config, Options{})
					if err != nil {
						t.Fatal(err)
					}
					defer net.Close()
					tape, err := net.HintTape(48, 64)
					if err != nil {
						t.Fatal(err)
					}
					picture := decodeGolden(t, "edges-64x48.png")
					hint := run(t, &net.Network, tape, map[string][]float32{InputImage: picture})[OutputHint]
					hints.compare(t, kind+".embedding", hint)

					inputs := map[string][]float32{InputHint: join(hint, hint)}
					latents, s := g.tensor(t, "first.unet.in")
					inputs[InputLatents] = latents
					const timestep = 751
					time := base.TimeInput(timestep)
					width := base.ContextDim
					if kind == "sd" {
						states, _ := text.tensor(t, "text.last_hidden_state")
						n := 77 * width
						inputs[InputContext] = join(states[n:2*n], states[:n])
						inputs[InputTime] = time
					} else {
						inputs[InputContext] = join(penultimate(t, text, 1), penultimate(t, text, 0))
						pooled, p := text.tensor(t, "text2.pooled")
						var sizes []float32
						for _, v := range []float64{48, 64, 0, 0, 48, 64} {
							sizes = append(sizes, nn.Sinusoid(v, base.AdditionTimeDim, base.CosFirst, base.FreqShift)...)
						}
						inputs[InputAddition] = join(pooled[p[1]:2*p[1]], sizes, pooled[:p[1]], sizes)
						inputs[InputTime] = join(time, time)
					}
					if tape, err = net.Tape(base, 2, s[2], s[3], 77); err != nil {
						t.Fatal(err)
					}
					out := run(t, &net.Network, tape, inputs)
					g.compare(t, "first.control.mid", out[InputMiddle])
					if got := len(base.Skips()); len(out) != got+1 {
						t.Errorf("%d outputs, want %d residuals and that of the middle", len(out), got)
					}
					for _, c := range g.cases("first.control.", "") {
						if i := strings.TrimPrefix(c, "first.control."); i != "mid" {
							g.compare(t, c, out["control."+i])
						}
					}
					t.Logf("largest errors:\n%s", strings.Join(append(hints.rows, g.rows...), "\n"))
				})
			}
		}
	}
}

// penultimate is the context of Stable Diffusion XL for a prompt of the goldens.
func penultimate(t *testing.T, text *golden, prompt int) (out []float32) {
	t.Helper()
	first, a := text.tensor(t, "text.hidden.2")
	second, b := text.tensor(t, "text2.hidden.3")
	for i := range 77 {
		at := prompt*77 + i
		out = append(append(out, first[at*a[2]:][:a[2]]...), second[at*b[2]:][:b[2]]...)
	}
	return out
}

// A file of another network is no ControlNet, and none of unbounded sizes is inferred.
func TestInferRefuses(t *testing.T) {
	for _, s := range []shapes{
		{},
		{"conv_in.weight": {8, 4, 3, 3}, "down_blocks.0.resnets.0.conv1.weight": {8, 8, 3, 3}},
		{
			"conv_in.weight": {1 << 20, 4, 3, 3}, "down_blocks.0.resnets.0.conv1.weight": {1 << 20, 8, 3, 3},
			"time_embedding.linear_1.weight": {32, 8}, "controlnet_cond_embedding.conv_in.weight": {16, 3, 3, 3}, "controlnet_cond_embedding.conv_out.weight": {8, 16, 3, 3},
		},
	} {
		if c, err := controlnet.Infer(s); err == nil {
			t.Errorf("%v is inferred to be %+v", s, c)
		}
	}
}

// shapes are the tensors of a file that has nothing else.
type shapes map[string]tensor.Shape

func (s shapes) Info(name string) (tensor.DType, tensor.Shape, bool) {
	shape, ok := s[name]
	return tensor.F16, shape, ok
}
func (shapes) TypeName(string) string { return "F16" }
func (shapes) Where(string) string    { return "control.safetensors" }
func (shapes) Names() []string        { return nil }

// decodeGolden are the pixels of a picture of the goldens in 0 to 1.
func decodeGolden(t *testing.T, name string) []float32 {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(sdxlGoldens, "inputs", name))
	if err != nil {
		t.Fatal(err)
	}
	p, err := imaging.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	return p.Unit()
}
