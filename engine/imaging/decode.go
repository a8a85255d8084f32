package imaging

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	"image/png"
	"io"

	"golang.org/x/image/webp"
)

const (
	// MaxSide is the largest width and height Decode accepts, in pixels.
	MaxSide = 4096
	// MaxBytes is the largest file Decode accepts.
	MaxBytes = 64 << 20
)

// Decode reads a PNG, JPEG or WebP of at most MaxBytes and MaxSide x MaxSide into pixels
// [height, width, 3] in -1 to 1. Sizes are checked before anything is decoded. Transparency is
// dropped, as by PIL's convert("RGB"); so are animation, orientation and colour profiles.
// Errors are an Error.
func Decode(data []byte) (pixels []float32, height, width int, err error) {
	if len(data) > MaxBytes {
		return nil, 0, 0, &Error{Subject: "image", Expected: fmt.Sprintf("at most %d bytes", MaxBytes), Got: fmt.Sprintf("%d bytes", len(data))}
	}
	format, ok := sniff(data)
	if !ok {
		return nil, 0, 0, &Error{Subject: "image", Expected: "a PNG, JPEG or WebP", Got: fmt.Sprintf("data that begins with %.12q", data)}
	}
	config, err := readConfig(format, data)
	if err != nil {
		return nil, 0, 0, cannotDecode(format, err)
	}
	if config.Width < 1 || config.Height < 1 || config.Width > MaxSide || config.Height > MaxSide {
		return nil, 0, 0, &Error{Subject: format.String(), Expected: fmt.Sprintf("1 x 1 to %d x %d pixels", MaxSide, MaxSide), Got: fmt.Sprintf("%d x %d", config.Width, config.Height)}
	}
	img, err := readImage(format, data)
	if err != nil {
		return nil, 0, 0, cannotDecode(format, err)
	}
	pix, stride := colours(img)
	width, height = img.Bounds().Dx(), img.Bounds().Dy()
	return toFloats(pix, stride, height, width), height, width, nil
}

// sniff tells the format from the first bytes. A WebP whose header promises more bytes than there
// are is none, because its decoder would allocate them.
func sniff(data []byte) (Format, bool) {
	switch {
	case bytes.HasPrefix(data, []byte(pngSignature)):
		return PNG, true
	case bytes.HasPrefix(data, []byte("\xff\xd8\xff")):
		return JPEG, true
	case len(data) >= 12 && string(data[:4]) == "RIFF" && string(data[8:12]) == "WEBP":
		return WEBP, uint64(binary.LittleEndian.Uint32(data[4:]))+8 <= uint64(len(data))
	}
	return 0, false
}

func readConfig(f Format, data []byte) (image.Config, error) {
	switch f {
	case PNG:
		return png.DecodeConfig(bytes.NewReader(data))
	case JPEG:
		return jpeg.DecodeConfig(bytes.NewReader(data))
	}
	return webp.DecodeConfig(bytes.NewReader(data))
}

func readImage(f Format, data []byte) (image.Image, error) {
	switch f {
	case PNG:
		return png.Decode(bytes.NewReader(data))
	case JPEG:
		return jpeg.Decode(bytes.NewReader(data))
	}
	img, err := webp.Decode(bytes.NewReader(data))
	switch img := img.(type) { // lossy WebP has a range of its own, which image/color takes for JPEG's
	case *image.YCbCr:
		return fromVideoRange(img), err
	case *image.NYCbCrA:
		return fromVideoRange(&img.YCbCr), err
	}
	return img, err
}

// colours gives the rows of an image as RGBA with colours that transparency does not touch.
func colours(img image.Image) (pix []uint8, stride int) {
	switch img := img.(type) {
	case *image.NRGBA:
		return img.Pix, img.Stride
	case *image.NRGBA64:
		out := make([]uint8, len(img.Pix)/2)
		for i := range out {
			out[i] = img.Pix[2*i] // the high byte
		}
		return out, img.Stride / 2
	case *image.Paletted:
		opaque := *img
		opaque.Palette = make(color.Palette, len(img.Palette))
		for i, c := range img.Palette {
			n := color.NRGBAModel.Convert(c).(color.NRGBA)
			opaque.Palette[i] = color.RGBA{R: n.R, G: n.G, B: n.B, A: 0xff}
		}
		return drawn(&opaque)
	}
	return drawn(img)
}

func drawn(img image.Image) (pix []uint8, stride int) {
	out := image.NewRGBA(image.Rectangle{Max: img.Bounds().Size()})
	draw.Draw(out, out.Rect, img, img.Bounds().Min, draw.Src)
	return out.Pix, out.Stride
}

func cannotDecode(f Format, err error) error {
	got := err.Error()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		got = "data that ends too early"
	}
	return &Error{Subject: f.String(), Expected: "a readable image", Got: got, Err: err}
}
