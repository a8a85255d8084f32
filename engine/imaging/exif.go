package imaging

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"unicode/utf16"
)

// commentKey is the key of the Text that JPEG and WebP carry, as Exif's UserComment: where other programs write and
// look for the parameters of an image.
const commentKey = "parameters"

const (
	unicodeComment = "UNICODE\x00" // what says that a UserComment is UTF-16
	exifPrefix     = "Exif\x00\x00"

	ifdEntry       = 12 // bytes of an entry: tag, type, count, and the value or where it is
	tagExif        = 0x8769
	tagUserComment = 0x9286
	typeLong       = 4
	typeUndefined  = 7

	// maxComment is the most bytes of a UserComment in UTF-16: a JPEG segment has 64 KiB, for its length, the prefix and the
	// directories as well.
	maxComment = 1<<16 - 1 - 2 - len(exifPrefix) - commentAt - len(unicodeComment)
	// commentAt is where the comment begins: behind the header and two directories of one entry each.
	commentAt = 8 + 2*(2+ifdEntry+4)
)

// exifOf is the Exif block that carries the text of commentKey: a big-endian TIFF with nothing but the comment. It is nil
// where there is no such text; of several the last counts.
func exifOf(texts []Text) ([]byte, error) {
	var value *string
	for i := range texts {
		if texts[i].Key == commentKey {
			value = &texts[i].Value
		}
	}
	if value == nil {
		return nil, nil
	}
	comment := []byte(unicodeComment)
	for _, unit := range utf16.Encode([]rune(*value)) {
		comment = binary.BigEndian.AppendUint16(comment, unit)
	}
	if n := len(comment) - len(unicodeComment); n > maxComment {
		return nil, &Error{
			Subject: fmt.Sprintf("text of %q", commentKey), Expected: fmt.Sprintf("at most %d bytes in UTF-16, for JPEG and WebP", maxComment),
			Got: fmt.Sprintf("%d bytes: %.40q", n, *value),
		}
	}
	at := uint32(8)
	out := binary.BigEndian.AppendUint32([]byte("MM\x00*"), at)
	directory := func(tag, kind uint16, count, value uint32) {
		out = binary.BigEndian.AppendUint16(out, 1)
		out = binary.BigEndian.AppendUint16(out, tag)
		out = binary.BigEndian.AppendUint16(out, kind)
		out = binary.BigEndian.AppendUint32(out, count)
		out = binary.BigEndian.AppendUint32(out, value)
		out = binary.BigEndian.AppendUint32(out, 0) // no directory follows
	}
	directory(tagExif, typeLong, 1, at+2+ifdEntry+4)
	directory(tagUserComment, typeUndefined, uint32(len(comment)), commentAt)
	return append(out, comment...), nil
}

// withJPEGExif puts an Exif block behind the first marker of a JPEG.
func withJPEGExif(file, exif []byte) []byte {
	segment := binary.BigEndian.AppendUint16([]byte("\xff\xe1"), uint16(2+len(exifPrefix)+len(exif)))
	return bytes.Join([][]byte{file[:2], segment, []byte(exifPrefix), exif, file[2:]}, nil)
}

// riffHeader is the head of a WebP: "RIFF", the size of what follows, "WEBP".
const riffHeader = 12

// withWebPExif makes a WebP of one chunk an extended one that carries an Exif block.
func withWebPExif(file, exif []byte, size image.Point) []byte {
	const hasExif = 0x08
	extended := []byte{hasExif, 0, 0, 0}
	for _, side := range []int{size.X, size.Y} {
		n := side - 1
		extended = append(extended, byte(n), byte(n>>8), byte(n>>16))
	}
	body := appendRIFF([]byte("WEBP"), "VP8X", extended)
	body = appendRIFF(append(body, file[riffHeader:]...), "EXIF", exif)
	return appendRIFF(nil, "RIFF", body)
}

// appendRIFF appends a chunk, padded to an even length.
func appendRIFF(out []byte, kind string, body []byte) []byte {
	out = binary.LittleEndian.AppendUint32(append(out, kind...), uint32(len(body)))
	return append(append(out, body...), make([]byte, len(body)%2)...)
}
