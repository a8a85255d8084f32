package imaging

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	"image/png"
	"io"
	"slices"
	"strings"

	"golang.org/x/image/webp"

	"github.com/triptych-serving/triptych/internal/exif"
)

const (
	// MaxSide is the largest width and height Decode accepts, in pixels.
	MaxSide = 4096
	// MaxBytes is the largest file Decode accepts.
	MaxBytes = 64 << 20
)

// Pixels are the colours of an opaque image.
type Pixels struct {
	Width, Height int
	pix           []uint8 // rows of RGBA, the last of no meaning
	stride        int
}

// Decode reads a PNG, JPEG or WebP of at most MaxBytes and MaxSide x MaxSide. Sizes are checked before anything is decoded.
// Exif's orientation turns it, and transparency is dropped, as by PIL's exif_transpose and convert("RGB"); so are animation and
// colour profiles. A lossy WebP has the colours that PIL reads, and a JPEG but for the rounding of its inverse DCT; chroma
// that YCCK, or RGB, has subsampled is not interpolated.
// Errors are an Error.
func Decode(data []byte) (Pixels, error) {
	if len(data) > MaxBytes {
		return Pixels{}, &Error{Subject: "image", Expected: fmt.Sprintf("at most %d bytes", MaxBytes), Got: fmt.Sprintf("%d bytes", len(data))}
	}
	format, ok := sniff(data)
	switch {
	case format == WEBP && !ok:
		return Pixels{}, cannotDecode(WEBP, io.ErrUnexpectedEOF)
	case !ok:
		return Pixels{}, &Error{Subject: "image", Expected: "a PNG, JPEG or WebP", Got: fmt.Sprintf("data that begins with %.12q", data)}
	}
	config, err := readConfig(format, data)
	if err != nil {
		return Pixels{}, cannotDecode(format, err)
	}
	if config.Width < 1 || config.Height < 1 || config.Width > MaxSide || config.Height > MaxSide {
		return Pixels{}, &Error{Subject: format.String(), Expected: fmt.Sprintf("1 x 1 to %d x %d pixels", MaxSide, MaxSide), Got: fmt.Sprintf("%d x %d", config.Width, config.Height)}
	}
	img, err := readImage(format, data)
	if err != nil {
		return Pixels{}, cannotDecode(format, err)
	}
	p := Pixels{Width: img.Bounds().Dx(), Height: img.Bounds().Dy()}
	p.pix, p.stride = colours(img)
	return p.upright(exif.Orientation(data)), nil
}

// upright is an image of an orientation as Exif counts them, turned as it is to be seen.
func (p Pixels) upright(orientation int) Pixels {
	if orientation == exif.Upright {
		return p
	}
	w, h := p.Width-1, p.Height-1
	from := [...]func(x, y int) (int, int){
		func(x, y int) (int, int) { return w - x, y },
		func(x, y int) (int, int) { return w - x, h - y },
		func(x, y int) (int, int) { return x, h - y },
		func(x, y int) (int, int) { return y, x },
		func(x, y int) (int, int) { return y, h - x },
		func(x, y int) (int, int) { return w - y, h - x },
		func(x, y int) (int, int) { return w - y, x },
	}[orientation-2]
	out := Pixels{Width: p.Width, Height: p.Height}
	if orientation >= 5 {
		out.Width, out.Height = p.Height, p.Width
	}
	out.stride = 4 * out.Width
	out.pix = make([]uint8, 0, out.stride*out.Height)
	for y := range out.Height {
		for x := range out.Width {
			sx, sy := from(x, y)
			out.pix = append(out.pix, p.pix[sy*p.stride+4*sx:][:4]...)
		}
	}
	return out
}

// sniff tells the format from the first bytes. A WebP whose header promises more bytes than there
// are is not ok, because its decoder would allocate them.
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
		img, err := jpeg.Decode(bytes.NewReader(data))
		switch img := img.(type) {
		case *image.YCbCr:
			return fromJPEG(img), err
		case *image.CMYK:
			return fromCMYK(img), err
		}
		return img, err
	}
	img, err := webp.Decode(bytes.NewReader(data))
	switch img := img.(type) {
	case *image.YCbCr:
		return fromWebP(img), err
	case *image.NYCbCrA:
		return fromWebP(&img.YCbCr), err
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

// cutOff are the words in which decoders say that pixels are missing, without an error of their own for it.
var cutOff = []string{io.EOF.Error(), "short Huffman data", "not enough pixel data"}

func cannotDecode(f Format, err error) error {
	got := err.Error()
	if slices.ContainsFunc(cutOff, func(words string) bool { return strings.HasSuffix(got, words) }) {
		got = "data that ends too early"
	}
	return &Error{Subject: f.String(), Expected: "a readable image", Got: got, Err: err}
}
