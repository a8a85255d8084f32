package imaging

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"slices"
	"strings"
	"testing"
)

func TestDecodeKindsOfPNG(t *testing.T) {
	colour := color.NRGBA{R: 255, G: 128, B: 1, A: 255}
	fill := func(img interface {
		image.Image
		Set(x, y int, c color.Color)
	}, c color.Color,
	) image.Image {
		for y := range 2 {
			for x := range 3 {
				img.Set(x, y, c)
			}
		}
		return img
	}
	r := image.Rect(0, 0, 3, 2)
	clear := color.NRGBA{R: 255, G: 128, B: 1, A: 0}
	clear16 := color.NRGBA64{R: 0xffff, G: 0x80ff, B: 0x0100, A: 0}
	for name, c := range map[string]struct {
		img  image.Image
		want [3]uint8
	}{
		"RGB":                    {fill(image.NewRGBA(r), colour), [3]uint8{255, 128, 1}},
		"RGBA, half transparent": {fill(image.NewNRGBA(r), color.NRGBA{R: 255, G: 128, B: 1, A: 100}), [3]uint8{255, 128, 1}},
		"RGBA, transparent":      {fill(image.NewNRGBA(r), clear), [3]uint8{255, 128, 1}},
		"16 bits":                {fill(image.NewRGBA64(r), color.RGBA64{R: 0xffff, G: 0x80ff, B: 0x0100, A: 0xffff}), [3]uint8{255, 128, 1}},
		"16 bits, transparent":   {fill(image.NewNRGBA64(r), clear16), [3]uint8{255, 128, 1}},
		"grey":                   {fill(image.NewGray(r), color.Gray{Y: 77}), [3]uint8{77, 77, 77}},
		"grey, 16 bits":          {fill(image.NewGray16(r), color.Gray16{Y: 0x4dff}), [3]uint8{77, 77, 77}},
		"palette":                {fill(image.NewPaletted(r, color.Palette{color.Black, colour}), colour), [3]uint8{255, 128, 1}},
		"palette, transparent":   {fill(image.NewPaletted(r, color.Palette{clear, color.Black}), clear), [3]uint8{255, 128, 1}},
	} {
		var data bytes.Buffer
		if err := png.Encode(&data, c.img); err != nil {
			t.Fatal(err)
		}
		pixels, height, width, err := floatsOf(data.Bytes())
		if err != nil || height != 2 || width != 3 {
			t.Errorf("%s: %d x %d, %v", name, height, width, err)
			continue
		}
		for i, got := range pixels {
			if want := 2*float32(c.want[i%3])/255 - 1; got < want-1e-6 || got > want+1e-6 {
				t.Errorf("%s: value %d is %g, want %g", name, i, got, want)
				break
			}
		}
	}
}

func TestDecodeGreyJPEG(t *testing.T) {
	img := image.NewGray(image.Rect(0, 0, 9, 9))
	for i := range img.Pix {
		img.Pix[i] = 200
	}
	var data bytes.Buffer
	if err := jpeg.Encode(&data, img, nil); err != nil {
		t.Fatal(err)
	}
	pixels, _, _, err := floatsOf(data.Bytes())
	if err != nil || meanError(pixels, slices.Repeat([]float32{200.0/127.5 - 1}, 3*81)) > 1 {
		t.Errorf("%v, %v", pixels[:3], err)
	}
}

// headerPNG is a PNG of a size that its data does not have.
func headerPNG(width, height uint32) []byte {
	header := binary.BigEndian.AppendUint32(nil, width)
	header = append(binary.BigEndian.AppendUint32(header, height), 8, 2, 0, 0, 0)
	return appendChunk([]byte(pngSignature), "IHDR", header)
}

// riff is a WebP of chunks, each with its four letters first.
func riff(claimed int, chunks ...string) []byte {
	var body []byte
	for _, c := range chunks {
		body = append(binary.LittleEndian.AppendUint32(append(body, c[:4]...), uint32(len(c)-4)), c[4:]...)
		if len(c)%2 == 1 {
			body = append(body, 0)
		}
	}
	if claimed < 0 {
		claimed = 4 + len(body)
	}
	return append(append(binary.LittleEndian.AppendUint32([]byte("RIFF"), uint32(claimed)), "WEBP"...), body...)
}

func TestDecodeRefuses(t *testing.T) {
	img := FromFloats(smooth(64, 64), 64, 64)
	cut := func(f Format) []byte {
		data, err := Encode(img, Options{Format: f})
		if err != nil {
			t.Fatal(err)
		}
		return data[:len(data)/2]
	}
	wideJPEG, err := Encode(FromFloats(make([]float32, 3*4097), 1, 4097), Options{Format: JPEG})
	if err != nil {
		t.Fatal(err)
	}
	const huge = "VP8 \x30\x00\x00\x9d\x01\x2a\xff\x3f\xff\x3f" // a key frame of 16383 x 16383
	for name, c := range map[string]struct {
		data []byte
		text string
	}{
		"empty":                     {nil, "a PNG, JPEG or WebP"},
		"a GIF":                     {[]byte("GIF89a\x01\x00\x01\x00"), "a PNG, JPEG or WebP"},
		"above 64 MiB":              {make([]byte, MaxBytes+1), "at most 67108864 bytes"},
		"PNG signature only":        {[]byte(pngSignature), "ends too early"},
		"PNG of 4097 x 1":           {headerPNG(4097, 1), "4096 x 4096 pixels, got 4097 x 1"},
		"PNG of 2^31-1 x 2^31-1":    {headerPNG(1<<31-1, 1<<31-1), "png"},
		"PNG of 60000 x 60000":      {headerPNG(60000, 60000), "got 60000 x 60000"},
		"PNG of 0 x 0":              {headerPNG(0, 0), "png"},
		"PNG without data":          {headerPNG(4, 4), "ends too early"},
		"PNG cut":                   {cut(PNG), "png: expected a readable image"},
		"JPEG cut":                  {cut(JPEG), "ends too early"},
		"JPEG of 4097 x 1":          {wideJPEG, "got 4097 x 1"},
		"JPEG start only":           {[]byte("\xff\xd8\xff"), "ends too early"},
		"WebP cut":                  {cut(WEBP), "webp: expected a readable image, got data that ends too early"},
		"WebP that claims 4 GB":     {riff(0xfffffff0, "VP8 \x30\x00\x00\x9d\x01\x2a\x01\x00\x01\x00"), "webp: expected a readable image, got data that ends too early"},
		"WebP of 16383 x 16383":     {riff(-1, huge), "got 16383 x 16383"},
		"WebP frame above canvas":   {riff(-1, "VP8X\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", huge), "webp: expected a readable image"},
		"WebP canvas of 2^24 x 1":   {riff(-1, "VP8X\x00\x00\x00\x00\xff\xff\xff\x00\x00\x00"), "got 16777216 x 1"},
		"WebP without a frame":      {riff(-1), "webp: expected a readable image"},
		"lossless WebP cut":         {riff(-1, "VP8L\x2f\x00\x00\x00\x00"), "webp: expected a readable image"},
		"lossless WebP of 16384^2":  {riff(-1, "VP8L\x2f\xff\xff\xff\x0f"), "got 16384 x 16384"},
		"lossless frame off canvas": {riff(-1, "VP8X\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "VP8L\x2f\xff\xff\xff\x0f"), "webp: expected a readable image"},
	} {
		pixels, _, _, err := floatsOf(c.data)
		var e *Error
		if pixels != nil || !errors.As(err, &e) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want an Error with %q", name, err, c.text)
		}
	}
}

// FuzzDecode: whatever the bytes, an image within the limits or an Error.
func FuzzDecode(f *testing.F) {
	img := FromFloats(smooth(9, 7), 9, 7)
	for _, format := range []Format{PNG, JPEG, WEBP} {
		data, err := Encode(img, Options{Format: format, Text: []Text{{"parameters", "日本"}}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add(riff(-1, "VP8L\x2f\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Add(riff(-1, "VP8X\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00", "ALPH\x00\xff", "VP8 \x30\x00\x00\x9d\x01\x2a\x01\x00\x01\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		data = bytes.Clone(data)
		fixChecksums(data) // so that damage gets past them
		pixels, height, width, err := floatsOf(data)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || pixels != nil {
				t.Errorf("%T %v", err, err)
			}
			return
		}
		if height < 1 || width < 1 || height > MaxSide || width > MaxSide || len(pixels) != 3*height*width {
			t.Fatalf("%d values for %d x %d", len(pixels), height, width)
		}
		for _, x := range pixels {
			if !(x >= -1 && x <= 1) {
				t.Fatalf("value %g", x)
			}
		}
		if _, err := ReadText(data); err != nil && !errors.As(err, new(*Error)) {
			t.Errorf("%T %v", err, err)
		}
	})
}

// fixChecksums makes the chunks of a PNG valid again.
func fixChecksums(data []byte) {
	if !bytes.HasPrefix(data, []byte(pngSignature)) {
		return
	}
	for rest := data[len(pngSignature):]; len(rest) >= chunkOverhead; {
		n := int64(binary.BigEndian.Uint32(rest))
		if n > int64(len(rest)-chunkOverhead) {
			return
		}
		binary.BigEndian.PutUint32(rest[8+n:], crc32.ChecksumIEEE(rest[4:8+n]))
		rest = rest[n+chunkOverhead:]
	}
}

// floatsOf are the values of an image file.
func floatsOf(data []byte) (pixels []float32, height, width int, err error) {
	p, err := Decode(data)
	if err != nil {
		return nil, 0, 0, err
	}
	return p.Floats(), p.Height, p.Width, nil
}

// TestDecodeUpright: Exif's orientation turns a picture as PIL's exif_transpose does, in every format that carries it.
func TestDecodeUpright(t *testing.T) {
	stored := image.NewNRGBA(image.Rect(0, 0, 3, 2))
	for i := range 6 {
		stored.SetNRGBA(i%3, i/3, color.NRGBA{R: uint8(1 + i), A: 255})
	}
	var data bytes.Buffer
	if err := png.Encode(&data, stored); err != nil {
		t.Fatal(err)
	}
	for orientation, want := range map[uint16][][]uint8{
		0: {{1, 2, 3}, {4, 5, 6}}, 1: {{1, 2, 3}, {4, 5, 6}}, 2: {{3, 2, 1}, {6, 5, 4}}, 3: {{6, 5, 4}, {3, 2, 1}}, 4: {{4, 5, 6}, {1, 2, 3}},
		5: {{1, 4}, {2, 5}, {3, 6}}, 6: {{4, 1}, {5, 2}, {6, 3}}, 7: {{6, 3}, {5, 2}, {4, 1}}, 8: {{3, 6}, {2, 5}, {1, 4}}, 9: {{1, 2, 3}, {4, 5, 6}},
	} {
		p, err := Decode(orientedPNG(data.Bytes(), orientation))
		if err != nil {
			t.Fatal(err)
		}
		got := make([][]uint8, p.Height)
		for y := range got {
			for x := range p.Width {
				got[y] = append(got[y], p.pix[y*p.stride+4*x])
			}
		}
		if !slices.EqualFunc(got, want, slices.Equal) {
			t.Errorf("orientation %d: %v, want %v", orientation, got, want)
		}
	}
}

// orientedPNG puts an orientation behind the header of a PNG.
func orientedPNG(file []byte, orientation uint16) []byte {
	const header = 8 + 12 + 13
	body := []byte("eXIfMM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01")
	body = append(binary.BigEndian.AppendUint16(body, orientation), make([]byte, 6)...)
	chunk := append(binary.BigEndian.AppendUint32(nil, uint32(len(body)-4)), body...)
	chunk = binary.BigEndian.AppendUint32(chunk, crc32.ChecksumIEEE(body))
	return slices.Concat(file[:header], chunk, file[header:])
}
