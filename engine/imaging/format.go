package imaging

import (
	"fmt"
	"strings"
)

// Format is an image file format.
type Format uint8

// The formats this package reads and writes.
const (
	PNG Format = iota + 1
	JPEG
	WEBP
)

var formats = [...]struct{ name, mime, ext string }{
	PNG:  {"png", "image/png", ".png"},
	JPEG: {"jpeg", "image/jpeg", ".jpg"},
	WEBP: {"webp", "image/webp", ".webp"},
}

// ParseFormat reads "png", "jpeg", "jpg" or "webp" in any case. The error is an Error that lists
// them.
func ParseFormat(name string) (Format, error) {
	switch strings.ToLower(name) {
	case "png":
		return PNG, nil
	case "jpeg", "jpg":
		return JPEG, nil
	case "webp":
		return WEBP, nil
	}
	return 0, &Error{Subject: "format", Expected: "png, jpeg, jpg or webp", Got: fmt.Sprintf("%.40q", name)}
}

// String is the name ParseFormat reads.
func (f Format) String() string {
	if f.valid() {
		return formats[f].name
	}
	return fmt.Sprintf("Format(%d)", uint8(f))
}

// MIME is the media type, "image/png"; empty for a Format that is none.
func (f Format) MIME() string {
	if f.valid() {
		return formats[f].mime
	}
	return ""
}

// Ext is the usual file name extension with its dot, ".jpg"; empty for a Format that is none.
func (f Format) Ext() string {
	if f.valid() {
		return formats[f].ext
	}
	return ""
}

func (f Format) valid() bool { return f >= PNG && int(f) < len(formats) }
