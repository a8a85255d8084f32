package imaging

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"testing"
)

// pattern is a picture that a formula makes, in Python as here.
func pattern(w, h int) Pixels {
	p := Pixels{Width: w, Height: h, pix: make([]uint8, 4*w*h), stride: 4 * w}
	for i := range 3 * w * h {
		x, y, c := i/3%w, i/3/w, i%3
		v := (x*x*37 + y*53*(c+1) + x*y*91 + c*29) % 256
		if (x+y)%5 == 0 {
			v = 255 * ((x + c) % 2)
		}
		p.pix[i/3*4+c] = uint8(v)
	}
	return p
}

func (p Pixels) rgb() (out []uint8) {
	for y := range p.Height {
		for x := range p.Width {
			out = append(out, p.pix[y*p.stride+4*x:][:3]...)
		}
	}
	return out
}

// TestResize: what Pillow 13.0.0 makes of the same pictures by Image.resize(size, LANCZOS), to the bit; of large ones the
// CRC-32 of it.
func TestResize(t *testing.T) {
	check(t, Pixels.Resize, []resized{
		{7, 5, 3, 2, "559d637a9a738c79819c8e68679275789e77"},
		{7, 5, 4, 5, "14ab2d6684a87957a5942ab26d48a09aab2a40ff1b8ce2334df05c93a69cb800c1b64cc5bc722629ef423cc48665a761eb6bdb65224fae9a8c45ca38"},
		{7, 5, 7, 3, "11d2675f206093b88a719b602fa948d56ab45b8a4a6aac7c819d4653fe3fba6fc04f82778e5e59b7a7c3c39966ed44b51f8815418a6e96d3bd905d4612fa51"},
		{3, 2, 5, 4, "00ff0000c9000c4c606b78cba6bcf709e835189c3947345e7d7b9395ccad1cb2b04e628f93155a947f487fe24b2b89ff7735d0ce0058a682106ef201"},
		{13, 9, 2, 1, "7c827a877c84"},
		{1, 1, 3, 3, "00ff0000ff0000ff0000ff0000ff0000ff0000ff0000ff0000ff00"},
		{90, 70, 88, 68, "1b03a3c7"},
		{64, 48, 200, 120, "deb757dc"},
		{333, 100, 41, 257, "310091b7"},
	})
}

// TestBicubic: the same by Image.resize(size, BICUBIC).
func TestBicubic(t *testing.T) {
	check(t, Pixels.Bicubic, []resized{
		{7, 5, 3, 2, "579765789a728d7d7e9c8d69669477769b75"},
		{7, 5, 4, 5, "12ac2c6b86a87457a2912cb06e4b9f95af2e42fa1a8de43453e96290a699b507bebb47cab8732a2be73c3dc98862a965e86bd8692951ac988c43c935"},
		{3, 2, 5, 4, "00ff0000c10f1847606b82b69fb6e609e82f1ba33a43365e77829295c1b022a8b451669197135a90844982d8452f87f76c48bcc202589c842578e30f"},
		{13, 9, 2, 1, "7c837a867d83"},
		{90, 70, 41, 32, "cb9f4a48"},
		{64, 48, 42, 32, "56cd6283"},
		{100, 333, 224, 745, "738b302f"},
	})
}

// TestCrop: a part of an image, also when it is resized or read again.
func TestCrop(t *testing.T) {
	p, want := pattern(7, 5), []uint8(nil)
	for y := 1; y < 4; y++ {
		for x := 2; x < 6; x++ {
			want = append(want, p.pix[y*p.stride+4*x:][:3]...)
		}
	}
	if got := p.Crop(2, 1, 4, 3); !bytes.Equal(got.rgb(), want) || got.Width != 4 || got.Height != 3 {
		t.Errorf("%v, want %v", got.rgb(), want)
	}
	if got := p.Crop(3, 2, 4, 3).Unit(); len(got) != 36 || got[35] != float32(p.pix[4*p.stride+4*6+2])/255 {
		t.Errorf("the last corner is %v", got)
	}
}

type resized struct {
	w, h, width, height int
	want                string
}

func check(t *testing.T, resize func(p Pixels, width, height int) Pixels, cases []resized) {
	t.Helper()
	for _, c := range cases {
		got := resize(pattern(c.w, c.h), c.width, c.height).rgb()
		text := hex.EncodeToString(got)
		if len(c.want) == 8 {
			text = fmt.Sprintf("%08x", crc32.ChecksumIEEE(got))
		}
		if text != c.want || len(got) != 3*c.width*c.height {
			t.Errorf("%dx%d to %dx%d: %s, want %s", c.w, c.h, c.width, c.height, text, c.want)
		}
	}
}

// TestGrey: the same of Image.convert("L").
func TestGrey(t *testing.T) {
	p := pattern(7, 5)
	var got []uint8
	for i := range p.Width * p.Height {
		got = append(got, p.Grey(i%p.Width, i/p.Width))
	}
	const want = "963dac6568694c7844a5b996bfb1bb96bb694d509d689e969baf5ab5c8693459c88196"
	if text := hex.EncodeToString(got); text != want {
		t.Errorf("%s, want %s", text, want)
	}
}
