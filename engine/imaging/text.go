package imaging

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"unicode/utf8"
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

	maxKey   = 79      // the standard's
	maxValue = 1 << 20 // what readers such as PIL accept
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

// ReadText gives the texts of a PNG in the order of the file, whoever wrote it. Compressed ones
// are left out. Errors are an Error.
func ReadText(data []byte) ([]Text, error) {
	fail := func(expected, got string) ([]Text, error) {
		return nil, &Error{Subject: "png", Expected: expected, Got: got}
	}
	rest, ok := bytes.CutPrefix(data, []byte(pngSignature))
	if !ok {
		return fail("the signature of a PNG", fmt.Sprintf("%.8q", data))
	}
	var texts []Text
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
		switch kind {
		case "IEND":
			return texts, nil
		case "tEXt":
			if key, value, ok := bytes.Cut(body, []byte{0}); ok {
				texts = append(texts, Text{Key: fromLatin1(key), Value: fromLatin1(value)})
			}
		case "iTXt":
			if t, ok := parseInternational(body); ok {
				texts = append(texts, t)
			}
		}
	}
}

// parseInternational reads the body of an iTXt chunk: keyword, NUL, compression flag and method,
// language, NUL, translated keyword, NUL, text.
func parseInternational(body []byte) (Text, bool) {
	key, rest, ok := bytes.Cut(body, []byte{0})
	if !ok || len(rest) < 2 || rest[0] != 0 {
		return Text{}, false
	}
	_, rest, ok = bytes.Cut(rest[2:], []byte{0})
	if !ok {
		return Text{}, false
	}
	_, value, ok := bytes.Cut(rest, []byte{0})
	return Text{Key: fromLatin1(key), Value: string(value)}, ok && utf8.Valid(value)
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
