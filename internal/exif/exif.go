// Package exif reads from image files how the picture in them is to be turned, and the comment that goes with it.
package exif

import (
	"bytes"
	"encoding/binary"
	"unicode/utf16"
	"unicode/utf8"
)

// Upright is the orientation of a picture that is stored as it is seen.
const Upright = 1

const (
	tagOrientation = 0x0112
	tagExif        = 0x8769 // where the directory of Exif's own tags is
	tagUserComment = 0x9286
	typeLong       = 4 // other writers take the SHORT that Exif prescribes
)

// Orientation is Exif's Orientation, 1 to 8, of a PNG, JPEG or WebP: Upright where the file tells none. From 5 on width and
// height change places.
func Orientation(file []byte) int {
	if o := orientation(block(file)); o >= 1 && o <= 8 {
		return o
	}
	return Upright
}

// block is the Exif block of a file, a TIFF, or nil.
func block(file []byte) []byte {
	switch {
	case bytes.HasPrefix(file, []byte("\xff\xd8")):
		return ofJPEG(file[2:])
	case bytes.HasPrefix(file, []byte("\x89PNG\r\n\x1a\n")):
		return chunk(file[8:], "eXIf", binary.BigEndian, 0, 12)
	case len(file) >= 12 && string(file[8:12]) == "WEBP":
		found := chunk(file[12:], "EXIF", binary.LittleEndian, 4, 8)
		return bytes.TrimPrefix(found, []byte("Exif\x00\x00"))
	}
	return nil
}

// ofJPEG looks through the segments before the picture's data.
func ofJPEG(rest []byte) []byte {
	for len(rest) >= 4 && rest[0] == 0xff && rest[1] != 0xda {
		if rest[1] == 0xff { // padding
			rest = rest[1:]
			continue
		}
		size := int(binary.BigEndian.Uint16(rest[2:]))
		if size < 2 || size > len(rest)-2 {
			return nil
		}
		if found, ok := bytes.CutPrefix(rest[4:2+size], []byte("Exif\x00\x00")); ok && rest[1] == 0xe1 {
			return found
		}
		rest = rest[2+size:]
	}
	return nil
}

// chunk is the body of the first chunk of a kind. A chunk begins with kind and length, of 4 bytes each, and has overhead bytes
// beside its body.
func chunk(rest []byte, kind string, order binary.ByteOrder, lengthAt, overhead uint64) []byte {
	for uint64(len(rest)) >= overhead {
		size := uint64(order.Uint32(rest[lengthAt:]))
		if size > uint64(len(rest))-overhead {
			return nil
		}
		if string(rest[4-lengthAt:][:4]) == kind {
			return rest[8:][:size]
		}
		size += overhead
		if overhead == 8 { // RIFF pads to an even length
			size += size % 2
		}
		rest = rest[min(size, uint64(len(rest))):]
	}
	return nil
}

func orientation(tiff []byte) int {
	order := byteOrder(tiff)
	if order == nil {
		return 0
	}
	found := entry(tiff, order, order.Uint32(tiff[4:]), tagOrientation)
	switch {
	case found == nil:
		return 0
	case order.Uint16(found[2:]) == typeLong:
		return int(order.Uint32(found[8:]))
	}
	return int(order.Uint16(found[8:]))
}

// UserComment is Exif's UserComment of a PNG, JPEG or WebP, in UNICODE, ASCII or UTF-8 without a name; ok is false where the file has
// none.
func UserComment(file []byte) (text string, ok bool) {
	tiff := block(file)
	order := byteOrder(tiff)
	if order == nil {
		return "", false
	}
	directory := entry(tiff, order, order.Uint32(tiff[4:]), tagExif)
	if directory == nil {
		return "", false
	}
	comment := entry(tiff, order, order.Uint32(directory[8:]), tagUserComment)
	if comment == nil {
		return "", false
	}
	size, at := uint64(order.Uint32(comment[4:])), uint64(order.Uint32(comment[8:]))
	if at+size > uint64(len(tiff)) {
		return "", false
	}
	body := tiff[at : at+size]
	if units, ok := bytes.CutPrefix(body, []byte("UNICODE\x00")); ok {
		return utf16Text(units, order), true
	}
	for _, name := range []string{"ASCII\x00\x00\x00", "\x00\x00\x00\x00\x00\x00\x00\x00"} {
		if plain, ok := bytes.CutPrefix(body, []byte(name)); ok {
			return string(plain), utf8.Valid(plain)
		}
	}
	return "", false
}

// utf16Text decodes a comment. Some programs write it in big-endian order whatever that of the block is, so that most of its letters
// would be beyond Latin ones.
func utf16Text(units []byte, order binary.ByteOrder) string {
	var decoded []uint16
	latin, swapped := 0, 0
	for ; len(units) >= 2; units = units[2:] {
		decoded = append(decoded, order.Uint16(units))
		switch {
		case order.Uint16(units)>>8 == 0:
			latin++
		case order.Uint16(units)&0xff == 0:
			swapped++
		}
	}
	if swapped > latin {
		for i, u := range decoded {
			decoded[i] = u<<8 | u>>8
		}
	}
	return string(utf16.Decode(decoded))
}

// byteOrder is that of a TIFF, nil of anything else.
func byteOrder(tiff []byte) binary.ByteOrder {
	switch {
	case len(tiff) < 8:
	case bytes.HasPrefix(tiff, []byte("II*\x00")):
		return binary.LittleEndian
	case bytes.HasPrefix(tiff, []byte("MM\x00*")):
		return binary.BigEndian
	}
	return nil
}

// entry is the one of a tag in the directory at an offset: tag, type, count, and the value or where it is; nil if there is none.
func entry(tiff []byte, order binary.ByteOrder, directory uint32, tag uint16) []byte {
	at := uint64(directory)
	if at+2 > uint64(len(tiff)) {
		return nil
	}
	entries := tiff[at+2:]
	for range order.Uint16(tiff[at:]) {
		if len(entries) < 12 {
			return nil
		}
		if order.Uint16(entries) == tag {
			return entries[:12]
		}
		entries = entries[12:]
	}
	return nil
}
