package stagetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"

	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/stage"
)

// Decoder is a fake decoder: a cell of the latent becomes a block of pixels. It makes PNG and JPEG
// files.
type Decoder struct{ *residency }

var _ stage.Decoder = (*Decoder)(nil)

// NewDecoder makes a fake with nothing resident; script may be nil.
func NewDecoder(script *Script) *Decoder {
	return &Decoder{newResidency(stage.KindDecoder, script, stage.Component{LatentChannels: channels, SpatialFactor: factor})}
}

// Plan counts pixels.
func (d *Decoder) Plan(ctx context.Context, req stage.PlanRequest) (stage.Footprint, error) {
	f, err := d.plan(ctx, req, pixelBytes(req.LatentHeight, req.LatentWidth))
	if err == nil {
		err = checkSize(req.LatentHeight, req.LatentWidth, 1)
	}
	if err != nil {
		return stage.Footprint{}, err
	}
	return f, nil
}

func pixelBytes(height, width int) int64 { return int64(4 * factor * factor * height * width) }

// Decode draws.
func (d *Decoder) Decode(ctx context.Context, req stage.DecodeRequest) (stage.Image, error) {
	values, err := req.Latent.Float32s()
	shape := req.Latent.Shape
	if err != nil || len(shape) != 4 || shape[0] != 1 || shape[1] != channels {
		return stage.Image{}, stage.Errorf(stage.TensorInvalid, "latents: expected [1, %d, height, width], got %v", channels, shape)
	}
	height, width := shape[2], shape[3]
	if err := checkSize(height, width, 1); err != nil {
		return stage.Image{}, err
	}
	if req.Quality < 0 || req.Quality > 100 {
		return stage.Image{}, stage.Invalid(stage.InvalidField, "quality", req.Quality, "0 to 100")
	}
	for i, t := range req.Text {
		if len(t.Key) < 1 || len(t.Key) > 79 {
			return stage.Image{}, stage.Invalid(stage.InvalidField, fmt.Sprintf("text[%d].key", i), t.Key, "1 to 79 characters")
		}
	}
	if req.Format != stage.PNG && req.Format != stage.JPEG {
		return stage.Image{}, stage.Invalid(stage.InvalidField, "format", req.Format, "one of png, jpeg")
	}
	end, err := d.begin(ctx, req.Model, pixelBytes(height, width))
	if err != nil {
		return stage.Image{}, err
	}
	defer end()
	img := image.NewRGBA(image.Rect(0, 0, width*factor, height*factor))
	for y := range height {
		if err := d.script.at(ctx, OpDecode, y+1); err != nil {
			return stage.Image{}, err
		}
		for x := range width {
			var c [3]uint8
			for k := range c {
				c[k] = uint8(127.5 + 127.5*math.Tanh(float64(values[(k*height+y)*width+x])))
			}
			for p := range factor * factor {
				img.SetRGBA(x*factor+p%factor, y*factor+p/factor, color.RGBA{c[0], c[1], c[2], 255})
			}
		}
	}
	data, err := file(img, req)
	return stage.Image{Format: req.Format, WidthPx: width * factor, HeightPx: height * factor, Data: data}, err
}

func file(img image.Image, req stage.DecodeRequest) ([]byte, error) {
	var b bytes.Buffer
	if req.Format == stage.JPEG {
		quality := req.Quality
		if quality == 0 {
			quality = 90
		}
		err := jpeg.Encode(&b, img, &jpeg.Options{Quality: quality})
		return b.Bytes(), err
	}
	err := png.Encode(&b, img)
	return withText(b.Bytes(), req.Text), err
}

// withText puts tEXt chunks behind the header of a PNG file.
func withText(data []byte, text []stage.ImageText) []byte {
	const header = 8 + 4 + 4 + 13 + 4
	out := bytes.Clone(data[:header])
	for _, t := range text {
		body := []byte("tEXt" + t.Key + "\x00" + t.Value)
		out = binary.BigEndian.AppendUint32(out, uint32(len(body)-4))
		out = append(out, body...)
		out = binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(body))
	}
	return append(out, data[header:]...)
}

// EncodeImage takes the first pixel of every block. It needs the decoder resident and takes as much
// again for the time of the call.
func (d *Decoder) EncodeImage(ctx context.Context, req stage.EncodeImageRequest) (stage.Latent, error) {
	c, err := d.component(req.Model)
	if err != nil {
		return stage.Latent{}, err
	}
	img, _, err := image.Decode(bytes.NewReader(req.Data))
	if err != nil {
		return stage.Latent{}, stage.Invalid(stage.InvalidField, "data", fmt.Sprintf("%d bytes", len(req.Data)), "an image file")
	}
	height, width := img.Bounds().Dy()/factor, img.Bounds().Dx()/factor
	if err := checkSize(height, width, 1); err != nil {
		return stage.Latent{}, err
	}
	end, err := d.begin(ctx, req.Model, c.WeightsBytes)
	if err != nil {
		return stage.Latent{}, err
	}
	defer end()
	if err := d.script.at(ctx, OpEncodeImage, 1); err != nil {
		return stage.Latent{}, err
	}
	values := make([]float32, 0, channels*height*width)
	for k := range channels {
		for y := range height {
			for x := range width {
				r, g, b, a := img.At(x*factor, y*factor).RGBA()
				values = append(values, float32([...]uint32{r, g, b, a}[k])/65535*2-1)
			}
		}
	}
	return stage.Latent{Tensor: tensor.FromF32(values, 1, channels, height, width)}, nil
}
