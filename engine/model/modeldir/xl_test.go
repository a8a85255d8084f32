package modeldir

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/clip"
	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/model/vae"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/weights"
)

// The networks of Stable Diffusion XL, by the tensors of testdata/golden/sdxl.

// forXL runs f for every way to evaluate a tape.
func forXL(t *testing.T, f func(t *testing.T, d *Dir, g *golden, run evaluator)) {
	const goldens = repo + "/testdata/golden/sdxl"
	for name, run := range evaluators() {
		t.Run(name, func(t *testing.T) {
			d, err := Open(filepath.Join(goldens, "tiny-sdxl"), "StableDiffusionXLPipeline")
			if err != nil {
				t.Fatal(err)
			}
			file, err := weights.OpenFile(filepath.Join(goldens, "tensors", "tiny-sdxl.safetensors"))
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			g := &golden{file: file, tolerance: tolerance}
			if name == definition {
				g.tolerance = definitionTolerance
			}
			f(t, d, g, run)
			t.Logf("largest errors as a share of the reference's largest value (allowed %g):\n%s", g.tolerance, strings.Join(g.rows, "\n"))
		})
	}
}

// The states behind every layer, and the pooled state of both old kinds of configs.
func TestXLTextEncoders(t *testing.T) {
	forXL(t, func(t *testing.T, d *Dir, g *golden, run evaluator) {
		for folder, name := range map[string]string{TextEncoderFolder: "text", TextEncoder2Folder: "text2"} {
			c, err := Config(d, folder, clip.ParseConfig)
			if err != nil {
				t.Fatal(err)
			}
			projection := 0
			if folder == TextEncoder2Folder {
				projection = c.Projection
			}
			e, err := d.TextEncoder(folder, c, projection, Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			ids, s := g.tensor(t, name+".ids")
			prompts, tokens := s[0], s[1]
			states := func(prompts int, depth Depth) map[string][]float32 {
				tape, err := e.TapeWith(prompts, tokens, depth, 0)
				if err != nil {
					t.Fatal(err)
				}
				return run(t, &e.Network, tape, map[string][]float32{InputIDs: ids[:prompts*tokens]})
			}
			for k := 1; k <= c.Layers; k++ {
				n := 1
				if k == c.Layers-1 {
					n = prompts
				}
				g.compare(t, fmt.Sprintf("%s.hidden.%d", name, k), states(n, Depth{Skipped: c.Layers - k})[OutputStates])
			}
			g.compare(t, name+".last_hidden_state", states(2, Depth{Normed: true})[OutputStates])
			if projection == 0 {
				continue
			}
			var pooled []float32
			all := states(prompts, Depth{Skipped: 1})[OutputPooled]
			for i := range prompts {
				row := make([]int32, tokens)
				for j := range row {
					row[j] = int32(ids[i*tokens+j])
				}
				pooled = append(pooled, all[(i*tokens+c.Pooled(row))*projection:][:projection]...)
			}
			g.compare(t, name+".pooled", pooled)
			for _, skipped := range []int{-1, c.Layers} {
				if _, err := e.TapeWith(1, tokens, Depth{Skipped: skipped}, 0); err == nil {
					t.Errorf("%d layers of %d are skipped", skipped, c.Layers)
				}
			}
		}
	})
}

func TestXLDenoiser(t *testing.T) {
	forXL(t, func(t *testing.T, d *Dir, g *golden, run evaluator) {
		c, err := Config(d, UNetFolder, unet.ParseConfig)
		if err != nil {
			t.Fatal(err)
		}
		u, err := d.Denoiser(UNetFolder, c, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		context, s := g.tensor(t, "unet.context")
		batch, tokens := s[0], s[1]
		pooled, s := g.tensor(t, "unet.text_embeds")
		told, _ := g.tensor(t, "unet.time_ids")
		var addition []float32
		for i := range batch {
			addition = append(addition, pooled[i*s[1]:][:s[1]]...)
			for _, v := range told[i*unet.AdditionTimes:][:unet.AdditionTimes] {
				addition = append(addition, nn.Sinusoid(float64(v), c.AdditionTimeDim, c.CosFirst, c.FreqShift)...)
			}
		}
		cases := g.cases("unet.", ".out")
		if len(cases) != 6 {
			t.Fatalf("%d cases, want 2 sizes at 3 timesteps", len(cases))
		}
		for _, key := range cases {
			var h, w int
			var timestep float64
			if _, err := fmt.Sscanf(key, "unet.%dx%d.t%g", &h, &w, &timestep); err != nil {
				t.Fatal(err)
			}
			sample, _ := g.tensor(t, fmt.Sprintf("unet.%dx%d.sample", h, w))
			tape := device.NewTape(u.manifest)
			tape.KeepMarks = true
			tape.Output(OutputPrediction, u.model.Forward(tape, unet.Inputs{
				Latents: tape.Input(InputLatents, batch, h, w, c.InChannels), Time: tape.Input(InputTime, batch, c.Channels[0]),
				Context: tape.Input(InputContext, batch, tokens, c.ContextDim), Addition: tape.Input(InputAddition, batch, c.AdditionDim),
			}))
			out := run(t, &u.Network, tape, map[string][]float32{
				InputLatents: sample, InputTime: slices.Repeat(c.TimeInput(timestep), batch), InputContext: context, InputAddition: addition,
			})
			for _, inner := range []string{"conv_in", "resnet", "down0", "mid", "up0"} {
				if want := key + ".inner." + inner; slices.Contains(g.file.Names(), want) { // of the first image
					g.compare(t, want, out[inner][:len(out[inner])/batch])
				}
			}
			g.compare(t, key+".out", out[OutputPrediction])
		}
	})
}

func TestXLAutoencoder(t *testing.T) {
	forXL(t, func(t *testing.T, d *Dir, g *golden, run evaluator) {
		c, err := Config(d, VAEFolder, vae.ParseConfig)
		if err != nil {
			t.Fatal(err)
		}
		dec, err := d.ImageDecoder(VAEFolder, c, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer dec.Close()
		enc, err := d.ImageEncoder(VAEFolder, c, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer enc.Close()
		for _, key := range g.cases("vae.", ".z") {
			z, s := g.tensor(t, key+".z")
			tape, err := dec.Tape(1, s[2], s[3])
			if err != nil {
				t.Fatal(err)
			}
			g.compare(t, key+".decoded", run(t, &dec.Network, tape, map[string][]float32{InputLatents: z})[OutputImage])
			image, s := g.tensor(t, key+".image")
			if tape, err = enc.Tape(1, s[2], s[3]); err != nil {
				t.Fatal(err)
			}
			g.compare(t, key+".moments", run(t, &enc.Network, tape, map[string][]float32{InputImage: image})[OutputMoments])
		}
		if len(g.rows) != 4 {
			t.Errorf("%d comparisons, want decoder and encoder at 2 sizes", len(g.rows))
		}
	})
}
