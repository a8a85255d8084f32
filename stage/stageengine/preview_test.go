package stageengine

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"image/png"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/imaging"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/model/taesd"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/weights"
	"github.com/triptych-serving/triptych/stage"
)

// previewed takes the turns up to denoising, which shows an estimate every so many steps, and gives the last of them: latents or an image.
func (s stages) previewed(t *testing.T, recipe stage.Recipe, options stage.Options, every int) (latents []float32, file *stage.File) {
	t.Helper()
	values := stage.Values{}
	for _, turn := range s.turns(recipe, options, values)[:2] {
		on := s[turn.Kind]
		for _, component := range turn.Components() {
			if err := on.Load(t.Context(), stage.LoadRequest{Component: component}, nil); err != nil {
				t.Fatal(err)
			}
		}
		req := stage.WorkRequest{Turn: turn.Name, Components: turn.Components(), Options: options.Of(turn.Options), Values: values, Seed: 5}
		if turn.Kind == stage.KindDenoiser {
			req.PreviewEveryNSteps = every
		}
		out, err := on.Work(t.Context(), req, stage.Observer{Preview: func(_ int, estimate stage.Values) {
			if file = estimate[0].File; file == nil {
				latents = floats(t, estimate[0].Tensor)
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		values = out.Values
	}
	return latents, file
}

// TestLinearPreviews: where a request asks for it, the denoiser's estimates are images by themselves, a pixel for each place, whose colours are
// the published linear functions of the latents; else they are latents, of which those colours are made.
func TestLinearPreviews(t *testing.T) {
	factors := map[string][4][3]float64{ // in levels
		"tiny-sd15": {{38, 26.4, 26.5}, {23.8, 36.5, 22.1}, {-20.1, 24.1, 33.7}, {-23.5, -34.6, -60.3}},
		"tiny-sdxl": {{60, 60, 60}, {-60, -5, 10}, {25, 15, -5}, {-70, -50, -35}},
	}
	bias := map[string][3]float64{"tiny-sd15": {127.5, 127.5, 127.5}, "tiny-sdxl": {150, 140, 130}}
	for model, f := range factors {
		s := openStages(t, filepath.Join(sdxlGoldens, model))
		seen := func(method string) ([]float32, *stage.File) {
			t.Helper()
			options := stage.Options{"steps": stage.IntOption(4), "width": stage.IntOption(64), "height": stage.IntOption(48), "prompt": stage.TextOption("a house"), "sampler": stage.TextOption("euler")}
			if method != "" {
				options["preview_method"] = stage.TextOption(method)
			}
			return s.previewed(t, s.recipe(model), options, 3)
		}
		latents, file := seen("decoder")
		if usual, _ := seen(""); file != nil || len(latents) == 0 || len(usual) != len(latents) {
			t.Fatalf("%s: %d and %d latents, %v", model, len(latents), len(usual), file)
		}
		_, file = seen("latent_rgb")
		if file == nil {
			t.Fatalf("%s: no image", model)
		}
		img, err := png.Decode(bytes.NewReader(file.Data))
		if err != nil {
			t.Fatal(err)
		}
		w, h := img.Bounds().Dx(), img.Bounds().Dy()
		if w*h*4 != len(latents) || file.WidthPx != w {
			t.Fatalf("%s: %dx%d of %d latents", model, w, h, len(latents))
		}
		for i := range w * h {
			r, g, b, _ := img.At(i%w, i/w).RGBA()
			for k, got := range []uint32{r >> 8, g >> 8, b >> 8} {
				want := bias[model][k]
				for c := range 4 {
					want += f[c][k] * float64(latents[c*w*h+i])
				}
				if want = min(max(want, 0), 255); math.Abs(want-float64(got)) > 2 {
					t.Fatalf("%s: colour %d of pixel %d is %d, want %.1f", model, k, i, got, want)
				}
			}
		}
	}
}

// TestTinyPreviews: a tiny autoencoder that a request names decodes estimates where the latents are, within what was planned; one of
// other latents is refused before anything is done.
func TestTinyPreviews(t *testing.T) {
	const model = "tiny-sd15"
	folder := adapters(t, "AutoencoderTiny", map[string]string{"taesd": filepath.Join(formatGoldens, "taesd/diffusion_pytorch_model.safetensors")})
	s := openStages(t, filepath.Join(sdxlGoldens, model), folder)
	options := stage.Options{
		"steps": stage.IntOption(4), "width": stage.IntOption(64), "height": stage.IntOption(48), "prompt": stage.TextOption("a house"),
		"sampler": stage.TextOption("euler"), "preview_decoder": stage.TextOption("taesd"),
	}
	recipe := s.recipe(model)
	turns := s.turns(recipe, options, nil)
	turn := turns[slices.IndexFunc(turns, func(t stage.Turn) bool { return t.Name == "denoise" })]
	_, err := s[stage.KindDenoiser].Plan(t.Context(), stage.PlanRequest{Turn: "denoise", Components: turn.Components(), Options: recipe.Shape(turn, options)})
	var told *stage.Error
	if !errors.As(err, &told) || told.Metadata["field"] != "preview_decoder" || !strings.Contains(err.Error(), "8") {
		t.Errorf("a place of 8 pixels for latents of 4: %v", err)
	}
}

// TestTinyPreviewsAreDecoded: the preview is the picture that the tiny autoencoder makes of the estimate, and what is planned holds it.
func TestTinyPreviewsAreDecoded(t *testing.T) {
	const model = "tiny-sd15"
	folder := adapters(t, "AutoencoderTiny", map[string]string{"taesd": quarter(t)})
	s := openStages(t, filepath.Join(sdxlGoldens, model), folder)
	on := s[stage.KindDenoiser]
	draw := func(more stage.Options) ([]float32, *stage.File) {
		t.Helper()
		options := stage.Options{"steps": stage.IntOption(3), "width": stage.IntOption(64), "height": stage.IntOption(32), "prompt": stage.TextOption("fox"), "sampler": stage.TextOption("euler")}
		maps.Copy(options, more)
		recipe := s.recipe(model)
		turn := s.turns(recipe, options, nil)[1]
		plan := stage.PlanRequest{Turn: turn.Name, Components: turn.Components(), Options: options.Of(recipe.ShapeNames(turn))}
		if planned, err := on.Plan(t.Context(), plan); err != nil || planned.ScratchBytes == 0 {
			t.Fatal(planned, err)
		}
		return s.previewed(t, recipe, options, 2)
	}
	latents, _ := draw(nil)
	_, got := draw(stage.Options{"preview_decoder": stage.TextOption("taesd")})
	if got == nil || got.WidthPx != 64 || got.HeightPx != 32 {
		t.Fatalf("%+v", got)
	}
	b := on.book("taesd/preview_decoder")
	net := b.network().(*modeldir.TinyDecoder)
	tape, err := net.Tape(8, 16)
	if err != nil {
		t.Fatal(err)
	}
	z := make([]float32, len(latents))
	nn.ToChannelsLast(z, latents, 1, 4, 8*16)
	taesd.Clamp(z)
	pixels := make([]float32, 64*32*3)
	run, err := on.Device.NewRun(tape, b.weights, device.RunOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer run.Free()
	if err := errors.Join(run.Write(modeldir.InputLatents, z), run.Execute(t.Context()), run.Read(modeldir.OutputImage, pixels)); err != nil {
		t.Fatal(err)
	}
	taesd.Signed(pixels)
	want, err := imaging.Encode(imaging.FromFloats(pixels, 32, 64), imaging.Options{Format: imaging.PNG})
	if err != nil || !bytes.Equal(got.Data, want) {
		t.Errorf("not the picture of the estimate (%v)", err)
	}
}

// quarter is the golden's tiny autoencoder without the last change of its decoder's size, for latents a place of which is four pixels wide.
func quarter(t *testing.T) string {
	t.Helper()
	set, err := weights.OpenFile(filepath.Join(formatGoldens, "taesd/diffusion_pytorch_model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	header, data := map[string]any{}, []byte(nil)
	for _, name := range set.Names() {
		if !strings.HasPrefix(name, "decoder.") || strings.HasPrefix(name, "decoder.layers.10.") || strings.HasPrefix(name, "decoder.layers.11.") {
			continue
		}
		bytes, err := set.Data(name)
		if err != nil {
			t.Fatal(err)
		}
		_, shape, _ := set.Info(name)
		header[name] = map[string]any{"dtype": "F16", "shape": shape, "data_offsets": []int{len(data), len(data) + len(bytes)}}
		data = append(data, bytes...)
	}
	text, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "quarter.safetensors")
	file := slices.Concat(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text, data)
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
