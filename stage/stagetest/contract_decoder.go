package stagetest

import (
	"bytes"
	"context"
	"image"
	_ "image/jpeg" // image.DecodeConfig reads what decoders make
	_ "image/png"  // likewise
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/stage"
)

// DecoderContract checks every sentence of stage.Decoder. latent is a valid one for the subject's
// model; formats are those that the stage can make, PNG among them.
func DecoderContract(t *testing.T, subject Subject[stage.Decoder], latent stage.Latent, formats ...stage.ImageFormat) {
	c := decoderContract{latent: latent, formats: formats, contract: contract[stage.Decoder]{
		Subject: subject, kind: stage.KindDecoder, op: OpDecode,
		plan: stage.PlanRequest{Model: subject.Model, Batch: 1, LatentHeight: latent.Shape[2], LatentWidth: latent.Shape[3]},
		work: func(ctx context.Context, s stage.Decoder, model string) (any, error) {
			return s.Decode(ctx, stage.DecodeRequest{Model: model, Latent: latent})
		},
	}}
	c.run(t)
	t.Run("Formats", c.testFormats)
	t.Run("Text", c.testText)
	t.Run("Invalid", c.testInvalid)
	t.Run("EncodeImage", c.testEncodeImage)
	t.Run("EncodeImageInvalid", c.testEncodeImageInvalid)
}

type decoderContract struct {
	contract[stage.Decoder]
	latent  stage.Latent
	formats []stage.ImageFormat
}

func (c decoderContract) testFormats(t *testing.T) {
	s, _ := c.loaded(t)
	scale := find(t, s, c.Model).SpatialFactor
	width, height := c.latent.Shape[3]*scale, c.latent.Shape[2]*scale
	for _, format := range c.formats {
		for _, quality := range []int{0, 1, 100} {
			got, err := s.Decode(patient(t), stage.DecodeRequest{Model: c.Model, Latent: c.latent, Format: format, Quality: quality})
			if err != nil {
				t.Fatalf("Decode to %v of quality %d: %v", format, quality, err)
			}
			if got.Format != format || got.WidthPx != width || got.HeightPx != height {
				t.Errorf("Decode gave a %v of %d x %d pixels, expected a %v of %d x %d", got.Format, got.WidthPx, got.HeightPx, format, width, height)
			}
			if format == stage.WebP {
				if !bytes.HasPrefix(got.Data, []byte("RIFF")) || !bytes.Contains(got.Data[:min(len(got.Data), 16)], []byte("WEBP")) {
					t.Errorf("Decode gave no WebP file")
				}
				continue
			}
			config, name, err := image.DecodeConfig(bytes.NewReader(got.Data))
			if err != nil || name != format.String() || config.Width != width || config.Height != height {
				t.Errorf("the file is a %q of %d x %d pixels (%v), expected a %v of %d x %d", name, config.Width, config.Height, err, format, width, height)
			}
		}
	}
}

func (c decoderContract) testText(t *testing.T) {
	s, _ := c.loaded(t)
	text := []stage.ImageText{{Key: "parameters", Value: "a small red boat"}, {Key: "Software", Value: "triptych"}}
	got, err := s.Decode(patient(t), stage.DecodeRequest{Model: c.Model, Latent: c.latent, Text: text})
	if err != nil {
		t.Fatalf("Decode: %v", err)
	}
	for _, want := range text {
		if !bytes.Contains(got.Data, []byte(want.Key)) || !bytes.Contains(got.Data, []byte(want.Value)) {
			t.Errorf("the PNG file lacks %q = %q", want.Key, want.Value)
		}
	}
	if _, _, err := image.Decode(bytes.NewReader(got.Data)); err != nil {
		t.Errorf("the PNG file with text: %v", err)
	}
}

func (c decoderContract) testInvalid(t *testing.T) {
	s, _ := c.loaded(t)
	shape := c.latent.Shape
	zeros := func(shape ...int) stage.Latent {
		n, _ := tensor.Shape(shape).Elems()
		return stage.Latent{Tensor: tensor.FromF32(make([]float32, n), shape...)}
	}
	for name, change := range map[string]func(*stage.DecodeRequest){
		"format":      func(r *stage.DecodeRequest) { r.Format = 99 },
		"low":         func(r *stage.DecodeRequest) { r.Quality = -1 },
		"high":        func(r *stage.DecodeRequest) { r.Quality = 101 },
		"no_keyword":  func(r *stage.DecodeRequest) { r.Text = []stage.ImageText{{Value: "v"}} },
		"keyword":     func(r *stage.DecodeRequest) { r.Text = []stage.ImageText{{Key: strings.Repeat("k", 80)}} },
		"no_latent":   func(r *stage.DecodeRequest) { r.Latent = stage.Latent{} },
		"flat":        func(r *stage.DecodeRequest) { r.Latent = zeros(shape[1:]...) },
		"two":         func(r *stage.DecodeRequest) { r.Latent = zeros(2, shape[1], shape[2], shape[3]) },
		"channels":    func(r *stage.DecodeRequest) { r.Latent = zeros(1, shape[1]+1, shape[2], shape[3]) },
		"empty":       func(r *stage.DecodeRequest) { r.Latent = zeros(1, shape[1], 0, shape[3]) },
		"cut_off":     func(r *stage.DecodeRequest) { r.Latent.Data = r.Latent.Data[:len(r.Latent.Data)-1] },
		"other_dtype": func(r *stage.DecodeRequest) { r.Latent.DType = tensor.I32 },
	} {
		t.Run(name, func(t *testing.T) {
			req := stage.DecodeRequest{Model: c.Model, Latent: c.latent}
			change(&req)
			_, err := s.Decode(patient(t), req)
			want(t, "Decode", err, stage.InvalidField, stage.TensorInvalid, stage.SizeUnsupported)
		})
	}
}

func (c decoderContract) testEncodeImage(t *testing.T) {
	s, _ := c.loaded(t)
	before := info(t, s)
	for _, format := range c.formats {
		picture, err := s.Decode(patient(t), stage.DecodeRequest{Model: c.Model, Latent: c.latent, Format: format})
		if err != nil {
			t.Fatalf("Decode: %v", err)
		}
		req := stage.EncodeImageRequest{Model: c.Model, Data: picture.Data}
		latent, err := s.EncodeImage(patient(t), req)
		if format == stage.WebP && err != nil { // making a format does not promise to read it
			want(t, "EncodeImage of WebP", err, stage.InvalidField)
			continue
		}
		if err != nil {
			t.Fatalf("EncodeImage of %v: %v", format, err)
		}
		wantTensor(t, "the latent", latent.Tensor, c.latent.Shape...)
		again, err := s.EncodeImage(patient(t), req)
		if err != nil {
			t.Fatalf("EncodeImage again: %v", err)
		}
		same(t, "latents of the same image", latent, again)
	}
	if after := info(t, s); after.UsedBytes != before.UsedBytes || len(after.Resident) != len(before.Resident) {
		t.Errorf("EncodeImage left %d bytes behind", after.UsedBytes-before.UsedBytes)
	}
}

func (c decoderContract) testEncodeImageInvalid(t *testing.T) {
	s, _ := c.loaded(t)
	for _, data := range []string{"", "not an image", "\x89PNG\r\n\x1a\n"} {
		_, err := s.EncodeImage(patient(t), stage.EncodeImageRequest{Model: c.Model, Data: []byte(data)})
		want(t, "EncodeImage", err, stage.InvalidField, stage.SizeUnsupported)
	}
	picture, err := s.Decode(patient(t), stage.DecodeRequest{Model: c.Model, Latent: c.latent})
	if err != nil {
		t.Fatalf("Decode: %v", err)
	}
	_, err = s.EncodeImage(patient(t), stage.EncodeImageRequest{Model: nobody, Data: picture.Data})
	c.wantNotFound(t, "EncodeImage", err)
}
