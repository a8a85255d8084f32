// Package exif reads from image files how the picture in them is to be turned.
package exif

import (
	"bytes"
	"encoding/binary"
)

// Upright is the orientation of a picture that is stored as it is seen.
const Upright = 1

const (
	tagOrientation = 0x0112
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
	var order binary.ByteOrder = binary.BigEndian
	switch {
	case bytes.HasPrefix(tiff, []byte("II*\x00")):
		order = binary.LittleEndian
	case !bytes.HasPrefix(tiff, []byte("MM\x00*")):
		return 0
	}
	if len(tiff) < 8 {
		return 0
	}
	at := uint64(order.Uint32(tiff[4:]))
	if at+2 > uint64(len(tiff)) {
		return 0
	}
	entries := tiff[at+2:]
	for range order.Uint16(tiff[at:]) {
		if len(entries) < 12 {
			return 0
		}
		if order.Uint16(entries) == tagOrientation {
			if order.Uint16(entries[2:]) == typeLong {
				return int(order.Uint32(entries[8:]))
			}
			return int(order.Uint16(entries[8:]))
		}
		entries = entries[12:]
	}
	return 0
}
