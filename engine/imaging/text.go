package imaging

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/triptych-serving/triptych/internal/exif"
)

// Text is a note kept inside a file. The key "parameters" is the one other programs look for.
type Text struct {
	Key   string // 1 to 79 Latin-1 characters, no spaces at the ends or in a row
	Value string // at most 1 MiB of UTF-8 without NUL
}

const (
	pngSignature = "\x89PNG\r\n\x1a\n"
	// afterHeader is the end of the signature and of the first chunk, whose size is fixed.
	afterHeader = len(pngSignature) + chunkOverhead + 13
	// chunkOverhead is a chunk's length, type and checksum, in bytes.
	chunkOverhead = 12

	maxKey   = 79       // the standard's
	maxValue = 1 << 20  // what readers such as PIL accept
	maxTexts = 16 << 20 // of all texts of a file that is read
)

// textChunks are the PNG chunks for texts: tEXt where Latin-1 is enough, otherwise iTXt.
func textChunks(texts []Text) ([]byte, error) {
	var out []byte
	for _, t := range texts {
		if len(t.Value) > maxValue || !utf8.ValidString(t.Value) || strings.ContainsRune(t.Value, 0) {
			return nil, &Error{Subject: fmt.Sprintf("text of %.80q", t.Key), Expected: "at most 1 MiB of UTF-8 without NUL", Got: fmt.Sprintf("%d bytes: %.40q", len(t.Value), t.Value)}
		}
		key, ok := latin1(t.Key)
		if !ok || !isKeyword(key) {
			return nil, &Error{
				Subject: "text keyword", Got: fmt.Sprintf("%.100q", t.Key),
				Expected: "1 to 79 printable Latin-1 characters without spaces at the ends or in a row",
			}
		}
		if value, ok := latin1(t.Value); ok {
			out = appendChunk(out, "tEXt", slices.Concat(key, []byte{0}, value))
		} else { // NUL, not compressed, method 0, no language, no translated keyword
			out = appendChunk(out, "iTXt", slices.Concat(key, make([]byte, 5), []byte(t.Value)))
		}
	}
	return out, nil
}

// ReadText gives the texts of a PNG in the order of the file, whoever wrote it, and of a JPEG or WebP the comment in its Exif
// under the key "parameters". What is no text by the standard is left out; one that is larger than 1 MiB when it is inflated, and more
// than 16 MiB of all, are an error. Errors are an Error.
func ReadText(data []byte) ([]Text, error) {
	format, ok := sniff(data)
	if !ok {
		return nil, &Error{Subject: "image", Expected: "a PNG, JPEG or WebP", Got: fmt.Sprintf("data that begins with %.12q", data)}
	}
	var texts []Text
	var err error
	if format == PNG {
		texts, err = pngTexts(data)
	}
	if err != nil || slices.ContainsFunc(texts, func(t Text) bool { return t.Key == commentKey }) {
		return texts, err
	}
	if comment, ok := exif.UserComment(data); ok {
		texts = append(texts, Text{commentKey, comment})
	}
	return texts, nil
}

func pngTexts(data []byte) (texts []Text, err error) {
	fail := func(expected, got string) ([]Text, error) {
		return nil, &Error{Subject: "png", Expected: expected, Got: got}
	}
	rest, left := data[len(pngSignature):], maxTexts
	for {
		if len(rest) < chunkOverhead {
			return fail("chunks up to IEND", "the end of the data")
		}
		n, kind := int64(binary.BigEndian.Uint32(rest)), string(rest[4:8])
		if n > int64(len(rest)-chunkOverhead) {
			return fail(fmt.Sprintf("%d bytes of chunk %q", n, kind), "the end of the data")
		}
		body, sum := rest[8:8+n], binary.BigEndian.Uint32(rest[8+n:])
		if got := crc32.ChecksumIEEE(rest[4 : 8+n]); got != sum {
			return fail(fmt.Sprintf("checksum %08x of chunk %q", sum, kind), fmt.Sprintf("%08x", got))
		}
		rest = rest[n+chunkOverhead:]
		var t Text
		ok := false
		switch kind {
		case "IEND":
			return texts, nil
		case "tEXt":
			var key, value []byte
			if key, value, ok = bytes.Cut(body, []byte{0}); ok {
				t = Text{Key: fromLatin1(key), Value: fromLatin1(value)}
			}
		case "zTXt":
			t, ok, err = parseCompressed(body)
		case "iTXt":
			t, ok, err = parseInternational(body)
		}
		if err != nil {
			return nil, err
		}
		if left -= len(t.Key) + len(t.Value); left < 0 {
			return fail(fmt.Sprintf("at most %d bytes of texts", maxTexts), "more")
		}
		if ok {
			texts = append(texts, t)
		}
	}
}

// parseCompressed reads the body of a zTXt chunk: keyword, NUL, method, compressed text.
func parseCompressed(body []byte) (t Text, ok bool, err error) {
	key, rest, ok := bytes.Cut(body, []byte{0})
	if !ok || len(rest) < 1 || rest[0] != 0 {
		return t, false, nil
	}
	t.Key = fromLatin1(key)
	value, ok, err := inflate(t.Key, rest[1:])
	t.Value = fromLatin1(value)
	return t, ok, err
}

// parseInternational reads the body of an iTXt chunk: keyword, NUL, compression flag and method,
// language, NUL, translated keyword, NUL, text.
func parseInternational(body []byte) (t Text, ok bool, err error) {
	key, rest, ok := bytes.Cut(body, []byte{0})
	if !ok || len(rest) < 2 || rest[0] > 1 || rest[0] == 1 && rest[1] != 0 {
		return t, false, nil
	}
	compressed := rest[0] == 1
	_, rest, ok = bytes.Cut(rest[2:], []byte{0})
	if !ok {
		return t, false, nil
	}
	_, value, ok := bytes.Cut(rest, []byte{0})
	t.Key = fromLatin1(key)
	if ok && compressed {
		value, ok, err = inflate(t.Key, value)
	}
	t.Value = string(value)
	return t, ok && utf8.Valid(value), err
}

// inflate is a compressed text; ok is false of one that is damaged. The error is of one that is too large.
func inflate(key string, compressed []byte) (value []byte, ok bool, err error) {
	r, err := zlib.NewReader(bytes.NewReader(compressed))
	if err != nil {
		return nil, false, nil
	}
	value, err = io.ReadAll(io.LimitReader(r, maxValue+1))
	if len(value) > maxValue {
		return nil, false, &Error{Subject: fmt.Sprintf("text of %.80q", key), Expected: "at most 1 MiB", Got: "more when it is inflated"}
	}
	return value, err == nil, nil
}

func isKeyword(key []byte) bool {
	if len(key) < 1 || len(key) > maxKey || key[0] == ' ' || key[len(key)-1] == ' ' || bytes.Contains(key, []byte("  ")) {
		return false
	}
	for _, c := range key {
		if c < ' ' || (c > '~' && c < 0xa1) { // control characters and the space that does not break
			return false
		}
	}
	return true
}

// latin1 encodes text in ISO 8859-1; ok is false when that has no code for a character, as for
// the one that stands for bytes that are not UTF-8.
func latin1(text string) (encoded []byte, ok bool) {
	for _, r := range text {
		if r > 0xff {
			return nil, false
		}
		encoded = append(encoded, byte(r))
	}
	return encoded, true
}

func fromLatin1(encoded []byte) string {
	var b strings.Builder
	for _, c := range encoded {
		b.WriteRune(rune(c))
	}
	return b.String()
}

func appendChunk(out []byte, kind string, body []byte) []byte {
	out = binary.BigEndian.AppendUint32(out, uint32(len(body)))
	start := len(out)
	out = append(append(out, kind...), body...)
	return binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(out[start:]))
}
