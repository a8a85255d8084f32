package stage

import "fmt"

// ImageFormat is a file format for images.
type ImageFormat uint8

// The formats. PNG is the default and the only one that carries text.
const (
	PNG ImageFormat = iota
	JPEG
	WebP
)

// ImageFormats lists the formats.
func ImageFormats() []ImageFormat { return []ImageFormat{PNG, JPEG, WebP} }

// String is the format's name in requests.
func (f ImageFormat) String() string {
	switch f {
	case PNG:
		return "png"
	case JPEG:
		return "jpeg"
	case WebP:
		return "webp"
	}
	return fmt.Sprintf("ImageFormat(%d)", uint8(f))
}

// MIMEType is the format's name on the web.
func (f ImageFormat) MIMEType() string { return "image/" + f.String() }

// ParseImageFormat is the inverse of String; the empty string is PNG.
func ParseImageFormat(name string) (ImageFormat, bool) {
	if name == "" {
		return PNG, true
	}
	for _, f := range ImageFormats() {
		if f.String() == name {
			return f, true
		}
	}
	return 0, false
}

// DecodeRequest is one latent to make an image file of.
type DecodeRequest struct {
	Model   string
	Latent  Latent
	Format  ImageFormat
	Quality int // of JPEG files, 1 to 100; 0 takes 90
	Text    []ImageText
}

// ImageText is a keyword of 1 to 79 Latin-1 characters and its value, embedded in PNG files.
type ImageText struct {
	Key, Value string
}

// Image is an encoded image file.
type Image struct {
	Format            ImageFormat
	WidthPx, HeightPx int
	Data              []byte
}

// EncodeImageRequest is an image file to make a latent of.
type EncodeImageRequest struct {
	Model string
	Data  []byte
}
