package stageengine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/png"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/triptych-serving/triptych/engine/imaging"
	"github.com/triptych-serving/triptych/stage"
)

// upscalers makes a folder with an upscaler for each file of safetensors, by name.
func upscalers(t *testing.T, files map[string]string) string { return adapters(t, "Upscaler", files) }

// adapters makes a folder with a model of a class for each file of safetensors, by name.
func adapters(t *testing.T, class string, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, file := range files {
		data, err := os.ReadFile(file)
		if err == nil {
			err = errors.Join(os.Mkdir(filepath.Join(dir, name), 0o700),
				os.WriteFile(filepath.Join(dir, name, "model_index.json"), []byte(`{"_class_name": "`+class+`"}`), 0o600),
				os.WriteFile(filepath.Join(dir, name, "diffusion_pytorch_model.safetensors"), data, 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// upscaled asks a decoder for a larger picture.
func upscaled(ctx context.Context, s *Stage, model string, picture []byte, o stage.Options, told stage.Observer) (*stage.File, error) {
	config, err := png.DecodeConfig(bytes.NewReader(picture))
	if err != nil {
		return nil, err
	}
	options := stage.Options{"width": stage.IntOption(int64(config.Width)), "height": stage.IntOption(int64(config.Height)), "format": stage.TextOption("png")}
	for name, v := range o {
		options[name] = v
	}
	if _, err := s.Plan(ctx, stage.PlanRequest{Turn: "upscale", Components: []string{model + "/upscaler"}, Options: shapeOnly(options)}); err != nil {
		return nil, err
	}
	out, err := s.Work(ctx, stage.WorkRequest{
		Turn: "upscale", Components: []string{model + "/upscaler"}, Options: options,
		Values: stage.Values{{Name: "init_image", File: &stage.File{Media: "image/png", Data: picture}}},
	}, told)
	if err != nil {
		return nil, err
	}
	return out.Values[0].File, nil
}

func shapeOnly(o stage.Options) stage.Options {
	return o.Of([]string{"width", "height", "upscale", "upscale_tile", "upscale_overlap", "upscale_padding"})
}

// TestUpscale: pictures are the reference's, whole and by tiles, of the networks that safetensors are at hand of.
func TestUpscale(t *testing.T) {
	esrgan := filepath.Join(sdxlGoldens, "esrgan")
	_, _, s := open(t, upscalers(t, map[string]string{
		"old": filepath.Join(esrgan, "x4-realsr.safetensors"), "compact": filepath.Join(formatGoldens, "upscalers/compact-4x.safetensors"),
		"unshuffle": filepath.Join(formatGoldens, "upscalers/2x-unshuffle.safetensors"),
	}))
	for _, c := range []struct {
		model, picture, want  string
		tile, overlap, padded int64
		progress              int
	}{
		{"old", sdxlGoldens + "/inputs/small-22x18.png", esrgan + "/x4.png", 0, 0, 0, 1},
		{"compact", formatGoldens + "/inputs/small-12x8.png", formatGoldens + "/upscalers/compact-x4.png", 0, 0, 0, 1},
		{"unshuffle", formatGoldens + "/inputs/small-12x8.png", formatGoldens + "/upscalers/x2-unshuffle.png", 0, 0, 0, 1},
	} {
		if err := s.Load(t.Context(), stage.LoadRequest{Component: c.model + "/upscaler"}, nil); err != nil {
			t.Fatal(err)
		}
		picture, err := os.ReadFile(c.picture)
		if err != nil {
			t.Fatal(err)
		}
		var told []string
		got, err := upscaled(t.Context(), s, c.model, picture, nil, stage.Observer{
			Ready: func(n int) { told = append(told, fmt.Sprint("ready ", n)) }, Progress: func(done, all int) { told = append(told, fmt.Sprintf("%d of %d", done, all)) },
		})
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(c.want)
		if err != nil {
			t.Fatal(err)
		}
		samePicture(t, c.model, got.Data, want, 1)
		if !slices.Equal(told, []string{"ready 1", "1 of 1"}) {
			t.Errorf("%s: %v", c.model, told)
		}
	}
}

// samePicture compares two PNGs of one size, whose values may be so far apart.
func samePicture(t *testing.T, what string, got, want []byte, tolerance int) {
	t.Helper()
	a, errA := imaging.Decode(got)
	b, errB := imaging.Decode(want)
	if errA != nil || errB != nil || a.Width != b.Width || a.Height != b.Height {
		t.Fatalf("%s: %dx%d, want %dx%d (%v, %v)", what, a.Width, a.Height, b.Width, b.Height, errA, errB)
	}
	worst := 0
	x, y := a.Image().Pix, b.Image().Pix
	for i := range x {
		worst = max(worst, int(x[i])-int(y[i]), int(y[i])-int(x[i]))
	}
	if worst > tolerance {
		t.Errorf("%s: off by %d, allowed %d", what, worst, tolerance)
	}
}

// picture is a PNG with shapes, edges and noise.
func picture(t *testing.T, w, h int) []byte {
	t.Helper()
	r := rand.New(rand.NewPCG(5, 6))
	pixels := make([]float32, 0, 3*w*h)
	for y := range h {
		for x := range w {
			v := float32(x+y)/float32(w+h) - 0.5
			if (x/9+y/7)%3 == 0 {
				v = -v
			}
			pixels = append(pixels, v+0.1*r.Float32(), v*v, 0.5-v)
		}
	}
	data, err := imaging.Encode(imaging.FromFloats(pixels, h, w), imaging.Options{Format: imaging.PNG})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestUpscaleByTiles: no seam is more than two grey levels from the picture that is enlarged whole; every tile is progress; sizes
// are those asked for; what cannot be is refused by the option.
func TestUpscaleByTiles(t *testing.T) {
	_, _, s := open(t, upscalers(t, map[string]string{"four": filepath.Join(sdxlGoldens, "esrgan/x4-realsr.safetensors"), "two": filepath.Join(formatGoldens, "upscalers/2x-unshuffle.safetensors")}))
	for _, model := range []string{"four", "two"} {
		if err := s.Load(t.Context(), stage.LoadRequest{Component: model + "/upscaler"}, nil); err != nil {
			t.Fatal(err)
		}
	}
	in := picture(t, 153, 119)
	for _, model := range []string{"four", "two"} {
		whole, err := upscaled(t.Context(), s, model, in, nil, stage.Observer{})
		if err != nil {
			t.Fatal(err)
		}
		for _, tile := range []int64{64, 100} {
			tiles := 0
			got, err := upscaled(t.Context(), s, model, in, stage.Options{"upscale_tile": stage.IntOption(tile)}, stage.Observer{Progress: func(done, _ int) { tiles = done }})
			if err != nil {
				t.Fatal(err)
			}
			samePicture(t, fmt.Sprintf("%s by tiles of %d", model, tile), got.Data, whole.Data, 2)
			if tiles < 4 {
				t.Errorf("%d tiles", tiles)
			}
		}
	}
	for factor, want := range map[float64][2]int{2: {306, 238}, 3: {459, 357}, 0.5: {77, 60}, 5: {765, 595}} {
		got, err := upscaled(t.Context(), s, "four", in, stage.Options{"upscale": stage.FloatOption(factor)}, stage.Observer{})
		if err != nil || got.WidthPx != want[0] || got.HeightPx != want[1] {
			t.Errorf("%g times: %dx%d, %v, want %v", factor, got.WidthPx, got.HeightPx, err, want)
		}
	}
	for name, o := range map[string]stage.Options{
		"upscale_tile": {"upscale_tile": stage.IntOption(8)}, "upscale_overlap": {"upscale_tile": stage.IntOption(32), "upscale_overlap": stage.IntOption(17)},
		"upscale": {"width": stage.IntOption(4096), "height": stage.IntOption(4096)},
	} {
		_, err := upscaled(t.Context(), s, "four", in, o, stage.Observer{})
		var told *stage.Error
		if !errors.As(err, &told) || told.Metadata["field"] != name {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := upscaled(ctx, s, "four", in, stage.Options{"upscale_tile": stage.IntOption(32)}, stage.Observer{Progress: func(int, int) { cancel() }}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled behind the first tile: %v", err)
	}
}
