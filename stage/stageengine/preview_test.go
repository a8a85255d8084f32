package stageengine

import (
	"bytes"
	"image/png"
	"math"
	"path/filepath"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

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
		seen := func(method string) (latents []float32, file *stage.File) {
			t.Helper()
			recipe := s.recipe(model)
			options := stage.Options{"steps": stage.IntOption(4), "width": stage.IntOption(64), "height": stage.IntOption(48), "prompt": stage.TextOption("a house"), "sampler": stage.TextOption("euler")}
			if method != "" {
				options["preview_method"] = stage.TextOption(method)
			}
			values := stage.Values{}
			for _, turn := range s.turns(recipe, nil, nil)[:2] {
				on := s[turn.Kind]
				for _, component := range turn.Components() {
					if err := on.Load(t.Context(), stage.LoadRequest{Component: component}, nil); err != nil {
						t.Fatal(err)
					}
				}
				req := stage.WorkRequest{Turn: turn.Name, Components: turn.Components(), Options: options.Of(turn.Options), Values: values, Seed: 5}
				if turn.Kind == stage.KindDenoiser {
					req.PreviewEveryNSteps = 3
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
