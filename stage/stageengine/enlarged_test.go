package stageengine

import (
	"bytes"
	"errors"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/imaging"
	"github.com/triptych-serving/triptych/stage"
)

// TestEnlargedBehindDecoding: a picture is enlarged by an upscaler beside the decoder, or by Lanczos' filter, as the picture file is; the
// second pass begins with what its upscaler makes; two upscalers for one picture are refused.
func TestEnlargedBehindDecoding(t *testing.T) {
	folder := upscalers(t, map[string]string{"four": filepath.Join(sdxlGoldens, "esrgan/x4-realsr.safetensors"), "two": filepath.Join(formatGoldens, "upscalers/2x-unshuffle.safetensors")})
	s := openStages(t, filepath.Join(sdxlGoldens, pictureModel), folder)
	c := hiresCases(t)[0]
	recipe := s.recipe(c.Model)
	options := c.goldenCase.options(0)
	delete(options, "strength")
	made := func(more stage.Options) []byte {
		t.Helper()
		o := maps.Clone(options)
		maps.Copy(o, more)
		values, err := s.draw(t, recipe, o, nil, c.Seed)
		if err != nil {
			t.Fatal(err)
		}
		v, _ := values.Get("image")
		return v.File.Data
	}
	plain := made(nil)
	_, err := upscaled(t.Context(), s[stage.KindDecoder], "four", plain, nil, stage.Observer{})
	if err == nil || !strings.Contains(err.Error(), "load it first") {
		t.Fatalf("of what is not loaded: %v", err)
	}
	if err := s[stage.KindDecoder].Load(t.Context(), stage.LoadRequest{Component: "four/upscaler"}, nil); err != nil {
		t.Fatal(err)
	}
	four, err := upscaled(t.Context(), s[stage.KindDecoder], "four", plain, stage.Options{"upscale": stage.FloatOption(3)}, stage.Observer{})
	if err != nil {
		t.Fatal(err)
	}
	upscaler := stage.Options{"upscaler": stage.TextOption("four"), "upscale": stage.FloatOption(3)}
	if got := made(upscaler); !bytes.Equal(got, four.Data) {
		t.Error("a picture that is enlarged behind decoding is not what the upscaler makes of its file")
	}
	p, err := imaging.Decode(plain)
	if err != nil {
		t.Fatal(err)
	}
	want, err := imaging.Encode(p.Resize(2*p.Width, 2*p.Height).Image(), imaging.Options{Format: imaging.PNG})
	if err != nil {
		t.Fatal(err)
	}
	if got := made(stage.Options{"upscale": stage.FloatOption(2)}); !bytes.Equal(got, want) {
		t.Error("a picture that is enlarged without an upscaler is not Lanczos'")
	}
	both := maps.Clone(options)
	both["upscaler"] = stage.TextOption("four,two")
	_, err = s.draw(t, recipe, both, nil, c.Seed)
	var told *stage.Error
	if !errors.As(err, &told) || told.Metadata["field"] != "upscaler" {
		t.Errorf("two upscalers: %v", err)
	}

	recipe = s.hires(t, c.Model)
	options = c.options()
	first := made(nil)
	second := made(stage.Options{"hires_upscaler": stage.TextOption("two")})
	if bytes.Equal(first, second) {
		t.Error("the upscaler of the second pass changes nothing")
	}
	if a, err := imaging.Decode(second); err != nil || a.Width != 2*p.Width || a.Height != 2*p.Height {
		t.Errorf("%dx%d, %v", a.Width, a.Height, err)
	}
}
